//! What the client saw: counts, latencies, and the last failures with enough of their answers to know why.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::stats::unix_ns;

const FAILURES_KEPT: usize = 200;
/// Beyond this many names (a broken gateway could invent them) the rest is counted as "other".
const BACKENDS_KEPT: usize = 1000;

/// Shared between the requests and a live display.
#[derive(Debug, Default)]
pub struct LoadStats(Mutex<Book>);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    pub why: String,
    pub status: Option<u16>,
    pub backend: Option<String>,
    pub stream: bool,
    /// The number of the request, which is also the first word of its prompt.
    pub number: u64,
    /// The beginning of an error's body, or the end of a broken stream.
    pub body: String,
    pub at_unix_ns: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// Started; = ok + cut + failed + in_flight.
    pub requests: u64,
    pub in_flight: u64,
    pub ok: u64,
    /// Of those that are ok, as fast as the objective asks.
    pub good: u64,
    pub cut: u64,
    pub failed: u64,
    /// Not started, because `max_concurrent` were in flight.
    pub skipped: u64,
    pub substituted: u64,
    pub tokens: u64,
    pub by_backend: BTreeMap<String, u64>,
    pub ttft_ms: Percentiles,
    pub duration_ms: Percentiles,
    /// The last 200 of `failed` and `cut`.
    pub failures: Vec<Failure>,
}

#[derive(Debug)]
struct Book {
    counts: Snapshot,
    failures: VecDeque<Failure>,
    ttft: Histogram<u64>,
    duration: Histogram<u64>,
}

impl Default for Book {
    fn default() -> Self {
        Self { counts: Snapshot::default(), failures: VecDeque::new(), ttft: histogram(), duration: histogram() }
    }
}

/// Microseconds, to an hour, with three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds and digits are valid constants")
}

/// How one request ended.
#[derive(Debug)]
pub(super) enum Verdict {
    Ok,
    Cut(String),
    Failed(String),
}

#[derive(Debug)]
pub(super) struct Observed {
    pub(super) number: u64,
    pub(super) stream: bool,
    pub(super) verdict: Verdict,
    pub(super) good: bool,
    pub(super) status: Option<u16>,
    pub(super) backend: Option<String>,
    pub(super) substituted: bool,
    pub(super) tokens: u64,
    pub(super) ttft: Option<Duration>,
    pub(super) duration: Duration,
    pub(super) body: String,
}

impl LoadStats {
    pub fn snapshot(&self) -> Snapshot {
        let book = self.lock();
        Snapshot {
            ttft_ms: percentiles(&book.ttft),
            duration_ms: percentiles(&book.duration),
            failures: book.failures.iter().cloned().collect(),
            ..book.counts.clone()
        }
    }

    pub(super) fn started(&self) {
        let mut book = self.lock();
        book.counts.requests += 1;
        book.counts.in_flight += 1;
    }

    pub(super) fn skipped(&self) {
        self.lock().counts.skipped += 1;
    }

    pub(super) fn ended(&self, seen: Observed) {
        let mut book = self.lock();
        book.counts.in_flight -= 1;
        book.counts.tokens += seen.tokens;
        book.counts.substituted += u64::from(seen.substituted);
        if let Some(backend) = &seen.backend {
            book.count_backend(backend);
        }
        if let Some(ttft) = seen.ttft {
            book.ttft.saturating_record(micros(ttft));
        }
        match seen.verdict {
            Verdict::Ok => {
                book.counts.ok += 1;
                book.counts.good += u64::from(seen.good);
                book.duration.saturating_record(micros(seen.duration));
            }
            Verdict::Cut(ref why) => {
                book.counts.cut += 1;
                book.keep(why.clone(), seen);
            }
            Verdict::Failed(ref why) => {
                book.counts.failed += 1;
                book.keep(why.clone(), seen);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn count_backend(&mut self, backend: &str) {
        let known = &mut self.counts.by_backend;
        let name = if known.len() < BACKENDS_KEPT || known.contains_key(backend) { backend } else { "other" };
        *known.entry(name.to_owned()).or_default() += 1;
    }

    fn keep(&mut self, why: String, seen: Observed) {
        if self.failures.len() == FAILURES_KEPT {
            self.failures.pop_front();
        }
        self.failures.push_back(Failure {
            why,
            status: seen.status,
            backend: seen.backend,
            stream: seen.stream,
            number: seen.number,
            body: seen.body,
            at_unix_ns: unix_ns(),
        });
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn percentiles(histogram: &Histogram<u64>) -> Percentiles {
    let at = |q| histogram.value_at_quantile(q) as f64 / 1e3;
    Percentiles { p50: at(0.50), p95: at(0.95), p99: at(0.99), max: histogram.max() as f64 / 1e3 }
}
