//! `serve --litellm-config`: clients of LiteLLM's proxy, unchanged.

use serde_json::json;

use super::{
    Engines, Gateway, Start, eventually, hello,
    http::{Recorder, Request},
    lock, outrigger, sha256, streamed,
};

const MASTER: &str = "sk-master-0123456789abcdef";

/// `org/Llama` on one engine at `base`.
fn config(base: &str) -> String {
    format!(
        "model_list:\n  - model_name: org/Llama\n    litellm_params:\n      model: hosted_vllm/llama\n      \
         api_base: os.environ/BASE\n      api_key: sk-literal\nenvironment_variables:\n  BASE: {base}/v1\n\
         general_settings:\n  master_key: os.environ/LITELLM_MASTER_KEY\n"
    )
}

fn start(test: &str, base: &str) -> Gateway {
    let fleet = config(base);
    let env = [("LITELLM_MASTER_KEY", MASTER)];
    Gateway::start_with(test, &Start { fleet: &fleet, env: &env, litellm: true, ..Start::default() })
}

fn body(model: &str) -> serde_json::Value {
    let mut body = hello();
    body["model"] = json!(model);
    body
}

#[test]
fn every_way_that_litellm_is_asked_leads_to_the_engine() {
    let engine = Recorder::start("llama");
    let gateway = start("litellm_paths", &engine.url());
    let body = body("org/Llama").to_string();
    for path in [
        "/v1/chat/completions",
        "/chat/completions",
        "/engines/org/Llama/chat/completions",
        "/openai/deployments/org%2FLlama/chat/completions?api-version=2024-02-01",
    ] {
        let response = gateway.send(&Request::post(path, body.clone()).key(MASTER));
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        assert_eq!(response.json()["model"], "org/Llama", "as the client knows it");
        let received = engine.last();
        assert!(received.head.starts_with("POST /v1/chat/completions "), "{}", received.head);
        assert_eq!(received.header("authorization"), Some("Bearer sk-literal"), "the key that stands in the file");
    }
    for path in ["/models", "/v1/models"] {
        let listed = gateway.send(&Request::get(path).key(MASTER)).json();
        assert_eq!(listed["data"][0]["id"], "org-llama");
        assert_eq!(listed["data"][1]["id"], "org/Llama");
    }
    for path in ["/health/liveliness", "/health/liveness", "/health/readiness"] {
        assert_eq!(gateway.send(&Request::get(path)).status, 200, "{path}");
    }
}

#[test]
fn the_master_key_is_a_clients_key_and_no_other_is() {
    let engine = Recorder::start("llama");
    let gateway = start("litellm_key", &engine.url());
    let chat = || Request::post("/chat/completions", body("org/Llama").to_string());
    assert_eq!(gateway.send(&chat()).status, 401);
    assert_eq!(gateway.send(&chat().key("sk-other")).status, 401);
    assert_eq!(gateway.send(&chat().header("x-litellm-api-key", &format!("Bearer {MASTER}"))).status, 200);
    assert!(!engine.last().text().contains(MASTER), "it never reaches an engine");
    let said = lock(&gateway.stderr).clone();
    assert!(!said.contains(MASTER) && !said.contains("sk-literal"), "{said}");
}

#[test]
fn what_was_meant_for_litellm_does_not_reach_the_engine() {
    let engine = Recorder::start("llama");
    let gateway = start("litellm_body", &engine.url());
    let sent = r#"{"tags":["a"],"model":"org/Llama", "messages": [{"role":"user","content":"x"}],"metadata":{"session_id":"s"},"num_retries":2,"fallbacks":["b"],"seed":1e0,"cache":{"no-cache":true}}"#;
    let response = gateway.send(&Request::post("/chat/completions", sent).key(MASTER));
    assert_eq!(response.status, 200, "{}", response.text());
    let received = String::from_utf8(engine.last().body).unwrap();
    assert_eq!(received, r#"{"model":"llama", "messages": [{"role":"user","content":"x"}],"seed":1e0}"#);
    let named = Request::post("/engines/org/Llama/chat/completions", r#"{"messages":[]}"#).key(MASTER);
    assert_eq!(gateway.send(&named).status, 200);
    assert_eq!(engine.last().body, br#"{"model":"llama","messages":[]}"#);
}

#[test]
fn a_mocked_answer_asks_no_engine() {
    let engine = Recorder::start("llama");
    let gateway = start("litellm_mock", &engine.url());
    let mut mocked = body("org/Llama");
    mocked["mock_response"] = json!("made up");
    let ask =
        |body: &serde_json::Value| gateway.send(&Request::post("/chat/completions", body.to_string()).key(MASTER));
    let response = ask(&mocked);
    assert_eq!(response.json()["choices"][0]["message"]["content"], "made up", "{}", response.text());
    let events = ask(&streamed(mocked.clone())).events();
    assert!(events[0].contains("made up") && events[1] == "[DONE]", "{events:?}");
    mocked["model"] = json!("unknown");
    assert_eq!(ask(&mocked).status, 404, "only of models that there are");
    assert!(engine.all().iter().all(|r| !r.text().contains("hello")), "nothing of it reached the engine");
}

#[test]
fn without_that_mode_a_request_is_taken_as_it_is() {
    let engine = Recorder::start("llama");
    let fleet = super::one_backend(&engine.url()).replace(super::LLAMA_70B, "llama");
    let gateway = Gateway::start("litellm_off", &fleet);
    let sent = r#"{"model":"llama","messages":[],"metadata":{"a":"b"}}"#;
    assert_eq!(gateway.send(&Request::post("/v1/chat/completions", sent)).status, 200);
    assert_eq!(engine.last().body, sent.as_bytes());
    for path in ["/chat/completions", "/engines/llama/chat/completions"] {
        assert_eq!(gateway.send(&Request::post(path, sent)).status, 404, "{path}");
    }
    assert_eq!(gateway.send(&Request::get("/health/liveliness")).status, 404);
}

#[test]
fn the_configuration_is_read_again_on_reload() {
    let engines = Engines::instant(1);
    let gateway = start("litellm_reload", &engines.url(0));
    let edited = config(&engines.url(0)).replace("org/Llama", "other");
    std::fs::write(gateway.fleet_file(), edited).unwrap();
    gateway.json(&["reload"]);
    eventually("the new name", || {
        gateway.send(&Request::get("/models").key(MASTER)).json()["data"][0]["id"] == "other"
    });
}

#[test]
fn a_configuration_that_cannot_be_served_is_refused_with_the_reason() {
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("gateway");
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let serve = |path: &str| {
        outrigger(&["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--litellm-config", path], &[])
    };
    let said = serve(&file("none.yaml", "model_list: [{model_name: a, litellm_params: {model: bedrock/x}}]"));
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(said.status.code(), Some(2), "{text}");
    assert!(text.contains("bedrock does not speak") && text.contains("mend what is refused"), "{text}");
    let said = serve(&file("no-master.yaml", &config("http://127.0.0.1:1")));
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(said.status.code(), Some(2), "{text}");
    assert!(text.contains("the variable with the master key is not set"), "{text}");
}

#[test]
fn an_imported_key_is_the_one_that_clients_have() {
    let engines = Engines::instant(1);
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("gateway").join("litellm_export");
    std::fs::create_dir_all(&folder).unwrap();
    let (config, keys) = (folder.join("config.yaml"), folder.join("keys.csv"));
    let text = format!(
        "model_list: [{{model_name: llama, litellm_params: {{model: hosted_vllm/{}, api_base: '{}/v1'}}}}]",
        super::LLAMA_70B,
        engines.url(0)
    );
    std::fs::write(&config, text).unwrap();
    std::fs::write(&keys, format!("token,key_alias\n{},team\n", sha256("sk-of-a-team"))).unwrap();
    let out = outrigger(&["import", "litellm", config.to_str().unwrap(), "--keys", keys.to_str().unwrap()], &[]);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    let gateway = Gateway::start("litellm_export", &String::from_utf8(out.stdout).unwrap());
    let status = |key: &str| gateway.send(&Request::chat(&hello()).key(key)).status;
    assert_eq!((status("sk-of-a-team"), status("sk-other")), (200, 401));
}
