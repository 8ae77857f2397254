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
    /// For each priority, of the line of those that go before it: a crowd below is no crowd to it.
    stands: [Stands; Priority::ALL.len()],
}

/// How long there has been a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Stands {
    /// Since when somebody has been waiting, but for short breaks.
    since: Nanos,
    /// When the last of them had gone.
    emptied: Nanos,
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
    pub fn allowed(&self, priority: Priority, patience: Duration, objective: Option<Duration>, now: Nanos) -> Duration {
        let Some(objective) = objective else { return patience };
        let Stands { since, emptied } = self.stands[priority.index()];
        let is_over = self.ahead_of(priority) == 0 && now.since(emptied) >= objective;
        let stands = !is_over && now.since(since) >= objective;
        if stands { patience.min(objective / WAIT_SHARE) } else { patience }
    }

    /// `objective` is the model's for the first token. A line that is empty for less is not over: places that come free
    /// together empty it for a moment, and no crowd has gone by that.
    pub(crate) fn enter(&mut self, priority: Priority, objective: Option<Duration>, now: Nanos) {
        for p in &Priority::ALL[..=priority.index()] {
            let is_new = self.ahead_of(*p) == 0;
            let stands = &mut self.stands[p.index()];
            if is_new && now.since(stands.emptied) >= objective.unwrap_or_default() {
                stands.since = now;
            }
        }
        self.waiting[priority.index()] += 1;
    }

    /// One is called or gives up.
    pub(crate) fn leave(&mut self, priority: Priority, now: Nanos) {
        let waiting = &mut self.waiting[priority.index()];
        *waiting = waiting.saturating_sub(1);
        for p in &Priority::ALL[..=priority.index()] {
            if self.ahead_of(*p) == 0 {
                self.stands[p.index()].emptied = now;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECTIVE: Option<Duration> = Some(Duration::from_millis(800));
    const PATIENCE: Duration = Duration::from_secs(20);

    fn at(ms: u64) -> Nanos {
        Nanos::from_millis(100_000 + ms)
    }

    #[test]
    fn a_line_that_stands_for_the_objective_is_kept_to_half_of_it_until_it_is_over() {
        let mut queue = Queue::default();
        let allowed = |queue: &Queue, ms| queue.allowed(Priority::Low, PATIENCE, OBJECTIVE, at(ms));
        assert_eq!(allowed(&queue, 0), PATIENCE, "there is no line");
        queue.enter(Priority::Low, OBJECTIVE, at(0));
        queue.enter(Priority::High, OBJECTIVE, at(700));
        assert_eq!(allowed(&queue, 799), PATIENCE);
        assert_eq!(allowed(&queue, 800), Duration::from_millis(400));
        queue.leave(Priority::High, at(900));
        queue.leave(Priority::Low, at(1_000));
        assert_eq!(allowed(&queue, 1_799), Duration::from_millis(400), "empty for a moment");
        queue.enter(Priority::Low, OBJECTIVE, at(1_799));
        queue.leave(Priority::Low, at(2_000));
        assert_eq!(allowed(&queue, 2_800), PATIENCE, "over");
        queue.enter(Priority::Low, OBJECTIVE, at(2_900));
        assert_eq!(allowed(&queue, 2_901), PATIENCE, "a new one");
    }

    #[test]
    fn a_crowd_of_lower_priority_is_none_to_those_above_it() {
        let mut queue = Queue::default();
        queue.enter(Priority::Normal, OBJECTIVE, at(0));
        assert_eq!(queue.allowed(Priority::High, PATIENCE, OBJECTIVE, at(5_000)), PATIENCE);
        assert_eq!(queue.allowed(Priority::Normal, PATIENCE, OBJECTIVE, at(5_000)), Duration::from_millis(400));
        assert_eq!(queue.allowed(Priority::Low, PATIENCE, OBJECTIVE, at(5_000)), Duration::from_millis(400));
    }

    #[test]
    fn without_an_objective_patience_is_all_there_is() {
        let mut queue = Queue::default();
        queue.enter(Priority::Normal, None, at(0));
        assert_eq!(queue.allowed(Priority::Normal, PATIENCE, None, at(60_000)), PATIENCE);
    }

    #[test]
    fn who_goes_before_whom() {
        let mut queue = Queue::default();
        for priority in [Priority::Low, Priority::Low, Priority::Normal, Priority::High] {
            queue.enter(priority, OBJECTIVE, at(0));
        }
        assert_eq!(Priority::ALL.map(|p| queue.ahead_of(p)), [4, 2, 1]);
        assert_eq!(Priority::ALL.map(|p| queue.has_below(p)), [false, true, true]);
    }
}
