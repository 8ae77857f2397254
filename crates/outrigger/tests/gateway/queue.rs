//! Requests that wait for a place, as clients and engines see them.

use std::{io::Write as _, thread, time::Duration};

use outrigger_fakes::{Fixed, LLAMA_70B, Profile};
use serde_json::Value;

use super::{
    Engines, Gateway, eventually, hello,
    http::{Request, Response, connect},
    sha256,
};

const HIGH: &str = "the key of those who go first, 4f1c";
const LOW: &str = "the key of those who come last, 9b2e";

/// Long enough for two to get in line while the first is answered, also where each step comes late.
const ANSWER_MS: f64 = 1_500.0;

/// One place, which is held for that long.
fn start(test: &str, queue: &str) -> (Engines, Gateway) {
    start_with(test, queue, ANSWER_MS)
}

/// The same with so many milliseconds for an answer.
fn start_with(test: &str, queue: &str, total_ms: f64) -> (Engines, Gateway) {
    let fixed = Some(Fixed { ttft_ms: 50.0, tokens: 4, total_ms });
    let engines = Engines::start([Profile { fixed, ..Profile::instant() }]);
    let gateway = Gateway::start(test, &fleet(&engines, queue));
    // The first answer says how long a place is held.
    assert_eq!(ask(&gateway, HIGH).status, 200);
    eventually("it is booked", || in_flight(&gateway) == 0);
    (engines, gateway)
}

fn fleet(engines: &Engines, queue: &str) -> String {
    format!(
        "version: 1\nclouds:\n  c: {{}}\nbackends:\n  b:\n    cloud: c\n    engine: vllm\n    url: {}/v1\n    \
         model: {LLAMA_70B}\n    max_in_flight: 1\nmodels:\n  llama:\n    queue: {queue}\n    tiers:\n      - split: {{ b: 1 }}\n\
         keys:\n  high: {{ sha256: {}, priority: high }}\n  low: {{ sha256: {}, priority: low }}\n",
        engines.url(0),
        sha256(HIGH),
        sha256(LOW)
    )
}

fn ask(gateway: &Gateway, key: &str) -> Response {
    Request::chat(&hello()).key(key).send(gateway.listen)
}

/// Asked of the listener itself: a command would take a process for each look.
fn state(gateway: &Gateway) -> Value {
    gateway.admin_get("/api/v1/state").json()
}

fn waiting(gateway: &Gateway) -> u64 {
    state(gateway)["models"][0]["waiting"].as_u64().expect("a number")
}

fn in_flight(gateway: &Gateway) -> u64 {
    state(gateway)["backends"][0]["in_flight"].as_u64().expect("a number")
}

/// Asks in a thread of its own, and comes back when it is in line behind `ahead` others.
fn in_line(gateway: &Gateway, key: &'static str, ahead: u64) -> thread::JoinHandle<Response> {
    let listen = gateway.listen;
    let asking = thread::spawn(move || Request::chat(&hello()).key(key).send(listen));
    eventually("it is in line", || waiting(gateway) == ahead + 1);
    asking
}

/// Takes the only place.
fn occupy(gateway: &Gateway) -> thread::JoinHandle<Response> {
    let listen = gateway.listen;
    let asking = thread::spawn(move || Request::chat(&hello()).key(HIGH).send(listen));
    eventually("the place is taken", || in_flight(gateway) == 1);
    asking
}

fn queued_ms(gateway: &Gateway) -> Vec<(String, f64)> {
    let entry = |line: &Value| Some((line["key_id"].as_str()?.to_owned(), line["queued_ms"].as_f64()?));
    gateway.log().iter().filter_map(entry).collect()
}

#[test]
fn the_higher_priority_is_served_first_and_the_log_says_who_waited() {
    let (_engines, gateway) = start("queue_order", "{ max_wait: 20s }");
    let first = occupy(&gateway);
    let low = in_line(&gateway, LOW, 0);
    let high = in_line(&gateway, HIGH, 1);
    for asking in [first, high, low] {
        assert_eq!(asking.join().expect("it is answered").status, 200);
    }
    eventually("four lines", || gateway.log().len() == 4);
    let order = queued_ms(&gateway);
    assert_eq!(order.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["high", "high", "high", "low"]);
    assert_eq!((order[0].1, order[1].1), (0.0, 0.0), "these did not wait");
    assert!(order[3].1 > order[2].1 && order[2].1 > 0.0, "{order:?}");
    let metrics = gateway.admin_get("/metrics").text();
    assert!(metrics.contains(r#"outrigger_queue_wait_seconds_count{model="llama",priority="low"} 1"#), "{metrics}");
}

#[test]
fn one_that_hangs_up_leaves_the_line_and_never_reaches_an_engine() {
    let (engines, gateway) = start_with("queue_gone", "{ max_wait: 20s }", 3_000.0);
    let before = engines.fakes[0].stats().received;
    let first = occupy(&gateway);
    let mut socket = connect(gateway.listen);
    socket.write_all(&Request::chat(&hello()).key(LOW).bytes()).expect("it takes the request");
    eventually("it is in line", || waiting(&gateway) == 1);
    drop(socket);
    eventually("it has left", || waiting(&gateway) == 0);
    assert_eq!(in_flight(&gateway), 1, "before its turn came");
    assert_eq!(first.join().expect("it is answered").status, 200);
    eventually("both are in the log", || gateway.log().len() == 3);
    assert_eq!(engines.fakes[0].stats().received, before + 1);
    assert!(
        gateway.log().iter().any(|line| line["outcome"] == "client_gone" && line["attempts"] == serde_json::json!([]))
    );
}

#[test]
fn who_finds_no_place_in_line_is_told_to_the_millisecond_when_to_come_back() {
    let (_engines, gateway) = start("queue_full", "{ max_waiting: 1, max_wait: 20s }");
    let first = occupy(&gateway);
    let low = in_line(&gateway, LOW, 0);
    let refused = ask(&gateway, LOW);
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (503, Some("saturated")));
    let ms: f64 = refused.header("retry-after-ms").expect("it is told").parse().expect("a number");
    assert!((ANSWER_MS * 0.2..=ANSWER_MS * 2.0).contains(&ms), "one place comes free each {ANSWER_MS} ms: {ms}");
    assert_eq!(refused.header("retry-after"), Some((ms / 1e3).ceil().to_string().as_str()));
    // One that matters more takes the place in line of one that does not.
    let high = in_line(&gateway, HIGH, 0);
    let displaced = low.join().expect("it is answered");
    assert_eq!((displaced.status, displaced.json()["error"]["code"].as_str()), (503, Some("saturated")));
    assert!(displaced.header("retry-after-ms").is_some());
    for asking in [first, high] {
        assert_eq!(asking.join().expect("it is answered").status, 200);
    }
    let metrics = gateway.admin_get("/metrics").text();
    let counted = r#"outrigger_rejections_total{model="llama",priority="low",reason="saturated"} 2"#;
    assert!(metrics.contains(counted), "{metrics}");
    eventually("its reason is in the log", || gateway.log().iter().any(|line| line["reason"] == "saturated"));
}

#[test]
fn nobody_waits_for_longer_than_the_file_says() {
    let (_engines, gateway) = start("queue_deadline", "{ max_wait: 200ms }");
    let first = occupy(&gateway);
    let began = std::time::Instant::now();
    let refused = ask(&gateway, LOW);
    assert_eq!(refused.status, 503);
    assert!(
        began.elapsed() < Duration::from_secs_f64(ANSWER_MS / 1e3 / 2.0),
        "it would have waited in vain: {:?}",
        began.elapsed()
    );
    assert_eq!(first.join().expect("it is answered").status, 200);
}

#[test]
fn those_who_wait_follow_a_reload() {
    let (engines, gateway) = start("queue_reload", "{ max_wait: 20s }");
    let first = occupy(&gateway);
    let low = in_line(&gateway, LOW, 0);
    // Room for two: who waits need not wait any more.
    let wider = fleet(&engines, "{ max_wait: 20s }").replace("max_in_flight: 1", "max_in_flight: 2");
    std::fs::write(gateway.fleet_file(), wider).expect("the fleet file");
    gateway.json(&["reload"]);
    eventually("both are served", || in_flight(&gateway) == 2);
    for asking in [first, low] {
        assert_eq!(asking.join().expect("it is answered").status, 200);
    }
    // And one whose model is gone is told so at once.
    let narrow = fleet(&engines, "{ max_wait: 20s }");
    std::fs::write(gateway.fleet_file(), &narrow).expect("the fleet file");
    gateway.json(&["reload"]);
    let first = occupy(&gateway);
    let low = in_line(&gateway, LOW, 0);
    std::fs::write(gateway.fleet_file(), narrow.replace("  llama:\n", "  other:\n")).expect("the fleet file");
    gateway.json(&["reload"]);
    assert_eq!(low.join().expect("it is answered").status, 503);
    assert_eq!(first.join().expect("it is answered").status, 200);
    eventually("nothing is counted", || waiting(&gateway) == 0);
}
