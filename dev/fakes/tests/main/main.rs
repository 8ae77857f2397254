//! The fake seen from outside: the engine under a paused clock and against measured machines, each fault from a raw socket, its book, the load
//! generator against answers of every kind, and the wire format against captures of a real engine.

#![expect(clippy::unwrap_used, reason = "the lint knows #[test] functions as tests, but not their helpers")]

mod calibration;
mod captures;
mod engine;
mod faults;
mod load;
mod process;
mod stats;
mod wire;
