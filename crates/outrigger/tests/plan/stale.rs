//! How old prices are, and which of them decide.

use serde_json::Value;

use super::{SCENARIO, outrigger, plan, planned};

/// On AWS at a typed price, with CoreWeave's of the book (2026-05-24) beside it, and nothing else that costs.
fn beside_coreweave(usd_per_gpu_hour: f64) -> String {
    let (before, _) = SCENARIO.split_once("clouds:").unwrap();
    format!(
        "{before}clouds:\n  aws: {{ usd_per_gpu_hour: {usd_per_gpu_hour}, instance_gpus: 8 }}\n  coreweave: {{}}\n\
         today:\n  pools: [{{ cloud: aws, gpus: 24 }}]\npeople: {{ today: 5000, pattern1: 9000 }}\n"
    )
}

fn stale_on(day: &str) -> Value {
    let args = ["plan", "--scenario", "examples/scenarios/chat.yaml", "--json", "--as-of", day];
    let ran = outrigger(&args);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    ran.json()["prices"].clone()
}

#[test]
fn a_price_is_old_after_thirty_days() {
    let (before, after) = (stale_on("2026-06-23"), stale_on("2026-06-24"));
    let older = |stale: &Value| stale["older_than_30_days"].as_u64().unwrap_or_else(|| panic!("{stale:#}"));
    assert!(older(&after) > older(&before), "{before:#} {after:#}");
}

#[test]
fn a_row_is_named_where_a_fifth_of_it_turns_the_answer() {
    for (today, is_decisive) in [(6.5, true), (20.0, false)] {
        let plan_of = planned(&beside_coreweave(today));
        let named = plan_of["prices"]["decisive"].to_string();
        assert_eq!(named.contains("coreweave"), is_decisive, "{today}: {named} {}", plan_of["verdict"]);
        let said = plan(&beside_coreweave(today), &[]).out;
        assert_eq!(said.contains("would change the answer: coreweave"), is_decisive, "{said}");
    }
}

#[test]
fn the_nearest_turn_comes_first() {
    let plan = planned(&beside_coreweave(6.5));
    let turns: Vec<f64> =
        plan["verdict"]["flips"].as_array().unwrap().iter().map(|flip| flip["at"].as_f64().unwrap()).collect();
    let sorted = turns.windows(2).all(|pair| (pair[0] - 1.0).abs() <= (pair[1] - 1.0).abs());
    assert!(turns.len() > 1 && sorted, "{turns:?}");
}
