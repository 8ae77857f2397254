//! `outrigger plan --fleet`: a fleet file and its requests in place of a scenario.

use std::path::{Path, PathBuf};

use super::{DAY, Ran, option, outrigger};

const TRACE: &str = "examples/traces/azure-conv-2023.csv";

fn folder() -> PathBuf {
    let test = std::thread::current().name().unwrap_or_default().replace("::", "-");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plan").join(test);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn of_fleet(fleet: &str, more: &[&str]) -> Ran {
    outrigger(&[&["plan", "--fleet", fleet, "--trace", TRACE], &DAY[..], more].concat())
}

/// The example with a part of it replaced.
fn changed(name: &str, from: &str, to: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join("examples").join(name)).unwrap();
    assert!(text.contains(from), "{from}");
    let path = folder().join("fleet.yaml");
    std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn what_the_fleet_pays_is_todays_bill_and_the_saved_scenario_says_the_same() {
    let saved = folder().join("scenario.yaml");
    let saved = saved.to_str().unwrap();
    let ran = of_fleet("examples/burst.yaml", &["--json", "--save-scenario", saved]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let plan = ran.json();
    let today = option(&plan, "today");
    // 8 × 3.99 × 730 at Lambda, and 16 × 2.39 × 730 reserved at CoreWeave.
    assert_eq!(
        (&today["lines"]["on_demand"], &today["lines"]["committed"]),
        (&23_301.60.into(), &27_915.20.into()),
        "{today:#}"
    );
    assert!(ran.err.contains("la-burst: of 0 to 8 GPUs, 8 are taken"), "{}", ran.err);
    assert!(ran.err.contains("stands in for"), "{}", ran.err);
    option(&plan, "single-aws");
    let again = outrigger(&[&["plan", "--scenario", saved, "--json"], &DAY[..]].concat());
    assert_eq!(again.json(), plan);
}

#[test]
fn the_demand_is_the_traces() {
    // 19,366 requests in 58 minutes, answers of 211 tokens on average, 250 bytes each.
    let saved = folder().join("scenario.yaml");
    let ran = of_fleet("examples/burst.yaml", &["--save-scenario", saved.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let text = std::fs::read_to_string(saved).unwrap();
    let line = text.lines().find(|line| line.contains("name: answers")).unwrap();
    let gb: f64 = line.rsplit(": ").next().unwrap().trim_end_matches(" }").parse().unwrap();
    let expected = 19_366.0 / 3_500.0 * 211.0 * 250.0 / 1e9 * 730.0 * 3_600.0;
    assert!((gb / expected - 1.0).abs() < 0.03, "{gb} and not {expected}");
}

#[test]
fn what_a_plan_needs_and_the_file_does_not_say_is_asked_for() {
    let cases = [
        ("  cloud: aws\n", "", "write gateway.cloud"),
        ("      time_per_output_token_p95: 50ms\n", "", "write models.llama-70b.slo"),
        ("  oa-mini:\n    cloud: openai", "  oa-mini:\n    cloud: openai", ""),
        (
            "models:\n",
            "models:\n  other:\n    tiers:\n      - split: { cw-llama: 1 }\n",
            "give --model one of: other, llama-70b",
        ),
    ];
    for (from, to, says) in cases {
        let ran = of_fleet(&changed("burst.yaml", from, to), &[]);
        assert_eq!(ran.code, Some(if says.is_empty() { 0 } else { 2 }), "{says}: {}", ran.err);
        assert!(ran.err.contains(says), "{says}: {}", ran.err);
    }
    let ran = of_fleet("examples/burst.yaml", &["--model", "nobody"]);
    assert!(ran.code == Some(2) && ran.err.contains("one of: llama-70b"), "{}", ran.err);
    let ran = outrigger(&["plan", "--fleet", "examples/burst.yaml", "--trace", "examples/burst.yaml"]);
    assert!(ran.code == Some(2) && ran.err.contains("outrigger simulate"), "{}", ran.err);
}
