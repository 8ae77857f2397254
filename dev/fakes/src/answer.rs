//! What the engine says, byte for byte as far as a gateway can tell: vLLM's shapes, and those of a hosted API.
//!
//! Output token `i` is the text ` t{i}`, so that a token lost or repeated on the way is seen by whoever reads the
//! answer. Shapes follow vLLM's `entrypoints/openai` as of 0.1x–0.33: a whole answer is dumped with all its nulls, a
//! chunk only with the fields that were set. The differences to a real llama-server are listed beside the captures.

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    profile::EngineKind,
    request::{Endpoint, Inference},
};

#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    message: String,
    /// vLLM's name for the kind of error; hosted APIs have coarser ones.
    kind: &'static str,
    param: Option<&'static str>,
    /// A hosted API's `code`; vLLM repeats the status there.
    code: Option<&'static str>,
    pub(crate) retry_after_s: Option<u64>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), kind, param: None, code: None, retry_after_s: None }
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

    pub(crate) fn too_many_requests() -> Self {
        Self {
            code: Some("rate_limit_exceeded"),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "RateLimitError", "Rate limit reached.")
        }
    }

    pub(crate) fn body(&self, engine: EngineKind) -> Value {
        match engine {
            EngineKind::Vllm => json!({"error": {
                "message": self.message, "type": self.kind, "param": self.param, "code": self.status.as_u16(),
            }}),
            EngineKind::Openai => json!({"error": {
                "message": self.message, "type": self.hosted_kind(), "param": self.param, "code": self.code,
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
}

pub(crate) fn token_text(n: u32) -> String {
    format!(" t{n}")
}

/// Everything that stays the same over one answer.
#[derive(Clone, Debug)]
pub(crate) struct Voice {
    pub(crate) engine: EngineKind,
    pub(crate) endpoint: Endpoint,
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) include_usage: bool,
    pub(crate) prompt_tokens: u64,
}

impl Voice {
    pub(crate) fn new(engine: EngineKind, request: &Inference, model: &str, number: u64, created: u64) -> Self {
        let prefix = match request.endpoint {
            Endpoint::Chat => "chatcmpl",
            Endpoint::Completions => "cmpl",
            Endpoint::Embeddings => "embd",
        };
        Self {
            engine,
            endpoint: request.endpoint,
            id: format!("{prefix}-{number:032x}"),
            created,
            model: model.into(),
            include_usage: request.include_usage,
            prompt_tokens: request.prompt_tokens,
        }
    }

    pub(crate) fn models(model: &str, max_model_len: u64, engine: EngineKind, created: u64) -> Value {
        let entry = match engine {
            EngineKind::Vllm => json!({
                "id": model, "object": "model", "created": created, "owned_by": "vllm", "root": model,
                "parent": null, "max_model_len": max_model_len, "permission": [],
            }),
            EngineKind::Openai => json!({"id": model, "object": "model", "created": created, "owned_by": "system"}),
        };
        json!({"object": "list", "data": [entry]})
    }

    /// The first event of a chat stream: a role and no content. Completions have none.
    pub(crate) fn opening(&self) -> Option<Value> {
        let mut delta = json!({"role": "assistant", "content": ""});
        match (self.endpoint, self.engine) {
            (Endpoint::Chat, EngineKind::Openai) => delta["refusal"] = Value::Null,
            (Endpoint::Chat, EngineKind::Vllm) => {}
            _ => return None,
        }
        let mut chunk = self.chunk(&json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}]));
        if self.engine == EngineKind::Vllm {
            chunk["prompt_token_ids"] = Value::Null;
        }
        Some(chunk)
    }

    pub(crate) fn token(&self, n: u32) -> Value {
        let text = token_text(n);
        let mut choice = match self.endpoint {
            Endpoint::Chat => json!({
                "index": 0, "delta": {"content": text}, "logprobs": null, "finish_reason": null,
            }),
            _ => json!({"index": 0, "text": text, "logprobs": null, "finish_reason": null}),
        };
        if self.engine == EngineKind::Vllm {
            choice["token_ids"] = Value::Null;
        }
        self.chunk(&json!([choice]))
    }

    pub(crate) fn finish(&self, reason: &str) -> Value {
        let delta = match self.engine {
            EngineKind::Vllm => json!({"content": ""}),
            EngineKind::Openai => json!({}),
        };
        let mut choice = match self.endpoint {
            Endpoint::Chat => json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason}),
            _ => json!({"index": 0, "text": "", "logprobs": null, "finish_reason": reason}),
        };
        if self.engine == EngineKind::Vllm {
            choice["stop_reason"] = Value::Null;
            choice["token_ids"] = Value::Null;
        }
        self.chunk(&json!([choice]))
    }

    /// The event with empty choices that `stream_options.include_usage` asks for.
    pub(crate) fn usage_event(&self, output: u32) -> Value {
        let mut event = self.chunk(&json!([]));
        event["usage"] = self.usage(output);
        event
    }

    pub(crate) fn complete(&self, output: u32, reason: &str) -> Value {
        let text: String = (0..output).map(token_text).collect();
        let (object, mut choice) = match self.endpoint {
            Endpoint::Chat => (
                "chat.completion",
                json!({"index": 0, "message": self.message(&text), "logprobs": null, "finish_reason": reason}),
            ),
            _ => ("text_completion", json!({"index": 0, "text": text, "logprobs": null, "finish_reason": reason})),
        };
        if self.engine == EngineKind::Vllm {
            choice["stop_reason"] = Value::Null;
            choice["token_ids"] = Value::Null;
        }
        let mut answer = json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model, "choices": [choice],
            "service_tier": null, "system_fingerprint": null, "usage": self.full_usage(output),
        });
        if self.engine == EngineKind::Vllm {
            for key in ["prompt_logprobs", "prompt_token_ids", "kv_transfer_params"] {
                answer[key] = Value::Null;
            }
        }
        answer
    }

    pub(crate) fn embeddings(&self, inputs: usize) -> Value {
        let data: Vec<Value> =
            (0..inputs).map(|i| json!({"index": i, "object": "embedding", "embedding": vector(i)})).collect();
        json!({
            "id": self.id, "object": "list", "created": self.created, "model": self.model, "data": data,
            "usage": self.full_usage(0),
        })
    }

    fn chunk(&self, choices: &Value) -> Value {
        let object = match self.endpoint {
            Endpoint::Chat => "chat.completion.chunk",
            _ => "text_completion",
        };
        let mut chunk = json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices,
        });
        // A hosted API announces the usage event on every chunk before it; vLLM leaves the key out.
        if self.engine == EngineKind::Openai {
            chunk["service_tier"] = json!("default");
            chunk["system_fingerprint"] = json!("fp_fake");
            if self.include_usage {
                chunk["usage"] = Value::Null;
            }
        }
        chunk
    }

    fn message(&self, text: &str) -> Value {
        match self.engine {
            EngineKind::Vllm => json!({
                "role": "assistant", "content": text, "refusal": null, "annotations": null, "audio": null,
                "function_call": null, "tool_calls": [], "reasoning_content": null,
            }),
            EngineKind::Openai => json!({"role": "assistant", "content": text, "refusal": null, "annotations": []}),
        }
    }

    fn usage(&self, output: u32) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens, "total_tokens": self.prompt_tokens + u64::from(output),
            "completion_tokens": output,
        })
    }

    fn full_usage(&self, output: u32) -> Value {
        let mut usage = self.usage(output);
        usage["prompt_tokens_details"] = match self.engine {
            EngineKind::Vllm => Value::Null,
            EngineKind::Openai => json!({"cached_tokens": 0}),
        };
        usage
    }
}

pub(crate) fn finish_reason(by_length: bool) -> &'static str {
    if by_length { "length" } else { "stop" }
}

/// Eight numbers that are the same every time: nobody computes with them.
fn vector(input: usize) -> Vec<f64> {
    (0..8).map(|d| f64::from(u32::try_from((input * 31 + d * 17) % 64).unwrap_or(0)) / 64.0 - 0.5).collect()
}
