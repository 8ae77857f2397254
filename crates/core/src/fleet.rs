//! The resolved fleet: what the fleet file says, after every name has been looked up and every unit parsed.
//!
//! The file's own shape (names, strings, line numbers) lives in the binary's `config`; nothing here can be wrong any
//! more. Everything refers to everything else by index, so that the hot path compares integers. The core never reads
//! a file: a secret is still a reference here, and whoever serves resolves it.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::units::NanoUsd;

macro_rules! index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u16);

        impl $name {
            pub fn index(self) -> usize {
                usize::from(self.0)
            }
        }
    };
}

index!(
    /// Index into [`Fleet::clouds`].
    CloudId
);
index!(
    /// Index into [`Fleet::pools`].
    PoolId
);
index!(
    /// Index into [`Fleet::backends`].
    BackendId
);
index!(
    /// Index into [`Fleet::models`].
    ModelId
);
index!(
    /// Index into [`Fleet::keys`].
    KeyId
);

#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    /// Identifies this fleet in every decision, log line and metric: the first 16 hex digits of the SHA-256 of its file.
    pub digest: String,
    pub gateway: Gateway,
    pub clouds: Vec<Cloud>,
    pub pools: Vec<Pool>,
    pub backends: Vec<Backend>,
    pub models: Vec<Model>,
    pub keys: Vec<Key>,
    pub routes: Vec<Route>,
}

impl Fleet {
    pub fn backend(&self, id: BackendId) -> &Backend {
        &self.backends[id.index()]
    }

    pub fn model(&self, id: ModelId) -> &Model {
        &self.models[id.index()]
    }

    pub fn cloud(&self, id: CloudId) -> &Cloud {
        &self.clouds[id.index()]
    }

    /// The cloud that a backend stands in.
    pub fn cloud_of(&self, id: BackendId) -> &Cloud {
        self.cloud(self.backend(id).cloud)
    }

    /// Looks a model up by its public name or an alias.
    pub fn model_by_name(&self, name: &str) -> Option<ModelId> {
        let found = |m: &Model| m.name == name || m.aliases.iter().any(|a| a == name);
        self.models.iter().position(found).map(|i| ModelId(i as u16))
    }

    /// The route of a path, of those that the key may use: the one with the longest prefix.
    pub fn route(&self, path: &str, key: Option<KeyId>) -> Option<&Route> {
        let key = key.map(|key| &self.keys[key.index()]);
        let routes = self.routes.iter().filter(|route| key.is_none_or(|key| self.may_take(key, route)));
        routes.filter(|route| route.has(path)).max_by_key(|route| route.prefix.len())
    }

    fn may_take(&self, key: &Key, route: &Route) -> bool {
        let is_listed = match &key.routes {
            Some(listed) => listed.contains(&route.prefix),
            // Who was given some models was not given what others keep on a backend.
            None => key.models.is_none(),
        };
        let cloud = self.backend(route.backend).cloud;
        is_listed && key.allowed_clouds.as_ref().is_none_or(|allowed| allowed.contains(&cloud))
    }

    pub fn backend_by_name(&self, name: &str) -> Option<BackendId> {
        self.backends.iter().position(|b| b.name == name).map(|i| BackendId(i as u16))
    }
}

/// Paths that name no model, such as files: all of one prefix belong to the one backend that keeps what they are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Whole segments of a path, such as `/v1/files`, without a slash at the end.
    pub prefix: String,
    pub backend: BackendId,
}

impl Route {
    fn has(&self, path: &str) -> bool {
        path.strip_prefix(&self.prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Where the gateway stands and how it listens.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// The provider whose egress prices apply to bytes that leave the gateway.
    pub cloud: Option<String>,
    pub region: Option<String>,
    /// What a gigabyte costs that leaves that cloud.
    pub egress_usd_per_gb: Option<NanoUsd>,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub replicas: Replicas,
    /// Overlays survive a restart when this is set.
    pub state_dir: Option<PathBuf>,
    pub limits: Limits,
    /// What clients are served with; without one, in clear text.
    pub tls: Option<Certificate>,
    /// Whose word is taken for where a request came from.
    pub trusted_proxies: Vec<IpNet>,
    /// How long requests in flight may run on after SIGTERM.
    pub drain: Duration,
}

/// A certificate chain and its private key, each a file of PEM. Files and not other references, so that a renewed one
/// can be noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub chain: PathBuf,
    pub key: PathBuf,
}

/// Gateway replicas that share this traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replicas {
    Count(u32),
    /// A DNS name with one address per replica.
    Dns(String),
}

impl Replicas {
    /// The number to divide shared limits by; a DNS name counts as one until it has been resolved.
    pub fn count(&self) -> u32 {
        match self {
            Self::Count(n) => (*n).max(1),
            Self::Dns(_) => 1,
        }
    }
}

/// Bounds on what comes from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one request body.
    pub body_bytes: u64,
    /// Bytes of all request and response bodies held at once.
    pub held_bytes: u64,
    /// Bytes of one request head.
    pub head_bytes: usize,
    /// Client connections open at once.
    pub connections: usize,
    /// How long a client may take to send its head, and its body after that.
    pub read_timeout: Duration,
    /// How long a client may take nothing of an answer that is there.
    pub write_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 32 << 20,
            held_bytes: 512 << 20,
            head_bytes: 64 << 10,
            connections: 16_384,
            read_timeout: Duration::from_secs(15),
            write_timeout: Duration::from_mins(1),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Cloud {
    pub name: String,
    pub region: Option<String>,
    /// Sent to this cloud's backends that have no key of their own.
    pub api_key: Option<SecretRef>,
    pub spend_limit: Option<SpendLimit>,
    pub egress_usd_per_gb: Option<NanoUsd>,
}

/// A bound on what token-priced backends of one cloud may cost, shared by all gateway replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpendLimit {
    pub per_hour: Option<NanoUsd>,
    pub per_day: Option<NanoUsd>,
}

/// A secret is named in the fleet file, never written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRef {
    Env(String),
    /// Absolute, or made absolute from the fleet file's folder.
    File(PathBuf),
}

/// GPUs that are paid for once, whoever uses them.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    pub name: String,
    pub cloud: CloudId,
    pub gpu: String,
    pub gpus: GpuCount,
    pub price: PoolPrice,
    /// Who is told when another number of GPUs is wanted.
    pub scale: Option<Scale>,
}

/// How the number of GPUs of a pool is changed, and what it may cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    pub call: ScaleCall,
    pub timeout: Duration,
    pub max_usd_per_hour: Option<NanoUsd>,
    /// Says what it would do, and does nothing.
    pub dry_run: bool,
}

impl Scale {
    /// The most of a pool's GPUs that may be asked for; never below what it always keeps.
    pub fn most_gpus(&self, pool: &Pool) -> u32 {
        let GpuCount { min, max, step } = pool.gpus;
        let price = pool.price.usd_per_gpu_hour();
        let Some(most) = self.max_usd_per_hour.filter(|_| price > NanoUsd::ZERO) else { return max };
        let affordable = u32::try_from(most.0 / price.0).unwrap_or(0).min(max);
        min + affordable.saturating_sub(min) / step.max(1) * step.max(1)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScaleCall {
    /// A program and its arguments, run without a shell. Never empty.
    Exec(Vec<String>),
    /// An http URL that is posted to.
    Webhook(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuCount {
    pub min: u32,
    pub max: u32,
    pub step: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PoolPrice {
    Reserved { usd_per_gpu_hour: NanoUsd, until: Option<String> },
    OnDemand { usd_per_gpu_hour: NanoUsd, billing_block: Duration, cold_start: Duration },
}

impl PoolPrice {
    pub fn usd_per_gpu_hour(&self) -> NanoUsd {
        match self {
            Self::Reserved { usd_per_gpu_hour, .. } | Self::OnDemand { usd_per_gpu_hour, .. } => *usd_per_gpu_hour,
        }
    }
}

/// One deployment of one model in one cloud, or one hosted API: what a request is sent to.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    pub name: String,
    pub cloud: CloudId,
    pub pool: Option<PoolId>,
    pub replicas: u32,
    pub gpus_per_replica: u32,
    pub engine: Engine,
    /// Base URL up to and including the version, such as `http://10.0.0.7:8000/v1`, without a trailing slash.
    pub url: String,
    pub api_key: Option<SecretRef>,
    /// The name that the engine serves the model under.
    pub model: String,
    /// Requests in flight at once, over all replicas of the backend and of the gateway.
    pub max_in_flight: Option<u32>,
    pub timeouts: TimeoutOverrides,
    pub reach: Reach,
    pub metrics: MetricsMode,
    /// Present on backends that are billed by the token.
    pub token_price: Option<TokenPrice>,
    /// `None` where the simulator is to look for the nearest engine that it knows.
    pub engine_model: Option<EngineModel>,
    /// What it can be asked for.
    pub apis: ApiSet,
}

impl Backend {
    /// One of which nothing more is said.
    pub fn new(name: &str, engine: Engine, url: &str, model: &str) -> Self {
        Self {
            name: name.to_owned(),
            cloud: CloudId(0),
            pool: None,
            replicas: 1,
            gpus_per_replica: 1,
            engine,
            url: url.to_owned(),
            api_key: None,
            model: model.to_owned(),
            max_in_flight: None,
            timeouts: TimeoutOverrides::default(),
            reach: Reach::default(),
            metrics: MetricsMode::default(),
            token_price: None,
            engine_model: None,
            apis: ApiSet::default(),
        }
    }

    /// What observed state is keyed by, so that it survives a reload: a new URL is a new backend.
    pub fn identity(&self) -> (&str, &str, Engine, &str) {
        (&self.name, &self.url, self.engine, &self.model)
    }
}

/// A family of endpoints, which a backend has or does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    #[default]
    Chat,
    Completions,
    Embeddings,
    Responses,
    Messages,
    Rerank,
    Audio,
    Images,
}

impl Api {
    /// As the fleet file says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Rerank => "rerank",
            Self::Audio => "audio",
            Self::Images => "images",
        }
    }
}

/// The families that a backend has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiSet(u16);

impl ApiSet {
    pub fn contains(self, api: Api) -> bool {
        self.0 & (1 << api as u16) != 0
    }
}

impl FromIterator<Api> for ApiSet {
    fn from_iter<I: IntoIterator<Item = Api>>(apis: I) -> Self {
        Self(apis.into_iter().fold(0, |set, api| set | (1 << api as u16)))
    }
}

/// What every engine for text is expected to have; one that lacks it says so.
impl Default for ApiSet {
    fn default() -> Self {
        [Api::Chat, Api::Completions, Api::Embeddings].into_iter().collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    Vllm,
    Sglang,
    Tgi,
    Trtllm,
    Llamacpp,
    Dynamo,
    Openai,
}

impl Engine {
    /// As the fleet file says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::Tgi => "tgi",
            Self::Trtllm => "trtllm",
            Self::Llamacpp => "llamacpp",
            Self::Dynamo => "dynamo",
            Self::Openai => "openai",
        }
    }
}

/// How a backend is reached, beyond its URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    pub http: HttpVersion,
    /// Certificates of authorities that vouch for it, beside those that the machine trusts.
    pub ca: Option<PathBuf>,
    /// What the gateway shows to it.
    pub client_cert: Option<Certificate>,
    /// Sent with every request, by lower-case name.
    pub headers: Vec<(String, HeaderText)>,
}

/// The value of a header that the fleet file adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderText {
    Plain(String),
    Secret(SecretRef),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersion {
    /// What the backend and the gateway agree on in the TLS handshake; HTTP/1.1 in clear text.
    #[default]
    Negotiated,
    Http1,
    /// In clear text by prior knowledge.
    Http2,
}

/// What a scrape of the backend's metrics shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetricsMode {
    /// Each address behind the name is one pod.
    Pods,
    /// One endpoint that sums over all replicas.
    #[default]
    Aggregated,
    None,
}

/// USD per million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenPrice {
    pub input: NanoUsd,
    pub output: NanoUsd,
    pub cached_input: NanoUsd,
}

/// What the simulator puts in the place of a backend's engines.
#[derive(Clone, Debug, PartialEq)]
pub enum EngineModel {
    /// `slots` servers, each generating `tokens_per_second`, first come first served.
    ConstantRate { slots: u32, tokens_per_second: f64 },
    /// What was measured on the engine itself, of which each replica runs `slots` requests at once. The file is
    /// absolute, or made absolute from the fleet file's folder.
    Measured { file: PathBuf, slots: u32 },
}

/// What clients ask for by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub name: String,
    pub aliases: Vec<String>,
    pub mode: Mode,
    pub slo: Slo,
    /// In order of preference; price never changes this order.
    pub tiers: Vec<Tier>,
    pub timeouts: Timeouts,
    pub queue: QueueLimits,
    pub affinity: Affinity,
    pub weigh_by: WeighBy,
}

/// How long the line of a model may be, on each gateway replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Requests.
    pub max_waiting: u32,
    pub max_wait: Duration,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { max_waiting: 1_024, max_wait: Timeouts::default().first_token }
    }
}

/// How a backend is chosen inside a tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Weighted,
    Latency,
    Cheapest,
}

/// What the weights of a split are shares of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeighBy {
    #[default]
    Requests,
    /// Of prompts and answers together: what is paid for where tokens are.
    Tokens,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    None,
    #[default]
    Session,
    Prefix,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slo {
    pub ttft_p95: Option<Duration>,
    pub time_per_output_token_p95: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tier {
    pub split: Vec<Share>,
    pub enter_when: Option<EnterWhen>,
    /// Another model answers here: keys may deny it, and the response always says so.
    pub substitute: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub backend: BackendId,
    /// Relative to the other weights of the split; they need not add up to 100.
    pub weight: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnterWhen {
    pub wait_above: Duration,
}

/// How long each phase of an attempt may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    /// To the response head of a stream. Not applied to other requests: an engine answers those only when it is done.
    pub headers: Duration,
    /// To the first event with content of a stream.
    pub first_token: Duration,
    /// Between two events of a stream.
    pub idle: Duration,
    /// The whole request, over all attempts.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            headers: Duration::from_secs(10),
            first_token: Duration::from_secs(20),
            idle: Duration::from_secs(20),
            total: Duration::from_mins(10),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeoutOverrides {
    pub connect: Option<Duration>,
    pub headers: Option<Duration>,
    pub first_token: Option<Duration>,
    pub idle: Option<Duration>,
    pub total: Option<Duration>,
}

impl Timeouts {
    /// These, with a backend's own where it has any.
    #[must_use]
    pub fn overridden_by(self, own: &TimeoutOverrides) -> Self {
        Self {
            connect: own.connect.unwrap_or(self.connect),
            headers: own.headers.unwrap_or(self.headers),
            first_token: own.first_token.unwrap_or(self.first_token),
            idle: own.idle.unwrap_or(self.idle),
            total: own.total.unwrap_or(self.total),
        }
    }
}

/// A client's key: who may ask for what.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    pub name: String,
    pub sha256: Vec<KeyHash>,
    /// All models when absent.
    pub models: Option<Vec<ModelId>>,
    /// Prefixes of [`Fleet::routes`]; when absent, all for a key that may ask for all models, and none for another.
    pub routes: Option<Vec<String>>,
    pub priority: Priority,
    /// Whether a substitute model may answer.
    pub substitute: bool,
    /// All clouds when absent.
    pub allowed_clouds: Option<Vec<CloudId>>,
    pub max_in_flight: Option<u32>,
    pub reveal: Reveal,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyHash {
    Literal([u8; 32]),
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
}

impl Priority {
    /// From the lowest.
    pub const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];

    /// Place in [`Self::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

/// What a client may see of the backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reveal {
    /// Neither names nor reasons.
    None,
    /// Backend names and reasons.
    #[default]
    Id,
}
