//! The seams to the outside: connections out, connections in, and the clock.
//!
//! Boxed streams behind two small traits: TCP in production, in-memory pipes in tests, TLS later. A virtual call per
//! read costs less than a read; what it buys is that the whole data plane can be run under paused time.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    time::{Duration, SystemTime},
};

use outrigger_core::{record::Fault, units::Nanos};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use crate::dns;

/// A connection in either direction.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub type BoxStream = Box<dyn Stream>;
type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Opens connections to backends.
pub trait Connect: Send + Sync + fmt::Debug {
    /// Fails with what the failure says about the backend. The caller bounds the time.
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, Result<BoxStream, Fault>>;

    /// Every address behind a name. The caller bounds the time.
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, Fault>>;
}

/// Accepts connections from clients.
pub trait Accept: Send + Sync + fmt::Debug {
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>>;
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

/// Unacknowledged bytes for this long mean that the other side is gone, whatever the kernel's own patience.
const USER_TIMEOUT: Duration = Duration::from_secs(10);

impl Connect for Tcp {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, Result<BoxStream, Fault>> {
        Box::pin(async move {
            let addresses = dns::addresses(host).await?;
            let mut last = Fault::Dns;
            for address in addresses {
                match TcpStream::connect((address, port)).await {
                    Ok(stream) => {
                        prepare(&stream);
                        return Ok(Box::new(stream) as BoxStream);
                    }
                    Err(e) => last = connect_fault(&e),
                }
            }
            Err(last)
        })
    }

    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, Fault>> {
        Box::pin(async move { dns::addresses(host).await })
    }
}

/// Small writes must not wait for acknowledgements (a 40 ms stall per token otherwise), and death must be noticed.
fn prepare(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    // Best effort: a platform that lacks one of these options still works, with slower detection.
    drop(socket.set_tcp_nodelay(true));
    drop(socket.set_tcp_user_timeout(Some(USER_TIMEOUT)));
}

fn connect_fault(e: &io::Error) -> Fault {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    match (e.kind(), e.raw_os_error()) {
        (io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory, _) | (_, Some(EMFILE | ENFILE)) => Fault::Local,
        (io::ErrorKind::TimedOut, _) => Fault::ConnectTimeout,
        (io::ErrorKind::ConnectionReset, _) => Fault::Reset,
        _ => Fault::Refused,
    }
}

impl Accept for TcpListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>> {
        Box::pin(async move {
            let (stream, peer) = Self::accept(self).await?;
            prepare(&stream);
            Ok((Box::new(stream) as BoxStream, peer))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }
}

/// The time as the core wants it: integer nanoseconds since the Unix epoch that never go back.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    started_unix: Duration,
}

impl Clock {
    pub fn start() -> Self {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), started_unix: unix }
    }

    pub fn now(&self) -> Nanos {
        Nanos(0) + self.started_unix + self.started.elapsed()
    }

    /// The moment at which [`Self::now`] will read `at`.
    pub fn instant(&self, at: Nanos) -> Instant {
        self.started + at.since(Nanos(0) + self.started_unix)
    }
}
