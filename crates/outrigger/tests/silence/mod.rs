//! A connection to a backend over HTTP/2 on which the network stops passing anything on, without closing it: a firewall
//! that forgot it, a machine that is gone. Nothing fails by itself then, and an answer that does not stream has no
//! deadline of its own. PINGs find out within 15 s (`pool/shared.rs`).
//!
//! The whole gateway in paused time between in-memory pipes, so that the 15 s take none.

use std::{
    convert::Infallible,
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::{Body, Frame, Incoming},
    client, server,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_core::record::Fault;
use outrigger_gateway::{
    Running, Setup,
    admin::Access,
    events::Outputs,
    litellm::Dialect,
    live::{Loaded, Secrets},
    net::{BoxStream, Connect},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    net::TcpListener,
    sync::mpsc,
    time::{Instant, sleep},
};

use crate::simulated::door::Door;

/// Every 10 s a PING, and 5 s for its answer.
const FOUND: Duration = Duration::from_secs(15);
/// For a connection to another backend, and the answer.
const MORE: Duration = Duration::from_secs(2);

const FAR: &str = "  far: { cloud: c, engine: openai, url: \"http://far/v1\", model: m, http: 2 }\n";
const NEAR: &str = "  near: { cloud: c, engine: openai, url: \"http://near/v1\", model: m }\n";

/// Both backends, the near one for what the far one cannot take.
fn both() -> String {
    fleet(&format!("{FAR}{NEAR}"), "{ split: { far: 1 } }, { split: { near: 1 } }")
}

fn fleet(backends: &str, tiers: &str) -> String {
    format!("version: 1\nclouds: {{ c: {{}} }}\nbackends:\n{backends}models:\n  llama: {{ tiers: [ {tiers} ] }}\n")
}

/// The way to the backends, and what came on each connection to the far one.
#[derive(Debug, Default)]
struct Network {
    connections: Mutex<Vec<Arc<Line>>>,
    /// New connections come to nothing, too.
    is_dark: AtomicBool,
}

#[derive(Debug, Default)]
struct Line {
    is_silent: AtomicBool,
    requests: AtomicUsize,
}

impl Network {
    /// From now on nothing passes on the connections that there are.
    fn falls_silent(&self) {
        for line in &*self.connections.lock().unwrap() {
            line.is_silent.store(true, Ordering::Relaxed);
        }
    }

    fn requests(&self) -> Vec<usize> {
        self.connections.lock().unwrap().iter().map(|line| line.requests.load(Ordering::Relaxed)).collect()
    }
}

#[derive(Clone, Debug)]
struct Wires(Arc<Network>);

impl Connect for Wires {
    fn connect<'a>(
        &'a self,
        host: &'a str,
        _: u16,
    ) -> Pin<Box<dyn Future<Output = Result<BoxStream, Fault>> + Send + 'a>> {
        Box::pin(async move {
            if host == "far" && self.0.is_dark.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            let (near, far) = duplex(64 << 10);
            let line = Arc::<Line>::default();
            if host == "far" {
                self.0.connections.lock().unwrap().push(line.clone());
                tokio::spawn(serve_http2(far, line));
            } else {
                let service = service_fn(|request| answer(request, Arc::default()));
                tokio::spawn(server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service));
            }
            Ok(Box::new(near) as BoxStream)
        })
    }

    fn addresses<'a>(&'a self, _: &'a str) -> Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, Fault>> + Send + 'a>> {
        Box::pin(async { Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]) })
    }
}

async fn serve_http2(stream: DuplexStream, line: Arc<Line>) {
    let service = service_fn(|request| answer(request, line.clone()));
    let stream = TokioIo::new(Silenced { stream, line: line.clone() });
    drop(server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await);
}

/// The far end of a pipe that may swallow everything.
struct Silenced {
    stream: DuplexStream,
    line: Arc<Line>,
}

impl Silenced {
    fn is_silent(&self) -> bool {
        self.line.is_silent.load(Ordering::Relaxed)
    }
}

impl AsyncRead for Silenced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_silent() { Poll::Pending } else { Pin::new(&mut self.stream).poll_read(cx, buf) }
    }
}

impl AsyncWrite for Silenced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_silent() { Poll::Ready(Ok(bytes.len())) } else { Pin::new(&mut self.stream).poll_write(cx, bytes) }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

/// The body of an answer, in pieces.
struct Pieces(mpsc::UnboundedReceiver<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Answers at once, but for a prompt that the far side is to think about: that never ends, and a stream of it begins.
async fn answer(request: Request<Incoming>, line: Arc<Line>) -> Result<Response<Pieces>, Infallible> {
    line.requests.fetch_add(1, Ordering::Relaxed);
    let is_far = request.version() == http::Version::HTTP_2;
    let asked = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let asked: Value = serde_json::from_slice(&asked).unwrap_or_default();
    let thinks = is_far && asked["messages"][0]["content"] == "think";
    let is_stream = asked["stream"] == true;
    let (to, pieces) = mpsc::unbounded_channel();
    let content_type = if is_stream { "text/event-stream" } else { "application/json" };
    let said = if is_stream { events() } else { vec![completion()] };
    for piece in said.into_iter().take(if thinks { 1 } else { usize::MAX }) {
        to.send(piece.into()).unwrap();
    }
    if thinks && !is_stream {
        std::future::pending::<()>().await;
    }
    if thinks {
        tokio::spawn(async move { to.closed().await });
    }
    Ok(Response::builder().header(header::CONTENT_TYPE, content_type).body(Pieces(pieces)).unwrap())
}

fn completion() -> String {
    let choice = json!({ "index": 0, "message": { "role": "assistant", "content": "hi" }, "finish_reason": "stop" });
    json!({ "id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice] }).to_string()
}

fn events() -> Vec<String> {
    let event = |delta: Value, finish: Value| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
        let chunk =
            json!({ "id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice] });
        format!("data: {chunk}\n\n")
    };
    let end = "data: [DONE]\n\n".to_owned();
    vec![event(json!({ "content": "hi" }), Value::Null), event(json!({}), json!("stop")), end]
}

/// A gateway before this network.
struct World {
    network: Arc<Network>,
    door: Arc<Door>,
    running: Running,
}

impl World {
    /// Once the far backend has answered somebody.
    async fn start(test: &str, fleet: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("silence").join(test);
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("fleet.yaml");
        fs::write(&file, fleet).unwrap();
        let loaded = outrigger::config::load(&file).unwrap();
        let (door, network) = (Arc::new(Door::new()), Arc::<Network>::default());
        let setup = Setup {
            loaded: Loaded { fleet: Arc::new(loaded.fleet), secrets: Secrets::default() },
            data: door.clone(),
            tls: None,
            admin: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(),
            connector: Arc::new(Wires(network.clone())),
            outputs: Outputs { requests: None, decisions: None },
            access: Access { token: None },
            reload: Arc::new(|| Err("there is no other fleet".to_owned())),
            watched: None,
            dialect: Dialect::default(),
            seed: 1,
        };
        let running = outrigger_gateway::start(setup).unwrap();
        let world = Self { network, door, running };
        // The probe has a connection of its own.
        sleep(Duration::from_secs(1)).await;
        assert_eq!(world.ask("hello", false).await.backend, "far");
        world
    }

    fn ask(&self, prompt: &'static str, stream: bool) -> impl Future<Output = Seen> + Send + use<> {
        ask(self.door.open(), prompt, stream)
    }

    /// Nothing is left of the requests, or the gateway could not stop so soon.
    async fn stop(self) {
        assert!(self.running.stop(Duration::ZERO).await, "something is still in flight");
    }
}

/// An answer as its client saw it.
#[derive(Debug)]
struct Seen {
    status: u16,
    backend: String,
    attempts: String,
    text: String,
    took: Duration,
}

async fn ask(stream: BoxStream, prompt: &'static str, is_stream: bool) -> Seen {
    let body = json!({
        "model": "llama", "messages": [{ "role": "user", "content": prompt }], "stream": is_stream, "max_tokens": 4,
    });
    let began = Instant::now();
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("/v1/chat/completions").header(header::HOST, "gateway");
    let response = sender.send_request(request.body(Full::new(Bytes::from(body.to_string()))).unwrap()).await.unwrap();
    let header =
        |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (status, backend, attempts) =
        (response.status().as_u16(), header("x-outrigger-backend"), header("x-outrigger-attempts"));
    let text = String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    Seen { status, backend, attempts, text, took: began.elapsed() }
}

fn in_paused_time(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(test);
}

#[test]
fn requests_on_a_connection_that_falls_silent_go_elsewhere() {
    in_paused_time(async {
        let world = World::start("elsewhere", &both()).await;
        let waiting: Vec<_> = (0..3).map(|_| tokio::spawn(world.ask("think", false))).collect();
        let stream = tokio::spawn(world.ask("think", true));
        sleep(Duration::from_secs(1)).await;
        let before = world.network.requests();
        world.network.falls_silent();
        let fell = Instant::now();
        // One that comes only now, and is put on the connection that nobody knows to be dead.
        let late = tokio::spawn(world.ask("hello", false));
        for asked in waiting.into_iter().chain([late]) {
            let seen = asked.await.unwrap();
            assert_eq!((seen.status, seen.backend.as_str(), seen.attempts.as_str()), (200, "near", "2"), "{seen:?}");
        }
        let seen = stream.await.unwrap();
        assert!(
            seen.text.contains("hi") && seen.text.contains("\"error\"") && !seen.text.contains("[DONE]"),
            "{seen:?}"
        );
        assert!(fell.elapsed() <= FOUND + MORE, "{:?}", fell.elapsed());

        // The probe, which a connection that died calls for, finds that the backend lives. It is used over another one.
        sleep(MORE).await;
        let again = world.ask("hello", false).await;
        assert_eq!((again.backend.as_str(), again.attempts.as_str()), ("far", "1"), "{again:?}");
        let after = world.network.requests();
        assert_eq!(after[..before.len()], before, "nothing more came on the connections of before");
        assert!(after.len() > before.len());
        world.stop().await;
    });
}

#[test]
fn an_idle_connection_that_falls_silent_is_not_used_again() {
    in_paused_time(async {
        let world = World::start("idle", &both()).await;
        let before = world.network.requests();
        world.network.falls_silent();
        sleep(FOUND).await;
        let seen = world.ask("hello", false).await;
        assert_eq!((seen.backend.as_str(), seen.attempts.as_str()), ("far", "1"), "{seen:?}");
        assert!(seen.took < Duration::from_secs(1), "{seen:?}");
        assert_eq!(world.network.requests()[..before.len()], before);
        world.stop().await;
    });
}

/// And with nowhere else to go, and no new connection either, a client is told so, and why.
#[test]
fn with_nowhere_else_to_go_the_client_is_told() {
    in_paused_time(async {
        let world = World::start("alone", &fleet(FAR, "{ split: { far: 1 } }")).await;
        let waiting = tokio::spawn(world.ask("think", false));
        sleep(Duration::from_secs(1)).await;
        world.network.falls_silent();
        world.network.is_dark.store(true, Ordering::Relaxed);
        let fell = Instant::now();
        let seen = waiting.await.unwrap();
        assert!(fell.elapsed() <= FOUND + MORE, "{:?}", fell.elapsed());
        let error: Value = serde_json::from_str(&seen.text).unwrap();
        let error = &error["error"];
        assert!((500..600).contains(&seen.status), "{seen:?}");
        assert_eq!(
            (&error["backends"][0]["backend"], &error["backends"][0]["reason"]),
            (&json!("far"), &json!("reset"))
        );
        assert!(error["code"].is_string() && error["message"].is_string(), "{error}");
        world.stop().await;
    });
}
