//! Input that is wrong says its row and what to do, and exits with 2.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};

use super::{file, simulate};

const FLEET: [&str; 2] = ["--fleet", "examples/active-active.yaml"];
const HEADER: &str = "arrival_s,prompt_tokens,output_tokens\n";

#[track_caller]
fn refused(trace: &[u8], row: &str, says: &str) {
    let ran = simulate(&[&FLEET[..], &["--trace", "-"]].concat(), trace);
    assert_eq!(ran.code, Some(2), "{}{}", ran.out, ran.err);
    assert!(ran.err.contains(row) && ran.err.contains(says) && ran.err.contains("help:"), "{row}, {says}: {}", ran.err);
    assert!(ran.out.is_empty(), "{}", ran.out);
}

#[test]
fn a_wrong_trace_names_its_row() {
    refused(b"", "row 1", "empty");
    refused(HEADER.as_bytes(), "row", "");
    refused(b"arrival_s,prompt_tokens\n0,1\n", "row 1", "output_tokens");
    for (bad, says) in [
        ("1,-5,1", "prompt_tokens"),
        ("NaN,5,1", "arrival_s"),
        ("inf,5,1", "arrival_s"),
        ("1,5", "2 fields"),
        ("1,x,1", "prompt_tokens"),
    ] {
        refused(format!("{HEADER}0,1,1\n{bad}\n").as_bytes(), "row 3", says);
    }
    refused(format!("{HEADER}5,1,1\n4,1,1\n").as_bytes(), "row 3", "");
    refused(&[HEADER.as_bytes(), b"0,1,\xff\n"].concat(), "row 2", "");
}

#[test]
fn a_truncated_gzip_says_where_it_broke() {
    let mut rows = HEADER.to_owned();
    for i in 0..20_000 {
        rows += &format!("{i}.{},{},{}\n", i * 7 % 1_000, i * 31 % 997, i * 17 % 313 + 1);
    }
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(rows.as_bytes()).unwrap();
    let whole = gzip.finish().unwrap();
    let args = [&FLEET[..], &["--json", "--trace"]].concat();
    let path = file("whole.csv.gz", &whole);
    let ran = simulate(&[&args[..], &[path.to_str().unwrap()]].concat(), b"");
    assert_eq!((ran.code, ran.json()["requests"].as_u64()), (Some(0), Some(20_000)), "{}", ran.err);
    let path = file("cut.csv.gz", &whole[..whole.len() / 2]);
    let ran = simulate(&[&args[..], &[path.to_str().unwrap()]].concat(), b"");
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert!(ran.err.contains("row ") && ran.err.contains("help:"), "{}", ran.err);
}

#[test]
fn wrong_arguments_say_what_to_write() {
    let trace = format!("{HEADER}0,1,1\n");
    let events = file("wrong-events.jsonl", b"{\"event\":\"outage\",\"cloud\":\"mars\",\"at_s\":1}\n");
    for (args, code, says) in [
        (&["--model", "nobody"][..], 2, "llama"),
        (&["--events", events.to_str().unwrap()], 2, "row 1"),
        (&["--events", "/nowhere.jsonl"], 3, "cannot read"),
        (&["--shard", "5/4"], 2, "I/N"),
        (&["--speed", "0"], 2, "--speed"),
        (&["--format", "parquet"], 2, "csv"),
    ] {
        let ran = simulate(&[&FLEET[..], &["--trace", "-"], args].concat(), trace.as_bytes());
        assert_eq!(ran.code, Some(code), "{args:?}: {}", ran.err);
        assert!(ran.err.contains(says), "{args:?}: {}", ran.err);
    }
}

#[test]
fn shards_add_up_and_fleets_stand_side_by_side() {
    let mut rows = HEADER.to_owned();
    (0..1_000).for_each(|i| rows += &format!("{i},10,10\n"));
    let count = |extra: &[&str]| {
        let ran = simulate(&[&FLEET[..], &["--trace", "-", "--json"], extra].concat(), rows.as_bytes());
        ran.json()["requests"].as_u64().unwrap()
    };
    assert_eq!((1..=3).map(|i| count(&["--shard", &format!("{i}/3")])).sum::<u64>(), 1_000);
    let path = file("rows.csv", rows.as_bytes());
    let page = file("page.html", b"");
    let args = [
        "--fleet",
        "examples/burst.yaml",
        "--json",
        "--trace",
        path.to_str().unwrap(),
        "--html",
        page.to_str().unwrap(),
    ];
    let ran = simulate(&[&FLEET[..], &args].concat(), b"");
    let fleets = &ran.json()["fleets"];
    assert_eq!(fleets["examples/burst.yaml"]["requests"], 1_000, "{}", ran.err);
    assert_eq!(fleets["examples/active-active.yaml"]["requests"], 1_000);
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("<svg") && page.contains("examples/burst.yaml") && !page.contains("<script"), "{page}");
}
