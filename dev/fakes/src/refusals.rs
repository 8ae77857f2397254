//! Responses that are no answers: errors in the engine's form, and what a proxy or a web framework says in its place.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::json;

use crate::{
    body::AnswerBody,
    error::ApiError,
    faults::{Dealt, FaultKind},
    profile::{EngineKind, Profile},
    request::Dialect,
};

/// No name at all, so that whoever follows the redirect fails.
const ELSEWHERE: &str = "http://elsewhere.invalid";

pub(crate) fn json_response(status: StatusCode, body: impl Into<Bytes>) -> Response<AnswerBody> {
    typed_response(status, "application/json", body)
}

fn typed_response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

pub(crate) fn error_response(engine: EngineKind, dialect: Dialect, error: &ApiError) -> Response<AnswerBody> {
    let mut response = json_response(error.status, error.body(engine, dialect).to_string());
    if let Some(seconds) = error.retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// The response of a fault that is nothing but a status; none if it is another fault.
pub(crate) fn of_fault(profile: &Profile, dialect: Dialect, path: &str, fault: Dealt) -> Option<Response<AnswerBody>> {
    let mut response = match fault.kind {
        FaultKind::Status(307) => redirect(path),
        FaultKind::Status(401) => unauthorized(profile.engine, dialect),
        FaultKind::Status(405) => wrong_method(profile.engine),
        FaultKind::Status(status @ (413 | 502 | 504 | 505)) => proxy_page(status),
        FaultKind::Status(status) => error_response(profile.engine, dialect, &ApiError::of_status(status)),
        FaultKind::ContextLength => {
            error_response(profile.engine, dialect, &ApiError::context_length(profile.max_model_len))
        }
        FaultKind::ContentFilter => error_response(profile.engine, dialect, &ApiError::content_filter()),
        _ => return None,
    };
    if let Some(seconds) = fault.retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    Some(response)
}

fn redirect(path: &str) -> Response<AnswerBody> {
    let mut response = typed_response(StatusCode::TEMPORARY_REDIRECT, "text/plain", "");
    // A path that was received can be sent.
    if let Ok(location) = HeaderValue::from_str(&format!("{ELSEWHERE}{path}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn proxy_page(status: u16) -> Response<AnswerBody> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let page = format!(
        "<html>\r\n<head><title>{status}</title></head>\r\n<body>\r\n<center><h1>{status}</h1></center>\r\n\
         <hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    );
    typed_response(status, "text/html", page)
}

/// 200 and a body that is not what was asked for.
pub(crate) fn garbage(stream: bool) -> Response<AnswerBody> {
    let kind = if stream { "text/event-stream; charset=utf-8" } else { "application/json" };
    typed_response(StatusCode::OK, kind, "<html><body>It works!</body></html>\n\n")
}

/// OpenAI's way to send a key, or Anthropic's. Comparing in constant time is not worth the trouble here: the key guards
/// nothing.
pub(crate) fn authorized(api_key: Option<&str>, headers: &HeaderMap) -> bool {
    let Some(api_key) = api_key else { return true };
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let bearer = text("authorization").and_then(|v| v.strip_prefix("Bearer "));
    bearer.or_else(|| text("x-api-key")) == Some(api_key)
}

pub(crate) fn unauthorized(engine: EngineKind, dialect: Dialect) -> Response<AnswerBody> {
    let body = match (engine, dialect) {
        (EngineKind::Vllm, _) => json!({"error": "Unauthorized"}),
        (EngineKind::Openai, Dialect::Messages) => ApiError::of_status(401).body(engine, dialect),
        (EngineKind::Openai, _) => json!({"error": {
            "message": "Incorrect API key provided.", "type": "invalid_request_error", "param": null,
            "code": "invalid_api_key",
        }}),
    };
    json_response(StatusCode::UNAUTHORIZED, body.to_string())
}

pub(crate) fn not_found(engine: EngineKind, path: &str) -> Response<AnswerBody> {
    match engine {
        EngineKind::Vllm => json_response(StatusCode::NOT_FOUND, r#"{"detail":"Not Found"}"#),
        EngineKind::Openai => {
            let error = ApiError::new(StatusCode::NOT_FOUND, "", format!("Invalid URL ({path})"));
            error_response(engine, Dialect::Choices, &error)
        }
    }
}

pub(crate) fn wrong_method(engine: EngineKind) -> Response<AnswerBody> {
    match engine {
        EngineKind::Vllm => json_response(StatusCode::METHOD_NOT_ALLOWED, r#"{"detail":"Method Not Allowed"}"#),
        EngineKind::Openai => {
            let error = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "", "Not allowed.");
            error_response(engine, Dialect::Choices, &error)
        }
    }
}
