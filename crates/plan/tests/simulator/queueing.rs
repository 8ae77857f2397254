//! Mean waits against the formulas of Erlang, and of Pollaczek and Khinchine.

use outrigger_core::Rng;
use rand_core::SeedableRng as _;

use crate::fleets::{arrival, exponential, fleet, lognormal, run, setup};

const MEAN_SERVICE: f64 = 1.0;

/// Mean wait of M/M/c, in units of the mean service time.
fn erlang_c(c: u32, rho: f64) -> f64 {
    let load = f64::from(c) * rho;
    let (mut term, mut sum) = (1.0, 1.0);
    for k in 1..c {
        term *= load / f64::from(k);
        sum += term;
    }
    let last = term * load / f64::from(c) / (1.0 - rho);
    last / (sum + last) / (f64::from(c) * (1.0 - rho))
}

/// Simulated over expected mean wait.
fn ratio(c: u32, rho: f64, n: usize, expected: f64, mut service: impl FnMut(&mut Rng) -> f64) -> f64 {
    let setup = setup(fleet(&[&[1]]), &[c], 1);
    let mut rng = Rng::seed_from_u64(7);
    let mut at = 0.0;
    let gap = MEAN_SERVICE / (f64::from(c) * rho);
    let arrivals = (0..n).map(|_| {
        at += exponential(gap, &mut rng);
        arrival(at, service(&mut rng))
    });
    let report = run(&setup, arrivals);
    assert_eq!((report.failed, report.requests), (0, n as u64));
    report.wait_ms.mean / 1e3 / expected
}

#[test]
fn waits_are_those_of_queueing_theory() {
    let n = 600_000;
    for (c, rho) in [(1, 0.5), (1, 0.7), (4, 0.8), (16, 0.8)] {
        let got = ratio(c, rho, n, erlang_c(c, rho), |rng| exponential(MEAN_SERVICE, rng));
        assert!((got - 1.0).abs() < 0.03, "M/M/{c} at {rho}: {got}");
    }
    for rho in [0.5, 0.7] {
        let wait = |cv2: f64| rho * (1.0 + cv2) / (2.0 * (1.0 - rho));
        let got = ratio(1, rho, n, wait(0.0), |_| MEAN_SERVICE);
        assert!((got - 1.0).abs() < 0.02, "M/D/1 at {rho}: {got}");
        let got = ratio(1, rho, n, wait(1.0), |rng| lognormal(MEAN_SERVICE, 1.0, rng));
        assert!((got - 1.0).abs() < 0.05, "M/G/1 at {rho}: {got}");
    }
}

#[test]
fn the_same_seed_gives_the_same_report_and_another_does_not() {
    let report = |seed: u64| {
        let mut fleet = fleet(&[&[1, 1, 1]]);
        fleet.models[0].mode = outrigger_core::fleet::Mode::Latency;
        let mut rng = Rng::seed_from_u64(3);
        let mut at = 0.0;
        let arrivals = (0..20_000).map(|_| {
            at += exponential(0.02, &mut rng);
            arrival(at, exponential(MEAN_SERVICE, &mut rng))
        });
        serde_json::to_string(&run(&setup(fleet, &[20, 20, 20], seed), arrivals)).expect("JSON")
    };
    assert_eq!(report(1), report(1));
    assert_ne!(report(1), report(2));
}
