//! Invariant 12 and the other rules that no state of the fleet bends.

use std::time::Duration;

use outrigger_core::{
    Rng,
    facts::Facts,
    fleet::{CloudId, KeyId, SpendLimit},
    route::RejectReason,
    units::Nanos,
};
use proptest::prelude::*;
use rand_core::SeedableRng as _;

use crate::{
    fleets::{fleet, key, request, with_hosted},
    harness::{Engine, QUICK, Sim},
};

fn engine() -> impl Strategy<Value = Engine> {
    prop_oneof![
        Just(QUICK),
        Just(Engine::Refuses),
        Just(Engine::Answers(500)),
        Just(Engine::Unreachable),
        Just(Engine::Limits { status: 429, retry_after: Some(Duration::from_secs(3)) }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn a_substitute_never_answers_a_key_that_denies_it_and_clouds_that_a_key_forbids_get_nothing(
        turns in proptest::collection::vec((0_u64..20, 0_usize..5, engine()), 0..12),
        cloud in 0_u16..3,
    ) {
        let mut fleet = with_hosted(fleet(&[&[3, 2], &[1, 1]]), SpendLimit::default());
        let mut denies = key("denies");
        denies.substitute = false;
        let mut bound = key("bound");
        bound.allowed_clouds = Some(vec![CloudId(cloud)]);
        fleet.keys = vec![denies, bound];
        let facts = |id: u16| request(Nanos::ZERO).with_key(KeyId(id), &fleet.keys[usize::from(id)]);
        let (first, second) = (facts(0), facts(1));
        let names: Vec<String> = fleet.backends.iter().map(|b| b.name.clone()).collect();
        let mut sim = Sim::new(fleet, 1);
        for (at, backend, engine) in turns {
            sim.engine(Nanos::from_secs(at), &names[backend], engine);
        }
        let mut dealer = Rng::seed_from_u64(1);
        for facts in [first, second] {
            sim.traffic(facts, 20, Nanos::ZERO, Nanos::from_secs(20), &mut dealer);
        }
        sim.run(Nanos::from_secs(120));
        sim.assert_idle();
        for line in &sim.log {
            prop_assert_eq!(line.substitute, line.backend == "hosted", "a substitute says so");
            match sim.calls[line.call].facts.key {
                Some(KeyId(0)) => prop_assert!(!line.substitute),
                _ => prop_assert_eq!(sim.fleet.backend(sim.id(&line.backend)).cloud, CloudId(cloud)),
            }
        }
    }
}

#[test]
fn a_request_that_only_a_denied_substitute_could_serve_is_told_so() {
    let mut sim = Sim::new(with_hosted(fleet(&[&[1]]), SpendLimit::default()), 1);
    sim.engine(Nanos::ZERO, "b0", Engine::Refuses);
    let denies = Facts { substitute_allowed: false, ..request(Nanos::from_secs(5)) };
    let call = sim.arrive(denies, 0, false);
    sim.run(Nanos::from_secs(10));
    assert_eq!(sim.calls[call].rejected, Some(RejectReason::SubstituteDenied));
}

#[test]
fn a_drained_backend_gets_nothing_even_in_panic() {
    let mut sim = Sim::new(fleet(&[&[1, 1], &[1]]), 1);
    let drained = sim.id("b0");
    sim.traffic(request(Nanos::ZERO), 50, Nanos::ZERO, Nanos::from_secs(20), &mut Rng::seed_from_u64(1));
    sim.run(Nanos::from_secs(5));
    sim.replicas[0].state.set_drained(drained, true);
    for backend in ["b1", "b2"] {
        sim.engine(Nanos::from_secs(10), backend, Engine::Answers(502));
    }
    sim.run(Nanos::from_secs(40));
    assert!(sim.attempts_on("b0").all(|l| l.at <= Nanos::from_secs(5)));
    assert!(sim.calls.iter().any(|c| c.rejected.is_some()));
    sim.assert_idle();
}

#[test]
fn a_backend_of_weight_zero_gets_nothing() {
    let mut sim = Sim::new(fleet(&[&[1, 0], &[1]]), 1);
    sim.engine(Nanos::from_secs(5), "b0", Engine::Refuses);
    sim.traffic(request(Nanos::ZERO), 50, Nanos::ZERO, Nanos::from_secs(20), &mut Rng::seed_from_u64(1));
    sim.run(Nanos::from_secs(40));
    assert_eq!(sim.attempts_on("b1").count(), 0);
    assert!(sim.attempts_on("b2").count() > 700);
}
