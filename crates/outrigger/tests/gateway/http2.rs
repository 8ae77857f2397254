//! Clients of HTTP/2: what they get, and what those who abuse it do not get.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpStream as Socket},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request as Head};
use outrigger_fakes::Fixed;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{
    Engines, Gateway, Profile, eventually,
    frames::{self, Frame, PREFACE, SETTINGS, WINDOW_UPDATE},
    hello,
    http::connect,
    lock, one_backend, one_backend_with, streamed,
};

/// One connection of a client.
#[derive(Clone)]
pub(super) struct Client(SendRequest<Bytes>);

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Client {
    pub(super) async fn on(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self(client)
    }

    pub(super) async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::on(stream).await
    }

    async fn begin(&self, head: Head<()>, body: &[u8]) -> h2::client::ResponseFuture {
        let mut client = self.0.clone().ready().await.unwrap();
        let (response, mut to) = client.send_request(head, body.is_empty()).unwrap();
        if !body.is_empty() {
            to.send_data(Bytes::copy_from_slice(body), true).unwrap();
        }
        response
    }

    async fn begin_post(&self, path: &str, body: &[u8]) -> h2::client::ResponseFuture {
        self.begin_post_to("gateway", path, body).await
    }

    async fn begin_post_to(&self, authority: &str, path: &str, body: &[u8]) -> h2::client::ResponseFuture {
        let head = Head::builder().method(Method::POST).uri(format!("http://{authority}{path}"));
        let head = head.header("content-type", "application/json").body(()).unwrap();
        self.begin(head, body).await
    }

    pub(super) async fn begin_chat(&self, body: &Value) -> h2::client::ResponseFuture {
        self.begin_post("/v1/chat/completions", body.to_string().as_bytes()).await
    }

    pub(super) async fn post(&self, path: &str, body: &[u8]) -> Answer {
        collect(self.begin_post(path, body).await).await
    }

    /// With another `:authority`.
    pub(super) async fn post_to(&self, authority: &str, path: &str, body: &[u8]) -> Answer {
        collect(self.begin_post_to(authority, path, body).await).await
    }

    pub(super) async fn chat(&self, body: &Value) -> Answer {
        collect(self.begin_chat(body).await).await
    }

    pub(super) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut head = Head::builder().uri(format!("http://gateway{path}"));
        for (name, value) in headers {
            head = head.header(*name, *value);
        }
        collect(self.begin(head.body(()).unwrap(), &[]).await).await
    }
}

async fn collect(response: h2::client::ResponseFuture) -> Answer {
    let response = response.await.unwrap();
    let (parts, mut from) = response.into_parts();
    let mut body = Vec::new();
    while let Some(data) = from.data().await {
        let data = data.unwrap();
        from.flow_control().release_capacity(data.len()).unwrap();
        body.extend_from_slice(&data);
    }
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

/// Streams of 60 tokens in half a minute.
fn slow() -> Profile {
    Profile { fixed: Some(Fixed { ttft_ms: 10.0, tokens: 60, total_ms: 30_000.0 }), ..Profile::instant() }
}

fn endless() -> Value {
    let mut body = streamed(hello());
    body["max_tokens"] = json!(60);
    body
}

#[test]
fn clear_text_of_both_versions_is_served_on_one_port() {
    let engines = Engines::instant(1);
    let mut gateway = Gateway::start("http2-clear", &one_backend(&engines.url(0)));
    let (whole, events, refused) = engines.runtime.block_on(async {
        let client = Client::to(gateway.listen).await;
        let all: Vec<_> = (0..50).map(|_| client.clone()).collect();
        let all = all.into_iter().map(|c| tokio::spawn(async move { c.chat(&hello()).await }));
        let mut whole = Vec::new();
        for one in all.collect::<Vec<_>>() {
            whole.push(one.await.unwrap());
        }
        let refused = client.begin_chat(&json!({})).await;
        (whole, client.chat(&streamed(hello())).await, collect(refused).await)
    });
    assert!(whole.iter().all(|a| a.status == 200 && a.json()["usage"]["completion_tokens"] == 4));
    assert!(whole.iter().all(|a| a.headers["x-outrigger-backend"] == "b"));
    let text = String::from_utf8(events.body).unwrap();
    assert!(text.ends_with("data: [DONE]\n\n") && text.matches("data: ").count() >= 5, "{text}");
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (400, Some("missing_required_parameter")));
    for answer in whole.iter().chain([&refused]) {
        assert!(!answer.headers.contains_key("connection"), "it has no place in HTTP/2");
    }
    assert_eq!(engines.fakes[0].stats().received, 51);
    assert_eq!(gateway.chat(&hello()).status, 200, "and HTTP/1.1 beside it");
    gateway.assert_healthy();
}

#[test]
fn a_reset_stream_reaches_the_engine_and_leaves_the_others() {
    let engines = Engines::start([slow()]);
    let gateway = Gateway::start("http2-reset", &one_backend(&engines.url(0)));
    let fake = &engines.fakes[0];
    let (kept, mut dropped) = engines.runtime.block_on(async {
        let client = Client::to(gateway.listen).await;
        let kept = client.begin_chat(&endless()).await.await.unwrap().into_body();
        let dropped = client.begin_chat(&endless()).await.await.unwrap().into_body();
        (kept, dropped)
    });
    eventually("both run", || fake.stats().running == 2);
    engines.runtime.block_on(async { dropped.data().await.unwrap().unwrap() });
    let reset = Instant::now();
    drop(dropped);
    eventually("one is aborted", || fake.stats().aborted == 1);
    assert!(reset.elapsed() < Duration::from_secs(2), "at once, and not at the next token: {:?}", reset.elapsed());
    assert_eq!((fake.stats().running, fake.stats().aborted), (1, 1));
    // Before its head, too.
    let hung = engines.runtime.block_on(async {
        let client = Client::to(gateway.listen).await;
        let mut body = hello();
        body["max_tokens"] = json!(60);
        (client.begin_chat(&body).await, client)
    });
    eventually("a third runs", || fake.stats().running == 2);
    drop(hung);
    eventually("it is aborted", || fake.stats().aborted == 2);
    eventually("its line", || gateway.log().len() == 2);
    assert!(gateway.log().iter().all(|line| line["outcome"] == "client_gone"));
    drop(kept);
}

/// Reads frames until one of this kind; `None` at the end of the connection.
pub(super) fn until(from: &mut Socket, kind: u8) -> Option<Frame> {
    loop {
        let frame = Frame::read(from)?;
        if frame.kind == kind {
            return Some(frame);
        }
    }
}

pub(super) fn greeted(gateway: &Gateway) -> Socket {
    let mut stream = connect(gateway.listen);
    stream.write_all(&[PREFACE, &Frame::new(SETTINGS, 0, 0, []).bytes()].concat()).unwrap();
    stream
}

/// RFC 9113, 6.5.2 and 6.9.2: what one connection may make the gateway hold.
#[test]
fn a_connection_is_told_its_bounds() {
    let engines = Engines::instant(1);
    let gateway = Gateway::start("http2-bounds", &one_backend(&engines.url(0)));
    let mut stream = greeted(&gateway);
    let settings = until(&mut stream, SETTINGS).unwrap().settings();
    let setting = |number| settings.iter().find(|(n, _)| *n == number).map(|(_, value)| *value).unwrap();
    let (streams, window, list) = (setting(3), setting(4), setting(6));
    assert!((16..=1_000).contains(&streams), "{streams}");
    assert_eq!(list, 64 << 10, "gateway.limits.head");
    let update = until(&mut stream, WINDOW_UPDATE).unwrap();
    assert_eq!(update.stream, 0);
    let connection = 65_535 + u32::from_be_bytes(update.payload.try_into().unwrap());
    assert!(connection >= streams * window, "one stream must not stop another: {connection} < {streams} × {window}");
    assert!(connection <= 32 << 20, "{connection}");
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let engines = Engines::instant(1);
    let limits = "gateway:\n  limits: { head: 16KiB }\n";
    let mut gateway = Gateway::start("http2-head", &one_backend_with(limits, &engines.url(0)));
    engines.runtime.block_on(async {
        let (long, fits) = ("x".repeat(20 << 10), "x".repeat(10 << 10));
        let client = Client::to(gateway.listen).await;
        assert_eq!(client.get("/healthz", &[("x-long", &fits)]).await.status, 200);
        assert_eq!(client.get("/healthz", &[("x-long", &long)]).await.status, 431);
        assert_eq!(client.get("/healthz", &[]).await.status, 200, "the connection goes on");
    });
    gateway.assert_healthy();
}

/// A preface that never ends, a head that never ends, and a client that only answers PINGs: each holds a place.
#[test]
fn who_does_nothing_is_let_go() {
    let engines = Engines::start([slow()]);
    let limits = "gateway:\n  limits: { read_timeout: 1s, connections: 5 }\n";
    let gateway = Gateway::start("http2-slow", &one_backend_with(limits, &engines.url(0)));
    // One that has a stream going on is not idle.
    let (busy, stream) = engines.runtime.block_on(async {
        let client = Client::to(gateway.listen).await;
        let stream = client.begin_chat(&endless()).await.await.unwrap().into_body();
        (client, stream)
    });
    let mut half = connect(gateway.listen);
    half.write_all(&PREFACE[..10]).unwrap();
    let mut headless = greeted(&gateway);
    let mut unfinished = frames::get(1, "/healthz");
    unfinished.flags = frames::END_STREAM;
    headless.write_all(&unfinished.bytes()).unwrap();
    let idle = greeted(&gateway);
    let idle_client = engines.runtime.block_on(Client::to(gateway.listen));
    let began = Instant::now();
    for mut stream in [half, headless, idle] {
        while Frame::read(&mut stream).is_some() {}
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(500) && took < Duration::from_secs(8), "closed after {took:?}");
    }
    eventually("the client that answers PINGs is let go", || {
        engines.runtime.block_on(async { idle_client.0.clone().ready().await.is_err() })
    });
    let beside = engines.runtime.block_on(busy.get("/healthz", &[]));
    assert_eq!((beside.status, engines.fakes[0].stats().running), (200, 1), "the busy connection goes on");
    assert_eq!(gateway.chat(&json!({})).status, 400, "there are places again");
    drop(stream);
}

#[test]
fn a_gateway_that_stops_says_goodbye_and_lets_streams_end() {
    let short = Fixed { ttft_ms: 10.0, tokens: 20, total_ms: 3_000.0 };
    let engines = Engines::start([Profile { fixed: Some(short), ..Profile::instant() }]);
    let mut gateway = Gateway::start("http2-drain", &one_backend(&engines.url(0)));
    let mut body = streamed(hello());
    body["max_tokens"] = json!(20);
    let (client, stream) = engines.runtime.block_on(async {
        let client = Client::to(gateway.listen).await;
        let stream = client.begin_chat(&body).await;
        (client, stream)
    });
    eventually("the stream runs", || engines.fakes[0].stats().tokens > 0);
    gateway.terminate();
    let answer = engines.runtime.block_on(collect(stream));
    assert!(String::from_utf8(answer.body).unwrap().ends_with("data: [DONE]\n\n"));
    assert!(engines.runtime.block_on(client.0.ready()).is_err(), "no new stream on this connection");
    eventually("it has ended", || gateway.child.try_wait().unwrap().is_some_and(|status| status.success()));
    assert!(!lock(&gateway.stderr).contains("panicked"));
}
