//! Invariant 11: a reload forgets nothing that is still true and keeps nothing that is not.

use std::time::Duration;

use outrigger_core::{
    Rng,
    facts::History,
    fleet::{BackendId, CloudId, SpendLimit},
    record::{End, Usage},
    route::Decision,
    state::{Event, State},
    units::{NanoUsd, Nanos},
};
use rand_core::SeedableRng as _;

use crate::{
    fleets::{HOSTED, backend, fleet, request, with_hosted},
    harness::{Engine, Sim},
};

#[test]
fn what_was_learned_follows_the_backends_identity() {
    let old = fleet(&[&[1, 1], &[1]]);
    let mut next = old.clone();
    next.backends.insert(0, backend("new", CloudId(0)));
    for share in next.models[0].tiers.iter_mut().flat_map(|t| &mut t.split) {
        share.backend.0 += 1;
    }
    let mut sim = Sim::new(old, 1);
    sim.engine(Nanos::ZERO, "b1", Engine::Refuses);
    sim.engine(Nanos::ZERO, "b0", Engine::Serves { first: 3_000, last: 8_000 });
    sim.traffic(request(Nanos::ZERO), 10, Nanos::ZERO, Nanos::from_secs(20), &mut Rng::seed_from_u64(1));
    let at = Nanos::from_secs(10);
    sim.run(at);
    let before = sim.replicas[0].state.backend(BackendId(0)).clone();
    sim.reload(at, next);
    sim.run(at);
    let state = &sim.replicas[0].state;
    assert_eq!(*state.backend(BackendId(1)), before);
    assert!(state.backend(BackendId(2)).live.is_down());
    assert_eq!(state.backend(BackendId(0)).in_flight, 0);
    sim.run(Nanos::from_secs(60));
    sim.assert_idle();
    assert!(sim.calls.iter().all(|c| c.rejected.is_none()));
}

#[test]
fn a_new_url_is_a_new_backend_and_attempts_on_the_old_one_still_end() {
    let old = fleet(&[&[1, 1]]);
    let mut next = old.clone();
    next.backends[0].url = "http://elsewhere.example/v1".to_owned();
    let mut sim = Sim::new(old, 1);
    sim.engine(Nanos::ZERO, "b0", Engine::Serves { first: 100, last: 5_000 });
    sim.traffic(request(Nanos::ZERO), 20, Nanos::ZERO, Nanos::from_secs(4), &mut Rng::seed_from_u64(1));
    sim.reload(Nanos::from_secs(2), next);
    sim.run(Nanos::from_secs(2));
    assert_eq!(sim.replicas[0].state.backend(BackendId(0)).in_flight, 0, "of the new one");
    sim.run(Nanos::from_secs(30));
    sim.assert_idle();
    assert!(sim.log.iter().all(|l| matches!(l.end, Some((_, End::Ok)))));
}

#[test]
fn money_set_aside_for_a_backend_that_a_reload_removes_is_not_set_aside_for_ever() {
    let limit = SpendLimit { per_hour: NanoUsd::from_usd(1.0), per_day: None };
    let old = with_hosted(fleet(&[]), limit);
    let mut next = old.clone();
    next.backends[0].url = "https://elsewhere.example/v1".to_owned();
    let mut rng = Rng::seed_from_u64(1);
    let mut state = State::new(old.into(), Nanos::ZERO, &mut rng);
    let decided = state.decide(&request(Nanos(1)), &History::default(), Nanos(1), &mut rng, &mut ());
    let Decision::Attempt(attempt) = decided else { panic!("{decided:?}") };
    let reserved = state.spend(HOSTED, Nanos(1)).2;
    assert!(reserved > NanoUsd::ZERO);
    let mut state = state.under(next.into(), Nanos(2), &mut rng);
    // What it really costs will not be known here any more, so that it counts in full.
    assert_eq!(state.spend(HOSTED, Nanos(2)), (reserved, reserved, NanoUsd::ZERO));
    let ended = Event::Ended { attempt: attempt.id, end: End::Ok, usage: Usage::default() };
    state.observe(ended, Nanos(3), &mut rng);
    assert_eq!(state.spend(HOSTED, Nanos(3)), (reserved, reserved, NanoUsd::ZERO));
}

#[test]
fn money_set_aside_follows_a_backend_to_another_cloud() {
    let old = with_hosted(fleet(&[]), SpendLimit::default());
    let mut next = old.clone();
    next.backends[0].cloud = CloudId(1);
    let mut rng = Rng::seed_from_u64(1);
    let mut state = State::new(old.into(), Nanos::ZERO, &mut rng);
    let decided = state.decide(&request(Nanos(1)), &History::default(), Nanos(1), &mut rng, &mut ());
    let Decision::Attempt(attempt) = decided else { panic!("{decided:?}") };
    let reserved = state.spend(HOSTED, Nanos(1)).2;
    let mut state = state.under(next.into(), Nanos(2), &mut rng);
    assert_eq!(state.spend(HOSTED, Nanos(2)).2, NanoUsd::ZERO);
    assert_eq!(state.spend(CloudId(1), Nanos(2)).2, reserved);
    let ended = Event::Ended { attempt: attempt.id, end: End::Ok, usage: Usage::default() };
    state.observe(ended, Nanos(3), &mut rng);
    assert!(state.observed().clouds.iter().all(|c| c.reserved() == NanoUsd::ZERO));
}

#[test]
fn a_removed_backend_is_forgotten() {
    let old = fleet(&[&[1, 1]]);
    let mut without = old.clone();
    without.backends.pop();
    without.models[0].tiers[0].split.pop();
    let mut rng = Rng::seed_from_u64(1);
    let mut sim = Sim::new(old.clone(), 1);
    sim.engine(Nanos::ZERO, "b1", Engine::Refuses);
    sim.traffic(request(Nanos::ZERO), 10, Nanos::from_secs(1), Nanos::from_secs(2), &mut Rng::seed_from_u64(1));
    sim.run(Nanos::from_secs(5));
    let state = sim.replicas[0].state.clone();
    assert!(state.backend(BackendId(1)).live.is_down());
    let state = state.under(without.into(), sim.now, &mut rng).under(old.into(), sim.now, &mut rng);
    assert!(!state.backend(BackendId(1)).live.is_down(), "nothing of it is known any more");
}

#[test]
fn weights_stay_exact_over_reloads_that_do_not_touch_them() {
    let whole = fleet(&[&[90, 10]]);
    let mut rng = Rng::seed_from_u64(1);
    let mut state = State::new(whole.clone().into(), Nanos::ZERO, &mut rng);
    let mut got = [0_u32; 2];
    for i in 0..1_000_u32 {
        let now = Nanos::ZERO + Duration::from_millis(u64::from(i));
        if i.is_multiple_of(3) {
            state = state.under(whole.clone().into(), now, &mut rng);
        }
        let decided = state.decide(&request(now), &History::default(), now, &mut rng, &mut ());
        let Decision::Attempt(attempt) = decided else { panic!("{decided:?}") };
        got[attempt.backend.index()] += 1;
        let ended = Event::Ended { attempt: attempt.id, end: End::Ok, usage: Usage::default() };
        state.observe(ended, now, &mut rng);
    }
    assert_eq!(got, [900, 100]);
}
