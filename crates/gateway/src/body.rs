//! The two bodies of a request: the one that goes to a backend, and the one of its answer. Each is either whole, or
//! comes piece by piece.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::{
    sync::oneshot,
    time::{Instant, Sleep, sleep},
};

use crate::pieces::Receiver;

/// Bytes of a whole answer that are handed over at once. Over HTTP/2 what is handed over counts as taken, and what a
/// client leaves lying has to be seen.
const SLICE: usize = 16 << 10;

/// A body that does not come to its end; whoever waits for the rest has to be told so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body broke off")
    }
}

impl std::error::Error for Broken {}

/// The body of a request to a backend.
#[derive(Debug)]
pub enum Upload {
    /// In the pieces that are left.
    Whole(std::vec::IntoIter<Bytes>),
    Passing(Passing),
}

/// How far a body that is passed on has come.
#[derive(Debug, Default)]
pub struct Passed {
    pub bytes: AtomicU64,
    /// The client left or fell silent in the middle.
    pub broke: AtomicBool,
}

/// The client's own body, passed on as it comes.
#[derive(Debug)]
pub struct Passing {
    body: Incoming,
    patience: Duration,
    silent_until: Pin<Box<Sleep>>,
    /// The client is the one who is waited for, and not the backend that takes its time to read.
    is_waiting: bool,
    passed: Arc<Passed>,
    /// Dropped at the end, which is when the backend can begin.
    over: Option<oneshot::Sender<()>>,
}

impl Passing {
    /// A client that sends nothing for as long as `patience` breaks it off; `over` is dropped at the end.
    pub fn new(body: Incoming, patience: Duration, passed: Arc<Passed>, over: oneshot::Sender<()>) -> Self {
        let silent_until = Box::pin(sleep(patience));
        Self { body, patience, silent_until, is_waiting: false, passed, over: Some(over) }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_pending() {
            if !self.is_waiting {
                self.silent_until.as_mut().reset(Instant::now() + self.patience);
            }
            self.is_waiting = true;
            return self.silent_until.as_mut().poll(cx).map(|()| Some(Err(self.broken())));
        }
        self.is_waiting = false;
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            self.passed.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        if self.body.is_end_stream() || matches!(polled, Poll::Ready(None)) {
            drop(self.over.take());
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(|_| self.broken())))
    }

    fn broken(&self) -> Broken {
        self.passed.broke.store(true, Ordering::Relaxed);
        Broken
    }
}

impl From<Vec<Bytes>> for Upload {
    fn from(pieces: Vec<Bytes>) -> Self {
        Self::Whole(pieces.into_iter())
    }
}

impl From<Bytes> for Upload {
    fn from(bytes: Bytes) -> Self {
        vec![bytes].into()
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Whole(pieces) => {
                Poll::Ready(pieces.find(|piece| !piece.is_empty()).map(|piece| Ok(Frame::data(piece))))
            }
            Self::Passing(passing) => passing.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(pieces) => pieces.as_slice().iter().all(Bytes::is_empty),
            Self::Passing(passing) => passing.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(pieces) => SizeHint::with_exact(pieces.as_slice().iter().map(|piece| piece.len() as u64).sum()),
            Self::Passing(passing) => passing.body.size_hint(),
        }
    }
}

fn slice(bytes: &mut Option<Bytes>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
    let slice = match bytes {
        Some(bytes) if bytes.len() > SLICE => Some(bytes.split_to(SLICE)),
        _ => bytes.take().filter(|b| !b.is_empty()),
    };
    Poll::Ready(slice.map(|b| Ok(Frame::data(b))))
}

fn exactly(bytes: Option<&Bytes>) -> SizeHint {
    SizeHint::with_exact(bytes.map_or(0, |b| b.len() as u64))
}

/// The body of an answer to a client.
#[derive(Debug)]
pub enum Answer {
    Whole(Option<Bytes>),
    /// When the client hangs up, hyper drops this and the sender sees it gone.
    Pieces(Receiver),
}

impl Answer {
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Some(bytes.into()))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Whole(bytes) => slice(bytes),
            Self::Pieces(pieces) => pieces.poll_piece(cx).map(|piece| piece.map(|p| p.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Pieces(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => exactly(bytes.as_ref()),
            Self::Pieces(_) => SizeHint::default(),
        }
    }
}
