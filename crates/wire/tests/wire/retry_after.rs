//! The table of waits.

use std::time::Duration;

use outrigger_wire::retry_after::{CAP, Headers, rate_limit_reset, retry_after, retry_after_ms};

/// Sun, 06 Nov 1994 08:49:37 GMT, RFC 9110's example.
const NOW: u64 = 784_111_777;

fn check(seen: Option<Duration>, expect_ms: Option<u64>, value: &str) {
    assert_eq!(seen, expect_ms.map(Duration::from_millis), "{value:?}");
}

#[test]
fn retry_after_values() {
    for (value, expect_ms) in [
        ("0", Some(0)),
        ("7", Some(7_000)),
        (" 7 ", Some(7_000)),
        ("0.5", Some(500)),
        ("300", Some(300_000)),
        ("86400", Some(300_000)),
        ("99999999999999999999999999", Some(300_000)),
        ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10_000)),
        ("Sunday, 06-Nov-94 08:49:47 GMT", Some(10_000)),
        ("Sun Nov  6 08:49:47 1994", Some(10_000)),
        ("Sun, 06 Nov 1994 08:49:27 GMT", Some(0)),
        ("Mon, 07 Nov 1994 08:49:37 GMT", Some(300_000)),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1e3", None),
        ("inf", None),
        ("nan", None),
        (".", None),
        ("1.2.3", None),
        ("7s", None),
        ("soon", None),
        ("Sun, 31 Feb 1994 08:49:47", None),
    ] {
        check(retry_after(value, NOW), expect_ms, value);
    }
    check(retry_after(&"1".repeat(1_000), NOW), None, "long");
}

#[test]
fn milliseconds() {
    for (value, expect_ms) in [("250", Some(250)), ("1500.0", Some(1_500)), ("999999999", Some(300_000)), ("x", None)] {
        check(retry_after_ms(value), expect_ms, value);
    }
}

#[test]
fn resets() {
    for (value, expect_ms) in [
        ("1s", Some(1_000)),
        ("6m0s", Some(300_000)),
        ("2m59.56s", Some(179_560)),
        ("20ms", Some(20)),
        ("1m", Some(60_000)),
        ("1h", Some(300_000)),
        ("0s", Some(0)),
        ("12", Some(12_000)),
        ("500us", None),
        ("s", None),
        ("1x", None),
        ("1s2", None),
        ("1.s.", None),
        ("", None),
    ] {
        if value == "500us" {
            assert_eq!(rate_limit_reset(value), Some(Duration::from_micros(500)));
            continue;
        }
        check(rate_limit_reset(value), expect_ms, value);
    }
}

#[test]
fn the_most_precise_header_wins() {
    let mut headers = Headers { reset_requests: Some("2s"), reset_tokens: Some("9s"), ..Headers::default() };
    assert_eq!(headers.wait(NOW), Some(Duration::from_secs(9)));
    headers.retry_after = Some("4");
    assert_eq!(headers.wait(NOW), Some(Duration::from_secs(4)));
    headers.retry_after_ms = Some("1500");
    assert_eq!(headers.wait(NOW), Some(Duration::from_millis(1_500)));
    headers.retry_after_ms = Some("junk");
    assert_eq!(headers.wait(NOW), Some(Duration::from_secs(4)));
    assert_eq!(Headers::default().wait(NOW), None);
    assert_eq!(Headers { retry_after: Some("999"), ..Headers::default() }.wait(NOW), Some(CAP));
}
