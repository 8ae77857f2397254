//! A TCP connection that can be broken on purpose, below hyper.
//!
//! hyper can end a response early, but it can neither send a reset nor stop in the middle of a chunk. Both are done
//! here, when the socket is closed: a broken line writes its parting bytes and closes with a linger of zero, which
//! makes the kernel send RST instead of FIN. What the client has not read yet is lost only if it is still in the
//! fake's own send buffer.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// The handle by which a request breaks the connection it came on.
#[derive(Debug, Default)]
pub(crate) struct Line {
    broken: AtomicBool,
    parting: Mutex<Vec<u8>>,
}

impl Line {
    /// The connection ends with a reset as soon as hyper lets go of it.
    pub(crate) fn break_off(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// As `break_off`, after these raw bytes.
    pub(crate) fn break_off_after(&self, parting: &[u8]) {
        *self.parting.lock().unwrap_or_else(PoisonError::into_inner) = parting.to_vec();
        self.break_off();
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }
}

#[derive(Debug)]
pub(crate) struct BreakableStream {
    tcp: TcpStream,
    line: Arc<Line>,
}

impl BreakableStream {
    pub(crate) fn new(tcp: TcpStream, line: Arc<Line>) -> Self {
        Self { tcp, line }
    }
}

impl Drop for BreakableStream {
    fn drop(&mut self) {
        if self.line.is_broken() {
            let parting = self.line.parting.lock().unwrap_or_else(PoisonError::into_inner);
            // A full send buffer only means that the reset comes a little earlier.
            let _ = self.tcp.try_write(&parting);
            let _ = SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO));
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
        if self.line.is_broken() {
            return Poll::Ready(Ok(())); // a FIN now would forestall the reset
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
