//! Pools on demand follow the load and what is paid for, on a virtual clock.
//!
//! The pool's engines are really there only while they are paid for and past their cold start: each step of GPUs is one
//! backend, drained as long as it sleeps. One backend before them is always there.

use std::{collections::VecDeque, time::Duration};

use outrigger_core::{
    Rng,
    facts::{Facts, History},
    fleet::{BackendId, CloudId, EnterWhen, Fleet, GpuCount, Pool, PoolId, PoolPrice, Replicas},
    record::{End, Usage},
    route::Decision,
    state::{
        AttemptId, Event, State,
        scaling::{Desired, END_OF_BLOCK, LEAST_IDLE, SUSTAINED, ScaleReason},
    },
    units::{NanoUsd, Nanos},
};
use proptest::prelude::*;
use rand_core::SeedableRng as _;

use crate::{
    fleets::{fleet, request},
    harness::Sim,
};

/// Slots of the backend that is always there, and of each step.
const SLOTS: u32 = 20;
/// How long every request runs.
const HOLD: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);

#[derive(Clone, Copy, Debug)]
struct Terms {
    gpus: GpuCount,
    block: Duration,
    cold_start: Duration,
}

const ONE_STEP: Terms =
    Terms { gpus: GpuCount { min: 0, max: 8, step: 8 }, block: HOUR, cold_start: Duration::from_mins(12) };

/// `b0` in the first tier, and in the second a backend for each step of the pool.
fn burst(terms: Terms) -> Fleet {
    let steps = (terms.gpus.max / terms.gpus.step) as usize;
    let mut fleet = fleet(&[&[1], &vec![1; steps]]);
    let price = PoolPrice::OnDemand {
        usd_per_gpu_hour: NanoUsd(4_000_000_000),
        billing_block: terms.block,
        cold_start: terms.cold_start,
    };
    fleet.pools.push(Pool {
        name: "burst".to_owned(),
        cloud: CloudId(1),
        gpu: "h100".to_owned(),
        gpus: terms.gpus,
        price,
        scale: None,
    });
    for (i, backend) in fleet.backends.iter_mut().enumerate() {
        backend.max_in_flight = Some(SLOTS);
        if i > 0 {
            (backend.pool, backend.gpus_per_replica) = (Some(PoolId(0)), terms.gpus.step);
        }
    }
    fleet
}

/// A fleet under load, and every change of what was desired.
struct Run {
    terms: Terms,
    state: State,
    rng: Rng,
    now: Nanos,
    in_flight: VecDeque<(Nanos, AttemptId)>,
    changes: Vec<Desired>,
    desired: Desired,
    /// When each step is there.
    arrivals: Vec<Nanos>,
    rejected: u32,
}

impl Run {
    fn new(terms: Terms) -> Self {
        let mut rng = Rng::seed_from_u64(1);
        // Not at a round time, so that nothing holds by chance.
        let now = Nanos::from_millis(1_234_567);
        let mut state = State::new(burst(terms).into(), now, &mut rng);
        let desired = state.desired(now)[0];
        let mut run = Self {
            terms,
            state,
            rng,
            now,
            in_flight: VecDeque::new(),
            changes: Vec::new(),
            desired,
            arrivals: vec![now; (terms.gpus.min / terms.gpus.step) as usize],
            rejected: 0,
        };
        run.follow();
        run
    }

    /// `rate` requests a second for this time.
    fn load(&mut self, rate: u32, time: Duration) {
        const STEP: Duration = Duration::from_millis(100);
        let until = self.now + time;
        let mut owed = 0.0;
        while self.now < until {
            self.now = self.now + STEP;
            while self.in_flight.front().is_some_and(|(end, _)| *end <= self.now) {
                let (_, attempt) = self.in_flight.pop_front().expect("just looked at");
                let ended = Event::Ended { attempt, end: End::Ok, usage: Usage::default() };
                self.state.observe(Event::Committed { attempt }, self.now, &mut self.rng);
                self.state.observe(ended, self.now, &mut self.rng);
            }
            owed += f64::from(rate) / 10.0;
            while owed >= 1.0 {
                owed -= 1.0;
                self.request();
            }
            // As the gateway asks, and a little more often.
            if (self.now.0 / 1_000_000) % 2_000 < 100 {
                self.look();
            }
            self.follow();
        }
    }

    fn request(&mut self) {
        let facts = Facts { stream: false, patience: Duration::ZERO, ..request(self.now) };
        let history = History::default();
        let decision = self.state.decide(&facts, &history, self.now, &mut self.rng, &mut ());
        self.state.note_decision(&facts, &history, &decision, self.now);
        match decision {
            Decision::Attempt(attempt) => self.in_flight.push_back((self.now + HOLD, attempt.id)),
            Decision::Reject(_) => self.rejected += 1,
            Decision::Queue { .. } => panic!("there is no patience"),
        }
    }

    fn look(&mut self) {
        let desired = self.state.desired(self.now)[0];
        if desired != self.desired {
            self.check(desired);
            self.changes.push(desired);
            self.desired = desired;
        }
    }

    /// What holds of every change, whatever the load was.
    fn check(&mut self, new: Desired) {
        let Terms { gpus, block, cold_start } = self.terms;
        let since = new.since.expect("it changed");
        assert!((gpus.min..=gpus.max).contains(&new.gpus) && new.gpus.is_multiple_of(gpus.step), "{new:?}");
        assert_eq!(new.gpus.abs_diff(self.desired.gpus), gpus.step, "one step at a time: {new:?}");
        assert_eq!(new.replicas, new.gpus / gpus.step);
        if let Some(before) = self.changes.iter().rfind(|c| c.gpus > gpus.min && c.reason != ScaleReason::NotNeeded)
            && new.gpus > self.desired.gpus
        {
            let apart = since.since(before.since.expect("it changed"));
            assert!(apart >= SUSTAINED + cold_start, "{apart:?} after the step before");
        }
        let steps = self.arrivals.len();
        if new.gpus > self.desired.gpus {
            self.arrivals.push(since + cold_start);
            return;
        }
        // Some step's block ends now.
        let first = (gpus.min / gpus.step) as usize;
        let ends = |arrival: &Nanos| {
            let into = since.since(*arrival) + cold_start;
            block <= END_OF_BLOCK || into.as_nanos() % block.as_nanos() >= block.saturating_sub(END_OF_BLOCK).as_nanos()
        };
        let at = (first..steps).find(|i| ends(&self.arrivals[*i]));
        self.arrivals.remove(at.unwrap_or_else(|| panic!("inside a paid block: {new:?}")));
    }

    /// As many of the pool's backends are there as are paid for and have started.
    fn follow(&mut self) {
        let there = self.arrivals.iter().filter(|at| **at <= self.now).count();
        for i in 1..self.state.fleet().backends.len() {
            self.state.set_drained(BackendId(i as u16), i > there);
        }
    }

    /// The GPUs after each change.
    fn gpus(&self) -> Vec<u32> {
        self.changes.iter().map(|c| c.gpus).collect()
    }
}

#[test]
fn a_pool_wakes_within_61_seconds_of_a_shortage_and_not_before_one() {
    let mut run = Run::new(ONE_STEP);
    run.load(15, Duration::from_mins(10));
    assert_eq!((run.gpus(), run.desired.reason), (Vec::<u32>::new(), ScaleReason::Minimum), "there is room for 20");
    let from = run.now;
    run.load(30, Duration::from_secs(65));
    assert_eq!(run.gpus(), [8]);
    let took = run.desired.since.unwrap().since(from);
    assert!((SUSTAINED..=Duration::from_secs(61)).contains(&took), "{took:?}");
    assert_eq!(run.desired.reason, ScaleReason::Saturated);
}

#[test]
fn what_spills_into_a_pool_wakes_it_and_what_fits_there_asks_for_no_more() {
    let two = Terms { gpus: GpuCount { min: 0, max: 16, step: 8 }, cold_start: Duration::ZERO, ..ONE_STEP };
    let mut run = Run::new(two);
    // Its engines answer although nobody asked for them.
    run.arrivals = vec![run.now];
    run.follow();
    run.load(30, Duration::from_secs(70));
    assert_eq!((run.gpus(), run.desired.reason), (vec![8], ScaleReason::Spill));
    run.arrivals.pop();
    run.load(30, Duration::from_mins(30));
    assert_eq!(run.gpus(), [8], "ten of each second's thirty go there, and it has room for twenty");
    run.load(50, Duration::from_secs(70));
    assert_eq!(run.gpus(), [8, 16], "now it is full too");
    assert_eq!(run.rejected > 0, run.desired.reason == ScaleReason::Saturated);
}

#[test]
fn the_next_step_waits_for_the_one_before_to_arrive() {
    let more = Terms { gpus: GpuCount { min: 0, max: 32, step: 8 }, ..ONE_STEP };
    let mut run = Run::new(more);
    run.load(95, HOUR);
    // 95 at once need four more times 20 slots: one step after 1 minute, each next one 13 minutes later.
    assert_eq!(run.gpus(), [8, 16, 24, 32]);
    let minutes: Vec<u64> =
        run.changes.iter().map(|c| c.since.unwrap().since(Nanos::from_millis(1_234_567)).as_secs() / 60).collect();
    assert_eq!(minutes, [1, 14, 27, 40]);
}

#[test]
fn a_short_peak_wakes_nobody() {
    let mut run = Run::new(ONE_STEP);
    for _ in 0..20 {
        run.load(60, Duration::from_secs(40));
        run.load(10, Duration::from_secs(30));
    }
    assert_eq!(run.gpus(), [0; 0]);
    run.load(0, Duration::from_mins(10));
    run.load(60, Duration::from_secs(40));
    assert_eq!(run.gpus(), [0; 0]);
}

#[test]
fn a_pool_sleeps_at_the_end_of_its_block_once_the_rest_would_do() {
    let mut run = Run::new(ONE_STEP);
    run.load(30, Duration::from_mins(20));
    let woken = run.desired.since.unwrap();
    // 15 of 20 slots: the rest would do from here on, and has to for a whole block.
    run.load(15, Duration::from_hours(3));
    assert_eq!(run.gpus(), [8, 0]);
    assert_eq!((run.desired.reason, run.desired.replicas), (ScaleReason::NotNeeded, 0));
    let paid = run.desired.since.unwrap().since(woken);
    assert!(paid <= 2 * HOUR && paid + END_OF_BLOCK >= 2 * HOUR, "{paid:?}");
}

#[test]
fn what_is_billed_by_the_second_is_still_kept_for_some_minutes() {
    let by_second = Terms { block: Duration::from_secs(1), cold_start: Duration::from_mins(2), ..ONE_STEP };
    let mut run = Run::new(by_second);
    run.load(30, Duration::from_mins(10));
    let from = run.now;
    run.load(5, Duration::from_mins(20));
    assert_eq!(run.gpus(), [8, 0]);
    let kept = run.desired.since.unwrap().since(from);
    assert!((LEAST_IDLE..LEAST_IDLE + Duration::from_secs(25)).contains(&kept), "{kept:?}");
}

#[test]
fn a_constant_load_never_flaps() {
    // Around the border of what fits without the pool, which is 20, and of nine tenths of it.
    for rate in [17, 18, 19, 20, 21, 22, 30, 39] {
        let mut run = Run::new(Terms { block: Duration::from_mins(10), ..ONE_STEP });
        run.load(rate, Duration::from_hours(1));
        assert!(run.changes.len() <= 1, "{rate}: {:?}", run.changes);
        assert_eq!(run.changes.len() == 1, rate > 20, "{rate}");
    }
}

#[test]
fn requests_that_wait_for_longer_than_the_pools_tier_allows_wake_it_although_they_are_served() {
    let mut fleet = burst(ONE_STEP);
    fleet.models[0].tiers[1].enter_when = Some(EnterWhen { wait_above: Duration::from_millis(100) });
    let mut sim = Sim::new(fleet, 1);
    for i in 0..2 {
        sim.engine(Nanos::ZERO, &format!("b{i}"), crate::harness::Engine::Serves { first: 1_000, last: 1_000 });
    }
    sim.replicas[0].state.set_drained(BackendId(1), true);
    sim.traffic(request(Nanos::ZERO), 25, Nanos::ZERO, Nanos::from_secs(70), &mut Rng::seed_from_u64(1));
    sim.run(Nanos::from_secs(70));
    let desired = sim.replicas[0].state.desired(sim.now)[0];
    assert_eq!(desired.gpus, 8, "{desired:?}");
}

#[test]
fn a_backend_that_is_down_is_no_lack_of_room() {
    let mut run = Run::new(ONE_STEP);
    run.state.set_drained(BackendId(0), true);
    run.arrivals = vec![run.now];
    run.follow();
    run.load(15, Duration::from_mins(5));
    assert_eq!((run.gpus(), run.rejected), (Vec::<u32>::new(), 0));
}

#[test]
fn only_ranges_on_demand_are_scaled() {
    let fixed = Terms { gpus: GpuCount { min: 8, max: 8, step: 8 }, ..ONE_STEP };
    let mut rng = Rng::seed_from_u64(1);
    let mut state = State::new(burst(fixed).into(), Nanos::ZERO, &mut rng);
    assert_eq!(state.desired(Nanos(1)), []);
}

#[test]
fn a_reload_keeps_what_was_asked_for_by_the_pools_name() {
    let mut run = Run::new(Terms { gpus: GpuCount { min: 0, max: 16, step: 8 }, ..ONE_STEP });
    run.load(30, Duration::from_secs(30));
    // Half of the minute is over before the reload, and counts.
    let mut next = run.state.fleet().as_ref().clone();
    next.pools.insert(0, Pool { name: "other".to_owned(), ..next.pools[0].clone() });
    next.backends.iter_mut().filter_map(|b| b.pool.as_mut()).for_each(|pool| pool.0 += 1);
    run.state = run.state.clone().under(next.clone().into(), run.now, &mut run.rng);
    run.state.set_drained(BackendId(1), true);
    run.state.set_drained(BackendId(2), true);
    let before = run.now;
    while run.now < before + Duration::from_secs(31) {
        run.now = run.now + Duration::from_millis(40);
        run.request();
    }
    let gpus = |state: &mut State, now: Nanos| -> Vec<u32> { state.desired(now).iter().map(|d| d.gpus).collect() };
    assert_eq!(gpus(&mut run.state, run.now), [0, 8], "nobody uses the other");
    // What it may have changes, and what it has with it.
    next.pools[1].gpus = GpuCount { min: 12, max: 24, step: 4 };
    let state = run.state.clone().under(next.clone().into(), run.now, &mut run.rng);
    assert_eq!(gpus(&mut state.clone(), run.now), [0, 12]);
    next.pools[1].name = "new".to_owned();
    next.pools[1].gpus = GpuCount { min: 0, max: 16, step: 8 };
    let mut state = state.under(next.into(), run.now, &mut run.rng);
    assert_eq!(gpus(&mut state, run.now), [0, 0], "a new name is a new pool");
}

#[test]
fn what_was_asked_for_survives_being_written_down() {
    let mut run = Run::new(ONE_STEP);
    run.load(30, Duration::from_mins(20));
    let text = serde_json::to_string(run.state.observed()).unwrap();
    let mut again = State::restore(run.state.fleet().clone(), serde_json::from_str(&text).unwrap()).unwrap();
    assert_eq!(again.desired(run.now), run.state.desired(run.now));
    let text = serde_json::to_string(run.state.observed().scaling.pools()).unwrap();
    let mut restarted = State::new(run.state.fleet().clone(), run.now, &mut run.rng);
    restarted.restore_scaling(&serde_json::from_str::<Vec<_>>(&text).unwrap(), run.now);
    assert_eq!(restarted.desired(run.now), run.state.desired(run.now));
    // A state from before there was any scaling, and one of another fleet.
    let mut old = serde_json::to_value(run.state.observed()).unwrap();
    old.as_object_mut().unwrap().remove("scaling");
    assert!(State::restore(run.state.fleet().clone(), serde_json::from_value(old).unwrap()).is_some());
    let mut other = run.state.fleet().as_ref().clone();
    other.pools.clear();
    other.backends.iter_mut().for_each(|b| b.pool = None);
    assert!(State::restore(other.into(), run.state.observed().clone()).is_none());
}

#[test]
fn several_gateways_see_the_same_shortage() {
    let mut fleet = burst(ONE_STEP);
    fleet.gateway.replicas = Replicas::Count(2);
    let mut sim = Sim::new(fleet, 1);
    for replica in &mut sim.replicas {
        replica.state.set_drained(BackendId(1), true);
    }
    sim.engine(Nanos::ZERO, "b0", crate::harness::Engine::Serves { first: 1_000, last: 1_000 });
    let facts = Facts { patience: Duration::ZERO, ..request(Nanos::ZERO) };
    sim.traffic(facts, 40, Nanos::ZERO, Nanos::from_secs(90), &mut Rng::seed_from_u64(1));
    sim.run(Nanos::from_secs(90));
    for replica in &mut sim.replicas {
        assert_eq!(replica.state.desired(sim.now)[0].gpus, 8);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// Never outside its range, one step at a time, upwards at most once a minute, never inside a paid block; the same
    /// load twice gives the same changes.
    #[test]
    fn whatever_the_load_the_rules_hold(
        min in 0_u32..3,
        more in 1_u32..4,
        step in prop::sample::select(vec![1_u32, 4, 8]),
        block in prop::sample::select(vec![1_u64, 60, 600, 3_600]),
        cold_start in prop::sample::select(vec![0_u64, 30, 300]),
        phases in proptest::collection::vec((0_u32..90, 20_u64..900), 1..6),
    ) {
        let terms = Terms {
            gpus: GpuCount { min: min * step, max: (min + more) * step, step },
            block: Duration::from_secs(block),
            cold_start: Duration::from_secs(cold_start),
        };
        let changes = || {
            let mut run = Run::new(terms);
            for (rate, seconds) in &phases {
                run.load(*rate, Duration::from_secs(*seconds));
            }
            run.changes
        };
        // The rules are asserted at every change.
        let first = changes();
        prop_assert_eq!(first, changes());
    }
}
