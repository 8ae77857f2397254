//! Bytes to typed events and back: the dialects of OpenAI and Anthropic, server-sent events, engine metrics.
//!
//! Everything here is a plain function of its input: no I/O, no clock, no async runtime, so that the gateway, the
//! fakes and a fuzzer call the same code. What a client or an engine sent is never re-serialised: a value is found by
//! its byte span in the original and only that span is replaced, because a body that went through a JSON tree comes
//! back with other number formats, other escapes and lost duplicates.
//!
//! Two words used throughout: a *fault* is an enum whose message may be shown to a client; a *span* is a byte range of
//! a JSON value in its original text, quotes included.

pub mod endpoint;
pub mod engine;
pub mod error;
pub mod json;
pub mod litellm;
pub mod metrics;
pub mod multipart;
pub mod request;
pub mod response;
pub mod retry_after;
pub mod sse;
pub mod stream;
pub mod typed;
