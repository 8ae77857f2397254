//! The commands around a running gateway, and what survives what.

use std::fs;

use outrigger_fakes::{Fault, FaultKind};

use super::{Engines, Gateway, LLAMA_70B, Start, eventually, hello, http::Request, lock, outrigger};

/// Model `llama` on `a` and `b`, half and half, with this under `gateway:`.
fn fleet(engines: &Engines, gateway: &str) -> String {
    let backend = |name: &str, n: usize| {
        format!("  {name}:\n    cloud: c\n    engine: vllm\n    url: {}/v1\n    model: {LLAMA_70B}\n", engines.url(n))
    };
    let (a, b) = (backend("a", 0), backend("b", 1));
    format!(
        "version: 1\n{gateway}clouds:\n  c: {{}}\nbackends:\n{a}{b}models:\n  llama:\n    tiers:\n      - split: {{ a: 1, b: 1 }}\n"
    )
}

/// Who serves the next requests.
fn served(gateway: &Gateway, requests: usize) -> (usize, usize) {
    let backends: Vec<String> = (0..requests)
        .map(|_| gateway.chat(&hello()).header("x-outrigger-backend").expect("an answer").to_owned())
        .collect();
    (backends.iter().filter(|b| *b == "a").count(), backends.iter().filter(|b| *b == "b").count())
}

#[test]
fn a_drained_backend_gets_nothing_until_it_is_put_back() {
    let engines = Engines::instant(2);
    let gateway = Gateway::start("drain", &fleet(&engines, ""));
    assert_eq!(served(&gateway, 10), (5, 5), "an exact half each");
    let drained = gateway.json(&["drain", "a", "--for", "10m", "--why", "kernel update"]);
    assert_eq!(drained["overlay"]["backend"], "a");
    assert_eq!((&drained["for_s"], &drained["survives_restart"]), (&600.into(), &false.into()));
    assert_eq!(served(&gateway, 10), (0, 10));
    let state = gateway.json(&["status"]);
    assert_eq!(state["overlays"][0]["why"], "kernel update");
    assert_eq!(state["overlays_survive_restart"], false);
    let words = String::from_utf8(gateway.command(&["status"]).stdout).unwrap();
    assert!(words.contains("drain of a: kernel update") && words.contains("in memory only"), "{words}");
    let words = String::from_utf8(gateway.command(&["drain", "b"]).stdout).unwrap();
    assert!(words.contains("for 2h") && words.contains("a restart ends it"), "{words}");
    assert_eq!(gateway.chat(&hello()).status, 503, "nothing is left");
    assert_eq!(gateway.json(&["undrain", "a"])["ended"], true);
    assert_eq!(gateway.json(&["undrain", "a"])["ended"], false);
    assert_eq!(served(&gateway, 10), (10, 0));
    let unknown = gateway.command(&["drain", "nobody"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there are: a, b"), "{unknown:?}");
    assert_eq!(gateway.command(&["drain", "a", "--for", "soon"]).status.code(), Some(2));
}

#[test]
fn status_says_why_a_backend_pauses_and_for_how_long_yet() {
    let engines = Engines::instant(2);
    let gateway = Gateway::start("pauses", &fleet(&engines, ""));
    let seen = || gateway.json(&["status"])["backends"][0].clone();
    let words = || {
        let out = String::from_utf8(gateway.command(&["status"]).stdout).unwrap();
        let line = out.lines().find(|line| line.starts_with("a ")).unwrap_or_else(|| panic!("{out}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let set = |fault| engines.runtime.block_on(engines.fakes[0].set_fault(fault));
    let heal = || engines.runtime.block_on(engines.fakes[0].heal());
    assert_eq!((&seen()["why"], &seen()["ends_in_s"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    // Three outages, each as soon as it is back.
    for out in 1..=3 {
        set(Fault::new(FaultKind::Refuse));
        eventually("it is taken out", || {
            served(&gateway, 2);
            seen()["ejections"] == out
        });
        heal();
        eventually("it answers again", || seen()["state"] != "down" && seen()["state"] != "suspect");
    }
    let held = seen();
    assert_eq!((&held["state"], &held["why"]), (&"ejected".into(), &"flapping".into()), "{held}");
    let left = held["ends_in_s"].as_f64().expect("it says how long");
    assert!((20.0..=30.0).contains(&left), "{left}");
    let said = words();
    assert!(said.starts_with("a c ejected flapping, ") && said.contains("s left "), "{said}");
    assert_eq!(served(&gateway, 10), (0, 10), "it gets nothing although it answers");
    let words = String::from_utf8(gateway.command(&["undrain", "a"]).stdout).unwrap();
    assert_eq!(words, "a is in use again, its ejection is over\n");
    assert_eq!(seen()["state"], "slow_start");
    assert!(served(&gateway, 10).0 > 0, "it is used");

    let gateway = Gateway::start("refuses", &fleet(&engines, ""));
    eventually("it is known", || gateway.json(&["status"])["backends"][0]["state"] == "up");
    set(Fault::new(FaultKind::Status(429)).retry_after_s(100));
    served(&gateway, 4);
    let refused = gateway.json(&["status"])["backends"][0].clone();
    assert_eq!((&refused["state"], &refused["why"]), (&"cooling_down".into(), &"rate_limited".into()), "{refused}");
    assert!((80.0..=100.0).contains(&refused["ends_in_s"].as_f64().unwrap_or_default()), "{refused}");
}

#[test]
fn other_weights_hold_exactly() {
    let engines = Engines::instant(2);
    let gateway = Gateway::start("weight", &fleet(&engines, ""));
    gateway.json(&["weight", "llama", "a=3", "b=1", "--why", "rollout"]);
    assert_eq!(served(&gateway, 40), (30, 10));
    let split = gateway.json(&["status"])["models"][0]["tiers"][0]["split"].clone();
    assert_eq!((&split[0]["weight"], &split[0]["weight_in_file"]), (&3.into(), &1.into()));
    for (wrong, code) in [("a", 2), ("a=x", 2), ("a=0", 1), ("nobody=1", 1)] {
        assert_eq!(gateway.command(&["weight", "llama", wrong]).status.code(), Some(code), "{wrong}");
    }
    assert_eq!(gateway.command(&["weight", "llama", "a=1", "--tier", "2"]).status.code(), Some(1));
}

#[test]
fn overlays_survive_a_restart_where_a_folder_is_set() {
    let engines = Engines::instant(2);
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("gateway-overlays");
    drop(fs::remove_dir_all(&folder));
    let text = fleet(&engines, &format!("gateway:\n  state_dir: {}\n", folder.display()));
    let gateway = Gateway::start("durable", &text);
    assert_eq!(gateway.json(&["drain", "a"])["survives_restart"], true);
    gateway.json(&["weight", "llama", "b=7"]);
    drop(gateway);
    let gateway = Gateway::start("durable", &text);
    assert_eq!(served(&gateway, 6), (0, 6));
    let state = gateway.json(&["status"]);
    assert_eq!(state["overlays"].as_array().map(Vec::len), Some(2));
    assert_eq!(state["overlays_survive_restart"], true);
    gateway.json(&["undrain", "a"]);
    drop(gateway);
    let gateway = Gateway::start("durable", &text);
    assert_eq!(gateway.json(&["status"])["overlays"].as_array().map(Vec::len), Some(1));
    drop(gateway);
    // Without the folder they are gone.
    let gateway = Gateway::start("durable", &fleet(&engines, ""));
    assert_eq!(served(&gateway, 6), (3, 3));
}

#[test]
fn a_reload_of_a_faulty_file_keeps_the_old_one() {
    let engines = Engines::instant(2);
    let gateway = Gateway::start("reload", &fleet(&engines, ""));
    let before = gateway.json(&["status"])["fleet"].clone();
    let good = fs::read_to_string(gateway.fleet_file()).unwrap();
    let unread = good.replace("engine: vllm", "engine: vllm\n    ca: file:absent.crt").replace("http://", "https://");
    for faulty in ["version: 1\n", "{", "", &good.replace("engine: vllm", "engine: vlm"), &unread] {
        fs::write(gateway.fleet_file(), faulty).unwrap();
        let out = gateway.command(&["reload"]);
        assert_eq!(out.status.code(), Some(1), "{faulty}");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(said.contains("the fleet in force is still"), "{said}");
        assert_eq!(gateway.json(&["status"])["fleet"], before);
        assert_eq!(gateway.chat(&hello()).status, 200);
    }
    assert!(gateway.admin_get("/metrics").text().contains("outrigger_config_last_reload_successful 0"));
    fs::write(gateway.fleet_file(), good.replace("{ a: 1, b: 1 }", "{ b: 1 }")).unwrap();
    let reloaded = gateway.json(&["reload"]);
    assert_eq!(reloaded["before"], before);
    assert_ne!(reloaded["fleet"], before);
    assert_eq!(served(&gateway, 6), (0, 6));
    assert!(gateway.admin_get("/metrics").text().contains("outrigger_config_last_reload_successful 1"));
}

#[test]
fn a_request_is_explained_by_its_id() {
    let engines = Engines::instant(2);
    let gateway = Gateway::start("explained", &fleet(&engines, ""));
    gateway.json(&["drain", "a"]);
    let response = gateway.chat(&hello());
    let id = response.header("x-outrigger-request-id").unwrap();
    let explained = gateway.json(&["explain", "--id", id]);
    assert_eq!(explained, gateway.admin_get(&format!("/api/v1/decisions/{id}")).json());
    let decision = &explained["decisions"][0];
    assert_eq!((decision["chosen"].as_str(), decision["attempt"].as_u64()), (Some("b"), Some(1)));
    let reasons: Vec<&str> =
        decision["candidates"].as_array().unwrap().iter().map(|c| c["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["drained", "chosen"]);
    let words = String::from_utf8(gateway.command(&["explain", "--id", id]).stdout).unwrap();
    assert!(words.contains("drained") && words.contains('b'), "{words}");
    assert_eq!(gateway.command(&["explain", "--id", "req_0"]).status.code(), Some(1));
}

#[test]
fn what_would_be_chosen_in_the_state_of_a_running_gateway() {
    let engines = Engines::instant(2);
    let gateway = Gateway::start("ahead", &fleet(&engines, ""));
    gateway.json(&["drain", "a"]);
    let view = gateway.folder.join("view.json");
    fs::write(&view, gateway.command(&["status", "--json"]).stdout).unwrap();
    let (file, view) = (gateway.fleet_file(), view.to_str().unwrap().to_owned());
    let args = ["explain", "--fleet", file.to_str().unwrap(), "--model", "llama", "--json", "--state", &view];
    let out = outrigger(&args, &[]);
    let value: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
    assert_eq!((value["chosen"].as_str(), value["candidates"][0]["reason"].as_str()), (Some("b"), Some("drained")));
}

#[test]
fn the_admin_listener_wants_its_token() {
    let engines = Engines::instant(2);
    let text = fleet(&engines, "");
    let gateway = Gateway::start_with(
        "token",
        &Start { fleet: &text, env: &[("OUTRIGGER_ADMIN_TOKEN", "t0ken")], ..Start::default() },
    );
    for path in ["/metrics", "/api/v1/state", "/api/v1/decisions/x", "/api/v1/overlays", "/nothing"] {
        assert_eq!(gateway.admin_get(path).status, 401, "{path}");
        assert_eq!(Request::get(path).key("t0ke").send(gateway.admin).status, 401, "{path}");
    }
    assert_eq!(Request::get("/metrics").key("t0ken").send(gateway.admin).status, 200);
    assert_eq!(gateway.command(&["drain", "a"]).status.code(), Some(1));
    let url = format!("http://{}", gateway.admin);
    let out = outrigger(&["drain", "a", "--admin", &url, "--json"], &[("OUTRIGGER_ADMIN_TOKEN", "t0ken")]);
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    // Without one, a web page still gets nothing.
    let open = Gateway::start("no_token", &text);
    let page = Request::post("/api/v1/reload", "").header("origin", "https://evil.example");
    assert_eq!(page.send(open.admin).status, 403);
    assert_eq!(open.send(&Request::get("/api/v1/state")).status, 404, "never on the data listener");
    let off_loopback = [
        "serve",
        "--fleet",
        &open.fleet_file().display().to_string(),
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "0.0.0.0:0",
    ]
    .map(str::to_owned);
    let out = outrigger(&off_loopback.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    assert_eq!(out.status.code(), Some(2), "{}", lock(&open.stderr));
}
