//! What is read from each recorded answer. Review a change with `cargo insta review`, or set `INSTA_UPDATE=always`.

use std::fmt::Write as _;

use bytes::Bytes;
use outrigger_wire::endpoint::Endpoint;
use outrigger_wire::error::UpstreamError;
use outrigger_wire::response::{self, inspect_body};
use outrigger_wire::sse::Event;
use outrigger_wire::stream::{self, Chunk, inspect};

use crate::fixtures::{BODIES, ERRORS, STREAMS};
use crate::support::split;

fn endpoint(name: &str) -> Endpoint {
    match name {
        _ if name.contains("responses") => Endpoint::Responses,
        _ if name.contains("messages") => Endpoint::Messages,
        _ if name.contains("completions") => Endpoint::Completions,
        _ if name.contains("embeddings") => Endpoint::Embeddings,
        _ => Endpoint::Chat,
    }
}

fn describe(event: &Event, endpoint: Endpoint) -> String {
    let Some(data) = &event.data else { return format!("no data: {:?}", event.raw) };
    match inspect(endpoint, data) {
        Err(fault) => format!("fault: {fault}"),
        Ok(chunk) => describe_chunk(event, data, &chunk),
    }
}

fn describe_chunk(event: &Event, data: &Bytes, chunk: &Chunk) -> String {
    let mut out = String::new();
    for (said, what) in [(chunk.done, "done"), (chunk.content, "content"), (chunk.usage_only, "usage_only")] {
        if said {
            let _ = write!(out, "{what} ");
        }
    }
    if !chunk.finishes.is_empty() {
        let _ = write!(out, "{:?} ", chunk.finishes);
    }
    if let Some(usage) = &chunk.usage {
        let _ = write!(out, "{usage:?} ");
    }
    if let Some(error) = &chunk.error {
        let _ = write!(out, "{error:?} ");
    }
    if let Some(span) = &chunk.model {
        let renamed = stream::with_model(event, chunk, "public");
        let _ = write!(out, "model {} -> {} bytes", data[span.clone()].escape_ascii(), renamed.len());
    }
    if out.is_empty() { "nothing".to_owned() } else { out.trim_end().to_owned() }
}

#[test]
fn streams() {
    for (name, bytes) in STREAMS {
        let (events, leftover) = split([*bytes]);
        let mut lines: Vec<_> = events.iter().map(|event| describe(event, endpoint(name))).collect();
        if let Some(leftover) = leftover {
            lines.push(format!("left over: {:?}, complete: {}", leftover.event.data, leftover.complete));
        }
        insta::assert_snapshot!(*name, lines.join("\n"));
    }
}

#[test]
fn bodies() {
    for (name, bytes) in BODIES {
        let body = Bytes::from_static(bytes);
        match inspect_body(endpoint(name), &body) {
            Err(fault) => insta::assert_snapshot!(*name, fault.to_string()),
            Ok(view) => {
                let renamed = response::with_model(&body, &view, "public \"name\"");
                let renamed = String::from_utf8_lossy(&renamed);
                insta::assert_snapshot!(*name, format!("{view:#?}\n\n{renamed}"));
            }
        }
    }
}

#[test]
fn errors() {
    for (name, bytes) in ERRORS {
        insta::assert_snapshot!(format!("error_{name}"), format!("{:#?}", UpstreamError::read(None, bytes)));
    }
}

#[test]
fn a_body_that_has_the_name_already_is_not_copied() {
    let body = Bytes::from_static(br#"{"model":"m\u0061","choices":[]}"#);
    let view = inspect_body(Endpoint::Chat, &body).unwrap();
    assert_eq!(response::with_model(&body, &view, "ma").as_ptr(), body.as_ptr());
}
