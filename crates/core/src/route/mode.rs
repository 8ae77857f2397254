//! Who of a tier's contenders gets the request: by affinity where it has a key, else as the model's mode says.
//!
//! - **weighted**: exact shares ([`super::split`]).
//! - **latency**: the better of two drawn at random. Sending everything to the one that looks best makes every gateway
//!   crowd onto it at once; with stale figures that is worse than chance (Mitzenmacher, *The power of two choices*).
//! - **cheapest**: the least marginal cost among those that would serve without a long wait; equals as by latency.
//!
//! A key prefers one backend by weighted rendezvous hashing (Thaler and Ravishankar 1998; logarithmic weights as in
//! Schindelhauer and Schomaker 2005), which every replica computes alike without talking to another, and which moves
//! only the keys of a backend that leaves. It yields where it would make the request wait beyond its allowance.

use std::time::Duration;

use rand_core::Rng as _;

use super::{Reason, split};
use crate::{
    Rng, cost,
    facts::{Facts, session_key},
    fleet::{Affinity, BackendId, Fleet, Mode, Model, Tier, WeighBy},
    state::State,
    units::{NanoUsd, Nanos},
};

/// What affinity may add to the time to first token where no objective is set; a quarter of the objective where one is.
const ALLOWANCE: Duration = Duration::from_millis(250);
/// The wait that a cheaper backend may cost where no objective is set; half of the objective where one is.
const PATIENCE_FOR_PRICE: Duration = Duration::from_secs(1);
/// A preferred backend may have this many times its share of the requests, and a few more, where nothing says how many
/// it can take.
const MOST_OF_SHARE: f64 = 1.5;
const A_FEW: f64 = 8.0;
/// Costs closer than this are equal.
const SAME_COST: f64 = 1.02;

impl State {
    /// Chooses one of the contenders in [`State::scratch`] and books the choice where it is one of shares.
    pub(super) fn choose(
        &mut self,
        fleet: &Fleet,
        facts: &Facts,
        t: usize,
        is_first: bool,
        now: Nanos,
        rng: &mut Rng,
    ) -> Option<(usize, Reason)> {
        let model = fleet.model(facts.model);
        let tier = &model.tiers[t];
        if let [only] = self.scratch[..] {
            // Its share is all there is; booking it keeps the credits as they were.
            return Some((only.index, Reason::OnlyOne));
        }
        if let (Some(key), true) = (facts.affinity, is_first && model.affinity != Affinity::None)
            && let Some(preferred) = self.preferred(fleet, model, tier, key, now)
        {
            match preferred {
                Ok(index) => return Some((index, Reason::Affinity)),
                // It has more than its share of keyed requests as it is: this one goes to one of the others.
                Err(index) => self.scratch.retain(|c| c.index != index),
            }
        }
        match model.mode {
            Mode::Weighted => {
                let state = &mut self.observed.models[facts.model.index()];
                let tokens = state.expected_tokens(facts);
                let credits = &mut state.tiers[t].credits;
                let chosen = match model.weigh_by {
                    WeighBy::Requests => split::choose(credits, &self.scratch),
                    WeighBy::Tokens => split::choose_amount(credits, &self.scratch, tokens),
                };
                chosen.map(|index| (index, Reason::Weight))
            }
            Mode::Latency => self.faster_of_two(fleet, tier, now, rng).map(|index| (index, Reason::Latency)),
            Mode::Cheapest => {
                self.keep_cheapest(fleet, facts, model, tier, now);
                self.faster_of_two(fleet, tier, now, rng).map(|index| (index, Reason::Cheapest))
            }
        }
    }

    /// The contender that the key prefers; as an error where it would wait there for too long.
    fn preferred(
        &self,
        fleet: &Fleet,
        model: &Model,
        tier: &Tier,
        key: u64,
        now: Nanos,
    ) -> Option<Result<usize, usize>> {
        let rank = |c: &&split::Contender| {
            let hash = mixed(key ^ mixed(session_key(fleet.backend(tier.split[c.index].backend).name.as_bytes())));
            // In (0, 1]: the logarithm is finite, and zero only for the luckiest draw.
            let unit = ((hash >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
            -c.weight / unit.ln().min(-f64::MIN_POSITIVE)
        };
        let best = self.scratch.iter().max_by(|a, b| rank(a).total_cmp(&rank(b)))?;
        let id = tier.split[best.index].backend;
        let shortest = self.scratch.iter().map(|c| self.wait_at(fleet, tier.split[c.index].backend, now)).min()?;
        let allowance = model.slo.ttft_p95.map_or(ALLOWANCE, |objective| objective / 4);
        // Half of it is kept for the part of a queue that is not seen yet.
        let is_near = self.wait_at(fleet, id, now) <= shortest + allowance / 2;
        let may = is_near && !self.is_crowded(fleet, tier, *best, now);
        Some(if may { Ok(best.index) } else { Err(best.index) })
    }

    /// Whether a backend whose slots nobody knows has far more than its share of the tier's requests.
    fn is_crowded(&self, fleet: &Fleet, tier: &Tier, contender: split::Contender, now: Nanos) -> bool {
        let requests = |index: usize| self.requests_at(fleet, tier.split[index].backend, now);
        if self.slots_of(fleet, tier.split[contender.index].backend).is_some() {
            return false;
        }
        let weight: f64 = self.scratch.iter().map(|c| c.weight).sum();
        let all: f64 = self.scratch.iter().map(|c| requests(c.index)).sum();
        requests(contender.index) > all * contender.weight / weight * MOST_OF_SHARE + A_FEW
    }

    fn faster_of_two(&self, fleet: &Fleet, tier: &Tier, now: Nanos, rng: &mut Rng) -> Option<usize> {
        let n = self.scratch.len() as u32;
        let first = below(n, rng)?;
        if n == 1 {
            return Some(self.scratch[first].index);
        }
        let other = (first + 1 + below(n - 1, rng)?) % n as usize;
        let id = |i: usize| tier.split[self.scratch[i].index].backend;
        // Load is comparable as it is, or by the slot; not one with the other.
        let slots = |i: usize| self.slots_of(fleet, id(i));
        let by_slot = slots(first).zip(slots(other));
        let (a, b) = by_slot.unwrap_or((1.0, 1.0));
        let better =
            if self.score(fleet, id(other), b, now) < self.score(fleet, id(first), a, now) { other } else { first };
        Some(self.scratch[better].index)
    }

    /// What orders two backends: requests for each slot, and the time to first token as it is now.
    ///
    /// Failures count as requests, so that what fails at once does not look idle.
    fn score(&self, fleet: &Fleet, id: BackendId, slots: f64, now: Nanos) -> f64 {
        let state = self.backend(id);
        let replicas = fleet.gateway.replicas.count();
        let requests = state.load.requests_and_ghosts(state.in_flight, replicas, now) + 1.0;
        let hold = state.load.hold().map_or(1.0, |h| h.as_secs_f64());
        let recent = state.load.expected_ttft(now).as_secs_f64();
        requests / slots * (hold * HOLD_SHARE + recent)
    }

    /// Leaves the contenders that cost least among those that would serve soon.
    fn keep_cheapest(&mut self, fleet: &Fleet, facts: &Facts, model: &Model, tier: &Tier, now: Nanos) {
        let patience = model.slo.ttft_p95.map_or(PATIENCE_FOR_PRICE, |objective| objective / 2);
        let wait = |state: &Self, index: usize| state.wait_at(fleet, tier.split[index].backend, now);
        let shortest = self.scratch.iter().map(|c| wait(self, c.index)).min().unwrap_or_default();
        let price = |state: &Self, index: usize| state.marginal_cost(fleet, facts, tier.split[index].backend);
        let soon = |state: &Self, index: usize| wait(state, index) <= patience.max(shortest);
        let least = self.scratch.iter().filter(|c| soon(self, c.index)).map(|c| price(self, c.index)).min();
        let Some(least) = least else { return };
        let most = NanoUsd((least.0 as f64 * SAME_COST) as i64);
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.retain(|c| soon(self, c.index) && price(self, c.index) <= most);
        self.scratch = scratch;
    }

    /// What one request would add to the bill on a backend.
    pub fn marginal_cost(&self, fleet: &Fleet, facts: &Facts, id: BackendId) -> NanoUsd {
        let load = &self.backend(id).load;
        let rate = match (self.slots_of(fleet, id), load.hold()) {
            (Some(slots), Some(hold)) => Some(slots / hold.as_secs_f64().max(1e-3)),
            _ => None,
        };
        cost::expected(fleet, id, facts, rate).total()
    }

    /// Estimated requests on a backend, over all replicas of the gateway.
    pub fn requests_at(&self, fleet: &Fleet, id: BackendId, now: Nanos) -> f64 {
        let state = self.backend(id);
        state.load.requests(state.in_flight, fleet.gateway.replicas.count(), now)
    }

    /// How many requests a backend can run at once, where that is known.
    pub fn slots_of(&self, fleet: &Fleet, id: BackendId) -> Option<f64> {
        self.backend(id).load.slots(fleet.backend(id).max_in_flight)
    }

    /// What the next request would wait at a backend.
    pub fn wait_at(&self, fleet: &Fleet, id: BackendId, now: Nanos) -> Duration {
        let state = self.backend(id);
        let (configured, replicas) = (fleet.backend(id).max_in_flight, fleet.gateway.replicas.count());
        state.load.expected_wait(state.in_flight, configured, replicas, now)
    }
}

/// How much of the time that a request holds a slot counts beside the time to first token: what a queue is to the
/// next request shows in both, and the count is the fresher of the two.
const HOLD_SHARE: f64 = 1.0;

/// A uniform number below `n`; `None` for none.
fn below(n: u32, rng: &mut Rng) -> Option<usize> {
    (n > 0).then(|| ((u64::from(rng.next_u32()) * u64::from(n)) >> 32) as usize)
}

/// The finaliser of SplitMix64: neighbouring keys end far apart.
fn mixed(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
