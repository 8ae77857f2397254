//! The planner's parts by themselves. The whole is held to the cent by tests/e2e/economics.py.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod book;
mod capacity;
mod focus;
mod optimize;
