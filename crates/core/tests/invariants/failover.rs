//! Invariant 5: what a failover costs, where it may go, and when a request itself is at fault.

use std::time::Duration;

use outrigger_core::{
    Rng,
    record::{End, Fault},
    route::RejectReason,
    state::health::Health,
    units::Nanos,
};
use rand_core::SeedableRng as _;

use crate::{
    fleets::{fleet, request},
    harness::{Engine, Line, Sim},
};

#[test]
fn the_first_failover_after_a_dead_connection_is_free_and_every_other_one_is_not() {
    let mut sim = Sim::new(fleet(&[&[1, 1], &[1], &[1]]), 1);
    sim.traffic(request(Nanos::ZERO), 200, Nanos::ZERO, Nanos::from_secs(20), &mut Rng::seed_from_u64(1));
    // Nobody answers the connection: a request may go round all of them before they are known to be dead.
    for backend in ["b0", "b1", "b2", "b3"] {
        sim.engine(Nanos::from_secs(10), backend, Engine::Unreachable);
    }
    sim.run(Nanos::from_secs(60));
    let mut free = vec![0; sim.calls.len()];
    for line in &sim.log {
        free[line.call] += u32::from(line.free);
        assert!(!line.free || line.number == 1, "only the first failover is free");
    }
    assert!(free.iter().all(|n| *n <= 1));
    assert!(free.contains(&1));
    let paid = sim.log.iter().filter(|l| l.number > 0 && !l.free).count();
    assert!(paid <= 2 * 400, "{paid}");
}

#[test]
fn a_free_failover_happens_even_when_the_budget_is_spent_and_waits_for_headroom_if_it_must() {
    let mut fleet = fleet(&[&[1], &[1]]);
    fleet.backends[1].max_in_flight = Some(10);
    let mut sim = Sim::new(fleet, 1);
    sim.engine(Nanos::ZERO, "b0", Engine::Serves { first: 5_000, last: 6_000 });
    sim.engine(Nanos::ZERO, "b1", Engine::Serves { first: 50, last: 100 });
    for i in 0..200 {
        sim.arrive(request(Nanos::from_millis(1_000 + i)), 0, false);
    }
    sim.engine(Nanos::from_secs(2), "b0", Engine::Refuses);
    sim.run(Nanos::from_secs(30));
    assert!(sim.calls.iter().all(|c| c.rejected.is_none()), "all 200 were held when it died, and all are served");
    assert_eq!(sim.log.iter().filter(|l| l.free).count(), 200);
    assert!(sim.waiting_peak > 100, "{}", sim.waiting_peak);
    sim.assert_idle();
}

#[test]
fn retries_after_other_faults_stay_within_a_fifth_of_the_requests() {
    let mut sim = Sim::new(fleet(&[&[1, 1, 1, 1]]), 1);
    sim.traffic(request(Nanos::ZERO), 200, Nanos::ZERO, Nanos::from_secs(30), &mut Rng::seed_from_u64(1));
    sim.engine(Nanos::from_secs(11), "b0", Engine::Limits { status: 429, retry_after: None });
    sim.engine(Nanos::from_secs(11), "b1", Engine::Answers(502));
    sim.run(Nanos::from_secs(60));
    let paid: Vec<&Line> = sim.log.iter().filter(|l| l.number > 0 && !l.free).collect();
    assert!(!paid.is_empty());
    assert!(paid.len() <= 400);
}

#[test]
fn a_backend_is_never_tried_twice_and_none_more_often_than_four_times() {
    // The harness asserts the first half at every attempt.
    let mut sim = Sim::new(fleet(&[&[1, 1, 1, 1], &[1, 1, 1]]), 1);
    for backend in ["b0", "b1", "b2", "b3", "b4", "b5", "b6"] {
        sim.engine(Nanos::ZERO, backend, Engine::Answers(502));
    }
    sim.traffic(request(Nanos::ZERO), 1, Nanos::ZERO, Nanos::from_secs(20), &mut Rng::seed_from_u64(1));
    sim.run(Nanos::from_secs(60));
    assert!(sim.log.iter().any(|l| l.number == 3));
    assert!(sim.log.iter().all(|l| l.number < 4));
}

#[test]
fn a_poisonous_request_stops_at_two_and_leaves_no_mark() {
    let mut sim = Sim::new(fleet(&[&[1, 1], &[1]]), 1);
    sim.traffic(request(Nanos::ZERO), 20, Nanos::ZERO, Nanos::from_secs(60), &mut Rng::seed_from_u64(1));
    let poison: Vec<usize> =
        (0..50).map(|i| sim.arrive(request(Nanos::ZERO + Duration::from_millis(2_000 + 1_000 * i)), 0, true)).collect();
    sim.run(Nanos::from_secs(90));
    for call in poison {
        assert_eq!(sim.calls[call].rejected, Some(RejectReason::Poison));
        assert_eq!(sim.log.iter().filter(|l| l.call == call).count(), 2);
    }
    for backend in ["b0", "b1"] {
        let live = &sim.replicas[0].state.backend(sim.id(backend)).live;
        assert_eq!(live.health, Health::Up);
        assert!(!live.is_ejected(sim.now), "{backend}");
    }
    assert!(sim.log.iter().all(|l| l.tier == 1), "the poison went no further");
}

#[test]
fn in_an_outage_of_500s_the_faults_stand_and_the_next_tier_is_reached() {
    let mut sim = Sim::new(fleet(&[&[1, 1], &[1]]), 1);
    // Neither has ever answered: there is no evidence that the request is at fault.
    sim.engine(Nanos::ZERO, "b0", Engine::Answers(500));
    sim.engine(Nanos::ZERO, "b1", Engine::Answers(500));
    sim.traffic(request(Nanos::ZERO), 1, Nanos::from_millis(1), Nanos::from_secs(10), &mut Rng::seed_from_u64(1));
    sim.run(Nanos::from_secs(60));
    assert!(sim.calls.iter().all(|c| c.rejected.is_none()));
    let served = |l: &&Line| matches!(l.end, Some((_, End::Ok)));
    assert!(sim.log.iter().filter(served).all(|l| l.tier == 2));
}

#[test]
fn a_backend_that_served_longer_than_ten_seconds_ago_is_no_witness() {
    let mut sim = Sim::new(fleet(&[&[1, 1], &[1]]), 1);
    sim.traffic(request(Nanos::ZERO), 4, Nanos::ZERO, Nanos::from_secs(2), &mut Rng::seed_from_u64(1));
    for backend in ["b0", "b1"] {
        sim.engine(Nanos::from_secs(5), backend, Engine::Answers(500));
    }
    let late = sim.arrive(request(Nanos::from_secs(20)), 0, false);
    sim.run(Nanos::from_secs(30));
    assert_eq!(sim.calls[late].rejected, None);
    let tiers: Vec<u8> = sim.log.iter().filter(|l| l.call == late).map(|l| l.tier).collect();
    assert_eq!(tiers, [1, 1, 2]);
}

#[test]
fn in_an_outage_at_full_traffic_few_requests_are_taken_for_poison() {
    let mut sim = Sim::new(fleet(&[&[1, 1], &[1]]), 1);
    sim.traffic(request(Nanos::ZERO), 100, Nanos::ZERO, Nanos::from_secs(30), &mut Rng::seed_from_u64(1));
    for backend in ["b0", "b1"] {
        sim.engine(Nanos::from_secs(10), backend, Engine::Answers(500));
    }
    sim.run(Nanos::from_secs(60));
    let poisoned = sim.calls.iter().filter(|c| c.rejected == Some(RejectReason::Poison)).count();
    assert!(poisoned <= 4, "{poisoned}");
    for backend in ["b0", "b1"] {
        assert!(sim.replicas[0].state.backend(sim.id(backend)).live.is_down());
    }
    let last = sim.log.iter().rev().find(|l| l.number == 0).expect("traffic");
    assert_eq!(last.tier, 2);
}

#[test]
fn a_trouble_of_our_own_is_never_held_against_a_backend() {
    use outrigger_core::state::{Event, State};
    let mut rng = Rng::seed_from_u64(1);
    let mut state = State::new(fleet(&[&[1]]).into(), Nanos::ZERO, &mut rng);
    let backend = outrigger_core::fleet::BackendId(0);
    let probe = |state: &mut State, result, now, rng: &mut Rng| {
        assert_eq!(state.take_probe(now), Some(backend));
        state.observe(Event::Probed { backend, result }, now, rng);
    };
    probe(&mut state, Ok(()), Nanos::from_secs(1), &mut rng);
    let facts = request(Nanos::from_secs(1));
    let history = outrigger_core::facts::History::default();
    let decided = state.decide(&facts, &history, Nanos::from_secs(1), &mut rng, &mut ());
    let outrigger_core::route::Decision::Attempt(attempt) = decided else { panic!("{decided:?}") };
    let ended = |end| Event::Ended { attempt: attempt.id, end, usage: outrigger_core::record::Usage::default() };
    state.observe(ended(End::Failed(Fault::Reset)), Nanos::from_secs(2), &mut rng);
    assert!(state.backend(backend).live.is_suspect());
    probe(&mut state, Err(Fault::Local), Nanos::from_secs(2), &mut rng);
    assert!(!state.backend(backend).live.is_down(), "a probe that we could not make proves nothing");
    probe(&mut state, Ok(()), Nanos::from_secs(4), &mut rng);
    assert_eq!(state.backend(backend).live.health, Health::Up);
}
