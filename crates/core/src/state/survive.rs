//! What would be left of a model's service if one cloud died now.
//!
//! The load is what is in flight now, and the room is slots: nothing is predicted. A failover drill measures the same
//! with real requests; this is its forecast at any moment, at no cost.
//!
//! Edges: a backend that several models share counts with all that it carries, in the load of each of them and in its
//! room. A backend with weight 0 in every tier gets no request and so is no room. A bound on spending is not looked at.

use super::State;
use crate::{
    fleet::{Backend, BackendId, CloudId, Engine, Fleet, ModelId},
    units::Nanos,
};

/// What is left of one model without one cloud.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Survival {
    /// Estimated requests of the model in flight now, over all its tiers and all replicas of the gateway.
    pub load: f64,
    /// Slots left where the model itself answers; infinite where a hosted API sets no limit.
    pub room: f64,
    /// The same with substitutes.
    pub room_with_substitutes: f64,
    /// A backend that is left may have more slots than are known, so that more may be served.
    pub is_lower_bound: bool,
}

impl Survival {
    /// Of the load, from 0 to 1, that the model itself could still serve; 1 at no load.
    pub fn share(&self) -> f64 {
        share(self.room, self.load)
    }

    /// The same where substitutes may answer.
    pub fn share_with_substitutes(&self) -> f64 {
        share(self.room_with_substitutes, self.load)
    }
}

fn share(room: f64, load: f64) -> f64 {
    if load <= 0.0 { 1.0 } else { (room / load).min(1.0) }
}

/// How a backend serves a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Use {
    backend: BackendId,
    /// It gets requests when its turn comes.
    has_weight: bool,
    /// In every tier in which it gets any, another model answers.
    is_substitute: bool,
}

impl State {
    /// Of this model's load, how much is still served without substitutes if this cloud dies now.
    ///
    /// `None` where the model has no backend in that cloud, so that nothing is lost with it.
    pub fn survivable_share(&self, model: ModelId, lost_cloud: CloudId, now: Nanos) -> Option<f64> {
        self.survival(model, lost_cloud, now).map(|survival| survival.share())
    }

    /// What [`State::survivable_share`] is made of.
    pub fn survival(&self, model: ModelId, lost_cloud: CloudId, now: Nanos) -> Option<Survival> {
        let fleet = &self.fleet;
        let uses = self.uses(fleet, model);
        if !uses.iter().any(|u| fleet.backend(u.backend).cloud == lost_cloud) {
            return None;
        }
        let load = uses.iter().map(|u| self.requests_at(fleet, u.backend, now)).sum();
        let mut survival = Survival { load, room: 0.0, room_with_substitutes: 0.0, is_lower_bound: false };
        for one in uses.iter().filter(|u| u.has_weight) {
            let (backend, seen) = (fleet.backend(one.backend), self.backend(one.backend));
            if backend.cloud == lost_cloud || seen.drained || seen.live.is_down() {
                continue;
            }
            let slots = match self.slots_of(fleet, one.backend) {
                Some(slots) => slots,
                None if is_hosted(backend) => f64::INFINITY,
                None => {
                    survival.is_lower_bound = true;
                    self.requests_at(fleet, one.backend, now)
                }
            };
            survival.room_with_substitutes += slots;
            if !one.is_substitute {
                survival.room += slots;
            }
        }
        survival.is_lower_bound &= survival.share() < 1.0;
        Some(survival)
    }

    /// Each backend of a model once, whatever the number of its tiers.
    fn uses(&self, fleet: &Fleet, model: ModelId) -> Vec<Use> {
        let mut uses: Vec<Use> = Vec::new();
        let weights = &self.observed.models[model.index()].tiers;
        for (tier, weights) in fleet.model(model).tiers.iter().zip(weights) {
            for (share, weight) in tier.split.iter().zip(&weights.weights) {
                let at = uses.iter().position(|u| u.backend == share.backend).unwrap_or_else(|| {
                    uses.push(Use { backend: share.backend, has_weight: false, is_substitute: true });
                    uses.len() - 1
                });
                uses[at].has_weight |= *weight > 0;
                uses[at].is_substitute &= tier.substitute || *weight == 0;
            }
        }
        uses
    }
}

/// Somebody's API, which grows with the load, rather than GPUs that are rented.
pub(super) fn is_hosted(backend: &Backend) -> bool {
    let is_api = backend.engine == Engine::Openai && !backend.url.starts_with("http://");
    backend.pool.is_none() && (backend.token_price.is_some() || is_api)
}
