//! Whether a request that has failed may be tried again.

use super::{Reject, RejectReason, eligible::Found};
use crate::{
    facts::{Facts, History, MAX_ATTEMPTS},
    fleet::{Fleet, Tier},
    record::Fault,
    state::{POISON_WINDOW, State},
    units::Nanos,
};

/// Whether a further attempt may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payment {
    Settled,
    /// The budget is spent, and nobody knows whether what is left is alive: probes will say.
    AwaitProof,
    Refused,
}

impl State {
    /// A reason to stop, whatever the backends.
    pub(super) fn must_stop(&mut self, fleet: &Fleet, facts: &Facts, history: &History, now: Nanos) -> Option<Reject> {
        if history.displaced {
            return Some(self.displaced(fleet, facts, history, now));
        }
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
    ///
    /// A silent death is different: until it was found out, requests went on to strand, and all of them come at once.
    /// They are free only where the next backend is known to be alive, and count against the budget even so. Else a
    /// budget's worth goes ahead, and the rest waits for the proof; in an outage of everything, that is the bound.
    pub(super) fn pay_for_retry(
        &mut self,
        facts: &Facts,
        history: &History,
        tier: &Tier,
        found: Found,
        now: Nanos,
    ) -> Payment {
        if history.attempts() == 0 {
            return Payment::Settled;
        }
        let retries = &mut self.observed.models[facts.model.index()].retries;
        if !history.next_is_free() {
            return if retries.withdraw(now) { Payment::Settled } else { Payment::Refused };
        }
        if !history.last_fault.is_some_and(Fault::is_silent_death) {
            return Payment::Settled;
        }
        let backends = &self.observed.backends;
        let is_alive = |index: usize| backends[tier.split[index].backend.index()].live.is_proven(now);
        let proven = match found {
            Found::Trial(index) => is_alive(index),
            Found::Contenders => self.scratch.iter().any(|c| is_alive(c.index)),
        };
        if proven {
            self.scratch.retain(|c| is_alive(c.index));
            retries.charge(now);
            return Payment::Settled;
        }
        if retries.withdraw(now) {
            return Payment::Settled;
        }
        for c in &self.scratch {
            self.observed.backends[tier.split[c.index].backend.index()].live.ask_for_proof(now);
        }
        if self.scratch.is_empty() { Payment::Refused } else { Payment::AwaitProof }
    }
}
