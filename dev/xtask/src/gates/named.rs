//! Things that must be mentioned elsewhere, or a reader never finds them: examples, heavy suites, the schema's test.

use std::{collections::BTreeSet, fs::Metadata, os::unix::fs::PermissionsExt, path::Path};

use crate::tree::Tree;

const EVIDENCE: [&str; 2] = ["docs/benchmarks.md", "docs/reliability.md"];

/// The comparison itself needs the binary, so it is one of its tests; this gate sees to it that the test is there.
pub(crate) fn schema(tree: &Tree) -> Vec<String> {
    let name = "fleet.schema.json";
    let published: Vec<_> = tree.files.iter().filter(|path| path.rsplit('/').next() == Some(name)).collect();
    let tested = tree.texts(".rs").any(|(path, text)| path.starts_with("crates/outrigger/") && text.contains(name));
    let say = |path| format!("{path}: no test in crates/outrigger compares it with `outrigger schema`: add one");
    published.into_iter().filter(|_| !tested).map(say).collect()
}

pub(crate) fn examples(tree: &Tree) -> Vec<String> {
    let readers = |(path, _): &(&str, String)| *path == "README.md" || path.starts_with("docs/");
    let pages: Vec<String> = tree.texts(".md").filter(readers).map(|(_, text)| text).collect();
    let unnamed = tree.files.iter().filter(|path| {
        let example = path
            .strip_prefix("examples/")
            .is_some_and(|name| !name.contains('/') && Path::new(name).extension().is_some_and(|kind| kind == "yaml"));
        example && !pages.iter().any(|text| text.contains(&***path))
    });
    unnamed.map(|path| format!("{path}: name it in README.md or below docs/, with what it shows")).collect()
}

pub(crate) fn heavy(tree: &Tree) -> Vec<String> {
    let suites: BTreeSet<&str> = tree
        .files
        .iter()
        .filter_map(|path| path.strip_prefix("tests/heavy/"))
        .filter(|name| !name.contains('/'))
        .collect();
    let mut cited = BTreeSet::new();
    let mut faults = Vec::new();
    for (page, text) in tree.texts(".md") {
        for name in commands(&text) {
            if !suites.contains(&*name) {
                faults.push(format!("{page}: `./test heavy {name}`: there is no tests/heavy/{name}"));
            }
            if EVIDENCE.contains(&page) {
                cited.insert(name);
            }
        }
    }
    for name in suites {
        let path = format!("tests/heavy/{name}");
        let head: Vec<String> = tree.text(&path).unwrap_or_default().lines().take(10).map(str::to_owned).collect();
        for key in ["# duration: ", "# what: "] {
            if !head.iter().any(|line| line.starts_with(key)) {
                faults.push(format!("{path}: its head needs a line `{key}…`, which ./test list shows"));
            }
        }
        let executable = |meta: Metadata| meta.permissions().mode() & 0o100 != 0;
        if !tree.root.join(&path).metadata().is_ok_and(executable) {
            faults.push(format!("{path}: make it executable (chmod +x)"));
        }
        if !cited.contains(name) {
            faults
                .push(format!("{path}: cite `./test heavy {name}` in {}, with what it showed", EVIDENCE.join(" or ")));
        }
    }
    faults
}

/// The names after `./test heavy` in a page; a name in capitals stands for any.
fn commands(text: &str) -> BTreeSet<String> {
    let name = |rest: &str| -> String {
        rest.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect()
    };
    let names = text.split("./test heavy ").skip(1).map(name);
    names.filter(|name| name.bytes().any(|byte| byte.is_ascii_lowercase())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted::{expect_faults, planted};

    #[test]
    fn a_schema_that_no_test_compares_is_a_fault() {
        let (file, code) = (("fleet.schema.json", "{}"), "crates/outrigger/tests/it.rs");
        expect_faults(schema, &[file, (code, "")], &["fleet.schema.json: no test"]);
        expect_faults(schema, &[file, (code, "include_str!(\"fleet.schema.json\")")], &[]);
    }

    #[test]
    fn an_example_that_no_page_names_is_a_fault() {
        let files = [
            ("README.md", "see examples/one.yaml"),
            ("CHANGELOG.md", "examples/two.yaml is new"),
            ("examples/one.yaml", ""),
            ("examples/two.yaml", ""),
            ("examples/traces/three.yaml", ""),
        ];
        expect_faults(examples, &files, &["examples/two.yaml: name it"]);
    }

    #[test]
    fn heavy_suites_and_pages_that_disagree_are_faults() {
        let files = [
            ("docs/benchmarks.md", "`./test heavy NAME`, such as `./test heavy gone`; run `./test heavy odd` too"),
            ("tests/heavy/odd", "#!/bin/sh\n"),
            ("tests/heavy/quiet", "#!/bin/sh\n# duration: about 2 minutes\n# what: nothing\n"),
        ];
        let expect = [
            "docs/benchmarks.md: `./test heavy gone`: there is no",
            "tests/heavy/odd: its head needs a line `# duration: …`",
            "tests/heavy/odd: its head needs a line `# what: …`",
            "tests/heavy/odd: make it executable",
            "tests/heavy/quiet: make it executable",
            "tests/heavy/quiet: cite `./test heavy quiet`",
        ];
        expect_faults(heavy, &files, &expect);
    }

    #[test]
    fn a_heavy_suite_that_is_cited_and_described_passes() {
        let suite = "tests/heavy/soak";
        let tree =
            planted(&[(suite, "#!/bin/sh\n# duration: 1 h\n# what: soaks\n"), (EVIDENCE[1], "`./test heavy soak`")]);
        let path = tree.root.join(suite);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(heavy(&tree), Vec::<String>::new());
    }
}
