//! What the engine says, byte for byte as far as a gateway can tell: vLLM's shapes, and those of a hosted API.
//!
//! Output token `i` is the text ` t{i}`, so that a token lost or repeated on the way is seen by whoever reads the
//! answer. Shapes follow vLLM's `entrypoints` as of 0.1x–0.33. The dialects differ in what goes around the tokens, and
//! this is where they are told apart: a stream is what comes at once, what comes before the first token, the tokens,
//! and what ends it. The differences to a real llama-server are listed beside the captures.

mod choices;
mod messages;
mod responses;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    error::ApiError,
    profile::EngineKind,
    request::{Dialect, Endpoint, Inference},
};

/// Why an answer ends where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    Stop,
    Length,
    /// vLLM's answer to its own SIGTERM.
    Abort,
    Error,
}

impl Finish {
    pub(crate) fn natural(by_length: bool) -> Self {
        if by_length { Self::Length } else { Self::Stop }
    }
}

/// Everything that stays the same over one answer.
#[derive(Clone, Debug)]
pub(crate) struct Voice {
    pub(crate) engine: EngineKind,
    pub(crate) endpoint: Endpoint,
    pub(crate) include_usage: bool,
    id: String,
    created: u64,
    model: String,
    max_tokens: Option<u32>,
    prompt_tokens: u64,
}

impl Voice {
    pub(crate) fn new(engine: EngineKind, request: &Inference, model: &str, number: u64, created: u64) -> Self {
        let prefix = match request.endpoint {
            Endpoint::Chat | Endpoint::Messages => "chatcmpl",
            Endpoint::Completions => "cmpl",
            Endpoint::Embeddings => "embd",
            Endpoint::Responses => "resp",
        };
        let mark = if request.endpoint == Endpoint::Responses { '_' } else { '-' };
        Self {
            engine,
            endpoint: request.endpoint,
            id: format!("{prefix}{mark}{number:032x}"),
            created,
            model: model.into(),
            include_usage: request.include_usage,
            max_tokens: request.max_tokens,
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

    pub(crate) fn dialect(&self) -> Dialect {
        self.endpoint.dialect()
    }

    /// Events that come with the headers, before the engine has done anything.
    pub(crate) fn at_once(&self) -> Vec<Bytes> {
        match self.dialect() {
            Dialect::Responses => responses::at_once(self),
            Dialect::Choices | Dialect::Messages => Vec::new(),
        }
    }

    /// Events that come with the first token.
    pub(crate) fn opening(&self) -> Vec<Bytes> {
        match self.dialect() {
            Dialect::Choices => choices::opening(self).iter().map(event).collect(),
            Dialect::Responses => responses::opening(self),
            Dialect::Messages => messages::opening(self),
        }
    }

    pub(crate) fn token(&self, n: u32) -> Bytes {
        match self.dialect() {
            Dialect::Choices => event(&choices::token(self, n)),
            Dialect::Responses => responses::token(self, n),
            Dialect::Messages => messages::token(n),
        }
    }

    /// Events after the last of so many tokens; with choices a `[DONE]` is to follow.
    pub(crate) fn closing(&self, tokens: u32, finish: Finish) -> Vec<Bytes> {
        match self.dialect() {
            Dialect::Choices => choices::closing(self, tokens, finish).iter().map(event).collect(),
            Dialect::Responses => responses::closing(self, tokens, finish),
            Dialect::Messages => messages::closing(self, tokens, finish),
        }
    }

    /// What vLLM writes last, whatever came before.
    pub(crate) fn done(&self) -> Option<&'static str> {
        (self.dialect() == Dialect::Choices).then_some("data: [DONE]\n\n")
    }

    /// An error in the middle of a stream, after so many tokens.
    pub(crate) fn error(&self, tokens: u32, error: &ApiError) -> Bytes {
        let mut body = error.body(self.engine, self.dialect());
        match self.dialect() {
            Dialect::Choices => event(&body),
            Dialect::Messages => typed_event(&body),
            Dialect::Responses => {
                body["type"] = json!("error");
                body["sequence_number"] = json!(responses::sequence_after(tokens));
                typed_event(&body)
            }
        }
    }

    /// The beginning of a token's event, without its end.
    pub(crate) fn broken_token(&self) -> &'static str {
        match self.dialect() {
            Dialect::Choices => "data: {\"id\":\"chatcmpl-broken\",\"choices\":[{\"index\":0,\"delta\":{\"con",
            Dialect::Responses => {
                "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"del"
            }
            Dialect::Messages => "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"del",
        }
    }

    pub(crate) fn whole(&self, output: u32, finish: Finish) -> Value {
        match self.dialect() {
            Dialect::Choices => choices::whole(self, output, finish),
            Dialect::Responses => responses::whole(self, output, finish),
            Dialect::Messages => messages::whole(self, output, finish),
        }
    }

    pub(crate) fn embeddings(&self, inputs: usize) -> Value {
        choices::embeddings(self, inputs)
    }
}

fn token_text(n: u32) -> String {
    format!(" t{n}")
}

fn text(tokens: u32) -> String {
    (0..tokens).map(token_text).collect()
}

fn event(value: &Value) -> Bytes {
    format!("data: {value}\n\n").into()
}

/// An event that is named as its `type` says.
fn typed_event(value: &Value) -> Bytes {
    let name = value["type"].as_str().unwrap_or_default();
    format!("event: {name}\ndata: {value}\n\n").into()
}
