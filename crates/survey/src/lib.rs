//! What running engines are, serve and answer: the network side of `outrigger init` and `outrigger check --online`.
//!
//! [`find`] looks at URLs of which nothing is known. [`online`] looks at the backends of a fleet and puts the same
//! [`questions`] to all that serve one model; what they say is read in [`answers`], compared in [`compare`] and drawn in
//! [`table`], all of them plain functions. Everything is asked through the gateway's own connections, so that what
//! answers here answers there.

pub mod answers;
pub mod compare;
pub mod find;
mod look;
pub mod online;
pub mod questions;
pub mod table;
