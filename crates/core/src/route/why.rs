//! Why a backend was chosen, and why each other one was not. The header, the log, the screen and the tests read these.
//!
//! Noting reasons goes through a generic [`Recorder`]; the unit type records nothing, so that a simulation of millions
//! of requests pays nothing for it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    fleet::BackendId,
    record::Fault,
    units::{NanoUsd, Nanos},
};

/// Why the chosen backend was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Its turn by weight.
    Weight,
    /// The better of two, by what a first token would take.
    Latency,
    /// The least marginal cost.
    Cheapest,
    /// Preferred by the request's session, user or prefix.
    Affinity,
    /// The tiers before this one would make it wait for longer than `enter_when` allows.
    Spill,
    /// The only one of its tier that could serve.
    OnlyOne,
    /// Its turn among those left after another attempt failed.
    Failover,
    /// The tiers before this one could not serve.
    Fallback,
    /// Let through first, to see whether backpressure or an outage is over.
    Trial,
    /// Soft evidence overridden, because nothing else could serve.
    Panic,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::Latency => "latency",
            Self::Cheapest => "cheapest",
            Self::Affinity => "affinity",
            Self::Spill => "spill",
            Self::OnlyOne => "only_one",
            Self::Failover => "failover",
            Self::Fallback => "fallback",
            Self::Trial => "trial",
            Self::Panic => "panic",
        }
    }
}

/// What a decision made of one candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Chosen,
    /// Could have served; it was not its turn.
    NotItsTurn,
    /// In a tier that was not needed.
    NotReached,
    /// Could serve, after a wait that a later tier spares.
    WouldWait {
        wait: Duration,
    },
    AlreadyTried,
    Drained,
    ZeroWeight,
    Down {
        why: Fault,
    },
    Suspect {
        why: Fault,
    },
    Ejected,
    CoolingDown {
        until: Nanos,
        rate_limited: bool,
    },
    TrialRunning,
    Saturated {
        in_flight: u32,
        limit: u32,
    },
    SpendLimit {
        last_hour: NanoUsd,
        /// When enough of that has left the window, where that is known.
        #[serde(default)]
        until: Option<Nanos>,
    },
    SubstituteDenied,
    CloudNotAllowed,
    /// It does not have the endpoint.
    LacksApi,
}

impl Verdict {
    /// The word for logs, metrics and error bodies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::NotItsTurn => "not_its_turn",
            Self::NotReached => "not_reached",
            Self::WouldWait { .. } => "would_wait",
            Self::AlreadyTried => "already_tried",
            Self::Drained => "drained",
            Self::ZeroWeight => "zero_weight",
            Self::Down { .. } => "down",
            Self::Suspect { .. } => "suspect",
            Self::Ejected => "ejected",
            Self::CoolingDown { rate_limited: true, .. } => "rate_limited",
            Self::CoolingDown { .. } => "overloaded",
            Self::TrialRunning => "trial_running",
            Self::Saturated { .. } => "saturated",
            Self::SpendLimit { .. } => "spend_limit",
            Self::SubstituteDenied => "substitute_denied",
            Self::CloudNotAllowed => "cloud_not_allowed",
            Self::LacksApi => "lacks_api",
        }
    }

    pub fn is_eligible(self) -> bool {
        matches!(self, Self::Chosen | Self::NotItsTurn | Self::NotReached)
    }
}

/// Why nothing was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectReason {
    /// No backend of any tier may serve this request now.
    NoBackend,
    /// Every backend that could serve is rate limited.
    RateLimited,
    /// Every backend that could serve is at its limit, and waiting did not help.
    Saturated,
    /// Only a substitute could answer, and the key denies it.
    SubstituteDenied,
    /// Only clouds that the key does not allow could answer.
    CloudNotAllowed,
    /// No backend has the endpoint.
    LacksApi,
    /// Only backends beyond their spend limit could answer.
    SpendLimit,
    /// No backend is left that has not been tried.
    AllTried,
    RetryBudget,
    /// Two backends failed on this very request while they serve others.
    Poison,
    /// The key has as many requests in flight as it may.
    KeyLimit,
}

impl RejectReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoBackend => "no_backend",
            Self::RateLimited => "rate_limited",
            Self::Saturated => "saturated",
            Self::SubstituteDenied => "substitute_denied",
            Self::CloudNotAllowed => "cloud_not_allowed",
            Self::LacksApi => "lacks_api",
            Self::SpendLimit => "spend_limit",
            Self::AllTried => "all_tried",
            Self::RetryBudget => "retry_budget",
            Self::Poison => "poison",
            Self::KeyLimit => "key_limit",
        }
    }
}

/// One line of a decision's explanation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// From 1.
    pub tier: u8,
    pub backend: BackendId,
    pub verdict: Verdict,
}

/// Takes notes while a decision is made.
pub trait Recorder {
    fn note(&mut self, tier: u8, backend: BackendId, verdict: Verdict);
}

impl Recorder for () {
    fn note(&mut self, _: u8, _: BackendId, _: Verdict) {}
}

/// The last note about a candidate wins: panic looks at each a second time.
impl Recorder for Vec<Candidate> {
    fn note(&mut self, tier: u8, backend: BackendId, verdict: Verdict) {
        match self.iter_mut().find(|c| c.tier == tier && c.backend == backend) {
            Some(known) => known.verdict = verdict,
            None => self.push(Candidate { tier, backend, verdict }),
        }
    }
}
