//! The release build on real sockets and real time: `outrigger serve` before three `outrigger fake` processes.
//!
//! The fakes batch token by token, the simulator has one clock for an engine. Both are told the same rate and the same
//! number of slots, so that what differs is the models, the network, and the machine. The figures are medians of five
//! runs, since a machine that does something else meanwhile spoils one.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use outrigger_gateway::net::BoxStream;
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Asked, Figures, Folder, Percentiles, azure,
    client::{self, Post, Seen},
    predicted, table,
};

const MODEL: &str = "llama";
/// Of one token, about what 4 H100 take for Llama-3.1-70B with 30 requests running.
const TOKEN_MS: f64 = 12.0;
/// What `outrigger simulate` assumes of a hosted API that nobody has measured.
const HOSTED_FIRST_MS: f64 = 450.0;
const RUNS: usize = 5;

#[test]
#[ignore = "takes minutes and measures time: ./test heavy simulated"]
fn the_simulator_predicts_the_release_build() {
    let folder = Folder::new("sockets");
    // Half a minute of the trace's two, at four times its speed: some 5,000 tokens a second.
    let trace = azure(400, 600, 4.0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut runs = Vec::new();
    let mut expected = Figures::default();
    for _ in 0..RUNS {
        let engines = [engine(&folder, "a", "vllm", 30, 0.0), engine(&folder, "b", "vllm", 20, 0.0)];
        // Its first token comes one step after that.
        let hosted = engine(&folder, "hosted", "openai", 4_096, HOSTED_FIRST_MS - TOKEN_MS);
        let fleet = folder.write("fleet.yaml", &fleet(&engines, &hosted));
        expected = predicted(&folder, &fleet, &trace, "");
        runs.push(runtime.block_on(live(&fleet, &trace)));
    }
    let got = median(&runs);
    print!("{}", table("600 requests on sockets, the median of five runs", &expected, &got));
    println!("bar:   ttft p95 of each run, ms: {:.0?}", runs.iter().map(|run| run.ttft.p95).collect::<Vec<_>>());
    assert!(expected.shares_apart(&got) <= 2.0, "shares: {expected:?} {got:?}");
    assert!((expected.ttft.p95 / got.ttft.p95 - 1.0).abs() <= 0.1, "ttft: {expected:?} {got:?}");
}

fn fleet(engines: &[Process; 2], hosted: &Process) -> String {
    let mut text = "version: 1\nclouds: { one: {}, two: {}, api: {} }\nbackends:\n".to_owned();
    let rate = 1e3 / TOKEN_MS;
    let clouds = [("a", "one", 30, 34), ("b", "two", 20, 23)];
    for ((name, cloud, slots, most), engine) in clouds.iter().zip(engines) {
        let url = engine.address("listen");
        let _ = write!(
            text,
            "  {name}:\n    cloud: {cloud}\n    engine: vllm\n    url: http://{url}/v1\n    model: {MODEL}\n    \
             max_in_flight: {most}\n    engine_model: {{ constant_rate: {{ slots: {slots}, tokens_per_second: {rate} }} }}\n"
        );
    }
    let url = hosted.address("listen");
    let _ = write!(
        text,
        "  hosted:\n    cloud: api\n    engine: openai\n    url: http://{url}/v1\n    model: {MODEL}\n    \
         usd_per_million_tokens: {{ input: 0.23, output: 0.40 }}\nmodels:\n  {MODEL}:\n    \
         timeouts: {{ headers: 60s, first_token: 60s, idle: 60s, total: 10m }}\n    tiers:\n      \
         - split: {{ a: 60, b: 40 }}\n      - split: {{ hosted: 1 }}\n"
    );
    text
}

/// A fake that generates at one pace, whatever the prompt and however many run.
fn engine(folder: &Folder, name: &str, kind: &str, slots: usize, overhead_ms: f64) -> Process {
    let profile = json!({
        "name": name, "engine": kind, "model": MODEL, "decode_base_ms": TOKEN_MS, "max_running": slots,
        "overhead_ms": overhead_ms,
    });
    let profile = folder.write(&format!("{name}.json"), &profile.to_string());
    Process::start(&["fake", "--die-with-parent", "--profile", &profile])
}

async fn live(fleet: &str, trace: &[Asked]) -> Figures {
    let gateway = Process::start(&["serve", "--fleet", fleet, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    // The first probes are answered by then.
    sleep(Duration::from_secs(1)).await;
    let seen = play(gateway.address("listen"), trace, |asked| client::chat(MODEL, asked)).await;
    // The last lines of the log are on their way.
    sleep(Duration::from_millis(500)).await;
    let log = gateway.said.lock().unwrap().clone();
    assert_eq!(log.len(), seen.len(), "a line for each");
    Figures::measured(&seen, None, &log)
}

/// Every request at its time, whatever became of those before.
pub(super) async fn play(gateway: SocketAddr, trace: &[Asked], request: impl Fn(Asked) -> Post) -> Vec<Seen> {
    let began = Instant::now();
    let mut requests = JoinSet::new();
    for asked in trace.iter().copied() {
        let due = began + asked.at;
        sleep_until(due).await;
        requests.spawn(ask(gateway, request(asked), due));
    }
    requests.join_all().await
}

pub(super) async fn ask(server: SocketAddr, request: Post, began: Instant) -> Seen {
    let stream = TcpStream::connect(server).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let stream: BoxStream = Box::new(stream);
    client::ask(stream, request, began).await
}

pub(super) fn median(runs: &[Figures]) -> Figures {
    let of = |figure: &dyn Fn(&Figures) -> f64| {
        let mut all: Vec<f64> = runs.iter().map(figure).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let names = runs.iter().flat_map(|run| run.shares.keys());
    Figures {
        requests: runs[0].requests,
        failed: of(&|run| run.failed as f64) as u64,
        shares: names.map(|name| (name.clone(), of(&|run| run.share_percent(name) / 100.0))).collect(),
        wait: None,
        ttft: Percentiles { p50: of(&|run| run.ttft.p50), p95: of(&|run| run.ttft.p95) },
        tokens_usd: of(&|run| run.tokens_usd),
    }
}

/// A child that has said it is ready, and the JSON lines that it says afterwards. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    ready: Value,
    said: Arc<Mutex<Vec<Value>>>,
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
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.next().unwrap_or_else(|| panic!("{args:?} did not start")).unwrap();
        let said = Arc::<Mutex<Vec<Value>>>::default();
        let kept = said.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Self { child, ready: serde_json::from_str(&ready).unwrap(), said }
    }

    pub(super) fn address(&self, key: &str) -> SocketAddr {
        self.ready[key].as_str().and_then(|url| url.strip_prefix("http://")).unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
