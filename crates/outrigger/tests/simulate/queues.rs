//! The mean wait of a queue that theory knows, through the command, from a fleet file and a CSV.

use std::fmt::Write as _;

use outrigger_core::Rng;
use rand_core::{Rng as _, SeedableRng as _};

use super::{file, simulate};

const SLOTS: u32 = 4;
const RHO: f64 = 0.7;
const REQUESTS: usize = 400_000;

fn unit(rng: &mut Rng) -> f64 {
    ((rng.next_u64() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64
}

#[test]
fn the_mean_wait_is_erlangs() {
    let fleet = format!(
        "version: 1\nclouds: {{ here: {{}} }}\nbackends:\n  b:\n    cloud: here\n    engine: vllm\n    url: http://b.internal:8000/v1\n    \
         model: m\n    engine_model: {{ constant_rate: {{ slots: {SLOTS}, tokens_per_second: 10000 }} }}\nmodels:\n  m:\n    tiers:\n      \
         - split: {{ b: 1 }}\n"
    );
    let fleet = file("queue.yaml", fleet.as_bytes());
    let mut rng = Rng::seed_from_u64(11);
    let mut csv = "arrival_s,prompt_tokens,output_tokens\n".to_owned();
    let mut at = 0.0;
    for _ in 0..REQUESTS {
        at -= unit(&mut rng).ln() / (f64::from(SLOTS) * RHO);
        let tokens = (-unit(&mut rng).ln() * 10_000.0).round().max(1.0);
        writeln!(csv, "{at:.6},0,{tokens}").unwrap();
    }
    let args = ["--trace", "-", "--json", "--fleet", fleet.to_str().unwrap()];
    let ran = simulate(&args, csv.as_bytes());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let report = ran.json();
    assert_eq!((report["requests"].as_u64(), report["failed"].as_u64()), (Some(REQUESTS as u64), Some(0)));
    // Erlang C for four servers.
    let load = f64::from(SLOTS) * RHO;
    let below = 1.0 + load + load.powi(2) / 2.0 + load.powi(3) / 6.0;
    let last = load.powi(4) / 24.0 / (1.0 - RHO);
    let expected_ms = last / (below + last) / (f64::from(SLOTS) * (1.0 - RHO)) * 1e3;
    let got = report["backends"]["b"]["wait_ms"]["mean"].as_f64().unwrap();
    assert!((got / expected_ms - 1.0).abs() < 0.03, "{got} ms instead of {expected_ms} ms");
}
