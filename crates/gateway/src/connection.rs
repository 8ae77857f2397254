//! One client connection: TLS if it is served with a certificate, the HTTP version, its bounds, and its end.
//!
//! One port speaks both versions. Inside TLS the handshake agrees on one (ALPN). In clear text an HTTP/2 client that
//! knows begins with a preface that no HTTP/1 request can begin with, so that the first bytes decide. They are read
//! here and not by a library's combined server, which waits for them without end: every phase before a request is
//! bounded by `limits.read_timeout`, and so is a connection on which nothing goes on.
//!
//! A refusal often precedes the body that it refuses. Closing then, with bytes unread, resets the connection, and many a
//! client that is still sending sees the reset and not the refusal. So after `connection: close` the gateway's direction is
//! closed first, and what still comes is thrown away for a while (RFC 9112, 9.6).
//!
//! What one HTTP/2 connection may cost is bounded by the constants below, and in [`streams`]. The connection's window is as large as all
//! its streams' windows together, so that a request that is not read (the gateway holds as many bodies as it may) never
//! stops its neighbours; bodies are read as they come and count against `limits.held` like any other.

mod streams;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response, header};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use outrigger_core::fleet::Limits;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    sync::watch,
    time::{Instant, Sleep, sleep, timeout},
};

use self::streams::{Activity, Counted, Streams};
use crate::{body::Answer, live::Live, net::BoxStream, raised, serve, tls};

/// Two seconds of grace between "no new requests" and "this is closed": enough for an answer on its way.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// How long a connection that was taken before "no new requests" has for its first bytes.
const HELLO_GRACE: Duration = Duration::from_millis(500);

/// How long a client that was refused may go on sending: in silence, and in all.
const LINGER_SILENT: Duration = Duration::from_secs(1);
const LINGER: Duration = Duration::from_secs(5);

/// Requests of one HTTP/2 connection at once.
const STREAMS: u32 = 128;
/// Bytes of one request that may come before they are read.
const STREAM_WINDOW: u32 = 64 << 10;
/// Bytes of one answer that wait for a slow client, beside what [`crate::relay::PIECES`] holds.
const SEND_BUFFER: usize = 64 << 10;
/// Streams that a client opened and reset before they were seen, and streams that it got wrong: beyond these it does
/// nothing else (CVE-2023-44487), and the connection is closed.
const RESETS: usize = 64;
const MISTAKES: usize = 256;
/// A client that does not answer a PING is gone.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What every HTTP/2 connection begins with (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

/// When a connection has to end.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// No new requests.
    pub(crate) drain: watch::Receiver<bool>,
    /// Nothing any more.
    pub(crate) stop: watch::Receiver<bool>,
}

pub(crate) async fn run(
    live: &Arc<Live>,
    tls: Option<&tls::listener::Listener>,
    stream: BoxStream,
    peer: SocketAddr,
    mut end: End,
) {
    let limits = live.snapshot().fleet.gateway.limits.clone();
    let opened = tokio::select! {
        opened = timeout(limits.read_timeout, open(tls, stream)) => opened,
        () = drained(&mut end) => return,
    };
    match opened {
        Ok(Ok((stream, Version::Http1))) => http1(live, &limits, stream, peer, end).await,
        Ok(Ok((stream, Version::Http2))) => http2(live, &limits, stream, peer, end).await,
        Ok(Err(_)) | Err(_) => {}
    }
}

async fn open(tls: Option<&tls::listener::Listener>, stream: BoxStream) -> io::Result<(Sniffed, Version)> {
    let Some(tls) = tls else { return sniff(stream).await };
    let (stream, is_http2) = tls.accept(stream).await?;
    let (stream, version) = sniff(stream).await?;
    if is_http2 && version != Version::Http2 {
        return Err(io::Error::other("HTTP/2 was agreed on, and another protocol came"));
    }
    Ok((stream, version))
}

/// Reads until it is certain which version this is: in HTTP/1 that is the first or second byte.
async fn sniff(mut stream: BoxStream) -> io::Result<(Sniffed, Version)> {
    let (mut head, mut len) = ([0; PREFACE.len()], 0);
    while len < head.len() && head[..len] == PREFACE[..len] {
        match stream.read(&mut head[len..]).await? {
            0 => break,
            n => len += n,
        }
    }
    let version = if head == *PREFACE { Version::Http2 } else { Version::Http1 };
    Ok((Sniffed { head, given: 0, len, stream, refused: Arc::default(), linger: None }, version))
}

async fn http1(live: &Arc<Live>, limits: &Limits, stream: Sniffed, peer: SocketAddr, mut end: End) {
    let has_begun = Arc::new(AtomicBool::new(false));
    let service = {
        let (live, stop, has_begun) = (live.clone(), end.stop.clone(), has_begun.clone());
        let refused = stream.refused.clone();
        service_fn(move |request| {
            has_begun.store(true, Ordering::Relaxed);
            let (live, stop, refused) = (live.clone(), stop.clone(), refused.clone());
            async move {
                let answer = serve::answer(live, request, peer.ip(), stop).await;
                refused
                    .store(answer.headers().get(header::CONNECTION).is_some_and(|v| v == "close"), Ordering::Relaxed);
                Ok::<_, Infallible>(answer)
            }
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.read_timeout)
        .max_buf_size(limits.head_bytes.max(8_192))
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = raised(&mut end.drain) => {}
    }
    // hyper closes a connection at once on which no request has begun; one that was just opened still brings its own.
    if !has_begun.load(Ordering::Relaxed) && timeout(HELLO_GRACE, connection.as_mut()).await.is_ok() {
        return;
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection => {}
        () = stopped(&mut end) => {}
    }
}

async fn http2(live: &Arc<Live>, limits: &Limits, stream: Sniffed, peer: SocketAddr, mut end: End) {
    let activity = Arc::new(Activity::default());
    let service = {
        let (live, stop, activity) = (live.clone(), end.stop.clone(), activity.clone());
        service_fn(move |request: Request<Incoming>| {
            let (live, stop, open) = (live.clone(), stop.clone(), activity.begin());
            async move {
                let answer: Response<Answer> = serve::answer(live, request, peer.ip(), stop).await;
                Ok::<_, Infallible>(answer.map(|body| Counted::new(body, open)))
            }
        })
    };
    let connection = http2::Builder::new(Streams { patience: limits.write_timeout })
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAMS * STREAM_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(MISTAKES)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let grace = tokio::select! {
        _ = connection.as_mut() => return,
        () = activity.is_abused() => return,
        () = raised(&mut end.drain) => CLOSE_GRACE,
        // What has been handed over of an answer may not have been taken yet.
        () = activity.idle_for(limits.read_timeout) => if activity.has_answered() { limits.write_timeout } else { CLOSE_GRACE },
    };
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection => {}
        () = stopped(&mut end) => {}
        // It does not even answer the goodbye.
        () = activity.idle_for(grace) => {}
    }
}

/// A connection that was taken just before still brings its request.
async fn drained(end: &mut End) {
    raised(&mut end.drain).await;
    sleep(HELLO_GRACE).await;
}

async fn stopped(end: &mut End) {
    raised(&mut end.stop).await;
    sleep(CLOSE_GRACE).await;
}

/// A stream whose first bytes have been looked at, and are given out again; and which is closed gently.
struct Sniffed {
    head: [u8; PREFACE.len()],
    given: usize,
    len: usize,
    stream: BoxStream,
    /// Its last answer was sent without regard to what the client may still be sending.
    refused: Arc<AtomicBool>,
    linger: Option<Linger>,
}

/// Its own direction is closed, and what comes is thrown away.
struct Linger {
    until: Instant,
    silence: Pin<Box<Sleep>>,
}

impl Sniffed {
    /// Ready when the client has closed its direction too, or has been waited for long enough.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let linger = self
            .linger
            .get_or_insert_with(|| Linger { until: Instant::now() + LINGER, silence: Box::pin(sleep(LINGER_SILENT)) });
        let mut scratch = [0; 4_096];
        loop {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    let until = linger.until.min(Instant::now() + LINGER_SILENT);
                    linger.silence.as_mut().reset(until);
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return linger.silence.as_mut().poll(cx),
            }
            // One that never pauses would keep this loop for itself.
            if Instant::now() >= linger.until {
                return Poll::Ready(());
            }
        }
    }
}

impl AsyncRead for Sniffed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.given == this.len {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let n = (this.len - this.given).min(buf.remaining());
        buf.put_slice(&this.head[this.given..this.given + n]);
        this.given += n;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Sniffed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        if self.refused.load(Ordering::Relaxed) {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
