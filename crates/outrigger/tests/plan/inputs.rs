//! What a scenario may name beside itself: a trace, a table of rates, a bill as it was exported.

use std::path::Path;

use super::{SCENARIO, option, planned};

/// The demand of the scenario in other words.
fn with_demand(demand: &str) -> String {
    let start = SCENARIO.find("  curve:").unwrap();
    let end = SCENARIO.find("model:").unwrap();
    format!("{}{demand}{}", &SCENARIO[..start], &SCENARIO[end..])
}

/// From the folder that the scenarios of these tests are in.
fn file(name: &str, text: &str) -> String {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plan");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(name), text).unwrap();
    name.to_owned()
}

#[test]
fn a_table_of_rates_is_the_curve_it_says() {
    let rates = file("rates.csv", "window_start_s,chat_rps\n0,10\n43200,30\n");
    let lengths = "  prompt_tokens: 1000\n  output_tokens: 200\n";
    let by_file = format!("  rates: {{ file: {rates}, column: chat_rps, scale: 2 }}\n{lengths}");
    let (a, b) = (planned(&with_demand(&by_file)), planned(SCENARIO));
    assert_eq!(a["options"], b["options"], "20 and 60 requests per second for twelve hours each");
}

#[test]
fn a_trace_brings_rates_and_lengths() {
    // An hour: 3600 requests of 100 and 10 tokens, then 1800 of 200 and 40 in the second half hour beside them.
    let mut trace = "arrival_s,prompt_tokens,output_tokens\n".to_owned();
    for second in 0..3_600 {
        trace += &format!("{second},100,10\n");
        if second >= 1_800 {
            trace += &format!("{second}.5,200,40\n");
        }
    }
    let name = file("trace.csv", &trace);
    let scenario = with_demand(&format!("  trace: {{ file: {name}, window: 30m }}\n"));
    let hosted = "hosted:\n  h: { usd_per_million_tokens: { input: 1, output: 1 } }\n";
    let plan = planned(&format!("{scenario}{hosted}"));
    // 5400 requests in 3600 seconds, 133.333 and 20 tokens in the mean: 2628 × 1500 × 153.333 / 10⁶.
    let tokens = option(&plan, "hosted-h")["lines"]["tokens"].as_f64().unwrap();
    assert!((tokens - 604.44).abs() < 0.5, "{tokens}");
}

#[test]
fn an_exported_bill_is_tied_to_the_plan() {
    let bill = file(
        "bill.csv",
        "BilledCost,ServiceCategory,ServiceName\n120000,Compute,GPUs\n1000,Compute,\"Other, CPUs\"\n15.5,Networking,Egress\n",
    );
    let today = format!("today:\n  invoice: {{ focus: {bill} }}\n");
    let plan = planned(&SCENARIO.replace("today:\n", &today));
    let invoice = &plan["invoice"];
    assert_eq!(invoice["invoiced"], 121_015.5);
    // 24 × 6.88 × 730 = 120,537.60.
    assert_eq!(invoice["lines"]["gpu"]["unexplained"], 462.4, "{invoice:#}");
    assert_eq!(invoice["unexplained"], 477.9);
}

#[test]
fn what_is_committed_is_paid_in_every_option() {
    let committed = "commitments: [{ cloud: aws, gpus: 8, usd_per_gpu_hour: 4, until: 2026-12-29 }]\n";
    let plan = planned(&format!("{SCENARIO}{committed}"));
    for option in plan["options"].as_array().unwrap().iter().filter(|option| option["feasible"] == true) {
        assert_eq!(option["lines"]["committed"], 8.0 * 4.0 * 730.0, "{}", option["id"]);
        // Thirty days from the 30th of November on, the last one counted.
        assert!(option["liability_usd"].as_f64().unwrap() >= 8.0 * 4.0 * 24.0 * 30.0, "{}", option["id"]);
    }
    let (with, without) = (option(&plan, "single-aws"), planned(SCENARIO));
    let gpus = |option: &serde_json::Value| option["gpus"]["aws"].as_u64().unwrap();
    assert_eq!(gpus(with), gpus(option(&without, "single-aws")), "what is committed is used");
}
