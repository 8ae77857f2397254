//! Who waits for a place at a model's backends, by number: what a decision needs to know of a line.
//!
//! The requests themselves wait with whoever acts (see [`crate::waiting`]). A queue is good for bursts and bad for
//! overload: behind one that never empties everybody is served late, and nothing is gained by the wait. So a line that
//! has stood for as long as a first token may take is no burst any more, and from then on it is kept so short that who
//! stands in it is still served in time; the rest is turned away at once, and told when to come back.
//!
//! Source: the two regimes are those of CoDel (Nichols and Jacobson, *Controlling Queue Delay*, ACM Queue 10.5, 2012):
//! a bad queue is not a long one but one that stays.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{fleet::Priority, units::Nanos};

/// The part of the objective for the first token that may be spent in a line that stands; the rest is the engine's. The
/// learned limit leaves the engine's own queue the same half.
const WAIT_SHARE: u32 = 2;

/// Requests of one model that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    waiting: [u32; Priority::ALL.len()],
    /// Since when somebody has been waiting without a break.
    since: Option<Nanos>,
}

impl Queue {
    /// Requests that wait.
    pub fn waiting(&self) -> u32 {
        self.waiting.iter().sum()
    }

    pub fn waiting_with(&self, priority: Priority) -> u32 {
        self.waiting[priority.index()]
    }

    /// Requests that go before a new one of this priority.
    pub fn ahead_of(&self, priority: Priority) -> u32 {
        self.waiting[priority.index()..].iter().sum()
    }

    /// Whether somebody would have to make room for a request of this priority.
    pub fn has_below(&self, priority: Priority) -> bool {
        self.waiting[..priority.index()].iter().any(|n| *n > 0)
    }

    /// How long a request may wait whose own bound is `patience`.
    pub fn allowed(&self, patience: Duration, objective: Option<Duration>, now: Nanos) -> Duration {
        let Some(objective) = objective else { return patience };
        let stands = self.since.is_some_and(|since| now.since(since) >= objective);
        if stands { patience.min(objective / WAIT_SHARE) } else { patience }
    }

    pub(crate) fn enter(&mut self, priority: Priority, now: Nanos) {
        self.waiting[priority.index()] += 1;
        self.since.get_or_insert(now);
    }

    /// One is called or gives up. It may come straight back, so that the line is not over before [`Self::settle`].
    pub(crate) fn leave(&mut self, priority: Priority) {
        let waiting = &mut self.waiting[priority.index()];
        *waiting = waiting.saturating_sub(1);
    }

    pub(crate) fn settle(&mut self) {
        if self.waiting() == 0 {
            self.since = None;
        }
    }
}
