//! From deployments and settings to the models of a fleet: groups become splits, fallbacks become later tiers.

use std::collections::BTreeMap;

use super::{
    Context,
    deployment::Deployment,
    keys::{self, VirtualKey},
    names::{Names, is_alias, is_name},
    report::Verdict::{Approximated, Kept, Refused, Warning},
    settings::{MasterKey, Named, Settings},
};

/// The largest weight that a fleet takes.
const MOST_WEIGHT: f64 = 1_000_000.0;

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) backends: Vec<Deployment>,
    pub(super) models: Vec<Model>,
    pub(super) keys: Vec<Key>,
    pub(super) mode: &'static str,
}

#[derive(Debug)]
pub(super) struct Model {
    pub(super) name: String,
    /// What LiteLLM calls it.
    pub(super) group: String,
    pub(super) aliases: Vec<String>,
    pub(super) tiers: Vec<Tier>,
}

#[derive(Clone, Debug)]
pub(super) struct Tier {
    /// Indices of backends, with their weights.
    pub(super) split: Vec<(usize, u32)>,
    pub(super) substitute: bool,
    /// The model whose deployments these are, where it is another one.
    pub(super) of: Option<String>,
}

#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: String,
    /// A hash, or `file:PATH` with one.
    pub(super) sha256: String,
    pub(super) models: Vec<String>,
    pub(super) max_in_flight: Option<u32>,
}

pub(super) fn make(context: &mut Context<'_>, mut backends: Vec<Deployment>, settings: &Settings) -> Plan {
    for backend in &mut backends {
        backend.timeouts.total = backend.timeouts.total.or(settings.timeouts.total);
        backend.timeouts.stream = backend.timeouts.stream.or(settings.timeouts.stream);
    }
    let mut models = named(context, &backends, &settings.aliases);
    for model in &mut models {
        model.tiers = own_tiers(context, &backends, &model.group);
    }
    let own: BTreeMap<String, Vec<Tier>> = models.iter().map(|m| (m.group.clone(), m.tiers.clone())).collect();
    for fallback in &settings.fallbacks {
        check_fallback(context, fallback, &own);
    }
    for model in &mut models {
        add_fallbacks(model, &settings.fallbacks, &own, &backends);
        warn(context, model, &backends);
    }
    Plan { backends, models, keys: Vec::new(), mode: settings.mode }
}

/// The groups in the order of the file, each with a name that a fleet takes and the others that clients know it by.
fn named(context: &mut Context<'_>, backends: &[Deployment], aliases: &[Named<String>]) -> Vec<Model> {
    let mut groups: Vec<&Deployment> = Vec::new();
    for backend in backends {
        if !groups.iter().any(|known| known.group == backend.group) {
            groups.push(backend);
        }
    }
    let mut names = Names::default();
    for name in groups.iter().map(|g| &g.group).chain(aliases.iter().map(|a| &a.name)).filter(|name| is_name(name)) {
        names.reserve(name);
    }
    let mut models: Vec<Model> = Vec::new();
    for first in &groups {
        let group = first.group.clone();
        let place = (format!("{}.model_name", first.path), first.line);
        let place = (place.0.as_str(), place.1);
        let is_taken_as_it_is = is_name(&group);
        let name = if is_taken_as_it_is { group.clone() } else { names.claim(&group) };
        let mut own = Vec::new();
        match (is_taken_as_it_is, is_alias(&group)) {
            (true, _) => context.note(Kept, place, "a model of the fleet", format!("`models.{name}`")),
            (false, true) => {
                context.note(
                    Kept,
                    place,
                    "a model of the fleet under a shorter name",
                    format!("`models.{name}`, with the old name as an alias"),
                );
                own.push(group.clone());
            }
            (false, false) => {
                let help = format!("let clients ask for `{name}`");
                context.note(Refused, place, "a name with spaces or beyond ASCII cannot be asked for", help);
            }
        }
        models.push(Model { name, group, aliases: own, tiers: Vec::new() });
    }
    for alias in aliases {
        add_alias(context, &mut models, alias);
    }
    models
}

fn add_alias(context: &mut Context<'_>, models: &mut [Model], alias: &Named<String>) {
    let place = (alias.path.as_str(), alias.line);
    if models.iter().any(|m| m.group == alias.name || m.name == alias.name || m.aliases.contains(&alias.name)) {
        let help = "rename one of the two; in LiteLLM the alias hides the model";
        context.note(Refused, place, "a model has this name already", help);
        return;
    }
    if !is_alias(&alias.name) {
        context.note(Refused, place, "a name with spaces or beyond ASCII cannot be asked for", "choose another alias");
        return;
    }
    match models.iter_mut().find(|model| model.group == alias.to) {
        Some(model) => {
            model.aliases.push(alias.name.clone());
            context.note(Kept, place, "another name of the model", format!("`models.{}.aliases`", model.name));
        }
        None => {
            let message = format!("`{}` is not served here, so its alias is not either", alias.to);
            context.note(Refused, place, message, "see what is said of that model");
        }
    }
}

/// One tier for each `order`.
fn own_tiers(context: &mut Context<'_>, backends: &[Deployment], group: &str) -> Vec<Tier> {
    let members: Vec<usize> = (0..backends.len()).filter(|i| backends[*i].group == group).collect();
    let mut orders: Vec<i64> = members.iter().map(|i| backends[*i].order).collect();
    orders.sort_unstable();
    orders.dedup();
    let first = &backends[members[0]].model;
    let tier = |order: i64| {
        let members: Vec<usize> = members.iter().copied().filter(|i| backends[*i].order == order).collect();
        let deployments: Vec<&Deployment> = members.iter().map(|i| &backends[*i]).collect();
        let weights = weights(context, &deployments);
        let substitute = order != orders[0] && !deployments.iter().all(|d| is_same(first, &d.model));
        Tier { split: members.into_iter().zip(weights).collect(), substitute, of: None }
    };
    orders.iter().copied().map(tier).collect()
}

type Share = fn(&Deployment) -> Option<f64>;

/// By `weight`, else by `rpm`, else by `tpm`, as LiteLLM's simple shuffle does; evenly where not all have one.
fn weights(context: &mut Context<'_>, deployments: &[&Deployment]) -> Vec<u32> {
    if deployments.len() == 1 {
        return vec![1];
    }
    let shares: [(&str, Share); 3] = [("weight", |d| d.weight), ("rpm", |d| d.rpm), ("tpm", |d| d.tpm)];
    for (key, share) in shares {
        let known: Vec<f64> = deployments.iter().filter_map(|d| share(d)).collect();
        if known.is_empty() || known.iter().all(|weight| *weight == 0.0) {
            continue;
        }
        if known.len() == deployments.len() {
            return whole(&known);
        }
        let message = format!(
            "only {} of {} deployments of `{}` have a `{key}`: LiteLLM 1.109 sends nothing to the others, older ones \
             ignore it when the first has none; the fleet shares evenly",
            known.len(),
            deployments.len(),
            deployments[0].group
        );
        let help = format!("write `{key}` for each of them, and import again");
        context.note(Warning, (&deployments[0].path, deployments[0].line), message, help);
        break;
    }
    vec![1; deployments.len()]
}

/// Whole numbers in the same proportion, as small as they can be.
fn whole(shares: &[f64]) -> Vec<u32> {
    let is_whole = |by: f64| shares.iter().all(|share| ((share * by).round() - share * by).abs() < 1e-9);
    let by = (0..=6).map(|n| 10_f64.powi(n)).find(|by| is_whole(*by)).unwrap_or(1e6);
    let numbers: Vec<u64> = shares.iter().map(|share| (share * by).round() as u64).collect();
    let divisor = numbers.iter().copied().fold(0, gcd).max(1);
    let largest = numbers.iter().copied().max().unwrap_or(0) / divisor;
    let down = (MOST_WEIGHT / largest as f64).min(1.0);
    let weight = |number: u64| if number == 0 { 0 } else { (((number / divisor) as f64 * down).round() as u32).max(1) };
    numbers.into_iter().map(weight).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn check_fallback(context: &mut Context<'_>, fallback: &Named<Vec<String>>, own: &BTreeMap<String, Vec<Tier>>) {
    let place = (fallback.path.as_str(), fallback.line);
    if fallback.name != "*" && !own.contains_key(&fallback.name) {
        let message = format!("`{}` is not served here, so its fallbacks are not either", fallback.name);
        context.note(Refused, place, message, "see what is said of that model");
        return;
    }
    let (served, missing): (Vec<&String>, Vec<&String>) = fallback.to.iter().partition(|name| own.contains_key(*name));
    for name in missing {
        let message = format!("`{name}` is not served here, so nothing falls back to it");
        context.note(Refused, place, message, "see what is said of that model, or name another");
    }
    if !served.is_empty() {
        let message = "entered when no backend of the model can serve, also before a request has failed; the answer says \
                       that another model gave it, and a key may deny that";
        context.note(Approximated, place, message, "later tiers with `substitute: true`");
    }
}

fn add_fallbacks(
    model: &mut Model,
    fallbacks: &[Named<Vec<String>>],
    own: &BTreeMap<String, Vec<Tier>>,
    backends: &[Deployment],
) {
    let named = |name: &str| fallbacks.iter().filter(|f| f.name == name).flat_map(|f| &f.to).collect::<Vec<_>>();
    let mut to = named(&model.group);
    if to.is_empty() {
        to = named("*");
    }
    let mut seen = vec![model.group.clone()];
    for group in to {
        let Some(tiers) = own.get(group).filter(|_| !seen.contains(group)) else { continue };
        seen.push(group.clone());
        for tier in tiers {
            let first = &backends[model.tiers[0].split[0].0].model;
            let substitute = !tier.split.iter().all(|(i, _)| is_same(first, &backends[*i].model));
            model.tiers.push(Tier { split: tier.split.clone(), substitute, of: Some(group.clone()) });
        }
    }
}

/// Whether two engines' names are likely to mean one model, as `check` sees it.
fn is_same(one: &str, other: &str) -> bool {
    let short = |name: &str| name.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    short(one) == short(other)
}

/// What this group does in LiteLLM although it looks otherwise.
fn warn(context: &mut Context<'_>, model: &Model, backends: &[Deployment]) {
    let first = &backends[model.tiers[0].split[0].0];
    let place = (first.path.as_str(), first.line);
    if model.tiers.len() == 1 && model.tiers[0].split.len() == 1 {
        let message = "the only deployment of its model: LiteLLM never gives it a cooldown; here it is taken out when it \
                       fails, and requests get 503 until a probe succeeds";
        context.note(Warning, place, message, "add a second deployment or a fallback, so that somebody answers");
    }
    if model.tiers[0].split.iter().any(|(i, _)| !is_same(&first.model, &backends[*i].model)) {
        let message =
            format!("the deployments of `{}` serve different models, and clients are not told which", model.group);
        context.note(Warning, place, message, "give each model a group, and make the second a fallback of the first");
    }
}

/// The master key and the exported ones.
pub(super) fn keys(
    context: &mut Context<'_>,
    plan: &mut Plan,
    master: Option<(&MasterKey, Option<String>)>,
    exported: &[VirtualKey],
    now: jiff::Timestamp,
) {
    let mut names = Names::default();
    if let Some((_, hash)) = master {
        names.reserve("master");
        let sha256 = hash.unwrap_or_else(|| "file:master.sha256".to_owned());
        plan.keys.push(Key { name: "master".to_owned(), sha256, models: Vec::new(), max_in_flight: None });
    }
    for key in exported {
        if let Some(models) = usable(context, plan, key, now) {
            let name = names.claim(&key.name);
            let path = format!("keys[{}]", key.row);
            context.note(Kept, (&path, key.row), format!("the key `{}`", key.name), format!("`keys.{name}`"));
            plan.keys.push(Key { name, sha256: key.sha256.clone(), models, max_in_flight: key.max_in_flight });
        }
    }
}

/// The models that a key may ask for (empty for all); `None` when it may not be used at all.
fn usable(context: &mut Context<'_>, plan: &Plan, key: &VirtualKey, now: jiff::Timestamp) -> Option<Vec<String>> {
    let path = format!("keys[{}]", key.row);
    let place = (path.as_str(), key.row);
    if plan.keys.iter().any(|known| known.sha256 == key.sha256) {
        context.note(Kept, place, "the same key as another one", "nothing to do");
        return None;
    }
    if let Some(known) = keys::bytes(&key.sha256).and_then(|hash| (context.known_key)(&hash)) {
        let message = format!("`{}` is the key `{known}`, which everybody knows, so it is left out", key.name);
        context.note(
            Refused,
            place,
            message,
            "make a new one with `outrigger key new NAME`, and give it to its client",
        );
        return None;
    }
    if key.is_blocked || key.expires.is_some_and(|at| at <= now) {
        let why = if key.is_blocked { "blocked" } else { "expired" };
        context.note(Kept, place, format!("`{}` is {why}, so it is left out", key.name), "nothing to do");
        return None;
    }
    if let Some(at) = key.expires {
        let message = format!("`{}` expires on {}, and keys of a fleet do not expire", key.name, keys::date(at));
        context.note(Approximated, place, message, "remove it on that day and run `outrigger reload`");
    }
    if !key.limits.is_empty() {
        let message = format!("not enforced for this key: {}", key.limits.join(", "));
        context.note(Refused, place, message, "bound it with `max_in_flight`, `models` and the clouds' `spend_limit`");
    }
    let is_all = |name: &String| matches!(name.as_str(), "*" | "all-proxy-models" | "all-team-models");
    if key.models.is_empty() || key.models.iter().any(is_all) {
        return Some(Vec::new());
    }
    let models: Vec<String> =
        plan.models.iter().filter(|model| may_use(key, model, &plan.backends)).map(|m| m.name.clone()).collect();
    if models.is_empty() {
        let message = format!("none of the models of `{}` is served here, so it is left out", key.name);
        context.note(Refused, place, message, "see what is said of those models");
        return None;
    }
    Some(models)
}

/// By the model's names, by a prefix with `*`, or by a group that it is in.
fn may_use(key: &VirtualKey, model: &Model, backends: &[Deployment]) -> bool {
    key.models.iter().any(|listed| {
        let fits =
            |name: &String| name == listed || listed.strip_suffix('*').is_some_and(|start| name.starts_with(start));
        let in_group = |b: &Deployment| b.group == model.group && b.access_groups.contains(listed);
        fits(&model.group) || model.aliases.iter().any(fits) || backends.iter().any(in_group)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_whole_numbers_in_proportion() {
        assert_eq!(whole(&[0.9, 0.1]), [9, 1]);
        assert_eq!(whole(&[20_000.0, 100_000.0]), [1, 5]);
        assert_eq!(whole(&[3e9, 1e9]), [3, 1]);
        assert_eq!(whole(&[1.0, 0.0]), [1, 0]);
        assert_eq!(whole(&[1e9, 1.0]), [1_000_000, 1]);
    }
}
