//! Streams of typed events: OpenAI's responses and Anthropic's messages.
//!
//! Each event says in `type` what it is, and the stream is whole when one of a few has come; what follows, a `[DONE]` or
//! nothing, is up to the server. The model's name and the usage are in an object within the event.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    endpoint::Dialect,
    error::UpstreamError,
    json,
    stream::{Chunk, ChunkFault, Finish, Usage, UsageIn},
};

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Cow<'a, str>,
    /// Of a response.
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
    /// Of a message's start.
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    /// Of a message's end.
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// What an event carries of the answer as a whole.
#[derive(Deserialize)]
struct Carried<'a> {
    #[serde(borrow, default)]
    model: Option<&'a RawValue>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// What an event means for the stream.
#[derive(Clone, Copy, PartialEq)]
enum Meaning {
    Content,
    /// The answer is whole.
    Last,
    Failed,
    Other,
}

/// Reads an event's payload.
pub(crate) fn inspect(dialect: Dialect, data: &[u8]) -> Result<Chunk, ChunkFault> {
    let malformed = |error: &serde_json::Error| ChunkFault::Malformed(json::fault(data, error));
    let event: Event<'_> = serde_json::from_slice(data).map_err(|error| malformed(&error))?;
    let meaning = meaning(dialect, &event.kind);
    let carried = event.response.or(event.message);
    let carried = carried.and_then(|object| serde_json::from_str::<Carried<'_>>(object.get()).ok());
    let usage = carried.as_ref().and_then(|c| c.usage).or(event.usage);
    let failed = (meaning == Meaning::Failed).then(|| {
        let inner = carried.as_ref().and_then(|c| c.error).or(event.error).map_or(data, |error| error.get().as_bytes());
        UpstreamError::read(None, inner)
    });
    let model = carried.as_ref().and_then(|c| c.model).map(RawValue::get).filter(|text| text.starts_with('"'));
    Ok(Chunk {
        done: false,
        content: matches!(meaning, Meaning::Content | Meaning::Last),
        finishes: if meaning == Meaning::Last { vec![Finish::Stop] } else { Vec::new() },
        usage: usage.and_then(|usage| serde_json::from_str::<UsageIn>(usage.get()).ok()).map(UsageIn::into_usage),
        usage_only: false,
        error: failed,
        model: model.map(|text| json::span_in(data, text)),
    })
}

fn meaning(dialect: Dialect, kind: &str) -> Meaning {
    match (dialect, kind) {
        (_, "error") | (Dialect::Responses, "response.failed") => Meaning::Failed,
        (Dialect::Responses, "response.completed" | "response.incomplete") | (Dialect::Messages, "message_stop") => {
            Meaning::Last
        }
        (Dialect::Responses, kind) if kind.rsplit('.').next() == Some("delta") => Meaning::Content,
        (Dialect::Messages, "content_block_delta" | "message_delta") => Meaning::Content,
        _ => Meaning::Other,
    }
}

/// What is known of the usage after another event: a message says its prompt at the start and its answer at the end.
pub fn joined(before: Option<Usage>, now: Option<Usage>) -> Option<Usage> {
    match (before, now) {
        (Some(before), Some(now)) => Some(Usage {
            prompt: before.prompt.max(now.prompt),
            output: before.output.max(now.output),
            cached: now.cached.or(before.cached),
        }),
        (before, now) => now.or(before),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dialect: Dialect, data: &str) -> Chunk {
        inspect(dialect, data.as_bytes()).unwrap_or_else(|e| panic!("{e}: {data}"))
    }

    #[test]
    fn a_response_commits_with_its_first_delta_and_ends_when_it_is_whole() {
        let created = r#"{"type":"response.created","response":{"id":"r","model":"llama","usage":null,"error":null}}"#;
        let chunk = read(Dialect::Responses, created);
        assert_eq!(chunk.model.map(|span| &created[span]), Some("\"llama\""));
        assert!(!chunk.content && chunk.finishes.is_empty() && chunk.error.is_none() && chunk.usage.is_none());
        assert!(read(Dialect::Responses, r#"{"type":"response.output_text.delta","delta":"a"}"#).content);
        assert!(!read(Dialect::Responses, r#"{"type":"response.output_item.added","item":{}}"#).content);
        let whole = read(
            Dialect::Responses,
            r#"{"type":"response.completed","response":{"model":"m","usage":{"input_tokens":7,"output_tokens":3,
               "input_tokens_details":{"cached_tokens":2}}}}"#,
        );
        assert_eq!(whole.usage, Some(Usage { prompt: 7, output: 3, cached: Some(2) }));
        assert_eq!(whole.finishes, [Finish::Stop]);
    }

    #[test]
    fn a_message_says_its_prompt_first_and_its_answer_last() {
        let start = read(
            Dialect::Messages,
            r#"{"type":"message_start","message":{"model":"m","usage":{"input_tokens":7,"output_tokens":1}}}"#,
        );
        assert!(!start.content && start.model.is_some());
        assert!(!read(Dialect::Messages, r#"{"type":"ping"}"#).content);
        assert!(read(Dialect::Messages, r#"{"type":"content_block_delta","delta":{"text":"a"}}"#).content);
        let delta = read(Dialect::Messages, r#"{"type":"message_delta","delta":{},"usage":{"output_tokens":9}}"#);
        let usage = joined(joined(None, start.usage), delta.usage);
        assert_eq!(usage, Some(Usage { prompt: 7, output: 9, cached: None }));
        assert_eq!(read(Dialect::Messages, r#"{"type":"message_stop"}"#).finishes, [Finish::Stop]);
    }

    #[test]
    fn a_failure_says_what_it_says() {
        let error = |dialect, data| read(dialect, data).error.map(|e| e.message);
        let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"busy"}}"#;
        assert_eq!(error(Dialect::Messages, overloaded).as_deref(), Some("busy"));
        let failed = r#"{"type":"response.failed","response":{"error":{"code":"server_error","message":"broke"}}}"#;
        assert_eq!(error(Dialect::Responses, failed).as_deref(), Some("broke"));
        assert!(inspect(Dialect::Responses, b"{\"type\":").is_err());
    }
}
