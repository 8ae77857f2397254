//! Traces as the Mooncake project publishes them (FAST 2025; github.com/kvcache-ai/Mooncake, FAST25-release/traces):
//! `timestamp` in milliseconds, `input_length`, `output_length`, and `hash_ids`, one for each block of the prompt and
//! equal for equal prefixes.
//!
//! The first two blocks together stand for the session: a conversation's turns share them, while the first alone is
//! often a system prompt that half of the trace has in common.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    fault::TraceFault,
    json::{Raw, field, object},
    lines::Line,
    number::MILLISECONDS,
    row::{Row, request, session},
};

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Request<'l> {
    #[serde(borrow)]
    timestamp: Raw<'l>,
    input_length: Raw<'l>,
    output_length: Raw<'l>,
    #[serde(borrow, default)]
    hash_ids: First<'l>,
}

pub(super) fn row(line: Line<'_>) -> Result<Row, TraceFault> {
    let row = line.row;
    let line: Request<'_> = object(line)?;
    let prompt = field("input_length", line.input_length).tokens(row)?;
    let mut arrival = request(prompt, field("output_length", line.output_length).tokens(row)?);
    arrival.session = session(&line.hash_ids.0);
    Ok(Row { number: row, time: field("timestamp", line.timestamp).nanos(row, MILLISECONDS)?, arrival })
}

/// The first two of a list, as written; the others are not kept.
#[derive(Default)]
struct First<'l>([&'l [u8]; 2]);

impl<'de: 'l, 'l> Deserialize<'de> for First<'l> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FirstOf)
    }
}

struct FirstOf;

impl<'de> Visitor<'de> for FirstOf {
    type Value = First<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of blocks in hash_ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut first = First::default();
        for block in &mut first.0 {
            let Some(raw) = list.next_element::<&RawValue>()? else { return Ok(first) };
            *block = raw.get().as_bytes();
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(first)
    }
}
