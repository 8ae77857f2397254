//! The decision: which backend gets this attempt, whether the request waits, or why it is turned away.
//!
//! Tiers in order, and inside a tier an exact weighted split over those that may serve. A tier is entered only when
//! none of the tiers before it can. If none can at all, panic looks a second time and overrides soft evidence; hard
//! evidence is never overridden. A decision books what it hands out in the same call, so that the next one sees it.

mod eligible;
mod mode;
mod retry;
pub mod split;
mod wait;
mod why;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::why::{Candidate, Reason, Recorder, RejectReason, Verdict};
use self::{eligible::Found, retry::Payment, split::Contender};
use crate::{
    Rng, cost,
    facts::{Facts, History},
    fleet::{BackendId, Fleet, Tier, WeighBy},
    state::{AttemptId, State, TokenShare},
    units::{NanoUsd, Nanos},
};

/// What to do with a request now.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Attempt(Attempt),
    /// Wait until something ends, and decide again; give up at `until`.
    Queue {
        until: Nanos,
    },
    Reject(Reject),
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    pub id: AttemptId,
    pub backend: BackendId,
    /// From 1.
    pub tier: u8,
    pub reason: Reason,
    /// Another model than the one asked for will answer.
    pub substitute: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    pub why: RejectReason,
    /// The soonest that another try may help, where that is known.
    pub retry_after: Option<Duration>,
}

/// A tier that could serve, after a wait.
#[derive(Clone, Copy, Debug)]
struct Slow {
    tier: usize,
    wait: Duration,
}

/// How a tier was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Straight,
    /// Past one that could have served later.
    Spill,
}

/// Whether soft evidence counts in this look at the tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Normal,
    Panic,
}

impl State {
    /// Decides for a request with `facts` whose attempts so far are in `history`, at `now`.
    ///
    /// An [`Decision::Attempt`] is booked and must be ended by [`Event::Ended`](crate::state::Event). After a
    /// [`Decision::Queue`], note it by [`History::waits`] and decide again when the request's turn has come, or report
    /// that it left.
    pub fn decide<R: Recorder>(
        &mut self,
        facts: &Facts,
        history: &History,
        now: Nanos,
        rng: &mut Rng,
        recorder: &mut R,
    ) -> Decision {
        if history.waiting {
            self.observed.models[facts.model.index()].queue.leave(facts.priority, now);
        } else if history.attempts() == 0 {
            self.observed.models[facts.model.index()].retries.deposit(now);
        }
        let decision = self.decide_anew(facts, history, now, rng, recorder);
        if matches!(decision, Decision::Queue { .. }) {
            let objective = self.fleet.model(facts.model).slo.ttft_p95;
            self.observed.models[facts.model.index()].queue.enter(facts.priority, objective, now);
        }
        decision
    }

    fn decide_anew<R: Recorder>(
        &mut self,
        facts: &Facts,
        history: &History,
        now: Nanos,
        rng: &mut Rng,
        recorder: &mut R,
    ) -> Decision {
        let fleet = self.fleet.clone();
        if let Some(reject) = self.must_stop(&fleet, facts, history, now) {
            return Decision::Reject(reject);
        }
        let mut obstacles = Obstacles::default();
        for look in [Look::Normal, Look::Panic] {
            obstacles = Obstacles::default();
            if let Some(attempt) = self.look(&fleet, facts, history, now, look, rng, recorder, &mut obstacles) {
                return attempt;
            }
        }
        self.wait_or_reject(&fleet, facts, history, now, &obstacles)
    }

    /// One pass over the tiers.
    ///
    /// A tier that can serve only after a wait is passed over for a later one that asks to be entered then; if none of
    /// those can serve, the request goes to the slow one after all. A tier that is full is waited for, where the wait
    /// is expected to be shorter than what a later tier asks.
    #[expect(clippy::too_many_arguments, reason = "the arguments of `decide`, plus what one pass adds")]
    fn look<R: Recorder>(
        &mut self,
        fleet: &Fleet,
        facts: &Facts,
        history: &History,
        now: Nanos,
        look: Look,
        rng: &mut Rng,
        recorder: &mut R,
        obstacles: &mut Obstacles,
    ) -> Option<Decision> {
        let tiers = &fleet.model(facts.model).tiers;
        let mut slow: Option<Slow> = None;
        for (t, tier) in tiers.iter().enumerate() {
            if slow.is_some_and(|slow| tier.enter_when.is_none_or(|e| slow.wait <= e.wait_above)) {
                continue;
            }
            let before = *obstacles;
            let Some(found) = self.eligible_in(fleet, facts, history, now, look, t, recorder, obstacles) else {
                let is_full = obstacles.saturated && !before.saturated && slow.is_none();
                if is_full && let Some(queue) = self.worth_waiting(fleet, facts, history, t, now) {
                    return Some(queue);
                }
                continue;
            };
            let wait = self.shortest_wait(fleet, tier, found, now);
            if slow.is_none() && tiers[t + 1..].iter().any(|t| t.enter_when.is_some_and(|e| wait > e.wait_above)) {
                for c in &self.scratch {
                    recorder.note(t as u8 + 1, tier.split[c.index].backend, Verdict::WouldWait { wait });
                }
                slow = Some(Slow { tier: t, wait });
                continue;
            }
            let way = if slow.is_some() { Way::Spill } else { Way::Straight };
            return self.attempt_in(fleet, facts, history, now, look, rng, recorder, t, found, way);
        }
        let Slow { tier: t, .. } = slow?;
        let found = self.eligible_in(fleet, facts, history, now, look, t, recorder, obstacles)?;
        self.attempt_in(fleet, facts, history, now, look, rng, recorder, t, found, Way::Straight)
    }

    /// Chooses and books one of those that were found in tier `t`.
    #[expect(clippy::too_many_arguments, reason = "the arguments of `look`, plus what was found")]
    fn attempt_in<R: Recorder>(
        &mut self,
        fleet: &Fleet,
        facts: &Facts,
        history: &History,
        now: Nanos,
        look: Look,
        rng: &mut Rng,
        recorder: &mut R,
        t: usize,
        found: Found,
        way: Way,
    ) -> Option<Decision> {
        let tiers = &fleet.model(facts.model).tiers;
        let (tier, number) = (&tiers[t], t as u8 + 1);
        for (later, tier) in tiers.iter().enumerate().skip(t + 1) {
            for share in &tier.split {
                recorder.note(later as u8 + 1, share.backend, Verdict::NotReached);
            }
        }
        match self.pay_for_retry(facts, history, tier, found, now) {
            Payment::Settled => {}
            Payment::AwaitProof => return Some(self.await_proof(fleet, facts, history, now)),
            Payment::Refused => {
                return Some(Decision::Reject(Reject { why: RejectReason::RetryBudget, retry_after: None }));
            }
        }
        let (index, chosen_by) = match found {
            Found::Trial(index) => (index, Reason::Trial),
            Found::Contenders => self.choose(fleet, facts, t, history.attempts() == 0, now, rng)?,
        };
        let backend = tier.split[index].backend;
        recorder.note(number, backend, Verdict::Chosen);
        let reason = match () {
            () if look == Look::Panic => Reason::Panic,
            () if matches!(found, Found::Trial(_)) => Reason::Trial,
            () if way == Way::Spill || (tier.enter_when.is_some() && self.is_full(fleet, facts, t, now)) => {
                Reason::Spill
            }
            () if t > 0 => Reason::Fallback,
            () if history.attempts() > 0 => Reason::Failover,
            () => chosen_by,
        };
        let price = fleet.backend(backend).token_price;
        let reserved = price.map_or(NanoUsd::ZERO, |price| cost::reservation(&price, facts));
        let by_tokens = chosen_by == Reason::Weight && fleet.model(facts.model).weigh_by == WeighBy::Tokens;
        let share = by_tokens.then(|| {
            let estimate = self.observed.models[facts.model.index()].expected_tokens(facts);
            TokenShare { tier: t as u16, index: index as u16, estimate }
        });
        let id = self.book(backend, facts, now, reserved, share);
        Some(Decision::Attempt(Attempt { id, backend, tier: number, reason, substitute: tier.substitute }))
    }

    /// Whether a tier before this one is full, rather than out of use.
    fn is_full(&self, fleet: &Fleet, facts: &Facts, t: usize, now: Nanos) -> bool {
        let before = fleet.model(facts.model).tiers[..t].iter().flat_map(|tier| &tier.split);
        before.into_iter().any(|share| {
            let state = self.backend(share.backend);
            let limit = self.own_limit(fleet, facts, share.backend, now);
            !state.live.is_down() && !state.drained && state.in_flight >= limit
        })
    }

    /// Requests that may be in flight on a backend when this one is sent there: this replica's part of the configured
    /// or learned limit, less what is kept for higher priorities. What is learned does not bind a model that spills:
    /// there a queue that grows sends requests elsewhere.
    fn own_limit(&self, fleet: &Fleet, facts: &Facts, id: BackendId, now: Nanos) -> u32 {
        let spills = fleet.model(facts.model).tiers.iter().any(|tier| tier.enter_when.is_some());
        let state = self.backend(id);
        let learned = state.load.learned_limit().filter(|_| !spills).map(|all| all.ceil() as u32);
        let limit = [fleet.backend(id).max_in_flight, learned].into_iter().flatten().min();
        limit.map_or(u32::MAX, |all| {
            let kept = state.headroom.kept_from(facts.priority, now);
            (all / fleet.gateway.replicas.count()).saturating_sub(kept).max(1)
        })
    }

    /// What a request would wait in a tier at least.
    fn shortest_wait(&self, fleet: &Fleet, tier: &Tier, found: Found, now: Nanos) -> Duration {
        match found {
            Found::Trial(_) => Duration::ZERO,
            Found::Contenders => {
                let wait = |c: &Contender| self.wait_at(fleet, tier.split[c.index].backend, now);
                self.scratch.iter().map(wait).min().unwrap_or_default()
            }
        }
    }
}

/// What stood in the way of the backends that cannot serve now.
#[derive(Clone, Copy, Debug, Default)]
struct Obstacles {
    saturated: bool,
    substitute_denied: bool,
    cloud_not_allowed: bool,
    lacks_api: bool,
    /// Some backend has the endpoint.
    has_api: bool,
    spend_limit: bool,
    untried: bool,
    /// Some backend is refusing with something else than a 429, or is down.
    other: bool,
    rate_limited: bool,
    soonest: Option<Nanos>,
    /// When a spend limit allows a request like this again.
    spend_frees: Option<Nanos>,
}

impl Obstacles {
    fn note(&mut self, verdict: Verdict) {
        self.untried |= verdict != Verdict::AlreadyTried;
        self.has_api |= !matches!(verdict, Verdict::LacksApi | Verdict::SubstituteDenied);
        match verdict {
            Verdict::Saturated { .. } | Verdict::TrialRunning => self.saturated = true,
            Verdict::SubstituteDenied => self.substitute_denied = true,
            Verdict::CloudNotAllowed => self.cloud_not_allowed = true,
            Verdict::LacksApi => self.lacks_api = true,
            Verdict::SpendLimit { until, .. } => {
                self.spend_limit = true;
                self.spend_frees = [self.spend_frees, until].into_iter().flatten().min();
            }
            Verdict::CoolingDown { until, rate_limited } => {
                self.soonest = Some(self.soonest.map_or(until, |s| s.min(until)));
                self.rate_limited |= rate_limited;
                self.other |= !rate_limited;
            }
            Verdict::Down { .. } | Verdict::Drained | Verdict::Suspect { .. } | Verdict::Ejected => self.other = true,
            _ => {}
        }
    }

    /// The one reason that the client is told: the first that would let the request through if it went away.
    fn why(&self, history: &History) -> RejectReason {
        match () {
            () if self.lacks_api && !self.has_api => RejectReason::LacksApi,
            () if !self.untried && history.attempts() > 0 => RejectReason::AllTried,
            () if self.saturated => RejectReason::Saturated,
            () if self.rate_limited && !self.other => RejectReason::RateLimited,
            () if self.spend_limit => RejectReason::SpendLimit,
            () if self.substitute_denied => RejectReason::SubstituteDenied,
            () if self.cloud_not_allowed && !self.other => RejectReason::CloudNotAllowed,
            () => RejectReason::NoBackend,
        }
    }

    /// What is down may be back at its next probe, so that only a refusal for money alone waits for money.
    fn retry_after(&self, now: Nanos) -> Option<Duration> {
        let by_money = self.spend_frees.filter(|_| !self.other && !self.saturated);
        [self.soonest, by_money].into_iter().flatten().min().map(|at| at.since(now))
    }
}

/// A contender with `weight` at `index` of its tier's split.
fn contender(index: usize, weight: f64) -> Contender {
    Contender { index, weight }
}
