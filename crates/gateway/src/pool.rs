//! Connections to one backend: opened on demand, kept while idle, closed the moment an attempt on them is abandoned.
//!
//! Our own small pool rather than a client library's, because dispatch has to know whether a request can have reached
//! the engine (one that cannot deserves a free second try), and because a client that hangs up must reach the engine at
//! once: dropping a [`Lease`] closes its HTTP/1 connection, and dropping an answer of HTTP/2 resets its stream.
//!
//! Which version a backend speaks is known when a connection is open: from the fleet file in clear text, from the
//! handshake in TLS. HTTP/2 connections are shared, in [`shared`].

mod refusal;
mod shared;

use std::{
    error::Error,
    fmt,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering},
    },
    time::Duration,
};

use http::{
    Request, Response,
    uri::{Authority, Scheme},
};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use outrigger_core::{
    fleet::{HttpVersion, Reach},
    record::Fault,
};
use tokio::{
    sync::Semaphore,
    task::AbortHandle,
    time::{Instant, timeout},
};

use self::shared::{Place, Shared};
use crate::{
    body::Upload,
    net::{BoxStream, Connect},
    tls::backend::{self, Pem, Secure},
};

/// Engines on uvicorn and llama.cpp close an idle connection after five seconds; leave before they do.
const MAX_IDLE: Duration = Duration::from_secs(4);
/// Idle connections kept for one backend.
const MAX_IDLE_CONNECTIONS: usize = 256;

/// The most that is read at once, which is also the largest response head. A stream that its client does not read holds
/// a few of these.
const MAX_READ: usize = 16 << 10;

/// Where a pool's connections go, and how.
#[derive(Clone, Debug)]
pub struct Target {
    pub scheme: Scheme,
    pub authority: Authority,
    /// Present where the scheme is https.
    pub secure: Option<Secure>,
    pub http: HttpVersion,
    /// HTTP/2 connections to spread requests over before one is shared: a load balancer chooses an engine for each
    /// connection and not for each request.
    pub spread: usize,
}

impl Target {
    /// What a URL by itself says: no authority but the machine's, no client certificate, and the version that both
    /// agree on.
    pub fn plain(uri: &http::Uri) -> Result<Self, String> {
        Self::new(uri, &Reach::default(), &Pem::default(), 1)
    }

    pub fn new(uri: &http::Uri, reach: &Reach, pem: &Pem, spread: usize) -> Result<Self, String> {
        let (Some(scheme), Some(authority)) = (uri.scheme().cloned(), uri.authority().cloned()) else {
            return Err("its url has no host".to_owned());
        };
        let host = authority.host().trim_matches(['[', ']']);
        let secure = (scheme == Scheme::HTTPS).then(|| Secure::new(host, reach.http, pem)).transpose()?;
        Ok(Self { scheme, authority, secure, http: reach.http, spread })
    }

    fn host(&self) -> &str {
        self.authority.host().trim_matches(['[', ']'])
    }

    fn port(&self) -> u16 {
        let default = if self.scheme == Scheme::HTTPS { 443 } else { 80 };
        self.authority.port_u16().unwrap_or(default)
    }
}

pub struct Pool {
    connector: Arc<dyn Connect>,
    target: Target,
    idle: Mutex<Vec<Idle>>,
    shared: Mutex<Vec<Arc<Shared>>>,
    /// The last connection that was opened speaks HTTP/2, so that it pays to wait for one that is being opened.
    speaks_http2: AtomicBool,
    opening: Semaphore,
    trouble: Mutex<Trouble>,
    /// How often the host's name has moved, as far as is known. A connection from before that is left.
    moves: AtomicU32,
    /// When the certificate ends that the backend showed last, in seconds since the Unix epoch; 0 before any.
    certificate_ends: AtomicI64,
}

/// Why TLS failed last, and whether that has been said.
#[derive(Default)]
struct Trouble {
    why: String,
    is_said: bool,
}

struct Idle {
    connection: Connection,
    since: Instant,
    moves: u32,
}

struct Connection {
    sender: SendRequest<Upload>,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

enum Kind {
    Http1(Connection),
    Http2(Place),
}

/// A connection for one attempt, or a place on one. Dropped, it closes; given back, it is kept.
pub struct Lease {
    kind: Kind,
    reused: bool,
    /// The pool's, when the connection was opened.
    moves: u32,
}

/// A request that got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    pub fault: Fault,
    /// It was not begun: it was never sent, the backend says so, or the connection had been closed before it came.
    pub was_not_begun: bool,
}

impl From<Lost> for Fault {
    fn from(lost: Lost) -> Self {
        lost.fault
    }
}

impl Lease {
    /// Sends a request with an origin-form URI and a `Host`, and waits for the head of its answer.
    pub async fn send(&mut self, request: Request<Upload>) -> Result<Response<Incoming>, Lost> {
        let connection = match &mut self.kind {
            Kind::Http1(connection) => connection,
            Kind::Http2(place) => return place.send(request).await,
        };
        let sent = match connection.sender.ready().await {
            Ok(()) => connection.sender.send_request(request).await,
            Err(e) => Err(e),
        };
        sent.map_err(|e| {
            let fault = if e.is_parse() { Fault::BadBody } else { fault_of(&e) };
            Lost { fault, was_not_begun: self.reused && fault == Fault::Reset }
        })
    }
}

/// What the death of a connection says.
fn fault_of(e: &(dyn Error + 'static)) -> Fault {
    if backend::cause(e).is_some() { Fault::Tls } else { Fault::Reset }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("reused", &self.reused).finish_non_exhaustive()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Pool {
    pub fn new(connector: Arc<dyn Connect>, target: Target) -> Self {
        let speaks_http2 = AtomicBool::new(target.http == HttpVersion::Http2);
        Self {
            connector,
            target,
            idle: Mutex::default(),
            shared: Mutex::default(),
            speaks_http2,
            opening: Semaphore::new(1),
            trouble: Mutex::default(),
            moves: AtomicU32::new(0),
            certificate_ends: AtomicI64::new(0),
        }
    }

    /// A connection that still looks alive and has room, else a new one.
    pub async fn lease(&self, connect_timeout: Duration) -> Result<Lease, Fault> {
        match self.take_shared(None).or_else(|| self.take_idle()) {
            Some(lease) => Ok(lease),
            None => self.newer(None, connect_timeout).await,
        }
    }

    /// A connection that was opened after this moment, or now. Of many who need one at once, one opens it and the others
    /// share it, if it can be shared.
    pub async fn newer(&self, than: Option<Instant>, connect_timeout: Duration) -> Result<Lease, Fault> {
        if !self.speaks_http2() {
            return self.open(connect_timeout).await;
        }
        let opened = async {
            let _turn = self.opening.acquire().await.map_err(|_| Fault::Local)?;
            match self.take_shared(than) {
                Some(lease) => Ok(lease),
                None => self.open(connect_timeout).await,
            }
        };
        timeout(connect_timeout, opened).await.map_err(|_| Fault::ConnectTimeout)?
    }

    fn speaks_http2(&self) -> bool {
        self.speaks_http2.load(Ordering::Relaxed)
    }

    /// A new connection, which others may share if it can be shared.
    async fn open(&self, connect_timeout: Duration) -> Result<Lease, Fault> {
        let lease = self.fresh(connect_timeout).await?;
        if let Kind::Http2(place) = &lease.kind {
            locked(&self.shared).push(place.shared());
        }
        Ok(lease)
    }

    /// A new connection for this caller alone.
    pub async fn fresh(&self, connect_timeout: Duration) -> Result<Lease, Fault> {
        self.fresh_at(self.target.host(), connect_timeout).await
    }

    /// A new connection to this host, in place of the pool's own: one of the addresses behind its name.
    pub async fn fresh_at(&self, host: &str, connect_timeout: Duration) -> Result<Lease, Fault> {
        let moves = self.moves.load(Ordering::Relaxed);
        let connected = timeout(connect_timeout, self.connect(host));
        let (stream, is_http2) = connected.await.map_err(|_| Fault::ConnectTimeout)??;
        self.speaks_http2.store(is_http2, Ordering::Relaxed);
        let kind = if is_http2 {
            Kind::Http2(Shared::start(stream, &self.target).await?.enter())
        } else {
            Kind::Http1(http1_on(stream).await?)
        };
        Ok(Lease { kind, reused: false, moves })
    }

    async fn connect(&self, host: &str) -> Result<(BoxStream, bool), Fault> {
        let stream = self.connector.connect(host, self.target.port()).await?;
        let Some(secure) = &self.target.secure else {
            return Ok((stream, self.target.http == HttpVersion::Http2));
        };
        let secured = secure.connect(stream).await;
        let mut trouble = locked(&self.trouble);
        let why = secured.as_ref().err().map(backend::words).unwrap_or_default();
        if trouble.why != why {
            *trouble = Trouble { why, is_said: false };
        }
        // A connection that died is no evidence against the certificate.
        let secured = secured.map_err(|e| if backend::is_refusal(&e) { Fault::Tls } else { Fault::Reset })?;
        self.certificate_ends.store(secured.certificate_ends.unwrap_or(0), Ordering::Relaxed);
        Ok((secured.stream, secured.is_http2))
    }

    /// When the certificate ends that the backend showed last, in seconds since the Unix epoch.
    pub fn certificate_ends(&self) -> Option<i64> {
        Some(self.certificate_ends.load(Ordering::Relaxed)).filter(|at| *at != 0)
    }

    /// Why TLS fails, if it does and has not been asked for yet.
    pub fn new_trouble(&self) -> Option<String> {
        let mut trouble = locked(&self.trouble);
        if trouble.is_said || trouble.why.is_empty() {
            return None;
        }
        trouble.is_said = true;
        Some(trouble.why.clone())
    }

    /// Every address behind the pool's host.
    pub async fn addresses(&self) -> Result<Vec<IpAddr>, Fault> {
        self.connector.addresses(self.target.host()).await
    }

    /// Keeps a connection whose answer was read to its end.
    pub fn give_back(&self, lease: Lease) {
        let Kind::Http1(connection) = lease.kind else { return };
        if connection.sender.is_closed() || lease.moves != self.moves.load(Ordering::Relaxed) {
            return;
        }
        let mut idle = locked(&self.idle);
        if idle.len() < MAX_IDLE_CONNECTIONS {
            idle.push(Idle { connection, since: Instant::now(), moves: lease.moves });
        }
    }

    /// Closes what is idle: a pooled connection was dead to a request that began then, so the others are suspect. One that others have
    /// opened and share since is not.
    pub fn forget_idle(&self, began: Instant) {
        locked(&self.idle).clear();
        locked(&self.shared).retain(|shared| shared.is_busy() || shared.opened >= began);
    }

    pub fn idle_connections(&self) -> usize {
        locked(&self.idle).len() + locked(&self.shared).iter().filter(|shared| !shared.is_busy()).count()
    }

    /// Closes connections that have been idle for too long, and leaves those to where the backend was before it moved.
    /// Called now and then, so that a backend without traffic does not hold sockets.
    pub fn close_stale(&self) {
        let moves = self.connector.follow(self.target.host());
        if self.moves.swap(moves, Ordering::Relaxed) != moves {
            locked(&self.idle).clear();
            for shared in locked(&self.shared).drain(..) {
                shared.retire();
            }
        }
        locked(&self.idle).retain(|i| i.since.elapsed() < MAX_IDLE && !i.connection.sender.is_closed());
        locked(&self.shared).retain(|shared| shared.is_usable());
    }

    /// The most recently used one.
    fn take_idle(&self) -> Option<Lease> {
        let mut idle = locked(&self.idle);
        while let Some(Idle { connection, since, moves }) = idle.pop() {
            let is_current = moves == self.moves.load(Ordering::Relaxed);
            if is_current && since.elapsed() < MAX_IDLE && !connection.sender.is_closed() {
                return Some(Lease { kind: Kind::Http1(connection), reused: true, moves });
            }
        }
        None
    }

    /// A place on the connection with the fewest requests, if it has room and there are as many as there should be.
    fn take_shared(&self, newer_than: Option<Instant>) -> Option<Lease> {
        if !self.speaks_http2() {
            return None;
        }
        let mut all = locked(&self.shared);
        all.retain(|shared| shared.is_usable());
        let is_new = |shared: &&Arc<Shared>| newer_than.is_none_or(|than| shared.opened >= than);
        let least = all.iter().filter(is_new).min_by_key(|shared| shared.open())?;
        let may_share = !least.is_busy() || all.len() >= self.target.spread;
        let place = (may_share && least.has_room()).then(|| least.clone().enter())?;
        Some(Lease { kind: Kind::Http2(place), reused: true, moves: self.moves.load(Ordering::Relaxed) })
    }
}

async fn http1_on(stream: BoxStream) -> Result<Connection, Fault> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_READ);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|_| Fault::Reset)?;
    let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
    Ok(Connection { sender, driver })
}

fn locked<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use tokio::io::{DuplexStream, duplex};

    use super::*;

    type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

    /// Connections to nobody, whose other ends are kept.
    #[derive(Debug, Default)]
    struct Pipes(Mutex<Vec<DuplexStream>>);

    impl Connect for Pipes {
        fn connect<'a>(&'a self, _host: &'a str, _port: u16) -> BoxFuture<'a, Result<BoxStream, Fault>> {
            let (near, far) = duplex(1 << 20);
            locked(&self.0).push(far);
            Box::pin(async { Ok(Box::new(near) as BoxStream) })
        }

        fn addresses<'a>(&'a self, _host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, Fault>> {
            Box::pin(async { Err(Fault::Dns) })
        }
    }

    /// Of many whose connection is taken away, the last to hear of it may find that the others are done on a new one.
    #[tokio::test(start_paused = true)]
    async fn what_was_opened_after_a_lost_request_began_is_not_suspect() {
        let mut target = Target::plain(&"http://b".parse().unwrap()).unwrap();
        target.http = HttpVersion::Http2;
        let (pipes, second) = (Arc::new(Pipes::default()), Duration::from_secs(1));
        let pool = Pool::new(pipes.clone(), target);
        drop(pool.lease(second).await.unwrap());
        tokio::time::advance(second).await;
        let began = Instant::now();
        for _ in 0..3 {
            pool.forget_idle(began);
            drop(pool.newer(Some(began), second).await.unwrap());
        }
        assert_eq!((locked(&pipes.0).len(), pool.idle_connections()), (2, 1));
        pool.forget_idle(began + second);
        assert_eq!(pool.idle_connections(), 0, "and what was there before is");
    }
}
