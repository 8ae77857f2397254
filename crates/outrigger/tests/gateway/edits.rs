//! What the gateway changes on the way, and that it changes nothing else: byte for byte, at a backend that keeps what
//! it was sent.

use serde_json::{Value, json};

use super::{
    Gateway, LLAMA_70B,
    http::{Recorder, Request, answer, stream_of},
    one_backend,
};

/// A body as a client with a taste of its own writes it: spaces, order, numbers and members that nobody knows.
const BODY: &str = "{ \"temperature\":1.50e-1 ,\n\t\"model\" : \"llama\",\"x_unknown\":{\"b\":1,\"a\":[1.0,null,\"\\u00e9\"]}, \
    \"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"caf\u{e9} \\ud83d\\ude00\"},{\"type\":\"image_url\",\
    \"image_url\":{\"url\":\"data:image/png;base64,iVBORw0KGgo=\",\"detail\":\"low\"}}]}], \"tools\":[{\"type\":\"function\",\
    \"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\",\"properties\":{\"model\":{\"type\":\"string\"}}}}}],\
    \"tool_choice\":\"auto\",\"big\":12345678901234567890123 }  ";

fn start(test: &str) -> (Recorder, Gateway) {
    let backend = Recorder::start(LLAMA_70B);
    let gateway = Gateway::start(test, &one_backend(&backend.url()));
    (backend, gateway)
}

const STREAM: &str = r#"{"model":"llama","messages":[],"stream":true}"#;

/// A stream as vLLM sends it, with a usage chunk at the end.
fn events() -> Vec<String> {
    let chunk = |choices: Value, usage: Value| {
        json!({ "id": "c1", "object": "chat.completion.chunk", "created": 1, "model": LLAMA_70B, "choices": choices, "usage": usage })
            .to_string()
    };
    let choice = |delta: Value, finish: Value| json!([{ "index": 0, "delta": delta, "finish_reason": finish }]);
    vec![
        chunk(choice(json!({ "role": "assistant", "content": "" }), Value::Null), Value::Null),
        chunk(choice(json!({ "content": "one", "x_unknown": 1 }), Value::Null), Value::Null),
        chunk(choice(json!({ "content": " two" }), json!("stop")), Value::Null),
        chunk(json!([]), json!({ "prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11 })),
        "[DONE]".to_owned(),
    ]
}

#[test]
fn a_body_reaches_the_backend_as_it_was_but_for_the_models_name() {
    let (backend, gateway) = start("body_bytes");
    let response = gateway.send(&Request::post("/v1/chat/completions", BODY));
    assert_eq!(response.status, 200, "{}", response.text());
    let expected = BODY.replacen("\"llama\"", &format!("\"{LLAMA_70B}\""), 1);
    assert_eq!(String::from_utf8_lossy(&backend.last().body), expected);
}

#[test]
fn a_stream_is_asked_for_usage_and_nothing_else() {
    let (backend, gateway) = start("stream_bytes");
    backend.answers(stream_of(&events()));
    let renamed = format!("\"{LLAMA_70B}\"");
    for (options, at_the_backend) in [
        ("", ",\"stream_options\":{\"include_usage\":true}"),
        (",\"stream_options\":null", ",\"stream_options\":{\"include_usage\":true}"),
        (",\"stream_options\":{\"include_usage\":true}", ",\"stream_options\":{\"include_usage\":true}"),
        (",\"stream_options\":{\"include_usage\":false}", ",\"stream_options\":{\"include_usage\":true}"),
    ] {
        let body =
            |model: &str, options: &str| format!("{{\"model\":{model},\"messages\":[ ],\"stream\":true{options}}}");
        let response = gateway.send(&Request::post("/v1/chat/completions", body("\"llama\"", options)));
        assert_eq!(response.status, 200, "{options}: {}", response.text());
        assert_eq!(String::from_utf8_lossy(&backend.last().body), body(&renamed, at_the_backend), "{options}");
        let mut expected: Vec<String> = events().iter().map(|e| e.replace(LLAMA_70B, "llama")).collect();
        if !options.contains(":true") {
            expected.remove(3);
        }
        assert_eq!(response.events(), expected, "{options}");
    }
}

/// vLLM says `[DONE]` after an abort and after an error too.
#[test]
fn done_without_a_finish_is_no_success() {
    let (backend, gateway) = start("done_unfinished");
    let mut unfinished = events();
    unfinished.remove(2);
    backend.answers(stream_of(&unfinished));
    let response = gateway.send(&Request::post("/v1/chat/completions", STREAM));
    let got = response.events();
    assert!(!got.iter().any(|event| event == "[DONE]"), "{got:?}");
    let last: Value = serde_json::from_str(got.last().expect("events")).expect("an error event");
    assert_eq!(last["error"]["code"], "upstream_cut", "{got:?}");
}

/// Some servers forget the blank line after the last event.
#[test]
fn done_without_its_blank_line_is_still_the_end() {
    let (backend, gateway) = start("done_unterminated");
    let body: String = events().iter().map(|e| format!("data: {e}\n\n")).collect();
    backend.answers(answer("200 OK", "text/event-stream", body.trim_end()));
    let response = gateway.send(&Request::post("/v1/chat/completions", STREAM));
    assert_eq!(response.events().last().map(String::as_str), Some("[DONE]"), "{}", response.text());
}

#[test]
fn an_answer_comes_back_as_it_was_but_for_the_models_name() {
    let (backend, gateway) = start("answer_bytes");
    let body = format!(
        "{{\"id\":\"x\" , \"model\" : \"{LLAMA_70B}\",\"odd\":1.50,\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\
         \"content\":null,\"tool_calls\":[{{\"id\":\"t\",\"type\":\"function\",\"function\":{{\"name\":\"f\",\"arguments\":\
         \"{{\\\"model\\\":1}}\"}}}}]}},\"finish_reason\":\"tool_calls\"}}]}}\n"
    );
    backend.answers(answer("200 OK", "application/json; charset=utf-8", &body));
    let response = gateway.send(&Request::post("/v1/chat/completions", BODY));
    assert_eq!(response.text(), body.replacen(LLAMA_70B, "llama", 1));
    assert_eq!(response.header("content-type"), Some("application/json; charset=utf-8"));
    let refusal = "{\"error\":{\"message\":\"this prompt is too long\",\"type\":\"BadRequestError\",\"code\":400}}";
    backend.answers(answer("400 Bad Request", "application/json", refusal));
    let response = gateway.send(&Request::post("/v1/chat/completions", BODY));
    assert_eq!((response.status, response.text().as_str()), (400, refusal), "the engine's own words");
}

#[test]
fn headers_go_on_but_for_credentials_and_what_belongs_to_the_connection() {
    let (backend, gateway) = start("headers");
    let kept = [("x-trace", "abc"), ("traceparent", "00-1-2-01"), ("user-agent", "me/1"), ("accept", "*/*")];
    let dropped = [
        ("authorization", "Bearer CANARY"),
        ("proxy-authorization", "Basic CANARY"),
        ("x-api-key", "CANARY"),
        ("api-key", "CANARY"),
        ("cookie", "CANARY"),
        ("te", "trailers"),
        ("keep-alive", "timeout=CANARY"),
        ("upgrade", "CANARY"),
        ("x-hop", "CANARY"),
        ("openai-organization", "CANARY"),
        ("x-session-id", "CANARY"),
        ("x-outrigger-probe", "CANARY"),
    ];
    let mut request = Request::post("/v1/chat/completions", BODY).header("connection", "close, X-Hop");
    for (name, value) in kept.iter().chain(&dropped).chain(&[("accept-encoding", "gzip, br")]) {
        request = request.header(name, value);
    }
    assert_eq!(gateway.send(&request).status, 200);
    let received = backend.last();
    assert!(!received.text().contains("CANARY"), "{}", received.head);
    for (name, value) in kept {
        assert_eq!(received.header(name), Some(value), "{name}");
    }
    assert!(received.head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{}", received.head);
    assert_eq!(received.header("accept-encoding"), Some("identity"));
    assert_eq!(received.header("host"), Some(backend.address.to_string().as_str()));
    for name in ["te", "upgrade", "keep-alive", "transfer-encoding", "connection", "authorization"] {
        assert_eq!(received.header(name), None, "{name}");
    }
}

#[test]
fn an_endpoint_that_an_engine_does_not_have_takes_nothing_from_others() {
    let (backend, gateway) = start("no_endpoint");
    let embed = Request::post("/v1/embeddings", "{\"model\":\"llama\",\"input\":\"x\"}");
    let chat = Request::post("/v1/chat/completions", BODY);
    let ok = answer("200 OK", "application/json", &format!("{{\"model\":\"{LLAMA_70B}\",\"choices\":[]}}"));
    for (status, body) in
        [("501 Not Implemented", "{\"error\":{\"code\":501}}"), ("404 Not Found", "{\"detail\":\"Not Found\"}")]
    {
        for _ in 0..6 {
            backend.answers(answer(status, "application/json", body));
            let response = gateway.send(&embed);
            assert_eq!((response.status.to_string().as_str(), response.text().as_str()), (&status[..3], body));
            backend.answers(ok.clone());
            assert_eq!(gateway.send(&chat).status, 200, "after {status}");
        }
    }
    let missing = format!("{{\"error\":{{\"message\":\"The model `{LLAMA_70B}` does not exist.\",\"code\":404}}}}");
    backend.answers(answer("404 Not Found", "application/json", &missing));
    let response = gateway.send(&embed);
    assert_eq!((response.status, response.json()["error"]["code"].as_str()), (502, Some("wrong_model")));
}
