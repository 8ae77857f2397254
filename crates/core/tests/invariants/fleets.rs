//! Small fleets to try things on.

use std::time::Duration;

use outrigger_core::{
    facts::Facts,
    fleet::{
        Affinity, ApiSet, Backend, BackendId, Cloud, CloudId, Engine, Fleet, Gateway, Key, Limits, MetricsMode, Mode,
        Model, ModelId, Priority, QueueLimits, Reach, Replicas, Reveal, Share, Slo, SpendLimit, Tier, TimeoutOverrides,
        Timeouts, TokenPrice, WeighBy,
    },
    units::{NanoUsd, Nanos, Tokens},
};

pub(crate) const MODEL: ModelId = ModelId(0);
/// The cloud that is billed by the token.
pub(crate) const HOSTED: CloudId = CloudId(2);

/// Backends `b0`, `b1`, … over two clouds: each inner slice is a tier of weights.
pub(crate) fn fleet(tiers: &[&[u32]]) -> Fleet {
    let cloud = |name: &str| Cloud {
        name: name.to_owned(),
        region: None,
        api_key: None,
        spend_limit: None,
        egress_usd_per_gb: None,
    };
    let mut backends = Vec::new();
    let mut split = |weights: &&[u32]| {
        let share = |weight: &u32| {
            let id = BackendId(backends.len() as u16);
            backends.push(backend(&format!("b{}", id.0), CloudId(id.0 % 2)));
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
            tls: None,
            trusted_proxies: Vec::new(),
            drain: Duration::from_secs(30),
        },
        clouds: vec![cloud("coreweave"), cloud("lambda"), cloud("openai")],
        pools: Vec::new(),
        backends,
        models: vec![Model {
            name: "llama".to_owned(),
            aliases: Vec::new(),
            mode: Mode::Weighted,
            slo: Slo::default(),
            tiers,
            timeouts: Timeouts::default(),
            queue: QueueLimits::default(),
            affinity: Affinity::None,
            weigh_by: WeighBy::Requests,
        }],
        keys: Vec::new(),
        routes: Vec::new(),
    }
}

/// The same with a last tier of one hosted substitute, `hosted`, under a spend limit.
pub(crate) fn with_hosted(mut fleet: Fleet, limit: SpendLimit) -> Fleet {
    let id = BackendId(fleet.backends.len() as u16);
    let usd = |usd| NanoUsd::from_usd(usd).expect("finite");
    let mut hosted = backend("hosted", HOSTED);
    hosted.engine = Engine::Openai;
    hosted.token_price = Some(TokenPrice { input: usd(2.5), output: usd(10.0), cached_input: usd(1.25) });
    fleet.backends.push(hosted);
    fleet.clouds[HOSTED.index()].spend_limit = Some(limit);
    let split = vec![Share { backend: id, weight: 1 }];
    fleet.models[0].tiers.push(Tier { split, enter_when: None, substitute: true });
    fleet
}

pub(crate) fn backend(name: &str, cloud: CloudId) -> Backend {
    Backend {
        name: name.to_owned(),
        cloud,
        pool: None,
        replicas: 1,
        gpus_per_replica: 1,
        engine: Engine::Vllm,
        url: format!("http://{name}.example/v1"),
        api_key: None,
        model: "llama".to_owned(),
        max_in_flight: None,
        timeouts: TimeoutOverrides::default(),
        reach: Reach::default(),
        metrics: MetricsMode::None,
        token_price: None,
        engine_model: None,
        apis: ApiSet::default(),
    }
}

pub(crate) fn key(name: &str) -> Key {
    Key {
        name: name.to_owned(),
        sha256: Vec::new(),
        models: None,
        routes: None,
        priority: Priority::Normal,
        substitute: true,
        allowed_clouds: None,
        max_in_flight: None,
        reveal: Reveal::Id,
    }
}

pub(crate) fn request(at: Nanos) -> Facts {
    Facts { stream: true, prompt_tokens: Tokens(200), max_tokens: Some(Tokens(100)), ..Facts::anonymous(MODEL, at) }
}

pub(crate) fn replicas(mut fleet: Fleet, n: u32) -> Fleet {
    fleet.gateway.replicas = Replicas::Count(n);
    fleet
}
