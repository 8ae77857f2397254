//! Readers that go away, as `head` does.

use std::process::{Command, Stdio};

use super::BINARY;

/// Runs `outrigger …` in a shell pipe and gives its exit code and what it said on standard error.
fn piped(script: &str) -> (String, String) {
    let script = format!("{{ {script}; echo \"code $?\" >&3; }} 3>&2");
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]).env("OUTRIGGER", BINARY).current_dir("tests/cli/errors.in").stdin(Stdio::null());
    let output = bash.output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
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
        // `true` reads nothing and ends at once: every write after that finds no reader.
        let (_, stderr) = piped(&format!("{{ sleep 0.2; $OUTRIGGER {command}; echo \"ended with $?\" >&2; }} | true"));
        assert!(stderr.contains("ended with 0\n"), "{command}: {stderr}");
        assert!(!stderr.contains("panicked") && !stderr.contains("error"), "{command}: {stderr}");
    }
}

#[test]
fn nor_is_one_of_standard_error() {
    for (command, code) in
        [("check unknown-key.yaml", 1), ("serve --fleet unknown-key.yaml", 2), ("status --admin http://127.0.0.1:1", 3)]
    {
        let script = format!("{{ sleep 0.2; $OUTRIGGER {command} 2>&1; echo \"ended with $?\" >&3; }} | true");
        let (_, said) = piped(&script);
        assert!(said.contains(&format!("ended with {code}\n")), "{command}: {said}");
    }
}
