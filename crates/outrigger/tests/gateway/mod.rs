//! The real binary between raw sockets and simulated engines: what it refuses, what it leaves alone, what it says.
//!
//! Clients are plain sockets, because a client library would tidy up exactly what these tests send; a backend is a
//! [`Recorder`] where the bytes that reach an engine matter, and a fake where an engine's behaviour does.

mod abuse;
mod admin;
mod apis;
mod backends;
mod bad_input;
mod bodies;
mod bombs;
mod client_address;
mod cost;
mod drain;
mod edits;
mod frames;
mod hostile;
mod http;
mod http2;
mod keys;
mod litellm;
pub(crate) mod pki;
mod queue;
mod reload;
mod replay;
mod routes;
mod routing;
mod scale;
mod secrets;
mod signals;
mod ssrf;
mod stalled;
mod survival;
mod tls;
mod weak_keys;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use outrigger_fakes::{Fake, LLAMA_70B, Options, Profile};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;

use self::http::{Request, Response};

/// A running `outrigger serve`; dropped, it is killed.
struct Gateway {
    child: Child,
    listen: SocketAddr,
    admin: SocketAddr,
    stdout: Text,
    stderr: Text,
    folder: PathBuf,
}

/// What a stream of the process has said so far.
type Text = Arc<Mutex<String>>;

/// How to start one.
#[derive(Default)]
struct Start<'a> {
    fleet: &'a str,
    env: &'a [(&'a str, &'a str)],
    args: &'a [&'a str],
    /// `fleet` is a configuration of LiteLLM's proxy.
    litellm: bool,
}

impl Gateway {
    /// Serves `fleet` from a folder of the test's own.
    fn start(test: &str, fleet: &str) -> Self {
        Self::start_with(test, &Start { fleet, ..Start::default() })
    }

    fn start_with(test: &str, start: &Start<'_>) -> Self {
        let folder = folder(test);
        let file = folder.join("fleet.yaml");
        fs::write(&file, start.fleet).expect("the fleet file");
        let mut child = Command::new(binary())
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg(if start.litellm { "--litellm-config" } else { "--fleet" })
            .arg(&file)
            .args(start.args)
            .env_remove("OUTRIGGER_ADMIN_TOKEN")
            .envs(start.env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let stdout = collect(child.stdout.take().expect("piped"));
        let stderr = collect(child.stderr.take().expect("piped"));
        let mut ready = Value::Null;
        eventually("the ready line", || {
            ready = lock(&stdout).lines().next().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
            assert!(child.try_wait().expect("a child").is_none(), "it ended: {}", lock(&stderr));
            ready["event"] == "ready"
        });
        let address = |key: &str| ready[key].as_str().and_then(|url| url.split_once("://")?.1.parse().ok());
        let (listen, admin) = (address("listen").expect("its address"), address("admin").expect("its address"));
        Self { child, listen, admin, stdout, stderr, folder }
    }

    fn fleet_file(&self) -> PathBuf {
        self.folder.join("fleet.yaml")
    }

    fn send(&self, request: &Request) -> Response {
        request.send(self.listen)
    }

    /// A chat request with this body, which has to be answered somehow.
    fn chat(&self, body: &Value) -> Response {
        self.send(&Request::chat(body))
    }

    fn admin_get(&self, path: &str) -> Response {
        Request::get(path).send(self.admin)
    }

    /// Runs a command against the admin listener.
    fn command(&self, args: &[&str]) -> Output {
        let admin = format!("http://{}", self.admin);
        outrigger(&[args, &["--admin", &admin]].concat(), &[])
    }

    /// The same with `--json`; it has to succeed.
    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let out = self.command(&[args, &["--json"]].concat());
        assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).expect("JSON")
    }

    /// Its request log so far.
    fn log(&self) -> Vec<Value> {
        let lines = lock(&self.stdout);
        let parsed = lines.lines().skip(1).map(|line| serde_json::from_str(line).expect("stdout is JSON lines"));
        parsed.collect()
    }

    fn resident_kib(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most memory that was resident since [`Self::forget_peak`].
    fn peak_kib(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// See proc_pid_clear_refs(5).
    fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("a process of ours");
    }

    fn status(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a process of ours");
        let line = status.lines().find_map(|l| l.strip_prefix(name)).expect("a line of that name");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// The processor time that it has used.
    fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("a process of ours");
        // See proc_pid_stat(5): the name may hold anything, and a tick is a hundredth of a second everywhere.
        let after_name = stat.rsplit_once(") ").expect("its name").1;
        let ticks = after_name.split(' ').skip(11).take(2).map(|n| n.parse::<u64>().expect("a number"));
        Duration::from_millis(10 * ticks.sum::<u64>())
    }

    /// Alive, serving, and without a panic so far.
    #[track_caller]
    fn assert_healthy(&mut self) {
        assert!(self.child.try_wait().expect("a child").is_none(), "it ended: {}", lock(&self.stderr));
        assert_eq!(self.send(&Request::get("/healthz")).status, 200);
        let said = lock(&self.stderr);
        assert!(!said.contains("panicked"), "{said}");
    }

    fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a process of ours");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The binary under test: that of this build, or another one, such as the release build for figures.
fn binary() -> PathBuf {
    std::env::var_os("OUTRIGGER_BIN").map_or_else(|| env!("CARGO_BIN_EXE_outrigger").into(), PathBuf::from)
}

/// A folder of the test's own.
fn folder(test: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("gateway").join(test);
    fs::create_dir_all(&folder).expect("a folder for the test");
    folder
}

fn outrigger(args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(binary())
        .args(args)
        .env_remove("OUTRIGGER_ADMIN_TOKEN")
        .envs(env.iter().copied())
        .output()
        .expect("it starts")
}

fn collect(from: impl Read + Send + 'static) -> Text {
    let text = Text::default();
    let into = text.clone();
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            lock(&into).push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    text
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().expect("no test thread panicked with it")
}

#[track_caller]
fn eventually(what: &str, holds: impl FnMut() -> bool) {
    eventually_within(Duration::from_secs(20), what, holds);
}

/// For what takes its time by itself.
#[track_caller]
fn eventually_within(most: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + most;
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Simulated engines, and the runtime they live in.
struct Engines {
    fakes: Vec<Fake>,
    runtime: Runtime,
}

impl Engines {
    fn start(profiles: impl IntoIterator<Item = Profile>) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let spawn = |profile| runtime.block_on(Fake::spawn(Options::new(profile))).expect("a free port");
        let fakes = profiles.into_iter().map(spawn).collect();
        Self { fakes, runtime }
    }

    fn instant(n: usize) -> Self {
        Self::start(vec![Profile::instant(); n])
    }

    fn url(&self, n: usize) -> String {
        self.fakes[n].url()
    }
}

fn one_backend(url: &str) -> String {
    one_backend_with("", url)
}

/// A fleet of model `llama` on backend `b`, with this under `gateway:`.
fn one_backend_with(gateway: &str, url: &str) -> String {
    format!(
        "version: 1\n{gateway}clouds:\n  c: {{}}\nbackends:\n  b:\n    cloud: c\n    engine: vllm\n    url: {url}/v1\n    \
         model: {LLAMA_70B}\nmodels:\n  llama:\n    tiers:\n      - split: {{ b: 1 }}\n"
    )
}

fn sha256(key: &str) -> String {
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hello() -> Value {
    json!({ "model": "llama", "messages": [{ "role": "user", "content": "hello" }], "max_tokens": 4 })
}

fn streamed(mut body: Value) -> Value {
    body["stream"] = json!(true);
    body
}
