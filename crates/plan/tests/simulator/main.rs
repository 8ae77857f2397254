//! The simulator against what is known without it: queueing theory, an oracle, counts that must add up.
#![expect(clippy::disallowed_macros, reason = "figures for whoever runs it by hand")]

mod fleets;
mod herding;
mod queueing;
mod spill;
