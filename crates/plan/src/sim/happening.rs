//! What goes wrong during a simulation, and when.

use std::time::Duration;

use outrigger_core::units::Nanos;
use serde::Deserialize;

/// One line of an events file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Happening {
    /// Seconds after the first request.
    pub at_s: f64,
    /// How long it lasts; to the end where it is absent.
    #[serde(default)]
    pub for_s: Option<f64>,
    /// Backends by name, or all backends of a cloud.
    #[serde(default)]
    pub backend: Option<String>,
    #[serde(default)]
    pub cloud: Option<String>,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// Nothing listens; what was in flight dies.
    Outage,
    /// It accepts and says nothing.
    Hang,
    /// Every request gets a 500.
    Errors,
    /// This share of the requests gets a 500.
    Flaky { share: f64 },
    /// Everything takes this many times as long.
    BrownOut { factor: f64 },
    /// This share of the engines is left.
    Capacity { share: f64 },
    /// More requests a second than this get a 429.
    RateLimit { requests_per_second: f64 },
    /// The price on demand changes to this.
    Price { usd_per_gpu_hour: f64 },
    /// The engine's metrics say this.
    Metrics { say: Metrics },
}

/// How an engine's metrics mislead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metrics {
    /// The truth.
    #[default]
    Right,
    Absent,
    Zero,
    /// A thousand million waiting.
    Huge,
    /// What was true at the beginning, for ever.
    Stale,
    /// One engine of several.
    OnePod,
}

impl Happening {
    pub fn begins(&self) -> Nanos {
        nanos(self.at_s)
    }

    pub fn ends(&self) -> Option<Nanos> {
        self.for_s.map(|time| self.begins() + Duration::from_secs_f64(time.clamp(0.0, 1e9)))
    }
}

fn nanos(seconds: f64) -> Nanos {
    Nanos::ZERO + Duration::from_secs_f64(seconds.clamp(0.0, 1e9))
}
