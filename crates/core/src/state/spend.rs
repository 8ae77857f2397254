//! What a cloud's token-priced backends have cost in the last hour and day, against its limit.
//!
//! Reserve, then settle: a request's worst likely cost is set aside when it is sent and replaced by its real cost
//! when it ends, so that requests in flight together cannot overrun the limit between them. The windows slide (by the
//! minute and by the hour); a limit that begins anew at the full hour would allow twice its amount around it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    fleet::SpendLimit,
    units::{NanoUsd, Nanos},
};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spend {
    reserved: NanoUsd,
    hour: SlidingSum,
    day: SlidingSum,
}

impl Spend {
    /// Whether `amount` more still fits, for one of `replicas` gateways that share the limit.
    pub fn fits(&mut self, amount: NanoUsd, limit: &SpendLimit, replicas: u32, now: Nanos) -> bool {
        let share = |limit: NanoUsd| NanoUsd(limit.0 / i64::from(replicas.max(1)));
        let fits = |spent: NanoUsd, limit: Option<NanoUsd>| {
            limit.is_none_or(|limit| spent + self.reserved + amount <= share(limit))
        };
        fits(self.hour.total(now, HOUR), limit.per_hour) && fits(self.day.total(now, DAY), limit.per_day)
    }

    /// The first moment at which `amount` fits, if nothing else is spent until then: enough of what was spent has left the
    /// windows. `None` where what is reserved is in the way, which may cost less and end at any time.
    pub fn fits_at(&mut self, amount: NanoUsd, limit: &SpendLimit, replicas: u32, now: Nanos) -> Option<Nanos> {
        let share = |limit: NanoUsd| NanoUsd(limit.0 / i64::from(replicas.max(1)));
        let wanted = self.reserved + amount;
        let frees = |sum: &mut SlidingSum, limit: Option<NanoUsd>, window| match limit {
            Some(limit) => sum.at_most_from(share(limit) - wanted, now, window),
            None => Some(now),
        };
        Some(frees(&mut self.hour, limit.per_hour, HOUR)?.max(frees(&mut self.day, limit.per_day, DAY)?))
    }

    pub fn reserve(&mut self, amount: NanoUsd) {
        self.reserved += amount;
    }

    pub fn settle(&mut self, reserved: NanoUsd, spent: NanoUsd, now: Nanos) {
        self.reserved -= reserved;
        self.hour.add(spent, now, HOUR);
        self.day.add(spent, now, DAY);
    }

    pub fn last_hour(&mut self, now: Nanos) -> NanoUsd {
        self.hour.total(now, HOUR)
    }

    pub fn last_day(&mut self, now: Nanos) -> NanoUsd {
        self.day.total(now, DAY)
    }

    pub fn reserved(&self) -> NanoUsd {
        self.reserved
    }
}

/// A sum over a window in sixty slices. The oldest slice is kept until it is wholly outside, so that the sum errs
/// upwards and never lets a window overrun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SlidingSum {
    slices: Vec<NanoUsd>,
    newest: u64,
    total: NanoUsd,
}

const SLICES: u64 = 60;

impl Default for SlidingSum {
    fn default() -> Self {
        Self { slices: vec![NanoUsd::ZERO; SLICES as usize + 1], newest: 0, total: NanoUsd::ZERO }
    }
}

impl SlidingSum {
    fn add(&mut self, amount: NanoUsd, now: Nanos, window: Duration) {
        self.advance(now, window);
        self.total += amount;
        let len = self.slices.len() as u64;
        self.slices[(self.newest % len) as usize] += amount;
    }

    fn total(&mut self, now: Nanos, window: Duration) -> NanoUsd {
        self.advance(now, window);
        self.total
    }

    /// When the sum is `most` or less, if nothing is added. `None`: never.
    fn at_most_from(&mut self, most: NanoUsd, now: Nanos, window: Duration) -> Option<Nanos> {
        self.advance(now, window);
        let (slice, len) = (window.as_nanos() as u64 / SLICES, self.slices.len() as u64);
        let mut left = self.total;
        if left <= most {
            return Some(now);
        }
        let oldest = (self.newest + 1).saturating_sub(len);
        for number in oldest..=self.newest {
            left -= self.slices[(number % len) as usize];
            if left <= most {
                return Some(Nanos((number + len) * slice));
            }
        }
        None
    }

    fn advance(&mut self, now: Nanos, window: Duration) {
        let number = now.0 / (window.as_nanos() as u64 / SLICES);
        let len = self.slices.len() as u64;
        let passed = number.saturating_sub(self.newest).min(len);
        for i in 1..=passed {
            let slice = &mut self.slices[((number - passed + i) % len) as usize];
            self.total -= *slice;
            *slice = NanoUsd::ZERO;
        }
        self.newest = self.newest.max(number);
    }
}
