//! One request over a connection of its own, and what its client saw.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use outrigger_gateway::net::BoxStream;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Asked;

pub(super) type Post = Request<Full<Bytes>>;

/// When a request began, in nanoseconds since the trace did: an engine's own book counts waits from there.
pub(super) const ARRIVED: &str = "x-trace-arrived";
/// A prompt of `n` tokens is this many bytes times `n`: the gateway's own estimate.
const BYTES_PER_TOKEN: usize = 4;

#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) backend: String,
    /// To the first byte of the answer's body, which the gateway holds back until there is content.
    pub(super) ttft: Option<Duration>,
    /// To the end of the answer, or to the fault.
    pub(super) took: Duration,
    /// `None` for an answer that came to its end in order.
    pub(super) fault: Option<String>,
}

/// Streams one answer. Times count from `began`, before the connection was opened.
pub(super) async fn ask(stream: BoxStream, request: Post, began: Instant) -> Seen {
    let mut seen = Seen { backend: String::new(), ttft: None, took: Duration::ZERO, fault: None };
    seen.fault = exchange(stream, request, began, &mut seen).await.err();
    seen.took = began.elapsed();
    seen
}

async fn exchange(stream: BoxStream, request: Post, began: Instant, seen: &mut Seen) -> Result<(), String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    if let Some(name) = response.headers().get("x-outrigger-backend").and_then(|v| v.to_str().ok()) {
        name.clone_into(&mut seen.backend);
    }
    let status = response.status();
    let mut body = response.into_body();
    let mut last = Bytes::new();
    while let Some(frame) = body.frame().await {
        let data = frame.map_err(|e| e.to_string())?.into_data().unwrap_or_default();
        if seen.ttft.is_none() && status.is_success() {
            seen.ttft = Some(began.elapsed());
        }
        if !data.is_empty() {
            last = data;
        }
    }
    let text = String::from_utf8_lossy(&last);
    if status.is_success() && text.trim_end().ends_with("data: [DONE]") {
        return Ok(());
    }
    Err(format!("status {status}, the last words were {:?}", text.chars().take(300).collect::<String>()))
}

/// A conversation of one message, as long as the gateway takes it to be.
pub(super) fn chat(model: &str, asked: Asked) -> Post {
    let messages = json!([{ "role": "user", "content": "x".repeat(asked.prompt as usize * BYTES_PER_TOKEN) }]);
    let body = json!({ "model": model, "messages": messages, "stream": true, "max_tokens": asked.output });
    post("/v1/chat/completions", &body, asked)
}

pub(super) fn post(path: &'static str, body: &Value, asked: Asked) -> Post {
    let mut request = Request::new(Full::new(Bytes::from(body.to_string())));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static(path);
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_static("gateway"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ARRIVED, HeaderValue::from(asked.at.as_nanos() as u64));
    request
}
