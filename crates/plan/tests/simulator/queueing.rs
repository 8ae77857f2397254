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

/// Simulated over expected mean wait. The formula gets the load as it was drawn: with twenty servers, a sample that is
/// busier by a thousandth waits longer by a fiftieth.
fn ratio(c: u32, rho: f64, n: usize, expected: impl Fn(f64) -> f64, mut service: impl FnMut(&mut Rng) -> f64) -> f64 {
    let setup = setup(fleet(&[&[1]]), &[c], 1);
    let mut rng = Rng::seed_from_u64(7);
    let (mut at, mut work) = (0.0, 0.0);
    let gap = MEAN_SERVICE / (f64::from(c) * rho);
    let arrivals = (0..n).map(|_| {
        at += exponential(gap, &mut rng);
        let drawn = arrival(at, service(&mut rng));
        work += drawn.output_tokens.0 as f64 / 1e3;
        drawn
    });
    let report = run(&setup, arrivals);
    assert_eq!((report.failed, report.requests), (0, n as u64));
    let mean_service = work / n as f64;
    report.wait_ms.mean / 1e3 / (expected(work / at / f64::from(c)) * mean_service)
}

#[test]
fn waits_are_those_of_queueing_theory() {
    let n = 600_000;
    for (c, rho) in [(1, 0.5), (1, 0.7), (4, 0.8), (16, 0.8)] {
        let got = ratio(c, rho, n, |rho| erlang_c(c, rho), |rng| exponential(MEAN_SERVICE, rng));
        assert!((got - 1.0).abs() < 0.03, "M/M/{c} at {rho}: {got}");
    }
    for rho in [0.5, 0.7] {
        let wait = |cv2: f64| move |rho: f64| rho * (1.0 + cv2) / (2.0 * (1.0 - rho));
        let got = ratio(1, rho, n, wait(0.0), |_| MEAN_SERVICE);
        assert!((got - 1.0).abs() < 0.02, "M/D/1 at {rho}: {got}");
        let got = ratio(1, rho, n, wait(1.0), |rng| lognormal(MEAN_SERVICE, 1.0, rng));
        assert!((got - 1.0).abs() < 0.05, "M/G/1 at {rho}: {got}");
    }
}

/// Ten million requests a queue, for the figures in docs/benchmarks.md.
#[test]
#[ignore = "two minutes; run by hand in a release build"]
fn waits_are_those_of_queueing_theory_to_a_hundredth() {
    let n = 10_000_000;
    let mut worst = 0.0_f64;
    let mut note = |what: String, got: f64| {
        println!("{what}: {:+.2} %", (got - 1.0) * 100.0);
        // Half idle with twenty servers, one request in 270 waits: ten million are a small sample of those.
        let is_rare = what == "M/M/20 at 0.5";
        worst = worst.max((got - 1.0).abs() / if is_rare { 2.0 } else { 1.0 });
    };
    for c in [1, 4, 16, 20] {
        for rho in [0.5, 0.7, 0.8] {
            let got = ratio(c, rho, n, |rho| erlang_c(c, rho), |rng| exponential(MEAN_SERVICE, rng));
            note(format!("M/M/{c} at {rho}"), got);
        }
    }
    for rho in [0.5, 0.7, 0.8] {
        let wait = |cv2: f64| move |rho: f64| rho * (1.0 + cv2) / (2.0 * (1.0 - rho));
        note(format!("M/D/1 at {rho}"), ratio(1, rho, n, wait(0.0), |_| MEAN_SERVICE));
        note(format!("M/G/1 at {rho}"), ratio(1, rho, n, wait(1.0), |rng| lognormal(MEAN_SERVICE, 1.0, rng)));
    }
    assert!(worst <= 0.01, "{worst}");
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
