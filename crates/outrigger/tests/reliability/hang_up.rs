//! A client that hangs up: the engine must not go on working for nobody.

use std::{io::Read as _, time::Duration};

use super::{
    http, judged, long, report,
    rig::{Engine, Gateway, unix_ns},
    until,
};

const BAR_MS: f64 = 100.0;

fn check(stream: bool) {
    let engine = Engine::start(10.0, 20_000.0);
    let gateway = Gateway::with_timeouts(&[&engine], "{ first_token: 30s, headers: 30s, idle: 30s, total: 60s }");
    let count = if long() { 200 } else { 20 };
    let mut took_ms: Vec<f64> = (0..count).map(|n| hang_up(&engine, &gateway, stream, n)).collect();
    took_ms.sort_by(f64::total_cmp);
    let (p99, judged) = (took_ms[(took_ms.len() * 99).div_ceil(100) - 1], judged(&took_ms, 99));
    let kind = if stream { "streaming" } else { "not streaming" };
    report(
        &format!("hang-up, {kind}"),
        &format!(
            "the engine saw it after {p99:.1} ms (p99 of {count}), {:.1} ms at the median",
            took_ms[count as usize / 2]
        ),
    );
    assert!(judged <= BAR_MS, "{took_ms:?}");
    gateway.assert_idle();
}

/// Milliseconds from the client's close to the abort in the engine's book. This is the `n`th.
fn hang_up(engine: &Engine, gateway: &Gateway, stream: bool, n: u64) -> f64 {
    let from = unix_ns();
    let mut socket = http::open(gateway.listen(), "POST", "/v1/chat/completions", &http::chat(stream));
    if stream {
        let mut some = [0; 64];
        assert!(socket.read(&mut some).unwrap() > 0);
    }
    assert!(until(Duration::from_secs(20), || engine.stats().in_flight > 0).is_some());
    let closed = unix_ns();
    drop(socket);
    assert!(until(Duration::from_secs(20), || engine.stats().aborted == n + 1).is_some(), "hang-up {n} was not seen");
    let record = engine.requests_since(from).pop().unwrap();
    record.ended_at_unix_ns.unwrap().saturating_sub(closed) as f64 / 1e6
}

#[test]
fn a_hang_up_on_a_stream_reaches_the_engine() {
    check(true);
}

#[test]
fn a_hang_up_before_an_answer_reaches_the_engine() {
    check(false);
}
