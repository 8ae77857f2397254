//! Text Generation Inference: no gauge tells its KV usage.

use super::{Table, gauge};

pub(super) const TABLE: Table = Table {
    path: "/metrics",
    running: &[&[gauge("tgi_batch_current_size")]],
    waiting: &[&[gauge("tgi_queue_size")]],
    kv_usage: &[],
    only: &[],
};
