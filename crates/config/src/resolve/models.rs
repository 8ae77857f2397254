//! `models:` the names that clients ask for, and the tiers behind them.

use std::{collections::HashMap, time::Duration};

use outrigger_core::fleet::{
    Backend, BackendId, EnterWhen, Model, QueueLimits, Share, Slo, Tier, TimeoutOverrides, Timeouts,
};

use super::{
    super::{
        collect::{At, shown},
        fault::Code,
        raw, values,
    },
    Context, MOST_THINGS, backends, items, report_unknown,
};

pub(super) fn resolve(context: &Context<'_>, backends: &[Backend]) -> Vec<Model> {
    let none = raw::Model::default();
    let models: Vec<Model> = context
        .each("models", context.raw.models.as_ref(), MOST_THINGS)
        .into_iter()
        .map(|(name, raw, at)| model(context, name, raw.unwrap_or(&none), &at, backends))
        .collect();
    if context.raw.models.as_ref().is_some_and(|models| models.0.is_empty()) {
        context.root.key("models").error_at_key(
            Code::Empty,
            "there are no models",
            "add what clients shall ask for by name",
        );
    }
    check_names(context);
    check_use(context, backends, &models);
    check_overrides(context, backends, &models);
    models
}

fn model(context: &Context<'_>, name: &str, raw: &raw::Model, at: &At<'_>, backends: &[Backend]) -> Model {
    let slo_at = at.key("slo");
    let slo = raw.slo.as_ref();
    let objective =
        |text: Option<&raw::Duration>, key: &str| text.and_then(|d| values::some_duration(d, &slo_at.key(key)));
    let tiers_at = at.key("tiers");
    let raw_tiers = items(raw.tiers.as_ref(), &tiers_at);
    let tiers: Vec<Tier> = raw_tiers.iter().enumerate().map(|(i, (raw, at))| tier(context, i, raw, at)).collect();
    let places: Vec<At<'_>> = raw_tiers.into_iter().map(|(_, at)| at).collect();
    check_substitutes(&tiers, &places, backends);
    let timeouts = timeouts(raw.timeouts.as_ref(), &at.key("timeouts"));
    Model {
        name: name.to_owned(),
        aliases: items(raw.aliases.as_ref(), &at.key("aliases")).into_iter().map(|(alias, _)| alias.clone()).collect(),
        mode: raw.mode.map(Into::into).unwrap_or_default(),
        slo: Slo {
            ttft_p95: objective(slo.and_then(|slo| slo.ttft_p95.as_ref()), "ttft_p95"),
            time_per_output_token_p95: objective(
                slo.and_then(|slo| slo.time_per_output_token_p95.as_ref()),
                "time_per_output_token_p95",
            ),
        },
        tiers,
        queue: queue(raw.queue.as_ref(), &at.key("queue"), &timeouts),
        timeouts,
        affinity: raw.affinity.map(Into::into).unwrap_or_default(),
        weigh_by: raw.weigh_by.map(Into::into).unwrap_or_default(),
    }
}

fn tier(context: &Context<'_>, index: usize, raw: &raw::Tier, at: &At<'_>) -> Tier {
    let split_at = at.key("split");
    let condition = at.key("enter_when");
    if index == 0 && condition.is_written() {
        condition.warning_at_key(
            Code::EnterWhenFirst,
            "nothing comes before the first tier, so it is always entered",
            "remove `enter_when`, or move this tier down",
        );
    }
    let wait_above = raw.enter_when.as_ref().and_then(|when| when.wait_above.as_ref());
    Tier {
        split: raw.split.as_ref().map(|split| shares(context, split, &split_at)).unwrap_or_default(),
        enter_when: wait_above
            .and_then(|wait| values::duration(wait, &condition.key("wait_above")))
            .map(|wait_above| EnterWhen { wait_above }),
        substitute: raw.substitute.unwrap_or(false),
    }
}

fn shares(context: &Context<'_>, split: &raw::Named<raw::Weight>, at: &At<'_>) -> Vec<Share> {
    let mut shares = Vec::new();
    for (name, weight) in &split.0 {
        let here = at.key(name);
        let known = context.raw.backends.as_ref();
        let Some(id) = known.and_then(|all| all.names().position(|n| n == name)).and_then(|id| u16::try_from(id).ok())
        else {
            let names: Vec<&str> = known.map(|all| all.names().collect()).unwrap_or_default();
            // The name is the key here, not the value.
            report_unknown(&names, name, &here.as_key(), "backend", Code::UnknownBackend);
            continue;
        };
        let Some(raw::Weight(weight)) = *weight else { continue };
        if weight == 0 && split.0.len() > 1 {
            let help = format!("remove `{}` from the split, or give it a weight above 0", shown(name));
            here.warning(Code::ZeroWeight, "a backend of weight 0 gets no requests here", help);
        }
        shares.push(Share { backend: BackendId(id), weight });
    }
    let is_faulty = split.0.iter().any(|(_, weight)| weight.is_none());
    let none_has_weight = split.0.iter().filter_map(|(_, weight)| *weight).all(|weight| weight.0 == 0);
    if none_has_weight && !is_faulty {
        let help = "give at least one backend a weight above 0, such as `split: { NAME: 1 }`";
        at.error_at_key(Code::NoWeight, "no backend of this tier has weight, so it can serve nobody", help);
    }
    shares
}

fn timeouts(raw: Option<&raw::Timeouts>, at: &At<'_>) -> Timeouts {
    let Some(raw) = raw else { return Timeouts::default() };
    let written = backends::timeouts(raw, at);
    let timeouts = Timeouts::default().overridden_by(&written);
    check_order(&written, timeouts.total, at);
    timeouts
}

fn queue(raw: Option<&raw::Queue>, at: &At<'_>, timeouts: &Timeouts) -> QueueLimits {
    let max_wait_at = at.key("max_wait");
    let max_wait = raw.and_then(|raw| raw.max_wait.as_ref()).and_then(|wait| values::duration(wait, &max_wait_at));
    if let Some(max_wait) = max_wait.filter(|wait| *wait > timeouts.total) {
        max_wait_at.error(
            Code::TimeoutsOrder,
            format!("a request may wait {max_wait:?}, and take {:?} as a whole", timeouts.total),
            "make `max_wait` shorter than `timeouts.total`, or `total` longer",
        );
    }
    let max_waiting = raw.and_then(|raw| raw.max_waiting).unwrap_or(QueueLimits::default().max_waiting);
    QueueLimits { max_waiting, max_wait: max_wait.unwrap_or(timeouts.first_token) }
}

/// No phase may take longer than the whole.
fn check_order(written: &TimeoutOverrides, total: Duration, at: &At<'_>) {
    let phases = [
        ("connect", written.connect),
        ("headers", written.headers),
        ("first_token", written.first_token),
        ("idle", written.idle),
    ];
    let too_long =
        phases.into_iter().filter_map(|(key, phase)| Some((key, phase?))).filter(|(_, phase)| *phase > total);
    for (key, phase) in too_long {
        at.key(key).error(
            Code::TimeoutsOrder,
            format!("`{key}` is {phase:?}, and the whole request may take {total:?}"),
            format!("make `{key}` shorter than `total`, or `total` longer"),
        );
    }
    if let Some(total) = written.total.filter(|total| *total < written.connect.unwrap_or(Timeouts::default().connect))
        && written.connect.is_none()
    {
        at.key("total").error(
            Code::TimeoutsOrder,
            format!("the whole request may take {total:?}, and connecting alone {:?}", Timeouts::default().connect),
            "make `total` longer, or write a shorter `connect`",
        );
    }
}

/// A backend's own timeouts against those of every model that it serves.
fn check_overrides(context: &Context<'_>, backends: &[Backend], models: &[Model]) {
    for (index, backend) in backends.iter().enumerate() {
        let serves = |model: &&Model| model.tiers.iter().flat_map(|t| &t.split).any(|s| s.backend.index() == index);
        let totals = models.iter().filter(serves).map(|model| backend.timeouts.total.unwrap_or(model.timeouts.total));
        if let Some(total) = totals.min() {
            let at = context.root.key("backends").key(&backend.name).key("timeouts");
            check_order(&TimeoutOverrides { total: None, ..backend.timeouts }, total, &at);
        }
    }
}

/// A client must not get another model without being told, nor be told so without getting one.
fn check_substitutes(tiers: &[Tier], places: &[At<'_>], backends: &[Backend]) {
    let of = |share: &Share| backends.get(share.backend.index()).filter(|backend| !backend.model.is_empty());
    let Some(first) = tiers.first().and_then(|tier| tier.split.first()).and_then(of) else { return };
    // Whether a tier is a substitute is not known where that was at fault.
    let is_told = |at: &At<'_>| !matches!(at.key("substitute").node, Some(node) if node.text().is_none());
    for (index, (tier, at)) in tiers.iter().zip(places).enumerate().filter(|(_, (_, at))| is_told(at)) {
        for backend in tier.split.iter().filter_map(of) {
            match (tier.substitute, is_same(&first.model, &backend.model)) {
                (true, true) if index > 0 => at.key("substitute").warning(
                    Code::SubstituteSameModel,
                    format!("`{}` serves the same model as the first tier, and is called a substitute", backend.name),
                    "remove `substitute: true`, so that keys which deny substitutes may use it",
                ),
                (false, false) => at.key("split").key(&backend.name).warning_at_key(
                    Code::MixedModels,
                    format!(
                        "`{}` serves `{}`, and `{}`, the first backend, `{}`",
                        backend.name,
                        shown(&backend.model),
                        first.name,
                        shown(&first.model)
                    ),
                    "if that is another model, put it into a tier with `substitute: true`; clients are told then",
                ),
                _ => {}
            }
        }
    }
}

/// Whether two engines' names are likely to mean one model: hosted APIs write them in their own ways.
fn is_same(one: &str, other: &str) -> bool {
    let short = |name: &str| name.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    short(one) == short(other)
}

/// No two models may go by one name.
fn check_names(context: &Context<'_>) {
    let mut taken: HashMap<&str, (String, usize)> = HashMap::new();
    let models = context.raw.models.as_ref().map(|models| models.0.as_slice()).unwrap_or_default();
    for (name, _) in models {
        let at = context.root.key("models").key(name);
        taken.insert(name, (format!("the model `{}`", shown(name)), at.as_key().line()));
    }
    for (name, raw) in models {
        let at = context.root.key("models").key(name).key("aliases");
        for (alias, here) in items(raw.as_ref().and_then(|raw| raw.aliases.as_ref()), &at) {
            check_alias(alias, &here);
            match taken.get(alias.as_str()) {
                Some((who, line)) => {
                    let message = format!("`{}` is taken: it is {who}", shown(alias));
                    here.error(Code::NameTaken, message, format!("choose another alias, or change line {line}"));
                }
                None => {
                    taken.insert(alias, (format!("an alias of `{}`", shown(name)), here.line()));
                }
            }
        }
    }
}

/// Aliases are what clients already write, so they may have capitals and slashes.
fn check_alias(alias: &str, at: &At<'_>) {
    const LONGEST: usize = 256;
    if alias.is_empty() || alias.len() > LONGEST || !alias.bytes().all(|b| b.is_ascii_graphic()) {
        let help = "write it in letters, digits and punctuation, without spaces, in at most 256 characters";
        at.error(Code::BadName, format!("{} is not a name", at.shown()), help);
    }
}

fn check_use(context: &Context<'_>, backends: &[Backend], models: &[Model]) {
    let mut used = vec![false; backends.len()];
    for share in models.iter().flat_map(|model| &model.tiers).flat_map(|tier| &tier.split) {
        if let Some(used) = used.get_mut(share.backend.index()) {
            *used = true;
        }
    }
    let routed = context.raw.routes.iter().flat_map(|routes| routes.0.0.iter().filter_map(|(_, to)| to.as_deref()));
    for name in routed {
        used.iter_mut().zip(backends).filter(|(_, backend)| backend.name == name).for_each(|(used, _)| *used = true);
    }
    // A name that could not be read or is not known may have been meant for any of them.
    let is_complete = context.raw.models.as_ref().is_some_and(|models| {
        models.0.iter().all(|(_, model)| model.as_ref().is_some_and(|model| is_whole(model, backends)))
    });
    for (backend, _) in backends.iter().zip(used).filter(|(_, used)| is_complete && !used) {
        context.root.key("backends").key(&backend.name).warning_at_key(
            Code::UnusedBackend,
            format!("no model has `{}` in a tier, so it gets no requests", shown(&backend.name)),
            "add it to a `split`, or remove it",
        );
    }
}

/// Whether every name in every tier was read and is a backend's.
fn is_whole(model: &raw::Model, backends: &[Backend]) -> bool {
    let is_known = |name: &str| backends.iter().any(|backend| backend.name == name);
    let is_whole_tier = |tier: &raw::Tier| {
        let split = tier.split.as_ref();
        split.is_some_and(|split| split.0.iter().all(|(name, weight)| weight.is_some() && is_known(name)))
    };
    let tiers = model.tiers.as_ref();
    tiers.is_some_and(|tiers| tiers.0.iter().all(|tier| tier.as_ref().is_some_and(is_whole_tier)))
}
