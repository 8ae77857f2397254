//! Every metric, with its name and labels. Labels are names from the fleet file or enums, so that their number is bounded
//! by the file.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, OnceLock, atomic::AtomicU64},
    time::Duration,
};

use outrigger_core::{
    fleet::{BackendId, CloudId, Fleet, ModelId, Priority, Slo},
    record::{AttemptRecord, End, Outcome, TokensSource},
    route::RejectReason,
    state::{State, health::Health, load::Scrape, survive::Survival},
    units::{NanoUsd, Nanos},
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use super::series::{AllSeries, Served};
use crate::{pool_cost::Bill, scrape, upstream::Upstream};

macro_rules! labels {
    ($($name:ident { $($field:ident: $type:ty),* })*) => {$(
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name { $($field: $type),* }
    )*};
}

labels! {
    LogLabels { log: String }
    RequestLabels { model: String, backend: String, cloud: String, region: String, tier: String, code: u16, outcome: &'static str }
    AttemptLabels { backend: String, cloud: String, region: String, model: String, result: &'static str, reason: &'static str }
    ServedLabels { backend: String, cloud: String, region: String, model: String, tier: String }
    BackendLabels { backend: String, cloud: String, region: String }
    StateLabels { backend: String, cloud: String, region: String, state: &'static str }
    ProbeLabels { backend: String, cloud: String, region: String, result: &'static str }
    WeightLabels { model: String, tier: String, backend: String, cloud: String, region: String }
    TokenLabels { backend: String, cloud: String, region: String, model: String, r#type: &'static str, source: &'static str }
    CostLabels { backend: String, cloud: String, region: String, model: String, kind: &'static str }
    PoolLabels { pool: String, cloud: String, kind: &'static str }
    SurvivalLabels { model: String, lost_cloud: String }
    PoolNameLabels { pool: String }
    ScaleLabels { pool: String, result: &'static str }
    CloudLabels { cloud: String, window: &'static str }
    SloLabels { model: String, of: &'static str }
    ChainLabels { chain: String }
    ModelLabels { model: String }
    QueueLabels { model: String, priority: &'static str }
    RejectionLabels { model: String, priority: &'static str, reason: &'static str }
    ResultLabels { result: &'static str }
    KeyLabels { backend: String }
    DigestLabels { digest: String }
    VersionLabels { version: &'static str }
}

/// How a request ended, for its metrics.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    pub model: &'a str,
    pub last: &'a AttemptRecord,
    pub code: u16,
    pub outcome: Outcome,
    pub ttft: Option<Duration>,
    pub duration: Duration,
}

impl From<&Served<'_>> for ServedLabels {
    fn from(served: &Served<'_>) -> Self {
        let Served { backend, cloud, region, model, tier } = *served;
        let (backend, cloud, region) = (backend.to_owned(), cloud.to_owned(), region.to_owned());
        Self { backend, cloud, region, model: model.to_owned(), tier: tier.to_string() }
    }
}

impl RequestLabels {
    fn of(served: ServedLabels, code: u16, outcome: Outcome) -> Self {
        let ServedLabels { backend, cloud, region, model, tier } = served;
        Self { model, backend, cloud, region, tier, code, outcome: outcome.as_str() }
    }
}

impl AttemptLabels {
    fn of(served: &Served<'_>, result: &'static str, reason: &'static str) -> Self {
        let ServedLabels { backend, cloud, region, model, .. } = served.into();
        Self { backend, cloud, region, model, result, reason }
    }
}

impl TokenLabels {
    fn of(served: &Served<'_>, kind: &'static str, source: &'static str) -> Self {
        let ServedLabels { backend, cloud, region, model, .. } = served.into();
        Self { backend, cloud, region, model, r#type: kind, source }
    }
}

impl CostLabels {
    fn of(served: &Served<'_>, kind: &'static str) -> Self {
        let ServedLabels { backend, cloud, region, model, .. } = served.into();
        Self { backend, cloud, region, model, kind }
    }
}

type Histograms = Family<ServedLabels, Histogram, fn() -> Histogram>;
pub(super) type FloatCounter = Counter<f64, AtomicU64>;
type FloatGauge = Gauge<f64, AtomicU64>;

/// All metrics, with the names that users build dashboards on.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    attempts: Family<AttemptLabels, Counter>,
    duration: Histograms,
    ttft: Histograms,
    per_token: Histograms,
    up: Family<BackendLabels, Gauge>,
    state: Family<StateLabels, Gauge>,
    ejections: Family<BackendLabels, Counter>,
    probes: Family<ProbeLabels, Counter>,
    in_flight: Family<BackendLabels, Gauge>,
    engine: EngineGauges,
    scrapes: Family<ProbeLabels, Counter>,
    weight: Family<WeightLabels, FloatGauge>,
    queue: QueueMetrics,
    tokens: Family<TokenLabels, Counter>,
    marginal_cost: Family<CostLabels, FloatCounter>,
    pool_cost: Family<PoolLabels, FloatCounter>,
    bounds: Bounds,
    survivable: Family<SurvivalLabels, FloatGauge>,
    desired_replicas: Family<PoolNameLabels, Gauge>,
    scale_calls: Family<ScaleLabels, Counter>,
    retries: Family<ModelLabels, Counter>,
    reloads: Family<ResultLabels, Counter>,
    certificates: Certificates,
    keys_refused: Family<KeyLabels, Counter>,
    last_reload_ok: Gauge,
    config_hash: Family<DigestLabels, Gauge>,
    log_lines_lost: Family<LogLabels, Counter>,
    started: FloatGauge,
    connections: Gauge,
    overlays: Gauge,
    series: AllSeries,
}

fn request_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 2.0, 17))
}

fn first_token_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 17))
}

fn token_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 1.6, 17))
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("outrigger");
        let mut metrics = Self {
            requests: Family::default(),
            attempts: Family::default(),
            duration: Family::new_with_constructor(request_seconds),
            ttft: Family::new_with_constructor(first_token_seconds),
            per_token: Family::new_with_constructor(token_seconds),
            up: Family::default(),
            state: Family::default(),
            ejections: Family::default(),
            probes: Family::default(),
            in_flight: Family::default(),
            engine: EngineGauges::default(),
            scrapes: Family::default(),
            weight: Family::default(),
            queue: QueueMetrics::default(),
            tokens: Family::default(),
            marginal_cost: Family::default(),
            pool_cost: Family::default(),
            bounds: Bounds::default(),
            survivable: Family::default(),
            desired_replicas: Family::default(),
            scale_calls: Family::default(),
            retries: Family::default(),
            reloads: Family::default(),
            certificates: Certificates::default(),
            keys_refused: Family::default(),
            last_reload_ok: Gauge::default(),
            config_hash: Family::default(),
            log_lines_lost: Family::default(),
            started: FloatGauge::default(),
            connections: Gauge::default(),
            overlays: Gauge::default(),
            series: AllSeries::default(),
            registry: Registry::default(),
        };
        let r = &mut registry;
        r.register("requests", "Requests answered, by who answered and how", metrics.requests.clone());
        r.register("attempts", "Tries on a backend, by how they ended and why it was chosen", metrics.attempts.clone());
        r.register("request_duration_seconds", "From arrival to the last byte", metrics.duration.clone());
        r.register("time_to_first_token_seconds", "From arrival to the first content", metrics.ttft.clone());
        r.register("time_per_output_token_seconds", "Mean per request, after the first", metrics.per_token.clone());
        r.register("backend_up", "1 while a backend may get traffic", metrics.up.clone());
        r.register("backend_state", "1 for the state that a backend is in", metrics.state.clone());
        r.register("backend_ejections", "Times that a backend was taken out of use", metrics.ejections.clone());
        r.register("backend_health_checks", "Probes, by result", metrics.probes.clone());
        r.register("backend_inflight", "Requests of this gateway on a backend now", metrics.in_flight.clone());
        metrics.engine.register(r);
        r.register("scrapes", "Readings of engines' own metrics, by result", metrics.scrapes.clone());
        r.register("backend_weight_target", "Share of its tier that a backend is meant to get", metrics.weight.clone());
        metrics.queue.register(r);
        r.register("tokens", "Tokens, by type and who counted them", metrics.tokens.clone());
        r.register("marginal_cost_usd", "What requests added to the bill", metrics.marginal_cost.clone());
        r.register(
            "pool_cost_usd",
            "What pools cost by the clock; every replica reports all of it, so take the maximum over replicas, not the sum",
            metrics.pool_cost.clone(),
        );
        metrics.bounds.register(r);
        r.register(
            "survivable_share",
            "Of a model's load now, what would still be served without substitutes if the cloud died",
            metrics.survivable.clone(),
        );
        r.register(
            "pool_desired_replicas",
            "Engines that a pool on demand should run for the load now",
            metrics.desired_replicas.clone(),
        );
        r.register("scale_calls", "Calls to whoever scales a pool, by result", metrics.scale_calls.clone());
        r.register("retries", "Attempts after the first", metrics.retries.clone());
        metrics.certificates.register(r);
        r.register("config_reloads", "Reloads of the fleet file, by result", metrics.reloads.clone());
        r.register(
            "config_last_reload_successful",
            "1 if the file in force is the file on disk",
            metrics.last_reload_ok.clone(),
        );
        r.register("config_hash", "The fleet in force", metrics.config_hash.clone());
        r.register(
            "backend_key_fallbacks",
            "Times that a backend refused its new key and took the one before",
            metrics.keys_refused.clone(),
        );
        r.register("log_lines_lost", "Lines that a log could not take", metrics.log_lines_lost.clone());
        r.register("process_start_time_seconds", "When this gateway was started", metrics.started.clone());
        r.register("client_connections", "Client connections open now", metrics.connections.clone());
        r.register("overlays", "Temporary changes in force", metrics.overlays.clone());
        let build: Family<VersionLabels, Gauge> = Family::default();
        build.get_or_create(&VersionLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        r.register("build_info", "The running version", build);
        metrics.registry = registry;
        metrics
    }

    pub(super) fn lost(&self, log: &str) -> Counter {
        self.log_lines_lost.get_or_create(&LogLabels { log: log.to_owned() }).clone()
    }

    /// A request that was answered without any backend.
    pub fn turned_away(&self, model: &str, code: u16, outcome: Outcome) {
        let none = String::new;
        let labels = RequestLabels {
            model: model.to_owned(),
            backend: none(),
            cloud: none(),
            region: none(),
            tier: none(),
            code,
            outcome: outcome.as_str(),
        };
        self.requests.get_or_create(&labels).inc();
    }

    pub fn queued(&self, model: &str, priority: Priority, waited: Duration) {
        let labels = QueueLabels { model: model.to_owned(), priority: priority.as_str() };
        self.queue.wait.get_or_create(&labels).observe(waited.as_secs_f64());
    }

    /// A request that ended on a backend.
    pub fn answered(&self, fleet: &Fleet, answered: &Answered<'_>) {
        let Answered { model, last, code, outcome, ttft, duration } = *answered;
        let served = Served::new(fleet, last.backend, model, last.tier);
        let series = self.series.of(&served);
        let counter = || self.requests.get_or_create(&RequestLabels::of((&served).into(), code, outcome)).clone();
        series.requests.with((code, outcome), counter, |requests| {
            requests.inc();
        });
        let observe = |found: &OnceLock<Histogram>, family: &Histograms, seconds: f64| {
            found.get_or_init(|| family.get_or_create(&(&served).into()).clone()).observe(seconds);
        };
        observe(&series.duration, &self.duration, duration.as_secs_f64());
        let Some(ttft) = ttft else { return };
        observe(&series.ttft, &self.ttft, ttft.as_secs_f64());
        let after_first = last.usage.output.0.saturating_sub(1);
        if after_first > 0 {
            let rest = duration.saturating_sub(ttft).as_secs_f64();
            observe(&series.per_token, &self.per_token, rest / after_first as f64);
        }
    }

    pub(super) fn key_refused(&self, backend: &str) {
        self.keys_refused.get_or_create(&KeyLabels { backend: backend.to_owned() }).inc();
    }

    /// A request that named no model.
    pub fn routed(&self, fleet: &Fleet, to: BackendId, code: u16, outcome: Outcome) {
        let (backend, cloud, region) = names(fleet, to);
        let served = ServedLabels { backend, cloud, region, model: String::new(), tier: String::new() };
        self.requests.get_or_create(&RequestLabels::of(served, code, outcome)).inc();
    }

    pub fn attempted(&self, fleet: &Fleet, model: &str, attempt: &AttemptRecord) {
        let served = Served::new(fleet, attempt.backend, model, attempt.tier);
        let series = self.series.of(&served);
        let result = match attempt.end {
            End::Failed(fault) => fault.as_str(),
            other => Outcome::from(other).as_str(),
        };
        let reason = attempt.reason.as_str();
        let counter = || self.attempts.get_or_create(&AttemptLabels::of(&served, result, reason)).clone();
        series.attempts.with((result, reason), counter, |attempts| {
            attempts.inc();
        });
        let source = match attempt.usage.source {
            TokensSource::Engine => "engine",
            TokensSource::Estimated => "estimated",
        };
        let usage = &attempt.usage;
        let kinds = [
            ("input", usage.prompt.0 - usage.cached.0.min(usage.prompt.0)),
            ("cached_input", usage.cached.0),
            ("output", usage.output.0),
        ];
        for (kind, tokens) in kinds.into_iter().filter(|(_, n)| *n > 0) {
            let counter = || self.tokens.get_or_create(&TokenLabels::of(&served, kind, source)).clone();
            series.tokens.with((kind, source), counter, |counted| {
                counted.inc_by(tokens);
            });
        }
        let cost = &attempt.cost;
        for (kind, usd) in [("gpu", cost.gpu), ("tokens", cost.tokens), ("egress", cost.egress)] {
            if usd.0 > 0 {
                let counter = || self.marginal_cost.get_or_create(&CostLabels::of(&served, kind)).clone();
                series.cost.with(kind, counter, |counted| {
                    counted.inc_by(usd.as_usd());
                });
            }
        }
    }

    pub fn retried(&self, model: &str) {
        self.retries.get_or_create(&ModelLabels { model: model.to_owned() }).inc();
    }

    /// No backend was found, at first or after some had failed.
    pub fn rejected(&self, model: &str, priority: Priority, why: RejectReason) {
        let labels = RejectionLabels { model: model.to_owned(), priority: priority.as_str(), reason: why.as_str() };
        self.queue.rejections.get_or_create(&labels).inc();
    }

    pub fn probed(&self, fleet: &Fleet, backend: BackendId, result: &'static str) {
        let (backend, cloud, region) = names(fleet, backend);
        self.probes.get_or_create(&ProbeLabels { backend, cloud, region, result }).inc();
    }

    pub fn scraped(&self, fleet: &Fleet, backend: BackendId, result: &'static str) {
        let (backend, cloud, region) = names(fleet, backend);
        self.scrapes.get_or_create(&ProbeLabels { backend, cloud, region, result }).inc();
    }

    pub(super) fn scale_called(&self, pool: &str, result: &'static str) {
        self.scale_calls.get_or_create(&ScaleLabels { pool: pool.to_owned(), result }).inc();
    }

    pub(super) fn certificate_read(&self, result: &'static str) {
        self.certificates.reloads.get_or_create(&ResultLabels { result }).inc();
    }

    pub fn reloaded(&self, ok: bool) {
        self.reloads.get_or_create(&ResultLabels { result: if ok { "ok" } else { "refused" } }).inc();
        self.last_reload_ok.set(i64::from(ok));
    }

    pub fn connection_opened(&self) {
        self.connections.inc();
    }

    pub fn connection_closed(&self) {
        self.connections.dec();
    }

    pub fn starts(&self, now: Nanos) {
        self.last_reload_ok.set(1);
        self.started.set(seconds(now));
    }

    /// The certificate in force for clients ends then.
    pub fn certificate_ends(&self, chain: &Path, at: i64) {
        self.certificates.expiry.get_or_create(&ChainLabels { chain: chain.display().to_string() }).set(at);
    }

    /// The page for Prometheus, with the gauges set from `state` first.
    pub fn page(
        &self,
        state: &mut State,
        upstreams: &[Arc<Upstream>],
        overlays: usize,
        pool_costs: &BTreeMap<Bill, NanoUsd>,
        now: Nanos,
    ) -> String {
        self.read_state(state, now);
        self.bounds.read(state.fleet());
        self.certificates.backend_expiry.clear();
        for (i, upstream) in upstreams.iter().enumerate() {
            if let Some(at) = upstream.pool.certificate_ends() {
                self.certificates.backend_expiry.get_or_create(&backend_labels(state.fleet(), i)).set(at);
            }
        }
        self.pool_cost.clear();
        for (Bill { pool, cloud, kind }, sum) in pool_costs {
            let labels = PoolLabels { pool: pool.clone(), cloud: cloud.clone(), kind };
            self.pool_cost.get_or_create(&labels).inc_by(sum.as_usd());
        }
        self.overlays.set(overlays as i64);
        let mut page = String::new();
        encode(&mut page, &self.registry).expect("writing into memory cannot fail");
        page
    }

    fn read_state(&self, state: &mut State, now: Nanos) {
        let fleet = state.fleet().clone();
        for gauges in [&self.up, &self.in_flight] {
            gauges.clear();
        }
        self.engine.clear();
        self.state.clear();
        self.ejections.clear();
        self.weight.clear();
        self.config_hash.clear();
        self.config_hash.get_or_create(&DigestLabels { digest: fleet.digest.clone() }).set(1);
        for (i, _) in fleet.backends.iter().enumerate() {
            let id = BackendId(i as u16);
            let (backend, cloud, region) = names(&fleet, id);
            let seen = state.backend(id);
            let word = state_word(seen, now);
            let labels = BackendLabels { backend: backend.clone(), cloud: cloud.clone(), region: region.clone() };
            self.in_flight.get_or_create(&labels).set(i64::from(seen.in_flight));
            self.up.get_or_create(&labels).set(i64::from(matches!(word, "up" | "slow_start")));
            if let Some(said) = engine_said(state, id) {
                self.engine.set(&labels, &said, now);
            }
            self.ejections.get_or_create(&labels).inc_by(seen.live.taken_out());
            self.state.get_or_create(&StateLabels { backend, cloud, region, state: word }).set(1);
        }
        for (m, model) in fleet.models.iter().enumerate() {
            let seen = &state.observed().models[m];
            for priority in Priority::ALL {
                let labels = QueueLabels { model: model.name.clone(), priority: priority.as_str() };
                self.queue.length.get_or_create(&labels).set(i64::from(seen.queue.waiting_with(priority)));
            }
            for (t, tier) in model.tiers.iter().enumerate() {
                let total: u32 = seen.tiers[t].weights.iter().sum();
                for (share, weight) in tier.split.iter().zip(&seen.tiers[t].weights) {
                    let (backend, cloud, region) = names(&fleet, share.backend);
                    let labels =
                        WeightLabels { model: model.name.clone(), tier: (t + 1).to_string(), backend, cloud, region };
                    self.weight.get_or_create(&labels).set(f64::from(*weight) / f64::from(total.max(1)));
                }
            }
        }
        self.desired_replicas.clear();
        for desired in state.desired(now) {
            let pool = fleet.pools[desired.pool.index()].name.clone();
            self.desired_replicas.get_or_create(&PoolNameLabels { pool }).set(i64::from(desired.replicas));
        }
        self.survivable.clear();
        for Outlook { model, lost_cloud, survival } in outlooks(state, now) {
            let labels = SurvivalLabels { model: model.to_owned(), lost_cloud: lost_cloud.to_owned() };
            self.survivable.get_or_create(&labels).set(survival.share());
        }
        self.bounds.spend.clear();
        for (c, cloud) in fleet.clouds.iter().enumerate().filter(|(_, c)| c.spend_limit.is_some()) {
            let (hour, day, reserved) = state.spend(CloudId(c as u16), now);
            for (window, usd) in [("hour", hour), ("day", day), ("reserved", reserved)] {
                self.bounds.spend.get_or_create(&CloudLabels { cloud: cloud.name.clone(), window }).set(usd.as_usd());
            }
        }
    }
}

/// What is left of one model if one cloud dies.
#[derive(Clone, Copy, Debug)]
pub struct Outlook<'a> {
    pub model: &'a str,
    pub lost_cloud: &'a str,
    pub survival: Survival,
}

/// For each cloud what is left of each model that it serves, for the metrics and the admin API.
pub fn outlooks(state: &State, now: Nanos) -> impl Iterator<Item = Outlook<'_>> {
    let fleet = state.fleet();
    let pairs = (0..fleet.clouds.len()).flat_map(|c| (0..fleet.models.len()).map(move |m| (c, m)));
    pairs.filter_map(move |(c, m)| {
        let (cloud, model) = (CloudId(c as u16), ModelId(m as u16));
        let survival = state.survival(model, cloud, now)?;
        Some(Outlook { model: &fleet.model(model).name, lost_cloud: &fleet.cloud(cloud).name, survival })
    })
}

/// What engines' own metrics said, absent where nothing was ever read.
#[derive(Debug, Default)]
struct EngineGauges {
    running: Family<BackendLabels, Gauge>,
    waiting: Family<BackendLabels, Gauge>,
    age: Family<BackendLabels, FloatGauge>,
}

impl EngineGauges {
    fn register(&self, registry: &mut Registry) {
        let (running, waiting) = (self.running.clone(), self.waiting.clone());
        registry.register("engine_running", "Requests running, by the engine's own last count", running);
        registry.register("engine_waiting", "Requests in the engine's queue, by its own last count", waiting);
        registry.register("engine_signal_age_seconds", "Since the engine's own counts were read", self.age.clone());
    }

    fn clear(&self) {
        self.running.clear();
        self.waiting.clear();
        self.age.clear();
    }

    fn set(&self, labels: &BackendLabels, said: &Scrape, now: Nanos) {
        self.running.get_or_create(labels).set(i64::from(said.running));
        self.waiting.get_or_create(labels).set(i64::from(said.waiting));
        self.age.get_or_create(labels).set(now.since(said.at).as_secs_f64());
    }
}

/// Who waits for a place, and who is turned away.
#[derive(Debug)]
struct QueueMetrics {
    length: Family<QueueLabels, Gauge>,
    wait: Family<QueueLabels, Histogram, fn() -> Histogram>,
    rejections: Family<RejectionLabels, Counter>,
}

impl Default for QueueMetrics {
    fn default() -> Self {
        let wait = Family::new_with_constructor(first_token_seconds as fn() -> Histogram);
        Self { length: Family::default(), wait, rejections: Family::default() }
    }
}

impl QueueMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register("queue_length", "Requests waiting for a place", self.length.clone());
        registry.register("queue_wait_seconds", "In line for a place, of those that waited", self.wait.clone());
        let about = "Requests for which routing found no backend (any more), by why";
        registry.register("rejections", about, self.rejections.clone());
    }
}

/// What is spent, and what the fleet file sets as a bound, so that alerts need not repeat it.
#[derive(Debug, Default)]
struct Bounds {
    spend: Family<CloudLabels, FloatGauge>,
    spend_limit: Family<CloudLabels, FloatGauge>,
    slo: Family<SloLabels, FloatGauge>,
}

impl Bounds {
    fn register(&self, registry: &mut Registry) {
        registry.register("spend_usd", "Spent on tokens in a sliding window, for spend limits", self.spend.clone());
        registry.register("spend_limit_usd", "What this gateway may spend of a spend limit", self.spend_limit.clone());
        registry.register("slo_seconds", "The objective of a model, from the fleet file", self.slo.clone());
    }

    fn read(&self, fleet: &Fleet) {
        self.slo.clear();
        for model in &fleet.models {
            let Slo { ttft_p95, time_per_output_token_p95 } = model.slo;
            let objectives = [("ttft_p95", ttft_p95), ("time_per_output_token_p95", time_per_output_token_p95)];
            for (of, objective) in objectives {
                let Some(objective) = objective else { continue };
                let labels = SloLabels { model: model.name.clone(), of };
                self.slo.get_or_create(&labels).set(objective.as_secs_f64());
            }
        }
        self.spend_limit.clear();
        let replicas = f64::from(fleet.gateway.replicas.count().max(1));
        for cloud in &fleet.clouds {
            let Some(limit) = cloud.spend_limit else { continue };
            for (window, usd) in [("hour", limit.per_hour), ("day", limit.per_day)] {
                let Some(usd) = usd else { continue };
                let labels = CloudLabels { cloud: cloud.name.clone(), window };
                self.spend_limit.get_or_create(&labels).set(usd.as_usd() / replicas);
            }
        }
    }
}

/// How long certificates last.
#[derive(Debug, Default)]
struct Certificates {
    reloads: Family<ResultLabels, Counter>,
    expiry: Family<ChainLabels, Gauge>,
    backend_expiry: Family<BackendLabels, Gauge>,
}

impl Certificates {
    fn register(&self, registry: &mut Registry) {
        let help = "Changed certificates for clients, by whether they could be used";
        registry.register("certificate_reloads", help, self.reloads.clone());
        let help = "When the certificate that clients are shown ends";
        registry.register("certificate_expiry_timestamp_seconds", help, self.expiry.clone());
        let help = "When the certificate ends that a backend showed last";
        registry.register("backend_certificate_expiry_timestamp_seconds", help, self.backend_expiry.clone());
    }
}

/// The last that an engine's own metrics said, if they are still read.
pub fn engine_said(state: &State, backend: BackendId) -> Option<Scrape> {
    scrape::dialect(state.fleet().backend(backend)).and(state.backend(backend).load.last_scrape())
}

/// The one word for the state a backend is in: for metrics, the admin API and the screen.
pub fn state_word(state: &outrigger_core::state::BackendState, now: Nanos) -> &'static str {
    use outrigger_core::state::cooldown::Gate;
    match (state.live.health, state.cooldown.gate(now)) {
        _ if state.drained => "drained",
        (Health::Down { .. }, _) => "down",
        (Health::Suspect { .. }, _) => "suspect",
        (Health::Up, _) if state.live.is_ejected(now) => "ejected",
        (Health::Up, Gate::Blocked { .. } | Gate::TrialRunning) => "cooling_down",
        (Health::Up, _) if state.live.ramp(now) < 1.0 => "slow_start",
        (Health::Up, _) => "up",
    }
}

fn backend_labels(fleet: &Fleet, index: usize) -> BackendLabels {
    let (backend, cloud, region) = names(fleet, BackendId(index as u16));
    BackendLabels { backend, cloud, region }
}

/// Since the Unix epoch, as Prometheus writes moments.
fn seconds(at: Nanos) -> f64 {
    at.since(Nanos::ZERO).as_secs_f64()
}

fn names(fleet: &Fleet, backend: BackendId) -> (String, String, String) {
    let cloud = fleet.cloud_of(backend);
    (fleet.backend(backend).name.clone(), cloud.name.clone(), cloud.region.clone().unwrap_or_default())
}
