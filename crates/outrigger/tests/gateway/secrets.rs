//! No secret in anything that comes out: not in an answer, a log, a metric, a page, a message, and the client's key
//! not at the backend either. What clients and engines say to one another is in none of what the operator reads.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::{
    Gateway, LLAMA_70B, Start, eventually, hello,
    http::{Recorder, Request, answer, raw, stream_of},
    lock, one_backend_with, outrigger, pki, sha256, streamed,
};

const CLIENT: &str = "sk-or-CANARYCLIENT0123456789";
const BACKEND: &str = "CANARYBACKEND0123456789";
const ADMIN: &str = "CANARYADMIN0123456789";
const GATE: &str = "CANARYGATE0123456789";
const FILE: &str = "CANARYFILE0123456789";
/// What an engine answers, which only its client may read.
const SPOKEN: &str = "words-of-the-engine";

#[track_caller]
fn clean(what: &str, text: &str) {
    for secret in [CLIENT, BACKEND, ADMIN, GATE, FILE, "CANARY"] {
        assert!(!text.contains(secret), "{secret} in {what}: {text}");
    }
}

/// What is for operators has no word of a conversation either.
#[track_caller]
fn silent(what: &str, text: &str) {
    clean(what, text);
    assert!(!text.contains(SPOKEN), "an answer in {what}: {text}");
}

/// A body in which all that a client says is a canary, down to the name of its session.
fn whispered() -> Value {
    let mut body = hello();
    body["messages"] =
        json!([{ "role": "system", "content": "CANARYSYSTEM" }, { "role": "user", "content": "CANARYPROMPT" }]);
    body["user"] = json!("CANARYUSER");
    body["metadata"] = json!({ "note": "CANARYNOTE" });
    body["tools"] = json!([{ "type": "function", "function": { "name": "CANARYTOOL", "parameters": {} } }]);
    body
}

/// A backend with a key from the environment and a header that is a secret, and one with its key in a file.
fn fleet(url: &str) -> String {
    format!(
        "version: 1\nclouds:\n  c: {{}}\nbackends:\n  b:\n    cloud: c\n    engine: vllm\n    url: {url}/v1\n    model: {LLAMA_70B}\n    \
         api_key: \"${{BACKEND_KEY}}\"\n    headers: {{ x-gate: \"${{GATE}}\" }}\n  f:\n    cloud: c\n    engine: vllm\n    url: {url}/v1\n    \
         model: filed\n    api_key: file:backend-key\nmodels:\n  llama:\n    tiers:\n      - split: {{ b: 1 }}\n  filed:\n    \
         tiers:\n      - split: {{ f: 1 }}\nroutes:\n  /v1/files: f\nkeys:\n  k:\n    sha256: {}\n",
        sha256(CLIENT)
    )
}

/// What a backend may answer: successes, and every class of failure.
fn answers() -> Vec<Vec<u8>> {
    let chunk = json!({ "id": "c", "model": LLAMA_70B, "choices": [{ "index": 0, "delta": { "content": SPOKEN }, "finish_reason": null }] });
    let ok = json!({ "id": "c", "model": LLAMA_70B, "choices": [{ "index": 0, "message": { "role": "assistant", "content": SPOKEN }, "finish_reason": "stop" }] });
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
    let env = [("BACKEND_KEY", BACKEND), ("GATE", GATE), ("OUTRIGGER_ADMIN_TOKEN", ADMIN), ("RUST_BACKTRACE", "full")];
    let start =
        Start { fleet: &fleet, env: &env, args: &["--decision-log", decisions.to_str().unwrap()], ..Start::default() };
    fs::write(super::folder("secrets").join("backend-key"), FILE).unwrap();
    let gateway = Gateway::start_with("secrets", &start);
    let mut ids = Vec::new();
    for answer in answers() {
        backend.answers(answer);
        for request in [Request::chat(&whispered()), Request::chat(&streamed(whispered())), Request::get("/v1/files/1")]
        {
            let request =
                request.key(CLIENT).header("x-session-id", "CANARYSESSION").header("cookie", "a=CANARYCOOKIE");
            let bytes = raw(gateway.listen, &request.bytes(), false);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            clean("an answer", &text);
            ids.extend(text.lines().find_map(|l| l.strip_prefix("x-outrigger-request-id: ").map(str::to_owned)));
        }
    }
    refusals(&gateway);
    pages(&gateway, &ids);
    commands(&gateway, &env, &decisions, &ids[0]);
    eventually("the log is written", || gateway.log().len() >= ids.len());
    let log = fs::read_to_string(&decisions).unwrap();
    assert!(log.contains("\"event\":\"decision\""), "{log}");
    silent("the decision log", &log);
    silent("stdout", &lock(&gateway.stdout));
    silent("stderr", &lock(&gateway.stderr));
    let received = backend.all();
    for key in [BACKEND, FILE] {
        assert!(received.iter().any(|r| r.header("authorization") == Some(&format!("Bearer {key}"))), "{key} is used");
    }
    assert!(received.iter().any(|r| r.header("x-gate") == Some(GATE)));
    assert!(received.iter().any(|r| r.text().contains("CANARYPROMPT")), "the engine hears what is said");
    for request in received {
        let text = request.text();
        for secret in [CLIENT, ADMIN, "CANARYCOOKIE", "CANARYSESSION"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        let others = if request.header("x-gate").is_some() { FILE } else { BACKEND };
        assert!(!text.contains(others), "a backend gets its own key only: {text}");
    }
}

fn refusals(gateway: &Gateway) {
    let unknown = "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"CANARYPROMPT\"}]}";
    for (path, body) in [
        ("/v1/chat/completions", "{"),
        ("/v1/chat/completions", "{\"model\":\"llama\",\"messages\":\"CANARYPROMPT"),
        ("/v1/nothing", "{}"),
        ("/v1/chat/completions", unknown),
    ] {
        for key in [CLIENT, "sk-or-CANARYWRONG"] {
            let bytes = raw(gateway.listen, &Request::post(path, body).key(key).bytes(), false);
            clean("a refusal", &String::from_utf8_lossy(&bytes));
        }
    }
    for key in [CLIENT, "sk-or-CANARYWRONG"] {
        let bytes = raw(gateway.listen, &Request::get("/v1/models").key(key).bytes(), false);
        clean("the models", &String::from_utf8_lossy(&bytes));
    }
}

fn pages(gateway: &Gateway, ids: &[String]) {
    let admin = |path: &str| Request::get(path).key(ADMIN).send(gateway.admin);
    for path in ["/metrics", "/api/v1/state", "/api/v1/overlays", "/api/v1/nothing"] {
        for key in [ADMIN, "CANARYWRONG"] {
            silent(path, &String::from_utf8_lossy(&raw(gateway.admin, &Request::get(path).key(key).bytes(), false)));
        }
    }
    assert!(!ids.is_empty());
    let found = ids
        .iter()
        .map(|id| admin(&format!("/api/v1/decisions/{id}")))
        .inspect(|page| silent("a decision", &page.text()));
    assert!(found.filter(|page| page.status == 200).count() > 0);
}

fn commands(gateway: &Gateway, env: &[(&str, &str)], decisions: &Path, id: &str) {
    let (url, file) = (format!("http://{}", gateway.admin), gateway.fleet_file().display().to_string());
    let state = gateway.folder.join("state.json");
    fs::write(&state, Request::get("/api/v1/state").key(ADMIN).send(gateway.admin).text()).unwrap();
    let (state, log) = (state.to_str().unwrap(), decisions.to_str().unwrap());
    for args in [
        &["status", "--json", "--admin", &url][..],
        &["status", "--admin", &url],
        &["reload", "--json", "--admin", &url],
        &["drain", "nobody", "--admin", &url],
        &["drain", "b", "--why", "w", "--json", "--admin", &url],
        &["undrain", "b", "--json", "--admin", &url],
        &["weight", "llama", "b=2", "--json", "--admin", &url],
        &["explain", "--id", id, "--json", "--admin", &url],
        &["explain", "--id", id, "--admin", &url],
        &["explain", "--fleet", &file, "--model", "llama", "--json"],
        &["explain", "--fleet", &file, "--model", "llama", "--state", state, "--json"],
        &["check", &file],
        &["check", "--json", &file],
        &["check", "--online", &file],
        &["check", "--online", "--json", &file],
        &["replay", log, "--fleet", &file, "--json"],
    ] {
        let out = outrigger(args, env);
        assert!(!out.stdout.is_empty() || !out.stderr.is_empty(), "{args:?} said nothing");
        silent(&format!("{args:?}"), &format!("{out:?}"));
    }
}

/// Private keys of the listener and of a backend: whole, replaced by others, cut short, and each other's.
#[test]
fn private_keys_come_out_nowhere() {
    const TEST: &str = "secrets-tls";
    let authority = pki::Authority::new("ca");
    let (ours, to_backend) = (authority.issue(), authority.issue());
    ours.write(TEST, "server");
    to_backend.write(TEST, "client");
    pki::write(TEST, "ca.crt", &authority.pem);
    // Nothing answers there, so that it is said why.
    let fleet = one_backend_with(
        "gateway:\n  tls: { cert: file:server.crt, key: file:server.key }\n",
        "https://127.0.0.1:9",
    )
    .replace(
        "    engine: vllm\n",
        "    engine: vllm\n    ca: file:ca.crt\n    client_cert: { cert: file:client.crt, key: file:client.key }\n",
    );
    let lines = |key: &str| key.lines().filter(|line| !line.contains("-----")).map(str::to_owned).collect::<Vec<_>>();
    let secrets = [lines(&ours.key), lines(&to_backend.key)].concat();
    assert!(secrets.len() >= 4 && secrets[0].len() >= 40, "{} lines", secrets.len());
    let free = |what: &str, text: &str| {
        for line in &secrets {
            assert!(!text.contains(&line[..16.min(line.len())]), "a private key in {what}: {text}");
        }
    };
    let gateway = Gateway::start(TEST, &fleet);
    let file = gateway.fleet_file().display().to_string();
    let cut = ours.key.replace("-----END PRIVATE KEY-----", "");
    for server_key in [&ours.key, &to_backend.key, &cut, &secrets[0], &ours.chain] {
        pki::write(TEST, "server.key", server_key);
        for args in [&["check", &file][..], &["check", "--json", &file], &["serve", "--fleet", &file, "--listen", "x"]]
        {
            free("a command", &format!("{:?}", outrigger(args, &[])));
        }
        if server_key != &ours.key {
            let serve = ["serve", "--fleet", &file, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
            let out = outrigger(&serve, &[]);
            assert_eq!(out.status.code(), Some(2), "{out:?}");
            free("a refusal to start", &format!("{out:?}"));
        }
        free("a reload", &format!("{:?}", gateway.command(&["reload"])));
        for path in ["/metrics", "/api/v1/state"] {
            free(path, &gateway.admin_get(path).text());
        }
    }
    free("stdout", &lock(&gateway.stdout));
    free("stderr", &lock(&gateway.stderr));
}

/// A configuration of LiteLLM's has its secrets written out.
#[test]
fn secrets_of_a_litellm_configuration_come_out_nowhere() {
    let backend = Recorder::start(LLAMA_70B);
    let config = format!(
        "model_list:\n  - model_name: llama\n    litellm_params: {{ model: hosted_vllm/{LLAMA_70B}, api_base: '{}/v1', api_key: \
         {BACKEND} }}\nenvironment_variables: {{ OTHER: {GATE} }}\ngeneral_settings: {{ master_key: {CLIENT} }}\n",
        backend.url()
    );
    let start = Start { fleet: &config, litellm: true, ..Start::default() };
    let gateway = Gateway::start_with("secrets-litellm", &start);
    for body in [whispered(), streamed(whispered())] {
        let request = Request::chat(&body).header("x-litellm-api-key", &format!("Bearer {CLIENT}"));
        let bytes = raw(gateway.listen, &request.bytes(), false);
        clean("an answer", &String::from_utf8_lossy(&bytes));
    }
    assert_eq!(backend.last().header("authorization"), Some(&*format!("Bearer {BACKEND}")));
    assert!(!backend.last().text().contains(CLIENT));
    let file = gateway.fleet_file().display().to_string();
    for args in [&["import", "litellm", &file][..], &["import", "litellm", "--json", &file]] {
        clean("an import", &format!("{:?}", outrigger(args, &[])));
    }
    for args in [&["status", "--json"][..], &["reload"]] {
        clean("a command", &format!("{:?}", gateway.command(args)));
    }
    for path in ["/metrics", "/api/v1/state"] {
        clean(path, &gateway.admin_get(path).text());
    }
    eventually("the log is written", || gateway.log().len() >= 2);
    clean("stdout", &lock(&gateway.stdout));
    clean("stderr", &lock(&gateway.stderr));
}

#[test]
fn a_secret_that_cannot_be_used_is_not_repeated_in_the_refusal() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join("unusable-secret.yaml");
    fs::write(&file, fleet("http://127.0.0.1:9")).unwrap();
    let args = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--fleet", file.to_str().unwrap()];
    fs::write(folder.join("backend-key"), FILE).unwrap();
    let out = outrigger(&args, &[("BACKEND_KEY", "CANARY\nBACKEND"), ("GATE", GATE)]);
    assert!(!out.status.success());
    clean("the refusal", &String::from_utf8_lossy(&out.stderr));
    let out = outrigger(&args, &[]);
    assert_eq!(out.status.code(), Some(2), "a secret that is not set");
    assert!(String::from_utf8_lossy(&out.stderr).contains("BACKEND_KEY"));
}
