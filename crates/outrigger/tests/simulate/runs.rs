//! Several runs side by side, and on several machines.

use std::path::PathBuf;

use super::{Ran, file, simulate};

const GRID: [&str; 12] = [
    "--fleet",
    "examples/burst.yaml",
    "--fleet",
    "examples/active-active.yaml",
    "--mode",
    "weighted",
    "--mode",
    "latency",
    "--seed",
    "1",
    "--seed",
    "2",
];

fn trace() -> String {
    let mut rows = "arrival_s,prompt_tokens,output_tokens\n".to_owned();
    (0..1_000).for_each(|i| rows += &format!("{},100,{}\n", f64::from(i) / 10.0, 10 + i % 90));
    file("runs.csv", rows.as_bytes()).to_str().unwrap().to_owned()
}

fn play(trace: &str, extra: &[&str]) -> Ran {
    simulate(&[&GRID[..], &["--trace", trace], extra].concat(), b"")
}

/// The parts' files.
fn parts(trace: &str, n: usize) -> Vec<PathBuf> {
    let part = |i| {
        let ran = play(trace, &["--shard", &format!("{i}/{n}")]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        file(&format!("part-{i}-of-{n}.json"), ran.out.as_bytes())
    };
    (1..=n).map(part).collect()
}

fn merge(parts: &[PathBuf], extra: &[&str]) -> Ran {
    let paths: Vec<&str> = parts.iter().map(|p| p.to_str().unwrap()).collect();
    simulate(&[extra, &["--merge"], &paths[..]].concat(), b"")
}

#[test]
fn parts_of_the_runs_make_up_the_whole() {
    let trace = trace();
    let mut parts = parts(&trace, 3);
    parts.reverse();
    let (whole_page, merged_page) = (file("whole.html", b""), file("merged.html", b""));
    let whole = play(&trace, &["--json", "--html", whole_page.to_str().unwrap()]);
    let merged = merge(&parts, &["--json", "--html", merged_page.to_str().unwrap()]);
    assert_eq!(whole.json()["fleets"].as_object().unwrap().len(), 8);
    assert_eq!(whole.json()["fleets"]["examples/burst.yaml (latency, seed 2)"]["requests"], 1_000);
    assert!(whole.out == merged.out, "{}\n{}", whole.out, merged.out);
    let read = |page| std::fs::read_to_string(page).unwrap();
    let (whole_page, merged_page) = (read(whole_page), read(merged_page));
    assert!(whole_page == merged_page, "the pages differ");
    assert!(whole_page.contains("<svg") && !whole_page.contains("<script"), "{whole_page}");
    assert_eq!(play(&trace, &[]).out, merge(&parts, &[]).out);
}

#[test]
fn parts_that_make_no_whole_are_refused() {
    let trace = trace();
    let (of_three, of_two) = (parts(&trace, 3), parts(&trace, 2));
    let wrong = file("no-part.json", b"{\"requests\": 3}");
    for (files, says) in [
        (vec![&of_three[0], &of_three[2]], "part 2/3 is missing"),
        (vec![&of_two[0], &of_two[1], &of_two[1]], "part 2/2 is there more than once"),
        (vec![&of_two[0], &of_three[1]], "different wholes"),
        (vec![&wrong], "--shard I/N"),
    ] {
        let files: Vec<PathBuf> = files.into_iter().cloned().collect();
        let ran = merge(&files, &[]);
        assert_eq!(ran.code, Some(2), "{}", ran.err);
        assert!(ran.err.contains(says), "{says}: {}", ran.err);
    }
    let ran = merge(&[PathBuf::from("/nowhere.json")], &[]);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
}

#[test]
fn gateways_in_two_places_pay_their_own_egress() {
    let trace = trace();
    let places = ["--place", "aws/us-east-1=3", "--place", "coreweave"];
    let args = [&["--fleet", "examples/burst.yaml", "--trace", &trace, "--json"], &places[..]].concat();
    let report = simulate(&args, b"").json();
    let requests = |place: &str| report["places"][place]["requests"].as_u64().unwrap();
    let (aws, coreweave) = (requests("aws/us-east-1"), requests("coreweave"));
    assert_eq!(aws + coreweave, 1_000);
    assert!((700..800).contains(&aws), "three of four: {aws}");
    // Everything is served at CoreWeave: 400 bytes for 100 tokens, at 0.09 USD a gigabyte from AWS.
    assert_eq!(report["backends"]["cw-llama"]["requests"], 1_000);
    assert_eq!(report["places"]["coreweave"]["egress_nano_usd"], 0);
    assert_eq!(report["places"]["aws/us-east-1"]["egress_nano_usd"], aws * 400 * 9 / 100);
}
