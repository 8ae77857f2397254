//! The streams of one HTTP/2 connection: whether anything goes on, whether the client means harm, and whether it takes
//! what it asked for.
//!
//! A client can stop an answer without stopping the connection, by not opening the stream's window, and still answer
//! every PING. hyper has no time for that: it asks an answer for its next piece only once the last one has been taken.
//! So each stream's task is watched, and ended when its answer has given a piece and has not been asked since; that
//! resets the stream, and lets go of the backend. To wait for the backend is something else: then hyper has asked.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::{sync::Notify, time::sleep};

use crate::body::Answer;

/// Requests that were given up before their answer began: more than these, and more than half of all, are no accident.
/// A proxy in front, whose clients leave now and then, shares a connection among many.
const GIVEN_UP: u64 = 256;

/// What goes on on one HTTP/2 connection. Its own PINGs do not count, so that a client which only answers those cannot
/// hold a place for ever.
#[derive(Debug, Default)]
pub(super) struct Activity {
    open: AtomicU32,
    begun: AtomicU64,
    given_up: AtomicU64,
    abused: Notify,
}

impl Activity {
    pub(super) fn begin(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        Open { activity: self.clone(), is_answered: false }
    }

    /// Resolves when nothing went on for this long, and at most twice as long.
    pub(super) async fn idle_for(&self, time: Duration) {
        loop {
            let begun = self.begun.load(Ordering::Relaxed);
            sleep(time).await;
            if self.open.load(Ordering::Relaxed) == 0 && self.begun.load(Ordering::Relaxed) == begun {
                return;
            }
        }
    }

    pub(super) fn has_answered(&self) -> bool {
        self.begun.load(Ordering::Relaxed) > self.given_up.load(Ordering::Relaxed)
    }

    /// Resolves when requests are made to be given up: each costs a backend something and its sender nothing.
    pub(super) async fn is_abused(&self) {
        self.abused.notified().await;
    }

    fn given_up(&self) {
        let given_up = 1 + self.given_up.fetch_add(1, Ordering::Relaxed);
        if given_up > GIVEN_UP && 2 * given_up > self.begun.load(Ordering::Relaxed) {
            self.abused.notify_one();
        }
    }
}

/// A request that goes on until its answer has been sent.
#[derive(Debug)]
pub(super) struct Open {
    activity: Arc<Activity>,
    is_answered: bool,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.activity.open.fetch_sub(1, Ordering::Relaxed);
        if !self.is_answered {
            self.activity.given_up();
        }
    }
}

tokio::task_local! {
    /// That of the stream whose task this is.
    static TAKING: Arc<Taking>;
}

/// How an answer is taken: twice the pieces that it has given, and one if it has not been asked since.
#[derive(Debug, Default)]
struct Taking(AtomicU64);

impl Taking {
    fn asked(&self) {
        self.0.fetch_and(!1, Ordering::Relaxed);
    }

    fn gave(&self) {
        self.0.fetch_add(3, Ordering::Relaxed);
    }

    /// Resolves when a piece has been left lying for this long, and at most twice as long.
    async fn left_lying_for(&self, time: Duration) {
        loop {
            let before = self.0.load(Ordering::Relaxed);
            sleep(time).await;
            if before & 1 == 1 && before == self.0.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

/// Runs the streams of a connection, and ends those whose answer is left lying.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams {
    pub(super) patience: Duration,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let (patience, taking) = (self.patience, Arc::<Taking>::default());
        let watched = {
            let taking = taking.clone();
            async move {
                tokio::select! {
                    biased;
                    () = stream => {}
                    () = taking.left_lying_for(patience) => {}
                }
            }
        };
        tokio::spawn(TAKING.scope(taking, watched));
    }
}

/// An answer that counts as going on.
#[derive(Debug)]
pub(super) struct Counted {
    body: Answer,
    _open: Open,
    taking: Arc<Taking>,
}

impl Counted {
    /// Called in the task of the stream.
    pub(super) fn new(body: Answer, mut open: Open) -> Self {
        open.is_answered = true;
        Self { body, _open: open, taking: TAKING.try_with(Arc::clone).unwrap_or_default() }
    }
}

impl Body for Counted {
    type Data = <Answer as Body>::Data;
    type Error = <Answer as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.taking.asked();
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(_))) = &polled {
            self.taking.gave();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
