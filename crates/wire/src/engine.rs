//! What answers at a URL: which engine, of which version, with which models and how many places, by its own pages.
//!
//! Engines imitate one another, so that one sign is not enough: all of them list models as OpenAI does, several answer
//! `/version`, and a router in front shows the pages of its own. So the signs are weighed in an order: what only one
//! engine has comes first, what several have last. What none of them fits is some OpenAI-compatible server, which is
//! an answer and not a fault.
//!
//! Edges: pages come from outside, so that names are bounded and without control characters, and a list is read up to
//! [`MOST_MODELS`]. A page that cannot be read says nothing.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use crate::{error::bounded, metrics::Dialect};

/// Models read of one list; hosted APIs have a few hundred.
pub const MOST_MODELS: usize = 1_000;
/// The longest name of a model that is one.
const LONGEST_NAME: usize = 256;
const LONGEST_VERSION: usize = 64;

/// A page by which an engine can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Look {
    Props,
    ModelInfo,
    ServerInfo,
    Loads,
    Info,
    Metrics,
    TrtllmMetrics,
    Version,
}

impl Look {
    pub const ALL: [Self; 8] = [
        Self::Props,
        Self::ModelInfo,
        Self::ServerInfo,
        Self::Loads,
        Self::Info,
        Self::Metrics,
        Self::TrtllmMetrics,
        Self::Version,
    ];

    /// Its path, from the root of the engine's port.
    pub fn path(self) -> &'static str {
        match self {
            Self::Props => "/props",
            Self::ModelInfo => "/get_model_info",
            Self::ServerInfo => "/get_server_info",
            Self::Loads => "/v1/loads",
            Self::Info => "/info",
            Self::Metrics => "/metrics",
            Self::TrtllmMetrics => "/prometheus/metrics",
            Self::Version => "/version",
        }
    }
}

/// The pages that came with a 200.
pub type Pages = BTreeMap<Look, Bytes>;

/// What an engine is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// `None`: something else that speaks OpenAI's dialect.
    pub engine: Option<Dialect>,
    pub version: Option<String>,
    /// Requests that it runs or admits at once, where it says so.
    pub slots: Option<u64>,
    /// Its metrics can be read.
    pub has_metrics: bool,
}

/// One entry of `GET /v1/models`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Served {
    pub id: String,
    /// The model that this one is an adapter of.
    pub parent: Option<String>,
    /// What was loaded, where that is said: two names of one root are two names of one model.
    pub root: Option<String>,
    pub owned_by: Option<String>,
    /// Tokens of prompt and answer together.
    pub context: Option<u64>,
}

/// It is no list of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAList {
    #[error("not JSON")]
    NotJson,
    #[error("JSON without a list of models")]
    OtherJson,
}

/// Reads the answer to `GET /v1/models`. Entries without a usable name are left out.
pub fn read_models(body: &[u8]) -> Result<Vec<Served>, NotAList> {
    let value: Value = serde_json::from_slice(body).map_err(|_| NotAList::NotJson)?;
    let list = value.get("data").unwrap_or(&value).as_array().ok_or(NotAList::OtherJson)?;
    Ok(list.iter().take(MOST_MODELS).filter_map(served).collect())
}

fn served(entry: &Value) -> Option<Served> {
    let id = entry.get("id").and_then(Value::as_str).filter(|id| is_name(id))?;
    let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| is_name(text)).map(str::to_owned);
    let context = ["max_model_len", "context_window", "context_length", "max_context_length"]
        .into_iter()
        .find_map(|key| entry.get(key))
        .or_else(|| entry.pointer("/meta/n_ctx"));
    Some(Served {
        id: id.to_owned(),
        parent: text("parent"),
        root: text("root"),
        owned_by: text("owned_by"),
        context: context.and_then(Value::as_u64),
    })
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST_NAME && !text.chars().any(char::is_control)
}

/// Which engine has these models and these pages.
pub fn identify(models: &[Served], pages: &Pages) -> Identity {
    let page = |look: Look| -> Value {
        pages.get(&look).and_then(|body| serde_json::from_slice(body).ok()).unwrap_or(Value::Null)
    };
    let (props, info, server) = (page(Look::Props), page(Look::Info), page(Look::ServerInfo));
    let signs = Signs {
        owner: models.first().and_then(|model| model.owned_by.as_deref()).unwrap_or_default(),
        has_slots: props.get("total_slots").is_some(),
        has_model_path: page(Look::ModelInfo).get("model_path").is_some(),
        has_tgi_info: info.get("model_id").is_some() && info.get("max_concurrent_requests").is_some(),
        pages,
    };
    let engine = signs.engine();
    let version = match engine {
        Some(Dialect::Llamacpp) => text_at(&props, "/build_info"),
        Some(Dialect::Sglang) => text_at(&server, "/version").or_else(|| text_at(&page(Look::Version), "/version")),
        Some(Dialect::Tgi) => text_at(&info, "/version"),
        _ => text_at(&page(Look::Version), "/version"),
    };
    let slots = match engine {
        Some(Dialect::Llamacpp) => props.get("total_slots").and_then(Value::as_u64),
        Some(Dialect::Tgi) => info.get("max_concurrent_requests").and_then(Value::as_u64),
        Some(Dialect::Sglang) => {
            running_in_all(&page(Look::Loads)).or_else(|| server.get("max_running_requests")?.as_u64())
        }
        _ => None,
    };
    let metrics = if engine == Some(Dialect::Trtllm) { Look::TrtllmMetrics } else { Look::Metrics };
    let has_metrics = engine.is_some_and(|engine| signs.shows(metrics, prefixes(engine)));
    Identity { engine, version, slots: slots.filter(|slots| *slots > 0), has_metrics }
}

/// SGLang's bound on running requests, over all of its ranks.
fn running_in_all(loads: &Value) -> Option<u64> {
    let ranks = loads.get("loads")?.as_array()?;
    ranks.iter().map(|rank| rank.get("max_running_requests")?.as_u64()).sum()
}

fn text_at(page: &Value, pointer: &str) -> Option<String> {
    let text = bounded(page.pointer(pointer)?.as_str()?, LONGEST_VERSION);
    (!text.is_empty()).then_some(text)
}

/// How the names of an engine's metrics begin.
fn prefixes(engine: Dialect) -> &'static [&'static str] {
    match engine {
        Dialect::Vllm => &["vllm:"],
        Dialect::Sglang => &["sglang:", "sglang_"],
        Dialect::Tgi => &["tgi_"],
        Dialect::Trtllm => &["trtllm_"],
        Dialect::Llamacpp => &["llamacpp:"],
        Dialect::Dynamo => &["dynamo_frontend_"],
    }
}

struct Signs<'a> {
    /// `owned_by` of the first model.
    owner: &'a str,
    has_slots: bool,
    has_model_path: bool,
    has_tgi_info: bool,
    pages: &'a Pages,
}

impl Signs<'_> {
    /// Dynamo stands before the engines whose names may shine through it. `/version` by itself says nothing: half of all
    /// servers have one.
    fn engine(&self) -> Option<Dialect> {
        let signs = [
            (Dialect::Llamacpp, self.has_slots || self.owner == "llamacpp"),
            (Dialect::Dynamo, self.shows(Look::Metrics, prefixes(Dialect::Dynamo))),
            (Dialect::Sglang, self.has_model_path || self.owner == "sglang"),
            (Dialect::Sglang, self.shows(Look::Metrics, prefixes(Dialect::Sglang))),
            (Dialect::Tgi, self.has_tgi_info),
            (Dialect::Trtllm, self.owner == "tensorrt_llm"),
            (Dialect::Trtllm, self.shows(Look::TrtllmMetrics, prefixes(Dialect::Trtllm))),
            (Dialect::Vllm, self.owner == "vllm" || self.shows(Look::Metrics, prefixes(Dialect::Vllm))),
        ];
        signs.into_iter().find(|(_, holds)| *holds).map(|(engine, _)| engine)
    }

    /// Whether a page has a metric whose name begins like this.
    fn shows(&self, look: Look, prefixes: &[&str]) -> bool {
        let Some(page) = self.pages.get(&look) else { return false };
        let mut lines = page.split(|byte| *byte == b'\n');
        lines.any(|line| {
            let line = line.strip_prefix(b"# HELP ").or_else(|| line.strip_prefix(b"# TYPE ")).unwrap_or(line);
            prefixes.iter().any(|prefix| line.starts_with(prefix.as_bytes()))
        })
    }
}
