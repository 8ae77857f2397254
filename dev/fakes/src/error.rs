//! What an engine says when it does not answer, in the form of the engine and of the dialect that it was asked in.
//!
//! vLLM has one form for OpenAI's endpoints, with the status repeated as a number in `code`, and wraps the same words
//! in Anthropic's form for messages. Hosted APIs have coarser kinds and words for codes.

use http::StatusCode;
use serde_json::{Value, json};

use crate::{profile::EngineKind, request::Dialect};

#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    message: String,
    /// vLLM's name for the kind of error; hosted APIs have coarser ones.
    kind: &'static str,
    param: Option<&'static str>,
    /// A hosted API's `code`; vLLM repeats the status there.
    code: Option<&'static str>,
    /// A hosted API's form whatever the engine, for errors that vLLM does not have.
    hosted_form: bool,
    pub(crate) retry_after_s: Option<u64>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, message, kind, param: None, code: None, hosted_form: false, retry_after_s: None }
    }

    pub(crate) fn bad_request(message: impl Into<String>, param: Option<&'static str>) -> Self {
        Self { param, ..Self::new(StatusCode::BAD_REQUEST, "BadRequestError", message) }
    }

    pub(crate) fn unknown_model(model: &str) -> Self {
        Self {
            param: Some("model"),
            code: Some("model_not_found"),
            ..Self::new(StatusCode::NOT_FOUND, "NotFoundError", format!("The model `{model}` does not exist."))
        }
    }

    pub(crate) fn too_long(limit: u64, asked: u64) -> Self {
        let message = format!(
            "This model's maximum context length is {limit} tokens. However, you requested {asked} tokens. \
             Please reduce the length of the messages or completion."
        );
        Self { code: Some("context_length_exceeded"), ..Self::bad_request(message, Some("messages")) }
    }

    pub(crate) fn overloaded(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableError", message)
    }

    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "EngineCore encountered an issue.")
    }

    fn too_many_requests() -> Self {
        Self {
            code: Some("rate_limit_exceeded"),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "RateLimitError", "Rate limit reached.")
        }
    }

    /// The fault `context_length`: as `too_long`, with the code in words.
    pub(crate) fn context_length(limit: u64) -> Self {
        Self { hosted_form: true, ..Self::too_long(limit, limit + 1) }
    }

    pub(crate) fn content_filter() -> Self {
        let message = "The response was filtered due to the prompt triggering a content management policy.";
        Self { code: Some("content_filter"), hosted_form: true, ..Self::bad_request(message, Some("prompt")) }
    }

    /// What an engine might say with this status.
    pub(crate) fn of_status(status: u16) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let (kind, message) = match status.as_u16() {
            400 => ("BadRequestError", "The request could not be understood."),
            401 => ("AuthenticationError", "Incorrect API key provided."),
            403 => ("PermissionDeniedError", "You are not allowed to sample from this model."),
            404 => ("NotFoundError", "The model does not exist."),
            408 => ("RequestTimeoutError", "The request took too long to arrive."),
            415 => ("UnsupportedMediaTypeError", "Only application/json is supported."),
            422 => ("UnprocessableEntityError", "The request was well-formed but could not be processed."),
            429 => return Self::too_many_requests(),
            500 => return Self::internal(),
            501 => ("NotImplementedError", "The model does not support this API."),
            503 => return Self::overloaded("The server is overloaded."),
            _ => ("APIError", status.canonical_reason().unwrap_or("The request failed.")),
        };
        Self::new(status, kind, message)
    }

    pub(crate) fn body(&self, engine: EngineKind, dialect: Dialect) -> Value {
        let hosted = self.hosted_form || engine == EngineKind::Openai;
        match dialect {
            Dialect::Messages => {
                let kind = if hosted { self.anthropic_kind() } else { self.kind };
                json!({"type": "error", "error": {"type": kind, "message": self.message}})
            }
            Dialect::Choices | Dialect::Responses if hosted => json!({"error": {
                "message": self.message, "type": self.hosted_kind(), "param": self.param, "code": self.code,
            }}),
            Dialect::Choices | Dialect::Responses => json!({"error": {
                "message": self.message, "type": self.kind, "param": self.param, "code": self.status.as_u16(),
            }}),
        }
    }

    fn hosted_kind(&self) -> &'static str {
        match self.status.as_u16() {
            429 => "requests",
            400..500 => "invalid_request_error",
            _ => "server_error",
        }
    }

    /// <https://docs.anthropic.com/en/api/errors>
    fn anthropic_kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            400..500 => "invalid_request_error",
            503 | 529 => "overloaded_error",
            504 => "timeout_error",
            _ => "api_error",
        }
    }
}
