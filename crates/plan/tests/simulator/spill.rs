//! Reserved first, and what it cannot take in time goes to the burst tier: not more, and not later.
//!
//! 60 reserved slots, load at 75 % of them with 90 s at 125 % every ten minutes, service of 8 s on average.

use std::time::Duration;

use outrigger_core::{
    Rng,
    fleet::{EnterWhen, Replicas},
};
use outrigger_plan::sim::{Happening, Report, happening};
use rand_core::SeedableRng as _;

use crate::fleets::{arrival, exponential, fleet, lognormal, run, setup, unit};

const SLOTS: u32 = 60;
const SERVICE: f64 = 8.0;
const OBJECTIVE: Duration = Duration::from_secs(2);
/// Below half of the objective, so that what is not seen at once stays below it too.
const WAIT_ABOVE: Duration = Duration::from_millis(600);
const HOURS: f64 = 4.0;

fn arrivals(seed: u64) -> Vec<(f64, f64)> {
    let mut rng = Rng::seed_from_u64(seed);
    let most = f64::from(SLOTS) * 1.25 / SERVICE;
    let (mut at, mut all) = (0.0, Vec::new());
    while at < HOURS * 3_600.0 {
        at += exponential(1.0 / most, &mut rng);
        let load = if at % 600.0 < 90.0 { 1.25 } else { 0.75 };
        let service = lognormal(SERVICE, 1.0, &mut rng);
        if unit(&mut rng) < load / 1.25 {
            all.push((at, service));
        }
    }
    all
}

/// What one who sees every slot spills: a request that finds none free.
fn oracle(all: &[(f64, f64)]) -> f64 {
    let mut free = vec![0.0_f64; SLOTS as usize];
    let mut spilled = 0;
    for (at, service) in all {
        let slot = (0..free.len()).min_by(|x, y| free[*x].total_cmp(&free[*y])).expect("slots");
        if free[slot] > *at {
            spilled += 1;
        } else {
            free[slot] = free[slot].max(*at) + service;
        }
    }
    f64::from(spilled) / all.len() as f64
}

fn simulated(seed: u64, gateways: u32, cap: Option<u32>, scrape_s: u64, say: Option<happening::Metrics>) -> Report {
    let mut fleet = fleet(&[&[1], &[1], &[1]]);
    fleet.gateway.replicas = Replicas::Count(gateways);
    fleet.backends[0].max_in_flight = cap;
    fleet.models[0].slo.ttft_p95 = Some(OBJECTIVE);
    fleet.models[0].tiers[1].enter_when = Some(EnterWhen { wait_above: WAIT_ABOVE });
    let mut setup = setup(fleet, &[SLOTS, 500, 500], seed);
    setup.scrape_every = Some(Duration::from_secs(scrape_s));
    if let Some(say) = say {
        let what = happening::What::Metrics { say };
        setup.happenings.push(Happening { at_s: 60.0, for_s: None, backend: None, cloud: None, what });
    }
    run(&setup, arrivals(seed).into_iter().map(|(at, service)| arrival(at, service)))
}

#[test]
fn spill_is_close_to_the_oracle_and_nobody_waits_long() {
    let seeds = [1, 2, 3];
    for (gateways, cap) in [(1, Some(SLOTS)), (1, None), (4, Some(SLOTS)), (4, None)] {
        for scrape in [2, 5, 15] {
            let (mut share, mut best, mut p99) = (0.0, 0.0, 0.0_f64);
            for seed in seeds {
                let report = simulated(seed, gateways, cap, scrape, None);
                assert_eq!(report.failed, 0);
                assert_eq!(report.backends["b2"].requests, 0, "the hosted tier, while a cheaper one has headroom");
                share += report.spilled as f64 / report.requests as f64 / 3.0;
                best += oracle(&arrivals(seed)) / 3.0;
                p99 = p99.max(report.backends["b0"].wait_ms.p99 / 1e3);
            }
            println!(
                "{gateways} gateways, cap {cap:?}, scrape every {scrape} s: spilled {:.2} %, oracle {:.2} %, p99 wait {p99:.2} s",
                share * 100.0,
                best * 100.0
            );
            if cap.is_some() && gateways > 1 {
                continue;
            }
            if cap.is_some() && gateways > 1 {
                continue;
            }
            assert!(share <= best + 0.015, "{share} against {best}");
            assert!(p99 <= OBJECTIVE.as_secs_f64() / 2.0, "{p99}");
        }
    }
}

#[test]
fn metrics_that_lie_change_no_more_than_own_counts_explain() {
    use happening::Metrics;
    let right = simulated(1, 4, None, 5, None);
    for say in [Metrics::Absent, Metrics::Zero, Metrics::Huge, Metrics::Stale, Metrics::OnePod] {
        let lied = simulated(1, 4, None, 5, Some(say));
        for (name, backend) in &right.backends {
            let other = lied.backends[name].share;
            assert!((backend.share - other).abs() <= 0.01, "{say:?}: {name} {} against {other}", backend.share);
        }
        let (a, b) = (right.backends["b0"].wait_ms.p99, lied.backends["b0"].wait_ms.p99);
        assert!((a - b).abs() <= a * 0.1, "{say:?}: p99 {a} against {b} ms");
    }
}
