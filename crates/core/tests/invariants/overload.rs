//! More requests than there are places: who waits, who goes first, and who is told to come back, and when.

use std::time::Duration;

use outrigger_core::{
    Rng,
    facts::{Facts, History},
    fleet::{Fleet, Priority},
    record::{End, TokensSource, Usage},
    route::{Attempt, Decision, RejectReason},
    state::{AttemptId, Event, State},
    units::{Nanos, Tokens},
};
use rand_core::{Rng as _, SeedableRng as _};

use crate::{
    fleets::{fleet, replicas, request},
    harness::{Engine, Sim},
};

const OBJECTIVE: Duration = Duration::from_millis(800);

/// One backend of so many places, each held for a second; what a request waits shows in its first attempt.
fn one(places: u32) -> Fleet {
    let mut fleet = fleet(&[&[1]]);
    fleet.backends[0].max_in_flight = Some(places);
    fleet.models[0].slo.ttft_p95 = Some(OBJECTIVE);
    fleet
}

/// The same, where answers are of all lengths, a second on average: else what began together ends together for ever.
fn of_all_lengths(fleet: Fleet, seconds: u64, dealer: &mut Rng) -> Sim {
    let mut sim = sim_of(fleet);
    for at in 0..seconds * 20 {
        let last = 200 + u64::from(dealer.next_u32() % 1_601);
        sim.engine(Nanos::from_millis(at * 50), "b0", Engine::Serves { first: 100, last });
    }
    sim
}

fn sim_of(fleet: Fleet) -> Sim {
    let mut sim = Sim::new(fleet, 1);
    sim.engine(Nanos::ZERO, "b0", Engine::Serves { first: 100, last: 1_000 });
    sim
}

fn with(priority: Priority, at: Nanos) -> Facts {
    Facts { priority, ..request(at) }
}

/// Independent arrivals, on average so many in a second.
fn poisson(sim: &mut Sim, priority: Priority, per_second: f64, from: u64, to: u64, dealer: &mut Rng) -> Vec<usize> {
    let mut calls = Vec::new();
    let mut at = from as f64;
    loop {
        let unit = (f64::from(dealer.next_u32()) + 1.0) / 4_294_967_297.0;
        at -= unit.ln() / per_second;
        if at >= to as f64 {
            return calls;
        }
        calls.push(sim.arrive(with(priority, Nanos((at * 1e9) as u64)), 0, false));
    }
}

/// How long each of these waited that was served, in order of time.
fn waits(sim: &Sim, calls: &[usize]) -> Vec<Duration> {
    let first = |call: &usize| sim.log.iter().find(|line| line.call == *call).map(|line| line.at);
    calls.iter().filter_map(|call| Some(first(call)?.since(sim.calls[*call].facts.arrived))).collect()
}

fn quantile(mut of: Vec<Duration>, q: f64) -> Duration {
    of.sort_unstable();
    of[((of.len() - 1) as f64 * q) as usize]
}

#[test]
fn a_place_goes_to_the_highest_priority_and_then_to_who_came_first() {
    let mut sim = sim_of(one(1));
    let at = |ms| Nanos::from_millis(ms);
    let order = [
        (Priority::Normal, 0),
        (Priority::Low, 10),
        (Priority::Normal, 20),
        (Priority::High, 30),
        (Priority::Normal, 25),
        (Priority::High, 40),
    ];
    let calls = order.map(|(priority, ms)| sim.arrive(with(priority, at(ms)), 0, false));
    sim.run(Nanos::from_secs(30));
    let served: Vec<usize> = sim.log.iter().map(|line| line.call).collect();
    assert_eq!(served, [calls[0], calls[3], calls[5], calls[2], calls[4], calls[1]]);
    sim.assert_idle();
}

#[test]
fn a_newcomer_does_not_overtake_those_who_wait() {
    let mut sim = sim_of(one(3));
    let mut dealer = Rng::seed_from_u64(5);
    let calls = poisson(&mut sim, Priority::Normal, 4.0, 0, 120, &mut dealer);
    sim.run(Nanos::from_secs(180));
    let starts: Vec<usize> = sim.log.iter().map(|line| line.call).collect();
    assert!(starts.is_sorted(), "equals are served in the order of their arrival");
    assert!(waits(&sim, &calls).iter().any(|wait| *wait > Duration::from_millis(200)), "some had to wait");
    sim.assert_idle();
}

#[test]
fn a_line_that_is_full_turns_away_the_last_of_the_lowest_for_one_that_is_higher() {
    let mut fleet = one(1);
    fleet.models[0].queue.max_waiting = 3;
    let mut sim = sim_of(fleet);
    let at = |ms| Nanos::from_millis(ms);
    let first = sim.arrive(with(Priority::Normal, at(0)), 0, false);
    let low = [1, 2, 3].map(|ms| sim.arrive(with(Priority::Low, at(ms)), 0, false));
    let late = sim.arrive(with(Priority::Low, at(4)), 0, false);
    let high = sim.arrive(with(Priority::High, at(5)), 0, false);
    sim.run(at(6));
    assert_eq!(sim.calls[late].rejected, Some(RejectReason::Saturated), "nobody is below it");
    assert_eq!(sim.calls[low[2]].rejected, Some(RejectReason::Saturated), "the last of the lowest");
    sim.run(Nanos::from_secs(30));
    let served: Vec<usize> = sim.log.iter().map(|line| line.call).collect();
    assert_eq!(served, [first, high, low[0], low[1]]);
    sim.assert_idle();
}

#[test]
fn a_burst_may_wait_for_its_whole_patience_and_a_line_that_stands_may_not() {
    // The first of each second find a place, so that the time that one is held is known before the crowd comes.
    let mut dealer = Rng::seed_from_u64(2);
    let mut sim = of_all_lengths(one(10), 180, &mut dealer);
    poisson(&mut sim, Priority::Normal, 2.0, 0, 30, &mut dealer);
    // Thirty at once are gone after three seconds: a burst, and within everybody's patience.
    let burst: Vec<usize> = (0..30).map(|_| sim.arrive(request(Nanos::from_secs(30)), 0, false)).collect();
    sim.run(Nanos::from_secs(60));
    assert!(burst.iter().all(|call| sim.calls[*call].rejected.is_none()), "a burst is served");
    // Three times what is possible, for a minute.
    let crowd = poisson(&mut sim, Priority::Normal, 30.0, 60, 120, &mut dealer);
    sim.run(Nanos::from_secs(180));
    let settled: Vec<usize> =
        crowd.iter().copied().filter(|call| sim.calls[*call].facts.arrived > Nanos::from_secs(70)).collect();
    let waited = waits(&sim, &settled);
    assert!(quantile(waited.clone(), 1.0) <= OBJECTIVE / 2 + Duration::from_millis(150), "{:?}", quantile(waited, 1.0));
    let served = waits(&sim, &crowd).len();
    assert!((590..=640).contains(&served), "the ten places are in use all the time: {served} of 600");
    sim.assert_idle();
}

#[test]
fn a_high_priority_does_not_feel_ten_times_the_low_one() {
    let p95_with = |low: f64| {
        let mut dealer = Rng::seed_from_u64(9);
        let mut sim = of_all_lengths(one(40), 400, &mut dealer);
        let high = poisson(&mut sim, Priority::High, 16.0, 0, 300, &mut dealer);
        poisson(&mut sim, Priority::Low, low, 0, 300, &mut dealer);
        sim.run(Nanos::from_secs(400));
        sim.assert_idle();
        let settled: Vec<usize> =
            high.into_iter().filter(|call| sim.calls[*call].facts.arrived > Nanos::from_secs(60)).collect();
        let waited = waits(&sim, &settled);
        assert_eq!(waited.len(), settled.len(), "all of high priority are served");
        (quantile(waited, 0.95), sim.log.len())
    };
    let (alone, _) = p95_with(8.0);
    let (crowded, served) = p95_with(80.0);
    assert_eq!((alone, crowded), (Duration::ZERO, Duration::ZERO));
    // What the higher leave is used: 40 a second are possible, and places are kept free for those above.
    assert!(served > 300 * 27, "{served}");
}

/// A backend whose places are all taken and whose time is known, for questions about one more request.
struct Full {
    state: State,
    rng: Rng,
    held: Vec<AttemptId>,
    now: Nanos,
}

impl Full {
    fn new(fleet: Fleet, places: usize) -> Self {
        let mut rng = Rng::seed_from_u64(3);
        let state = State::new(fleet.into(), Nanos::ZERO, &mut rng);
        let mut full = Self { state, rng, held: Vec::new(), now: Nanos::from_secs(1) };
        // One that took a second says how long a place is held.
        let Decision::Attempt(Attempt { id, .. }) = full.ask(full.now) else { panic!("the backend is idle") };
        full.now = Nanos::from_secs(2);
        full.end(id);
        for _ in 0..places {
            let Decision::Attempt(Attempt { id, .. }) = full.ask(full.now) else { panic!("there are places") };
            full.held.push(id);
        }
        full
    }

    /// What becomes of a request that comes at `at`.
    fn ask(&mut self, at: Nanos) -> Decision {
        self.state.decide(&request(at), &History::default(), at, &mut self.rng, &mut ())
    }

    fn end(&mut self, attempt: AttemptId) {
        let usage = Usage { prompt: Tokens(200), output: Tokens(100), cached: Tokens(0), source: TokensSource::Engine };
        self.state.observe(Event::Committed { attempt }, self.now, &mut self.rng);
        self.state.observe(Event::Ended { attempt, end: End::Ok, usage }, self.now, &mut self.rng);
    }

    /// The line moves on as fast as it is expected to: those in front are served and end.
    fn turn(&mut self, after: Duration) {
        self.now = self.now + after;
        let head = self.held.remove(0);
        self.end(head);
        // The first in line takes the place.
        let history = {
            let mut history = History::default();
            history.waits(Nanos(u64::MAX));
            history
        };
        let facts = request(Nanos::from_secs(2));
        let decision = self.state.decide(&facts, &history, self.now, &mut self.rng, &mut ());
        let Decision::Attempt(Attempt { id, .. }) = decision else { panic!("a place is free: {decision:?}") };
        self.held.push(id);
    }
}

#[test]
fn the_time_to_come_back_is_the_first_at_which_a_request_is_let_in() {
    let mut fleet = one(10);
    fleet.models[0].slo.ttft_p95 = None;
    let mut full = Full::new(fleet, 10);
    let patience = request(full.now).patience;
    // Ten a second and ten seconds of patience: the hundredth waits just as long as it may.
    for n in 1..=100 {
        assert!(matches!(full.ask(full.now), Decision::Queue { .. }), "number {n} waits");
    }
    let Decision::Reject(turned_away) = full.ask(full.now) else { panic!("the next would wait in vain") };
    assert_eq!(patience, Duration::from_secs(10));
    let after = turned_away.retry_after.expect("it is known");
    assert!(after.abs_diff(Duration::from_millis(100)) < Duration::from_millis(2), "one turn: {after:?}");
    // Before that time the answer is the same, and then it is not.
    let early = full.now + after / 2;
    assert!(matches!(full.ask(early), Decision::Reject(_)));
    full.turn(after);
    assert!(matches!(full.ask(full.now), Decision::Queue { .. }));
}

#[test]
fn one_that_comes_far_too_late_is_told_so() {
    let mut fleet = one(10);
    fleet.models[0].slo.ttft_p95 = None;
    fleet.models[0].queue.max_waiting = 1_000;
    let mut full = Full::new(fleet, 10);
    for _ in 0..100 {
        full.ask(full.now);
    }
    // Half of the places have gone: what is in line now takes twice as long.
    let mut smaller = (**full.state.fleet()).clone();
    smaller.backends[0].max_in_flight = Some(5);
    full.state = full.state.clone().under(smaller.into(), full.now, &mut full.rng);
    let Decision::Reject(turned_away) = full.ask(full.now) else { panic!("it would wait in vain") };
    let after = turned_away.retry_after.expect("it is known").as_secs_f64();
    assert!((after - 10.2).abs() < 0.05, "101 at five a second, less ten seconds of patience: {after}");
}

#[test]
fn replicas_together_keep_to_one_limit() {
    for (gateways, limit) in [(1, 40), (4, 40), (4, 42), (3, 40)] {
        let mut fleet = replicas(one(limit), gateways);
        fleet.models[0].slo.ttft_p95 = None;
        let mut sim = sim_of(fleet);
        let mut dealer = Rng::seed_from_u64(u64::from(gateways));
        sim.traffic(request(Nanos::ZERO), 120, Nanos::ZERO, Nanos::from_secs(20), &mut dealer);
        let mut most = 0;
        for ms in 0..2_000 {
            sim.run(Nanos::from_millis(ms * 10));
            most = most.max(sim.replicas.iter().map(|r| r.state.observed().backends[0].in_flight).sum());
        }
        assert!(most <= limit && most >= limit / gateways * gateways, "{most} of {limit} by {gateways}");
    }
}
