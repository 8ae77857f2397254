//! What backends declare beside chats: the same bytes there and back, judged by what each dialect says of an answer.

use serde_json::{Value, json};

use super::{
    Gateway, LLAMA_70B, eventually,
    http::{Recorder, Request, Response, answer},
    one_backend,
};

fn start(test: &str, apis: &str) -> (Recorder, Gateway) {
    let backend = Recorder::start(LLAMA_70B);
    let gateway = Gateway::start(test, &declaring(&one_backend(&backend.url()), apis));
    (backend, gateway)
}

fn declaring(fleet: &str, apis: &str) -> String {
    fleet.replace("    engine: vllm\n", &format!("    engine: vllm\n    apis: [{apis}]\n"))
}

/// The request log's line about an answer.
fn line(gateway: &Gateway, answer: &Response) -> Value {
    let id = answer.header("x-outrigger-request-id").unwrap();
    let find = || gateway.log().into_iter().find(|line| line["request_id"] == id);
    eventually("a line in the request log", || find().is_some());
    find().unwrap()
}

/// Typed events as they are written, each under its name.
fn events(all: &[Value]) -> String {
    let event = |e: &Value| format!("event: {}\ndata: {e}\n\n", e["type"].as_str().unwrap());
    all.iter().map(event).collect()
}

fn stream(text: &str) -> Vec<u8> {
    answer("200 OK", "text/event-stream", text)
}

fn response(model: &str, end: &str) -> Vec<Value> {
    let whole =
        |status: &str, usage: Value| json!({ "id": "resp_1", "model": model, "status": status, "usage": usage });
    let usage = json!({ "input_tokens": 12, "output_tokens": 2, "input_tokens_details": { "cached_tokens": 4 } });
    vec![
        json!({ "type": "response.created", "response": whole("in_progress", Value::Null), "sequence_number": 0 }),
        json!({ "type": "response.output_text.delta", "delta": "a", "item_id": "m", "sequence_number": 1 }),
        json!({ "type": "response.output_text.delta", "delta": "b", "item_id": "m", "sequence_number": 2 }),
        json!({ "type": end, "response": whole("completed", usage), "sequence_number": 3 }),
    ]
}

fn message(model: &str) -> Vec<Value> {
    let usage = json!({ "input_tokens": 12, "output_tokens": 1 });
    vec![
        json!({ "type": "message_start", "message": { "id": "msg_1", "model": model, "usage": usage } }),
        json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
        json!({ "type": "ping" }),
        json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": "hi" } }),
        json!({ "type": "content_block_stop", "index": 0 }),
        json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" }, "usage": { "output_tokens": 2 } }),
        json!({ "type": "message_stop" }),
    ]
}

const RESPONSES: &str = r#"{"model":"llama","input":"hello","stream":true,"max_output_tokens":9,"store":false}"#;
const MESSAGES: &str = r#"{"model":"llama","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}],"metadata":{"user_id":"u"}}"#;

#[test]
fn a_streamed_response_goes_through_as_it_came() {
    let (backend, gateway) = start("apis_responses", "chat, responses");
    for tail in ["", "data: [DONE]\n\n"] {
        backend.answers(stream(&(events(&response(LLAMA_70B, "response.completed")) + tail)));
        let got = gateway.send(&Request::post("/v1/responses", RESPONSES));
        assert_eq!(got.status, 200, "{}", got.text());
        assert_eq!(got.text(), events(&response("llama", "response.completed")) + tail);
        let sent = backend.last();
        assert!(sent.head.starts_with("POST /v1/responses "), "{}", sent.head);
        let renamed = RESPONSES.replace("\"llama\"", &format!("\"{LLAMA_70B}\""));
        assert_eq!(String::from_utf8_lossy(&sent.body), renamed);
        let line = line(&gateway, &got);
        assert_eq!(
            (&line["outcome"], &line["prompt_tokens"], &line["output_tokens"], &line["cached_tokens"]),
            (&json!("ok"), &json!(12), &json!(2), &json!(4))
        );
    }
}

#[test]
fn a_streamed_message_goes_through_as_it_came() {
    let (backend, gateway) = start("apis_messages", "messages");
    backend.answers(stream(&events(&message(LLAMA_70B))));
    let request = Request::post("/v1/messages", MESSAGES).header("anthropic-version", "2023-06-01");
    let got = gateway.send(&request);
    assert_eq!(got.text(), events(&message("llama")));
    assert_eq!(backend.last().header("anthropic-version"), Some("2023-06-01"));
    let line = line(&gateway, &got);
    assert_eq!(
        (&line["outcome"], &line["prompt_tokens"], &line["output_tokens"]),
        (&json!("ok"), &json!(12), &json!(2))
    );
}

#[test]
fn an_answer_that_breaks_ends_with_an_error_of_its_dialect() {
    let (backend, gateway) = start("apis_broken", "responses, messages");
    for (path, body, all) in [
        ("/v1/responses", RESPONSES, response(LLAMA_70B, "response.completed")),
        ("/v1/messages", MESSAGES, message(LLAMA_70B)),
    ] {
        backend.answers(stream(&events(&all[..all.len() - 1])));
        let got = gateway.send(&Request::post(path, body));
        let text = got.text();
        let last = text.trim_end().rsplit("\n\n").next().unwrap();
        let data = last.strip_prefix("event: error\ndata: ").unwrap_or_else(|| panic!("{path}: {text}"));
        let error: Value = serde_json::from_str(data).unwrap();
        assert_eq!((&error["type"], &error["error"]["code"]), (&json!("error"), &json!("upstream_cut")), "{path}");
        let line = line(&gateway, &got);
        assert_eq!(line["outcome"], "cut", "{path}");
    }
}

/// A failure before any content is tried elsewhere, also where it comes as an event under a 200.
#[test]
fn a_failed_response_fails_over() {
    let (bad, good) = (Recorder::start(LLAMA_70B), Recorder::start(LLAMA_70B));
    let created = response(LLAMA_70B, "response.completed").remove(0);
    let failed =
        json!({ "type": "response.failed", "response": { "error": { "code": "server_error", "message": "broke" } } });
    bad.answers(stream(&events(&[created, failed])));
    good.answers(stream(&events(&response(LLAMA_70B, "response.completed"))));
    let one = declaring(&one_backend(&bad.url()), "responses");
    let other = format!(
        "  good:\n    cloud: c\n    engine: vllm\n    apis: [responses]\n    url: {}/v1\n    model: {LLAMA_70B}\nmodels:",
        good.url()
    );
    let fleet =
        one.replace("models:", &other).replace("- split: { b: 1 }", "- split: { b: 1 }\n      - split: { good: 1 }");
    let gateway = Gateway::start("apis_failover", &fleet);
    let got = gateway.send(&Request::post("/v1/responses", RESPONSES));
    assert_eq!(got.text(), events(&response("llama", "response.completed")));
    assert_eq!(got.header("x-outrigger-backend"), Some("good"));
    assert_eq!(got.header("x-outrigger-attempts"), Some("2"));
    // Two backends keep two different histories.
    let stored = r#"{"model":"llama","input":"and then?","previous_response_id":"resp_1"}"#;
    let got = gateway.send(&Request::post("/v1/responses", stored));
    assert_eq!((got.status, &got.json()["error"]["code"]), (400, &json!("stored_state_not_shared")));
    assert_eq!(got.json()["error"]["param"], "previous_response_id");
}

#[test]
fn what_one_backend_keeps_is_reached_where_there_is_one() {
    let (backend, gateway) = start("apis_stored", "responses");
    let whole = json!({ "id": "resp_2", "model": LLAMA_70B, "status": "completed", "usage": { "input_tokens": 5, "output_tokens": 1 } });
    backend.answers(answer("200 OK", "application/json", &whole.to_string()));
    let stored = r#"{"model":"llama","input":"and then?","previous_response_id":"resp_1"}"#;
    let got = gateway.send(&Request::post("/v1/responses", stored));
    assert_eq!((got.status, &got.json()["model"]), (200, &json!("llama")));
    let line = line(&gateway, &got);
    assert_eq!((&line["prompt_tokens"], &line["output_tokens"]), (&json!(5), &json!(1)));
}

#[test]
fn an_api_that_no_backend_declares_is_refused_with_what_to_do() {
    let (backend, gateway) = start("apis_undeclared", "chat");
    let before = backend.all().len();
    for (path, body) in
        [("/v1/responses", RESPONSES), ("/v1/messages", MESSAGES), ("/v1/rerank", r#"{"model":"llama"}"#)]
    {
        let got = gateway.send(&Request::post(path, body));
        assert_eq!((got.status, &got.json()["error"]["code"]), (404, &json!("lacks_api")), "{path}");
        assert!(got.json()["error"]["message"].as_str().unwrap().contains("`apis`"), "{path}");
        assert_eq!(got.json()["type"], if path == "/v1/messages" { json!("error") } else { Value::Null }, "{path}");
        assert_eq!(got.header("retry-after"), None, "{path}");
    }
    assert!(
        backend.all()[before..]
            .iter()
            .all(|r| r.header("x-outrigger-probe").is_some() || r.head.starts_with("GET /metrics "))
    );
}

#[test]
fn sound_and_pictures_pass_as_they_are() {
    let (backend, gateway) = start("apis_audio", "chat, audio, images");
    let sound: Vec<u8> = (0..=255).cycle().take(5_000).collect();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        sound.len()
    );
    backend.answers([head.as_bytes(), &sound].concat());
    let got = gateway.send(&Request::post("/v1/audio/speech", r#"{"model":"llama","input":"hello","voice":"x"}"#));
    assert_eq!((got.status, got.header("content-type")), (200, Some("audio/mpeg")));
    assert!(got.body == sound, "{} bytes of {}", got.body.len(), sound.len());

    backend.answers(answer("200 OK", "application/json", r#"{"text":"hello"}"#));
    let part = |name: &str, content: &str| {
        format!("--b0\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{content}\r\n")
    };
    let form = |model: &str| part("language", "en") + &part("model", model) + "--b0--\r\n";
    let mut request = Request::post("/v1/audio/transcriptions", form("llama"));
    request.headers[0].1 = "multipart/form-data; boundary=b0".to_owned();
    let got = gateway.send(&request);
    assert_eq!((got.status, got.text().as_str()), (200, r#"{"text":"hello"}"#));
    assert_eq!(String::from_utf8_lossy(&backend.last().body), form(LLAMA_70B));
    assert_eq!(backend.last().header("content-type"), Some("multipart/form-data; boundary=b0"));

    request.body = b"not a form".to_vec();
    let got = gateway.send(&request);
    assert_eq!((got.status, &got.json()["error"]["code"]), (400, &json!("invalid_form")));
}
