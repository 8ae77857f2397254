//! One of two backends dies by SIGKILL and comes back on its old port.

use std::time::Duration;

use super::{
    long, report,
    rig::{Engine, Gateway, runtime},
    slack, until, wait,
};

const BACK_IN_USE: Duration = Duration::from_secs(2);

/// How much traffic, and how long each part lasts, in seconds.
struct Shape {
    rate: f64,
    service_s: f64,
    before: f64,
    down: f64,
    back: f64,
}

fn check(shape: &Shape) {
    let runtime = runtime();
    // A probe is a real generation, so that what it takes to come back includes a time to first token.
    let (ttft_ms, total_ms) = (200.0_f64.min(shape.service_s * 100.0), shape.service_s * 1e3);
    let (mut victim, other) = (Engine::start(ttft_ms, total_ms), Engine::start(ttft_ms, total_ms));
    let first_token = 4.0_f64.max(shape.service_s);
    let timeouts = format!("{{ headers: {first_token}s, first_token: {first_token}s, idle: 5s, total: 120s }}");
    let gateway = Gateway::with_timeouts(&[&victim, &other], &timeouts);
    let load = gateway.load(&runtime, shape.rate);
    wait(shape.before);
    let held = victim.stats().in_flight;
    assert!(held > 0, "it died with work in its hands");
    victim.kill();
    wait(shape.down);
    victim.restart();
    let back = until(Duration::from_secs(20), || victim.stats().received > 0);
    let weight_at_first = gateway.backend("a")["weight_now"].as_f64().unwrap();
    let thirds: Vec<u64> = (0..3)
        .map(|_| {
            let before = victim.stats().received;
            wait(shape.back / 3.0);
            victim.stats().received - before
        })
        .collect();
    let weight_at_end = gateway.backend("a")["weight_now"].as_f64().unwrap();
    load.stop();
    let seen = runtime.block_on(load.finish());
    let bar = format!("kill -9 at {} req/s x {} s service", shape.rate, shape.service_s);
    let back = back.expect("it comes back into use");
    report(&bar, &format!("{} requests, {held} held, {} failed, {} cut", seen.requests, seen.failed, seen.cut));
    report(
        &format!("{bar}, restarted"),
        &format!("back in use after {} ms (bar {} ms)", back.as_millis(), BACK_IN_USE.as_millis()),
    );
    report(
        &format!("{bar}, slow start"),
        &format!("weight {weight_at_first:.2} to {weight_at_end:.2}, requests in three thirds {thirds:?}"),
    );
    assert_eq!(seen.failed, 0, "{:#?}", seen.failures);
    assert_eq!(seen.skipped, 0);
    // Half of the requests are streams; only those that were under way on the victim can have been cut.
    assert!(seen.cut <= held, "{} cut, {held} held", seen.cut);
    assert!(seen.failures.iter().all(|f| f.stream && !f.body.is_empty()), "{:#?}", seen.failures);
    assert!(back <= BACK_IN_USE + slack(), "back in use only after {back:?}");
    assert!(weight_at_first < 0.5 && weight_at_end >= weight_at_first, "{weight_at_first} to {weight_at_end}");
    if shape.back >= 15.0 {
        assert!(weight_at_end > weight_at_first && thirds[2] > thirds[0], "it grows: {thirds:?}");
    }
    gateway.assert_idle();
}

#[test]
fn a_killed_backend_costs_no_request_at_a_high_rate() {
    check(&if long() {
        Shape { rate: 200.0, service_s: 2.0, before: 6.0, down: 6.0, back: 24.0 }
    } else {
        Shape { rate: 60.0, service_s: 1.0, before: 2.0, down: 1.5, back: 3.0 }
    });
}

#[test]
fn a_killed_backend_costs_no_request_of_long_service() {
    check(&if long() {
        Shape { rate: 5.0, service_s: 30.0, before: 33.0, down: 8.0, back: 24.0 }
    } else {
        Shape { rate: 5.0, service_s: 4.0, before: 4.0, down: 1.0, back: 1.5 }
    });
}
