//! `outrigger simulate` as people call it: one report that any change of routing changes, queues that theory knows,
//! engines that were measured, and input that is wrong.

mod golden;
mod input;
mod measured;
mod queues;
mod runs;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

/// A file of this test's own.
fn file(name: &str, content: &[u8]) -> PathBuf {
    // Two tests that write the same name run at the same time.
    let test = std::thread::current().name().unwrap_or_default().replace("::", "-");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("simulate").join(test);
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {} {}", self.out, self.err))
    }
}

/// Runs it in the repository's root.
fn simulate(args: &[&str], input: &[u8]) -> Ran {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut child = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .arg("simulate")
        .args(args)
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that refuses its arguments reads nothing.
    drop(child.stdin.take().unwrap().write_all(input));
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}
