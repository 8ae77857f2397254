//! How fast an engine answers, at concurrency levels that nobody measured.
//!
//! In: measured closed-loop points (time to first token and time per output token at a number of concurrent requests).
//! Out: a prediction for any prompt length, answer length and concurrency, and the [`Curve`] that the simulator steps.
//!
//! A prediction is a law times a correction. The law (`law.rs`) has few terms, each with a meaning: weights read,
//! KV cache read, prefill that interrupts decoding, requests that wait because memory is full. It is fitted per engine
//! and gets within about 2 % (TPOT) and 7 % (TTFT) of an unseen level in the median. The correction (`kriging.rs`)
//! is a smooth function fitted to what the law leaves over, and carries what neighbouring levels, prompt lengths and
//! GPU counts have in common. Straight lines between measured levels, the obvious other way, know nothing of the
//! neighbours and are kept as the baseline in [`evaluate`].
//!
//! How good (the built-in table, every interior level left out in turn, all rows counted): TPOT 1.2 % off in the median
//! and 6.5 % at the 90th percentile, TTFT 4.6 % and 22.5 %; straight lines 2.1, 8.7, 5.9 and 35.7 %. TTFT is held back by
//! rows that repeat badly: TensorRT-LLM on the 8B model starts up inside the measurement. Reproduce with
//! `cargo test -p outrigger-plan --release figures -- --ignored --nocapture`.
//!
//! Edges: an engine without a measured point has no prediction; beyond the measured range the law extrapolates and the
//! correction fades out.

mod builtin;
mod curve;
mod evaluate;
mod kriging;
mod law;
mod model;
mod rows;

pub use builtin::{builtin, lookup};
pub use curve::Curve;
pub use evaluate::{Evaluation, Quantiles, RelativeErrors, evaluate};
pub use model::{PerfModel, Prediction};
pub use rows::{Key, Row, RowFault, read_rows};
