//! One whole report, kept: a change of routing that nobody meant shows here.

use super::{file, simulate};

const EVENTS: &str = r#"
{"event":"outage","backend":"cw-llama","at_s":60,"for_s":30}
{"event":"brown_out","backend":"cw-llama","at_s":140,"for_s":30,"factor":6}
{"event":"rate_limit","backend":"la-llama","at_s":150,"for_s":20,"requests_per_second":3}
"#;

#[test]
fn the_report_of_a_burst_with_trouble_is_as_it_was() {
    let events = file("golden-events.jsonl", EVENTS.as_bytes());
    let trace: Vec<u8> = include_str!("../../../../examples/traces/azure-conv-2023.csv")
        .lines()
        .take(6_001)
        .flat_map(|line| [line.as_bytes(), b"\n"].concat())
        .collect();
    let args = ["--fleet", "examples/burst.yaml", "--trace", "-", "--speed", "6", "--warm", "--json", "--events"];
    let args = [&args[..], &[events.to_str().unwrap()]].concat();
    let first = simulate(&args, &trace);
    assert_eq!(first.code, Some(0), "{}", first.err);
    assert_eq!(first.out, simulate(&args, &trace).out, "the same seed, another report");
    let mut report = first.json();
    // The digest is that of the example, which has tests of its own.
    report["fleet"] = "".into();
    insta::assert_json_snapshot!(report);
}
