//! Sessions keep their backend: over replicas, over changes of the fleet, and never at the price of a long wait.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use outrigger_core::{
    Rng,
    facts::{Facts, History},
    fleet::{Affinity, Fleet, ModelId, Replicas},
    record::{End, Usage},
    route::Decision,
    state::{Event, State},
    units::{Nanos, Tokens},
};
use rand_core::SeedableRng as _;

use crate::fleets::{arrival, exponential, fleet, run, setup};

const SESSIONS: u64 = 4_000;

fn sticky(weights: &[u32]) -> Fleet {
    let mut fleet = fleet(&[weights]);
    fleet.models[0].affinity = Affinity::Session;
    fleet
}

/// Where a replica with some load sends each session.
fn homes(fleet: &Fleet, seed: u64, load: u64) -> BTreeMap<u64, String> {
    let mut rng = Rng::seed_from_u64(seed);
    let mut state = State::new(Arc::new(fleet.clone()), Nanos::ZERO, &mut rng);
    let mut running = Vec::new();
    let mut homes = BTreeMap::new();
    for i in 0..SESSIONS {
        let now = Nanos::from_millis(10 * i);
        let facts = Facts {
            stream: true,
            prompt_tokens: Tokens(100),
            affinity: Some(i * 7_919),
            ..Facts::anonymous(ModelId(0), now)
        };
        let decision = state.decide(&facts, &History::default(), now, &mut rng, &mut ());
        let Decision::Attempt(attempt) = decision else { panic!("{decision:?}") };
        homes.insert(i, fleet.backend(attempt.backend).name.clone());
        state.observe(Event::Committed { attempt: attempt.id }, now, &mut rng);
        running.push(attempt.id);
        if running.len() as u64 > load {
            let attempt = running.remove(0);
            state.observe(Event::Ended { attempt, end: End::Ok, usage: Usage::default() }, now, &mut rng);
        }
    }
    homes
}

fn moved(a: &BTreeMap<u64, String>, b: &BTreeMap<u64, String>) -> f64 {
    a.iter().filter(|(session, home)| b[session] != **home).count() as f64 / a.len() as f64
}

#[test]
fn replicas_agree_on_where_a_session_lives() {
    let mut fleet = sticky(&[50, 30, 20, 40]);
    fleet.gateway.replicas = Replicas::Count(4);
    let first = homes(&fleet, 1, 30);
    for seed in 2..=4 {
        let differ = moved(&first, &homes(&fleet, seed, 30));
        println!("replica {seed} differs on {:.2} % of the sessions", differ * 100.0);
        assert!(differ <= 0.01, "{differ}");
    }
    let share = |name: &str| first.values().filter(|h| *h == name).count() as f64 / SESSIONS as f64;
    for (name, weight) in [("b0", 50.0), ("b1", 30.0), ("b2", 20.0), ("b3", 40.0)] {
        assert!((share(name) - weight / 140.0).abs() < 0.03, "{name} has {}", share(name));
    }
}

#[test]
fn only_the_sessions_of_a_backend_that_leaves_move() {
    for n in 2..=8_usize {
        let before = homes(&sticky(&vec![1; n]), 1, 0);
        let mut fewer = sticky(&vec![1; n]);
        fewer.models[0].tiers[0].split.pop();
        let after = homes(&fewer, 1, 0);
        let share = moved(&before, &after);
        assert!(share <= 1.0 / n as f64 + 0.05, "{share} of the sessions moved when one of {n} left");
        let gone = format!("b{}", n - 1);
        assert!(before.iter().all(|(s, home)| *home == gone || after[s] == *home));
    }
}

/// Half of the requests are of one session, more than its backend can take: the rest of them goes elsewhere.
#[test]
fn affinity_costs_no_more_than_its_allowance() {
    let p99 = |affinity: Affinity, bound: Option<u32>| {
        let mut fleet = sticky(&[1, 1, 1]);
        fleet.models[0].affinity = affinity;
        fleet.models[0].slo.ttft_p95 = Some(Duration::from_secs(2));
        for backend in &mut fleet.backends {
            backend.max_in_flight = bound;
        }
        let mut rng = Rng::seed_from_u64(9);
        let (mut at, mut i) = (0.0, 0_u64);
        let arrivals = (0..20_000).map(|_| {
            at += exponential(8.0 / (180.0 * 0.7), &mut rng);
            i += 1;
            outrigger_plan::trace::Arrival {
                session: Some(if i % 2 == 0 { 1 } else { i }),
                ..arrival(at, exponential(8.0, &mut rng))
            }
        });
        run(&setup(fleet, &[60; 3], 1), arrivals).wait_ms.p99 / 1e3
    };
    for bound in [None, Some(60), Some(90)] {
        let (without, with) = (p99(Affinity::None, bound), p99(Affinity::Session, bound));
        println!("bound {bound:?}: p99 wait without affinity {without:.2} s, with {with:.2} s");
        assert!(with <= without + 0.5, "{bound:?}: {with} against {without}");
    }
}
