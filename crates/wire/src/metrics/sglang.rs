//! SGLang (with `--enable-metrics`): with priority scheduling a total row `priority=""` stands beside one row per
//! priority, and with `--enable-metrics-for-all-schedulers` every tensor- or pipeline-parallel rank repeats its group's
//! numbers; both would be counted twice. Data-parallel ranks are separate queues and are summed. Requests that wait for
//! a grammar, or for the other side of a disaggregated pair, are in queues of their own.

use super::{Table, gauge};

pub(super) const TABLE: Table = Table {
    path: "/metrics",
    running: &[&[gauge("sglang:num_running_reqs")], &[gauge("sglang_num_running_reqs")]],
    waiting: &[
        &[
            gauge("sglang:num_queue_reqs"),
            gauge("sglang:num_grammar_queue_reqs"),
            gauge("sglang:num_prefill_bootstrap_queue_reqs"),
            gauge("sglang:num_decode_prealloc_queue_reqs"),
            gauge("sglang:num_decode_transfer_queue_reqs"),
        ],
        // `/v1/loads?format=prometheus`
        &[gauge("sglang_num_queue_reqs")],
        &[gauge("sglang_num_waiting_reqs")],
    ],
    kv_usage: &[&[gauge("sglang:token_usage")], &[gauge("sglang_token_usage")]],
    only: &[("priority", ""), ("tp_rank", "0"), ("pp_rank", "0"), ("moe_ep_rank", "0")],
};
