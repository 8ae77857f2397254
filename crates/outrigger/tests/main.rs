//! Integration tests of the binary, one module for each area.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cli;
mod config;
mod gateway;
mod import;
mod lab;
mod online;
mod plan;
mod reliability;
mod silence;
mod simulate;
mod simulated;
