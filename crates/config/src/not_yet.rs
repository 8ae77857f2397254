//! What a fleet file may say and this release does not do yet.
//!
//! A setting that is read and silently ignored is worse than one that is refused, so each is said aloud, once for each
//! kind and not for each place. This table is the whole list: whoever makes a setting work deletes its row.

use super::{
    collect::At,
    fault::Code,
    tree::{Node, Value},
};

struct NotYet {
    /// Where, with `*` for any name or index.
    paths: &'static [&'static str],
    /// Whether the value there is one that is not obeyed.
    is_meant: fn(&Node) -> bool,
    message: &'static str,
    /// What happens instead.
    instead: &'static str,
}

const TABLE: &[NotYet] = &[
    NotYet {
        paths: &["gateway.replicas"],
        is_meant: |node| node.text().is_some_and(|text| text.starts_with("dns:")),
        message: "replicas are not counted by name yet",
        instead: "they count as 1; write their number",
    },
    NotYet {
        paths: &["models.*.slo.time_per_output_token_p95"],
        is_meant: any,
        message: "an objective for the time per output token is not obeyed yet",
        instead: "it is reported by `simulate` and changes nothing",
    },
];

fn any(_: &Node) -> bool {
    true
}

/// Says what is not obeyed.
pub(crate) fn warn(root: &At<'_>) {
    for row in TABLE {
        let mut places: Vec<At<'_>> = row.paths.iter().flat_map(|path| matching(root, path)).collect();
        places.retain(|at| at.node.is_some_and(row.is_meant));
        places.sort_by_key(|at| at.at_key().start);
        let Some(first) = places.first() else { continue };
        let message = match places.len() {
            1 => row.message.to_owned(),
            many => format!("{} (in {many} places; this is the first)", row.message),
        };
        first.warning_at_key(Code::NotYetObeyed, message, row.instead);
    }
}

/// All places of a path with `*` in it.
pub(super) fn matching<'a>(root: &At<'a>, path: &str) -> Vec<At<'a>> {
    path.split('.').fold(vec![root.clone()], |places, step| {
        places.iter().flat_map(|at| if step == "*" { children(at) } else { vec![at.key(step)] }).collect()
    })
}

fn children<'a>(at: &At<'a>) -> Vec<At<'a>> {
    match at.node.map(|node| &node.value) {
        Some(Value::Map(entries)) => entries.iter().map(|entry| at.key(&entry.key)).collect(),
        Some(Value::Seq(items)) => (0..items.len()).map(|index| at.index(index)).collect(),
        _ => Vec::new(),
    }
}
