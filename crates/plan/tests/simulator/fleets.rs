//! Small fleets of engines of constant rate, and traffic for them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use outrigger_core::{
    Rng,
    fleet::{
        Affinity, Backend, BackendId, Cloud, CloudId, Engine, Fleet, Gateway, HttpVersion, Limits, MetricsMode, Mode,
        Model, ModelId, Replicas, Share, Slo, Tier, TimeoutOverrides, Timeouts, WeighBy,
    },
    units::{Nanos, Tokens},
};
use outrigger_plan::{
    sim::{self, Curve, Setup},
    trace::Arrival,
};
use rand_core::Rng as _;

/// Backends `b0`, `b1`, … of `slots` each: each inner slice is a tier of weights. Tokens are milliseconds.
pub(crate) fn fleet(tiers: &[&[u32]]) -> Fleet {
    let cloud =
        Cloud { name: "here".to_owned(), region: None, api_key: None, spend_limit: None, egress_usd_per_gb: None };
    let mut backends = Vec::new();
    let mut split = |weights: &&[u32]| {
        let share = |weight: &u32| {
            let id = BackendId(backends.len() as u16);
            backends.push(backend(&format!("b{}", id.0)));
            Share { backend: id, weight: *weight }
        };
        Tier { split: weights.iter().map(share).collect(), enter_when: None, substitute: false }
    };
    let tiers: Vec<Tier> = tiers.iter().map(&mut split).collect();
    Fleet {
        digest: "test".to_owned(),
        gateway: Gateway {
            cloud: None,
            region: None,
            egress_usd_per_gb: None,
            listen: ([127, 0, 0, 1], 0).into(),
            admin: ([127, 0, 0, 1], 0).into(),
            replicas: Replicas::Count(1),
            state_dir: None,
            limits: Limits::default(),
            drain: Duration::from_secs(30),
        },
        clouds: vec![cloud],
        pools: Vec::new(),
        backends,
        models: vec![Model {
            name: "llama".to_owned(),
            aliases: Vec::new(),
            mode: Mode::Weighted,
            slo: Slo::default(),
            tiers,
            timeouts: Timeouts::default(),
            affinity: Affinity::None,
            weigh_by: WeighBy::Requests,
        }],
        keys: Vec::new(),
    }
}

fn backend(name: &str) -> Backend {
    Backend {
        name: name.to_owned(),
        cloud: CloudId(0),
        pool: None,
        replicas: 1,
        gpus_per_replica: 1,
        engine: Engine::Vllm,
        url: format!("http://{name}.example/v1"),
        api_key: None,
        model: "llama".to_owned(),
        max_in_flight: None,
        timeouts: TimeoutOverrides::default(),
        http: HttpVersion::Http1,
        metrics: MetricsMode::Aggregated,
        token_price: None,
        constant_rate: None,
    }
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
