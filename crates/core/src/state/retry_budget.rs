//! How many further attempts a model may make: a fifth of its requests in the last ten seconds.
//!
//! Without a bound, an outage multiplies the load on whatever is left. A count over a sliding window rather than a
//! token bucket, so that the bound holds in every window and not only on average. The floor lets a quiet model retry
//! at all (Finagle's and Envoy's budgets have the same one).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::Nanos;

/// Retries per request.
pub const RATIO: f64 = 0.2;
/// Retries in a window that are always allowed.
pub const FLOOR: u32 = 10;
pub const WINDOW: Duration = Duration::from_secs(10);
/// Buckets that lie in the window as a whole; requests are counted over these.
const WHOLE: u64 = 20;
/// With the one that the window's far edge may cut; retries are counted over all, so that both errors are on the safe
/// side and the bound holds wherever the window is laid.
const BUCKETS: usize = WHOLE as usize + 1;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryBudget {
    requests: [u32; BUCKETS],
    retries: [u32; BUCKETS],
    newest: u64,
}

impl RetryBudget {
    /// Every request deposits once, when it is first tried.
    pub fn deposit(&mut self, now: Nanos) {
        let i = self.advance(now);
        self.requests[i] += 1;
    }

    /// Books one retry, or says that the budget is spent.
    pub fn withdraw(&mut self, now: Nanos) -> bool {
        let i = self.advance(now);
        let spent: u32 = self.retries.iter().sum();
        let allowed = spent < self.allowance();
        self.retries[i] += u32::from(allowed);
        allowed
    }

    /// Books one retry that nobody may refuse.
    pub fn charge(&mut self, now: Nanos) {
        let i = self.advance(now);
        self.retries[i] += 1;
    }

    /// Whether a retry would be allowed.
    pub fn has_room(&mut self, now: Nanos) -> bool {
        self.advance(now);
        self.retries.iter().sum::<u32>() < self.allowance()
    }

    fn allowance(&self) -> u32 {
        let cut = ((self.newest + 1) % BUCKETS as u64) as usize;
        let requests = self.requests.iter().sum::<u32>() - self.requests[cut];
        ((f64::from(requests) * RATIO) as u32).max(FLOOR)
    }

    fn advance(&mut self, now: Nanos) -> usize {
        let number = now.0 / (WINDOW.as_nanos() as u64 / WHOLE);
        let passed = number.saturating_sub(self.newest).min(BUCKETS as u64);
        for i in 1..=passed {
            let slot = ((number - passed + i) % BUCKETS as u64) as usize;
            self.requests[slot] = 0;
            self.retries[slot] = 0;
        }
        self.newest = self.newest.max(number);
        (self.newest % BUCKETS as u64) as usize
    }
}
