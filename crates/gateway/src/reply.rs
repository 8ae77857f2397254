//! Answers that the gateway gives itself, all errors in OpenAI's shape.
//!
//! Every error says what to do next, and never what a backend's address or key is.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use outrigger_core::{
    fleet::{Fleet, Reveal},
    record::Fault,
    route::{Candidate, Reject, RejectReason, Verdict},
    units::Nanos,
};
use outrigger_wire::{
    endpoint::Dialect,
    error::{BackendNote, ErrorBody},
};

use crate::body::Answer;

/// Whole seconds are long where a place comes free every few milliseconds. OpenAI's clients read this one first.
static RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

pub const REQUEST_ID: &str = "x-outrigger-request-id";

/// An error before it is written down.
#[derive(Clone, Debug)]
pub struct Failure {
    pub status: StatusCode,
    /// OpenAI's `error.type`.
    pub kind: &'static str,
    pub code: &'static str,
    pub message: String,
    pub param: Option<&'static str>,
    pub retry_after: Option<Duration>,
    /// The method that the path takes instead.
    pub allow: Option<&'static str>,
    pub backends: Vec<Note>,
    /// How the client expects errors to be written.
    pub dialect: Dialect,
}

/// Why one backend did not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub backend: String,
    pub reason: &'static str,
    pub retry_after: Option<Duration>,
}

impl Failure {
    pub fn new(status: StatusCode, kind: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            code,
            message: message.into(),
            param: None,
            retry_after: None,
            allow: None,
            backends: Vec::new(),
            dialect: Dialect::Choices,
        }
    }

    pub fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", code, message)
    }

    #[must_use]
    pub fn param(mut self, param: Option<&'static str>) -> Self {
        self.param = param;
        self
    }

    #[must_use]
    pub fn in_dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    pub fn to_response(&self, request_id: &str, reveal: Reveal) -> Response<Answer> {
        let body = self.to_body(reveal);
        let mut response = json(self.status, body, request_id);
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(ceil_seconds(wait)));
            response.headers_mut().insert(&RETRY_AFTER_MS, HeaderValue::from(ceil_milliseconds(wait)));
        }
        if let Some(allow) = self.allow {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }

    /// The error as the last event of a stream.
    pub fn to_event(&self, reveal: Reveal) -> Bytes {
        self.body(&self.notes(reveal)).to_event(self.dialect)
    }

    fn to_body(&self, reveal: Reveal) -> Bytes {
        self.body(&self.notes(reveal)).to_bytes(self.dialect)
    }

    fn notes(&self, reveal: Reveal) -> Vec<BackendNote<'_>> {
        let shown = if reveal == Reveal::Id { self.backends.as_slice() } else { &[] };
        let wait = |note: &Note| note.retry_after.map(ceil_seconds);
        shown.iter().map(|n| BackendNote { backend: &n.backend, reason: n.reason, retry_after_s: wait(n) }).collect()
    }

    fn body<'a>(&'a self, notes: &'a [BackendNote<'a>]) -> ErrorBody<'a> {
        ErrorBody {
            message: &self.message,
            kind: self.kind,
            param: self.param,
            code: Some(self.code),
            backends: (!notes.is_empty()).then_some(notes),
        }
    }
}

pub fn json(status: StatusCode, body: Bytes, request_id: &str) -> Response<Answer> {
    let mut response = Response::new(Answer::whole(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    response
}

/// Why each backend was not chosen, in the words of the fleet file.
pub fn notes(fleet: &Fleet, candidates: &[Candidate], now: Nanos) -> Vec<Note> {
    let mut notes: Vec<Note> = Vec::with_capacity(candidates.len());
    for c in candidates.iter().filter(|c| !c.verdict.is_eligible()) {
        let reason = match c.verdict {
            Verdict::Down { why } | Verdict::Suspect { why } => why.as_str(),
            other => other.as_str(),
        };
        let retry_after = match c.verdict {
            Verdict::CoolingDown { until, .. } => Some(until.since(now)),
            _ => None,
        };
        let backend = fleet.backend(c.backend).name.clone();
        if notes.iter().all(|n| n.backend != backend) {
            notes.push(Note { backend, reason, retry_after });
        }
    }
    notes
}

/// The answer to a request that the core turned away without an attempt.
pub fn rejected(reject: &Reject, model: &str) -> Failure {
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    let (status, kind, message) = match reject.why {
        RejectReason::NoBackend => {
            (unavailable, "service_unavailable", format!("no backend of model '{model}' can serve now; retry later"))
        }
        RejectReason::RateLimited => (
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limit_error",
            format!("every backend of model '{model}' is rate limited; retry after the time given"),
        ),
        RejectReason::Saturated => (
            unavailable,
            "service_unavailable",
            format!("every backend of model '{model}' is at its limit; retry later"),
        ),
        RejectReason::SubstituteDenied => (
            unavailable,
            "service_unavailable",
            format!("model '{model}' cannot serve now, and this key does not accept a substitute; retry later"),
        ),
        RejectReason::CloudNotAllowed => (
            StatusCode::FORBIDDEN,
            "permission_error",
            format!("model '{model}' is only served from clouds that this key may not use; ask the operator"),
        ),
        RejectReason::LacksApi => (
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            format!(
                "no backend of model '{model}' has this endpoint; the operator names it under `apis` of one that does"
            ),
        ),
        RejectReason::SpendLimit => (
            unavailable,
            "service_unavailable",
            format!("the backends of model '{model}' that are left have reached their spend limit; retry later"),
        ),
        RejectReason::KeyLimit => (
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limit_error",
            "this key has as many requests in flight as it may; retry when one has ended".to_owned(),
        ),
        RejectReason::AllTried | RejectReason::RetryBudget | RejectReason::Poison => (
            StatusCode::BAD_GATEWAY,
            "upstream_error",
            format!("the backends of model '{model}' failed on this request"),
        ),
    };
    let mut failure = Failure::new(status, kind, reject.why.as_str(), message);
    failure.retry_after = match reject.why {
        RejectReason::CloudNotAllowed | RejectReason::LacksApi | RejectReason::Poison => None,
        _ => Some(reject.retry_after.unwrap_or(Duration::from_secs(1))),
    };
    failure
}

/// The answer to a request whose last attempt failed and that may not be tried again.
pub fn upstream_failed(fault: Fault, model: &str) -> Failure {
    failed(fault, &format!("the backend of model '{model}'"))
}

/// What the client hears of a fault of the backend that its path belongs to.
pub fn route_failed(fault: Fault, prefix: &str) -> Failure {
    failed(fault, &format!("the backend of {prefix}"))
}

fn failed(fault: Fault, who: &str) -> Failure {
    let bad = StatusCode::BAD_GATEWAY;
    let late = StatusCode::GATEWAY_TIMEOUT;
    let (status, code, message) = match fault {
        Fault::Dns | Fault::Refused | Fault::Reset | Fault::Abandoned => {
            (bad, "backend_unreachable", "could not be reached")
        }
        Fault::Tls => (bad, "backend_tls", "failed the TLS handshake"),
        Fault::ConnectTimeout | Fault::HeadersTimeout | Fault::FirstTokenTimeout | Fault::TotalTimeout => {
            (late, "backend_timeout", "did not answer in time")
        }
        Fault::Overloaded { status: 429, .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limited", "is rate limited"),
        Fault::Overloaded { .. } => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "is overloaded"),
        Fault::Auth => (bad, "upstream_auth", "does not accept the gateway's key; the operator has to look"),
        Fault::WrongModel => {
            (bad, "wrong_model", "does not serve the model it is configured for; the operator has to look")
        }
        Fault::BadBody => (bad, "bad_upstream_body", "sent an answer that cannot be read"),
        Fault::Status(_) => (bad, "upstream_error", "failed"),
        Fault::Cut => (bad, "upstream_cut", "broke off the answer; what came before is incomplete"),
        Fault::Stalled => {
            (bad, "upstream_stalled", "went silent in the middle of the answer; what came before is incomplete")
        }
        Fault::Local => {
            (StatusCode::SERVICE_UNAVAILABLE, "gateway_resources", "could not be called: the gateway is out of sockets")
        }
    };
    let mut failure = Failure::new(status, "upstream_error", code, format!("{who} {message}"));
    if let Fault::Overloaded { retry_after, .. } = fault {
        failure.retry_after = Some(retry_after.unwrap_or(Duration::from_secs(1)));
    }
    failure
}

/// A bug of ours, which must not look like an answer.
pub fn internal() -> Failure {
    let message = "the gateway failed on this request; please report it";
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "internal", message)
}

fn ceil_milliseconds(d: Duration) -> u64 {
    u64::try_from(d.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn ceil_seconds(d: Duration) -> u64 {
    d.as_secs() + u64::from(d.subsec_nanos() > 0)
}
