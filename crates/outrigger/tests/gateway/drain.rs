//! How it ends, and what it has written down by then.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::Path,
    thread,
    time::Duration,
};

use outrigger_fakes::{Fixed, LLAMA_70B};
use serde_json::{Value, json};

use super::{
    Engines, Gateway, Profile, Start, eventually, hello,
    http::{Request, Response, connect, read_all},
    lock, one_backend, one_backend_with, streamed,
};

fn slow(total_ms: f64) -> Profile {
    Profile { fixed: Some(Fixed { ttft_ms: 10.0, tokens: 20, total_ms }), ..Profile::instant() }
}

fn long() -> Value {
    let mut body = streamed(hello());
    body["max_tokens"] = 20.into();
    body
}

/// Starts a stream and waits for its first bytes.
fn begin(gateway: &Gateway) -> (std::net::TcpStream, Vec<u8>) {
    let mut stream = connect(gateway.listen);
    stream.write_all(&Request::chat(&long()).bytes()).unwrap();
    let mut first = vec![0; 64];
    stream.read_exact(&mut first).unwrap();
    (stream, first)
}

#[track_caller]
fn exit_code(gateway: &mut Gateway) -> Option<i32> {
    let mut code = None;
    eventually("it ends", || match gateway.child.try_wait().expect("a child") {
        Some(status) => {
            code = status.code();
            true
        }
        None => false,
    });
    code
}

#[test]
fn a_running_stream_ends_properly_before_the_process_does() {
    let engines = Engines::start([slow(4_000.0)]);
    let mut gateway = Gateway::start("sigterm", &one_backend(&engines.url(0)));
    assert_eq!(gateway.send(&Request::get("/readyz")).status, 200);
    let (stream, mut answer) = begin(&gateway);
    // A probe on a connection that was open before, as a load balancer has it.
    let mut probe = connect(gateway.listen);
    gateway.terminate();
    eventually("it has heard the signal", || gateway.admin_get("/api/v1/state").json()["draining"] == true);
    probe.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let ready = Response::parse(&read_all(probe));
    assert_eq!((ready.status, ready.text().as_str()), (503, "draining\n"));
    answer.extend(read_all(stream));
    let events = Response::parse(&answer).events();
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"), "{events:?}");
    assert!(events.len() > 20, "{} events", events.len());
    assert_eq!(exit_code(&mut gateway), Some(0));
    eventually("its line was written", || gateway.log().last().is_some_and(|l| l["outcome"] == "ok"));
}

#[test]
fn a_stream_that_outlasts_the_drain_ends_with_an_error_event() {
    let engines = Engines::start([slow(60_000.0)]);
    let fleet = one_backend_with("gateway:\n  drain: 1s\n", &engines.url(0));
    let mut gateway = Gateway::start("sigterm_late", &fleet);
    let (stream, mut answer) = begin(&gateway);
    gateway.terminate();
    answer.extend(read_all(stream));
    let events = Response::parse(&answer).events();
    let last: Value = serde_json::from_str(events.last().expect("an event")).expect("no [DONE]");
    assert_eq!(last["error"]["code"], "gateway_stopping", "{last}");
    assert_eq!(exit_code(&mut gateway), Some(0));
    eventually("its line was written", || !gateway.log().is_empty());
}

#[test]
fn every_answer_has_its_line_when_the_process_is_gone() {
    let engines = Engines::instant(1);
    let mut gateway = Gateway::start("last_lines", &one_backend(&engines.url(0)));
    // Whoever reads stdout is slow: more lines than a pipe holds still wait when the last answer is out.
    let slow_reader = lock(&gateway.stdout);
    for _ in 0..300 {
        assert_eq!(gateway.chat(&hello()).status, 200);
    }
    gateway.terminate();
    // Longer than /readyz says no before the end, less than the last lines are waited for.
    thread::sleep(Duration::from_millis(1_700));
    drop(slow_reader);
    assert_eq!(exit_code(&mut gateway), Some(0));
    eventually("a line for each", || gateway.log().len() == 300);
}

#[test]
fn a_signal_right_after_the_ready_line_is_obeyed() {
    let engines = Engines::instant(1);
    for _ in 0..5 {
        let mut gateway = Gateway::start("early_signal", &one_backend(&engines.url(0)));
        gateway.terminate();
        assert_eq!(exit_code(&mut gateway), Some(0));
    }
}

/// The members of an object, sorted.
fn members(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn sorted(names: &str) -> Vec<&str> {
    let mut names: Vec<&str> = names.split(' ').collect();
    names.sort_unstable();
    names
}

#[test]
fn the_request_log_and_the_decision_log_say_what_they_promise() {
    let engines = Engines::instant(1);
    let decisions = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gateway-decisions.jsonl");
    drop(fs::remove_file(&decisions));
    let fleet = one_backend(&engines.url(0));
    let start = Start { fleet: &fleet, args: &["--decision-log", decisions.to_str().unwrap()], ..Start::default() };
    let gateway = Gateway::start_with("logs", &start);
    let id = gateway.chat(&hello()).header("x-outrigger-request-id").map(str::to_owned).expect("an id");
    gateway.chat(&streamed(hello()));
    eventually("two lines", || gateway.log().len() == 2);
    for (line, stream) in gateway.log().iter().zip([false, true]) {
        let promised = "event v ts request_id fleet client key_id model stream status outcome prompt_tokens output_tokens cached_tokens \
                        tokens_source ttft_ms queued_ms duration_ms tier reason attempts";
        assert_eq!(members(line), sorted(promised));
        let attempt = &line["attempts"][0];
        let promised =
            "backend outcome reason ttft_ms duration_ms prompt_tokens output_tokens bytes_out bytes_in cost_nano_usd";
        assert_eq!(members(attempt), sorted(promised));
        assert_eq!(members(&attempt["cost_nano_usd"]), sorted("gpu tokens egress"));
        assert_eq!((&line["event"], &line["v"], &line["model"]), (&"request".into(), &1.into(), &"llama".into()));
        assert_eq!((&line["status"], &line["outcome"], &line["stream"]), (&200.into(), &"ok".into(), &stream.into()));
        assert_eq!((&line["output_tokens"], &line["tokens_source"]), (&4.into(), &"engine".into()));
        assert_eq!((&line["tier"], &line["key_id"]), (&1.into(), &Value::Null));
        let ts = line["ts"].as_str().expect("a time");
        assert!(ts.len() == 24 && ts.ends_with('Z') && ts.contains('T'), "{ts}");
        assert_eq!((&attempt["backend"], &line["client"]), (&"b".into(), &"127.0.0.1".into()));
        assert!(attempt["bytes_out"].as_u64() > Some(50) && attempt["bytes_in"].as_u64() > Some(50), "{attempt}");
    }
    assert_eq!(gateway.log()[0]["request_id"], id.as_str());
    eventually("a fleet and two decisions", || fs::read_to_string(&decisions).is_ok_and(|t| t.lines().count() == 3));
    let text = fs::read_to_string(&decisions).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect();
    let digest = &lines[1]["fleet"];
    let names = json!({
        "event": "fleet", "v": 1, "digest": digest, "models": [{ "name": "llama", "tiers": [[[0, 1]]] }],
        "backends": ["b"], "clouds": ["c"], "keys": [],
    });
    assert_eq!(lines[0], names);
    for line in &lines[1..] {
        assert_eq!(members(line), sorted("event v request_id fleet now facts history rng view decision candidates"));
        assert!(line["now"].is_u64() && line["fleet"].is_string(), "{line}");
    }
    assert!(text.contains(&id) && !text.contains("hello"), "ids, never prompts: {LLAMA_70B}");
}
