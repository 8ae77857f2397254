//! A long way: a TCP relay that hands each byte on a fixed time after it came, and does not limit how many are on the way.
//!
//! What was read waits in a queue with the time at which it is due, so that a delay costs memory (rate times delay) and no
//! throughput, as on a real line; the queue's bound is far above that. It needs no rights, where the kernel's own (`netem`) does.
//! What it does not show: the slow start and the losses of a real line, since both ends speak TCP with a neighbour.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex, mpsc},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until},
};

const PIECE: usize = 256 << 10;
/// Of one connection in one direction: 64 MiB, which at 80 ms are 800 MiB a second.
const PIECES: usize = 256;

#[derive(Clone, Copy, Debug)]
pub struct RelayOptions {
    pub listen: SocketAddr,
    pub to: SocketAddr,
    /// Each way: a round trip is twice as long.
    pub delay: Duration,
    /// Of all connections together, each way.
    pub bytes_per_second: Option<u64>,
}

/// One running relay. Dropping it stops it at once, with every connection.
#[derive(Debug)]
pub struct Relay {
    listen: SocketAddr,
    task: JoinHandle<()>,
}

impl Relay {
    #[expect(clippy::unused_async, reason = "it needs a runtime, and a future says so to every caller")]
    pub async fn spawn(options: RelayOptions) -> io::Result<Self> {
        let listener = crate::server::bind(options.listen)?;
        Ok(Self { listen: listener.local_addr()?, task: tokio::spawn(run(listener, options)) })
    }

    pub fn listen_addr(&self) -> SocketAddr {
        self.listen
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(listener: TcpListener, options: RelayOptions) {
    let lanes = [Arc::new(Lane::new(options)), Arc::new(Lane::new(options))];
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((tcp, _)) = accepted {
                connections.spawn(carry(tcp, options, lanes.clone()));
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// All that goes in one direction.
#[derive(Debug)]
struct Lane {
    delay: Duration,
    bytes_per_second: Option<u64>,
    /// When the line is free for the next piece.
    free: Mutex<Instant>,
}

impl Lane {
    fn new(options: RelayOptions) -> Self {
        Self { delay: options.delay, bytes_per_second: options.bytes_per_second, free: Mutex::new(Instant::now()) }
    }

    /// Waits for its turn on the line; when a piece that begins now has come through.
    async fn due(&self, bytes: usize) -> Instant {
        let now = Instant::now();
        let Some(rate) = self.bytes_per_second else { return now + self.delay };
        let mut free = self.free.lock().await;
        *free = (*free).max(now) + Duration::from_secs_f64(bytes as f64 / rate as f64);
        let through = *free;
        drop(free);
        sleep_until(through).await;
        through + self.delay
    }
}

async fn carry(near: TcpStream, options: RelayOptions, [there, back]: [Arc<Lane>; 2]) {
    // A connection takes a round trip: the first byte can leave only when the answer to it has come back.
    tokio::time::sleep(options.delay * 2).await;
    let Ok(far) = TcpStream::connect(options.to).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    tokio::join!(one_way(near_in, far_out, there), one_way(far_in, near_out, back));
}

async fn one_way(from: OwnedReadHalf, to: OwnedWriteHalf, lane: Arc<Lane>) {
    let (sender, receiver) = mpsc::channel(PIECES);
    tokio::join!(take(from, sender, lane), give(to, receiver));
}

async fn take(mut from: OwnedReadHalf, queue: mpsc::Sender<(Instant, BytesMut)>, lane: Arc<Lane>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(came) => {
                let due = lane.due(came).await;
                if queue.send((due, buffer.split())).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn give(mut to: OwnedWriteHalf, mut queue: mpsc::Receiver<(Instant, BytesMut)>) {
    while let Some((due, piece)) = queue.recv().await {
        sleep_until(due).await;
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
