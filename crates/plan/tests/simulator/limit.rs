//! A limit learned from the time to first token follows the backend's capacity.

use std::time::Duration;

use outrigger_core::Rng;
use outrigger_plan::sim::{Happening, happening::What};
use rand_core::SeedableRng as _;

use crate::fleets::{arrival, exponential, fleet, lognormal, setup};

/// 60 slots that become 30 under 1.3 times the load of 60: within half a minute the limit is at 30.
#[test]
fn a_limit_follows_a_capacity_that_halves() {
    const SLOTS: u32 = 60;
    const SERVICE: f64 = 8.0;
    const HALVED: f64 = 300.0;
    // One reading is the limit as it happens to be then; thirty say where it is.
    let mut off = Vec::new();
    for seed in 1..=10 {
        let mut fleet = fleet(&[&[1]]);
        fleet.models[0].slo.ttft_p95 = Some(Duration::from_secs(2));
        let mut setup = setup(fleet, &[SLOTS / 2], seed);
        // Two engines of which one goes: capacity, not speed.
        setup.engines[0].servers = 2;
        let what = What::Capacity { share: 0.5 };
        setup.happenings.push(Happening { at_s: HALVED, for_s: None, backend: None, cloud: None, what });
        let mut rng = Rng::seed_from_u64(seed);
        let (mut at, mut arrivals) = (0.0, Vec::new());
        while at < HALVED + 60.0 {
            at += exponential(SERVICE / (1.3 * f64::from(SLOTS)), &mut rng);
            arrivals.push(arrival(at, lognormal(SERVICE, 1.0, &mut rng)));
        }
        let limits = outrigger_plan::sim::watch(
            &setup,
            arrivals.into_iter().map(|a| Ok((a, None))),
            Duration::from_secs(1),
            |state| state.observed().backends[0].load.learned_limit(),
        )
        .expect("a trace without faults");
        let at = |s: f64| limits[s as usize].expect("it has been under pressure");
        let before = at(HALVED - 1.0);
        println!(
            "seed {seed}: {before:.0} before, then {:.0}, {:.0}, {:.0}, {:.0} after 10, 20, 30 and 45 s",
            at(HALVED + 10.0),
            at(HALVED + 20.0),
            at(HALVED + 30.0),
            at(HALVED + 45.0)
        );
        assert!((before / 60.0 - 1.0).abs() <= 0.15, "{before} for 60 slots");
        for after in [30.0, 40.0, 50.0] {
            off.push((at(HALVED + after) / 30.0 - 1.0).abs());
        }
    }
    let within = off.iter().filter(|off| **off <= 0.15).count();
    println!("{within} of {} readings within 15 %, the worst {:.1} % off", off.len(), max(&off) * 100.0);
    assert!(within >= 28 && max(&off) <= 0.2, "{off:?}");
}

fn max(of: &[f64]) -> f64 {
    of.iter().copied().fold(0.0, f64::max)
}
