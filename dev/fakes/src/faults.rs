//! The scripted faults: how a cloud breaks, as data that can be switched while requests are in flight.
//!
//! Two kinds, because they act in different places. Faults of the network (`refuse`, `blackhole`) and of the process
//! (`kill`) act on the listener and on every open connection at once. The others are drawn once per request, with a
//! seeded probability, and change its answer; `/health` and `/metrics` stay fine on purpose, since engines that hang
//! do keep answering their health checks. `slow` belongs to the engine and is drawn per step.
//!
//! Several faults may be active; of those drawn per request the first that hits wins, in the order they were set.
//! Setting a kind again replaces it. `for` ends a fault by itself.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::time::Instant;

use crate::rng::Dice;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The listener is closed and every open connection reset.
    Refuse,
    /// Nothing is accepted (a connect times out) and nothing more is read or written on open connections. The kernel
    /// still acknowledges what a client sends on those.
    Blackhole,
    /// The process exits with 137. In a library fake without `on_kill` it acts as `refuse`.
    Kill,
    /// Each step takes `factor` (10) times as long.
    Slow,
    /// The request is read; no byte of an answer comes.
    Hang,
    /// A TCP reset as soon as the request has been read.
    Reset,
    #[serde(rename = "500")]
    Status500,
    #[serde(rename = "503")]
    Status503,
    #[serde(rename = "429")]
    Status429,
    /// A reset inside a chunk after `after_tokens` (3); a body shorter than its Content-Length for non-streams.
    Cut,
    /// Nothing more after `after_tokens` (3), the connection stays open.
    Stall,
    /// The answer names another model.
    WrongModel,
    /// 200 with a body that is not JSON, or no SSE.
    Garbage,
    /// One event with broken JSON in place of token number `after_tokens` (3); the stream then goes on.
    MalformedSse,
    /// `data: {"error":…}` after `after_tokens` (0), then `[DONE]`, as vLLM does. Non-streams: 500.
    ErrorEvent,
    /// A stream whose finish reason, after `after_tokens` (3), is "abort": vLLM's answer to its own SIGTERM.
    Abort,
    /// A clean end after `after_tokens` (all) without a finish reason and without `[DONE]`. Streams only.
    MissingDone,
    /// A complete stream that only lacks its `[DONE]`. Streams only.
    NoDone,
}

impl FaultKind {
    pub const ALL: [Self; 18] = [
        Self::Refuse,
        Self::Blackhole,
        Self::Kill,
        Self::Slow,
        Self::Hang,
        Self::Reset,
        Self::Status500,
        Self::Status503,
        Self::Status429,
        Self::Cut,
        Self::Stall,
        Self::WrongModel,
        Self::Garbage,
        Self::MalformedSse,
        Self::ErrorEvent,
        Self::Abort,
        Self::MissingDone,
        Self::NoDone,
    ];

    fn per_request(self) -> bool {
        !matches!(self, Self::Refuse | Self::Blackhole | Self::Kill | Self::Slow)
    }

    fn default_after_tokens(self) -> u32 {
        match self {
            Self::Cut | Self::Stall | Self::MalformedSse | Self::Abort => 3,
            Self::MissingDone => u32::MAX,
            _ => 0,
        }
    }
}

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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
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
        Self { kind, after_tokens: None, probability: None, retry_after_s: None, factor: None, lasting: None }
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
    pub fn retry_after_s(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
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
        (self.factor.is_some_and(|f| !(0.001..1e6).contains(&f))).then_some("factor must be in 0.001..1000000")
    }
}

/// What one request was dealt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Dealt {
    pub(crate) kind: FaultKind,
    pub(crate) after_tokens: u32,
    pub(crate) retry_after_s: Option<u64>,
}

/// What the listener and its connections do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    Open,
    Refusing,
    Blackholed,
}

#[derive(Debug)]
pub(crate) struct FaultSet(Mutex<Active>);

#[derive(Debug)]
struct Active {
    faults: Vec<(u64, Fault)>,
    next_id: u64,
    dice: Dice,
}

impl FaultSet {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new(Active { faults: Vec::new(), next_id: 0, dice: Dice::new(seed, 2) }))
    }

    /// Returns the id by which this very setting can be ended.
    pub(crate) fn set(&self, fault: Fault) -> u64 {
        let mut active = self.lock();
        let id = active.next_id;
        active.next_id += 1;
        active.faults.retain(|(_, f)| f.kind != fault.kind);
        active.faults.push((id, fault));
        id
    }

    pub(crate) fn end(&self, id: u64) {
        self.lock().faults.retain(|(i, _)| *i != id);
    }

    pub(crate) fn clear(&self) {
        self.lock().faults.clear();
    }

    pub(crate) fn list(&self) -> Vec<Fault> {
        self.lock().faults.iter().map(|(_, f)| f.clone()).collect()
    }

    pub(crate) fn deal(&self) -> Option<Dealt> {
        let mut active = self.lock();
        let Active { faults, dice, .. } = &mut *active;
        let hit = faults
            .iter()
            .map(|(_, f)| f)
            .filter(|f| f.kind.per_request())
            .find(|f| dice.hit(f.probability.unwrap_or(1.0)))?;
        Some(Dealt {
            kind: hit.kind,
            after_tokens: hit.after_tokens.unwrap_or(hit.kind.default_after_tokens()),
            retry_after_s: hit.retry_after_s,
        })
    }

    pub(crate) fn network(&self) -> Network {
        let active = self.lock();
        let has = |kind| active.faults.iter().any(|(_, f)| f.kind == kind);
        if has(FaultKind::Refuse) || has(FaultKind::Kill) {
            Network::Refusing
        } else if has(FaultKind::Blackhole) {
            Network::Blackholed
        } else {
            Network::Open
        }
    }

    /// Factor and probability, for the engine.
    pub(crate) fn slow(&self) -> Option<(f64, f64)> {
        let active = self.lock();
        let (_, fault) = active.faults.iter().find(|(_, f)| f.kind == FaultKind::Slow)?;
        Some((fault.factor.unwrap_or(10.0), fault.probability.unwrap_or(1.0)))
    }

    fn lock(&self) -> MutexGuard<'_, Active> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a fault that was set now heals by itself. A time too long to represent is for ever.
pub(crate) fn heals_at(fault: &Fault) -> Option<Instant> {
    fault.lasting.and_then(|time| Instant::now().checked_add(time))
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
