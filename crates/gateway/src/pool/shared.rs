//! One HTTP/2 connection to a backend, shared by requests.
//!
//! A request that the backend says it did not begin (a refused stream, or one above the last that a GOAWAY names) or
//! that never left here is told apart from one that died: it costs nobody anything to send it again. The backend says
//! how many streams it takes at once; more than [`STREAMS`] are never put on one connection, because what breaks it
//! breaks them all.
//!
//! Edges: until the backend's settings have come, hyper takes 100 to be its bound; what is above waits inside the
//! connection. The window of the connection is as large as those of all its streams, so that a client who reads slowly
//! stops its own stream and no other.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{
    Request, Response, Uri, Version, header,
    uri::{Authority, Parts, Scheme},
};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use outrigger_core::record::Fault;
use tokio::{task::AbortHandle, time::Instant};

use super::{
    Lost, Target, fault_of,
    refusal::{Heard, Refusal},
};
use crate::{body::Upload, net::BoxStream};

/// Requests on one connection.
const STREAMS: usize = 100;
/// Bytes of one answer that may come before they are read.
const STREAM_WINDOW: u32 = 128 << 10;
/// Bytes of one request that wait to be sent.
const SEND_BUFFER: usize = 256 << 10;
/// Longest list of headers of an answer.
const HEADERS: u32 = 64 << 10;
/// A connection that does not answer a PING is dead, and so are its streams.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// PINGs tell whether an idle connection lives, so that it need not be given up early.
const MAX_IDLE: Duration = Duration::from_mins(1);

pub(super) struct Shared {
    sender: SendRequest<Upload>,
    scheme: Scheme,
    authority: Authority,
    pub(super) opened: Instant,
    open: AtomicUsize,
    /// Streams that the backend takes at once, as far as it has said so.
    limit: Arc<AtomicUsize>,
    /// It takes no new requests; those on it go on.
    is_over: AtomicBool,
    idle_since: Mutex<Instant>,
    refusal: Refusal,
    driver: AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Shared {
    pub(super) async fn start(stream: BoxStream, target: &Target) -> Result<Arc<Self>, Fault> {
        let refusal = Refusal::default();
        let stream = Heard { stream, refusal: refusal.clone() };
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAMS as u32 * STREAM_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(HEADERS)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| fault_of(&e))?;
        let limit = Arc::new(AtomicUsize::new(STREAMS));
        let seen = limit.clone();
        let driver = tokio::spawn(async move {
            let mut connection = std::pin::pin!(connection);
            let drive = std::future::poll_fn(|cx| {
                let polled = connection.as_mut().poll(cx);
                seen.store(connection.current_max_send_streams().min(STREAMS), Ordering::Relaxed);
                polled
            });
            drop(drive.await);
        });
        Ok(Arc::new(Self {
            sender,
            scheme: target.scheme.clone(),
            authority: target.authority.clone(),
            opened: Instant::now(),
            open: AtomicUsize::new(0),
            limit,
            is_over: AtomicBool::new(false),
            idle_since: Mutex::new(Instant::now()),
            refusal,
            driver: driver.abort_handle(),
        }))
    }

    pub(super) fn enter(self: Arc<Self>) -> Place {
        self.open.fetch_add(1, Ordering::Relaxed);
        Place(self)
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.open() > 0
    }

    pub(super) fn has_room(&self) -> bool {
        self.open() < self.limit.load(Ordering::Relaxed)
    }

    /// It is to take no new requests; those on it go on.
    pub(super) fn retire(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_usable(&self) -> bool {
        let is_idle_for = || self.idle_since.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        !self.is_over.load(Ordering::Relaxed)
            && !self.sender.is_closed()
            && (self.is_busy() || is_idle_for() < MAX_IDLE)
    }
}

/// One request's place on a connection.
pub(super) struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Place {
    pub(super) fn shared(&self) -> Arc<Shared> {
        self.0.clone()
    }

    /// Dropping the future, or the body that comes of it, resets the stream: the backend stops working on it.
    pub(super) async fn send(&self, request: Request<Upload>) -> Result<Response<Incoming>, Lost> {
        let request = self.translated(request);
        let sent = self.0.sender.clone().try_send_request(request).await;
        sent.map_err(|mut e| {
            let never_left = e.take_message().is_some();
            self.lost(e.error(), never_left)
        })
    }

    /// The request as HTTP/2 has it: the host in the URI, and no headers about the connection.
    fn translated(&self, mut request: Request<Upload>) -> Request<Upload> {
        let mut parts = Parts::default();
        parts.scheme = Some(self.0.scheme.clone());
        parts.authority = Some(self.0.authority.clone());
        parts.path_and_query = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from_parts(parts).expect("a scheme, an authority and a path make a URI");
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(header::HOST);
        request.headers_mut().remove(header::CONNECTION);
        request
    }

    fn lost(&self, e: &hyper::Error, never_left: bool) -> Lost {
        let h2 = h2_error(e);
        let went_away = h2.is_some_and(|h2| h2.is_go_away() && h2.is_remote());
        let refused = h2.is_some_and(|h2| h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM));
        // What h2 itself found wrong with what came: most often an HTTP/1 server.
        let is_nonsense = h2.is_some_and(h2::Error::is_library);
        if never_left || went_away || refused || is_nonsense {
            self.0.is_over.store(true, Ordering::Relaxed);
        }
        let fault = match () {
            () if self.0.refusal.has_come() => Fault::Tls,
            () if is_nonsense => Fault::BadBody,
            () => fault_of(e),
        };
        Lost { fault, was_not_begun: (never_left || went_away || refused) && fault == Fault::Reset }
    }
}

fn h2_error(e: &hyper::Error) -> Option<&h2::Error> {
    let mut next = std::error::Error::source(e);
    while let Some(e) = next {
        if let Some(h2) = e.downcast_ref() {
            return Some(h2);
        }
        next = e.source();
    }
    None
}
