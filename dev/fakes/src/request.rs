//! An inference request as the engines read it: the few fields that matter here, checked as vLLM checks them.

use serde::Deserialize;
use serde_json::Value;

use crate::{error::ApiError, profile::Profile};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Chat,
    Completions,
    Embeddings,
    /// OpenAI's newer form of a chat.
    Responses,
    /// Anthropic's form of a chat.
    Messages,
}

/// How answers are written, streamed ones above all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `choices`, and a `[DONE]` at the end of a stream.
    Choices,
    /// Typed events; the last carries the whole response.
    Responses,
    /// Typed events from `message_start` to `message_stop`.
    Messages,
}

impl Endpoint {
    pub(crate) fn at(path: &str) -> Option<Self> {
        match path {
            "/v1/chat/completions" => Some(Self::Chat),
            "/v1/completions" => Some(Self::Completions),
            "/v1/embeddings" => Some(Self::Embeddings),
            "/v1/responses" => Some(Self::Responses),
            "/v1/messages" => Some(Self::Messages),
            _ => None,
        }
    }

    pub(crate) fn dialect(self) -> Dialect {
        match self {
            Self::Chat | Self::Completions | Self::Embeddings => Dialect::Choices,
            Self::Responses => Dialect::Responses,
            Self::Messages => Dialect::Messages,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Inference {
    pub(crate) endpoint: Endpoint,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) prompt_tokens: u64,
    /// Embeddings: how many vectors are asked for.
    pub(crate) inputs: usize,
}

#[derive(Deserialize)]
struct RawRequest {
    model: Option<String>,
    messages: Option<Vec<RawMessage>>,
    prompt: Option<Value>,
    input: Option<Value>,
    /// Of a response, and of a message: what stands before the prompt.
    instructions: Option<String>,
    #[serde(default)]
    system: Value,
    stream: Option<bool>,
    stream_options: Option<RawStreamOptions>,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    max_output_tokens: Option<i64>,
}

#[derive(Deserialize)]
struct RawMessage {
    #[serde(default)]
    content: Value,
}

#[derive(Deserialize)]
struct RawStreamOptions {
    include_usage: Option<bool>,
}

impl Inference {
    pub(crate) fn parse(endpoint: Endpoint, body: &[u8], profile: &Profile) -> Result<Self, ApiError> {
        let raw: RawRequest = serde_json::from_slice(body).map_err(|e| ApiError::bad_request(e.to_string(), None))?;
        if let Some(model) = raw.model.as_ref().filter(|m| **m != profile.model) {
            return Err(ApiError::unknown_model(model));
        }
        let (prompt_tokens, inputs) = prompt(endpoint, &raw)?;
        let max_tokens = max_tokens(endpoint, &raw)?;
        let total = prompt_tokens + max_tokens.map_or(0, u64::from);
        if total > profile.max_model_len {
            return Err(ApiError::too_long(profile.max_model_len, total));
        }
        Ok(Self {
            endpoint,
            stream: raw.stream == Some(true) && endpoint != Endpoint::Embeddings,
            include_usage: raw.stream_options.and_then(|o| o.include_usage) == Some(true),
            max_tokens,
            prompt_tokens,
            inputs,
        })
    }
}

fn max_tokens(endpoint: Endpoint, raw: &RawRequest) -> Result<Option<u32>, ApiError> {
    let (name, given) = match endpoint {
        Endpoint::Embeddings => return Ok(Some(0)),
        Endpoint::Responses => ("max_output_tokens", raw.max_output_tokens),
        Endpoint::Messages => ("max_tokens", Some(raw.max_tokens.ok_or_else(|| missing("max_tokens"))?)),
        Endpoint::Chat | Endpoint::Completions => ("max_tokens", raw.max_completion_tokens.or(raw.max_tokens)),
    };
    let Some(n) = given else { return Ok(None) };
    let allowed = u32::try_from(n).ok().filter(|n| *n > 0);
    let refusal = || ApiError::bad_request(format!("{name} must be at least 1, got {n}."), Some(name));
    allowed.map(Some).ok_or_else(refusal)
}

/// Tokens of the prompt and the number of separate inputs.
fn prompt(endpoint: Endpoint, raw: &RawRequest) -> Result<(u64, usize), ApiError> {
    match endpoint {
        Endpoint::Chat | Endpoint::Messages => {
            let messages = raw.messages.as_deref().filter(|m| !m.is_empty()).ok_or_else(|| missing("messages"))?;
            let bytes: usize = messages.iter().map(|m| text_bytes(&m.content)).sum();
            Ok((tokens_of_bytes(bytes + text_bytes(&raw.system)), 1))
        }
        Endpoint::Responses => {
            let input = raw.input.as_ref().ok_or_else(|| missing("input"))?;
            let before = raw.instructions.as_deref().map_or(0, str::len);
            Ok((tokens_of_bytes(before + input_bytes(input)), 1))
        }
        Endpoint::Completions => Ok((value_tokens(raw.prompt.as_ref().ok_or_else(|| missing("prompt"))?), 1)),
        Endpoint::Embeddings => {
            let input = raw.input.as_ref().ok_or_else(|| missing("input"))?;
            let inputs = match input.as_array() {
                Some(list) if list.iter().all(|v| !v.is_number()) => list.len(),
                _ => 1,
            };
            Ok((value_tokens(input), inputs))
        }
    }
}

fn missing(field: &'static str) -> ApiError {
    ApiError::bad_request(format!("Field required: {field}"), Some(field))
}

/// A message's content: a string, or parts of which the text ones count.
fn text_bytes(content: &Value) -> usize {
    match content {
        Value::String(text) => text.len(),
        Value::Array(parts) => parts.iter().filter_map(|p| p.get("text")?.as_str()).map(str::len).sum(),
        _ => 0,
    }
}

/// A response's input: a string, or items of which those with content count.
fn input_bytes(input: &Value) -> usize {
    match input {
        Value::Array(items) => items.iter().filter_map(|item| item.get("content")).map(text_bytes).sum(),
        other => text_bytes(other),
    }
}

/// A prompt: a string, token ids, or a list of either.
fn value_tokens(value: &Value) -> u64 {
    match value {
        Value::String(text) => tokens_of_bytes(text.len()),
        Value::Array(list) => list.iter().map(value_tokens).sum(),
        Value::Number(_) => 1,
        _ => 0,
    }
}

/// The fake's tokenizer: four bytes are a token. Exact, and easy to say in a test.
fn tokens_of_bytes(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(4)
}
