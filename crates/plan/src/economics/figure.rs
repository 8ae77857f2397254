//! A number with the formula it came from, in figures that anybody can type into a calculator.

use std::fmt::Write as _;

use outrigger_core::units::NanoUsd;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Shown to the cent.
    Usd,
    /// A share of one, shown to four digits.
    Share,
    Count,
}

/// One number of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Such as `pattern1-lambda.egress`.
    pub id: String,
    pub what: String,
    pub unit: Unit,
    pub value: f64,
    /// With numbers, `+ - * /` and brackets only; its value, rounded as it is shown, is what is shown.
    pub formula: String,
}

impl Figure {
    pub fn usd(id: impl Into<String>, what: impl Into<String>, usd: NanoUsd, formula: impl Into<String>) -> Self {
        Self { id: id.into(), what: what.into(), unit: Unit::Usd, value: usd.as_usd(), formula: formula.into() }
    }

    /// As it is printed.
    pub fn shown(&self) -> String {
        match self.unit {
            Unit::Usd => {
                let cents = cents(NanoUsd::from_usd(self.value).unwrap_or_default());
                let sign = if cents < 0 { "-" } else { "" };
                format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
            }
            Unit::Share => format!("{:.4}", self.value),
            Unit::Count => format!("{:.0}", self.value),
        }
    }
}

/// To the nearest cent, half away from zero.
pub fn cents(amount: NanoUsd) -> i64 {
    const CENT: i64 = 10_000_000;
    let half = if amount.0 < 0 { -CENT / 2 } else { CENT / 2 };
    amount.0.saturating_add(half) / CENT
}

/// As people read it: `$7,810.20`.
pub fn dollars(amount: NanoUsd) -> String {
    let cents = cents(amount);
    let whole = (cents.abs() / 100).to_string();
    let mut grouped = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{}${grouped}.{:02}", if cents < 0 { "-" } else { "" }, cents.abs() % 100)
}

/// Nano-USD as decimal USD, exactly.
pub(super) fn usd(amount: NanoUsd) -> String {
    decimal(amount.0.into(), 9)
}

/// Bytes as decimal GB, exactly.
pub(super) fn gb(bytes: u128) -> String {
    decimal(i128::try_from(bytes).unwrap_or(i128::MAX), 9)
}

/// A whole number of 10⁻ᵈ, without trailing zeros; in brackets where it is negative.
pub(super) fn decimal(number: i128, digits: u32) -> String {
    let unit = 10_i128.pow(digits);
    let (whole, part) = (number.abs() / unit, number.abs() % unit);
    let mut text = whole.to_string();
    if part > 0 {
        let _ = write!(text, ".{part:0width$}", width = digits as usize);
        text.truncate(text.trim_end_matches('0').len());
    }
    if number < 0 { format!("(0 - {text})") } else { text }
}

/// `a + b + c`, or `0` for nothing.
pub(super) fn sum(parts: impl IntoIterator<Item = String>) -> String {
    let parts: Vec<String> = parts.into_iter().collect();
    if parts.is_empty() { "0".to_owned() } else { parts.join(" + ") }
}

/// `price × of / by`, rounded half up; of what is not negative.
pub(super) fn scaled(price: NanoUsd, of: u128, by: u128) -> NanoUsd {
    let by = by.max(1);
    let product = u128::from(price.0.max(0).unsigned_abs()).saturating_mul(of);
    NanoUsd(i64::try_from(product.saturating_add(by / 2) / by).unwrap_or(i64::MAX))
}

/// `a / b`, rounded half up.
pub(super) fn divided(a: u128, b: u128) -> u128 {
    let b = b.max(1);
    a.saturating_add(b / 2) / b
}

/// `whole` in parts as `shares` (of a million, one million in all), which add up to it.
pub(super) fn split(whole: u128, shares: &[u64]) -> Vec<u128> {
    let mut before = 0_u128;
    let mut given = 0_u128;
    let part = |share: &u64| {
        before += u128::from(*share);
        let up_to = whole.saturating_mul(before) / 1_000_000;
        let part = up_to - given;
        given = up_to;
        part
    };
    shares.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_and_parts_add_up() {
        assert_eq!(usd(NanoUsd(6_155_000_000)), "6.155");
        assert_eq!(usd(NanoUsd(-1)), "(0 - 0.000000001)");
        assert_eq!(gb(100_000_000_000), "100");
        assert_eq!(split(10, &[333_333, 333_333, 333_334]), [3, 3, 4]);
        assert_eq!(split(7, &[1_000_000]), [7]);
        assert_eq!(dollars(NanoUsd(7_810_200_000_000)), "$7,810.20");
        assert_eq!(dollars(NanoUsd(-999_995_000_000)), "-$1,000.00");
        assert_eq!((cents(NanoUsd(5_000_000)), cents(NanoUsd(4_999_999))), (1, 0));
        assert_eq!(scaled(NanoUsd(3), 1, 2), NanoUsd(2));
        assert_eq!(scaled(NanoUsd(i64::MAX), u128::MAX, 1), NanoUsd(i64::MAX));
    }
}
