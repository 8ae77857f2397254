//! The listener and its connections, and the faults that act on them.
//!
//! A closed listener keeps its port: a bound socket that does not listen takes its place, which refuses connects like
//! a dead process but lets nobody else have the port. A black hole is a listener with an accept queue of zero that is
//! filled with connections of our own, so that the kernel drops every further SYN; clients that connected just before
//! simply never get an answer. Idle keep-alive connections are closed after 5 s, as uvicorn does. What a connection
//! speaks, HTTP/1.1 or HTTP/2, is known by its first bytes in clear text, and in TLS by what was agreed on.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use hyper::{
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    Shared,
    conn::{BreakableStream, Line, Parting},
    faults::{FaultKind, Network},
    routes,
    tls::Secured,
};

const BACKLOG: i32 = 1024;
const IDLE: Duration = Duration::from_secs(5);
/// A connect on loopback is immediate, so one that takes this long has been dropped.
const FILLED: Duration = Duration::from_millis(100);
/// How long an idle client of HTTP/2 may take to answer GOAWAY.
const FAREWELL: Duration = Duration::from_millis(500);

pub(crate) fn bind(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = reserve(at)?;
    listen(socket)
}

fn reserve(at: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    Ok(socket)
}

fn listen(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Runs until it is aborted; with it end all its connections.
pub(crate) async fn run(shared: Arc<Shared>, listener: TcpListener, at: SocketAddr) {
    let mut network = shared.network.subscribe();
    let mut connections = JoinSet::new();
    let mut door = Door::Open(listener);
    loop {
        let wanted = *network.borrow_and_update();
        door = door.turn(wanted, at).await;
        shared.applied.send_replace(wanted);
        while !network.has_changed().unwrap_or(true) {
            tokio::select! {
                changed = network.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                tcp = door.accept() => {
                    connections.spawn(serve(shared.clone(), tcp));
                }
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
            }
        }
    }
}

enum Door {
    Open(TcpListener),
    /// Holds the port. None: it was lost to somebody else in the moment of closing.
    Refusing(Option<Socket>),
    Blackholed {
        listener: TcpListener,
        _fillers: Vec<TcpStream>,
    },
}

impl Door {
    async fn turn(self, wanted: Network, at: SocketAddr) -> Self {
        match (wanted, self) {
            (Network::Open, door @ Self::Open(_))
            | (Network::Refusing, door @ Self::Refusing(_))
            | (Network::Blackholed, door @ Self::Blackholed { .. }) => door,
            (Network::Open, door) => Self::Open(door.open(at).await),
            (Network::Refusing, door) => {
                drop(door);
                Self::Refusing(reserve(at).ok())
            }
            (Network::Blackholed, door) => Self::black_hole(door.open(at).await, at).await,
        }
    }

    async fn open(self, at: SocketAddr) -> TcpListener {
        match self {
            Self::Open(listener) => listener,
            Self::Blackholed { listener, .. } => {
                // It can only fail for a socket that is not a listener.
                let _ = SockRef::from(&listener).listen(BACKLOG);
                listener
            }
            Self::Refusing(mut reserved) => loop {
                if let Some(listener) = reserved.take().and_then(|s| listen(s).ok()) {
                    return listener;
                }
                sleep(Duration::from_millis(20)).await;
                reserved = reserve(at).ok();
            },
        }
    }

    async fn black_hole(listener: TcpListener, at: SocketAddr) -> Self {
        let _ = SockRef::from(&listener).listen(0);
        let mut fillers = Vec::new();
        while let Ok(Ok(filler)) = timeout(FILLED, TcpStream::connect(at)).await {
            fillers.push(filler);
        }
        Self::Blackholed { listener, _fillers: fillers }
    }

    async fn accept(&self) -> TcpStream {
        let Self::Open(listener) = self else { return std::future::pending().await };
        loop {
            match listener.accept().await {
                Ok((tcp, _)) => return tcp,
                // Out of file descriptors, or the client gave up: neither is cured by trying faster.
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    }
}

async fn serve(shared: Arc<Shared>, tcp: TcpStream) {
    // Tokens are small packets; an error here only delays them.
    let _ = tcp.set_nodelay(true);
    let count = shared.book.connected();
    let line = Arc::new(Line::new(count.number()));
    let mut network = shared.network.subscribe();
    let stream = BreakableStream::new(tcp, line.clone());
    let mut connection = pin!(speak(shared, line.clone(), stream));
    while reachable(&mut network, &line).await {
        tokio::select! {
            biased;
            _ = network.changed() => {}
            () = line.over() => return,
            () = connection.as_mut() => return,
        }
    }
}

/// Waits out a black hole, in which the connection is not polled: nothing is read or written. False: it is reset.
async fn reachable(network: &mut watch::Receiver<Network>, line: &Line) -> bool {
    let Ok(state) = network.wait_for(|n| *n != Network::Blackholed).await.map(|n| *n) else { return false };
    if state == Network::Refusing {
        line.close(Parting::reset_after(b""));
    }
    state == Network::Open
}

/// What hyper speaks on: a connection in clear text, or inside TLS.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Wire for T {}

/// How a connection ends is its client's business; only its requests are recorded.
async fn speak(shared: Arc<Shared>, line: Arc<Line>, mut stream: BreakableStream) {
    match shared.faults.greeting() {
        Some(FaultKind::HelloCut) => return stream.hear().await,
        Some(_) => return stream.swallow().await,
        None => {}
    }
    if let Some(acceptor) = shared.tls.acceptor() {
        return match timeout(IDLE, Secured::accept(acceptor, stream)).await {
            Ok(Ok(stream)) if stream.agreed_on_http2() => speak_http2(shared, line, stream).await,
            Ok(Ok(stream)) => speak_http1(shared, line, stream).await,
            Ok(Err(_)) | Err(_) => {}
        };
    }
    match timeout(IDLE, stream.speaks_http2()).await {
        Ok(Ok(true)) => speak_http2(shared, line, stream).await,
        Ok(Ok(false)) => speak_http1(shared, line, stream).await,
        Ok(Err(_)) | Err(_) => {}
    }
}

async fn speak_http1(shared: Arc<Shared>, line: Arc<Line>, stream: impl Wire) {
    let service = service_fn(|request| routes::answer(shared.clone(), line.clone(), request));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE);
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

async fn speak_http2(shared: Arc<Shared>, line: Arc<Line>, stream: impl Wire) {
    line.set_http2();
    let streams = Streams::default();
    let service = service_fn(|request| routes::answer(shared.clone(), line.clone(), request));
    let http = http2::Builder::new(streams.spawner());
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = line.retired() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
            return;
        }
        () = line.idle(IDLE) => connection.as_mut().graceful_shutdown(),
    }
    let _ = timeout(FAREWELL, connection).await;
}

/// The tasks of one connection's streams, which end with it.
#[derive(Debug, Default)]
struct Streams(Arc<Mutex<JoinSet<()>>>);

/// Weak, since each stream's task holds one.
#[derive(Clone, Debug)]
struct StreamSpawner(Weak<Mutex<JoinSet<()>>>);

impl Streams {
    fn spawner(&self) -> StreamSpawner {
        StreamSpawner(Arc::downgrade(&self.0))
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for StreamSpawner {
    fn execute(&self, stream: F) {
        let Some(tasks) = self.0.upgrade() else { return };
        let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(stream);
    }
}
