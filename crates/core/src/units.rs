//! Quantities that must not be mixed up: time, money, tokens, bytes.
//!
//! Time is an integer count of nanoseconds since an epoch that the caller chooses, because a decision has to be
//! replayed exactly and a floating clock cannot be. Money is an integer count of nano-USD: sums of many small token
//! costs stay exact, and an `i64` still holds nine thousand million dollars.

use std::{
    fmt,
    ops::{Add, AddAssign, Sub, SubAssign},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Nanoseconds since the caller's epoch (the gateway uses the Unix epoch, a simulation uses 0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nanos(pub u64);

impl Nanos {
    pub const ZERO: Self = Self(0);

    /// Time from `earlier` to `self`, zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub fn from_millis(ms: u64) -> Self {
        Self(ms * 1_000_000)
    }

    pub fn from_secs(s: u64) -> Self {
        Self(s * 1_000_000_000)
    }
}

impl Add<Duration> for Nanos {
    type Output = Self;

    fn add(self, d: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Billionths of a US dollar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NanoUsd(pub i64);

impl NanoUsd {
    pub const ZERO: Self = Self(0);

    /// `usd` rounded to the nearest nano-USD. `None` when it is not finite or does not fit.
    pub fn from_usd(usd: f64) -> Option<Self> {
        let nano = (usd * 1e9).round();
        (nano.is_finite() && nano.abs() < 9.2e18).then_some(Self(nano as i64))
    }

    pub fn as_usd(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// This price per unit, for a million units, applied to `units`; rounded half away from zero.
    #[must_use]
    pub fn per_million(self, units: u64) -> Self {
        let product = i128::from(self.0) * i128::from(units);
        let half = if product < 0 { -500_000 } else { 500_000 };
        Self(i64::try_from((product + half) / 1_000_000).unwrap_or(i64::MAX))
    }
}

impl Add for NanoUsd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for NanoUsd {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for NanoUsd {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl SubAssign for NanoUsd {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl std::iter::Sum for NanoUsd {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for NanoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${:.4}", self.as_usd())
    }
}

/// A count of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tokens(pub u64);

/// A count of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_per_million_is_exact_for_small_counts_and_does_not_overflow_for_large_ones() {
        let price = NanoUsd::from_usd(0.15).expect("finite");
        assert_eq!(price.per_million(1), NanoUsd(150));
        assert_eq!(price.per_million(1_000_000), price);
        assert_eq!(NanoUsd::from_usd(75.0).expect("finite").per_million(u64::MAX), NanoUsd(i64::MAX));
    }

    #[test]
    fn time_never_runs_backwards() {
        assert_eq!(Nanos(5).since(Nanos(9)), Duration::ZERO);
        assert_eq!(Nanos(u64::MAX) + Duration::from_secs(1), Nanos(u64::MAX));
    }
}
