//! How many GPUs each pool on demand should have now: woken by requests that found no room, put to sleep at the end of a
//! block that is paid for anyway.
//!
//! Waking follows what happened, not a forecast: for a minute, more than 2 % of a model's requests went to the pool's
//! tier or past it for lack of room, waited for longer than that tier allows, or were turned away. One step at a time,
//! and the next only when the one before has had its cold start and the shortage still lasted a minute: steps that are
//! on their way do not show in any count, and asking again meanwhile would rent the whole range for one peak.
//!
//! Sleeping asks a stricter question than waking, so that a constant load does not flap: would everything that ran in
//! the last block have fitted into nine tenths of what is paid for anyway (or of one step less)? It is asked of the worst
//! moment and not of the mean. Each step is given back only in the last seconds of its own block.
//!
//! Edges: where the slots of the cheaper backends are not known, they have no room, and the pool sleeps only once it has
//! had nothing in flight for a block. A pool that runs although nobody here asked for it is not known to run.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{State, cooldown::Gate};
use crate::{
    facts::{Facts, History, Moved},
    fleet::{Backend, BackendId, Fleet, Model, ModelId, Pool, PoolId, PoolPrice},
    route::{Decision, Reason, RejectReason},
    units::Nanos,
};

/// How long a shortage lasts before it is one.
pub const SUSTAINED: Duration = Duration::from_mins(1);
/// One request in so many without room is no shortage: 2 %.
const ONE_IN: u32 = 50;
/// A shortage holds in each of these, so that two peaks a minute apart are none.
const BUCKET: Duration = Duration::from_secs(10);
/// A step is given back in this last part of its block; half a minute leaves whoever acts some tries.
pub const END_OF_BLOCK: Duration = Duration::from_secs(30);
/// What is billed by the second is still kept for as long as this after it was last needed: a cold start is paid for too.
pub const LEAST_IDLE: Duration = Duration::from_mins(5);
/// Of the slots that are left, as much may be in use for a step to be superfluous.
const FULL: f64 = 0.9;
/// A wait beyond this is a lack of room where neither the tier nor an objective says what is.
const LONG_WAIT: Duration = Duration::from_secs(1);
/// Who waits for a limit decides again a little after it: up to an eighth of it.
const LATE: u32 = 8;
/// Between two looks at what could be given back.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why a pool should have as many GPUs as it should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleReason {
    /// It keeps so many whatever the load.
    #[default]
    Minimum,
    /// Requests went to its tier, or past it, because those before had no room.
    Spill,
    /// Requests waited for longer than its tier allows.
    LongWait,
    /// Requests were turned away.
    Saturated,
    /// What it served fits into what is left.
    NotNeeded,
}

impl ScaleReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minimum => "minimum",
            Self::Spill => "spill",
            Self::LongWait => "long_wait",
            Self::Saturated => "saturated",
            Self::NotNeeded => "not_needed",
        }
    }
}

/// How large one pool should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Desired {
    pub pool: PoolId,
    pub gpus: u32,
    /// Engines that run on so many GPUs.
    pub replicas: u32,
    pub reason: ScaleReason,
    /// When this became so; `None` if it never was otherwise.
    pub since: Option<Nanos>,
}

/// All pools on demand whose number of GPUs may change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    pools: Vec<PoolScale>,
    looked: Nanos,
}

/// What is remembered of one pool. Written down by its name, so that it outlives the order of the fleet file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolScale {
    pub name: String,
    id: PoolId,
    gpus: u32,
    reason: ScaleReason,
    changed: Option<Nanos>,
    /// When the last step was asked for.
    raised: Option<Nanos>,
    /// When the paid time of each step above the minimum began.
    blocks: Vec<Nanos>,
    /// When as many GPUs were last needed.
    needed: Nanos,
    users: Vec<User>,
}

/// A model with a backend in the pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    model: ModelId,
    /// The last of its tiers with a backend in the pool, from 0.
    tier: usize,
    requests: Requests,
}

/// A model's requests in the current bucket, and since when there has been a shortage in every bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Requests {
    bucket: Nanos,
    all: u32,
    /// Those that the pool was there for.
    wanted: u32,
    /// Those that it had no room for either.
    unmet: u32,
    wanted_since: Option<Nanos>,
    unmet_since: Option<Nanos>,
}

/// What one decision says of one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shortage {
    /// The pool had no room either.
    unmet: bool,
    reason: ScaleReason,
}

impl Requests {
    fn add(&mut self, shortage: Option<Shortage>, now: Nanos) {
        self.roll(now);
        self.all = self.all.saturating_add(1);
        let Some(Shortage { unmet, .. }) = shortage else { return };
        self.wanted += 1;
        self.wanted_since.get_or_insert(now);
        if unmet {
            self.unmet += 1;
            self.unmet_since.get_or_insert(now);
        }
    }

    /// Closes the bucket when its time is over; one without a shortage ends it.
    fn roll(&mut self, now: Nanos) {
        let age = now.since(self.bucket);
        if age < BUCKET {
            return;
        }
        let is_gap = age >= 2 * BUCKET;
        let is_short = |n: u32| !is_gap && n.saturating_mul(ONE_IN) > self.all;
        let keep =
            (self.wanted_since.filter(|_| is_short(self.wanted)), self.unmet_since.filter(|_| is_short(self.unmet)));
        let bucket = self.bucket + BUCKET * (age.as_nanos() / BUCKET.as_nanos()) as u32;
        *self = Self { bucket, wanted_since: keep.0, unmet_since: keep.1, ..Self::default() };
    }
}

impl PoolScale {
    fn new(fleet: &Fleet, id: PoolId, now: Nanos) -> Self {
        let users = (fleet.models.iter().enumerate()).filter_map(|(i, model)| {
            let is_in = |backend: BackendId| fleet.backend(backend).pool == Some(id);
            let tier = model.tiers.iter().rposition(|tier| tier.split.iter().any(|s| is_in(s.backend)))?;
            let requests = Requests { bucket: now, ..Requests::default() };
            Some(User { model: ModelId(i as u16), tier, requests })
        });
        let pool = &fleet.pools[id.index()];
        Self {
            name: pool.name.clone(),
            id,
            gpus: pool.gpus.min,
            reason: ScaleReason::Minimum,
            changed: None,
            raised: None,
            blocks: Vec::new(),
            needed: now,
            users: users.collect(),
        }
    }

    /// Takes over what was asked for, as far as the pool may have it now.
    fn adopt(&mut self, old: &Self, pool: &Pool, now: Nanos) {
        let (gpus, step) = (pool.gpus, pool.gpus.step.max(1));
        let steps = old.gpus.clamp(gpus.min, gpus.max).saturating_sub(gpus.min) / step;
        self.gpus = gpus.min + steps * step;
        (self.reason, self.changed, self.raised) = (old.reason, old.changed, old.raised);
        self.blocks.clone_from(&old.blocks);
        self.blocks.resize(steps as usize, now);
        self.needed = old.needed;
    }

    fn raise(&mut self, pool: &Pool, reason: ScaleReason, now: Nanos) {
        self.gpus += pool.gpus.step.max(1);
        self.blocks.push(now);
        self.raised = Some(now);
        self.change(reason, now);
    }

    /// Gives a step back whose block ends now, if there is one.
    fn lower(&mut self, pool: &Pool, block: Duration, now: Nanos) {
        if let Some(at) = self.blocks.iter().position(|begun| is_end(*begun, block, now)) {
            self.blocks.remove(at);
            self.gpus -= pool.gpus.step.max(1);
            self.change(ScaleReason::NotNeeded, now);
        }
    }

    fn change(&mut self, reason: ScaleReason, now: Nanos) {
        (self.reason, self.changed, self.needed) = (reason, Some(now), now);
    }

    /// Since when the next step could help: what was asked for before has had its time, and the shortage lasts.
    fn short_since(&self, user: &User, cold_start: Duration) -> Option<Nanos> {
        let requests = &user.requests;
        let since = if self.gpus == 0 { requests.wanted_since } else { requests.unmet_since };
        let arrived = self.raised.map_or(Nanos::ZERO, |raised| raised + cold_start);
        since.map(|since| since.max(arrived).max(self.changed.unwrap_or_default()))
    }
}

/// Whether a block that began at `begun`, or one of those after it, is about to end.
fn is_end(begun: Nanos, block: Duration, now: Nanos) -> bool {
    if block <= END_OF_BLOCK {
        return true;
    }
    let into = now.since(begun).as_nanos() % block.as_nanos();
    into >= block.saturating_sub(END_OF_BLOCK).as_nanos()
}

impl Scaling {
    pub(super) fn new(fleet: &Fleet, now: Nanos) -> Self {
        let ids = (0..fleet.pools.len()).filter(|i| terms(&fleet.pools[*i]).is_some());
        Self { pools: ids.map(|i| PoolScale::new(fleet, PoolId(i as u16), now)).collect(), looked: now }
    }

    /// After a reload: pools by name, and shortages by the model's name.
    pub(super) fn follow(&mut self, old: &Self, moved: &Moved<'_>, now: Nanos) {
        self.restore(&old.pools, moved.to, now);
        for new in &mut self.pools {
            let Some(old) = old.pools.iter().find(|old| old.name == new.name) else { continue };
            for user in &old.users {
                let model = moved.model(user.model);
                if let Some(new) = new.users.iter_mut().find(|new| Some(new.model) == model) {
                    new.requests = user.requests;
                }
            }
        }
    }

    /// What each pool was asked to have, to be written down.
    pub fn pools(&self) -> &[PoolScale] {
        &self.pools
    }

    fn restore(&mut self, old: &[PoolScale], fleet: &Fleet, now: Nanos) {
        for new in &mut self.pools {
            if let Some(old) = old.iter().find(|old| old.name == new.name) {
                new.adopt(old, &fleet.pools[new.id.index()], now);
            }
        }
    }

    /// Whether it names pools and models as this fleet does.
    pub(super) fn fits(&self, fleet: &Fleet) -> bool {
        let is_known = |pool: &PoolScale| {
            fleet.pools.get(pool.id.index()).is_some_and(|known| known.name == pool.name && terms(known).is_some())
                && pool.users.iter().all(|u| fleet.models.get(u.model.index()).is_some_and(|m| u.tier < m.tiers.len()))
        };
        self.pools.iter().all(is_known)
    }
}

/// How the GPUs of a pool come and go, where they do.
#[derive(Clone, Copy, Debug)]
struct Terms {
    block: Duration,
    cold_start: Duration,
}

fn terms(pool: &Pool) -> Option<Terms> {
    match pool.price {
        PoolPrice::OnDemand { billing_block, cold_start, .. } if pool.gpus.min < pool.gpus.max => {
            Some(Terms { block: billing_block, cold_start })
        }
        _ => None,
    }
}

impl State {
    /// Counts a decision for the pools that follow the load. Call it after each `decide`, with the same arguments.
    pub fn note_decision(&mut self, facts: &Facts, history: &History, decision: &Decision, now: Nanos) {
        // Later attempts of a request say nothing about room that its first did not.
        let is_first = history.attempts() == 0 && !matches!(decision, Decision::Queue { .. });
        if self.observed.scaling.pools.is_empty() || !is_first {
            return;
        }
        let fleet = self.fleet.clone();
        let mut scaling = std::mem::take(&mut self.observed.scaling);
        for scale in &mut scaling.pools {
            let Some(at) = scale.users.iter().position(|user| user.model == facts.model) else { continue };
            let shortage = self.shortage(&fleet, facts, scale.users[at].tier, decision, now);
            scale.users[at].requests.add(shortage, now);
            let pool = &fleet.pools[scale.id.index()];
            let (Some(Shortage { unmet, reason }), Some(terms)) = (shortage, terms(pool)) else { continue };
            let has_another = scale.gpus + pool.gpus.step.max(1) <= pool.gpus.max;
            let since = scale.short_since(&scale.users[at], terms.cold_start);
            let is_sustained = since.is_some_and(|since| now.since(since) >= SUSTAINED);
            if has_another && is_sustained && (unmet || scale.gpus == 0) {
                scale.raise(pool, reason, now);
            }
        }
        self.observed.scaling = scaling;
        if now.since(self.observed.scaling.looked) >= LOOK_EVERY {
            self.give_back(now);
        }
    }

    /// How large each pool should be that follows the load. To be asked every few seconds, since without requests
    /// nothing else makes the state look at what could be given back.
    pub fn desired(&mut self, now: Nanos) -> Vec<Desired> {
        self.give_back(now);
        let fleet = &self.fleet;
        let desired = |scale: &PoolScale| Desired {
            pool: scale.id,
            gpus: scale.gpus,
            replicas: replicas_on(fleet, scale.id, scale.gpus),
            reason: scale.reason,
            since: scale.changed,
        };
        self.observed.scaling.pools.iter().map(desired).collect()
    }

    /// Takes over what was written down before a restart.
    pub fn restore_scaling(&mut self, pools: &[PoolScale], now: Nanos) {
        let fleet = self.fleet.clone();
        self.observed.scaling.restore(pools, &fleet, now);
    }

    fn give_back(&mut self, now: Nanos) {
        let fleet = self.fleet.clone();
        let mut scaling = std::mem::take(&mut self.observed.scaling);
        scaling.looked = now;
        for scale in &mut scaling.pools {
            let pool = &fleet.pools[scale.id.index()];
            let Some(terms) = terms(pool) else { continue };
            scale.users.iter_mut().for_each(|user| user.requests.roll(now));
            if scale.gpus <= pool.gpus.min {
                continue;
            }
            let is_wanted = |user: &User| user.requests.wanted_since.is_some_and(|since| now.since(since) >= BUCKET);
            let excess: f64 = scale.users.iter().map(|user| self.excess(&fleet, scale.id, user, now).max(0.0)).sum();
            let left = scale.gpus - pool.gpus.step.max(1);
            if scale.users.iter().any(is_wanted) || excess > FULL * slots_on(&fleet, scale.id, left) {
                scale.needed = now;
            }
            if now.since(scale.needed) >= terms.block.max(LEAST_IDLE) {
                scale.lower(pool, terms.block, now);
            }
        }
        self.observed.scaling = scaling;
    }

    /// What a decision says of a pool that stands in tier `tier` of the model (from 0): `None` if nothing was short.
    fn shortage(&self, fleet: &Fleet, facts: &Facts, tier: usize, decision: &Decision, now: Nanos) -> Option<Shortage> {
        let model = fleet.model(facts.model);
        let attempt = match decision {
            Decision::Attempt(attempt) => attempt,
            Decision::Reject(reject) => {
                let is_full = reject.why == RejectReason::Saturated;
                return is_full.then_some(Shortage { unmet: true, reason: ScaleReason::Saturated });
            }
            Decision::Queue { .. } => return None,
        };
        let served = usize::from(attempt.tier) - 1;
        let for_lack_of_room = match attempt.reason {
            Reason::Spill => true,
            Reason::Fallback => self.has_full_tier(fleet, model, served, now),
            _ => false,
        };
        if for_lack_of_room && served >= tier {
            return Some(Shortage { unmet: served > tier, reason: ScaleReason::Spill });
        }
        let enter = model.tiers[tier].enter_when.map(|e| e.wait_above);
        let most = enter.or(model.slo.ttft_p95).unwrap_or(LONG_WAIT);
        // In the gateway's queue, and then in the engine's. Before a tier that is entered for waits, waiting until it
        // may be is what its limit is for: only who waited past it found no room there.
        let queued = now.since(facts.arrived);
        let is_before = served < tier && enter.is_some();
        let wait = if is_before {
            queued.saturating_sub(most / LATE)
        } else {
            queued + self.wait_at(fleet, attempt.backend, now)
        };
        let is_slow = served <= tier && wait > most;
        is_slow.then_some(Shortage { unmet: true, reason: ScaleReason::LongWait })
    }

    /// Whether a tier before this one is full or refuses more, rather than gone.
    fn has_full_tier(&self, fleet: &Fleet, model: &Model, before: usize, now: Nanos) -> bool {
        let replicas = f64::from(fleet.gateway.replicas.count());
        model.tiers[..before].iter().flat_map(|tier| &tier.split).any(|share| {
            let seen = self.backend(share.backend);
            let is_full = self
                .slots_of(fleet, share.backend)
                .is_some_and(|slots| f64::from(seen.in_flight) >= (slots / replicas).floor().max(1.0));
            let refuses = matches!(seen.cooldown.gate(now), Gate::Blocked { .. } | Gate::TrialRunning);
            !seen.live.is_down() && !seen.drained && (is_full || refuses)
        })
    }

    /// Requests of one model that would find no room if the pool were gone; negative where there would be room left.
    fn excess(&self, fleet: &Fleet, pool: PoolId, user: &User, now: Nanos) -> f64 {
        let tiers = &fleet.model(user.model).tiers[..=user.tier];
        let each = |t: usize, s: usize| tiers[t].split[s].backend;
        let mut excess = 0.0;
        for (t, tier) in tiers.iter().enumerate() {
            for s in 0..tier.split.len() {
                let id = each(t, s);
                // One that stands in several tiers counts in its first.
                let is_known = tiers[..t].iter().any(|tier| tier.split.iter().any(|share| share.backend == id));
                if is_known {
                    continue;
                }
                let requests = self.requests_at(fleet, id, now);
                let seen = self.backend(id);
                if fleet.backend(id).pool == Some(pool) {
                    excess += requests;
                } else if is_paid_anyway(fleet, id) && !seen.live.is_down() && !seen.drained {
                    excess -= self.slots_of(fleet, id).map_or(0.0, |slots| FULL * slots - requests);
                }
            }
        }
        excess
    }
}

/// Whether a backend costs the same however much it serves: in a reserved pool, or in none and not billed by the token.
fn is_paid_anyway(fleet: &Fleet, id: BackendId) -> bool {
    let backend = fleet.backend(id);
    match backend.pool {
        Some(pool) => matches!(fleet.pools[pool.index()].price, PoolPrice::Reserved { .. }),
        None => !super::survive::is_hosted(backend),
    }
}

fn backends_in(fleet: &Fleet, pool: PoolId) -> impl Iterator<Item = &Backend> {
    fleet.backends.iter().filter(move |backend| backend.pool == Some(pool))
}

/// Slots that so many GPUs of a pool have, by the limits in the file; none where those say nothing.
fn slots_on(fleet: &Fleet, pool: PoolId, gpus: u32) -> f64 {
    let of_all: Option<u32> = backends_in(fleet, pool).map(|b| b.max_in_flight).sum();
    let on: u32 = backends_in(fleet, pool).map(|b| b.replicas * b.gpus_per_replica).sum();
    of_all.map_or(0.0, |slots| f64::from(slots) * f64::from(gpus) / f64::from(on.max(1)))
}

/// Engines that fit on so many GPUs of a pool; by the largest where its backends differ.
pub fn replicas_on(fleet: &Fleet, pool: PoolId, gpus: u32) -> u32 {
    gpus / backends_in(fleet, pool).map(|backend| backend.gpus_per_replica).max().unwrap_or(1).max(1)
}
