//! `unsafe` stands in named places only, each with its reason, and nothing takes the lint away that keeps it out of all others.
//!
//! The lint is the compiler's, denied for the workspace, so that whatever this gate's eye for the word
//! misses still needs an attribute, whose name it does not miss. `forbid` in its place would allow no place at all.

use crate::tree::Tree;

/// A file that has the word, and how often.
struct Place {
    path: &'static str,
    times: usize,
    /// For whoever reads this list; the file itself says more.
    why: &'static str,
}

const PLACES: &[Place] = &[
    Place {
        path: "crates/outrigger/src/main.rs",
        times: 3,
        why: "calls of the allocator, which has no safe interface for them; none takes a pointer",
    },
    Place {
        path: "crates/manifest/src/hash.rs",
        times: 1,
        why: "a call of a function that needs instructions for SHA-256, behind the question whether the processor has them",
    },
    Place {
        path: "crates/core/tests/allocations/main.rs",
        times: 7,
        why: "a test's global allocator that counts; it hands every call on as it is",
    },
];

/// In halves, so that this file may hold it.
const LINT: &str = concat!("unsafe", "_code");
const WORD: &str = concat!("un", "safe");

pub(crate) fn unsafety(tree: &Tree) -> Vec<String> {
    let mut faults = lint_in_force(tree);
    for (path, text) in tree.texts(".rs") {
        let place = PLACES.iter().find(|place| place.path == path);
        let (lines, lifted) = (uses(&text), text.match_indices(LINT).count());
        match place {
            Some(place) if place.times == lines.len() => {}
            Some(Place { times, why, .. }) => faults.push(format!(
                "{path}: `{WORD}` stands there {} times and not {times} ({why}): see whether each is needed and right, \
                 and change PLACES of dev/xtask/src/gates/unsafety.rs",
                lines.len()
            )),
            None => {
                let remedy = "do without, or name the file and its reason in PLACES of dev/xtask/src/gates/unsafety.rs";
                faults.extend(lines.iter().map(|line| format!("{path}:{line}: `{WORD}`: {remedy}")));
                if lifted > 0 {
                    faults.push(format!("{path}: it lifts `{LINT}`: {remedy}"));
                }
            }
        }
    }
    let stale = PLACES.iter().filter(|place| tree.has("Cargo.lock") && !tree.has(place.path));
    faults.extend(stale.map(|place| format!("{}: it is gone: take it out of PLACES", place.path)));
    faults
}

/// The workspace denies it, and every member takes the workspace's lints and sets none of its own.
fn lint_in_force(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, text) in tree.texts("Cargo.toml") {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        if path == "Cargo.toml" {
            if !lines.contains(&&*format!("{LINT} = \"deny\"")) {
                faults.push(format!("{path}: `{LINT} = \"deny\"` is missing under [workspace.lints.rust]"));
            }
        } else if !lines.windows(2).any(|two| two == ["[lints]", "workspace = true"]) || text.contains(LINT) {
            faults.push(format!("{path}: write `[lints]` and `workspace = true` below it, and nothing else there"));
        }
    }
    faults
}

/// The lines (from 1) where the word is code: not in a comment, and before what it is written for.
fn uses(text: &str) -> Vec<usize> {
    let is_word = |at: usize| {
        let joins = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !joins(text[..at].chars().next_back()) && !joins(text[at + WORD.len()..].chars().next())
    };
    let is_code = |at: usize| {
        let begin = text[..at].rfind('\n').map_or(0, |end| end + 1);
        let after = text[at + WORD.len()..].trim_start();
        let starts = ["{", "(", "fn", "impl", "trait", "extern", "async", "const", "auto", "mod"];
        !text[begin..at].trim_start().starts_with("//") && starts.iter().any(|start| after.starts_with(start))
    };
    let at = text.match_indices(WORD).map(|(at, _)| at).filter(|at| is_word(*at) && is_code(*at));
    at.map(|at| text[..at].matches('\n').count() + 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted::expect_faults;

    const ROOT: (&str, &str) = ("Cargo.toml", concat!("[workspace.lints.rust]\nunsafe", "_code = \"deny\"\n"));
    const MEMBER: (&str, &str) = ("crates/a/Cargo.toml", "[lints]\nworkspace = true\n");

    #[test]
    fn the_word_outside_named_places_is_a_fault() {
        let code =
            concat!("//! Un", "safe (not): un", "safe {\nfn f() { un", "safe { g() } }\nun", "safe\nimpl A for B {}\n");
        let lifted = concat!("#![allow(unsafe", "_code)]\n");
        let files = [ROOT, MEMBER, ("crates/a/src/lib.rs", code), ("crates/a/src/b.rs", lifted)];
        let expect = [
            concat!("crates/a/src/lib.rs:2: `un", "safe`: do without"),
            concat!("crates/a/src/lib.rs:3: `un", "safe`: do without"),
            concat!("crates/a/src/b.rs: it lifts `unsafe", "_code`"),
        ];
        expect_faults(unsafety, &files, &expect);
        let prose = concat!("// un", "safe { }\nlet un", "safely = 1; // it would be un", "safe here\n");
        expect_faults(unsafety, &[ROOT, MEMBER, ("crates/a/src/lib.rs", prose)], &[]);
    }

    #[test]
    fn more_of_it_in_a_named_place_is_a_fault() {
        let (one, name) = (concat!("un", "safe { a() };\n"), PLACES[0].path);
        expect_faults(unsafety, &[ROOT, (name, &one.repeat(PLACES[0].times))], &[]);
        expect_faults(unsafety, &[ROOT, (name, &one.repeat(PLACES[0].times + 1))], &[name]);
        expect_faults(
            unsafety,
            &[ROOT, ("Cargo.lock", "")],
            &PLACES.iter().map(|place| place.path).collect::<Vec<_>>(),
        );
    }

    #[test]
    fn a_manifest_without_the_lint_is_a_fault() {
        let files =
            [("Cargo.toml", ""), ("crates/a/Cargo.toml", concat!("[lints.rust]\nunsafe", "_code = \"allow\"\n"))];
        expect_faults(unsafety, &files, &["Cargo.toml: `", "crates/a/Cargo.toml: write"]);
    }
}
