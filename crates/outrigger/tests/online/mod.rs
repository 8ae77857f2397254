//! `outrigger init` and `outrigger check --online` against things that listen: simulated engines, and servers that say
//! what a test tells them to, because no engine misbehaves on demand.

mod check;
mod init;
mod server;

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
    time::{Duration, Instant},
};

/// What a command said.
struct Said {
    stdout: String,
    stderr: String,
}

#[track_caller]
fn outrigger(args: &[&str], env: &[(&str, &str)], code: i32) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_outrigger")).args(args).envs(env.iter().copied()).output();
    let Output { status, stdout, stderr } = output.expect("it starts");
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!(status.code(), Some(code), "{stdout}{stderr}");
    assert!(!stdout.contains("CANARY") && !stderr.contains("CANARY"), "a secret: {stdout}{stderr}");
    assert!(!stdout.contains('\u{1b}') && !stderr.contains('\u{1b}'), "escapes without a terminal");
    Said { stdout, stderr }
}

/// A folder of the test's own, empty.
fn folder(test: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("online").join(test);
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).expect("a folder for tests");
    folder
}

fn file(test: &str, text: &str) -> String {
    let path = folder(test).join("fleet.yaml");
    fs::write(&path, text).expect("a file in it");
    path.to_str().expect("UTF-8").to_owned()
}

/// A port that nothing listens on.
fn closed_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port()
}

#[track_caller]
fn wait_for(holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "it never came");
        std::thread::sleep(Duration::from_millis(10));
    }
}
