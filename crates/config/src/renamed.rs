//! Keys that were renamed: an old name works for one release, with a warning.
//!
//! The tree is changed before anything looks at it, so that no later step needs to know of old names. A row is added
//! in the release that renames a key and deleted in the next one.

use super::{
    collect::{Collector, join_index, join_key},
    fault::Code,
    tree::{Node, Value},
};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Renamed {
    /// Where, with `*` for any name or index, such as `backends.*`; empty for the top.
    pub(crate) under: &'static str,
    pub(crate) old: &'static str,
    pub(crate) new: &'static str,
}

/// Renamed since the last release.
pub(crate) const RENAMED: &[Renamed] = &[];

/// Gives keys their new names.
pub(crate) fn rename(table: &[Renamed], root: &mut Node, faults: &Collector) {
    for row in table {
        let steps: Vec<&str> = row.under.split('.').filter(|step| !step.is_empty()).collect();
        visit(root, &steps, "", &mut |node, path| rename_in(node, path, row, faults));
    }
}

fn visit(node: &mut Node, steps: &[&str], path: &str, act: &mut impl FnMut(&mut Node, &str)) {
    let Some((step, rest)) = steps.split_first() else { return act(node, path) };
    match &mut node.value {
        Value::Map(entries) => {
            for entry in entries.iter_mut().filter(|entry| *step == "*" || entry.key == *step) {
                let path = join_key(path, &entry.key);
                visit(&mut entry.node, rest, &path, act);
            }
        }
        Value::Seq(items) if *step == "*" => {
            for (index, item) in items.iter_mut().enumerate() {
                visit(item, rest, &join_index(path, index), act);
            }
        }
        _ => {}
    }
}

fn rename_in(node: &mut Node, path: &str, row: &Renamed, faults: &Collector) {
    let Value::Map(entries) = &mut node.value else { return };
    let has_new = entries.iter().any(|entry| entry.key == row.new);
    let Some(at) = entries.iter().position(|entry| entry.key == row.old) else { return };
    let (span, path) = (entries[at].key_span.clone(), join_key(path, row.old));
    if has_new {
        let message = format!("this is the old name of `{}`, which is here too", row.new);
        faults.error(Code::DuplicateKey, span, &path, message, format!("remove `{}`", row.old));
        entries.remove(at);
        return;
    }
    let help = format!("write `{}:`; the old name works in this release and not in the next", row.new);
    faults.warning(Code::RenamedKey, span, &path, format!("this key is called `{}` now", row.new), help);
    row.new.clone_into(&mut entries[at].key);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{source::Source, tree};

    const FORMER: &[Renamed] = &[
        Renamed { under: "backends.*", old: "endpoint", new: "url" },
        Renamed { under: "models.*.tiers.*", old: "weights", new: "split" },
        Renamed { under: "", old: "routes", new: "models" },
    ];

    #[track_caller]
    fn check(text: &str, expect: &[&str], becomes: &str) {
        let faults = Collector::new(Source::new("fleet.yaml", text));
        let mut root = tree::parse(text, &faults).unwrap();
        rename(FORMER, &mut root, &faults);
        let found: Vec<String> =
            faults.into_parts().1.iter().map(|f| format!("{}@{}:{} {}", f.code, f.line, f.column, f.path)).collect();
        assert_eq!(found, expect);
        let same = Collector::new(Source::new("fleet.yaml", becomes));
        assert_eq!(keys(&root), keys(&tree::parse(becomes, &same).unwrap()));
    }

    fn keys(node: &Node) -> Vec<String> {
        match &node.value {
            Value::Map(entries) => entries.iter().flat_map(|e| [vec![e.key.clone()], keys(&e.node)].concat()).collect(),
            Value::Seq(items) => items.iter().flat_map(keys).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn an_old_name_is_read_as_the_new_one_with_a_warning() {
        check(
            "backends:\n  b: { endpoint: x }\n",
            &["renamed_key@2:8 backends.b.endpoint"],
            "backends: { b: { url: x } }",
        );
        check("routes: {}\n", &["renamed_key@1:1 routes"], "models: {}");
        check(
            "models: { m: { tiers: [{}, { weights: {} }] } }\n",
            &["renamed_key@1:30 models.m.tiers[1].weights"],
            "models: { m: { tiers: [{}, { split: {} }] } }",
        );
    }

    #[test]
    fn both_names_at_once_are_one_too_many() {
        check(
            "backends:\n  b: { url: x, endpoint: z }\n",
            &["duplicate_key@2:16 backends.b.endpoint"],
            "backends: { b: { url: x } }",
        );
    }

    #[test]
    fn an_old_name_elsewhere_is_left_alone() {
        check("endpoint: x\n", &[], "endpoint: x");
    }
}
