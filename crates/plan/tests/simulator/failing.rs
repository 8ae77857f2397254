//! A backend that fails fast looks idle to whoever counts requests. It must not draw more than its weight.

use std::time::Duration;

use outrigger_core::{Rng, fleet::Mode};
use outrigger_plan::sim::{Happening, happening::What};
use rand_core::SeedableRng as _;

use crate::fleets::{arrival, exponential, fleet, run, setup};

/// Attempts on a backend that refuses part of what it gets, as a share of all first attempts.
fn share(mode: Mode, what: What) -> f64 {
    let mut fleet = fleet(&[&[1, 1, 1]]);
    fleet.models[0].mode = mode;
    fleet.models[0].slo.ttft_p95 = Some(Duration::from_secs(5));
    let mut setup = setup(fleet, &[60; 3], 1);
    setup.happenings.push(Happening { at_s: 30.0, for_s: None, backend: Some("b0".to_owned()), cloud: None, what });
    let mut rng = Rng::seed_from_u64(5);
    let mut at = 0.0;
    let arrivals = (0..12_000).map(|_| {
        at += exponential(8.0 / (180.0 * 0.6), &mut rng);
        arrival(at, 8.0)
    });
    let report = run(&setup, arrivals);
    let attempts = report.backends["b0"].attempts as f64;
    attempts / report.requests as f64
}

#[test]
fn what_fails_fast_draws_no_more_than_its_weight() {
    for mode in [Mode::Weighted, Mode::Latency, Mode::Cheapest] {
        for what in
            [What::RateLimit { requests_per_second: 1.0 }, What::Flaky { share: 0.15 }, What::Errors, What::Outage]
        {
            let share = share(mode, what);
            println!("{mode:?}, {what:?}: {:.1} % of the attempts", share * 100.0);
            assert!(share <= 1.0 / 3.0 + 0.01, "{mode:?}, {what:?}: {share}");
        }
    }
}
