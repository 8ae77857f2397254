//! Whether a request that finds no place waits for one, and when to come back if it does not.
//!
//! A wait is only worth it where the place comes in time. What it would be is known before it begins: those ahead in
//! line, over the rate at which the backends in use take requests. So a request that would wait in vain is turned away
//! at once instead of at the end of its patience, and told the first moment at which this is no longer so.

use std::time::Duration;

use super::{Decision, Obstacles, Reject, RejectReason, eligible::refused_by_rule};
use crate::{
    facts::{Facts, History},
    fleet::{BackendId, Fleet, ModelId, Share, Tier},
    state::{State, health::PROBE_TIMEOUT},
    units::Nanos,
};

/// What stands between a request and its place.
#[derive(Clone, Copy, Debug)]
struct Line {
    wait: Duration,
    /// Until the line moves on by one.
    turn: Duration,
}

impl State {
    /// Whether a line is longer than it may be, because one of higher priority was let in: somebody has to go.
    pub fn is_overfull(&self, model: ModelId) -> bool {
        self.queue(model).waiting() > self.fleet.model(model).queue.max_waiting
    }

    /// Whether to wait for a tier that is full, rather than enter a later one that may be entered only when the wait
    /// would be long.
    pub(super) fn worth_waiting(
        &self,
        fleet: &Fleet,
        facts: &Facts,
        history: &History,
        t: usize,
        now: Nanos,
    ) -> Option<Decision> {
        let tiers = &fleet.model(facts.model).tiers;
        let most = tiers[t + 1..].iter().find_map(|tier| tier.enter_when)?.wait_above;
        let until = facts.arrived + most;
        // One who waits already has been promised its turn, until its time is over.
        let is_soon = || self.line_for(fleet, facts, history, &tiers[t], now).is_some_and(|line| line.wait <= most);
        let waits = now < until && (history.waiting || is_soon()) && self.may_enter_line(fleet, facts, history);
        waits.then_some(Decision::Queue { until })
    }

    /// Waits for the probes that say whether the backends that are left are alive. They bound the wait, so that a
    /// request which has stranded for longer than its patience still gets its failover.
    pub(super) fn await_proof(&self, fleet: &Fleet, facts: &Facts, history: &History, now: Nanos) -> Decision {
        if !self.may_enter_line(fleet, facts, history) {
            return Decision::Reject(Reject { why: RejectReason::RetryBudget, retry_after: None });
        }
        Decision::Queue { until: (facts.arrived + facts.patience).max(now + PROBE_TIMEOUT) }
    }

    pub(super) fn wait_or_reject(
        &self,
        fleet: &Fleet,
        facts: &Facts,
        history: &History,
        now: Nanos,
        obstacles: &Obstacles,
    ) -> Decision {
        let why = obstacles.why(history);
        let soonest = obstacles.retry_after(now);
        if !obstacles.saturated {
            return Decision::Reject(Reject { why, retry_after: soonest });
        }
        let line = self.line(fleet, facts, history, now);
        // Who has been let in has been promised its time, and who was tried somewhere is owed a failover.
        let is_new = !history.waiting && history.attempts() == 0;
        let until = match () {
            () if is_new => facts.arrived + self.patience_in_line(fleet, facts, now),
            () if history.waiting => history.until.max(facts.arrived + self.patience_in_line(fleet, facts, now)),
            () => facts.arrived + facts.patience,
        };
        let in_vain = is_new && line.is_some_and(|line| now + line.wait > until);
        if now < until && !in_vain && self.may_enter_line(fleet, facts, history) {
            return Decision::Queue { until };
        }
        let shorter = self.room_in_line_after(fleet, facts, line, now);
        Decision::Reject(Reject { why, retry_after: [soonest, shorter].into_iter().flatten().min() })
    }

    /// The answer to one that has to leave a line that is too long.
    pub(super) fn displaced(&self, fleet: &Fleet, facts: &Facts, history: &History, now: Nanos) -> Reject {
        let line = self.line(fleet, facts, history, now);
        Reject { why: RejectReason::Saturated, retry_after: self.room_in_line_after(fleet, facts, line, now) }
    }

    /// How long a request may wait that has just come.
    fn patience_in_line(&self, fleet: &Fleet, facts: &Facts, now: Nanos) -> Duration {
        let objective = fleet.model(facts.model).slo.ttft_p95;
        self.queue(facts.model).allowed(facts.priority, facts.patience, objective, now)
    }

    /// When a request like this one would be let in, if nobody else came: the line moves on by one each turn.
    fn room_in_line_after(&self, fleet: &Fleet, facts: &Facts, line: Option<Line>, now: Nanos) -> Option<Duration> {
        let Line { wait, turn } = line?;
        Some(wait.saturating_sub(self.patience_in_line(fleet, facts, now)).max(turn))
    }

    /// Whether there is room in line, if need be by sending one of lower priority away.
    fn may_enter_line(&self, fleet: &Fleet, facts: &Facts, history: &History) -> bool {
        let queue = self.queue(facts.model);
        let has_room = queue.waiting() < fleet.model(facts.model).queue.max_waiting;
        history.waiting || has_room || queue.has_below(facts.priority)
    }

    /// The shortest line for this request, of those that the tiers are.
    fn line(&self, fleet: &Fleet, facts: &Facts, history: &History, now: Nanos) -> Option<Line> {
        let tiers = fleet.model(facts.model).tiers.iter();
        tiers.filter_map(|tier| self.line_for(fleet, facts, history, tier, now)).min_by_key(|line| line.wait)
    }

    /// What a request would wait for a place at the backends of a tier, behind those that go before it. `None` where
    /// nothing is known that could say, or none of them may serve it.
    fn line_for(&self, fleet: &Fleet, facts: &Facts, history: &History, tier: &Tier, now: Nanos) -> Option<Line> {
        let ahead = self.queue(facts.model).ahead_of(facts.priority);
        let may_serve =
            |share: &&Share| refused_by_rule(fleet, facts, tier, **share).is_none() && !history.tried(share.backend);
        let rates = tier.split.iter().filter(may_serve);
        let rate: f64 = rates.filter_map(|share| self.turnover(fleet, facts, share.backend, now)).sum();
        let after = |requests: f64| Duration::from_secs_f64((requests / rate).min(1e6));
        (rate > 0.0).then(|| Line { wait: after(f64::from(ahead) + 1.0), turn: after(1.0) })
    }

    /// Requests of this priority that a backend takes in a second when it is full: its places, less those of higher
    /// priority, over the time that one is held (Little's law).
    fn turnover(&self, fleet: &Fleet, facts: &Facts, id: BackendId, now: Nanos) -> Option<f64> {
        let state = self.backend(id);
        if state.live.is_down() || state.drained || state.live.is_ejected(now) {
            return None;
        }
        let slots = self.slots_of(fleet, id)? / f64::from(fleet.gateway.replicas.count());
        let others = state.headroom.kept_from(facts.priority, now) + state.headroom.above(facts.priority);
        let hold = state.load.hold()?;
        Some((slots - f64::from(others)).max(0.0) / hold.as_secs_f64().max(1e-6))
    }
}
