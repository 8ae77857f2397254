//! A gateway without sockets: the state driven as the gateway drives it, on a clock that only this file moves.
//!
//! Events in the order of their time, and of their making where times are equal. Backends are stubs that answer after
//! a fixed time or fail in one fixed way. After every event the core's counts are compared with the harness's own.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use outrigger_core::{
    Rng,
    facts::{Facts, History, Moved},
    fleet::{BackendId, Fleet, ModelId},
    record::{End, Fault, TokensSource, Usage},
    route::{Attempt, Candidate, Decision, Reason, RejectReason},
    state::{Event, State, health::Effect},
    units::{NanoUsd, Nanos, Tokens},
    waiting::{Place, WaitingList, Walk},
};
use rand_core::{Rng as _, SeedableRng as _};

const TICK: Duration = Duration::from_millis(100);

/// How a backend answers every request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Engine {
    /// First content and end, in milliseconds after the request.
    Serves {
        first: u64,
        last: u64,
    },
    /// Nothing listens, and what was in flight dies.
    Refuses,
    /// Accepts and then says nothing.
    Hangs,
    /// Not even the connection comes to be.
    Unreachable,
    Answers(u16),
    Limits {
        status: u16,
        retry_after: Option<Duration>,
    },
    /// Breaks off after the first content.
    Cuts,
}

pub(crate) const QUICK: Engine = Engine::Serves { first: 50, last: 200 };

/// One attempt, as the log would show it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) at: Nanos,
    pub(crate) call: usize,
    pub(crate) replica: usize,
    pub(crate) backend: String,
    pub(crate) tier: u8,
    pub(crate) reason: Reason,
    pub(crate) substitute: bool,
    /// Which of the request's attempts it is, from 0.
    pub(crate) number: usize,
    /// A failover for which the budget was not asked.
    pub(crate) free: bool,
    pub(crate) end: Option<(Nanos, End)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) facts: Facts,
    pub(crate) replica: usize,
    /// Every backend answers it with a 500.
    pub(crate) poison: bool,
    pub(crate) history: History,
    pub(crate) committed: bool,
    pub(crate) rejected: Option<RejectReason>,
    pub(crate) over: bool,
    attempt: Option<Running>,
    /// In its replica's line.
    place: Option<Place>,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    attempt: Attempt,
    /// In the log.
    line: usize,
    /// A reload has removed its backend.
    orphaned: bool,
}

#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) state: State,
    pub(crate) rng: Rng,
    in_flight: Vec<u32>,
    waiting: WaitingList<usize>,
    last_byte: Vec<Nanos>,
}

#[derive(Clone, Debug)]
enum What {
    Arrive(usize),
    Again(usize),
    /// A request that still waits has waited as long as it may.
    Waited(usize),
    Commit {
        call: usize,
        line: usize,
    },
    End {
        call: usize,
        line: usize,
        end: End,
    },
    Headroom(usize),
    Tick,
    Probed {
        replica: usize,
        backend: String,
        result: Result<(), Fault>,
    },
    Engine(String, Engine),
    Reload(Arc<Fleet>),
}

#[derive(Debug)]
pub(crate) struct Sim {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) calls: Vec<Call>,
    pub(crate) log: Vec<Line>,
    pub(crate) now: Nanos,
    /// Ask every n-th decision again of a state that was written down and read back.
    pub(crate) replay_every: usize,
    /// Most that each cloud had spent in its last hour and day, over all replicas, and the worst excess of any event.
    pub(crate) dearest: Vec<(NanoUsd, NanoUsd)>,
    pub(crate) waiting_peak: usize,
    /// What is generated for a request that sets no bound.
    pub(crate) unbounded_output: Tokens,
    engines: BTreeMap<String, Engine>,
    events: BTreeMap<(Nanos, u64), What>,
    made: u64,
    decisions: usize,
}

impl Sim {
    pub(crate) fn new(fleet: Fleet, seed: u64) -> Self {
        let fleet = Arc::new(fleet);
        let replica = |i: u32| {
            let mut rng = Rng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(u64::from(i)));
            let state = State::new(fleet.clone(), Nanos::ZERO, &mut rng);
            let n = fleet.backends.len();
            Replica {
                state,
                rng,
                in_flight: vec![0; n],
                waiting: WaitingList::default(),
                last_byte: vec![Nanos::ZERO; n],
            }
        };
        let mut sim = Self {
            replicas: (0..fleet.gateway.replicas.count()).map(replica).collect(),
            engines: fleet.backends.iter().map(|b| (b.name.clone(), QUICK)).collect(),
            dearest: vec![(NanoUsd::ZERO, NanoUsd::ZERO); fleet.clouds.len()],
            fleet,
            calls: Vec::new(),
            log: Vec::new(),
            now: Nanos::ZERO,
            replay_every: 0,
            waiting_peak: 0,
            unbounded_output: Tokens(100),
            events: BTreeMap::new(),
            made: 0,
            decisions: 0,
        };
        sim.at(Nanos::ZERO, What::Tick);
        sim
    }

    pub(crate) fn id(&self, backend: &str) -> BackendId {
        self.fleet.backend_by_name(backend).expect("a backend of the fleet")
    }

    /// From `at` on, `backend` behaves like `engine`.
    pub(crate) fn engine(&mut self, at: Nanos, backend: &str, engine: Engine) {
        self.at(at, What::Engine(backend.to_owned(), engine));
    }

    pub(crate) fn reload(&mut self, at: Nanos, fleet: Fleet) {
        self.at(at, What::Reload(Arc::new(fleet)));
    }

    /// One request, at the time its facts say.
    pub(crate) fn arrive(&mut self, facts: Facts, replica: usize, poison: bool) -> usize {
        let call = self.calls.len();
        self.calls.push(Call {
            facts,
            replica,
            poison,
            history: History::default(),
            committed: false,
            rejected: None,
            over: false,
            attempt: None,
            place: None,
        });
        self.at(facts.arrived, What::Arrive(call));
        call
    }

    /// `per_second` requests like `facts`, evenly from `from` to `to`, dealt to the replicas by `dealer`.
    pub(crate) fn traffic(&mut self, facts: Facts, per_second: u64, from: Nanos, to: Nanos, dealer: &mut Rng) {
        let gap = Duration::from_nanos(1_000_000_000 / per_second);
        let mut at = from;
        while at < to {
            let replica = (dealer.next_u64() % self.replicas.len() as u64) as usize;
            self.arrive(Facts { arrived: at, ..facts }, replica, false);
            at = at + gap;
        }
    }

    /// Moves the clock to `until`, with everything that happens on the way.
    pub(crate) fn run(&mut self, until: Nanos) {
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= until
        {
            let ((at, _), what) = entry.remove_entry();
            self.now = at;
            self.happen(what);
            self.check_counts();
        }
        self.now = until;
    }

    /// Where no request is left, every count and reservation is zero.
    pub(crate) fn assert_idle(&self) {
        assert!(self.calls.iter().all(|c| c.over), "requests are left");
        for replica in &self.replicas {
            let observed = replica.state.observed();
            assert!(observed.backends.iter().all(|b| b.in_flight == 0 && b.streams == 0), "in flight while idle");
            assert!(observed.models.iter().all(|m| m.queue.waiting() == 0), "waiting while idle");
            assert!(observed.clouds.iter().all(|c| c.reserved() == NanoUsd::ZERO), "reserved while idle");
        }
    }

    /// Attempts on `backend`.
    pub(crate) fn attempts_on<'a>(&'a self, backend: &'a str) -> impl Iterator<Item = &'a Line> {
        self.log.iter().filter(move |l| l.backend == backend)
    }

    fn at(&mut self, at: Nanos, what: What) {
        self.made += 1;
        self.events.insert((at, self.made), what);
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Arrive(call) => {
                let Call { facts, replica, .. } = self.calls[call];
                match self.replicas[replica].state.admit(facts.key) {
                    Ok(()) => self.decide(call),
                    Err(reject) => {
                        self.calls[call].rejected = Some(reject.why);
                        self.calls[call].over = true;
                    }
                }
            }
            What::Again(call) => self.decide(call),
            What::Waited(call) => {
                let history = &self.calls[call].history;
                if history.waiting && history.until <= self.now {
                    self.decide(call);
                }
            }
            What::Commit { call, line } => self.commit(call, line),
            What::End { call, line, end } => self.end(call, line, end),
            What::Headroom(replica) => self.call_waiting(replica),
            What::Tick => self.tick(),
            What::Probed { replica, backend, result } => self.probed(replica, &backend, result),
            What::Engine(backend, engine) => self.turn(&backend, engine),
            What::Reload(fleet) => self.replace(fleet),
        }
    }

    /// Asks those who wait, in their order.
    fn call_waiting(&mut self, replica: usize) {
        let mut walk = Walk::default();
        while let Some(place) = self.replicas[replica].waiting.next(&walk) {
            let call = *self.replicas[replica].waiting.get_mut(place).expect("it waits");
            self.decide(call);
            if self.calls[call].history.waiting {
                self.replicas[replica].waiting.refused(&mut walk, place);
            }
        }
    }

    fn decide(&mut self, c: usize) {
        let call = &mut self.calls[c];
        assert!(!call.committed && !call.over, "decided after content went to the client");
        let replica = &mut self.replicas[call.replica];
        let before = (self.replay_every > 0 && self.decisions.is_multiple_of(self.replay_every))
            .then(|| (replica.state.view(&call.facts), replica.rng.clone()));
        self.decisions += 1;
        let free = call.history.next_is_free();
        let mut notes: Vec<Candidate> = Vec::new();
        let decision = replica.state.decide(&call.facts, &call.history, self.now, &mut replica.rng, &mut notes);
        if let Some((view, mut rng)) = before {
            let text = serde_json::to_string(&view).expect("a view is JSON");
            let view = serde_json::from_str(&text).expect("its own JSON");
            let mut again = State::from_view(self.fleet.clone(), &call.facts, view).expect("a view of this fleet");
            let mut notes_again: Vec<Candidate> = Vec::new();
            let second = again.decide(&call.facts, &call.history, self.now, &mut rng, &mut notes_again);
            assert_eq!(without_id(decision), without_id(second), "replayed differently");
            assert_eq!((notes, &rng), (notes_again, &replica.rng));
        }
        replica.state.note_decision(&call.facts, &call.history, &decision, self.now);
        call.history.waiting = false;
        let place = call.place.take();
        if let (Some(place), Decision::Attempt(_) | Decision::Reject(_)) = (place, decision) {
            replica.waiting.leave(place);
        }
        match decision {
            Decision::Attempt(attempt) => self.start(c, attempt, free),
            Decision::Queue { until } => {
                call.history.waits(until);
                call.place = place.or_else(|| Some(replica.waiting.enter(&call.facts, &call.history, c)));
                self.waiting_peak = self.waiting_peak.max(replica.waiting.len());
                let (model, replica) = (call.facts.model, call.replica);
                self.at(until.max(self.now), What::Waited(c));
                self.make_room(replica, model);
            }
            Decision::Reject(reject) => {
                call.rejected = Some(reject.why);
                self.close(c);
            }
        }
    }

    fn make_room(&mut self, replica: usize, model: ModelId) {
        let replica = &mut self.replicas[replica];
        if replica.state.is_overfull(model) {
            let call = replica.waiting.displace(model).expect("the line is not empty");
            self.calls[call].history.displaced = true;
            self.decide(call);
        }
    }

    fn start(&mut self, c: usize, attempt: Attempt, free: bool) {
        let call = &mut self.calls[c];
        assert!(!call.history.tried(attempt.backend), "a backend that was tried already");
        let line = self.log.len();
        call.attempt = Some(Running { attempt, line, orphaned: false });
        let number = call.history.attempts();
        let name = self.fleet.backend(attempt.backend).name.clone();
        self.replicas[call.replica].in_flight[attempt.backend.index()] += 1;
        let engine = if call.poison { Engine::Answers(500) } else { self.engines[&name] };
        self.log.push(Line {
            at: self.now,
            call: c,
            replica: call.replica,
            backend: name,
            tier: attempt.tier,
            reason: attempt.reason,
            substitute: attempt.substitute,
            number,
            free: number > 0 && free,
            end: None,
        });
        self.serve(c, line, engine);
    }

    fn serve(&mut self, call: usize, line: usize, engine: Engine) {
        let ms = |ms| self.now + Duration::from_millis(ms);
        let timeouts = self.fleet.model(self.calls[call].facts.model).timeouts;
        let failed = End::Failed;
        let (committed, (at, end)) = match engine {
            Engine::Serves { first, last } => (Some(ms(first)), (ms(last), End::Ok)),
            Engine::Refuses => (None, (ms(1), failed(Fault::Refused))),
            Engine::Hangs => (None, (self.now + timeouts.headers, failed(Fault::HeadersTimeout))),
            Engine::Unreachable => (None, (self.now + timeouts.connect, failed(Fault::ConnectTimeout))),
            Engine::Answers(status @ 400..=499) => (None, (ms(10), End::ClientError(status))),
            Engine::Answers(status) => (None, (ms(10), failed(Fault::Status(status)))),
            Engine::Limits { status, retry_after } => {
                (None, (ms(5), failed(Fault::Overloaded { status, retry_after })))
            }
            Engine::Cuts => (Some(ms(50)), (ms(100), failed(Fault::Cut))),
        };
        if let Some(at) = committed {
            self.at(at, What::Commit { call, line });
        }
        self.at(at, What::End { call, line, end });
    }

    /// The attempt that an event was made for, unless it has ended meanwhile.
    fn running(&self, call: usize, line: usize) -> Option<Running> {
        self.calls[call].attempt.filter(|running| running.line == line)
    }

    fn commit(&mut self, c: usize, line: usize) {
        let Some(Running { attempt, orphaned, .. }) = self.running(c, line) else { return };
        if self.stuck(c) {
            return;
        }
        self.calls[c].committed = true;
        let replica = &mut self.replicas[self.calls[c].replica];
        if !orphaned {
            replica.last_byte[attempt.backend.index()] = self.now;
        }
        replica.state.observe(Event::Committed { attempt: attempt.id }, self.now, &mut replica.rng);
    }

    /// Planned to serve, but the backend hangs by now.
    fn stuck(&self, c: usize) -> bool {
        let Some(running) = self.calls[c].attempt else { return false };
        matches!(self.engines.get(&self.log[running.line].backend), Some(Engine::Hangs | Engine::Unreachable))
    }

    fn end(&mut self, c: usize, line: usize, end: End) {
        let Some(Running { attempt, orphaned, .. }) = self.running(c, line) else { return };
        if end == End::Ok && self.stuck(c) {
            let fault = if self.calls[c].committed { Fault::Stalled } else { Fault::HeadersTimeout };
            let timeouts = self.fleet.model(self.calls[c].facts.model).timeouts;
            return self.at(self.now + timeouts.headers, What::End { call: c, line, end: End::Failed(fault) });
        }
        self.log[line].end = Some((self.now, end));
        let call = &mut self.calls[c];
        call.attempt = None;
        let usage = match end {
            End::Ok | End::Failed(Fault::Cut | Fault::Stalled) => Usage {
                prompt: call.facts.prompt_tokens,
                output: call.facts.max_tokens.unwrap_or(self.unbounded_output),
                cached: Tokens(0),
                source: TokensSource::Engine,
            },
            _ => Usage::default(),
        };
        let replica = &mut self.replicas[call.replica];
        if !orphaned {
            replica.in_flight[attempt.backend.index()] -= 1;
            if !matches!(end, End::Failed(_)) {
                replica.last_byte[attempt.backend.index()] = self.now;
            }
        }
        match end {
            End::Failed(fault) if !call.committed && !orphaned => call.history.failed(attempt.backend, fault),
            _ => {}
        }
        replica.state.observe(Event::Ended { attempt: attempt.id, end, usage }, self.now, &mut replica.rng);
        let (r, committed) = (call.replica, call.committed);
        match end {
            End::Failed(_) if !committed => self.at(self.now, What::Again(c)),
            _ => self.close(c),
        }
        self.at(self.now, What::Headroom(r));
    }

    fn close(&mut self, c: usize) {
        let call = &mut self.calls[c];
        call.over = true;
        self.replicas[call.replica].state.settle(call.facts.key);
    }

    fn tick(&mut self) {
        for r in 0..self.replicas.len() {
            let mut due = Vec::new();
            let replica = &mut self.replicas[r];
            for (i, last_byte) in replica.last_byte.iter().enumerate() {
                let backend = BackendId(i as u16);
                if replica.state.backend(backend).in_flight > 0 {
                    let heard = Event::Heard { backend, last_byte: *last_byte };
                    replica.state.observe(heard, self.now, &mut replica.rng);
                }
            }
            while let Some(backend) = replica.state.take_probe(self.now) {
                due.push(backend);
            }
            for backend in due {
                self.probe(r, backend);
            }
            self.at(self.now, What::Headroom(r));
        }
        self.note_spend();
        self.at(self.now + TICK, What::Tick);
    }

    fn probe(&mut self, replica: usize, backend: BackendId) {
        let patience = self.replicas[replica].state.probe_patience(backend, self.now);
        let backend = self.fleet.backend(backend).name.clone();
        let soon = Duration::from_millis(20);
        let (after, result) = match self.engines[&backend] {
            Engine::Serves { .. } | Engine::Cuts | Engine::Answers(400..=499) => (soon, Ok(())),
            Engine::Refuses => (soon, Err(Fault::Refused)),
            Engine::Hangs => (patience, Err(Fault::FirstTokenTimeout)),
            Engine::Unreachable => (Duration::from_secs(1), Err(Fault::ConnectTimeout)),
            Engine::Answers(status) => (soon, Err(Fault::Status(status))),
            Engine::Limits { status, retry_after } => (soon, Err(Fault::Overloaded { status, retry_after })),
        };
        self.at(self.now + after, What::Probed { replica, backend, result });
    }

    fn probed(&mut self, r: usize, name: &str, result: Result<(), Fault>) {
        let Some(backend) = self.fleet.backend_by_name(name) else { return };
        let replica = &mut self.replicas[r];
        let effect = replica.state.observe(Event::Probed { backend, result }, self.now, &mut replica.rng);
        if effect == Some(Effect::Abandon) {
            self.interrupt(name, Some(r), |committed| (!committed).then_some(Fault::Abandoned));
        }
        self.at(self.now, What::Headroom(r));
    }

    fn turn(&mut self, backend: &str, engine: Engine) {
        self.engines.insert(backend.to_owned(), engine);
        if engine == Engine::Refuses {
            self.interrupt(backend, None, |committed| Some(if committed { Fault::Cut } else { Fault::Reset }));
        }
    }

    /// Ends what runs on a backend now, with the fault that `fault` names for it.
    fn interrupt(&mut self, backend: &str, replica: Option<usize>, fault: impl Fn(bool) -> Option<Fault>) {
        for call in 0..self.calls.len() {
            let Call { attempt: Some(Running { line, .. }), committed, replica: r, .. } = self.calls[call] else {
                continue;
            };
            if self.log[line].backend == backend
                && replica.is_none_or(|only| only == r)
                && let Some(fault) = fault(committed)
            {
                self.at(self.now, What::End { call, line, end: End::Failed(fault) });
            }
        }
    }

    fn replace(&mut self, fleet: Arc<Fleet>) {
        let old = std::mem::replace(&mut self.fleet, fleet);
        let to = self.fleet.clone();
        let moved = Moved { from: &old, to: &to };
        for replica in &mut self.replicas {
            replica.state = replica.state.clone().under(to.clone(), self.now, &mut replica.rng);
            replica.in_flight = vec![0; to.backends.len()];
            replica.last_byte = vec![self.now; to.backends.len()];
        }
        for backend in &to.backends {
            self.engines.entry(backend.name.clone()).or_insert(QUICK);
        }
        for call in self.calls.iter_mut().filter(|c| !c.over) {
            call.facts = moved.facts(&call.facts).expect("the model stays");
            call.history = moved.history(&call.history);
            if let Some(running) = call.attempt.as_mut().filter(|r| !r.orphaned) {
                match moved.backend(running.attempt.backend) {
                    Some(here) => {
                        running.attempt.backend = here;
                        self.replicas[call.replica].in_flight[here.index()] += 1;
                    }
                    None => running.orphaned = true,
                }
            }
        }
        let calls = &self.calls;
        for replica in &mut self.replicas {
            let left = replica.waiting.follow(|call| Some((calls[*call].facts, calls[*call].history)));
            assert!(left.is_empty(), "the model stays");
        }
    }

    fn note_spend(&mut self) {
        for (i, dearest) in self.dearest.iter_mut().enumerate() {
            let cloud = outrigger_core::fleet::CloudId(i as u16);
            let (mut hour, mut day) = (NanoUsd::ZERO, NanoUsd::ZERO);
            for replica in &mut self.replicas {
                let spent = replica.state.spend(cloud, self.now);
                (hour, day) = (hour + spent.0, day + spent.1);
            }
            *dearest = (dearest.0.max(hour), dearest.1.max(day));
        }
    }

    fn check_counts(&self) {
        for replica in &self.replicas {
            let observed = replica.state.observed();
            for (i, n) in replica.in_flight.iter().enumerate() {
                assert_eq!(observed.backends[i].in_flight, *n, "in flight on backend {i} at {:?}", self.now);
                assert!(observed.backends[i].streams <= *n);
            }
            assert!(observed.clouds.iter().all(|c| c.reserved() >= NanoUsd::ZERO), "negative reservation");
            let waiting: u32 = observed.models.iter().map(|m| m.queue.waiting()).sum();
            // Those that a Headroom event has taken out decide again before anything else is checked.
            assert_eq!(waiting as usize, replica.waiting.len(), "waiting");
        }
    }
}

/// The same decision of two states that count their attempts differently.
fn without_id(decision: Decision) -> String {
    match decision {
        Decision::Attempt(a) => format!("{:?} {} {:?} {}", a.backend, a.tier, a.reason, a.substitute),
        other => format!("{other:?}"),
    }
}
