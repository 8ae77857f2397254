//! An outage does not multiply the load: attempts are at most requests, what was in flight when it began, and a fifth.

use std::time::Duration;

use outrigger_core::{Rng, units::Nanos};
use rand_core::SeedableRng as _;

use crate::{
    fleets::{fleet, request},
    harness::{Engine, Sim},
};

const DEATH: Nanos = Nanos(20_000_000_000);
const WINDOW: Duration = Duration::from_secs(10);

/// Everything turns to `engine` at once: no window of ten seconds has more attempts than the bound allows.
fn check_all_down(engine: Engine) {
    for per_second in [7, 200] {
        for tiers in [&[&[60, 40][..], &[1], &[1]][..], &[&[1, 1, 1]], &[&[1], &[1]]] {
            check_bound(engine, tiers, per_second);
        }
    }
}

fn check_bound(engine: Engine, tiers: &[&[u32]], per_second: u64) {
    let mut sim = Sim::new(fleet(tiers), 1);
    let end = Nanos::from_secs(60);
    sim.traffic(request(Nanos::ZERO), per_second, Nanos::ZERO, end, &mut Rng::seed_from_u64(1));
    for backend in 0..tiers.iter().map(|t| t.len()).sum() {
        sim.engine(DEATH, &format!("b{backend}"), engine);
    }
    sim.run(Nanos(DEATH.0 - 1));
    let in_flight = sim.calls.iter().filter(|c| c.facts.arrived < DEATH && !c.over).count();
    sim.run(Nanos::from_secs(120));
    sim.assert_idle();
    let starts: Vec<Nanos> = sim.log.iter().map(|l| l.at).collect();
    let (mut first, mut worst) = (0, (0.0, Nanos::ZERO));
    for (last, at) in starts.iter().enumerate() {
        while at.since(starts[first]) >= WINDOW {
            first += 1;
        }
        let attempts = last - first + 1;
        let began = Nanos(at.0.saturating_sub(WINDOW.as_nanos() as u64));
        let requests = sim.calls.iter().filter(|c| c.facts.arrived > began && c.facts.arrived <= *at).count();
        let excess = attempts as f64 - (requests as f64 * 1.2 + in_flight as f64);
        if excess > worst.0 {
            worst = (excess, *at);
        }
    }
    let (excess, at) = worst;
    assert!(excess <= 0.0, "{engine:?} {tiers:?} {per_second}/s: {excess} too many in the ten seconds up to {at:?}");
}

#[test]
fn attempts_are_bounded_while_everything_refuses() {
    check_all_down(Engine::Refuses);
}

#[test]
fn attempts_are_bounded_while_everything_answers_500() {
    check_all_down(Engine::Answers(500));
}

#[test]
fn attempts_are_bounded_while_everything_hangs() {
    check_all_down(Engine::Hangs);
}

#[test]
fn attempts_are_bounded_while_nothing_can_be_reached() {
    check_all_down(Engine::Unreachable);
}

#[test]
fn attempts_are_bounded_while_everything_says_429() {
    check_all_down(Engine::Limits { status: 429, retry_after: None });
}

/// The tier that serves falls silent while the next has been idle, so that nobody knows whether it is alive: a budget's
/// worth of requests goes ahead and the others wait for the proof, but none is lost.
#[test]
fn nothing_is_lost_when_a_tier_falls_silent_before_one_that_was_idle() {
    for engine in [Engine::Hangs, Engine::Unreachable] {
        for per_second in [5, 50, 200] {
            let mut sim = Sim::new(fleet(&[&[60, 40], &[1]]), 1);
            sim.traffic(
                request(Nanos::ZERO),
                per_second,
                Nanos::ZERO,
                Nanos::from_secs(60),
                &mut Rng::seed_from_u64(1),
            );
            sim.engine(DEATH, "b0", engine);
            sim.engine(DEATH, "b1", engine);
            sim.run(Nanos::from_secs(120));
            sim.assert_idle();
            let rejected = sim.calls.iter().filter(|c| c.rejected.is_some()).count();
            assert_eq!(rejected, 0, "{engine:?} at {per_second}/s");
        }
    }
}

#[test]
fn paid_retries_stay_below_a_fifth_in_every_window_wherever_it_is_laid() {
    use outrigger_core::state::retry_budget::RetryBudget;
    // Late in one slice of the count and early in another: less than ten seconds apart, and twenty slices.
    for (first, second) in [(9_900, 19_550), (9_990, 19_510), (9_500, 19_490), (9_700, 19_200)] {
        let mut budget = RetryBudget::default();
        let mut taken = 0;
        for i in 0..5_000 {
            let ms = 5 * i;
            budget.deposit(Nanos::from_millis(ms));
            while (ms == first || ms == second) && budget.withdraw(Nanos::from_millis(ms)) {
                taken += 1;
            }
        }
        assert!(taken <= 400, "{taken} retries in {} ms", second - first);
    }
}
