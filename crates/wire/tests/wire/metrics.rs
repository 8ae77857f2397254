//! Each engine's page, and the ways in which a page misleads.

use outrigger_wire::metrics::{Dialect, EngineSignals, read};

fn check(dialect: Dialect, page: &str, running: Option<f64>, waiting: Option<f64>, kv_usage: Option<f64>) {
    assert_eq!(read(dialect, page.as_bytes()), EngineSignals { running, waiting, kv_usage }, "{dialect:?}\n{page}");
}

macro_rules! page {
    ($name:literal) => {
        include_str!(concat!("fixtures/metrics/", $name, ".txt"))
    };
}

#[test]
fn pages() {
    check(Dialect::Vllm, page!("vllm_0_33"), Some(21.0), Some(3.0), Some(0.8125));
    // It takes the free blocks from all: 63 of 95.
    check(Dialect::Vllm, page!("vllm_0_32"), Some(4.0), Some(3.0), Some(1.0 - 63.0 / 95.0));
    check(Dialect::Vllm, page!("vllm_0_9"), Some(1.0), None, Some(0.25));
    check(Dialect::Vllm, page!("vllm_rust_openmetrics"), Some(4.0), Some(2.0), Some(0.5));
    check(Dialect::Vllm, page!("nim_1"), Some(5.0), Some(1.0), Some(0.125));
    check(Dialect::Sglang, page!("sglang_priority"), Some(14.0), Some(5.0), Some(0.28));
    check(Dialect::Sglang, page!("sglang_loads"), Some(5.0), Some(1.0), Some(0.5));
    check(Dialect::Tgi, page!("tgi"), Some(16.0), Some(7.0), None);
    check(Dialect::Trtllm, page!("trtllm"), Some(3.0), Some(2.0), Some(0.75));
    check(Dialect::Trtllm, page!("triton"), Some(6.0), Some(2.0), Some(0.5));
    check(Dialect::Llamacpp, page!("llamacpp"), Some(2.0), Some(5.0), None);
    check(Dialect::Dynamo, page!("dynamo"), Some(5.0), Some(2.0), Some(0.33));
}

#[test]
fn a_missing_gauge_is_not_zero() {
    for dialect in Dialect::ALL {
        check(dialect, "", None, None, None);
        check(dialect, "<html>502 Bad Gateway</html>", None, None, None);
    }
    check(Dialect::Sglang, "sglang:num_grammar_queue_reqs 4\n", None, None, None);
}

#[test]
fn a_gauge_that_is_no_number_is_missing() {
    for bad in ["NaN", "+Inf", "-1"] {
        let page =
            format!("vllm:num_requests_running{{engine=\"0\"}} 3\nvllm:num_requests_running{{engine=\"1\"}} {bad}\n");
        check(Dialect::Vllm, &page, None, None, None);
    }
}

#[test]
fn lines_that_cannot_be_read_are_skipped() {
    let page = "vllm:num_requests_running{engine=\"0\" 3\nvllm:num_requests_running\nvllm:num_requests_running{} x\n\
                vllm:num_requests_running_total 9\nvllm:num_requests_running{engine=\"0\",} 2\r\n";
    check(Dialect::Vllm, page, Some(2.0), None, None);
}
