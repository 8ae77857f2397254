//! Whole files through the reader: what each format gives, what each fault says, and what must not matter.

use std::io::{self, BufRead, BufReader, Read};

use proptest::prelude::*;

use outrigger_core::units::{Nanos, Tokens};
use outrigger_plan::trace::*;

/// Hands out a few bytes at a time, then perhaps breaks.
struct Chunked<'b> {
    rest: &'b [u8],
    size: usize,
    then: Option<io::ErrorKind>,
}

impl Read for Chunked<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if let (true, Some(kind)) = (self.rest.is_empty(), self.then) {
            return Err(kind.into());
        }
        let size = self.size.min(into.len());
        self.rest.read(&mut into[..size])
    }
}

type Outcome = Result<Vec<Arrival>, TraceFault>;

fn read_from(input: impl BufRead, format: Option<Format>) -> Outcome {
    Reader::new(input, format)?.collect()
}

fn read(text: &str) -> Outcome {
    read_from(text.as_bytes(), None)
}

/// (milliseconds, prompt, output)
fn times_and_lengths(text: &str) -> Vec<(u64, u64, u64)> {
    let arrivals = read(text).expect("a trace without a fault");
    arrivals.iter().map(|a| (a.at.0 / 1_000_000, a.prompt_tokens.0, a.output_tokens.0)).collect()
}

const AZURE_CONV: &str = include_str!("../../../../examples/traces/azure-conv-2023.csv");
const AZURE_CODE: &str = include_str!("../../../../examples/traces/azure-code-2023.csv");

const MOONCAKE: &str = r#"{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 48]}
{"timestamp": 30535, "input_length": 6472, "output_length": 26, "hash_ids": [46, 47]}
{"timestamp": 30535, "input_length": 500, "output_length": 1, "hash_ids": [46]}
{"timestamp": 30536, "input_length": 5, "output_length": 1, "hash_ids": []}
"#;

const REQUEST_LOG: &str = r#"{"event":"ready","listen":"http://127.0.0.1:1","admin":null,"fleet":"b6285b2b7adff2da"}
{"event":"request","v":1,"ts":"2026-11-24T05:50:45.619Z","request_id":"req_1","model":"llama-70b","stream":false,"status":200,"outcome":"ok","prompt_tokens":2,"output_tokens":4,"attempts":[{"outcome":"ok","output_tokens":9}]}
{"event":"request","v":1,"ts":"2026-11-24T05:50:44.000Z","request_id":"req_2","model":"small \"one\"","stream":true,"status":200,"outcome":"cut","prompt_tokens":7,"output_tokens":5,"attempts":[]}
{"event":"request","v":1,"ts":"2026-11-24T05:50:46.000Z","request_id":"req_3","model":"llama-70b","stream":true,"status":429,"outcome":"rejected","prompt_tokens":3,"output_tokens":0,"attempts":[]}
{"event":"request","v":1,"ts":"2026-11-24T05:50:47.000Z","request_id":"req_4","model":"llama-70b","stream":true,"status":499,"outcome":"client_gone","prompt_tokens":3,"output_tokens":1,"attempts":[]}
"#;

const SPEND_CSV: &str = "request_id,call_type,startTime,endTime,completionStartTime,model,model_group,prompt_tokens,\
completion_tokens,api_base,status,session_id,messages\n\
a,acompletion,2026-05-21 10:00:02.5,2026-05-21 10:00:05,2026-05-21 10:00:03,openai/x,chat,10,20,https://a,success,s1,\"{\"\"a\"\":\n1, 2}\"\n\
b,acompletion,2026-05-21 10:00:00.25,2026-05-21 10:00:06,2026-05-21 10:00:06,openai/x,,11,21,https://b,success,s1,\"{}\"\n\
c,acompletion,2026-05-21 10:00:03,2026-05-21 10:00:03,2026-05-21 10:00:03,openai/x,chat,0,0,,failure,,\n";

const SPEND_JSON: &str = r#"{"request_id":"a","startTime":"2026-05-21T10:00:02.500000Z","endTime":"2026-05-21T10:00:05Z","completionStartTime":"2026-05-21T10:00:03Z","model":"openai/x","model_group":"chat","prompt_tokens":10,"completion_tokens":20,"status":"success","session_id":"s1","metadata":{"event":1}}
{"request_id":"b","startTime":"2026-05-21T10:00:00.250000Z","endTime":"2026-05-21T10:00:06Z","completionStartTime":"2026-05-21T10:00:06Z","model":"openai/x","model_group":null,"prompt_tokens":11,"completion_tokens":21,"status":"success","session_id":"s1"}
{"request_id":"c","startTime":"2026-05-21T10:00:03Z","model":"openai/x","model_group":"chat","prompt_tokens":0,"completion_tokens":0,"status":"failure"}
"#;

#[test]
fn azure_traces_are_read_whole() {
    let check = |text: &str, rows, last_ms| {
        let arrivals = times_and_lengths(text);
        assert_eq!(arrivals.len(), rows);
        assert_eq!(arrivals.last().unwrap().0, last_ms);
    };
    check(AZURE_CONV, 19_366, 3_501_721);
    check(AZURE_CODE, 8_819, 3_435_948);
    assert_eq!(times_and_lengths(AZURE_CONV)[..2], [(0, 374, 44), (4314, 396, 109)]);
}

#[test]
fn csv_columns_are_in_any_order_and_may_be_absent() {
    let text = "model,extra,output_tokens,timestamp_s,prompt_tokens,stream,session\r\n\
                small,x,1,10.5,2,false,u1\r\n\
                \"large, new\",x,3,10.75,4,,u2\r\n\
                ,x,5,11,6,true,u1\r\n\
                small,x,5,11,6,TRUE,\"\"\r\n";
    let mut reader = Reader::new(text.as_bytes(), None).unwrap();
    let got: Vec<Arrival> = reader.by_ref().map(Result::unwrap).collect();
    assert_eq!(reader.models(), ["small", "large, new"]);
    assert_eq!(reader.origin(), Some(10_500_000_000));
    assert_eq!(got.iter().map(|a| a.model).collect::<Vec<_>>(), [Some(0), Some(1), None, Some(0)]);
    assert_eq!(got.iter().map(|a| a.stream).collect::<Vec<_>>(), [false, true, true, true]);
    assert_eq!(got.iter().map(|a| a.at.0).collect::<Vec<_>>(), [0, 250_000_000, 500_000_000, 500_000_000]);
    assert_eq!(got[0].session, got[2].session);
    assert_ne!(got[0].session, got[1].session);
    assert_eq!(got[3].session, None);
}

#[test]
fn azure_traces_are_read_as_published() {
    let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                2023-11-16 18:15:46.6805900,374,44\n\
                2023-11-16 18:15:50.9951690,396,109\n";
    assert_eq!(times_and_lengths(text), [(0, 374, 44), (4314, 396, 109)]);
    let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                2024-05-10 00:00:00.009930+00:00,2162,5\n\
                2024-05-10 00:00:00.017335+00:00,2399,6\n";
    assert_eq!(times_and_lengths(text), [(0, 2162, 5), (7, 2399, 6)]);
}

#[test]
fn mooncake_sessions_share_their_first_blocks() {
    assert_eq!(times_and_lengths(MOONCAKE), [(0, 6955, 52), (3053, 6472, 26), (3053, 500, 1), (3054, 5, 1)]);
    let got = read(MOONCAKE).unwrap();
    assert_eq!(got[0].session, got[1].session);
    assert_ne!(got[1].session, got[2].session);
    assert!(got[2].session.is_some());
    assert_eq!(got[3].session, None);
}

#[test]
fn the_request_log_is_put_in_order_of_arrival() {
    assert_eq!(times_and_lengths(REQUEST_LOG), [(0, 7, 5), (1619, 2, 4), (3000, 3, 1)]);
    let mut reader = Reader::new(REQUEST_LOG.as_bytes(), Some(Format::RequestLog)).unwrap();
    let got: Vec<Arrival> = reader.by_ref().map(Result::unwrap).collect();
    assert_eq!(reader.models(), ["llama-70b", "small \"one\""]);
    assert_eq!(reader.skipped(), 1);
    assert_eq!(reader.origin(), Some(1_795_499_444_000_000_000));
    assert_eq!(
        got.iter().map(|a| (a.model, a.stream)).collect::<Vec<_>>(),
        [(Some(1), true), (Some(0), false), (Some(0), true)]
    );
}

#[test]
fn spend_logs_read_the_same_from_both_exports() {
    assert_eq!(times_and_lengths(SPEND_CSV), [(0, 11, 21), (2250, 10, 20)]);
    assert_eq!(read(SPEND_CSV), read(SPEND_JSON));
    for text in [SPEND_CSV, SPEND_JSON] {
        let mut reader = Reader::new(text.as_bytes(), None).unwrap();
        let got: Vec<Arrival> = reader.by_ref().map(Result::unwrap).collect();
        assert_eq!(reader.models(), ["chat", "openai/x"]);
        assert_eq!(reader.skipped(), 1);
        assert_eq!(got.iter().map(|a| (a.model, a.stream)).collect::<Vec<_>>(), [(Some(1), false), (Some(0), true)]);
        assert!(got[0].session.is_some() && got[0].session == got[1].session);
    }
}

#[test]
fn the_format_is_seen_in_the_first_line() {
    let check = |line: &str, expect| assert_eq!(detect(line.as_bytes()), expect, "{line}");
    let first = |text: &'static str| text.lines().next().unwrap();
    check(first(AZURE_CONV), Some(Format::Csv));
    check(first(MOONCAKE), Some(Format::Mooncake));
    check(first(REQUEST_LOG), Some(Format::RequestLog));
    check(first(SPEND_CSV), Some(Format::SpendLogs));
    check(first(SPEND_JSON), Some(Format::SpendLogs));
    check("request_id,\"startTime\"", Some(Format::SpendLogs));
    check("\u{feff}arrival_s,prompt_tokens,output_tokens", Some(Format::Csv));
    check(r#"{"timestamp": 27482, "input_length": 69"#, Some(Format::Mooncake));
    check(r#"{"a":1}"#, None);
    check("[{\"startTime\":1},", None);
    check("hello", None);
    check("", None);
}

#[test]
fn formats_are_named() {
    for format in Format::ALL {
        assert_eq!(format.to_string().parse(), Ok(format));
    }
    assert_eq!("CSV".parse::<Format>(), Err(UnknownFormat));
}

#[test]
fn bad_input_is_told_with_its_row_and_what_to_do() {
    let check = |text: &str, expect: &str, help: &str| {
        let fault = read(text).expect_err(text);
        assert_eq!(fault.to_string(), expect);
        assert!(fault.help.contains(help), "{expect}: {}", fault.help);
    };
    let csv = |rows: &str, expect: &str, help: &str| {
        check(&format!("arrival_s,prompt_tokens,output_tokens,model\n{rows}"), expect, help);
    };
    check("", "row 1: the trace is empty", "come from");
    check("\n\n \n", "row 1: the trace is empty", "come from");
    check(
        "arrival_s,prompt_tokens\n0,1\n",
        "row 1: the header has no column output_tokens or GeneratedTokens",
        "it has",
    );
    check(
        "arrival_s,prompt_token,output_tokens\n",
        "row 1: the header has no column prompt_tokens or ContextTokens",
        "\"prompt_token\"?",
    );
    check(
        "Arrival S,prompt_tokens,output_tokens\n",
        "row 1: the header has no column arrival_s or timestamp_s or TIMESTAMP",
        "\"Arrival S\"?",
    );
    check(
        "arrival_s,prompt_tokens,output_tokens,arrival_s\n",
        "row 1: the header has column \"arrival_s\" twice",
        "rename",
    );
    check("0.0,12,3\n", "row 1: the first row holds numbers, not names of columns", "header");
    csv("", "row 1: the trace has no requests", "complete");
    csv("0,1,1,a\n\n5,1,1,a\n4,1,1,a\n", "row 5, column arrival_s: this row is earlier than the one before it", "sort");
    csv("0,-1,1,a\n", "row 2, column prompt_tokens: \"-1\" is negative", "from 0");
    csv("-1,1,1,a\n", "row 2, column arrival_s: \"-1\" is negative", "from the trace's beginning");
    csv("NaN,1,1,a\n", "row 2, column arrival_s: \"NaN\" is not a finite number", "leave the row out");
    csv("0,inf,1,a\n", "row 2, column prompt_tokens: \"inf\" is not a finite number", "leave the row out");
    csv("0,1,,a\n", "row 2, column output_tokens: is empty", "fill it in");
    csv("0,1,1.5,a\n", "row 2, column output_tokens: \"1.5\" is not a whole number", "round");
    csv("0,1,one,a\n", "row 2, column output_tokens: \"one\" is not a number", "digits");
    csv("0,1,99999999999999999999,a\n", "row 2, column output_tokens: \"99999999999999999999\" is too large", "unit");
    csv("1795499444000,1,1,a\n", "row 2, column arrival_s: \"1795499444000\" is too large", "unit");
    csv("0,1,1,a\n1,1", "row 3: 2 fields, where the header has 4", "cut off");
    csv("0,1,1,a,b\n", "row 2: 5 fields, where the header has 4", "quotes");
    csv("0,1,1,\"a\n1,1,1,b\n", "row 2: a quote is opened in this row and never closed", "close it");
    check(
        "arrival_s,prompt_tokens,output_tokens,stream\n0,1,1,perhaps\n",
        "row 2, column stream: \"perhaps\" is neither true nor false",
        "true or false",
    );
    check("hello\n", "row 1: the format of this trace is unknown; it begins \"hello\"", "arrival_s,prompt_tokens");
    check("[\n{}\n]", "row 1: the format of this trace is unknown; it begins \"[\"", "jq -c");
    check(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n16.11.2023 18:15,1,1\n",
        "row 2, column TIMESTAMP: \"16.11.2023 18:15\" is not a time",
        "2026-11-24",
    );

    let log = |fields: &str, expect: &str, help: &str| {
        let first = REQUEST_LOG.lines().nth(1).unwrap();
        check(&format!("{first}\n{{\"event\":\"request\",{fields}"), expect, help);
    };
    log(
        r#""v":1,"ts":"2026-11-24T05:5"#,
        "row 2: not readable as JSON at byte 46: EOF while parsing a string",
        "cut off",
    );
    log(r#""v":2}"#, "row 2, column v: this version of the request log is not known here", "release");
    log(r#""v":1}"#, "row 2, column output_tokens: is empty", "fill it in");
    log(
        r#""v":1,"status":200,"output_tokens":1,"prompt_tokens":-3}"#,
        "row 2, column prompt_tokens: \"-3\" is negative",
        "from 0",
    );
    log(
        r#""v":1,"status":200,"output_tokens":1,"prompt_tokens":3,"ts":5}"#,
        "row 2, column ts: \"5\" is not a time",
        "write it as",
    );
    log(r#""v":1,"v":1}"#, "row 2: not readable as JSON at byte 28: duplicate field `v`", "repair");
    check(&format!("{MOONCAKE}5\n"), "row 5: this line is not a JSON object", "one object a line");
    check(
        &format!("{MOONCAKE}{{\"timestamp\":1,\"input_length\":1}}\n"),
        "row 5, column output_length: is empty",
        "fill",
    );
    check(
        &format!("{MOONCAKE}{{\"timestamp\":1,\"input_length\":1,\"output_length\":1,\"hash_ids\":3}}\n"),
        "row 5: not readable as JSON at byte 62: invalid type: integer `3`, expected a list of blocks in hash_ids",
        "repair",
    );
    let rejected = REQUEST_LOG.lines().nth(3).unwrap();
    check(rejected, "row 1: the trace has no requests", "1 that failed");
    check("request_id,startTime\n", "row 1: the header has no column prompt_tokens", "it has");
}

#[test]
fn bytes_that_are_not_text_are_told_from_a_wrong_format() {
    let check = |bytes: &[u8], expect: &str| {
        let fault = read_from(bytes, None).unwrap_err();
        assert!(format!("{fault} {}", fault.help).contains(expect), "{fault} {}", fault.help);
    };
    check(b"\x1f\x8b\x08\x00\x00", "gzip -dc");
    let list = read_from(&b"[{\"startTime\":1}]"[..], Some(Format::SpendLogs)).unwrap_err();
    assert!(list.help.contains("jq -c"), "{}", list.help);
    check(b"\xff\xfea\0r\0,\0", "iconv");
    check(b"arrival_s,prompt_tokens,output_tokens,model\n0,1,1,\xff\n", "column model: \"\u{fffd}\" is not UTF-8");
    check(
        b"arrival_s,prompt_tokens,output_tokens,model\n0,\xff,1,a\n",
        "column prompt_tokens: \"\u{fffd}\" is not a number",
    );
    check(b"{\"event\":\"request\",\"model\":\"\xff\"}\n", "not readable as JSON");
}

#[test]
fn an_input_that_breaks_is_told_with_its_row() {
    let check = |kind, expect: &str| {
        for size in [1, 7, 1000] {
            let text = b"arrival_s,prompt_tokens,output_tokens\n0,1,1\n1,2,3\n2,5";
            let broken = Chunked { rest: text, size, then: Some(kind) };
            let mut reader = Reader::new(BufReader::with_capacity(3, broken), None).unwrap();
            assert_eq!(reader.by_ref().take(2).flatten().count(), 2);
            let fault = reader.next().unwrap().unwrap_err();
            assert!(fault.to_string().starts_with(expect), "{fault}");
            assert!(reader.next().is_none());
        }
    };
    check(io::ErrorKind::UnexpectedEof, "row 4: the input ends too early");
    check(io::ErrorKind::InvalidData, "row 4: the input is damaged");
    check(io::ErrorKind::PermissionDenied, "row 4: the input cannot be read on");
}

#[test]
fn too_many_models_do_not_fill_the_memory() {
    let rows: String = (0..10_001).map(|number| format!("{number},1,1,model-{number}\n")).collect();
    let fault = read(&format!("arrival_s,prompt_tokens,output_tokens,model\n{rows}")).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "row 10002, column model: \"model-10000\" is one name more than the 10000 that are kept"
    );
}

#[test]
fn regions_are_merged_by_time() {
    let at = |times: &[u64]| -> Vec<Result<Arrival, &'static str>> {
        let one = Tokens(1);
        let request = Arrival {
            at: Nanos::ZERO,
            model: None,
            prompt_tokens: one,
            output_tokens: one,
            session: None,
            stream: true,
        };
        times.iter().map(|at| Ok(Arrival { at: Nanos(*at), ..request })).collect()
    };
    let order = |sources: Vec<Vec<Result<Arrival, &'static str>>>| -> Vec<(usize, Result<u64, &'static str>)> {
        merge(sources.into_iter().map(Vec::into_iter)).map(|(source, item)| (source, item.map(|a| a.at.0))).collect()
    };
    let merged = order(vec![at(&[0, 5, 5, 9]), vec![], at(&[0, 5, 7])]);
    assert_eq!(merged, [(0, Ok(0)), (2, Ok(0)), (0, Ok(5)), (0, Ok(5)), (2, Ok(5)), (2, Ok(7)), (0, Ok(9))]);
    let mut broken = at(&[1]);
    broken.push(Err("cut"));
    assert_eq!(order(vec![at(&[0, 2]), broken]), [(0, Ok(0)), (1, Ok(1)), (1, Err("cut")), (0, Ok(2))]);
    assert!(order(vec![]).is_empty());
}

/// Bytes that come near to a trace, so that a test gets past the first line.
fn nearly_a_trace() -> impl Strategy<Value = Vec<u8>> {
    let sample = prop::sample::select(vec![AZURE_CODE, MOONCAKE, REQUEST_LOG, SPEND_CSV, SPEND_JSON]);
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 0..6);
    (sample, edits, 1_usize..1500).prop_map(|(text, edits, length)| {
        let mut bytes = text.as_bytes()[..length.min(text.len())].to_vec();
        for (at, byte, insert) in edits {
            let at = at.index(bytes.len());
            if insert {
                bytes.insert(at, byte);
            } else {
                bytes[at] = byte;
            }
        }
        bytes
    })
}

fn formats() -> impl Strategy<Value = Option<Format>> {
    prop::option::of(prop::sample::select(Format::ALL.to_vec()))
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..600), format in formats()) {
        let _ = read_from(&bytes[..], format);
    }

    #[test]
    fn no_damage_is_too_strange(bytes in nearly_a_trace(), format in formats()) {
        if let Ok(arrivals) = read_from(&bytes[..], format) {
            prop_assert_eq!(arrivals[0].at, Nanos::ZERO);
            prop_assert!(arrivals.is_sorted_by_key(|arrival| arrival.at));
        }
    }

    #[test]
    fn how_the_input_is_cut_into_reads_does_not_show(bytes in nearly_a_trace(), size in 1_usize..200) {
        let chunked = Chunked { rest: &bytes, size, then: None };
        prop_assert_eq!(read_from(BufReader::with_capacity(size, chunked), None), read_from(&bytes[..], None));
    }

    #[test]
    fn what_is_written_is_what_is_read(
        rows in prop::collection::vec((0_u64..5_000_000, 0_u64..1_000_000, 0_u64..1_000_000), 1..50)
    ) {
        let mut micros = 0;
        let mut text = "arrival_s,prompt_tokens,output_tokens\n".to_owned();
        let mut expect = Vec::new();
        for (gap, prompt, output) in rows {
            micros += gap;
            text += &format!("{}.{:06},{prompt},{output}\n", micros / 1_000_000, micros % 1_000_000);
            expect.push((micros * 1000, prompt, output));
        }
        let first = expect[0].0;
        let got: Vec<_> = read(&text).unwrap().iter().map(|a| (a.at.0 + first, a.prompt_tokens.0, a.output_tokens.0)).collect();
        prop_assert_eq!(got, expect);
    }
}
