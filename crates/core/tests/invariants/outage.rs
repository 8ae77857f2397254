//! An outage does not multiply the load: attempts are at most requests, what was in flight when it began, and a fifth.

use std::time::Duration;

use outrigger_core::{Rng, units::Nanos};
use rand_core::SeedableRng as _;

use crate::{
    fleets::{fleet, request},
    harness::{Engine, Sim},
};

const PER_SECOND: u64 = 200;
const DEATH: Nanos = Nanos(20_000_000_000);
const WINDOW: Duration = Duration::from_secs(10);

/// A death that says nothing is found out only after a while. Until then requests go on to strand, and each of those
/// has its free failover too: the bound is then what was in flight when the deaths were found, not when they happened.
const FOUND: Duration = Duration::from_secs(5);

/// Everything turns to `engine` at once, found out within `found`; the worst of all windows of ten seconds.
fn check_all_down(engine: Engine, found: Duration) {
    let mut sim = Sim::new(fleet(&[&[60, 40], &[1], &[1]]), 1);
    let end = Nanos::from_secs(80);
    sim.traffic(request(Nanos::ZERO), PER_SECOND, Nanos::ZERO, end, &mut Rng::seed_from_u64(1));
    for backend in ["b0", "b1", "b2", "b3"] {
        sim.engine(DEATH, backend, engine);
    }
    sim.run(Nanos(DEATH.0 - 1));
    let open: Vec<bool> = sim.calls.iter().map(|c| !c.over).collect();
    let stranded = |(i, at): (usize, Nanos)| at < DEATH + found && open.get(i).copied().unwrap_or(at >= DEATH);
    let arrivals: Vec<Nanos> = sim.calls.iter().map(|c| c.facts.arrived).collect();
    let in_flight = arrivals.into_iter().enumerate().filter(|call| stranded(*call)).count();
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
    assert!(worst.0 <= 0.0, "{engine:?}: {} too many in the ten seconds up to {:?}", worst.0, worst.1);
}

#[test]
fn attempts_are_bounded_while_everything_refuses() {
    check_all_down(Engine::Refuses, Duration::ZERO);
}

#[test]
fn attempts_are_bounded_while_everything_answers_500() {
    check_all_down(Engine::Answers(500), Duration::ZERO);
}

#[test]
fn attempts_are_bounded_while_everything_hangs() {
    check_all_down(Engine::Hangs, FOUND);
}

#[test]
fn attempts_are_bounded_while_nothing_can_be_reached() {
    check_all_down(Engine::Unreachable, FOUND);
}

#[test]
fn attempts_are_bounded_while_everything_says_429() {
    check_all_down(Engine::Limits { status: 429, retry_after: None }, Duration::ZERO);
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
