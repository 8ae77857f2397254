//! What clients should not send. Each gets the right status in OpenAI's shape, nothing reaches a backend, nothing is
//! kept, and the process serves on.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    Engines, Gateway, eventually, hello,
    http::{Request, Response, connect, raw, read_all},
    one_backend, one_backend_with, sha256, streamed,
};

const CHAT: &str = "/v1/chat/completions";

/// The error in OpenAI's shape, whole.
#[track_caller]
fn refused(response: &Response, status: u16, code: &str) -> Value {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert!(response.header("x-outrigger-request-id").is_some_and(|id| id.starts_with("req_")), "{response:?}");
    let error = response.json()["error"].clone();
    for member in ["message", "type", "param", "code"] {
        assert!(error.get(member).is_some(), "no {member} in {error}");
    }
    assert_eq!(error["code"], code, "{error}");
    assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()) && error["type"].is_string(), "{error}");
    error
}

#[test]
fn a_body_that_is_no_request_is_a_400_that_says_why() {
    let engines = Engines::instant(1);
    let mut gateway = Gateway::start("no_request", &one_backend(&engines.url(0)));
    let deep = format!("{{\"model\":\"llama\",\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let cases: [(&[u8], &str); 14] = [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[]", "invalid_json"),
        (b"null", "invalid_json"),
        (b"{\"model\":\"llama\"}}", "invalid_json"),
        (b"{\"model\":\"llama\",}", "invalid_json"),
        (b"{\"model\":\"llama\",\"model\":\"other\"}", "invalid_json"),
        (b"{\"model\":\"llama\",\"mod\\u0065l\":\"other\"}", "invalid_json"),
        (b"{\"model\":\"ll\xffama\"}", "invalid_json"),
        (b"{\"model\":\"\\ud800\"}", "invalid_type"),
        (deep.as_bytes(), "invalid_json"),
        (b"{\"messages\":[]}", "missing_required_parameter"),
        (b"{\"model\":7}", "invalid_type"),
        (b"{\"model\":\"llama\",\"stream\":\"yes\"}", "invalid_type"),
    ];
    for (body, code) in cases {
        let response = gateway.send(&Request::post(CHAT, body));
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]);
        assert_eq!(response.json()["error"]["code"], code, "{shown}: {}", response.text());
        refused(&response, 400, code);
    }
    assert_eq!(engines.fakes[0].stats().received, 0, "nothing of it is a backend's business");
    gateway.assert_healthy();
}

#[test]
fn a_model_that_does_not_exist_is_a_404_that_names_the_nearest() {
    let engines = Engines::instant(1);
    let gateway = Gateway::start("unknown_model", &one_backend(&engines.url(0)));
    let error = refused(&gateway.chat(&json!({ "model": "lama", "messages": [] })), 404, "model_not_found");
    assert!(error["message"].as_str().is_some_and(|m| m.contains("did you mean 'llama'?")), "{error}");
    assert_eq!(error["param"], "model");
    let far = refused(&gateway.chat(&json!({ "model": "gpt-9\u{1b}[31m", "messages": [] })), 404, "model_not_found");
    assert!(!far["message"].as_str().unwrap().contains("did you mean"), "{far}");
    assert!(!far["message"].as_str().unwrap().contains('\u{1b}'), "{far}");
    refused(&gateway.send(&Request::get("/v1/models/lama")), 404, "model_not_found");
}

#[test]
fn paths_and_methods_that_are_not_there() {
    let engines = Engines::instant(1);
    let gateway = Gateway::start("paths", &one_backend(&engines.url(0)));
    for path in
        ["/", "/v1", "/v2/chat/completions", "/chat/completions", "/v1/chat/completions/", "/metrics", "/api/v1/state"]
    {
        refused(&gateway.send(&Request::post(path, hello().to_string())), 404, "unknown_url");
    }
    for (method, path, allow) in [
        ("GET", CHAT, "POST"),
        ("PUT", CHAT, "POST"),
        ("DELETE", CHAT, "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/models/llama", "GET"),
    ] {
        let request = Request { method, ..Request::post(path, "{}") };
        let response = gateway.send(&request);
        refused(&response, 405, "method_not_allowed");
        assert_eq!(response.header("allow"), Some(allow), "{method} {path}");
    }
    let compressed = Request::chat(&hello()).header("content-encoding", "gzip");
    refused(&gateway.send(&compressed), 415, "unsupported_encoding");
    assert_eq!(gateway.send(&Request::chat(&hello()).header("content-encoding", "identity")).status, 200);
}

#[test]
fn a_key_that_is_missing_or_wrong_is_a_401() {
    let engines = Engines::instant(1);
    let fleet = format!("{}keys:\n  k:\n    sha256: {}\n", one_backend(&engines.url(0)), sha256("sk-right"));
    let gateway = Gateway::start("wrong_key", &fleet);
    let requests = [
        Request::chat(&hello()),
        Request::chat(&hello()).key("sk-wrong"),
        Request::chat(&hello()).key(""),
        Request::chat(&hello()).header("authorization", "Basic sk-right"),
        Request::get("/v1/models").key("sk-wrong"),
        Request::get("/v1/nothing"),
    ];
    for request in &requests {
        refused(&gateway.send(request), 401, "invalid_api_key");
    }
    assert_eq!(gateway.send(&Request::chat(&hello()).key("sk-right")).status, 200);
    assert_eq!(gateway.send(&Request::get("/healthz")).status, 200, "probes of the gateway need no key");
    assert_eq!(engines.fakes[0].stats().received, 1);
}

#[test]
fn a_body_over_the_limit_is_a_413_that_arrives() {
    let engines = Engines::instant(1);
    let fleet = one_backend_with("gateway:\n  limits: { body: 1MiB }\n", &engines.url(0));
    let mut gateway = Gateway::start("too_large", &fleet);
    let mut body = hello();
    body["messages"][0]["content"] = json!("x".repeat(8 << 20));
    // Several times, because an answer lost to a reset is a matter of timing.
    for _ in 0..10 {
        refused(&gateway.chat(&body), 413, "body_too_large");
    }
    let chunked = Request::chat(&hello()).header("transfer-encoding", "chunked");
    let mut bytes = String::from_utf8(chunked.bytes()).unwrap();
    bytes.truncate(bytes.find("\r\n\r\n").unwrap() + 4);
    bytes = bytes.lines().filter(|l| !l.starts_with("content-length")).map(|l| format!("{l}\r\n")).collect();
    bytes.push_str(&format!("{:x}\r\n{}\r\n0\r\n\r\n", 2 << 20, "x".repeat(2 << 20)));
    refused(&Response::parse(&raw(gateway.listen, bytes.as_bytes(), false)), 413, "body_too_large");
    gateway.assert_healthy();
}

#[test]
fn a_length_given_twice_never_makes_two_requests_of_one() {
    let engines = Engines::instant(1);
    let fleet = one_backend_with("gateway:\n  limits: { read_timeout: 1s }\n", &engines.url(0));
    let mut gateway = Gateway::start("smuggling", &fleet);
    let body = hello().to_string();
    let hidden =
        format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\n");
    let whole = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let cases = [
        format!("{head}content-length: {}\r\ntransfer-encoding: chunked\r\n\r\n{whole}{hidden}", whole.len()),
        format!("{head}transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n{whole}{hidden}"),
        format!("{head}transfer-encoding: chunked, identity\r\n\r\n{whole}{hidden}"),
        format!("{head}transfer-encoding: xchunked\r\ncontent-length: 0\r\n\r\n{whole}{hidden}"),
        format!("{head}content-length: {}\r\ncontent-length: {}\r\n\r\n{body}{hidden}", body.len(), body.len() + 1),
        format!("{head}content-length: +{}\r\n\r\n{body}{hidden}", body.len()),
        format!("{head}content-length : {}\r\n\r\n{body}{hidden}", body.len()),
        format!("{head}transfer-encoding: chunked\r\n\r\n{:x};\nx\r\n{body}\r\n0\r\n\r\n{hidden}", body.len()),
        format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n{body}\r\n0\r\n\r\n{hidden}"),
        format!("{head}transfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\n{body}\r\n0\r\n\r\n{hidden}"),
        "GET / HTTP/9.9\r\n\r\n".to_owned() + &hidden,
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\r\n\r\n".to_owned() + &hidden,
    ];
    for case in &cases {
        let answered = String::from_utf8_lossy(&raw(gateway.listen, case.as_bytes(), false)).into_owned();
        let answers = answered.matches("HTTP/1.1 ").count();
        assert!(answers <= 1, "{answers} answers to {case}\n{answered}");
    }
    let both = String::from_utf8_lossy(&raw(gateway.listen, cases[0].as_bytes(), false)).into_owned();
    assert!(both.starts_with("HTTP/1.1 400") || both.starts_with("HTTP/1.1 200"), "{both}");
    gateway.assert_healthy();
}

/// A reset would take the refusal from a client that is still sending: asynchronous ones stop reading then.
#[test]
fn a_refusal_is_not_lost_while_the_client_still_sends_its_body() {
    let engines = Engines::instant(1);
    let mut gateway = Gateway::start("still_sending", &one_backend(&engines.url(0)));
    let mut client = connect(gateway.listen);
    let size = 40 * 10_000;
    write!(client, "POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n").unwrap();
    let answer = read_all(client.try_clone().unwrap());
    refused(&Response::parse(&answer), 404, "unknown_url");
    // The answer is whole and the gateway's direction closed. What is sent from now on goes nowhere, and does no harm.
    for _ in 0..40 {
        client.write_all(&[b'x'; 10_000]).expect("the gateway still reads");
        thread::sleep(Duration::from_millis(5));
    }
    client.shutdown(Shutdown::Write).unwrap();
    gateway.assert_healthy();
}

/// Waiting for the end of a body that never comes is bounded.
#[test]
fn a_client_that_is_refused_and_never_stops_sending_is_cut_off() {
    let engines = Engines::instant(1);
    let mut gateway = Gateway::start("never_stops", &one_backend(&engines.url(0)));
    let mut client = connect(gateway.listen);
    write!(client, "POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n").unwrap();
    let began = Instant::now();
    while client.write_all(&[b'x'; 1_000]).is_ok() {
        assert!(began.elapsed() < Duration::from_secs(10), "the gateway reads on and on");
        thread::sleep(Duration::from_millis(20));
    }
    gateway.assert_healthy();
}

#[test]
fn a_client_that_dribbles_is_not_waited_for() {
    let engines = Engines::instant(1);
    let fleet = one_backend_with("gateway:\n  limits: { read_timeout: 1s }\n", &engines.url(0));
    let mut gateway = Gateway::start("dribble", &fleet);
    let bytes = Request::chat(&hello()).bytes();
    let body_at = bytes.len() - hello().to_string().len();
    for (name, from) in [("head", 20), ("body", body_at)] {
        let began = Instant::now();
        let mut stream = connect(gateway.listen);
        stream.write_all(&bytes[..from]).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let rest = bytes[from..].to_vec();
        thread::spawn(move || {
            // One byte at a time, for longer than the limit.
            for byte in rest {
                if writer.write_all(&[byte]).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(100));
            }
        });
        let answer = read_all(stream);
        let took = began.elapsed();
        assert!((Duration::from_millis(900)..Duration::from_secs(4)).contains(&took), "{name}: {took:?}");
        if name == "body" {
            refused(&Response::parse(&answer), 408, "body_timeout");
        } else {
            assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
        }
    }
    gateway.assert_healthy();
}

#[test]
fn a_thousand_half_open_clients_keep_nobody_out() {
    let engines = Engines::instant(1);
    let fleet = one_backend_with("gateway:\n  limits: { read_timeout: 3s }\n", &engines.url(0));
    let mut gateway = Gateway::start("half_open", &fleet);
    gateway.chat(&hello());
    let before = gateway.resident_kib();
    let half: Vec<_> = (0..1_000)
        .map(|i| {
            let mut stream = connect(gateway.listen);
            let bytes = Request::chat(&hello()).bytes();
            let part = [0, 1, 40, bytes.len() - 1][i % 4];
            stream.write_all(&bytes[..part]).unwrap();
            stream
        })
        .collect();
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(gateway.chat(&hello()).status, 200);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    let grew = gateway.resident_kib().saturating_sub(before);
    assert!(grew < 64 << 10, "{grew} KiB for 1,000 connections");
    eventually("all are closed", || gateway.admin_get("/metrics").text().contains("outrigger_client_connections 0\n"));
    drop(half);
    gateway.assert_healthy();
}

#[test]
fn a_client_that_leaves_inside_its_body_costs_nothing() {
    let engines = Engines::instant(1);
    let mut gateway = Gateway::start("truncated", &one_backend(&engines.url(0)));
    let bytes = Request::chat(&hello()).bytes();
    let short = raw(gateway.listen, &bytes[..bytes.len() - 3], true);
    assert!(short.is_empty() || short.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&short));
    for _ in 0..50 {
        let mut stream = connect(gateway.listen);
        stream.write_all(&bytes[..bytes.len() - 3]).unwrap();
        stream.shutdown(Shutdown::Both).unwrap();
    }
    assert_eq!(engines.fakes[0].stats().received, 0);
    // Complete, but nobody waits for the answer; the engine must be let go.
    for _ in 0..20 {
        let mut stream = connect(gateway.listen);
        stream.write_all(&Request::chat(&streamed(hello())).bytes()).unwrap();
        stream.read_exact(&mut [0; 1]).unwrap();
    }
    eventually("no request is in flight", || engines.fakes[0].stats().in_flight == 0);
    gateway.assert_healthy();
}

#[test]
fn bodies_are_let_go_under_a_small_budget() {
    let engines = Engines::instant(1);
    let fleet = one_backend_with("gateway:\n  limits: { body: 2MiB, held: 4MiB }\n", &engines.url(0));
    let mut gateway = Gateway::start("held", &fleet);
    let mut large = hello();
    // Whitespace, so that the prompt fits the model.
    large["padding"] = json!(" ".repeat(1 << 20));
    let request = Request::chat(&large);
    let statuses: Vec<u16> = thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| (0..25).map(|_| gateway.send(&request).status).collect::<Vec<u16>>()))
            .collect();
        clients.into_iter().flat_map(|c| c.join().expect("a client")).collect()
    });
    assert_eq!(statuses.len(), 200);
    assert!(statuses.iter().all(|s| [200, 503].contains(s)), "{statuses:?}");
    assert!(statuses.contains(&200), "{statuses:?}");
    // Abandoned half-way, too.
    for _ in 0..20 {
        let mut stream = connect(gateway.listen);
        let bytes = request.bytes();
        stream.write_all(&bytes[..bytes.len() - 10]).unwrap();
    }
    eventually("the budget is whole again", || {
        let clients: Vec<u16> = thread::scope(|scope| {
            let three: Vec<_> = (0..3).map(|_| scope.spawn(|| gateway.send(&request).status)).collect();
            three.into_iter().map(|c| c.join().expect("a client")).collect()
        });
        clients == [200, 200, 200]
    });
    gateway.assert_healthy();
}
