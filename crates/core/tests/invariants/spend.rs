//! An outage of the GPU clouds does not become an unlimited bill.

use outrigger_core::{
    Rng,
    facts::{Facts, History},
    fleet::{CloudId, KeyId, SpendLimit},
    record::{End, Usage},
    route::{Decision, RejectReason},
    state::{Event, State},
    units::{NanoUsd, Nanos, Tokens},
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

/// Requests without a bound are reserved at 1,024 tokens and answered with four times as many: what is spent beyond the
/// limit is at most the excess of those that were in flight when it was reached.
#[test]
fn answers_longer_than_their_reservation_overrun_by_what_was_in_flight_at_most() {
    const IN_FLIGHT: u32 = 5;
    let limit = usd(4.0);
    let mut fleet = with_hosted(fleet(&[&[1]]), SpendLimit { per_hour: Some(limit), per_day: None });
    fleet.backends[1].max_in_flight = Some(IN_FLIGHT);
    let mut sim = Sim::new(fleet, 1);
    sim.unbounded_output = Tokens(4_096);
    sim.engine(Nanos::ZERO, "b0", Engine::Refuses);
    let facts = Facts { max_tokens: None, ..request(Nanos::ZERO) };
    sim.traffic(facts, 20, Nanos::from_secs(1), Nanos::from_secs(1_800), &mut Rng::seed_from_u64(1));
    sim.run(Nanos::from_secs(1_900));
    sim.assert_idle();
    let each = usd((200.0 * 2.5 + 4_096.0 * 10.0) / 1e6);
    let spent = sim.dearest[HOSTED.index()].0;
    assert!(spent > usd(3.9) && spent <= limit + NanoUsd(each.0 * i64::from(IN_FLIGHT)), "{spent}");
}

/// A client that leaves before the engine has said what it made costs its reservation, not nothing.
#[test]
fn a_hang_up_is_counted_at_its_reservation() {
    let limit = SpendLimit { per_hour: Some(usd(4.0)), per_day: None };
    let fleet = std::sync::Arc::new(with_hosted(fleet(&[]), limit));
    let mut rng = Rng::seed_from_u64(1);
    let mut state = State::new(fleet, Nanos::ZERO, &mut rng);
    let decision = state.decide(&request(Nanos::ZERO), &History::default(), Nanos::ZERO, &mut rng, &mut ());
    let Decision::Attempt(attempt) = decision else { panic!("{decision:?}") };
    let reserved = state.spend(HOSTED, Nanos::ZERO).2;
    let gone = Event::Ended { attempt: attempt.id, end: End::ClientGone, usage: Usage::default() };
    state.observe(gone, Nanos::from_secs(1), &mut rng);
    assert_eq!(state.spend(HOSTED, Nanos::from_secs(1)), (reserved, reserved, NanoUsd::ZERO));
    assert!(reserved > NanoUsd::ZERO);
}

#[test]
fn one_that_comes_too_dear_is_told_when_enough_has_left_the_window() {
    let limit = SpendLimit { per_hour: NanoUsd::from_usd(0.0031), per_day: None };
    let mut fleet = with_hosted(fleet(&[&[1]]), limit);
    fleet.models[0].tiers.remove(0);
    let mut rng = Rng::seed_from_u64(1);
    let mut state = State::new(fleet.into(), Nanos::ZERO, &mut rng);
    let mut ask = |state: &mut State, at| state.decide(&request(at), &History::default(), at, &mut rng, &mut ());
    // Two fit, of 0.0015 $ each, and are spent in the minutes 10 and 20.
    for minute in [10, 20] {
        let at = Nanos::from_secs(60 * minute + 7);
        let Decision::Attempt(attempt) = ask(&mut state, at) else { panic!("it fits") };
        let usage = Usage { prompt: Tokens(200), output: Tokens(100), ..Usage::default() };
        let event = Event::Ended { attempt: attempt.id, end: End::Ok, usage };
        state.observe(event, at, &mut Rng::seed_from_u64(1));
    }
    let at = Nanos::from_secs(60 * 30);
    let Decision::Reject(reject) = ask(&mut state, at) else { panic!("the limit is reached") };
    assert_eq!(reject.why, RejectReason::SpendLimit);
    // The slice of the tenth minute is kept for an hour after its end.
    let after = reject.retry_after.expect("it is known");
    assert_eq!(at + after, Nanos::from_secs(60 * 71));
    assert!(matches!(ask(&mut state, Nanos::from_secs(60 * 71 - 1)), Decision::Reject(_)));
    assert!(matches!(ask(&mut state, Nanos::from_secs(60 * 71)), Decision::Attempt(_)));
}
