//! Keys that everybody knows are refused wherever a fleet comes from, and `key new` makes none.

use std::{collections::HashSet, fs, net::TcpListener, path::PathBuf, process::Output};

use serde_json::Value;

use super::{Gateway, LLAMA_70B, Start, eventually, hello, http::Request, lock, one_backend, outrigger, sha256};

/// A folder with this fleet file, and these files beside it.
fn written(test: &str, fleet: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = super::folder(test);
    fs::write(folder.join("fleet.yaml"), fleet).unwrap();
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
    }
    folder.join("fleet.yaml")
}

fn keyed(hash: &str) -> String {
    one_backend("http://127.0.0.1:9") + &format!("keys:\n  k:\n    sha256: {hash}\n")
}

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn serve(from: &str, file: &std::path::Path, listen: &str) -> Output {
    let file = file.to_str().unwrap();
    outrigger(&["serve", from, file, "--listen", listen, "--admin", "127.0.0.1:0"], &[])
}

#[test]
fn check_names_the_weak_key_and_its_place() {
    for (test, hash, files, column) in [
        ("weak_literal", sha256("sk-1234"), vec![], 13),
        (
            "weak_file",
            "file:hashes".to_owned(),
            vec![("hashes", sha256("fine") + "\n# old\n" + &sha256("sk-1234"))],
            13,
        ),
    ] {
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let file = written(test, &keyed(&hash), &files);
        let out = outrigger(&["check", "--json", file.to_str().unwrap()], &[]);
        assert_eq!(out.status.code(), Some(1), "{test}: {}", stderr(&out));
        let found: Value = serde_json::from_slice(&out.stdout).unwrap();
        let fault = &found["errors"][0];
        assert_eq!(fault["code"], "weak_key", "{test}: {found}");
        assert_eq!((fault["line"].as_u64(), fault["column"].as_u64()), (Some(16), Some(column)), "{test}: {found}");
        assert!(fault["message"].as_str().unwrap().contains("the hash of `sk-1234`"), "{test}: {found}");
        assert!(fault["help"].as_str().unwrap().contains("outrigger key new"), "{test}: {found}");
        if test == "weak_file" {
            assert!(fault["message"].as_str().unwrap().contains("hashes`, line 3:"), "{found}");
        }
    }
}

#[test]
fn serve_does_not_start_with_a_weak_key() {
    for (test, hash, files) in [
        ("weak_serve", sha256("changeme"), None),
        ("weak_serve_file", "file:hashes".to_owned(), Some(sha256("changeme"))),
        ("weak_serve_empty", "file:hashes".to_owned(), Some(sha256("fine") + "\n" + &sha256(""))),
    ] {
        let files: Vec<(&str, &str)> = files.iter().map(|text| ("hashes", text.as_str())).collect();
        let out = serve("--fleet", &written(test, &keyed(&hash), &files), "127.0.0.1:0");
        let said = stderr(&out);
        assert_eq!(out.status.code(), Some(2), "{test}: {said}");
        assert!(said.contains("this is the hash of") && said.contains("outrigger key new"), "{test}: {said}");
        assert!(out.stdout.is_empty(), "no ready line");
    }
}

#[test]
fn a_reload_does_not_take_a_weak_key() {
    let fleet = keyed("file:hashes");
    written("weak_reload", &fleet, &[("hashes", &sha256("fine-key"))]);
    let gateway = Gateway::start_with("weak_reload", &Start { fleet: &fleet, ..Start::default() });
    let may = |key: &str| gateway.send(&Request::get("/v1/models").key(key)).status;
    assert_eq!((may("fine-key"), may("sk-1234")), (200, 401));
    fs::write(gateway.folder.join("hashes"), sha256("sk-1234")).unwrap();
    let out = gateway.command(&["reload"]);
    assert_ne!(out.status.code(), Some(0), "{out:?}");
    assert_eq!((may("fine-key"), may("sk-1234")), (200, 401), "what was in force stays so");
    fs::write(gateway.fleet_file(), keyed(&sha256("sk-1234"))).unwrap();
    let out = gateway.command(&["reload"]);
    assert_ne!(out.status.code(), Some(0), "{out:?}");
    eventually("the reason", || {
        gateway.json(&["status"])["reload_refused"].as_str().is_some_and(|why| why.contains("`sk-1234`"))
    });
    assert_eq!((may("fine-key"), may("sk-1234")), (200, 401));
}

fn litellm(master: &str) -> String {
    format!(
        "model_list:\n  - model_name: llama\n    litellm_params: {{ model: hosted_vllm/{LLAMA_70B}, api_base: \
         'http://127.0.0.1:9/v1' }}\ngeneral_settings: {{ master_key: {master} }}\n"
    )
}

/// The example of LiteLLM's own documents: it still tells clients apart on this machine, and nobody else can come.
#[test]
fn a_weak_master_key_of_litellm_is_for_loopback_only_and_said_aloud() {
    let config = litellm("sk-1234");
    let start = Start { fleet: &config, litellm: true, ..Start::default() };
    let gateway = Gateway::start_with("weak_litellm", &start);
    let may = |key: &str| gateway.send(&Request::get("/v1/models").key(key)).status;
    assert_eq!((may("sk-1234"), may("sk-other")), (200, 401));
    let said = lock(&gateway.stderr).clone();
    assert!(said.contains("the master key is one that everybody knows, so that only loopback"), "{said}");
    assert!(gateway.send(&Request::chat(&hello())).status == 401, "and a key is asked for");

    let file = written("weak_litellm_open", &config, &[]);
    let out = serve("--litellm-config", &file, "0.0.0.0:0");
    let said = stderr(&out);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("only loopback may be listened on, not 0.0.0.0:0"), "{said}");
    assert!(said.contains("outrigger key new master"), "{said}");
}

/// A gateway that others reach keeps the key that it has when the configuration turns to a weak one.
#[test]
fn a_reload_to_a_weak_master_key_off_loopback_is_refused() {
    let Ok(free) = TcpListener::bind("0.0.0.0:0") else { return };
    let port = free.local_addr().unwrap().port();
    drop(free);
    let (strong, listen) = ("sk-5f0c1e7a9d3b42868d10a4c2", format!("0.0.0.0:{port}"));
    let fleet = litellm(strong);
    let args = ["--listen", listen.as_str(), "--no-watch"];
    let folder = written("weak_litellm_reload", &fleet, &[]);
    let mut child = std::process::Command::new(super::binary())
        .args(["serve", "--admin", "127.0.0.1:0", "--litellm-config"])
        .arg(&folder)
        .args(args)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (stdout, stderr) = (super::collect(stdout), super::collect(stderr));
    eventually("the ready line", || lock(&stdout).contains("\"ready\""));
    let ready: Value = serde_json::from_str(lock(&stdout).lines().next().unwrap()).unwrap();
    fs::write(&folder, litellm("sk-1234")).unwrap();
    let out = outrigger(&["reload", "--admin", ready["admin"].as_str().unwrap()], &[]);
    let to = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let may = |key: &str| Request::get("/v1/models").key(key).send(to).status;
    let seen = (out.status.code(), may(strong), may("sk-1234"));
    drop(child.kill());
    drop(child.wait());
    assert!(seen.0 != Some(0) && (seen.1, seen.2) == (200, 401), "{seen:?} {}", lock(&stderr));
}

#[test]
fn a_weak_admin_token_opens_no_port_to_others() {
    let fleet = written("weak_token", &one_backend("http://127.0.0.1:9"), &[]);
    let serve = ["serve", "--fleet", fleet.to_str().unwrap(), "--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"];
    let out = outrigger(&serve, &[("OUTRIGGER_ADMIN_TOKEN", "changeme")]);
    assert_eq!(out.status.code(), Some(2), "{}", stderr(&out));
    assert!(stderr(&out).contains("OUTRIGGER_ADMIN_TOKEN is a key that everybody knows"), "{}", stderr(&out));
}

/// 256 bits of which the alphabet shows 64 hex digits; and the generator is no constant and no counter: over 200 keys
/// each digit takes every value, and no two keys are equal.
#[test]
fn key_new_makes_keys_of_at_least_128_bits() {
    let keys: Vec<String> = (0..200)
        .map(|_| {
            let out = outrigger(&["key", "new", "k", "--json"], &[]);
            let made: Value = serde_json::from_slice(&out.stdout).unwrap();
            let key = made["key"].as_str().unwrap().to_owned();
            assert_eq!(made["sha256"], sha256(&key));
            key
        })
        .collect();
    let digits: Vec<&str> = keys.iter().map(|key| key.strip_prefix("sk-or-").unwrap()).collect();
    assert_eq!(digits.iter().collect::<HashSet<_>>().len(), keys.len());
    for digits in &digits {
        assert!(digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{digits}");
        assert!(digits.len() * 4 >= 128, "{digits}");
    }
    // A digit misses a value in 200 keys by chance once in 6,400 (16 × (15/16)^200); two of 64 that do are no chance,
    // and a key whose digits vary in 128 bits has at least 32 that vary.
    let varying = (0..digits[0].len())
        .filter(|at| digits.iter().map(|digits| digits.as_bytes()[*at]).collect::<HashSet<_>>().len() == 16);
    assert!(varying.count() * 4 >= 128);
}
