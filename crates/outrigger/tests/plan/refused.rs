//! What is not worth it is said not to be, each with its own rule.

use serde_json::Value;

use super::{SCENARIO, planned};

#[track_caller]
fn refused(scenario: &str, rule: &str) -> Value {
    let plan = planned(scenario);
    let verdict = &plan["verdict"];
    assert_eq!(verdict["worth_it"], false, "{verdict:#}");
    assert_eq!(verdict["option"], "today");
    assert_eq!(verdict["rules"], Value::from(vec![rule]), "{verdict:#}");
    plan
}

/// Today's fleet is what its own cloud needs, so that only another cloud or a base could save anything.
fn sized() -> String {
    SCENARIO.replace("aws, gpus: 24", "aws, gpus: 16")
}

#[test]
fn too_small_a_spend() {
    let small = sized()
        .replace("requests_per_second: 60", "requests_per_second: 2")
        .replace("requests_per_second: 20", "requests_per_second: 1")
        .replace("aws, gpus: 16", "aws, gpus: 8")
        .replace(
            "pattern1: 9000, pattern2: 15000, pattern3: 6000",
            "pattern1: 45000, pattern2: 55000, pattern3: 45000",
        );
    let plan = refused(&small, "small_spend");
    let spend = plan["verdict"]["break_even_usd"].as_f64().unwrap();
    let today = plan["options"][0]["usd_per_month"].as_f64().unwrap();
    assert!(spend > today, "{spend} {today}");
    assert!(!plan["verdict"]["flips"].as_array().unwrap().is_empty(), "people could be cheaper");
}

#[test]
fn locked_into_a_region() {
    refused(&format!("{}constraints: {{ only_clouds: [aws] }}\n", sized()), "region_lock_in");
}

#[test]
fn petabytes_beside_the_gpus() {
    refused(&format!("{}constraints: {{ data_gravity_tb: 3000 }}\n", sized()), "data_gravity");
    assert_eq!(planned(&format!("{}constraints: {{ data_gravity_tb: 30 }}\n", sized()))["verdict"]["worth_it"], true);
}

#[test]
fn nobody_to_run_it() {
    refused(&format!("{}constraints: {{ platform_team: false }}\n", sized()), "no_platform_team");
}

/// Only a burst pays here, and no burst starts in time.
#[test]
fn cold_starts_that_take_too_long() {
    let burst = sized()
        .replace(
            "usd_per_gpu_hour: 3.99, instance_gpus: 8, reserved_usd_per_gpu_hour: 2.50",
            "usd_per_gpu_hour: 6.80, instance_gpus: 8, reserved_usd_per_gpu_hour: 2.50",
        )
        .replace("for: 12h, requests_per_second: 60", "for: 1h, requests_per_second: 60")
        .replace("pattern1: 9000", "pattern1: 9000, single: 5000");
    let with = |limit: &str| format!("{burst}constraints: {{ cold_start_limit: {limit} }}\n");
    assert_eq!(planned(&with("15m"))["verdict"]["worth_it"], true);
    let plan = planned(&with("5m"));
    assert_eq!(plan["verdict"]["worth_it"], false, "{:#}", plan["verdict"]);
    assert!(plan["verdict"]["rules"].as_array().unwrap().contains(&"cold_start".into()), "{:#}", plan["verdict"]);
}
