//! Integration tests of the binary, one module for each area.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod config;
#[expect(dead_code, reason = "the harness also serves areas whose tests are still to be written")]
mod gateway;
mod reliability;
