//! The simulator: the live gateway's decision core, driven by a trace on a virtual clock over simulated engines.
//!
//! It has no routing of its own. Where the gateway has sockets, this has [`engine`]; everything that decides is
//! [`outrigger_core::state::State`], the same code on both sides. The same inputs and seed give the same report.

pub mod engine;
pub mod happening;
pub mod report;
mod run;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use outrigger_core::{fleet::Fleet, fleet::ModelId};

pub use self::{
    engine::Curve,
    happening::Happening,
    report::Report,
    run::{Fault, run, watch},
};

/// How often the gateways read the engines' metrics, on average.
pub const SCRAPE_EVERY: Duration = Duration::from_secs(5);

/// Everything that a simulation is a function of, besides the trace.
#[derive(Clone, Debug)]
pub struct Setup {
    pub fleet: Arc<Fleet>,
    /// Of each backend, in the order of the fleet.
    pub engines: Vec<Engine>,
    pub seed: u64,
    /// The model that requests ask for whose trace names none, or names one that the fleet does not have.
    pub model: ModelId,
    /// Models of the fleet by the names in the trace.
    pub names: BTreeMap<String, ModelId>,
    pub happenings: Vec<Happening>,
    pub scrape_every: Option<Duration>,
    /// Pools on demand are there whenever a request is, and paid for by the block from then on. Otherwise they follow
    /// what the gateways ask for, each step after its cold start.
    pub pools_are_warm: bool,
    /// Where the gateways stand: as many in each place as the fleet has replicas of the gateway. Without any, they stand
    /// where the fleet says.
    pub places: Vec<Place>,
}

/// Where gateways stand.
#[derive(Clone, Debug)]
pub struct Place {
    pub name: String,
    /// The fleet as it is seen from there: with its own egress prices, and the gateways of all places in
    /// `gateway.replicas`.
    pub fleet: Arc<Fleet>,
    /// Of the requests, against those of the other places.
    pub share: f64,
}

/// What a backend is made of.
#[derive(Clone, Debug)]
pub struct Engine {
    pub curve: Arc<Curve>,
    /// Engines behind the backend's address, which it fills evenly.
    pub servers: u32,
    /// Whether the gateway's deadlines apply. A queueing model of constant rate waits without end.
    pub has_deadlines: bool,
    /// What the curve stands on, in words.
    pub source: String,
}
