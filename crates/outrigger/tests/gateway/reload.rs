//! Files that change while the gateway serves: the fleet, the secrets it names, and a key that its backend refuses.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::symlink,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::Value;

use super::{
    Gateway, LLAMA_70B, Start, eventually, hello,
    http::{Recorder, Request, answer},
    lock, one_backend, sha256,
};

fn status(gateway: &Gateway) -> Value {
    gateway.json(&["status"])
}

/// A fleet of one backend whose key is in this file.
fn with_key_file(url: &str, file: &str) -> String {
    one_backend(url).replace("    engine: vllm\n", &format!("    engine: vllm\n    api_key: file:{file}\n"))
}

/// Replaces a file as editors and orchestrators do: never half written.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

/// Starts with these files beside the fleet file.
fn start(test: &str, fleet: &str, files: &[(&str, &str)], args: &[&str]) -> Gateway {
    let folder = super::folder(test);
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
    }
    Gateway::start_with(test, &Start { fleet, args, ..Start::default() })
}

#[test]
fn a_fleet_file_that_changes_takes_over_and_a_broken_one_does_not() {
    let backend = Recorder::start(LLAMA_70B);
    let gateway = Gateway::start("watch_fleet", &one_backend(&backend.url()));
    let (good, before) = (fs::read_to_string(gateway.fleet_file()).unwrap(), status(&gateway)["fleet"].clone());
    assert_eq!(status(&gateway)["reload_refused"], Value::Null);
    replace(&gateway.fleet_file(), &good.replace("  llama:", "  lama:\n    aliases: [llama]"));
    eventually("the new fleet", || status(&gateway)["fleet"] != before);
    assert_eq!(gateway.chat(&hello()).json()["model"], "lama");

    let now = status(&gateway)["fleet"].clone();
    replace(&gateway.fleet_file(), &good.replace("engine: vllm", "engine: vlm"));
    eventually("the refusal", || status(&gateway)["reload_refused"].is_string());
    let why = status(&gateway)["reload_refused"].as_str().unwrap().to_owned();
    assert!(why.contains("vlm") && !why.contains('\x1b'), "{why}");
    assert_eq!((&status(&gateway)["fleet"], gateway.chat(&hello()).status), (&now, 200));
    assert!(lock(&gateway.stderr).contains("the fleet in force is still"), "{}", lock(&gateway.stderr));
    let words = String::from_utf8(gateway.command(&["status"]).stdout).unwrap();
    assert!(words.contains("the fleet file was refused"), "{words}");
    assert!(gateway.admin_get("/metrics").text().contains("outrigger_config_last_reload_successful 0"));

    replace(&gateway.fleet_file(), &good);
    eventually("the first fleet again", || status(&gateway)["fleet"] == before);
    assert_eq!(status(&gateway)["reload_refused"], Value::Null);
}

#[test]
fn files_are_left_alone_where_that_is_asked_for() {
    let backend = Recorder::start(LLAMA_70B);
    let gateway = start("watch_not", &one_backend(&backend.url()), &[], &["--no-watch"]);
    let before = status(&gateway)["fleet"].clone();
    let text = fs::read_to_string(gateway.fleet_file()).unwrap().replace("  llama:", "  lama:");
    replace(&gateway.fleet_file(), &text);
    thread::sleep(Duration::from_millis(2_500));
    assert_eq!(status(&gateway)["fleet"], before);
    assert_ne!(gateway.json(&["reload"])["fleet"], before);
}

/// As Kubernetes mounts secrets: a link to a folder is exchanged, and no file is ever written to.
#[test]
fn a_secret_behind_exchanged_links_is_read_again() {
    let backend = Recorder::start(LLAMA_70B);
    let folder = super::folder("watch_links");
    for (version, key) in [("v1", "first-key"), ("v2", "second-key")] {
        fs::create_dir_all(folder.join(version)).unwrap();
        fs::write(folder.join(version).join("key"), key).unwrap();
    }
    drop(fs::remove_file(folder.join("data")));
    symlink("v1", folder.join("data")).unwrap();
    let gateway = Gateway::start("watch_links", &with_key_file(&backend.url(), "data/key"));
    assert_eq!(gateway.chat(&hello()).status, 200);
    assert_eq!(backend.last().header("authorization"), Some("Bearer first-key"));
    symlink("v2", folder.join("data.new")).unwrap();
    fs::rename(folder.join("data.new"), folder.join("data")).unwrap();
    eventually("the second key", || {
        gateway.chat(&hello());
        backend.last().header("authorization") == Some("Bearer second-key")
    });
}

#[test]
fn clients_keys_rotate_with_both_in_force_meanwhile() {
    let backend = Recorder::start(LLAMA_70B);
    let fleet = one_backend(&backend.url()) + "keys:\n  k:\n    sha256: file:hashes\n";
    let gateway = start("watch_hashes", &fleet, &[("hashes", &sha256("sk-old"))], &[]);
    let status_of = |key: &str| gateway.send(&Request::chat(&hello()).key(key)).status;
    assert_eq!((status_of("sk-old"), status_of("sk-new")), (200, 401));
    let hashes = gateway.folder.join("hashes");
    replace(&hashes, &format!("{}\n{}\n", sha256("sk-old"), sha256("sk-new")));
    eventually("both keys", || status_of("sk-new") == 200);
    assert_eq!(status_of("sk-old"), 200);
    replace(&hashes, &sha256("sk-new"));
    eventually("the new key alone", || status_of("sk-old") == 401);
    assert_eq!(status_of("sk-new"), 200);
}

/// A backend that knows these keys only.
fn strict(keys: Arc<Mutex<Vec<&'static str>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let body = format!(
        r#"{{"model":"{LLAMA_70B}","choices":[{{"index":0,"message":{{"content":"hi"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":1,"completion_tokens":1}}}}"#
    );
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut piece = [0; 16_384];
            let n = stream.read(&mut piece).unwrap_or(0);
            let text = String::from_utf8_lossy(&piece[..n]).into_owned();
            let known = lock(&keys).iter().any(|key| text.contains(&format!("Bearer {key}\r\n")));
            let reply = if known {
                answer("200 OK", "application/json", &body)
            } else {
                answer("401 Unauthorized", "application/json", r#"{"error":{"message":"no"}}"#)
            };
            drop(stream.write_all(&reply));
        }
    });
    url
}

#[test]
fn a_new_key_that_is_refused_gives_way_to_the_one_before() {
    let known = Arc::new(Mutex::new(vec!["old-key"]));
    let fleet = with_key_file(&strict(known.clone()), "key");
    let gateway = start("key_fallback", &fleet, &[("key", "old-key")], &[]);
    assert_eq!(gateway.chat(&hello()).status, 200);
    let reloads = || gateway.admin_get("/metrics").text().contains("outrigger_config_reloads_total{result=\"ok\"} 1");
    replace(&gateway.folder.join("key"), "new-key");
    eventually("the reload", reloads);
    for _ in 0..5 {
        let response = gateway.chat(&hello());
        assert_eq!((response.status, response.header("x-outrigger-attempts")), (200, Some("1")), "{}", response.text());
    }
    let said = lock(&gateway.stderr).clone();
    assert_eq!(said.matches("refuses its new api_key").count(), 1, "{said}");
    assert!(!said.contains("new-key") && !said.contains("old-key"), "{said}");
    let fallbacks = "outrigger_backend_key_fallbacks_total{backend=\"b\"} 1";
    assert!(gateway.admin_get("/metrics").text().contains(fallbacks));

    // Once it is known there, a reload turns to it, and the old one may end.
    *lock(&known) = vec!["new-key"];
    gateway.json(&["reload"]);
    assert_eq!(gateway.chat(&hello()).status, 200);
    // Where neither is known, that is said.
    lock(&known).clear();
    assert_eq!(gateway.chat(&hello()).status, 502);
    assert_eq!(status(&gateway)["backends"][0]["why"], "auth");
}
