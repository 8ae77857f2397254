//! Backpressure: what a 429 or 503 does to a backend.
//!
//! A refusal is not a fault, but traffic must not keep knocking either. With `Retry-After` the backend is left alone
//! for that long; without it, only the third refusal in a row blocks it (one may be a burst), for a second that
//! doubles up to thirty. When the time is over, a single trial decides: an answer opens the door, a refusal shuts it
//! again. Refusals of requests that were already on their way when it shut change nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::health::jittered;
use crate::{Rng, units::Nanos};

/// Refusals in a row, with no success between, that block a backend which names no time.
pub const REFUSALS_TO_BLOCK: u8 = 3;
/// Longest time that a backend may ask for.
pub const MAX_RETRY_AFTER: Duration = Duration::from_mins(5);
const FIRST_BLOCK: Duration = Duration::from_secs(1);
const MAX_BLOCK: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cooldown {
    until: Nanos,
    refusals_in_row: u8,
    blocks_in_row: u8,
    /// The block's time may be over, but nobody has been let through since.
    trial_needed: bool,
    trial_running: bool,
    /// Status of the last refusal.
    status: u16,
}

/// Whether a request may go to the backend now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// Open for exactly one request, whose result decides.
    Trial,
    Blocked {
        until: Nanos,
    },
    TrialRunning,
}

impl Cooldown {
    pub fn gate(&self, now: Nanos) -> Gate {
        if now < self.until {
            Gate::Blocked { until: self.until }
        } else if !self.trial_needed {
            Gate::Open
        } else if self.trial_running {
            Gate::TrialRunning
        } else {
            Gate::Trial
        }
    }

    /// Whether the last refusal was a 429.
    pub fn is_rate_limit(&self) -> bool {
        self.status == 429
    }

    pub fn trial_started(&mut self) {
        self.trial_running = true;
    }

    /// The trial ended in something that says nothing about pressure.
    pub fn trial_wasted(&mut self) {
        self.trial_running = false;
    }

    pub fn refused(&mut self, status: u16, retry_after: Option<Duration>, was_trial: bool, now: Nanos, rng: &mut Rng) {
        self.status = status;
        self.trial_running &= !was_trial;
        self.refusals_in_row = self.refusals_in_row.saturating_add(1);
        if let Some(asked) = retry_after {
            self.block_until(now + asked.min(MAX_RETRY_AFTER));
        } else if was_trial || (self.refusals_in_row >= REFUSALS_TO_BLOCK && !self.trial_needed) {
            let time = FIRST_BLOCK.saturating_mul(1 << self.blocks_in_row.min(5)).min(MAX_BLOCK);
            self.blocks_in_row = self.blocks_in_row.saturating_add(1);
            self.block_until(now + jittered(time, rng));
        }
    }

    /// Any answer ends the row; after a block only the trial's answer, or one that came later than it, opens.
    pub fn answered(&mut self, was_trial: bool, now: Nanos) {
        self.refusals_in_row = 0;
        if was_trial || now >= self.until {
            *self = Self::default();
        }
    }

    fn block_until(&mut self, until: Nanos) {
        self.until = self.until.max(until);
        self.trial_needed = true;
    }
}
