//! Everything that the core remembers, and how events change it.
//!
//! One [`State`] per gateway or simulated replica. It is written by two calls only: `decide` (see [`crate::route`])
//! books what it hands out, and [`State::observe`] folds in what became of it, with at most four events an attempt.
//! Observed state is kept by backend identity, so that a reload of the fleet file forgets nothing that is still true.

pub mod cooldown;
pub mod headroom;
pub mod health;
pub mod latency;
pub mod load;
pub mod queue;
pub mod retry_budget;
pub mod scaling;
pub mod spend;
pub mod survive;
mod view;

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::view::View;
use self::{
    cooldown::{Cooldown, Gate},
    headroom::Headroom,
    health::{Effect, Liveness},
    latency::Latency,
    load::{FirstToken, Load, Scrape},
    queue::Queue,
    retry_budget::RetryBudget,
    scaling::Scaling,
    spend::Spend,
};
use crate::{
    Rng, cost,
    facts::{Facts, Moved},
    fleet::{BackendId, CloudId, Fleet, KeyId, Model, ModelId, Priority, Share, Tier},
    record::{End, Fault, Usage},
    route::split::{self, Contender},
    units::{NanoUsd, Nanos, Tokens},
};

/// A request that got a 500 from two backends is poison only if one of them answered another within this time.
pub const POISON_WINDOW: Duration = Duration::from_secs(10);

/// Names an attempt until it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AttemptId(u64);

/// What the caller saw.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The first content of an answer has come, or all of one that does not stream.
    Committed { attempt: AttemptId },
    /// The attempt is over; its place is free again.
    Ended { attempt: AttemptId, end: End, usage: Usage },
    /// A probe taken by [`State::take_probe`] has its result.
    Probed { backend: BackendId, result: Result<(), Fault> },
    /// When the last byte came from a backend. Reported now and then, never per token.
    Heard { backend: BackendId, last_byte: Nanos },
    /// What the engine's own metrics said: requests running and waiting there, from whoever sent them.
    Scraped { backend: BackendId, running: u32, waiting: u32 },
    /// A request gave up waiting for headroom.
    LeftQueue { model: ModelId, priority: Priority },
}

/// The observed state of a fleet.
#[derive(Clone, Debug)]
pub struct State {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) observed: Observed,
    /// Space for the contenders of one decision, kept so that deciding does not allocate.
    pub(crate) scratch: Vec<Contender>,
}

/// What [`State`] has learned: serialisable, so that a decision can be replayed from it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    pub backends: Vec<BackendState>,
    pub models: Vec<ModelState>,
    pub clouds: Vec<Spend>,
    /// Requests in flight per key.
    pub keys: Vec<u32>,
    /// Absent from what was written down before there was any.
    #[serde(default)]
    pub scaling: Scaling,
    pub(crate) attempts: Attempts,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackendState {
    pub in_flight: u32,
    pub streams: u32,
    streams_busy_since: Nanos,
    others_busy_since: Nanos,
    pub live: Liveness,
    pub cooldown: Cooldown,
    /// Time to first content of streams.
    pub ttft: Latency,
    /// Time to the whole answer of other requests.
    pub answer: Latency,
    pub drained: bool,
    pub load: Load,
    /// What higher priorities take of it. Absent from what was written down before there was any.
    #[serde(default)]
    pub headroom: Headroom,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelState {
    pub tiers: Vec<TierState>,
    pub retries: RetryBudget,
    /// Tokens of an answer, on average; 0 until there was one.
    mean_output: f64,
    /// Requests waiting for headroom. Absent from what was written down before there was more than a number.
    #[serde(default)]
    pub queue: Queue,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TierState {
    /// Weights in force, in the order of the tier's split: the file's, or an overlay's.
    pub weights: Vec<u32>,
    /// Requests, or tokens, owed to each backend of the split.
    pub credits: Vec<f64>,
}

/// The part of a split by tokens that an attempt was given, to be settled with what it used.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TokenShare {
    pub(crate) tier: u16,
    pub(crate) index: u16,
    pub(crate) estimate: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct InFlight {
    backend: BackendId,
    stream: bool,
    #[serde(default)]
    priority: Priority,
    trial: bool,
    committed: bool,
    reserved: NanoUsd,
    started: Nanos,
    /// Absent once a reload has removed it.
    model: Option<ModelId>,
    prompt: Tokens,
    /// Estimated requests on the backend when this one was sent.
    behind: f64,
    /// Time to first token, once it is known.
    ttft: Option<Duration>,
    share: Option<TokenShare>,
}

impl State {
    /// The state of a fleet that has just been configured: every backend in use, with a probe due at once.
    ///
    /// `rng` sets the phase of the weights where several gateway replicas share the traffic, so that they do not all
    /// begin with the same backend.
    pub fn new(fleet: Arc<Fleet>, now: Nanos, rng: &mut Rng) -> Self {
        let backend = |_: &_| BackendState { live: Liveness::unproven(now), ..BackendState::default() };
        let observed = Observed {
            backends: fleet.backends.iter().map(backend).collect(),
            models: fleet.models.iter().map(ModelState::new).collect(),
            clouds: fleet.clouds.iter().map(|_| Spend::default()).collect(),
            keys: vec![0; fleet.keys.len()],
            scaling: Scaling::new(&fleet, now),
            attempts: Attempts::default(),
        };
        let scratch = Vec::with_capacity(fleet.backends.len());
        let mut state = Self { fleet, observed, scratch };
        if state.fleet.gateway.replicas.count() > 1 {
            state.shift_phase(rng);
        }
        state
    }

    /// A state that decides exactly as the recorded one did, for explanations and replay.
    pub fn restore(fleet: Arc<Fleet>, observed: Observed) -> Option<Self> {
        let fits = observed.backends.len() == fleet.backends.len()
            && observed.models.len() == fleet.models.len()
            && observed.clouds.len() == fleet.clouds.len()
            && observed.scaling.fits(&fleet);
        let scratch = Vec::with_capacity(fleet.backends.len());
        fits.then_some(Self { fleet, observed, scratch })
    }

    /// The same state under a new fleet: what is still named the same keeps what was learned of it, and attempts in
    /// flight still end where they began.
    #[must_use]
    pub fn under(mut self, fleet: Arc<Fleet>, now: Nanos, rng: &mut Rng) -> Self {
        let mut next = Self::new(fleet, now, rng);
        let to = next.fleet.clone();
        let from = self.fleet.clone();
        let moved = Moved { from: &from, to: &to };
        let places: Vec<_> = (0..from.backends.len()).map(|i| moved.backend(BackendId(i as u16))).collect();
        self.release_reservations(&places, now);
        next.observed.scaling.follow(&self.observed.scaling, &moved, now);
        next.observed.attempts = self.observed.attempts;
        let models: Vec<_> = (0..from.models.len()).map(|i| moved.model(ModelId(i as u16))).collect();
        next.observed.attempts.rename(&places, &models);
        for (old, place) in self.observed.backends.into_iter().zip(places) {
            if let Some(new) = place {
                next.observed.backends[new.index()] = BackendState { drained: false, ..old };
            }
        }
        for (i, old) in self.observed.clouds.into_iter().enumerate() {
            if let Some(new) = moved.cloud(CloudId(i as u16)) {
                next.observed.clouds[new.index()] = old;
            }
        }
        for (i, old) in self.observed.models.into_iter().enumerate() {
            if let Some(new) = moved.model(ModelId(i as u16)) {
                let specs = (&from.models[i].tiers, &to.model(new).tiers);
                let new = &mut next.observed.models[new.index()];
                new.retries = old.retries;
                new.queue = old.queue;
                for (((tier, old), was), is) in new.tiers.iter_mut().zip(old.tiers).zip(specs.0).zip(specs.1) {
                    // An untouched split goes on where it was; overlays of weights are laid over it anew.
                    let same = |(a, b): (&Share, &Share)| moved.backend(a.backend) == Some(b.backend);
                    let untouched = was.split.len() == is.split.len() && was.split.iter().zip(&is.split).all(same);
                    if untouched && old.weights == tier.weights {
                        tier.credits = old.credits;
                    }
                }
            }
        }
        for (i, old) in self.observed.keys.into_iter().enumerate() {
            if let Some(new) = moved.key(KeyId(i as u16)) {
                next.observed.keys[new.index()] = old;
            }
        }
        for attempt in next.observed.attempts.in_flight() {
            next.observed.clouds[to.backend(attempt.backend).cloud.index()].reserve(attempt.reserved);
        }
        next
    }

    /// Takes every reservation back, so that those of attempts that stay can be made where their backends stand now.
    /// What an attempt on a backend that is gone will cost is never learned here, so that it counts in full.
    fn release_reservations(&mut self, places: &[Option<BackendId>], now: Nanos) {
        for attempt in self.observed.attempts.in_flight() {
            let is_gone = places[attempt.backend.index()].is_none();
            let spent = if is_gone { attempt.reserved } else { NanoUsd::ZERO };
            let cloud = self.fleet.backend(attempt.backend).cloud;
            self.observed.clouds[cloud.index()].settle(attempt.reserved, spent, now);
        }
    }

    pub fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    pub fn queue(&self, model: ModelId) -> &Queue {
        &self.observed.models[model.index()].queue
    }

    pub fn backend(&self, id: BackendId) -> &BackendState {
        &self.observed.backends[id.index()]
    }

    /// Takes a backend out of use for new requests, or back in.
    pub fn set_drained(&mut self, backend: BackendId, drained: bool) {
        self.observed.backends[backend.index()].drained = drained;
    }

    /// Ends an ejection, because somebody vouches for the backend. Whether there was one.
    pub fn forgive(&mut self, backend: BackendId, now: Nanos) -> bool {
        self.observed.backends[backend.index()].live.forgive(now)
    }

    /// Replaces the weights of one tier (from 0), in the order of its split; `None` restores the file's.
    pub fn set_weights(&mut self, model: ModelId, tier: usize, weights: Option<&[u32]>) {
        let split = &self.fleet.models[model.index()].tiers[tier].split;
        let state = &mut self.observed.models[model.index()].tiers[tier];
        let wanted = match weights {
            Some(weights) => weights.to_vec(),
            None => split.iter().map(|s| s.weight).collect(),
        };
        if state.weights != wanted {
            state.weights = wanted;
            state.credits.fill(0.0);
        }
    }

    /// What the cloud has cost in the last hour and day, and what is reserved.
    pub fn spend(&mut self, cloud: CloudId, now: Nanos) -> (NanoUsd, NanoUsd, NanoUsd) {
        let spend = &mut self.observed.clouds[cloud.index()];
        (spend.last_hour(now), spend.last_day(now), spend.reserved())
    }

    /// The next backend whose probe is due, booked as running. Call until it returns `None`.
    pub fn take_probe(&mut self, now: Nanos) -> Option<BackendId> {
        let due = self.observed.backends.iter_mut().position(|b| b.live.take_probe(now));
        due.map(|i| BackendId(i as u16))
    }

    /// When the next probe is due, if one is.
    pub fn next_probe(&self) -> Option<Nanos> {
        self.observed.backends.iter().filter_map(|b| b.live.next_probe()).min()
    }

    /// Folds in what the caller saw. `rng` jitters pauses.
    pub fn observe(&mut self, event: Event, now: Nanos, rng: &mut Rng) -> Option<Effect> {
        match event {
            Event::Committed { attempt } => self.committed(attempt, now),
            Event::Ended { attempt, end, usage } => return self.ended(attempt, end, &usage, now, rng),
            Event::Probed { backend, result } => {
                let state = &mut self.observed.backends[backend.index()];
                let was_down = state.live.is_down();
                let effect = state.live.probed(result, now, rng);
                if was_down && !state.live.is_down() {
                    state.load.forget();
                }
                return effect;
            }
            Event::Heard { backend, last_byte } => self.heard(backend, last_byte, now),
            Event::Scraped { backend, running, waiting } => {
                let state = &mut self.observed.backends[backend.index()];
                let scrape = Scrape { at: now, running, waiting, in_flight: state.in_flight };
                state.load.scraped(scrape, self.fleet.gateway.replicas.count());
            }
            Event::LeftQueue { model, priority } => {
                self.observed.models[model.index()].queue.leave(priority, now);
            }
        }
        None
    }

    /// Books an attempt; the counterpart of [`Event::Ended`].
    pub(crate) fn book(
        &mut self,
        backend: BackendId,
        facts: &Facts,
        now: Nanos,
        reserved: NanoUsd,
        share: Option<TokenShare>,
    ) -> AttemptId {
        let stream = facts.stream;
        let replicas = self.fleet.gateway.replicas.count();
        let state = &mut self.observed.backends[backend.index()];
        let behind = state.load.requests(state.in_flight, replicas, now);
        if stream {
            if state.streams == 0 {
                state.streams_busy_since = now;
            }
            state.streams += 1;
        } else if state.in_flight == state.streams {
            state.others_busy_since = now;
        }
        state.in_flight += 1;
        state.headroom.started(facts.priority, now);
        let trial = state.cooldown.gate(now) == Gate::Trial;
        if trial {
            state.cooldown.trial_started();
        }
        state.live.given_a_request();
        if stream {
            state.load.sent(now);
        }
        self.observed.clouds[self.fleet.backend(backend).cloud.index()].reserve(reserved);
        let (model, prompt) = (Some(facts.model), facts.prompt_tokens);
        self.observed.attempts.insert(InFlight {
            backend,
            stream,
            priority: facts.priority,
            trial,
            committed: false,
            reserved,
            started: now,
            model,
            prompt,
            behind,
            ttft: None,
            share,
        })
    }

    fn committed(&mut self, id: AttemptId, now: Nanos) {
        let Some(attempt) = self.observed.attempts.get_mut(id) else { return };
        attempt.committed = true;
        let state = &mut self.observed.backends[attempt.backend.index()];
        let took = now.since(attempt.started);
        if attempt.stream {
            attempt.ttft = Some(took);
            state.ttft.record(took, now);
            let objective = attempt.model.and_then(|m| self.fleet.model(m).slo.ttft_p95);
            let (prompt, behind) = (attempt.prompt, attempt.behind);
            state.load.first_token(&FirstToken { started: attempt.started, took, prompt, behind, objective }, now);
        } else {
            state.answer.record(took, now);
        }
        state.live.committed(now);
        state.cooldown.answered(attempt.trial, now);
    }

    fn ended(&mut self, id: AttemptId, end: End, usage: &Usage, now: Nanos, rng: &mut Rng) -> Option<Effect> {
        let attempt = self.observed.attempts.remove(id)?;
        let backend = self.fleet.backend(attempt.backend);
        let spent = if may_have_cost(end, usage) { attempt.reserved } else { cost::of_attempt(backend, usage).tokens };
        self.observed.clouds[backend.cloud.index()].settle(attempt.reserved, spent, now);
        self.settle_tokens(&attempt, end, usage);

        let state = &mut self.observed.backends[attempt.backend.index()];
        state.in_flight -= 1;
        state.headroom.ended(attempt.priority, now);
        state.streams -= u32::from(attempt.stream);
        if attempt.stream && attempt.ttft.is_none() {
            state.load.left();
        }
        let mut effect = None;
        match end {
            End::Ok => {
                state.live.completed();
                state.load.served(now.since(attempt.started), attempt.ttft, attempt.prompt);
            }
            // It answered, so it is alive and not refusing; whether it can serve is not known from this.
            End::ClientError(_) => state.cooldown.answered(attempt.trial, now),
            End::Failed(Fault::Overloaded { status, retry_after }) => {
                state.load.failed(now);
                state.cooldown.refused(status, retry_after, attempt.trial, now, rng);
                return None;
            }
            End::Failed(fault) => {
                if !attempt.committed {
                    state.load.failed(now);
                }
                effect = state.live.fault(fault, attempt.started, now, rng);
            }
            End::ClientGone => {}
        }
        if attempt.trial && !attempt.committed {
            state.cooldown.trial_wasted();
        }
        effect
    }

    /// Corrects the shares of tokens by what the attempt used, and what an answer is expected to be.
    fn settle_tokens(&mut self, attempt: &InFlight, end: End, usage: &Usage) {
        const GAIN: f64 = 1.0 / 128.0;
        let Some(model) = attempt.model.map(|m| &mut self.observed.models[m.index()]) else { return };
        let output = usage.output.0 as f64;
        if end == End::Ok {
            let first = model.mean_output == 0.0;
            model.mean_output = if first { output } else { model.mean_output + (output - model.mean_output) * GAIN };
        }
        if let Some(share) = attempt.share
            && let Some(tier) = model.tiers.get_mut(usize::from(share.tier))
        {
            let beyond = usage.prompt.0 as f64 + output - share.estimate;
            split::settle(&mut tier.credits, &tier.weights, usize::from(share.index), beyond);
        }
    }

    /// The backend of an attempt in flight.
    pub fn backend_of(&self, attempt: AttemptId) -> Option<BackendId> {
        self.observed.attempts.get(attempt).map(|a| a.backend)
    }

    fn heard(&mut self, backend: BackendId, last_byte: Nanos, now: Nanos) {
        let patience = self.first_token_patience(backend);
        let state = &mut self.observed.backends[backend.index()];
        if state.streams > 0 {
            state.live.heard(last_byte, state.streams_busy_since, &state.ttft, patience, now);
        } else if state.in_flight > 0 {
            state.live.heard(last_byte, state.others_busy_since, &state.answer, patience, now);
        }
    }

    /// How long a probe that begins now may take.
    pub fn probe_patience(&self, id: BackendId, now: Nanos) -> Duration {
        self.backend(id).live.probe_patience(self.first_token_patience(id), now)
    }

    /// The shortest time to first token that any model allows this backend.
    pub fn first_token_patience(&self, id: BackendId) -> Duration {
        let backend = self.fleet.backend(id);
        let uses = |m: &&Model| m.tiers.iter().any(|t| t.split.iter().any(|s| s.backend == id));
        let of_model = |m: &Model| m.timeouts.overridden_by(&backend.timeouts).first_token;
        self.fleet.models.iter().filter(uses).map(of_model).min().unwrap_or(Duration::from_secs(20))
    }

    fn shift_phase(&mut self, rng: &mut Rng) {
        use rand_core::Rng as _;
        for tier in self.observed.models.iter_mut().flat_map(|m| &mut m.tiers) {
            let contenders: Vec<Contender> = (tier.weights.iter().enumerate())
                .filter(|(_, w)| **w > 0)
                .map(|(index, w)| Contender { index, weight: f64::from(*w) })
                .collect();
            for _ in 0..rng.next_u32() % 1_009 {
                split::choose(&mut tier.credits, &contenders);
            }
        }
    }

    /// Requests in flight of one key.
    pub fn key_in_flight(&self, key: KeyId) -> u32 {
        self.observed.keys[key.index()]
    }
}

/// Whether tokens were made that nobody counted: the caller left, or gave up, before the engine reported any.
fn may_have_cost(end: End, usage: &Usage) -> bool {
    let left = matches!(
        end,
        End::ClientGone
            | End::Failed(
                Fault::HeadersTimeout
                    | Fault::FirstTokenTimeout
                    | Fault::TotalTimeout
                    | Fault::Abandoned
                    | Fault::Reset
            )
    );
    left && *usage == Usage::default()
}

impl ModelState {
    /// Tokens that a request is expected to take, prompt and answer.
    pub(crate) fn expected_tokens(&self, facts: &Facts) -> f64 {
        let usual = if self.mean_output > 0.0 { self.mean_output } else { 256.0 };
        let answer = facts.max_tokens.map_or(usual, |most| usual.min(most.0 as f64));
        facts.prompt_tokens.0 as f64 + answer
    }

    fn new(model: &Model) -> Self {
        let tier = |tier: &Tier| TierState {
            weights: tier.split.iter().map(|s| s.weight).collect(),
            credits: vec![0.0; tier.split.len()],
        };
        Self { tiers: model.tiers.iter().map(tier).collect(), ..Self::default() }
    }
}

/// Attempts in flight, in reused slots: a late or repeated event for one that has ended finds another generation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attempts {
    slots: Vec<(u32, Option<InFlight>)>,
    free: Vec<u32>,
}

impl Attempts {
    fn insert(&mut self, attempt: InFlight) -> AttemptId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() as u32 - 1
        });
        let (generation, slot) = &mut self.slots[index as usize];
        *slot = Some(attempt);
        AttemptId(u64::from(*generation) << 32 | u64::from(index))
    }

    fn get(&self, id: AttemptId) -> Option<&InFlight> {
        let (generation, slot) = self.slots.get((id.0 & 0xffff_ffff) as usize)?;
        if u64::from(*generation) == id.0 >> 32 { slot.as_ref() } else { None }
    }

    fn get_mut(&mut self, id: AttemptId) -> Option<&mut InFlight> {
        let (generation, slot) = self.slots.get_mut((id.0 & 0xffff_ffff) as usize)?;
        if u64::from(*generation) == id.0 >> 32 { slot.as_mut() } else { None }
    }

    fn remove(&mut self, id: AttemptId) -> Option<InFlight> {
        self.get_mut(id)?;
        let index = (id.0 & 0xffff_ffff) as u32;
        let (generation, slot) = &mut self.slots[index as usize];
        *generation = generation.wrapping_add(1);
        self.free.push(index);
        slot.take()
    }

    fn in_flight(&self) -> impl Iterator<Item = &InFlight> {
        self.slots.iter().filter_map(|(_, attempt)| attempt.as_ref())
    }

    /// Follows backends to their new places; attempts on those that are gone end without a trace.
    fn rename(&mut self, moved: &[Option<BackendId>], models: &[Option<ModelId>]) {
        for index in 0..self.slots.len() {
            let Some(attempt) = &mut self.slots[index].1 else { continue };
            if let Some(new) = moved[attempt.backend.index()] {
                attempt.backend = new;
                attempt.model = attempt.model.and_then(|m| models[m.index()]);
                attempt.share = None;
            } else {
                self.slots[index] = (self.slots[index].0.wrapping_add(1), None);
                self.free.push(index as u32);
            }
        }
    }
}
