//! An outage of the GPU clouds does not become an unlimited bill.

use outrigger_core::{
    Rng,
    facts::Facts,
    fleet::{CloudId, KeyId, SpendLimit},
    route::RejectReason,
    units::{NanoUsd, Nanos},
};
use rand_core::SeedableRng as _;

use crate::{
    fleets::{HOSTED, fleet, key, replicas, request, with_hosted},
    harness::{Engine, Sim},
};

fn usd(usd: f64) -> NanoUsd {
    NanoUsd::from_usd(usd).expect("finite")
}

/// `minutes` with both GPU clouds down, half of the traffic from a key that denies substitutes.
fn outage(limit: SpendLimit, n: u32, minutes: u64, per_second: u64) -> Sim {
    let mut fleet = replicas(with_hosted(fleet(&[&[60, 40]]), limit), n);
    let mut denies = key("denies");
    denies.substitute = false;
    fleet.keys.push(denies);
    let denied = request(Nanos::ZERO).with_key(KeyId(0), &fleet.keys[0]);
    let mut sim = Sim::new(fleet, 1);
    sim.engine(Nanos::ZERO, "b0", Engine::Refuses);
    sim.engine(Nanos::ZERO, "b1", Engine::Refuses);
    let mut dealer = Rng::seed_from_u64(1);
    for facts in [request(Nanos::ZERO), denied] {
        sim.traffic(Facts { ..facts }, per_second, Nanos::from_secs(1), Nanos::from_secs(60 * minutes), &mut dealer);
    }
    sim.run(Nanos::from_secs(60 * (minutes + 1)));
    sim.assert_idle();
    sim
}

/// Each request costs 0.0015 $.
fn spent_in_last_hour(sim: &mut Sim) -> NanoUsd {
    let now = sim.now;
    sim.replicas.iter_mut().map(|r| r.state.spend(HOSTED, now).0).sum()
}

fn check(limit: SpendLimit, bound: f64, n: u32) {
    let sim = outage(limit, n, 60, 4);
    assert!(sim.dearest[HOSTED.index()].0 <= usd(bound), "{}", sim.dearest[HOSTED.index()].0);
    assert!(sim.dearest[HOSTED.index()].0 > usd(bound * 0.99), "the limit is used: {}", sim.dearest[HOSTED.index()].0);
    assert!(sim.calls.iter().any(|c| c.rejected == Some(RejectReason::SpendLimit)));
    let served_denied = sim.log.iter().any(|l| l.substitute && sim.calls[l.call].facts.key == Some(KeyId(0)));
    assert!(!served_denied, "the key that denies substitutes got one");
    let denied = sim.calls.iter().filter(|c| c.facts.key == Some(KeyId(0)));
    assert!(denied.into_iter().all(|c| c.rejected.is_some()));
}

#[test]
fn an_hour_without_gpus_costs_no_more_than_the_hourly_limit() {
    check(SpendLimit { per_hour: Some(usd(4.0)), per_day: None }, 4.0, 1);
}

#[test]
fn an_hour_without_gpus_costs_no_more_than_the_daily_limit() {
    check(SpendLimit { per_hour: Some(usd(400.0)), per_day: Some(usd(3.0)) }, 3.0, 1);
}

#[test]
fn four_replicas_share_one_limit() {
    check(SpendLimit { per_hour: Some(usd(4.0)), per_day: None }, 4.0, 4);
}

#[test]
fn spend_that_has_left_the_hour_makes_room_again_and_no_hour_overruns() {
    let mut sim = outage(SpendLimit { per_hour: Some(usd(1.0)), per_day: None }, 1, 150, 2);
    assert!(sim.dearest[HOSTED.index()].0 <= usd(1.0));
    let priced: Vec<Nanos> = sim.log.iter().filter(|l| l.backend == "hosted").map(|l| l.at).collect();
    let mut first = 0;
    for (last, at) in priced.iter().enumerate() {
        while at.since(priced[first]) >= std::time::Duration::from_hours(1) {
            first += 1;
        }
        assert!((last - first + 1) as f64 * 0.0015 <= 1.0, "up to {at:?}");
    }
    assert!(priced.len() as f64 * 0.0015 > 1.9, "{}", priced.len());
    assert!(spent_in_last_hour(&mut sim) <= usd(1.0));
    assert_eq!(sim.dearest[CloudId(0).index()].0, NanoUsd::ZERO);
}
