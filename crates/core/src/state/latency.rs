//! The distribution of a backend's time to first token, in constant space and without allocation.
//!
//! Buckets grow by a quarter from a millisecond to about twenty minutes. Two generations of a minute each are kept,
//! so that an old regime is forgotten in one to two minutes without a timer per sample.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::Nanos;

const BUCKETS: usize = 64;
const GROWTH: f64 = 1.25;
const GENERATION: Duration = Duration::from_mins(1);
/// Fewer samples than this say nothing about a percentile.
const MIN_SAMPLES: u32 = 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Sparse", into = "Sparse")]
pub struct Latency {
    current: Vec<u32>,
    previous: Vec<u32>,
    count: u32,
    since: Nanos,
}

/// As written down: the buckets that are not empty.
#[derive(Serialize, Deserialize)]
struct Sparse {
    current: Vec<(usize, u32)>,
    previous: Vec<(usize, u32)>,
    since: Nanos,
}

impl From<Latency> for Sparse {
    fn from(latency: Latency) -> Self {
        let filled = |all: Vec<u32>| all.into_iter().enumerate().filter(|(_, n)| *n > 0).collect();
        Self { current: filled(latency.current), previous: filled(latency.previous), since: latency.since }
    }
}

impl From<Sparse> for Latency {
    fn from(sparse: Sparse) -> Self {
        let mut latency = Self { since: sparse.since, ..Self::default() };
        for (filled, all) in [(sparse.current, &mut latency.current), (sparse.previous, &mut latency.previous)] {
            for (i, n) in filled {
                if let Some(bucket) = all.get_mut(i) {
                    *bucket = n;
                    latency.count = latency.count.saturating_add(n);
                }
            }
        }
        latency
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self { current: vec![0; BUCKETS], previous: vec![0; BUCKETS], count: 0, since: Nanos::ZERO }
    }
}

impl Latency {
    pub fn record(&mut self, sample: Duration, now: Nanos) {
        if now.since(self.since) >= GENERATION {
            std::mem::swap(&mut self.current, &mut self.previous);
            self.current.fill(0);
            self.count = self.previous.iter().sum();
            self.since = now;
        }
        self.current[bucket(sample)] += 1;
        self.count += 1;
    }

    /// Upper edge of the bucket that holds the 99th percentile; `None` below 20 samples.
    pub fn p99(&self) -> Option<Duration> {
        self.quantile(0.99)
    }

    pub fn p50(&self) -> Option<Duration> {
        self.quantile(0.5)
    }

    fn quantile(&self, q: f64) -> Option<Duration> {
        if self.count < MIN_SAMPLES {
            return None;
        }
        let rank = (f64::from(self.count) * q).ceil() as u32;
        let mut seen = 0;
        let found = (0..BUCKETS).find(|i| {
            seen += self.current[*i] + self.previous[*i];
            seen >= rank
        });
        Some(upper_edge(found.unwrap_or(BUCKETS - 1)))
    }
}

fn bucket(sample: Duration) -> usize {
    let ms = sample.as_secs_f64() * 1e3;
    if ms <= 1.0 { 0 } else { (ms.ln() / GROWTH.ln()).ceil().min((BUCKETS - 1) as f64) as usize }
}

fn upper_edge(bucket: usize) -> Duration {
    Duration::from_secs_f64(GROWTH.powf(bucket as f64) / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_within_a_quarter_and_old_samples_are_forgotten() {
        let mut latency = Latency::default();
        for ms in 1..=100 {
            latency.record(Duration::from_millis(ms), Nanos::from_secs(100));
        }
        let p99 = latency.p99().expect("enough samples").as_secs_f64();
        assert!((0.099..0.125).contains(&p99), "{p99}");
        for minute in 1..=3 {
            for _ in 0..50 {
                latency.record(Duration::from_millis(5), Nanos::from_secs(100 + 61 * minute));
            }
        }
        assert!(latency.p99().expect("enough samples") < Duration::from_millis(7));
    }
}
