//! Numbers and times as traces write them.
//!
//! Seconds become whole nanoseconds without passing through a float, which would lose the microseconds of a Unix time
//! and is several times slower. Digits beyond the ninth decimal are dropped. What the fast way does not know (signs,
//! exponents, blanks, quotes) goes to the standard library's parser.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use super::fault::{TraceFault, shown};

/// Decimals of a second, and of a millisecond, down to the nanosecond.
pub(super) const SECONDS: u32 = 9;
pub(super) const MILLISECONDS: u32 = 6;

/// No request has more; sums of ten thousand million such requests still fit.
pub(super) const MOST_TOKENS: u64 = 1_000_000_000;

/// Why a field is not the number it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    Empty,
    NotANumber,
    NotFinite,
    Negative,
    Fraction,
    TooLarge,
    NotATime,
}

impl Bad {
    pub(super) fn fault(self, row: u64, column: &str, text: &[u8]) -> TraceFault {
        let (what, help) = match self {
            Self::Empty => ("is empty", "fill it in, or leave the row out"),
            Self::NotANumber => ("is not a number", "write digits, with a point before decimals"),
            Self::NotFinite => ("is not a finite number", "leave the row out, or put in what was meant"),
            Self::Negative => ("is negative", "times count from the trace's beginning, tokens from 0"),
            Self::Fraction => ("is not a whole number", "tokens are whole; round them"),
            Self::TooLarge => ("is too large", "check its unit, and that it stands in the right column"),
            Self::NotATime => ("is not a time", "write it as 2026-11-24T05:50:45.619Z or 2026-11-24 05:50:45.619"),
        };
        let message = if self == Self::Empty { what.to_owned() } else { format!("{} {what}", shown(text)) };
        TraceFault::new(row, message, help).in_column(column)
    }
}

/// A time in units of which `places` decimals reach the nanosecond, as nanoseconds.
pub(super) fn nanos(text: &[u8], places: u32) -> Result<i64, Bad> {
    if let Some(fixed) = fixed(text, places) {
        return i64::try_from(fixed).map_err(|_| Bad::TooLarge);
    }
    let value = real(text)? * 10_f64.powi(places.cast_signed());
    if value < 9.2e18 { Ok(value as i64) } else { Err(Bad::TooLarge) }
}

/// A count of tokens. `374.0` is one, since tables with gaps write all their numbers so.
pub(super) fn tokens(text: &[u8]) -> Result<u64, Bad> {
    if let Some(count) = whole(text) {
        return if count <= MOST_TOKENS { Ok(count) } else { Err(Bad::TooLarge) };
    }
    let value = real(text)?;
    if value > MOST_TOKENS as f64 {
        Err(Bad::TooLarge)
    } else if value.fract() > 0.0 {
        Err(Bad::Fraction)
    } else {
        Ok(value as u64)
    }
}

/// A finite number that is not negative.
pub(super) fn real(text: &[u8]) -> Result<f64, Bad> {
    let text = unquoted(text);
    if text.is_empty() {
        return Err(Bad::Empty);
    }
    let value: f64 = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Bad::NotANumber)?;
    if !value.is_finite() {
        Err(Bad::NotFinite)
    } else if value < 0.0 {
        Err(Bad::Negative)
    } else {
        Ok(value)
    }
}

/// A date and time as nanoseconds since 1970: RFC 3339, or what databases print, which is taken for UTC when it names
/// no offset. Years 1678 to 2262.
pub(super) fn instant(text: &[u8]) -> Result<i64, Bad> {
    let text = unquoted(text);
    if text.is_empty() {
        return Err(Bad::Empty);
    }
    let text = std::str::from_utf8(text).map_err(|_| Bad::NotATime)?;
    let zoned = || text.parse::<Timestamp>().ok();
    let local = || TimeZone::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok();
    let instant = zoned().or_else(local).ok_or(Bad::NotATime)?;
    i64::try_from(instant.as_nanosecond()).map_err(|_| Bad::TooLarge)
}

/// Without blanks and quotes around it.
pub(super) fn unquoted(text: &[u8]) -> &[u8] {
    let text = text.trim_ascii();
    let inner = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\""));
    inner.map_or(text, <[u8]>::trim_ascii)
}

fn whole(text: &[u8]) -> Option<u64> {
    // Twelve digits cannot overflow, and anything near that is too large anyway.
    if text.is_empty() || text.len() > 12 {
        return None;
    }
    text.iter().try_fold(0, |value, byte| Some(value * 10 + u64::from(digit(*byte)?)))
}

/// Digits, then perhaps a point and more digits, times ten to the power of `places`.
fn fixed(text: &[u8], places: u32) -> Option<u64> {
    let point = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    // Nineteen digits in all fit into 64 bits.
    if point == 0 || point + places as usize > 19 {
        return None;
    }
    let mut value = 0;
    for byte in &text[..point] {
        value = value * 10 + u64::from(digit(*byte)?);
    }
    let mut left = places;
    for byte in text.get(point + 1..).unwrap_or_default() {
        let digit = digit(*byte)?;
        if left > 0 {
            value = value * 10 + u64::from(digit);
            left -= 1;
        }
    }
    Some(value * 10_u64.pow(left))
}

fn digit(byte: u8) -> Option<u8> {
    let digit = byte.wrapping_sub(b'0');
    (digit < 10).then_some(digit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn seconds_are_exact() {
        let check = |text: &str, expect| assert_eq!(nanos(text.as_bytes(), SECONDS), expect, "{text}");
        check("0", Ok(0));
        check("4.314579", Ok(4_314_579_000));
        check("1764000000.123456789", Ok(1_764_000_000_123_456_789));
        check("1.0000000019", Ok(1_000_000_001));
        check(" 1.5 ", Ok(1_500_000_000));
        check("\"1.5\"", Ok(1_500_000_000));
        check(".5", Ok(500_000_000));
        check("5.", Ok(5_000_000_000));
        check("1.5e3", Ok(1_500_000_000_000));
        check("-0", Ok(0));
        check("", Err(Bad::Empty));
        check("\"\"", Err(Bad::Empty));
        check("1.2.3", Err(Bad::NotANumber));
        check("0x10", Err(Bad::NotANumber));
        check("-1", Err(Bad::Negative));
        check("NaN", Err(Bad::NotFinite));
        check("inf", Err(Bad::NotFinite));
        check("1e400", Err(Bad::NotFinite));
        check("1764000000000", Err(Bad::TooLarge));
        check("9999999999", Err(Bad::TooLarge));
        assert_eq!(nanos(b"1764000000123.5", MILLISECONDS), Ok(1_764_000_000_123_500_000));
    }

    #[test]
    fn tokens_are_whole() {
        let check = |text: &str, expect| assert_eq!(tokens(text.as_bytes()), expect, "{text}");
        check("374", Ok(374));
        check("374.0", Ok(374));
        check("1e3", Ok(1000));
        check("1000000000", Ok(MOST_TOKENS));
        check("1000000001", Err(Bad::TooLarge));
        check("99999999999999999999999", Err(Bad::TooLarge));
        check("3.5", Err(Bad::Fraction));
        check("-5", Err(Bad::Negative));
        check("nan", Err(Bad::NotFinite));
        check("", Err(Bad::Empty));
    }

    #[test]
    fn times_as_logs_and_databases_write_them() {
        let check = |text: &str, expect| assert_eq!(instant(text.as_bytes()), expect, "{text}");
        let expect = Ok(1_779_342_645_619_000_000);
        check("2026-05-21T05:50:45.619Z", expect);
        check("2026-05-21T05:50:45.619000+00:00", expect);
        check("2026-05-21T07:50:45.619+02:00", expect);
        check("2026-05-21 05:50:45.619", expect);
        check("2026-05-21 05:50:45.619+00", expect);
        check("2026-05-21 05:50:45.6190000", expect);
        check("\"2026-05-21T05:50:45.619\"", expect);
        check("", Err(Bad::Empty));
        check("yesterday", Err(Bad::NotATime));
        check("2026-13-21 05:50:45", Err(Bad::NotATime));
        check("9000-01-01T00:00:00Z", Err(Bad::TooLarge));
    }

    proptest! {
        #[test]
        fn the_fast_way_agrees_with_the_standard_one(whole in 0_u64..9_000_000, decimals in "[0-9]{0,6}") {
            let text = if decimals.is_empty() { whole.to_string() } else { format!("{whole}.{decimals}") };
            let exact = fixed(text.as_bytes(), SECONDS).unwrap() as f64;
            let float = text.parse::<f64>().unwrap() * 1e9;
            prop_assert!((exact - float).abs() <= 2.0, "{exact} {float}");
        }

        #[test]
        fn no_text_is_too_strange(text in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (nanos(&text, SECONDS), tokens(&text), instant(&text), real(&text));
        }
    }
}
