//! Scenarios with a known answer.

use super::{SCENARIO, option, planned};

#[test]
fn a_neocloud_at_half_the_price_is_worth_it() {
    let plan = planned(SCENARIO);
    assert_eq!(plan["verdict"]["worth_it"], true, "{:#}", plan["verdict"]);
    assert_eq!(plan["verdict"]["rules"].as_array().unwrap().len(), 0);
    let best = plan["verdict"]["option"].as_str().unwrap().to_owned();
    let cheapest = plan["options"].as_array().unwrap().iter().filter(|option| option["feasible"] == true);
    let cheapest = cheapest.min_by(|a, b| a["all_in_usd"].as_f64().partial_cmp(&b["all_in_usd"].as_f64()).unwrap());
    assert_eq!(cheapest.unwrap()["id"], best.as_str());
}

/// At the list price of on demand, two clouds cost more than the cheaper of them.
#[test]
fn active_active_says_by_how_much_it_is_dearer_than_the_cheaper_cloud() {
    let plan = planned(SCENARIO);
    let (both, one) = (option(&plan, "pattern2-aws-lambda"), option(&plan, "pattern1-lambda"));
    let dearer = both["usd_per_month"].as_f64().unwrap() - one["usd_per_month"].as_f64().unwrap();
    assert!(dearer > 0.0);
    let reason = both["reason"].as_str().unwrap().replace(',', "");
    assert!(reason.contains(&format!("${dearer:.2} dearer")) && reason.contains("pattern1-lambda"), "{reason}");
}

#[test]
fn losing_a_cloud_leaves_what_the_others_hold() {
    let plan = planned(SCENARIO);
    let both = option(&plan, "pattern2-aws-lambda");
    let survives = |cloud: &str| both["survives"][cloud].as_f64().unwrap();
    assert!(survives("aws") > 0.0 && survives("aws") < 1.0 && survives("lambda") < 1.0, "{both:#}");
    assert!(both["cover_usd"].as_f64().unwrap() > 0.0);
    assert_eq!(option(&plan, "pattern1-lambda")["survives"]["lambda"], 0.0);
}

#[test]
fn tokens_that_are_simply_cheaper_are_said_to_be() {
    let hosted = "hosted:\n  cheap: { usd_per_million_tokens: { input: 0.02, output: 0.05 } }\n";
    let plan = planned(&format!("{SCENARIO}{hosted}"));
    assert_eq!(plan["verdict"]["option"], "hosted-cheap", "{:#}", plan["verdict"]);
    assert!(plan["verdict"]["why"].to_string().contains("tokens are simply cheaper"));
    let at = option(&plan, "pattern1-lambda")["hosted_break_even_rps"]["hosted-cheap"].as_f64().unwrap();
    assert!(at > 40.0, "own GPUs pay only above the load that there is: {at}");
}

#[test]
fn the_best_base_has_the_marginal_fractile() {
    let curve: String = (1..=96).map(|i| format!("    - {{ for: 15m, requests_per_second: {} }}\n", i * 5)).collect();
    let start = SCENARIO.find("    - { for: 12h").unwrap();
    let end = SCENARIO.find("  prompt_tokens").unwrap();
    let scenario = format!("{}{curve}{}", &SCENARIO[..start], &SCENARIO[end..]);
    let plan = planned(&scenario);
    let fractile = &option(&plan, "pattern1+3-lambda")["fractiles"][0];
    let (ratio, above) = (fractile["price_ratio"].as_f64().unwrap(), fractile["time_above_base"].as_f64().unwrap());
    assert!((ratio - 2.5 / 3.99).abs() < 1e-9);
    // A machine of 75 or so requests per second is a sixth of the peak.
    assert!((ratio - above).abs() < 0.17, "{ratio} {above}");
}
