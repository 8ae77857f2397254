//! One reservation for regions whose days are shifted needs less than one for each.
//!
//! The load of a real model (Alibaba's `language_m_large`, examples/traces) three times, eight hours apart: the fewest
//! slots at which 99 of 100 requests wait no longer than a second, for one region and for all three together.

use std::time::Duration;

use outrigger_core::units::Nanos;
use outrigger_plan::trace::{Arrival, Quantiles, RateCurve, generate, merge};

use crate::fleets::{fleet, run, setup};

const DAYS: u64 = 1;
/// Of the real rate, so that a run takes a second.
const PART: f64 = 0.02;

fn region(hours: u64) -> impl Iterator<Item = Arrival> {
    let rates = include_str!("../../../../examples/traces/servegen-rate-10min.csv");
    let tokens = include_str!("../../../../examples/traces/servegen-token-quantiles.csv");
    let rate = RateCurve::from_csv(rates.as_bytes(), "language_m_large_rps").expect("a rate column");
    let tokens =
        Quantiles::from_csv(tokens.as_bytes(), "language_m_large_prompt_tokens", "language_m_large_output_tokens")
            .expect("two columns of tokens");
    let rate = rate.scaled(PART).first(Duration::from_hours(24 * DAYS)).shifted(Duration::from_hours(hours));
    // Ten milliseconds a token: an answer of 300 takes three seconds.
    generate(rate, tokens, hours + 1, None)
        .map(|a| Arrival { output_tokens: outrigger_core::units::Tokens(a.output_tokens.0 * 10), ..a })
}

fn p99_wait(slots: u32, arrivals: impl Iterator<Item = Arrival>) -> f64 {
    run(&setup(fleet(&[&[1]]), &[slots], 1), arrivals).wait_ms.p99 / 1e3
}

/// The fewest slots that are enough.
fn needed<I: Iterator<Item = Arrival>>(arrivals: impl Fn() -> I) -> u32 {
    let (mut few, mut enough) = (1, 128);
    while few + 1 < enough {
        let middle = u32::midpoint(few, enough);
        if p99_wait(middle, arrivals()) <= 1.0 { enough = middle } else { few = middle }
    }
    enough
}

#[test]
fn a_pooled_reservation_needs_a_fifth_less() {
    let alone: u32 = [0, 8, 16].map(|hours| needed(|| region(hours))).iter().sum();
    let pooled = needed(|| {
        let regions = [0, 8, 16].map(|hours| region(hours).map(Ok::<_, ()>));
        let mut last = Nanos::ZERO;
        merge(regions).map(move |(_, a)| {
            let a = a.expect("no fault in what is generated");
            assert!(a.at >= last);
            last = a.at;
            a
        })
    });
    let ratio = f64::from(pooled) / f64::from(alone);
    println!("pooled {pooled} slots, each for itself {alone}: {ratio:.2}");
    assert!(ratio <= 0.80, "{pooled} of {alone}");
}
