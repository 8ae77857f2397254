//! What the modes do with money and with tokens.

use std::time::Duration;

use outrigger_core::{
    Rng,
    fleet::{Fleet, GpuCount, Mode, Pool, PoolId, PoolPrice, TokenPrice, WeighBy},
    units::{NanoUsd, Tokens},
};
use outrigger_plan::{
    sim::{Happening, Report, happening::What, report::BackendReport},
    trace::Arrival,
};
use rand_core::SeedableRng as _;

use crate::fleets::{arrival, exponential, fleet, lognormal, run, setup};

fn usd(usd: f64) -> NanoUsd {
    NanoUsd::from_usd(usd).expect("finite")
}

/// Reserved, on demand, and by the token, 20 slots each, in one tier.
fn priced(token_price: f64) -> Fleet {
    let mut fleet = fleet(&[&[1, 1, 1]]);
    fleet.models[0].mode = Mode::Cheapest;
    let pool = |name: &str, price: PoolPrice| Pool {
        name: name.to_owned(),
        cloud: outrigger_core::fleet::CloudId(0),
        gpu: "h100".to_owned(),
        gpus: GpuCount { min: 1, max: 1, step: 1 },
        price,
        scale: None,
    };
    let hour = Duration::from_hours(1);
    fleet.pools = vec![
        pool("reserved", PoolPrice::Reserved { usd_per_gpu_hour: usd(2.4), until: None }),
        pool(
            "demand",
            PoolPrice::OnDemand { usd_per_gpu_hour: usd(3.6), billing_block: hour, cold_start: Duration::ZERO },
        ),
    ];
    for (b, p) in [(0, 0), (1, 1)] {
        fleet.backends[b].pool = Some(PoolId(p));
    }
    fleet.backends.iter_mut().for_each(|b| b.max_in_flight = Some(20));
    let price = TokenPrice { input: usd(token_price), output: usd(token_price), cached_input: usd(token_price) };
    fleet.backends[2].token_price = Some(price);
    fleet
}

/// 200 tokens in and 8 s of service, at `busy` slots on average.
fn played(fleet: Fleet, busy: f64) -> Report {
    let mut rng = Rng::seed_from_u64(2);
    let mut at = 0.0;
    let arrivals = (0..10_000).map(|_| {
        at += exponential(8.0 / busy, &mut rng);
        Arrival { prompt_tokens: Tokens(200), ..arrival(at, exponential(8.0, &mut rng)) }
    });
    run(&setup(fleet, &[20; 3], 1), arrivals)
}

#[test]
fn what_is_paid_for_is_used_first_and_then_what_costs_least() {
    let share = |r: &Report, b: &str| r.backends[b].share;
    // A request on demand costs 3.6 $/h × 8 s ÷ 20 slots = 0.0004 $; 1,224 expected tokens at 1 $ a million, 0.0012 $.
    let quiet = played(priced(1.0), 8.0);
    assert!(share(&quiet, "b0") > 0.99, "{:?}", share(&quiet, "b0"));
    let busy = played(priced(1.0), 32.0);
    let (reserved, demand, tokens) = (share(&busy, "b0"), share(&busy, "b1"), share(&busy, "b2"));
    assert!(reserved > 0.55 && demand > 0.3 && tokens < 0.1, "{reserved} {demand} {tokens}");
    // At a twentieth of the price, tokens are cheaper than GPUs on demand.
    let cheap = played(priced(0.05), 32.0);
    let (demand, tokens) = (share(&cheap, "b1"), share(&cheap, "b2"));
    assert!(tokens > 0.3 && demand < 0.1, "{demand} {tokens}");
    assert!((share(&cheap, "b0") - reserved).abs() < 0.05);
}

/// Egress from both sides is part of the price: the backend in another cloud loses to one that costs a little more.
#[test]
fn egress_counts() {
    let mut fleet = priced(0.05);
    let mut other = fleet.clouds[0].clone();
    other.name = "elsewhere".to_owned();
    other.egress_usd_per_gb = Some(usd(500.0));
    fleet.clouds.push(other);
    fleet.gateway.cloud = Some("coreweave".to_owned());
    fleet.backends[2].cloud = outrigger_core::fleet::CloudId(3);
    let report = played(fleet, 32.0);
    assert!(report.backends["b2"].share < 0.1, "{}", report.backends["b2"].share);
}

/// Requests and then tokens that the first of two backends got of a 60/40 split, in the first tier or in the second while
/// the first is out.
fn shares(weigh_by: WeighBy, tiers: &[&[u32]], of: [&str; 2]) -> (f64, f64) {
    let mut fleet = fleet(tiers);
    fleet.models[0].weigh_by = weigh_by;
    let n = fleet.backends.len();
    let mut setup = setup(fleet, &vec![200; n], 1);
    if tiers.len() > 1 {
        let (what, backend) = (What::Outage, Some("b0".to_owned()));
        setup.happenings.push(Happening { at_s: 0.0, for_s: None, backend, cloud: None, what });
    }
    let mut rng = Rng::seed_from_u64(4);
    let mut at = 0.0;
    let arrivals = (0..20_000).map(|_| {
        at += exponential(0.1, &mut rng);
        Arrival { prompt_tokens: Tokens(100), ..arrival(at, lognormal(0.5, 2.0, &mut rng)) }
    });
    let report = run(&setup, arrivals);
    let [a, b] = of.map(|name| &report.backends[name]);
    let tokens = |b: &BackendReport| (b.prompt_tokens + b.output_tokens) as f64;
    (a.requests as f64 / (a.requests + b.requests) as f64, tokens(a) / (tokens(a) + tokens(b)))
}

#[test]
fn weights_of_tokens_are_shares_of_tokens_in_every_tier() {
    for (tiers, of) in [(&[&[60, 40][..]][..], ["b0", "b1"]), (&[&[1], &[60, 40]], ["b1", "b2"])] {
        let (_, by_tokens) = shares(WeighBy::Tokens, tiers, of);
        let (of_requests, of_tokens) = shares(WeighBy::Requests, tiers, of);
        println!("weighed by tokens: {:.2} % of them; by requests: {:.2} %", by_tokens * 100.0, of_tokens * 100.0);
        assert!((by_tokens - 0.6).abs() < 0.002, "{tiers:?}: {by_tokens}");
        assert!((of_requests - 0.6).abs() < 0.0002, "{tiers:?}: {of_requests}");
    }
}
