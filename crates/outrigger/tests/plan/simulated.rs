//! `--simulate`: the closed form beside the simulator, on made-up scenarios whose queues the formula describes: Poisson
//! arrivals, exponential answers, one pool. What it describes less well is in docs/economics.md with the figures.

use super::{SCENARIO, plan};

/// Slots of a replica, requests per second in two halves of a day, seconds to the first token that are promised, and the
/// variation of answers.
const CASES: [(u32, f64, f64, u32, f64); 20] = [
    (1, 0.9, 0.5, 4, 1.0),
    (1, 1.7, 1.1, 5, 1.0),
    (1, 2.6, 2.0, 4, 0.5),
    (1, 3.4, 3.1, 5, 1.0),
    (1, 0.4, 0.3, 5, 1.0),
    (1, 5.1, 4.0, 5, 0.3),
    (1, 1.2, 1.2, 4, 0.8),
    (2, 1.1, 0.8, 4, 1.0),
    (2, 2.3, 1.9, 5, 0.3),
    (2, 3.1, 3.1, 4, 1.2),
    (2, 4.2, 3.3, 5, 0.5),
    (2, 0.9, 0.8, 4, 1.5),
    (2, 1.6, 1.5, 5, 1.0),
    (2, 5.7, 5.5, 5, 0.8),
    (2, 1.7, 1.4, 5, 0.5),
    (4, 1.3, 1.0, 5, 1.0),
    (4, 2.7, 2.2, 5, 0.3),
    (4, 3.9, 3.2, 5, 1.2),
    (8, 3.4, 3.3, 5, 1.0),
    (8, 3.3, 3.2, 5, 0.5),
];

#[test]
fn cost_is_the_plans_and_the_wait_within_a_tenth() {
    let mut worst: f64 = 0.0;
    for (slots, high, low, promised, cv) in CASES {
        let points = format!("points: [{{ concurrency: {slots}, ttft_ms: 20, tpot_ms: 10 }}] }}");
        let start = SCENARIO.find("points: [").unwrap();
        let end = start + SCENARIO[start..].find('\n').unwrap();
        let scenario = format!("{}{points}{}", &SCENARIO[..start], &SCENARIO[end..])
            .replace("output_tokens: 200", &format!("output_tokens: {{ mean: 200, cv: {cv} }}"))
            .replace("gpus: 4,", "gpus: 1,")
            .replace("requests_per_second: 20", &format!("requests_per_second: {low}"))
            .replace("requests_per_second: 60", &format!("requests_per_second: {high}"))
            .replace("ttft_p95: 800ms", &format!("ttft_p95: {promised}s"))
            .replace("aws: { region: us-east-1 }", "aws: { usd_per_gpu_hour: 6.88, instance_gpus: 1 }");
        let ran = plan(&scenario, &["--simulate", "--option", "single-aws", "--json"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let found = ran.json();
        let (cost, wait) = (&found["gpu_usd_per_month"], &found["wait_p95_ms"]);
        let off = |of: &serde_json::Value| of["simulated"].as_f64().unwrap() / of["plan"].as_f64().unwrap() - 1.0;
        println!(
            "{slots} slots, {high}/s and {low}/s, variation {cv}: cost {:+.2} %, wait {wait} {:+.1} %",
            off(cost) * 1e2,
            off(wait) * 1e2
        );
        assert!(off(cost).abs() <= 0.01, "{found:#}");
        let (planned, simulated) = (wait["plan"].as_f64().unwrap(), wait["simulated"].as_f64().unwrap());
        assert!(off(wait).abs() <= 0.1, "{slots} {high} {low}: {planned} {simulated} {found:#}");
        worst = worst.max(off(wait).abs());
    }
    println!("worst: {:.1} %", worst * 100.0);
}

#[test]
fn what_has_no_machines_is_not_simulated() {
    for id in ["today", "pattern9"] {
        let ran = plan(SCENARIO, &["--simulate", "--option", id]);
        assert_eq!(ran.code, Some(2), "{id}: {}", ran.out);
        assert!(ran.err.contains("help:"), "{}", ran.err);
    }
}

#[test]
fn a_base_with_bursts_is_played_on_the_whole_demand() {
    let few = SCENARIO.replace("for: 12h", "for: 1h");
    let ran = plan(&few, &["--simulate", "--option", "pattern1+3-lambda", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let found = ran.json();
    assert!(found["requests"].as_u64().unwrap() > 250_000, "{found:#}");
    let cost = &found["gpu_usd_per_month"];
    assert!(
        cost["simulated"].as_f64().unwrap() >= cost["plan"].as_f64().unwrap() * 0.99,
        "hours cost no less: {found:#}"
    );
    assert!(found["notes"].to_string().contains("by the hour"), "{found:#}");
}
