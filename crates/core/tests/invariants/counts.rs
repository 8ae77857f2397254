//! Invariants 2 and 3: counts and reservations return to zero on every way out, and nothing is replayed after content.
//!
//! The harness compares the core's counts with its own after every event; these tests give it enough to do.

use std::time::Duration;

use outrigger_core::{
    Rng,
    fleet::{KeyId, SpendLimit},
    record::End,
    route::RejectReason,
    units::{NanoUsd, Nanos},
};
use proptest::prelude::*;
use rand_core::SeedableRng as _;

use crate::{
    fleets::{fleet, key, replicas, request, with_hosted},
    harness::{Engine, QUICK, Sim},
};

fn engine() -> impl Strategy<Value = Engine> {
    let asked = proptest::option::of((0_u64..400).prop_map(Duration::from_secs));
    prop_oneof![
        3 => Just(QUICK),
        1 => Just(Engine::Serves { first: 900, last: 4_000 }),
        1 => Just(Engine::Refuses),
        1 => Just(Engine::Hangs),
        1 => Just(Engine::Unreachable),
        1 => Just(Engine::Cuts),
        1 => prop_oneof![Just(400), Just(404), Just(500), Just(502)].prop_map(Engine::Answers),
        1 => (prop_oneof![Just(429), Just(503)], asked)
            .prop_map(|(status, retry_after)| Engine::Limits { status, retry_after }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn whatever_happens_every_count_returns_to_zero(
        turns in proptest::collection::vec((0_u64..40, 0_usize..5, engine()), 0..16),
        reloads in proptest::collection::vec((0_u64..40, 0_usize..4), 0..3),
        capped in proptest::option::of(1_u32..6),
        seed in 0_u64..1_000,
    ) {
        let limit = SpendLimit { per_hour: NanoUsd::from_usd(0.02), per_day: None };
        let mut whole = replicas(with_hosted(fleet(&[&[60, 30], &[3, 1]]), limit), 2);
        whole.backends[0].max_in_flight = capped;
        whole.backends[2].max_in_flight = capped;
        let mut sim = Sim::new(whole.clone(), seed);
        sim.replay_every = 23;
        let mut dealer = Rng::seed_from_u64(seed);
        sim.traffic(request(Nanos::ZERO), 30, Nanos::ZERO, Nanos::from_secs(40), &mut dealer);
        for (at, backend, engine) in turns {
            let name = whole.backends[backend].name.clone();
            sim.engine(Nanos::from_secs(at), &name, engine);
        }
        for (at, moved) in reloads {
            let mut next = whole.clone();
            next.backends[moved].url = format!("http://moved-{at}.example/v1");
            sim.reload(Nanos::from_millis(1_000 * at + 77), next);
        }
        sim.run(Nanos::from_secs(180));
        sim.assert_idle();
        for line in sim.log.iter().filter(|l| matches!(l.end, Some((_, End::Ok)))) {
            prop_assert!(!sim.log.iter().any(|l| l.call == line.call && l.number > line.number));
        }
    }
}

#[test]
fn a_request_whose_stream_broke_after_content_is_never_tried_again() {
    let mut sim = Sim::new(fleet(&[&[1, 1], &[1]]), 1);
    for backend in ["b0", "b1", "b2"] {
        sim.engine(Nanos::ZERO, backend, Engine::Cuts);
    }
    sim.traffic(request(Nanos::ZERO), 20, Nanos::ZERO, Nanos::from_secs(10), &mut Rng::seed_from_u64(1));
    sim.run(Nanos::from_secs(60));
    assert!(sim.log.iter().all(|l| l.number == 0));
    sim.assert_idle();
}

#[test]
fn a_full_backend_makes_requests_wait_and_the_queue_is_bounded_and_empties() {
    let mut fleet = fleet(&[&[1]]);
    fleet.backends[0].max_in_flight = Some(2);
    let mut sim = Sim::new(fleet, 1);
    for _ in 0..1_100 {
        sim.arrive(request(Nanos::from_secs(1)), 0, false);
    }
    sim.run(Nanos::from_secs(1));
    assert_eq!(sim.waiting_peak, 1_024);
    assert_eq!(sim.calls.iter().filter(|c| c.rejected.is_some()).count(), 1_100 - 1_024 - 2);
    sim.run(Nanos::from_secs(30));
    sim.assert_idle();
    // Ten seconds of patience, two at a time, a fifth of a second each.
    let served = sim.log.len();
    assert!((90..=102).contains(&served), "{served}");
    let why = |c: &crate::harness::Call| c.rejected.is_none_or(|why| why == RejectReason::Saturated);
    assert!(sim.calls.iter().all(why));
}

#[test]
fn a_request_that_leaves_the_queue_is_no_longer_counted() {
    use outrigger_core::{
        facts::History,
        route::Decision,
        state::{Event, State},
    };
    let mut fleet = fleet(&[&[1]]);
    fleet.backends[0].max_in_flight = Some(1);
    let mut rng = Rng::seed_from_u64(1);
    let mut state = State::new(fleet.into(), Nanos::ZERO, &mut rng);
    let facts = request(Nanos::ZERO);
    let mut decide = |state: &mut State| state.decide(&facts, &History::default(), Nanos::ZERO, &mut rng, &mut ());
    assert!(matches!(decide(&mut state), Decision::Attempt(_)));
    assert!(matches!(decide(&mut state), Decision::Queue { .. }));
    assert_eq!(state.observed().models[0].queue.waiting(), 1);
    for _ in 0..2 {
        state.observe(
            Event::LeftQueue { model: facts.model, priority: facts.priority },
            Nanos::ZERO,
            &mut Rng::seed_from_u64(1),
        );
        assert_eq!(state.observed().models[0].queue.waiting(), 0);
    }
}

#[test]
fn an_event_that_comes_twice_or_late_changes_nothing() {
    use outrigger_core::{
        facts::History,
        record::Usage,
        route::Decision,
        state::{Event, State},
    };
    let mut rng = Rng::seed_from_u64(1);
    let mut state = State::new(fleet(&[&[1]]).into(), Nanos::ZERO, &mut rng);
    let facts = request(Nanos::ZERO);
    let mut attempt = |state: &mut State| match state.decide(&facts, &History::default(), Nanos(1), &mut rng, &mut ()) {
        Decision::Attempt(attempt) => attempt.id,
        other => panic!("{other:?}"),
    };
    let (first, mut rng) = (attempt(&mut state), Rng::seed_from_u64(2));
    let ended = Event::Ended { attempt: first, end: End::Ok, usage: Usage::default() };
    state.observe(ended, Nanos(2), &mut rng);
    let second = attempt(&mut state);
    assert_ne!(first, second);
    let before = state.observed().clone();
    state.observe(ended, Nanos(3), &mut rng);
    state.observe(Event::Committed { attempt: first }, Nanos(3), &mut rng);
    assert_eq!(*state.observed(), before);
    assert_eq!(state.observed().backends[0].in_flight, 1);
}

#[test]
fn a_key_has_no_more_requests_in_flight_than_it_may() {
    let mut fleet = fleet(&[&[1]]);
    let mut limited = key("dev");
    limited.max_in_flight = Some(3);
    fleet.keys.push(limited);
    let facts = request(Nanos::ZERO).with_key(KeyId(0), &fleet.keys[0]);
    let mut sim = Sim::new(fleet, 1);
    sim.traffic(facts, 100, Nanos::ZERO, Nanos::from_secs(2), &mut Rng::seed_from_u64(1));
    for step in 0..30 {
        sim.run(Nanos::from_millis(100 * step));
        assert!(sim.replicas[0].state.key_in_flight(KeyId(0)) <= 3);
    }
    assert_eq!(sim.replicas[0].state.key_in_flight(KeyId(0)), 0);
    assert!(sim.calls.iter().any(|c| c.rejected == Some(RejectReason::KeyLimit)));
    sim.assert_idle();
}
