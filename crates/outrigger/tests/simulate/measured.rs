//! `engine_model: { measured }`: an engine of which the fleet file has its own measurements.

use super::{Ran, file, simulate};

const HEADER: &str = "model,system,gpus,backend,precision,isl,osl,concurrency,ttft_ms,tpot_ms\n";

/// An engine that needs 10 ms and 0.5 ms a prompt token for the first token, and 20 ms for each other with one running.
fn rows(model: &str) -> String {
    let mut rows = String::new();
    for prompt in [50, 200, 800] {
        for running in [1, 2, 4] {
            let (ttft, tpot) = (10.0 + 0.5 * f64::from(prompt), 15.0 + 5.0 * f64::from(running));
            rows += &format!("{model},cpu,1,llamacpp,f32,{prompt},16,{running},{ttft},{tpot}\n");
        }
    }
    rows
}

/// Ten requests of 400 and 11 tokens, one after the other or all at once.
fn play(name: &str, table: Option<&str>, apart: u32) -> Ran {
    if let Some(table) = table {
        file(&format!("{name}.csv"), table.as_bytes());
    }
    let fleet = format!(
        "version: 1\nclouds: {{ here: {{}} }}\nbackends:\n  own:\n    cloud: here\n    engine: llamacpp\n    url: http://own/v1\n    \
         model: m\n    engine_model: {{ measured: {{ file: {name}.csv, slots: 4 }} }}\nmodels:\n  m:\n    tiers:\n      \
         - split: {{ own: 1 }}\n"
    );
    let fleet = file(&format!("{name}.yaml"), fleet.as_bytes());
    let rows: String = (0..10).map(|i| format!("{},400,11\n", i * apart)).collect();
    let trace = format!("arrival_s,prompt_tokens,output_tokens\n{rows}");
    simulate(&["--json", "--fleet", fleet.to_str().unwrap(), "--trace", "-"], trace.as_bytes())
}

#[test]
fn an_engine_is_as_fast_as_it_was_measured() {
    let ran = play("measured", Some(&format!("{HEADER}{}", rows("m"))), 10);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "nothing stands in for anything");
    let own = &ran.json()["backends"]["own"];
    assert_eq!(own["engine_model"], "measured on m on 1 x cpu with llamacpp (f32)");
    let mean = |what: &str| own[what]["mean"].as_f64().unwrap();
    assert!((mean("ttft_ms") / 210.0 - 1.0).abs() < 0.03, "{own}");
    assert!((mean("end_to_end_ms") / 410.0 - 1.0).abs() < 0.03, "{own}");
}

#[test]
fn it_runs_as_many_at_once_as_it_has_slots() {
    let ran = play("slots", Some(&format!("{HEADER}{}", rows("m"))), 0);
    let wait = &ran.json()["backends"]["own"]["wait_ms"];
    assert!(wait["mean"].as_f64().unwrap() > 100.0, "six of ten wait: {wait}");
    assert!(wait["p95"].as_f64().unwrap() > 2.0 * 300.0, "the last ones for two answers: {wait}");
}

#[test]
fn a_table_that_cannot_be_meant_is_refused() {
    let two = format!("{HEADER}{}{}", rows("m"), rows("n"));
    let wrong = format!("{HEADER}m,cpu,1,llamacpp,f32,50,16,1,fast,20\n");
    for (name, table, code, says) in [
        ("absent", None, 3, "absent.csv"),
        ("two", Some(two.as_str()), 2, "2 engines"),
        ("none", Some(HEADER), 2, "0 engines"),
        ("wrong", Some(wrong.as_str()), 2, "row 2, column ttft_ms"),
    ] {
        let ran = play(name, table, 1);
        assert_eq!(ran.code, Some(code), "{name}: {}", ran.err);
        assert!(ran.err.contains(says), "{name}: {}", ran.err);
    }
}
