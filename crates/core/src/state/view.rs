//! What one decision read: enough to make it again, bit for bit, on another machine.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{BackendState, ModelState, Observed, State, TierState, latency::Latency, spend::Spend};
use crate::{
    facts::{Facts, History, Moved},
    fleet::{BackendId, CloudId, Fleet, ModelId, Tier},
};

/// The part of the state that a decision about one model may read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct View {
    model: ModelState,
    backends: Vec<(BackendId, BackendState)>,
    clouds: Vec<(CloudId, Spend)>,
}

impl State {
    /// What the first decision about a request with these facts would read now.
    pub fn view(&self, facts: &Facts) -> View {
        self.view_after(facts, &History::default())
    }

    /// What a further decision would read now.
    pub fn view_after(&self, facts: &Facts, history: &History) -> View {
        let shares = self.fleet.model(facts.model).tiers.iter().flat_map(|t| &t.split);
        // A reload may have taken a backend out of the tiers whose 500 is half of the evidence that a request is poison.
        let accused = history.two_server_errors().into_iter().flatten();
        let mut ids: Vec<BackendId> = shares.map(|s| s.backend).chain(accused).collect();
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
            a.tiers.len() == b.tiers.len() && a.tiers.iter().zip(&b.tiers).all(|(a, b)| b.is_of(a.weights.len()))
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

impl View {
    /// The same view in another fleet, as after a reload: what is known of a backend or a cloud goes where that stands
    /// now, and what is new there is up, idle and has cost nothing. `None` when the model is gone, or the view does not
    /// belong to the fleet that it is said to come from.
    ///
    /// Drains stay, and so do weights that an operator had laid over a split of the same backends. A split whose weights
    /// are others than the recorded ones cannot go on from the recorded turns; it goes on from `turns`, which are the
    /// model's tiers as the decision before this one left them there.
    #[must_use]
    pub fn moved(self, moved: &Moved<'_>, model: ModelId, turns: &[TierState]) -> Option<Self> {
        let was = moved.from.models.get(model.index())?;
        let is = moved.to.model(moved.model(model)?);
        let recorded = &self.model.tiers;
        let fits = |(state, spec): (&TierState, &Tier)| state.is_of(spec.split.len());
        if recorded.len() != was.tiers.len() || !recorded.iter().zip(&was.tiers).all(fits) {
            return None;
        }
        let mut tiers = ModelState::new(is).tiers;
        for (t, (tier, spec)) in tiers.iter_mut().zip(&is.tiers).enumerate() {
            let before =
                recorded.get(t).zip(was.tiers.get(t)).filter(|(_, was)| has_the_same_backends(moved, was, spec));
            if let Some((state, was)) = before {
                let has_overlay = state.weights.iter().zip(&was.split).any(|(weight, share)| *weight != share.weight);
                if has_overlay || state.weights == tier.weights {
                    tier.clone_from(state);
                    continue;
                }
            }
            if let Some(turn) = turns.get(t).filter(|turn| turn.weights == tier.weights) {
                tier.clone_from(turn);
            }
        }
        let backend = |id: BackendId| moved.from.backends.get(id.index()).and_then(|_| moved.backend(id));
        let cloud = |id: CloudId| moved.from.clouds.get(id.index()).and_then(|_| moved.cloud(id));
        Some(Self {
            model: ModelState { tiers, ..self.model },
            backends: self.backends.into_iter().filter_map(|(id, state)| Some((backend(id)?, state))).collect(),
            clouds: self.clouds.into_iter().filter_map(|(id, spend)| Some((cloud(id)?, spend))).collect(),
        })
    }
}

fn has_the_same_backends(moved: &Moved<'_>, was: &Tier, is: &Tier) -> bool {
    let is_known = |id: BackendId| id.index() < moved.from.backends.len();
    was.split.len() == is.split.len()
        && (was.split.iter().zip(&is.split))
            .all(|(was, is)| is_known(was.backend) && moved.backend(was.backend) == Some(is.backend))
}

impl TierState {
    /// Whether it can be the state of a split over so many backends.
    fn is_of(&self, backends: usize) -> bool {
        self.weights.len() == backends && self.credits.len() == backends
    }
}
