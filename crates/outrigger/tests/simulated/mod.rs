//! What the simulator says would happen, against what the live gateway does: the same fleet file and the same trace.
//!
//! The prediction is that of `outrigger simulate`, as anybody gets it. The other side is the whole data plane, and
//! engines that share no code with the simulator's: [`paused`] has its own behind in-memory connections and a clock that
//! jumps, for every run of the tests; [`sockets`] has processes and real time, in `./test heavy simulated`; [`llama`] has
//! real engines, of which the simulator knows what was measured on them, in `./test heavy llama-servers`.

mod client;
pub(crate) mod door;
mod llama;
mod paused;
mod sockets;
mod stub;

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf, process::Command, time::Duration};

use serde_json::Value;

use self::client::Seen;

/// One request of a trace, its time already divided by the speed at which it is played.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Duration,
    prompt: u64,
    output: u64,
}

/// Rows `from..from + n` of the published hour of a chat service, this many times as fast.
///
/// Each in a millisecond of its own: tokio's clock has no smaller ones, and which of two goes first decides what both
/// meet, and by that all that follows.
fn azure(from: usize, n: usize, speed: f64) -> Vec<Asked> {
    let text = include_str!("../../../../examples/traces/azure-conv-2023.csv");
    let rows = text.lines().skip(1 + from).take(n).map(|line| {
        let row: Vec<f64> = line.split(',').map(|field| field.parse().unwrap()).collect();
        (row[0], row[1] as u64, row[2] as u64)
    });
    let rows: Vec<_> = rows.collect();
    let start = rows[0].0;
    let mut next = 0;
    let asked = |(at, prompt, output): &(f64, u64, u64)| {
        let ms = (((at - start) / speed * 1e3) as u64).max(next);
        next = ms + 1;
        Asked { at: Duration::from_millis(ms), prompt: *prompt, output: *output }
    };
    rows.iter().map(asked).collect()
}

/// What is compared. Times are in milliseconds; those that one side cannot see are absent.
#[derive(Clone, Debug, Default)]
struct Figures {
    requests: u64,
    failed: u64,
    /// Of the requests that were answered.
    shares: BTreeMap<String, f64>,
    wait: Option<Percentiles>,
    ttft: Percentiles,
    tokens_usd: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Percentiles {
    p50: f64,
    p95: f64,
}

impl Percentiles {
    fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        let at = |q: f64| all.get((all.len() as f64 * q).ceil() as usize - 1).copied().unwrap_or(0.0);
        if all.is_empty() { Self::default() } else { Self { p50: at(0.5), p95: at(0.95) } }
    }

    fn reported(summary: &Value) -> Self {
        Self { p50: summary["p50"].as_f64().unwrap(), p95: summary["p95"].as_f64().unwrap() }
    }
}

impl Figures {
    /// What the clients saw and the gateway's request log charged.
    fn measured(seen: &[Seen], wait: Option<Vec<f64>>, log: &[Value]) -> Self {
        let answered: Vec<&Seen> = seen.iter().filter(|s| s.fault.is_none()).collect();
        let mut counts = BTreeMap::<String, u64>::new();
        for one in &answered {
            *counts.entry(one.backend.clone()).or_default() += 1;
        }
        let all = answered.len().max(1) as f64;
        let costs = log.iter().flat_map(|line| line["attempts"].as_array().unwrap());
        let tokens: i64 = costs.filter_map(|attempt| attempt["cost_nano_usd"]["tokens"].as_i64()).sum();
        Self {
            requests: seen.len() as u64,
            failed: (seen.len() - answered.len()) as u64,
            shares: counts.into_iter().map(|(name, n)| (name, n as f64 / all)).collect(),
            wait: wait.map(Percentiles::of),
            ttft: Percentiles::of(answered.iter().filter_map(|s| Some(s.ttft?.as_secs_f64() * 1e3)).collect()),
            tokens_usd: tokens as f64 / 1e9,
        }
    }

    fn failed_percent(&self) -> f64 {
        self.failed as f64 / self.requests.max(1) as f64 * 100.0
    }

    fn share_percent(&self, backend: &str) -> f64 {
        self.shares.get(backend).copied().unwrap_or(0.0) * 100.0
    }

    /// The largest difference of any backend's share, in points.
    fn shares_apart(&self, other: &Self) -> f64 {
        let apart = |name: &String| (self.share_percent(name) - other.share_percent(name)).abs();
        self.shares.keys().chain(other.shares.keys()).map(apart).fold(0.0, f64::max)
    }
}

/// What `outrigger simulate` says of this fleet file.
fn predicted(folder: &Folder, fleet: &str, trace: &[Asked], events: &str) -> Figures {
    let rows: String = trace.iter().map(|a| format!("{:.9},{},{}\n", a.at.as_secs_f64(), a.prompt, a.output)).collect();
    let trace = folder.write("trace.csv", &format!("arrival_s,prompt_tokens,output_tokens\n{rows}"));
    let events = folder.write("events.jsonl", events);
    let out = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(["simulate", "--json", "--fleet", fleet, "--trace", &trace, "--events", &events])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    let backends = report["backends"].as_object().unwrap();
    Figures {
        requests: report["requests"].as_u64().unwrap(),
        failed: report["failed"].as_u64().unwrap(),
        shares: backends.iter().map(|(name, b)| (name.clone(), b["share"].as_f64().unwrap())).collect(),
        wait: Some(Percentiles::reported(&report["wait_ms"])),
        ttft: Percentiles::reported(&report["ttft_ms"]),
        tokens_usd: report["cost_nano_usd"]["tokens"].as_i64().unwrap() as f64 / 1e9,
    }
}

/// Predicted beside measured, for people. Each line begins with `bar: `, which a heavy suite prints.
fn table(title: &str, predicted: &Figures, measured: &Figures) -> String {
    let mut out = format!("bar: {title}\n");
    let _ = writeln!(out, "bar:   {:<20} {:>10} {:>10} {:>12}", "", "predicted", "measured", "difference");
    let mut points = |what: &str, a: f64, b: f64| {
        let _ = writeln!(out, "bar:   {what:<20} {a:>8.2} % {b:>8.2} % {:>+8.2} pts", a - b);
    };
    for name in predicted.shares.keys() {
        points(&format!("share of {name}"), predicted.share_percent(name), measured.share_percent(name));
    }
    points("failed", predicted.failed_percent(), measured.failed_percent());
    let mut ratio = |what: &str, unit: &str, a: f64, b: f64| {
        let apart = if b == 0.0 { "—".to_owned() } else { format!("{:+.1} %", (a / b - 1.0) * 100.0) };
        let digits = if unit == "USD" { 4 } else { 0 };
        let _ = writeln!(out, "bar:   {:<20} {a:>10.digits$} {b:>10.digits$} {apart:>12}", format!("{what}, {unit}"));
    };
    if let (Some(a), Some(b)) = (predicted.wait, measured.wait) {
        ratio("wait p50", "ms", a.p50, b.p50);
        ratio("wait p95", "ms", a.p95, b.p95);
    }
    ratio("ttft p50", "ms", predicted.ttft.p50, measured.ttft.p50);
    ratio("ttft p95", "ms", predicted.ttft.p95, measured.ttft.p95);
    if predicted.tokens_usd > 0.0 || measured.tokens_usd > 0.0 {
        ratio("tokens", "USD", predicted.tokens_usd, measured.tokens_usd);
    }
    out
}

/// Files of one test.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("simulated").join(test);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}
