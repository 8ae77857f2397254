//! Chat, completions and embeddings: OpenAI's older APIs, and how vLLM and hosted APIs differ in them.
//!
//! A whole answer is dumped with all its nulls, a chunk only with the fields that were set.

use serde_json::{Value, json};

use super::{Finish, Voice, text, token_text};
use crate::{profile::EngineKind, request::Endpoint};

/// The first event of a chat stream: a role and no content. Completions have none.
pub(super) fn opening(voice: &Voice) -> Option<Value> {
    let mut delta = json!({"role": "assistant", "content": ""});
    match (voice.endpoint, voice.engine) {
        (Endpoint::Chat, EngineKind::Openai) => delta["refusal"] = Value::Null,
        (Endpoint::Chat, EngineKind::Vllm) => {}
        _ => return None,
    }
    let mut chunk = chunk(voice, &json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}]));
    if voice.engine == EngineKind::Vllm {
        chunk["prompt_token_ids"] = Value::Null;
    }
    Some(chunk)
}

pub(super) fn token(voice: &Voice, n: u32) -> Value {
    let text = token_text(n);
    let mut choice = match voice.endpoint {
        Endpoint::Chat => json!({
            "index": 0, "delta": {"content": text}, "logprobs": null, "finish_reason": null,
        }),
        _ => json!({"index": 0, "text": text, "logprobs": null, "finish_reason": null}),
    };
    if voice.engine == EngineKind::Vllm {
        choice["token_ids"] = Value::Null;
    }
    chunk(voice, &json!([choice]))
}

/// The finish reason, and the event with empty choices that `stream_options.include_usage` asks for.
pub(super) fn closing(voice: &Voice, tokens: u32, finish: Finish) -> Vec<Value> {
    let usage = voice.include_usage.then(|| usage_event(voice, tokens));
    [finish_event(voice, reason(finish))].into_iter().chain(usage).collect()
}

fn finish_event(voice: &Voice, reason: &str) -> Value {
    let delta = match voice.engine {
        EngineKind::Vllm => json!({"content": ""}),
        EngineKind::Openai => json!({}),
    };
    let mut choice = match voice.endpoint {
        Endpoint::Chat => json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason}),
        _ => json!({"index": 0, "text": "", "logprobs": null, "finish_reason": reason}),
    };
    if voice.engine == EngineKind::Vllm {
        choice["stop_reason"] = Value::Null;
        choice["token_ids"] = Value::Null;
    }
    chunk(voice, &json!([choice]))
}

fn usage_event(voice: &Voice, output: u32) -> Value {
    let mut event = chunk(voice, &json!([]));
    event["usage"] = usage(voice, output);
    event
}

pub(super) fn whole(voice: &Voice, output: u32, finish: Finish) -> Value {
    let (text, reason) = (text(output), reason(finish));
    let (object, mut choice) = match voice.endpoint {
        Endpoint::Chat => (
            "chat.completion",
            json!({"index": 0, "message": message(voice, &text), "logprobs": null, "finish_reason": reason}),
        ),
        _ => ("text_completion", json!({"index": 0, "text": text, "logprobs": null, "finish_reason": reason})),
    };
    if voice.engine == EngineKind::Vllm {
        choice["stop_reason"] = Value::Null;
        choice["token_ids"] = Value::Null;
    }
    let mut answer = json!({
        "id": voice.id, "object": object, "created": voice.created, "model": voice.model, "choices": [choice],
        "service_tier": null, "system_fingerprint": null, "usage": full_usage(voice, output),
    });
    if voice.engine == EngineKind::Vllm {
        for key in ["prompt_logprobs", "prompt_token_ids", "kv_transfer_params"] {
            answer[key] = Value::Null;
        }
    }
    answer
}

pub(super) fn embeddings(voice: &Voice, inputs: usize) -> Value {
    let data: Vec<Value> =
        (0..inputs).map(|i| json!({"index": i, "object": "embedding", "embedding": vector(i)})).collect();
    json!({
        "id": voice.id, "object": "list", "created": voice.created, "model": voice.model, "data": data,
        "usage": full_usage(voice, 0),
    })
}

fn chunk(voice: &Voice, choices: &Value) -> Value {
    let object = match voice.endpoint {
        Endpoint::Chat => "chat.completion.chunk",
        _ => "text_completion",
    };
    let mut chunk = json!({
        "id": voice.id, "object": object, "created": voice.created, "model": voice.model, "choices": choices,
    });
    // A hosted API announces the usage event on every chunk before it; vLLM leaves the key out.
    if voice.engine == EngineKind::Openai {
        chunk["service_tier"] = json!("default");
        chunk["system_fingerprint"] = json!("fp_fake");
        if voice.include_usage {
            chunk["usage"] = Value::Null;
        }
    }
    chunk
}

fn message(voice: &Voice, text: &str) -> Value {
    match voice.engine {
        EngineKind::Vllm => json!({
            "role": "assistant", "content": text, "refusal": null, "annotations": null, "audio": null,
            "function_call": null, "tool_calls": [], "reasoning_content": null,
        }),
        EngineKind::Openai => json!({"role": "assistant", "content": text, "refusal": null, "annotations": []}),
    }
}

fn usage(voice: &Voice, output: u32) -> Value {
    json!({
        "prompt_tokens": voice.prompt_tokens, "total_tokens": voice.prompt_tokens + u64::from(output),
        "completion_tokens": output,
    })
}

fn full_usage(voice: &Voice, output: u32) -> Value {
    let mut usage = usage(voice, output);
    usage["prompt_tokens_details"] = match voice.engine {
        EngineKind::Vllm => Value::Null,
        EngineKind::Openai => json!({"cached_tokens": 0}),
    };
    usage
}

fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::Abort => "abort",
        Finish::Error => "error",
    }
}

/// Eight numbers that are the same every time: nobody computes with them.
fn vector(input: usize) -> Vec<f64> {
    (0..8).map(|d| f64::from(u32::try_from((input * 31 + d * 17) % 64).unwrap_or(0)) / 64.0 - 0.5).collect()
}
