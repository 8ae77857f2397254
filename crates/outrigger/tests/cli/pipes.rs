//! Readers that go away, as `head` does.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use super::BINARY;

/// Runs a command in a shell pipe whose reader has gone, and gives what was said on standard error.
fn without_reader(test: &str, command: &str) -> String {
    let gone = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    drop(fs::remove_file(&gone));
    // The reader reads nothing, closes its end, and says so: every write after that finds no reader.
    let script = format!(
        "{{ {{ until [ -e \"$GONE\" ]; do sleep 0.01; done; {command}; }} | {{ exec <&-; : >\"$GONE\"; }}; }} 3>&2"
    );
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]).env("OUTRIGGER", BINARY).env("GONE", gone);
    let output = bash.current_dir("tests/cli/errors.in").stdin(Stdio::null()).output().unwrap();
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_reader_that_has_gone_away_is_no_fault() {
    for command in [
        "schema",
        "completions bash",
        "man",
        "--help",
        "check good.yaml",
        "explain --fleet good.yaml --model llama",
        "simulate --fleet good.yaml --trace trace.csv",
        "simulate --fleet good.yaml --trace trace.csv --json",
        "key new prod",
        "demo --for 1s --json",
        "demo --for 1s",
    ] {
        let stderr = without_reader("pipe-out", &format!("$OUTRIGGER {command}; echo \"ended with $?\" >&2"));
        assert!(stderr.contains("ended with 0\n"), "{command}: {stderr}");
        assert!(!stderr.contains("panicked") && !stderr.contains("error"), "{command}: {stderr}");
    }
}

#[test]
fn nor_is_one_of_standard_error() {
    for (command, code) in
        [("check unknown-key.yaml", 1), ("serve --fleet unknown-key.yaml", 2), ("status --admin http://127.0.0.1:1", 3)]
    {
        let said = without_reader("pipe-err", &format!("$OUTRIGGER {command} 2>&1; echo \"ended with $?\" >&3"));
        assert!(said.contains(&format!("ended with {code}\n")), "{command}: {said}");
    }
}
