//! `keys:` who may ask for what.

use std::collections::HashMap;

use outrigger_core::fleet::{CloudId, Key, KeyHash, Model, ModelId, Route, SecretRef};

use super::{
    super::{
        collect::At,
        fault::{Code, Severity},
        raw, values, weak,
    },
    Context, MOST_THINGS, items, report_unknown,
};

pub(super) fn resolve(context: &Context<'_>, models: &[Model], routes: &[Route]) -> Vec<Key> {
    let none = raw::Key::default();
    let mut seen: HashMap<KeyHashText, usize> = HashMap::new();
    context
        .each("keys", context.raw.keys.as_ref(), MOST_THINGS)
        .into_iter()
        .map(|(name, raw, at)| key(context, name, raw.unwrap_or(&none), &at, (models, routes), &mut seen))
        .collect()
}

/// What makes two hashes the same one.
type KeyHashText = String;

fn key(
    context: &Context<'_>,
    name: &str,
    raw: &raw::Key,
    at: &At<'_>,
    (models, routes): (&[Model], &[Route]),
    seen: &mut HashMap<KeyHashText, usize>,
) -> Key {
    Key {
        name: name.to_owned(),
        sha256: hashes(context, raw.sha256.as_ref(), &at.key("sha256"), seen),
        models: raw.models.as_ref().map(|list| model_ids(list, &at.key("models"), models)),
        routes: raw.routes.as_ref().map(|list| prefixes(list, &at.key("routes"), routes)),
        priority: raw.priority.map(Into::into).unwrap_or_default(),
        substitute: raw.substitute.is_none_or(Into::into),
        allowed_clouds: raw.allowed_clouds.as_ref().map(|list| cloud_ids(context, list, &at.key("allowed_clouds"))),
        max_in_flight: raw.max_in_flight,
        reveal: raw.reveal.map(Into::into).unwrap_or_default(),
    }
}

fn hashes(
    context: &Context<'_>,
    raw: Option<&raw::Hashes>,
    at: &At<'_>,
    seen: &mut HashMap<KeyHashText, usize>,
) -> Vec<KeyHash> {
    let all: Vec<(&raw::Hash, At<'_>)> = match raw {
        None => Vec::new(),
        Some(raw::Hashes::One(hash)) => vec![(hash, at.clone())],
        Some(raw::Hashes::Many(list)) => items(Some(list), at),
    };
    let mut hashes = Vec::new();
    for (text, at) in all {
        let Some(hash) = values::key_hash(text, context.base, &at) else { continue };
        match &hash {
            KeyHash::File(path) => {
                let noted = context.note(SecretRef::File(path.clone()), &at);
                context.hashes.borrow_mut().push(noted);
            }
            KeyHash::Literal(hash) => refuse_known(context, hash, &at),
        }
        if let Some(line) = seen.insert(text.0.to_ascii_lowercase(), at.line()) {
            let help = format!("give each client a key of its own, or remove this or line {line}");
            at.error(Code::DuplicateHash, "this hash is another key's too, and a request could be either's", help);
        }
        hashes.push(hash);
    }
    hashes
}

fn refuse_known(context: &Context<'_>, hash: &[u8; 32], at: &At<'_>) {
    let Some(key) = weak::known_key(hash) else { return };
    match context.weak {
        Severity::Error => at.error(Code::WeakKey, weak::message(key), weak::HELP),
        Severity::Warning => at.warning(Code::WeakKey, weak::message(key), weak::HELP),
    }
}

fn model_ids(list: &raw::List<String>, at: &At<'_>, models: &[Model]) -> Vec<ModelId> {
    let mut ids = Vec::new();
    for (name, here) in items(Some(list), at) {
        let goes_by = |model: &Model| model.name == *name || model.aliases.contains(name);
        if let Some(index) = models.iter().position(goes_by).and_then(|index| u16::try_from(index).ok()) {
            ids.push(ModelId(index));
        } else {
            let known: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
            report_unknown(&known, name, &here, "model", Code::UnknownModel);
        }
    }
    ids
}

fn prefixes(list: &raw::List<String>, at: &At<'_>, routes: &[Route]) -> Vec<String> {
    let known: Vec<&str> = routes.iter().map(|route| route.prefix.as_str()).collect();
    let mut listed = Vec::new();
    for (prefix, here) in items(Some(list), at) {
        if known.contains(&prefix.as_str()) {
            listed.push(prefix.clone());
        } else {
            report_unknown(&known, prefix, &here, "route", Code::BadRoute);
        }
    }
    listed
}

fn cloud_ids(context: &Context<'_>, list: &raw::List<String>, at: &At<'_>) -> Vec<CloudId> {
    items(Some(list), at).into_iter().filter_map(|(name, here)| context.cloud(name, &here)).collect()
}
