//! No secret in anything that comes out: not in an answer, a log, a metric, a page, a message, and the client's key
//! not at the backend either.

use std::{fs, path::Path};

use serde_json::json;

use super::{
    Gateway, LLAMA_70B, Start, eventually, hello,
    http::{Recorder, Request, answer, raw, stream_of},
    lock, outrigger, sha256, streamed,
};

const CLIENT: &str = "sk-or-CANARYCLIENT0123456789";
const BACKEND: &str = "CANARYBACKEND0123456789";
const ADMIN: &str = "CANARYADMIN0123456789";

#[track_caller]
fn clean(what: &str, text: &str) {
    for secret in [CLIENT, BACKEND, ADMIN, "CANARY"] {
        assert!(!text.contains(secret), "{secret} in {what}: {text}");
    }
}

fn fleet(url: &str) -> String {
    format!(
        "version: 1\nclouds:\n  c: {{}}\nbackends:\n  b:\n    cloud: c\n    engine: vllm\n    url: {url}/v1\n    model: {LLAMA_70B}\n    \
         api_key: \"${{BACKEND_KEY}}\"\nmodels:\n  llama:\n    tiers:\n      - split: {{ b: 1 }}\nkeys:\n  k:\n    sha256: {}\n",
        sha256(CLIENT)
    )
}

/// What a backend may answer: successes, and every class of failure.
fn answers() -> Vec<Vec<u8>> {
    let chunk = json!({ "id": "c", "model": LLAMA_70B, "choices": [{ "index": 0, "delta": { "content": "x" }, "finish_reason": null }] });
    let ok = json!({ "id": "c", "model": LLAMA_70B, "choices": [{ "index": 0, "message": { "role": "assistant", "content": "x" }, "finish_reason": "stop" }] });
    let error = json!({ "error": { "message": "no", "type": "t", "param": null, "code": "c" } }).to_string();
    let mut all = vec![
        answer("200 OK", "application/json", &ok.to_string()),
        stream_of(&[chunk.to_string()]),
        answer("200 OK", "application/json", "garbage"),
        answer("200 OK", "application/json", &ok.to_string().replace(LLAMA_70B, "another")),
        Vec::new(),
        b"\0\0\0\r\n\r\n".to_vec(),
    ];
    for status in [
        "302 Found",
        "400 Bad Request",
        "401 Unauthorized",
        "404 Not Found",
        "429 Too Many Requests",
        "500 Oh",
        "503 No",
    ] {
        all.push(answer(status, "application/json", &error));
    }
    all
}

#[test]
fn secrets_come_out_nowhere() {
    let backend = Recorder::start(LLAMA_70B);
    let decisions = Path::new(env!("CARGO_TARGET_TMPDIR")).join("secrets-decisions.jsonl");
    fs::write(&decisions, "").unwrap();
    let fleet = fleet(&backend.url());
    let start = Start {
        fleet: &fleet,
        env: &[("BACKEND_KEY", BACKEND), ("OUTRIGGER_ADMIN_TOKEN", ADMIN)],
        args: &["--decision-log", decisions.to_str().unwrap()],
        ..Start::default()
    };
    let gateway = Gateway::start_with("secrets", &start);
    let mut ids = Vec::new();
    for answer in answers() {
        backend.answers(answer);
        for request in [Request::chat(&hello()), Request::chat(&streamed(hello()))] {
            let bytes = raw(gateway.listen, &request.key(CLIENT).bytes(), false);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            clean("an answer", &text);
            ids.extend(text.lines().find_map(|l| l.strip_prefix("x-outrigger-request-id: ").map(str::to_owned)));
        }
    }
    for (path, body) in
        [("/v1/chat/completions", "{"), ("/v1/nothing", "{}"), ("/v1/chat/completions", "{\"model\":\"m\"}")]
    {
        for key in [CLIENT, "sk-or-CANARYWRONG"] {
            let bytes = raw(gateway.listen, &Request::post(path, body).key(key).bytes(), false);
            clean("a refusal", &String::from_utf8_lossy(&bytes));
        }
    }
    let admin = |path: &str| Request::get(path).key(ADMIN).send(gateway.admin);
    for path in ["/metrics", "/api/v1/state", "/api/v1/overlays", "/api/v1/nothing"] {
        clean(path, &admin(path).text());
        clean(path, &Request::get(path).key("CANARYWRONG").send(gateway.admin).text());
    }
    assert!(!ids.is_empty());
    for id in &ids {
        let page = admin(&format!("/api/v1/decisions/{id}"));
        clean("a decision", &page.text());
    }
    for args in [&["status", "--json"][..], &["status"], &["reload", "--json"], &["drain", "nobody"]] {
        let url = format!("http://{}", gateway.admin);
        let out = outrigger(&[args, &["--admin", &url]].concat(), &[("OUTRIGGER_ADMIN_TOKEN", ADMIN)]);
        clean("a command's answer", &format!("{out:?}"));
    }
    eventually("the log is written", || gateway.log().len() >= ids.len());
    let log = fs::read_to_string(&decisions).unwrap();
    assert!(log.contains("\"event\":\"decision\""), "{log}");
    clean("the decision log", &log);
    clean("stdout", &lock(&gateway.stdout));
    clean("stderr", &lock(&gateway.stderr));
    let received = backend.all();
    assert!(received.iter().any(|r| r.header("authorization") == Some(&format!("Bearer {BACKEND}"))));
    for request in received {
        let text = request.text();
        assert!(!text.contains(CLIENT) && !text.contains(ADMIN), "{text}");
    }
}

#[test]
fn a_secret_that_cannot_be_used_is_not_repeated_in_the_refusal() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join("unusable-secret.yaml");
    fs::write(&file, fleet("http://127.0.0.1:9")).unwrap();
    let args = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--fleet", file.to_str().unwrap()];
    let out = outrigger(&args, &[("BACKEND_KEY", "CANARY\nBACKEND")]);
    assert!(!out.status.success());
    clean("the refusal", &String::from_utf8_lossy(&out.stderr));
    let out = outrigger(&args, &[]);
    assert_eq!(out.status.code(), Some(2), "a secret that is not set");
    assert!(String::from_utf8_lossy(&out.stderr).contains("BACKEND_KEY"));
}
