//! One request from connect to verdict, over a small keep-alive pool of its own.
//!
//! No client library: it would retry, follow and hide, and the question is what one request met. A pooled connection
//! that the server closed while idle is not the server's fault, so a request that was never sent gets a new
//! connection; nothing else is ever repeated.

use std::{
    io,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    LoadOptions, Objective, authority,
    book::{LoadStats, Observed, Verdict},
    header as parse_header, invalid,
    verify::{Reading, head},
};

/// Shorter than the idle time-out of any server it talks to.
const IDLE: Duration = Duration::from_secs(2);
/// How long a connection may take to be ready again after an answer; not ready, it is not reused.
const SETTLE: Duration = Duration::from_millis(50);
const KEPT_IDLE: usize = 1024;
const BODY_HEAD: usize = 400;

type Sender = SendRequest<Full<Bytes>>;

#[derive(Debug)]
pub(super) struct Client {
    address: SocketAddr,
    authority: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    model: String,
    max_tokens: Option<u32>,
    prompt_bytes: usize,
    include_usage: bool,
    timeout: Duration,
    objective: Option<Objective>,
    idle: Mutex<Vec<(Sender, Instant)>>,
}

/// What is known of a request so far; on a time-out it is all there is.
#[derive(Debug, Default)]
struct Progress {
    status: Option<StatusCode>,
    headers: HeaderMap,
    reading: Reading,
    first_content: Option<Instant>,
    body: String,
}

impl Client {
    pub(super) fn new(options: &LoadOptions) -> io::Result<Self> {
        let mut headers = vec![parse_header("content-type", "application/json")?];
        if let Some(key) = &options.api_key {
            headers.push(parse_header("authorization", &format!("Bearer {key}"))?);
        }
        for (name, value) in &options.headers {
            headers.push(parse_header(name, value)?);
        }
        let authority = authority(&options.url)?;
        // Names are not looked up: the C library of a static binary, which this is a part of, cannot.
        let numbers = authority.replacen("localhost:", "127.0.0.1:", 1);
        let address = numbers.parse().map_err(|_| invalid("a URL whose host is a name and not an address"))?;
        Ok(Self {
            address,
            authority,
            headers,
            model: options.model.clone(),
            max_tokens: options.max_tokens,
            prompt_bytes: options.prompt_bytes,
            include_usage: options.include_usage,
            timeout: options.timeout,
            objective: options.objective,
            idle: Mutex::default(),
        })
    }

    /// Its times count from `start`, which may lie before the call.
    pub(super) async fn request(&self, number: u64, stream: bool, start: Instant, stats: &LoadStats) {
        stats.started();
        let mut progress = Progress::default();
        let attempt = timeout(self.timeout, self.attempt(number, stream, &mut progress)).await;
        let verdict = attempt.unwrap_or_else(|_| Verdict::Failed(format!("no end after {:?}", self.timeout)));
        let text = |name| progress.headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).map(str::to_owned);
        let (ttft, duration, tokens) =
            (progress.first_content.map(|at| at - start), start.elapsed(), progress.reading.tokens());
        stats.ended(Observed {
            good: self.objective.is_none_or(|objective| objective.is_met(ttft, duration, tokens)),
            number,
            stream,
            verdict,
            status: progress.status.map(|s| s.as_u16()),
            backend: text("x-outrigger-backend"),
            substituted: text("x-outrigger-substituted").is_some_and(|v| v != "false" && v != "0"),
            tokens,
            ttft,
            duration,
            body: progress.body,
        });
    }

    async fn attempt(&self, number: u64, stream: bool, progress: &mut Progress) -> Verdict {
        let (mut sender, response) = match self.send(self.build(number, stream)).await {
            Ok(sent) => sent,
            Err(why) => return Verdict::Failed(why),
        };
        progress.status = Some(response.status());
        progress.headers = response.headers().clone();
        let verdict = match (response.status(), stream) {
            (StatusCode::OK, true) => self.read_stream(response.into_body(), progress).await,
            (StatusCode::OK, false) => self.read_whole(response.into_body(), progress).await,
            (status, _) => read_error(status, response.into_body(), progress).await,
        };
        if let Ok(Ok(())) = timeout(SETTLE, sender.ready()).await {
            self.put_back(sender);
        }
        verdict
    }

    async fn read_stream(&self, mut body: Incoming, progress: &mut Progress) -> Verdict {
        let mut broken = None;
        while let Some(frame) = body.frame().await {
            let fed = match &frame {
                Err(e) => Err(format!("the stream broke: {}", chain(e))),
                Ok(frame) => frame.data_ref().map_or(Ok(()), |bytes| progress.reading.feed(bytes)),
            };
            if progress.first_content.is_none() && !progress.reading.text.is_empty() {
                progress.first_content = Some(Instant::now());
            }
            if let Err(why) = fed {
                broken = Some(why);
                break;
            }
        }
        let verdict = progress.reading.stream_verdict(broken, self.max_tokens);
        if !matches!(verdict, Verdict::Ok) {
            let text = &progress.reading.text;
            let from = text.char_indices().rev().nth(BODY_HEAD).map_or(0, |(at, _)| at);
            text[from..].clone_into(&mut progress.body);
        }
        verdict
    }

    async fn read_whole(&self, body: Incoming, progress: &mut Progress) -> Verdict {
        let bytes = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(e) => return Verdict::Failed(format!("the body broke: {}", chain(&e))),
        };
        let read = progress.reading.whole(&bytes);
        let verdict = match read {
            Ok(()) => progress.reading.whole_verdict(self.max_tokens),
            Err(why) => Verdict::Failed(why),
        };
        if !matches!(verdict, Verdict::Ok) {
            head(&String::from_utf8_lossy(&bytes), BODY_HEAD).clone_into(&mut progress.body);
        }
        verdict
    }

    fn build(&self, number: u64, stream: bool) -> Request<Full<Bytes>> {
        let content = format!("{number} {:.<1$}", "", self.prompt_bytes.saturating_sub(number.to_string().len() + 1));
        let mut body = json!({
            "model": self.model, "messages": [{"role": "user", "content": content}], "stream": stream,
        });
        if let Some(max) = self.max_tokens {
            body["max_tokens"] = max.into();
        }
        if stream && self.include_usage {
            body["stream_options"] = json!({"include_usage": true});
        }
        let mut request = Request::new(Full::new(Bytes::from(body.to_string())));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = http::Uri::from_static("/v1/chat/completions");
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::from_str(&self.authority) {
            headers.insert(header::HOST, host);
        }
        headers.extend(self.headers.iter().cloned());
        request
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(Sender, Response<Incoming>), String> {
        let mut request = request;
        while let Some(mut sender) = self.take_idle() {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((sender, response)),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(format!("no answer: {}", chain(failed.error()))),
                },
            }
        }
        let mut sender = self.connect().await.map_err(|e| format!("no connection: {e}"))?;
        let response = sender.send_request(request).await.map_err(|e| format!("no answer: {}", chain(&e)))?;
        Ok((sender, response))
    }

    async fn connect(&self) -> io::Result<Sender> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(tcp)).await.map_err(io::Error::other)?;
        // It ends with its sender; what breaks it is told to the request.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn take_idle(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(sender, since)| since.elapsed() < IDLE && sender.is_ready());
        idle.pop().map(|(sender, _)| sender)
    }

    fn put_back(&self, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT_IDLE {
            idle.push((sender, Instant::now()));
        }
    }
}

async fn read_error(status: StatusCode, body: Incoming, progress: &mut Progress) -> Verdict {
    if let Ok(body) = body.collect().await {
        head(&String::from_utf8_lossy(&body.to_bytes()), BODY_HEAD).clone_into(&mut progress.body);
    }
    Verdict::Failed(format!("status {}", status.as_u16()))
}

/// hyper says what happened in the sources of its errors.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
