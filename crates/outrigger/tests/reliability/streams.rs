//! A stream that breaks after content says so, as its last event. Read from the socket, byte by byte.

use std::time::Duration;

use outrigger_fakes::{Fault, FaultKind};

use super::{
    long, report,
    rig::{Engine, Gateway},
    until,
};

const BREAKS: [FaultKind; 7] = [
    FaultKind::Cut,
    FaultKind::Stall,
    FaultKind::Abort,
    FaultKind::MalformedSse,
    FaultKind::ErrorEvent,
    FaultKind::MissingDone,
    FaultKind::NoDone,
];

#[test]
fn a_stream_that_breaks_after_content_ends_with_an_error_event() {
    let engine = Engine::start(5.0, 60.0);
    let timeouts = "{ headers: 2s, first_token: 2s, idle: 1s, total: 60s }";
    let gateway = Gateway::with_timeouts(&[&engine], timeouts);
    let times = if long() { 20 } else { 2 };
    for kind in BREAKS {
        engine.break_with(&Fault::new(kind).after_tokens(3));
        for _ in 0..times {
            // The client has the end before the gateway has booked it.
            gateway.assert_idle();
            // One break makes the backend suspect; it is asked, answers, and is in use again.
            assert!(until(Duration::from_secs(20), || gateway.is_up("a") || lifted(&engine, &gateway, kind)).is_some());
            let answer = gateway.chat(true);
            let events = answer.events();
            let what = format!("{kind:?}: {:?}", answer.body);
            assert_eq!(answer.status, 200, "{what}");
            assert!(answer.complete, "the error event is the end of a whole body: {what}");
            assert!(answer.body.contains(" t0"), "content came before: {what}");
            assert!(!answer.body.contains("[DONE]"), "{what}");
            let last: serde_json::Value = serde_json::from_str(events.last().unwrap()).unwrap();
            assert!(last["error"]["type"].is_string() && last["error"]["code"].is_string(), "{what}");
            assert_eq!(events.iter().filter(|e| e.contains(r#""error""#)).count(), 1, "{what}");
        }
        engine.heal();
    }
    assert!(until(Duration::from_secs(20), || gateway.is_up("a")).is_some());
    let answer = gateway.chat(true);
    assert!(answer.complete && answer.events().last() == Some(&"[DONE]"), "a whole one ends as it should");
    report(
        "broken streams end with a typed error event",
        &format!("{} of {} over {} kinds of break", BREAKS.len() * times, BREAKS.len() * times, BREAKS.len()),
    );
    gateway.assert_idle();
}

/// Lifts the fault until the backend is up again, for the breaks that fail probes too.
fn lifted(engine: &Engine, gateway: &Gateway, kind: FaultKind) -> bool {
    engine.heal();
    let up = until(Duration::from_secs(3), || gateway.is_up("a")).is_some();
    engine.break_with(&Fault::new(kind).after_tokens(3));
    up
}
