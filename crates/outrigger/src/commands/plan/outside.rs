//! What a scenario names: traces, tables of rates, bills. Read here, since the planner does no I/O.

use std::{fs, path::Path};

use outrigger_config::{ScenarioOutside, TraceShape};
use outrigger_plan::{
    economics::{Invoice, Level, read_focus},
    trace::{RateCurve, Reader},
};

use crate::commands::input::{Failed, text_of};

pub(super) struct Files;

impl ScenarioOutside for Files {
    fn rates(&self, file: &Path, column: &str, scale: f64) -> Result<Vec<Level>, String> {
        let curve = RateCurve::from_csv(open(file)?, column).map_err(|fault| fault.to_string())?.scaled(scale);
        let level = |(nanos, per_s): (u64, f64)| Level {
            seconds: (nanos / 1_000_000_000).max(1),
            micro_rps: (per_s * 1e6).round() as u64,
        };
        Ok(curve.windows().map(level).collect())
    }

    fn trace(&self, file: &Path, window_s: u64) -> Result<TraceShape, String> {
        let reader = Reader::new(open(file)?, None).map_err(|fault| fault.to_string())?;
        let mut seen = Seen::default();
        for arrival in reader {
            let arrival = arrival.map_err(|fault| fault.to_string())?;
            let at = arrival.at.0 as f64 / 1e9;
            seen.add(at, window_s, arrival.prompt_tokens.0 as f64, arrival.output_tokens.0 as f64)?;
        }
        seen.shape(window_s)
    }

    fn invoice(&self, file: &Path) -> Result<Invoice, String> {
        read_focus(&fs::read_to_string(file).map_err(|error| error.to_string())?)
    }
}

fn open(file: &Path) -> Result<Box<dyn std::io::BufRead>, String> {
    text_of(file).map_err(|failed: Failed| failed.message)
}

/// Sums over a trace.
#[derive(Default)]
struct Seen {
    windows: Vec<u64>,
    requests: f64,
    prompt: f64,
    output: f64,
    output_squared: f64,
    last: f64,
    gap: f64,
    gap_squared: f64,
}

impl Seen {
    fn add(&mut self, at: f64, window_s: u64, prompt: f64, output: f64) -> Result<(), String> {
        const MOST_WINDOWS: usize = 2_000_000;
        let window = (at / window_s as f64) as usize;
        if window >= MOST_WINDOWS {
            return Err("the trace is too long for windows of this size".to_owned());
        }
        if self.windows.len() <= window {
            self.windows.resize(window + 1, 0);
        }
        self.windows[window] += 1;
        // Nobody knows how long it was before the first.
        let gap = if self.requests > 0.0 { at - self.last } else { 0.0 };
        (self.last, self.gap, self.gap_squared) = (at, self.gap + gap, self.gap_squared + gap * gap);
        self.requests += 1.0;
        self.prompt += prompt;
        self.output += output;
        self.output_squared += output * output;
        Ok(())
    }

    /// The last window is as long as there were requests in it; one of less than half the others' length is part of the one
    /// before it, since a rate over a second is none.
    fn shape(mut self, window_s: u64) -> Result<TraceShape, String> {
        if self.requests < 2.0 || self.last <= 0.0 {
            return Err("the trace has fewer than two requests".to_owned());
        }
        let mut tail = (self.last - ((self.windows.len() - 1) as u64 * window_s) as f64).ceil().max(1.0) as u64;
        if self.windows.len() > 1 && tail * 2 < window_s {
            let short = self.windows.pop().unwrap_or(0);
            *self.windows.last_mut().expect("there were two") += short;
            tail += window_s;
        }
        let last = self.windows.len() - 1;
        let level = |(i, count): (usize, &u64)| {
            let seconds = if i == last { tail } else { window_s };
            Level { seconds, micro_rps: (*count as f64 / seconds as f64 * 1e6).round() as u64 }
        };
        let mean = |sum: f64| sum / self.requests;
        let cv = |n: f64, sum: f64, squared: f64| {
            let mean = sum / n;
            (squared / n - mean * mean).max(0.0).sqrt() / mean.max(1e-9)
        };
        Ok(TraceShape {
            levels: self.windows.iter().enumerate().map(level).collect(),
            prompt_milli: (mean(self.prompt) * 1e3).round() as u64,
            output_milli: (mean(self.output) * 1e3).round().max(1.0) as u64,
            output_cv: cv(self.requests, self.output, self.output_squared),
            arrival_cv: cv(self.requests - 1.0, self.gap, self.gap_squared),
        })
    }
}
