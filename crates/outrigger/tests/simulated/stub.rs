//! An engine of constant rate, written from its definition: first in, first out, `slots` at once, each so many tokens a
//! second. It lives behind the gateway's own seam for connections, so that it runs under paused time.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::BodyExt as _;
use hyper::{
    body::{Body, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use outrigger_core::record::Fault;
use outrigger_gateway::net::{BoxStream, Connect};
use serde_json::{Value, json};
use tokio::{
    io::duplex,
    sync::{Semaphore, mpsc},
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use super::client::ARRIVED;

/// How often an answer is written: more often would cost time and tell nothing.
const PIECE: Duration = Duration::from_secs(1);
const PIPE: usize = 64 << 10;

/// What an engine does with a request, after its wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) slots: usize,
    pub(super) first_token: Duration,
    pub(super) each_other: Duration,
}

#[derive(Debug)]
pub(super) struct Stub {
    model: &'static str,
    pace: Pace,
    slots: Semaphore,
    waiting: AtomicU64,
    running: AtomicU64,
    began: Instant,
    is_down: AtomicBool,
    /// Connections and answers, all of which end with the engine.
    alive: Mutex<Vec<AbortHandle>>,
    /// Milliseconds from a request's arrival at the gateway to its slot here, of those that were answered.
    waits: Mutex<Vec<f64>>,
}

impl Stub {
    pub(super) fn new(model: &'static str, pace: Pace, began: Instant) -> Arc<Self> {
        Arc::new(Self {
            model,
            pace,
            slots: Semaphore::new(pace.slots),
            waiting: AtomicU64::new(0),
            running: AtomicU64::new(0),
            began,
            is_down: AtomicBool::new(false),
            alive: Mutex::default(),
            waits: Mutex::default(),
        })
    }

    /// Nothing listens from now on, and what it had is gone.
    pub(super) fn kill(&self) {
        self.is_down.store(true, Ordering::Relaxed);
        for task in self.alive.lock().unwrap().drain(..) {
            task.abort();
        }
    }

    pub(super) fn revive(&self) {
        self.is_down.store(false, Ordering::Relaxed);
    }

    pub(super) fn waits(&self) -> Vec<f64> {
        self.waits.lock().unwrap().clone()
    }

    fn keep(&self, task: AbortHandle) {
        let mut alive = self.alive.lock().unwrap();
        alive.retain(|task| !task.is_finished());
        alive.push(task);
    }

    fn accept(self: &Arc<Self>) -> Result<BoxStream, Fault> {
        if self.is_down.load(Ordering::Relaxed) {
            return Err(Fault::Refused);
        }
        let (near, far) = duplex(PIPE);
        let stub = self.clone();
        let task = tokio::spawn(async move {
            let service = service_fn(|request| {
                let stub = stub.clone();
                async move { Ok::<_, Infallible>(stub.answer(request).await) }
            });
            // It ends when the gateway closes it.
            drop(http1::Builder::new().serve_connection(TokioIo::new(far), service).await);
        });
        self.keep(task.abort_handle());
        Ok(Box::new(near))
    }

    async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Response<Answer> {
        if request.method() == http::Method::GET {
            return self.metrics();
        }
        let arrived = arrived(request.headers());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let bytes = body["messages"][0]["content"].as_str().unwrap().len() as u64;
        let output = body["max_tokens"].as_u64().or(body["max_completion_tokens"].as_u64()).unwrap();
        let is_stream = body["stream"] == true;
        let (pieces, receiver) = mpsc::channel(4);
        let stub = self.clone();
        let task = tokio::spawn(async move {
            let generated = stub.generate(arrived, bytes.div_ceil(4), output, is_stream, &pieces);
            tokio::select! {
                () = generated => {}
                () = pieces.closed() => {}
            }
        });
        self.keep(task.abort_handle());
        let content_type = if is_stream { "text/event-stream" } else { "application/json" };
        Answer::response(receiver, content_type)
    }

    async fn generate(
        &self,
        arrived: Option<Duration>,
        prompt: u64,
        output: u64,
        is_stream: bool,
        pieces: &mpsc::Sender<Bytes>,
    ) {
        let waiting = Counted::new(&self.waiting);
        let _slot = self.slots.acquire().await.unwrap();
        drop(waiting);
        let _running = Counted::new(&self.running);
        let admitted = Instant::now();
        let first = admitted + self.pace.first_token;
        let end = first + self.pace.each_other * (output - 1) as u32;
        let usage = json!({ "prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output });
        if !is_stream {
            sleep_until(end).await;
            let choice =
                json!({ "index": 0, "finish_reason": "length", "message": { "role": "assistant", "content": "t" } });
            let whole =
                json!({ "object": "chat.completion", "model": self.model, "choices": [choice], "usage": usage });
            drop(pieces.send(whole.to_string().into()).await);
            return;
        }
        let mut next = first;
        while next < end {
            sleep_until(next).await;
            drop(pieces.send(self.event(&json!({ "content": "t " }), None)).await);
            next += PIECE;
        }
        sleep_until(end).await;
        let last = self.event(&json!({ "content": "t" }), Some("length"));
        let usage = json!({ "object": "chat.completion.chunk", "model": self.model, "choices": [], "usage": usage });
        let done = [last, format!("data: {usage}\n\ndata: [DONE]\n\n").into()].concat();
        if let Some(arrived) = arrived {
            let wait = (admitted - self.began).saturating_sub(arrived);
            self.waits.lock().unwrap().push(wait.as_secs_f64() * 1e3);
        }
        drop(pieces.send(done.into()).await);
    }

    fn event(&self, delta: &Value, finish: Option<&str>) -> Bytes {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
        let chunk = json!({ "object": "chat.completion.chunk", "model": self.model, "choices": [choice] });
        format!("data: {chunk}\n\n").into()
    }

    fn metrics(&self) -> Response<Answer> {
        let (running, waiting) = (self.running.load(Ordering::Relaxed), self.waiting.load(Ordering::Relaxed));
        let page = format!("vllm:num_requests_running {running}\nvllm:num_requests_waiting {waiting}\n");
        let (pieces, receiver) = mpsc::channel(1);
        pieces.try_send(page.into()).unwrap();
        Answer::response(receiver, "text/plain")
    }
}

fn arrived(headers: &HeaderMap) -> Option<Duration> {
    Some(Duration::from_nanos(headers.get(ARRIVED)?.to_str().ok()?.parse().ok()?))
}

/// One more of something, for as long as it lives.
struct Counted<'a>(&'a AtomicU64);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that comes piece by piece.
#[derive(Debug)]
struct Answer(mpsc::Receiver<Bytes>);

impl Answer {
    fn response(pieces: mpsc::Receiver<Bytes>, content_type: &'static str) -> Response<Self> {
        let mut response = Response::new(Self(pieces));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Connections to stubs by the host of their URL.
#[derive(Debug)]
pub(super) struct Wires(pub(super) HashMap<&'static str, Arc<Stub>>);

impl Connect for Wires {
    fn connect<'a>(
        &'a self,
        host: &'a str,
        _port: u16,
    ) -> Pin<Box<dyn Future<Output = Result<BoxStream, Fault>> + Send + 'a>> {
        Box::pin(async move { self.0.get(host).ok_or(Fault::Dns)?.accept() })
    }

    fn addresses<'a>(
        &'a self,
        _host: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, Fault>> + Send + 'a>> {
        Box::pin(async { Err(Fault::Dns) })
    }
}
