//! The fake seen from outside: the engine under a paused clock and against measured machines, each fault from a raw
//! socket and over HTTP/2, its book, the load generator against answers of every kind, and the wire format of each
//! dialect against captures of real engines.

#![expect(clippy::unwrap_used, reason = "the lint knows #[test] functions as tests, but not their helpers")]

mod breaks;
mod calibration;
mod captures;
mod dialects;
mod engine;
mod faults;
mod http2;
mod load;
mod process;
mod stats;
mod store;
mod tls;
mod wire;
