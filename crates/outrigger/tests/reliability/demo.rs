//! The demo keeps its word: a cloud dies by SIGKILL, nothing fails, and nothing is left behind.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use rustix::process::Signal;
use serde_json::Value;

use super::{long, report, rig::send, until, wait};

#[test]
fn a_demo_cloud_can_be_killed() {
    let time = if long() { "30s" } else { "8s" };
    let mut demo = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(["demo", "--json", "--for", time])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let ready = next();
    let pids: Vec<u32> =
        ready["clouds"].as_object().unwrap().values().map(|c| c["pid"].as_u64().unwrap() as u32).collect();
    wait(3.0);
    send(ready["clouds"]["coreweave"]["pid"].as_u64().unwrap() as u32, Signal::KILL);
    let done = next();
    let status = demo.wait().unwrap();
    let gone = until(std::time::Duration::from_secs(20), || pids.iter().all(|pid| !lives(*pid)));
    report(
        &format!("demo for {time} with one cloud killed"),
        &format!(
            "{} requests, {} failed, {} cut, exit {:?}",
            done["requests"],
            done["failed"],
            done["cut"],
            status.code()
        ),
    );
    assert_eq!(done["event"], "done");
    assert_eq!(done["failed"], 0, "{done}");
    assert_eq!(status.code(), Some(0));
    assert!(done["requests"].as_u64().unwrap() > 100, "{done}");
    assert!(gone.is_some(), "clouds outlived the demo");
}

/// A zombie that nobody has reaped yet is dead.
fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}
