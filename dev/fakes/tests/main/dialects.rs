//! Responses and messages: as a real vLLM answers them, and broken in their own ways.
//!
//! The answers of vLLM 0.32 are the fixtures of the wire crate. The fake has to agree with them in the order of events
//! and in every key with its type.

use std::{collections::BTreeSet, path::Path};

use outrigger_fakes::{EngineKind, Fake, Fault, FaultKind, Outcome, Profile};
use serde_json::{Value, json};

use crate::{
    captures::keys,
    faults::faulty,
    wire::{End, Raw, fake, status},
};

const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";
const BOTH: [&str; 2] = [RESPONSES, MESSAGES];

fn request(path: &str, stream: bool, max: u32) -> Value {
    if path == RESPONSES {
        json!({"model": "tiny", "input": "hello", "max_output_tokens": max, "stream": stream})
    } else {
        let messages = json!([{"role": "user", "content": "hello"}]);
        json!({"model": "tiny", "messages": messages, "max_tokens": max, "stream": stream})
    }
}

fn tiny() -> Profile {
    Profile { model: "tiny".into(), ..Profile::instant() }
}

async fn broken_by(fault: Fault) -> Fake {
    let fake = fake(tiny()).await;
    fake.set_fault(fault).await;
    fake
}

async fn answer(fake: &Fake, path: &str, stream: bool) -> (String, End) {
    Raw::post(fake, path, &request(path, stream, 8).to_string()).await.rest().await
}

async fn body(fake: &Fake, path: &str) -> Value {
    crate::wire::json(&answer(fake, path, false).await.0)
}

/// Name and data of each event that is whole and JSON.
fn typed_events(text: &str) -> Vec<(&str, Value)> {
    let pairs = text.split("event: ").skip(1).filter_map(|event| event.split_once("\ndata: "));
    pairs.filter_map(|(name, data)| Some((name, serde_json::from_str(data.lines().next()?).ok()?))).collect()
}

fn names(text: &str) -> Vec<&str> {
    let mut names: Vec<&str> = typed_events(text).into_iter().map(|(name, _)| name).collect();
    names.dedup();
    names
}

fn content(text: &str) -> String {
    let events = typed_events(text);
    let deltas = events.iter().filter_map(|(_, e)| e["delta"].as_str().or_else(|| e["delta"]["text"].as_str()));
    deltas.collect()
}

fn fixture(name: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/wire/tests/wire/fixtures");
    std::fs::read_to_string(dir.join(name)).unwrap()
}

fn shape(text: &str) -> BTreeSet<String> {
    let mut facts = BTreeSet::new();
    for (name, event) in typed_events(text) {
        assert_eq!(event["type"], name);
        keys("$", &event, &format!("{name}: "), &mut facts);
    }
    facts
}

#[tokio::test]
async fn streams_and_whole_answers_have_the_shape_of_a_real_vllm() {
    let fake = fake(tiny()).await;
    for (path, name) in [(RESPONSES, "responses"), (MESSAGES, "messages")] {
        let (real, (ours, end)) = (fixture(&format!("sse/vllm_0_32_{name}.sse")), answer(&fake, path, true).await);
        assert_eq!((status(&ours), end), (200, End::Closed));
        assert_eq!(names(&ours), names(&real));
        let (ours, real) = (shape(&ours), shape(&real));
        let differ: Vec<&String> = ours.symmetric_difference(&real).collect();
        assert!(differ.is_empty(), "{name}: {differ:#?}");
        let mut facts = [BTreeSet::new(), BTreeSet::new()];
        let real: Value = serde_json::from_str(&fixture(&format!("body/vllm_0_32_{name}.json"))).unwrap();
        keys("$", &body(&fake, path).await, "", &mut facts[0]);
        keys("$", &real, "", &mut facts[1]);
        let differ: Vec<&String> = facts[0].symmetric_difference(&facts[1]).collect();
        assert!(differ.is_empty(), "{name}: {differ:#?}");
    }
}

#[tokio::test]
async fn tokens_usage_and_the_end_are_exact() {
    let fake = fake(tiny()).await;
    let (text, _) = answer(&fake, RESPONSES, true).await;
    let events = typed_events(&text);
    let numbers: Vec<u64> = events.iter().filter_map(|(_, e)| e["sequence_number"].as_u64()).collect();
    assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>());
    let last = &events[events.len() - 1].1["response"];
    assert_eq!((content(&text).as_str(), &last["status"]), (" t0 t1 t2 t3 t4 t5 t6 t7", &"incomplete".into()));
    assert_eq!(last["output"][0]["content"][0]["text"], content(&text));
    let usage = |u: &Value| [&u["input_tokens"], &u["output_tokens"], &u["total_tokens"]].map(Value::as_u64);
    assert_eq!(usage(&last["usage"]), [Some(2), Some(8), Some(10)]);
    assert!(text.ends_with("\n\n\r\n0\r\n\r\n") && !text.contains("[DONE]"), "{text}");

    let (text, _) = answer(&fake, MESSAGES, true).await;
    let events = typed_events(&text);
    assert_eq!(content(&text), " t0 t1 t2 t3 t4 t5 t6 t7");
    assert_eq!(usage(&events[0].1["message"]["usage"]), [Some(2), Some(0), None]);
    let end = &events[events.len() - 2].1;
    assert_eq!((&end["delta"]["stop_reason"], usage(&end["usage"])[1]), (&"max_tokens".into(), Some(8)));
    assert!(!text.contains("[DONE]"));
    assert_eq!((fake.stats().completed, fake.stats().tokens), (2, 16));
    assert!(fake.requests_after(0).iter().all(|r| r.stream));
}

#[tokio::test]
async fn prompts_are_counted_in_every_form() {
    let fake = fake(tiny()).await;
    let part = json!([{"type": "input_text", "text": "12345678"}]);
    let items = json!({"input": [{"role": "user", "content": part}, {"role": "user", "content": "1234"}], "instructions": "1234"});
    let system = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "12345678"}]}],
        "system": [{"type": "text", "text": "1234"}], "max_tokens": 1});
    for (path, body, tokens) in [(RESPONSES, items, 4), (MESSAGES, system, 3)] {
        let (text, _) = Raw::post(&fake, path, &body.to_string()).await.rest().await;
        assert_eq!(crate::wire::json(&text)["usage"]["input_tokens"], tokens, "{text}");
    }
    let natural = Raw::post(&fake, RESPONSES, r#"{"input":"a"}"#).await.rest().await.0;
    assert_eq!(crate::wire::json(&natural)["status"], "completed");
}

#[tokio::test]
async fn errors_have_the_form_of_the_dialect() {
    let vllm = fake(Profile { api_key: Some("k".into()), ..tiny() }).await;
    let hosted = fake(Profile { api_key: Some("k".into()), engine: EngineKind::Openai, ..tiny() }).await;
    let other = json!({"model": "other", "messages": [], "input": "", "max_tokens": 1}).to_string();
    for (fake, kind) in [(&vllm, "NotFoundError"), (&hosted, "not_found_error")] {
        let (text, _) = Raw::post_with(fake, MESSAGES, &other, "x-api-key: k\r\n").await.rest().await;
        let error = crate::wire::json(&text);
        let message = "The model `other` does not exist.";
        assert_eq!(error, json!({"type": "error", "error": {"type": kind, "message": message}}));
        let (text, _) = Raw::post_with(fake, RESPONSES, &other, "authorization: Bearer k\r\n").await.rest().await;
        assert_eq!((status(&text), &crate::wire::json(&text)["error"]["param"]), (404, &"model".into()));
        assert_eq!(status(&answer(fake, MESSAGES, true).await.0), 401);
    }
    let endless = r#"{"messages":[{"role":"user","content":"a"}]}"#;
    let (text, _) = Raw::post_with(&vllm, MESSAGES, endless, "x-api-key: k\r\n").await.rest().await;
    assert_eq!((status(&text), text.contains("Field required: max_tokens")), (400, true));
}

#[tokio::test]
async fn statuses_and_refusals_have_the_form_of_the_dialect() {
    let fake = broken_by(Fault::with_status(429).retry_after_s(1)).await;
    for (path, kind) in [(RESPONSES, "RateLimitError"), (MESSAGES, "RateLimitError")] {
        let (text, _) = answer(&fake, path, true).await;
        assert_eq!((status(&text), text.contains("retry-after: 1\r\n")), (429, true));
        assert_eq!(crate::wire::json(&text)["error"]["type"], kind);
    }
    let fake = broken_by(Fault::new(FaultKind::ContextLength)).await;
    assert_eq!(body(&fake, RESPONSES).await["error"]["code"], "context_length_exceeded");
    assert_eq!(body(&fake, MESSAGES).await["error"]["type"], "invalid_request_error");
}

#[tokio::test]
async fn cut_stall_and_comments_come_after_whole_tokens() {
    for (kind, end) in [
        (FaultKind::Cut, End::Reset),
        (FaultKind::CutEnd, End::Closed),
        (FaultKind::Stall, End::Silence),
        (FaultKind::MissingDone, End::Closed),
    ] {
        let fake = broken_by(Fault::new(kind).after_tokens(2)).await;
        for path in BOTH {
            let (text, seen) = answer(&fake, path, true).await;
            assert_eq!((content(&text).as_str(), &seen), (" t0 t1", &end), "{kind:?}: {text}");
            assert!(!text.contains("response.completed") && !text.contains("message_stop"), "{kind:?}: {text}");
        }
    }
    let fake = broken_by(Fault::new(FaultKind::Comments).after_tokens(0)).await;
    let text = Raw::post(&fake, MESSAGES, &request(MESSAGES, true, 8).to_string()).await.until(": ping").await;
    assert!(typed_events(&text).is_empty(), "{text}");
}

#[tokio::test]
async fn abort_is_a_last_event_that_says_so() {
    let fake = broken_by(Fault::new(FaultKind::Abort).after_tokens(2)).await;
    let (text, _) = answer(&fake, RESPONSES, true).await;
    let events = typed_events(&text);
    let (name, last) = &events[events.len() - 1];
    assert_eq!((*name, &last["response"]["status"]), ("response.completed", &"cancelled".into()));
    assert_eq!(content(&text), " t0 t1");
    let (text, _) = answer(&fake, MESSAGES, true).await;
    let events = typed_events(&text);
    assert_eq!(events[events.len() - 2].1["delta"]["stop_reason"], Value::Null);
    assert_eq!((content(&text).as_str(), events[events.len() - 1].0), (" t0 t1", "message_stop"));
    assert_eq!(body(&fake, RESPONSES).await["status"], "cancelled");
    assert_eq!(body(&fake, MESSAGES).await.get("stop_reason"), None);
    assert!(fake.requests_after(0).iter().all(|r| r.outcome == Outcome::Fault));
}

#[tokio::test]
async fn finish_error_is_a_failure_in_each_dialect() {
    let fake = broken_by(Fault::new(FaultKind::FinishError).after_tokens(2)).await;
    let (text, end) = answer(&fake, RESPONSES, true).await;
    let events = typed_events(&text);
    let (name, last) = &events[events.len() - 1];
    assert_eq!((*name, &last["response"]["error"]["code"]), ("response.failed", &"server_error".into()));
    assert_eq!((content(&text).as_str(), end), (" t0 t1", End::Closed));
    let (text, end) = answer(&fake, MESSAGES, true).await;
    assert_eq!((content(&text).as_str(), names(&text).last(), end), (" t0 t1", Some(&"error"), End::Closed));
    let failed = body(&fake, RESPONSES).await;
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&"failed".into(), &"server_error".into()));
    assert_eq!(status(&answer(&fake, MESSAGES, false).await.0), 500);
}

#[tokio::test]
async fn an_error_event_is_named_error_and_the_last() {
    let fake = broken_by(Fault::new(FaultKind::ErrorEvent).after_tokens(1).status(503)).await;
    for (path, code) in [(RESPONSES, json!(503)), (MESSAGES, Value::Null)] {
        let (text, end) = answer(&fake, path, true).await;
        let events = typed_events(&text);
        let (name, error) = &events[events.len() - 1];
        assert_eq!((*name, &error["type"], &error["error"]["code"]), ("error", &"error".into(), &code), "{text}");
        assert_eq!(error["error"]["type"], "ServiceUnavailableError");
        assert_eq!((content(&text).as_str(), end), (" t0", End::Closed));
        assert_eq!(status(&answer(&fake, path, false).await.0), 503);
    }
    // vLLM says that a response has been created before it knows of an error, and of a message nothing.
    let fake = broken_by(Fault::new(FaultKind::ErrorEvent)).await;
    assert_eq!(names(&answer(&fake, RESPONSES, true).await.0), ["response.created", "response.in_progress", "error"]);
    assert_eq!(names(&answer(&fake, MESSAGES, true).await.0), ["error"]);
}

#[tokio::test]
async fn one_event_is_malformed_and_the_stream_goes_on() {
    for after in [0, 1] {
        let fake = broken_by(Fault::new(FaultKind::MalformedSse).after_tokens(after)).await;
        for path in BOTH {
            let (text, end) = answer(&fake, path, true).await;
            let tokens: String = (0..8).filter(|n| *n != after).map(|n| format!(" t{n}")).collect();
            assert_eq!((content(&text), end), (tokens, End::Closed));
            assert_eq!(text.matches("\ndata: ").count(), typed_events(&text).len() + 1, "{text}");
            assert!(text.contains("response.completed") || text.contains("message_stop"), "{text}");
        }
    }
}

#[tokio::test]
async fn no_done_means_nothing_where_there_is_none() {
    let fake = broken_by(Fault::new(FaultKind::NoDone)).await;
    for path in BOTH {
        let (text, _) = answer(&fake, path, true).await;
        assert!(text.contains("response.completed") || text.contains("message_stop"), "{text}");
    }
    assert_eq!(fake.stats().completed, 2);
}

#[tokio::test]
async fn the_other_faults_do_not_ask_for_the_dialect() {
    let fake = broken_by(Fault::new(FaultKind::WrongModel)).await;
    for path in BOTH {
        assert!(answer(&fake, path, true).await.0.contains("\"model\":\"wrong/model\""));
        assert_eq!(body(&fake, path).await["model"], "wrong/model");
    }
    let fake = faulty(Fault::new(FaultKind::PlainJson)).await;
    let natural = request(RESPONSES, true, 8).to_string().replace("tiny", outrigger_fakes::LLAMA_70B);
    let (text, _) = Raw::post(&fake, RESPONSES, &natural).await.rest().await;
    assert_eq!(crate::wire::json(&text)["object"], "response");
}
