//! The short way after the commit reads what the long way reads, and renaming changes the name only.

use bytes::Bytes;
use outrigger_wire::endpoint::Endpoint;
use outrigger_wire::sse::Event;
use outrigger_wire::stream::{Chunk, Finish, inspect, inspect_committed, replace_span, with_model};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::fixtures::STREAMS;
use crate::support::{object, render, split, style, value};

/// Equal but for `content`, which the short way does not judge.
fn agree(data: &[u8]) -> Result<(), TestCaseError> {
    let Ok(full) = inspect(Endpoint::Chat, data) else { return Ok(()) };
    let short = inspect_committed(Endpoint::Chat, data);
    let short = short.map(|chunk| Chunk { content: full.content, ..chunk });
    prop_assert_eq!(short, Ok(full), "{}", data.escape_ascii());
    Ok(())
}

#[test]
fn both_ways_agree_on_every_recorded_event() {
    for (_, bytes) in STREAMS {
        for data in split([*bytes]).0.iter().filter_map(|event| event.data.as_ref()) {
            agree(data).unwrap();
        }
    }
}

#[test]
fn no_other_model_is_taken_for_the_outermost() {
    for data in [
        r#"{"x":{"model":"inner"},"model":"m"}"#,
        r#"{"model":"m","x":{"model":"inner"}}"#,
        r#"{"x":[{"model":"inner"}],"y":{}}"#,
        r#"{"x":{"y":1,"model":"inner"}}"#,
        r#"{"a\"model":"not it","x":1}"#,
        r#"{"a\"model": "not it","model":"m"}"#,
        r#"{"x":"model","model":"m"}"#,
        r#"{"model":"m\"x","y":1}"#,
        r#"{"model":null,"x":{"model":"inner"}}"#,
        r#" { "x" : "}" , "model" : "m" } "#,
    ] {
        agree(data.as_bytes()).unwrap();
    }
}

#[test]
fn the_short_way_notices_a_cut_event() {
    for data in ["{\"choices\":[{\"delta\":{\"content\":\"x\"", "\"choices\":[]}", "x", "[DONE", "[]"] {
        assert!(inspect_committed(Endpoint::Chat, data.as_bytes()).is_err(), "{data}");
    }
}

#[test]
fn content_is_what_a_client_would_see() {
    let chat =
        |delta: Value| inspect(Endpoint::Chat, json!({"choices": [{"delta": delta}]}).to_string().as_bytes()).unwrap();
    for key in ["content", "reasoning", "reasoning_content", "refusal"] {
        assert!(chat(json!({key: "x"})).content, "{key}");
        assert!(!chat(json!({key: ""})).content, "{key}");
        assert!(!chat(json!({key: null, "role": "assistant"})).content, "{key}");
    }
    assert!(chat(json!({"tool_calls": [{"index": 0}]})).content && !chat(json!({"tool_calls": []})).content);
    assert!(chat(json!({"function_call": {"name": "f"}})).content && !chat(json!({"function_call": {}})).content);
    assert!(chat(json!({"audio": {"data": "AA=="}})).content);
    let text = br#"{"choices":[{"text":"x"}]}"#;
    assert!(inspect(Endpoint::Completions, text).unwrap().content);
    assert!(!inspect(Endpoint::Chat, text).unwrap().content);
}

#[test]
fn reasons() {
    let finishes = |reason: &str| {
        inspect(Endpoint::Chat, format!(r#"{{"choices":[{{"finish_reason":{reason}}}]}}"#).as_bytes()).unwrap()
    };
    for (reason, finish) in [
        ("\"stop\"", Finish::Stop),
        ("\"length\"", Finish::Length),
        ("\"tool_calls\"", Finish::ToolCalls),
        ("\"function_call\"", Finish::ToolCalls),
        ("\"content_filter\"", Finish::ContentFilter),
        ("\"abort\"", Finish::Abort),
        ("\"error\"", Finish::Error),
        ("\"repetition\"", Finish::Other),
    ] {
        let chunk = finishes(reason);
        assert_eq!((chunk.finishes, chunk.content), (vec![finish], true));
    }
    for none in ["null", "\"\""] {
        assert_eq!(finishes(none), Chunk::default());
    }
}

#[test]
fn the_name_is_rewritten_inside_the_raw_event() {
    let check = |raw: &str, expect: &str| {
        let event = Event::parse(Bytes::copy_from_slice(raw.as_bytes()));
        let chunk = inspect(Endpoint::Chat, event.data.as_ref().unwrap()).unwrap();
        assert_eq!(with_model(&event, &chunk, "N\""), expect);
        let own = raw.contains("N\\\"");
        assert_eq!(with_model(&event, &chunk, "N\"").as_ptr() == event.raw.as_ptr(), own || raw == expect);
    };
    check("id: 1\r\ndata: {\"model\":\"m\"}\r\n\r\n", "id: 1\r\ndata: {\"model\":\"N\\\"\"}\r\n\r\n");
    check(
        "data:{\ndata: \"model\": \"m\",\ndata:\"a\":1}\n\n",
        "data:{\ndata: \"model\": \"N\\\"\",\ndata:\"a\":1}\n\n",
    );
    check("data: {\"model\":\"N\\\"\"}\n\n", "data: {\"model\":\"N\\\"\"}\n\n");
    check("data: {\"a\":{\"model\":\"m\"}}\n\n", "data: {\"a\":{\"model\":\"m\"}}\n\n");
    check("data: {\"model\":7}\n\n", "data: {\"model\":7}\n\n");
}

#[test]
fn replacing_a_span() {
    let raw = Bytes::from_static(b"abc");
    assert_eq!(replace_span(&raw, 1..2, "xyz"), "axyzc");
    assert_eq!(replace_span(&raw, 1..2, "b").as_ptr(), raw.as_ptr());
}

/// An event with the members of a chunk among others.
fn chunk() -> impl Strategy<Value = Value> {
    let reason = prop_oneof![4 => Just(Value::Null), 1 => Just(json!("stop")), 1 => Just(json!("abort"))];
    let choice =
        (value(), reason).prop_map(|(content, reason)| json!({"delta": {"content": content}, "finish_reason": reason}));
    let usage = prop_oneof![3 => Just(Value::Null), 1 => Just(json!({"prompt_tokens": 3})), 1 => value()];
    let model = prop_oneof![4 => "\\PC{0,8}".prop_map(Value::from), 1 => value()];
    let named = (prop::collection::vec(choice, 0..3), usage, model, any::<[bool; 3]>());
    (object(), named, object()).prop_map(|(before, (choices, usage, model, keep), after)| {
        let own = [("choices", Value::from(choices)), ("usage", usage), ("model", model)];
        let kept = own.into_iter().zip(keep).filter(|(_, keep)| *keep).map(|((key, value), _)| (key.to_owned(), value));
        let mut map: Map<String, Value> = before;
        map.extend(kept);
        let known = ["choices", "usage", "model"];
        map.extend(after.into_iter().filter(|(key, _)| !known.contains(&key.as_str())));
        Value::from(map)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn both_ways_agree(value in chunk(), style in style()) {
        agree(render(&value, style).as_bytes())?;
    }

    #[test]
    fn the_model_span_is_the_outermost_model(value in chunk(), style in style()) {
        let text = render(&value, style);
        if let Ok(chunk) = inspect(Endpoint::Chat, text.as_bytes()) {
            let seen = chunk.model.map(|span| serde_json::from_str::<Value>(&text[span]).unwrap());
            prop_assert_eq!(seen.as_ref(), value.get("model").filter(|model| model.is_string()));
        }
    }

    #[test]
    fn renaming_changes_the_name_only(value in chunk(), style in style(), name in "\\PC{0,8}") {
        let text = render(&value, style).replace('\n', "\ndata:");
        let event = Event::parse(Bytes::from(format!("data:{text}\n\n")));
        if let Ok(chunk) = inspect(Endpoint::Chat, event.data.as_ref().unwrap()) {
            let renamed = Event::parse(with_model(&event, &chunk, &name));
            let mut expect = value;
            if chunk.model.is_some() {
                expect["model"] = name.into();
            }
            prop_assert_eq!(serde_json::from_slice::<Value>(&renamed.data.unwrap()).unwrap(), expect);
        }
    }
}
