//! The data listener: accepts connections, finds what a request asks for, and hands it to a task of its own.
//!
//! One task per request, apart from the connection's: when a client hangs up, hyper drops the connection's side, the
//! task sees its channel closed, lets go of the backend at once, and still writes its record. Nothing is done in a
//! destructor that matters.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use outrigger_core::{
    facts::{Facts, History, session_key},
    fleet::{Affinity, KeyId, Model, Reveal, Route},
    record::{End, Fault, Outcome},
    units::{Bytes as ByteCount, Tokens},
};
use outrigger_wire::{
    endpoint::{Dialect, Endpoint},
    request::RequestHead,
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::Instant,
};

use crate::{
    account::{self, Ending},
    attempt::Whole,
    body::Answer,
    client_address,
    connection::{self, End as ConnectionEnd},
    dispatch::{self, Call, Dispatched, Source},
    intake,
    litellm::{self, Translated},
    live::{Live, Snapshot, Ticket},
    models,
    net::Accept,
    pieces, raised, relay,
    reply::{self, Failure},
    request_id,
    route::{self, Routed},
    tls,
};

/// Accepts until told to stop; then lets requests in flight end, up to the fleet's drain time.
pub async fn run(
    live: Arc<Live>,
    listener: Arc<dyn Accept>,
    tls: Option<Arc<tls::listener::Listener>>,
    mut drain: watch::Receiver<bool>,
    stop: watch::Receiver<bool>,
) {
    let connections = live.snapshot().fleet.gateway.limits.connections;
    let places = Arc::new(Semaphore::new(connections));
    let (closed, mut all_closed) = mpsc::channel::<()>(1);
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = raised(&mut drain) => break,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of descriptors: accepting at full speed would only burn the processor.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (live, tls, closed) = (live.clone(), tls.clone(), closed.clone());
        let end = ConnectionEnd { drain: drain.clone(), stop: stop.clone() };
        tokio::spawn(async move {
            live.events.metrics().connection_opened();
            connection::run(&live, tls.as_deref(), stream, peer, end).await;
            live.events.metrics().connection_closed();
            drop((place, closed));
        });
    }
    drop((closed, listener));
    all_closed.recv().await;
}

pub(crate) async fn answer(
    live: Arc<Live>,
    mut request: Request<Incoming>,
    peer: IpAddr,
    stop: watch::Receiver<bool>,
) -> Response<Answer> {
    let arrived = Instant::now();
    let version = request.version();
    let request_id = request_id::new();
    if live.dialect == litellm::Dialect::LiteLlm {
        litellm::translate(&mut request);
    }
    let path = request.uri().path();
    match (request.method(), path) {
        (&Method::GET | &Method::HEAD, "/healthz") => return text(StatusCode::OK, "ok\n"),
        (&Method::GET | &Method::HEAD, "/readyz") => return ready(&live),
        _ => {}
    }
    let snapshot = live.snapshot();
    let (key, reveal) = match identify(&snapshot, request.headers()) {
        Ok(known) => known,
        Err(failure) => {
            live.events.metrics().turned_away("", failure.status.as_u16(), Outcome::Rejected);
            return with_close(failure.to_response(&request_id, Reveal::None), version);
        }
    };
    if let Some(rest) = path.strip_prefix("/v1/models").filter(|_| request.method() == Method::GET) {
        return models::answer(&snapshot.fleet, key, rest, &request_id);
    }
    let endpoint = Endpoint::from_path(path).filter(|_| path.starts_with("/v1/"));
    let dialect = endpoint.map_or(Dialect::Choices, Endpoint::dialect);
    let result = match endpoint {
        _ if is_realtime(&request) => Err(no_realtime()),
        Some(endpoint) if request.method() == Method::POST => {
            accept(&live, &snapshot, request, peer, endpoint, key, reveal, &request_id, arrived).await
        }
        _ => match snapshot.fleet.route(path, key) {
            Some(to) => route(&live, &snapshot, to, &request, peer, key, reveal, &request_id, arrived)
                .map(|routed| Accepted::Route(Box::new(routed), request)),
            None => Err(nothing_there(endpoint, path)),
        },
    };
    match result {
        Ok(Accepted::Call(call)) => {
            let serve = |respond| run_call(live.clone(), *call, respond, stop);
            in_its_own_task(&live, &request_id, reveal, serve).await
        }
        Ok(Accepted::Route(routed, request)) => route::run(live, *routed, request, stop).await,
        Ok(Accepted::Answered(response)) => response,
        Err(failure) => {
            live.events.metrics().turned_away("", failure.status.as_u16(), Outcome::Rejected);
            with_close(failure.in_dialect(dialect).to_response(&request_id, reveal), version)
        }
    }
}

fn identify(snapshot: &Snapshot, headers: &HeaderMap) -> Result<(Option<KeyId>, Reveal), Failure> {
    let key = snapshot.keys.identify(headers).map_err(|fault| {
        Failure::new(StatusCode::UNAUTHORIZED, "invalid_request_error", "invalid_api_key", fault.to_string())
    })?;
    let reveal = key.map_or(Reveal::default(), |k| snapshot.fleet.keys[k.index()].reveal);
    Ok((key, reveal))
}

/// What a request that may be served becomes.
enum Accepted {
    Call(Box<Call>),
    /// It names no model, and its body goes on unread.
    Route(Box<Routed>, Request<Incoming>),
    /// It brought its own answer.
    Answered(Response<Answer>),
}

/// Reads the request and turns it into a call.
#[expect(clippy::too_many_arguments, reason = "what is known of a request before it has been read")]
async fn accept(
    live: &Live,
    snapshot: &Snapshot,
    request: Request<Incoming>,
    peer: IpAddr,
    endpoint: Endpoint,
    key: Option<KeyId>,
    reveal: Reveal,
    request_id: &str,
    arrived: Instant,
) -> Result<Accepted, Failure> {
    let fleet = &snapshot.fleet;
    let (mut parts, body) = request.into_parts();
    let client = client_address::of(peer, &parts.headers, &fleet.gateway.trusted_proxies);
    refuse_ambiguous_length(&parts.headers)?;
    let at = live.clock.now();
    let mut held = intake::read(&parts.headers, body, &fleet.gateway.limits, &live.held).await?;
    let translated = parts.extensions.remove::<Translated>();
    let mock = translated.as_ref().and_then(|t| litellm::translate_body(t, &mut parts.headers, &mut held));
    let (head, model) = intake::parse(endpoint, &parts.headers, &held.bytes, fleet, key)?;
    intake::refuse_reference(&head, model, fleet)?;
    if let Some(text) = mock {
        return Ok(Accepted::Answered(litellm::mocked(endpoint, &head.model, head.stream, &text, request_id)));
    }
    let mut facts = Facts {
        api: intake::api(endpoint),
        stream: head.stream,
        prompt_tokens: Tokens(head.prompt_tokens_estimate),
        max_tokens: head.max_tokens.map(Tokens),
        body_bytes: ByteCount(held.bytes.len() as u64),
        patience: fleet.model(model).queue.max_wait,
        affinity: affinity(fleet.model(model), &parts.headers, &head, &held.bytes),
        ..Facts::anonymous(model, at)
    };
    if let Some(key) = key {
        facts = facts.with_key(key, &fleet.keys[key.index()]);
    }
    let ticket = Ticket { request_id: request_id.to_owned(), fleet: fleet.clone(), facts, history: History::default() };
    let public_name = fleet.model(model).name.clone();
    Ok(Accepted::Call(Box::new(Call {
        ticket,
        client,
        answers_as: translated.is_some().then(|| head.model.clone()),
        head,
        headers: parts.headers,
        body: Some(held),
        arrived,
        public_name,
        reveal,
        queued: Duration::ZERO,
        turned_away: None,
        attempts: Vec::new(),
    })))
}

/// What is known of a request that names no model before it is sent on.
#[expect(clippy::too_many_arguments, reason = "what is known of a request before it has been read")]
fn route(
    live: &Live,
    snapshot: &Snapshot,
    to: &Route,
    request: &Request<Incoming>,
    peer: IpAddr,
    key: Option<KeyId>,
    reveal: Reveal,
    request_id: &str,
    arrived: Instant,
) -> Result<Routed, Failure> {
    let fleet = &snapshot.fleet;
    refuse_ambiguous_length(request.headers())?;
    route::refuse_ambiguous_path(request.uri().path())?;
    Ok(Routed {
        fleet: fleet.clone(),
        route: to.clone(),
        upstream: snapshot.upstreams[to.backend.index()].clone(),
        key,
        reveal,
        request_id: request_id.to_owned(),
        client: client_address::of(peer, request.headers(), &fleet.gateway.trusted_proxies),
        arrived,
        at: live.clock.now(),
    })
}

/// Two lengths are how one request is smuggled inside another: refused, not interpreted.
fn refuse_ambiguous_length(headers: &HeaderMap) -> Result<(), Failure> {
    let both = headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH);
    if both || headers.get_all(header::CONTENT_LENGTH).iter().count() > 1 {
        return Err(Failure::invalid("ambiguous_length", "the request gives its body's length more than once"));
    }
    Ok(())
}

/// `x-session-id`, or the body's `user`, or the beginning of the prompt where the model asks for that.
fn affinity(model: &Model, headers: &HeaderMap, head: &RequestHead, body: &[u8]) -> Option<u64> {
    let session = headers.get("x-session-id").map(HeaderValue::as_bytes).or(head.user.as_deref().map(str::as_bytes));
    let prefix = || (model.affinity == Affinity::Prefix).then(|| head.prefix_hash(body));
    session.filter(|name| !name.is_empty()).map(session_key).or_else(prefix)
}

/// Serves a request apart from its connection, and waits for its response head.
pub(crate) async fn in_its_own_task<F: Future<Output = ()> + Send + 'static>(
    live: &Arc<Live>,
    request_id: &str,
    reveal: Reveal,
    serve: impl FnOnce(oneshot::Sender<Response<Answer>>) -> F,
) -> Response<Answer> {
    let (respond, response) = oneshot::channel();
    // In a box, because a task is moved several times before it runs for the first time.
    let (live, serving) = (live.clone(), Box::pin(serve(respond)));
    tokio::spawn(async move {
        live.open_calls.fetch_add(1, Ordering::Relaxed);
        serving.await;
        live.open_calls.fetch_sub(1, Ordering::Release);
    });
    // No response if the task panicked.
    response.await.unwrap_or_else(|_| reply::internal().to_response(request_id, reveal))
}

async fn run_call(
    live: Arc<Live>,
    mut call: Call,
    mut respond: oneshot::Sender<Response<Answer>>,
    mut stop: watch::Receiver<bool>,
) {
    if let Err(reject) = live.admit(&mut call.ticket) {
        live.events.metrics().rejected(&call.public_name, call.ticket.facts.priority, reject.why);
        call.turned_away = Some(reject.why);
        let failure = reply::rejected(&reject, &call.public_name).in_dialect(call.head.endpoint.dialect());
        account::finish(&live, &call, Ending { status: failure.status.as_u16(), outcome: Outcome::Rejected });
        drop(respond.send(failure.to_response(&call.ticket.request_id, call.reveal)));
        return;
    }
    let dispatched = {
        let mut gone = std::pin::pin!(respond.closed());
        dispatch::dispatch(&live, &mut call, &mut gone, &mut stop).await
    };
    let ending = conclude(&live, &mut call, dispatched, respond, &mut stop).await;
    live.settle(&mut call.ticket);
    account::finish(&live, &call, ending);
}

async fn conclude(
    live: &Live,
    call: &mut Call,
    dispatched: Dispatched<'_>,
    respond: oneshot::Sender<Response<Answer>>,
    stop: &mut watch::Receiver<bool>,
) -> Ending {
    match dispatched {
        Dispatched::Whole(source, whole) => {
            let status = whole.status.as_u16();
            drop(respond.send(passed_on(call, Some(&source), whole)));
            Ending::of(End::Ok, status)
        }
        Dispatched::Upstream(whole) => {
            let end = call.attempts.last().map_or(End::ClientGone, |made| made.record.end);
            let status = whole.status.as_u16();
            drop(respond.send(passed_on(call, None, whole)));
            Ending::of(end, status)
        }
        Dispatched::Failure(failure) => {
            let failure = failure.in_dialect(call.head.endpoint.dialect());
            let mut response = failure.to_response(&call.ticket.request_id, call.reveal);
            mark(call, None, response.headers_mut());
            drop(respond.send(response));
            Ending::failed(failure.status.as_u16(), last_fault(call))
        }
        Dispatched::ClientGone => Ending::of(End::ClientGone, 499),
        Dispatched::Stream(source, mut stream, guard) => {
            let (pieces, receiver) = pieces::channel();
            let mut response = Response::new(Answer::Pieces(receiver));
            let content_type = stream.content_type.take().unwrap_or(HeaderValue::from_static("text/event-stream"));
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            mark(call, Some(&source), response.headers_mut());
            drop(respond.send(response));
            // Committed: the request will not be sent again. Its headers keep the buffer that it was read into.
            call.body = None;
            call.headers = HeaderMap::new();
            let relayed = {
                let empty = bytes::Bytes::new();
                let plan = dispatch::plan(live, call, &source, &empty);
                let (deadline, patience) =
                    (call.arrived + plan.timeouts.total, source.fleet.gateway.limits.write_timeout);
                let client = relay::Client { pieces, deadline, patience };
                relay::relay(&plan, stream, client, call.reveal, stop).await
            };
            let usage = dispatch::usage_of(call, relayed.seen.usage, relayed.seen.content_events);
            dispatch::close(call, &source, guard, relayed.end, usage, relayed.seen.bytes_in);
            Ending::of(relayed.end, 200)
        }
    }
}

/// A backend's answer as it came, with our headers.
fn passed_on(call: &Call, source: Option<&Source>, whole: Whole) -> Response<Answer> {
    let mut response = Response::new(Answer::whole(whole.body));
    *response.status_mut() = whole.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, whole.content_type.unwrap_or(HeaderValue::from_static("application/json")));
    mark(call, source, headers);
    response
}

static REQUEST_ID: HeaderName = HeaderName::from_static(reply::REQUEST_ID);
static ATTEMPTS: HeaderName = HeaderName::from_static("x-outrigger-attempts");
static TIER: HeaderName = HeaderName::from_static("x-outrigger-tier");
static REASON: HeaderName = HeaderName::from_static("x-outrigger-reason");
static BACKEND: HeaderName = HeaderName::from_static("x-outrigger-backend");
static MODEL: HeaderName = HeaderName::from_static("x-outrigger-model");
static SUBSTITUTED: HeaderName = HeaderName::from_static("x-outrigger-substituted");

/// The headers that say what happened.
fn mark(call: &Call, source: Option<&Source>, headers: &mut HeaderMap) {
    headers.reserve(8);
    set(headers, &REQUEST_ID, &call.ticket.request_id);
    let last = call.attempts.last();
    let (backend, tier, reason) = match (source, last) {
        (Some(s), _) => (Some(&s.fleet.backend(s.attempt.backend).name), Some(s.attempt.tier), Some(s.attempt.reason)),
        (None, Some(m)) => (Some(&m.fleet.backend(m.record.backend).name), Some(m.record.tier), Some(m.record.reason)),
        (None, None) => (None, None, None),
    };
    // A stream's attempt is recorded only when it has ended.
    let open = usize::from(source.is_some_and(|s| s.ttft.is_some()));
    if let (Some(reason), Some(tier)) = (reason, tier) {
        headers.insert(&REASON, HeaderValue::from_static(reason.as_str()));
        headers.insert(&TIER, u16::from(tier).into());
    }
    headers.insert(&ATTEMPTS, (call.attempts.len() + open).into());
    if let (Some(backend), Reveal::Id) = (backend, call.reveal) {
        set(headers, &BACKEND, backend);
    }
    if let Some(source) = source {
        let own = &source.fleet.backend(source.attempt.backend).model;
        set(headers, &MODEL, if source.attempt.substitute { own } else { &call.public_name });
        if source.attempt.substitute {
            headers.insert(&SUBSTITUTED, HeaderValue::from_static("true"));
        }
    }
}

fn set(headers: &mut HeaderMap, name: &HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn ready(live: &Live) -> Response<Answer> {
    if live.is_draining() {
        text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        text(StatusCode::OK, "ready\n")
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Answer> {
    let mut response = Response::new(Answer::whole(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// After a fault in the request its body may not have been read: an HTTP/1 connection cannot serve another one. In
/// HTTP/2 only the stream is over.
fn with_close(mut response: Response<Answer>, version: Version) -> Response<Answer> {
    if version < Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A request for something that answers over a connection of both directions.
fn is_realtime(request: &Request<Incoming>) -> bool {
    let path = request.uri().path();
    let names_websocket = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
    request.headers().get(header::UPGRADE).is_some_and(names_websocket)
        || path == "/v1/realtime"
        || path.starts_with("/v1/realtime/")
}

/// Typed and with a way out: a client of the Realtime API would otherwise take a 404 for a wrong URL.
fn no_realtime() -> Failure {
    let message = "this gateway does not serve the Realtime API or WebSockets; ask POST /v1/chat/completions with \
                   `\"stream\": true`, or connect to the backend itself";
    Failure::new(StatusCode::NOT_IMPLEMENTED, "invalid_request_error", "realtime_not_supported", message)
}

/// The answer where neither an endpoint, nor a list, nor a route is.
fn nothing_there(endpoint: Option<Endpoint>, path: &str) -> Failure {
    match endpoint {
        Some(_) => wrong_method("POST"),
        None if path == "/v1/models" || path.starts_with("/v1/models/") => wrong_method("GET"),
        None => no_such_path(path),
    }
}

fn wrong_method(allow: &'static str) -> Failure {
    let message = format!("this endpoint takes {allow}");
    let failure = Failure::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", "method_not_allowed", message);
    Failure { allow: Some(allow), ..failure }
}

fn no_such_path(path: &str) -> Failure {
    let shown: String = path.chars().filter(|c| !c.is_control()).take(80).collect();
    let message = format!(
        "there is no '{shown}' here; this gateway serves {} and /v1/models",
        Endpoint::ALL.map(|endpoint| format!("/v1{}", endpoint.path())).join(", ")
    );
    Failure::new(StatusCode::NOT_FOUND, "invalid_request_error", "unknown_url", message)
}

/// What the last attempt failed with, for [`Ending::failed`].
fn last_fault(call: &Call) -> Option<Fault> {
    call.attempts.last().and_then(|made| match made.record.end {
        End::Failed(fault) => Some(fault),
        _ => None,
    })
}
