//! Which engine is recognised by which pages. The pages are those of real servers, shortened to what may count.

use bytes::Bytes;
use outrigger_wire::{
    engine::{Identity, Look, NotAList, Pages, Served, identify, read_models},
    metrics::Dialect,
};

const VLLM: &str = r#"{"object":"list","data":[
    {"id":"base","object":"model","created":1,"owned_by":"vllm","root":"org/base","parent":null,"max_model_len":8192},
    {"id":"sql","object":"model","created":1,"owned_by":"vllm","root":"/adapters/sql","parent":"base"}]}"#;
const LLAMACPP: &str = r#"{"models":[{"name":"tiny"}],"object":"list","data":[
    {"id":"tiny","aliases":["tiny"],"object":"model","owned_by":"llamacpp","meta":{"n_ctx":1024,"n_ctx_train":4096}}]}"#;

fn owned_by(owner: &str) -> Vec<Served> {
    read_models(format!(r#"{{"data":[{{"id":"m","owned_by":"{owner}"}}]}}"#).as_bytes()).expect("a list")
}

#[track_caller]
fn check(owner: &str, pages: &[(Look, &str)], expect: (Option<Dialect>, Option<&str>, Option<u64>, bool)) {
    let pages: Pages = pages.iter().map(|(look, body)| (*look, Bytes::copy_from_slice(body.as_bytes()))).collect();
    let (engine, version, slots, has_metrics) = expect;
    let expect = Identity { engine, version: version.map(str::to_owned), slots, has_metrics };
    assert_eq!(identify(&owned_by(owner), &pages), expect);
}

#[test]
fn each_engine_is_known_by_its_own_pages() {
    let vllm = [(Look::Version, r#"{"version":"0.33.0"}"#), (Look::Metrics, "# HELP vllm:num_requests_running x\n")];
    check("someone", &vllm, (Some(Dialect::Vllm), Some("0.33.0"), None, true));
    check("vllm", &vllm[..1], (Some(Dialect::Vllm), Some("0.33.0"), None, false));
    let sglang = [
        (Look::ModelInfo, r#"{"model_path":"org/m","is_generation":true}"#),
        (Look::ServerInfo, r#"{"version":"0.5.23","max_running_requests":7}"#),
        (Look::Loads, r#"{"loads":[{"max_running_requests":48},{"max_running_requests":48}]}"#),
    ];
    check("someone", &sglang, (Some(Dialect::Sglang), Some("0.5.23"), Some(96), false));
    check("sglang", &sglang[1..2], (Some(Dialect::Sglang), Some("0.5.23"), Some(7), false));
    let tgi = [
        (Look::Info, r#"{"model_id":"org/m","max_concurrent_requests":128,"version":"3.3.6"}"#),
        (Look::Metrics, "tgi_queue_size 0\n"),
    ];
    check("org/m", &tgi, (Some(Dialect::Tgi), Some("3.3.6"), Some(128), true));
    let llamacpp = [
        (Look::Props, r#"{"total_slots":8,"build_info":"b10434-1"}"#),
        (Look::Metrics, "llamacpp:requests_processing 0"),
    ];
    check("me", &llamacpp, (Some(Dialect::Llamacpp), Some("b10434-1"), Some(8), true));
    check("llamacpp", &[], (Some(Dialect::Llamacpp), None, None, false));
    let trtllm = [(Look::TrtllmMetrics, "# TYPE trtllm_num_requests_running gauge\n"), (Look::Metrics, "[]")];
    check("someone", &trtllm, (Some(Dialect::Trtllm), None, None, true));
    check(
        "tensorrt_llm",
        &[(Look::Version, r#"{"version":"1.2"}"#)],
        (Some(Dialect::Trtllm), Some("1.2"), None, false),
    );
    let dynamo = [(Look::Metrics, "dynamo_frontend_inflight_requests{model=\"m\"} 0\n")];
    check("vllm", &dynamo, (Some(Dialect::Dynamo), None, None, true));
}

#[test]
fn a_recorded_vllm_is_known_with_both_of_its_names() {
    let pages = [
        (Look::Version, include_str!("fixtures/page/vllm_0_32_version.json")),
        (Look::Metrics, include_str!("fixtures/metrics/vllm_0_32.txt")),
    ];
    check("someone", &pages, (Some(Dialect::Vllm), Some("0.32.0"), None, true));
    let all = read_models(include_bytes!("fixtures/page/vllm_0_32_models.json")).unwrap();
    let names: Vec<_> = all.iter().map(|model| (model.id.as_str(), model.root.as_deref(), model.context)).collect();
    assert_eq!(names, [("tiny", Some("./tiny"), Some(2_048)), ("twin", Some("./tiny"), Some(2_048))]);
    assert!(all.iter().all(|model| model.parent.is_none() && model.owned_by.as_deref() == Some("vllm")));
}

#[test]
fn what_half_of_all_servers_have_is_no_sign() {
    let common = [
        (Look::Version, r#"{"version":"1.0"}"#),
        (Look::Metrics, "http_requests_total 1\nnot_vllm:a 1\n"),
        (Look::Info, r#"{"version":"1"}"#),
        (Look::Props, "<html>vllm: total_slots</html>"),
    ];
    check("library", &common, (None, Some("1.0"), None, false));
    check("openai", &[], (None, None, None, false));
}

#[test]
fn models_are_listed_with_their_parents_and_context() {
    let all = read_models(VLLM.as_bytes()).unwrap();
    assert_eq!((all[0].id.as_str(), all[0].context, &all[0].parent), ("base", Some(8192), &None));
    assert_eq!((all[1].id.as_str(), all[1].context, all[1].parent.as_deref()), ("sql", None, Some("base")));
    assert_eq!(read_models(LLAMACPP.as_bytes()).unwrap()[0].context, Some(1024), "of a slot, not of the training");
    assert_eq!(read_models(br#"[{"id":"a"}]"#).unwrap().len(), 1, "a bare list");
}

#[test]
fn what_is_no_list_says_so_and_what_is_no_name_is_left_out() {
    assert_eq!(read_models(b"<html>"), Err(NotAList::NotJson));
    assert_eq!(read_models(br#"{"error":"no"}"#), Err(NotAList::OtherJson));
    assert_eq!(read_models(br#"{"data":{"id":"a"}}"#), Err(NotAList::OtherJson));
    let odd = format!(r#"{{"data":[{{"id":"a\nb"}},{{"id":7}},{{}},3,{{"id":""}},{{"id":"{}"}}]}}"#, "x".repeat(257));
    assert_eq!(read_models(odd.as_bytes()), Ok(vec![]));
    let many = format!("[{}]", vec![r#"{"id":"a"}"#; 5_000].join(","));
    assert_eq!(read_models(many.as_bytes()).unwrap().len(), 1_000);
}
