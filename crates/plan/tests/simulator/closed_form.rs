//! The planner's closed form of the wait against the simulator's queues, where both say the same: servers at a constant
//! rate, Poisson arrivals, answers that vary exponentially, more, or less.

use outrigger_core::Rng;
use outrigger_plan::economics::Fit;
use rand_core::SeedableRng as _;

use crate::fleets::{arrival, exponential, fleet, lognormal, run, setup};

/// Simulated over closed-form p95 of the wait, for the load as it was drawn.
fn ratio(slots: u32, load: f64, cv: f64, n: usize) -> f64 {
    let setup = setup(fleet(&[&[1]]), &[slots], 1);
    let mut rng = Rng::seed_from_u64(11);
    let (mut at, mut work) = (0.0, 0.0);
    let gap = 1.0 / (f64::from(slots) * load);
    let arrivals = (0..n).map(|_| {
        at += exponential(gap, &mut rng);
        let service = if (cv - 1.0).abs() < 1e-9 { exponential(1.0, &mut rng) } else { lognormal(1.0, cv, &mut rng) };
        let drawn = arrival(at, service);
        work += drawn.output_tokens.0 as f64 / 1e3;
        drawn
    });
    let report = run(&setup, arrivals);
    assert_eq!((report.failed, report.requests), (0, n as u64));
    let service_s = work / n as f64;
    let fit = Fit { slots, ttft_ms: 0.0, tpot_ms: 1.0, service_s, wait_s: 0.0, arrival_cv: 1.0, service_cv: cv };
    report.wait_ms.p95 / 1e3 / fit.wait_exceeded_by(0.05, work / at, slots)
}

#[test]
fn the_p95_of_the_wait_is_the_closed_forms_within_a_tenth() {
    let exponential = [
        (1, 0.5),
        (1, 0.6),
        (1, 0.7),
        (1, 0.8),
        (2, 0.6),
        (2, 0.7),
        (2, 0.8),
        (4, 0.7),
        (4, 0.8),
        (8, 0.8),
        (8, 0.85),
        (16, 0.85),
        (16, 0.9),
        (32, 0.9),
    ];
    let varied = [
        (1, 0.6, 0.5),
        (1, 0.7, 0.7),
        (1, 0.6, 1.2),
        (2, 0.7, 0.3),
        (2, 0.7, 0.7),
        (2, 0.7, 1.5),
        (4, 0.8, 0.3),
        (4, 0.8, 0.8),
        (8, 0.85, 0.3),
        (8, 0.85, 0.5),
        (8, 0.85, 0.8),
        (8, 0.85, 1.2),
        (8, 0.85, 1.5),
        (16, 0.9, 0.3),
        (16, 0.9, 0.5),
        (16, 0.9, 1.5),
        (32, 0.9, 0.3),
        (32, 0.9, 0.5),
        (32, 0.9, 1.2),
        (64, 0.93, 0.3),
        (64, 0.93, 0.5),
        (64, 0.93, 1.5),
    ];
    let cases = exponential.map(|(slots, load)| (slots, load, 1.0)).into_iter().chain(varied);
    let mut worst: f64 = 0.0;
    let mut count = 0;
    for (slots, load, cv) in cases {
        let off = ratio(slots, load, cv, 500_000) - 1.0;
        println!("{slots} slots at {load}, variation {cv}: {:+.1} %", off * 100.0);
        assert!(off.abs() <= 0.1, "{slots} slots at {load}, variation {cv}: {off}");
        worst = worst.max(off.abs());
        count += 1;
    }
    println!("worst of {count}: {:.1} %", worst * 100.0);
}
