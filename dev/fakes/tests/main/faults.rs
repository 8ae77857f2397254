//! Each fault as a client meets it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use outrigger_fakes::{Fake, Fault, FaultKind, Outcome, Profile, Stats};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::wire::{CHAT, End, Raw, chat, content, events, fake, json, status, two_seconds};

pub(crate) async fn faulty(fault: Fault) -> Fake {
    let fake = fake(Profile::instant()).await;
    fake.set_fault(fault).await;
    fake
}

pub(crate) async fn answer(fake: &Fake, stream: bool) -> (String, End) {
    Raw::post(fake, CHAT, &chat(stream, 10)).await.rest().await
}

/// What became of each request, once none is in flight and so many connections are open.
pub(crate) async fn outcomes(fake: &Fake, connections: u64) -> Vec<Outcome> {
    eventually(fake, |stats| (stats.in_flight, stats.connections) == (0, connections)).await;
    fake.requests_after(0).iter().map(|r| r.outcome).collect()
}

/// Waits until the book says so.
pub(crate) async fn eventually(fake: &Fake, holds: impl Fn(&Stats) -> bool) {
    let start = Instant::now();
    while !holds(&fake.stats()) {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", fake.stats());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn healthy(fake: &Fake) {
    let (text, end) = answer(fake, true).await;
    assert_eq!(end, End::Closed);
    assert!(text.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"), "{text}");
}

#[tokio::test]
async fn refuse_resets_what_is_open_refuses_what_comes_and_heals_on_the_same_port() {
    let fake = fake(two_seconds()).await;
    let mut open = Raw::post(&fake, CHAT, &chat(true, 100)).await;
    open.until("t0").await;
    fake.set_fault(Fault::new(FaultKind::Refuse)).await;
    assert_eq!(open.rest().await.1, End::Reset);
    let refused = Raw::connect(&fake).await.err().map(|e| e.kind());
    assert_eq!(refused, Some(std::io::ErrorKind::ConnectionRefused));
    assert_eq!(fake.requests_after(0)[0].outcome, Outcome::Fault);
    assert_eq!((fake.stats().running, fake.stats().connections), (0, 0));
    fake.heal().await;
    Raw::post(&fake, CHAT, &chat(true, 1)).await.until("[DONE]").await;
}

#[tokio::test]
async fn blackhole_lets_connects_time_out_and_open_streams_fall_silent() {
    let fake = fake(two_seconds()).await;
    let mut open = Raw::post(&fake, CHAT, &chat(true, 100)).await;
    open.until("t0").await;
    fake.set_fault(Fault::new(FaultKind::Blackhole)).await;
    assert_eq!(open.rest().await.1, End::Silence);
    let refused = Raw::connect(&fake).await.err().map(|e| e.kind());
    assert_eq!(refused, Some(std::io::ErrorKind::TimedOut));
    fake.heal().await;
    open.until("t5").await;
    Raw::post(&fake, CHAT, &chat(true, 1)).await.until("[DONE]").await;
}

#[tokio::test]
async fn network_faults_follow_one_another() {
    let fake = fake(Profile::instant()).await;
    for kind in [FaultKind::Blackhole, FaultKind::Refuse, FaultKind::Blackhole] {
        fake.set_fault(Fault::new(kind)).await;
        assert!(Raw::connect(&fake).await.is_err(), "{kind:?}");
        fake.heal().await;
        healthy(&fake).await;
    }
}

#[tokio::test]
async fn hang_sends_no_byte_and_a_hang_up_is_seen_at_once() {
    let fake = faulty(Fault::new(FaultKind::Hang)).await;
    for stream in [true, false] {
        assert_eq!(answer(&fake, stream).await, (String::new(), End::Silence));
    }
    eventually(&fake, |stats| (stats.aborted, stats.in_flight) == (2, 0)).await;
    assert_eq!(status(&Raw::get(&fake, "/health").await), 200);
}

#[tokio::test]
async fn status_faults_carry_their_status_and_retry_after() {
    for (kind, code) in [(FaultKind::Status(500), 500), (FaultKind::Status(503), 503), (FaultKind::Status(429), 429)] {
        let fake = faulty(Fault::new(kind).retry_after_s(7)).await;
        for stream in [true, false] {
            let (text, _) = answer(&fake, stream).await;
            assert_eq!((status(&text), text.contains("retry-after: 7")), (code, true));
            assert_eq!(json(&text)["error"]["code"], code);
        }
    }
}

#[tokio::test]
async fn cut_resets_a_stream_inside_a_chunk_and_truncates_a_body() {
    let fake = faulty(Fault::new(FaultKind::Cut).after_tokens(2)).await;
    let (text, end) = answer(&fake, true).await;
    assert_eq!((content(&events(&text)).as_str(), end), (" t0 t1", End::Reset));
    assert!(text.ends_with("f0\r\ndata: {\"id\":\"chatcmpl-"), "{text}");
    let (text, end) = answer(&fake, false).await;
    assert_eq!((status(&text), end), (200, End::Reset));
    let length: usize = text.split("content-length: ").nth(1).unwrap().split('\r').next().unwrap().parse().unwrap();
    let body = text.split_once("\r\n\r\n").unwrap().1;
    assert!(!body.is_empty() && body.len() < length, "{} of {length}", body.len());
    assert_eq!((fake.stats().faulted, fake.stats().aborted), (2, 0));
}

#[tokio::test]
async fn reset_breaks_the_connection_before_any_byte() {
    let fake = faulty(Fault::new(FaultKind::Reset)).await;
    assert_eq!(answer(&fake, true).await, (String::new(), End::Reset));
    assert_eq!(fake.stats().faulted, 1);
}

#[tokio::test]
async fn stall_stops_after_some_tokens_and_keeps_the_connection() {
    let fake = faulty(Fault::new(FaultKind::Stall).after_tokens(4)).await;
    let (text, end) = answer(&fake, true).await;
    assert_eq!((content(&events(&text)).as_str(), end), (" t0 t1 t2 t3", End::Silence));
    assert_eq!(answer(&fake, false).await.1, End::Silence);
}

#[tokio::test]
async fn wrong_model_garbage_and_malformed_answers_are_as_named() {
    let fake = faulty(Fault::new(FaultKind::WrongModel)).await;
    assert!(answer(&fake, true).await.0.contains("\"model\":\"wrong/model\""));
    assert_eq!(json(&answer(&fake, false).await.0)["model"], "wrong/model");
    let fake = faulty(Fault::new(FaultKind::Garbage)).await;
    for stream in [true, false] {
        let (text, end) = answer(&fake, stream).await;
        assert_eq!((status(&text), end), (200, End::Closed));
        assert!(!text.contains("data:") && !text.contains("choices"));
    }
    let fake = faulty(Fault::new(FaultKind::MalformedSse).after_tokens(1)).await;
    let (text, _) = answer(&fake, true).await;
    let broken = events(&text).iter().filter(|e| serde_json::from_str::<serde_json::Value>(e).is_err()).count();
    assert_eq!(broken, 2, "the broken event and [DONE]");
    assert_eq!(content(&events(&text)), " t0 t2 t3 t4 t5 t6 t7 t8 t9");
}

#[tokio::test]
async fn error_event_comes_first_in_a_200_stream_and_done_follows() {
    let fake = faulty(Fault::new(FaultKind::ErrorEvent)).await;
    let (text, _) = answer(&fake, true).await;
    let seen = events(&text);
    assert_eq!((status(&text), seen.len(), seen[1]), (200, 2, "[DONE]"));
    assert!(seen[0].starts_with("{\"error\":"));
    assert_eq!(status(&answer(&fake, false).await.0), 500);
    fake.set_fault(Fault::new(FaultKind::ErrorEvent).after_tokens(2)).await;
    assert_eq!(content(&events(&answer(&fake, true).await.0)), " t0 t1");
}

#[tokio::test]
async fn abort_looks_like_a_good_end_but_for_its_finish_reason() {
    let fake = faulty(Fault::new(FaultKind::Abort).after_tokens(2)).await;
    let (text, end) = answer(&fake, true).await;
    assert_eq!((content(&events(&text)).as_str(), end), (" t0 t1", End::Closed));
    assert!(text.contains("\"finish_reason\":\"abort\"") && text.contains("data: [DONE]"), "{text}");
    assert_eq!(json(&answer(&fake, false).await.0)["choices"][0]["finish_reason"], "abort");
}

#[tokio::test]
async fn every_kind_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<String> =
        FaultKind::ALL.iter().map(|k| serde_json::to_string(k).unwrap()).collect();
    assert_eq!(names.len(), FaultKind::ALL.len());
    assert!(names.contains("\"500\"") && names.contains("\"malformed_sse\""));
}

#[tokio::test]
async fn a_missing_done_is_a_clean_end_of_the_body() {
    let fake = faulty(Fault::new(FaultKind::MissingDone).after_tokens(2)).await;
    let (text, end) = answer(&fake, true).await;
    assert_eq!((content(&events(&text)).as_str(), end), (" t0 t1", End::Closed));
    assert!(text.ends_with("0\r\n\r\n") && !text.contains("\"length\""), "{text}");
    let fake = faulty(Fault::new(FaultKind::NoDone)).await;
    let (text, _) = answer(&fake, true).await;
    assert!(text.ends_with("0\r\n\r\n") && text.contains("\"length\"") && !text.contains("[DONE]"), "{text}");
}

#[tokio::test]
async fn slow_makes_a_running_stream_slower() {
    let fake = fake(two_seconds()).await;
    let mut raw = Raw::post(&fake, CHAT, &chat(true, 100)).await;
    raw.until("t0").await;
    fake.set_fault(Fault::new(FaultKind::Slow)).await;
    let (start, before) = (Instant::now(), fake.stats().tokens);
    eventually(&fake, |stats| stats.tokens >= before + 4).await;
    assert!(start.elapsed() > Duration::from_millis(380), "{:?}", start.elapsed());
}

#[tokio::test]
async fn kill_calls_back_and_without_a_callback_refuses() {
    let fake = fake(Profile::instant()).await;
    fake.set_fault(Fault::new(FaultKind::Kill)).await;
    assert!(Raw::connect(&fake).await.is_err());
    let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
    let mut options = outrigger_fakes::Options::new(Profile::instant());
    options.on_kill = Some(std::sync::Arc::new(move || tx.send(()).expect("the test waits")));
    let fake = Fake::spawn(options).await.unwrap();
    fake.set_fault(Fault::new(FaultKind::Kill)).await;
    rx.recv().await.unwrap();
}

#[tokio::test]
async fn probability_hits_some_the_same_ones_for_a_seed() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let fake = faulty(Fault::new(FaultKind::Status(500)).probability(0.5)).await;
        let mut seen = Vec::new();
        for _ in 0..20 {
            seen.push(status(&answer(&fake, false).await.0));
        }
        runs.push(seen);
    }
    assert_eq!(runs[0], runs[1]);
    assert!(runs[0].contains(&200) && runs[0].contains(&500));
}

#[tokio::test]
async fn a_fault_with_a_term_heals_by_itself() {
    let fake = faulty(Fault::new(FaultKind::Refuse).lasting(Duration::from_secs(2))).await;
    let start = Instant::now();
    assert!(Raw::connect(&fake).await.is_err());
    while !fake.active_faults().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20), "it does not end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(start.elapsed() > Duration::from_millis(1_900), "{:?}", start.elapsed());
    healthy(&fake).await;
}

pub(crate) async fn admin_at(at: SocketAddr, method: &str, path: &str, body: &str) -> String {
    let mut tcp = TcpStream::connect(at).await.expect("the admin listener accepts");
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    tcp.write_all(format!("{head}\r\n{body}").as_bytes()).await.expect("the connection is open");
    let mut text = String::new();
    tcp.read_to_string(&mut text).await.expect("the answer ends");
    text
}

pub(crate) async fn admin(fake: &Fake, method: &str, path: &str, body: &str) -> String {
    admin_at(fake.admin_addr(), method, path, body).await
}

#[tokio::test]
async fn faults_are_set_listed_and_ended_over_http() {
    let fake = fake(Profile::instant()).await;
    let set = admin(&fake, "POST", "/faults", r#"{"fault":"429","retry_after_s":3,"for":"10s"}"#).await;
    assert_eq!(json(&set), serde_json::json!([{"fault": "429", "retry_after_s": 3, "for": 10.0}]));
    assert_eq!(status(&answer(&fake, false).await.0), 429);
    for bad in [r#"{"fault":"nonsense"}"#, r#"{"fault":"500","for":"soon"}"#, r#"{"fault":"500","probability":2}"#] {
        assert_eq!(status(&admin(&fake, "POST", "/faults", bad).await), 400);
    }
    assert_eq!(json(&admin(&fake, "DELETE", "/faults", "").await), serde_json::json!([]));
    healthy(&fake).await;
    let stats = json(&admin(&fake, "GET", "/stats", "").await);
    assert_eq!((&stats["received"], &stats["completed"], &stats["tokens"]), (&2.into(), &1.into(), &10.into()));
    let log = json(&admin(&fake, "GET", "/stats/requests?after=1", "").await);
    assert_eq!((&log[0]["seq"], &log[0]["outcome"], &log[0]["stream"]), (&2.into(), &"ok".into(), &true.into()));
}
