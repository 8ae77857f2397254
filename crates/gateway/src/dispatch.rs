//! The loop at the heart: decide, attempt, observe, and decide again.
//!
//! A loop and not a stack of layers, so that a stranger can read it: three calls, and what ends it. Everything that it
//! knows about backends it asks of the core, and everything that happens it reports back.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use outrigger_core::{
    cost,
    fleet::{Fleet, Reveal, Timeouts},
    record::{AttemptRecord, End, Fault, TokensSource, Usage},
    route::{Attempt, Decision, Reject, RejectReason},
    units::{Bytes as ByteCount, Tokens},
};
use outrigger_wire::{request::RequestHead, stream};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    attempt::{self, Failed, Plan, Streaming, Tried, Whole},
    intake::Held,
    live::{Decided, InFlight, Live, Ticket},
    queue::{InLine, Turn},
    raised,
    reply::{self, Failure, Note},
    upstream::Upstream,
};

/// A request on its way through the gateway.
#[derive(Debug)]
pub struct Call {
    pub ticket: Ticket,
    /// Where it came from.
    pub client: IpAddr,
    pub head: RequestHead,
    pub headers: HeaderMap,
    pub body: Option<Held>,
    pub arrived: Instant,
    /// The model's name as the client knows it.
    pub public_name: String,
    /// What the answer calls the model, where that is another of its names.
    pub answers_as: Option<String>,
    pub reveal: Reveal,
    /// How long it has waited in line.
    pub queued: Duration,
    /// Why it got no attempt.
    pub turned_away: Option<RejectReason>,
    pub attempts: Vec<Made>,
}

/// An attempt that is over, with the fleet its numbers refer to.
#[derive(Clone, Debug)]
pub struct Made {
    pub fleet: Arc<Fleet>,
    pub record: AttemptRecord,
}

/// Where an answer comes from, for headers and records.
#[derive(Clone, Debug)]
pub struct Source {
    pub fleet: Arc<Fleet>,
    pub upstream: Arc<Upstream>,
    pub attempt: Attempt,
    pub started: Instant,
    pub ttft: Option<Duration>,
}

/// How the loop ended.
#[derive(Debug)]
pub enum Dispatched<'a> {
    /// The answer, complete and already accounted.
    Whole(Source, Whole),
    /// A stream that has begun; its attempt is still in flight.
    Stream(Source, Streaming, InFlight<'a>),
    Failure(Failure),
    /// Passed on from the last backend that failed, in its own words.
    Upstream(Whole),
    ClientGone,
}

/// What may interrupt an attempt.
enum Interrupt {
    Gone,
    OutOfTime,
    Abandoned,
    Stopping,
}

pub async fn dispatch<'a>(
    live: &'a Live,
    call: &mut Call,
    gone: &mut (impl Future<Output = ()> + Unpin),
    stop: &mut watch::Receiver<bool>,
) -> Dispatched<'a> {
    let mut last: Option<Box<Failed>> = None;
    loop {
        let decided = match live.decide(&mut call.ticket) {
            Turn::Now(decided) => decided,
            Turn::Later(in_line) => match wait(in_line, call, gone, stop).await {
                Ok(decided) => decided,
                Err(over) => return over,
            },
        };
        let attempt = match decided.decision {
            Decision::Attempt(attempt) => attempt,
            Decision::Queue { .. } => continue,
            Decision::Reject(reject) => {
                live.events.metrics().rejected(&call.public_name, call.ticket.facts.priority, reject.why);
                call.turned_away = call.attempts.is_empty().then_some(reject.why);
                return ended(live, call, &reject, &decided, last);
            }
        };
        let Some(upstream) = decided.upstream.clone() else { continue };
        if !call.attempts.is_empty() {
            live.events.metrics().retried(&call.public_name);
        }
        let source = Source { fleet: decided.fleet, upstream, attempt, started: Instant::now(), ttft: None };
        match try_once(live, call, source, gone, stop).await {
            Ok(dispatched) => return dispatched,
            Err(failed) => last = Some(failed),
        }
    }
}

/// Waits for this request's turn. `Err` when it is over before.
async fn wait<'a>(
    in_line: InLine<'_>,
    call: &mut Call,
    gone: &mut (impl Future<Output = ()> + Unpin),
    stop: &mut watch::Receiver<bool>,
) -> Result<Decided, Dispatched<'a>> {
    let deadline = call.arrived + timeouts(&call.ticket.fleet, call).total;
    let began = Instant::now();
    let turn = tokio::select! {
        biased;
        decided = in_line.turn(&mut call.ticket) => Ok(decided),
        () = &mut *gone => Err(Dispatched::ClientGone),
        () = raised(stop) => Err(Dispatched::Failure(stopping())),
        () = sleep_until(deadline) => {
            Err(Dispatched::Failure(reply::upstream_failed(Fault::TotalTimeout, &call.public_name)))
        }
    };
    call.queued += began.elapsed();
    turn
}

/// One attempt from booking to its end or its commit. `Err` when another may be made.
async fn try_once<'a>(
    live: &'a Live,
    call: &mut Call,
    mut source: Source,
    gone: &mut (impl Future<Output = ()> + Unpin),
    stop: &mut watch::Receiver<bool>,
) -> Result<Dispatched<'a>, Box<Failed>> {
    let guard = InFlight::new(live, source.attempt.id);
    let Some(bytes) = call.body.as_ref().map(|held| held.bytes.clone()) else { return Ok(Dispatched::ClientGone) };
    let plan = plan(live, call, &source, &bytes);
    let mut verdicts = source.upstream.verdicts();
    let deadline = call.arrived + plan.timeouts.total;
    let tried = tokio::select! {
        biased;
        tried = attempt::run(&plan) => Ok(tried),
        () = &mut *gone => Err(Interrupt::Gone),
        () = sleep_until(deadline) => Err(Interrupt::OutOfTime),
        _ = verdicts.changed() => Err(Interrupt::Abandoned),
        () = raised(stop) => Err(Interrupt::Stopping),
    };
    let took = source.started.elapsed();
    let dispatched = match tried {
        Ok(Tried::Streaming(stream)) => {
            guard.committed();
            source.ttft = Some(took);
            return Ok(Dispatched::Stream(source, stream, guard));
        }
        Ok(Tried::Whole(whole)) => {
            guard.committed();
            let usage = usage_of(call, whole.usage, 0);
            close(call, &source, guard, End::Ok, usage, whole.bytes_in);
            Dispatched::Whole(source, whole)
        }
        Ok(Tried::ClientError(whole)) => {
            let end = End::ClientError(whole.status.as_u16());
            close(call, &source, guard, end, Usage::default(), whole.bytes_in);
            Dispatched::Upstream(whole)
        }
        Ok(Tried::Failed(failed)) => return failed_over(call, &source, guard, failed),
        Err(Interrupt::Abandoned) => return failed_over(call, &source, guard, Fault::Abandoned.into()),
        Err(Interrupt::Gone) => {
            close(call, &source, guard, End::ClientGone, Usage::default(), 0);
            Dispatched::ClientGone
        }
        Err(Interrupt::OutOfTime) => {
            close(call, &source, guard, End::Failed(Fault::TotalTimeout), Usage::default(), 0);
            Dispatched::Failure(reply::upstream_failed(Fault::TotalTimeout, &call.public_name))
        }
        Err(Interrupt::Stopping) => {
            close(call, &source, guard, End::Failed(Fault::Local), Usage::default(), 0);
            Dispatched::Failure(stopping())
        }
    };
    Ok(dispatched)
}

fn failed_over<'a>(
    call: &mut Call,
    source: &Source,
    guard: InFlight<'a>,
    failed: Failed,
) -> Result<Dispatched<'a>, Box<Failed>> {
    close(call, source, guard, End::Failed(failed.fault), Usage::default(), failed.bytes_in);
    // The ticket follows a reload only when it decides, so that it still counts backends as this attempt did.
    call.ticket.history.failed(source.attempt.backend, failed.fault);
    Err(Box::new(failed))
}

pub fn plan<'a>(live: &'a Live, call: &'a Call, source: &'a Source, body: &'a Bytes) -> Plan<'a> {
    let backend = source.fleet.backend(source.attempt.backend);
    Plan {
        upstream: &source.upstream,
        backend,
        timeouts: timeouts(&source.fleet, call).overridden_by(&backend.timeouts),
        head: &call.head,
        body,
        headers: &call.headers,
        public_name: (!source.attempt.substitute).then(|| call.answers_as.as_deref().unwrap_or(&call.public_name)),
        clock: live.clock,
        events: &live.events,
    }
}

fn timeouts(fleet: &Fleet, call: &Call) -> Timeouts {
    fleet.model_by_name(&call.public_name).map(|m| fleet.model(m).timeouts).unwrap_or_default()
}

/// Ends an attempt in the core and keeps its record.
pub fn close(call: &mut Call, source: &Source, guard: InFlight<'_>, end: End, usage: Usage, bytes_in: u64) {
    let backend = source.fleet.backend(source.attempt.backend);
    let (bytes_out, bytes_in) = (call.ticket.facts.body_bytes, ByteCount(bytes_in));
    let left_us = if was_never_sent(end) { ByteCount(0) } else { bytes_out };
    let transfer = cost::of_transfer(&source.fleet, source.attempt.backend, left_us, bytes_in);
    call.attempts.push(Made {
        fleet: source.fleet.clone(),
        record: AttemptRecord {
            backend: source.attempt.backend,
            tier: source.attempt.tier,
            end,
            reason: source.attempt.reason,
            ttft: source.ttft,
            duration: source.started.elapsed(),
            usage,
            bytes_out,
            bytes_in,
            cost: cost::of_attempt(backend, &usage) + transfer,
        },
    });
    source.upstream.ended(end);
    guard.ended(end, usage);
}

/// No connection was made, so that nothing left this cloud.
fn was_never_sent(end: End) -> bool {
    matches!(end, End::Failed(Fault::Refused | Fault::Dns | Fault::ConnectTimeout | Fault::Tls))
}

/// The engine's count, or an estimate from the prompt's bytes and the events that came.
pub fn usage_of(call: &Call, reported: Option<stream::Usage>, content_events: u64) -> Usage {
    match reported {
        Some(usage) => Usage {
            prompt: Tokens(usage.prompt),
            output: Tokens(usage.output),
            cached: Tokens(usage.cached.unwrap_or(0)),
            source: TokensSource::Engine,
        },
        None => Usage {
            prompt: call.ticket.facts.prompt_tokens,
            output: Tokens(content_events),
            cached: Tokens(0),
            source: TokensSource::Estimated,
        },
    }
}

/// No attempt is left: the last backend's own answer where the request was at fault there, else why nobody served.
fn ended<'a>(
    live: &Live,
    call: &Call,
    reject: &Reject,
    decided: &Decided,
    last: Option<Box<Failed>>,
) -> Dispatched<'a> {
    let notes = reply::notes(&decided.fleet, &decided.candidates, live.clock.now());
    let Some(last) = last else {
        let mut failure = reply::rejected(reject, &call.public_name);
        failure.backends = notes;
        return Dispatched::Failure(failure);
    };
    let own_words = matches!(last.fault, Fault::Status(_)) || reject.why == RejectReason::Poison;
    if let (true, Some(answer)) = (own_words, last.answer) {
        return Dispatched::Upstream(answer);
    }
    let mut failure = reply::upstream_failed(last.fault, &call.public_name);
    if failure.retry_after.is_some() {
        failure.retry_after = reject.retry_after.or(failure.retry_after);
    }
    failure.backends = with_attempts(call, notes);
    Dispatched::Failure(failure)
}

/// What each tried backend did, before what kept the others out.
fn with_attempts(call: &Call, others: Vec<Note>) -> Vec<Note> {
    let mut notes: Vec<Note> = (call.attempts.iter())
        .filter_map(|made| match made.record.end {
            End::Failed(fault) => {
                let backend = made.fleet.backend(made.record.backend).name.clone();
                let retry_after = match fault {
                    Fault::Overloaded { retry_after, .. } => retry_after,
                    _ => None,
                };
                Some(Note { backend, reason: fault.as_str(), retry_after })
            }
            _ => None,
        })
        .collect();
    for note in others {
        if notes.iter().all(|n| n.backend != note.backend) {
            notes.push(note);
        }
    }
    notes
}

pub fn stopping() -> Failure {
    Failure::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "service_unavailable",
        "gateway_stopping",
        "the gateway is shutting down; retry, another one will answer",
    )
}
