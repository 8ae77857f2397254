//! What engines say of their own load: where it shows, and that nothing else hangs on it.

use serde_json::Value;

use super::{
    Engines, Gateway, LLAMA_70B, eventually, hello,
    http::{Recorder, answer},
    one_backend,
};

fn backend(gateway: &Gateway) -> Value {
    gateway.admin_get("/api/v1/state").json()["backends"][0].clone()
}

/// The value of a series of the metrics page whose line begins so and holds all of these.
pub(super) fn series(gateway: &Gateway, name: &str, labels: &[&str]) -> Option<f64> {
    let page = gateway.admin_get("/metrics").text();
    let is_it = |line: &&str| line.starts_with(&format!("{name}{{")) && labels.iter().all(|l| line.contains(l));
    page.lines().find(is_it).map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
}

fn scrapes(gateway: &Gateway, result: &str) -> f64 {
    series(gateway, "outrigger_scrapes_total", &["backend=\"b\"", &format!("result=\"{result}\"")]).unwrap_or(0.0)
}

fn page(running: &str, waiting: &str) -> Vec<u8> {
    let text = format!(
        "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{{engine=\"0\"}} {running}\n\
         vllm:num_requests_running{{engine=\"1\"}} 1\n{waiting}"
    );
    answer("200 OK", "text/plain; version=0.0.4", &text)
}

const TWO_WAIT: &str = "vllm:num_requests_waiting{engine=\"0\"} 2.0\n";

#[test]
fn an_engines_own_load_shows_within_seconds() {
    let engines = Engines::instant(1);
    let gateway = Gateway::start("signals", &one_backend(&engines.url(0)));
    // The first reading may meet the first probe.
    eventually("its load", || backend(&gateway)["engine"]["running"] == 0);
    let engine = &backend(&gateway)["engine"];
    assert_eq!(engine["waiting"], 0);
    assert!(engine["age_s"].as_f64().is_some_and(|age| (0.0..10.0).contains(&age)), "{engine}");
    for name in ["running", "waiting"] {
        let labels = ["backend=\"b\"", "cloud=\"c\"", "region=\"\""];
        assert_eq!(series(&gateway, &format!("outrigger_engine_{name}"), &labels), Some(0.0));
    }
    assert!(series(&gateway, "outrigger_engine_signal_age_seconds", &["backend=\"b\""]).is_some_and(|age| age < 10.0));
    assert!(scrapes(&gateway, "ok") >= 1.0);
}

#[test]
fn a_page_that_cannot_be_read_reports_nothing_and_costs_nothing() {
    let engine = Recorder::start(LLAMA_70B);
    engine.answers(page("3", TWO_WAIT));
    let fleet = one_backend(&engine.url());
    let gateway = Gateway::start("signals_faulty", &fleet);
    eventually("its load", || backend(&gateway)["engine"]["running"] == 4);
    assert_eq!(backend(&gateway)["engine"]["waiting"], 2);
    let asked = engine.all().into_iter().find(|r| r.head.starts_with("GET /metrics HTTP/1.1\r\n")).unwrap();
    assert_eq!(asked.header("host"), Some(engine.address.to_string().as_str()));

    // Each of these is told apart, and the last good reading only grows old.
    for (fault, result) in
        [(page("3", ""), "no_gauges"), (answer("501 Not Implemented", "application/json", "{}"), "absent")]
    {
        engine.answers(fault);
        eventually(result, || scrapes(&gateway, result) >= 1.0);
    }
    let shown = backend(&gateway);
    assert_eq!((&shown["engine"]["running"], &shown["engine"]["waiting"]), (&4.into(), &2.into()));
    assert!(shown["engine"]["age_s"].as_f64().is_some_and(|age| age > 4.0), "{shown}");
    assert!(matches!(shown["state"].as_str(), Some("up" | "slow_start")), "{shown}");
    assert_eq!(series(&gateway, "outrigger_attempts_total", &[]), None, "no request was made of it");
}

#[test]
fn where_metrics_are_off_or_the_api_is_hosted_nobody_asks() {
    let hosted = Recorder::start(LLAMA_70B);
    let silent = Recorder::start(LLAMA_70B);
    let control = Engines::instant(1);
    let fleet = one_backend(&control.url(0)).replace(
        "models:\n",
        &format!(
            "  hosted:\n    cloud: c\n    engine: openai\n    url: {}/v1\n    model: {LLAMA_70B}\n  quiet:\n    cloud: c\n    \
             engine: vllm\n    metrics: none\n    url: {}/v1\n    model: {LLAMA_70B}\nmodels:\n",
            hosted.url(),
            silent.url(),
        ),
    );
    let gateway = Gateway::start("signals_off", &fleet);
    eventually("the others' load", || scrapes(&gateway, "ok") >= 2.0);
    assert_eq!(gateway.chat(&hello()).status, 200);
    for recorder in [&hosted, &silent] {
        assert!(recorder.all().iter().all(|r| r.head.starts_with("POST ")));
    }
    let backends = gateway.admin_get("/api/v1/state").json()["backends"].clone();
    assert!(backends[1]["engine"].is_null() && backends[2]["engine"].is_null(), "{backends}");
    for name in ["hosted", "quiet"] {
        assert_eq!(series(&gateway, "outrigger_engine_running", &[&format!("backend=\"{name}\"")]), None);
    }
}

/// One address of two replicas: half of the load is not the load.
#[test]
fn pods_that_are_not_all_there_report_nothing() {
    let engines = Engines::instant(1);
    let url = engines.url(0);
    let pods = |replicas: u32| {
        let place = format!("    engine: vllm\n    metrics: pods\n    replicas: {replicas}\n");
        one_backend(&url).replace("    engine: vllm\n", &place)
    };
    let gateway = Gateway::start("signals_pods", &pods(2));
    eventually("a reading", || scrapes(&gateway, "missing_pods") >= 1.0);
    assert!(backend(&gateway)["engine"].is_null());
    std::fs::write(gateway.fleet_file(), pods(1)).unwrap();
    gateway.json(&["reload"]);
    eventually("its load after the reload", || backend(&gateway)["engine"].is_object());
}
