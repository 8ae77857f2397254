//! Gateways in several places: each sees the fleet from where it stands.

use std::sync::Arc;

use outrigger_core::{
    fleet::{Fleet, Replicas},
    units::NanoUsd,
};
use outrigger_plan::sim::Place;

use crate::fleets::{arrival, fleet, run, setup};

fn from(cloud: &str, egress_usd_per_gb: f64, fleet: &Fleet) -> Place {
    let mut fleet = fleet.clone();
    fleet.gateway.cloud = Some(cloud.to_owned());
    fleet.gateway.egress_usd_per_gb = NanoUsd::from_usd(egress_usd_per_gb);
    fleet.gateway.replicas = Replicas::Count(2);
    Place { name: cloud.to_owned(), fleet: Arc::new(fleet), share: 1.0 }
}

/// `b0` stands in coreweave, `b1` in lambda, and both have room: in the mode that asks for money, each gateway keeps to
/// the backend that its bytes reach for nothing.
#[test]
fn the_cheapest_backend_is_the_one_at_home() {
    let mut fleet = fleet(&[&[1, 1]]);
    fleet.models[0].mode = outrigger_core::fleet::Mode::Cheapest;
    let mut setup = setup(fleet, &[50, 50], 1);
    setup.places = vec![from("coreweave", 0.05, &setup.fleet), from("lambda", 0.05, &setup.fleet)];
    let arrivals = (0..2_000).map(|i| {
        let mut a = arrival(f64::from(i) * 0.05, 0.2);
        a.prompt_tokens.0 = 1_000;
        a
    });
    let report = run(&setup, arrivals);
    let served = |name: &str| report.backends[name].requests;
    let at = |place: &str| report.places[place].requests;
    assert_eq!((served("b0"), served("b1")), (at("coreweave"), at("lambda")));
    assert_eq!(at("coreweave") + at("lambda"), 2_000);
    assert!(at("coreweave").abs_diff(1_000) < 100, "{}", at("coreweave"));
    assert_eq!(report.cost_nano_usd.egress, NanoUsd::ZERO);
}

/// A session always comes to the same place.
#[test]
fn a_session_stays_where_it_is() {
    let mut setup = setup(fleet(&[&[1]]), &[50], 1);
    setup.places = vec![from("coreweave", 0.05, &setup.fleet), from("lambda", 0.05, &setup.fleet)];
    for session in 0..20 {
        let arrivals = (0..50).map(|i| {
            let mut a = arrival(f64::from(i), 0.2);
            a.session = Some(session);
            a
        });
        let report = run(&setup, arrivals);
        let mut at: Vec<u64> = report.places.values().map(|place| place.requests).collect();
        at.sort_unstable();
        assert_eq!(at, [0, 50], "session {session}");
    }
}
