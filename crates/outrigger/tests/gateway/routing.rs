//! What the routing of a fleet file means at real sockets: sessions that stay, tiers that spill, modes that say so.

use std::{collections::BTreeSet, thread};

use outrigger_fakes::{Fixed, LLAMA_70B, Profile};
use serde_json::{Value, json};

use super::{Engines, Gateway, eventually, hello, http::Request, streamed};

/// `a`, `b` and `c` in front of the engines; `model` is what stands under the model.
fn fleet(engines: &Engines, model: &str) -> String {
    let backends: String = ["a", "b", "c"]
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let url = engines.url(i);
            format!("  {name}:\n    cloud: c\n    engine: vllm\n    url: {url}/v1\n    model: {LLAMA_70B}\n")
        })
        .collect();
    format!("version: 1\nclouds:\n  c: {{}}\nbackends:\n{backends}models:\n  llama:\n{model}")
}

/// The backend that answered and why, from the response's headers.
fn sent(gateway: &Gateway, request: &Request) -> (String, String) {
    let response = gateway.send(request);
    assert_eq!(response.status, 200, "{}", response.text());
    let header = |name: &str| response.header(name).expect("a header of ours").to_owned();
    (header("x-outrigger-backend"), header("x-outrigger-reason"))
}

fn backends_of<'a>(gateway: &Gateway, requests: impl Iterator<Item = &'a Request>) -> BTreeSet<String> {
    requests.map(|request| sent(gateway, request).0).collect()
}

#[test]
fn a_session_stays_and_others_are_spread() {
    let engines = Engines::instant(3);
    let gateway = Gateway::start("sessions", &fleet(&engines, "    tiers:\n      - split: { a: 1, b: 1, c: 1 }\n"));
    let plain = Request::chat(&hello());
    assert_eq!(backends_of(&gateway, std::iter::repeat_n(&plain, 9)).len(), 3);
    let mut homes = BTreeSet::new();
    for session in 0..12 {
        let named = Request::chat(&hello()).header("x-session-id", &format!("s{session}"));
        let mut body = hello();
        body["user"] = json!(format!("s{session}"));
        let by_user = Request::chat(&body);
        let home = backends_of(&gateway, [&named, &by_user, &named, &by_user].into_iter());
        assert_eq!(home.len(), 1, "session {session} is on {home:?}");
        assert_eq!(sent(&gateway, &named).1, "affinity");
        homes.extend(home);
    }
    assert_eq!(homes.len(), 3, "sessions are spread over {homes:?}");
    // What `explain` says is what happens.
    let fleet_file = gateway.fleet_file();
    let explained = super::outrigger(
        &["explain", "--fleet", fleet_file.to_str().unwrap(), "--model", "llama", "--session", "s3", "--json"],
        &[],
    );
    let explained: Value = serde_json::from_slice(&explained.stdout).unwrap();
    let named = Request::chat(&hello()).header("x-session-id", "s3");
    assert_eq!(explained["chosen"].as_str().unwrap(), sent(&gateway, &named).0);
}

#[test]
fn a_prefix_keeps_prompts_together_that_begin_alike() {
    let engines = Engines::instant(3);
    let model = "    affinity: prefix\n    tiers:\n      - split: { a: 1, b: 1, c: 1 }\n";
    let gateway = Gateway::start("prefixes", &fleet(&engines, model));
    let asks = |system: &str, question: &str| {
        let mut body = hello();
        let system = system.repeat(200);
        body["messages"] = json!([{ "role": "system", "content": system }, { "role": "user", "content": question }]);
        Request::chat(&body)
    };
    let mut homes = BTreeSet::new();
    for system in ["you translate ", "you review ", "you sum up ", "you plan ", "you joke ", "you rhyme "] {
        let requests = ["one", "two", "three", "four"].map(|question| asks(system, question));
        let home = backends_of(&gateway, requests.iter());
        assert_eq!(home.len(), 1, "{system}: {home:?}");
        homes.extend(home);
    }
    assert!(homes.len() > 1, "{homes:?}");
}

/// One slot of two seconds each; the second request would wait longer than the next tier allows.
#[test]
fn a_full_tier_spills_into_the_next() {
    let slow = Profile { fixed: Some(Fixed { ttft_ms: 50.0, tokens: 4, total_ms: 2_000.0 }), ..Profile::instant() };
    let engines = Engines::start(vec![slow; 3]);
    let model =
        "    tiers:\n      - split: { a: 1 }\n      - split: { b: 1 }\n        enter_when: { wait_above: 200ms }\n";
    let bounded = fleet(&engines, model).replacen("    engine: vllm\n", "    engine: vllm\n    max_in_flight: 1\n", 1);
    let gateway = Gateway::start("spill", &bounded);
    let request = Request::chat(&streamed(hello()));
    let holds = |n: u64| {
        eventually("its slot", || gateway.admin_get("/api/v1/state").json()["backends"][0]["in_flight"] == n);
    };
    let first = sent(&gateway, &request);
    assert_eq!(first.0, "a", "{first:?}");
    holds(0);
    let both: Vec<(String, String)> = thread::scope(|scope| {
        let early = scope.spawn(|| sent(&gateway, &request));
        holds(1);
        let late = scope.spawn(|| sent(&gateway, &request));
        [early, late].map(|handle| handle.join().unwrap()).into_iter().collect()
    });
    assert_eq!(both[0].0, "a");
    holds(0);
    assert_eq!(both[1], ("b".to_owned(), "spill".to_owned()));
    assert_eq!(sent(&gateway, &request).0, "a", "and home again");
}

#[test]
fn modes_say_why() {
    let engines = Engines::instant(3);
    for (mode, reason) in [("latency", "latency"), ("cheapest", "cheapest"), ("weighted", "weight")] {
        let model = format!("    mode: {mode}\n    tiers:\n      - split: {{ a: 1, b: 1, c: 1 }}\n");
        let gateway = Gateway::start(&format!("mode_{mode}"), &fleet(&engines, &model));
        let (_, why) = sent(&gateway, &Request::chat(&hello()));
        assert_eq!(why, reason);
    }
}
