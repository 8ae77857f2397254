//! Anthropic's messages, as vLLM serves them: it translates its own chat stream, so that nothing comes before the first
//! token, and a finish reason that Anthropic does not have becomes a stop reason of null.
//!
//! A finish reason "error" never gets that far: vLLM ends the chat stream with an error, and this one with its own.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Finish, Voice, text, token_text, typed_event};
use crate::{error::ApiError, request::Dialect};

pub(super) fn opening(voice: &Voice) -> Vec<Bytes> {
    let start = json!({"type": "message_start", "message": {
        "id": voice.id, "type": "message", "role": "assistant", "content": [], "model": voice.model,
        "stop_reason": null, "stop_sequence": null, "usage": usage(voice, 0),
    }});
    let block = json!({"type": "content_block_start", "content_block": {"type": "text", "text": ""}, "index": 0});
    vec![typed_event(&start), typed_event(&block)]
}

pub(super) fn token(n: u32) -> Bytes {
    let delta = json!({"type": "text_delta", "text": token_text(n)});
    typed_event(&json!({"type": "content_block_delta", "delta": delta, "index": 0}))
}

pub(super) fn closing(voice: &Voice, tokens: u32, finish: Finish) -> Vec<Bytes> {
    if finish == Finish::Error {
        return vec![typed_event(&ApiError::internal().body(voice.engine, Dialect::Messages))];
    }
    let delta = json!({
        "type": "message_delta", "delta": {"stop_reason": stop_reason(finish), "stop_sequence": null},
        "usage": usage(voice, tokens),
    });
    [json!({"type": "content_block_stop", "index": 0}), delta, json!({"type": "message_stop"})]
        .iter()
        .map(typed_event)
        .collect()
}

/// vLLM leaves out what is null.
pub(super) fn whole(voice: &Voice, output: u32, finish: Finish) -> Value {
    let answer = json!({
        "id": voice.id, "type": "message", "role": "assistant",
        "content": [{"type": "text", "text": text(output)}], "model": voice.model,
        "stop_reason": stop_reason(finish), "usage": usage(voice, output),
    });
    let Value::Object(answer) = answer else { return answer };
    answer.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>().into()
}

fn usage(voice: &Voice, output: u32) -> Value {
    json!({"input_tokens": voice.prompt_tokens, "output_tokens": output})
}

fn stop_reason(finish: Finish) -> Option<&'static str> {
    match finish {
        Finish::Stop => Some("end_turn"),
        Finish::Length => Some("max_tokens"),
        Finish::Abort | Finish::Error => None,
    }
}
