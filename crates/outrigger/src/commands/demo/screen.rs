//! What the demo shows: per cloud its share against its target, health, queue, time to first token, cost and faults;
//! below, what happened and why, in the gateway's own words.
//!
//! The screen is redrawn in place on a terminal; elsewhere it is a line now and then.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    io::Write as _,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use http::Method;
use outrigger_core::{
    fleet::{BackendId, CloudId},
    state::health::Health,
    units::NanoUsd,
};
use outrigger_fakes::load::LoadStats;
use outrigger_gateway::{Running, events::state_word, live::Live};
use outrigger_wire::metrics::{self, Dialect};

use super::{super::client::call, MODEL, clouds::Clouds};

/// Shares are of this many last frames.
const WINDOW: usize = 20;
const NEWS: usize = 8;

pub(super) struct Screen {
    is_live: bool,
    live: Arc<Live>,
    load: Arc<LoadStats>,
    endpoint: String,
    pids: Vec<(String, u32)>,
    started: Instant,
    /// Attempts per backend at each of the last frames.
    history: VecDeque<Vec<u64>>,
    words: Vec<&'static str>,
    news: VecDeque<String>,
    lines: usize,
}

/// One backend as it is drawn.
struct Row {
    name: String,
    share: f64,
    target: f64,
    state: &'static str,
    why: Option<&'static str>,
    waiting: Option<f64>,
    in_flight: u32,
    ttft: Option<u128>,
    usd_per_hour: f64,
    faults: u64,
}

impl Screen {
    pub(super) fn new(is_live: bool, gateway: &Running, clouds: &Clouds, load: Arc<LoadStats>) -> Self {
        let pids = clouds.addresses().filter_map(|(name, _)| Some((name.to_owned(), clouds.get(name)?.pid))).collect();
        let mut screen = Self {
            is_live,
            live: gateway.live.clone(),
            load,
            endpoint: format!("http://{}", gateway.listen),
            pids,
            started: Instant::now(),
            history: VecDeque::new(),
            words: Vec::new(),
            news: VecDeque::new(),
            lines: 0,
        };
        screen.introduce();
        screen
    }

    pub(super) fn is_live(&self) -> bool {
        self.is_live
    }

    fn introduce(&mut self) {
        let program = std::env::args().next().unwrap_or_else(|| "outrigger".to_owned());
        println!("Three simulated clouds serve {MODEL} at {}/v1. Try it:\n", self.endpoint);
        println!("  curl {}/v1/chat/completions -H 'content-type: application/json' \\", self.endpoint);
        println!("    -d '{{\"model\":\"{MODEL}\",\"messages\":[{{\"role\":\"user\",\"content\":\"hello\"}}]}}'\n");
        println!("Break a cloud, from another terminal:\n");
        if let Some((name, pid)) = self.pids.iter().find(|(name, _)| name == "lambda") {
            println!(
                "  kill -9 {pid}                               # {name} dies; `{program} demo heal {name}` brings it back"
            );
        }
        println!("  {program} demo break lambda --fault hang    # or refuse, blackhole, 500, 429, 503, slow, cut");
        println!("  {program} demo heal lambda\n");
    }

    pub(super) async fn draw(&mut self, clouds: &mut Clouds) {
        let rows = self.rows(clouds).await;
        self.note_changes(&rows);
        let text = if self.is_live { self.table(&rows) } else { self.line(&rows) };
        let mut out = std::io::stdout().lock();
        if self.is_live && self.lines > 0 {
            // Up to the first line of the last picture, and clear from there.
            write!(out, "\x1b[{}A\x1b[J", self.lines).ok();
        }
        self.lines = text.lines().count();
        // A terminal that has gone away is no reason to stop serving.
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
    }

    async fn rows(&mut self, clouds: &mut Clouds) -> Vec<Row> {
        let snapshot = self.live.snapshot();
        let attempts: Vec<u64> = snapshot.upstreams.iter().map(|u| u.attempts.load(Ordering::Relaxed)).collect();
        self.history.push_back(attempts.clone());
        if self.history.len() > WINDOW {
            self.history.pop_front();
        }
        let before = self.history.front().cloned().unwrap_or_default();
        let recent: Vec<u64> = attempts.iter().zip(&before).map(|(now, then)| now.saturating_sub(*then)).collect();
        let total = recent.iter().sum::<u64>().max(1);
        let mut rows = Vec::new();
        for (i, upstream) in snapshot.upstreams.iter().enumerate() {
            let alive = clouds.is_alive(&upstream.name);
            let waiting = match clouds.get(&upstream.name) {
                Some(cloud) if alive => queue(&cloud.listen).await,
                _ => None,
            };
            rows.push(self.row(
                BackendId(i as u16),
                recent[i] as f64 / total as f64,
                waiting,
                upstream.failed.load(Ordering::Relaxed),
            ));
        }
        rows
    }

    fn row(&self, id: BackendId, share: f64, waiting: Option<f64>, faults: u64) -> Row {
        let now = self.live.clock.now();
        self.live.with_state(|state| {
            let fleet = state.fleet().clone();
            let backend = fleet.backend(id);
            let target = target(&fleet, id);
            let spent = state.spend(CloudId(backend.cloud.0), now).0;
            let seen = state.backend(id);
            let why = match seen.live.health {
                Health::Up => None,
                Health::Suspect { why, .. } | Health::Down { why, .. } => Some(why.as_str()),
            };
            Row {
                name: backend.name.clone(),
                share,
                target,
                state: state_word(seen, now),
                why,
                waiting,
                in_flight: seen.in_flight,
                ttft: seen.ttft.p50().map(|d| d.as_millis()),
                usd_per_hour: hourly(&fleet, id, spent, self.started),
                faults,
            }
        })
    }

    fn note_changes(&mut self, rows: &[Row]) {
        let words: Vec<&'static str> = rows.iter().map(|r| r.state).collect();
        for (row, before) in rows.iter().zip(&self.words) {
            if *before != row.state {
                let at = self.started.elapsed().as_secs();
                let why = row.why.map_or(String::new(), |why| format!(" ({why})"));
                let then = match row.state {
                    "down" => ": no traffic until a probe succeeds; the others take over",
                    "suspect" => ": a probe is asking it; no new traffic meanwhile",
                    "cooling_down" => ": it asked to be left alone",
                    "slow_start" => ": it answered a probe; its share grows back",
                    "up" => ": full share again",
                    _ => "",
                };
                self.news.push_back(format!(
                    "{:>3}:{:02}  {} {} → {}{why}{then}",
                    at / 60,
                    at % 60,
                    row.name,
                    before.replace('_', " "),
                    row.state.replace('_', " ")
                ));
            }
        }
        while self.news.len() > NEWS {
            self.news.pop_front();
        }
        self.words = words;
    }

    fn table(&self, rows: &[Row]) -> String {
        let seen = self.load.snapshot();
        let mut out = String::new();
        writeln!(
            out,
            "{:<11} {:>6} {:>7}  {:<22} {:>6} {:>9} {:>9} {:>8} {:>7}",
            "CLOUD", "SHARE", "TARGET", "HEALTH", "QUEUE", "IN FLIGHT", "TTFT p50", "$/h", "FAULTS"
        )
        .ok();
        for r in rows {
            let health = match r.why {
                Some(why) => format!("{}: {why}", r.state),
                None => r.state.replace('_', " "),
            };
            let queue = r.waiting.map_or("-".to_owned(), |n| format!("{n:.0}"));
            let ttft = r.ttft.map_or("-".to_owned(), |ms| format!("{ms} ms"));
            let target = if r.target > 0.0 { format!("{:.0} %", r.target * 100.0) } else { "fallback".to_owned() };
            writeln!(
                out,
                "{:<11} {:>4.0} % {target:>8} {health:<22} {queue:>6} {:>9} {ttft:>9} {:>8.2} {:>7}",
                r.name,
                r.share * 100.0,
                r.in_flight,
                r.usd_per_hour,
                r.faults
            )
            .ok();
        }
        writeln!(
            out,
            "\n{} requests · {} failed · {} cut · {} answered by a substitute · TTFT p50 {:.0} ms, p99 {:.0} ms",
            seen.requests, seen.failed, seen.cut, seen.substituted, seen.ttft_ms.p50, seen.ttft_ms.p99
        )
        .ok();
        for news in &self.news {
            writeln!(out, "{news}").ok();
        }
        out
    }

    fn line(&self, rows: &[Row]) -> String {
        let seen = self.load.snapshot();
        let clouds: Vec<String> =
            rows.iter().map(|r| format!("{} {:.0} % {}", r.name, r.share * 100.0, r.state)).collect();
        format!(
            "{:>4} s  {} requests, {} failed, {} cut | {}\n",
            self.started.elapsed().as_secs(),
            seen.requests,
            seen.failed,
            seen.cut,
            clouds.join(" | ")
        )
    }
}

/// What the file says its share of the first tier is; 0 for a fallback.
fn target(fleet: &outrigger_core::fleet::Fleet, id: BackendId) -> f64 {
    let Some(tier) = fleet.models.first().and_then(|m| m.tiers.first()) else { return 0.0 };
    let total: u32 = tier.split.iter().map(|s| s.weight).sum();
    tier.split.iter().find(|s| s.backend == id).map_or(0.0, |s| f64::from(s.weight) / f64::from(total))
}

/// A pool costs by the clock; a hosted API what was spent, as a rate.
fn hourly(fleet: &outrigger_core::fleet::Fleet, id: BackendId, spent: NanoUsd, started: Instant) -> f64 {
    let backend = fleet.backend(id);
    match backend.pool {
        Some(pool) => {
            let pool = &fleet.pools[pool.index()];
            pool.price.usd_per_gpu_hour().as_usd() * f64::from(pool.gpus.max)
        }
        None => spent.as_usd() * 3_600.0 / started.elapsed().as_secs_f64().clamp(1.0, 3_600.0),
    }
}

/// Requests waiting inside the engine, from its own metrics; a hosted API has none.
async fn queue(address: &str) -> Option<f64> {
    let page = tokio::time::timeout(
        std::time::Duration::from_millis(200),
        call(Method::GET, &format!("http://{address}"), "/metrics", None),
    )
    .await
    .ok()?
    .ok()?;
    metrics::read(Dialect::Vllm, &page.body).waiting
}
