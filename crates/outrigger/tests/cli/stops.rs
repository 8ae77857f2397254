//! Ctrl-C ends what runs until it is stopped, with 130; SIGTERM with 0.

use std::{
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use serde_json::Value;

use super::BINARY;

/// Starts a command, waits for its ready line, and gives the exit code that a signal ends it with.
#[track_caller]
fn ends_with(args: &[&str], signal: Signal, code: i32) {
    let mut command = Command::new(BINARY);
    command.args(args).current_dir("tests/cli/errors.in").stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.contains(r#""event":"ready""#), "{args:?}: {line}");
    send(&child, signal);
    assert_eq!(child.wait().unwrap().code(), Some(code), "{args:?} by {signal:?}");
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

const SERVE: &[&str] = &["serve", "--fleet", "good.yaml", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
const FAKE: &[&str] = &["fake", "--profile", "instant"];
const DEMO: &[&str] = &["demo", "--json"];

#[test]
fn ctrl_c_is_130() {
    for args in [SERVE, FAKE, DEMO] {
        ends_with(args, Signal::INT, 130);
    }
}

#[test]
fn sigterm_is_an_end_as_asked() {
    for args in [SERVE, FAKE, DEMO] {
        ends_with(args, Signal::TERM, 0);
    }
}

/// It reports what it has before it ends.
#[test]
fn a_simulation_that_is_interrupted_reports_and_ends_with_130() {
    let mut command = Command::new(BINARY);
    command.args(["simulate", "--fleet", "good.yaml", "--trace", "-", "--json"]).current_dir("tests/cli/errors.in");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut rows = BufWriter::new(child.stdin.take().unwrap());
    writeln!(rows, "arrival_s,prompt_tokens,output_tokens").unwrap();
    // More than any buffer in between holds, so that the simulation has begun; and no end, so that only the signal is one.
    for i in 0.. {
        if i == 500_000 {
            send(&child, Signal::INT);
        }
        if writeln!(rows, "{i},100,10").is_err() {
            break;
        }
    }
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["requests"].as_u64().unwrap() > 0 && stderr.contains("stopped"), "{report} {stderr}");
}
