//! What engines say of themselves, as a fleet file: `outrigger init`.
//!
//! Whoever has engines running should not have to write down what the engines know. What they do not know (who rents
//! the machine, where it stands, what it costs) is left as a comment where it belongs, with a value to copy: a file that
//! invents a price or a region is worse than one that asks for it. The file passes `check` and can be served as it is.
//!
//! Edges: a cloud is guessed from the host's name only where the name is a provider's own; else each host is one by
//! itself. An engine that serves several models is a backend for each. Two names for one root are one model with an
//! alias, and an adapter is a model of its own.

mod address;
mod clouds;
mod write;

use outrigger_core::fleet::{Api, Engine};

pub use self::{
    address::{Address, BadAddress},
    write::write,
};

/// One engine, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub address: Address,
    /// The base URL that answered.
    pub base: String,
    pub engine: Engine,
    pub version: Option<String>,
    /// Requests that it takes at once, where it says so.
    pub slots: Option<u64>,
    /// What it answered when asked for the least; `None` where it was not asked.
    pub apis: Option<Vec<Api>>,
    /// At least one.
    pub models: Vec<FoundModel>,
}

/// A model that an engine serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundModel {
    pub name: String,
    /// Other names of it at the same engine.
    pub others: Vec<String>,
    /// The model that it is an adapter of.
    pub parent: Option<String>,
    /// Tokens of prompt and answer together.
    pub context: Option<u64>,
}

/// What is written for every engine.
#[derive(Clone, Debug, Default)]
pub struct Common {
    /// The variable with the key that was used.
    pub key_variable: Option<String>,
    /// The absolute path of the authorities that were believed.
    pub ca: Option<String>,
}
