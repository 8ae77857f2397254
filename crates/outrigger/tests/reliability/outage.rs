//! Every backend is down at once: the gateway neither multiplies the load nor keeps clients waiting.

use std::time::Duration;

use outrigger_fakes::FaultKind;

use super::{
    judged, long, report,
    rig::{Engine, Gateway, runtime, unix_ns},
    until, wait,
};

const RATE: f64 = 60.0;
const PROMPT_MS: f64 = 50.0;

fn check(kind: FaultKind) {
    let runtime = runtime();
    let engines = [Engine::start(20.0, 300.0), Engine::start(20.0, 300.0)];
    let gateway = Gateway::before(&[&engines[0], &engines[1]]);
    let load = gateway.load(&runtime, RATE);
    wait(1.5);
    let died = unix_ns();
    let held: u64 = engines.iter().map(|e| e.stats().in_flight).sum();
    for engine in &engines {
        engine.broken_by(kind);
    }
    let mut marks = vec![(died, load.stats().snapshot().requests)];
    let known = until(Duration::from_secs(10), || ["a", "b"].iter().all(|b| gateway.backend(b)["state"] == "down"));
    let known = known.unwrap_or_else(|| panic!("{kind:?}: {:#}", gateway.state()["backends"]));
    let mut took_ms = Vec::new();
    let asked = if long() { 100 } else { 20 };
    for n in 0..asked {
        let answer = gateway.chat(n % 2 == 0);
        took_ms.push(answer.took.as_secs_f64() * 1e3);
        assert!(answer.status >= 500 || answer.status == 429, "{}", answer.body);
        let body = answer.json();
        let notes = body["error"]["backends"].as_array().or(body["backends"].as_array()).unwrap();
        for name in ["a", "b"] {
            let note = notes.iter().find(|n| n["backend"] == name).unwrap_or_else(|| panic!("{body}"));
            assert!(note["reason"].as_str().is_some_and(|r| !r.is_empty()), "{body}");
        }
    }
    for _ in 0..if long() { 60 } else { 4 } {
        wait(0.5);
        marks.push((unix_ns(), load.stats().snapshot().requests + asked));
    }
    load.stop();
    let seen = runtime.block_on(load.finish());
    let worst = worst_window(&engines, &marks, held);
    took_ms.sort_by(f64::total_cmp);
    report(
        &format!("{kind:?} on all backends"),
        &format!(
            "known after {} ms, then answered within {:.1} ms; attempts in the worst 10 s {} of {} allowed ({} requests in all)",
            known.as_millis(),
            took_ms[took_ms.len() - 1],
            worst.0,
            worst.1,
            seen.requests
        ),
    );
    assert!(judged(&took_ms, 100) <= PROMPT_MS, "answered only after {took_ms:?} ms");
    assert!(worst.0 <= worst.1, "{worst:?}");
    gateway.assert_idle();
}

/// Attempts that the engines saw and how many were allowed, in the window of 10 s where they come closest.
fn worst_window(engines: &[Engine], marks: &[(u64, u64)], held: u64) -> (u64, u64) {
    const WINDOW_NS: u64 = 10_000_000_000;
    let attempts: Vec<u64> = engines.iter().flat_map(|e| e.requests_since(marks[0].0)).map(|r| r.at_unix_ns).collect();
    (marks.iter().enumerate())
        .filter(|(i, (from, _))| *i == 0 || from + WINDOW_NS <= marks[marks.len() - 1].0)
        .map(|(i, (from, before))| {
            let (to, after) = *marks.iter().rev().find(|(at, _)| *at <= from + WINDOW_NS).unwrap_or(&marks[i]);
            let made = attempts.iter().filter(|at| (*from..to).contains(at)).count() as u64;
            let sent = after - before;
            let held = if i == 0 { held } else { 0 };
            (made, sent + sent / 5 + held)
        })
        .max_by_key(|(made, allowed)| made * 1_000 / allowed.max(&1))
        .unwrap()
}

#[test]
fn all_backends_refuse() {
    check(FaultKind::Refuse);
}

#[test]
fn all_backends_answer_500() {
    check(FaultKind::Status(500));
}

#[test]
fn all_backends_hang() {
    check(FaultKind::Hang);
}
