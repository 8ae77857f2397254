//! Requests as LiteLLM's proxy takes them, for clients that are not changed when the gateway behind them is.
//!
//! A request is turned into an ordinary one where it comes in, first its head and then its body, and nothing after that
//! knows that it was another: no second set of endpoints, no second way to read a key. Paths without `/v1` and those
//! with the model in them become `/v1/…`; LiteLLM's health endpoints become ours; its headers for the key and the
//! session become the usual ones. The body loses what was meant for LiteLLM ([`outrigger_wire::litellm`]).
//!
//! `mock_response` is answered here, as LiteLLM does, since whoever sends it expects that no engine is asked.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use outrigger_wire::{endpoint::Endpoint, json, litellm};
use serde_json::{Value, json};

use crate::{
    body::Answer,
    intake::{self, Held},
    reply,
};

/// Whose clients are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    #[default]
    OpenAi,
    /// OpenAI's and LiteLLM's.
    LiteLlm,
}

/// Marks a request that came as LiteLLM takes them, with the model that its path named.
#[derive(Clone, Debug)]
pub struct Translated {
    model: Option<String>,
}

const KEY: HeaderName = HeaderName::from_static("x-litellm-api-key");
const SESSION: HeaderName = HeaderName::from_static("x-session-id");

/// Turns the head of a request into an ordinary one.
pub fn translate(request: &mut Request<Incoming>) {
    let (path, model) = route(request.uri().path());
    if let Some(uri) = path.and_then(|path| path.parse::<Uri>().ok()) {
        *request.uri_mut() = uri;
    }
    translate_headers(request.headers_mut());
    request.extensions_mut().insert(Translated { model });
}

/// The ordinary path, where it is another one, and the model that this one names.
fn route(path: &str) -> (Option<String>, Option<String>) {
    match path {
        "/health/liveliness" | "/health/liveness" => return (Some("/healthz".to_owned()), None),
        "/health/readiness" => return (Some("/readyz".to_owned()), None),
        _ => {}
    }
    let named = path.strip_prefix("/engines/").or_else(|| path.strip_prefix("/openai/deployments/"));
    let with_model = named.and_then(|rest| Endpoint::ALL.iter().find_map(|e| Some((e, rest.strip_suffix(e.path())?))));
    // `x/chat/completions` ends in `/completions` too; chat is asked first.
    if let Some((endpoint, model)) = with_model.filter(|(_, model)| !model.is_empty()) {
        return (Some(format!("/v1{}", endpoint.path())), Some(percent_decoded(model)));
    }
    let is_bare = !path.starts_with("/v1/")
        && (Endpoint::from_path(path).is_some() || path == "/models" || path.starts_with("/models/"));
    (is_bare.then(|| format!("/v1{path}")), None)
}

fn translate_headers(headers: &mut HeaderMap) {
    if let Some(key) = headers.remove(KEY) {
        let key = key.as_bytes();
        let key = key.strip_prefix(b"Bearer ").unwrap_or(key);
        if let Ok(value) = HeaderValue::from_bytes(&[b"Bearer ", key].concat()) {
            headers.insert(header::AUTHORIZATION, value);
        }
    }
    let session = headers.get("x-litellm-session-id").or_else(|| headers.get("x-litellm-trace-id")).cloned();
    if let (Some(session), false) = (session, headers.contains_key(SESSION)) {
        headers.insert(SESSION, session);
    }
}

/// `%2F` and the like as the bytes that they stand for; what is not UTF-8 then is no model's name anyway.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|hex| first == b'%' && hex.iter().all(u8::is_ascii_hexdigit));
        match hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Turns the body of a translated request into an ordinary one; the answer that it asks for, if it brings its own.
pub fn translate_body(translated: &Translated, headers: &mut HeaderMap, held: &mut Held) -> Option<String> {
    let limits = json::Limits { max_depth: intake::MAX_DEPTH };
    let adapted = litellm::adapt(&held.bytes, translated.model.as_deref(), &limits);
    held.bytes = adapted.body;
    let session = adapted.session.and_then(|session| HeaderValue::from_str(&session).ok());
    if let (Some(session), false) = (session, headers.contains_key(SESSION)) {
        headers.insert(SESSION, session);
    }
    adapted.mock
}

/// What LiteLLM answers to `mock_response`: the text, and usage that is made up as well.
pub fn mocked(endpoint: Endpoint, model: &str, stream: bool, text: &str, request_id: &str) -> Response<Answer> {
    let (object, mut choice) = match (endpoint, stream) {
        (Endpoint::Chat, true) => {
            ("chat.completion.chunk", json!({ "delta": { "role": "assistant", "content": text } }))
        }
        (Endpoint::Chat, false) => ("chat.completion", json!({ "message": { "role": "assistant", "content": text } })),
        _ => ("text_completion", json!({ "text": text })),
    };
    choice["index"] = json!(0);
    choice["finish_reason"] = json!("stop");
    let mut answer = json!({ "id": request_id, "object": object, "created": 0, "model": model, "choices": [choice] });
    if stream {
        return events(&answer, request_id);
    }
    answer["usage"] = json!({ "prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30 });
    reply::json(StatusCode::OK, Bytes::from(answer.to_string()), request_id)
}

fn events(chunk: &Value, request_id: &str) -> Response<Answer> {
    let mut response =
        reply::json(StatusCode::OK, Bytes::from(format!("data: {chunk}\n\ndata: [DONE]\n\n")), request_id);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expect: Option<&str>, model: Option<&str>) {
        assert_eq!(route(path), (expect.map(str::to_owned), model.map(str::to_owned)), "{path}");
    }

    #[test]
    fn every_path_of_litellm_becomes_one_of_ours() {
        check("/v1/chat/completions", None, None);
        check("/chat/completions", Some("/v1/chat/completions"), None);
        check("/embeddings", Some("/v1/embeddings"), None);
        check("/models", Some("/v1/models"), None);
        check("/models/a/b", Some("/v1/models/a/b"), None);
        check("/engines/a/b/chat/completions", Some("/v1/chat/completions"), Some("a/b"));
        check("/engines/a/completions", Some("/v1/completions"), Some("a"));
        check("/openai/deployments/a%2Fb/embeddings", Some("/v1/embeddings"), Some("a/b"));
        check("/health/liveliness", Some("/healthz"), None);
        check("/health/readiness", Some("/readyz"), None);
        check("/engines//chat/completions", None, None);
        check("/key/generate", None, None);
    }

    #[test]
    fn litellms_headers_become_the_usual_ones() {
        let mut headers = HeaderMap::new();
        headers.insert(KEY, HeaderValue::from_static("Bearer sk-1"));
        headers.insert("x-litellm-session-id", HeaderValue::from_static("s"));
        translate_headers(&mut headers);
        assert_eq!(headers[header::AUTHORIZATION], "Bearer sk-1");
        assert_eq!(headers[SESSION], "s");
        assert!(!headers.contains_key(KEY));
    }

    #[test]
    fn a_percent_that_encodes_nothing_stays() {
        assert_eq!(percent_decoded("a%2"), "a%2");
        assert_eq!(percent_decoded("%zz%41"), "%zzA");
        assert_eq!(percent_decoded("%+1"), "%+1");
    }
}
