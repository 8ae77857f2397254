//! An engine that answers from memory: whole answers at once, streams one event at a time.

use std::{cell::Cell, fmt::Write as _, net::SocketAddr, rc::Rc, time::Duration};

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use clap::Args;
use memchr::memmem;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep_until},
};

use crate::message::{self, Body};

#[derive(Args, Debug)]
pub(crate) struct Mock {
    /// An address to listen on; one for each backend
    #[arg(long = "listen", required = true)]
    listen: Vec<SocketAddr>,
    /// The model that its answers name
    #[arg(long)]
    model: String,
    /// Events of a stream, its last one with the reason to end not counted
    #[arg(long, default_value_t = 100)]
    tokens: u32,
    /// From a request to its stream's first event, ms
    #[arg(long, default_value_t = 50)]
    first: u64,
    /// Between two events, ms
    #[arg(long, default_value_t = 20)]
    every: u64,
}

/// What is sent, written down once.
struct Script {
    whole: Bytes,
    stream_head: Bytes,
    event: Bytes,
    last: Bytes,
    models: Bytes,
    metrics: Bytes,
    tokens: u32,
    first: Duration,
    every: Duration,
    seen: Seen,
}

/// What arrived here: the truth about what a gateway did.
#[derive(Default)]
struct Seen {
    connections: Cell<u64>,
    requests: Cell<u64>,
}

impl Mock {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let script = Rc::new(Script::new(&self));
        let mut listeners = Vec::new();
        for address in &self.listen {
            listeners.push(message::listen(*address).with_context(|| format!("cannot listen on {address}"))?);
        }
        for listener in listeners {
            let script = script.clone();
            tokio::task::spawn_local(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    script.seen.connections.set(script.seen.connections.get() + 1);
                    let script = script.clone();
                    // A peer that goes away in the middle is its own affair.
                    tokio::task::spawn_local(async move { drop(serve(stream, &script).await) });
                }
            });
        }
        println!("ready");
        std::future::pending().await
    }
}

impl Script {
    fn new(mock: &Mock) -> Self {
        let model = &mock.model;
        let text = "The quick brown fox jumps over the lazy dog. ".repeat(16);
        let whole = format!(
            r#"{{"id":"chatcmpl-0","object":"chat.completion","created":1764000000,"model":"{model}","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null,"tool_calls":[]}},"logprobs":null,"finish_reason":"stop","stop_reason":null}}],"usage":{{"prompt_tokens":200,"total_tokens":360,"completion_tokens":160}}}}"#
        );
        let chunk = |delta: &str, finish: &str, usage: &str| {
            format!(
                r#"data: {{"id":"chatcmpl-0","object":"chat.completion.chunk","created":1764000000,"model":"{model}","choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}]{usage}}}"#
            ) + "\n\n"
        };
        let usage = format!(
            r#"data: {{"id":"chatcmpl-0","object":"chat.completion.chunk","created":1764000000,"model":"{model}","choices":[],"usage":{{"prompt_tokens":200,"total_tokens":{},"completion_tokens":{}}}}}"#,
            200 + mock.tokens,
            mock.tokens
        ) + "\n\n";
        let last =
            [chunk("{}", r#""stop""#, ""), usage, "data: [DONE]\n\n".to_owned()].map(|event| chunked(&event)).concat();
        let models =
            format!(r#"{{"object":"list","data":[{{"id":"{model}","object":"model","max_model_len":32768}}]}}"#);
        let metrics = format!(
            "vllm:num_requests_running{{engine=\"0\",model_name=\"{model}\"}} 0.0\nvllm:num_requests_waiting{{engine=\"0\",model_name=\"{model}\"}} 0.0\n"
        );
        Self {
            whole: answer("application/json", &whole),
            stream_head: "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n".into(),
            event: chunked(&chunk(r#"{"content":" token"}"#, "null", "")).into(),
            last: format!("{last}0\r\n\r\n").into(),
            models: answer("application/json", &models),
            metrics: answer("text/plain; version=0.0.4", &metrics),
            tokens: mock.tokens,
            first: Duration::from_millis(mock.first),
            every: Duration::from_millis(mock.every),
            seen: Seen::default(),
        }
    }
}

fn answer(content_type: &str, body: &str) -> Bytes {
    format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into()
}

fn chunked(event: &str) -> String {
    format!("{:x}\r\n{event}\r\n", event.len())
}

async fn serve(mut stream: TcpStream, script: &Script) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = BytesMut::with_capacity(8 << 10);
    loop {
        let Some(end) = message::head_end(&buffer) else {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        request.parse(&buffer[..end])?;
        let path = request.path.unwrap_or("/").split('?').next().unwrap_or("/").to_owned();
        let body = message::body_of(request.headers)?;
        let _ = buffer.split_to(end);
        let body = read_body(&mut stream, &mut buffer, body).await?;
        script.respond(&mut stream, &path, &body).await?;
    }
}

async fn read_body(stream: &mut TcpStream, buffer: &mut BytesMut, body: Body) -> anyhow::Result<BytesMut> {
    let mut whole = BytesMut::new();
    loop {
        match body {
            Body::Length(length) if buffer.len() >= length => return Ok(buffer.split_to(length)),
            Body::Chunked if message::take_chunks(buffer, |data| whole.extend_from_slice(data))? => return Ok(whole),
            _ => anyhow::ensure!(stream.read_buf(buffer).await? > 0, "the request ended early"),
        }
    }
}

impl Script {
    async fn respond(&self, stream: &mut TcpStream, path: &str, body: &[u8]) -> anyhow::Result<()> {
        if path.ends_with("/chat/completions") {
            self.seen.requests.set(self.seen.requests.get() + 1);
            let streams = memmem::find(body, br#""stream":true"#).or(memmem::find(body, br#""stream": true"#));
            return match streams {
                Some(_) => self.stream(stream).await,
                None => Ok(stream.write_all(&self.whole).await?),
            };
        }
        if path == "/seen" {
            let Seen { connections, requests } = &self.seen;
            let mut text = String::new();
            write!(text, r#"{{"connections":{},"requests":{}}}"#, connections.get(), requests.get())?;
            return Ok(stream.write_all(&answer("application/json", &text)).await?);
        }
        let answer = if path == "/metrics" { &self.metrics } else { &self.models };
        Ok(stream.write_all(answer).await?)
    }

    async fn stream(&self, stream: &mut TcpStream) -> anyhow::Result<()> {
        let began = Instant::now();
        stream.write_all(&self.stream_head).await?;
        for nth in 0..self.tokens {
            sleep_until(began + self.first + self.every * nth).await;
            stream.write_all(&self.event).await?;
        }
        Ok(stream.write_all(&self.last).await?)
    }
}
