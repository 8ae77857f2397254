//! The inference listener's endpoints, in the form of the engine that is played.
//!
//! An inference request goes: counted → read → faults that need no answer → key → parsed → engine → answer. `/health`
//! and `/metrics` are never faulty: an engine that hangs still answers them, and a gateway must not be fooled.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use crate::{
    Shared,
    answer::Voice,
    body::{AnswerBody, BrokenOff},
    conn::{Line, Parting},
    engine::{Job, Refused},
    error::ApiError,
    faults::{Dealt, FaultKind},
    generate::{self, Generation},
    metrics,
    profile::EngineKind,
    refusals::{self, authorized, error_response, json_response, not_found, unauthorized, wrong_method},
    request::{Dialect, Endpoint, Inference},
    stats::{Entry, Outcome, unix_ns},
};

const MAX_BODY: usize = 64 << 20;
/// Neither a status line nor the head of a frame of bearable length.
const NO_HTTP: &[u8] = b"garbage\r\n\r\n";
/// The frame GOAWAY of HTTP/2 (RFC 9113, 6.8): no error, and no stream was or will be processed.
const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

type Answer = Result<Response<AnswerBody>, BrokenOff>;

pub(crate) async fn answer(shared: Arc<Shared>, line: Arc<Line>, request: Request<Incoming>) -> Answer {
    let (open, is_first) = line.request();
    let engine = shared.engine.profile().engine;
    let mut response = match Endpoint::at(request.uri().path()) {
        Some(endpoint) if request.method() == Method::POST => {
            let fault = shared.faults.deal(is_first);
            infer(&shared, line, endpoint, fault, request).await?
        }
        Some(_) => wrong_method(engine),
        None => other(&shared, &request),
    };
    let server = match engine {
        EngineKind::Vllm => "uvicorn",
        EngineKind::Openai => "cloudflare",
    };
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static(server));
    Ok(response.map(|body| body.answering(open)))
}

fn other(shared: &Shared, request: &Request<Incoming>) -> Response<AnswerBody> {
    let profile = shared.engine.profile();
    let own_metrics = profile.engine == EngineKind::Vllm;
    match request.uri().path() {
        "/v1/models" if request.method() != Method::GET => wrong_method(profile.engine),
        "/v1/models" if !authorized(profile.api_key.as_deref(), request.headers()) => {
            unauthorized(profile.engine, Dialect::Choices)
        }
        "/v1/models" => {
            let list = Voice::models(&profile.model, profile.max_model_len, profile.engine, unix_ns() / 1_000_000_000);
            json_response(StatusCode::OK, list.to_string())
        }
        "/health" if own_metrics => Response::new(AnswerBody::full(Bytes::new())),
        "/metrics" if own_metrics => metrics::page(&shared.engine),
        path => not_found(profile.engine, path),
    }
}

async fn infer(
    shared: &Shared,
    line: Arc<Line>,
    endpoint: Endpoint,
    fault: Option<Dealt>,
    request: Request<Incoming>,
) -> Answer {
    let probe = request.headers().get("x-outrigger-probe").is_some_and(|v| v == "1");
    let entry = shared.book.open(request.uri().path(), probe, line.clone());
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return Err(line.break_off(b"").await);
    };
    let (profile, dialect) = (shared.engine.profile(), endpoint.dialect());
    if let Some(fault) = fault {
        if let Some(broken) = break_connection(&line, fault.kind).await {
            entry.end(Outcome::Fault);
            return Err(broken);
        }
        if let Some(response) = refusals::of_fault(profile, dialect, head.uri.path(), fault) {
            entry.end(Outcome::Fault);
            return Ok(response);
        }
    }
    if !authorized(profile.api_key.as_deref(), &head.headers) {
        entry.end(Outcome::Rejected);
        return Ok(unauthorized(profile.engine, dialect));
    }
    match Inference::parse(endpoint, &body.to_bytes(), profile) {
        Ok(inference) => generate(shared, line, entry, fault, &inference).await,
        Err(error) => Ok(rejected(shared, entry, dialect, &error)),
    }
}

/// The faults in which no byte of an answer comes. None: it is another.
async fn break_connection(line: &Line, kind: FaultKind) -> Option<BrokenOff> {
    let goodbye = if line.is_http2() { GOAWAY } else { b"" };
    match kind {
        FaultKind::Hang => std::future::pending().await,
        FaultKind::Reset => Some(line.break_off(b"").await),
        FaultKind::Close => line.end(Parting::close_after(b"")).await,
        FaultKind::CloseReused => line.end(Parting::reset_after(b"")).await,
        FaultKind::BadHttp => line.end(Parting::close_after(NO_HTTP)).await,
        FaultKind::Goaway => line.end(Parting::close_after(goodbye)).await,
        _ => None,
    }
}

async fn generate(
    shared: &Shared,
    line: Arc<Line>,
    entry: Entry,
    fault: Option<Dealt>,
    inference: &Inference,
) -> Answer {
    let (stream, dialect) = (inference.stream, inference.endpoint.dialect());
    if stream {
        entry.streams();
    }
    let has = |kind| fault.is_some_and(|f| f.kind == kind);
    if has(FaultKind::Garbage) {
        entry.end(Outcome::Fault);
        return Ok(refusals::garbage(stream));
    }
    if has(FaultKind::HeadersStall) {
        return Ok(generate::stalled(stream, entry));
    }
    let profile = shared.engine.profile();
    let job = Job { prompt_tokens: inference.prompt_tokens, max_tokens: inference.max_tokens };
    let ticket = match shared.engine.submit(job) {
        Ok(ticket) => ticket,
        Err(Refused::QueueFull) => {
            let error = ApiError::overloaded("The request queue is full.");
            return Ok(rejected(shared, entry, dialect, &error));
        }
        Err(Refused::TooLong) => {
            let asked = inference.prompt_tokens + u64::from(inference.max_tokens.unwrap_or(0));
            return Ok(rejected(shared, entry, dialect, &ApiError::too_long(profile.kv_tokens, asked)));
        }
    };
    let model = if has(FaultKind::WrongModel) { "wrong/model" } else { &profile.model };
    let number = shared.next_id.fetch_add(1, Ordering::Relaxed);
    let voice = Voice::new(profile.engine, inference, model, number, unix_ns() / 1_000_000_000);
    let is_last = has(FaultKind::GoawayLate) && !line.is_http2();
    let as_stream = stream && !has(FaultKind::PlainJson);
    let generation = Generation { voice, ticket, entry, line, fault, stream, inputs: inference.inputs };
    if !generation.line.is_http2() && (has(FaultKind::Unframed) || has(FaultKind::UnframedCut)) {
        return generation.without_framing(has(FaultKind::Unframed)).await;
    }
    let mut response = if as_stream { generation.stream() } else { generation.whole().await? };
    if is_last {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

fn rejected(shared: &Shared, entry: Entry, dialect: Dialect, error: &ApiError) -> Response<AnswerBody> {
    entry.end(Outcome::Rejected);
    error_response(shared.engine.profile().engine, dialect, error)
}
