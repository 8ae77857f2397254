//! Whether a request that has failed may be tried again.

use super::{Reject, RejectReason};
use crate::{
    facts::{Facts, History, MAX_ATTEMPTS},
    state::{POISON_WINDOW, State},
    units::Nanos,
};

impl State {
    /// A reason to stop, whatever the backends.
    pub(super) fn must_stop(&mut self, _facts: &Facts, history: &History, now: Nanos) -> Option<Reject> {
        if history.attempts() >= MAX_ATTEMPTS {
            return Some(Reject { why: RejectReason::AllTried, retry_after: None });
        }
        self.is_poison(history, now).then_some(Reject { why: RejectReason::Poison, retry_after: None })
    }

    /// Two backends failed on this very request while one of them serves others: the request is at fault, and both
    /// are cleared of it. In an outage neither has served since, the faults stand, and the request goes on.
    fn is_poison(&mut self, history: &History, now: Nanos) -> bool {
        let Some(pair) = history.two_server_errors() else { return false };
        let backends = &mut self.observed.backends;
        let poison = pair.iter().any(|b| backends[b.index()].live.is_serving_others(now, POISON_WINDOW));
        if poison {
            for b in pair {
                backends[b.index()].live.withdraw_server_error(now);
            }
        }
        poison
    }

    /// The first failover after a dead connection is free; everything after that draws on the model's budget.
    pub(super) fn pay_for_retry(&mut self, facts: &Facts, history: &History, now: Nanos) -> bool {
        history.attempts() == 0
            || history.next_is_free()
            || self.observed.models[facts.model.index()].retries.withdraw(now)
    }
}
