//! The response body: bytes that are there already, or an async function that writes them.
//!
//! The function is polled by the body itself, not spawned: when hyper drops the body because the client hung up, the
//! function and everything it holds (the engine's ticket, the book's entry) is dropped in the same moment.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use tokio::sync::mpsc;

use crate::conn::Unanswered;

/// The answer is to be broken off. When a body or a service returns this, hyper closes a connection of HTTP/1.1, and
/// over HTTP/2 resets the stream.
#[derive(Debug, thiserror::Error)]
#[error("broken off on purpose")]
pub(crate) struct BrokenOff;

pub(crate) struct AnswerBody {
    content: Content,
    /// The request is open for as long as its answer.
    _request: Option<Unanswered>,
}

enum Content {
    Full(Full<Bytes>),
    Written(Written),
}

impl AnswerBody {
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self { content: Content::Full(Full::new(bytes.into())), _request: None }
    }

    pub(crate) fn written<W, F>(writer: W) -> Self
    where
        W: FnOnce(Out) -> F,
        F: Future<Output = Result<(), BrokenOff>> + Send + 'static,
    {
        let (tx, pieces) = mpsc::channel(1);
        let content = Content::Written(Written { writer: Some(Box::pin(writer(Out(tx)))), pieces });
        Self { content, _request: None }
    }

    pub(crate) fn answering(self, request: Unanswered) -> Self {
        Self { _request: Some(request), ..self }
    }
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.content {
            Content::Full(_) => "Full",
            Content::Written(_) => "Written",
        })
    }
}

/// Where a writing function puts its pieces; it waits while hyper has not taken the last one.
pub(crate) struct Out(mpsc::Sender<Bytes>);

impl Out {
    pub(crate) async fn send(&self, piece: impl Into<Bytes>) {
        // The receiver is in the same body, so it cannot be gone while this function is being polled.
        let _ = self.0.send(piece.into()).await;
    }

    pub(crate) async fn send_all(&self, pieces: impl IntoIterator<Item = impl Into<Bytes>>) {
        for piece in pieces {
            self.send(piece).await;
        }
    }
}

type Writer = Pin<Box<dyn Future<Output = Result<(), BrokenOff>> + Send>>;

pub(crate) struct Written {
    writer: Option<Writer>,
    pieces: mpsc::Receiver<Bytes>,
}

impl Written {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        if let Poll::Ready(Some(piece)) = self.pieces.poll_recv(cx) {
            return Poll::Ready(Some(Ok(piece)));
        }
        let Some(writer) = &mut self.writer else { return Poll::Ready(None) };
        let ended = writer.as_mut().poll(cx);
        if ended.is_ready() {
            self.writer = None;
        }
        match (self.pieces.poll_recv(cx), ended) {
            (Poll::Ready(Some(piece)), Poll::Ready(Err(BrokenOff))) => {
                // Only reached if a writer breaks off without letting its last piece go: the break is what counts.
                drop(piece);
                Poll::Ready(Some(Err(BrokenOff)))
            }
            (Poll::Ready(Some(piece)), _) => Poll::Ready(Some(Ok(piece))),
            (_, Poll::Ready(Err(broken))) => Poll::Ready(Some(Err(broken))),
            (_, Poll::Ready(Ok(()))) => Poll::Ready(None),
            (_, Poll::Pending) => Poll::Pending,
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match &mut self.get_mut().content {
            Content::Full(full) => Pin::new(full).poll_frame(cx).map_err(|never: Infallible| match never {}),
            Content::Written(written) => written.poll_piece(cx).map_ok(Frame::data),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.content, Content::Full(full) if full.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Full(full) => full.size_hint(),
            Content::Written(_) => SizeHint::default(),
        }
    }
}
