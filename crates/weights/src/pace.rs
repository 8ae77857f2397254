//! How many requests may be open at once, found out on the way.
//!
//! A few more while that brings more, half as many when the store says that it is too many: what TCP does for one connection,
//! for the number of them. The bytes that are asked for together are bounded elsewhere, whatever this says.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// Short files over a long way wait a round trip each, so that it begins with many; long ones are bounded by their bytes.
const FIRST: usize = 24;
pub(crate) const MOST: usize = 48;
/// Over which a rate is taken: long enough for a few requests to end.
const WINDOW: Duration = Duration::from_millis(500);
/// What more connections have to bring, of what they would bring if nothing were in their way.
const WORTH: f64 = 0.4;

/// The number, as a function of what happened when.
#[derive(Debug)]
pub(crate) struct Limit {
    now: usize,
    /// Bytes since the window began, and when that was.
    bytes: u64,
    began: Duration,
    /// Bytes a second in the window before the last change.
    before: f64,
    /// How many the last change added, to see what it brought.
    tried: usize,
    /// Windows in which nothing is tried, since trying brought nothing.
    rest: u32,
    /// Failures before then are of the requests that were open at the last one.
    deaf_until: Duration,
}

impl Limit {
    fn new() -> Self {
        Self { now: FIRST, bytes: 0, began: Duration::ZERO, before: 0.0, tried: 0, rest: 0, deaf_until: Duration::ZERO }
    }

    fn went(&mut self, bytes: u64, now: Duration) {
        self.bytes += bytes;
        let took = now.saturating_sub(self.began);
        if took < WINDOW {
            return;
        }
        let rate = self.bytes as f64 / took.as_secs_f64();
        (self.bytes, self.began) = (0, now);
        let more = (self.now / 8).clamp(1, MOST - self.now.min(MOST - 1));
        let hoped = self.tried as f64 / (self.now - self.tried).max(1) as f64;
        if self.tried > 0 && rate < self.before * (1.0 + hoped * WORTH) {
            // It brought nothing: back, and a while without trying.
            (self.now, self.tried, self.rest) = (self.now - self.tried, 0, 8);
        } else if self.rest > 0 {
            (self.tried, self.rest) = (0, self.rest - 1);
        } else if self.now < MOST {
            (self.now, self.tried) = (self.now + more, more);
        } else {
            self.tried = 0;
        }
        self.before = rate;
    }

    fn failed(&mut self, now: Duration) {
        if now < self.deaf_until {
            return;
        }
        self.now = (self.now / 2).max(1);
        (self.tried, self.rest) = (0, 2);
        (self.bytes, self.began) = (0, now);
        self.deaf_until = now + WINDOW;
    }
}

#[derive(Debug)]
pub(crate) struct Pace {
    epoch: Instant,
    state: Mutex<State>,
    room: Notify,
}

#[derive(Debug)]
struct State {
    limit: Limit,
    open: usize,
}

/// A request that is open.
#[derive(Debug)]
pub(crate) struct Turn<'a>(&'a Pace);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().open -= 1;
        self.0.room.notify_one();
    }
}

impl Pace {
    pub(crate) fn new() -> Self {
        let state = Mutex::new(State { limit: Limit::new(), open: 0 });
        Self { epoch: Instant::now(), state, room: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more may be open.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        loop {
            let room = self.room.notified();
            {
                let mut state = self.lock();
                if state.open < state.limit.now {
                    state.open += 1;
                    // There may be room for another, when the limit has grown.
                    self.room.notify_one();
                    return Turn(self);
                }
            }
            room.await;
        }
    }

    /// A request brought so many bytes.
    pub(crate) fn went(&self, bytes: u64) {
        let now = self.epoch.elapsed();
        self.lock().limit.went(bytes, now);
    }

    /// A request was turned away, or broke.
    pub(crate) fn failed(&self) {
        let now = self.epoch.elapsed();
        self.lock().limit.failed(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A network that gives each connection `each` bytes a second, and all together no more than `all`.
    fn settle(limit: &mut Limit, each: f64, all: f64, windows: u32) -> Vec<usize> {
        let mut now = limit.began;
        (0..windows)
            .map(|_| {
                now += WINDOW;
                let rate = (limit.now as f64 * each).min(all);
                limit.went((rate * WINDOW.as_secs_f64()) as u64, now);
                limit.now
            })
            .collect()
    }

    #[test]
    fn more_are_opened_while_that_brings_more() {
        let mut limit = Limit::new();
        let seen = settle(&mut limit, 10e6, 1e12, 20);
        assert_eq!(seen.last(), Some(&MOST), "{seen:?}");
    }

    #[test]
    fn no_more_than_bring_something() {
        let mut limit = Limit::new();
        let seen = settle(&mut limit, 10e6, 290e6, 100);
        assert!(seen[20..].iter().all(|limit| (27..=33).contains(limit)), "{seen:?}");
    }

    #[test]
    fn a_refusal_halves_and_its_echo_does_not() {
        let mut limit = Limit::new();
        settle(&mut limit, 10e6, 1e12, 20);
        let now = limit.began + WINDOW;
        limit.failed(now);
        limit.failed(now + Duration::from_millis(10));
        assert_eq!(limit.now, MOST / 2);
        for second in 1..10 {
            limit.failed(now + WINDOW * second);
        }
        assert_eq!(limit.now, 1, "one is always tried");
        let seen = settle(&mut limit, 10e6, 1e12, 40);
        assert_eq!(seen.last(), Some(&MOST), "{seen:?}");
    }

    #[tokio::test]
    async fn no_more_are_open_than_may_be() {
        let pace = Pace::new();
        let turns: Vec<Turn> = futures_util::future::join_all((0..FIRST).map(|_| pace.turn())).await;
        assert!(tokio::time::timeout(Duration::from_millis(20), pace.turn()).await.is_err());
        pace.failed();
        drop(turns);
        let half: Vec<Turn> = futures_util::future::join_all((0..FIRST / 2).map(|_| pace.turn())).await;
        assert!(tokio::time::timeout(Duration::from_millis(20), pace.turn()).await.is_err());
        drop(half);
    }
}
