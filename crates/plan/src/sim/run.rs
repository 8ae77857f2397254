//! The loop: the next arrival or the next event, whichever is earlier, until nothing is left.

mod bill;
mod trouble;
mod watch;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    time::Duration,
};

use outrigger_core::{
    Rng, cost,
    facts::{Facts, History},
    fleet::{BackendId, ModelId, PoolPrice},
    record::{End, Fault as Failure, TokensSource, Usage},
    route::{Attempt, Decision, Reason},
    state::{Event, State, health::Effect},
    units::{Bytes, NanoUsd, Nanos, Tokens},
};
use rand_core::{Rng as _, SeedableRng as _};

use super::{
    Setup,
    engine::{Job, Server, Told},
    happening::{Metrics, What},
    report::{BackendReport, Durations, Report, Series, SloReport, Tally},
};
use crate::trace::Arrival;

/// While anything is wrong, silence is looked for and probes are taken this often, as the live gateway does.
const TICK: Duration = Duration::from_millis(100);
/// What a probe and a refusal take.
const SOON: Duration = Duration::from_millis(20);
/// A token is about this many bytes of a request or an answer.
const BYTES_PER_TOKEN: u64 = 4;
/// A token of a stream, with the event around it.
const STREAMED_TOKEN: u64 = 200;

/// Why a simulation cannot go on: its trace is at fault.
pub type Fault = crate::trace::TraceFault;

/// Plays `arrivals` against the setup. `progress` hears the number of requests and the time reached, now and then; where
/// it says no, the simulation stops there and reports what it has.
pub fn run(
    setup: &Setup,
    arrivals: impl Iterator<Item = Result<(Arrival, Option<ModelId>), Fault>>,
    mut progress: impl FnMut(u64, Nanos) -> bool,
) -> Result<Report, Fault> {
    const PROGRESS_EVERY: u64 = 1 << 14;
    let mut sim = Sim::new(setup);
    let mut arrivals = arrivals.peekable();
    while let Some(next) = arrivals.peek() {
        let at = match next {
            Ok((arrival, _)) => arrival.at,
            Err(_) => Nanos::ZERO,
        };
        sim.run_until(at);
        if let Some(arrival) = arrivals.next() {
            let (arrival, model) = arrival?;
            sim.arrive(&arrival, model.unwrap_or(setup.model));
        }
        if sim.requests.is_multiple_of(PROGRESS_EVERY) && !progress(sim.requests, sim.now) {
            break;
        }
    }
    sim.finish();
    Ok(sim.report())
}

/// Plays `arrivals` and asks the first gateway's state something every `step`, for those who study the core.
pub fn watch<T>(
    setup: &Setup,
    arrivals: impl Iterator<Item = Result<(Arrival, Option<ModelId>), Fault>>,
    step: Duration,
    mut ask: impl FnMut(&State) -> T,
) -> Result<Vec<T>, Fault> {
    let mut sim = Sim::new(setup);
    let (mut answers, mut next) = (Vec::new(), Nanos::ZERO);
    for arrival in arrivals {
        let (arrival, model) = arrival?;
        while next <= arrival.at {
            sim.run_until(next);
            answers.push(ask(&sim.gateways[0].state));
            next = next + step;
        }
        sim.run_until(arrival.at);
        sim.arrive(&arrival, model.unwrap_or(setup.model));
    }
    Ok(answers)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// A happening begins, or ends.
    Happening {
        index: u32,
        ends: bool,
    },
    Wake {
        server: u32,
        number: u64,
    },
    /// The first token of an attempt.
    FirstToken {
        call: u32,
        number: u32,
    },
    /// A deadline of an attempt, or the refusal that it meets.
    Deadline {
        call: u32,
        number: u32,
    },
    /// A queued request may have waited long enough for another tier.
    Recheck {
        call: u32,
        number: u32,
    },
    Probed {
        gateway: u32,
        backend: u32,
    },
    Scrape {
        gateway: u32,
        backend: u32,
    },
    Tick,
}

#[derive(Clone, Debug)]
struct Call {
    facts: Facts,
    history: History,
    output: u64,
    gateway: u32,
    /// Counts attempts and rechecks: events with an older number are void.
    number: u32,
    running: Option<Running>,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    attempt: Attempt,
    server: u32,
    started: Nanos,
    admitted: Option<Nanos>,
    first_token: Option<Nanos>,
    /// Nothing will come of it.
    is_stuck: bool,
    /// It gets a 500.
    stumbles: bool,
}

#[derive(Debug)]
struct Gateway {
    state: State,
    rng: Rng,
    waiting: VecDeque<u32>,
}

#[derive(Debug)]
struct Backend {
    first_server: u32,
    servers: u32,
    live_servers: u32,
    outage: Option<What>,
    rate_limit: Option<(f64, Nanos, f64)>,
    /// Share of the requests that get a 500.
    flaky: f64,
    metrics: Metrics,
    stale: (u32, u32),
    last_byte: Nanos,
    usd_per_gpu_hour: NanoUsd,
    is_on_demand: bool,
    gpus: u32,
    /// On demand and down to zero when idle: what has been paid for ends then.
    paid_until: Option<Nanos>,
    billed_from: Nanos,
    tally: Tally,
}

struct Sim<'a> {
    setup: &'a Setup,
    gateways: Vec<Gateway>,
    backends: Vec<Backend>,
    servers: Vec<Server>,
    server_of: Vec<u32>,
    calls: Vec<Option<Call>>,
    free: Vec<u32>,
    due: BinaryHeap<Reverse<(Nanos, u64, Due)>>,
    made: u64,
    now: Nanos,
    dealer: Rng,
    ticking: bool,
    open: u64,
    requests: u64,
    failed: u64,
    failures: BTreeMap<String, u64>,
    spilled: u64,
    fell_back: u64,
    wait: Durations,
    ttft: Durations,
    whole: Durations,
    slo: Vec<Met>,
    series: Series,
    ended: Vec<u32>,
    told: Vec<Told>,
}

/// Requests of a model that met an objective, and all that it applies to.
#[derive(Clone, Copy, Debug, Default)]
struct Met {
    ttft: (u64, u64),
    pace: (u64, u64),
}

impl<'a> Sim<'a> {
    fn new(setup: &'a Setup) -> Self {
        let fleet = &setup.fleet;
        let gateway = |i: u32| {
            let mut rng = Rng::seed_from_u64(setup.seed.wrapping_mul(1_000_003).wrapping_add(u64::from(i)));
            let state = State::new(fleet.clone(), Nanos::ZERO, &mut rng);
            Gateway { state, rng, waiting: VecDeque::new() }
        };
        let (mut servers, mut server_of, mut backends) = (Vec::new(), Vec::new(), Vec::new());
        for (spec, engine) in fleet.backends.iter().zip(&setup.engines) {
            let pool = spec.pool.map(|p| &fleet.pools[p.index()]);
            let price = pool.map_or(NanoUsd::ZERO, |p| p.price.usd_per_gpu_hour());
            let sleeps = pool.is_some_and(|p| matches!(p.price, PoolPrice::OnDemand { .. }) && p.gpus.min == 0);
            backends.push(Backend {
                first_server: servers.len() as u32,
                servers: engine.servers.max(1),
                live_servers: engine.servers.max(1),
                outage: None,
                rate_limit: None,
                flaky: 0.0,
                metrics: Metrics::Right,
                stale: (0, 0),
                last_byte: Nanos::ZERO,
                usd_per_gpu_hour: price,
                is_on_demand: sleeps,
                gpus: if pool.is_some() { spec.replicas * spec.gpus_per_replica } else { 0 },
                paid_until: None,
                billed_from: Nanos::ZERO,
                tally: Tally::default(),
            });
            for _ in 0..engine.servers.max(1) {
                server_of.push(backends.len() as u32 - 1);
                servers.push(Server::new(engine.curve.clone()));
            }
        }
        let mut sim = Self {
            gateways: (0..fleet.gateway.replicas.count()).map(gateway).collect(),
            slo: vec![Met::default(); fleet.models.len()],
            series: Series::new(backends.len()),
            setup,
            backends,
            servers,
            server_of,
            calls: Vec::new(),
            free: Vec::new(),
            due: BinaryHeap::new(),
            made: 0,
            now: Nanos::ZERO,
            dealer: Rng::seed_from_u64(setup.seed ^ 0x5eed),
            ticking: false,
            open: 0,
            requests: 0,
            failed: 0,
            failures: BTreeMap::new(),
            spilled: 0,
            fell_back: 0,
            wait: Durations::default(),
            ttft: Durations::default(),
            whole: Durations::default(),
            ended: Vec::new(),
            told: Vec::new(),
        };
        for (index, happening) in setup.happenings.iter().enumerate() {
            let index = index as u32;
            sim.at(happening.begins(), Due::Happening { index, ends: false });
            if let Some(end) = happening.ends() {
                sim.at(end, Due::Happening { index, ends: true });
            }
        }
        for gateway in 0..sim.gateways.len() as u32 {
            for (backend, spec) in fleet.backends.iter().enumerate() {
                if setup.scrape_every.is_some() && spec.metrics != outrigger_core::fleet::MetricsMode::None {
                    let at = sim.jittered_scrape();
                    sim.at(at, Due::Scrape { gateway, backend: backend as u32 });
                }
            }
        }
        sim.tick();
        sim
    }

    fn at(&mut self, at: Nanos, due: Due) {
        self.made += 1;
        self.due.push(Reverse((at, self.made, due)));
    }

    fn run_until(&mut self, until: Nanos) {
        while let Some(Reverse((at, _, _))) = self.due.peek()
            && *at <= until
        {
            let Some(Reverse((at, _, due))) = self.due.pop() else { return };
            self.now = at;
            self.happen(due);
        }
        self.now = self.now.max(until);
    }

    /// Plays on until every request is over. What recurs for ever is not waited for.
    fn finish(&mut self) {
        let patience = self.now + Duration::from_hours(24 * 30);
        while self.open > 0
            && let Some(Reverse((at, _, due))) = self.due.pop()
            && at <= patience
        {
            self.now = at;
            self.happen(due);
        }
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Happening { index, ends } => self.turn(index, ends),
            Due::Wake { server, number } => self.wake(server, number),
            Due::FirstToken { call, number } => self.first_token(call, number),
            Due::Deadline { call, number } => self.deadline(call, number),
            Due::Recheck { call, number } => self.recheck(call, number),
            Due::Probed { gateway, backend } => self.probed(gateway, backend),
            Due::Scrape { gateway, backend } => self.scrape(gateway, backend),
            Due::Tick => {
                self.ticking = false;
                self.tick();
            }
        }
    }

    fn arrive(&mut self, arrival: &Arrival, model: ModelId) {
        self.requests += 1;
        self.open += 1;
        let fleet = &self.setup.fleet;
        let n = self.gateways.len() as u64;
        let gateway = if n == 1 { 0 } else { ((u64::from(self.dealer.next_u32()) * n) >> 32) as u32 };
        let facts = Facts {
            stream: arrival.stream,
            prompt_tokens: arrival.prompt_tokens,
            body_bytes: Bytes(arrival.prompt_tokens.0 * BYTES_PER_TOKEN),
            affinity: arrival.session,
            patience: fleet.model(model).timeouts.first_token,
            ..Facts::anonymous(model, self.now)
        };
        let call = Call {
            facts,
            history: History::default(),
            output: arrival.output_tokens.0,
            gateway,
            number: 0,
            running: None,
        };
        let id = if let Some(id) = self.free.pop() {
            self.calls[id as usize] = Some(call);
            id
        } else {
            self.calls.push(Some(call));
            self.calls.len() as u32 - 1
        };
        self.decide(id);
    }

    fn decide(&mut self, id: u32) {
        let Some(call) = &mut self.calls[id as usize] else { return };
        let gateway = &mut self.gateways[call.gateway as usize];
        let decision = gateway.state.decide(&call.facts, &call.history, self.now, &mut gateway.rng, &mut ());
        call.history.waiting = false;
        match decision {
            Decision::Attempt(attempt) => self.start(id, attempt),
            Decision::Queue { until } => {
                call.history.waiting = true;
                call.number += 1;
                let number = call.number;
                gateway.waiting.push_back(id);
                let at = until.max(self.now + Duration::from_millis(1));
                self.at(at, Due::Recheck { call: id, number });
            }
            Decision::Reject(reject) => {
                let why = match call.history.last_fault {
                    Some(fault) if call.history.attempts() > 0 => fault.as_str(),
                    _ => reject.why.as_str(),
                };
                self.lose(id, why);
            }
        }
    }

    fn lose(&mut self, id: u32, why: &str) {
        self.failed += 1;
        *self.failures.entry(why.to_owned()).or_default() += 1;
        self.series.failed(self.now);
        self.close(id);
    }

    fn close(&mut self, id: u32) {
        self.calls[id as usize] = None;
        self.free.push(id);
        self.open -= 1;
    }

    fn start(&mut self, id: u32, attempt: Attempt) {
        let b = attempt.backend.index();
        let timeouts = self.timeouts(id, attempt.backend);
        let Some(call) = &mut self.calls[id as usize] else { return };
        call.number += 1;
        let number = call.number;
        let server = least_loaded(&self.servers, &self.backends[b]);
        call.running = Some(Running {
            attempt,
            server,
            started: self.now,
            admitted: None,
            first_token: None,
            is_stuck: false,
            stumbles: false,
        });
        let job = Job { id, prompt: call.facts.prompt_tokens.0, output: call.output.max(1) };
        let stream = call.facts.stream;
        self.wake_pool(b);
        self.pay_blocks(b);
        let backend = &mut self.backends[b];
        backend.tally.attempts += 1;
        let is_flaky = backend.flaky > 0.0 && f64::from(self.dealer.next_u32()) < backend.flaky * f64::from(u32::MAX);
        let over_rate = backend.rate_limit.as_mut().is_some_and(|limit| !take_one(limit, self.now));
        match backend.outage {
            Some(What::Hang) => {
                self.stick(id);
                let wait = if stream { timeouts.headers.min(timeouts.first_token) } else { timeouts.total };
                self.at(self.now + wait, Due::Deadline { call: id, number });
            }
            Some(_) => self.at(self.now + SOON, Due::Deadline { call: id, number }),
            None if over_rate || is_flaky => {
                if is_flaky {
                    self.stumble(id);
                }
                self.at(self.now + SOON, Due::Deadline { call: id, number });
            }
            None => {
                self.submit(server, job);
                let waits = self.calls[id as usize]
                    .as_ref()
                    .and_then(|c| c.running)
                    .is_some_and(|r| r.admitted.is_none() && stream);
                if waits && self.setup.engines[b].has_deadlines {
                    self.at(self.now + timeouts.first_token, Due::Deadline { call: id, number });
                }
                let waiting = self.servers[server as usize].waiting();
                let tally = &mut self.backends[b].tally;
                tally.most_waiting = tally.most_waiting.max(waiting);
            }
        }
    }

    fn timeouts(&self, id: u32, backend: BackendId) -> outrigger_core::fleet::Timeouts {
        let fleet = &self.setup.fleet;
        let model = self.calls[id as usize].as_ref().map_or(ModelId(0), |c| c.facts.model);
        fleet.model(model).timeouts.overridden_by(&fleet.backend(backend).timeouts)
    }

    fn stumble(&mut self, id: u32) {
        if let Some(running) = self.calls[id as usize].as_mut().and_then(|c| c.running.as_mut()) {
            running.stumbles = true;
        }
    }

    fn stick(&mut self, id: u32) {
        if let Some(running) = self.calls[id as usize].as_mut().and_then(|c| c.running.as_mut()) {
            running.is_stuck = true;
        }
    }

    fn submit(&mut self, server: u32, job: Job) {
        let mut told = std::mem::take(&mut self.told);
        self.servers[server as usize].submit(job, self.now, &mut |t| told.push(t));
        self.hear(server, &mut told);
        self.told = told;
    }

    /// Schedules what an engine told.
    fn hear(&mut self, server: u32, told: &mut Vec<Told>) {
        let mut i = 0;
        while i < told.len() {
            match told[i] {
                Told::Wake { at, number } => self.at(at, Due::Wake { server, number }),
                Told::Admitted { id, first_token } => {
                    let Some(call) = &mut self.calls[id as usize] else {
                        i += 1;
                        continue;
                    };
                    let number = call.number;
                    if let Some(running) = &mut call.running {
                        running.admitted = Some(self.now);
                    }
                    if first_token <= self.now {
                        let job = Job { id, prompt: 0, output: call.output.max(1) };
                        self.commit(id);
                        self.servers[server as usize].first_token(job, self.now, &mut |t| told.push(t));
                    } else {
                        self.at(first_token, Due::FirstToken { call: id, number });
                    }
                }
            }
            i += 1;
        }
        told.clear();
    }

    fn first_token(&mut self, id: u32, number: u32) {
        let Some(call) = self.calls[id as usize].as_ref().filter(|c| c.number == number) else { return };
        let Some(running) = call.running.filter(|r| !r.is_stuck) else { return };
        let job = Job { id, prompt: 0, output: call.output.max(1) };
        self.commit(id);
        let mut told = std::mem::take(&mut self.told);
        self.servers[running.server as usize].first_token(job, self.now, &mut |t| told.push(t));
        self.hear(running.server, &mut told);
        self.told = told;
    }

    /// The first content has come. A request that does not stream has none before its end.
    fn commit(&mut self, id: u32) {
        let Some(call) = &mut self.calls[id as usize] else { return };
        let Some(running) = &mut call.running else { return };
        running.first_token = Some(self.now);
        self.backends[running.attempt.backend.index()].last_byte = self.now;
        if call.facts.stream {
            let gateway = &mut self.gateways[call.gateway as usize];
            let event = Event::Committed { attempt: running.attempt.id };
            gateway.state.observe(event, self.now, &mut gateway.rng);
        }
    }

    fn wake(&mut self, server: u32, number: u64) {
        let mut ended = std::mem::take(&mut self.ended);
        let mut told = std::mem::take(&mut self.told);
        self.servers[server as usize].wake(number, self.now, &mut ended, &mut |t| told.push(t));
        self.hear(server, &mut told);
        self.told = told;
        for id in ended.drain(..) {
            self.serve(id);
        }
        self.ended = ended;
    }

    /// A request has its whole answer.
    fn serve(&mut self, id: u32) {
        let Some(call) = self.calls[id as usize].as_ref() else { return };
        let Some(running) = call.running else { return };
        let (facts, output, g) = (call.facts, call.output, call.gateway);
        let (attempt, b) = (running.attempt, running.attempt.backend.index());
        let gateway = &mut self.gateways[g as usize];
        if !facts.stream {
            let event = Event::Committed { attempt: attempt.id };
            gateway.state.observe(event, self.now, &mut gateway.rng);
        }
        let usage = Usage {
            prompt: facts.prompt_tokens,
            output: Tokens(output),
            cached: Tokens(0),
            source: TokensSource::Engine,
        };
        let event = Event::Ended { attempt: attempt.id, end: End::Ok, usage };
        gateway.state.observe(event, self.now, &mut gateway.rng);
        self.pay_blocks(b);
        let waiting = self.servers[running.server as usize].waiting();
        self.series.served(b, waiting, self.now);
        self.spilled += u64::from(attempt.reason == Reason::Spill);
        self.fell_back += u64::from(attempt.reason == Reason::Fallback);
        let spec = self.setup.fleet.backend(attempt.backend);
        let answer = output * if facts.stream { STREAMED_TOKEN } else { BYTES_PER_TOKEN };
        let moved = cost::of_transfer(&self.setup.fleet, attempt.backend, facts.body_bytes, Bytes(answer));
        let spent = cost::of_attempt(spec, &usage) + moved;
        let wait = running.admitted.unwrap_or(self.now).since(facts.arrived);
        let first = running.first_token.unwrap_or(self.now);
        let (ttft, whole) = (first.since(facts.arrived), self.now.since(facts.arrived));
        let backend = &mut self.backends[b];
        backend.last_byte = self.now;
        let tally = &mut backend.tally;
        tally.served += 1;
        tally.spilled += u64::from(attempt.reason == Reason::Spill);
        tally.prompt.0 += facts.prompt_tokens.0;
        tally.output.0 += output;
        tally.cost.tokens += spent.tokens;
        tally.cost.egress += spent.egress;
        tally.wait.record(wait);
        tally.whole.record(whole);
        self.wait.record(wait);
        self.whole.record(whole);
        if facts.stream {
            tally.ttft.record(ttft);
            self.ttft.record(ttft);
        }
        if self.series.is_new_step(self.now) {
            (0..self.backends.len()).for_each(|b| self.note_spent(b));
        }
        self.note_spent(b);
        self.meet(facts.model, ttft, self.now.since(first), output);
        self.close(id);
        self.headroom(g);
    }

    fn meet(&mut self, model: ModelId, ttft: Duration, decoding: Duration, output: u64) {
        let slo = self.setup.fleet.model(model).slo;
        let met = &mut self.slo[model.index()];
        if let Some(objective) = slo.ttft_p95 {
            met.ttft.0 += u64::from(ttft <= objective);
            met.ttft.1 += 1;
        }
        if let Some(objective) = slo.time_per_output_token_p95
            && output > 1
        {
            met.pace.0 += u64::from(decoding.as_secs_f64() / (output - 1) as f64 <= objective.as_secs_f64());
            met.pace.1 += 1;
        }
    }

    /// Something ended at this gateway: those who wait there decide again, in their order, while there is room.
    fn headroom(&mut self, g: u32) {
        let n = self.gateways[g as usize].waiting.len();
        for _ in 0..n {
            let Some(id) = self.gateways[g as usize].waiting.pop_front() else { return };
            let was = self.calls[id as usize].as_ref().is_some_and(|c| c.history.waiting);
            if !was {
                continue;
            }
            self.decide(id);
            let still = self.calls[id as usize].as_ref().is_some_and(|c| c.history.waiting);
            if still {
                // It went to the back of the line, where it does not belong.
                if let Some(back) = self.gateways[g as usize].waiting.pop_back() {
                    self.gateways[g as usize].waiting.push_front(back);
                }
                return;
            }
        }
    }

    fn recheck(&mut self, id: u32, number: u32) {
        let Some(call) = self.calls[id as usize].as_ref() else { return };
        if call.number != number || !call.history.waiting {
            return;
        }
        let g = call.gateway as usize;
        self.gateways[g].waiting.retain(|w| *w != id);
        self.decide(id);
    }

    /// An attempt has met a refusal, an error or its deadline.
    fn deadline(&mut self, id: u32, number: u32) {
        let Some(call) = self.calls[id as usize].as_ref().filter(|c| c.number == number) else { return };
        let Some(running) = call.running.filter(|r| r.first_token.is_none()) else { return };
        let backend = &self.backends[running.attempt.backend.index()];
        let in_queue = running.admitted.is_none() && self.now.since(running.started) > SOON;
        let fault = match backend.outage {
            _ if running.is_stuck && call.facts.stream => Failure::HeadersTimeout,
            _ if running.is_stuck => Failure::TotalTimeout,
            _ if running.admitted.is_some() => return,
            _ if in_queue => Failure::FirstTokenTimeout,
            Some(What::Outage) => Failure::Refused,
            Some(_) => Failure::Status(500),
            None if running.stumbles => Failure::Status(500),
            None => Failure::Overloaded { status: 429, retry_after: Some(Duration::from_secs(1)) },
        };
        if in_queue {
            let mut told = Vec::new();
            self.servers[running.server as usize].cancel(id, false, self.now, &mut |t| told.push(t));
            self.hear(running.server, &mut told);
        }
        self.fail(id, fault);
    }

    fn fail(&mut self, id: u32, fault: Failure) {
        let Some(call) = &mut self.calls[id as usize] else { return };
        let Some(running) = call.running.take() else { return };
        let backend = running.attempt.backend;
        let committed = running.first_token.is_some() && call.facts.stream;
        call.number += 1;
        if !committed {
            call.history.failed(backend, fault);
        }
        let g = call.gateway;
        let gateway = &mut self.gateways[g as usize];
        let usage = Usage::default();
        let event = Event::Ended { attempt: running.attempt.id, end: End::Failed(fault), usage };
        let effect = gateway.state.observe(event, self.now, &mut gateway.rng);
        self.backends[backend.index()].tally.failed_attempts += 1;
        if committed || fault == Failure::TotalTimeout {
            self.lose(id, fault.as_str());
        } else {
            self.decide(id);
        }
        if effect == Some(Effect::Abandon) {
            self.abandon(g, backend);
        }
        self.start_ticking();
        self.headroom(g);
    }

    /// The verdict is in: what this gateway has there, and has delivered nothing, goes elsewhere.
    fn abandon(&mut self, g: u32, backend: BackendId) {
        let stranded: Vec<u32> = (0..self.calls.len() as u32)
            .filter(|id| {
                self.calls[*id as usize].as_ref().is_some_and(|c| {
                    c.gateway == g && c.running.is_some_and(|r| r.attempt.backend == backend && r.first_token.is_none())
                })
            })
            .collect();
        for id in stranded {
            self.withdraw(id);
            self.fail(id, Failure::Abandoned);
        }
    }

    /// Takes an attempt out of its engine, where it is in one.
    fn withdraw(&mut self, id: u32) {
        let Some(running) = self.calls[id as usize].as_ref().and_then(|c| c.running) else { return };
        if running.is_stuck {
            return;
        }
        let mut told = Vec::new();
        let admitted = running.admitted.is_some();
        self.servers[running.server as usize].cancel(id, admitted, self.now, &mut |t| told.push(t));
        self.hear(running.server, &mut told);
    }

    fn report(mut self) -> Report {
        for b in 0..self.backends.len() {
            self.bill_until_now(b);
        }
        let fleet = &self.setup.fleet;
        let answered: u64 = self.backends.iter().map(|b| b.tally.served).sum();
        let backends: BTreeMap<String, BackendReport> = (fleet.backends.iter().zip(&self.backends))
            .zip(&self.setup.engines)
            .map(|((spec, backend), engine)| (spec.name.clone(), backend.tally.report(answered, engine.source.clone())))
            .collect();
        let mut total = cost::Cost::default();
        for backend in &self.backends {
            total.gpu += backend.tally.cost.gpu;
            total.tokens += backend.tally.cost.tokens;
            total.egress += backend.tally.cost.egress;
        }
        let share = |(met, of): (u64, u64)| (of > 0).then(|| met as f64 / of as f64);
        let slo = (fleet.models.iter().zip(&self.slo))
            .map(|(m, met)| {
                let report = SloReport { ttft: share(met.ttft), time_per_output_token: share(met.pace) };
                (m.name.clone(), report)
            })
            .collect();
        Report {
            seed: self.setup.seed,
            fleet: fleet.digest.clone(),
            requests: self.requests,
            failed: self.failed,
            failures: self.failures,
            spilled: self.spilled,
            fell_back: self.fell_back,
            duration_s: self.now.0 as f64 / 1e9,
            wait_ms: self.wait.summary(),
            ttft_ms: self.ttft.summary(),
            end_to_end_ms: self.whole.summary(),
            slo,
            cost_nano_usd: total,
            backends,
            series: self.series,
            series_names: fleet.backends.iter().map(|b| b.name.clone()).collect(),
            ttft_curve: self.ttft.curve(),
            end_to_end_curve: self.whole.curve(),
        }
    }
}

/// Takes one from a bucket of a second's worth. `false` when it is empty.
fn take_one((rate, since, tokens): &mut (f64, Nanos, f64), now: Nanos) -> bool {
    *tokens = (*tokens + now.since(*since).as_secs_f64() * *rate).min(rate.max(1.0));
    *since = now;
    let allowed = *tokens >= 1.0;
    if allowed {
        *tokens -= 1.0;
    }
    allowed
}

/// The engine of a backend with the fewest requests; the first of equals.
fn least_loaded(servers: &[Server], backend: &Backend) -> u32 {
    let live = backend.first_server..backend.first_server + backend.live_servers;
    live.min_by_key(|s| servers[*s as usize].load()).unwrap_or(backend.first_server)
}
