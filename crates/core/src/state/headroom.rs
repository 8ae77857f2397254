//! What of a backend is kept free for requests that matter more.
//!
//! Priority in a line is worth little where every place behind it is taken by a long answer of somebody else: then even
//! the first in line waits for an end. So a request of lower priority leaves as many places free as those above it
//! usually take, and two and a half standard deviations more. Where nobody of higher priority has come lately, nothing is kept, and
//! all of the backend is everybody's.
//!
//! The number in flight of independent arrivals is Poisson, with its mean as its variance; so `m + 2.5·√m` is enough 99
//! times in 100. It is the square root of staffing rules (Halfin and Whitt, *Heavy-Traffic Limits for Queues with Many
//! Exponential Servers*, Operations Research 29.3, 1981).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{fleet::Priority, units::Nanos};

/// How far back the usual number in flight looks: what begins is seen within the shorter time, and what pauses is
/// expected back within the longer.
const MEMORIES: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(30)];
const DEVIATIONS: f64 = 2.5;

/// Own requests in flight on one backend by priority, and how many there usually are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Headroom {
    in_flight: [u32; Priority::ALL.len()],
    /// Over each of the memories.
    means: [[f64; MEMORIES.len()]; Priority::ALL.len()],
    at: Nanos,
}

impl Headroom {
    /// Places that a request of this priority leaves free.
    pub fn kept_from(&self, priority: Priority, now: Nanos) -> u32 {
        let above = priority.index() + 1..Priority::ALL.len();
        let usual: f64 = above.clone().map(|p| self.means_at(p, now).into_iter().fold(0.0, f64::max)).sum();
        let in_use: u32 = self.in_flight[above].iter().sum();
        (usual + DEVIATIONS * usual.sqrt() - f64::from(in_use)).max(0.0) as u32
    }

    /// Own requests in flight of higher priority.
    pub fn above(&self, priority: Priority) -> u32 {
        self.in_flight[priority.index() + 1..].iter().sum()
    }

    pub(super) fn started(&mut self, priority: Priority, now: Nanos) {
        self.advance(now);
        self.in_flight[priority.index()] += 1;
    }

    pub(super) fn ended(&mut self, priority: Priority, now: Nanos) {
        self.advance(now);
        let in_flight = &mut self.in_flight[priority.index()];
        *in_flight = in_flight.saturating_sub(1);
    }

    fn advance(&mut self, now: Nanos) {
        for p in 0..self.means.len() {
            self.means[p] = self.means_at(p, now);
        }
        self.at = self.at.max(now);
    }

    /// The means over time, of which what is long ago counts exponentially less.
    fn means_at(&self, p: usize, now: Nanos) -> [f64; MEMORIES.len()] {
        std::array::from_fn(|m| {
            let kept = (-now.since(self.at).as_secs_f64() / MEMORIES[m].as_secs_f64()).exp();
            f64::from(self.in_flight[p]) * (1.0 - kept) + self.means[p][m] * kept
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(high: u32, seconds: u64) -> Headroom {
        let mut headroom = Headroom::default();
        (0..high).for_each(|_| headroom.started(Priority::High, Nanos::ZERO));
        headroom.advance(Nanos::from_secs(seconds));
        headroom
    }

    #[test]
    fn what_the_higher_ones_usually_take_and_a_margin_are_kept() {
        let mut headroom = busy(16, 600);
        let now = Nanos::from_secs(600);
        // 16 in use of 16 + 2.5·4.
        assert_eq!(headroom.kept_from(Priority::Low, now), 10);
        (0..10).for_each(|_| headroom.ended(Priority::High, now));
        assert_eq!(headroom.kept_from(Priority::Normal, now), 20);
        assert_eq!(headroom.kept_from(Priority::High, now), 0);
    }

    #[test]
    fn those_who_begin_to_come_are_expected_within_seconds() {
        let begun = busy(16, 10);
        assert_eq!(begun.kept_from(Priority::Low, Nanos::from_secs(10)), 7, "13.8 + 2.5·3.7, less 16");
    }

    #[test]
    fn nothing_is_kept_for_those_who_do_not_come() {
        assert_eq!(busy(0, 600).kept_from(Priority::Low, Nanos::from_secs(600)), 0);
        let mut gone = busy(16, 600);
        (0..16).for_each(|_| gone.ended(Priority::High, Nanos::from_secs(600)));
        let kept: Vec<u32> =
            [600, 630, 690, 780].iter().map(|s| gone.kept_from(Priority::Low, Nanos::from_secs(*s))).collect();
        assert_eq!(kept, [26, 11, 3, 0]);
    }
}
