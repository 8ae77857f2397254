//! What people and programs see of a fault; and that neither sees a secret.

use super::{edited, faults_of};

/// Uses nothing that this release does not obey, so that the pictures stay as they are.
const SMALL: &str = "\
version: 1
clouds:
  here: {}
backends:
  llama: { cloud: here, engine: vllm, url: http://10.0.0.7:8000/v1, model: llama }
models:
  llama:
    tiers:
      - split: { llama: 1 }
";

#[test]
fn people_see_the_line_and_what_to_do() {
    let input = SMALL.replace("engine: vllm", "engine: vlm").replace(":8000/v1", ":8000").replace("tiers", "teirs");
    insta::assert_snapshot!(faults_of(input.as_bytes()).render(false));
}

#[test]
fn colours_are_there_when_asked_for() {
    let input = SMALL.replace("llama: 1 }", "lama: 1 }");
    insta::assert_snapshot!(faults_of(input.as_bytes()).render(true).escape_debug());
}

#[test]
fn a_long_line_is_shown_in_part() {
    let input =
        SMALL.replace("{}", &format!("{{ region: x, many: [{}*x, {}] }}", "a, ".repeat(100), "b, ".repeat(100)));
    insta::assert_snapshot!(faults_of(input.as_bytes()).render(false));
}

#[test]
fn programs_see_json() {
    let input = SMALL.replace("cloud: here", "cloud: hare").replace(":8000/v1", ":8000");
    insta::assert_json_snapshot!(faults_of(input.as_bytes()).to_json());
}

#[test]
fn a_secret_is_never_shown() {
    for (line, with) in [
        (8, "    api_key: CANARY"),
        (8, "    api_key: [CANARY]"),
        (8, "    api_key: { a: CANARY }"),
        (8, "    api_key:\n      CANARY"),
        (8, "    api_key: |\n      CANARY"),
        (8, "    api_key: \"${A}\"\n    api_key:\n      !x CANARY"),
        (8, "    api_key:\n      \"CANARY"),
        (8, "    api_key:\n      CANARY: x: y"),
        (8, "    api_key:\n    - &a CANARY"),
        (8, "    api_key: !secret CANARY"),
        (8, "    api_key: &CANARY x"),
        (8, "    api_key: CANARY: x"),
        (8, "    api_key: \"CANARY"),
        (8, "    api_key: ${sk-CANARY}"),
        (7, "  openai: { api_key: ${sk-CANARY} }\n  x:"),
        (7, "  openai: { api_key: CANARY, nonsense: 1 }\n  x:"),
        (8, "    apikey: CANARY"),
        (8, "    api-key: CANARY"),
        (8, "    secret: CANARY"),
        (8, "    region: x api_key: CANARY"),
        (40, "    sha256: CANARY"),
        (40, "    sha256: [CANARY, file:a]"),
        (40, "    sha256:\n      - file:a\n      - CANARY"),
        (40, "    sha256: file:a\n    password: CANARY"),
        (25, "    url: http://me:CANARY@h/v1"),
        (25, "    url: http://CANARY@h:99999/v1"),
        (25, "    url: \"http://me:CANARY@h/v1"),
        (3, "  tls: { cert: CANARY, key: CANARY }"),
    ] {
        let faults = faults_of(edited(line, with).as_bytes());
        for shown in [faults.render(true), faults.to_json().to_string(), format!("{faults}")] {
            assert!(!shown.contains("CANARY"), "{with}\n{shown}");
        }
    }
}
