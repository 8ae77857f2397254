//! One of two backends answers everything with 500, 503 or 429.

use outrigger_fakes::FaultKind;

use super::{
    report,
    rig::{Engine, Gateway, runtime, unix_ns},
    wait,
};

/// Longer than this without a request, and the backend has been left. A trial comes 0.8 s after a block at the soonest.
const GAP_NS: u64 = 700_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// `enough` faults of this kind are evidence; within a second of the last of them no request may come any more, but for
/// `trials` that ask whether the pressure is over.
fn check(kind: FaultKind, enough: usize, trials: usize) {
    let runtime = runtime();
    let (victim, other) = (Engine::start(20.0, 100.0), Engine::start(20.0, 100.0));
    let gateway = Gateway::before(&[&victim, &other]);
    let load = gateway.load(&runtime, 60.0);
    wait(1.0);
    let broken = unix_ns();
    victim.broken_by(kind);
    wait(2.5);
    load.stop();
    let seen = runtime.block_on(load.finish());
    let arrivals: Vec<u64> = victim.requests_since(broken).iter().map(|r| r.at_unix_ns).collect();
    assert!(arrivals.len() >= enough, "{arrivals:?}");
    let left_at = arrivals.windows(2).position(|pair| pair[1] - pair[0] > GAP_NS).unwrap_or(arrivals.len() - 1);
    let took = arrivals[left_at].saturating_sub(arrivals[enough - 1]);
    let tried = arrivals.len() - 1 - left_at;
    report(
        &format!("{kind:?} to everything"),
        &format!(
            "{} requests, {} client errors; left {} ms after fault {enough}, {} requests met it, {tried} trials",
            seen.requests,
            seen.failed + seen.cut,
            took / 1_000_000,
            left_at + 1,
        ),
    );
    assert_eq!((seen.failed, seen.cut), (0, 0), "{:#?}", seen.failures);
    assert!(took <= SECOND_NS, "left after {took} ns");
    assert!(tried <= trials, "{tried} trials in 2.5 s");
    gateway.assert_idle();
}

#[test]
fn a_backend_that_answers_500_is_left_after_five() {
    check(FaultKind::Status(500), 5, 0);
}

#[test]
fn a_backend_that_answers_503_is_left_after_three() {
    check(FaultKind::Status(503), 3, 2);
}

#[test]
fn a_backend_that_answers_429_is_left_after_three() {
    check(FaultKind::Status(429), 3, 2);
}
