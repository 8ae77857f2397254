//! A TCP connection that can be broken on purpose, below hyper.
//!
//! hyper can end a response early, but it can neither send a reset nor stop in the middle of a chunk or a frame. Both
//! are done here, when the socket is closed: a line that is over writes its parting bytes, and closes either with a
//! linger of zero, which makes the kernel send RST, or with FIN. What the client has not read yet is lost only after a
//! reset, and only if it is still in the fake's own send buffer.
//!
//! Over HTTP/2 a request that breaks off ends its own stream (hyper resets it when a service or a body fails), and the
//! line only where the fault is said to take the whole connection.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};

use crate::body::BrokenOff;

/// As much of HTTP/2's preface as no request of HTTP/1.1 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// What a connection's last bytes are, and how it is closed after them.
#[derive(Debug, Default)]
pub(crate) struct Parting {
    pub(crate) bytes: Vec<u8>,
    reset: bool,
    /// Inside TLS, `close_notify` says that this was all.
    pub(crate) says_so: bool,
}

impl Parting {
    pub(crate) fn reset_after(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), reset: true, says_so: false }
    }

    /// Closed by FIN, as the kernel does for a process that ends.
    pub(crate) fn close_after(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), reset: false, says_so: false }
    }

    /// Closed as by somebody who has said all.
    pub(crate) fn end_with(bytes: Vec<u8>) -> Self {
        Self { bytes, reset: false, says_so: true }
    }
}

/// What becomes of a connection; it only ever goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Course {
    On,
    /// What runs is finished, and nothing new is taken.
    Retiring,
    Over,
}

/// The handle by which a request acts on the connection it came on.
#[derive(Debug)]
pub(crate) struct Line {
    /// From 1, in order of arrival.
    pub(crate) number: u64,
    http2: AtomicBool,
    requests: AtomicU64,
    unanswered: watch::Sender<usize>,
    course: watch::Sender<Course>,
    parting: OnceLock<Parting>,
}

/// One request that has not been answered to its end.
#[derive(Debug)]
pub(crate) struct Unanswered(Arc<Line>);

impl Line {
    pub(crate) fn new(number: u64) -> Self {
        Self {
            number,
            http2: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            unanswered: watch::Sender::new(0),
            course: watch::Sender::new(Course::On),
            parting: OnceLock::new(),
        }
    }

    /// Counts a request, of any path. True if it is the first on this connection.
    pub(crate) fn request(self: &Arc<Self>) -> (Unanswered, bool) {
        self.unanswered.send_modify(|n| *n += 1);
        (Unanswered(self.clone()), self.requests.fetch_add(1, Ordering::Relaxed) == 0)
    }

    pub(crate) fn set_http2(&self) {
        self.http2.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Relaxed)
    }

    /// Ends one request without the rest of its answer: over HTTP/2 by what is to be returned to hyper, which resets
    /// the stream; over HTTP/1.1 by a reset of the connection, after these raw bytes.
    pub(crate) async fn break_off(&self, parting: &[u8]) -> BrokenOff {
        if self.is_http2() {
            return BrokenOff;
        }
        self.end(Parting::reset_after(parting)).await
    }

    /// Waits until hyper has written what a body has given it. Over HTTP/2 another task has to come round to it.
    pub(crate) async fn flushed(&self) {
        sleep(Duration::from_millis(if self.is_http2() { 20 } else { 2 })).await;
    }

    /// Ends the connection with all that is on it. The caller is dropped while it waits.
    pub(crate) async fn end(&self, parting: Parting) -> ! {
        self.close(parting);
        std::future::pending().await
    }

    pub(crate) fn close(&self, parting: Parting) {
        // The first parting is the one that the client sees.
        let _ = self.parting.set(parting);
        self.course.send_replace(Course::Over);
    }

    /// No new requests; HTTP/2 says so with GOAWAY.
    pub(crate) fn retire(&self) {
        self.course.send_if_modified(|course| {
            let retires = *course == Course::On;
            *course = (*course).max(Course::Retiring);
            retires
        });
    }

    pub(crate) fn is_over(&self) -> bool {
        self.parting.get().is_some()
    }

    pub(crate) async fn over(&self) {
        self.reached(Course::Over).await;
    }

    pub(crate) async fn retired(&self) {
        self.reached(Course::Retiring).await;
    }

    /// Returns when no request has been open for so long.
    pub(crate) async fn idle(&self, time: Duration) {
        let mut unanswered = self.unanswered.subscribe();
        // The sender is in `self`, so it is not gone.
        while unanswered.wait_for(|n| *n == 0).await.is_ok() {
            if timeout(time, unanswered.changed()).await.is_err() {
                return;
            }
        }
    }

    async fn reached(&self, course: Course) {
        let _ = self.course.subscribe().wait_for(|c| *c >= course).await;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.0.unanswered.send_modify(|n| *n -= 1);
    }
}

#[derive(Debug)]
pub(crate) struct BreakableStream {
    tcp: TcpStream,
    line: Arc<Line>,
    /// The parting, as TLS has it.
    sealed: Option<Vec<u8>>,
}

impl BreakableStream {
    pub(crate) fn new(tcp: TcpStream, line: Arc<Line>) -> Self {
        Self { tcp, line, sealed: None }
    }

    /// How the connection ends, as soon as that is settled.
    pub(crate) fn parting(&self) -> Option<&Parting> {
        self.line.parting.get()
    }

    /// Sends these bytes in parting.
    pub(crate) fn seal(&mut self, bytes: Vec<u8>) {
        self.sealed = Some(bytes);
    }

    /// Reads once.
    pub(crate) async fn hear(&mut self) {
        let mut away = [0; 4096];
        // Whatever comes of it, the connection ends.
        let _ = self.tcp.read(&mut away).await;
    }

    /// Reads until the other side closes, and answers nothing.
    pub(crate) async fn swallow(&mut self) {
        let mut away = [0; 4096];
        while self.tcp.read(&mut away).await.is_ok_and(|n| n > 0) {}
    }

    /// Looks at the first bytes and leaves them where they are.
    pub(crate) async fn speaks_http2(&self) -> io::Result<bool> {
        let mut start = [0; PREFACE.len()];
        loop {
            let came = self.tcp.peek(&mut start).await?;
            if came == 0 || start[..came] != PREFACE[..came] {
                return Ok(false);
            }
            if came == PREFACE.len() {
                return Ok(true);
            }
            // A look does not wait for more than there is.
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Bytes that nobody has read would turn a close into a reset.
    fn read_away(&self) {
        let mut away = [0; 4096];
        while self.tcp.try_read(&mut away).is_ok_and(|n| n > 0) {}
    }
}

impl Drop for BreakableStream {
    fn drop(&mut self) {
        let Some(parting) = self.line.parting.get() else { return };
        // A full send buffer only means that the end comes a little earlier.
        let _ = self.tcp.try_write(self.sealed.as_ref().unwrap_or(&parting.bytes));
        if parting.reset {
            let _ = SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO));
        } else {
            self.read_away();
        }
    }
}

impl AsyncRead for BreakableStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for BreakableStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.line.is_over() {
            return Poll::Ready(Ok(())); // a FIN now would forestall the parting
        }
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}
