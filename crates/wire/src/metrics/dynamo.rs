//! NVIDIA Dynamo's frontend: its queue includes the requests in prefill, up to their first token. The KV gauge is named
//! percent and is a share.

use super::{Table, gauge};

pub(super) const TABLE: Table = Table {
    path: "/metrics",
    running: &[&[gauge("dynamo_frontend_inflight_requests")]],
    waiting: &[&[gauge("dynamo_frontend_queued_requests")]],
    kv_usage: &[&[gauge("dynamo_component_kvstats_gpu_cache_usage_percent")]],
    only: &[],
};
