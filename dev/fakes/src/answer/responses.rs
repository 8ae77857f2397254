//! OpenAI's responses, as vLLM serves them: each event is numbered, two come before the engine has done anything, and
//! the last carries the whole response.
//!
//! vLLM ends every stream with `response.completed` and says in the response's `status` what that means: "incomplete"
//! at the length limit, "cancelled" when the engine aborted. Only an error has an event of its own; `response.failed`
//! is the one that OpenAI's API has for it.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Finish, Voice, text, token_text, typed_event};

/// The numbers before the first token: created, in progress, the item, its part.
const BEFORE_TOKENS: u32 = 4;

pub(super) fn at_once(voice: &Voice) -> Vec<Bytes> {
    let response = response(voice, "in_progress", &json!([]), &Value::Null);
    let kinds = ["response.created", "response.in_progress"];
    numbered(0, kinds.map(|kind| json!({"type": kind, "response": response})))
}

pub(super) fn opening(voice: &Voice) -> Vec<Bytes> {
    let item = json!({
        "id": item_id(voice), "content": [], "role": "assistant", "status": "in_progress", "type": "message",
        "phase": null,
    });
    let added = json!({"type": "response.output_item.added", "item": item, "output_index": 0});
    let part = json!({"annotations": [], "text": "", "type": "output_text", "logprobs": []});
    numbered(2, [added, in_part(voice, "response.content_part.added", "part", part)])
}

pub(super) fn token(voice: &Voice, n: u32) -> Bytes {
    let mut event = in_part(voice, "response.output_text.delta", "delta", token_text(n).into());
    event["logprobs"] = json!([]);
    event["sequence_number"] = json!(sequence_after(n));
    typed_event(&event)
}

pub(super) fn closing(voice: &Voice, tokens: u32, finish: Finish) -> Vec<Bytes> {
    if finish == Finish::Error {
        let failed = json!({"type": "response.failed", "response": whole(voice, tokens, finish)});
        return numbered(sequence_after(tokens), [failed]);
    }
    let mut text_done = in_part(voice, "response.output_text.done", "text", text(tokens).into());
    text_done["logprobs"] = json!([]);
    let events = [
        text_done,
        in_part(voice, "response.content_part.done", "part", part(tokens)),
        json!({"type": "response.output_item.done", "item": item(voice, tokens), "output_index": 0}),
        json!({"type": "response.completed", "response": whole(voice, tokens, finish)}),
    ];
    numbered(sequence_after(tokens), events)
}

/// The number of the event that follows so many tokens.
pub(super) fn sequence_after(tokens: u32) -> u32 {
    BEFORE_TOKENS + tokens
}

pub(super) fn whole(voice: &Voice, output: u32, finish: Finish) -> Value {
    let status = match finish {
        Finish::Stop => "completed",
        Finish::Length => "incomplete",
        Finish::Abort => "cancelled",
        Finish::Error => "failed",
    };
    let mut response = response(voice, status, &json!([item(voice, output)]), &usage(voice, output));
    match finish {
        Finish::Length => response["incomplete_details"] = json!({"reason": "max_output_tokens"}),
        Finish::Error => {
            response["error"] = json!({"code": "server_error", "message": "EngineCore encountered an issue."});
        }
        Finish::Stop | Finish::Abort => {}
    }
    response
}

fn response(voice: &Voice, status: &str, output: &Value, usage: &Value) -> Value {
    json!({
        "id": voice.id, "created_at": voice.created, "incomplete_details": null, "instructions": null,
        "metadata": null, "model": voice.model, "object": "response", "output": output, "parallel_tool_calls": true,
        "temperature": 0.0, "tool_choice": "none", "tools": [], "top_p": 1.0, "background": false,
        "max_output_tokens": voice.max_tokens, "max_tool_calls": null, "previous_response_id": null, "prompt": null,
        "reasoning": null, "service_tier": "auto", "status": status, "text": null, "top_logprobs": null,
        "truncation": "disabled", "usage": usage, "user": null, "presence_penalty": 0.0, "frequency_penalty": 0.0,
        "kv_transfer_params": null, "ec_transfer_params": null, "input_messages": null, "output_messages": null,
    })
}

fn item(voice: &Voice, tokens: u32) -> Value {
    json!({
        "id": item_id(voice), "content": [part(tokens)], "role": "assistant", "status": "completed",
        "type": "message", "phase": null,
    })
}

fn part(tokens: u32) -> Value {
    json!({"annotations": [], "text": text(tokens), "type": "output_text", "logprobs": null})
}

/// An event about the one part of the one item.
fn in_part(voice: &Voice, kind: &str, key: &str, value: Value) -> Value {
    let mut event = json!({"type": kind, "content_index": 0, "item_id": item_id(voice), "output_index": 0});
    event[key] = value;
    event
}

fn item_id(voice: &Voice) -> String {
    voice.id.replacen("resp", "msg", 1)
}

fn usage(voice: &Voice, output: u32) -> Value {
    json!({
        "input_tokens": voice.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": 0, "cache_write_tokens": 0, "input_tokens_per_turn": [], "cached_tokens_per_turn": [],
        },
        "output_tokens": output,
        "output_tokens_details": {
            "reasoning_tokens": 0, "tool_output_tokens": 0, "output_tokens_per_turn": [],
            "tool_output_tokens_per_turn": [],
        },
        "total_tokens": voice.prompt_tokens + u64::from(output),
    })
}

fn numbered<const N: usize>(first: u32, events: [Value; N]) -> Vec<Bytes> {
    let with_number = |(number, mut event): (u32, Value)| {
        event["sequence_number"] = json!(number);
        typed_event(&event)
    };
    (first..).zip(events).map(with_number).collect()
}
