//! Requests that name no model, such as those about files and batches: each goes to the one backend that the fleet file
//! names for its path, is passed on as it comes in both directions, and is never sent twice.
//!
//! The core decides nothing here and learns nothing: there is one place where what the request is about is kept, however
//! that place does, and what an upload takes says nothing about tokens. Never held, so that an upload may be larger than
//! `limits.body`; bounded by silence instead.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use outrigger_core::{
    fleet::{Fleet, KeyId, Reveal, Route, Timeouts},
    record::{End, Fault, Outcome},
    units::Nanos,
};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep, timeout},
};

use crate::{
    account,
    attempt::forwarded_headers,
    body::{Answer, Passed, Passing, Upload},
    dispatch::stopping,
    events::RoutedLine,
    live::Live,
    pieces,
    pool::Lease,
    raised,
    reply::{self, Failure},
    serve::in_its_own_task,
    upstream::Upstream,
};

/// Headers of a backend's answer that the client gets: what the body is, and no word of whose account it is.
const ANSWERED: [HeaderName; 11] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::ACCEPT_RANGES,
    header::CACHE_CONTROL,
    header::ETAG,
    header::LAST_MODIFIED,
    header::RETRY_AFTER,
    header::VARY,
];

/// A request on its way to the backend of its path.
#[derive(Debug)]
pub(crate) struct Routed {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) route: Route,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) key: Option<KeyId>,
    pub(crate) reveal: Reveal,
    pub(crate) request_id: String,
    pub(crate) client: IpAddr,
    pub(crate) arrived: Instant,
    pub(crate) at: Nanos,
}

/// How it ended.
struct Over {
    status: u16,
    outcome: Outcome,
    reason: Option<&'static str>,
    bytes_in: u64,
}

impl Over {
    fn failed(status: StatusCode, fault: Fault, bytes_in: u64) -> Self {
        Self { status: status.as_u16(), outcome: End::Failed(fault).into(), reason: Some(fault.as_str()), bytes_in }
    }

    fn refused(failure: &Failure) -> Self {
        Self { status: failure.status.as_u16(), outcome: Outcome::Rejected, reason: Some(failure.code), bytes_in: 0 }
    }

    fn client_gone(bytes_in: u64) -> Self {
        Self { status: 499, outcome: Outcome::ClientGone, reason: None, bytes_in }
    }
}

/// Whether some reader of the path could take it for another one than the route's prefix was compared with.
fn is_ambiguous(path: &str) -> bool {
    let plain = path.to_ascii_lowercase().replace("%2e", ".");
    let has_hidden_slash = ["%2f", "%5c", "\\", "//", "%00"].iter().any(|hidden| plain.contains(hidden));
    has_hidden_slash || plain.split('/').any(|segment| segment == "." || segment == "..")
}

pub(crate) fn refuse_ambiguous_path(path: &str) -> Result<(), Failure> {
    if is_ambiguous(path) {
        let message = "the path has empty, `.` or `..` segments or hidden slashes; write it without them";
        return Err(Failure::invalid("ambiguous_path", message));
    }
    Ok(())
}

/// Serves it in a task of its own, so that it is written down whenever the client leaves.
pub(crate) async fn run(
    live: Arc<Live>,
    routed: Routed,
    request: Request<Incoming>,
    stop: watch::Receiver<bool>,
) -> Response<Answer> {
    let (id, reveal) = (routed.request_id.clone(), routed.reveal);
    let serve = |respond| in_bounds(live.clone(), routed, request, respond, stop);
    in_its_own_task(&live, &id, reveal, serve).await
}

async fn in_bounds(
    live: Arc<Live>,
    routed: Routed,
    request: Request<Incoming>,
    respond: oneshot::Sender<Response<Answer>>,
    stop: watch::Receiver<bool>,
) {
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let passed = Arc::default();
    let over = match admit(&live, &routed) {
        Ok(()) => {
            let over = exchange(&live, &routed, request, &passed, respond, stop).await;
            if let Some(key) = routed.key {
                live.settle_key(&routed.fleet, key);
            }
            over
        }
        Err(failure) => {
            drop(respond.send(failure.to_response(&routed.request_id, routed.reveal)));
            Over::refused(&failure)
        }
    };
    write_down(&live, &routed, (&method, &path), passed.bytes.load(Ordering::Relaxed), &over);
}

fn admit(live: &Live, routed: &Routed) -> Result<(), Failure> {
    if live.is_drained(&routed.fleet, routed.route.backend) {
        let message = format!("the backend of {} is drained; retry when it is back", routed.route.prefix);
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", "drained", message));
    }
    let Some(key) = routed.key else { return Ok(()) };
    live.admit_key(&routed.fleet, key).map_err(|reject| reply::rejected(&reject, ""))
}

async fn exchange(
    live: &Live,
    routed: &Routed,
    request: Request<Incoming>,
    passed: &Arc<Passed>,
    mut respond: oneshot::Sender<Response<Answer>>,
    mut stop: watch::Receiver<bool>,
) -> Over {
    let timeouts = Timeouts::default().overridden_by(&routed.fleet.backend(routed.route.backend).timeouts);
    let read_timeout = routed.fleet.gateway.limits.read_timeout;
    let sent = tokio::select! {
        biased;
        sent = send(routed, request, &timeouts, read_timeout, passed) => sent,
        () = respond.closed() => return Over::client_gone(0),
        () = raised(&mut stop) => {
            let failure = stopping();
            drop(respond.send(failure.to_response(&routed.request_id, routed.reveal)));
            return Over::refused(&failure);
        }
    };
    let fault = match sent {
        Ok((response, lease)) => match unfit(response.status()) {
            None => return pass_on(live, routed, response, lease, respond, &timeouts, stop).await,
            Some(fault) => fault,
        },
        Err(fault) => fault,
    };
    if passed.broke.load(Ordering::Relaxed) {
        let message = format!("the request body broke off, or nothing of it came for {} s", read_timeout.as_secs());
        let failure = Failure::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", "incomplete_body", message);
        drop(respond.send(failure.to_response(&routed.request_id, routed.reveal)));
        return Over::client_gone(0);
    }
    let failure = reply::route_failed(fault, &routed.route.prefix);
    let mut response = failure.to_response(&routed.request_id, routed.reveal);
    mark(routed, response.headers_mut());
    drop(respond.send(response));
    Over::failed(failure.status, fault, 0)
}

/// What of a backend's answers is not the client's: a redirect, which is never followed, and the gateway's own key.
fn unfit(status: StatusCode) -> Option<Fault> {
    match status {
        StatusCode::UNAUTHORIZED => Some(Fault::Auth),
        StatusCode::NOT_MODIFIED => None,
        _ if status.is_redirection() || status.is_informational() => Some(Fault::BadBody),
        _ => None,
    }
}

/// Sends it once. One without a body that was not begun, because the backend had closed the connection, is sent again.
async fn send(
    routed: &Routed,
    request: Request<Incoming>,
    timeouts: &Timeouts,
    read_timeout: Duration,
    passed: &Arc<Passed>,
) -> Result<(Response<Incoming>, Lease), Fault> {
    let pool = &routed.upstream.pool;
    let (parts, body) = request.into_parts();
    if !body.is_end_stream() {
        let (over, uploaded) = oneshot::channel();
        let body = Upload::Passing(Passing::new(body, read_timeout, passed.clone(), over));
        let lease = pool.fresh(timeouts.connect).await?;
        return ask(lease, translated(routed, &parts, body), uploaded, timeouts).await.map_err(Fault::from);
    }
    let bodiless = || (translated(routed, &parts, Upload::from(Vec::new())), oneshot::channel::<()>().1);
    let (request, uploaded) = bodiless();
    match ask(pool.lease(timeouts.connect).await?, request, uploaded, timeouts).await {
        Err(lost) if lost.was_not_begun => {
            let (request, uploaded) = bodiless();
            Ok(ask(pool.fresh(timeouts.connect).await?, request, uploaded, timeouts).await?)
        }
        other => Ok(other?),
    }
}

/// Waits for the head of the answer, no longer than that may take once the backend has the whole request.
async fn ask(
    mut lease: Lease,
    request: Request<Upload>,
    uploaded: oneshot::Receiver<()>,
    timeouts: &Timeouts,
) -> Result<(Response<Incoming>, Lease), crate::pool::Lost> {
    let late = async {
        drop(uploaded.await);
        sleep(timeouts.first_token).await;
    };
    let response = tokio::select! {
        biased;
        response = lease.send(request) => response?,
        () = late => return Err(crate::pool::Lost { fault: Fault::HeadersTimeout, was_not_begun: false }),
    };
    Ok((response, lease))
}

fn translated(routed: &Routed, parts: &http::request::Parts, body: Upload) -> Request<Upload> {
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    let below = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let path = format!("{}{}", routed.upstream.base_path, below.strip_prefix("/v1").unwrap_or(below));
    *request.uri_mut() = path.parse().expect("a base path and a client's path make a path");
    let headers = request.headers_mut();
    forwarded_headers(&parts.headers, headers);
    for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING] {
        if let Some(value) = parts.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    routed.upstream.sign(headers);
    request
}

async fn pass_on(
    live: &Live,
    routed: &Routed,
    response: Response<Incoming>,
    lease: Lease,
    respond: oneshot::Sender<Response<Answer>>,
    timeouts: &Timeouts,
    mut stop: watch::Receiver<bool>,
) -> Over {
    let (head, mut body) = response.into_parts();
    let (to, receiver) = pieces::channel();
    let mut answer = Response::new(Answer::Pieces(receiver));
    *answer.status_mut() = head.status;
    for name in ANSWERED {
        for value in head.headers.get_all(&name) {
            answer.headers_mut().append(name.clone(), value.clone());
        }
    }
    mark(routed, answer.headers_mut());
    drop(respond.send(answer));
    let patience = routed.fleet.gateway.limits.write_timeout;
    let mut bytes_in = 0;
    loop {
        let frame = tokio::select! {
            biased;
            frame = timeout(timeouts.idle, body.frame()) => frame,
            () = to.gone() => return Over::client_gone(bytes_in),
            () = raised(&mut stop) => return Over::failed(head.status, Fault::Local, bytes_in),
        };
        let data = match frame {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            Ok(Some(Err(_))) => return Over::failed(head.status, Fault::Cut, bytes_in),
            Err(_) => return Over::failed(head.status, Fault::Stalled, bytes_in),
        };
        routed.upstream.heard(live.clock.now());
        bytes_in += data.len() as u64;
        // A client that has read nothing for so long counts as gone.
        if !to.send(data, || Instant::now() + patience).await {
            return Over::client_gone(bytes_in);
        }
    }
    to.end();
    routed.upstream.pool.give_back(lease);
    let outcome = match head.status.as_u16() {
        400..=499 => Outcome::ClientError,
        500.. => Outcome::UpstreamError,
        _ => Outcome::Ok,
    };
    Over { status: head.status.as_u16(), outcome, reason: None, bytes_in }
}

fn mark(routed: &Routed, headers: &mut HeaderMap) {
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set(reply::REQUEST_ID, &routed.request_id);
    set("x-outrigger-reason", "route");
    if routed.reveal == Reveal::Id {
        set("x-outrigger-backend", &routed.upstream.name);
    }
}

fn write_down(live: &Live, routed: &Routed, (method, path): (&str, &str), bytes_out: u64, over: &Over) {
    let Over { status, outcome, reason, bytes_in } = *over;
    live.events.metrics().routed(&routed.fleet, routed.route.backend, status, outcome);
    live.events.routed(&RoutedLine {
        event: "routed",
        v: 1,
        ts: account::timestamp(routed.at),
        request_id: &routed.request_id,
        fleet: &routed.fleet.digest,
        client: routed.client,
        key_id: routed.key.map(|key| routed.fleet.keys[key.index()].name.as_str()),
        method,
        path,
        backend: &routed.upstream.name,
        status,
        outcome,
        reason,
        bytes_out,
        bytes_in,
        duration_ms: account::ms(routed.arrived.elapsed()),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_two_readers_could_read_differently_is_ambiguous() {
        for path in [
            "/v1/files/../models",
            "/v1/files/%2E%2e/x",
            "/v1/files/a%2Fb",
            "/v1//files",
            "/v1/files/./a",
            "/v1/files\\a",
        ] {
            assert!(is_ambiguous(path), "{path}");
        }
        for path in ["/v1/files", "/v1/files/file-1.2..3/content", "/v1/files/a%20b", "/v1/files/"] {
            assert!(!is_ambiguous(path), "{path}");
        }
    }
}
