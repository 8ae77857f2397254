//! No bytes from outside panic, overflow the stack or take more than linear time.

use bytes::Bytes;
use outrigger_wire::endpoint::Endpoint;
use outrigger_wire::error::UpstreamError;
use outrigger_wire::json::{Limits, members};
use outrigger_wire::metrics::{Dialect, read};
use outrigger_wire::request::parse;
use outrigger_wire::response::{self, inspect_body};
use outrigger_wire::retry_after::{rate_limit_reset, retry_after, retry_after_ms};
use outrigger_wire::sse::Event;
use outrigger_wire::stream::{self, inspect, inspect_committed};
use proptest::prelude::*;

use crate::fixtures::{BODIES, STREAMS};
use crate::support::{damaged, object, render, split, style};

fn read_as_everything(bytes: &[u8]) {
    let whole = Bytes::copy_from_slice(bytes);
    let _ = members(bytes, &Limits::default());
    let _ = UpstreamError::read(None, bytes);
    for endpoint in Endpoint::ALL {
        if let Ok(head) = parse(endpoint, bytes, &Limits::default()) {
            head.rewrite(&whole, "other", true);
        }
        if let Ok(view) = inspect_body(endpoint, bytes) {
            response::with_model(&whole, &view, "other");
        }
        let event = Event::parse(Bytes::from([b"data: ", bytes, b"\n\n"].concat()));
        let data = event.data.clone().unwrap_or_default();
        for chunk in [inspect(endpoint, &data), inspect_committed(endpoint, &data)].into_iter().flatten() {
            stream::with_model(&event, &chunk, "other");
        }
    }
    for dialect in Dialect::ALL {
        read(dialect, bytes);
    }
    let text = String::from_utf8_lossy(bytes);
    let _ = (retry_after(&text, 0), retry_after_ms(&text), rate_limit_reset(&text));
    split(bytes.chunks(3.max(bytes.len() / 1_000)));
}

fn recorded() -> impl Strategy<Value = Vec<u8>> {
    let events = STREAMS.iter().flat_map(|(_, bytes)| split([*bytes]).0).filter_map(|event| event.data);
    let all: Vec<Vec<u8>> = events.map(Vec::from).chain(BODIES.iter().map(|(_, bytes)| bytes.to_vec())).collect();
    prop::sample::select(all)
}

fn metrics_line() -> impl Strategy<Value = Vec<u8>> {
    "(vllm:num_requests_running|sglang:token_usage|tgi_queue_size)\\{?[a-z]{0,2}=?\"?[\\\\\"}, a]{0,5}\"?\\}? ?[0-9.eNa-]{0,4}"
        .prop_map(String::into_bytes)
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_as_everything(&bytes);
    }

    #[test]
    fn damaged_documents(bytes in damaged(recorded())) {
        read_as_everything(&bytes);
    }

    #[test]
    fn damaged_random_objects(bytes in damaged((object(), style()).prop_map(|(map, style)| render(&map.into(), style).into_bytes()))) {
        read_as_everything(&bytes);
    }

    #[test]
    fn damaged_metrics(bytes in damaged(metrics_line())) {
        read_as_everything(&bytes);
    }
}

/// A reader that recurses dies here; one that looks twice at each level does not come back.
#[test]
fn a_million_levels() {
    let deep = "[".repeat(1_000_000);
    for prefix in ["", "{\"error\":", "{\"choices\":[{\"delta\":{\"content\":", "{\"x\":"] {
        let body = format!("{prefix}{deep}");
        assert!(members(body.as_bytes(), &Limits::default()).is_err());
        assert!(members(body.as_bytes(), &Limits { max_depth: usize::MAX }).is_err());
        assert!(inspect(Endpoint::Chat, body.as_bytes()).is_err());
        assert!(inspect_body(Endpoint::Chat, body.as_bytes()).is_err());
        UpstreamError::read(None, body.as_bytes());
    }
}

#[test]
fn many_levels_for_every_reader() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"choices\":", "}]")] {
        for prefix in ["", "{\"error\":", "{\"usage\":", "{\"model\":", "{\"x\":"] {
            let end = "}".repeat(usize::from(!prefix.is_empty()));
            let closed = format!("{prefix}{}1{}{end}", open.repeat(4_000), close.repeat(4_000));
            read_as_everything(closed.as_bytes());
            read_as_everything(&closed.as_bytes()[..closed.len() / 2]);
        }
    }
}

#[test]
fn many_quotes_keys_and_keywords() {
    for part in
        ["\"", "\\", "\"model\"", "\"model\":", "\"usage\":null,", "\"finish_reason\" ", "\\u00", "\r", "data:\n"]
    {
        read_as_everything(part.repeat(4_000).as_bytes());
        read_as_everything(format!("{{{}}}", part.repeat(4_000)).as_bytes());
    }
}
