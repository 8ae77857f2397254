//! The seams to the outside: connections out, connections in, and the clock.
//!
//! Boxed streams behind two small traits: TCP in production, in-memory pipes in tests, TLS later. A virtual call per
//! read costs less than a read; what it buys is that the whole data plane can be run under paused time.

pub mod dns;

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
    task::JoinSet,
    time::{Instant, timeout},
};

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

    /// Keeps an eye on a name, and says how often it has come to mean other addresses altogether.
    fn follow(&self, _host: &str) -> u32 {
        0
    }
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
            let stream = match first_of(&addresses, port).await {
                Ok(stream) => stream,
                Err(fault) => {
                    // It may have moved, and the answer that says so is not due yet.
                    let others = dns::afresh(host).await.into_iter().filter(|address| !addresses.contains(address));
                    first_of(&others.collect::<Vec<_>>(), port).await.map_err(|_| fault)?
                }
            };
            prepare(&stream);
            Ok(Box::new(Gathered(stream)) as BoxStream)
        })
    }

    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, Fault>> {
        Box::pin(async move { dns::addresses(host).await })
    }

    fn follow(&self, host: &str) -> u32 {
        dns::follow(host)
    }
}

/// The next address is tried beside one that has not answered for so long (RFC 8305, 5).
const NEXT_AFTER: Duration = Duration::from_millis(250);

/// A connection to the first address that takes one, or what was wrong with the last.
async fn first_of(addresses: &[IpAddr], port: u16) -> Result<TcpStream, Fault> {
    if let [address] = addresses {
        return TcpStream::connect((*address, port)).await.map_err(|e| connect_fault(&e));
    }
    let mut left = addresses.iter().copied();
    let mut trying = JoinSet::new();
    let mut last = Fault::Dns;
    loop {
        match left.next() {
            Some(address) => drop(trying.spawn(TcpStream::connect((address, port)))),
            None if trying.is_empty() => return Err(last),
            None => {}
        }
        let patience = if left.len() == 0 { Duration::MAX } else { NEXT_AFTER };
        match timeout(patience, trying.join_next()).await {
            Ok(Some(Ok(Ok(stream)))) => return Ok(stream),
            Ok(Some(Ok(Err(e)))) => last = connect_fault(&e),
            // The next one's turn has come. (A task that panics is none of ours.)
            Ok(_) | Err(_) => {}
        }
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
