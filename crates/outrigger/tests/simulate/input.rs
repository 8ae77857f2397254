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
        (&["--mode", "random"], 2, "cheapest"),
        (&["--place", "aws/=1"], 2, "CLOUD/REGION"),
        (&["--place", "aws=0"], 2, "CLOUD/REGION"),
        (&["--service", "chat"], 2, "--lengths"),
        (&["--format", "parquet"], 2, "csv"),
    ] {
        let ran = simulate(&[&FLEET[..], &["--trace", "-"], args].concat(), trace.as_bytes());
        assert_eq!(ran.code, Some(code), "{args:?}: {}", ran.err);
        assert!(ran.err.contains(says), "{args:?}: {}", ran.err);
    }
}

#[test]
fn made_up_requests_say_what_is_wrong_with_their_tables() {
    let rates = file("rates.csv", b"window_start_s,rps\n0,1\n60,2\n");
    let lengths = file("lengths.csv", b"quantile,prompt_tokens,output_tokens\n0,10,1\n1,100,50\n");
    let falling = file("falling.csv", b"quantile,prompt_tokens,output_tokens\n0,10,5\n1,100,1\n");
    let (rates, lengths, falling) = (rates.to_str().unwrap(), lengths.to_str().unwrap(), falling.to_str().unwrap());
    let right = ["--trace", rates, "--lengths", lengths, "--json"];
    let ran = simulate(&[&FLEET[..], &right].concat(), b"");
    let requests = ran.json()["requests"].as_u64().unwrap();
    assert!((120..240).contains(&requests), "a minute at 1/s and one at 2/s: {requests}");
    let more = simulate(&[&FLEET[..], &right, &["--scale", "10"]].concat(), b"").json()["requests"].as_u64().unwrap();
    assert!((1_600..2_000).contains(&more), "{more}");
    for (args, says) in [
        (&["--trace", rates, "--lengths", falling][..], "row 3"),
        (&["--trace", rates, "--lengths", lengths, "--service", "chat"], "chat_rps"),
        (&["--trace", lengths, "--lengths", lengths], "window_start_s"),
        (&["--trace", rates, "--lengths", lengths, "--scale", "0"], "--scale"),
    ] {
        let ran = simulate(&[&FLEET[..], args].concat(), b"");
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.err);
        assert!(ran.err.contains(says), "{args:?}: {}", ran.err);
    }
}
