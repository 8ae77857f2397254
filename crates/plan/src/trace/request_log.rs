//! The gateway's own request log (docs/request-log.md).
//!
//! It says nothing of sessions. A request that failed before it had any output is passed over and counted: how long its
//! answer would have been is unknown, and counting it as 0 would make the fleet look idle.

use serde::Deserialize;

use super::{
    fault::TraceFault,
    json::{Raw, bytes, field, object, text},
    lines::Line,
    models::Models,
    number::unquoted,
    row::{Field, Row, request},
};

const VERSION: &[u8] = b"1";

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Request<'l> {
    #[serde(borrow)]
    event: Raw<'l>,
    v: Raw<'l>,
    ts: Raw<'l>,
    model: Raw<'l>,
    stream: Raw<'l>,
    status: Raw<'l>,
    prompt_tokens: Raw<'l>,
    output_tokens: Raw<'l>,
}

/// What a line of a log was.
#[derive(Debug)]
pub(super) enum Entry {
    Request(Row),
    /// One that came to nothing.
    Failed,
    /// Not about a request.
    Other,
}

pub(super) fn entry(line: Line<'_>, models: &mut Models) -> Result<Entry, TraceFault> {
    let row = line.row;
    let request_line: Request<'_> = object(line)?;
    if unquoted(bytes(request_line.event)) != b"request" {
        return Ok(Entry::Other);
    }
    if !matches!(bytes(request_line.v), b"" | VERSION) {
        let message = "this version of the request log is not known here";
        return Err(TraceFault::new(row, message, "use the release that wrote the log, or a later one").in_column("v"));
    }
    let output = field("output_tokens", request_line.output_tokens).tokens(row)?;
    let failed = field("status", request_line.status).real(row)? >= 400.0;
    if failed && output.0 == 0 {
        return Ok(Entry::Failed);
    }
    let mut arrival = request(field("prompt_tokens", request_line.prompt_tokens).tokens(row)?, output);
    arrival.model = Field { column: "model", text: &text(request_line.model) }.model(row, models)?;
    arrival.stream = field("stream", request_line.stream).flag(row, true)?;
    Ok(Entry::Request(Row { number: row, time: field("ts", request_line.ts).time(row)?, arrival }))
}
