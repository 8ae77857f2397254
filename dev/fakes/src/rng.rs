//! The one source of chance in this crate: seeded, so that a run with the same seed throws the same dice.
//!
//! Every user (engine jitter, fault probability, load arrivals) holds a generator of its own, derived from the run's
//! seed and a constant, so that adding a draw in one place does not shift the draws of another.

use std::time::Duration;

use rand_core::{Rng as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;

#[derive(Debug)]
pub(crate) struct Dice(Xoshiro256PlusPlus);

impl Dice {
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in `[0, 1)`.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn hit(&mut self, probability: f64) -> bool {
        probability >= 1.0 || self.unit() < probability
    }

    /// An exponential gap of the given mean: the time to the next arrival of a Poisson process.
    pub(crate) fn exponential(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.unit()).ln())
    }
}
