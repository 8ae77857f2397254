//! `router_settings`, `litellm_settings`, `general_settings` and `environment_variables`.
//!
//! LiteLLM reads some keys in two of these sections. They are read here wherever they stand.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::{
    Context,
    names::{is_variable, variable},
    report::Verdict::{Approximated, Ignored, Kept, Refused, Warning},
    rules::Section,
    seconds::{STREAM, TIMEOUT, Timeouts},
    yaml::{Entry, Node},
};

/// Shorter, and whoever has the hash can find the key by trying.
const SHORTEST_KEY: usize = 24;

/// A name that stands for other names, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Named<T> {
    pub(super) name: String,
    pub(super) to: T,
    pub(super) path: String,
    pub(super) line: usize,
}

/// The key that may do everything.
#[derive(Clone, Debug)]
pub(super) enum MasterKey {
    Variable(String),
    Literal(String),
}

#[derive(Debug)]
pub(super) struct Settings {
    pub(super) mode: &'static str,
    /// Models to ask when one fails; `*` for all that name none.
    pub(super) fallbacks: Vec<Named<Vec<String>>>,
    pub(super) aliases: Vec<Named<String>>,
    pub(super) timeouts: Timeouts,
    pub(super) master_key: Option<MasterKey>,
}

const SECTIONS: &[(&str, Section, &[&str])] = &[
    (
        "router_settings",
        Section::Router,
        &["routing_strategy", "fallbacks", "default_fallbacks", "model_group_alias", "timeout", "stream_timeout"],
    ),
    (
        "litellm_settings",
        Section::LiteLlm,
        &["fallbacks", "default_fallbacks", "model_group_alias", "request_timeout", "stream_timeout"],
    ),
    ("general_settings", Section::General, &["master_key"]),
];

pub(super) fn read(context: &mut Context<'_>, root: &Node) -> Settings {
    let none = Timeouts::default();
    let mut settings =
        Settings { mode: "weighted", fallbacks: Vec::new(), aliases: Vec::new(), timeouts: none, master_key: None };
    for (name, section, keys) in SECTIONS {
        let Some(node) = root.get(name) else { continue };
        for entry in node.entries().iter().filter(|entry| keys.contains(&entry.key.as_str()) && !entry.node.is_null()) {
            setting(context, &mut settings, &format!("{name}.{}", entry.key), entry);
        }
        context.rest(*section, name, node, keys);
    }
    for entry in root.get("environment_variables").map(Node::entries).unwrap_or_default() {
        let path = format!("environment_variables.{}", entry.key);
        let help = "set the variable where `serve` runs";
        context.note(Ignored, (&path, entry.line), "a fleet file sets no variables", help);
    }
    let known = ["model_list", "router_settings", "litellm_settings", "general_settings", "environment_variables"];
    context.rest(Section::Top, "", root, &known);
    settings
}

fn setting(context: &mut Context<'_>, settings: &mut Settings, path: &str, entry: &Entry) {
    let (node, place) = (&entry.node, (path, entry.line));
    match entry.key.as_str() {
        "routing_strategy" => settings.mode = mode(context, node, place),
        "fallbacks" => {
            for (name, to) in
                node.items().iter().flat_map(Node::entries).map(|e| (e.key.clone(), models(context, &e.node, place)))
            {
                settings.fallbacks.push(Named { name, to, path: path.to_owned(), line: entry.line });
            }
        }
        "default_fallbacks" => {
            let to = models(context, node, place);
            settings.fallbacks.push(Named { name: "*".to_owned(), to, path: path.to_owned(), line: entry.line });
        }
        "model_group_alias" => {
            for alias in node.entries() {
                let to = alias.node.text().or_else(|| alias.node.get("model").and_then(Node::text));
                let path = format!("{path}.{}", alias.key);
                match to {
                    Some(to) => settings.aliases.push(Named {
                        name: alias.key.clone(),
                        to: to.to_owned(),
                        path,
                        line: alias.line,
                    }),
                    None => context.note(Refused, (&path, alias.line), "this names no model", "write the model's name"),
                }
            }
        }
        "timeout" | "request_timeout" => {
            settings.timeouts.total =
                context.seconds(node, place, (TIMEOUT, "`timeouts.total` of backends without one"));
        }
        "stream_timeout" => {
            settings.timeouts.stream = context.seconds(node, place, (STREAM, "`timeouts` of backends without them"));
        }
        _ => settings.master_key = master_key(context, node, place),
    }
}

fn mode(context: &mut Context<'_>, node: &Node, place: (&str, usize)) -> &'static str {
    const LATENCY: &str = "the better of two drawn at random, by load and time to first token: never all to one";
    let strategy = node.text().unwrap_or_default();
    let (verdict, mode, message) = match strategy {
        "simple-shuffle" => (Kept, "weighted", "shares by weight; here they hold exactly, not only on average"),
        "least-busy" | "latency-based-routing" => (Approximated, "latency", LATENCY),
        "cost-based-routing" => (Approximated, "cheapest", "the least marginal cost among backends that are not slow"),
        _ => {
            let message = format!("the strategy `{strategy}` has no counterpart; the weights are used instead");
            let help = "choose `simple-shuffle`, `least-busy`, `latency-based-routing` or `cost-based-routing`, or keep \
                        LiteLLM";
            context.note(Refused, place, message, help);
            return "weighted";
        }
    };
    context.note(verdict, place, message, format!("`mode: {mode}` on each model"));
    mode
}

/// The names of a list; what is no name in it is refused.
fn models(context: &mut Context<'_>, node: &Node, place: (&str, usize)) -> Vec<String> {
    let items: Vec<&Node> = if node.text().is_some() { vec![node] } else { node.items().iter().collect() };
    if items.iter().any(|item| item.text().is_none()) {
        let help = "name models only; parameters of a fallback belong into the client's request";
        context.note(Refused, place, "a fallback with parameters of its own is left out", help);
    }
    items.into_iter().filter_map(Node::text).map(str::to_owned).collect()
}

fn master_key(context: &mut Context<'_>, node: &Node, place: (&str, usize)) -> Option<MasterKey> {
    let text = node.text()?;
    let key = match variable(text) {
        Some(name) if is_variable(name) => MasterKey::Variable(name.to_owned()),
        Some(_) => {
            context.note(Refused, place, "this names no variable", "write `os.environ/NAME`, and import again");
            return None;
        }
        None => MasterKey::Literal(text.to_owned()),
    };
    let value = match &key {
        MasterKey::Variable(name) => (context.env)(name),
        MasterKey::Literal(value) => Some(value.clone()),
    };
    let from = match &key {
        MasterKey::Variable(name) => format!("printf %s \"${name}\""),
        MasterKey::Literal(_) => {
            let help = "make a new one with `outrigger key new master`: whoever read this file has seen it";
            context.note(Warning, place, "the master key is written out here", help);
            "printf %s 'THE KEY'".to_owned()
        }
    };
    let is_known = value.as_ref().is_some_and(|value| (context.known_key)(&Sha256::digest(value).into()).is_some());
    if is_known {
        known_key(context, place);
    } else if context.is_served && value.is_none() {
        let help = "set the variable where `serve` runs";
        context.note(Refused, place, "the variable with the master key is not set, so nobody could use it", help);
    } else if context.is_served {
        context.note(Kept, place, "clients may use it as their key", "the key `master`");
    } else {
        let help = format!(
            "`{from} | outrigger key hash > master.sha256` beside the fleet file, or `outrigger key new master`"
        );
        context.note(Approximated, place, "a fleet file has the hash of a key, here in the file master.sha256", help);
    }
    if value.is_some_and(|value| !is_known && value.len() < SHORTEST_KEY) {
        let help = "make a new one with `outrigger key new master`; a short key is found by trying";
        context.note(Warning, place, format!("the master key has fewer than {SHORTEST_KEY} characters"), help);
    }
    Some(key)
}

/// Such a key keeps nobody out. In a fleet file its hash is refused; where the configuration is served as it is, it
/// counts on this machine only. It is not repeated: that it is a key of somebody's stays true.
fn known_key(context: &mut Context<'_>, place: (&str, usize)) {
    if context.is_served {
        let message = "the master key is one that everybody knows, so that only loopback may be listened on";
        let help = "make a new one with `outrigger key new master`, and give it to the clients";
        context.note(Warning, place, message, help);
    } else {
        let message = "the master key is one that everybody knows; `check` and `serve` refuse its hash";
        let help = "make a new one with `outrigger key new master`: its hash goes into the file master.sha256 beside the \
                    fleet file, the key to the clients";
        context.note(Refused, place, message, help);
    }
}

/// What `environment_variables` would set in LiteLLM's process.
pub(super) fn environment(root: &Node) -> BTreeMap<String, String> {
    let entries = root.get("environment_variables").map(Node::entries).unwrap_or_default();
    let pair = |entry: &Entry| {
        let value = entry.node.text().filter(|text| variable(text).is_none())?;
        Some((entry.key.clone(), value.to_owned()))
    };
    entries.iter().filter_map(pair).collect()
}
