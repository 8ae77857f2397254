//! What is left if a cloud dies, against examples that were worked out by hand.

use outrigger_core::{
    Rng,
    facts::{Facts, History},
    fleet::{CloudId, Fleet, SpendLimit},
    record::Fault,
    route::Decision,
    state::{Event, State},
    units::Nanos,
};
use proptest::prelude::*;
use rand_core::SeedableRng as _;

use crate::fleets::{HOSTED, MODEL, fleet, replicas, request, with_hosted};

const NOW: Nanos = Nanos(1_000_000_000);
/// Of `b0`.
const CORE: CloudId = CloudId(0);
/// Of `b1`.
const LAMBDA: CloudId = CloudId(1);

/// This many requests in flight, wherever the weights put them.
fn loaded(fleet: Fleet, requests: u32) -> State {
    let mut rng = Rng::seed_from_u64(1);
    let mut state = State::new(fleet.into(), Nanos::ZERO, &mut rng);
    for _ in 0..requests {
        let facts = Facts { stream: false, ..request(NOW) };
        let decided = state.decide(&facts, &History::default(), NOW, &mut rng, &mut ());
        assert!(matches!(decided, Decision::Attempt(_)), "{decided:?}");
    }
    state
}

fn limited(mut fleet: Fleet, limits: &[Option<u32>]) -> Fleet {
    for (backend, limit) in fleet.backends.iter_mut().zip(limits) {
        backend.max_in_flight = *limit;
    }
    fleet
}

#[track_caller]
fn check(state: &State, lost: CloudId, share: f64, with_substitutes: f64, is_lower_bound: bool) {
    let survival = state.survival(MODEL, lost, NOW).expect("it serves the model");
    assert_eq!(state.survivable_share(MODEL, lost, NOW), Some(survival.share()));
    assert!((survival.share() - share).abs() < 1e-9, "{survival:?}");
    assert!((survival.share_with_substitutes() - with_substitutes).abs() < 1e-9, "{survival:?}");
    assert_eq!(survival.is_lower_bound, is_lower_bound, "{survival:?}");
}

#[test]
fn of_a_hundred_requests_what_fits_into_the_other_cloud_is_served() {
    // 60 on coreweave and 40 on lambda, which has 62 slots: 62 of 100.
    let two = || limited(fleet(&[&[60, 40]]), &[Some(100), Some(62)]);
    let state = loaded(two(), 100);
    check(&state, CORE, 0.62, 0.62, false);
    check(&state, LAMBDA, 1.0, 1.0, false);
    // A hosted API without a limit takes all of the rest, by another model.
    let state = loaded(with_hosted(two(), SpendLimit::default()), 100);
    check(&state, CORE, 0.62, 1.0, false);
    check(&state, HOSTED, 1.0, 1.0, false);
    // With a limit of 20 it takes 20.
    let mut some = with_hosted(two(), SpendLimit::default());
    some.backends[2].max_in_flight = Some(20);
    check(&loaded(some, 100), CORE, 0.62, 0.82, false);
}

#[test]
fn what_nobody_knows_the_slots_of_counts_as_what_it_has() {
    // 30 on coreweave, 10 on lambda: at least those 10 of 40.
    let state = loaded(limited(fleet(&[&[3, 1]]), &[Some(100), None]), 40);
    check(&state, CORE, 0.25, 0.25, true);
    check(&state, LAMBDA, 1.0, 1.0, false);
}

#[test]
fn what_is_down_or_drained_or_has_no_weight_is_no_room() {
    let mut rng = Rng::seed_from_u64(1);
    let mut state = loaded(limited(fleet(&[&[1, 1], &[1]]), &[Some(50), Some(10), Some(5)]), 20);
    // 10 each on b0 and b1; without lambda (b1) there are b0's 50 slots and b2's 5, without coreweave b1's 10.
    check(&state, LAMBDA, 1.0, 1.0, false);
    check(&state, CORE, 0.5, 0.5, false);
    let b0 = outrigger_core::fleet::BackendId(0);
    state.set_drained(b0, true);
    check(&state, LAMBDA, 0.25, 0.25, false);
    state.set_drained(b0, false);
    state.set_weights(MODEL, 0, Some(&[0, 1]));
    check(&state, LAMBDA, 0.25, 0.25, false);
    state.set_weights(MODEL, 0, None);
    assert_eq!(state.take_probe(NOW), Some(b0));
    state.observe(Event::Probed { backend: b0, result: Err(Fault::Refused) }, NOW, &mut rng);
    check(&state, LAMBDA, 0.25, 0.25, false);
}

#[test]
fn a_backend_in_two_tiers_counts_once() {
    let mut two = limited(fleet(&[&[1], &[1]]), &[Some(10), Some(4)]);
    let again = two.models[0].tiers[1].split[0];
    two.models[0].tiers[0].split.push(again);
    // 4 each.
    let state = loaded(two, 8);
    check(&state, CORE, 0.5, 0.5, false);
}

#[test]
fn replicas_of_the_gateway_multiply_what_each_sees() {
    // Each of two replicas has 30 + 20, so that there are 100; lambda has 62 slots for both.
    let state = loaded(replicas(limited(fleet(&[&[3, 2]]), &[Some(200), Some(62)]), 2), 50);
    check(&state, CORE, 0.62, 0.62, false);
}

#[test]
fn nothing_is_lost_with_a_cloud_that_serves_nothing_of_it() {
    let state = loaded(fleet(&[&[1]]), 3);
    assert_eq!(state.survivable_share(MODEL, LAMBDA, NOW), None);
    assert_eq!(state.survivable_share(MODEL, CORE, NOW), Some(0.0));
    assert_eq!(loaded(fleet(&[&[1]]), 0).survivable_share(MODEL, CORE, NOW), Some(1.0), "there is no load");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// It is a share, substitutes never lower it, and a slot more never lowers it either.
    #[test]
    fn more_room_never_serves_less(
        weights in proptest::collection::vec(1_u32..9, 2..6),
        limits in proptest::collection::vec(proptest::option::of(200_u32..300), 6),
        requests in 0_u32..150,
        lost in 0_u16..3,
    ) {
        let lost = CloudId(lost);
        let of = |limits: &[Option<u32>]| {
            let fleet = limited(with_hosted(fleet(&[&weights]), SpendLimit::default()), limits);
            loaded(fleet, requests).survival(MODEL, lost, NOW).unwrap()
        };
        let survival = of(&limits);
        prop_assert!((0.0..=1.0).contains(&survival.share()));
        prop_assert!(survival.share_with_substitutes() >= survival.share());
        let more: Vec<_> = limits.iter().map(|limit| limit.map(|n| n + 7)).collect();
        prop_assert!(of(&more).share() >= survival.share());
    }
}
