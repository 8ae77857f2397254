//! Outrigger's binary as a library, so that integration tests reach what no command prints.

pub mod commands;
pub use outrigger_config as config;
