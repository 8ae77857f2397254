//! One item of `model_list` as a backend, with a line in the report for each of its keys.
//!
//! An item that cannot be served is left out whole and the report says why, rather than written as a backend that
//! would answer nobody.

use super::{
    Context, address,
    names::{is_variable, variable, variable_for},
    price::{Price, per_million},
    providers::{self, Reach},
    report::Verdict::{self, Approximated, Ignored, Kept, Refused, Warning},
    rules::Section,
    seconds::{Seconds, Timeouts},
    yaml::Node,
};

/// The cloud of engines of one's own: the file does not say where they run.
pub(super) const OWN_CLOUD: &str = "self-hosted";

/// What people write where a key is demanded and none is needed.
const PLACEHOLDERS: &[&str] =
    &["none", "null", "empty", "dummy", "fake", "fake-key", "no-key", "not-needed", "sk-none", "sk-dummy", "na", "x"];

#[derive(Clone, Debug)]
pub(super) struct Deployment {
    /// Its name in the fleet.
    pub(super) name: String,
    pub(super) group: String,
    pub(super) path: String,
    pub(super) line: usize,
    pub(super) cloud: String,
    pub(super) engine: &'static str,
    pub(super) url: Option<String>,
    /// The variable that holds its key.
    pub(super) key: Option<String>,
    /// The variable that the cloud's key is in, where LiteLLM would take that by itself.
    pub(super) cloud_key: Option<&'static str>,
    pub(super) model: String,
    pub(super) weight: Option<f64>,
    pub(super) rpm: Option<f64>,
    pub(super) tpm: Option<f64>,
    pub(super) order: i64,
    pub(super) timeouts: Timeouts,
    pub(super) max_in_flight: Option<u32>,
    pub(super) price: Option<Price>,
    pub(super) access_groups: Vec<String>,
}

/// An item while it is read.
pub(super) struct Item<'n> {
    path: String,
    line: usize,
    pub(super) params: &'n Node,
    info: &'n Node,
}

impl Item<'_> {
    pub(super) fn param(&self, key: &str) -> (String, usize) {
        place(&format!("{}.litellm_params", self.path), self.params, key)
    }

    fn about(&self, key: &str) -> (String, usize) {
        place(&format!("{}.model_info", self.path), self.info, key)
    }

    /// A key that may stand under the parameters or under the model's facts, with its place.
    fn either(&self, key: &str) -> Option<(&Node, (String, usize))> {
        let param = self.params.get(key).map(|node| (node, self.param(key)));
        param.or_else(|| self.info.get(key).map(|node| (node, self.about(key))))
    }
}

fn place(path: &str, node: &Node, key: &str) -> (String, usize) {
    let line = node.entries().iter().find(|entry| entry.key == key).map_or(node.line, |entry| entry.line);
    (format!("{path}.{key}"), line)
}

/// The keys that are read here; every other one is looked up in the rules.
const PARAMS: &[&str] = &[
    "model",
    "custom_llm_provider",
    "api_base",
    "base_url",
    "api_key",
    "weight",
    "rpm",
    "tpm",
    "order",
    "timeout",
    "stream_timeout",
    "max_parallel_requests",
    "input_cost_per_token",
    "output_cost_per_token",
    "cache_read_input_token_cost",
];
const INFO: &[&str] = &[
    "id",
    "mode",
    "base_model",
    "input_cost_per_token",
    "output_cost_per_token",
    "cache_read_input_token_cost",
    "access_groups",
];

pub(super) fn read(context: &mut Context<'_>, index: usize, node: &Node) -> Option<Deployment> {
    let none = Node::empty();
    let path = format!("model_list[{index}]");
    let item = Item {
        params: node.get("litellm_params").unwrap_or(&none),
        info: node.get("model_info").unwrap_or(&none),
        line: node.line,
        path,
    };
    context.rest(Section::Deployment, &item.path, node, &["model_name", "litellm_params", "model_info"]);
    let Some(group) = node.get("model_name").and_then(Node::text) else {
        let help = "give it a `model_name`, and import again";
        context.note(Refused, (&item.path, item.line), "this deployment has no name", help);
        return None;
    };
    let served = served(context, &item, group)?;
    context.rest(Section::Params, &format!("{}.litellm_params", item.path), item.params, PARAMS);
    context.rest(Section::Info, &format!("{}.model_info", item.path), item.info, INFO);
    Some(fill(context, &item, served))
}

/// Who serves it, and where: what has to be known for a backend at all.
fn served(context: &mut Context<'_>, item: &Item<'_>, group: &str) -> Option<Deployment> {
    let Some(full) = item.params.get("model").and_then(Node::text) else {
        let help = "write `litellm_params.model`, such as `openai/gpt-4o-mini`, and import again";
        context.note(Refused, (&item.path, item.line), format!("`{group}` does not say which model it is"), help);
        return None;
    };
    let (path, line) = item.param("model");
    let place = (path.as_str(), line);
    if group.contains('*') || full.contains('*') {
        let help = "write a deployment for each model that clients ask for, and import again";
        context.note(Refused, place, format!("`{group}` is a wildcard: a fleet names each model"), help);
        return None;
    }
    let custom = item.params.get("custom_llm_provider").and_then(Node::text);
    let (provider, model) = providers::split(full, custom, context.prices.provider(full));
    let Some(provider) = provider.filter(|_| !model.is_empty()) else {
        let help = "write the provider before it, such as `openai/MODEL` with an `api_base`, and import again";
        context.note(Refused, place, format!("nothing says who serves `{full}`; LiteLLM cannot tell either"), help);
        return None;
    };
    let base_model = item.info.get("base_model").and_then(Node::text);
    let mode = item.info.get("mode").and_then(Node::text).or_else(|| context.prices.mode(provider, model, base_model));
    if let Some(mode) = mode.filter(|mode| !matches!(*mode, "chat" | "completion" | "embedding" | "responses")) {
        let message = format!("`{full}` is for {mode}: only chat, completions and embeddings are served");
        context.note(Refused, place, message, "keep LiteLLM for this model");
        return None;
    }
    let (cloud, engine, url, cloud_key) = match providers::reach(provider) {
        Reach::Foreign { help } => {
            let message =
                format!("`{full}`: {provider} does not speak OpenAI's dialect, and Outrigger translates none");
            context.note(Refused, place, message, help);
            return None;
        }
        Reach::Hosted { cloud, url, variable } => match address::read(context, item, "", cloud == "openai").ok()? {
            Some(url) if cloud == "openai" => (OWN_CLOUD, "openai", Some(url), None),
            Some(url) => (cloud, "openai", Some(url), Some(variable)),
            None => (cloud, "openai", url.map(str::to_owned), Some(variable)),
        },
        Reach::Engine { engine, default_base, suffix } => {
            let base = address::read(context, item, suffix, false).ok()?;
            let Some(url) = base.or_else(|| default_base.map(|base| format!("{base}{suffix}"))) else {
                let message = format!("nothing says where `{full}` is reached");
                context.note(Refused, place, message, "write its `api_base`, and import again");
                return None;
            };
            (OWN_CLOUD, engine, Some(url), None)
        }
    };
    context.note(
        Kept,
        place,
        format!("backend of the model `{group}`"),
        format!("`engine: {engine}`, `model: {model}`"),
    );
    let wanted = item.info.get("id").and_then(Node::text).unwrap_or(group);
    let name = context.backends.claim(wanted);
    Some(Deployment {
        name,
        group: group.to_owned(),
        path: item.path.clone(),
        line: item.line,
        cloud: cloud.to_owned(),
        engine,
        url,
        key: None,
        cloud_key,
        model: model.to_owned(),
        weight: None,
        rpm: None,
        tpm: None,
        order: 0,
        timeouts: Timeouts::default(),
        max_in_flight: None,
        price: None,
        access_groups: Vec::new(),
    })
}

fn fill(context: &mut Context<'_>, item: &Item<'_>, mut deployment: Deployment) -> Deployment {
    const SPLIT: &str = "the weights of the split; see the warnings about weights";
    deployment.key = api_key(context, item, &deployment.name);
    let rpm = "a limit on requests is not enforced; it is a share of the traffic, as in LiteLLM";
    deployment.rpm = number(context, item, "rpm", (Approximated, rpm, SPLIT));
    let tpm = "a limit on tokens is not enforced; it is a share of the traffic, as in LiteLLM";
    deployment.tpm = number(context, item, "tpm", (Approximated, tpm, SPLIT));
    deployment.weight = number(context, item, "weight", (Kept, "its share of the model's traffic", SPLIT));
    let order = (Kept, "which deployments come first", "the order of the tiers");
    deployment.order = number(context, item, "order", order).unwrap_or(0.0) as i64;
    let limit = "its requests in flight, over all gateways together; LiteLLM counts in each worker by itself";
    let limit = (Approximated, limit, "`max_in_flight`; write the sum over your workers");
    deployment.max_in_flight =
        number(context, item, "max_parallel_requests", limit).map(|limit| limit.clamp(1.0, 1e6) as u32);
    if item.params.get("custom_llm_provider").is_some() {
        let (path, line) = item.param("custom_llm_provider");
        context.note(Kept, (&path, line), "who serves it", format!("backend `{}`", deployment.name));
    }
    for (key, message) in
        [("id", "the name of the backend"), ("mode", "chat, completions and embeddings are served alike")]
    {
        if item.info.get(key).is_some() {
            let (path, line) = item.about(key);
            context.note(Kept, (&path, line), message, format!("backend `{}`", deployment.name));
        }
    }
    if let Some(groups) = item.info.get("access_groups") {
        deployment.access_groups = groups.items().iter().filter_map(Node::text).map(str::to_owned).collect();
        let (path, line) = item.about("access_groups");
        let message = "groups of models are written out in the keys that name them";
        context.note(
            Approximated,
            (&path, line),
            message,
            "give the keys with `--keys`, or list models under your own",
        );
    }
    deployment.timeouts = timeouts(context, item);
    deployment.price = price(context, item, &deployment);
    deployment
}

/// A number that is not negative.
fn number(
    context: &mut Context<'_>,
    item: &Item<'_>,
    key: &str,
    (verdict, message, help): (Verdict, &str, &str),
) -> Option<f64> {
    let node = item.params.get(key)?;
    let (path, line) = item.param(key);
    let number = node.number().and_then(|text| text.parse().ok()).filter(|number: &f64| *number >= 0.0);
    match number {
        Some(_) => context.note(verdict, (&path, line), message, help),
        None => context.note(Refused, (&path, line), "not a number of at least 0", "write one, and import again"),
    }
    number
}

/// The variable that its key is in.
fn api_key(context: &mut Context<'_>, item: &Item<'_>, backend: &str) -> Option<String> {
    let written = item.params.get("api_key").and_then(Node::text)?;
    let (path, line) = item.param("api_key");
    let place = (path.as_str(), line);
    if let Some(name) = variable(written) {
        if is_variable(name) {
            context.note(Kept, place, format!("the key in the variable {name}"), format!("`api_key: \"${{{name}}}\"`"));
            return Some(name.to_owned());
        }
        let help = "write `os.environ/NAME` with letters, digits and _, and import again";
        context.note(Refused, place, "this names no variable", help);
        return None;
    }
    if PLACEHOLDERS.contains(&written.to_ascii_lowercase().as_str()) {
        context.note(Ignored, place, "stands in for no key at all, so none is sent", "add `api_key` if one is needed");
        return None;
    }
    let name = context.secrets.variable(written, &variable_for(backend));
    let message = format!("a secret stands in the file; the fleet refers to the variable {name} instead");
    context.note(Approximated, place, message, format!("set {name} where `serve` runs, and keep it out of files"));
    let help = "replace the key at its provider: whoever read this file has seen it";
    context.note(Warning, place, "a secret is written out here", help);
    Some(name)
}

fn timeouts(context: &mut Context<'_>, item: &Item<'_>) -> Timeouts {
    let mut read = |key: &str, message: &str, help: &str| {
        let node = item.params.get(key)?;
        let (path, line) = item.param(key);
        context.seconds(node, (&path, line), (message, help))
    };
    let total: Option<Seconds> = read("timeout", super::seconds::TIMEOUT, "`timeouts.total`");
    let stream = read("stream_timeout", super::seconds::STREAM, "`timeouts.headers`, `first_token` and `idle`");
    if stream.is_some() {
        let (path, line) = item.param("stream_timeout");
        let message =
            "LiteLLM may notice this only after the first chunk; here it cuts a stream whose first content is late";
        context.note(
            Warning,
            (&path, line),
            message,
            "see that it is longer than the time to the first token under load",
        );
    }
    Timeouts { total, stream }
}

/// The price as written, and what is missing from `--prices`.
fn price(context: &mut Context<'_>, item: &Item<'_>, deployment: &Deployment) -> Option<Price> {
    let mut cost = |key: &str| {
        let (node, (path, line)) = item.either(key)?;
        let nano = node.text().and_then(per_million);
        match nano {
            Some(_) => context.note(Kept, (&path, line), "its price by the token", "`usd_per_million_tokens`"),
            None => context.note(Refused, (&path, line), "this is not a price", "write USD for one token"),
        }
        nano
    };
    let (input, output) = (cost("input_cost_per_token"), cost("output_cost_per_token"));
    let cached = cost("cache_read_input_token_cost");
    let full = item.params.get("model").and_then(Node::text).unwrap_or_default();
    let custom = item.params.get("custom_llm_provider").and_then(Node::text);
    let provider = providers::split(full, custom, context.prices.provider(full)).0.unwrap_or_default();
    let base_model = item.info.get("base_model").and_then(Node::text);
    if base_model.is_some() {
        let (path, line) = item.about("base_model");
        context.note(Kept, (&path, line), "the model whose price it has", "give the prices with `--prices`");
    }
    let listed = context.prices.price(provider, &deployment.model, base_model);
    // Engines of one's own are not billed by the token, whatever the model costs elsewhere.
    let listed = listed.filter(|_| deployment.cloud != OWN_CLOUD || base_model.is_some());
    let place = (item.path.as_str(), item.line);
    match (input.or(listed.map(|p| p.input)), output.or(listed.map(|p| p.output))) {
        (Some(0), Some(0)) | (None, None) => None,
        (Some(input), Some(output)) => {
            Some(Price { input, output, cached_input: cached.or(listed.and_then(|p| p.cached_input)) })
        }
        _ => {
            let message = "one price of two is known, so that none is written: a fleet has both or the list price";
            context.note(Approximated, place, message, "write both costs, or give `--prices`, and import again");
            None
        }
    }
}
