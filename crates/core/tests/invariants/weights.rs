//! Weights are exact: over every prefix of one replica's requests, and closely over those of several.

use outrigger_core::{
    Rng,
    facts::History,
    record::{End, Usage},
    route::Decision,
    state::{Event, State},
    units::Nanos,
};
use proptest::prelude::*;
use rand_core::{Rng as _, SeedableRng as _};

use crate::fleets::{fleet, replicas, request};

fn once(state: &mut State, rng: &mut Rng) -> usize {
    let now = Nanos::from_secs(1);
    let decided = state.decide(&request(now), &History::default(), now, rng, &mut ());
    let Decision::Attempt(attempt) = decided else { panic!("{decided:?}") };
    state.observe(Event::Committed { attempt: attempt.id }, now, rng);
    let ended = Event::Ended { attempt: attempt.id, end: End::Ok, usage: Usage::default() };
    state.observe(ended, now, rng);
    attempt.backend.index()
}

/// Furthest that any backend is from its share over every prefix of 10,000 requests.
fn worst_of_prefixes(weights: &[u32]) -> f64 {
    let mut rng = Rng::seed_from_u64(1);
    let mut state = State::new(fleet(&[weights]).into(), Nanos::ZERO, &mut rng);
    let total = f64::from(weights.iter().sum::<u32>());
    let mut got = vec![0.0; weights.len()];
    let mut worst = 0.0_f64;
    for n in 1..=10_000 {
        got[once(&mut state, &mut rng)] += 1.0;
        for (got, weight) in got.iter().zip(weights) {
            worst = worst.max((got - f64::from(n) * f64::from(*weight) / total).abs());
        }
    }
    worst
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) })]

    #[test]
    fn every_prefix_of_ten_thousand_requests_is_within_one_of_its_share(
        weights in proptest::collection::vec(1_u32..1_000, 2..=20),
    ) {
        let worst = worst_of_prefixes(&weights);
        prop_assert!(worst < 1.0, "{weights:?}: {worst}");
    }
}

#[test]
fn weights_that_do_not_add_up_to_a_hundred_are_as_exact() {
    for weights in [&[60, 40][..], &[3, 2, 2], &[98, 2], &[7, 1], &[33, 33, 33], &[1, 1_000]] {
        let worst = worst_of_prefixes(weights);
        assert!(worst < 1.0, "{weights:?}: {worst}");
    }
}

/// Four replicas with their own seeds, requests dealt at random: furthest of any backend from its share over any
/// thousand consecutive requests, as a part of them.
fn worst_of_four_replicas(weights: &[u32], requests: usize, seed: u64) -> f64 {
    const WINDOW: usize = 1_000;
    let whole = replicas(fleet(&[weights]), 4);
    let mut states: Vec<(State, Rng)> = (0..4)
        .map(|i| {
            let mut rng = Rng::seed_from_u64(seed * 4 + i);
            (State::new(whole.clone().into(), Nanos::ZERO, &mut rng), rng)
        })
        .collect();
    let total = f64::from(weights.iter().sum::<u32>());
    let mut dealer = Rng::seed_from_u64(seed ^ 0x5eed);
    let mut sequence = Vec::with_capacity(requests);
    let mut got = vec![0.0; weights.len()];
    let mut worst = 0.0_f64;
    for n in 0..requests {
        let (state, rng) = &mut states[(dealer.next_u64() % 4) as usize];
        let backend = once(state, rng);
        sequence.push(backend);
        got[backend] += 1.0;
        if n >= WINDOW {
            got[sequence[n - WINDOW]] -= 1.0;
        }
        if n + 1 >= WINDOW {
            for (got, weight) in got.iter().zip(weights) {
                worst = worst.max((got / WINDOW as f64 - f64::from(*weight) / total).abs());
            }
        }
    }
    worst
}

const SPLITS: [&[u32]; 6] =
    [&[60, 40], &[98, 2], &[50, 30, 20], &[40, 30, 20, 10], &[25, 20, 15, 12, 10, 8, 6, 4], &[1, 1, 1]];

#[test]
fn four_replicas_together_are_within_half_a_percent_over_any_thousand_requests() {
    for weights in SPLITS {
        for seed in 0..4 {
            let worst = worst_of_four_replicas(weights, 3_000, seed);
            assert!(worst <= 0.005, "{weights:?}, seed {seed}: {worst}");
        }
    }
}

/// The same over many more seeds: `cargo test --release -p outrigger-core --test invariants -- --ignored --nocapture`.
#[test]
#[ignore = "takes a minute in a debug build"]
fn four_replicas_over_many_seeds() {
    for weights in SPLITS {
        let worst: Vec<f64> = (0..400).map(|seed| worst_of_four_replicas(weights, 10_000, seed)).collect();
        let above = worst.iter().filter(|w| **w > 0.005).count();
        let max = worst.iter().copied().fold(0.0, f64::max);
        assert!(above == 0, "{weights:?}: worst {max}, {above} of 400 seeds above 0.5 %");
    }
}
