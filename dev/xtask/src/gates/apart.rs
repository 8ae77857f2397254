//! The simulated engines and the planner's engine model share no file.
//!
//! Two models that agree say more than one model used twice, so neither may be built from the other. `arrows` sees a
//! dependency; this gate sees a file that is drawn in by its path (`include!`, `#[path]`, a target's `path` in a
//! manifest), which cargo knows nothing of. Every string literal counts, whatever it stands in: a path into the other
//! crate has no honest use in either. A symbolic link is not followed, and a path put together from pieces passes.

use std::path::{Component, Path, PathBuf};

use crate::tree::Tree;

const FAKES: &str = "dev/fakes";
const PLAN: &str = "crates/plan";

pub(crate) fn shared_files(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (own, other) in [(FAKES, PLAN), (PLAN, FAKES)] {
        let sources = tree.texts(".rs").chain(tree.texts("Cargo.toml"));
        for (path, text) in sources.filter(|(path, _)| Path::new(path).starts_with(own)) {
            for (index, line) in text.lines().enumerate() {
                let into_other = |literal: &&str| leads_into(other, own, path, literal);
                faults.extend(line.split('"').skip(1).step_by(2).filter(into_other).map(|literal| {
                    format!(
                        "{path}:{}: {literal} is a file of {other}: write the model anew, or pass numbers",
                        index + 1
                    )
                }));
            }
        }
    }
    faults
}

/// A path is meant from the file, from the crate (after `CARGO_MANIFEST_DIR`), or from a module's own directory.
fn leads_into(other: &str, own: &str, file: &str, literal: &str) -> bool {
    let dir = Path::new(file).parent().unwrap_or(Path::new(""));
    let module = Path::new(file).with_extension("");
    [dir, Path::new(own), &module].iter().any(|base| resolved(base, literal).starts_with(other))
}

/// Without asking the disk: the file need not exist for the intent to be wrong.
fn resolved(base: &Path, literal: &str) -> PathBuf {
    let mut path = base.to_path_buf();
    for part in Path::new(literal.trim_start_matches('/')).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted::expect_faults;

    #[test]
    fn a_file_of_the_planner_in_the_fakes_or_the_other_way_round_is_a_fault() {
        let files = [
            ("dev/fakes/src/a.rs", "//! A.\ninclude!(\"../../../crates/plan/src/engine.rs\");"),
            ("dev/fakes/src/b/c.rs", "#[path = \"../../../../crates/plan/src/engine.rs\"]\nmod engine;"),
            (
                "dev/fakes/src/d.rs",
                "include!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/../../crates/plan/src/engine.rs\"));",
            ),
            ("dev/fakes/Cargo.toml", "[dependencies]\nmodel = { path = \"../../crates/plan\" }"),
            ("crates/plan/src/lib.rs", "#[path = \"../../../dev/fakes/src/engine.rs\"]\nmod engine;"),
        ];
        let expect = [
            "dev/fakes/src/a.rs:2: ../../../crates/plan/src/engine.rs is a file of crates/plan",
            "dev/fakes/src/b/c.rs:1: ",
            "dev/fakes/src/d.rs:1: /../../crates/plan/src/engine.rs is",
            "dev/fakes/Cargo.toml:2: ../../crates/plan is",
            "crates/plan/src/lib.rs:1: ../../../dev/fakes/src/engine.rs is a file of dev/fakes",
        ];
        expect_faults(shared_files, &files, &expect);
    }

    #[test]
    fn own_files_other_crates_and_names_in_prose_pass() {
        let files = [
            ("dev/fakes/tests/main/a.rs", "include_str!(\"../../data/rows.csv\"); // not \"crates/plan\""),
            ("crates/plan/src/lib.rs", "include_str!(\"../data/trace.csv\"); \"dev/fakes\""),
            ("crates/outrigger/tests/a.rs", "include!(\"../../plan/src/engine.rs\");"),
            ("crates/plan/Cargo.toml", "[dependencies]\nplanning = { path = \"../plane\" }"),
        ];
        expect_faults(shared_files, &files, &[]);
    }
}
