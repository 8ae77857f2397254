//! What the gateway needs to know of a request, and the two splices it makes in one.
//!
//! The body is scanned once for the spans of its members; only the members that routing, limits and accounting need
//! are decoded. The engine judges the rest: a gateway that is stricter than the engines behind it turns their features
//! into its own bugs. So numbers that this file only reads for an estimate (`max_tokens: -1` means "no limit" to
//! llama.cpp) are taken when they make sense and ignored when they do not, and only a value of another JSON type is a
//! fault.
//!
//! Edges: `null` counts as absent. `stream` of an embeddings request is checked and then ignored. The estimate counts
//! bytes, so an image sent inline as base64 is overestimated.

use std::ops::Range;

use bytes::Bytes;
use serde_json::Number;

use crate::json::{self, Limits, Member, Members};

/// Bytes of the prompt that the affinity hash reads.
pub const PREFIX_BYTES: usize = 1_024;

/// Bytes of JSON per token in the estimate: English in a BPE vocabulary of 100k and more has about four characters to
/// a token (OpenAI, "What are tokens and how to count them").
const BYTES_PER_TOKEN: usize = 4;

/// The endpoints whose bodies are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    Chat,
    Completions,
    Embeddings,
}

impl Endpoint {
    pub const ALL: [Self; 3] = [Self::Chat, Self::Completions, Self::Embeddings];

    /// The path below a base URL that ends in `/v1`.
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Completions => "/completions",
            Self::Embeddings => "/embeddings",
        }
    }

    /// The endpoint of a path, with or without `/v1` before it.
    pub fn from_path(path: &str) -> Option<Self> {
        let path = path.strip_prefix("/v1").unwrap_or(path);
        Self::ALL.into_iter().find(|endpoint| endpoint.path() == path)
    }

    /// The member that holds what the model reads.
    fn prompt_key(self) -> &'static str {
        match self {
            Self::Chat => "messages",
            Self::Completions => "prompt",
            Self::Embeddings => "input",
        }
    }
}

/// What is wrong with a request, as the client may see it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestFault {
    #[error("could not parse the body of the request: {0}")]
    Json(#[from] json::Fault),
    #[error("you must provide a model")]
    MissingModel,
    #[error("invalid type for '{param}': expected {expected}")]
    WrongType { param: &'static str, expected: &'static str },
    #[error("'{param}' could not be parsed: {fault}")]
    BadObject { param: &'static str, fault: json::Fault },
}

impl RequestFault {
    pub fn message(&self) -> String {
        self.to_string()
    }

    /// The parameter at fault, as in OpenAI's `error.param`.
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::Json(_) => None,
            Self::MissingModel => Some("model"),
            Self::WrongType { param, .. } | Self::BadObject { param, .. } => Some(param),
        }
    }

    /// OpenAI's `error.code`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Json(_) => "invalid_json",
            Self::MissingModel => "missing_required_parameter",
            Self::WrongType { .. } => "invalid_type",
            Self::BadObject { .. } => "invalid_value",
        }
    }
}

/// A request, as far as the gateway reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    pub endpoint: Endpoint,
    pub model: String,
    /// The model's value in the body, quotes included.
    pub model_span: Range<usize>,
    pub stream: bool,
    /// The client itself asked for the usage chunk.
    pub include_usage: bool,
    /// `max_completion_tokens`, else `max_tokens`.
    pub max_tokens: Option<u64>,
    pub user: Option<String>,
    /// Choices asked for.
    pub n: u64,
    /// Bytes of the prompt's JSON ÷ 4, rounded up.
    pub prompt_tokens_estimate: u64,
    /// FNV-1a of the first [`PREFIX_BYTES`] bytes of the prompt's JSON: the same for every gateway and every release.
    pub prefix_hash: u64,
    /// How to ask for the usage chunk; `None` when the client did, or does not stream.
    usage_splice: Option<Splice>,
}

/// A replacement of some bytes of the body.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Splice {
    span: Range<usize>,
    text: &'static str,
}

/// Reads a request's body.
pub fn parse(endpoint: Endpoint, body: &[u8], limits: &Limits) -> Result<RequestHead, RequestFault> {
    let members = json::members(body, limits)?;
    let (model, model_span) = model(&members)?;
    let stream = boolean(&members, "stream")? && endpoint != Endpoint::Embeddings;
    let usage = if stream { UsageAsk::read(&members, *limits)? } else { UsageAsk::default() };
    let prompt = members.get(endpoint.prompt_key()).map_or("", |member| members.value(member)).as_bytes();
    Ok(RequestHead {
        endpoint,
        model,
        model_span,
        stream,
        include_usage: usage.asked,
        max_tokens: match count(&members, "max_completion_tokens")? {
            None => count(&members, "max_tokens")?,
            asked => asked,
        },
        user: string(&members, "user")?,
        n: count(&members, "n")?.unwrap_or(1),
        prompt_tokens_estimate: prompt.len().div_ceil(BYTES_PER_TOKEN) as u64,
        prefix_hash: fnv1a(&prompt[..prompt.len().min(PREFIX_BYTES)]),
        usage_splice: usage.splice,
    })
}

impl RequestHead {
    /// The body as it goes to a backend: its name of the model, and the usage chunk asked for if `ask_usage`. Every
    /// other byte is the client's; when nothing changes, so are the bytes themselves.
    ///
    /// `body` must be the one that was parsed.
    pub fn rewrite(&self, body: &Bytes, model: &str, ask_usage: bool) -> Bytes {
        let usage = self.usage_splice.as_ref().filter(|_| ask_usage);
        let rename = model != self.model;
        if usage.is_none() && !rename {
            return body.clone();
        }
        let mut quoted = Vec::with_capacity(model.len() + 2);
        json::push_string(&mut quoted, model);
        let mut splices: Vec<(&Range<usize>, &[u8])> = Vec::with_capacity(2);
        if rename {
            splices.push((&self.model_span, &quoted));
        }
        if let Some(usage) = usage {
            splices.push((&usage.span, usage.text.as_bytes()));
        }
        splices.sort_unstable_by_key(|(span, _)| span.start);
        spliced(body, &splices).into()
    }
}

/// Applies replacements that are in order and do not overlap.
fn spliced(body: &[u8], splices: &[(&Range<usize>, &[u8])]) -> Vec<u8> {
    let added: usize = splices.iter().map(|(_, text)| text.len()).sum();
    let mut out = Vec::with_capacity(body.len() + added);
    let mut from = 0;
    for (span, text) in splices {
        out.extend_from_slice(&body[from..span.start]);
        out.extend_from_slice(text);
        from = span.end;
    }
    out.extend_from_slice(&body[from..]);
    out
}

/// Whether a streaming client asked for the usage chunk, and if not, what to change so that it comes.
#[derive(Default)]
struct UsageAsk {
    asked: bool,
    splice: Option<Splice>,
}

impl UsageAsk {
    fn read(members: &Members<'_>, limits: Limits) -> Result<Self, RequestFault> {
        const PARAM: &str = "stream_options";
        let Some(member) = members.get(PARAM) else {
            let end = members.iter().next_back().map_or(members.open() + 1, |last| last.value.end);
            return Ok(Self::change(end..end, ",\"stream_options\":{\"include_usage\":true}"));
        };
        let value = members.value(member);
        if value == "null" {
            return Ok(Self::change(member.value.clone(), "{\"include_usage\":true}"));
        }
        if !value.starts_with('{') {
            return Err(RequestFault::WrongType { param: PARAM, expected: "an object" });
        }
        let inside = json::members(value.as_bytes(), &limits)
            .map_err(|fault| RequestFault::BadObject { param: PARAM, fault })?;
        Self::in_object(&inside, member.value.start)
    }

    fn in_object(options: &Members<'_>, offset: usize) -> Result<Self, RequestFault> {
        let Some(member) = options.get("include_usage") else {
            let at = offset + options.open() + 1;
            let text = if options.is_empty() { "\"include_usage\":true" } else { "\"include_usage\":true," };
            return Ok(Self::change(at..at, text));
        };
        if boolean(options, "include_usage")
            .map_err(|_| RequestFault::WrongType { param: "stream_options.include_usage", expected: "a boolean" })?
        {
            return Ok(Self { asked: true, splice: None });
        }
        Ok(Self::change(offset + member.value.start..offset + member.value.end, "true"))
    }

    fn change(span: Range<usize>, text: &'static str) -> Self {
        Self { asked: false, splice: Some(Splice { span, text }) }
    }
}

fn model(members: &Members<'_>) -> Result<(String, Range<usize>), RequestFault> {
    let member = present(members, "model").ok_or(RequestFault::MissingModel)?;
    let name = string(members, "model")?.filter(|name| !name.is_empty()).ok_or(RequestFault::MissingModel)?;
    Ok((name, member.value.clone()))
}

/// A member that is there and not `null`.
fn present<'m>(members: &'m Members<'_>, name: &str) -> Option<&'m Member> {
    members.get(name).filter(|member| members.value(member) != "null")
}

fn string(members: &Members<'_>, param: &'static str) -> Result<Option<String>, RequestFault> {
    let Some(member) = present(members, param) else { return Ok(None) };
    let text = json::decode(members.value(member)).ok_or(RequestFault::WrongType { param, expected: "a string" })?;
    Ok(Some(text.into_owned()))
}

fn boolean(members: &Members<'_>, param: &'static str) -> Result<bool, RequestFault> {
    match present(members, param).map(|member| members.value(member)) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(RequestFault::WrongType { param, expected: "a boolean" }),
    }
}

/// A whole number that is not negative; other numbers are the engine's to judge.
fn count(members: &Members<'_>, param: &'static str) -> Result<Option<u64>, RequestFault> {
    let Some(member) = present(members, param) else { return Ok(None) };
    let value = members.value(member);
    if !value.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return Err(RequestFault::WrongType { param, expected: "an integer" });
    }
    let Ok(number) = serde_json::from_str::<Number>(value) else { return Ok(None) };
    let whole = number.as_f64().filter(|float| float.fract() == 0.0 && *float >= 0.0 && *float < 9e15);
    Ok(number.as_u64().or(whole.map(|float| float as u64)))
}

/// FNV-1a, 64 bits (draft-eastlake-fnv). Written out because the standard library's hashers promise no stable result.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values that draft-eastlake-fnv publishes.
    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
