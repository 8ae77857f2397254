//! Which crate may depend on which, asked of `cargo tree`.
//!
//! Cargo's own view is used, rather than the manifests' text, because a forbidden crate mostly arrives through a
//! harmless one, or through a feature of it.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::tree::{Tree, output};

/// From the bottom up. A crate may use the layers below its own; siblings do not know one another.
const LAYERS: &[&[&str]] = &[
    &["outrigger-core"],
    &["outrigger-wire", "outrigger-net", "outrigger-store", "outrigger-manifest"],
    &["outrigger-gateway", "outrigger-weights", "outrigger-plan", "outrigger-import"],
    &["outrigger-config", "outrigger-survey"],
    &["outrigger"],
];

/// They stand beside the layers and use none of them: a fake, or a judge, that shares code with the product would share
/// its bugs.
const APART: &[&str] = &["outrigger-bench", "outrigger-fakes", "outrigger-lab", "xtask"];

const FAKES: &str = "outrigger-fakes";
const LAB: &str = "outrigger-lab";

/// Its engine model is compared with the fakes', and two models that know one another prove nothing. The crate that
/// compares them stands above both.
const WITHOUT_FAKES: &str = "outrigger-plan";

const PURE: &[&str] = &["outrigger-core", "outrigger-wire", "outrigger-plan", "outrigger-import", "outrigger-manifest"];

/// What brings I/O, a clock or randomness with it.
const IMPURE: &[&str] = &["tokio", "hyper", "axum", "sqlx", "reqwest", "mio", "getrandom"];

pub(crate) fn layers(tree: &Tree) -> Vec<String> {
    or_why_not(arrows_against_the_layers(tree))
}

pub(crate) fn purity(tree: &Tree) -> Vec<String> {
    or_why_not(impure_crates_pulled_in(tree))
}

/// A gate that could not look has not passed.
fn or_why_not(faults: Result<Vec<String>>) -> Vec<String> {
    faults.unwrap_or_else(|error| vec![format!("{error:#}")])
}

fn arrows_against_the_layers(tree: &Tree) -> Result<Vec<String>> {
    let members = members(tree)?;
    let mut faults = Vec::new();
    for name in &members {
        if layer_of(name).is_none() && !APART.contains(&&**name) {
            faults.push(format!("{name}: give it a place in LAYERS or APART of dev/xtask/src/gates/arrows.rs"));
            continue;
        }
        let shipped = crates(tree, name, &["--edges", "normal,build", "--depth", "1"])?;
        let in_tests = crates(tree, name, &["--edges", "dev", "--depth", "1"])?;
        // By name, with whether some use of it ships.
        let mut uses = BTreeMap::new();
        uses.extend(in_tests.iter().map(|used| (used, false)));
        uses.extend(shipped.iter().map(|used| (used, true)));
        let own = uses.into_iter().filter(|(used, _)| members.contains(used) && *used != name);
        faults.extend(own.filter(|(used, ships)| !allowed(name, used, *ships)).map(|(used, ships)| {
            let kind = if ships { "" } else { " in tests" };
            format!("{name} must not depend on {used}{kind}: move what it needs down a layer, or pass it in as a value")
        }));
    }
    Ok(faults)
}

fn impure_crates_pulled_in(tree: &Tree) -> Result<Vec<String>> {
    let members = members(tree)?;
    let mut faults = Vec::new();
    for name in PURE.iter().filter(|name| members.iter().any(|member| member == *name)) {
        let pulled = crates(tree, name, &["--edges", "normal,build", "--all-features"])?;
        faults.extend(IMPURE.iter().filter(|banned| pulled.iter().any(|one| one == *banned)).map(|banned| {
            format!(
                "{name} pulls in {banned}: `cargo tree -p {name} -i {banned}` shows through what; do it in the caller"
            )
        }));
    }
    Ok(faults)
}

fn allowed(name: &str, used: &str, ships: bool) -> bool {
    match (layer_of(name), layer_of(used)) {
        (Some(own), Some(below)) => below < own,
        // The binary ships the lab, and the fakes (demo, fake); the layers below it may test against these.
        (Some(own), None) if used == LAB => own == LAYERS.len() - 1,
        (Some(own), None) => used == FAKES && name != WITHOUT_FAKES && (own == LAYERS.len() - 1 || own >= 2 && !ships),
        (None, _) => (name, used) == (LAB, FAKES),
    }
}

fn layer_of(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

fn members(tree: &Tree) -> Result<Vec<String>> {
    cargo_tree(tree, &["--workspace", "--depth", "0"])
}

/// Everything that `cargo tree` lists for one package, itself first.
fn crates(tree: &Tree, package: &str, args: &[&str]) -> Result<Vec<String>> {
    cargo_tree(tree, &[&["--package", package, "--target", "all"], args].concat())
}

fn cargo_tree(tree: &Tree, args: &[&str]) -> Result<Vec<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let fixed = ["tree", "--locked", "--quiet", "--prefix", "none", "--no-dedupe"];
    let listed = output(&cargo, &[&fixed, args].concat(), &tree.root).context("could not list the dependencies")?;
    let mut names: Vec<String> = listed.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    names.retain(|name| !name.is_empty());
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted::{Planted, planted};

    /// A workspace of empty crates; the text after a name is the rest of its manifest.
    fn workspace(crates: &[(&str, &str)]) -> Planted {
        let mut files =
            vec![("Cargo.toml".to_owned(), "[workspace]\nresolver = \"3\"\nmembers = [\"*\"]\n".to_owned())];
        for (name, rest) in crates {
            let head = format!("[package]\nname = \"{name}\"\nversion = \"1.0.0\"\nedition = \"2024\"\n{rest}");
            files.push((format!("{name}/Cargo.toml"), head));
            files.push((format!("{name}/src/lib.rs"), String::new()));
        }
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (&**path, &**text)).collect();
        let tree = planted(&files);
        output("cargo", &["generate-lockfile", "--offline"], &tree.root).unwrap();
        tree
    }

    #[test]
    fn the_arrows_of_the_architecture_pass() {
        let tree = workspace(&[
            ("outrigger-core", ""),
            ("outrigger-wire", "[dependencies]\noutrigger-core = { path = \"../outrigger-core\" }"),
            (
                "outrigger-gateway",
                "[dependencies]\noutrigger-wire = { path = \"../outrigger-wire\" }\n\
                 [dev-dependencies]\noutrigger-fakes = { path = \"../outrigger-fakes\" }",
            ),
            (
                "outrigger",
                "[dependencies]\noutrigger-gateway = { path = \"../outrigger-gateway\" }\n\
                 outrigger-fakes = { path = \"../outrigger-fakes\" }",
            ),
            ("outrigger-fakes", ""),
        ]);
        assert_eq!(layers(&tree), Vec::<String>::new());
        assert_eq!(purity(&tree), Vec::<String>::new());
    }

    #[test]
    fn an_arrow_upwards_sideways_or_out_of_the_fakes_is_a_fault() {
        let tree = workspace(&[
            ("outrigger-core", "[dev-dependencies]\noutrigger-wire = { path = \"../outrigger-wire\" }"),
            ("outrigger-wire", ""),
            ("outrigger-gateway", "[dependencies]\noutrigger-fakes = { path = \"../outrigger-fakes\" }"),
            ("outrigger-weights", "[dependencies]\noutrigger-gateway = { path = \"../outrigger-gateway\" }"),
            ("outrigger-plan", "[dev-dependencies]\noutrigger-fakes = { path = \"../outrigger-fakes\" }"),
            ("outrigger-fakes", "[dependencies]\noutrigger-core = { path = \"../outrigger-core\" }"),
            ("stray", ""),
        ]);
        let faults = layers(&tree);
        let starts = [
            "outrigger-core must not depend on outrigger-wire in tests:",
            "outrigger-fakes must not depend on outrigger-core:",
            "outrigger-gateway must not depend on outrigger-fakes:",
            "outrigger-plan must not depend on outrigger-fakes in tests:",
            "outrigger-weights must not depend on outrigger-gateway:",
            "stray: give it a place",
        ];
        assert!(
            faults.len() == starts.len() && starts.iter().zip(&faults).all(|(s, f)| f.starts_with(s)),
            "{faults:#?}"
        );
    }

    #[test]
    fn fakes_that_use_the_planner_are_a_fault() {
        let tree = workspace(&[
            ("outrigger-plan", ""),
            ("outrigger-fakes", "[dev-dependencies]\noutrigger-plan = { path = \"../outrigger-plan\" }"),
        ]);
        let faults = layers(&tree);
        assert!(
            faults.len() == 1 && faults[0].starts_with("outrigger-fakes must not depend on outrigger-plan in tests:"),
            "{faults:#?}"
        );
    }

    #[test]
    fn tokio_through_a_harmless_crate_and_behind_a_feature_is_a_fault() {
        let tree = workspace(&[
            ("tokio", ""),
            ("harmless", "[dependencies]\ntokio = { path = \"../tokio\" }"),
            ("outrigger-wire", "[dependencies]\nharmless = { path = \"../harmless\", optional = true }"),
        ]);
        let faults = purity(&tree);
        assert!(faults.len() == 1 && faults[0].starts_with("outrigger-wire pulls in tokio:"), "{faults:#?}");
    }
}
