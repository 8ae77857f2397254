//! What stands in the files themselves: words, heads, sizes, and the bans of the pure crates.

use std::{collections::BTreeMap, path::Path};

use crate::tree::Tree;

/// Longer, and a crate holds two ideas.
const MAX_CRATE_LINES: usize = 10_000;

/// The word, whether it must stand alone, and what to do. Written in halves, so that this file may hold them.
const WORDS: &[(&str, bool, &str)] = &[
    (concat!("TO", "DO"), true, UNFINISHED),
    (concat!("FIX", "ME"), true, UNFINISHED),
    (concat!("XX", "X"), true, UNFINISHED),
    (concat!("todo", "!("), false, UNFINISHED),
    (concat!("unimple", "mented!"), false, UNFINISHED),
    (concat!("crates", ".io"), false, REGISTRY),
    (concat!("pypi", ".org"), false, REGISTRY),
    (concat!("registry.npmjs", ".org"), false, REGISTRY),
    (concat!("deb.debian", ".org"), false, REGISTRY),
];
const UNFINISHED: &str = "finish it, or say in a sentence what is missing and why";
const REGISTRY: &str = "name the package and its registry in words; hosts belong to each machine's configuration";

/// Directories that exist on somebody's machine only, in halves as well.
const PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/")];

pub(crate) fn words(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for path in tree.files.iter().filter(|path| !is_lock_file(path)) {
        let Some(text) = tree.text(path) else { continue };
        for (index, line) in text.lines().enumerate() {
            let mut fault = |what: &str, remedy: &str| faults.push(format!("{path}:{}: {what}: {remedy}", index + 1));
            for (word, alone, remedy) in WORDS {
                if occurrences(line, word).any(|(before, after)| !alone || !(in_word(before) || in_word(after))) {
                    fault(word, remedy);
                }
            }
            for dir in PATHS {
                if occurrences(line, dir).any(|(before, _)| starts_path(before)) {
                    fault(dir, "use a path relative to the repository, or take it from an argument");
                }
            }
        }
    }
    faults
}

pub(crate) fn heads(tree: &Tree) -> Vec<String> {
    let headless = |(_, text): &(&str, String)| !text.lines().take(3).any(|line| line.starts_with("//!"));
    let say =
        |(path, _)| format!("{path}:1: start it with `//!`: what it is for, why this way, what happens at the edges");
    tree.texts(".rs").filter(headless).map(say).collect()
}

pub(crate) fn size(tree: &Tree) -> Vec<String> {
    let mut lines: BTreeMap<&str, usize> = BTreeMap::new();
    for (path, text) in tree.texts(".rs") {
        if let Some((krate, _)) = path.split_once("/src/").filter(|(krate, _)| tree.has(&format!("{krate}/Cargo.toml")))
        {
            *lines.entry(krate).or_default() += text.lines().count();
        }
    }
    let too_long = lines.into_iter().filter(|&(_, count)| count > MAX_CRATE_LINES);
    let say = |(krate, count)| {
        format!("{krate}: {count} lines in src, over {MAX_CRATE_LINES}: split off the part that has one idea")
    };
    too_long.map(say).collect()
}

/// clippy reads only the clippy.toml nearest to a crate, so each pure crate carries its own copy.
pub(crate) fn bans(tree: &Tree) -> Vec<String> {
    let first = "crates/core/clippy.toml";
    let Some(bans) = tree.text(first) else { return vec![format!("{first} is missing: restore it")] };
    let pure = ["crates/wire", "crates/plan", "crates/import", "crates/manifest"]
        .into_iter()
        .filter(|krate| tree.has(&format!("{krate}/Cargo.toml")));
    let differs =
        pure.map(|krate| format!("{krate}/clippy.toml")).filter(|path| tree.text(path).as_ref() != Some(&bans));
    differs.map(|path| format!("{path} differs from {first}: change both alike (cp {first} {path})")).collect()
}

fn is_lock_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    Path::new(name).extension().is_some_and(|kind| kind == "lock")
        || name.contains("-lock.")
        || name.ends_with(".lock.hcl")
}

/// The characters on both sides of each occurrence.
fn occurrences<'a>(line: &'a str, what: &'a str) -> impl Iterator<Item = (Option<char>, Option<char>)> {
    let sides = |(at, found): (usize, &str)| (line[..at].chars().next_back(), line[at + found.len()..].chars().next());
    line.match_indices(what).map(sides)
}

fn in_word(side: Option<char>) -> bool {
    side.is_some_and(|c| c.is_alphanumeric() || c == '_')
}

/// Whether a slash after this character begins an absolute path, rather than going on with a longer one.
fn starts_path(before: Option<char>) -> bool {
    !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '~' | '}' | ')' | '*'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted::expect_faults;

    #[test]
    fn unfinished_words_machine_paths_and_registry_hosts_are_faults() {
        let planted = [
            concat!("// TO", "DO: later"),
            concat!("todo", "!()"),
            concat!("cd \"/wo", "rk/x\""),
            concat!("see crates", ".io"),
        ];
        let text = planted.join("\n");
        let expect = [
            concat!("a.rs:1: TO", "DO: finish it"),
            concat!("a.rs:2: todo", "!(: finish it"),
            concat!("a.rs:3: /wo", "rk/: use a path relative"),
            concat!("a.rs:4: crates", ".io: name the package"),
        ];
        expect_faults(words, &[("a.rs", &text)], &expect);
    }

    #[test]
    fn words_within_words_longer_paths_and_lock_files_pass() {
        let text = concat!("mktemp a.XX", "XXXX; TO", "DOS; src/wo", "rk/mod.rs; https://example.com/ro", "ot/");
        let lock = concat!("index.crates", ".io");
        expect_faults(words, &[("a.sh", text), ("Cargo.lock", lock), ("d/package-lock.json", lock)], &[]);
    }

    #[test]
    fn a_file_without_a_head_is_a_fault() {
        let files = [("crates/a/src/lib.rs", "use b;\n\nmod c;\n//! late"), ("fuzz/f.rs", "#![no_main]\n//! Fine.\n")];
        expect_faults(heads, &files, &["crates/a/src/lib.rs:1: start it with"]);
    }

    #[test]
    fn a_crate_over_ten_thousand_lines_is_a_fault() {
        let (half, rest) = ("x\n".repeat(6_000), "x\n".repeat(4_001));
        let long = [("crates/a/Cargo.toml", ""), ("crates/a/src/lib.rs", &*half), ("crates/a/src/b/c.rs", &*rest)];
        expect_faults(size, &long, &["crates/a: 10001 lines in src"]);
        let apart = [("crates/a/Cargo.toml", ""), ("crates/a/src/lib.rs", &*half), ("crates/a/tests/b.rs", &*rest)];
        expect_faults(size, &apart, &[]);
    }

    #[test]
    fn bans_that_differ_or_are_missing_are_faults() {
        let files = [
            ("crates/core/clippy.toml", "bans"),
            ("crates/wire/Cargo.toml", ""),
            ("crates/wire/clippy.toml", "fewer"),
            ("crates/plan/Cargo.toml", ""),
        ];
        let expect = ["crates/wire/clippy.toml differs", "crates/plan/clippy.toml differs"];
        expect_faults(bans, &files, &expect);
    }
}
