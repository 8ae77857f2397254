//! The end of a request: one line in the request log, and the metrics.

use std::time::Duration;

use outrigger_core::{
    record::{AttemptRecord, End, Fault, Outcome, TokensSource, Usage},
    route::RejectReason,
    units::Nanos,
};

use crate::{
    dispatch::{Call, Made},
    events::{Answered, AttemptLine, RequestLine},
    live::Live,
};

/// How a request ended, as the client saw it.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    pub status: u16,
    pub outcome: Outcome,
}

impl Ending {
    /// Of a request that some attempt decided.
    pub fn of(end: End, status: u16) -> Self {
        Self { status, outcome: end.into() }
    }

    /// Of a request whose failure the client was told.
    pub fn failed(status: u16, last: Option<Fault>) -> Self {
        let outcome = last.map_or(Outcome::Rejected, |fault| End::Failed(fault).into());
        Self { status, outcome }
    }
}

pub fn finish(live: &Live, call: &Call, ending: Ending) {
    let duration = call.arrived.elapsed();
    let last = call.attempts.last();
    let ttft = last.and_then(|made| made.record.ttft.map(|ttft| before(call, made) + ttft));
    for made in &call.attempts {
        live.events.metrics().attempted(&made.fleet, &call.public_name, &made.record);
    }
    match last {
        Some(made) => {
            let (model, last) = (call.public_name.as_str(), &made.record);
            let Ending { status, outcome } = ending;
            let answered = Answered { model, last, code: status, outcome, ttft, duration };
            live.events.metrics().answered(&made.fleet, &answered);
        }
        None => live.events.metrics().turned_away(&call.public_name, ending.status, ending.outcome),
    }
    let priority = call.ticket.facts.priority;
    if !call.queued.is_zero() {
        live.events.metrics().queued(&call.public_name, priority, call.queued);
    }
    live.events.request(&line(call, ending, ttft, duration));
}

/// Time from arrival to the start of an attempt.
fn before(call: &Call, made: &Made) -> Duration {
    call.arrived.elapsed().saturating_sub(made.record.duration)
}

fn line(call: &Call, ending: Ending, ttft: Option<Duration>, duration: Duration) -> RequestLine<'_> {
    let last = call.attempts.last();
    let usage = last.map_or_else(Usage::default, |made| made.record.usage);
    let key = call.ticket.facts.key.and_then(|k| call.ticket.fleet.keys.get(k.index()));
    RequestLine {
        event: "request",
        v: 1,
        ts: timestamp(call.ticket.facts.arrived),
        request_id: &call.ticket.request_id,
        fleet: last.map_or(&call.ticket.fleet.digest, |made| &made.fleet.digest),
        client: call.client,
        key_id: key.map(|k| k.name.as_str()),
        model: Some(&call.public_name),
        stream: call.head.stream,
        status: ending.status,
        outcome: ending.outcome,
        prompt_tokens: usage.prompt.0,
        output_tokens: usage.output.0,
        cached_tokens: usage.cached.0,
        tokens_source: if last.is_some() { usage.source } else { TokensSource::Estimated },
        ttft_ms: ttft.map(ms),
        queued_ms: ms(call.queued),
        duration_ms: ms(duration),
        tier: last.map(|made| made.record.tier),
        reason: last.map(|made| made.record.reason.as_str()).or(call.turned_away.map(RejectReason::as_str)),
        attempts: call.attempts.iter().map(attempt_line).collect(),
    }
}

fn attempt_line(made: &Made) -> AttemptLine<'_> {
    let record: &AttemptRecord = &made.record;
    AttemptLine {
        backend: &made.fleet.backend(record.backend).name,
        outcome: record.end.into(),
        reason: match record.end {
            End::Failed(fault) => fault.as_str(),
            _ => record.reason.as_str(),
        },
        ttft_ms: record.ttft.map(ms),
        duration_ms: ms(record.duration),
        prompt_tokens: record.usage.prompt.0,
        output_tokens: record.usage.output.0,
        bytes_out: record.bytes_out.0,
        bytes_in: record.bytes_in.0,
        cost_nano_usd: record.cost,
    }
}

pub(crate) fn ms(d: Duration) -> f64 {
    (d.as_secs_f64() * 1e6).round() / 1e3
}

/// Arrival, RFC 3339 in UTC.
pub(crate) fn timestamp(arrived: Nanos) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(arrived.0)).map_or_else(|_| String::new(), |t| format!("{t:.3}"))
}
