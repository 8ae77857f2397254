//! After the commit: a stream goes to the client event by event, untouched but for the model's name and a usage chunk
//! that only the gateway had asked for.
//!
//! Nothing is replayed from here on. A stream that breaks ends with a typed error event: never with `[DONE]` and never
//! silently, because a client cannot tell a short answer from a whole one. Where the client has left it lying for so
//! long that no event would reach it, the body breaks off.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use outrigger_core::{
    fleet::Reveal,
    record::{End, Fault},
};
use outrigger_wire::{endpoint::Dialect, sse, stream};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    attempt::{Plan, Seen, Step, Streaming, read_event},
    dispatch::stopping,
    pieces::Sender,
    pool::Lease,
    raised, reply,
    upstream::Upstream,
};

/// How long to wait for the end of a body after `[DONE]`, so that its connection can be kept.
const TAIL: Duration = Duration::from_millis(100);

/// How long a client that reads slowly has at least to take the event that says how its stream broke.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The client's end of a stream.
#[derive(Debug)]
pub struct Client {
    pub pieces: Sender,
    /// When the request's time is over.
    pub deadline: Instant,
    /// How long it may take nothing of what is there.
    pub patience: Duration,
}

impl Client {
    /// Hands a piece on. A client that takes nothing for too long counts as gone.
    async fn send(&self, piece: Bytes) -> bool {
        self.pieces.send(piece, || self.deadline.min(Instant::now() + self.patience)).await
    }
}

/// How a stream ended, and what it said.
#[derive(Debug)]
pub struct Relayed {
    pub end: End,
    pub seen: Seen,
}

pub async fn relay(
    plan: &Plan<'_>,
    stream: Streaming,
    to: Client,
    reveal: Reveal,
    stop: &mut watch::Receiver<bool>,
) -> Relayed {
    let Streaming { lease, mut body, mut splitter, ready, mut seen, .. } = stream;
    let followed = if to.send(ready.into()).await {
        follow(plan, &mut body, &mut splitter, &mut seen, &to, stop).await
    } else {
        Some(End::ClientGone)
    };
    let end = match followed {
        Some(end) => end,
        None => end_of_body(plan, splitter, &mut seen, &to).await,
    };
    let dialect = plan.head.endpoint.dialect();
    match end {
        End::Failed(fault) => {
            let name = plan.public_name.unwrap_or(&plan.backend.model);
            let why = if fault == Fault::Local { stopping() } else { reply::upstream_failed(fault, name) };
            let broke = why.in_dialect(dialect).to_event(reveal);
            if to.pieces.send(broke, || to.deadline.max(Instant::now() + LAST_WORDS)).await {
                to.pieces.end();
            }
        }
        End::Ok => {
            to.pieces.end();
            keep_connection(plan.upstream, lease, body).await;
        }
        End::ClientError(_) | End::ClientGone => {}
    }
    Relayed { end, seen }
}

/// Passes events on until the answer ends; `None` when its body came to an end that the answer itself did not announce.
///
/// What is waited for beside the next piece is set up once and not for every piece: a timer and a place in two lists
/// cost about as much as the piece itself.
async fn follow(
    plan: &Plan<'_>,
    body: &mut Incoming,
    splitter: &mut sse::Splitter,
    seen: &mut Seen,
    to: &Client,
    stop: &mut watch::Receiver<bool>,
) -> Option<End> {
    let mut idle_until = Instant::now() + plan.timeouts.idle;
    let mut timer = pin!(sleep_until(idle_until.min(to.deadline)));
    let mut gone = pin!(to.pieces.gone());
    let mut stopped = pin!(raised(stop));
    loop {
        let (out, ended, events) = drain(plan, splitter, seen);
        if events > 0 {
            idle_until = Instant::now() + plan.timeouts.idle;
        }
        if !out.is_empty() && !to.send(out).await {
            return Some(End::ClientGone);
        }
        if ended.is_some() {
            return ended;
        }
        let frame = loop {
            tokio::select! {
                biased;
                frame = body.frame() => break frame,
                () = timer.as_mut() => {}
                () = gone.as_mut() => return Some(End::ClientGone),
                () = stopped.as_mut() => return Some(End::Failed(Fault::Local)),
            }
            // It rang for the last piece but one, or still earlier.
            match Instant::now() {
                now if now >= to.deadline => return Some(End::Failed(Fault::TotalTimeout)),
                now if now >= idle_until => return Some(End::Failed(Fault::Stalled)),
                _ => timer.as_mut().reset(idle_until.min(to.deadline)),
            }
        };
        match frame? {
            Ok(frame) => {
                let data = frame.into_data().unwrap_or_default();
                plan.upstream.heard(plan.clock.now());
                seen.bytes_in += data.len() as u64;
                splitter.push(data);
            }
            Err(_) if is_whole(plan, seen) => return None,
            Err(_) => return Some(End::Failed(Fault::Cut)),
        }
    }
}

/// Takes every complete event out of the splitter: the bytes for the client, and how the stream ended if it did.
fn drain(plan: &Plan<'_>, splitter: &mut sse::Splitter, seen: &mut Seen) -> (Bytes, Option<End>, usize) {
    let mut first: Option<Bytes> = None;
    let mut joined: Vec<u8> = Vec::new();
    let mut events = 0;
    let mut ended = None;
    while let Some(event) = splitter.next() {
        let is_comment = matches!(&event, Ok(e) if e.data.is_none());
        let bytes = match read_event(plan, event, seen, stream::inspect_committed) {
            Step::Forward(bytes) => bytes,
            Step::Drop => Bytes::new(),
            Step::Done(bytes) => {
                // `[DONE]` proves nothing: vLLM sends it after an error too.
                if seen.finished {
                    ended = Some(End::Ok);
                    bytes
                } else {
                    ended = Some(End::Failed(Fault::Cut));
                    Bytes::new()
                }
            }
            Step::Failed(_) | Step::ClientError(_) => {
                ended = Some(End::Failed(Fault::Cut));
                Bytes::new()
            }
        };
        events += usize::from(!is_comment);
        match (&mut first, joined.is_empty()) {
            (None, _) => first = Some(bytes),
            (Some(one), true) => {
                joined.extend_from_slice(one);
                joined.extend_from_slice(&bytes);
            }
            (Some(_), false) => joined.extend_from_slice(&bytes),
        }
        if ended.is_some() {
            break;
        }
    }
    let out = if joined.is_empty() { first.unwrap_or_default() } else { joined.into() };
    (out, ended, events)
}

/// Whether the answer has said its end, in a dialect in which nothing has to follow: it is whole, however its body ends.
fn is_whole(plan: &Plan<'_>, seen: &Seen) -> bool {
    seen.finished && plan.head.endpoint.dialect() != Dialect::Choices
}

/// What it means that the body is over. The dialects of typed events say themselves when an answer is whole, and then may
/// just end.
async fn end_of_body(plan: &Plan<'_>, splitter: sse::Splitter, seen: &mut Seen, to: &Client) -> End {
    match splitter.finish() {
        Some(last) => last_words(plan, last.event, seen, to).await,
        None if is_whole(plan, seen) => End::Ok,
        None => End::Failed(Fault::Cut),
    }
}

/// An event without its blank line at the very end: some servers forget it after `[DONE]`.
async fn last_words(plan: &Plan<'_>, event: sse::Event, seen: &mut Seen, to: &Client) -> End {
    let sent = |sent| if sent { End::Ok } else { End::ClientGone };
    match read_event(plan, Ok(event), seen, stream::inspect_committed) {
        Step::Forward(bytes) if is_whole(plan, seen) => sent(to.send([&bytes[..], b"\n\n"].concat().into()).await),
        Step::Done(_) if seen.finished => sent(to.send(Bytes::from_static(b"data: [DONE]\n\n")).await),
        _ => End::Failed(Fault::Cut),
    }
}

/// Reads what is left of a body that is over, so that its connection can serve again.
async fn keep_connection(upstream: &Upstream, lease: Lease, mut body: Incoming) {
    let rest = async {
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return false;
            }
        }
        true
    };
    if timeout(TAIL, rest).await.unwrap_or(false) {
        upstream.pool.give_back(lease);
    }
}
