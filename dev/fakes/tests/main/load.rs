//! The load generator: what it calls ok, cut and failed, against the fake's own book.

use std::time::Duration;

use outrigger_fakes::{
    Fake, Fault, FaultKind, Profile,
    load::{Arrivals, Load, LoadOptions, Snapshot},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::{faults::eventually, wire::fake};

fn options(url: String) -> LoadOptions {
    LoadOptions {
        requests_per_second: 200.0,
        duration: Some(Duration::from_millis(500)),
        max_tokens: Some(8),
        include_usage: true,
        timeout: Duration::from_secs(2),
        ..LoadOptions::new(url, outrigger_fakes::LLAMA_70B)
    }
}

async fn load(fake: &Fake) -> Snapshot {
    let patient = LoadOptions { timeout: Duration::from_secs(20), ..options(fake.url()) };
    Load::start(patient).unwrap().finish().await
}

#[tokio::test]
async fn all_is_ok_and_both_books_agree() {
    let fake = fake(Profile::instant()).await;
    let seen = load(&fake).await;
    assert!(seen.requests > 60, "{}", seen.requests);
    assert_eq!((seen.ok, seen.failed, seen.cut, seen.in_flight), (seen.requests, 0, 0, 0), "{:?}", seen.failures);
    assert_eq!((fake.stats().received, fake.stats().completed), (seen.requests, seen.requests));
    assert_eq!(fake.stats().tokens, seen.tokens);
    let streams = fake.requests_after(0).iter().filter(|r| r.stream).count();
    assert!(streams > 20 && streams < 80, "{streams} streams");
    assert!(seen.ttft_ms.p99 > 0.0 && seen.duration_ms.p50 > 0.0);
}

#[tokio::test]
async fn every_broken_answer_is_failed() {
    for kind in [
        FaultKind::Status(500),
        FaultKind::Cut,
        FaultKind::Reset,
        FaultKind::Garbage,
        FaultKind::MalformedSse,
        FaultKind::ErrorEvent,
        FaultKind::Abort,
        FaultKind::Stall,
        FaultKind::Refuse,
        FaultKind::Hang,
    ] {
        let fake = fake(Profile::instant()).await;
        fake.set_fault(Fault::new(kind)).await;
        let few = LoadOptions { requests_per_second: 50.0, timeout: Duration::from_millis(300), ..options(fake.url()) };
        let seen = Load::start(few).unwrap().finish().await;
        assert!(seen.requests > 5);
        assert_eq!((seen.failed, seen.ok, seen.cut), (seen.requests, 0, 0), "{kind:?}");
        assert_eq!(seen.failures.len() as u64, seen.failed);
    }
}

#[tokio::test]
async fn streams_that_end_early_are_failed() {
    for kind in [FaultKind::MissingDone, FaultKind::NoDone] {
        let fake = fake(Profile::instant()).await;
        fake.set_fault(Fault::new(kind)).await;
        let streams = LoadOptions { stream_share: 1.0, ..options(fake.url()) };
        let seen = Load::start(streams).unwrap().finish().await;
        assert_eq!((seen.failed, seen.ok), (seen.requests, 0), "{kind:?}");
    }
}

#[tokio::test]
async fn what_is_held_back_is_skipped_and_uniform_arrivals_are_even() {
    let fixed = outrigger_fakes::Fixed { ttft_ms: 0.0, tokens: 8, total_ms: 5000.0 };
    let fake = fake(Profile { fixed: Some(fixed), ..Profile::instant() }).await;
    let load = Load::start(LoadOptions {
        requests_per_second: 100.0,
        arrivals: Arrivals::Uniform,
        max_concurrent: 10,
        ..options(fake.url())
    })
    .unwrap();
    let seen = load.finish().await;
    assert_eq!((seen.requests, seen.skipped, seen.failed), (10, 39, 10));
    eventually(&fake, |stats| stats.aborted == 10).await;
}

/// Answers each connection with these bytes once a request has come.
async fn scripted(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut buf = [0; 4096];
            let _ = tcp.read(&mut buf).await;
            let _ = tcp.write_all(answer.as_bytes()).await;
        }
    });
    format!("http://{at}")
}

async fn verdict(answer: &'static str) -> Snapshot {
    let once = LoadOptions {
        requests_per_second: 100.0,
        arrivals: Arrivals::Uniform,
        duration: Some(Duration::from_millis(15)),
        stream_share: 1.0,
        max_tokens: None,
        ..options(scripted(answer).await)
    };
    Load::start(once).unwrap().finish().await
}

macro_rules! sse {
    ($($data:literal),*) => {
        concat!(
            "HTTP/1.1 200 OK\r\nx-outrigger-backend: b1\r\nx-outrigger-substituted: 1\r\nconnection: close\r\n\r\n",
            $("data: ", $data, "\n\n"),*
        )
    };
}

#[tokio::test]
async fn an_error_event_after_content_without_done_is_a_cut() {
    let seen =
        verdict(sse!(r#"{"choices":[{"delta":{"content":" t0 t1"}}]}"#, r#"{"error":{"message":"upstream cut"}}"#))
            .await;
    assert_eq!((seen.cut, seen.failed, seen.ok, seen.substituted), (1, 0, 0, 1), "{:?}", seen.failures);
    assert_eq!(seen.by_backend.get("b1"), Some(&1));
}

#[tokio::test]
async fn lost_and_repeated_tokens_and_odd_ends_are_failed_with_the_reason() {
    let cases = [
        (sse!(r#"{"choices":[{"delta":{"content":" t0 t2"},"finish_reason":"stop"}]}"#, "[DONE]"), "t1 lost"),
        (sse!(r#"{"choices":[{"delta":{"content":" t0 t0"},"finish_reason":"stop"}]}"#, "[DONE]"), "t0 repeated"),
        (sse!(r#"{"choices":[{"delta":{"content":" t0"}}]}"#, "[DONE]"), "0 finish reasons"),
        (sse!(r#"{"choices":[{"delta":{"content":" t0"},"finish_reason":"abort"}]}"#, "[DONE]"), "abort"),
        (sse!(r#"{"choices":[{"delta":{"content":" t0"},"finish_reason":"stop"}]}"#), "without [DONE]"),
        (sse!(r#"{"choices":[{"delta":{"content":" t0"}}]}"#, r#"{"error":{}}"#, "[DONE]"), "then [DONE]"),
        (sse!(r#"{"error":{}}"#), "at once"),
        (sse!(r#"{"choices":[{"delta":{"content":" t0"},"finish_reason":"stop"}]}"#, "[DONE]", "{}"), "after [DONE]"),
    ];
    for (answer, why) in cases {
        let seen = verdict(answer).await;
        assert_eq!((seen.failed, seen.ok, seen.cut), (1, 0, 0), "{answer}");
        assert!(seen.failures[0].why.contains(why), "{} is not {why}", seen.failures[0].why);
    }
}
