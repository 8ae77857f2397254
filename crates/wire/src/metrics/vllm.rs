//! vLLM: one series per engine core (`engine="0"…`). `gpu_cache_usage_perc` is the name up to 0.9; NIM 1.x serves the
//! same gauges without the prefix.

use super::{Table, gauge};

pub(super) const TABLE: Table = Table {
    path: "/metrics",
    running: &[&[gauge("vllm:num_requests_running")], &[gauge("num_requests_running")]],
    waiting: &[
        &[gauge("vllm:num_requests_waiting")],
        &[gauge("vllm:num_requests_waiting_by_reason")],
        &[gauge("num_requests_waiting")],
    ],
    kv_usage: &[
        &[gauge("vllm:kv_cache_usage_perc")],
        &[gauge("vllm:gpu_cache_usage_perc")],
        &[gauge("kv_cache_usage_perc")],
        &[gauge("gpu_cache_usage_perc")],
    ],
    only: &[],
};
