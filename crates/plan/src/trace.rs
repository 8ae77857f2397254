//! Requests to simulate: when each arrives, how long its prompt is and how long its answer.

use outrigger_core::units::{Nanos, Tokens};

/// One request of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Since the trace's beginning.
    pub at: Nanos,
    /// Index of the model's name in the list of names that the reader keeps; `None` where the trace names none.
    pub model: Option<u16>,
    pub prompt_tokens: Tokens,
    pub output_tokens: Tokens,
    /// Requests of one session have the same value.
    pub session: Option<u64>,
    /// Whether the answer streams.
    pub stream: bool,
}

/// What is wrong with a trace, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("row {row}: {message}")]
pub struct TraceFault {
    pub row: u64,
    pub column: Option<String>,
    pub message: String,
    pub help: String,
}
