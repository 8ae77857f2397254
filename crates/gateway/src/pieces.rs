//! The pieces of an answer on their way from the task that reads the backend to the client's connection, and how they
//! ended: whole, or broken off.
//!
//! A channel of our own rather than tokio's, because there is one of these for every open stream: it is a third of the
//! size, it says itself how the answer ended, and the task that waits for room and the one that waits for the client to
//! leave are the same, so that one waker does for both.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::body::Broken;

/// Pieces that may wait for a slow client before the backend is no longer read, and bytes. A piece is at most one read of
/// the backend's socket.
const MOST: usize = 8;
const MOST_BYTES: usize = 32 << 10;

pub fn channel() -> (Sender, Receiver) {
    let shared = Arc::<Mutex<State>>::default();
    (Sender(shared.clone()), Receiver(shared))
}

/// Belongs to one task. Dropped without [`Sender::end`], the answer breaks off.
#[derive(Debug)]
pub struct Sender(Arc<Mutex<State>>);

/// Dropped, the client has gone.
#[derive(Debug)]
pub struct Receiver(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Bytes>,
    /// Of all pieces.
    bytes: usize,
    phase: Phase,
    /// The sender's task has a piece that there was no room for.
    wants_room: bool,
    sender: Option<Waker>,
    receiver: Option<Waker>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    Whole,
    Broken,
    Gone,
}

impl Sender {
    /// Hands a piece on; `false` when the client has gone, or has not made room for it in time. `until` is only asked
    /// where there is none.
    pub async fn send(&self, piece: Bytes, until: impl FnOnce() -> Instant) -> bool {
        let mut waiting = Some(piece);
        let at_once = locked(&self.0).push(&mut waiting);
        match at_once {
            Some(sent) => sent,
            None => timeout_at(until(), poll_fn(|cx| self.poll_room(&mut waiting, cx))).await.unwrap_or(false),
        }
    }

    fn poll_room(&self, waiting: &mut Option<Bytes>, cx: &Context<'_>) -> Poll<bool> {
        let mut state = locked(&self.0);
        match state.push(waiting) {
            Some(sent) => Poll::Ready(sent),
            None => {
                state.wants_room = true;
                remember(&mut state.sender, cx);
                Poll::Pending
            }
        }
    }

    /// Waits until the client has gone.
    pub async fn gone(&self) {
        poll_fn(|cx| {
            let mut state = locked(&self.0);
            if state.phase == Phase::Gone {
                return Poll::Ready(());
            }
            remember(&mut state.sender, cx);
            Poll::Pending
        })
        .await;
    }

    /// The answer came to an end that the client can see for one.
    pub fn end(self) {
        locked(&self.0).close(Phase::Whole);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        locked(&self.0).close(Phase::Broken);
    }
}

impl Receiver {
    /// The next piece; at the end `None`, or that the answer broke off.
    pub fn poll_piece(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let mut state = locked(&self.0);
        if let Some(piece) = state.pieces.pop_front() {
            state.bytes -= piece.len();
            if std::mem::take(&mut state.wants_room) {
                wake(&mut state.sender);
            }
            return Poll::Ready(Some(Ok(piece)));
        }
        match state.phase {
            Phase::Whole => Poll::Ready(None),
            Phase::Broken | Phase::Gone => Poll::Ready(Some(Err(Broken))),
            Phase::Open => {
                remember(&mut state.receiver, cx);
                Poll::Pending
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let mut state = locked(&self.0);
        state.close(Phase::Gone);
        state.pieces = VecDeque::new();
    }
}

impl State {
    /// Whether the piece was sent; `None` while there is no room for it.
    fn push(&mut self, piece: &mut Option<Bytes>) -> Option<bool> {
        if self.phase != Phase::Open {
            return Some(false);
        }
        if self.pieces.len() == MOST || self.bytes >= MOST_BYTES {
            return None;
        }
        if let Some(piece) = piece.take() {
            self.bytes += piece.len();
            self.pieces.push_back(piece);
        }
        wake(&mut self.receiver);
        Some(true)
    }

    /// The first end counts.
    fn close(&mut self, end: Phase) {
        if self.phase == Phase::Open {
            self.phase = end;
            wake(&mut self.sender);
            wake(&mut self.receiver);
        }
    }
}

fn remember(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn next(from: &mut Receiver) -> Option<Result<Bytes, Broken>> {
        poll_fn(|cx| from.poll_piece(cx)).await
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_come_in_order_and_then_their_end() {
        let (to, mut from) = channel();
        let sending = tokio::spawn(async move {
            for n in 0..100_u8 {
                assert!(to.send(vec![n].into(), soon).await);
            }
            to.end();
        });
        for n in 0..100_u8 {
            assert_eq!(next(&mut from).await, Some(Ok(vec![n].into())));
            tokio::time::sleep(Duration::from_millis(u64::from(n % 3))).await;
        }
        assert_eq!(next(&mut from).await, None);
        sending.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_is_dropped_breaks_the_answer_off_after_what_was_sent() {
        let (to, mut from) = channel();
        assert!(to.send(Bytes::from_static(b"a"), soon).await);
        drop(to);
        assert_eq!(next(&mut from).await, Some(Ok(Bytes::from_static(b"a"))));
        assert_eq!(next(&mut from).await, Some(Err(Broken)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_waited_for_until_the_time_given() {
        let (to, _from) = channel();
        for _ in 0..MOST {
            assert!(to.send(Bytes::from_static(b"a"), || unreachable!("there is room")).await);
        }
        let began = Instant::now();
        assert!(!to.send(Bytes::from_static(b"b"), soon).await);
        assert_eq!(began.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn large_pieces_are_fewer() {
        let (to, mut from) = channel();
        let large = Bytes::from(vec![0; MOST_BYTES]);
        assert!(to.send(large.clone(), || unreachable!("there is room")).await);
        assert!(!to.send(Bytes::from_static(b"b"), soon).await);
        assert_eq!(next(&mut from).await, Some(Ok(large)));
        assert!(to.send(Bytes::from_static(b"b"), || unreachable!("there is room")).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_is_noticed_by_who_waits_for_it_and_by_who_waits_for_room() {
        let (to, from) = channel();
        assert!(timeout(Duration::from_secs(1), to.gone()).await.is_err());
        for _ in 0..MOST {
            assert!(to.send(Bytes::from_static(b"a"), soon).await);
        }
        let began = Instant::now();
        let leaving = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(from);
        };
        let (sent, ()) = tokio::join!(to.send(Bytes::from_static(b"b"), soon), leaving);
        assert!(!sent);
        to.gone().await;
        assert_eq!(began.elapsed().as_millis(), 10);
    }
}
