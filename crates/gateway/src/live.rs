//! What is true now: the decision core behind its lock, the fleet in force, and the connections to each backend.
//!
//! One lock for the whole core. A decision takes about a microsecond, so that the lock is not what a gateway runs out
//! of first; it is never held across an await. Everything that does not change between reloads is in a [`Snapshot`]
//! that readers hold without a lock.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use outrigger_core::{
    Rng,
    facts::{Facts, History, Moved},
    fleet::{Backend, BackendId, Fleet, KeyId},
    record::{End, Fault, Usage},
    route::{Candidate, Decision, Reject, RejectReason},
    state::{AttemptId, Event, State, health::Effect, scaling::Desired},
    units::{NanoUsd, Nanos},
};
use rand_core::SeedableRng as _;
use tokio::sync::Semaphore;

use crate::{
    auth::KeyRing,
    events::{DecisionLine, Events, FleetLine},
    litellm::Dialect,
    net::{Clock, Connect},
    overlays::Overlays,
    pool_cost::{Bill, PoolCosts},
    queue::{Queues, Turn},
    upstream::{Credentials, Upstream},
};

/// Decisions kept for `GET /api/v1/decisions/{id}`.
const RECENT_DECISIONS: usize = 4_096;
/// Fleets that they may keep in memory: a file that changes every second must not fill it.
const RECENT_FLEETS: usize = 4;

/// A fleet together with what its secrets resolved to.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub fleet: Arc<Fleet>,
    pub secrets: Secrets,
}

/// Values behind the fleet file's references, in the order of the fleet. Never printed.
#[derive(Clone, Default)]
pub struct Secrets {
    pub backends: Vec<Credentials>,
    pub key_hashes: Vec<Vec<[u8; 32]>>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// What stays the same between two reloads.
#[derive(Debug)]
pub struct Snapshot {
    pub fleet: Arc<Fleet>,
    pub upstreams: Vec<Arc<Upstream>>,
    pub keys: KeyRing,
}

/// A request's place in the core's eyes, kept in step with reloads.
#[derive(Clone, Debug)]
pub struct Ticket {
    pub request_id: String,
    pub fleet: Arc<Fleet>,
    pub facts: Facts,
    pub history: History,
}

/// A decision together with the fleet and the backend's connections that it was made on.
#[derive(Debug)]
pub struct Decided {
    pub decision: Decision,
    pub fleet: Arc<Fleet>,
    pub upstream: Option<Arc<Upstream>>,
    /// Verdict of each candidate, for error bodies and logs.
    pub candidates: Vec<Candidate>,
}

/// What `GET /api/v1/decisions/{id}` shows.
#[derive(Clone, Debug)]
pub struct Explained {
    pub request_id: String,
    pub at: Nanos,
    pub fleet: Arc<Fleet>,
    pub attempt: usize,
    pub decision: Decision,
    pub candidates: Vec<Candidate>,
}

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) state: State,
    pub(crate) queues: Queues,
    rng: Rng,
    snapshot: Arc<Snapshot>,
    recent: VecDeque<Explained>,
    pool_costs: PoolCosts,
    /// The decision log has the line of the fleet in force.
    is_announced: bool,
}

#[derive(Debug)]
pub struct Live {
    pub clock: Clock,
    pub events: Events,
    pub overlays: Overlays,
    pub dialect: Dialect,
    /// Bytes of bodies that may still be held.
    pub held: Arc<Semaphore>,
    /// Requests whose line is not in the log yet.
    pub open_calls: AtomicU64,
    core: Mutex<Core>,
    snapshot: ArcSwap<Snapshot>,
    draining: AtomicBool,
    connector: Arc<dyn Connect>,
}

impl Live {
    pub fn new(
        loaded: &Loaded,
        clock: Clock,
        connector: Arc<dyn Connect>,
        events: Events,
        overlays: Overlays,
        seed: u64,
    ) -> Result<Self, String> {
        let mut rng = Rng::seed_from_u64(seed);
        let snapshot = Arc::new(Snapshot::build(loaded, None, &connector)?);
        let state = State::new(loaded.fleet.clone(), clock.now(), &mut rng);
        let pool_costs = PoolCosts::start(clock.now());
        let held = loaded.fleet.gateway.limits.held_bytes.min(Semaphore::MAX_PERMITS as u64) as usize;
        let live = Self {
            clock,
            events,
            overlays,
            dialect: Dialect::default(),
            held: Arc::new(Semaphore::new(held)),
            open_calls: AtomicU64::new(0),
            core: Mutex::new(Core {
                state,
                queues: Queues::default(),
                rng,
                snapshot: snapshot.clone(),
                recent: VecDeque::new(),
                pool_costs,
                is_announced: false,
            }),
            snapshot: ArcSwap::new(snapshot),
            draining: AtomicBool::new(false),
            connector,
        };
        live.apply_overlays();
        Ok(live)
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Resolves when every request that ended has its line written, or after this time.
    pub async fn written_down(&self, at_most: Duration) {
        let written = async {
            while self.open_calls.load(Ordering::Acquire) > 0 || !self.events.all_written() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        drop(tokio::time::timeout(at_most, written).await);
    }

    /// Asks the core what to do with a request now, and puts it in line where the answer is to wait.
    pub fn decide(&self, ticket: &mut Ticket) -> Turn<'_> {
        let mut core = self.core();
        let decided = core.decide(self, ticket);
        match decided.decision {
            Decision::Queue { .. } => Turn::Later(core.wait(self, ticket)),
            _ => Turn::Now(decided),
        }
    }

    /// Tells the core what became of something.
    pub fn observe(&self, event: Event) {
        let now = self.clock.now();
        let mut core = self.core();
        let about = match event {
            Event::Probed { backend, .. } => Some(backend),
            Event::Ended { attempt, .. } => core.state.backend_of(attempt),
            _ => None,
        };
        let effect = core.observe(event, now);
        if let (Some(Effect::Abandon), Some(backend)) = (effect, about) {
            core.snapshot.upstreams[backend.index()].abandon();
        }
        if matches!(event, Event::Ended { .. } | Event::Probed { .. }) {
            core.call_waiting(self);
        }
    }

    /// Asks those who wait in line. What comes free is given to them at once; this is for what time alone brings.
    pub fn call_waiting(&self) {
        self.core().call_waiting(self);
    }

    /// Books a request for its key.
    pub fn admit(&self, ticket: &mut Ticket) -> Result<(), Reject> {
        let mut core = self.core();
        follow(ticket, core.state.fleet());
        core.state.admit(ticket.facts.key)
    }

    pub fn settle(&self, ticket: &mut Ticket) {
        let mut core = self.core();
        follow(ticket, core.state.fleet());
        core.state.settle(ticket.facts.key);
    }

    /// Books a request that names no model for its key, which stands there in `fleet`.
    pub fn admit_key(&self, fleet: &Arc<Fleet>, key: KeyId) -> Result<(), Reject> {
        let mut core = self.core();
        let key = Moved { from: fleet, to: core.state.fleet() }.key(key);
        core.state.admit(key)
    }

    pub fn settle_key(&self, fleet: &Arc<Fleet>, key: KeyId) {
        let mut core = self.core();
        let key = Moved { from: fleet, to: core.state.fleet() }.key(key);
        core.state.settle(key);
    }

    pub fn is_drained(&self, fleet: &Arc<Fleet>, backend: BackendId) -> bool {
        let core = self.core();
        let backend = Moved { from: fleet, to: core.state.fleet() }.backend(backend);
        backend.is_some_and(|backend| core.state.backend(backend).drained)
    }

    /// Backends whose probe is due, booked as running, each with its connections.
    pub fn take_probes(&self) -> Vec<(BackendId, Arc<Fleet>, Arc<Upstream>)> {
        let now = self.clock.now();
        let mut core = self.core();
        let mut due = Vec::new();
        while let Some(backend) = core.state.take_probe(now) {
            due.push((backend, core.state.fleet().clone(), core.snapshot.upstreams[backend.index()].clone()));
        }
        due
    }

    /// A probe that began under `fleet` has its result; it counts only if that backend is still there.
    pub fn probed(&self, backend: BackendId, fleet: &Arc<Fleet>, result: Result<(), Fault>) {
        let here = { Moved { from: fleet, to: &self.snapshot().fleet }.backend(backend) };
        if let Some(backend) = here {
            self.report_last_bytes();
            self.observe(Event::Probed { backend, result });
        }
    }

    /// An engine's metrics, read under `fleet`, said this; it counts only if that backend is still there.
    pub fn scraped(&self, backend: BackendId, fleet: &Arc<Fleet>, running: u32, waiting: u32) {
        let now = self.clock.now();
        let mut core = self.core();
        let core = &mut *core;
        let here = { Moved { from: fleet, to: core.state.fleet() }.backend(backend) };
        if let Some(backend) = here {
            core.state.observe(Event::Scraped { backend, running, waiting }, now, &mut core.rng);
        }
    }

    /// Passes on when each busy backend was last heard, so that the core can notice silence.
    pub fn report_last_bytes(&self) {
        let now = self.clock.now();
        let mut core = self.core();
        let core = &mut *core;
        for i in 0..core.snapshot.upstreams.len() {
            let backend = BackendId(i as u16);
            if core.state.backend(backend).in_flight > 0 {
                let last_byte = core.snapshot.upstreams[i].last_byte();
                core.state.observe(Event::Heard { backend, last_byte }, now, &mut core.rng);
            }
        }
    }

    /// Puts a new fleet in force. Requests in flight go on where they are.
    pub fn replace(&self, loaded: &Loaded) -> Result<(), String> {
        let mut core = self.core();
        let next = Arc::new(Snapshot::build(loaded, Some(&core.snapshot), &self.connector)?);
        let core = &mut *core;
        let now = self.clock.now();
        core.pool_costs.ends(core.state.fleet(), now);
        core.state = core.state.clone().under(loaded.fleet.clone(), now, &mut core.rng);
        core.snapshot = next.clone();
        core.is_announced = false;
        forget_old_fleets(&mut core.recent);
        self.snapshot.store(next);
        self.overlays.apply_to(&mut core.state);
        core.follow_reload(self);
        Ok(())
    }

    /// Brings the core in line with the overlays in force.
    pub fn apply_overlays(&self) {
        let mut core = self.core();
        self.overlays.apply_to(&mut core.state);
        core.call_waiting(self);
    }

    /// Runs `read` on the core, for the admin API.
    pub fn with_state<T>(&self, read: impl FnOnce(&mut State) -> T) -> T {
        read(&mut self.core().state)
    }

    /// What each pool has cost so far.
    pub fn pool_costs(&self) -> BTreeMap<Bill, NanoUsd> {
        let core = self.core();
        core.pool_costs.at(core.state.fleet(), self.clock.now())
    }

    /// How large each pool should be that follows the load.
    pub fn desired(&self) -> (Arc<Fleet>, Vec<Desired>) {
        let now = self.clock.now();
        let mut core = self.core();
        let desired = core.state.desired(now);
        (core.state.fleet().clone(), desired)
    }

    pub(crate) fn connector(&self) -> Arc<dyn Connect> {
        self.connector.clone()
    }

    pub fn decisions(&self, request_id: &str) -> Vec<Explained> {
        self.core().recent.iter().filter(|d| d.request_id == request_id).cloned().collect()
    }

    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        // A panic while deciding leaves counts that are still consistent; refusing to serve would be worse.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// One decision, booked and written down.
    pub(crate) fn decide(&mut self, live: &Live, ticket: &mut Ticket) -> Decided {
        let now = live.clock.now();
        let fleet = self.state.fleet().clone();
        if !follow(ticket, &fleet) {
            let decision = Decision::Reject(Reject { why: RejectReason::NoBackend, retry_after: None });
            return Decided { decision, fleet, upstream: None, candidates: Vec::new() };
        }
        let view = live.events.logs_decisions().then(|| {
            let view = self.state.view_after(&ticket.facts, &ticket.history);
            (view, self.rng.clone())
        });
        let mut candidates = Vec::with_capacity(8);
        let decision = self.state.decide(&ticket.facts, &ticket.history, now, &mut self.rng, &mut candidates);
        self.state.note_decision(&ticket.facts, &ticket.history, &decision, now);
        let goes_on_waiting = ticket.history.waiting && matches!(decision, Decision::Queue { .. });
        if !goes_on_waiting {
            self.remember(ticket, now, decision, &candidates);
        }
        let upstream = match decision {
            Decision::Attempt(a) => Some(self.snapshot.upstreams[a.backend.index()].clone()),
            _ => None,
        };
        if let Some((view, rng)) = view.filter(|_| !goes_on_waiting) {
            self.is_announced = self.is_announced || live.events.fleet(&FleetLine::new(&fleet));
            live.events.decision(&DecisionLine::new(ticket, now, &rng, &view, &decision, &candidates));
        }
        match decision {
            Decision::Queue { until } => ticket.history.waits(until),
            _ => ticket.history.waiting = false,
        }
        Decided { decision, fleet, upstream, candidates }
    }

    pub(crate) fn observe(&mut self, event: Event, now: Nanos) -> Option<Effect> {
        self.state.observe(event, now, &mut self.rng)
    }

    fn remember(&mut self, ticket: &Ticket, at: Nanos, decision: Decision, candidates: &[Candidate]) {
        if self.recent.len() == RECENT_DECISIONS {
            self.recent.pop_front();
        }
        self.recent.push_back(Explained {
            request_id: ticket.request_id.clone(),
            at,
            fleet: ticket.fleet.clone(),
            attempt: ticket.history.attempts() + 1,
            decision,
            candidates: candidates.to_vec(),
        });
    }
}

/// Brings a ticket in step with the fleet in force. `false` when its model is gone.
pub(crate) fn follow(ticket: &mut Ticket, fleet: &Arc<Fleet>) -> bool {
    if Arc::ptr_eq(&ticket.fleet, fleet) {
        return true;
    }
    let moved = Moved { from: &ticket.fleet, to: fleet };
    let Some(facts) = moved.facts(&ticket.facts) else { return false };
    ticket.history = moved.history(&ticket.history);
    ticket.facts = facts;
    ticket.fleet = fleet.clone();
    true
}

/// Drops the decisions that were made on all but the newest fleets.
fn forget_old_fleets(recent: &mut VecDeque<Explained>) {
    let mut fleets: Vec<*const Fleet> = Vec::with_capacity(RECENT_FLEETS);
    let is_kept = |d: &Explained| {
        let fleet = Arc::as_ptr(&d.fleet);
        if !fleets.contains(&fleet) && fleets.len() < RECENT_FLEETS {
            fleets.push(fleet);
        }
        fleets.contains(&fleet)
    };
    let kept = recent.iter().rev().map(is_kept).take_while(|is_kept| *is_kept).count();
    recent.drain(..recent.len() - kept);
}

/// Releases an attempt on every way out: also when the task that made it is dropped.
#[derive(Debug)]
pub struct InFlight<'a> {
    live: &'a Live,
    id: Option<AttemptId>,
}

impl<'a> InFlight<'a> {
    pub fn new(live: &'a Live, id: AttemptId) -> Self {
        Self { live, id: Some(id) }
    }

    pub fn committed(&self) {
        if let Some(attempt) = self.id {
            self.live.observe(Event::Committed { attempt });
        }
    }

    pub fn ended(mut self, end: End, usage: Usage) {
        if let Some(attempt) = self.id.take() {
            self.live.observe(Event::Ended { attempt, end, usage });
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(attempt) = self.id.take() {
            self.live.observe(Event::Ended { attempt, end: End::ClientGone, usage: Usage::default() });
        }
    }
}

impl Snapshot {
    fn build(loaded: &Loaded, previous: Option<&Self>, connector: &Arc<dyn Connect>) -> Result<Self, String> {
        let upstream = |(i, backend): (usize, &Backend)| {
            let credentials = loaded.secrets.backends.get(i).cloned().unwrap_or_default();
            let kept = previous.and_then(|p| p.kept(backend, &credentials));
            if let Some(kept) = kept {
                kept.trust_key();
                return Ok(kept);
            }
            let fresh = Upstream::new(backend, credentials, connector)?;
            Ok(Arc::new(match previous.and_then(|p| p.of(backend)) {
                Some((_, old)) => fresh.after(old),
                None => fresh,
            }))
        };
        let upstreams = loaded.fleet.backends.iter().enumerate().map(upstream).collect::<Result<_, String>>()?;
        let hashes = loaded.secrets.key_hashes.iter().enumerate();
        let keys = KeyRing::new(
            hashes.flat_map(|(i, all)| all.iter().map(move |h| (*h, KeyId(i as u16)))),
            !loaded.fleet.keys.is_empty(),
        );
        Ok(Self { fleet: loaded.fleet.clone(), upstreams, keys })
    }

    /// The same backend in this snapshot.
    fn of(&self, backend: &Backend) -> Option<(&Backend, &Arc<Upstream>)> {
        let at = self.fleet.backends.iter().position(|b| b.identity() == backend.identity())?;
        Some((&self.fleet.backends[at], &self.upstreams[at]))
    }

    fn kept(&self, backend: &Backend, credentials: &Credentials) -> Option<Arc<Upstream>> {
        let (old, upstream) = self.of(backend)?;
        let is_same = upstream.is_reached_with(credentials) && old.reach == backend.reach;
        (is_same && old.replicas == backend.replicas).then(|| upstream.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{admin::Access, tls::backend::Pem};

    /// Whatever a log line, a panic or a failed assertion prints.
    #[test]
    fn secrets_are_not_in_debug_output() {
        let canary = || "CANARY".to_owned();
        let pem = Pem { ca: None, client_cert: Some((b"CANARY".to_vec(), b"CANARY".to_vec())) };
        let credentials = Credentials { api_key: Some(canary()), pem: pem.clone(), headers: vec![canary()] };
        let secrets = Secrets { backends: vec![credentials.clone()], key_hashes: vec![vec![[b'C'; 32]]] };
        let access = Access { token: Some(canary()) };
        let said = format!("{credentials:?}{pem:?}{secrets:?}{access:?}{credentials:#?}{secrets:#?}");
        let bytes = format!("{:?}", b"CANARY").replace(['[', ']'], "");
        assert!(!said.contains("CANARY") && !said.contains(&bytes) && !said.contains("67, 67"), "{said}");
    }
}
