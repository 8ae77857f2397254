//! The live gateway before three real llama-servers, and the simulator with what was measured on them.
//!
//! What the simulator knows of the engines is a calibration (`calibration.rs`), in the form in which anybody can give it:
//! `engine_model: { measured: … }`. The trace has other arrivals and other lengths, and in its middle one server is killed
//! and comes back. Calibrations and runs take turns, since the machine's speed drifts; the prediction is from all
//! calibrations, the figures are the medians of the runs.
//!
//! Three servers of one thread share two cores with whatever else runs, which the simulator does not know. So the load is
//! a fifth of a core. Prompts take tens to hundreds of milliseconds, against which a connection's one or two do not count.
//! `a` and `b` take at most two requests at once and `c` the rest.
//!
//! Shares are counted in the servers' own logs.

mod calibration;
mod server;

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use outrigger_core::Rng;
use rand_core::{Rng as _, SeedableRng as _};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use self::server::Server;
use super::{
    Asked, Figures, Folder,
    client::{self, Post},
    predicted,
    sockets::{self, Process, median},
    table,
};

const MODEL: &str = "tiny";
const SLOTS: u32 = 4;
const RUNS: u64 = 5;

const SECONDS: f64 = 180.0;
const REQUESTS_PER_SECOND: f64 = 1.75;
/// Median of the lengths, the standard deviation of their logarithms, and the bounds.
const PROMPT: (f64, f64, u64, u64) = (80.0, 0.8, LEAST_PROMPT, 512);
const OUTPUT: (f64, f64, u64, u64) = (14.0, 0.6, 2, 60);
/// A probe's prompt is shorter.
const LEAST_PROMPT: u64 = 32;

/// When `b` is killed, and for how long it is gone, in seconds.
const OUTAGE: (f64, f64) = (60.0, 50.0);
const EVENTS: &str = r#"{"event":"outage","backend":"b","at_s":60,"for_s":50}"#;

const MOST_SHARES_APART: f64 = 2.0;
const MOST_TTFT_APART: f64 = 0.1;

#[test]
#[ignore = "takes a quarter of an hour and needs llama-server: ./test heavy llama-servers"]
fn the_simulator_predicts_real_engines_from_what_was_measured_on_them() {
    let folder = Folder::new("llama");
    let trace = drawn();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (mut runs, mut rows) = (Vec::new(), String::new());
    for run in 0..RUNS {
        let (measured, figures) = runtime.block_on(calibrate_and_play(&folder, run, &trace));
        rows += &measured;
        runs.push(figures);
    }
    let got = median(&runs);
    let expected = prediction(&folder, &trace, &rows, EVENTS);
    let title =
        format!("{} requests to three llama-servers, one of them killed, the median of {RUNS} runs", trace.len());
    print!("{}", table(&title, &expected, &got));
    for run in &runs {
        println!("bar: one run, ttft p95 {:.0} ms: {}", run.ttft.p95, apart(&expected, run));
    }
    wrong_predictions_miss(&folder, &trace, &rows, &got);
    assert!(is_met(&expected, &got), "{}", apart(&expected, &got));
}

/// What would be predicted without knowing of the kill, or of other engines, must not pass for what was seen.
fn wrong_predictions_miss(folder: &Folder, trace: &[Asked], rows: &str, got: &Figures) {
    let wrong = [
        ("the kill left out", prediction(folder, trace, rows, "")),
        ("engines twice as fast", prediction(folder, trace, &scaled(rows, 0.5), EVENTS)),
        ("engines half as fast", prediction(folder, trace, &scaled(rows, 2.0), EVENTS)),
    ];
    for (what, wrong) in &wrong {
        println!("bar: {what}: {}", apart(wrong, got));
    }
    for (what, wrong) in &wrong {
        assert!(!is_met(wrong, got), "{what} meets the bars: they say nothing");
    }
}

/// From the fleet file of the last run; where its servers listened does not count.
fn prediction(folder: &Folder, trace: &[Asked], rows: &str, events: &str) -> Figures {
    folder.write("measured.csv", &format!("{}{rows}", calibration::HEADER));
    predicted(folder, &folder.path("fleet.yaml"), trace, events)
}

fn ttft_apart(expected: &Figures, got: &Figures) -> f64 {
    expected.ttft.p95 / got.ttft.p95 - 1.0
}

fn is_met(expected: &Figures, got: &Figures) -> bool {
    expected.shares_apart(got) <= MOST_SHARES_APART && ttft_apart(expected, got).abs() <= MOST_TTFT_APART
}

fn apart(expected: &Figures, got: &Figures) -> String {
    let (shares, ttft) = (expected.shares_apart(got), ttft_apart(expected, got) * 100.0);
    format!("shares {shares:.2} points apart, ttft p95 {ttft:+.1} %")
}

/// Three new servers, one of them measured, and then the trace. The rows, and what came of the trace.
async fn calibrate_and_play(folder: &Folder, run: u64, trace: &[Asked]) -> (String, Figures) {
    let mut servers = BTreeMap::new();
    for name in ["a", "b", "c"] {
        servers.insert(name, Server::start(&folder.path(&format!("{name}-{run}.log"))).await);
    }
    let measured = servers.values().nth(run as usize % servers.len()).unwrap();
    let rows = calibration::rows(measured.address, run).await;
    (rows, live(&folder.write("fleet.yaml", &fleet(&servers)), &mut servers, trace).await)
}

async fn live(fleet: &str, servers: &mut BTreeMap<&str, Server>, trace: &[Asked]) -> Figures {
    let gateway = Process::start(&["serve", "--fleet", fleet, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    // The first probes are answered by then.
    sleep(Duration::from_secs(1)).await;
    let before = answered(servers);
    let outage = kill_and_restart(servers.get_mut("b").unwrap());
    let (seen, ()) = tokio::join!(sockets::play(gateway.address("listen"), trace, completion), outage);
    // The last lines of the logs are on their way.
    sleep(Duration::from_millis(500)).await;
    let mut figures = Figures::measured(&seen, None, &[]);
    let counts: BTreeMap<_, _> = answered(servers).into_iter().map(|(name, n)| (name, n - before[name])).collect();
    let all: u64 = counts.values().sum();
    assert_eq!(all, figures.requests - figures.failed, "as many answers as clients got: {counts:?}");
    figures.shares = counts.into_iter().map(|(name, n)| (name.to_owned(), n as f64 / all as f64)).collect();
    figures
}

async fn kill_and_restart(server: &mut Server) {
    let began = Instant::now();
    sleep_until(began + Duration::from_secs_f64(OUTAGE.0)).await;
    server.kill();
    sleep_until(began + Duration::from_secs_f64(OUTAGE.0 + OUTAGE.1)).await;
    server.restart();
}

fn answered<'a>(servers: &BTreeMap<&'a str, Server>) -> BTreeMap<&'a str, u64> {
    servers.iter().map(|(name, server)| (*name, server.answered())).collect()
}

fn fleet(servers: &BTreeMap<&str, Server>) -> String {
    let mut text = "version: 1\nclouds: { here: {} }\nbackends:\n".to_owned();
    for (name, server) in servers {
        let most = if *name == "c" { "" } else { "    max_in_flight: 2\n" };
        let _ = write!(
            text,
            "  {name}:\n    cloud: here\n    engine: llamacpp\n    url: http://{}/v1\n    model: {MODEL}\n{most}    \
             engine_model: {{ measured: {{ file: measured.csv, slots: {SLOTS} }} }}\n",
            server.address
        );
    }
    let _ = write!(
        text,
        "models:\n  {MODEL}:\n    timeouts: {{ headers: 60s, first_token: 60s, idle: 60s, total: 10m }}\n    tiers:\n      \
         - split: {{ a: 60, b: 40 }}\n      - split: {{ c: 1 }}\n"
    );
    text
}

/// A prompt of just so many tokens, of which no two begin alike, and an answer that the model does not end by itself.
fn completion(asked: Asked) -> Post {
    let mut rng = Rng::seed_from_u64(asked.at.as_nanos() as u64);
    let prompt: Vec<u32> = (0..asked.prompt).map(|_| 10 + rng.next_u32() % 1_900).collect();
    let body = json!({
        "model": MODEL, "prompt": prompt, "stream": true, "max_tokens": asked.output, "ignore_eos": true,
    });
    client::post("/v1/completions", &body, asked)
}

/// Poisson arrivals, lengths log-normal.
fn drawn() -> Vec<Asked> {
    let mut rng = Rng::seed_from_u64(7);
    let mut unit = || ((rng.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let (mut at, mut all) = (0.0, Vec::new());
    loop {
        at -= unit().ln() / REQUESTS_PER_SECOND;
        if at >= SECONDS {
            return all;
        }
        let mut length = |(median, deviation, least, most): (f64, f64, u64, u64)| {
            let normal = (-2.0 * unit().ln()).sqrt() * (std::f64::consts::TAU * unit()).cos();
            ((median * (deviation * normal).exp()).round() as u64).clamp(least, most)
        };
        let (prompt, output) = (length(PROMPT), length(OUTPUT));
        all.push(Asked { at: Duration::from_secs_f64(at), prompt, output });
    }
}

/// The same engine with all times so many times as long.
fn scaled(rows: &str, factor: f64) -> String {
    let scaled = |line: &str| {
        let mut fields: Vec<String> = line.split(',').map(str::to_owned).collect();
        for time in fields.iter_mut().skip(8) {
            *time = (time.parse::<f64>().unwrap() * factor).to_string();
        }
        fields.join(",") + "\n"
    };
    rows.lines().map(scaled).collect()
}
