//! Scenarios that are wrong say where, why and what to do, all at once, and exit with 2.

use super::{SCENARIO, plan};

#[track_caller]
fn wrong(from: &str, to: &str, path: &str, says: &str) {
    assert!(SCENARIO.contains(from), "{from}");
    let ran = plan(&SCENARIO.replacen(from, to, 1), &[]);
    assert_eq!(ran.code, Some(2), "{to}: {}{}", ran.out, ran.err);
    assert!(ran.err.contains(says), "{to}: {says} in {}", ran.err);
    let place = format!("at: {path}");
    assert!(ran.err.lines().any(|line| line.contains(&place)), "{to}: {place} in {}", ran.err);
    assert!(ran.err.contains("help: ") && ran.out.is_empty(), "{to}: {}", ran.err);
}

#[test]
fn each_wrong_value_is_named_with_its_path() {
    wrong("gpu: h100, gpus: 4", "gpu: h9000, gpus: 4", "model.profiles[0].gpu", "unknown_gpu");
    wrong("aws: { region: us-east-1 }", "aws: { gpu: h10 }", "clouds.aws.gpu", "unknown_gpu");
    wrong("aws: { region: us-east-1 }", "aws: { gpu: b200 }", "clouds.aws.gpu", "no profile");
    wrong("aws: { region: us-east-1 }", "aws: { region: mars }", "clouds.aws", "price_unknown");
    wrong("usd_per_gpu_hour: 3.99", "usd_per_gpu_hour: -3.99", "clouds.lambda.usd_per_gpu_hour", "bad_price");
    wrong("usd_per_gpu_hour: 3.99", "usd_per_gpu_hour: 0", "clouds.lambda.usd_per_gpu_hour", "bad_price");
    wrong("usd_per_gpu_hour: 3.99", "usd_per_gpu_hour: .nan", "clouds.lambda.usd_per_gpu_hour", "number");
    wrong("usd_per_gpu_hour: 3.99", "usd_per_gpu_hour: 1e999", "clouds.lambda.usd_per_gpu_hour", "number");
    wrong("usd: 50000", "usd: -1", "migration.usd", "bad_price");
    wrong("pattern1: 9000", "pattern1: .inf", "people.pattern1", "number");
    wrong("requests_per_second: 20", "requests_per_second: -1", "demand.curve[0].requests_per_second", "not a rate");
    wrong("prompt_tokens: 1000", "prompt_tokens: 0", "demand.prompt_tokens", "not a length");
    wrong("output_tokens: 200", "output_tokens: { mean: 1, quantiles: [] }", "demand.output_tokens", "quantiles");
    wrong(
        "reserved_usd_per_gpu_hour: 2.50",
        "reserved_usd_per_gpu_hour: 25",
        "clouds.lambda.reserved_usd_per_gpu_hour",
        "contradiction",
    );
    wrong(
        "pools: [{ cloud: aws, gpus: 24 }]",
        "pools: [{ cloud: asw, gpus: 24 }]",
        "today.pools[0].cloud",
        "did you mean `aws`",
    );
    wrong("pools: [{ cloud: aws, gpus: 24 }]", "other: []", "today", "nothing is run");
    wrong("ttft_p95: 800ms", "ttft_p95: 800", "slo.ttft_p95", "no unit");
    wrong("migration:", "migraton:", "migraton", "did you mean `migration`");
    wrong("version: 1", "version: 7", "version", "unsupported_version");
}

#[test]
fn an_empty_demand_is_no_demand() {
    let start = SCENARIO.find("  curve:").unwrap();
    let end = SCENARIO.find("  prompt_tokens").unwrap();
    let curve = &SCENARIO[start..end];
    wrong(curve, "", "demand", "empty_demand");
    wrong(curve, "  requests_per_second: 0\n", "demand.requests_per_second", "empty_demand");
    wrong(curve, "  curve: []\n", "demand.curve", "empty");
    wrong(curve, "  trace: { file: /nowhere.csv }\n", "demand.trace.file", "cannot read");
    wrong(curve, "  rates: { file: README.md }\n", "demand.rates.file", "bad_outside_file");
    let both = format!("  requests_per_second: 2\n{curve}");
    wrong(curve, &both, "demand.curve", "both say");
}

#[test]
fn constraints_that_cannot_all_hold_are_named() {
    let with = |line: &str| format!("migration: {{ usd: 50000 }}\nconstraints: {line}");
    let says = |line: &str, path: &str, says: &str| wrong("migration: { usd: 50000 }", &with(line), path, says);
    says("{ only_clouds: [lambda], data_gravity_tb: 2000 }", "constraints.only_clouds", "keep the GPUs at aws");
    says("{ only_clouds: [aws], survive_percent: 50 }", "constraints.survive_percent", "its own loss");
    says("{ platform_team: false, survive_percent: 50 }", "constraints.survive_percent", "two of them");
    says("{ only_clouds: [mars] }", "constraints.only_clouds[0]", "unknown_cloud");
    says("{ data_gravity_tb: -1 }", "constraints.data_gravity_tb", "out of range");
    let late = "commitments: [{ cloud: aws, gpus: 8, usd_per_gpu_hour: 4, until: 2026-01-31 }]";
    wrong("migration:", &format!("{late}\nmigration:"), "commitments[0].until", "ended before");
    let part = late.replace("gpus: 8", "gpus: 3").replace("2026-01", "2027-01");
    wrong("migration:", &format!("{part}\nmigration:"), "commitments[0].gpus", "whole machines");
}

#[test]
fn every_fault_of_a_file_is_shown_at_once() {
    let many =
        SCENARIO.replace("3.99", "-1").replace("prompt_tokens: 1000", "prompt_tokens: -5").replace("24 }", "0 }");
    let ran = plan(&many, &[]);
    assert_eq!((ran.code, ran.err.matches("error[").count()), (Some(2), 3), "{}", ran.err);
}

/// The largest of everything that is taken: a number too large for its type would end the process.
#[test]
fn the_largest_numbers_give_an_answer_or_a_fault() {
    let large = SCENARIO
        .replace(
            "usd_per_gpu_hour: 3.99, instance_gpus: 8",
            "usd_per_gpu_hour: 100000, instance_gpus: 1024, min_gpus: 1000000",
        )
        .replace("reserved_usd_per_gpu_hour: 2.50", "reserved_usd_per_gpu_hour: 99999, term_months: 120")
        .replace("aws, gpus: 24", "aws, gpus: 1000000, usd_per_gpu_hour: 100000")
        .replace("today: 5000", "today: 1000000000")
        .replace("output_tokens: 200", "output_tokens: { mean: 10000000, cv: 100 }");
    let more = "egress:\n  - { name: a, from: home, to: gpus, gb_per_month: 1000000000 }\n\
                weights: { gb: 100000, pulls_per_month: 100000000 }\n";
    for scenario in [large.clone(), format!("{large}{more}"), large.replace("mean: 10000000", "mean: 100")] {
        for flags in [&["--json"][..], &["--optimize"], &["--explain", "all"]] {
            let ran = plan(&scenario, flags);
            assert!(matches!(ran.code, Some(0..=2)) && !ran.err.contains("panicked"), "{flags:?}: {}", ran.err);
        }
    }
}

#[test]
fn what_is_no_scenario_is_refused() {
    for (text, says) in
        [("", "empty_file"), ("- 1\n", "an object belongs here"), ("a: [\n", "malformed"), ("\u{0}", "error")]
    {
        let ran = plan(text, &[]);
        assert_eq!(ran.code, Some(2), "{text:?}: {}", ran.err);
        assert!(ran.err.contains(says), "{text:?}: {}", ran.err);
    }
    let ran = super::outrigger(&["plan", "--scenario", "/nowhere.yaml"]);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    let ran = plan(SCENARIO, &["--explain", "pattern9"]);
    assert_eq!(ran.code, Some(2), "{}", ran.out);
    assert!(ran.err.contains("pattern1-lambda"), "{}", ran.err);
}

#[test]
fn a_service_too_large_to_be_meant_has_no_price_and_does_not_hang() {
    let huge = SCENARIO.replace("requests_per_second: 60", "requests_per_second: 99999");
    let ran = plan(&huge, &["--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let option = super::option(&ran.json(), "pattern1-lambda").clone();
    assert!(option["reason"].as_str().unwrap().contains("is a unit wrong"), "{option}");
    let slow = SCENARIO.replace("time_per_output_token_p95: 50ms", "time_per_output_token_p95: 5ms");
    let option = super::option(&plan(&slow, &["--json"]).json(), "single-aws").clone();
    assert!(option["reason"].as_str().unwrap().starts_with("slo:") && option["usd_per_month"].is_null(), "{option}");
}
