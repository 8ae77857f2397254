//! The fleet file: which faults are found, and where.

mod command;
mod examples;
mod faults;
mod never_panics;
mod rendering;

use std::path::Path;

use outrigger::config::{Code, Faults, Loaded, Severity, load_bytes};

/// A fleet without a fault, on numbered lines for the cases to edit.
const FLEET: &str = r#"version: 1
gateway:
  listen: 127.0.0.1:8080
clouds:
  gpus-r-us:
    region: east
  openai:
    api_key: "${OPENAI_API_KEY}"
    spend_limit:
      usd_per_hour: 40
pools:
  base:
    cloud: gpus-r-us
    gpu: h100
    gpus: 8
    reserved:
      usd_per_gpu_hour: 2.39
      until: 2027-05-31
backends:
  llama:
    pool: base
    replicas: 2
    gpus_per_replica: 4
    engine: vllm
    url: http://10.0.0.7:8000/v1
    model: meta-llama/Llama-3.3-70B-Instruct
  mini:
    cloud: openai
    engine: openai
    model: gpt-4o-mini
models:
  llama-70b:
    aliases: [llama3]
    tiers:
      - split: { llama: 1 }
      - split: { mini: 1 }
        substitute: true
keys:
  prod:
    sha256: file:prod.sha256
"#;

/// [`FLEET`] with one line (from 1) replaced.
fn edited(line: usize, with: &str) -> String {
    let mut lines: Vec<&str> = FLEET.lines().collect();
    lines[line - 1] = with;
    lines.join("\n") + "\n"
}

fn load(input: &str) -> Result<Loaded, Faults> {
    load_bytes("fleet.yaml", input.as_bytes(), Path::new("/etc/outrigger"))
}

fn faults_of(input: &[u8]) -> Faults {
    match load_bytes("fleet.yaml", input, Path::new("/etc/outrigger")) {
        Ok(loaded) => loaded.warnings,
        Err(faults) => faults,
    }
}

/// `code@line:column` of every fault; warnings start with `w:`. What is not obeyed yet is left out.
fn found(faults: &Faults) -> Vec<String> {
    let word = |severity| if severity == Severity::Warning { "w:" } else { "" };
    faults
        .iter()
        .filter(|fault| fault.code != Code::NotYetObeyed)
        .map(|f| format!("{}{}@{}:{}", word(f.severity), f.code, f.line, f.column))
        .collect()
}

#[track_caller]
fn check(input: &str, expect: &[&str]) {
    let faults = faults_of(input.as_bytes());
    assert_eq!(found(&faults), expect, "in\n{input}\nfound\n{faults}");
    assert!(faults.iter().all(|fault| !fault.help.is_empty() && !fault.message.is_empty()), "{faults}");
}
