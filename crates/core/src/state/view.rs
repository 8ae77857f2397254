//! What one decision read: enough to make it again, bit for bit, on another machine.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{BackendState, ModelState, Observed, State, latency::Latency, spend::Spend};
use crate::{
    facts::Facts,
    fleet::{BackendId, CloudId, Fleet},
};

/// The part of the state that a decision about one model may read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct View {
    model: ModelState,
    backends: Vec<(BackendId, BackendState)>,
    clouds: Vec<(CloudId, Spend)>,
}

impl State {
    /// What a decision with these facts would read now.
    pub fn view(&self, facts: &Facts) -> View {
        let shares = self.fleet.model(facts.model).tiers.iter().flat_map(|t| &t.split);
        let mut ids: Vec<BackendId> = shares.map(|s| s.backend).collect();
        ids.sort_unstable();
        ids.dedup();
        // Latencies inform probes, not decisions, and would be most of the log.
        let slim =
            |b: &BackendState| BackendState { ttft: Latency::default(), answer: Latency::default(), ..b.clone() };
        let mut clouds: Vec<CloudId> = ids.iter().map(|b| self.fleet.backend(*b).cloud).collect();
        clouds.sort_unstable();
        clouds.dedup();
        clouds.retain(|c| self.fleet.cloud(*c).spend_limit.is_some());
        View {
            model: self.observed.models[facts.model.index()].clone(),
            backends: ids.iter().map(|b| (*b, slim(self.backend(*b)))).collect(),
            clouds: clouds.iter().map(|c| (*c, self.observed.clouds[c.index()].clone())).collect(),
        }
    }

    /// A state in which a decision with these facts reads just what the view holds. `None` when the view does not
    /// belong to this fleet.
    pub fn from_view(fleet: Arc<Fleet>, facts: &Facts, view: View) -> Option<Self> {
        let mut observed = Observed {
            backends: vec![BackendState::default(); fleet.backends.len()],
            models: fleet.models.iter().map(ModelState::new).collect(),
            clouds: vec![Spend::default(); fleet.clouds.len()],
            keys: vec![0; fleet.keys.len()],
            ..Observed::default()
        };
        let model = observed.models.get_mut(facts.model.index())?;
        let fits = |a: &ModelState, b: &ModelState| {
            a.tiers.len() == b.tiers.len()
                && a.tiers.iter().zip(&b.tiers).all(|(a, b)| a.weights.len() == b.weights.len())
        };
        if !fits(model, &view.model) {
            return None;
        }
        *model = view.model;
        for (id, state) in view.backends {
            *observed.backends.get_mut(id.index())? = state;
        }
        for (id, spend) in view.clouds {
            *observed.clouds.get_mut(id.index())? = spend;
        }
        Self::restore(fleet, observed)
    }
}
