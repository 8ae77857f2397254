//! The fleet file as it is written: names, strings, and units still in them.
//!
//! These types are the only description of the file. The JSON Schema comes from them, and the structural check walks
//! that schema, so a key added here is known to editors, to `check` and to the error messages at once; the comments on
//! the fields are what editors show. Every field is an `Option`, also where the schema requires it, because a faulty
//! value is cut out before these types are read and the rest is still checked. For the same reason the items of lists
//! and maps are optional: one that was cut out keeps its place.

use std::{borrow::Cow, collections::BTreeMap, fmt, marker::PhantomData};

use outrigger_core::fleet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

/// What names of clouds, pools, backends, models and keys look like.
pub(crate) const PREFIX_PATTERN: &str = r"^/v1(/[A-Za-z0-9_-]+)+$";
pub(crate) const NAME_PATTERN: &str = "^[a-z0-9][a-z0-9._-]{0,62}$";

/// What names of headers look like (RFC 9110, 5.6.2).
const HEADER_PATTERN: &str = "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,63}$";

/// An Outrigger fleet: what the fleet should be.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Outrigger fleet file")]
pub(crate) struct Fleet {
    /// The version of this file's format.
    #[schemars(required, schema_with = "version")]
    #[expect(dead_code, reason = "there is one version, and the schema holds the file to it")]
    pub(crate) version: Option<IgnoredAny>,
    /// Where the gateway itself stands, and how it listens.
    pub(crate) gateway: Option<Gateway>,
    /// Who GPUs are rented from, and who serves hosted APIs.
    pub(crate) clouds: Option<Named<Cloud>>,
    /// GPUs that are paid for once, whoever uses them.
    pub(crate) pools: Option<Named<Pool>>,
    /// What a request is sent to: one deployment of one model, or one hosted API.
    #[schemars(required)]
    pub(crate) backends: Option<Named<Backend>>,
    /// What clients ask for by name.
    #[schemars(required)]
    pub(crate) models: Option<Named<Model>>,
    /// Who may ask. Without any, only loopback may be listened on.
    pub(crate) keys: Option<Named<Key>>,
    /// Paths that name no model, such as `/v1/files`: the backend that all requests of a prefix go to.
    pub(crate) routes: Option<Routes>,
}

fn version(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "enum": [1] })
}

/// Where the gateway itself stands, and how it listens.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gateway {
    /// The cloud whose egress prices apply to what leaves the gateway.
    pub(crate) cloud: Option<String>,
    /// The region of that cloud.
    pub(crate) region: Option<String>,
    /// Where clients connect; `127.0.0.1:8080` by default.
    pub(crate) listen: Option<Address>,
    /// Where operators connect; `127.0.0.1:8081` by default.
    pub(crate) admin: Option<Address>,
    /// Gateway replicas that share this traffic: a number, or `dns:NAME` with one address per replica.
    pub(crate) replicas: Option<Replicas>,
    /// A folder in which drains and weights set by operators survive a restart.
    pub(crate) state_dir: Option<String>,
    /// Bounds on what comes from clients.
    pub(crate) limits: Option<Limits>,
    /// The certificate to serve clients with; without it they are served in clear text.
    pub(crate) tls: Option<Certificate>,
    /// Proxies whose word is taken for a client's address, such as `10.0.0.0/8`.
    pub(crate) trusted_proxies: Option<List<Network>>,
    /// How long requests in flight may run on when the gateway is told to stop; `30s` by default.
    pub(crate) drain: Option<Duration>,
}

/// Bounds on what comes from clients.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    /// One request body; `32MiB` by default.
    pub(crate) body: Option<Size>,
    /// All request and response bodies held at once; `512MiB` by default.
    pub(crate) held: Option<Size>,
    /// One request head; `64KiB` by default.
    pub(crate) head: Option<Size>,
    /// Client connections open at once; 16384 by default.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) connections: Option<u32>,
    /// How long a client may take to send its head, and its body after that; `15s` by default.
    pub(crate) read_timeout: Option<Duration>,
    /// How long a client may take nothing of an answer that is there; `1m` by default.
    pub(crate) write_timeout: Option<Duration>,
}

/// A certificate and its private key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Certificate {
    /// The certificate chain in PEM, as `file:PATH`.
    #[schemars(required)]
    pub(crate) cert: Option<Pem>,
    /// Its private key in PEM, as `file:PATH`.
    #[schemars(required)]
    pub(crate) key: Option<Pem>,
}

/// Who GPUs are rented from, or who serves a hosted API.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cloud {
    /// Where in that cloud.
    pub(crate) region: Option<String>,
    /// Sent to this cloud's backends that have no key of their own.
    pub(crate) api_key: Option<Secret>,
    /// What this cloud's backends may cost by the token, so that an outage elsewhere is not an unlimited bill.
    pub(crate) spend_limit: Option<SpendLimit>,
    /// The price of a gigabyte that leaves this cloud, in USD.
    pub(crate) egress_usd_per_gb: Option<f64>,
}

/// What a cloud's backends may cost by the token, over all gateway replicas.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpendLimit {
    /// USD in any hour.
    pub(crate) usd_per_hour: Option<f64>,
    /// USD in any day.
    pub(crate) usd_per_day: Option<f64>,
}

/// GPUs that are paid for once, whoever uses them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pool {
    /// Who they are rented from: a name under `clouds`.
    #[schemars(required)]
    pub(crate) cloud: Option<String>,
    /// Which GPUs, such as `h100`.
    #[schemars(required)]
    pub(crate) gpu: Option<String>,
    /// How many: a number, or `{ min, max, step }` where they come and go.
    #[schemars(required)]
    pub(crate) gpus: Option<Gpus>,
    /// Paid for whether used or not. Either this or `on_demand`.
    pub(crate) reserved: Option<Reserved>,
    /// Paid for while it runs. Either this or `reserved`.
    pub(crate) on_demand: Option<OnDemand>,
    /// Who is told when this pool should have more or fewer GPUs.
    pub(crate) scale: Option<Scale>,
}

/// Who is told when a pool should have more or fewer GPUs. Either `exec` or `webhook`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scale {
    /// A command and its arguments, run without a shell, with OUTRIGGER_POOL, OUTRIGGER_GPUS, OUTRIGGER_REPLICAS and
    /// OUTRIGGER_REASON set.
    #[schemars(length(min = 1))]
    pub(crate) exec: Option<List<String>>,
    /// An http URL that gets the same as JSON by POST.
    pub(crate) webhook: Option<Url>,
    /// How long one call may take; `30s` by default.
    pub(crate) timeout: Option<Duration>,
    /// No more GPUs are asked for than cost this, in USD.
    pub(crate) max_usd_per_hour: Option<f64>,
    /// Only say what would be done; `true` by default.
    pub(crate) dry_run: Option<bool>,
}

/// GPUs paid for whether used or not.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reserved {
    /// The price of one GPU for an hour.
    #[schemars(required)]
    pub(crate) usd_per_gpu_hour: Option<f64>,
    /// The last day of the contract.
    pub(crate) until: Option<Date>,
}

/// GPUs paid for while they run.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OnDemand {
    /// The price of one GPU for an hour.
    #[schemars(required)]
    pub(crate) usd_per_gpu_hour: Option<f64>,
    /// The least that is billed at a time; `1s` by default.
    pub(crate) billing_block: Option<Duration>,
    /// From asking for a GPU to the first answer from it; `10m` by default.
    pub(crate) cold_start: Option<Duration>,
}

/// A range of GPUs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GpuRange {
    /// Always running; 0 by default.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub(crate) min: Option<u32>,
    /// Never more than this.
    #[schemars(required, range(min = 1, max = 1_000_000))]
    pub(crate) max: Option<u32>,
    /// Rented this many at a time; 1 by default.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) step: Option<u32>,
}

/// One deployment of one model in one cloud, or one hosted API.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backend {
    /// Where it runs: a name under `clouds`. A backend in a pool is in the pool's cloud.
    pub(crate) cloud: Option<String>,
    /// Whose GPUs it uses: a name under `pools`.
    pub(crate) pool: Option<String>,
    /// Engines behind the URL; 1 by default.
    #[schemars(range(min = 1, max = 100_000))]
    pub(crate) replicas: Option<u32>,
    /// GPUs of each engine; 1 by default.
    #[schemars(range(min = 1, max = 100_000))]
    pub(crate) gpus_per_replica: Option<u32>,
    /// What answers there.
    #[schemars(required)]
    pub(crate) engine: Option<Engine>,
    /// The base URL with the version, such as `http://10.0.0.7:8000/v1`. Known hosted APIs need none.
    pub(crate) url: Option<Url>,
    /// The key that the gateway sends.
    pub(crate) api_key: Option<Secret>,
    /// The name that the engine serves the model under.
    #[schemars(required)]
    pub(crate) model: Option<String>,
    /// Requests in flight at once, over all replicas of the backend and of the gateway.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) max_in_flight: Option<u32>,
    /// In place of the model's, for this backend.
    pub(crate) timeouts: Option<Timeouts>,
    /// The HTTP version to speak; by default 1, and over https what both sides agree on.
    pub(crate) http: Option<Http>,
    /// Authorities in PEM to believe beside those of the machine, as `file:PATH`.
    pub(crate) ca: Option<Pem>,
    /// The certificate that the gateway shows to this backend.
    pub(crate) client_cert: Option<Certificate>,
    /// Headers sent with every request: text, or where a secret is.
    pub(crate) headers: Option<Headers>,
    /// What a scrape of its metrics shows; `aggregated` by default.
    pub(crate) metrics: Option<Metrics>,
    /// What it bills by the token. Known hosted models have the list price by default.
    pub(crate) usd_per_million_tokens: Option<TokenPrice>,
    /// What it can be asked for: `chat`, `completions` and `embeddings` by default.
    #[schemars(length(min = 1))]
    pub(crate) apis: Option<List<Api>>,
    /// How the simulator imitates it.
    pub(crate) engine_model: Option<EngineModel>,
}

/// USD per million tokens.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenPrice {
    /// Of prompts.
    #[schemars(required)]
    pub(crate) input: Option<f64>,
    /// Of answers.
    #[schemars(required)]
    pub(crate) output: Option<f64>,
    /// Of prompts found in the engine's cache; as `input` by default.
    pub(crate) cached_input: Option<f64>,
}

/// How the simulator imitates an engine.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EngineModel {
    /// First come, first served, at one speed. Either this or `measured`.
    pub(crate) constant_rate: Option<ConstantRate>,
    /// As it was measured. Either this or `constant_rate`.
    pub(crate) measured: Option<OwnMeasurements>,
}

/// An engine that serves first come, first served, at one speed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConstantRate {
    /// Requests served at once.
    #[schemars(required, range(min = 1, max = 1_000_000))]
    pub(crate) slots: Option<u32>,
    /// Of each slot.
    #[schemars(required)]
    pub(crate) tokens_per_second: Option<f64>,
}

/// An engine's times to first token and for each one after it, as they were measured.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnMeasurements {
    /// A CSV as for `outrigger model eval`, of this engine only; relative to the fleet file.
    #[schemars(required)]
    pub(crate) file: Option<String>,
    /// Requests that one replica runs at once; the others wait.
    #[schemars(required, range(min = 1, max = 4096))]
    pub(crate) slots: Option<u32>,
}

/// What clients ask for by name.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Model {
    /// Other names for it.
    pub(crate) aliases: Option<List<String>>,
    /// How a backend is chosen inside a tier; `weighted` by default.
    pub(crate) mode: Option<Mode>,
    /// What its clients are promised.
    pub(crate) slo: Option<Slo>,
    /// In order of preference; a tier is used when the ones before it cannot serve.
    #[schemars(required, length(min = 1))]
    pub(crate) tiers: Option<List<Tier>>,
    /// How long each phase of a request may take.
    pub(crate) timeouts: Option<Timeouts>,
    /// How many requests may wait for a place, and how long.
    pub(crate) queue: Option<Queue>,
    /// What keeps requests together on one backend; `session` by default.
    pub(crate) affinity: Option<Affinity>,
    /// What the weights are shares of; `requests` by default.
    pub(crate) weigh_by: Option<WeighBy>,
}

/// The requests of a model that wait for a place at its backends.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Queue {
    /// Requests that wait at once, in each gateway replica; `1024` by default. With 0 nobody waits.
    #[schemars(range(max = 1_000_000))]
    pub(crate) max_waiting: Option<u32>,
    /// How long each may wait; as long as `timeouts.first_token` by default.
    pub(crate) max_wait: Option<Duration>,
}

/// What a model's clients are promised.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Slo {
    /// Time to the first token, which 95 of 100 requests stay under.
    pub(crate) ttft_p95: Option<Duration>,
    /// Time for each token after that, which 95 of 100 requests stay under.
    pub(crate) time_per_output_token_p95: Option<Duration>,
}

/// Backends that share a model's traffic.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tier {
    /// The weight of each backend. Weights are relative: 3 and 1 are 75 % and 25 %.
    #[schemars(required)]
    pub(crate) split: Option<Named<Weight>>,
    /// Enter this tier although an earlier one could serve.
    pub(crate) enter_when: Option<EnterWhen>,
    /// Another model answers here: keys may deny it, and every response says so.
    pub(crate) substitute: Option<bool>,
}

/// When to enter a tier although an earlier one could serve.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnterWhen {
    /// The expected wait in the tiers before this one.
    #[schemars(required)]
    pub(crate) wait_above: Option<Duration>,
}

/// How long each phase of a request may take.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Timeouts {
    /// To an open connection; `1s` by default.
    pub(crate) connect: Option<Duration>,
    /// To the response head of a stream; `10s` by default.
    pub(crate) headers: Option<Duration>,
    /// To the first token of a stream; `20s` by default.
    pub(crate) first_token: Option<Duration>,
    /// Between two events of a stream; `20s` by default.
    pub(crate) idle: Option<Duration>,
    /// The whole request, over all attempts; `10m` by default.
    pub(crate) total: Option<Duration>,
}

/// A client's key: who may ask for what.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    /// The SHA-256 of the key, written out in 64 hex digits or as `file:PATH`; several while keys are being changed.
    #[schemars(required)]
    pub(crate) sha256: Option<Hashes>,
    /// Which models it may ask for; all by default.
    #[schemars(length(min = 1))]
    pub(crate) models: Option<List<String>>,
    /// Which prefixes of `routes` it may use; all by default, and none for a key with `models`.
    pub(crate) routes: Option<List<String>>,
    /// Who waits when not all can be served; `normal` by default.
    pub(crate) priority: Option<Priority>,
    /// Whether another model may answer; `allow` by default.
    pub(crate) substitute: Option<Substitute>,
    /// Which clouds its requests may go to; all by default.
    #[schemars(length(min = 1))]
    pub(crate) allowed_clouds: Option<List<String>>,
    /// Requests in flight at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) max_in_flight: Option<u32>,
    /// What its responses say about backends; `id` by default.
    pub(crate) reveal: Option<Reveal>,
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident => $core:path { $($(#[$vdoc:meta])* $variant:ident => $to:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
        #[serde(rename_all = "lowercase")]
        #[schemars(inline)]
        pub(crate) enum $name {
            $($(#[$vdoc])* $variant,)*
        }

        impl From<$name> for $core {
            fn from(raw: $name) -> Self {
                match raw {
                    $($name::$variant => $to,)*
                }
            }
        }
    };
}

choice!(Engine => fleet::Engine {
    /// vLLM
    Vllm => Self::Vllm,
    /// SGLang
    Sglang => Self::Sglang,
    /// Hugging Face Text Generation Inference
    Tgi => Self::Tgi,
    /// TensorRT-LLM
    Trtllm => Self::Trtllm,
    /// llama.cpp's server
    Llamacpp => Self::Llamacpp,
    /// NVIDIA Dynamo
    Dynamo => Self::Dynamo,
    /// Any OpenAI-compatible API; needs neither /metrics nor /health
    Openai => Self::Openai,
});

choice!(Api => fleet::Api {
    /// /v1/chat/completions
    Chat => Self::Chat,
    /// /v1/completions
    Completions => Self::Completions,
    /// /v1/embeddings
    Embeddings => Self::Embeddings,
    /// /v1/responses
    Responses => Self::Responses,
    /// /v1/messages
    Messages => Self::Messages,
    /// /v1/rerank
    Rerank => Self::Rerank,
    /// /v1/audio/…
    Audio => Self::Audio,
    /// /v1/images/…
    Images => Self::Images,
});

choice!(Metrics => fleet::MetricsMode {
    /// Each address behind the name is one pod.
    Pods => Self::Pods,
    /// One endpoint that sums over all replicas.
    Aggregated => Self::Aggregated,
    /// Not scraped.
    None => Self::None,
});

choice!(Mode => fleet::Mode {
    /// By the weights of the split.
    Weighted => Self::Weighted,
    /// To whoever is expected to answer first.
    Latency => Self::Latency,
    /// To whoever is expected to cost least.
    Cheapest => Self::Cheapest,
});

choice!(WeighBy => fleet::WeighBy {
    /// Of requests, exactly.
    Requests => Self::Requests,
    /// Of tokens, prompts and answers together.
    Tokens => Self::Tokens,
});

choice!(Affinity => fleet::Affinity {
    /// Every request by itself.
    None => Self::None,
    /// Requests of one session together.
    Session => Self::Session,
    /// Requests with one beginning together.
    Prefix => Self::Prefix,
});

choice!(Priority => fleet::Priority {
    /// Waits behind everybody, and leaves the others the places that they usually take.
    Low => Self::Low,
    /// In between.
    Normal => Self::Normal,
    /// Goes first.
    High => Self::High,
});

choice!(Reveal => fleet::Reveal {
    /// Neither names nor reasons.
    None => Self::None,
    /// Backend names and reasons.
    Id => Self::Id,
});

choice!(
    /// Whether a substitute model may answer.
    Substitute => bool {
    /// It may, and says so.
    Allow => true,
    /// It may not.
    Deny => false,
});

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $title:literal, $pattern:expr, $examples:tt) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize)]
        #[serde(transparent)]
        pub(crate) struct $name(pub(crate) String);

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "title": $title, "type": "string", "pattern": $pattern, "examples": $examples })
            }
        }
    };
}

text!(
    /// `800ms`, `2s`, `12m`, `1h`.
    Duration, "duration", r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$", ["800ms", "2s", "12m", "1h"]
);
text!(
    /// `32MiB`.
    Size, "size", r"^[0-9]+(\.[0-9]+)?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$", ["64KiB", "32MiB"]
);
text!(
    /// `127.0.0.1:8080`.
    Address, "address", r"^(localhost|[0-9.]+|\[[0-9a-fA-F:.]+\]):[0-9]+$", ["127.0.0.1:8080", "0.0.0.0:8080"]
);
text!(
    /// `http://10.0.0.7:8000/v1`.
    Url, "url", r"^https?://[^@?#\s]+$", ["http://10.0.0.7:8000/v1"]
);
text!(
    /// `2027-05-31`.
    Date, "date", r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", ["2027-05-31"]
);
text!(
    /// `"${OPENAI_API_KEY}"` or `file:/run/secrets/openai`: where a secret is, never the secret.
    Secret, "secret reference", r"^(\$\{[A-Za-z_][A-Za-z0-9_]*\}|file:.+)$", ["${OPENAI_API_KEY}", "file:/run/secrets/openai"]
);
text!(
    /// `file:/etc/outrigger/tls.crt`.
    Pem, "file", r"^file:.+$", ["file:/etc/outrigger/tls.crt"]
);
text!(
    /// `10.0.0.0/8` or one address.
    Network, "network", r"^[0-9a-fA-F:.]+(/[0-9]{1,3})?$", ["10.0.0.0/8", "2001:db8::/32"]
);
text!(
    /// Text, or `"${NAME}"` or `file:PATH` for a secret.
    HeaderText, "header value", r"^[ -~]+$", ["team-a", "${TOKEN}"]
);
text!(
    /// 64 hex digits, or `file:PATH`.
    Hash, "key hash", r"^([0-9a-fA-F]{64}|file:.+)$", ["file:/run/secrets/prod.sha256"]
);
text!(
    /// `dns:NAME`.
    DnsName, "dns name", r"^dns:.+$", ["dns:outrigger.default.svc"]
);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum Replicas {
    Count(#[schemars(range(min = 1, max = 10_000))] u32),
    Dns(DnsName),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum Gpus {
    Count(#[schemars(range(min = 1, max = 1_000_000))] u32),
    Range(GpuRange),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum Hashes {
    One(Hash),
    Many(#[schemars(length(min = 1))] List<Hash>),
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $schema:tt) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Deserialize)]
        #[serde(transparent)]
        pub(crate) struct $name(pub(crate) u32);

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

number!(
    /// HTTP/1.1 or HTTP/2.
    Http, { "type": "integer", "enum": [1, 2] }
);
number!(
    /// A backend's weight in a split.
    Weight, { "type": "integer", "minimum": 0, "maximum": 1_000_000 }
);

/// Things by name, in the order of the file. One that was at fault is `None`.
#[derive(Debug)]
pub(crate) struct Named<T>(pub(crate) Vec<(String, Option<T>)>);

impl<T> Named<T> {
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Named(entries))
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// Things of one kind by names that follow a pattern.
fn by_name<T: JsonSchema>(generator: &mut SchemaGenerator, pattern: &str) -> Schema {
    let mut schema = BTreeMap::<String, T>::json_schema(generator);
    schema.insert("propertyNames".to_owned(), serde_json::json!({ "pattern": pattern }));
    schema
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Named_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        by_name::<T>(generator, NAME_PATTERN)
    }
}

/// The names of backends by prefix of a path, in the order of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Routes(pub(crate) Named<String>);

impl JsonSchema for Routes {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Routes".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        by_name::<String>(generator, PREFIX_PATTERN)
    }
}

/// Headers by name, in the order of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Headers(pub(crate) Named<HeaderText>);

impl JsonSchema for Headers {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Headers".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        by_name::<HeaderText>(generator, HEADER_PATTERN)
    }
}

/// A list in which an item that was at fault is `None`.
#[derive(Debug, Deserialize)]
#[serde(transparent, bound = "T: Deserialize<'de>")]
pub(crate) struct List<T>(pub(crate) Vec<Option<T>>);

impl<T: JsonSchema> JsonSchema for List<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("List_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Vec::<T>::json_schema(generator)
    }
}
