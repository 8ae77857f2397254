//! Splitting whole streams, and random JSON.

use std::fmt::Write as _;

use bytes::Bytes;
use outrigger_wire::sse::{Event, Leftover, Splitter};
use proptest::prelude::*;
use serde_json::{Map, Value};

/// All events of a stream that came in these pieces, and what was left.
pub(crate) fn split<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Event>, Option<Leftover>) {
    let mut splitter = Splitter::new(usize::MAX);
    let mut events = Vec::new();
    for piece in pieces {
        splitter.push(Bytes::copy_from_slice(piece));
        while let Some(event) = splitter.next() {
            events.push(event.expect("there is no bound"));
        }
    }
    (events, splitter.finish())
}

/// How a document is written; all ways mean the same.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Style {
    Compact,
    Pretty,
    /// Every character of a string or key as `\uXXXX`.
    Escaped,
}

pub(crate) fn style() -> impl Strategy<Value = Style> {
    prop_oneof![4 => Just(Style::Compact), 2 => Just(Style::Pretty), 1 => Just(Style::Escaped)]
}

pub(crate) fn render(value: &Value, style: Style) -> String {
    match style {
        Style::Compact => value.to_string(),
        Style::Pretty => format!(" {value:#}\n"),
        Style::Escaped => escaped(value),
    }
}

fn escaped(value: &Value) -> String {
    match value {
        Value::String(text) => escaped_text(text),
        Value::Array(items) => format!("[{}]", items.iter().map(escaped).collect::<Vec<_>>().join(" , ")),
        Value::Object(map) => {
            let members = map.iter().map(|(key, value)| format!("{}\t:{}", escaped_text(key), escaped(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

fn escaped_text(text: &str) -> String {
    let mut out = "\"".to_owned();
    for unit in text.encode_utf16() {
        let _ = write!(out, "\\u{unit:04x}");
    }
    out + "\""
}

/// Keys and words that the readers look for, and text that imitates them.
const KNOWN: &[&str] = &[
    "model",
    "usage",
    "error",
    "finish_reason",
    "choices",
    "delta",
    "content",
    "object",
    "stop",
    "abort",
    "text",
    "stream",
    "stream_options",
    "include_usage",
    "messages",
    "user",
    "n",
    "max_tokens",
    "prompt_tokens",
    "\"model\":\"x\"",
    "\\\"model\\\":",
    "a\"model",
    "{\"error\":1}",
    "\"usage\":{",
    "]}",
    "",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![3 => prop::sample::select(KNOWN).prop_map(str::to_owned), 1 => "\\PC{0,6}|[\\x00-\\x7f]{0,6}"]
}

pub(crate) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0_u64..99).prop_map(Value::from),
        (-9_999..9_999).prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            members(inner).prop_map(Value::from)
        ]
    })
}

fn members(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::vec((word(), value), 0..6).prop_map(|members| members.into_iter().collect())
}

pub(crate) fn object() -> impl Strategy<Value = Map<String, Value>> {
    members(value())
}

/// A document with a few bytes changed, removed or doubled.
pub(crate) fn damaged(document: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![prop::sample::select(&b"{}[]\",:\\0x \n\xff"[..]), any::<u8>()];
    (document, prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, byte), 0..3)).prop_map(
        |(mut text, edits)| {
            for (at, edit, byte) in edits {
                let at = at.index(text.len() + 1);
                match edit {
                    0 => text.insert(at, byte),
                    1 if at < text.len() => text[at] = byte,
                    _ => text.truncate(at),
                }
            }
            text
        },
    )
}
