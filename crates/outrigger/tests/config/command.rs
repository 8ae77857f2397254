//! `outrigger check` and `outrigger schema` as a script calls them.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;

use super::{FLEET, edited};

fn outrigger(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(args)
        .env("OPENAI_API_KEY", "CANARY")
        .output()
        .expect("it starts")
}

/// A file of this test's own.
fn file(name: &str, text: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("check");
    fs::create_dir_all(&folder).expect("a folder for tests");
    let path = folder.join(name);
    fs::write(&path, text).expect("a file in it");
    path.to_str().expect("UTF-8").to_owned()
}

#[track_caller]
fn check(args: &[&str], code: i32) -> (String, String) {
    let Output { status, stdout, stderr } = outrigger(args);
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let (stdout, stderr) = (text(stdout), text(stderr));
    assert_eq!(status.code(), Some(code), "{stdout}{stderr}");
    assert!(!stdout.contains("CANARY") && !stderr.contains("CANARY"), "{stdout}{stderr}");
    assert!(!stdout.contains('\u{1b}') && !stderr.contains('\u{1b}'), "escapes without a terminal");
    (stdout, stderr)
}

#[test]
fn a_good_fleet_is_summed_up() {
    let (stdout, stderr) = check(&["check", &file("good.yaml", FLEET)], 0);
    assert!(stdout.contains("2 clouds, 2 backends in 1 pool of up to 8 GPUs\n1 model in 2 tiers, 1 key;"), "{stdout}");
    assert!(stderr.contains("warning[secret_absent]") && stderr.contains("prod.sha256"), "{stderr}");
    assert!(!stderr.contains("OPENAI_API_KEY` is not set"), "{stderr}");
}

#[test]
fn a_bad_fleet_is_refused_in_words_on_stderr() {
    let (stdout, stderr) = check(&["check", &file("bad.yaml", &edited(24, "    engine: vlm"))], 1);
    assert_eq!(stdout, "");
    assert!(stderr.contains("bad.yaml:24:13") && stderr.contains("did you mean `vllm`?"), "{stderr}");
}

#[test]
fn json_goes_to_stdout_and_nothing_to_stderr() {
    for (name, text, code, errors) in [
        ("good-json.yaml", FLEET.to_owned(), 0, 0),
        ("bad-json.yaml", edited(24, "    engine: vlm"), 1, 1),
        ("malformed.yaml", edited(24, "    engine: [CANARY"), 1, 1),
        ("secret.yaml", edited(8, "    api_key: CANARY"), 1, 1),
    ] {
        let path = file(name, &text);
        let (stdout, stderr) = check(&["check", "--json", &path], code);
        let found: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(found.as_object().unwrap().keys().collect::<Vec<_>>(), ["errors", "warnings"]);
        assert_eq!(found["errors"].as_array().unwrap().len(), errors, "{stdout}");
        for fault in found["errors"].as_array().unwrap().iter().chain(found["warnings"].as_array().unwrap()) {
            let keys: Vec<_> = fault.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["code", "file", "line", "column", "path", "message", "help"]);
            assert_eq!(fault["file"], *path);
        }
        assert_eq!(stderr, "");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_the_environments_fault() {
    check(&["check", "no/such/fleet.yaml"], 3);
    check(&["check", env!("CARGO_TARGET_TMPDIR")], 3);
    check(&["check"], 2);
    check(&["check", "a.yaml", "--nonsense"], 2);
}

#[test]
fn the_schema_is_json() {
    let (stdout, _) = check(&["schema"], 0);
    let schema: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(!stdout.contains("null"), "nulls are not allowed anywhere in a fleet file");
}
