//! One attempt on one backend, up to the commit: the first event with content of a stream, or the whole of another
//! answer. Not the response head: vLLM answers 200 before it has done any work, so that a head proves nothing.
//!
//! Until then nothing has gone to the client and any failure may be tried elsewhere. Dropping the future closes the
//! connection, which is how a hang-up, a verdict or a deadline reaches the engine.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use outrigger_core::{
    fleet::{Backend, Engine, Timeouts},
    record::Fault,
    units::Nanos,
};
use outrigger_wire::{
    endpoint::{Dialect, Endpoint, Form},
    error::UpstreamError,
    request::RequestHead,
    response, retry_after,
    sse::{Event, Splitter, SseFault},
    stream::{self, Chunk, Finish, Usage},
    typed,
};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    body::Upload,
    events::Events,
    net::Clock,
    pool::{Lease, Lost},
    upstream::Upstream,
};

/// Largest answer that is held whole.
const MAX_BODY: usize = 64 << 20;
/// Largest error body that is read.
const MAX_ERROR_BODY: usize = 64 << 10;
/// Most bytes of a stream held back before its first content.
const MAX_HELD_EVENTS: usize = 1 << 20;

/// Everything an attempt needs to know.
#[derive(Debug)]
pub struct Plan<'a> {
    pub upstream: &'a Upstream,
    pub backend: &'a Backend,
    pub timeouts: Timeouts,
    pub head: &'a RequestHead,
    pub body: &'a Bytes,
    pub headers: &'a HeaderMap,
    /// What the client is told the model's name is; `None` leaves the backend's own.
    pub public_name: Option<&'a str>,
    pub clock: Clock,
    pub events: &'a Events,
}

/// How an attempt went.
#[derive(Debug)]
pub enum Tried {
    Whole(Whole),
    Streaming(Streaming),
    /// The backend says that the request is wrong; its answer is passed on.
    ClientError(Whole),
    Failed(Failed),
}

/// An answer that is complete.
#[derive(Debug)]
pub struct Whole {
    pub status: StatusCode,
    pub content_type: Option<HeaderValue>,
    pub body: Bytes,
    pub usage: Option<Usage>,
    pub bytes_in: u64,
}

/// A failure, with the backend's own words where it had any.
#[derive(Debug)]
pub struct Failed {
    pub fault: Fault,
    pub answer: Option<Whole>,
    pub bytes_in: u64,
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self { fault, answer: None, bytes_in: 0 }
    }
}

/// A stream whose first content has come.
#[derive(Debug)]
pub struct Streaming {
    pub lease: Lease,
    pub body: Incoming,
    pub content_type: Option<HeaderValue>,
    pub splitter: Splitter,
    /// Bytes for the client that were held until the commit.
    pub ready: Vec<u8>,
    pub seen: Seen,
}

/// What a stream has said so far.
#[derive(Debug, Default)]
pub struct Seen {
    pub usage: Option<Usage>,
    /// Events with content: an estimate of the tokens where the engine reports none.
    pub content_events: u64,
    pub finished: bool,
    /// A message has said why it stops.
    pub stop_reason: bool,
    pub done: bool,
    pub bytes_in: u64,
}

/// What an event means for the relay.
#[derive(Debug)]
pub enum Step {
    Forward(Bytes),
    /// The usage chunk that only we had asked for.
    Drop,
    /// `[DONE]`.
    Done(Bytes),
    Failed(Failed),
    /// An error that is the client's.
    ClientError(Whole),
}

pub async fn run(plan: &Plan<'_>) -> Tried {
    match run_inner(plan).await {
        Ok(tried) => tried,
        Err(failed) => Tried::Failed(failed),
    }
}

async fn run_inner(plan: &Plan<'_>) -> Result<Tried, Failed> {
    let started = Instant::now();
    let (mut response, mut lease) = send(plan).await?;
    plan.upstream.heard(plan.clock.now());
    if response.status() == StatusCode::UNAUTHORIZED && plan.upstream.fall_back() {
        (response, lease) = with_key_before(plan).await?;
    }
    let status = response.status();
    if !status.is_success() {
        return refused(plan, response, lease).await;
    }
    if plan.head.stream {
        let deadline = started + plan.timeouts.first_token;
        return first_content(plan, response, lease, deadline).await;
    }
    whole(plan, response, lease).await
}

/// The same once more, after the backend has refused its new key: to refuse is not to begin.
async fn with_key_before(plan: &Plan<'_>) -> Result<(Response<Incoming>, Lease), Fault> {
    let sent = send(plan).await?;
    if sent.0.status() == StatusCode::UNAUTHORIZED {
        plan.upstream.trust_key();
    } else {
        plan.events.key_refused(&plan.upstream.name);
    }
    Ok(sent)
}

/// Sends the request and waits for the response head. One that was not begun, because the engine had closed the
/// connection or takes no more on it, is sent again on a fresh one, once: that is nobody's fault.
async fn send(plan: &Plan<'_>) -> Result<(Response<Incoming>, Lease), Fault> {
    let connect_timeout = plan.timeouts.connect;
    let lease = plan.upstream.pool.lease(connect_timeout).await?;
    let began = Instant::now();
    match send_on(plan, lease).await {
        Err(lost) if lost.was_not_begun => {
            plan.upstream.pool.forget_idle(began);
            let fresh = plan.upstream.pool.newer(Some(began), connect_timeout).await?;
            Ok(send_on(plan, fresh).await?)
        }
        other => Ok(other?),
    }
}

async fn send_on(plan: &Plan<'_>, mut lease: Lease) -> Result<(Response<Incoming>, Lease), Lost> {
    let answer = lease.send(request(plan));
    let response = if plan.head.stream {
        let late = Lost { fault: Fault::HeadersTimeout, was_not_begun: false };
        timeout(plan.timeouts.headers, answer).await.map_err(|_| late)??
    } else {
        answer.await?
    };
    Ok((response, lease))
}

fn request(plan: &Plan<'_>) -> Request<Upload> {
    let ask_usage = declares_usage(plan.backend.engine);
    let body = plan.head.rewrite(plan.body, &plan.backend.model, ask_usage);
    let mut request = Request::new(Upload::from(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = plan.upstream.uri(plan.head.endpoint);
    request.headers_mut().reserve(plan.headers.len() + 8);
    forwarded_headers(plan.headers, request.headers_mut());
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type(plan));
    // A compressed stream would hide the commit point.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    plan.upstream.sign(headers);
    if plan.head.endpoint.dialect() == Dialect::Messages {
        repeat_key(headers);
    }
    request
}

/// Where Anthropic's API expects the backend's key; engines that speak its dialect take either.
fn repeat_key(headers: &mut HeaderMap) {
    let bearer =
        headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
    let Some(Ok(mut key)) = bearer.map(HeaderValue::from_str) else { return };
    key.set_sensitive(true);
    headers.entry("x-api-key").or_insert(key);
}

/// A form's boundary stands in the client's own header.
fn content_type(plan: &Plan<'_>) -> HeaderValue {
    let own = plan.headers.get(header::CONTENT_TYPE).filter(|_| plan.head.endpoint.form() == Form::Multipart);
    own.cloned().unwrap_or(HeaderValue::from_static("application/json"))
}

/// Engines that send usage in a last chunk when asked to. Text Generation Inference refuses unknown options.
fn declares_usage(engine: Engine) -> bool {
    !matches!(engine, Engine::Tgi)
}

/// Headers of the client that go on to the backend: all but credentials, hop-by-hop ones and our own.
pub(crate) fn forwarded_headers(from: &HeaderMap, to: &mut HeaderMap) {
    const NEVER: [&str; 23] = [
        "authorization",
        "proxy-authorization",
        "proxy-authenticate",
        "x-api-key",
        "api-key",
        "x-litellm-api-key",
        "cookie",
        "host",
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-length",
        "content-encoding",
        "accept-encoding",
        "content-type",
        "expect",
        "openai-organization",
        "openai-project",
        "x-session-id",
    ];
    let named_by_connection: Vec<String> = (from.get_all(header::CONNECTION).iter())
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(',').map(|n| n.trim().to_ascii_lowercase()))
        .collect();
    for (name, value) in from {
        let text = name.as_str();
        let ours = text.starts_with("x-outrigger-");
        if !ours && !NEVER.contains(&text) && !named_by_connection.iter().any(|n| n == text) {
            to.append(name.clone(), value.clone());
        }
    }
}

/// Reads a stream up to its first content, holding back what comes before.
async fn first_content(
    plan: &Plan<'_>,
    response: Response<Incoming>,
    lease: Lease,
    deadline: Instant,
) -> Result<Tried, Failed> {
    let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
    let is_stream =
        content_type.as_ref().and_then(|v| v.to_str().ok()).is_some_and(|v| v.starts_with("text/event-stream"));
    if !is_stream {
        return Err(Fault::BadBody.into());
    }
    let mut body = response.into_body();
    let mut splitter = Splitter::default();
    let mut seen = Seen::default();
    let mut ready = Vec::new();
    loop {
        let frame = timeout_at(deadline, body.frame()).await.map_err(|_| Fault::FirstTokenTimeout)?;
        let data = match frame {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(_)) => return Err(Fault::Reset.into()),
            // A stream without content that ends in order is not an answer.
            None => return Err(Fault::BadBody.into()),
        };
        plan.upstream.heard(plan.clock.now());
        seen.bytes_in += data.len() as u64;
        splitter.push(data);
        while let Some(event) = splitter.next() {
            match read_event(plan, event, &mut seen, stream::inspect) {
                Step::Forward(bytes) => ready.extend_from_slice(&bytes),
                Step::Drop => {}
                Step::Done(_) => return Err(Fault::BadBody.into()),
                Step::Failed(failed) => return Err(failed),
                Step::ClientError(whole) => return Ok(Tried::ClientError(whole)),
            }
            if seen.content_events > 0 {
                return Ok(Tried::Streaming(Streaming { lease, body, content_type, splitter, ready, seen }));
            }
        }
        if ready.len() + splitter.buffered() > MAX_HELD_EVENTS {
            return Err(Fault::BadBody.into());
        }
    }
}

type Inspect = fn(Endpoint, &[u8]) -> Result<Chunk, stream::ChunkFault>;

/// What one event means, and the bytes that go to the client for it.
pub fn read_event(plan: &Plan<'_>, event: Result<Event, SseFault>, seen: &mut Seen, inspect: Inspect) -> Step {
    let Ok(event) = event else { return Step::Failed(Fault::BadBody.into()) };
    let Some(data) = &event.data else { return Step::Forward(event.raw) };
    let Ok(chunk) = inspect(plan.head.endpoint, data) else { return Step::Failed(Fault::BadBody.into()) };
    if chunk.done {
        seen.done = true;
        return Step::Done(event.raw);
    }
    if let Some(error) = &chunk.error {
        return error_event(plan, error, data);
    }
    seen.stop_reason |= chunk.stop_reason;
    if is_aborted(plan, &chunk, seen) {
        return Step::Failed(Fault::Cut.into());
    }
    if seen.content_events == 0
        && chunk.model.as_ref().is_some_and(|span| !is_own_model(plan.backend, &data[span.clone()]))
    {
        return Step::Failed(Fault::WrongModel.into());
    }
    seen.finished |= !chunk.finishes.is_empty();
    seen.content_events += u64::from(chunk.content);
    seen.usage = typed::joined(seen.usage, chunk.usage);
    if chunk.usage_only && !plan.head.include_usage {
        return Step::Drop;
    }
    Step::Forward(match plan.public_name {
        Some(name) => stream::with_model(&event, &chunk, name),
        None => event.raw,
    })
}

/// Whether an event ends the answer as one that the engine gave up. A message then ends without having said why.
fn is_aborted(plan: &Plan<'_>, chunk: &Chunk, seen: &Seen) -> bool {
    let says_nothing = plan.head.endpoint.dialect() == Dialect::Messages && !seen.stop_reason;
    chunk.finishes.iter().any(|f| says_nothing || matches!(f, Finish::Abort | Finish::Error))
}

/// An error inside a stream that had answered 200: the same as that error's status would have been.
fn error_event(plan: &Plan<'_>, error: &UpstreamError, data: &Bytes) -> Step {
    let status = error.status.and_then(|s| StatusCode::from_u16(s).ok()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let answer = Whole {
        status,
        content_type: Some(HeaderValue::from_static("application/json")),
        body: data.clone(),
        usage: None,
        bytes_in: data.len() as u64,
    };
    match classify(status, &HeaderMap::new(), plan.clock.now()) {
        Some(fault) => Step::Failed(Failed { fault, bytes_in: answer.bytes_in, answer: Some(answer) }),
        None => Step::ClientError(answer),
    }
}

async fn whole(plan: &Plan<'_>, response: Response<Incoming>, lease: Lease) -> Result<Tried, Failed> {
    let status = response.status();
    let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
    let body = collect(plan, response.into_body(), MAX_BODY).await?;
    plan.upstream.pool.give_back(lease);
    let bytes_in = body.len() as u64;
    let view =
        response::inspect_body(plan.head.endpoint, &body).map_err(|_| Failed { bytes_in, ..Fault::BadBody.into() })?;
    if let Some(error) = &view.error {
        return match error_event(plan, error, &body) {
            Step::ClientError(answer) => Ok(Tried::ClientError(answer)),
            Step::Failed(failed) => Err(failed),
            _ => Err(Fault::BadBody.into()),
        };
    }
    if view.finishes.iter().any(|f| matches!(f, Finish::Abort | Finish::Error)) {
        return Err(Failed { bytes_in, ..Fault::Reset.into() });
    }
    if view.model_span.as_ref().is_some_and(|span| !is_own_model(plan.backend, &body[span.clone()])) {
        return Err(Failed { bytes_in, ..Fault::WrongModel.into() });
    }
    let usage = view.usage;
    let body = plan.public_name.map_or_else(|| body.clone(), |name| response::with_model(&body, &view, name));
    Ok(Tried::Whole(Whole { status, content_type, body, usage, bytes_in }))
}

/// An answer that is not a success: the client's fault, backpressure, or the backend's.
async fn refused(plan: &Plan<'_>, response: Response<Incoming>, lease: Lease) -> Result<Tried, Failed> {
    let status = response.status();
    let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
    let fault = classify(status, response.headers(), plan.clock.now());
    let body = match collect(plan, response.into_body(), MAX_ERROR_BODY).await {
        Ok(body) => {
            plan.upstream.pool.give_back(lease);
            body
        }
        Err(_) => Bytes::new(),
    };
    let bytes_in = body.len() as u64;
    let fault = fault.filter(|_| !lacks_endpoint(plan, status, &body));
    let answer = Whole { status, content_type, body, usage: None, bytes_in };
    match fault {
        Some(fault) => Err(Failed { fault, answer: Some(answer), bytes_in }),
        None => Ok(Tried::ClientError(answer)),
    }
}

/// Whether an engine says that it does not have the endpoint, such as embeddings of a chat model: 501 from llama.cpp,
/// a plain 404 from vLLM. That is about the request; if it were about the backend, one such request would take every
/// backend of the model away from all others. A missing chat endpoint stays the backend's fault: it is what a proxy
/// without a route answers.
fn lacks_endpoint(plan: &Plan<'_>, status: StatusCode, body: &[u8]) -> bool {
    match status {
        StatusCode::NOT_IMPLEMENTED => true,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            let is_about_model = String::from_utf8_lossy(body).contains(&plan.backend.model);
            plan.head.endpoint != Endpoint::Chat && !is_about_model
        }
        _ => false,
    }
}

/// What a status that is not a success says about the backend; `None` when it is about the request.
pub fn classify(status: StatusCode, headers: &HeaderMap, now: Nanos) -> Option<Fault> {
    let code = status.as_u16();
    match code {
        // 529 is Anthropic's own: the whole service is overloaded.
        429 | 503 | 529 => Some(Fault::Overloaded { status: code, retry_after: wait(headers, now) }),
        401 | 403 => Some(Fault::Auth),
        404 | 405 | 501 | 505 => Some(Fault::WrongModel),
        408 | 500..=599 => Some(Fault::Status(code)),
        400..=499 => None,
        // A redirect is never followed: backends come from the fleet file only.
        _ => Some(Fault::BadBody),
    }
}

fn wait(headers: &HeaderMap, now: Nanos) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let asked = retry_after::Headers {
        retry_after: text("retry-after"),
        retry_after_ms: text("retry-after-ms"),
        reset_requests: text("x-ratelimit-reset-requests"),
        reset_tokens: text("x-ratelimit-reset-tokens"),
    };
    asked.wait(now.0 / 1_000_000_000)
}

async fn collect(plan: &Plan<'_>, mut body: Incoming, limit: usize) -> Result<Bytes, Failed> {
    let mut parts = Vec::new();
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        let data = frame
            .map_err(|_| Failed { bytes_in: total as u64, ..Fault::Reset.into() })?
            .into_data()
            .unwrap_or_default();
        plan.upstream.heard(plan.clock.now());
        total += data.len();
        if total > limit {
            return Err(Failed { bytes_in: total as u64, ..Fault::BadBody.into() });
        }
        parts.push(data);
    }
    Ok(match parts.len() {
        1 => parts.swap_remove(0),
        _ => parts.concat().into(),
    })
}

/// Whether an answer's `model` (as it stands in the JSON, quotes included) is what the backend is configured to serve.
/// Hosted APIs answer with a dated version of the name they were asked for.
pub fn is_own_model(backend: &Backend, quoted: &[u8]) -> bool {
    let Ok(name) = serde_json::from_slice::<String>(quoted) else { return false };
    name == backend.model || (backend.engine == Engine::Openai && name.starts_with(&backend.model))
}
