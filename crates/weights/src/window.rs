//! How much of what was asked for may be to come.
//!
//! A server cannot send what it was not asked for, so this bounds what a kill loses. 60 MiB keep any near store busy. A far one
//! needs more: what a round trip holds at the rate that the way can carry is on its way all the time, whoever asks. So to
//! the 60 come the best rate that was seen times the shortest round trip (the bandwidth-delay product, measured as BBR does:
//! Cardwell et al., ACM Queue 14(5), 2016), up to 192 MiB in all. Near by that is next to nothing.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Bytes, for a store next door.
pub(crate) const LEAST: u64 = 60 << 20;
pub(crate) const MOST: u64 = 192 << 20;
/// Over which a rate is taken.
const SPAN: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Window {
    epoch: Instant,
    open: Semaphore,
    way: Mutex<Way>,
}

/// What is known of the way to the store, as a function of what happened when.
#[derive(Debug)]
struct Way {
    /// Of all answers the shortest time to the first byte.
    round_trip: Option<Duration>,
    /// Bytes since the span began, and when that was.
    bytes: u64,
    began: Duration,
    /// Bytes a second, in the best span.
    rate: f64,
    window: u64,
}

impl Way {
    fn new() -> Self {
        Self { round_trip: None, bytes: 0, began: Duration::ZERO, rate: 0.0, window: LEAST }
    }

    fn answered(&mut self, after: Duration) {
        self.round_trip = Some(self.round_trip.map_or(after, |shortest| shortest.min(after)));
    }

    /// Bytes came; by how many the window grows.
    fn came(&mut self, bytes: u64, now: Duration) -> u64 {
        self.bytes += bytes;
        let took = now.saturating_sub(self.began);
        if took < SPAN {
            return 0;
        }
        self.rate = self.rate.max(self.bytes as f64 / took.as_secs_f64());
        (self.bytes, self.began) = (0, now);
        let on_the_way = self.rate * self.round_trip.unwrap_or_default().as_secs_f64();
        let wanted = LEAST.saturating_add(on_the_way as u64).min(MOST);
        let more = wanted.saturating_sub(self.window);
        self.window += more;
        more
    }
}

impl Window {
    pub(crate) fn new() -> Self {
        let open = Semaphore::new(usize::try_from(LEAST).unwrap_or(Semaphore::MAX_PERMITS));
        Self { epoch: Instant::now(), open, way: Mutex::new(Way::new()) }
    }

    /// Waits until so many bytes may be asked for.
    pub(crate) async fn ask(&self, bytes: u64) -> SemaphorePermit<'_> {
        let permits = u32::try_from(bytes.min(LEAST)).unwrap_or(u32::MAX);
        self.open.acquire_many(permits).await.expect("it is never closed")
    }

    /// An answer began so long after it was asked for.
    pub(crate) fn answered(&self, after: Duration) {
        self.way.lock().unwrap_or_else(PoisonError::into_inner).answered(after);
    }

    pub(crate) fn came(&self, bytes: u64) {
        let now = self.epoch.elapsed();
        let more = self.way.lock().unwrap_or_else(PoisonError::into_inner).came(bytes, now);
        self.open.add_permits(usize::try_from(more).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// The window after two seconds on a way that carries `all` bytes a second, of which no more come than are asked for.
    fn after_two_seconds(all: f64, round_trip: Duration) -> u64 {
        let mut way = Way::new();
        way.answered(round_trip * 2);
        way.answered(round_trip);
        let step = Duration::from_millis(10);
        for number in 1..200 {
            let asked = way.window as f64 / round_trip.as_secs_f64();
            way.came((all.min(asked) * step.as_secs_f64()) as u64, step * number);
        }
        way.window
    }

    #[test]
    fn a_store_next_door_needs_no_more() {
        assert!(after_two_seconds(2e9, Duration::from_micros(300)) <= LEAST + MIB);
    }

    #[test]
    fn a_way_is_filled_and_not_flooded() {
        let far = Duration::from_millis(80);
        let slow = after_two_seconds(100e6, far);
        assert!((LEAST + 7 * MIB..LEAST + 9 * MIB).contains(&slow), "8 MB are on their way: {slow}");
        assert_eq!(after_two_seconds(10e9, far), MOST, "what is asked for must not be what limits it");
    }
}
