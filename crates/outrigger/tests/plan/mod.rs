//! `outrigger plan` and `outrigger prices` as people call them: the anchors, the verdicts, the formulas, and scenarios
//! that are wrong. That the arithmetic is right to the cent is held by tests/e2e/economics.py.

mod explain;
mod inputs;
mod of_fleet;
mod optimize;
mod refused;
mod reports;
mod simulated;
mod stale;
mod verdicts;
mod wrong;

use std::{path::Path, process::Command};

use serde_json::Value;

const DAY: [&str; 2] = ["--as-of", "2026-11-30"];

/// A team on AWS with a neocloud to go to; parts of it are replaced by tests.
const SCENARIO: &str = r"version: 1
home: { cloud: aws, region: us-east-1 }
demand:
  curve:
    - { for: 12h, requests_per_second: 20 }
    - { for: 12h, requests_per_second: 60 }
  prompt_tokens: 1000
  output_tokens: 200
model:
  profiles:
    - { gpu: h100, gpus: 4, points: [{ concurrency: 4, ttft_ms: 80, tpot_ms: 12 }, { concurrency: 64, ttft_ms: 260, tpot_ms: 20 }] }
slo: { ttft_p95: 800ms, time_per_output_token_p95: 50ms }
clouds:
  aws: { region: us-east-1 }
  lambda: { usd_per_gpu_hour: 3.99, instance_gpus: 8, reserved_usd_per_gpu_hour: 2.50, cold_start: 12m }
today:
  pools: [{ cloud: aws, gpus: 24 }]
people: { today: 5000, pattern1: 9000, pattern2: 15000, pattern3: 6000 }
migration: { usd: 50000 }
";

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {} {}", self.out, self.err))
    }
}

/// Runs the binary in the repository's root.
fn outrigger(args: &[&str]) -> Ran {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new(env!("CARGO_BIN_EXE_outrigger")).args(args).current_dir(root).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Plans a text, in a file of this test's own.
fn plan(scenario: &str, more: &[&str]) -> Ran {
    let test = std::thread::current().name().unwrap_or_default().replace("::", "-");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plan");
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join(format!("{test}.yaml"));
    std::fs::write(&path, scenario).unwrap();
    outrigger(&[&["plan", "--scenario", path.to_str().unwrap()], &DAY[..], more].concat())
}

fn planned(scenario: &str) -> Value {
    let ran = plan(scenario, &["--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    ran.json()
}

fn option<'p>(plan: &'p Value, id: &str) -> &'p Value {
    let all = plan["options"].as_array().unwrap();
    all.iter().find(|option| option["id"] == id).unwrap_or_else(|| panic!("no {id} in {plan:#}"))
}

#[test]
fn the_sample_is_complete_and_has_a_verdict() {
    let args = [&["plan", "--scenario", "examples/scenarios/chat.yaml", "--json"], &DAY[..]].concat();
    let ran = outrigger(&args);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let plan = ran.json();
    assert_eq!(plan["verdict"]["worth_it"], true, "{plan:#}");
    let today = &plan["options"][0];
    // 24 × 6.88 × 730, 1100 GB out of AWS of which 100 are free, and what stands in the file.
    assert_eq!(today["id"], "today");
    assert_eq!(today["lines"]["on_demand"], 120_537.6);
    assert_eq!(today["lines"]["egress"], 90.0);
    assert_eq!(today["usd_per_month"], 120_537.6 + 90.0 + 1_850.0 + 9_000.0);
    assert_eq!(plan["invoice"]["invoiced"], 123_447.91);
    assert_eq!(plan["invoice"]["unexplained"], 970.31);
    for kind in ["single-aws", "pattern1-lambda", "pattern2-aws-lambda", "pattern1+3-lambda-aws", "hosted-together"] {
        assert!(option(&plan, kind)["usd_per_month"].as_f64().unwrap() > 0.0, "{kind}");
    }
    let words = outrigger(&[&["plan", "--scenario", "examples/scenarios/chat.yaml"], &DAY[..]].concat());
    for says in ["worth it: ", "unexplained", "prices older than 30 days", "not included", "wrong by more than 10 %"] {
        assert!(words.out.contains(says), "{says}: {}", words.out);
    }
    assert_eq!(words.out, outrigger(&[&["plan", "--scenario", "examples/scenarios/chat.yaml"], &DAY[..]].concat()).out);
}

#[test]
fn a_hundred_terabytes_out_of_aws() {
    let flow = "egress:\n  - { name: all, from: home, to: internet, gb_per_month: 100000 }\n";
    let plan = planned(&format!("{SCENARIO}{flow}"));
    assert_eq!(plan["options"][0]["egress_usd"], 7_810.2);
    assert_eq!(option(&plan, "pattern1-lambda")["egress_usd"], 7_810.2, "it leaves home in every option");
    let out = flow.replace("from: home", "from: gpus");
    let plan = planned(&format!("{SCENARIO}{out}"));
    assert_eq!(option(&plan, "single-aws")["egress_usd"], 7_810.2);
    assert_eq!(option(&plan, "pattern1-lambda")["egress_usd"], 0.0, "egress is free there");
}

#[test]
fn eight_gpus_at_coreweave_and_not_one_fewer() {
    let few = SCENARIO
        .replace("lambda: { usd_per_gpu_hour: 3.99, instance_gpus: 8, ", "coreweave: { ")
        .replace("requests_per_second: 60", "requests_per_second: 1")
        .replace("requests_per_second: 20", "requests_per_second: 1")
        .replace("gpus: 4,", "gpus: 1,");
    let plan = planned(&few);
    let option = option(&plan, "pattern1-coreweave");
    assert_eq!(option["gpus"]["coreweave"], 8);
    assert_eq!(option["lines"]["on_demand"], 35_945.2, "49.24 × 730");
}

#[test]
fn the_price_book_has_sources_dates_and_licences() {
    let ran = outrigger(&["prices", "--json", "--as-of", "2026-11-30"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let book = ran.json();
    for section in ["gpus", "tokens", "egress"] {
        let rows = book[section].as_array().unwrap();
        assert!(rows.len() > 20, "{section}");
        for row in rows {
            for key in ["source", "as_of", "licence"] {
                assert!(row[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {row}");
            }
        }
    }
    let coreweave = |row: &&Value| row["provider"] == "coreweave" && row["gpu"] == "H100";
    let row = book["gpus"].as_array().unwrap().iter().find(coreweave).unwrap();
    assert_eq!((&row["usd_per_hour"], &row["min_gpus"]), (&49.24.into(), &8.into()));
    let gaps: Vec<&str> = book["gaps"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(gaps.contains(&"lambda H100: only 1x is known"), "{gaps:?}");
    assert!(book["stale"]["older_than_30_days"].as_u64().unwrap() > 100);
    let table = outrigger(&["prices", "--gpu", "h100", "--provider", "coreweave"]).out;
    assert!(table.contains("49.2400") && table.contains("older than 30 days on "), "{table}");
    assert!(!table.contains("nebius"));
}

#[test]
fn imported_prices_are_used_and_what_cannot_be_believed_is_named() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plan");
    std::fs::create_dir_all(&dir).unwrap();
    let (raw, book) = (dir.join("raw.csv"), dir.join("book.csv"));
    let rows = "provider,region,gpu,gpus,usd_per_gpu_hour,tier,as_of\n\
                lambda,any,H100,8,1.25,on-demand,2026-11\nlambda,any,H100,8,0,on-demand,2026-11\n";
    std::fs::write(&raw, rows).unwrap();
    let ran = outrigger(&["prices", "import", raw.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("line 3") && ran.err.contains("1 rows taken, 1 left out"), "{}", ran.err);
    std::fs::write(&book, &ran.out).unwrap();
    let scenario = SCENARIO.replace("usd_per_gpu_hour: 3.99, instance_gpus: 8, reserved_usd_per_gpu_hour: 2.50, ", "");
    let listed = plan(&scenario, &["--json"]).json();
    let own = plan(&scenario, &["--json", "--prices", book.to_str().unwrap()]).json();
    let cost = |plan: &Value| option(plan, "pattern1-lambda")["lines"]["on_demand"].as_f64().unwrap();
    let gpus = option(&own, "pattern1-lambda")["gpus"]["lambda"].as_f64().unwrap();
    assert!((cost(&own) - gpus * 1.25 * 730.0).abs() < 0.005 && cost(&listed) > 2.0 * cost(&own), "{}", cost(&own));
    let nothing = outrigger(&["prices", "import", "README.md"]);
    assert_eq!(nothing.code, Some(2), "{}", nothing.out);
    assert!(nothing.err.contains("help:"), "{}", nothing.err);
}
