//! The fleet file of a plan: commented, in the strict YAML that every reader of fleet files agrees on.
//!
//! Written by hand rather than by a serialiser, because the file is meant to be kept and edited: comments say where a
//! thing comes from, and a split stands on one line.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    deployment::{Deployment, OWN_CLOUD},
    plan::{Key, Model, Plan},
    price::usd,
};
const HEAD: &str = "\
# Made by `outrigger import litellm`. What could not be carried over is in the report of that command.
# docs/fleet-file.md explains every key; `outrigger check` finds every fault.
version: 1
";

pub(super) fn write(plan: &Plan) -> String {
    let mut text = HEAD.to_owned();
    clouds(&mut text, &plan.backends);
    text += "\nbackends:\n";
    for backend in &plan.backends {
        self::backend(&mut text, backend);
    }
    text += "\nmodels:\n";
    for model in &plan.models {
        self::model(&mut text, model, plan);
    }
    if !plan.keys.is_empty() {
        text += "\nkeys:\n";
        for key in &plan.keys {
            self::key(&mut text, key);
        }
    }
    text
}

/// Writing to a string cannot fail.
pub(super) fn line(text: &mut String, indent: usize, what: &str) {
    let _ = writeln!(text, "{:indent$}{what}", "");
}

fn clouds(text: &mut String, backends: &[Deployment]) {
    let mut clouds: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    for backend in backends {
        // Only where a backend has no key of its own.
        let key = backend.cloud_key.filter(|_| backend.key.is_none());
        let known = clouds.entry(&backend.cloud).or_default();
        *known = known.or(key);
    }
    *text += "\nclouds:\n";
    for (cloud, key) in clouds {
        match key {
            None if cloud == OWN_CLOUD => {
                line(
                    text,
                    2,
                    &format!(
                        "{cloud}: {{}}  # name your clouds and their regions, so that their loss and egress count"
                    ),
                );
            }
            None => line(text, 2, &format!("{}: {{}}", scalar(cloud))),
            Some(variable) => {
                line(text, 2, &format!("{}:", scalar(cloud)));
                line(text, 4, &format!("api_key: \"${{{variable}}}\"  # the variable that LiteLLM takes by itself"));
            }
        }
    }
}

fn backend(text: &mut String, backend: &Deployment) {
    line(text, 2, &format!("{}:", scalar(&backend.name)));
    line(text, 4, &format!("cloud: {}", scalar(&backend.cloud)));
    line(text, 4, &format!("engine: {}", backend.engine));
    if let Some(url) = &backend.url {
        line(text, 4, &format!("url: {}", scalar(url)));
    }
    if let Some(variable) = &backend.key {
        line(text, 4, &format!("api_key: \"${{{variable}}}\""));
    }
    line(text, 4, &format!("model: {}", scalar(&backend.model)));
    if let Some(limit) = backend.max_in_flight {
        line(text, 4, &format!("max_in_flight: {limit}"));
    }
    let timeouts: Vec<String> = backend.timeouts.keys().iter().map(|(key, value)| format!("{key}: {value}")).collect();
    if !timeouts.is_empty() {
        line(text, 4, &format!("timeouts: {{ {} }}", timeouts.join(", ")));
    }
    if let Some(price) = backend.price {
        let cached = price.cached_input.map_or_else(String::new, |cached| format!(", cached_input: {}", usd(cached)));
        let (input, output) = (usd(price.input), usd(price.output));
        line(text, 4, &format!("usd_per_million_tokens: {{ input: {input}, output: {output}{cached} }}"));
    }
}

fn model(text: &mut String, model: &Model, plan: &Plan) {
    line(text, 2, &format!("{}:", scalar(&model.name)));
    if !model.aliases.is_empty() {
        let aliases: Vec<String> = model.aliases.iter().map(|alias| scalar(alias)).collect();
        line(text, 4, &format!("aliases: [{}]", aliases.join(", ")));
    }
    if plan.mode != "weighted" {
        line(text, 4, &format!("mode: {}", plan.mode));
    }
    line(text, 4, "tiers:");
    for tier in &model.tiers {
        let share = |(i, weight): &(usize, u32)| format!("{}: {weight}", scalar(&plan.backends[*i].name));
        let split: Vec<String> = tier.split.iter().map(share).collect();
        let of = tier.of.as_ref().map_or_else(String::new, |group| format!("  # fallback to {}", comment(group)));
        line(text, 6, &format!("- split: {{ {} }}{of}", split.join(", ")));
        if tier.substitute {
            line(text, 8, "substitute: true");
        }
    }
}

fn key(text: &mut String, key: &Key) {
    line(text, 2, &format!("{}:", scalar(&key.name)));
    let from_file = key.sha256.starts_with("file:");
    let why = if from_file { "  # outrigger key hash < KEY > master.sha256" } else { "" };
    line(text, 4, &format!("sha256: {}{why}", scalar(&key.sha256)));
    if !key.models.is_empty() {
        let models: Vec<String> = key.models.iter().map(|model| scalar(model)).collect();
        line(text, 4, &format!("models: [{}]", models.join(", ")));
    }
    if let Some(limit) = key.max_in_flight {
        line(text, 4, &format!("max_in_flight: {limit}"));
    }
}

/// What some reader of YAML takes for a truth value or for nothing.
const WORDS: &[&str] = &["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

/// Plain where every reader takes that for text, else in quotes. JSON's quotes are YAML's.
pub(super) fn scalar(text: &str) -> String {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:".contains(&b))
        && !text.ends_with(':')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if is_plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

pub(super) fn comment(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reader_might_take_for_something_else_is_quoted() {
        for (text, expect) in [
            ("gpt-4o", "gpt-4o"),
            ("meta-llama/Llama-3.3", "meta-llama/Llama-3.3"),
            ("http://a:80/v1", "http://a:80/v1"),
            ("1", "\"1\""),
            ("on", "\"on\""),
            ("null", "\"null\""),
            ("true", "\"true\""),
            ("a b", "\"a b\""),
            ("*", "\"*\""),
            ("9f86d0", "\"9f86d0\""),
        ] {
            assert_eq!(scalar(text), expect);
        }
    }
}
