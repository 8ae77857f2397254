//! The loop: the next arrival or the next event, whichever is earlier, until nothing is left.

mod bill;
mod failing;
mod places;
mod pools;
mod request;
mod trouble;
mod watch;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use outrigger_core::{
    Rng,
    cost::Cost,
    facts::{Facts, History},
    fleet::{MetricsMode, ModelId},
    route::Attempt,
    state::State,
    units::{NanoUsd, Nanos},
    waiting::Place,
};
use rand_core::SeedableRng as _;

use self::{bill::Rent, places::Gateway, pools::Pool};
use super::{
    Setup,
    engine::{Server, Told},
    happening::{Metrics, What},
    report::{BackendReport, Durations, PlaceReport, Plots, Report, Series, SloReport, Tally},
};
use crate::trace::Arrival;

/// While anything is wrong, silence is looked for and probes are taken this often, as the live gateway does.
const TICK: Duration = Duration::from_millis(100);
/// What a probe and a refusal take.
const SOON: Duration = Duration::from_millis(20);

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
    /// The pools on demand follow what the gateways ask for.
    Scale,
    /// A step of a pool has started.
    Up {
        pool: u32,
        step: u64,
    },
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
    /// In its gateway's line.
    place: Option<Place>,
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
struct Backend {
    first_server: u32,
    servers: u32,
    /// Those that have started. The others are not rented, or not up yet.
    up_servers: u32,
    /// Of the servers, the share that its cloud has room for.
    capacity: f64,
    outage: Option<What>,
    rate_limit: Option<(f64, Nanos, f64)>,
    /// Share of the requests that get a 500.
    flaky: f64,
    metrics: Metrics,
    stale: (u32, u32),
    last_byte: Nanos,
    usd_per_gpu_hour: NanoUsd,
    rent: Rent,
    tally: Tally,
}

impl Backend {
    /// Engines that take requests.
    fn live_servers(&self) -> u32 {
        let room = (f64::from(self.servers) * self.capacity).round() as u32;
        self.up_servers.min(if self.capacity > 0.0 { room.max(1) } else { 0 })
    }

    /// What a request meets there instead of an engine.
    fn trouble(&self) -> Option<What> {
        self.outage.or((self.live_servers() == 0).then_some(What::Outage))
    }
}

struct Sim<'a> {
    setup: &'a Setup,
    gateways: Vec<Gateway>,
    backends: Vec<Backend>,
    /// Those whose GPUs come and go.
    pools: Vec<Pool>,
    servers: Vec<Server>,
    server_of: Vec<u32>,
    calls: Vec<Option<Call>>,
    free: Vec<u32>,
    due: BinaryHeap<Reverse<(Nanos, u64, Due)>>,
    made: u64,
    now: Nanos,
    dealer: Rng,
    next_tick: Option<Nanos>,
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
    places: Vec<PlaceReport>,
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
        let (mut servers, mut server_of, mut backends) = (Vec::new(), Vec::new(), Vec::new());
        for (b, engine) in setup.engines.iter().enumerate() {
            let count = engine.servers.max(1);
            backends.push(Backend::new(setup, b, servers.len() as u32, count));
            server_of.resize(servers.len() + count as usize, b as u32);
            servers.resize_with(server_of.len(), || Server::new(engine.curve.clone()));
        }
        let mut sim = Self {
            gateways: places::gateways(setup),
            pools: pools::of(setup),
            slo: vec![Met::default(); setup.fleet.models.len()],
            places: vec![PlaceReport::default(); setup.places.len()],
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
            next_tick: None,
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
        sim.plan_ahead();
        sim
    }

    /// What is due whatever the requests are.
    fn plan_ahead(&mut self) {
        for (index, happening) in self.setup.happenings.iter().enumerate() {
            let index = index as u32;
            self.at(happening.begins(), Due::Happening { index, ends: false });
            if let Some(end) = happening.ends() {
                self.at(end, Due::Happening { index, ends: true });
            }
        }
        let reads = |metrics| self.setup.scrape_every.is_some() && metrics != MetricsMode::None;
        for gateway in 0..self.gateways.len() as u32 {
            for (backend, spec) in self.setup.fleet.backends.iter().enumerate() {
                if reads(spec.metrics) {
                    let at = self.jittered_scrape();
                    self.at(at, Due::Scrape { gateway, backend: backend as u32 });
                }
            }
        }
        if !self.pools.is_empty() {
            (0..self.pools.len()).for_each(|pool| self.seat(pool));
            self.at(self.now, Due::Scale);
        }
        self.tick();
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
            Due::Wake { server } => self.wake(server),
            Due::FirstToken { call, number } => self.first_token(call, number),
            Due::Deadline { call, number } => self.deadline(call, number),
            Due::Recheck { call, number } => self.recheck(call, number),
            Due::Probed { gateway, backend } => self.probed(gateway, backend),
            Due::Scrape { gateway, backend } => self.scrape(gateway, backend),
            Due::Tick if self.next_tick == Some(self.now) => {
                self.next_tick = None;
                self.tick();
            }
            Due::Tick => {}
            Due::Scale => self.follow_load(),
            Due::Up { pool, step } => self.step_up(pool as usize, step),
        }
    }

    fn report(mut self) -> Report {
        self.settle();
        let fleet = &self.setup.fleet;
        let answered: u64 = self.backends.iter().map(|b| b.tally.served).sum();
        let backends: BTreeMap<String, BackendReport> = (fleet.backends.iter().zip(&self.backends))
            .zip(&self.setup.engines)
            .map(|((spec, backend), engine)| (spec.name.clone(), backend.tally.report(answered, engine.source.clone())))
            .collect();
        let total = self.backends.iter().map(|b| b.tally.cost).fold(Cost::default(), |all, cost| all + cost);
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
            places: self.setup.places.iter().map(|p| p.name.clone()).zip(self.places).collect(),
            plots: Plots {
                series: self.series,
                backends: fleet.backends.iter().map(|b| b.name.clone()).collect(),
                ttft: self.ttft.curve(),
                end_to_end: self.whole.curve(),
            },
        }
    }
}
