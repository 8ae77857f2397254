//! What a simulation found, as it is collected and as it is told.

use std::{collections::BTreeMap, time::Duration};

use outrigger_core::{
    cost::Cost,
    units::{NanoUsd, Nanos, Tokens},
};
use serde::{Deserialize, Serialize};

/// A distribution of durations in constant space, each within 0.8 %.
#[derive(Clone, Debug, Default)]
pub struct Durations {
    buckets: Vec<u32>,
    count: u64,
    sum: f64,
}

/// Buckets for each doubling: one is at most 1/64 of its value wide, and its middle is told.
const PER_DOUBLING: u32 = 64;

impl Durations {
    pub fn record(&mut self, d: Duration) {
        let bucket = bucket_of(d);
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.sum += d.as_secs_f64();
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// Seconds. The mean is exact.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }

    /// Seconds.
    pub fn quantile(&self, q: f64) -> f64 {
        let rank = (self.count as f64 * q).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (i, n) in self.buckets.iter().enumerate() {
            seen += u64::from(*n);
            if seen >= rank {
                return middle_of(i);
            }
        }
        0.0
    }

    /// The share at or below `d`.
    pub fn share_within(&self, d: Duration) -> f64 {
        let within: u64 = self.buckets.iter().take(bucket_of(d) + 1).map(|n| u64::from(*n)).sum();
        if self.count == 0 { 1.0 } else { within as f64 / self.count as f64 }
    }

    pub fn merge(&mut self, other: &Self) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum += other.sum;
    }

    pub fn summary(&self) -> Summary {
        let ms = |seconds: f64| (seconds * 1e6).round() / 1e3;
        Summary {
            mean: ms(self.mean()),
            p50: ms(self.quantile(0.5)),
            p95: ms(self.quantile(0.95)),
            p99: ms(self.quantile(0.99)),
        }
    }

    /// Points of the cumulative distribution: seconds, and the share at or below.
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let mut seen = 0;
        let filled = self.buckets.iter().enumerate().filter(|(_, n)| **n > 0);
        filled
            .map(|(i, n)| {
                seen += u64::from(*n);
                (middle_of(i), seen as f64 / self.count as f64)
            })
            .collect()
    }
}

/// Microseconds: single ones below 64, then 64 buckets for each doubling.
fn bucket_of(d: Duration) -> usize {
    let us = u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
    let doublings = us.checked_div(u64::from(PER_DOUBLING)).map_or(0, |n| 64 - n.leading_zeros());
    if doublings == 0 {
        return us as usize;
    }
    let shift = doublings - 1;
    (u64::from(doublings * PER_DOUBLING) + ((us >> shift) - u64::from(PER_DOUBLING))) as usize
}

fn middle_of(bucket: usize) -> f64 {
    let (doublings, within) = (bucket as u64 / u64::from(PER_DOUBLING), bucket as u64 % u64::from(PER_DOUBLING));
    if doublings == 0 {
        return bucket as f64 / 1e6;
    }
    let shift = doublings - 1;
    let (from, width) = ((u64::from(PER_DOUBLING) + within) << shift, 1_u64 << shift);
    (from as f64 + (width - 1) as f64 / 2.0) / 1e6
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub mean: f64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
}

/// Of one backend, while it is collected.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) served: u64,
    pub(super) attempts: u64,
    pub(super) failed_attempts: u64,
    pub(super) spilled: u64,
    pub(super) prompt: Tokens,
    pub(super) output: Tokens,
    pub(super) wait: Durations,
    pub(super) ttft: Durations,
    pub(super) whole: Durations,
    pub(super) cost: Cost,
    pub(super) gpu_seconds: f64,
    pub(super) most_waiting: usize,
}

/// What one simulation found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub seed: u64,
    /// Digest of the fleet.
    pub fleet: String,
    pub requests: u64,
    pub failed: u64,
    /// Failed requests by why the client was told.
    pub failures: BTreeMap<String, u64>,
    /// Served by a tier that was entered because an earlier one would have made the request wait.
    pub spilled: u64,
    /// Served by a tier that was entered because none before it could serve.
    pub fell_back: u64,
    pub duration_s: f64,
    pub wait_ms: Summary,
    pub ttft_ms: Summary,
    pub end_to_end_ms: Summary,
    pub slo: BTreeMap<String, SloReport>,
    pub cost_nano_usd: Cost,
    pub backends: BTreeMap<String, BackendReport>,
    /// By where the gateways stand, if they stand in several places.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub places: BTreeMap<String, PlaceReport>,
    #[serde(skip)]
    pub plots: Plots,
}

/// What a report's plots are drawn from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plots {
    pub series: Series,
    /// In the order of the series.
    pub backends: Vec<String>,
    /// Points of the cumulative distribution of the time to the first token: seconds, and the share at or below.
    pub ttft: Vec<(f64, f64)>,
    pub end_to_end: Vec<(f64, f64)>,
}

/// What the gateways of one place served.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlaceReport {
    pub requests: u64,
    pub egress_nano_usd: NanoUsd,
}

impl PlaceReport {
    pub(super) fn served(&mut self, egress: NanoUsd) {
        self.requests += 1;
        self.egress_nano_usd += egress;
    }
}

/// How often a model's objectives were met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SloReport {
    /// Share of requests whose first token came in time; `None` without an objective.
    pub ttft: Option<f64>,
    pub time_per_output_token: Option<f64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BackendReport {
    /// Requests that it answered.
    pub requests: u64,
    /// Of all that were answered.
    pub share: f64,
    pub attempts: u64,
    pub failed_attempts: u64,
    pub spilled: u64,
    pub prompt_tokens: u64,
    pub output_tokens: u64,
    /// From arrival at the gateway to a slot in the engine.
    pub wait_ms: Summary,
    pub ttft_ms: Summary,
    pub end_to_end_ms: Summary,
    /// Most requests in its queue at once.
    pub most_waiting: u64,
    pub gpu_hours: f64,
    pub cost_nano_usd: Cost,
    /// What stands behind its speed.
    pub engine_model: String,
}

/// Counts over time, in steps that double as the simulation grows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    pub step_s: f64,
    /// Served by each backend, in each step.
    pub served: Vec<Vec<u32>>,
    /// Requests waiting at each backend at the end of each step, as last seen.
    pub waiting: Vec<Vec<u32>>,
    pub failed: Vec<u32>,
    /// USD that each backend has cost by the end of each step.
    pub spent: Vec<Vec<f64>>,
    #[serde(skip)]
    newest: usize,
    /// The last step that was asked for, and its nanoseconds: most of what follows is in it too.
    #[serde(skip)]
    current: (usize, std::ops::Range<u64>),
}

const STEPS: usize = 512;

impl Series {
    pub(super) fn new(backends: usize) -> Self {
        Self {
            step_s: 1.0,
            served: vec![Vec::new(); backends],
            waiting: vec![Vec::new(); backends],
            failed: Vec::new(),
            spent: vec![Vec::new(); backends],
            newest: 0,
            current: (0, 0..0),
        }
    }

    pub(super) fn served(&mut self, backend: usize, waiting: usize, now: Nanos) {
        let step = self.step(now);
        bump(&mut self.served[backend], step, |n| n + 1);
        bump(&mut self.waiting[backend], step, |n| n.max(waiting as u32));
    }

    /// Whether this is a later step than the last one that was noted.
    pub(super) fn is_new_step(&mut self, now: Nanos) -> bool {
        let step = self.step(now);
        std::mem::replace(&mut self.newest, step) != step
    }

    /// What a backend has cost by now.
    pub(super) fn spent(&mut self, backend: usize, usd: f64, now: Nanos) {
        let step = self.step(now);
        let spent = &mut self.spent[backend];
        let before = spent.last().copied().unwrap_or(0.0);
        if spent.len() <= step {
            spent.resize(step + 1, before);
        }
        spent[step] = usd;
    }

    pub(super) fn failed(&mut self, now: Nanos) {
        let step = self.step(now);
        bump(&mut self.failed, step, |n| n + 1);
    }

    fn step(&mut self, now: Nanos) -> usize {
        if self.current.1.contains(&now.0) {
            return self.current.0;
        }
        let seconds = now.0 as f64 / 1e9;
        while seconds / self.step_s >= STEPS as f64 {
            self.step_s *= 2.0;
            self.served.iter_mut().for_each(|s| halve(s, |a, b| a + b));
            self.waiting.iter_mut().for_each(|s| halve(s, u32::max));
            halve(&mut self.failed, |a, b| a + b);
            self.spent.iter_mut().for_each(|s| *s = s.chunks(2).map(|pair| pair[pair.len() - 1]).collect());
        }
        let step = (seconds / self.step_s) as usize;
        let nanos = (self.step_s * 1e9) as u64;
        self.current = (step, step as u64 * nanos..(step as u64 + 1) * nanos);
        step
    }
}

fn bump(series: &mut Vec<u32>, step: usize, change: impl Fn(u32) -> u32) {
    if series.len() <= step {
        series.resize(step + 1, 0);
    }
    series[step] = change(series[step]);
}

fn halve(series: &mut Vec<u32>, join: impl Fn(u32, u32) -> u32) {
    *series = series.chunks(2).map(|pair| join(pair[0], pair.get(1).copied().unwrap_or(0))).collect();
}

impl Tally {
    pub(super) fn report(&self, answered: u64, engine_model: String) -> BackendReport {
        BackendReport {
            requests: self.served,
            share: if answered == 0 { 0.0 } else { self.served as f64 / answered as f64 },
            attempts: self.attempts,
            failed_attempts: self.failed_attempts,
            spilled: self.spilled,
            prompt_tokens: self.prompt.0,
            output_tokens: self.output.0,
            wait_ms: self.wait.summary(),
            ttft_ms: self.ttft.summary(),
            end_to_end_ms: self.whole.summary(),
            most_waiting: self.most_waiting as u64,
            gpu_hours: (self.gpu_seconds / 3_600.0 * 1e3).round() / 1e3,
            cost_nano_usd: self.cost,
            engine_model,
        }
    }
}

/// Money for GPUs over a time.
pub(super) fn gpu_cost(usd_per_gpu_hour: NanoUsd, gpu_seconds: f64) -> NanoUsd {
    NanoUsd((usd_per_gpu_hour.0 as f64 * gpu_seconds / 3_600.0).round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_within_a_hundredth_and_a_mean_is_exact() {
        let mut all = Durations::default();
        for us in (0..2_000_000).step_by(7) {
            all.record(Duration::from_micros(us));
        }
        for q in [0.01, 0.5, 0.95, 0.99, 1.0] {
            assert!((all.quantile(q) / (q * 2.0) - 1.0).abs() < 0.01, "{q}: {}", all.quantile(q));
        }
        assert!((all.mean() - 0.999_998).abs() < 1e-5, "{}", all.mean());
        for i in 0..2_500 {
            let d = Duration::from_secs_f64(middle_of(i));
            assert!(bucket_of(d).abs_diff(i) <= 1, "{i}");
        }
    }
}
