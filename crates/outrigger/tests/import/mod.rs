//! `outrigger import litellm`: what becomes of a configuration, as a library and as a command.

mod command;
mod never_panics;

use std::{path::Path, time::Duration};

use insta::assert_snapshot;
use outrigger::config;
use outrigger_import::{Imported, Inputs, Prices, Verdict, VirtualKey, import, parse_keys};

const KITCHEN: &str = include_str!("configs/kitchen.yaml");
const TOKEN: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// In 2027.
const NOW: Duration = Duration::from_hours(500_000);

fn env(name: &str) -> Option<String> {
    (name == "WEST_BASE").then(|| "http://10.1.0.7:8000/v1/".to_owned())
}

fn imported(text: &str, prices: &Prices, keys: &[VirtualKey]) -> Imported {
    let known_key = &config::weak::known_key;
    let inputs = Inputs { env: &env, prices, keys, now: NOW, known_key, is_served: false };
    import(text, &inputs).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// The fleet of a configuration, which passes `check`.
#[track_caller]
fn fleet(text: &str) -> String {
    let fleet = imported(text, &Prices::default(), &[]).fleet.expect("a fleet");
    config::load_str(&fleet, Path::new(".")).unwrap_or_else(|faults| panic!("{faults}\n{fleet}"));
    fleet
}

fn one(params: &str) -> String {
    format!(
        "model_list:\n  - model_name: m\n    litellm_params: {{ model: openai/m, api_base: 'http://a/v1', {params} }}\n"
    )
}

/// A group of two with these parameters.
fn two(first: &str, second: &str) -> String {
    let item = |params: &str| {
        format!("  - model_name: m\n    litellm_params: {{ model: openai/m, api_base: 'http://a/v1', {params} }}\n")
    };
    format!("model_list:\n{}{}", item(first), item(second))
}

/// The notes of one verdict, as `path: message`.
fn notes(text: &str, verdict: Verdict) -> Vec<String> {
    let report = imported(text, &Prices::default(), &[]).report;
    report.of(verdict).map(|note| format!("{}: {}", note.path, note.message)).collect()
}

#[track_caller]
fn says(text: &str, verdict: Verdict, expect: &str) {
    let notes = notes(text, verdict);
    assert!(notes.iter().any(|note| note.contains(expect)), "no {expect:?} in {notes:#?}");
}

#[test]
fn the_fleet_is_a_file_to_keep() {
    assert_snapshot!(fleet(KITCHEN));
}

#[test]
fn the_report_says_what_a_reader_has_to_decide() {
    assert_snapshot!(imported(KITCHEN, &Prices::default(), &[]).report.render());
}

#[test]
fn every_key_of_the_input_is_in_the_report_with_something_to_do() {
    let json = imported(KITCHEN, &Prices::default(), &[]).report.to_json();
    let notes: Vec<_> = json.as_object().unwrap().values().flat_map(|list| list.as_array().unwrap()).collect();
    for note in &notes {
        for key in ["path", "message", "help"] {
            assert!(note[key].as_str().is_some_and(|text| !text.is_empty()), "{note}");
        }
    }
    let paths: Vec<&str> = notes.iter().map(|note| note["path"].as_str().unwrap()).collect();
    for path in [
        "x-defaults",
        "model_list[0].model_name",
        "model_list[0].litellm_params.model",
        "model_list[0].litellm_params.api_base",
        "model_list[0].litellm_params.api_key",
        "model_list[0].litellm_params.weight",
        "model_list[0].litellm_params.timeout",
        "model_list[0].litellm_params.max_parallel_requests",
        "model_list[0].model_info.id",
        "model_list[0].model_info.max_input_tokens",
        "model_list[1].litellm_params.stream_timeout",
        "model_list[3].litellm_params.temperature",
        "model_list[3].litellm_params.input_cost_per_token",
        "model_list[4].litellm_params.model",
        "model_list[5].litellm_params.model",
        "model_list[6].litellm_params.rpm",
        "model_list[6].model_info.mode",
        "model_list[6].model_info.access_groups",
        "router_settings.routing_strategy",
        "router_settings.num_retries",
        "router_settings.model_group_alias.gpt-4",
        "router_settings.model_group_alias.gone",
        "router_settings.fallbacks",
        "router_settings.context_window_fallbacks",
        "litellm_settings.drop_params",
        "litellm_settings.request_timeout",
        "litellm_settings.callbacks",
        "litellm_settings.default_fallbacks",
        "general_settings.master_key",
        "general_settings.database_url",
        "guardrails",
    ] {
        assert!(paths.contains(&path), "{path} is missing in {paths:#?}");
    }
}

#[test]
fn no_secret_of_the_input_is_written_anywhere() {
    let Imported { fleet, report, secrets } = imported(KITCHEN, &Prices::default(), &[]);
    let shown = format!("{}{}{}{secrets:?}", fleet.unwrap(), report.render(), report.to_json());
    assert!(!shown.contains("CANARY") && !shown.contains("sk-1234"), "{shown}");
    assert!(shown.contains("LITELLM_KEY_OPENAI_GPT_4O_MINI"), "{shown}");
}

#[test]
fn weights_are_whole_and_shared_evenly_where_not_all_have_one() {
    assert!(fleet(&two("weight: 0.7", "weight: 0.3")).contains("{ m: 7, m-2: 3 }"));
    assert!(fleet(&two("rpm: 100", "rpm: 300")).contains("{ m: 1, m-2: 3 }"));
    let mixed = two("weight: 9", "");
    assert!(fleet(&mixed).contains("{ m: 1, m-2: 1 }"));
    says(&one("weight: heavy"), Verdict::Refused, "not a number of at least 0");
    says(&mixed, Verdict::Warning, "only 1 of 2 deployments of `m` have a `weight`");
    assert!(fleet(&two("order: 2", "order: 1")).contains("- split: { m-2: 1 }\n      - split: { m: 1 }"));
}

#[test]
fn what_litellm_does_although_it_looks_otherwise_is_warned_about() {
    says(&one(""), Verdict::Warning, "never gives it a cooldown");
    says(&one("stream_timeout: 1"), Verdict::Warning, "only after the first chunk");
    says(&one("api_key: sk-abc"), Verdict::Warning, "a secret is written out here");
    let short = format!("{}general_settings: {{ master_key: sk-mine }}\n", one(""));
    says(&short, Verdict::Warning, "fewer than 24 characters");
    let mixed = "model_list:\n- {model_name: m, litellm_params: {model: gpt-4o}}\n- {model_name: m, litellm_params: {model: gpt-4o-mini}}\n";
    says(mixed, Verdict::Warning, "serve different models");
}

#[test]
fn a_strategy_without_a_counterpart_is_refused_aloud() {
    for (strategy, mode) in
        [("simple-shuffle", ""), ("least-busy", "mode: latency"), ("cost-based-routing", "mode: cheapest")]
    {
        let text = format!("{}router_settings: {{ routing_strategy: {strategy} }}\n", one(""));
        assert!(fleet(&text).contains(mode), "{strategy}");
        assert!(notes(&text, Verdict::Refused).is_empty());
    }
    let text = format!("{}router_settings: {{ routing_strategy: usage-based-routing-v2 }}\n", one(""));
    says(&text, Verdict::Refused, "`usage-based-routing-v2` has no counterpart");
}

#[test]
fn names_that_a_fleet_does_not_take_stay_callable() {
    let text = "model_list:\n\
        - {model_name: 'Org/Model:X', litellm_params: {model: gpt-4o}}\n\
        - {model_name: org-model-x, litellm_params: {model: gpt-4o}}\n\
        - {model_name: '1', litellm_params: {model: gpt-4o}}\n\
        - {model_name: 'on', litellm_params: {model: gpt-4o}}\n\
        - {model_name: 'two words', litellm_params: {model: gpt-4o}}\n";
    let loaded = config::load_str(&fleet(text), Path::new(".")).unwrap().fleet;
    for name in ["Org/Model:X", "org-model-x", "1", "on"] {
        assert!(loaded.model_by_name(name).is_some(), "{name}");
    }
    says(text, Verdict::Refused, "a name with spaces or beyond ASCII cannot be asked for");
}

#[test]
fn a_file_without_a_model_that_can_be_served_says_why() {
    for (text, expect) in [
        ("", "there is no model in this file"),
        ("model_list: []", "there is no model in this file"),
        ("model_list: [{model_name: a}]", "does not say which model it is"),
        (
            "model_list: [{model_name: a, litellm_params: {model: bedrock/x}}]",
            "bedrock does not speak OpenAI's dialect",
        ),
        ("model_list: [{model_name: a, litellm_params: {model: 'openai/*'}}]", "is a wildcard"),
        ("model_list: [{model_name: a, litellm_params: {model: hosted_vllm/x}}]", "nothing says where"),
        (
            "model_list: [{model_name: a, litellm_params: {model: openai/x, api_base: os.environ/NO}}]",
            "NO, which is not set",
        ),
        (
            "model_list: [{model_name: a, litellm_params: {model: openai/x, api_base: 'http://u:p@h/v1'}}]",
            "not an address",
        ),
        (
            "model_list: [{model_name: a, litellm_params: {model: openai/w}, model_info: {mode: rerank}}]",
            "is for rerank",
        ),
    ] {
        assert!(imported(text, &Prices::default(), &[]).fleet.is_none(), "{text}");
        says(text, Verdict::Refused, expect);
    }
}

#[test]
fn prices_are_exact_and_those_of_the_file_come_first() {
    let prices = r#"{"gpt-4o": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 2.5e-06,
        "output_cost_per_token": 1e-05, "cache_read_input_token_cost": 1.25e-06},
        "dall-e-3": {"litellm_provider": "openai", "mode": "image_generation"}}"#;
    let prices = Prices::parse(prices).unwrap();
    let of = |params: &str| {
        let text = format!("model_list: [{{model_name: m, litellm_params: {{ model: openai/gpt-4o, {params} }}}}]");
        imported(&text, &prices, &[]).fleet.unwrap()
    };
    assert!(of("").contains("usd_per_million_tokens: { input: 2.5, output: 10, cached_input: 1.25 }"));
    assert!(of("input_cost_per_token: 0.000000123456789").contains("{ input: 0.123456789, output: 10,"));
    let own = of("api_base: 'http://a/v1'");
    assert!(!own.contains("usd_per"), "an engine of one's own is not billed by the token: {own}");
    let image = "model_list: [{model_name: m, litellm_params: {model: dall-e-3, custom_llm_provider: openai}}]";
    assert!(imported(image, &prices, &[]).fleet.is_none());
}

#[test]
fn exported_keys_keep_their_hashes_and_their_models() {
    let row = |n: u32, more: &str| format!(r#"{{"token":"{}{n:02}","key_alias":"Team {n}"{more}}}"#, &TOKEN[2..]);
    let rows = [
        row(1, r#","models":["m"],"max_parallel_requests":5"#),
        row(2, r#","models":["all-proxy-models"],"expires":"2030-01-01T00:00:00Z","max_budget":1"#),
        row(3, r#","blocked":true"#),
        row(4, r#","expires":"2020-01-01T00:00:00Z""#),
        row(5, r#","models":["elsewhere"]"#),
    ];
    let keys = parse_keys(&format!("[{}]", rows.join(","))).unwrap();
    let Imported { fleet, report, .. } = imported(&one(""), &Prices::default(), &keys);
    let fleet = config::load_str(&fleet.unwrap(), Path::new(".")).unwrap().fleet;
    let names: Vec<(&str, Option<usize>, Option<u32>)> =
        fleet.keys.iter().map(|k| (k.name.as_str(), k.models.as_ref().map(Vec::len), k.max_in_flight)).collect();
    assert_eq!(names, [("team-1", Some(1), Some(5)), ("team-2", None, None)]);
    let shown = report.render();
    for expect in ["expires on 2030-01-01", "max_budget", "`Team 5` is served here"] {
        assert!(shown.contains(expect), "{expect}: {shown}");
    }
}

/// The hash of `test`; the row before it has one that nobody can know.
#[test]
fn keys_that_everybody_knows_are_refused_aloud() {
    let keys =
        parse_keys(&format!(r#"[{{"token":"00{}"}},{{"token":"{TOKEN}","key_alias":"b"}}]"#, &TOKEN[2..])).unwrap();
    let Imported { fleet, report, .. } = imported(&one(""), &Prices::default(), &keys);
    let fleet = config::load_str(&fleet.unwrap(), Path::new(".")).unwrap().fleet;
    assert_eq!(fleet.keys.len(), 1);
    let shown = report.render();
    assert!(report.has(Verdict::Refused) && shown.contains("`b` is the key `test`, which everybody knows"), "{shown}");

    let text = format!("{}general_settings: {{ master_key: sk-1234 }}\n", one(""));
    says(&text, Verdict::Refused, "one that everybody knows; `check` and `serve` refuse its hash");
    let Imported { fleet, report, .. } = imported(&text, &Prices::default(), &[]);
    // Nothing suggests to write its hash, and the fleet does not hold it.
    assert!(!report.render().contains("key hash"), "{}", report.render());
    assert!(fleet.unwrap().contains("sha256: file:master.sha256"));
}

#[test]
fn the_same_file_gives_the_same_fleet() {
    assert_eq!(fleet(KITCHEN), fleet(KITCHEN));
}
