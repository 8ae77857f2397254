//! The seams to the outside: connections out, connections in, and the clock.
//!
//! Boxed streams behind two small traits: TCP in production, in-memory pipes in tests, TLS later. A virtual call per
//! read costs less than a read; what it buys is that the whole data plane can be run under paused time.

use std::{
    fmt,
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use outrigger_core::{record::Fault, units::Nanos};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
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
                        return Ok(Box::new(Gathered(stream)) as BoxStream);
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

/// A connection whose short writes of several parts are put together first: for a few hundred bytes a copy costs less
/// than the kernel's own gathering.
#[derive(Debug)]
struct Gathered(TcpStream);

/// Most bytes that are put together.
const SHORT: usize = 2 << 10;

impl AsyncRead for Gathered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gathered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.0);
        let total = parts.iter().map(|part| part.len()).sum::<usize>();
        if total > SHORT {
            return stream.poll_write_vectored(cx, parts);
        }
        let mut whole = [0; SHORT];
        let mut at = 0;
        for part in parts {
            whole[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        stream.poll_write(cx, &whole[..total])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
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
            Ok((Box::new(Gathered(stream)) as BoxStream, peer))
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
