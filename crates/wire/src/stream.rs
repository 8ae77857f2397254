//! What one event of a streamed answer means: content, finish, usage, error.
//!
//! The gateway asks three things of an event: does it commit the answer (the first content, not the 200 before it,
//! since vLLM answers 200 before it has done any work), has the answer ended well (a finish reason that is one;
//! `[DONE]` proves nothing, vLLM sends it after an error too), and what did it cost. [`inspect`] reads the whole event
//! for that. After the commit almost every event is one token with none of these, and [`inspect_committed`] tells by
//! substring search that there is nothing to read. It never guesses: a key it looks for cannot hide (a quote inside a
//! JSON string is always escaped, and an event with `\u00` escapes, the only other way to spell a letter, is read in
//! full), and what it finds only decides between "nothing" and the full reading.
//!
//! Edges: an empty `finish_reason` counts as none, because some engines send it with every token. A usage that cannot
//! be read is no usage rather than a broken stream.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memchr2;
use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::endpoint::{Dialect, Endpoint};
use crate::error::UpstreamError;
use crate::json;
use crate::sse::Event;
use crate::typed;

/// Why a choice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Finish {
    Stop,
    Length,
    ToolCalls,
    ContentFilter,
    /// vLLM and SGLang on shutdown: the answer was cut.
    Abort,
    Error,
    /// A reason that no engine in the references gives.
    Other,
}

impl Finish {
    /// From the wire; TGI has its own words for a stop.
    pub fn from_reason(reason: &str) -> Self {
        match reason {
            "stop" | "eos_token" | "stop_sequence" => Self::Stop,
            "length" => Self::Length,
            "tool_calls" | "function_call" => Self::ToolCalls,
            "content_filter" => Self::ContentFilter,
            "abort" => Self::Abort,
            "error" => Self::Error,
            _ => Self::Other,
        }
    }

    /// The answer is whole, as far as the engine says.
    pub fn is_complete(self) -> bool {
        !matches!(self, Self::Abort | Self::Error)
    }
}

/// Tokens, as the engine counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub prompt: u64,
    pub output: u64,
    /// Prompt tokens served from the prefix cache; `None` where the engine does not say (vLLM does only with
    /// `--enable-prompt-tokens-details`).
    pub cached: Option<u64>,
}

/// What one event says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chunk {
    /// It is `[DONE]`.
    pub done: bool,
    /// A choice carries text, reasoning, a refusal, a tool call, audio, or a finish reason.
    pub content: bool,
    /// The finish reasons of the choices that end here.
    pub finishes: Vec<Finish>,
    /// A message says why it stops. One that ends without having said so was aborted.
    pub stop_reason: bool,
    pub usage: Option<Usage>,
    /// It has no choices and carries a usage: the chunk that `stream_options.include_usage` asks for.
    pub usage_only: bool,
    pub error: Option<UpstreamError>,
    /// The value of the outermost `model` in the payload, quotes included, if it is a string.
    pub model: Option<Range<usize>>,
}

/// An event that is not what an engine sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkFault {
    #[error("the backend sent a malformed event: {0}")]
    Malformed(json::Fault),
}

/// Reads an event's payload.
pub fn inspect(endpoint: Endpoint, data: &[u8]) -> Result<Chunk, ChunkFault> {
    let trimmed = data.trim_ascii();
    if trimmed == b"[DONE]" {
        return Ok(Chunk { done: true, ..Chunk::default() });
    }
    if endpoint.dialect() != Dialect::Choices {
        return typed::inspect(endpoint.dialect(), data);
    }
    let answer = Answer::read(data).map_err(ChunkFault::Malformed)?;
    let choices = answer.choices.as_deref().unwrap_or_default();
    let usage = answer.usage();
    Ok(Chunk {
        done: false,
        content: choices.iter().any(|choice| choice.has_content(endpoint)),
        finishes: answer.finishes(),
        stop_reason: false,
        usage,
        usage_only: choices.is_empty() && usage.is_some(),
        error: answer.error(data),
        model: answer.model_span(data),
    })
}

/// Reads an event's payload after the commit: as [`inspect`], except that `content` is true for every event that the
/// short way reads, and that what is malformed between the outermost braces may go unnoticed.
pub fn inspect_committed(endpoint: Endpoint, data: &[u8]) -> Result<Chunk, ChunkFault> {
    match Some(data).filter(|_| endpoint.dialect() == Dialect::Choices).and_then(plain_token) {
        Some(chunk) => Ok(chunk),
        None => inspect(endpoint, data),
    }
}

/// The event with `name` as its model; the same bytes if that is its name already, or it has none.
///
/// `chunk` must be what was read from this event.
pub fn with_model(event: &Event, chunk: &Chunk, name: &str) -> Bytes {
    let (Some(span), Some(data)) = (&chunk.model, &event.data) else { return event.raw.clone() };
    if is_name(&data[span.clone()], name) {
        return event.raw.clone();
    }
    match event.raw_span(span) {
        Some(span) => json::splice_string(&event.raw, &span, name).into(),
        None => event.raw.clone(),
    }
}

/// `raw` with the bytes of `span` replaced by `with`, as it is.
pub fn replace_span(raw: &Bytes, span: Range<usize>, with: &str) -> Bytes {
    if &raw[span.clone()] == with.as_bytes() {
        return raw.clone();
    }
    [&raw[..span.start], with.as_bytes(), &raw[span.end..]].concat().into()
}

/// Whether a JSON string's text is `name`.
pub(crate) fn is_name(value: &[u8], name: &str) -> bool {
    std::str::from_utf8(value).ok().and_then(json::decode).is_some_and(|text| text == name)
}

static FINISH: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"finish_reason\""));
static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"usage\""));
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"error\""));
static MODEL: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"model\""));
static ESCAPED_ASCII: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\\u00"));

/// The chunk, if the event certainly has no finish, usage or error; `None` if it must be read in full.
fn plain_token(data: &[u8]) -> Option<Chunk> {
    let object = data.trim_ascii();
    if !(object.starts_with(b"{") && object.ends_with(b"}")) {
        return None;
    }
    let plain = ERROR.find(object).is_none()
        && only_null(&FINISH, object)
        && only_null(&USAGE, object)
        && ESCAPED_ASCII.find(object).is_none();
    if !plain {
        return None;
    }
    let mut chunk = Chunk { content: true, ..Chunk::default() };
    if let Some(key) = MODEL.find(object) {
        let offset = data.len() - data.trim_ascii_start().len();
        let value = outer_string(object, key, MODEL.needle().len())?;
        chunk.model = Some(offset + value.start..offset + value.end);
    }
    Some(chunk)
}

/// Every occurrence of the key has the value `null`.
fn only_null(key: &Finder<'_>, object: &[u8]) -> bool {
    key.find_iter(object).all(|at| {
        value_after(object, at + key.needle().len()).is_some_and(|value| object[value..].starts_with(b"null"))
    })
}

/// Where the value starts whose key ends at `at`; `None` if no colon follows.
fn value_after(object: &[u8], at: usize) -> Option<usize> {
    let colon = skip_space(object, at);
    (object.get(colon) == Some(&b':')).then(|| skip_space(object, colon + 1))
}

fn skip_space(object: &[u8], at: usize) -> usize {
    object[at..].iter().position(|byte| !json::is_space(*byte)).map_or(object.len(), |found| at + found)
}

/// The string that belongs to the key at `key`, if that key is certainly one of the outermost object: nothing opens
/// between the object's start and the key, or nothing closes between the value and the object's end.
fn outer_string(object: &[u8], key: usize, key_len: usize) -> Option<Range<usize>> {
    let start = value_after(object, key + key_len)?;
    if object[start] != b'"' || object[key - 1] == b'\\' {
        return None;
    }
    let end = start + 1 + memchr2(b'"', b'\\', &object[start + 1..])?;
    let rest = &object[end..object.len() - 1];
    let first_level = memchr2(b'{', b'[', &object[1..key]).is_none() || memchr2(b'}', b']', rest).is_none();
    (object[end] == b'"' && first_level).then_some(start..end + 1)
}

/// The parts of an answer, whole or a chunk of one, that the gateway reads.
#[derive(Deserialize)]
pub(crate) struct Answer<'a> {
    #[serde(borrow, default)]
    model: Option<&'a RawValue>,
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    /// `"error"` in the flat shape of older vLLM and SGLang.
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
    /// `"message"` in Anthropic's dialect.
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
    /// Of a message.
    #[serde(borrow, default)]
    stop_reason: Option<&'a RawValue>,
    /// Of a response.
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
}

impl<'a> Answer<'a> {
    pub(crate) fn read(data: &'a [u8]) -> Result<Self, json::Fault> {
        let start = data.iter().position(|byte| !json::is_space(*byte)).unwrap_or(data.len());
        if data.get(start).is_some_and(|byte| *byte != b'{') {
            return Err(json::Fault::NotAnObject { offset: start });
        }
        serde_json::from_slice(data).map_err(|error| json::fault(data, &error))
    }

    pub(crate) fn usage(&self) -> Option<Usage> {
        self.usage.and_then(|usage| serde_json::from_str::<UsageIn>(usage.get()).ok()).map(UsageIn::into_usage)
    }

    pub(crate) fn finishes(&self) -> Vec<Finish> {
        let is = |value: Option<&RawValue>, text: &str| value.is_some_and(|value| value.get() == text);
        if is(self.kind, "\"message\"") {
            return vec![if filled(self.stop_reason) { Finish::Stop } else { Finish::Abort }];
        }
        if is(self.object, "\"response\"") && self.status.is_some_and(|status| typed::is_aborted(status.get())) {
            return vec![Finish::Abort];
        }
        let choices = self.choices.as_deref().unwrap_or_default();
        choices.iter().filter_map(Choice::finish).map(Finish::from_reason).collect()
    }

    pub(crate) fn error(&self, data: &[u8]) -> Option<UpstreamError> {
        let flat = self.object.is_some_and(|object| object.get() == "\"error\"");
        (flat || self.error.is_some_and(|error| filled(Some(error)))).then(|| UpstreamError::read(None, data))
    }

    pub(crate) fn model_span(&self, data: &[u8]) -> Option<Range<usize>> {
        let model = self.model?.get();
        model.starts_with('"').then(|| json::span_in(data, model))
    }

    pub(crate) fn model(&self) -> Option<Cow<'a, str>> {
        self.model.and_then(|model| json::decode(model.get()))
    }
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(default)]
    finish_reason: Option<String>,
}

impl Choice<'_> {
    fn finish(&self) -> Option<&str> {
        self.finish_reason.as_deref().filter(|reason| !reason.is_empty())
    }

    fn has_content(&self, endpoint: Endpoint) -> bool {
        self.finish().is_some()
            || match endpoint {
                Endpoint::Completions => filled(self.text),
                _ => self.delta.as_ref().is_some_and(Delta::has_content),
            }
    }
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<&'a RawValue>,
    #[serde(borrow, default)]
    function_call: Option<&'a RawValue>,
    #[serde(borrow, default)]
    audio: Option<&'a RawValue>,
}

impl Delta<'_> {
    fn has_content(&self) -> bool {
        let parts = [
            self.content,
            self.reasoning,
            self.reasoning_content,
            self.refusal,
            self.tool_calls,
            self.function_call,
            self.audio,
        ];
        parts.into_iter().any(filled)
    }
}

/// A value that is there and neither `null` nor an empty string, array or object.
fn filled(value: Option<&RawValue>) -> bool {
    value.is_some_and(|value| match value.get().as_bytes() {
        b"null" | b"\"\"" => false,
        [b'[' | b'{', inner @ .., _] => !inner.trim_ascii().is_empty(),
        _ => true,
    })
}

/// Tokens under the names that the dialects have for them. Some servers give two of them at once.
#[derive(Deserialize)]
pub(crate) struct UsageIn {
    prompt_tokens: Option<u64>,
    input_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    output_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    input_tokens_details: Option<PromptDetails>,
    /// DeepSeek's name for the cached part.
    prompt_cache_hit_tokens: Option<u64>,
    /// Anthropic counts these apart from `input_tokens`.
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

impl UsageIn {
    pub(crate) fn into_usage(self) -> Usage {
        let apart = self.cache_read_input_tokens.unwrap_or(0) + self.cache_creation_input_tokens.unwrap_or(0);
        let details = self.prompt_tokens_details.or(self.input_tokens_details);
        Usage {
            prompt: self.prompt_tokens.or(self.input_tokens.map(|tokens| tokens + apart)).unwrap_or(0),
            output: self.completion_tokens.or(self.output_tokens).unwrap_or(0),
            cached: (details.and_then(|details| details.cached_tokens))
                .or(self.prompt_cache_hit_tokens)
                .or(self.cache_read_input_tokens),
        }
    }
}
