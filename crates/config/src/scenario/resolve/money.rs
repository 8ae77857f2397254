//! Amounts of a scenario: a bound on all of them, so that no sum of a plan can leave its type.

use outrigger_core::units::NanoUsd;

use crate::{collect::At, fault::Code};

/// A thousand million: more than any of these can be.
const MOST: f64 = 1e9;

/// A GPU for an hour, or a million tokens: times the largest machine it is still a number.
const MOST_PRICE: f64 = 1e5;

/// A price, above zero: what is not known must not look like what is free.
pub(super) fn price(usd: f64, at: &At<'_>) -> Option<NanoUsd> {
    let found = NanoUsd::from_usd(usd).filter(|price| price.0 > 0 && usd <= MOST_PRICE);
    if found.is_none() {
        let help = "write USD as a number above 0 and up to 100000, such as 2.39";
        at.error(Code::BadPrice, format!("{} is not a price", at.shown()), help);
    }
    found
}

/// An amount that may be zero.
pub(super) fn amount(usd: f64, at: &At<'_>) -> Option<NanoUsd> {
    let found = NanoUsd::from_usd(usd).filter(|_| (0.0..=MOST).contains(&usd));
    if found.is_none() {
        let help = "write USD as a number of at least 0, such as 1250";
        at.error(Code::BadPrice, format!("{} is not an amount", at.shown()), help);
    }
    found
}

/// An amount that may be negative, as a credit is.
pub(super) fn any_amount(usd: f64, at: &At<'_>) -> Option<NanoUsd> {
    let found = NanoUsd::from_usd(usd).filter(|_| usd.abs() <= MOST);
    if found.is_none() {
        at.error(Code::BadPrice, format!("{} is not an amount", at.shown()), "write USD as a number, such as 1250");
    }
    found
}

pub(super) fn percent(own: Option<u32>, otherwise: u32) -> u32 {
    own.unwrap_or(otherwise).min(100)
}
