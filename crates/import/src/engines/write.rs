//! The fleet file of what was found.

use std::collections::{BTreeMap, BTreeSet};

use outrigger_core::fleet::{Api, ApiSet, Engine};

use super::{Common, Found, FoundModel};
use crate::{
    fleet::{comment, line, scalar},
    names::{Names, is_alias, is_name},
};

const HEAD: &str = "\
# Made by `outrigger init`. It can be served as it is; what engines cannot know is left as comments, for you to fill in.
# docs/fleet-file.md explains every key, `outrigger check FILE` finds every fault, and with `--online` it asks each
# engine and compares those that serve one model.
version: 1

# gateway: { cloud: aws, region: us-east-1 }   # where the gateway stands, so that egress between clouds is counted
";

const CLOUDS: &str = "
# Who the machines are rented from. Hosts of one provider are one cloud: rename them and put them together, since the
# loss of a cloud is survived by what is in another. aws, azure, gcp, oci, coreweave, lambda, runpod, hyperstack and
# nebius have their list prices for egress built in.
clouds:
";

const POOLS: &str = "
# GPUs that are paid for by the hour. With `pool: NAME` in place of `cloud:` under a backend, cost is known and counted.
# pools:
#   my-gpus:
#     cloud: CLOUD
#     gpu: h100
#     gpus: 8
#     reserved: { usd_per_gpu_hour: 2.39, until: 2027-05-31 }   # or on_demand: { usd_per_gpu_hour: 3.99 }
";

const KEYS: &str = "
# Who may ask. Without any, the gateway listens on this machine only. `outrigger key new app` prints a key, which goes
# to the client, and its hash, which goes here.
# keys:
#   app:
#     sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
";

/// The column at which comments start.
const COMMENTS: usize = 44;

/// A backend with the names that it got.
struct Backend<'a> {
    name: String,
    cloud: String,
    of: &'a Found,
    model: &'a FoundModel,
    /// The first of its engine, which the engine's bound is written for.
    is_first: bool,
}

/// Writes the file.
pub fn write(found: &[Found], common: &Common) -> String {
    let backends = backends(found);
    let mut text = HEAD.to_owned();
    clouds(&mut text, &backends, common);
    let first = backends.first().map_or_else(|| "CLOUD".to_owned(), |backend| scalar(&backend.cloud));
    text += &POOLS.replace("CLOUD", &first);
    text += "\nbackends:\n";
    for backend in &backends {
        self::backend(&mut text, backend, common);
    }
    models(&mut text, &backends);
    text + KEYS
}

fn backends(found: &[Found]) -> Vec<Backend<'_>> {
    let (mut clouds, mut names) = (Names::default(), Names::default());
    let mut cloud_of: BTreeMap<String, String> = BTreeMap::new();
    let mut backends = Vec::new();
    for of in found {
        let wanted = of.address.cloud();
        let cloud = cloud_of.entry(wanted).or_insert_with_key(|wanted| clouds.claim(wanted));
        for (index, model) in of.models.iter().enumerate() {
            let name = names.claim(&format!("{cloud}-{}", short(&model.name)));
            backends.push(Backend { name, cloud: cloud.clone(), of, model, is_first: index == 0 });
        }
    }
    backends
}

/// What is after the last slash: whose model it is says nothing about a backend.
fn short(model: &str) -> &str {
    model.trim_end_matches('/').rsplit('/').next().unwrap_or(model)
}

/// A line with a comment that says why.
fn with_why(text: &mut String, indent: usize, what: &str, why: &str) {
    let width = COMMENTS.saturating_sub(indent);
    match why {
        "" => line(text, indent, what),
        why => line(text, indent, &format!("{what:<width$}  # {}", comment(why))),
    }
}

fn clouds(text: &mut String, backends: &[Backend<'_>], common: &Common) {
    *text += CLOUDS;
    let names: BTreeSet<&str> = backends.iter().map(|backend| backend.cloud.as_str()).collect();
    for name in names {
        match &common.key_variable {
            None => {
                let filled = "{ region: us-east-1, egress_usd_per_gb: 0.09 }";
                with_why(text, 2, &format!("{}: {{}}", scalar(name)), filled);
            }
            Some(variable) => {
                line(text, 2, &format!("{}:", scalar(name)));
                line(text, 4, &format!("api_key: \"${{{variable}}}\""));
                line(text, 4, "# region: us-east-1");
                line(text, 4, "# egress_usd_per_gb: 0.09");
            }
        }
    }
}

fn backend(text: &mut String, backend: &Backend<'_>, common: &Common) {
    let Backend { name, cloud, of, model, .. } = backend;
    line(text, 2, &format!("{}:", scalar(name)));
    line(text, 4, &format!("cloud: {}", scalar(cloud)));
    with_why(text, 4, &format!("engine: {}", of.engine.as_str()), of.version.as_deref().unwrap_or_default());
    line(text, 4, &format!("url: {}", scalar(&of.base)));
    with_why(text, 4, &format!("model: {}", scalar(&model.name)), &about(model));
    if let Some(apis) = other_apis(of.apis.as_deref()) {
        with_why(text, 4, &format!("apis: [{apis}]"), "what it answered");
    }
    if of.engine != Engine::Openai && !of.address.path().is_empty() {
        with_why(text, 4, "metrics: none", "they are read from the root of the port, which is not this engine's");
    }
    if let Some(path) = common.ca.as_ref().filter(|_| of.address.is_https()) {
        line(text, 4, &format!("ca: {}", scalar(&format!("file:{path}"))));
    }
    match of.slots {
        Some(slots) if backend.is_first => {
            with_why(
                text,
                4,
                &format!("max_in_flight: {slots}"),
                "what the engine runs at once; more would wait there",
            );
        }
        _ if of.address.is_hosted() => {
            line(text, 4, "# usd_per_million_tokens: { input: 0.50, output: 1.50 }");
        }
        _ if !backend.is_first => {
            with_why(text, 4, "# max_in_flight: 16", "its share of what the engine runs at once");
        }
        _ => {
            let why = match of.engine {
                Engine::Vllm => "--max-num-seqs of vLLM; more would wait there",
                _ => "what the engine runs at once; more would wait there",
            };
            with_why(text, 4, "# max_in_flight: 64", why);
        }
    }
}

fn about(model: &FoundModel) -> String {
    let context = model.context.map(|tokens| format!("{tokens} tokens of context"));
    let parent = model.parent.as_ref().map(|parent| format!("an adapter of {parent}"));
    [parent, context].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What differs from what every engine for text is expected to have.
fn other_apis(apis: Option<&[Api]>) -> Option<String> {
    let apis = apis.filter(|apis| !apis.is_empty())?;
    let is_expected = apis.iter().copied().collect::<ApiSet>() == ApiSet::default();
    (!is_expected).then(|| apis.iter().map(|api| api.as_str()).collect::<Vec<_>>().join(", "))
}

/// One model for each name, over all backends that serve it, with the engine's own name as an alias: clients that know
/// that one go on.
fn models(text: &mut String, backends: &[Backend<'_>]) {
    *text += "\n# What clients ask for. Weights are relative, and a second `- split:` is used when the first cannot serve.\nmodels:\n";
    let mut groups: Vec<(&str, Vec<&Backend<'_>>)> = Vec::new();
    for backend in backends {
        let name = backend.model.name.as_str();
        match groups.iter_mut().find(|(of, _)| *of == name) {
            Some((_, members)) => members.push(backend),
            None => groups.push((name, vec![backend])),
        }
    }
    let mut names = Names::default();
    for (name, _) in groups.iter().filter(|(name, _)| is_name(name)) {
        names.reserve(name);
    }
    for (name, members) in groups {
        let public = if is_name(name) { name.to_owned() } else { names.claim(short(name)) };
        line(text, 2, &format!("{}:", scalar(&public)));
        let others = members.iter().flat_map(|backend| &backend.model.others).map(String::as_str);
        let wanted: BTreeSet<&str> = others.chain([name]).filter(|alias| *alias != public && is_alias(alias)).collect();
        let aliases: Vec<String> = wanted.into_iter().filter(|alias| names.reserve(alias)).map(scalar).collect();
        if !aliases.is_empty() {
            line(text, 4, &format!("aliases: [{}]", aliases.join(", ")));
        }
        let shares: Vec<String> = members.iter().map(|backend| format!("{}: 1", scalar(&backend.name))).collect();
        line(text, 4, "tiers:");
        line(text, 6, &format!("- split: {{ {} }}", shares.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::Address;

    fn engine(url: &str, models: &[&str]) -> Found {
        let address = Address::parse(url).unwrap();
        let model = |name: &&str| FoundModel { name: (*name).to_owned(), ..FoundModel::default() };
        let base = address.bases().remove(0);
        let models = models.iter().map(model).collect();
        Found { address, base, engine: Engine::Vllm, version: None, slots: None, apis: None, models }
    }

    #[track_caller]
    fn has(text: &str, parts: &[&str]) {
        for part in parts {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn engines_of_one_model_share_its_tier() {
        let all = [engine("10.0.0.7:8000", &["org/Model-7B"]), engine("10.0.0.7:8001", &["org/Model-7B"])];
        let text = write(&all, &Common::default());
        has(&text, &["  host-10-0-0-7: {} ", "  host-10-0-0-7-model-7b:\n", "  host-10-0-0-7-model-7b-2:\n"]);
        has(&text, &["  model-7b:\n    aliases: [org/Model-7B]\n"]);
        has(&text, &["- split: { host-10-0-0-7-model-7b: 1, host-10-0-0-7-model-7b-2: 1 }\n"]);
    }

    #[test]
    fn an_adapter_is_a_model_of_its_own_and_another_name_is_an_alias() {
        let mut one = engine("http://gpu.example", &["base", "sql"]);
        one.models[0].others = vec!["latest".to_owned()];
        one.models[1].parent = Some("base".to_owned());
        one.slots = Some(32);
        let text = write(&[one], &Common::default());
        has(&text, &["  base:\n    aliases: [latest]\n", "  sql:\n    tiers:", "# an adapter of base\n"]);
        assert_eq!(text.matches("max_in_flight: 32").count(), 1, "one bound for one engine\n{text}");
    }

    #[test]
    fn names_that_meet_stay_apart() {
        let text = write(&[engine("http://h", &["a/m", "b/m", "m"])], &Common::default());
        has(&text, &["  m:\n    tiers:", "  m-2:\n    aliases: [a/m]\n", "  m-3:\n    aliases: [b/m]\n"]);
    }

    #[test]
    fn what_deviates_is_written_and_what_does_not_is_left_out() {
        let mut one = engine("https://h/proxy/v1", &["m"]);
        one.apis = Some(vec![Api::Chat, Api::Completions, Api::Embeddings]);
        let common = Common { key_variable: Some("KEY".to_owned()), ca: Some("/a/ca.pem".to_owned()) };
        let text = write(&[one.clone()], &common);
        has(&text, &["    api_key: \"${KEY}\"\n", "    ca: file:/a/ca.pem\n", "metrics: none"]);
        assert!(!text.contains("apis:"), "{text}");
        one.apis = Some(vec![Api::Embeddings]);
        has(&write(&[one.clone()], &common), &["    apis: [embeddings] "]);
        one.apis = Some(vec![]);
        assert!(!write(&[one], &common).contains("apis:"), "nothing answered, which is no list");
    }

    #[test]
    fn a_name_from_outside_ends_no_line() {
        let text = write(&[engine("http://h", &["a: b # \"c\" ü", "${HOME}"])], &Common::default());
        has(&text, &["    model: \"a: b # \\\"c\\\" ü\"\n", "    model: \"${HOME}\"\n"]);
    }
}
