//! The book must tell the truth: hang-ups, probes, tokens.

use std::time::{Duration, Instant};

use outrigger_fakes::{Outcome, Profile};

use crate::{
    faults::eventually,
    wire::{CHAT, Raw, chat, fake, two_seconds},
};

#[tokio::test]
async fn a_hang_up_aborts_the_sequence_within_a_hundred_milliseconds() {
    let fake = fake(two_seconds()).await;
    for stream in [true, false] {
        let mut times = Vec::new();
        // The best of a few: the machine may be busy with something else.
        while times.iter().all(|time| *time > Duration::from_millis(100)) {
            assert!(times.len() < 10, "stream: {stream}: {times:?}");
            let mut raw = Raw::post(&fake, CHAT, &chat(stream, 100)).await;
            if stream {
                raw.until("t1").await;
            } else {
                eventually(&fake, |stats| stats.running == 1).await;
            }
            assert_eq!(fake.stats().running, 1);
            drop(raw);
            let hung_up = Instant::now();
            eventually(&fake, |stats| (stats.running, stats.in_flight) == (0, 0)).await;
            times.push(hung_up.elapsed());
        }
    }
    let stats = fake.stats();
    assert_eq!((stats.aborted, stats.completed), (stats.received, 0));
    assert!(stats.received >= 2 && stats.last_abort_ms_ago.is_some_and(|ms| ms < 5_000));
    let log = fake.requests_after(0);
    assert!(log.iter().all(|r| r.outcome == Outcome::Aborted && r.ended_at_unix_ns > Some(r.at_unix_ns)));
}

#[tokio::test]
async fn probes_are_counted_apart_and_every_token_once() {
    let fake = fake(Profile::instant()).await;
    for probe in ["", "x-outrigger-probe: 1\r\n", ""] {
        Raw::post_with(&fake, CHAT, &chat(true, 5), probe).await.rest().await;
    }
    let stats = fake.stats();
    assert_eq!((stats.received, stats.probes, stats.completed, stats.tokens), (2, 1, 2, 10));
    assert_eq!((stats.generated, stats.last_seq), (15, 3));
    let probes: Vec<bool> = fake.requests_after(0).iter().map(|r| r.probe).collect();
    assert_eq!(probes, [false, true, false]);
    fake.reset_stats();
    assert_eq!((fake.stats().received, fake.stats().last_seq, fake.requests_after(0).len()), (0, 3, 0));
}

#[tokio::test]
async fn shutdown_closes_connections_and_frees_the_port() {
    let fake = fake(two_seconds()).await;
    let at = fake.listen_addr();
    let mut raw = Raw::post(&fake, CHAT, &chat(true, 100)).await;
    raw.until("t0").await;
    fake.shutdown().await;
    raw.rest().await;
    let again = outrigger_fakes::Options { listen: at, ..outrigger_fakes::Options::new(Profile::instant()) };
    outrigger_fakes::Fake::spawn(again).await.unwrap();
}
