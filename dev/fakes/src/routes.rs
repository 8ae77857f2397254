//! The inference listener's endpoints, in the form of the engine that is played.
//!
//! An inference request goes: counted → read → faults that need no answer → key → parsed → engine → answer. `/health`
//! and `/metrics` are never faulty: an engine that hangs still answers them, and a gateway must not be fooled.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use crate::{
    Shared,
    answer::{ApiError, Voice},
    body::{AnswerBody, BrokenOff},
    conn::Line,
    engine::{Job, Refused},
    faults::{Dealt, FaultKind},
    generate::{Generation, json_response},
    metrics,
    profile::EngineKind,
    request::{Endpoint, Inference},
    stats::{Entry, Outcome, unix_ns},
};

const MAX_BODY: usize = 64 << 20;

type Answer = Result<Response<AnswerBody>, BrokenOff>;

pub(crate) async fn answer(shared: Arc<Shared>, line: Arc<Line>, request: Request<Incoming>) -> Answer {
    let mut response = match Endpoint::at(request.uri().path()) {
        Some(endpoint) if request.method() == Method::POST => infer(&shared, line, endpoint, request).await?,
        Some(_) => wrong_method(&shared),
        None => other(&shared, &request),
    };
    let server = match shared.engine.profile().engine {
        EngineKind::Vllm => "uvicorn",
        EngineKind::Openai => "cloudflare",
    };
    response.headers_mut().insert(header::SERVER, header::HeaderValue::from_static(server));
    Ok(response)
}

fn other(shared: &Shared, request: &Request<Incoming>) -> Response<AnswerBody> {
    let profile = shared.engine.profile();
    let own_metrics = profile.engine == EngineKind::Vllm;
    match request.uri().path() {
        "/v1/models" if request.method() != Method::GET => wrong_method(shared),
        "/v1/models" if !authorized(profile.api_key.as_deref(), request.headers()) => unauthorized(profile.engine),
        "/v1/models" => {
            let list = Voice::models(&profile.model, profile.max_model_len, profile.engine, unix_ns() / 1_000_000_000);
            json_response(StatusCode::OK, list.to_string())
        }
        "/health" if own_metrics => Response::new(AnswerBody::full(Bytes::new())),
        "/metrics" if own_metrics => metrics::page(&shared.engine),
        path => not_found(profile.engine, path),
    }
}

async fn infer(shared: &Shared, line: Arc<Line>, endpoint: Endpoint, request: Request<Incoming>) -> Answer {
    let probe = request.headers().get("x-outrigger-probe").is_some_and(|v| v == "1");
    let entry = shared.book.open(request.uri().path(), probe, line.clone());
    let fault = shared.faults.deal();
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        line.break_off();
        return Err(BrokenOff);
    };
    if let Some(response) = before_parsing(shared, &line, fault).await? {
        entry.end(Outcome::Fault);
        return Ok(response);
    }
    let profile = shared.engine.profile();
    if !authorized(profile.api_key.as_deref(), &head.headers) {
        entry.end(Outcome::Rejected);
        return Ok(unauthorized(profile.engine));
    }
    match Inference::parse(endpoint, &body.to_bytes(), profile) {
        Ok(inference) => generate(shared, line, entry, fault, &inference).await,
        Err(error) => Ok(rejected(shared, entry, &error)),
    }
}

/// The faults that ask nothing of the engine.
async fn before_parsing(
    shared: &Shared,
    line: &Line,
    fault: Option<Dealt>,
) -> Result<Option<Response<AnswerBody>>, BrokenOff> {
    let Some(fault) = fault else { return Ok(None) };
    let mut error = match fault.kind {
        FaultKind::Hang => std::future::pending().await,
        FaultKind::Reset => {
            line.break_off();
            return Err(BrokenOff);
        }
        FaultKind::Status500 => ApiError::internal(),
        FaultKind::Status503 => ApiError::overloaded("The server is overloaded."),
        FaultKind::Status429 => ApiError::too_many_requests(),
        _ => return Ok(None),
    };
    error.retry_after_s = fault.retry_after_s;
    Ok(Some(error_response(shared.engine.profile().engine, &error)))
}

async fn generate(
    shared: &Shared,
    line: Arc<Line>,
    entry: Entry,
    fault: Option<Dealt>,
    inference: &Inference,
) -> Answer {
    if inference.stream {
        entry.streams();
    }
    if fault.is_some_and(|f| f.kind == FaultKind::Garbage) {
        entry.end(Outcome::Fault);
        return Ok(garbage(inference.stream));
    }
    let profile = shared.engine.profile();
    let job = Job { prompt_tokens: inference.prompt_tokens, max_tokens: inference.max_tokens };
    let ticket = match shared.engine.submit(job) {
        Ok(ticket) => ticket,
        Err(Refused::QueueFull) => {
            return Ok(rejected(shared, entry, &ApiError::overloaded("The request queue is full.")));
        }
        Err(Refused::TooLong) => {
            let asked = inference.prompt_tokens + u64::from(inference.max_tokens.unwrap_or(0));
            return Ok(rejected(shared, entry, &ApiError::too_long(profile.kv_tokens, asked)));
        }
    };
    let wrong = fault.is_some_and(|f| f.kind == FaultKind::WrongModel);
    let model = if wrong { "wrong/model" } else { &profile.model };
    let number = shared.next_id.fetch_add(1, Ordering::Relaxed);
    let voice = Voice::new(profile.engine, inference, model, number, unix_ns() / 1_000_000_000);
    let generation = Generation { voice, ticket, entry, line, fault, inputs: inference.inputs };
    if inference.stream { Ok(generation.stream()) } else { generation.whole().await }
}

fn garbage(stream: bool) -> Response<AnswerBody> {
    let mut response = json_response(StatusCode::OK, "<html><body>It works!</body></html>\n\n");
    if stream {
        let sse = header::HeaderValue::from_static("text/event-stream; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, sse);
    }
    response
}

fn rejected(shared: &Shared, entry: Entry, error: &ApiError) -> Response<AnswerBody> {
    entry.end(Outcome::Rejected);
    error_response(shared.engine.profile().engine, error)
}

fn error_response(engine: EngineKind, error: &ApiError) -> Response<AnswerBody> {
    let mut response = json_response(error.status, error.body(engine).to_string());
    if let Some(seconds) = error.retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// Comparing in constant time is not worth the trouble here: the key guards nothing.
fn authorized(api_key: Option<&str>, headers: &HeaderMap) -> bool {
    let Some(api_key) = api_key else { return true };
    headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok()?.strip_prefix("Bearer "))
        .is_some_and(|given| given == api_key)
}

fn unauthorized(engine: EngineKind) -> Response<AnswerBody> {
    let body = match engine {
        EngineKind::Vllm => r#"{"error":"Unauthorized"}"#,
        EngineKind::Openai => {
            r#"{"error":{"message":"Incorrect API key provided.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#
        }
    };
    json_response(StatusCode::UNAUTHORIZED, body)
}

fn not_found(engine: EngineKind, path: &str) -> Response<AnswerBody> {
    match engine {
        EngineKind::Vllm => json_response(StatusCode::NOT_FOUND, r#"{"detail":"Not Found"}"#),
        EngineKind::Openai => {
            let error = ApiError::new(StatusCode::NOT_FOUND, "", format!("Invalid URL ({path})"));
            error_response(engine, &error)
        }
    }
}

fn wrong_method(shared: &Shared) -> Response<AnswerBody> {
    match shared.engine.profile().engine {
        EngineKind::Vllm => json_response(StatusCode::METHOD_NOT_ALLOWED, r#"{"detail":"Method Not Allowed"}"#),
        engine @ EngineKind::Openai => {
            error_response(engine, &ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "", "Not allowed."))
        }
    }
}
