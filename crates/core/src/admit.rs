//! Whether a key may send one more request now: the seam for limits and budgets, before any backend is looked at.
//!
//! Reserve on the way in, settle on the way out, like a spend limit. Today the only limit is a key's requests in
//! flight; rates and budgets join here without touching the routing.

use crate::{
    fleet::KeyId,
    route::{Reject, RejectReason},
    state::State,
};

impl State {
    /// Books a request for `key`; the counterpart of [`State::settle`].
    pub fn admit(&mut self, key: Option<KeyId>) -> Result<(), Reject> {
        let Some(key) = key else { return Ok(()) };
        let in_flight = &mut self.observed.keys[key.index()];
        let replicas = self.fleet.gateway.replicas.count();
        let limit = self.fleet.keys[key.index()].max_in_flight.map(|all| (all / replicas).max(1));
        if limit.is_some_and(|limit| *in_flight >= limit) {
            return Err(Reject { why: RejectReason::KeyLimit, retry_after: None });
        }
        *in_flight += 1;
        Ok(())
    }

    /// The request is over, however it ended. A key that a reload removed meanwhile has nothing to settle.
    pub fn settle(&mut self, key: Option<KeyId>) {
        if let Some(in_flight) = key.and_then(|k| self.observed.keys.get_mut(k.index())) {
            *in_flight = in_flight.saturating_sub(1);
        }
    }
}
