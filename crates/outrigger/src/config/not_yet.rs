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
    serve: Serve,
}

#[derive(Clone, Copy, PartialEq)]
enum Serve {
    /// Runs, and does something else, which is said.
    Runs,
    /// Does not start: anything else would be less safe than what was asked for.
    Refuses,
}

const TABLE: &[NotYet] = &[
    NotYet {
        paths: &["backends.*"],
        is_meant: |node| node.get("url").map_or(is_hosted(node), |url| is_https(&url.node)),
        message: "backends over https are not reached yet",
        instead: "`serve` refuses to start with this fleet; every other command reads it",
        serve: Serve::Refuses,
    },
    NotYet {
        paths: &["pools.*.scale.webhook"],
        is_meant: is_https,
        message: "webhooks over https are not reached yet",
        instead: "`serve` refuses to start with this fleet; use `exec`, or http inside your own network",
        serve: Serve::Refuses,
    },
    NotYet {
        paths: &["backends.*.http"],
        is_meant: |node| node.text() == Some("2"),
        message: "HTTP/2 is not spoken to backends yet",
        instead: "`serve` refuses to start with this fleet; write `http: 1`",
        serve: Serve::Refuses,
    },
    NotYet {
        paths: &["gateway.tls"],
        is_meant: any,
        message: "clients are not served over TLS yet",
        instead: "`serve` refuses to start with this fleet; end TLS in front of it",
        serve: Serve::Refuses,
    },
    NotYet {
        paths: &["gateway.replicas"],
        is_meant: |node| node.text().is_some_and(|text| text.starts_with("dns:")),
        message: "replicas are not counted by name yet",
        instead: "they count as 1; write their number",
        serve: Serve::Runs,
    },
    NotYet {
        paths: &["keys.*.priority"],
        is_meant: |node| node.text() != Some("normal"),
        message: "priorities are not obeyed yet",
        instead: "all keys wait in one line, and none is turned away before another",
        serve: Serve::Runs,
    },
    NotYet {
        paths: &["models.*.slo.time_per_output_token_p95"],
        is_meant: any,
        message: "an objective for the time per output token is not obeyed yet",
        instead: "it is reported by `simulate` and changes nothing",
        serve: Serve::Runs,
    },
];

fn any(_: &Node) -> bool {
    true
}

fn is_https(node: &Node) -> bool {
    node.text().is_some_and(|url| url.starts_with("https:"))
}

/// A hosted API has an https URL by default.
fn is_hosted(node: &Node) -> bool {
    let is_openai = node.get("engine").and_then(|engine| engine.node.text()) == Some("openai");
    is_openai && node.get("pool").is_none()
}

/// Says what is not obeyed; the messages of what `serve` must refuse.
pub(crate) fn warn(root: &At<'_>) -> Vec<String> {
    let mut refused = Vec::new();
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
        if row.serve == Serve::Refuses {
            refused.push(format!("{}: {}", first.path, row.message));
        }
    }
    refused
}

/// All places of a path with `*` in it.
fn matching<'a>(root: &At<'a>, path: &str) -> Vec<At<'a>> {
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
