//! Several gateways over the same backends must not crowd onto the one that looks best.
//!
//! Three deployments of 60 slots, service of 8 s on average with a coefficient of variation of 1, load swinging by 35 %.

use std::{collections::BTreeMap, f64::consts::TAU};

use outrigger_core::{
    Rng,
    fleet::{Mode, Replicas},
};
use rand_core::SeedableRng as _;

use crate::fleets::{arrival, exponential, fleet, lognormal, run, setup, unit};

const SLOTS: u32 = 60;
const SERVICE: f64 = 8.0;
const MINUTES: f64 = 30.0;

fn arrivals(seed: u64, utilisation: f64) -> Vec<(f64, f64)> {
    let mut rng = Rng::seed_from_u64(seed);
    let peak = f64::from(3 * SLOTS) * utilisation / SERVICE * 1.35;
    let mut all = Vec::new();
    let mut at = 0.0;
    while at < MINUTES * 60.0 {
        at += exponential(1.0 / peak, &mut rng);
        let wanted = (1.0 + 0.35 * (at / 300.0 * TAU).sin()) / 1.35;
        let service = lognormal(SERVICE, 1.0, &mut rng);
        if unit(&mut rng) < wanted {
            all.push((at, service));
        }
    }
    all
}

/// p99 of the wait in seconds, by our latency mode.
fn ours(seed: u64, gateways: u32) -> f64 {
    let mut fleet = fleet(&[&[1, 1, 1]]);
    fleet.models[0].mode = Mode::Latency;
    fleet.gateway.replicas = Replicas::Count(gateways);
    let mut setup = setup(fleet, &[SLOTS; 3], seed);
    setup.scrape_every = Some(std::time::Duration::from_secs(15));
    let report = run(&setup, arrivals(seed, 0.8).into_iter().map(|(at, service)| arrival(at, service)));
    report.wait_ms.p99 / 1e3
}

/// How others choose, in a model of slots of its own, to compare with.
#[derive(Clone, Copy, PartialEq)]
enum Other {
    Random,
    /// The one with the fewest requests at the last scrape.
    Argmin,
    /// The better of two at the last scrape.
    StaleTwo,
}

fn others(seed: u64, gateways: usize, how: Other) -> f64 {
    let mut rng = Rng::seed_from_u64(seed ^ 0xabc);
    // Ends of what runs, and of what waits: FIFO, so that the time a new one starts is known at once.
    let mut free: Vec<Vec<f64>> = vec![vec![0.0; SLOTS as usize]; 3];
    let mut ends: Vec<Vec<f64>> = vec![Vec::new(); 3];
    let mut seen = vec![[0_usize; 3]; gateways];
    let mut next: Vec<f64> = (0..gateways).map(|_| unit(&mut rng) * 15.0).collect();
    let mut waits = Vec::new();
    for (at, service) in arrivals(seed, 0.8) {
        let g = (unit(&mut rng) * gateways as f64) as usize % gateways;
        if at >= next[g] {
            for b in 0..3 {
                ends[b].retain(|end| *end > at);
                seen[g][b] = ends[b].len();
            }
            next[g] = at + 15.0 * (0.8 + 0.4 * unit(&mut rng));
        }
        let draw = |rng: &mut Rng| (unit(rng) * 3.0) as usize % 3;
        let b = match how {
            Other::Random => draw(&mut rng),
            Other::Argmin => (0..3).min_by_key(|b| seen[g][*b]).expect("three"),
            Other::StaleTwo => {
                let first = draw(&mut rng);
                let second = (first + 1 + (unit(&mut rng) * 2.0) as usize % 2) % 3;
                if seen[g][second] < seen[g][first] { second } else { first }
            }
        };
        let slot = (0..free[b].len()).min_by(|x, y| free[b][*x].total_cmp(&free[b][*y])).expect("slots");
        let begin = free[b][slot].max(at);
        free[b][slot] = begin + service;
        ends[b].push(begin + service);
        waits.push(begin - at);
    }
    waits.sort_by(f64::total_cmp);
    waits[waits.len() * 99 / 100]
}

#[test]
fn two_choices_by_own_counts_beat_chance_and_stale_figures_do_not() {
    let mut table = BTreeMap::new();
    for gateways in [4, 16] {
        let seeds = [1, 2, 3];
        let mean = |f: &dyn Fn(u64) -> f64| seeds.iter().map(|s| f(*s)).sum::<f64>() / 3.0;
        let random = mean(&|s| others(s, gateways, Other::Random));
        let argmin = mean(&|s| others(s, gateways, Other::Argmin));
        let stale = mean(&|s| others(s, gateways, Other::StaleTwo));
        let ours = mean(&|s| ours(s, gateways as u32));
        table.insert(gateways, (random, argmin, stale, ours));
    }
    for (gateways, (random, argmin, stale, ours)) in &table {
        println!(
            "{gateways} gateways, p99 wait: random {random:.1} s, argmin {argmin:.1}, two stale {stale:.1}, ours {ours:.1}"
        );
        assert!(argmin > random, "{table:?}");
        assert!(ours < random && ours < stale, "{table:?}");
    }
}
