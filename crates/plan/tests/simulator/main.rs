//! The simulator against what is known without it: queueing theory, an oracle, counts that must add up.
#![expect(clippy::disallowed_macros, reason = "figures for whoever runs it by hand")]

mod affinity;
mod closed_form;
mod curve;
mod failing;
mod fleets;
mod herding;
mod limit;
mod modes;
mod places;
mod pools;
mod queueing;
mod regions;
mod spill;
