//! The processes of a test: engines, a gateway before them, and the load.
//!
//! Each is killed and reaped when its handle is dropped, so that a test that fails leaves nothing behind; the engines
//! end with this process besides.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use outrigger_fakes::{
    Fault, FaultKind, Fixed, LLAMA_70B, Profile, RequestRecord, Stats,
    load::{Arrivals, Load, LoadOptions},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{http, until};

/// A child that has said it is ready. What it prints afterwards is read and forgotten.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pub(super) ready: Value,
}

impl Process {
    pub(super) fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_outrigger"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{args:?} did not start: {e}: {line:?}"));
        std::thread::spawn(move || out.read_to_end(&mut Vec::new()));
        Self { child, ready }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn signal(&self, signal: Signal) {
        send(self.id(), signal);
    }

    pub(super) fn address(&self, key: &str) -> SocketAddr {
        let url = self.ready[key].as_str().unwrap();
        url.strip_prefix("http://").unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(super) fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

/// A simulated engine with a stated service time.
#[derive(Debug)]
pub(super) struct Engine {
    process: Process,
    profile: String,
}

impl Engine {
    /// 32 tokens, the first after `ttft_ms`, the end after `total_ms`.
    pub(super) fn start(ttft_ms: f64, total_ms: f64) -> Self {
        let fixed = Some(Fixed { ttft_ms, tokens: 32, total_ms });
        let profile = Profile { model: LLAMA_70B.to_owned(), fixed, ..Profile::instant() };
        let profile = file("profile.json", &json!(profile).to_string());
        Self { process: fake(&profile, "127.0.0.1:0"), profile }
    }

    /// One that batches, with these figures.
    pub(super) fn with_profile(profile: &Profile) -> Self {
        let profile = file("profile.json", &json!(profile).to_string());
        Self { process: fake(&profile, "127.0.0.1:0"), profile }
    }

    pub(super) fn kill(&mut self) {
        self.process.child.kill().unwrap();
        self.process.child.wait().unwrap();
    }

    /// A new process on the old port.
    pub(super) fn restart(&mut self) {
        let listen = self.process.address("listen").to_string();
        self.process = fake(&self.profile, &listen);
    }

    pub(super) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub(super) fn listen(&self) -> SocketAddr {
        self.process.address("listen")
    }

    fn admin(&self, method: &str, path: &str, body: &str) -> Value {
        let answer = http::call(self.process.address("admin"), method, path, body);
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
        answer.json()
    }

    pub(super) fn stats(&self) -> Stats {
        serde_json::from_value(self.admin("GET", "/stats", "")).unwrap()
    }

    /// The client requests that arrived at or after this moment.
    pub(super) fn requests_since(&self, unix_ns: u64) -> Vec<RequestRecord> {
        let all: Vec<RequestRecord> = serde_json::from_value(self.admin("GET", "/stats/requests", "")).unwrap();
        all.into_iter().filter(|r| !r.probe && r.at_unix_ns >= unix_ns).collect()
    }

    pub(super) fn break_with(&self, fault: &Fault) {
        self.admin("POST", "/faults", &json!(fault).to_string());
    }

    pub(super) fn broken_by(&self, kind: FaultKind) {
        self.break_with(&Fault::new(kind));
    }

    pub(super) fn heal(&self) {
        self.admin("DELETE", "/faults", "");
    }
}

fn fake(profile: &str, listen: &str) -> Process {
    Process::start(&["fake", "--die-with-parent", "--profile", profile, "--listen", listen])
}

/// `outrigger serve` before these engines, called a, b, … and weighted alike.
#[derive(Debug)]
pub(super) struct Gateway {
    process: Process,
}

/// Short deadlines, so that a test need not wait long for the worst case.
pub(super) const FIRST_TOKEN: Duration = Duration::from_secs(2);
const TIMEOUTS: &str = "{ connect: 1s, headers: 2s, first_token: 2s, idle: 2s, total: 120s }";

impl Gateway {
    pub(super) fn before(engines: &[&Engine]) -> Self {
        Self::with_timeouts(engines, TIMEOUTS)
    }

    pub(super) fn with_timeouts(engines: &[&Engine], timeouts: &str) -> Self {
        let names = ["a", "b", "c"];
        let backends: String = (names.iter().zip(engines))
            .map(|(name, e)| {
                format!(
                    "  {name}:\n    cloud: here\n    engine: vllm\n    url: http://{}/v1\n    model: {LLAMA_70B}\n",
                    e.listen()
                )
            })
            .collect();
        let split: Vec<String> = names.iter().take(engines.len()).map(|name| format!("{name}: 1")).collect();
        let fleet = format!(
            "version: 1\ngateway:\n  listen: 127.0.0.1:0\n  admin: 127.0.0.1:0\nclouds:\n  here:\n    region: test\n\
             backends:\n{backends}models:\n  m:\n    timeouts: {timeouts}\n    tiers:\n      - split: {{ {} }}\n",
            split.join(", ")
        );
        Self::of_fleet(&fleet, engines)
    }

    /// With a fleet file of its own.
    pub(super) fn of_fleet(fleet: &str, engines: &[&Engine]) -> Self {
        let process = Process::start(&["serve", "--fleet", &file("fleet.yaml", fleet)]);
        let gateway = Self { process };
        // The first probes have been answered.
        assert!(until(Duration::from_secs(20), || engines.iter().all(|e| e.stats().probes > 0)).is_some());
        gateway
    }

    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(super) fn listen(&self) -> SocketAddr {
        self.process.address("listen")
    }

    pub(super) fn chat(&self, stream: bool) -> http::Answer {
        http::call(self.listen(), "POST", "/v1/chat/completions", &http::chat(stream))
    }

    pub(super) fn state(&self) -> Value {
        http::call(self.process.address("admin"), "GET", "/api/v1/state", "").json()
    }

    /// One backend's entry in the state.
    pub(super) fn backend(&self, name: &str) -> Value {
        let state = self.state();
        state["backends"].as_array().unwrap().iter().find(|b| b["backend"] == name).unwrap().clone()
    }

    /// Neither down nor suspect. It may be held for having broken again and again; as the only one it is used all the same.
    pub(super) fn is_up(&self, name: &str) -> bool {
        // Read once: between two looks one that is suspect may have gone down, and would be neither.
        let state = &self.backend(name)["state"];
        !["down", "suspect"].iter().any(|not_up| state == *not_up)
    }

    /// Invariant 2: with nothing going on, nothing is counted as going on.
    pub(super) fn assert_idle(&self) {
        let idle = || {
            let state = self.state();
            let busy = |b: &Value| b["in_flight"] != 0;
            let waiting = |m: &Value| m["waiting"] != 0;
            !state["backends"].as_array().unwrap().iter().any(busy)
                && !state["models"].as_array().unwrap().iter().any(waiting)
        };
        assert!(until(Duration::from_secs(20), idle).is_some(), "not idle: {:#}", self.state()["backends"]);
    }

    /// Half streams, half not, evenly spaced.
    pub(super) fn load(&self, runtime: &Runtime, requests_per_second: f64) -> Load {
        let _inside = runtime.enter();
        Load::start(LoadOptions {
            requests_per_second,
            arrivals: Arrivals::Uniform,
            ..LoadOptions::new(format!("http://{}", self.listen()), "m")
        })
        .unwrap()
    }
}

/// Where the load runs, while the test's own thread measures.
pub(super) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A file of this process's own.
fn file(name: &str, text: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("reliability");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{}-{}-{name}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The wall clock, as the fakes' books tell it.
pub(super) fn unix_ns() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64
}
