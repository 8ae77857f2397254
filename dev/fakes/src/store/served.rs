//! A body that goes: a text, or a part of a file in pieces of 256 KiB.
//!
//! The file is read where hyper asks for the next piece, on the thread that serves connections. A pool of threads for it costs
//! more than the read of a page that is in memory, and whatever is served here was written just before. Buffers are used again
//! once hyper has let go of them.

use std::{
    fmt, fs, io,
    os::unix::fs::FileExt as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::{
    conn::{Line, Parting},
    store::{
        faults::{Harm, How, Stopping},
        ledger::Entry,
    },
};

const PIECE: usize = 256 << 10;
/// hyper holds a piece or two while it asks for the next.
const BUFFERS: usize = 3;

#[derive(Debug)]
pub(super) enum Served {
    /// None: it went, or there is none.
    Text(Option<Bytes>, Entry),
    File(Box<FileBody>),
}

pub(super) struct FileBody {
    file: fs::File,
    at: u64,
    end: u64,
    sent: u64,
    harm: Harm,
    pause: Option<Pin<Box<Sleep>>>,
    /// What becomes of the connection when the pause is over.
    parting: Option<How>,
    spare: [Option<Bytes>; BUFFERS],
    next_spare: usize,
    entry: Entry,
    line: Arc<Line>,
}

impl FileBody {
    pub(super) fn new(file: fs::File, (at, end): (u64, u64), harm: Harm, entry: Entry, line: Arc<Line>) -> Self {
        Self {
            file,
            at,
            end,
            sent: 0,
            harm,
            pause: None,
            parting: None,
            spare: [const { None }; BUFFERS],
            next_spare: 0,
            entry,
            line,
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        // Polled again, it stays as silent as before.
        match self.parting {
            Some(How::Close) => return self.part(Parting::close_after(b"")),
            Some(How::Reset) => return self.part(Parting::reset_after(b"")),
            Some(How::Stall(None)) => return Poll::Pending,
            Some(How::Stall(Some(_))) => self.parting = None,
            None => {}
        }
        if let Some(stopping) = self.harm.stop.take_if(|stopping| self.sent >= stopping.after) {
            return self.stop(stopping.how, cx);
        }
        if self.at == self.end {
            return Poll::Ready(None);
        }
        let piece = self.read();
        if let (Ok(piece), Some(rate)) = (&piece, self.harm.bytes_per_second) {
            self.pause = Some(Box::pin(sleep(Duration::from_secs_f64(piece.len() as f64 / rate as f64))));
        }
        Poll::Ready(Some(piece))
    }

    fn stop(&mut self, how: How, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        // Time for what was given to hyper to be written.
        const FLUSHED: Duration = Duration::from_millis(5);
        let time = match how {
            How::Stall(Some(time)) => time,
            How::Close | How::Reset | How::Stall(None) => FLUSHED,
        };
        self.parting = Some(how);
        self.pause = Some(Box::pin(sleep(time)));
        self.poll_piece(cx)
    }

    fn part(&self, parting: Parting) -> Poll<Option<io::Result<Bytes>>> {
        self.line.close(parting);
        Poll::Pending
    }

    fn read(&mut self) -> io::Result<Bytes> {
        let mut len = (self.end - self.at).min(PIECE as u64);
        if let Some(Stopping { after, .. }) = self.harm.stop {
            len = len.min(after - self.sent);
        }
        if let Some(rate) = self.harm.bytes_per_second {
            // Slow is to be smooth as well.
            len = len.min((rate / 50).max(1));
        }
        let mut buffer = self.buffer();
        buffer.resize(len as usize, 0);
        self.file.read_exact_at(&mut buffer, self.at)?;
        if let Some(at) = self.harm.flip.and_then(|flip| flip.checked_sub(self.sent)).filter(|at| *at < len) {
            buffer[at as usize] ^= 1;
        }
        let piece = buffer.freeze();
        self.spare[self.next_spare] = Some(piece.clone());
        self.next_spare = (self.next_spare + 1) % BUFFERS;
        self.at += len;
        self.sent += len;
        self.entry.went(piece.len());
        Ok(piece)
    }

    fn buffer(&mut self) -> BytesMut {
        let oldest = self.spare[self.next_spare].take();
        oldest.and_then(|bytes| bytes.try_into_mut().ok()).unwrap_or_else(|| BytesMut::with_capacity(PIECE))
    }
}

impl fmt::Debug for FileBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileBody").field("at", &self.at).field("end", &self.end).finish_non_exhaustive()
    }
}

impl Body for Served {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = match self.get_mut() {
            Self::Text(text, entry) => Poll::Ready(text.take().filter(|text| !text.is_empty()).map(|text| {
                entry.went(text.len());
                Ok(text)
            })),
            Self::File(file) => file.poll_piece(cx),
        };
        piece.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text, _) => text.as_ref().is_none_or(Bytes::is_empty),
            Self::File(file) => file.at == file.end && file.harm.stop.is_none() && file.parting.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Text(text, _) => text.as_ref().map_or(0, Bytes::len) as u64,
            Self::File(file) => file.end - file.at,
        })
    }
}
