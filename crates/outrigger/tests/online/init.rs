//! `outrigger init`: what comes out, where it goes, and what is said of URLs that cannot be in a fleet.

use std::fs;

use outrigger_fakes::{Fake, LLAMA_70B, Options, Profile};
use serde_json::json;
use tokio::runtime::Runtime;

use super::{
    Said, closed_port, file, folder, outrigger,
    server::{Act, Server, html, json_of, models, not_found},
};
use crate::gateway::pki::{Authority, Door};

/// An OpenAI-compatible server that answers chats only.
fn chats(names: &'static [&'static str]) -> Server {
    Server::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(names),
        "/v1/chat/completions" => json_of(&json!({ "model": asked.body["model"], "choices": [] })),
        _ => not_found(),
    })
}

/// The file that init wrote, after `check` has found nothing wrong with it.
#[track_caller]
fn checked(test: &str, said: &Said) -> String {
    let check = outrigger(&["check", &file(test, &said.stdout), "--json"], &[("ENGINE_KEY", "x")], 0);
    assert_eq!(check.stdout, "{\"errors\":[],\"warnings\":[]}\n", "{}", said.stdout);
    said.stdout.clone()
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn engines_of_one_model_become_one_tier_and_the_file_passes_check() {
    let runtime = Runtime::new().unwrap();
    let fake = || runtime.block_on(Fake::spawn(Options::new(Profile::instant()))).expect("a free port");
    let (one, two, other) = (fake(), fake(), chats(&["tiny"]));
    let urls = [one.url(), format!("{}/v1/", two.url()), format!("{}/v1/models", one.url()), other.url()];
    let said = outrigger(&["init", &urls[0], &urls[1], &urls[2], &urls[3]], &[], 0);
    let text = checked("init-tier", &said);
    has(&text, &["engine: vllm", "engine: openai", "apis: [chat] ", &format!("aliases: [{LLAMA_70B}]")]);
    has(&text, &["{ local-llama-3.3-70b-instruct: 1, local-llama-3.3-70b-instruct-2: 1 }", "{ local-tiny: 1 }"]);
    has(&said.stderr, &["given twice, taken once", "outrigger check fleet.yaml --online", "answers chat completions"]);
}

#[test]
fn the_comments_can_be_put_to_use_as_they_stand() {
    let said = outrigger(&["init", &chats(&["m"]).url()], &[], 0);
    let used: String = said.stdout.lines().map(|line| format!("{}\n", uncommented(line))).collect();
    let used = used.replacen("    cloud: local\n    engine", "    pool: my-gpus\n    engine", 1);
    has(&used, &["\npools:\n  my-gpus:\n", "\nkeys:\n  app:\n", "\ngateway: {", "    max_in_flight: 64"]);
    let check = outrigger(&["check", &file("init-comments", &used), "--json"], &[], 0);
    has(&check.stdout, &["\"errors\":[]"]);
}

/// A line whose comment is YAML, without its `#`; prose has words before the first colon or none.
fn uncommented(line: &str) -> String {
    let Some((indent, rest)) = line.split_once("# ").filter(|(before, _)| before.trim().is_empty()) else {
        return line.to_owned();
    };
    let key = rest.trim_start().split(':').next().unwrap_or_default();
    let is_yaml = rest.contains(':') && key.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
    if is_yaml { format!("{indent}{rest}") } else { line.to_owned() }
}

#[test]
fn adapters_and_second_names_are_told_apart() {
    let list = json!({ "data": [
        { "id": "base", "owned_by": "vllm", "root": "org/base", "parent": null, "max_model_len": 8192 },
        { "id": "latest", "owned_by": "vllm", "root": "org/base", "parent": null, "max_model_len": 8192 },
        { "id": "sql", "owned_by": "vllm", "root": "/a/sql", "parent": "base" },
    ]});
    let server = Server::start(move |asked| if asked.path == "/v1/models" { json_of(&list) } else { not_found() });
    let text = checked("init-adapters", &outrigger(&["init", &server.url()], &[], 0));
    has(&text, &["  base:\n    aliases: [latest]\n", "  sql:\n    tiers:", "# an adapter of base\n", "# 8192 tokens"]);
    let only = outrigger(&["init", &server.url(), "--model", "sql"], &[], 0);
    assert!(!only.stdout.contains("model: base"), "{}", only.stdout);
    has(&outrigger(&["init", &server.url(), "--model", "no"], &[], 1).stderr, &["it has base, latest, sql"]);
}

#[test]
fn a_key_is_sent_and_only_its_variable_is_written() {
    let wants = |asked: &super::server::Asked| asked.head.contains("authorization: Bearer CANARY");
    let server = Server::start(move |asked| match asked.path.as_str() {
        _ if !wants(asked) => Act::Answer(401, "application/json", br#"{"error":"Unauthorized"}"#.to_vec()),
        "/v1/models" => models(&["m"]),
        _ => not_found(),
    });
    let text = checked("init-key", &outrigger(&["init", &server.url(), "--key-env", "ENGINE_KEY"], KEY, 0));
    has(&text, &["    api_key: \"${ENGINE_KEY}\"\n"]);
    assert!(server.heads().iter().all(|head| head.contains("Bearer CANARY")));
    has(&outrigger(&["init", &server.url()], &[], 1).stderr, &["wants another key", "--key-env NAME"]);
    let echo = Server::start(|asked| Act::Answer(401, "text/plain", asked.head.clone().into_bytes()));
    let said = outrigger(&["init", &echo.url(), "--key-env", "ENGINE_KEY"], KEY, 1).stderr;
    has(&said, &["wants another key (401: GET /v1/models", "Bearer …"]);
    has(&outrigger(&["init", &server.url(), "--key-env", "NOT_SET_HERE"], &[], 2).stderr, &["is not set here"]);
    has(&outrigger(&["init", &server.url(), "--key-env", "sk-abc"], &[], 2).stderr, &["and not a key"]);
    has(&outrigger(&["init", "http://me:CANARY@h/v1"], &[], 2).stderr, &["--key-env NAME"]);
}

const KEY: &[(&str, &str)] = &[("ENGINE_KEY", "CANARY")];

#[test]
fn a_private_authority_is_believed_and_written() {
    let engine = chats(&["m"]);
    let runtime = Runtime::new().unwrap();
    let authority = Authority::new("ours");
    let issued = authority.issue();
    let door = Door { shows: &issued, demands: None, alpn: &["http/1.1"] };
    let url = format!("https://{}", door.open(&runtime, engine.address));
    let refused = outrigger(&["init", &url], &[], 3);
    has(&refused.stderr, &[&url, "UnknownIssuer", "give --ca FILE"]);
    let ca = folder("init-ca").join("ca.crt");
    fs::write(&ca, &authority.pem).unwrap();
    let ca = ca.to_str().unwrap();
    let text = checked("init-ca-fleet", &outrigger(&["init", &url, "--ca", ca], &[], 0));
    has(&text, &[&format!("    ca: file:{ca}\n"), &format!("url: {url}/v1\n")]);
    has(&outrigger(&["init", &url, "--ca", "no/such"], &[], 3).stderr, &["cannot read no/such"]);
    fs::write(ca, "none").unwrap();
    has(&outrigger(&["init", &url, "--ca", ca], &[], 2).stderr, &["there is no certificate in it; put"]);
}

#[test]
fn a_file_is_made_and_never_replaced() {
    let engine = chats(&["m"]);
    let path = folder("init-output").join("fleet.yaml");
    let name = path.to_str().unwrap();
    let said = outrigger(&["init", &engine.url(), "-o", name], &[], 0);
    assert_eq!(said.stdout, "");
    has(&said.stderr, &[&format!("outrigger check {name} --online")]);
    let before = fs::read_to_string(&path).unwrap();
    let asked = engine.paths().len();
    has(&outrigger(&["init", &engine.url(), "-o", name], &[], 2).stderr, &["is not overwritten"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), before);
    assert_eq!(engine.paths().len(), asked, "nobody is asked for nothing");
    outrigger(&["init", &engine.url(), "-o", "no/such/folder/fleet.yaml"], &[], 3);
}

#[test]
fn what_cannot_be_reached_is_the_environments_fault_and_what_is_no_engine_is_an_answer() {
    let closed = format!("http://127.0.0.1:{}", closed_port());
    let engine = chats(&["m"]);
    let said = outrigger(&["init", &engine.url(), &closed], &[], 3);
    assert_eq!(said.stdout, "", "a part would be served without anybody noticing");
    has(&said.stderr, &[&closed, "nothing listens there; start the engine", "nothing was written"]);
    has(&outrigger(&["init", "http://no-such-host.invalid"], &[], 3).stderr, &["does not resolve"]);

    let huge = || Act::Answer(200, "application/json", vec![b' '; 5 << 20]);
    for (act, expect) in [
        (html as fn() -> Act, "is not JSON; is this the engine's port?"),
        (not_found, "answers 404: Not Found"),
        (huge, "answers with more than 4096 KiB"),
        (|| json_of(&json!({ "object": "list", "data": [] })), "lists no model"),
        (|| json_of(&json!({ "hello": 1 })), "without a list of models"),
        (|| Act::Answer(503, "text/plain", b"Loading model".to_vec()), "is not ready (503: Loading model)"),
    ] {
        let server = Server::start(move |_| act());
        let said = outrigger(&["init", &server.url()], &[], 1);
        has(&said.stderr, &[&server.url(), expect]);
    }
    let cut = Server::start(|_| Act::Cut);
    has(&outrigger(&["init", &cut.url()], &[], 3).stderr, &["breaks off in the middle of its answer"]);
    has(&outrigger(&["init"], &[], 2).stderr, &["<URL>"]);
}

#[test]
fn one_that_hangs_is_given_up() {
    let all = Server::start(|_| Act::Hang);
    has(&outrigger(&["init", &all.url()], &[], 3).stderr, &["gives no whole answer within 5s"]);
    // It lists its models, and nothing else ever comes.
    let most = Server::start(|asked| if asked.path == "/v1/models" { models(&["m"]) } else { Act::Hang });
    assert!(most.paths().is_empty());
    let url = most.url();
    let began = std::time::Instant::now();
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(["init", &url])
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    super::wait_for(|| most.paths().len() >= 2);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "Ctrl-C ends it");
    assert!(output.stdout.is_empty() && began.elapsed() < std::time::Duration::from_secs(30));
}
