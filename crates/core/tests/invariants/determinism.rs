//! Invariant 1: the same inputs give the same decision, bit for bit, also on another machine.

use std::time::Duration;

use outrigger_core::{
    Rng,
    fleet::SpendLimit,
    units::{NanoUsd, Nanos},
};
use rand_core::SeedableRng as _;

use crate::{
    fleets::{fleet, replicas, request, with_hosted},
    harness::{Engine, QUICK, Sim},
};

/// Half a minute in which everything happens at least once.
fn eventful(seed: u64, replay_every: usize) -> Sim {
    let mut fleet = with_hosted(
        fleet(&[&[60, 30, 10], &[1]]),
        SpendLimit { per_hour: NanoUsd::from_usd(0.05), per_day: NanoUsd::from_usd(1.0) },
    );
    fleet.backends[3].max_in_flight = Some(4);
    let mut sim = Sim::new(replicas(fleet, 2), seed);
    sim.replay_every = replay_every;
    sim.traffic(request(Nanos::ZERO), 50, Nanos::ZERO, Nanos::from_secs(30), &mut Rng::seed_from_u64(seed));
    let asked = Some(Duration::from_secs(2));
    sim.engine(Nanos::from_secs(3), "b0", Engine::Limits { status: 429, retry_after: asked });
    sim.engine(Nanos::from_secs(5), "b0", Engine::Limits { status: 503, retry_after: None });
    sim.engine(Nanos::from_secs(8), "b0", QUICK);
    sim.engine(Nanos::from_secs(9), "b1", Engine::Hangs);
    sim.engine(Nanos::from_secs(12), "b2", Engine::Answers(500));
    sim.engine(Nanos::from_secs(14), "b0", Engine::Refuses);
    sim.engine(Nanos::from_secs(19), "b3", Engine::Unreachable);
    sim.engine(Nanos::from_secs(22), "b1", Engine::Cuts);
    sim.engine(Nanos::from_secs(24), "b0", QUICK);
    sim.run(Nanos::from_secs(120));
    sim
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let (first, second) = (eventful(7, 0), eventful(7, 0));
    assert_eq!(first.log, second.log);
    for (a, b) in first.replicas.iter().zip(&second.replicas) {
        assert_eq!(a.state.observed(), b.state.observed());
        assert_eq!(a.rng, b.rng);
    }
    first.assert_idle();
}

#[test]
fn a_decision_made_again_from_its_view_is_the_same() {
    for seed in 0..3 {
        eventful(seed, 1).assert_idle();
    }
}

#[test]
fn the_whole_state_written_down_and_read_back_decides_the_same() {
    let sim = eventful(3, 0);
    let replica = &sim.replicas[0];
    let text = serde_json::to_string(replica.state.observed()).expect("JSON");
    let observed = serde_json::from_str(&text).expect("its own JSON");
    let mut restored = outrigger_core::state::State::restore(sim.fleet.clone(), observed).expect("the same fleet");
    assert_eq!(restored.observed(), replica.state.observed());
    let (mut state, mut rng) = (replica.state.clone(), replica.rng.clone());
    for i in 0..1_000 {
        let facts = request(sim.now + Duration::from_millis(i));
        let history = outrigger_core::facts::History::default();
        let first = state.decide(&facts, &history, facts.arrived, &mut rng.clone(), &mut ());
        let second = restored.decide(&facts, &history, facts.arrived, &mut rng, &mut ());
        assert_eq!(first, second);
    }
}
