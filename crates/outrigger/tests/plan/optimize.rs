//! `--optimize` over the built-in book. That the search is exact is held by a property in crates/plan.

use serde_json::Value;

use super::{SCENARIO, plan};

fn searched(constraints: &str) -> Value {
    let ran = plan(&format!("{SCENARIO}constraints: {constraints}\n"), &["--optimize", "--json"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    ran.json()
}

#[test]
fn surviving_a_provider_costs_more_and_leaves_enough() {
    let (bare, safe) = (searched("{}"), searched("{ survive_percent: 100 }"));
    let cost = |found: &Value| found["fleet"]["usd_per_month"].as_f64().unwrap();
    assert!(cost(&bare) < cost(&safe), "{bare:#} {safe:#}");
    assert!(bare["offers"].as_u64().unwrap() > 20);
    let survives = safe["fleet"]["survives"].as_object().unwrap();
    assert!(survives.len() >= 2 && survives.values().all(|share| share.as_f64().unwrap() >= 1.0), "{survives:?}");
    for next in safe["runners_up"].as_array().unwrap() {
        assert!(next["more_usd"].as_f64().unwrap() >= 0.0, "{next}");
    }
    let at_home = searched("{ only_clouds: [aws] }");
    let machines = at_home["fleet"]["machines"].as_array().unwrap();
    assert!(machines.iter().all(|machine| machine["provider"] == "aws"), "{at_home:#}");
}

#[test]
fn what_cannot_be_had_names_the_constraint() {
    let slow = SCENARIO.replace("time_per_output_token_p95: 50ms", "time_per_output_token_p95: 1ms");
    let large = SCENARIO.replace("requests_per_second: 60", "requests_per_second: 30000");
    let alone = format!("{SCENARIO}constraints: {{ survive_percent: 50 }}\n");
    for (scenario, constraint) in [(slow, "slo"), (large, "demand")] {
        let ran = plan(&scenario, &["--optimize", "--json"]);
        assert_eq!(ran.code, Some(1), "{constraint}: {}{}", ran.out, ran.err);
        assert_eq!(ran.json()["constraint"], constraint, "{}", ran.out);
    }
    // One provider has this GPU.
    let one = alone.replace("h100", "mi350x").replace("aws: { region: us-east-1 }", "digitalocean: {}");
    let one = one.replace("cloud: aws, gpus", "cloud: digitalocean, gpus");
    let start = one.find("  lambda:").unwrap();
    let end = one.find("today:").unwrap();
    let one = format!("{}{}", &one[..start], &one[end..]);
    let ran = plan(&one, &["--optimize", "--json"]);
    assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.err);
    assert_eq!(ran.json()["constraint"], "survive_percent", "{}", ran.out);
    let words = plan(&SCENARIO.replace("95: 50ms", "95: 1ms"), &["--optimize"]);
    assert!(words.out.starts_with("no fleet: slo: "), "{}", words.out);
}
