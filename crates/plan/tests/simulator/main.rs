//! The simulator against what is known without it: queueing theory, an oracle, counts that must add up.

mod fleets;
mod herding;
mod queueing;
mod spill;
