//! Every log line and every metric, each from a named struct or method, so that names and labels are in one place.
//!
//! Lines go through a bounded queue to a writing thread. A full disk or a slow reader costs lines, which are counted,
//! and never a request. Labels are names from the fleet file or enums, so that their number is bounded by the file.

use std::{
    collections::BTreeMap,
    io::Write,
    net::IpAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use outrigger_core::{
    Rng,
    cost::Cost,
    facts::{Facts, History},
    fleet::{BackendId, CloudId, Fleet, Model, ModelId},
    record::{AttemptRecord, Outcome, TokensSource},
    route::{Candidate, Decision},
    state::{State, View, health::Health, load::Scrape, scaling::Desired, survive::Survival},
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
use serde::{Deserialize, Serialize};

use crate::{
    live::Ticket,
    pool_cost::Bill,
    reload::Replaced,
    scale::{CallOutcome, Order},
    scrape,
};

/// Lines that may wait for the writer.
const QUEUE: usize = 16_384;

/// A bounded queue of lines to one writer.
#[derive(Clone, Debug)]
pub struct Lines {
    queue: SyncSender<Vec<u8>>,
    /// Lines that were handed over and are not written yet.
    waiting: Arc<AtomicU64>,
}

impl Lines {
    /// Starts the writing thread. `lost` counts lines that could not be written.
    fn start(mut out: Box<dyn Write + Send>, lost: Counter) -> std::io::Result<Self> {
        let (queue, lines) = sync_channel::<Vec<u8>>(QUEUE);
        let waiting = Arc::new(AtomicU64::new(0));
        let written = waiting.clone();
        std::thread::Builder::new().name("log".into()).spawn(move || {
            while let Ok(line) = lines.recv() {
                let more = lines.try_iter().take(256);
                let batch = more.fold(line, |mut batch, next| {
                    batch.extend_from_slice(&next);
                    batch
                });
                let count = batch.iter().filter(|b| **b == b'\n').count() as u64;
                if out.write_all(&batch).and_then(|()| out.flush()).is_err() {
                    lost.inc_by(count);
                }
                written.fetch_sub(count, Ordering::Release);
            }
        })?;
        Ok(Self { queue, waiting })
    }

    /// `false` when the line is lost.
    fn write(&self, line: &impl Serialize, lost: &Counter) -> bool {
        let mut text = serde_json::to_vec(line).expect("log lines are plain data");
        text.push(b'\n');
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let sent = self.queue.try_send(text);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = sent {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            lost.inc();
        }
        sent.is_ok()
    }
}

/// Where lines go and numbers are kept.
#[derive(Clone, Debug)]
pub struct Events {
    requests: Option<Lines>,
    decisions: Option<Lines>,
    metrics: Arc<Metrics>,
}

/// Writers for the logs; absent ones are not kept.
#[derive(Default)]
pub struct Outputs {
    pub requests: Option<Box<dyn Write + Send>>,
    pub decisions: Option<Box<dyn Write + Send>>,
}

impl std::fmt::Debug for Outputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outputs").field("requests", &self.requests.is_some()).finish_non_exhaustive()
    }
}

/// The request log's line; `docs/request-log.md` describes each field.
#[derive(Debug, Serialize)]
pub struct RequestLine<'a> {
    pub event: &'static str,
    pub v: u8,
    pub ts: String,
    pub request_id: &'a str,
    pub fleet: &'a str,
    pub client: IpAddr,
    pub key_id: Option<&'a str>,
    pub model: Option<&'a str>,
    pub stream: bool,
    pub status: u16,
    pub outcome: Outcome,
    pub prompt_tokens: u64,
    pub output_tokens: u64,
    pub cached_tokens: u64,
    pub tokens_source: TokensSource,
    pub ttft_ms: Option<f64>,
    pub duration_ms: f64,
    pub tier: Option<u8>,
    pub reason: Option<&'a str>,
    pub attempts: Vec<AttemptLine<'a>>,
}

/// The line of a request that names no model. Not called a request, since no trace can be made of it.
#[derive(Debug, Serialize)]
pub struct RoutedLine<'a> {
    pub event: &'static str,
    pub v: u8,
    pub ts: String,
    pub request_id: &'a str,
    pub fleet: &'a str,
    pub client: IpAddr,
    pub key_id: Option<&'a str>,
    pub method: &'a str,
    pub path: &'a str,
    pub backend: &'a str,
    pub status: u16,
    pub outcome: Outcome,
    /// What went wrong, if something did.
    pub reason: Option<&'static str>,
    pub bytes_out: u64,
    pub bytes_in: u64,
    pub duration_ms: f64,
}

#[derive(Debug, Serialize)]
pub struct AttemptLine<'a> {
    pub backend: &'a str,
    pub outcome: Outcome,
    pub reason: &'a str,
    pub ttft_ms: Option<f64>,
    pub duration_ms: f64,
    pub prompt_tokens: u64,
    pub output_tokens: u64,
    pub bytes_out: u64,
    pub bytes_in: u64,
    pub cost_nano_usd: Cost,
}

/// The version of the decision log, in each of its lines.
pub const DECISION_LOG: u64 = 1;

/// The decision log's other line: what the numbers stand for in the decisions after it, so that these can be made again
/// under another fleet. Written before the first decision under a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetLine {
    pub event: String,
    pub v: u64,
    pub digest: String,
    pub models: Vec<ModelNames>,
    pub backends: Vec<String>,
    pub clouds: Vec<String>,
    pub keys: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelNames {
    pub name: String,
    /// Backend and weight of each share of each tier, as the fleet file has them.
    pub tiers: Vec<Vec<(BackendId, u32)>>,
}

impl FleetLine {
    pub fn new(fleet: &Fleet) -> Self {
        let names = |model: &Model| ModelNames {
            name: model.name.clone(),
            tiers: model.tiers.iter().map(|t| t.split.iter().map(|s| (s.backend, s.weight)).collect()).collect(),
        };
        Self {
            event: "fleet".to_owned(),
            v: DECISION_LOG,
            digest: fleet.digest.clone(),
            models: fleet.models.iter().map(names).collect(),
            backends: fleet.backends.iter().map(|b| b.name.clone()).collect(),
            clouds: fleet.clouds.iter().map(|c| c.name.clone()).collect(),
            keys: fleet.keys.iter().map(|k| k.name.clone()).collect(),
        }
    }
}

/// The decision log's line: with the fleet of this digest it can be decided again, bit for bit.
#[derive(Debug, Serialize)]
pub struct DecisionLine<'a> {
    pub event: &'static str,
    pub v: u64,
    pub request_id: &'a str,
    pub fleet: &'a str,
    pub now: Nanos,
    pub facts: &'a Facts,
    pub history: &'a History,
    pub rng: &'a Rng,
    pub view: &'a View,
    pub decision: &'a Decision,
    pub candidates: &'a [Candidate],
}

impl<'a> DecisionLine<'a> {
    pub fn new(
        ticket: &'a Ticket,
        now: Nanos,
        rng: &'a Rng,
        view: &'a View,
        decision: &'a Decision,
        candidates: &'a [Candidate],
    ) -> Self {
        Self {
            event: "decision",
            v: DECISION_LOG,
            request_id: &ticket.request_id,
            fleet: &ticket.fleet.digest,
            now,
            facts: &ticket.facts,
            history: &ticket.history,
            rng,
            view,
            decision,
            candidates,
        }
    }
}

impl Events {
    pub fn start(outputs: Outputs) -> std::io::Result<Self> {
        let metrics = Arc::new(Metrics::new());
        let lines = |out: Option<Box<dyn Write + Send>>, log: &str| {
            let lost = metrics.log_lines_lost.get_or_create(&LogLabels { log: log.to_owned() }).clone();
            out.map(|out| Lines::start(out, lost)).transpose()
        };
        let requests = lines(outputs.requests, "request")?;
        let decisions = lines(outputs.decisions, "decision")?;
        Ok(Self { requests, decisions, metrics })
    }

    /// Nothing waits for a writer any more.
    pub fn all_written(&self) -> bool {
        [&self.requests, &self.decisions].into_iter().flatten().all(|l| l.waiting.load(Ordering::Acquire) == 0)
    }

    pub fn logs_decisions(&self) -> bool {
        self.decisions.is_some()
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub fn request(&self, line: &RequestLine<'_>) {
        if let Some(lines) = &self.requests {
            lines.write(line, &self.metrics.lost("request"));
        }
    }

    pub fn routed(&self, line: &RoutedLine<'_>) {
        if let Some(lines) = &self.requests {
            lines.write(line, &self.metrics.lost("request"));
        }
    }

    /// One call to whoever scales a pool; `pause` is the time to the next try.
    pub fn scaled(&self, order: &Order, outcome: &CallOutcome, pause: Option<Duration>) {
        let Order { pool, gpus, replicas, reason, .. } = order;
        let what = match outcome {
            CallOutcome::Ok => "ok".to_owned(),
            CallOutcome::DryRun => "dry run, nothing was done".to_owned(),
            CallOutcome::Failed(why) => format!("failed: {why}"),
            CallOutcome::Timeout => "failed: it took too long and was ended".to_owned(),
        };
        let next = pause.map_or(String::new(), |pause| format!("; again in {} s", pause.as_secs()));
        eprintln!("scale {pool} to {gpus} GPUs ({replicas} replicas, {}): {what}{next}", reason.as_str());
        self.metrics.scale_called(pool, outcome.as_str());
    }

    /// More GPUs are desired than may be paid for.
    pub fn scale_held(&self, pool: &str, desired: &Desired, most: u32) {
        let (gpus, reason) = (desired.gpus, desired.reason.as_str());
        eprintln!("scale {pool}: {gpus} GPUs are wanted ({reason}), and max_usd_per_hour allows {most}");
        self.metrics.scale_called(pool, "held");
    }

    /// The fleet's files changed, and it is in force as they say now.
    pub fn fleet_replaced(&self, replaced: &Replaced) {
        eprintln!("the fleet is now {} (was {})", replaced.fleet.digest, replaced.before);
        for setting in &replaced.needs_restart {
            eprintln!("warning: {setting} changed, and is only read at the start; restart to obey it");
        }
    }

    /// The fleet's files changed, and what they hold cannot be served.
    pub fn fleet_kept(&self, digest: &str, why: &str) {
        eprintln!("warning: the fleet in force is still {digest}: {why}");
    }

    /// Clients are served with another certificate from now on.
    pub fn certificate_renewed(&self, chain: &Path) {
        eprintln!("certificate {}: renewed", chain.display());
        self.metrics.certificate_read("ok");
    }

    /// The files of the certificate changed, and what they hold cannot be served with.
    pub fn certificate_kept(&self, why: &str) {
        eprintln!("warning: clients are still served with the certificate of before: {why}");
        self.metrics.certificate_read("refused");
    }

    /// A backend does not take its new key, and still takes the one before.
    pub fn key_refused(&self, backend: &str) {
        eprintln!(
            "warning: backend {backend} refuses its new api_key and is asked with the one before; correct the key before that one ends"
        );
        self.metrics.keys_refused.get_or_create(&KeyLabels { backend: backend.to_owned() }).inc();
    }

    /// No TLS connection to a backend.
    pub fn backend_tls_failed(&self, backend: &str, why: &str) {
        eprintln!("warning: no TLS connection to backend {backend}: {why}");
    }

    /// `false` when the line is lost, so that it has to be written again.
    pub fn fleet(&self, line: &FleetLine) -> bool {
        self.decisions.as_ref().is_none_or(|lines| lines.write(line, &self.metrics.lost("decision")))
    }

    pub fn decision(&self, line: &DecisionLine<'_>) {
        if let Some(lines) = &self.decisions {
            lines.write(line, &self.metrics.lost("decision"));
        }
    }
}

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
    ModelLabels { model: String }
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

impl RequestLabels {
    fn of(served: &ServedLabels, code: u16, outcome: Outcome) -> Self {
        let ServedLabels { backend, cloud, region, model, tier } = served.clone();
        Self { model, backend, cloud, region, tier, code, outcome: outcome.as_str() }
    }
}

type FloatCounter = Counter<f64, AtomicU64>;
type FloatGauge = Gauge<f64, AtomicU64>;

/// All metrics, with the names that users build dashboards on.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    attempts: Family<AttemptLabels, Counter>,
    duration: Family<ServedLabels, Histogram, fn() -> Histogram>,
    ttft: Family<ServedLabels, Histogram, fn() -> Histogram>,
    per_token: Family<ServedLabels, Histogram, fn() -> Histogram>,
    up: Family<BackendLabels, Gauge>,
    state: Family<StateLabels, Gauge>,
    probes: Family<ProbeLabels, Counter>,
    in_flight: Family<BackendLabels, Gauge>,
    engine: EngineGauges,
    scrapes: Family<ProbeLabels, Counter>,
    weight: Family<WeightLabels, FloatGauge>,
    waiting: Family<ModelLabels, Gauge>,
    tokens: Family<TokenLabels, Counter>,
    marginal_cost: Family<CostLabels, FloatCounter>,
    pool_cost: Family<PoolLabels, FloatCounter>,
    spend: Family<CloudLabels, FloatGauge>,
    survivable: Family<SurvivalLabels, FloatGauge>,
    desired_replicas: Family<PoolNameLabels, Gauge>,
    scale_calls: Family<ScaleLabels, Counter>,
    retries: Family<ModelLabels, Counter>,
    reloads: Family<ResultLabels, Counter>,
    certificates: Family<ResultLabels, Counter>,
    keys_refused: Family<KeyLabels, Counter>,
    last_reload_ok: Gauge,
    config_hash: Family<DigestLabels, Gauge>,
    log_lines_lost: Family<LogLabels, Counter>,
    connections: Gauge,
    overlays: Gauge,
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
    fn new() -> Self {
        let mut registry = Registry::with_prefix("outrigger");
        let mut metrics = Self {
            requests: Family::default(),
            attempts: Family::default(),
            duration: Family::new_with_constructor(request_seconds),
            ttft: Family::new_with_constructor(first_token_seconds),
            per_token: Family::new_with_constructor(token_seconds),
            up: Family::default(),
            state: Family::default(),
            probes: Family::default(),
            in_flight: Family::default(),
            engine: EngineGauges::default(),
            scrapes: Family::default(),
            weight: Family::default(),
            waiting: Family::default(),
            tokens: Family::default(),
            marginal_cost: Family::default(),
            pool_cost: Family::default(),
            spend: Family::default(),
            survivable: Family::default(),
            desired_replicas: Family::default(),
            scale_calls: Family::default(),
            retries: Family::default(),
            reloads: Family::default(),
            certificates: Family::default(),
            keys_refused: Family::default(),
            last_reload_ok: Gauge::default(),
            config_hash: Family::default(),
            log_lines_lost: Family::default(),
            connections: Gauge::default(),
            overlays: Gauge::default(),
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
        r.register("backend_health_checks", "Probes, by result", metrics.probes.clone());
        r.register("backend_inflight", "Requests of this gateway on a backend now", metrics.in_flight.clone());
        metrics.engine.register(r);
        r.register("scrapes", "Readings of engines' own metrics, by result", metrics.scrapes.clone());
        r.register("backend_weight_target", "Share of its tier that a backend is meant to get", metrics.weight.clone());
        r.register("queue_length", "Requests waiting for headroom", metrics.waiting.clone());
        r.register("tokens", "Tokens, by type and who counted them", metrics.tokens.clone());
        r.register("marginal_cost_usd", "What requests added to the bill", metrics.marginal_cost.clone());
        r.register(
            "pool_cost_usd",
            "What pools cost by the clock; every replica reports all of it, so take the maximum over replicas, not the sum",
            metrics.pool_cost.clone(),
        );
        r.register("spend_usd", "Spent on tokens in a sliding window, for spend limits", metrics.spend.clone());
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
        r.register(
            "certificate_reloads",
            "Changed certificates for clients, by whether they could be used",
            metrics.certificates.clone(),
        );
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
        r.register("client_connections", "Client connections open now", metrics.connections.clone());
        r.register("overlays", "Temporary changes in force", metrics.overlays.clone());
        let build: Family<VersionLabels, Gauge> = Family::default();
        build.get_or_create(&VersionLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        r.register("build_info", "The running version", build);
        metrics.registry = registry;
        metrics
    }

    fn lost(&self, log: &str) -> Counter {
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

    /// A request that ended on a backend.
    pub fn answered(&self, fleet: &Fleet, answered: &Answered<'_>) {
        let Answered { model, last, code, outcome, ttft, duration } = *answered;
        let (backend, cloud, region) = names(fleet, last.backend);
        let (model, tier) = (model.to_owned(), last.tier.to_string());
        let served = ServedLabels { backend, cloud, region, model, tier };
        let labels = RequestLabels::of(&served, code, outcome);
        self.requests.get_or_create(&labels).inc();
        self.duration.get_or_create(&served).observe(duration.as_secs_f64());
        let Some(ttft) = ttft else { return };
        self.ttft.get_or_create(&served).observe(ttft.as_secs_f64());
        let after_first = last.usage.output.0.saturating_sub(1);
        if after_first > 0 {
            let rest = duration.saturating_sub(ttft).as_secs_f64();
            self.per_token.get_or_create(&served).observe(rest / after_first as f64);
        }
    }

    /// A request that named no model.
    pub fn routed(&self, fleet: &Fleet, to: BackendId, code: u16, outcome: Outcome) {
        let (backend, cloud, region) = names(fleet, to);
        let served = ServedLabels { backend, cloud, region, model: String::new(), tier: String::new() };
        self.requests.get_or_create(&RequestLabels::of(&served, code, outcome)).inc();
    }

    pub fn attempted(&self, fleet: &Fleet, model: &str, attempt: &AttemptRecord) {
        let (backend, cloud, region) = names(fleet, attempt.backend);
        let result = match attempt.end {
            outrigger_core::record::End::Failed(fault) => fault.as_str(),
            other => Outcome::from(other).as_str(),
        };
        let labels = AttemptLabels {
            backend: backend.clone(),
            cloud: cloud.clone(),
            region: region.clone(),
            model: model.to_owned(),
            result,
            reason: attempt.reason.as_str(),
        };
        self.attempts.get_or_create(&labels).inc();
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
            let labels = TokenLabels {
                backend: backend.clone(),
                cloud: cloud.clone(),
                region: region.clone(),
                model: model.to_owned(),
                r#type: kind,
                source,
            };
            self.tokens.get_or_create(&labels).inc_by(tokens);
        }
        let cost = &attempt.cost;
        for (kind, usd) in [("gpu", cost.gpu), ("tokens", cost.tokens), ("egress", cost.egress)] {
            if usd.0 > 0 {
                let labels = CostLabels {
                    backend: backend.clone(),
                    cloud: cloud.clone(),
                    region: region.clone(),
                    model: model.to_owned(),
                    kind,
                };
                self.marginal_cost.get_or_create(&labels).inc_by(usd.as_usd());
            }
        }
    }

    pub fn retried(&self, model: &str) {
        self.retries.get_or_create(&ModelLabels { model: model.to_owned() }).inc();
    }

    pub fn probed(&self, fleet: &Fleet, backend: BackendId, result: &'static str) {
        let (backend, cloud, region) = names(fleet, backend);
        self.probes.get_or_create(&ProbeLabels { backend, cloud, region, result }).inc();
    }

    pub fn scraped(&self, fleet: &Fleet, backend: BackendId, result: &'static str) {
        let (backend, cloud, region) = names(fleet, backend);
        self.scrapes.get_or_create(&ProbeLabels { backend, cloud, region, result }).inc();
    }

    fn scale_called(&self, pool: &str, result: &'static str) {
        self.scale_calls.get_or_create(&ScaleLabels { pool: pool.to_owned(), result }).inc();
    }

    fn certificate_read(&self, result: &'static str) {
        self.certificates.get_or_create(&ResultLabels { result }).inc();
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

    pub fn starts_with(&self) {
        self.last_reload_ok.set(1);
    }

    /// The page for Prometheus, with the gauges set from `state` first.
    pub fn page(&self, state: &mut State, overlays: usize, pool_costs: &BTreeMap<Bill, NanoUsd>, now: Nanos) -> String {
        self.read_state(state, now);
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
            self.state.get_or_create(&StateLabels { backend, cloud, region, state: word }).set(1);
        }
        for (m, model) in fleet.models.iter().enumerate() {
            let seen = &state.observed().models[m];
            self.waiting.get_or_create(&ModelLabels { model: model.name.clone() }).set(i64::from(seen.waiting));
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
        for (c, cloud) in fleet.clouds.iter().enumerate().filter(|(_, c)| c.spend_limit.is_some()) {
            let (hour, day, reserved) = state.spend(CloudId(c as u16), now);
            for (window, usd) in [("hour", hour), ("day", day), ("reserved", reserved)] {
                self.spend.get_or_create(&CloudLabels { cloud: cloud.name.clone(), window }).set(usd.as_usd());
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

fn names(fleet: &Fleet, backend: BackendId) -> (String, String, String) {
    let cloud = fleet.cloud_of(backend);
    (fleet.backend(backend).name.clone(), cloud.name.clone(), cloud.region.clone().unwrap_or_default())
}
