//! One fault each, and many at once.

use std::collections::BTreeSet;

use outrigger::config::{Code, Severity};
use outrigger_core::{
    fleet::{Affinity, BackendId, CloudId, Engine, GpuCount, KeyHash, ScaleCall, SecretRef},
    units::NanoUsd,
};

use super::{FLEET, check, edited, faults_of, found, load};

#[test]
fn a_fleet_without_a_fault_is_resolved() {
    check(FLEET, &[]);
    let fleet = load(FLEET).unwrap().fleet;
    assert_eq!(fleet.digest.len(), 16);
    let (llama, mini) = (fleet.backend(BackendId(0)), fleet.backend(BackendId(1)));
    assert_eq!((llama.cloud, llama.engine, llama.url.as_str()), (CloudId(0), Engine::Vllm, "http://10.0.0.7:8000/v1"));
    assert_eq!((mini.cloud, mini.url.as_str()), (CloudId(1), "https://api.openai.com/v1"));
    assert!(mini.token_price.is_some(), "from the price book");
    assert_eq!(fleet.pools[0].gpus, GpuCount { min: 8, max: 8, step: 1 });
    assert_eq!(fleet.clouds[1].api_key, Some(SecretRef::Env("OPENAI_API_KEY".to_owned())));
    assert_eq!(fleet.keys[0].sha256, [KeyHash::File("/etc/outrigger/prod.sha256".into())]);
    assert_eq!(fleet.models[0].affinity, Affinity::Session);
    assert_eq!(fleet.model_by_name("llama3"), fleet.model_by_name("llama-70b"));
    assert!(fleet.models[0].tiers[1].substitute);
}

#[test]
fn a_limit_that_the_replicas_cannot_keep_to_together_is_warned_about() {
    let with = |limit: u32| {
        FLEET
            .replace("  listen: 127.0.0.1:8080", "  listen: 127.0.0.1:8080\n  replicas: 8")
            .replace("    engine: vllm", &format!("    engine: vllm\n    max_in_flight: {limit}"))
    };
    check(&with(8), &[]);
    check(&with(7), &["w:limit_below_replicas@26:20"]);
}

/// A line of [`FLEET`], what stands there instead, and what is found.
const CASES: &[(usize, &str, &[&str])] = &[
    // Text and YAML.
    (1, "version: 1\nversion: 1", &["duplicate_key@2:1"]),
    (1, "%YAML 1.1\n---\nversion: 1", &["directive@1:1"]),
    (38, "---\nkeys:", &["many_documents@38:1"]),
    (1, "\tversion: 1", &["malformed_yaml@1:1"]),
    (6, "    region: a: b", &["malformed_yaml@6:14"]),
    (6, "    region: [a", &["malformed_yaml@7:9"]),
    (6, "    region: \"a", &["malformed_yaml@8:15"]),
    (6, "    region: &here east", &["anchor@6:13"]),
    (6, "    region: *here", &["anchor@6:13"]),
    (6, "    region: !!str east", &["tag@6:13"]),
    (6, "    <<: { region: east }", &["merge_key@6:5"]),
    (6, "    ? [a, b]\n    : c", &["bad_key@6:7"]),
    (6, "    region: no", &["ambiguous_scalar@6:13"]),
    (6, "    region: 017", &["ambiguous_scalar@6:13"]),
    (6, "    region: 1_000", &["ambiguous_scalar@6:13"]),
    (6, "    region: 12:30:00", &["ambiguous_scalar@6:13"]),
    (6, "    region: ~", &["ambiguous_scalar@6:13"]),
    (6, "    y: east", &["ambiguous_scalar@6:5", "unknown_key@6:5"]),
    (5, "  no:", &["ambiguous_scalar@5:3", "unknown_cloud@13:12"]),
    (6, "    : east", &["bad_key@6:5"]),
    (5, "  empty:\n  gpus-r-us:", &["wrong_type@5:3"]),
    (37, "        substitute: yes", &["ambiguous_scalar@37:21"]),
    (8, "    api_key: ${OPENAI_API_KEY}", &["unquoted_reference@8:14"]),
    (7, "  other: { api_key: ${OTHER_KEY} }\n  openai:", &["unquoted_reference@7:21"]),
    // Shape.
    (1, "version: 2", &["unsupported_version@1:10"]),
    (1, "", &["missing_key@2:1"]),
    (6, "    regoin: east", &["unknown_key@6:5"]),
    (6, "    nothing_like_it: east", &["unknown_key@6:5"]),
    (6, "    region: 7", &["wrong_type@6:13"]),
    (6, "    region:", &["wrong_type@6:5"]),
    (6, "    region: [east]", &["wrong_type@6:13"]),
    (5, "  gpus-r-us: east\n  other:", &["wrong_type@5:14"]),
    (26, "", &["missing_key@20:3"]),
    (26, "    modle: llama", &["unknown_key@26:5"]),
    (22, "    replicas: \"2\"", &["wrong_type@22:15"]),
    (22, "    replicas: 0", &["out_of_range@22:15"]),
    (22, "    replicas: 1.5", &["wrong_type@22:15"]),
    (24, "    engine: vlm", &["not_one_of@24:13"]),
    (24, "    engine: vllm\n    http: 3", &["not_one_of@25:11"]),
    (24, "    engine: vllm\n    metrics: pod", &["not_one_of@25:14"]),
    (34, "    mode: fastest\n    tiers:", &["not_one_of@34:11"]),
    (35, "      - split: { llama: 0.5 }", &["wrong_type@35:25"]),
    (35, "      - split: { llama: -1 }", &["out_of_range@35:25"]),
    (35, "      - llama", &["wrong_type@35:9"]),
    (40, "    sha256: []", &["empty@40:13"]),
    (40, "    sha256: file:a\n    models: []", &["empty@41:13"]),
    (33, "    queue: { max_waiting: 0, max_wait: 0s }\n    aliases: [llama3]", &[]),
    (33, "    queue: { max_waiting: -1 }\n    aliases: [llama3]", &["out_of_range@33:27"]),
    (33, "    queue: { max_wait: soon }\n    aliases: [llama3]", &["bad_duration@33:24"]),
    (33, "    queue: { max_wait: 11m }\n    aliases: [llama3]", &["timeouts_order@33:24"]),
    (33, "    queue: { most: 3 }\n    aliases: [llama3]", &["unknown_key@33:14"]),
    (40, "    sha256: file:a\n    priority: highest", &["not_one_of@41:15"]),
    (40, "    sha256: file:a\n    substitute: false", &["wrong_type@41:17"]),
    // Values.
    (3, "  drain: 30", &["bad_duration@3:10"]),
    (3, "  drain: 30 s", &["bad_duration@3:10"]),
    (3, "  drain: 900d", &["bad_duration@3:10"]),
    (3, "  limits: { body: 32 }", &["bad_size@3:19"]),
    (3, "  limits: { body: 32M }", &["bad_size@3:19"]),
    (3, "  limits: { body: 1GiB }", &["limits_order@3:19"]),
    (3, "  limits: { read_timeout: 0s }", &["bad_duration@3:27"]),
    (3, "  limits: { write_timeout: 0s }", &["bad_duration@3:28"]),
    (3, "  listen: 127.0.0.1", &["bad_address@3:11"]),
    (3, "  listen: \":8080\"", &["bad_address@3:11"]),
    (3, "  listen: http://127.0.0.1:8080", &["bad_address@3:11"]),
    (3, "  listen: 127.0.0.1:99999", &["bad_address@3:11"]),
    (3, "  admin: 127.0.0.1:8080", &["same_address@3:10"]),
    (3, "  admin: 0.0.0.0:8081", &["w:admin_exposed@3:10"]),
    (3, "  replicas: two", &["bad_reference@3:13"]),
    (25, "    url: 10.0.0.7:8000/v1", &["bad_url@25:10"]),
    (25, "    url: http:///v1", &["bad_url@25:10"]),
    (25, "    url: http://h:99999/v1", &["bad_url@25:10"]),
    (25, "    url: http://h/v1?key=1", &["bad_url@25:10"]),
    (25, "    url: http://h/v1/chat/completions", &["bad_url@25:10"]),
    (25, "    url: http://me:pw@h/v1", &["secret_in_file@25:10"]),
    (25, "    url: http://10.0.0.7:8000", &["w:url_without_path@25:10"]),
    (25, "", &["missing_url@20:3"]),
    (18, "      until: 2027-02-30", &["bad_date@18:14"]),
    (18, "      until: next year", &["bad_date@18:14"]),
    (17, "      usd_per_gpu_hour: -1", &["bad_price@17:25"]),
    (17, "      usd_per_gpu_hour: 0", &["w:zero_price@17:25"]),
    (17, "      usd_per_gpu_hour: .nan", &["ambiguous_scalar@17:25"]),
    (10, "      usd_per_hour: 0", &["bad_price@10:21"]),
    (8, "    api_key: sk-canary", &["secret_in_file@8:14"]),
    (8, "    api_key: \"${not a name}\"", &["bad_reference@8:14"]),
    (8, "    api_key: \"file:\"", &["bad_reference@8:14"]),
    (8, "    region: west", &["w:no_api_key@27:3"]),
    (40, "    sha256: sk-canary", &["bad_sha256@40:13"]),
    // Of `sk-1234`, and of nothing at all; the second also in a list and in capitals.
    (40, "    sha256: 88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b", &["weak_key@40:13"]),
    (40, "    sha256: [file:a, E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855]", &["weak_key@40:22"]),
    // TLS, headers and proxies.
    (3, "  tls: { cert: file:a, key: file:b }", &[]),
    (3, "  tls: { cert: file:a }", &["missing_key@3:3"]),
    (3, "  tls: { cert: \"${CERT}\", key: file:b }", &["bad_reference@3:16"]),
    (3, "  tls: { cert: file:a, key: abc }", &["bad_reference@3:29"]),
    (3, "  trusted_proxies: [10.0.0.0/8, \"fd00::/8\", 192.0.2.7]", &[]),
    (3, "  trusted_proxies: [10.0.0.0/33, proxy]", &["bad_address@3:21", "bad_address@3:34"]),
    (3, "  trusted_proxies: [0.0.0.0/0]", &["w:trusts_everyone@3:21"]),
    (24, "    engine: vllm\n    http: 2", &[]),
    (24, "    engine: vllm\n    ca: file:a", &["tls_unused@25:5"]),
    (24, "    engine: vllm\n    client_cert: { cert: file:a, key: file:b }", &["tls_unused@25:5"]),
    (28, "    cloud: openai\n    ca: file:a", &[]),
    (28, "    cloud: openai\n    ca: abc", &["bad_reference@29:9"]),
    (28, "    cloud: openai\n    client_cert: { cert: file:a }", &["missing_key@29:5"]),
    (24, "    engine: vllm\n    headers: { X-Team: a b, x-token: \"${TOKEN}\", x-other: file:a }", &[]),
    (24, "    engine: vllm\n    headers: { x-token: canary }", &["secret_in_file@25:25"]),
    (24, "    engine: vllm\n    headers: { Cookie: canary }", &["secret_in_file@25:24"]),
    (24, "    engine: vllm\n    headers: { x-team: \"$canary\" }", &["bad_reference@25:24"]),
    (24, "    engine: vllm\n    headers: { authorization: \"Basic ${TOKEN}\" }", &["bad_reference@25:31"]),
    (24, "    engine: vllm\n    headers: { x-team: \" a\" }", &["bad_header@25:24"]),
    (24, "    engine: vllm\n    headers: { x-team: \"\" }", &["bad_header@25:24"]),
    (24, "    engine: vllm\n    headers: { \"x team\": a }", &["bad_header@25:16"]),
    (24, "    engine: vllm\n    headers: { Host: a }", &["bad_header@25:16"]),
    (24, "    engine: vllm\n    headers: { x-a: a, X-A: b }", &["bad_header@25:24"]),
    (24, "    engine: vllm\n    headers: { x-a: 1 }", &["wrong_type@25:21"]),
    // Names and references.
    (5, "  GPUs R Us:", &["bad_name@5:3", "unknown_cloud@13:12"]),
    (13, "    cloud: gpu-r-us", &["unknown_cloud@13:12"]),
    (21, "    pool: bse", &["unknown_pool@21:11"]),
    (35, "      - split: { lama: 1 }", &["unknown_backend@35:18"]),
    (33, "    aliases: [llama-70b]", &["name_taken@33:15"]),
    (33, "    aliases: [x, x]", &["name_taken@33:18"]),
    (33, "    aliases: [\"two words\"]", &["bad_name@33:15"]),
    (40, "    sha256: file:a\n    models: [llama-7b]", &["unknown_model@41:14"]),
    (40, "    sha256: file:a\n    allowed_clouds: [azure]", &["unknown_cloud@41:22"]),
    (40, "    sha256: file:a\n  dev:\n    sha256: file:a", &["duplicate_hash@42:13"]),
    // Sums and pairs.
    (22, "    replicas: 3", &["pool_over_allocated@15:11"]),
    (24, "    engine: vllm\n    engine_model: {}", &["engine_model@25:5"]),
    (
        24,
        "    engine: vllm\n    engine_model: { measured: { file: m.csv, slots: 4 }, constant_rate: { slots: 4, tokens_per_second: 9 } }",
        &["engine_model@25:21"],
    ),
    (24, "    engine: vllm\n    engine_model: { measured: { file: m.csv } }", &["missing_key@25:21"]),
    (15, "    gpus: { max: 12, step: 8 }", &["gpus_step@15:18"]),
    (15, "    gpus: { min: 16, max: 8 }", &["gpus_range@15:18"]),
    (15, "    gpus: { min: 0, max: 4 }", &["pool_over_allocated@15:26"]),
    (15, "    gpus: 8\n    on_demand: { usd_per_gpu_hour: 4 }", &["pool_price@16:5"]),
    (16, "    not_a_price:", &["pool_price@12:3", "unknown_key@16:5"]),
    (21, "    pool: base\n    cloud: openai", &["backend_place@22:12"]),
    (21, "", &["backend_place@20:3"]),
    (24, "    engine: vllm\n    usd_per_million_tokens: { input: 1, output: 2 }", &["w:priced_twice@25:5"]),
    (30, "    model: gpt-99", &["price_unknown@27:3"]),
    (10, "      {}", &["empty@9:5"]),
    (6, "    spend_limit: { usd_per_day: 1 }", &["w:spend_limit_unused@6:5"]),
    (35, "      - split: { llama: 0 }", &["no_weight@35:9"]),
    (35, "      - split: {}", &["w:unused_backend@20:3", "no_weight@35:9"]),
    (36, "      - split: { mini: 1, llama: 0 }", &["w:zero_weight@36:34", "w:substitute_same_model@37:21"]),
    (37, "", &["w:mixed_models@36:18"]),
    (35, "      - split: { llama: 1 }\n        enter_when: { wait_above: 1s }", &["w:enter_when_first@36:9"]),
    (33, "    timeouts: { connect: 2s, total: 1s }", &["timeouts_order@33:26"]),
    (33, "    timeouts: { total: 500ms }", &["timeouts_order@33:24"]),
    (24, "    engine: vllm\n    timeouts: { idle: 11m }", &["timeouts_order@25:23"]),
];

#[test]
fn each_fault_is_found_once_at_its_place() {
    let wrong: Vec<String> = CASES
        .iter()
        .filter_map(|(line, with, expect)| {
            let found = found(&faults_of(edited(*line, with).as_bytes()));
            (found != *expect).then(|| format!("{line}: {with:?}\n  found  {found:?}\n  expect {expect:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_file_that_is_no_file_of_ours_has_one_fault() {
    check("", &["empty_file@1:1"]);
    check("# nothing yet\n", &["empty_file@1:1"]);
    check("- a\n- b\n", &["wrong_type@1:1"]);
    check("hello", &["wrong_type@1:1"]);
    check(&"[".repeat(100), &["too_deep@1:33"]);
    check(&"x".repeat((1 << 20) + 1), &["too_large@1:1"]);
    assert_eq!(found(&faults_of(b"version: 1\nbackends: \xff")), ["not_utf8@2:11"]);
}

#[test]
fn without_keys_only_loopback_is_listened_on() {
    let (open, _) = FLEET.split_once("keys:").unwrap();
    let open = open.replace("127.0.0.1:8080", "0.0.0.0:8080");
    check(&open, &["keys_required@3:11"]);
    check(&open.replace("0.0.0.0", "localhost"), &[]);
    check(&(open.clone() + "keys: {}\n"), &["keys_required@3:11"]);
    check(&(open + "keys: wrong\n"), &["wrong_type@38:7"]);
}

#[test]
fn more_clouds_than_a_bit_set_holds_are_refused() {
    let many = (0..128).fold(String::new(), |text, i| text + &format!("  c{i}: {{}}\n"));
    check(&FLEET.replace("clouds:\n", &format!("clouds:\n{many}")), &["too_many@4:1"]);
}

#[test]
fn a_number_too_large_to_be_one_is_not_dropped() {
    check(&edited(10, &format!("      usd_per_hour: {}", "9".repeat(400))), &["out_of_range@10:21"]);
    check(&edited(22, "    replicas: 99999999999999999999"), &["wrong_type@22:15"]);
    check(&edited(22, "    replicas: 4294967296"), &["out_of_range@22:15"]);
}

#[test]
fn json_is_read_as_well() {
    check(
        r#"{"version": 1, "clouds": {"c": {}}, "backends": {"b": {"cloud": "c", "engine": "vllm",
            "url": "http://10.0.0.7:8000/v1", "model": "m"}}, "models": {"m": {"tiers": [{"split": {"b": 1}}]}}}"#,
        &[],
    );
}

#[test]
fn every_fault_is_found_at_once() {
    let input = FLEET
        .replace("listen: 127.0.0.1:8080", "listen: 127.0.0.1")
        .replace("region: east", "regoin: east")
        .replace("usd_per_hour: 40", "usd_per_hour: -40")
        .replace("gpus: 8", "gpus: 6")
        .replace("until: 2027-05-31", "until: 2027-13-01")
        .replace("replicas: 2\n", "replicas: 2\n    drain: 30s\n")
        .replace("url: http:", "url: ftp:")
        .replace("model: gpt-4o-mini", "modell: gpt-4o-mini")
        .replace("{ llama: 1 }", "{ lama: 1 }")
        .replace("aliases: [llama3]", "aliases: [yes]\n    timeouts: { total: 30 }")
        .replace("file:prod.sha256", "sk-canary\n    priority: hihg");
    check(
        &input,
        &[
            "bad_address@3:11",
            "unknown_key@6:5",
            "bad_price@10:21",
            "pool_over_allocated@15:11",
            "bad_date@18:14",
            "unknown_key@23:5",
            "bad_url@26:10",
            "unknown_key@31:5",
            "ambiguous_scalar@34:15",
            "bad_duration@35:24",
            "unknown_backend@37:18",
            "bad_sha256@42:13",
            "not_one_of@43:15",
        ],
    );
}

#[test]
fn every_code_has_its_own_name() {
    let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(names.len(), Code::ALL.len());
    let is_snake = |name: &&str| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    assert!(names.iter().all(is_snake));
}

#[test]
fn paths_name_the_place() {
    for (line, with, path) in [
        (35, "      - split: { llama: -1 }", "models.llama-70b.tiers[0].split.llama"),
        (32, "  gpt-4.1:\n    a: 1", "models[\"gpt-4.1\"].a"),
        (6, "    region: &here east", "clouds.gpus-r-us.region"),
        (1, "", "version"),
    ] {
        let faults = faults_of(edited(line, with).as_bytes());
        let first = faults.iter().find(|fault| fault.code != Code::NotYetObeyed);
        assert_eq!(first.map(|fault| fault.path.as_str()), Some(path));
    }
}

#[test]
fn the_nearest_name_is_offered() {
    for (line, with, offer) in [
        (6, "    regoin: east", "`region`"),
        (24, "    engine: vlm", "`vllm`"),
        (21, "    pool: bse", "`base`"),
        (35, "      - split: { lama: 1 }", "`llama`"),
        (3, "  drain: 800", "800ms"),
        (25, "    url: http://10.0.0.7:8000", "http://10.0.0.7:8000/v1"),
        (8, "    api_key: ${KEY}", "\"${KEY}\""),
    ] {
        let faults = faults_of(edited(line, with).as_bytes());
        assert!(faults.iter().any(|fault| fault.help.contains(offer)), "{offer} in\n{faults}");
    }
}

#[test]
fn the_sum_over_a_pool_is_said_aloud() {
    let faults = faults_of(edited(22, "    replicas: 3").as_bytes());
    let fault = faults.iter().find(|fault| fault.code == Code::PoolOverAllocated).unwrap();
    assert_eq!(fault.message, "`base` has 8 GPUs, and its backends need 12: `llama` 3 × 4 = 12");
}

/// One row each of what is parsed and not obeyed.
#[test]
fn what_is_not_obeyed_yet_is_said_once_for_each_kind() {
    let kinds = |input: &str| -> Vec<usize> {
        let faults = faults_of(input.as_bytes());
        faults.iter().filter(|fault| fault.code == Code::NotYetObeyed).map(|fault| fault.line).collect()
    };
    let base = kinds(FLEET);
    for (line, with, at) in
        [(33, "    slo: { time_per_output_token_p95: 50ms }", 33), (3, "  replicas: dns:outrigger.svc", 3)]
    {
        let found = kinds(&edited(line, with));
        assert_eq!(found.len(), base.len() + 1, "{with}: {found:?}");
        assert!(found.contains(&at), "{with}: {found:?}");
    }
    for (line, with) in [(33, "    mode: cheapest"), (33, "    affinity: prefix"), (33, "    slo: { ttft_p95: 1s }")] {
        assert_eq!(kinds(&edited(line, with)).len(), base.len(), "obeyed: {with}");
    }
}

#[test]
fn a_cloud_that_the_price_book_knows_needs_no_egress_price() {
    let rate = |cloud: &str| {
        let loaded = load(&FLEET.replace("gpus-r-us", cloud)).unwrap();
        loaded.fleet.clouds[0].egress_usd_per_gb.map(NanoUsd::as_usd)
    };
    assert_eq!([rate("aws"), rate("coreweave"), rate("gpus-r-us")], [Some(0.09), Some(0.0), None]);
    let written = load(&FLEET.replace("gpus-r-us", "aws").replace("region: east", "egress_usd_per_gb: 0.05")).unwrap();
    assert_eq!(written.fleet.clouds[0].egress_usd_per_gb.map(NanoUsd::as_usd), Some(0.05), "the file wins");
}

#[test]
fn an_absent_secret_is_a_warning_of_check() {
    let mut loaded = load(FLEET).unwrap();
    loaded.report_absent(Severity::Warning, |_| false);
    assert_eq!(found(&loaded.warnings), ["w:secret_absent@8:14", "w:secret_absent@40:13"]);
    assert_eq!(loaded.warnings.count(Severity::Error), 0);
}

#[test]
fn a_file_of_nonsense_does_not_flood_its_reader() {
    let flood = (0..5000).fold(String::new(), |text, i| text + &format!("x{i}: 1\n"));
    assert_eq!(faults_of((FLEET.to_owned() + &flood).as_bytes()).count(Severity::Error), 1001);
}

/// [`FLEET`] with a second pool, on demand, that is scaled so. Its `scale` is on line 17, and the keys in it on those after.
fn scaled(scale: &str) -> String {
    let pool = "pools:\n  burst:\n    cloud: gpus-r-us\n    gpu: h100\n    gpus: { min: 0, max: 16, step: 8 }\n    \
                on_demand: { usd_per_gpu_hour: 4 }\n    scale:\n";
    FLEET.replace("pools:\n", &format!("{pool}{scale}\n"))
}

#[test]
fn how_a_pool_is_scaled_is_checked() {
    for (scale, expect) in [
        ("      exec: [scale-pool, burst]", &[][..]),
        ("      webhook: http://scaler:9000/pools/burst", &[]),
        ("      webhook: http://scaler:9000", &[]),
        ("      exec: [a]\n      max_usd_per_hour: 32\n      timeout: 2m\n      dry_run: false", &[]),
        ("      timeout: 1m", &["scale_call@17:5"]),
        ("      exec: [a]\n      webhook: http://scaler/x", &["scale_call@19:7"]),
        ("      exec: []", &["empty@18:13"]),
        ("      exec: [\"\", a]", &["scale_call@18:14"]),
        ("      exec: \"\"", &["wrong_type@18:13"]),
        ("      exec: [a, 7]", &["wrong_type@18:17"]),
        ("      webhook: ftp://scaler/x", &["bad_url@18:16"]),
        ("      webhook: scaler/x", &["bad_url@18:16"]),
        ("      webhook: http://me:pw@scaler/x", &["secret_in_file@18:16"]),
        ("      webhook: http://scaler/x?token=1", &["bad_url@18:16"]),
        ("      exec: [a]\n      timeout: 0s", &["bad_duration@19:16"]),
        ("      exec: [a]\n      max_usd_per_hour: 0", &["bad_price@19:25"]),
        ("      exec: [a]\n      max_usd_per_hour: 31.99", &["scale_budget@19:25"]),
        ("      exec: [a]\n      dry_run: yes", &["ambiguous_scalar@19:16"]),
        ("      exec: [a]\n      shell: true", &["unknown_key@19:7"]),
    ] {
        check(&scaled(scale), expect);
    }
    let fixed = "    gpus: 8\n    scale: { exec: [a] }";
    check(&edited(15, fixed), &["scale_unused@16:5"]);
    check(&scaled("      exec: [a]").replace("{ min: 0, max: 16, step: 8 }", "8"), &["scale_unused@17:5"]);
    let fleet = load(&scaled("      exec: [scale-pool, burst]\n      max_usd_per_hour: 63")).unwrap().fleet;
    let scale = fleet.pools[0].scale.as_ref().unwrap();
    assert_eq!(scale.call, ScaleCall::Exec(vec!["scale-pool".to_owned(), "burst".to_owned()]));
    assert_eq!((scale.timeout.as_secs(), scale.dry_run, scale.most_gpus(&fleet.pools[0])), (30, true, 8));
    check(&scaled("      webhook: https://scaler/x"), &[]);
}
