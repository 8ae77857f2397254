//! Reading a request, and that a rewrite changes the spans it names and nothing else.

use bytes::Bytes;
use outrigger_wire::endpoint::Endpoint;
use outrigger_wire::json::Limits;
use outrigger_wire::request::{RequestFault, RequestHead, parse};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::support::{Style, object, render, style, value};

fn chat(body: &str) -> Result<RequestHead, RequestFault> {
    parse(Endpoint::Chat, body.as_bytes(), &Limits::default())
}

fn check_fault(body: &str, param: Option<&str>, code: &str, message: &str) {
    let fault = chat(body).expect_err("the body is at fault");
    assert_eq!((fault.param(), fault.code(), fault.message().as_str()), (param, code, message), "{body}");
}

#[test]
fn faults_name_the_parameter() {
    let json = |what| format!("could not parse the body of the request: {what}");
    check_fault("", None, "invalid_json", &json("the text is not valid JSON: EOF while parsing a value (at byte 0)"));
    check_fault("[]", None, "invalid_json", &json("the JSON is not an object (at byte 0)"));
    check_fault(
        r#"{"model":"a","mod\u0065l":"b"}"#,
        None,
        "invalid_json",
        &json("the key \"model\" occurs twice (the second time at byte 14)"),
    );
    for missing in ["{}", r#"{"model":null}"#, r#"{"model":""}"#] {
        check_fault(missing, Some("model"), "missing_required_parameter", "you must provide a model");
    }
    let wrong = |param: &str, expected: &str| format!("invalid type for '{param}': expected {expected}");
    check_fault(r#"{"model":7}"#, Some("model"), "invalid_type", &wrong("model", "a string"));
    check_fault(r#"{"model":"\ud800"}"#, Some("model"), "invalid_type", &wrong("model", "a string"));
    check_fault(r#"{"model":"m","stream":1}"#, Some("stream"), "invalid_type", &wrong("stream", "a boolean"));
    check_fault(r#"{"model":"m","user":{}}"#, Some("user"), "invalid_type", &wrong("user", "a string"));
    check_fault(r#"{"model":"m","n":"2"}"#, Some("n"), "invalid_type", &wrong("n", "an integer"));
    check_fault(
        r#"{"model":"m","stream":true,"stream_options":[]}"#,
        Some("stream_options"),
        "invalid_type",
        &wrong("stream_options", "an object"),
    );
    check_fault(
        r#"{"model":"m","stream":true,"stream_options":{"include_usage":1}}"#,
        Some("stream_options.include_usage"),
        "invalid_type",
        &wrong("stream_options.include_usage", "a boolean"),
    );
    check_fault(
        r#"{"model":"m","stream":true,"stream_options":{"a":1,"a":2}}"#,
        Some("stream_options"),
        "invalid_value",
        "'stream_options' could not be parsed: the key \"a\" occurs twice (the second time at byte 8)",
    );
}

#[test]
fn what_is_read() {
    let body = r#"{"model":"llama-70b","messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":7,
        "max_completion_tokens":9,"user":"u\u0031","n":2,"stream_options":{"include_usage":true}}"#;
    let head = chat(body).unwrap();
    assert_eq!(&body[head.model_span.clone()], "\"llama-70b\"");
    assert_eq!((head.model.as_str(), head.user.as_deref()), ("llama-70b", Some("u1")));
    assert!(head.stream && head.include_usage);
    assert_eq!((head.max_tokens, head.n), (Some(9), 2));
    let prompt = r#"[{"role":"user","content":"hi"}]"#;
    assert_eq!(head.prompt_tokens_estimate, (prompt.len() as u64).div_ceil(4));
}

#[test]
fn numbers_that_make_no_sense_are_the_engines_to_judge() {
    for (number, expect) in [
        ("-1", None),
        ("0.5", None),
        ("1e999", None),
        ("99999999999999999999", None),
        ("16.0", Some(16)),
        ("1e2", Some(100)),
        ("null", None),
        ("18446744073709551615", Some(u64::MAX)),
    ] {
        let head = chat(&format!(r#"{{"model":"m","max_tokens":{number}}}"#)).unwrap();
        assert_eq!(head.max_tokens, expect, "{number}");
    }
    let both = chat(r#"{"model":"m","max_tokens":5,"max_completion_tokens":null}"#).unwrap();
    assert_eq!(both.max_tokens, Some(5));
}

#[test]
fn the_prefix_hash_is_the_same_for_ever_and_reads_the_prefix_only() {
    let hash = |body: &str| {
        let head = parse(Endpoint::Completions, body.as_bytes(), &Limits::default()).unwrap();
        head.prefix_hash(body.as_bytes())
    };
    // FNV-1a's offset basis.
    assert_eq!(hash(r#"{"model":"m"}"#), 0xcbf2_9ce4_8422_2325);
    assert_eq!(hash(r#"{"model":"m","prompt":"a"}"#), hash(r#"{ "prompt" : "a", "model":"other"}"#));
    let long = "x".repeat(2_000);
    let ending = |end: &str| format!(r#"{{"model":"m","prompt":"{long}{end}"}}"#);
    assert_eq!(hash(&ending("a")), hash(&ending("b")));
    assert_ne!(hash(r#"{"model":"m","prompt":"a"}"#), hash(r#"{"model":"m","prompt":"b"}"#));
}

#[test]
fn paths() {
    for (nth, endpoint) in Endpoint::ALL.into_iter().enumerate() {
        assert_eq!(endpoint as usize, nth);
        assert_eq!(Endpoint::from_path(endpoint.path()), Some(endpoint));
        assert_eq!(Endpoint::from_path(&format!("/v1{}", endpoint.path())), Some(endpoint));
    }
    for path in ["/v1/models", "/v1/v1/embeddings", "/v1/chat/completions/", "chat/completions", ""] {
        assert_eq!(Endpoint::from_path(path), None, "{path}");
    }
}

/// A rewritten body, joined.
fn rewritten(head: &RequestHead, body: &Bytes, model: &str, ask_usage: bool) -> Bytes {
    head.rewrite(body, model, ask_usage).concat().into()
}

/// Once as it is, and once so long that it is not copied.
fn check_rewrite(body: &str, expect: &str) {
    let long = format!(r#"{{"long":"{}","#, "x".repeat(100_000));
    for start in ["{", &long] {
        let (body, expect) = (body.replacen('{', start, 1), expect.replacen('{', start, 1));
        let head = chat(&body).expect("the body is right");
        let seen = rewritten(&head, &Bytes::copy_from_slice(body.as_bytes()), "N\"", true);
        let tail = |text: &[u8]| String::from_utf8_lossy(&text[text.len().saturating_sub(120)..]).into_owned();
        assert!(seen == expect, "{} instead of {}", tail(&seen), tail(expect.as_bytes()));
    }
}

#[test]
fn a_large_body_is_not_copied() {
    for text in [
        format!(r#"{{"model":"m","stream":true,"prompt":"{}"}}"#, "x".repeat(100_000)),
        format!(r#"{{"prompt":"{}","stream":true,"model":"m"}}"#, "x".repeat(100_000)),
    ] {
        let body = Bytes::from(text);
        let pieces = parse(Endpoint::Completions, &body, &Limits::default()).unwrap().rewrite(&body, "other", true);
        let inside = body.as_ptr_range();
        let copied: usize = pieces.iter().filter(|piece| !inside.contains(&piece.as_ptr())).map(Bytes::len).sum();
        assert!(copied < 100, "{copied} bytes");
    }
}

#[test]
fn rewrites() {
    check_rewrite(r#"{"model":"m"}"#, r#"{"model":"N\""}"#);
    check_rewrite(
        r#"{ "stream":true, "model" : "m" }"#,
        r#"{ "stream":true, "model" : "N\"","stream_options":{"include_usage":true} }"#,
    );
    check_rewrite(
        r#"{"stream":true,"stream_options":null,"model":"m"}"#,
        r#"{"stream":true,"stream_options":{"include_usage":true},"model":"N\""}"#,
    );
    check_rewrite(
        r#"{"stream":true,"model":"m","stream_options":{ }}"#,
        r#"{"stream":true,"model":"N\"","stream_options":{"include_usage":true }}"#,
    );
    check_rewrite(
        r#"{"stream":true,"model":"m","stream_options":{ "x":1}}"#,
        r#"{"stream":true,"model":"N\"","stream_options":{"include_usage":true, "x":1}}"#,
    );
    check_rewrite(
        r#"{"stream":true,"model":"m","stream_options":{"x":1,"include_usage": false}}"#,
        r#"{"stream":true,"model":"N\"","stream_options":{"x":1,"include_usage": true}}"#,
    );
    check_rewrite(
        r#"{"stream":true,"model":"m","stream_options":{"include_usage":true}}"#,
        r#"{"stream":true,"model":"N\"","stream_options":{"include_usage":true}}"#,
    );
}

#[test]
fn a_body_that_does_not_change_is_not_copied() {
    for text in [r#"{"model":"\u006d"}"#, r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#] {
        let body = Bytes::copy_from_slice(text.as_bytes());
        let same = chat(text).unwrap().rewrite(&body, "m", true);
        assert_eq!((same.len(), same[0].as_ptr()), (1, body.as_ptr()));
    }
    let body = Bytes::from_static(br#"{"model":"m","stream":true}"#);
    let head = parse(Endpoint::Chat, &body, &Limits::default()).unwrap();
    assert_eq!(head.rewrite(&body, "m", false)[0].as_ptr(), body.as_ptr());
}

/// A request with members that mean nothing here, in any order.
fn request() -> impl Strategy<Value = Map<String, Value>> {
    let options = prop_oneof![
        Just(None),
        Just(Some(Value::Null)),
        Just(Some(json!({}))),
        any::<bool>().prop_map(|ask| Some(json!({"include_usage": ask}))),
        any::<bool>().prop_map(|ask| Some(json!({"a": [1, {}], "include_usage": ask, "b": null}))),
        Just(Some(json!({"include_usage": null}))),
        Just(Some(json!({"continuous_usage_stats": true}))),
    ];
    let parts = (object(), object(), "\\PC{1,8}", any::<bool>(), options, value());
    parts.prop_map(|(mut before, mut after, model, stream, options, messages)| {
        let own = ["model", "stream", "stream_options", "messages", "user", "n", "max_tokens"];
        before.retain(|key, _| !own.contains(&key.as_str()));
        after.retain(|key, _| !own.contains(&key.as_str()));
        let mut map = before;
        map.insert("model".into(), model.into());
        map.insert("stream".into(), stream.into());
        map.extend(options.map(|options| ("stream_options".to_owned(), options)));
        map.insert("messages".into(), messages);
        map.extend(after);
        map
    })
}

/// What the rewritten request should mean.
fn expected(mut map: Map<String, Value>, model: &str, ask_usage: bool) -> Map<String, Value> {
    map.insert("model".into(), model.into());
    if ask_usage && map["stream"] == true {
        let options = map.entry("stream_options").or_insert(Value::Null);
        if options.is_null() {
            *options = json!({});
        }
        options["include_usage"] = true.into();
    }
    map
}

proptest! {
    #[test]
    fn a_rewrite_means_what_it_should(map in request(), style in style(), model in "\\PC{0,8}", ask in any::<bool>()) {
        let text = Bytes::from(render(&Value::from(map.clone()), style));
        let head = parse(Endpoint::Chat, &text, &Limits::default()).unwrap();
        let out = rewritten(&head, &text, &model, ask);
        let seen: Map<String, Value> = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(seen, expected(map, &model, ask));
    }

    #[test]
    fn undoing_the_model_restores_the_bytes(map in request(), style in style(), model in "\\PC{1,8}") {
        let text = Bytes::from(render(&Value::from(map), style));
        let head = parse(Endpoint::Chat, &text, &Limits::default()).unwrap();
        let out = rewritten(&head, &text, &model, false);
        let span = parse(Endpoint::Chat, &out, &Limits::default()).unwrap().model_span;
        let restored = [&out[..span.start], &text[head.model_span.clone()], &out[span.end..]].concat();
        prop_assert_eq!(restored, text.to_vec());
    }

    #[test]
    fn asking_for_usage_is_one_splice(map in request(), style in style()) {
        let text = Bytes::from(render(&Value::from(map), style));
        let head = parse(Endpoint::Chat, &text, &Limits::default()).unwrap();
        let out = rewritten(&head, &text, &head.model, true);
        let same = |(a, b): &(&u8, &u8)| a == b;
        let before = text.iter().zip(&out).take_while(same).count();
        let room = text.len().min(out.len()) - before;
        let after = text.iter().rev().zip(out.iter().rev()).take(room).take_while(same).count();
        let removed = &text[before..text.len() - after];
        prop_assert!(removed.len() <= "false".len(), "removed {:?}", removed);
        let longest = r#","stream_options":{"include_usage":true}"#;
        prop_assert!(out.len() <= text.len() + longest.len());
    }

    #[test]
    fn how_it_is_written_does_not_matter(map in request()) {
        let [compact, escaped] = [Style::Compact, Style::Escaped].map(|style| {
            chat(&render(&Value::from(map.clone()), style)).unwrap()
        });
        prop_assert_eq!((compact.model, compact.stream, compact.include_usage), (escaped.model, escaped.stream, escaped.include_usage));
    }
}
