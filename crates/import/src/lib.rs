//! A LiteLLM proxy's configuration as a fleet file, and what engines say of themselves as one ([`engines`]).
//!
//! LiteLLM's file is read tolerantly (`yaml`), each deployment becomes a backend (`deployment`, `address`, `providers`), groups
//! and fallbacks become models with tiers (`plan`), and the result is written as a fleet file (`fleet`) that goes
//! through the same checks as one written by hand. Every key of the input gets a line in the [`Report`]: whoever moves has to
//! know what will be different, and a key that is silently dropped is the one that matters.
//!
//! Nothing here reads the environment, a clock or a file: they come in as [`Inputs`]. Secrets never stand in what is
//! written: a literal one is replaced by a variable, and kept aside for `serve --litellm-config`.

mod address;
mod deployment;
pub mod engines;
mod fleet;
mod keys;
mod names;
mod plan;
mod price;
mod providers;
mod report;
mod rules;
mod seconds;
mod settings;
mod yaml;

use std::{collections::BTreeMap, time::Duration};

use sha2::{Digest as _, Sha256};

pub use self::{
    keys::{VirtualKey, parse as parse_keys},
    price::Prices,
    report::{Note, Report, Verdict},
    yaml::Malformed,
};
use self::{names::Names, report::Verdict::Refused, rules::Section, settings::MasterKey, yaml::Node};

/// Larger, and it is something else.
pub const LARGEST: usize = 16 << 20;

/// What an import reads beside the configuration.
pub struct Inputs<'a> {
    /// A variable's value.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    pub prices: &'a Prices,
    /// Keys from an export.
    pub keys: &'a [VirtualKey],
    /// Since 1970: which of those have expired.
    pub now: Duration,
    /// The key of which this is the hash, if everybody knows it.
    pub known_key: &'a dyn Fn(&[u8; 32]) -> Option<&'static str>,
    /// The fleet is served by this process and not written to a file, so that it may hold the master key's hash.
    pub is_served: bool,
}

impl std::fmt::Debug for Inputs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inputs").field("is_served", &self.is_served).finish_non_exhaustive()
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Imported {
    /// The text of a fleet file; `None` when no model can be served.
    pub fleet: Option<String>,
    pub report: Report,
    /// Values of variables that the old file sets or makes necessary.
    pub secrets: Variables,
}

/// Values of variables. Never printed.
#[derive(Clone, Default)]
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    pub fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    /// The variable of a literal secret; the same for the same secret.
    fn variable(&mut self, value: &str, wanted: &str) -> String {
        if let Some((name, _)) = self.0.iter().find(|(name, known)| *known == value && name.starts_with(names::PREFIX))
        {
            return name.clone();
        }
        let numbered = (2..).map(|n| format!("{wanted}_{n}"));
        let mut wanted = std::iter::once(wanted.to_owned()).chain(numbered);
        let name = wanted.find(|name| !self.0.contains_key(name)).expect("numbers do not end");
        self.0.insert(name.clone(), value.to_owned());
        name
    }
}

impl std::fmt::Debug for Variables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Variables(…)")
    }
}

/// What every step reads and writes.
struct Context<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    prices: &'a Prices,
    known_key: &'a dyn Fn(&[u8; 32]) -> Option<&'static str>,
    is_served: bool,
    report: Report,
    backends: Names,
    secrets: Variables,
}

impl Context<'_> {
    fn note(&mut self, verdict: Verdict, place: (&str, usize), message: impl Into<String>, help: impl Into<String>) {
        self.report.note(verdict, place, message, help);
    }

    /// Notes what the rules say of each key of `node` that no code reads.
    fn rest(&mut self, section: Section, path: &str, node: &Node, read: &[&str]) {
        for entry in node.entries().iter().filter(|entry| !read.contains(&entry.key.as_str())) {
            let rule = rules::of(section, &entry.key);
            let path = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
            self.note(rule.verdict, (&path, entry.line), rule.message, rule.help);
        }
    }
}

/// Imports the text of a configuration.
pub fn import(text: &str, inputs: &Inputs<'_>) -> Result<Imported, Malformed> {
    let root = yaml::parse(text.trim_start_matches('\u{feff}'))?;
    let own = settings::environment(&root);
    // LiteLLM sets these in its own process, over what was there.
    let env = |name: &str| own.get(name).cloned().or_else(|| (inputs.env)(name));
    let mut context = Context {
        env: &env,
        prices: inputs.prices,
        known_key: inputs.known_key,
        is_served: inputs.is_served,
        report: Report::default(),
        backends: Names::default(),
        secrets: Variables(own.clone()),
    };
    let list = root.get("model_list").map(Node::items).unwrap_or_default();
    let deployments: Vec<_> =
        list.iter().enumerate().filter_map(|(i, node)| deployment::read(&mut context, i, node)).collect();
    let settings = settings::read(&mut context, &root);
    if deployments.is_empty() {
        let line = root.entries().iter().find(|entry| entry.key == "model_list").map_or(1, |entry| entry.line);
        let (message, help) = if list.is_empty() {
            ("there is no model in this file", "give the configuration that LiteLLM's proxy starts with")
        } else {
            ("none of its models can be served", "see what is said of each")
        };
        context.note(Refused, ("model_list", line), message, help);
        return Ok(Imported { fleet: None, report: context.report, secrets: context.secrets });
    }
    let mut plan = plan::make(&mut context, deployments, &settings);
    let master = settings.master_key.as_ref().map(|key| (key, hash(key, &env, inputs.is_served)));
    plan::keys(&mut context, &mut plan, master, inputs.keys, keys::timestamp(inputs.now));
    Ok(Imported { fleet: Some(fleet::write(&plan)), report: context.report, secrets: context.secrets })
}

/// The master key's hash, where it may be known. A short key could be found from it, so that it goes into no file.
fn hash(key: &MasterKey, env: &dyn Fn(&str) -> Option<String>, is_served: bool) -> Option<String> {
    let value = match key {
        MasterKey::Variable(name) => env(name),
        MasterKey::Literal(value) => Some(value.clone()),
    };
    value.filter(|_| is_served).map(|value| hex(&Sha256::digest(value.as_bytes())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
