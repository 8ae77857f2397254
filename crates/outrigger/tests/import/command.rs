//! As a script calls it: what goes where, and the exit codes.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use super::{KITCHEN, one};

fn file(name: &str, text: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("import");
    fs::create_dir_all(&folder).expect("a folder for tests");
    let path = folder.join(name);
    fs::write(&path, text).expect("a file in it");
    path.to_str().expect("UTF-8").to_owned()
}

#[track_caller]
fn run(args: &[&str], code: i32) -> (String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(["import", "litellm"])
        .args(args)
        .env("WEST_BASE", "http://10.1.0.7:8000/v1")
        .output()
        .expect("it starts");
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!(status.code(), Some(code), "{stdout}{stderr}");
    (stdout, stderr)
}

#[test]
fn the_fleet_goes_to_stdout_and_the_report_to_stderr() {
    let (fleet, report) = run(&[&file("clean.yaml", &one(""))], 0);
    assert!(fleet.starts_with("# Made by") && report.contains("kept: "), "{fleet}{report}");
    assert!(report.ends_with("then `outrigger serve --fleet`\n"), "{report}");
}

#[test]
fn what_is_refused_makes_the_answer_no_and_the_rest_is_written() {
    let (fleet, report) = run(&[&file("kitchen.yaml", KITCHEN), "--json"], 1);
    let checked = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(["check", &file("kitchen-fleet.yaml", &fleet)])
        .output()
        .expect("it starts");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let report: Value = serde_json::from_str(&report).unwrap();
    let keys: Vec<_> = report.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["kept", "approximated", "ignored", "refused", "warnings"]);
    let (fleet, report) = run(&[&file("none.yaml", "model_list: []\n")], 1);
    assert!(fleet.is_empty() && report.contains("no fleet was written"), "{report}");
}

#[test]
fn what_cannot_be_read_says_what_to_give() {
    let (_, said) = run(&[&file("broken.yaml", "a: [\n")], 2);
    assert!(said.contains("line 1: unclosed bracket"), "{said}");
    run(&["no/such/file.yaml"], 3);
    let clean = file("clean-too.yaml", &one(""));
    let (_, said) = run(&[&clean, "--prices", &file("prices.json", "[]")], 2);
    assert!(said.contains("model_prices_and_context_window.json"), "{said}");
    let (_, said) = run(&[&clean, "--keys", &file("keys.json", r#"[{"token":"sk-CANARY"}]"#)], 2);
    assert!(said.contains("row 1") && !said.contains("CANARY"), "{said}");
}

#[test]
fn the_hash_of_a_key_is_what_a_fleet_file_takes() {
    let hash = |key: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_outrigger"))
            .args(["key", "hash"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        child.stdin.take().expect("piped").write_all(key.as_bytes()).expect("it reads");
        child.wait_with_output().expect("it ends")
    };
    let hashed = hash("sk-of-a-client-3f1c\n");
    // By coreutils' sha256sum.
    let expect = "0a77e1d4bed39d69a50fa6e2ec5e55e6550d972afbb9a1db872d7b9929cc0533";
    assert_eq!(String::from_utf8(hashed.stdout).unwrap().trim(), expect);
    let known = hash("sk-1234");
    assert_eq!((known.status.code(), known.stdout.as_slice()), (Some(1), &b""[..]));
    assert!(String::from_utf8(known.stderr).unwrap().contains("a key that everybody knows"));
    assert_eq!(hash("").status.code(), Some(2));
}
