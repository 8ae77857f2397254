//! Three kinds of load, each over connections that stay open. One line says that the measured time begins and a last
//! one, in JSON, what happened in it.
//!
//! A latency counts from when the request was due, or from when it was sent if the connection was free and only this
//! program was late: what a gateway delays is counted against it, and what the generator delays is not.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use bytes::BytesMut;
use clap::Args;
use hdrhistogram::Histogram;
use memchr::memmem;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::{JoinHandle, spawn_local},
    time::{Instant, sleep, sleep_until, timeout_at},
};

use crate::message::{self, Body};

#[derive(Args, Debug)]
struct Common {
    #[arg(long)]
    to: SocketAddr,
    #[arg(long)]
    model: String,
    /// Sent as a bearer token
    #[arg(long)]
    key: Option<String>,
    /// Bytes of the prompt
    #[arg(long, default_value_t = 800)]
    prompt: usize,
}

impl Common {
    fn request(&self, stream: bool) -> Vec<u8> {
        let prompt =
            "All work and no play makes Jack a dull boy. ".chars().cycle().take(self.prompt).collect::<String>();
        let body = format!(
            r#"{{"model":"{}","messages":[{{"role":"user","content":"{prompt}"}}],"max_tokens":512,"temperature":0.7,"stream":{stream}}}"#,
            self.model
        );
        let key = self.key.as_ref().map_or(String::new(), |key| format!("authorization: Bearer {key}\r\n"));
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\n{key}user-agent: bench\r\naccept: application/json\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.to,
            body.len()
        )
        .into_bytes()
    }
}

/// For how long a load goes on.
#[derive(Args, Debug)]
struct Span {
    /// Before anything is measured, seconds
    #[arg(long, default_value_t = 1.0)]
    warm: f64,
    /// Measured, seconds
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
}

impl Span {
    async fn measure(&self, seen: &Seen) {
        sleep(Duration::from_secs_f64(self.warm)).await;
        println!("begin");
        seen.measures.set(true);
        let began = Instant::now();
        sleep(Duration::from_secs_f64(self.seconds)).await;
        seen.print(began.elapsed().as_secs_f64());
    }
}

/// What happened in the measured time; times in microseconds.
struct Seen {
    ok: Cell<u64>,
    failed: Cell<u64>,
    fault: RefCell<Option<String>>,
    latency: RefCell<Histogram<u64>>,
    gap: RefCell<Histogram<u64>>,
    events: Cell<u64>,
    measures: Cell<bool>,
}

impl Seen {
    fn new(measures: bool) -> anyhow::Result<Rc<Self>> {
        Ok(Rc::new(Self {
            ok: Cell::new(0),
            failed: Cell::new(0),
            fault: RefCell::new(None),
            latency: RefCell::new(Histogram::new_with_bounds(1, 600_000_000, 3)?),
            gap: RefCell::new(Histogram::new_with_bounds(1, 600_000_000, 3)?),
            events: Cell::new(0),
            measures: Cell::new(measures),
        }))
    }

    fn ended(&self, result: anyhow::Result<Duration>) {
        if !self.measures.get() {
            return;
        }
        match result {
            Ok(took) => {
                self.ok.set(self.ok.get() + 1);
                self.latency.borrow_mut().saturating_record(took.as_micros() as u64);
            }
            Err(fault) => {
                self.failed.set(self.failed.get() + 1);
                self.fault.borrow_mut().get_or_insert_with(|| format!("{fault:#}"));
            }
        }
    }

    fn print(&self, seconds: f64) {
        let ms = |h: &RefCell<Histogram<u64>>, q: f64| h.borrow().value_at_quantile(q) as f64 / 1e3;
        let line = json!({
            "seconds": seconds,
            "ok": self.ok.get(),
            "failed": self.failed.get(),
            "fault": *self.fault.borrow(),
            "p50_ms": ms(&self.latency, 0.5),
            "p99_ms": ms(&self.latency, 0.99),
            "events": self.events.get(),
            "gap_p50_ms": ms(&self.gap, 0.5),
            "gap_p99_ms": ms(&self.gap, 0.99),
        });
        println!("{line}");
    }
}

/// One connection, opened again when it breaks.
struct Client {
    to: SocketAddr,
    stream: Option<TcpStream>,
    buffer: BytesMut,
}

impl Client {
    async fn open(to: SocketAddr) -> anyhow::Result<Self> {
        let mut client = Self { to, stream: None, buffer: BytesMut::with_capacity(16 << 10) };
        client.connected().await?;
        Ok(client)
    }

    async fn connected(&mut self) -> anyhow::Result<&mut TcpStream> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.to).await.context("cannot connect")?;
            stream.set_nodelay(true)?;
            self.buffer.clear();
            self.stream = Some(stream);
        }
        Ok(self.stream.as_mut().expect("it was just opened"))
    }

    /// Sends a request and reads the whole answer, handing on the pieces of a body in chunks.
    async fn ask(&mut self, request: &[u8], mut piece: impl FnMut(&[u8])) -> anyhow::Result<()> {
        let answer = self.exchange(request, &mut piece).await;
        if answer.is_err() {
            self.stream = None;
        }
        answer
    }

    async fn exchange(&mut self, request: &[u8], piece: &mut impl FnMut(&[u8])) -> anyhow::Result<()> {
        self.connected().await?.write_all(request).await?;
        let end = loop {
            if let Some(end) = message::head_end(&self.buffer) {
                break end;
            }
            self.more().await?;
        };
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        response.parse(&self.buffer[..end])?;
        let status = response.code.unwrap_or(0);
        let body = message::body_of(response.headers)?;
        let _ = self.buffer.split_to(end);
        loop {
            match body {
                Body::Length(length) if self.buffer.len() >= length => {
                    let whole = self.buffer.split_to(length);
                    ensure!(status == 200, "status {status}: {}", String::from_utf8_lossy(&whole));
                    return Ok(());
                }
                Body::Chunked if message::take_chunks(&mut self.buffer, &mut *piece)? => {
                    ensure!(status == 200, "status {status}");
                    return Ok(());
                }
                _ => self.more().await?,
            }
        }
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        let stream = self.stream.as_mut().context("not connected")?;
        self.buffer.reserve(4 << 10);
        ensure!(stream.read_buf(&mut self.buffer).await? > 0, "the connection was closed early");
        Ok(())
    }
}

#[derive(Args, Debug)]
pub(crate) struct Closed {
    #[command(flatten)]
    common: Common,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    #[command(flatten)]
    span: Span,
}

impl Closed {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let seen = Seen::new(false)?;
        let request: Rc<[u8]> = self.common.request(false).into();
        for _ in 0..self.connections {
            let (seen, request, to) = (seen.clone(), request.clone(), self.common.to);
            let mut client = Client::open(to).await?;
            spawn_local(async move {
                loop {
                    let began = Instant::now();
                    let answer = client.ask(&request, |_| {}).await;
                    if answer.is_err() {
                        sleep(Duration::from_millis(1)).await;
                    }
                    seen.ended(answer.map(|()| began.elapsed()));
                }
            });
        }
        self.span.measure(&seen).await;
        Ok(())
    }
}

#[derive(Args, Debug)]
pub(crate) struct Open {
    #[command(flatten)]
    common: Common,
    /// Requests a second
    #[arg(long)]
    rate: f64,
    #[arg(long, default_value_t = 64)]
    connections: u32,
    #[command(flatten)]
    span: Span,
}

impl Open {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let seen = Seen::new(false)?;
        let request: Rc<[u8]> = self.common.request(false).into();
        let mut clients = Vec::new();
        for _ in 0..self.connections {
            clients.push(Client::open(self.common.to).await?);
        }
        let (start, between) = (Instant::now(), Duration::from_secs_f64(1.0 / self.rate));
        for (nth, mut client) in (0..).zip(clients) {
            let (seen, request) = (seen.clone(), request.clone());
            let connections = self.connections;
            spawn_local(async move {
                let mut turn = nth;
                loop {
                    let due = start + between * turn;
                    let is_late = due < Instant::now();
                    sleep_until(due).await;
                    let began = if is_late { due } else { Instant::now() };
                    let answer = client.ask(&request, |_| {}).await;
                    seen.ended(answer.map(|()| began.elapsed()));
                    turn += connections;
                }
            });
        }
        self.span.measure(&seen).await;
        Ok(())
    }
}

#[derive(Args, Debug)]
pub(crate) struct Streams {
    #[command(flatten)]
    common: Common,
    #[arg(long = "streams", default_value_t = 1000)]
    count: u32,
    /// Over which the streams begin, seconds
    #[arg(long, default_value_t = 2.0)]
    ramp: f64,
    /// After which a stream that is not at its end has failed, seconds
    #[arg(long, default_value_t = 60.0)]
    patience: f64,
}

impl Streams {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let seen = Seen::new(true)?;
        let request: Rc<[u8]> = self.common.request(true).into();
        let mut clients = Vec::new();
        for _ in 0..self.count {
            clients.push(Client::open(self.common.to).await?);
        }
        println!("begin");
        let start = Instant::now();
        let (between, give_up) =
            (Duration::from_secs_f64(self.ramp) / self.count, start + Duration::from_secs_f64(self.patience));
        let tasks: Vec<JoinHandle<()>> = (0..)
            .zip(clients)
            .map(|(nth, client)| {
                let (seen, request) = (seen.clone(), request.clone());
                spawn_local(async move {
                    sleep_until(start + between * nth).await;
                    let read = timeout_at(give_up, stream(client, &request, &seen)).await;
                    seen.ended(read.unwrap_or_else(|_| Err(anyhow::anyhow!("not at its end in time"))));
                })
            })
            .collect();
        for task in tasks {
            task.await?;
        }
        seen.print(start.elapsed().as_secs_f64());
        Ok(())
    }
}

/// Reads one stream, and gives the time to its first event.
async fn stream(mut client: Client, request: &[u8], seen: &Seen) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let (mut first, mut last, mut done) = (None, began, false);
    client
        .ask(request, |data| {
            let events = memmem::find_iter(data, b"data: ").count() as u64;
            if events == 0 {
                return;
            }
            seen.events.set(seen.events.get() + events);
            let now = Instant::now();
            if first.is_some() {
                seen.gap.borrow_mut().saturating_record((now - last).as_micros() as u64);
            }
            first.get_or_insert(now - began);
            last = now;
            done |= memmem::find(data, b"data: [DONE]").is_some();
        })
        .await?;
    ensure!(done, "the stream ended without [DONE]");
    first.context("the stream had no event")
}
