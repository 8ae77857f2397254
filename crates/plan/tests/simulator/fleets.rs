//! Small fleets of engines of constant rate, and traffic for them.

use std::{collections::BTreeMap, sync::Arc};

use outrigger_core::{
    Rng,
    fleet::{Fleet, MetricsMode, ModelId},
    units::{Nanos, Tokens},
};
use outrigger_plan::{
    sim::{self, Curve, Setup},
    trace::Arrival,
};
use rand_core::Rng as _;

#[path = "../../../core/tests/invariants/fleets.rs"]
#[expect(dead_code, reason = "shared with the core's own tests")]
mod core_fleets;

/// Backends `b0`, `b1`, … whose metrics can be read: each inner slice is a tier of weights. Tokens are milliseconds.
pub(crate) fn fleet(tiers: &[&[u32]]) -> Fleet {
    let mut fleet = core_fleets::fleet(tiers);
    fleet.backends.iter_mut().for_each(|b| b.metrics = MetricsMode::Aggregated);
    fleet
}

/// Engines with so many slots, a token each millisecond.
pub(crate) fn setup(fleet: Fleet, slots: &[u32], seed: u64) -> Setup {
    let engine = |slots: &u32| sim::Engine {
        curve: Arc::new(Curve::constant(*slots, 1_000.0)),
        servers: 1,
        has_deadlines: false,
        source: "constant rate".to_owned(),
    };
    Setup {
        fleet: Arc::new(fleet),
        engines: slots.iter().map(engine).collect(),
        seed,
        model: ModelId(0),
        names: BTreeMap::new(),
        happenings: Vec::new(),
        scrape_every: Some(sim::SCRAPE_EVERY),
        pools_are_warm: true,
        places: Vec::new(),
    }
}

/// In (0, 1].
pub(crate) fn unit(rng: &mut Rng) -> f64 {
    ((rng.next_u64() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64
}

pub(crate) fn exponential(mean: f64, rng: &mut Rng) -> f64 {
    -unit(rng).ln() * mean
}

/// Log-normal with this mean and coefficient of variation.
pub(crate) fn lognormal(mean: f64, cv: f64, rng: &mut Rng) -> f64 {
    let sigma2 = (1.0 + cv * cv).ln();
    let normal = (-2.0 * unit(rng).ln()).sqrt() * (std::f64::consts::TAU * unit(rng)).cos();
    mean * (sigma2.sqrt() * normal - sigma2 / 2.0).exp()
}

pub(crate) fn arrival(at_s: f64, service_s: f64) -> Arrival {
    Arrival {
        at: Nanos((at_s * 1e9) as u64),
        model: None,
        prompt_tokens: Tokens(0),
        output_tokens: Tokens(((service_s * 1e3).round() as u64).max(1)),
        session: None,
        stream: true,
    }
}

/// Runs it over arrivals.
pub(crate) fn run(setup: &Setup, arrivals: impl Iterator<Item = Arrival>) -> sim::Report {
    sim::run(setup, arrivals.map(|a| Ok((a, None))), |_, _| true).expect("a trace without faults")
}
