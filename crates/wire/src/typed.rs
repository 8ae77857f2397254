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
    /// A string of a response, an object of a message.
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
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
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
}

/// The end of a message.
#[derive(Deserialize)]
struct Stopping<'a> {
    #[serde(borrow, default)]
    stop_reason: Option<&'a RawValue>,
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
    let is_aborted = carried.as_ref().and_then(|c| c.status).is_some_and(|status| is_aborted(status.get()));
    let stop_reason = event.kind == "message_delta" && event.delta.is_some_and(|delta| has_stop_reason(delta.get()));
    let finish = if is_aborted { Finish::Abort } else { Finish::Stop };
    Ok(Chunk {
        done: false,
        content: stop_reason || matches!(meaning, Meaning::Content | Meaning::Last),
        finishes: if meaning == Meaning::Last { vec![finish] } else { Vec::new() },
        stop_reason,
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
        (Dialect::Messages, "content_block_delta") => Meaning::Content,
        _ => Meaning::Other,
    }
}

/// Whether a response of this status, as it stands in the JSON, was cut by the engine.
pub(crate) fn is_aborted(status: &str) -> bool {
    matches!(status, "\"cancelled\"" | "\"failed\"")
}

fn has_stop_reason(delta: &str) -> bool {
    serde_json::from_str::<Stopping<'_>>(delta).is_ok_and(|delta| delta.stop_reason.is_some())
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
    fn an_answer_that_the_engine_aborted_does_not_end_as_a_whole_one() {
        let cancelled = r#"{"type":"response.completed","response":{"status":"cancelled"}}"#;
        assert_eq!(read(Dialect::Responses, cancelled).finishes, [Finish::Abort]);
        let short = r#"{"type":"response.incomplete","response":{"status":"incomplete"}}"#;
        assert_eq!(read(Dialect::Responses, short).finishes, [Finish::Stop]);
        let delta = |delta: &str| read(Dialect::Messages, &format!(r#"{{"type":"message_delta","delta":{delta}}}"#));
        assert!(delta(r#"{"stop_reason":"end_turn","stop_sequence":null}"#).stop_reason);
        for aborted in [r"{}", r#"{"stop_reason":null}"#] {
            let chunk = delta(aborted);
            assert!(!chunk.stop_reason && !chunk.content, "{aborted}");
        }
    }

    #[test]
    fn a_failure_says_what_it_says() {
        let error = |dialect, data| read(dialect, data).error.map(|e| e.message);
        let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"busy"}}"#;
        assert_eq!(error(Dialect::Messages, overloaded).as_deref(), Some("busy"));
        let failed = r#"{"type":"response.failed","response":{"error":{"code":"server_error","message":"broke"}}}"#;
        assert_eq!(error(Dialect::Responses, failed).as_deref(), Some("broke"));
        assert!(inspect(Dialect::Responses, b"{\"type\":").is_err());
        let status = |dialect, data| read(dialect, data).error.and_then(|e| e.status);
        assert_eq!(status(Dialect::Messages, overloaded), Some(529));
        assert_eq!(status(Dialect::Responses, failed), Some(500));
        let wrong = r#"{"type":"error","error":{"type":"invalid_request_error","message":"no"}}"#;
        assert_eq!(status(Dialect::Messages, wrong), Some(400));
    }
}
