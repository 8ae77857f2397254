//! The fleets in `examples/`, and the schema that editors read them with.

use std::{fs, path::PathBuf};

use outrigger::config::{json_schema_text, load, scenario_schema_text};

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[test]
fn every_example_passes_check() {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# yaml-language-server: $schema=../fleet.schema.json\n"), "{}", path.display());
        load(&path).unwrap_or_else(|error| panic!("{}\n{error}", path.display()));
        names.push(path.file_stem().unwrap().to_string_lossy().into_owned());
    }
    names.sort();
    assert_eq!(names, ["active-active", "burst", "hosted-fallback", "neocloud", "single-cloud", "topology"]);
}

#[test]
fn the_committed_schema_is_current() {
    let committed = fs::read_to_string(root().join("fleet.schema.json")).unwrap_or_default();
    let current = json_schema_text();
    assert!(committed == current, "run: cargo run -p outrigger -- schema > fleet.schema.json");
    let committed = fs::read_to_string(root().join("scenario.schema.json")).unwrap_or_default();
    let current = scenario_schema_text();
    assert!(committed == current, "run: cargo run -p outrigger -- schema --scenario > scenario.schema.json");
    let sample = fs::read_to_string(root().join("examples/scenarios/chat.yaml")).unwrap();
    assert!(sample.starts_with("# yaml-language-server: $schema=../../scenario.schema.json\n"), "{sample}");
}
