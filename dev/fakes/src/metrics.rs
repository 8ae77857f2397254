//! `/metrics` as vLLM writes it: the six series that a router reads, with vLLM's names and labels.
//!
//! Written by hand: a metrics library would own the counters, and here the engine does.

use std::fmt::Write as _;

use http::{HeaderValue, Response, header};

use crate::{
    body::AnswerBody,
    engine::{Engine, TTFT_BUCKETS},
};

pub(crate) fn page(engine: &Engine) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::full(text(engine)));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn text(engine: &Engine) -> String {
    let load = engine.load();
    let profile = engine.profile();
    let labels = format!("engine=\"0\",model_name=\"{}\"", profile.model);
    let kv = load.kv_tokens as f64 / profile.kv_tokens as f64;
    let mut page = String::new();
    let mut series = |name: &str, kind: &str, help: &str, sample: &str, value: f64| {
        // Writing to a String cannot fail.
        let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n{sample}{{{labels}}} {value:?}\n");
    };
    let (running, waiting) = ("vllm:num_requests_running", "vllm:num_requests_waiting");
    series(running, "gauge", "Number of requests in model execution batches.", running, load.running as f64);
    series(waiting, "gauge", "Number of requests waiting to be processed.", waiting, load.waiting as f64);
    let usage = "vllm:kv_cache_usage_perc";
    series(usage, "gauge", "KV-cache usage. 1 means 100 percent usage.", usage, kv);
    let (prompt, generation) = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total");
    series("vllm:prompt_tokens", "counter", "Number of prefill tokens processed.", prompt, load.prompt as f64);
    series(
        "vllm:generation_tokens",
        "counter",
        "Number of generation tokens processed.",
        generation,
        load.generated as f64,
    );
    page.push_str(&ttft(engine, &labels));
    page
}

fn ttft(engine: &Engine, labels: &str) -> String {
    let name = "vllm:time_to_first_token_seconds";
    let histogram = engine.ttft();
    let mut page = format!("# HELP {name} Histogram of time to first token in seconds.\n# TYPE {name} histogram\n");
    let mut below = 0;
    for (upper, count) in TTFT_BUCKETS.iter().zip(histogram.buckets) {
        below += count;
        let _ = writeln!(page, "{name}_bucket{{{labels},le=\"{upper:?}\"}} {:?}", below as f64);
    }
    let count = histogram.count as f64;
    let _ = writeln!(page, "{name}_bucket{{{labels},le=\"+Inf\"}} {count:?}");
    let _ = writeln!(page, "{name}_count{{{labels}}} {count:?}\n{name}_sum{{{labels}}} {:?}", histogram.sum_s);
    page
}
