//! The crate's contract, against recorded shapes of every engine and against random input.
//!
//! `fixtures/sse` and `fixtures/body` hold answers in the shape of the engine their name begins with; `golden.rs` pins
//! what is read from each, and `fixtures/README.md` says which are a real engine's own. The other files state properties.

mod engine;
mod error;
mod fixtures;
mod golden;
mod json;
mod metrics;
mod request;
mod retry_after;
mod robust;
mod sse;
mod stream;
mod support;
