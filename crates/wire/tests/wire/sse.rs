//! An event stream means the same however the network cut it, and no byte is lost.

use bytes::Bytes;
use outrigger_wire::sse::{Event, Splitter, SseFault};
use proptest::prelude::*;

use crate::fixtures::STREAMS;
use crate::support::split;

fn check(text: &str, expect: &[Option<&str>]) {
    let (events, leftover) = split([text.as_bytes()]);
    let data: Vec<_> = events.iter().map(|event| event.data.as_deref()).collect();
    let expect: Vec<_> = expect.iter().map(|data| data.map(str::as_bytes)).collect();
    assert_eq!(data, expect, "{text:?}");
    assert_eq!(leftover, None, "{text:?}");
}

#[test]
fn payloads() {
    check("data: a\n\n", &[Some("a")]);
    check("data:a\r\n\r\n", &[Some("a")]);
    check("data:  a \n\n", &[Some(" a ")]);
    check("data: a\ndata: b\n\n", &[Some("a\nb")]);
    check("event: e\nid: 1\ndata: a\nretry: 2\n\n", &[Some("a")]);
    check(": ping\n\ndata\n\ndata:\n\n\n", &[None, None, None, None]);
    check("database: a\n data: b\nDATA: c\n\n", &[None]);
    check("\u{feff}data: a\n\n\u{feff}data: b\n\n", &[Some("a"), None]);
}

#[test]
fn an_event_inside_one_chunk_is_not_copied() {
    let chunk = Bytes::from_static(b"data: a\n\ndata: b\n\n");
    let mut splitter = Splitter::default();
    splitter.push(chunk.clone());
    for at in [0, 9] {
        let event = splitter.next().unwrap().unwrap();
        assert_eq!(event.raw.as_ptr(), chunk[at..].as_ptr());
        assert_eq!(event.data.unwrap().as_ptr(), chunk[at + 6..].as_ptr());
    }
    assert_eq!((splitter.next(), splitter.buffered()), (None, 0));
}

#[test]
fn the_end_tells_a_cut_event_from_a_whole_one() {
    let (events, leftover) = split([&b"data: a\r\r"[..]]);
    let leftover = leftover.unwrap();
    assert!(events.is_empty() && leftover.complete);
    assert_eq!(leftover.event.data.as_deref(), Some(&b"a"[..]));
    for cut in ["data: [DONE]", "data: [DONE]\n", "data: [DONE]\r"] {
        let leftover = split([cut.as_bytes()]).1.unwrap();
        assert!(!leftover.complete, "{cut:?}");
        assert_eq!(leftover.event.data.as_deref(), Some(&b"[DONE]"[..]));
    }
}

#[test]
fn every_cut_in_two_gives_the_same_events() {
    for (name, bytes) in STREAMS {
        let whole = split([*bytes]);
        for at in 0..=bytes.len() {
            assert_eq!(split([&bytes[..at], &bytes[at..]]), whole, "{name} cut at {at}");
        }
        assert_eq!(split(bytes.chunks(1)), whole, "{name} byte by byte");
    }
}

#[test]
fn the_bound_holds_whatever_way_the_event_comes() {
    for size in [1, 2, 3, 11, 12, 30] {
        assert_eq!(outcome(b"data: 123\r\n\r\nx", 13, size), Ok(1));
        assert_eq!(outcome(b"data: 1234\r\n\r\nx", 13, size), Err(SseFault::TooLarge { max_event: 13 }));
        assert_eq!(outcome(b"data: 1234567890", 13, size), Err(SseFault::TooLarge { max_event: 13 }));
    }
}

fn outcome(bytes: &[u8], max_event: usize, size: usize) -> Result<usize, SseFault> {
    let mut splitter = Splitter::new(max_event);
    let mut events = 0;
    for piece in bytes.chunks(size) {
        splitter.push(Bytes::copy_from_slice(piece));
        while let Some(event) = splitter.next() {
            event?;
            events += 1;
        }
    }
    Ok(events)
}

/// A quadratic splitter would look at 10^12 bytes here.
#[test]
fn one_large_event_in_many_small_chunks_is_linear() {
    let mut splitter = Splitter::default();
    for _ in 0..1_000_000 {
        splitter.push(Bytes::from_static(b"xyz"));
        assert_eq!(splitter.next(), None);
    }
    splitter.push(Bytes::from_static(b"\n\n"));
    assert_eq!(splitter.next().unwrap().unwrap().raw.len(), 3_000_002);
}

fn lines() -> impl Strategy<Value = Vec<u8>> {
    let part = prop::sample::select(
        &["data: a", "data:{\"m\":1}", "data", ": c", "id: 1", "\n", "\r", "\r\n", "\n\n", "\r\n\r\n", "\u{feff}", "x"]
            [..],
    );
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat().into_bytes())
}

/// Cuts at the given places, in any order and number.
fn pieces<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn raw(events: &[Event]) -> Vec<u8> {
    events.iter().flat_map(|event| event.raw.to_vec()).collect()
}

proptest! {
    #[test]
    fn any_cuts_give_the_same_events(bytes in lines(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        prop_assert_eq!(split(pieces(&bytes, &cuts)), split([&bytes[..]]));
    }

    #[test]
    fn pushing_before_taking_gives_the_same_events(bytes in lines(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let mut splitter = Splitter::default();
        for piece in pieces(&bytes, &cuts) {
            splitter.push(Bytes::copy_from_slice(piece));
        }
        let events: Vec<_> = std::iter::from_fn(|| splitter.next()).map(Result::unwrap).collect();
        prop_assert_eq!((events, splitter.finish()), split([&bytes[..]]));
    }

    #[test]
    fn no_byte_is_lost(bytes in lines()) {
        let (events, leftover) = split([&bytes[..]]);
        let mut seen = raw(&events);
        seen.extend(leftover.into_iter().flat_map(|leftover| leftover.event.raw));
        prop_assert_eq!(seen, bytes);
    }
}
