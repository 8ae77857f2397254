//! TensorRT-LLM: `trtllm-serve` has a gauge each (on `/prometheus/metrics`; `/metrics` is JSON there), Triton has one
//! name for all with the thing in a label.

use super::{Table, gauge, labelled};

pub(super) const TABLE: Table = Table {
    path: "/prometheus/metrics",
    running: &[
        &[gauge("trtllm_num_requests_running")],
        &[labelled("nv_trt_llm_request_metrics", "request_type", "scheduled")],
        &[labelled("nv_trt_llm_request_metrics", "request_type", "active")],
    ],
    waiting: &[
        &[gauge("trtllm_num_requests_waiting")],
        &[labelled("nv_trt_llm_request_metrics", "request_type", "waiting")],
    ],
    kv_usage: &[
        &[gauge("trtllm_kv_cache_utilization")],
        &[labelled("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type", "fraction")],
    ],
    only: &[],
};
