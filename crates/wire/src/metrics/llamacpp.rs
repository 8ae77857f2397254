//! llama-server (with `--metrics`): the KV ratio is gone since mid-2025 and read where it is still there.

use super::{Table, gauge};

pub(super) const TABLE: Table = Table {
    path: "/metrics",
    running: &[&[gauge("llamacpp:requests_processing")]],
    waiting: &[&[gauge("llamacpp:requests_deferred")]],
    kv_usage: &[&[gauge("llamacpp:kv_cache_usage_ratio")]],
    only: &[],
};
