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

use crate::{
    endpoint::{Dialect, Endpoint, Form},
    json::{self, Limits, Member, Members},
    multipart::{self, MultipartFault},
};

/// Bytes of the prompt that the affinity hash reads.
pub const PREFIX_BYTES: usize = 1_024;

/// Up to this size one copy costs less than a body in several pieces.
const JOINED_BYTES: usize = 64 << 10;

/// Bytes of JSON per token in the estimate: English in a BPE vocabulary of 100k and more has about four characters to
/// a token (OpenAI, "What are tokens and how to count them").
const BYTES_PER_TOKEN: usize = 4;

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
    #[error("could not read the form in the body of the request: {0}")]
    Multipart(#[from] MultipartFault),
}

impl RequestFault {
    pub fn message(&self) -> String {
        self.to_string()
    }

    /// The parameter at fault, as in OpenAI's `error.param`.
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::Json(_) | Self::Multipart(_) => None,
            Self::MissingModel => Some("model"),
            Self::WrongType { param, .. } | Self::BadObject { param, .. } => Some(param),
        }
    }

    /// OpenAI's `error.code`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Json(_) => "invalid_json",
            Self::Multipart(_) => "invalid_form",
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
    /// The model's value in the body, quotes included where it has any.
    pub model_span: Range<usize>,
    pub stream: bool,
    /// The parameter that refers to something which one backend keeps, so that no other can serve the request.
    pub refers_by: Option<&'static str>,
    /// The client itself asked for the usage chunk.
    pub include_usage: bool,
    /// The client's own bound on the answer.
    pub max_tokens: Option<u64>,
    pub user: Option<String>,
    /// Choices asked for.
    pub n: u64,
    /// Bytes of the prompt's JSON ÷ 4, rounded up.
    pub prompt_tokens_estimate: u64,
    /// The prompt's JSON in the body; empty where there is none.
    prompt: Range<usize>,
    /// How to ask for the usage chunk; `None` when the client did, or does not stream.
    usage_splice: Option<Splice>,
}

/// A replacement of some bytes of the body.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Splice {
    span: Range<usize>,
    text: &'static str,
}

/// Reads a JSON body.
pub fn parse(endpoint: Endpoint, body: &[u8], limits: &Limits) -> Result<RequestHead, RequestFault> {
    let members = json::members(body, limits)?;
    let (model, model_span) = model(&members)?;
    let stream = boolean(&members, "stream")? && endpoint.streams();
    // The other dialects send their usage unasked.
    let asks = stream && endpoint.dialect() == Dialect::Choices;
    let usage = if asks { UsageAsk::read(&members, *limits)? } else { UsageAsk::default() };
    let prompt = members.get(endpoint.prompt_key()).map_or(0..0, |member| member.value.clone());
    Ok(RequestHead {
        endpoint,
        model,
        model_span,
        stream,
        refers_by: refers_by(endpoint, &members),
        include_usage: usage.asked || !asks,
        max_tokens: first_count(&members, endpoint.bounds())?,
        user: string(&members, "user")?,
        n: count(&members, "n")?.unwrap_or(1),
        prompt_tokens_estimate: prompt.len().div_ceil(BYTES_PER_TOKEN) as u64,
        prompt,
        usage_splice: usage.splice,
    })
}

/// Reads a form: `content_type` is the header that says where its parts end.
pub fn parse_form(endpoint: Endpoint, body: &[u8], content_type: &str) -> Result<RequestHead, RequestFault> {
    let model_span = multipart::field(body, content_type, "model")?.ok_or(RequestFault::MissingModel)?;
    let model = std::str::from_utf8(&body[model_span.clone()]).unwrap_or_default().to_owned();
    if model.is_empty() {
        return Err(RequestFault::MissingModel);
    }
    Ok(RequestHead {
        endpoint,
        model,
        model_span,
        stream: false,
        refers_by: None,
        include_usage: true,
        max_tokens: None,
        user: None,
        n: 1,
        // Of a recording or a picture, nothing is known before it is heard or seen.
        prompt_tokens_estimate: 0,
        prompt: 0..0,
        usage_splice: None,
    })
}

/// What a backend keeps between requests is known to that backend alone.
fn refers_by(endpoint: Endpoint, members: &Members<'_>) -> Option<&'static str> {
    let keeps = ["previous_response_id", "conversation"];
    keeps.into_iter().find(|name| endpoint == Endpoint::Responses && present(members, name).is_some())
}

/// The first of these counts that is given.
fn first_count(members: &Members<'_>, names: &[&'static str]) -> Result<Option<u64>, RequestFault> {
    for name in names {
        if let Some(given) = count(members, name)? {
            return Ok(Some(given));
        }
    }
    Ok(None)
}

impl RequestHead {
    /// FNV-1a of the first [`PREFIX_BYTES`] bytes of the prompt's JSON: the same for every gateway and every release.
    ///
    /// `body` must be the one that was parsed.
    pub fn prefix_hash(&self, body: &[u8]) -> u64 {
        let Range { start, end } = self.prompt;
        fnv1a(&body[start..end.min(start + PREFIX_BYTES)])
    }

    /// The body as it goes to a backend, in pieces: its name of the model, and the usage chunk asked for if `ask_usage`.
    /// Every other byte is the client's; when nothing changes, so are the bytes themselves, and a large body is never
    /// copied.
    ///
    /// `body` must be the one that was parsed.
    pub fn rewrite(&self, body: &Bytes, model: &str, ask_usage: bool) -> Vec<Bytes> {
        let usage = self.usage_splice.as_ref().filter(|_| ask_usage);
        let rename = model != self.model;
        if usage.is_none() && !rename {
            return vec![body.clone()];
        }
        let mut quoted = Vec::with_capacity(model.len() + 2);
        match self.endpoint.form() {
            Form::Json => json::push_string(&mut quoted, model),
            Form::Multipart => quoted.extend_from_slice(model.as_bytes()),
        }
        let mut splices: Vec<(Range<usize>, Bytes)> = Vec::with_capacity(2);
        if rename {
            splices.push((self.model_span.clone(), quoted.into()));
        }
        if let Some(usage) = usage {
            splices.push((usage.span.clone(), Bytes::from_static(usage.text.as_bytes())));
        }
        splices.sort_unstable_by_key(|(span, _)| span.start);
        if body.len() <= JOINED_BYTES {
            return vec![json::spliced(body, &splices).into()];
        }
        pieces(body, splices)
    }
}

/// Like [`json::spliced`], without copying.
fn pieces(body: &Bytes, splices: Vec<(Range<usize>, Bytes)>) -> Vec<Bytes> {
    let mut pieces = Vec::with_capacity(2 * splices.len() + 1);
    let mut from = 0;
    for (span, text) in splices {
        pieces.extend([body.slice(from..span.start), text]);
        from = span.end;
    }
    pieces.push(body.slice(from..));
    pieces
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
    if let Ok(plain) = value.parse() {
        return Ok(Some(plain));
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
