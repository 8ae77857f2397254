//! What a response says about its way, and what each key may have.

use std::{thread, time::Duration};

use outrigger_fakes::{Fault, FaultKind, LLAMA_70B};
use serde_json::json;

use super::{Engines, Gateway, Profile, eventually, hello, http::Request, sha256, streamed};

/// `llama` on `near`, then on `far` in another cloud, then on `mini`, which is another model; and a model that only
/// some may see.
fn fleet(engines: &Engines) -> String {
    let key = |name: &str, more: &str| format!("  {name}:\n    sha256: {}\n{more}", sha256(name));
    let backend = |name: &str, cloud: &str, n: usize, model: &str| {
        format!("  {name}:\n    cloud: {cloud}\n    engine: vllm\n    url: {}/v1\n    model: {model}\n", engines.url(n))
    };
    [
        "version: 1\nclouds:\n  one: {}\n  two: {}\nbackends:\n".to_owned(),
        backend("near", "one", 0, LLAMA_70B),
        backend("far", "two", 1, LLAMA_70B),
        backend("mini", "one", 2, "small"),
        "models:\n  llama:\n    aliases: [llama3]\n    tiers:\n      - split: { near: 1 }\n      - split: { far: 1 }\n      \
         - split: { mini: 1 }\n        substitute: true\n  other:\n    tiers:\n      - split: { mini: 1 }\nkeys:\n"
            .to_owned(),
        key("all", ""),
        key("strict", "    substitute: deny\n"),
        key("listed", "    models: [other]\n"),
        key("two-only", "    allowed_clouds: [two]\n"),
        key("single", "    max_in_flight: 1\n"),
        key("blind", "    reveal: none\n"),
    ]
    .concat()
}

fn start(test: &str) -> (Engines, Gateway) {
    let small = Profile { model: "small".to_owned(), ..Profile::instant() };
    let engines = Engines::start([Profile::instant(), Profile::instant(), small]);
    let gateway = Gateway::start(test, &fleet(&engines));
    (engines, gateway)
}

fn fail(engines: &Engines, which: &[usize]) {
    for n in which {
        engines.runtime.block_on(engines.fakes[*n].set_fault(Fault::new(FaultKind::Refuse)));
    }
}

#[test]
fn a_response_says_where_it_comes_from() {
    let (engines, gateway) = start("where_from");
    let headers = ["backend", "attempts", "tier", "reason", "model", "substituted"];
    let said = |request: Request| {
        let response = gateway.send(&request.key("all"));
        assert_eq!(response.status, 200, "{}", response.text());
        assert!(response.header("x-outrigger-request-id").is_some());
        headers.map(|h| response.header(&format!("x-outrigger-{h}")).map(str::to_owned))
    };
    let expect = |values: [&str; 6]| values.map(|v| (!v.is_empty()).then(|| v.to_owned()));
    let chat = || Request::chat(&hello());
    let stream = || Request::chat(&streamed(hello()));
    assert_eq!(said(chat()), expect(["near", "1", "1", "only_one", "llama", ""]));
    assert_eq!(said(stream()), expect(["near", "1", "1", "only_one", "llama", ""]));
    fail(&engines, &[0]);
    let [backend, attempts, tier, ..] = said(chat());
    assert_eq!((backend.as_deref(), attempts.as_deref(), tier.as_deref()), (Some("far"), Some("2"), Some("2")));
    fail(&engines, &[1]);
    let [backend, _, tier, _, model, substituted] = said(stream());
    assert_eq!((backend.as_deref(), tier.as_deref()), (Some("mini"), Some("3")));
    assert_eq!((model.as_deref(), substituted.as_deref()), (Some("small"), Some("true")), "another model says so");
    let response = gateway.send(&chat().key("all"));
    assert_eq!(response.json()["model"], "small", "and does not hide behind the name that was asked for");
}

#[test]
fn a_key_that_denies_substitutes_never_gets_one() {
    let (engines, gateway) = start("deny");
    fail(&engines, &[0, 1]);
    for body in [hello(), streamed(hello())] {
        for _ in 0..5 {
            let response = gateway.send(&Request::chat(&body).key("strict"));
            assert!([502, 503].contains(&response.status), "{} {}", response.status, response.text());
        }
    }
    eventually("both are out, and it is a 503", || gateway.send(&Request::chat(&hello()).key("strict")).status == 503);
    assert_eq!(engines.fakes[2].stats().received, 0);
    assert_eq!(gateway.send(&Request::chat(&hello()).key("all")).status, 200);
}

#[test]
fn a_key_sees_and_uses_only_the_models_it_lists() {
    let (_engines, gateway) = start("listed");
    let names = |key: &str| -> Vec<String> {
        let list = gateway.send(&Request::get("/v1/models").key(key)).json();
        assert_eq!(list["object"], "list");
        list["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("all"), ["llama", "llama3", "other"]);
    assert_eq!(names("listed"), ["other"]);
    assert_eq!(gateway.send(&Request::get("/v1/models/llama").key("all")).json()["object"], "model");
    let hidden = gateway.send(&Request::get("/v1/models/llama").key("listed"));
    assert_eq!(hidden.status, 404);
    let refused = gateway.send(&Request::chat(&hello()).key("listed"));
    assert_eq!(refused.json()["error"]["code"], "model_not_found");
    // A slip must not tell what the key may not know.
    let slip = gateway.send(&Request::chat(&json!({ "model": "lama", "messages": [] })).key("listed")).text();
    assert!(!slip.contains("llama"), "{slip}");
}

#[test]
fn a_key_is_kept_to_its_clouds() {
    let (engines, gateway) = start("clouds");
    for _ in 0..5 {
        let response = gateway.send(&Request::chat(&hello()).key("two-only"));
        assert_eq!(response.header("x-outrigger-backend"), Some("far"), "{}", response.text());
    }
    let other = json!({ "model": "other", "messages": [{ "role": "user", "content": "x" }] });
    let response = gateway.send(&Request::chat(&other).key("two-only"));
    assert_eq!((response.status, response.json()["error"]["type"].as_str()), (403, Some("permission_error")));
    assert_eq!((engines.fakes[0].stats().received, engines.fakes[2].stats().received), (0, 0));
}

#[test]
fn a_key_over_its_requests_in_flight_is_a_429_until_one_ends() {
    let (engines, gateway) = start("in_flight");
    engines
        .runtime
        .block_on(engines.fakes[0].set_fault(Fault::new(FaultKind::Hang).lasting(Duration::from_millis(1_500))));
    thread::scope(|scope| {
        let first = scope.spawn(|| gateway.send(&Request::chat(&hello()).key("single")).status);
        eventually("the first is under way", || engines.fakes[0].stats().received == 1);
        let second = gateway.send(&Request::chat(&hello()).key("single"));
        assert_eq!((second.status, second.json()["error"]["type"].as_str()), (429, Some("rate_limit_error")));
        assert!(second.header("retry-after").is_some());
        engines.runtime.block_on(engines.fakes[0].set_fault(Fault::new(FaultKind::Refuse)));
        first.join().expect("it was answered");
    });
    assert_eq!(gateway.send(&Request::chat(&hello()).key("single")).status, 200, "counted down again");
}

#[test]
fn a_key_that_may_not_know_backends_is_told_of_none() {
    let (engines, gateway) = start("blind");
    let hides = |text: &str| ["near", "far", "mini", "127.0.0.1"].iter().all(|name| !text.contains(name));
    let response = gateway.send(&Request::chat(&hello()).key("blind"));
    assert!(response.status == 200 && hides(&format!("{:?}", response.headers)), "{response:?}");
    fail(&engines, &[0, 1, 2]);
    for body in [hello(), streamed(hello())] {
        for _ in 0..4 {
            let response = gateway.send(&Request::chat(&body).key("blind"));
            assert!(
                response.status >= 500 && hides(&format!("{:?}{}", response.headers, response.text())),
                "{response:?}"
            );
        }
    }
    eventually("an error that lists backends to whoever may know", || {
        gateway.send(&Request::chat(&hello()).key("all")).json()["error"]["backends"].is_array()
    });
    let response = gateway.send(&Request::chat(&hello()).key("blind"));
    assert!(response.json()["error"].get("backends").is_none(), "{}", response.text());
}
