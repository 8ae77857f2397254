//! One of two backends goes silent: its process is stopped, or its network swallows everything.

use std::time::Duration;

use outrigger_fakes::{FaultKind, Outcome};
use rustix::process::Signal;

use super::{
    long, report,
    rig::{Engine, FIRST_TOKEN, Gateway, runtime, unix_ns},
    slack, until, wait,
};

fn check(what: &str, rate: f64, silence: impl FnOnce(&Engine), heal: impl FnOnce(&Engine)) {
    let runtime = runtime();
    let (victim, other) = (Engine::start(50.0, 500.0), Engine::start(50.0, 500.0));
    let gateway = Gateway::before(&[&victim, &other]);
    let load = gateway.load(&runtime, rate);
    wait(2.0);
    silence(&victim);
    // Left: no request is on it any more, and none goes there.
    let down = |name: &str| gateway.backend(name)["state"] == "down";
    let left = until(Duration::from_secs(15), || down("a") && gateway.backend("a")["in_flight"] == 0);
    // Silence begins for the gateway with the first request that meets it, at the latest.
    let limit = FIRST_TOKEN + Duration::from_secs(1) + Duration::from_secs_f64(2.0 / rate);
    wait(if long() { 5.0 } else { 0.5 });
    // A stopped process cannot be asked; what it has read is counted once it goes on.
    heal(&victim);
    let healed = unix_ns();
    // What it finds in its sockets was abandoned long ago; only an answer shows that it is in use.
    let answered = || victim.requests_since(healed).into_iter().find(|r| r.outcome == Outcome::Ok);
    until(Duration::from_secs(15), || answered().is_some());
    wait(0.5);
    load.stop();
    let seen = runtime.block_on(load.finish());
    let left = left.expect("it is left");
    let back = Duration::from_nanos(answered().expect("it comes back into use").at_unix_ns - healed);
    report(
        &format!("{what} of one backend at {rate} req/s"),
        &format!(
            "{} requests, {} failed, {} cut; left after {} ms (bar {} ms), back in use {} ms after it healed",
            seen.requests,
            seen.failed,
            seen.cut,
            left.as_millis(),
            limit.as_millis(),
            back.as_millis()
        ),
    );
    assert_eq!(seen.failed, 0, "{:#?}", seen.failures);
    assert!(left <= limit + slack(), "left after {left:?}");
    assert!(back <= Duration::from_secs(2) + slack(), "back after {back:?}");
    gateway.assert_idle();
}

/// Many requests, each of which shows the silence, and so few that probes have to.
const RATES: [f64; 2] = [40.0, 3.0];

#[test]
fn a_stopped_process_is_left_within_its_deadline() {
    for rate in RATES {
        check("SIGSTOP", rate, |e| e.signal(Signal::STOP), |e| e.signal(Signal::CONT));
    }
}

#[test]
fn a_black_hole_is_left_within_its_deadline() {
    for rate in RATES {
        check("blackhole", rate, |e| e.broken_by(FaultKind::Blackhole), Engine::heal);
    }
}
