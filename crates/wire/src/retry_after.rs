//! How long a backend asked to be left alone: `Retry-After` (RFC 9110 §10.2.3), `retry-after-ms`, and OpenAI's
//! `x-ratelimit-reset-*`.
//!
//! A wait is never longer than [`CAP`]: a backend that says "tomorrow" is asked again, since the header is often a
//! default and the block would outlive its cause. What cannot be read is `None`, not zero: zero would mean "at once".

use std::time::{Duration, UNIX_EPOCH};

/// The longest wait that is believed.
pub const CAP: Duration = Duration::from_mins(5);

/// Longer values are not times.
const MAX_LEN: usize = 64;

/// The headers of one answer that tell of a wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    pub retry_after: Option<&'a str>,
    pub retry_after_ms: Option<&'a str>,
    /// `x-ratelimit-reset-requests`
    pub reset_requests: Option<&'a str>,
    /// `x-ratelimit-reset-tokens`
    pub reset_tokens: Option<&'a str>,
}

impl Headers<'_> {
    /// The wait these headers ask for: the most precise that can be read. Of the two resets the longer, because they
    /// do not say which limit was hit, and a wait that is too short earns the same answer again.
    pub fn wait(&self, now_unix_s: u64) -> Option<Duration> {
        let resets = [self.reset_requests, self.reset_tokens];
        self.retry_after_ms
            .and_then(retry_after_ms)
            .or_else(|| self.retry_after.and_then(|value| retry_after(value, now_unix_s)))
            .or_else(|| resets.into_iter().flatten().filter_map(rate_limit_reset).max())
    }
}

/// `Retry-After`: seconds, fractions of them too, or an HTTP-date, which is compared with the current Unix time. A date
/// that has passed is no wait.
pub fn retry_after(value: &str, now_unix_s: u64) -> Option<Duration> {
    let value = short(value)?;
    if let Some(seconds) = decimal(value) {
        return capped(seconds);
    }
    let date = httpdate::parse_http_date(value).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(date.saturating_sub(Duration::from_secs(now_unix_s)).min(CAP))
}

/// `retry-after-ms`: milliseconds.
pub fn retry_after_ms(value: &str) -> Option<Duration> {
    capped(decimal(short(value)?)? / 1e3)
}

/// `x-ratelimit-reset-requests` and `-tokens`: a Go duration such as `1s`, `6m0s`, `20ms`, or seconds alone.
pub fn rate_limit_reset(value: &str) -> Option<Duration> {
    let mut rest = short(value)?;
    if let Some(seconds) = decimal(rest) {
        return capped(seconds);
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number = decimal(&rest[..unit_at])?;
        rest = &rest[unit_at..];
        let next = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        seconds += number * unit_seconds(&rest[..next])?;
        rest = &rest[next..];
    }
    capped(seconds)
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "d" => 86_400.0,
        "h" => 3_600.0,
        "m" => 60.0,
        "s" => 1.0,
        "ms" => 1e-3,
        "us" | "µs" | "μs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    })
}

fn short(value: &str) -> Option<&str> {
    let value = value.trim();
    (!value.is_empty() && value.len() <= MAX_LEN).then_some(value)
}

/// Digits with at most one point; Rust's own parser would also take `inf`, `1e9` and signs.
fn decimal(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && text.starts_with(|c: char| c.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

fn capped(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds.min(CAP.as_secs_f64())).ok()
}
