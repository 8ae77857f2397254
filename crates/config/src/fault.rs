//! What is wrong with a fleet file, where, and what to do about it.
//!
//! Every fault carries a stable code, a place and a help text, because a fault without a next step sends its reader to
//! the manual. Faults are collected, not returned at the first: whoever mends a file wants the whole list. The codes
//! are one enum, not strings at the places of use, so that the documentation can be tested against it. A file of
//! nonsense could yield a fault a byte; past [`MOST`] they are counted only.

use std::{fmt, ops::Range};

/// Faults kept of each severity; a file with more is not being mended fault by fault.
pub(crate) const MOST: usize = 1000;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// Stable names of faults. New ones may come; an old one keeps its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

codes! {
    /// The file is not UTF-8.
    NotUtf8 = "not_utf8",
    /// The file is larger than a fleet file may be.
    TooLarge = "too_large",
    /// Objects stand in objects more deeply than any fleet needs.
    TooDeep = "too_deep",
    /// Not YAML.
    MalformedYaml = "malformed_yaml",
    /// The file holds nothing.
    EmptyFile = "empty_file",
    /// A second document after `---`.
    ManyDocuments = "many_documents",
    /// `&anchor` or `*alias`.
    Anchor = "anchor",
    /// `!tag`.
    Tag = "tag",
    /// `<<`.
    MergeKey = "merge_key",
    /// `%YAML` or `%TAG`.
    Directive = "directive",
    /// The same key twice in one object.
    DuplicateKey = "duplicate_key",
    /// A key that is not a plain word.
    BadKey = "bad_key",
    /// A plain scalar that YAML 1.1 and 1.2 read differently.
    AmbiguousScalar = "ambiguous_scalar",
    /// `${NAME}` without quotes.
    UnquotedReference = "unquoted_reference",
    /// More faults than are shown.
    TooManyFaults = "too_many_faults",
    /// A fault of Outrigger itself.
    Internal = "internal",

    /// A key that does not exist here.
    UnknownKey = "unknown_key",
    /// A key's old name.
    RenamedKey = "renamed_key",
    /// A required key is absent.
    MissingKey = "missing_key",
    /// A value of another type.
    WrongType = "wrong_type",
    /// None of the values that this key takes.
    NotOneOf = "not_one_of",
    /// A number outside its bounds.
    OutOfRange = "out_of_range",
    /// A list or an object with nothing in it.
    Empty = "empty",
    /// A `version` that this release does not read.
    UnsupportedVersion = "unsupported_version",

    /// A name with characters that names may not have.
    BadName = "bad_name",
    /// Not a duration such as `800ms`.
    BadDuration = "bad_duration",
    /// Not a size such as `32MiB`.
    BadSize = "bad_size",
    /// Not an address such as `127.0.0.1:8080`.
    BadAddress = "bad_address",
    /// Not an http(s) URL of an engine.
    BadUrl = "bad_url",
    /// A URL without a path.
    UrlWithoutPath = "url_without_path",
    /// Not a date such as `2027-05-31`.
    BadDate = "bad_date",
    /// Not a price.
    BadPrice = "bad_price",
    /// A price of nothing.
    ZeroPrice = "zero_price",
    /// No price list has this GPU.
    UnknownGpu = "unknown_gpu",
    /// Two settings of which only one can hold.
    Contradiction = "contradiction",
    /// A demand of nothing.
    EmptyDemand = "empty_demand",
    /// A file that a scenario names cannot be used.
    BadOutsideFile = "bad_outside_file",

    /// Not a hash of a key.
    BadSha256 = "bad_sha256",
    /// The hash of a key that everybody knows.
    WeakKey = "weak_key",
    /// A secret's value in the file.
    SecretInFile = "secret_in_file",
    /// Not a `"${ENV}"` or `file:PATH`.
    BadReference = "bad_reference",
    /// A referenced variable or file is not there.
    SecretAbsent = "secret_absent",

    /// No such cloud.
    UnknownCloud = "unknown_cloud",
    /// No such pool.
    UnknownPool = "unknown_pool",
    /// No such backend.
    UnknownBackend = "unknown_backend",
    /// No such model.
    UnknownModel = "unknown_model",
    /// A name that something else goes by.
    NameTaken = "name_taken",
    /// More objects than a fleet may have.
    TooMany = "too_many",

    /// Backends need more GPUs than their pool has.
    PoolOverAllocated = "pool_over_allocated",
    /// `min` above `max`.
    GpusRange = "gpus_range",
    /// Not a multiple of `step`.
    GpusStep = "gpus_step",
    /// Both or neither of `reserved` and `on_demand`.
    PoolPrice = "pool_price",
    /// Both or neither of `exec` and `webhook`, or a command that is none.
    ScaleCall = "scale_call",
    /// A bound on spending below the least that a pool could be scaled to.
    ScaleBudget = "scale_budget",
    /// `scale` on a pool whose GPUs do not come and go.
    ScaleUnused = "scale_unused",
    /// Both or neither of `constant_rate` and `measured`.
    EngineModel = "engine_model",
    /// Neither a cloud nor a pool, or two that contradict each other.
    BackendPlace = "backend_place",
    /// A self-hosted engine without `url`.
    MissingUrl = "missing_url",
    /// A spend limit over a backend whose price is not known.
    PriceUnknown = "price_unknown",
    /// A price by the token beside a pool's price by the hour.
    PricedTwice = "priced_twice",
    /// A hosted API without a key.
    NoApiKey = "no_api_key",
    /// A spend limit that limits nothing.
    SpendLimitUnused = "spend_limit_unused",
    /// A prefix of a path that cannot be routed, or is not there.
    BadRoute = "bad_route",
    /// A backend that no model names.
    UnusedBackend = "unused_backend",
    /// A tier in which no backend has weight.
    NoWeight = "no_weight",
    /// A backend of weight 0.
    ZeroWeight = "zero_weight",
    /// A substitute that is the same model.
    SubstituteSameModel = "substitute_same_model",
    /// Another model answers without being called a substitute.
    MixedModels = "mixed_models",
    /// A condition on the first tier.
    EnterWhenFirst = "enter_when_first",
    /// A phase that may take longer than the whole.
    TimeoutsOrder = "timeouts_order",
    /// A limit that the gateway's replicas cannot keep to together.
    LimitBelowReplicas = "limit_below_replicas",
    /// One body may be larger than all together.
    LimitsOrder = "limits_order",
    /// A certificate or a private key that is of no use.
    BadCertificate = "bad_certificate",
    /// Settings of TLS on a backend that is reached without it.
    TlsUnused = "tls_unused",
    /// A header that cannot be sent, or that is the gateway's own.
    BadHeader = "bad_header",
    /// `trusted_proxies` with a network of every address.
    TrustsEveryone = "trusts_everyone",
    /// Listening off loopback without keys.
    KeysRequired = "keys_required",
    /// The admin listener is reachable from elsewhere.
    AdminExposed = "admin_exposed",
    /// Two listeners on one address.
    SameAddress = "same_address",
    /// Two keys with one hash.
    DuplicateHash = "duplicate_hash",
    /// Read and validated, and not obeyed yet.
    NotYetObeyed = "not_yet_obeyed",

    /// Asked, and no connection came about.
    BackendUnreachable = "backend_unreachable",
    /// Asked, and the key is refused there.
    BackendKey = "backend_key",
    /// Asked, and there is no generation.
    BackendFails = "backend_fails",
    /// Asked, and another model answers.
    BackendOtherModel = "backend_other_model",
    /// Another engine than the file says.
    BackendOtherEngine = "backend_other_engine",
    /// It generates, and calls itself ill.
    BackendUnhealthy = "backend_unhealthy",
    /// Backends of one model with several engines or versions.
    ParityEngine = "parity_engine",
    /// With several lengths of context.
    ParityContext = "parity_context",
    /// With other tokens for the same prompt.
    ParityPromptTokens = "parity_prompt_tokens",
    /// With other answers to the same prompt.
    ParityAnswers = "parity_answers",
    /// Tools work on some of them.
    ParityTools = "parity_tools",
    /// A JSON schema works on some of them.
    ParityJsonSchema = "parity_json_schema",
    /// Not compared in full.
    ParityIncomplete = "parity_incomplete",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub severity: Severity,
    pub code: Code,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Such as `models.llama-70b.tiers[0].split.cw-llama`; empty for the file as a whole.
    pub path: String,
    pub message: String,
    /// What to do next; never empty.
    pub help: String,
    /// Bytes of the source to underline.
    pub(crate) span: Range<usize>,
}
