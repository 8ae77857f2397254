//! Connections to one backend: opened on demand, kept while idle, closed the moment an attempt on them is abandoned.
//!
//! Our own small pool rather than a client library's, because dispatch has to know whether a connection had been used
//! before (one that an engine closed a moment ago deserves a free second try, a fresh one does not), and because a
//! client that hangs up must reach the engine at once: dropping a [`Lease`] closes its socket.

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use outrigger_core::record::Fault;
use tokio::{
    task::AbortHandle,
    time::{Instant, timeout},
};

use crate::net::Connect;

/// Engines on uvicorn and llama.cpp close an idle connection after five seconds; leave before they do.
const MAX_IDLE: Duration = Duration::from_secs(4);
/// Idle connections kept for one backend.
const MAX_IDLE_CONNECTIONS: usize = 256;

pub struct Pool {
    connector: Arc<dyn Connect>,
    host: String,
    port: u16,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A connection for one attempt. Dropped, it closes; given back, it is kept.
pub struct Lease {
    connection: Connection,
    /// It has served another request before.
    pub reused: bool,
}

impl Lease {
    pub fn sender(&mut self) -> &mut SendRequest<Full<Bytes>> {
        &mut self.connection.sender
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("reused", &self.reused).finish_non_exhaustive()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Pool {
    pub fn new(connector: Arc<dyn Connect>, host: String, port: u16) -> Self {
        Self { connector, host, port, idle: Mutex::default() }
    }

    /// An idle connection that still looks alive, the most recently used first; else a new one.
    pub async fn lease(&self, connect_timeout: Duration) -> Result<Lease, Fault> {
        match self.take_idle() {
            Some(connection) => Ok(Lease { connection, reused: true }),
            None => self.fresh(connect_timeout).await,
        }
    }

    pub async fn fresh(&self, connect_timeout: Duration) -> Result<Lease, Fault> {
        self.fresh_at(&self.host, connect_timeout).await
    }

    /// A new connection to this host, in place of the pool's own: one of the addresses behind its name.
    pub async fn fresh_at(&self, host: &str, connect_timeout: Duration) -> Result<Lease, Fault> {
        let connect = self.connector.connect(host, self.port);
        let stream = timeout(connect_timeout, connect).await.map_err(|_| Fault::ConnectTimeout)??;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| Fault::Reset)?;
        let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Lease { connection: Connection { sender, driver }, reused: false })
    }

    /// Every address behind the pool's host.
    pub async fn addresses(&self) -> Result<Vec<IpAddr>, Fault> {
        self.connector.addresses(&self.host, self.port).await
    }

    /// Keeps a connection whose answer was read to its end.
    pub fn give_back(&self, lease: Lease) {
        if lease.connection.sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE_CONNECTIONS {
            idle.push(Idle { connection: lease.connection, since: Instant::now() });
        }
    }

    /// Closes what is idle: one pooled connection was dead, so the others are suspect.
    pub fn forget_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub fn idle_connections(&self) -> usize {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Closes connections that have been idle for too long. Called now and then, so that a backend without traffic
    /// does not hold sockets.
    pub fn close_stale(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|i| i.since.elapsed() < MAX_IDLE && !i.connection.sender.is_closed());
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(Idle { connection, since }) = idle.pop() {
            if since.elapsed() < MAX_IDLE && !connection.sender.is_closed() {
                return Some(connection);
            }
        }
        None
    }
}
