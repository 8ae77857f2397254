//! Who may serve this request: one verdict for each backend of a tier.

use super::{Look, Obstacles, Recorder, Verdict, contender};
use crate::{
    cost,
    facts::{Facts, History},
    fleet::{BackendId, Fleet, Share, Tier},
    state::{BackendState, State, cooldown::Gate, health::Health},
    units::Nanos,
};

/// Who was found in a tier. The contenders are in [`State::scratch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Contenders,
    /// A backend that wants to be tried out, by its index in the split; it goes first, so that it gets the chance.
    Trial(usize),
}

/// A backend may serve, with this weight, or may not.
enum Standing {
    Contends(f64),
    Trial,
    Out(Verdict),
}

impl State {
    /// Fills [`State::scratch`] with the tier's contenders; `None` when it has none.
    #[expect(clippy::too_many_arguments, reason = "the arguments of `decide`, plus which tier and which look")]
    pub(super) fn eligible_in<R: Recorder>(
        &mut self,
        fleet: &Fleet,
        facts: &Facts,
        history: &History,
        now: Nanos,
        look: Look,
        tier: usize,
        recorder: &mut R,
        obstacles: &mut Obstacles,
    ) -> Option<Found> {
        self.scratch.clear();
        let spec = &fleet.model(facts.model).tiers[tier];
        let mut trial = None;
        for (index, share) in spec.split.iter().enumerate() {
            let weight = self.observed.models[facts.model.index()].tiers[tier].weights[index];
            let standing = match refused_by_rule(fleet, facts, spec, *share) {
                Some(verdict) => Standing::Out(verdict),
                None => self.standing(fleet, facts, history, share.backend, weight, now, look),
            };
            let verdict = match standing {
                Standing::Contends(weight) => {
                    self.scratch.push(contender(index, weight));
                    Verdict::NotItsTurn
                }
                Standing::Trial => {
                    trial = trial.or(Some(index));
                    Verdict::NotItsTurn
                }
                Standing::Out(verdict) => verdict,
            };
            recorder.note(tier as u8 + 1, share.backend, verdict);
            obstacles.note(verdict);
        }
        match trial {
            // A request that has failed already is no guinea pig while others can serve it.
            Some(index) if history.attempts() == 0 || self.scratch.is_empty() => Some(Found::Trial(index)),
            _ => (!self.scratch.is_empty()).then_some(Found::Contenders),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the arguments of `decide`, plus which backend and which look")]
    fn standing(
        &mut self,
        fleet: &Fleet,
        facts: &Facts,
        history: &History,
        id: BackendId,
        weight: u32,
        now: Nanos,
        look: Look,
    ) -> Standing {
        let backend = fleet.backend(id);
        let state = &self.observed.backends[id.index()];
        if let Some(verdict) = out_of_use(state, history.tried(id), weight, now, look) {
            return Standing::Out(verdict);
        }
        let replicas = fleet.gateway.replicas.count();
        let limit = self.own_limit(fleet, facts, id, now);
        if state.in_flight >= limit {
            return Standing::Out(Verdict::Saturated { in_flight: state.in_flight, limit });
        }
        let gate = state.cooldown.gate(now);
        let ramp = state.live.ramp(now);
        let is_returning = state.live.is_returning();
        let rate_limited = state.cooldown.is_rate_limit();
        if let (Some(price), Some(limit)) = (&backend.token_price, &fleet.cloud(backend.cloud).spend_limit) {
            let spend = &mut self.observed.clouds[backend.cloud.index()];
            let reservation = cost::reservation(price, facts);
            if !spend.fits(reservation, limit, replicas, now) {
                let until = spend.fits_at(reservation, limit, replicas, now);
                return Standing::Out(Verdict::SpendLimit { last_hour: spend.last_hour(now), until });
            }
        }
        match gate {
            Gate::Open if is_returning => Standing::Trial,
            Gate::Open => Standing::Contends(f64::from(weight) * ramp),
            Gate::Trial => Standing::Trial,
            Gate::Blocked { until } => Standing::Out(Verdict::CoolingDown { until, rate_limited }),
            Gate::TrialRunning => Standing::Out(Verdict::TrialRunning),
        }
    }
}

/// What the key's rules forbid, whatever the backend's state.
pub(super) fn refused_by_rule(fleet: &Fleet, facts: &Facts, tier: &Tier, share: Share) -> Option<Verdict> {
    if tier.substitute && !facts.substitute_allowed {
        return Some(Verdict::SubstituteDenied);
    }
    let backend = fleet.backend(share.backend);
    if !backend.apis.contains(facts.api) {
        return Some(Verdict::LacksApi);
    }
    (!facts.clouds_allowed.contains(backend.cloud)).then_some(Verdict::CloudNotAllowed)
}

/// What takes a backend out of use. Soft evidence does not, in panic.
fn out_of_use(state: &BackendState, tried: bool, weight: u32, now: Nanos, look: Look) -> Option<Verdict> {
    if tried {
        return Some(Verdict::AlreadyTried);
    }
    if state.drained {
        return Some(Verdict::Drained);
    }
    if weight == 0 {
        return Some(Verdict::ZeroWeight);
    }
    match state.live.health {
        Health::Down { why, .. } => Some(Verdict::Down { why }),
        Health::Suspect { why, .. } if look == Look::Normal => Some(Verdict::Suspect { why }),
        _ if look == Look::Normal && state.live.is_ejected(now) => Some(Verdict::Ejected),
        _ => None,
    }
}
