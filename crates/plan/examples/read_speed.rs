//! How fast traces are read: `cargo run --release -p outrigger-plan --example read_speed`.
//!
//! Rows are made in memory before the clock runs, so that no disk is measured. For each format the fastest of five runs
//! is printed, since anything else on the machine only makes a run slower; and what generating costs.
#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "a measurement needs a clock")]
#![expect(clippy::disallowed_macros, reason = "it prints what it measured")]

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use outrigger_core::units::Tokens;
use outrigger_plan::trace::{Quantiles, RateCurve, Reader, generate};

const ROWS: usize = 2_000_000;
const RUNS: usize = 5;

fn main() {
    report("csv", "arrival_s,prompt_tokens,output_tokens\n", |text, row| {
        writeln!(text, "{}.{:06},{},{}", row / 50, row % 50 * 20_000, 100 + row * 7 % 8000, row * 13 % 1500)
    });
    report("csv, 6 columns", "arrival_s,prompt_tokens,output_tokens,model,session,stream\n", |text, row| {
        let (model, session) = (row % 3, row % 1000);
        writeln!(text, "{}.{:06},{},{},model-{model},u{session},true", row / 50, row % 50, row * 7 % 8000, row % 1500)
    });
    report("azure as published", "TIMESTAMP,ContextTokens,GeneratedTokens\n", |text, row| {
        let (hour, minute, second) = (row / 360_000, row / 6000 % 60, row / 100 % 60);
        writeln!(text, "2024-05-10 {hour:02}:{minute:02}:{second:02}.{:06}+00:00,{},5", row % 100, row * 7 % 8000)
    });
    report("mooncake", "", |text, row| {
        let blocks: Vec<_> = (row..row + 15).collect();
        writeln!(
            text,
            "{{\"timestamp\": {row}, \"input_length\": 6755, \"output_length\": 500, \"hash_ids\": {blocks:?}}}"
        )
    });
    report("request-log", "", |text, row| {
        let (minute, second, milli) = (row / 60_000 % 60, row / 1000 % 60, row % 1000);
        writeln!(
            text,
            r#"{{"event":"request","v":1,"ts":"2026-11-24T05:{minute:02}:{second:02}.{milli:03}Z","request_id":"req_aa7d53529cfc7ee26756ad81","fleet":"b6285b2b7adff2da","key_id":null,"model":"llama-70b","stream":false,"status":200,"outcome":"ok","prompt_tokens":2,"output_tokens":4,"cached_tokens":0,"tokens_source":"engine","ttft_ms":null,"duration_ms":105.339,"tier":1,"reason":"failover","attempts":[{{"backend":"south-llama","outcome":"ok","reason":"failover","ttft_ms":null,"duration_ms":101.873,"prompt_tokens":2,"output_tokens":4,"bytes_out":83,"bytes_in":623,"cost_nano_usd":{{"gpu":0,"tokens":0,"egress":0}}}}]}}"#
        )
    });
    let rate = RateCurve::constant(1000.0, Duration::from_secs(2000));
    let tokens = Quantiles::constant(Tokens(500), Tokens(100));
    let (rows, took) = fastest(|| generate(rate.clone(), tokens.clone(), 1, None).count());
    print("generated", rows, 0, took);
}

fn report(name: &str, header: &str, write: impl Fn(&mut String, usize) -> std::fmt::Result) {
    let mut text = header.to_owned();
    for row in 0..ROWS {
        write(&mut text, row).expect("a string takes all that is written");
    }
    let (rows, took) = fastest(|| {
        let reader = Reader::new(text.as_bytes(), None).expect("the header is right");
        reader.inspect(|arrival| assert!(arrival.is_ok(), "the rows are right")).count()
    });
    print(name, rows, text.len(), took);
}

fn fastest(run: impl Fn() -> usize) -> (usize, Duration) {
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let began = Instant::now();
        let rows = run();
        runs.push((rows, began.elapsed()));
    }
    runs.into_iter().min_by_key(|(_, took)| *took).expect("there are runs")
}

fn print(name: &str, rows: usize, bytes: usize, took: Duration) {
    let seconds = took.as_secs_f64();
    let (rows, megabytes) = (rows as f64 / seconds / 1e6, bytes as f64 / seconds / 1e6);
    println!("{name:20} {rows:6.2} M rows/s  {megabytes:6.0} MB/s");
}
