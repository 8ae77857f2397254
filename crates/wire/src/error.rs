//! Errors in OpenAI's shape, out to a client; and in, in whatever shape an engine sends them.
//!
//! Every engine has its own: vLLM an integer `code`, OpenAI a string one, TGI a string for the whole error beside an
//! `error_type`, FastAPI a `detail`, a load balancer HTML. They all become an [`UpstreamError`]. Its message is bounded
//! and has no control characters, so that it can go into a log line; it is still the backend's text, and who shows it
//! to a client decides whether that client may see it.

use bytes::Bytes;
use serde::Serialize;

use crate::endpoint::Dialect;
use serde_json::{Map, Value};

/// The most bytes of a backend's message that are kept.
pub const MAX_MESSAGE: usize = 1_024;

/// Types and codes are words.
const MAX_WORD: usize = 64;

/// Why one backend did not answer, as a client may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BackendNote<'a> {
    pub backend: &'a str,
    pub reason: &'a str,
    pub retry_after_s: Option<u64>,
}

/// An error for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ErrorBody<'a> {
    pub message: &'a str,
    #[serde(rename = "type")]
    pub kind: &'a str,
    pub param: Option<&'a str>,
    pub code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backends: Option<&'a [BackendNote<'a>]>,
}

impl ErrorBody<'_> {
    /// `{"error":{…}}`, with what the dialect's clients look for beside it.
    pub fn to_bytes(&self, dialect: Dialect) -> Bytes {
        self.written(dialect == Dialect::Messages, b"", b"")
    }

    /// The same as a server-sent event.
    pub fn to_event(&self, dialect: Dialect) -> Bytes {
        match dialect {
            Dialect::Responses | Dialect::Messages => self.written(true, b"event: error\ndata: ", b"\n\n"),
            Dialect::Choices | Dialect::Opaque => self.written(false, b"data: ", b"\n\n"),
        }
    }

    fn written(&self, is_typed: bool, before: &[u8], after: &[u8]) -> Bytes {
        #[derive(Serialize)]
        struct Outer<'a> {
            #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
            kind: Option<&'static str>,
            error: &'a ErrorBody<'a>,
        }
        let mut out = before.to_vec();
        let outer = Outer { kind: is_typed.then_some("error"), error: self };
        serde_json::to_writer(&mut out, &outer).expect("writing strings into memory cannot fail");
        out.extend_from_slice(after);
        out.into()
    }
}

/// An error as a backend told it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpstreamError {
    /// The HTTP status it is or would have been, where known.
    pub status: Option<u16>,
    pub message: String,
    /// `type`, in the engine's words.
    pub kind: Option<String>,
    /// `code` where it is a word, such as `context_length_exceeded`.
    pub code: Option<String>,
}

impl UpstreamError {
    /// Reads an error body, or an error event's payload, of any engine. `status` is the HTTP status, if it is one that
    /// tells of an error; otherwise the body's own counts.
    pub fn read(status: Option<u16>, body: &[u8]) -> Self {
        let mut error = match serde_json::from_slice::<Value>(body) {
            Ok(Value::Object(outer)) => Self::from_object(&outer),
            Ok(Value::String(text)) => Self::from_text(&text),
            _ => Self::from_text(&String::from_utf8_lossy(&body[..body.len().min(4 * MAX_MESSAGE)])),
        };
        error.status = status
            .or(error.status)
            .or_else(|| [&error.code, &error.kind].into_iter().flatten().find_map(|word| status_of(word)));
        if error.message.is_empty() {
            error.message = match error.status {
                Some(status) => format!("status {status} without a message"),
                None => "an error without a message".to_owned(),
            };
        }
        error
    }

    fn from_text(text: &str) -> Self {
        Self { message: bounded(text, MAX_MESSAGE), ..Self::default() }
    }

    fn from_object(outer: &Map<String, Value>) -> Self {
        let inner = outer.get("error").and_then(Value::as_object).unwrap_or(outer);
        let text = ["message", "error", "detail", "error_message"].into_iter().find_map(|key| inner.get(key));
        let word = |key: &str| inner.get(key).and_then(Value::as_str).map(|word| bounded(word, MAX_WORD));
        let message = match text {
            Some(Value::String(text)) => bounded(text, MAX_MESSAGE),
            Some(Value::Null) | None => String::new(),
            Some(other) => bounded(&other.to_string(), MAX_MESSAGE),
        };
        Self {
            status: ["code", "status", "http_status_code", "status_code"]
                .into_iter()
                .find_map(|key| inner.get(key).and_then(http_status)),
            message,
            kind: word("type").or_else(|| word("error_type")),
            code: word("code").filter(|code| !code.bytes().all(|byte| byte.is_ascii_digit())),
        }
    }
}

/// A number, or a string of one, that is the status of an error.
fn http_status(value: &Value) -> Option<u16> {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
    u16::try_from(number).ok().filter(|status| (400..600).contains(status))
}

/// The status that an API answers with where it says this word, for events that come without one. Of the words of
/// OpenAI's and Anthropic's lists of errors, and of vLLM's types, those that say whose fault it is.
fn status_of(word: &str) -> Option<u16> {
    match word {
        "invalid_request_error" | "invalid_prompt" | "BadRequestError" => Some(400),
        "authentication_error" => Some(401),
        "permission_error" => Some(403),
        "not_found_error" | "NotFoundError" => Some(404),
        "request_too_large" => Some(413),
        "rate_limit_error" | "rate_limit_exceeded" | "insufficient_quota" | "RateLimitError" => Some(429),
        "api_error" | "server_error" | "InternalServerError" => Some(500),
        "ServiceUnavailableError" => Some(503),
        "timeout_error" => Some(504),
        "overloaded_error" => Some(529),
        _ => None,
    }
}

/// At most `max` bytes of `text`, cut between characters, with each run of white space and control characters made one
/// space.
pub(crate) fn bounded(text: &str, max: usize) -> String {
    let mut out = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        let space = usize::from(!out.is_empty());
        if out.len() + space + word.len() > max {
            let room = max.saturating_sub(out.len() + space);
            let cut = word.floor_char_boundary(room);
            if cut > 0 {
                out.extend((space == 1).then_some(' '));
                out.push_str(&word[..cut]);
            }
            break;
        }
        out.extend((space == 1).then_some(' '));
        out.push_str(word);
    }
    out
}
