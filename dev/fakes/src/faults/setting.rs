//! One fault as somebody sets it: its kind, and how hard, how often and how long it strikes.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::kind::{FaultKind, can_be_answered};

/// The body of `POST /faults`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    #[serde(rename = "fault")]
    pub kind: FaultKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_tokens: Option<u32>,
    /// Of each request, or of each step for `slow`; without effect on `refuse`, `blackhole` and `kill`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// How many requests it strikes (probes too) before it is over; for faults that are drawn per request. The list of
    /// active faults says how many are left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// A Retry-After with the status that is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// `trickle` only: the pause between tokens, 200 ms by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// `error_event` only: the code in the event, 500 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// `slow` only: how many times slower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// `"10s"`, `"500ms"`, `"2m"`, or a number of seconds; heals after that.
    #[serde(
        default,
        rename = "for",
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_seconds",
        deserialize_with = "read_duration"
    )]
    pub lasting: Option<Duration>,
}

impl Fault {
    pub fn new(kind: FaultKind) -> Self {
        Self {
            kind,
            after_tokens: None,
            probability: None,
            times: None,
            retry_after_s: None,
            delay_ms: None,
            status: None,
            factor: None,
            lasting: None,
        }
    }

    /// This status in place of an answer.
    pub fn with_status(status: u16) -> Self {
        Self::new(FaultKind::Status(status))
    }

    #[must_use]
    pub fn after_tokens(mut self, tokens: u32) -> Self {
        self.after_tokens = Some(tokens);
        self
    }

    #[must_use]
    pub fn probability(mut self, probability: f64) -> Self {
        self.probability = Some(probability);
        self
    }

    #[must_use]
    pub fn times(mut self, requests: u32) -> Self {
        self.times = Some(requests);
        self
    }

    #[must_use]
    pub fn retry_after_s(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    #[must_use]
    pub fn delay_ms(mut self, pause: u64) -> Self {
        self.delay_ms = Some(pause);
        self
    }

    #[must_use]
    pub fn status(mut self, code: u16) -> Self {
        self.status = Some(code);
        self
    }

    #[must_use]
    pub fn lasting(mut self, time: Duration) -> Self {
        self.lasting = Some(time);
        self
    }

    /// What is wrong with it, for a 400.
    pub(crate) fn invalid(&self) -> Option<&'static str> {
        if self.probability.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
            return Some("probability must be in 0..1");
        }
        if self.times == Some(0) {
            return Some("times must be at least 1");
        }
        if self.status.is_some_and(|status| !can_be_answered(status) || status < 400) {
            return Some("status must be in 400..599");
        }
        (self.factor.is_some_and(|f| !(0.001..1e6).contains(&f))).then_some("factor must be in 0.001..1000000")
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawDuration {
    Seconds(f64),
    Text(String),
}

fn read_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let seconds = match Option::<RawDuration>::deserialize(from)? {
        None => return Ok(None),
        Some(RawDuration::Seconds(s)) => Some(s),
        Some(RawDuration::Text(text)) => parse_seconds(&text),
    };
    seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()).map(Some).ok_or_else(|| {
        serde::de::Error::custom("`for` takes \"10s\", \"500ms\", \"2m\", \"1h\" or a number of seconds")
    })
}

fn parse_seconds(text: &str) -> Option<f64> {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (number, unit) = units.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))?;
    number.trim().parse::<f64>().ok().map(|n| n * unit)
}

#[expect(clippy::ref_option, reason = "the signature that serde's serialize_with calls")]
fn write_seconds<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    time.map(|t| t.as_secs_f64()).serialize(to)
}
