//! The invariants of the decision core, each by its name, on a virtual clock.

mod backpressure;
mod counts;
mod determinism;
mod failover;
mod flapping;
mod fleets;
mod harness;
mod health;
mod outage;
mod overload;
mod reload;
mod rules;
mod scaling;
mod spend;
mod survive;
mod weights;
