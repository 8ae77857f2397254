//! The ways to break, each with its name in JSON.
//!
//! What acts on "the connection" does so over HTTP/1.1 and HTTP/2 alike. Where HTTP/1.1 has no other way to end one
//! answer early than to break the connection (`reset`, `cut`), over HTTP/2 only the request's own stream is reset.

use std::{borrow::Cow, str::FromStr};

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Cow<'static, str>", try_from = "String")]
pub enum FaultKind {
    /// The listener is closed and every open connection reset.
    Refuse,
    /// Nothing is accepted (a connect times out) and nothing more is read or written on open connections. The kernel
    /// still acknowledges what a client sends on those.
    Blackhole,
    /// A new connection is taken, and then nothing is said on it: a handshake of TLS that never ends. Open connections go on.
    Mute,
    /// A new connection is closed as soon as its client has said something: a handshake of TLS that breaks off.
    HelloCut,
    /// The process exits with 137. In a library fake without `on_kill` it acts as `refuse`.
    Kill,
    /// Each step takes `factor` (10) times as long.
    Slow,
    /// The request is read; no byte of an answer comes.
    Hang,
    /// A TCP reset as soon as the request has been read; over HTTP/2 a reset of the stream.
    Reset,
    /// The connection is closed by FIN as soon as the request has been read, without a byte of an answer, and without
    /// GOAWAY.
    Close,
    /// A TCP reset instead of an answer, but never for the first request on a connection (of any path): the race of a
    /// kept connection. The first is answered as if there were no fault, and does not count as struck.
    CloseReused,
    /// This status, 307 or 400 to 599, in place of an answer; its name is the number. 307 is a redirect to another
    /// host. 413, 502, 504 and 505 have the page of a proxy, the others what the engine would say.
    Status(u16),
    /// 400 with the code `context_length_exceeded` (in the hosted API's form).
    ContextLength,
    /// 400 with the code `content_filter` (in the hosted API's form).
    ContentFilter,
    /// A reset inside a chunk after `after_tokens` (3); a body shorter than its Content-Length for non-streams.
    Cut,
    /// As `cut`, but the connection ends by FIN, over HTTP/2 with everything on it and the stream not ended.
    CutEnd,
    /// Nothing more after `after_tokens` (3), the connection stays open.
    Stall,
    /// 200 and headers at once, with a Content-Length for non-streams, and then nothing.
    HeadersStall,
    /// After `after_tokens` (3) only SSE comments, one every 50 ms, without end. Streams only.
    Comments,
    /// `delay_ms` (200) between tokens, and a whole end; a non-stream comes in eight pieces so far apart. It counts
    /// as answered.
    Trickle,
    /// The answer names another model.
    WrongModel,
    /// 200 with a body that is not JSON, or no SSE.
    Garbage,
    /// Bytes that are no HTTP in place of an answer, then the connection is closed.
    BadHttp,
    /// A stream is answered with a whole answer, 200 and application/json. Streams only.
    PlainJson,
    /// One event with broken JSON in place of token number `after_tokens` (3); the stream then goes on.
    MalformedSse,
    /// An error event of code `status` (500) after `after_tokens` (0) in the dialect's form, and no last event; with
    /// `choices` a `[DONE]` follows, as vLLM does. Non-streams: that status.
    ErrorEvent,
    /// A stream that ends after `after_tokens` (3) as vLLM ends it on its own SIGTERM: finish reason "abort", status
    /// "cancelled" within `response.completed`, a stop reason of null.
    Abort,
    /// As `abort` with the finish reason "error": `response.failed` for responses, an error event for messages (a whole
    /// message: 500).
    FinishError,
    /// A clean end after `after_tokens` (all) without a finish reason and without `[DONE]`, or without the events that
    /// end a typed stream. Streams only.
    MissingDone,
    /// A complete stream that only lacks its `[DONE]`; typed streams have none and stay whole. Streams only.
    NoDone,
    /// GOAWAY that disowns every request, before any byte of the answer, and then FIN; over HTTP/1.1 as `close`.
    Goaway,
    /// A graceful GOAWAY after `after_tokens` (3): the answer ends whole and counts as answered, and the next request
    /// needs another connection. Over HTTP/1.1 the answer says `Connection: close`.
    GoawayLate,
    /// An answer with neither length nor chunks, whole when its connection is closed, as HTTP/1.0 had it. It counts as
    /// answered. HTTP/1.1 only.
    Unframed,
    /// As `unframed`, but TLS does not say that this was all (no `close_notify`), so that nobody can tell it from a cut.
    /// Without TLS there is no difference to be seen. HTTP/1.1 only.
    UnframedCut,
}

impl FaultKind {
    /// Every kind, with those statuses that have a body of their own.
    pub const ALL: [Self; 49] = [
        Self::Refuse,
        Self::Blackhole,
        Self::Mute,
        Self::HelloCut,
        Self::Kill,
        Self::Slow,
        Self::Hang,
        Self::Reset,
        Self::Close,
        Self::CloseReused,
        Self::Status(307),
        Self::Status(400),
        Self::Status(401),
        Self::Status(403),
        Self::Status(404),
        Self::Status(405),
        Self::Status(408),
        Self::Status(413),
        Self::Status(415),
        Self::Status(422),
        Self::Status(429),
        Self::Status(500),
        Self::Status(501),
        Self::Status(502),
        Self::Status(503),
        Self::Status(504),
        Self::Status(505),
        Self::ContextLength,
        Self::ContentFilter,
        Self::Cut,
        Self::CutEnd,
        Self::Stall,
        Self::HeadersStall,
        Self::Comments,
        Self::Trickle,
        Self::WrongModel,
        Self::Garbage,
        Self::BadHttp,
        Self::PlainJson,
        Self::MalformedSse,
        Self::ErrorEvent,
        Self::Abort,
        Self::FinishError,
        Self::MissingDone,
        Self::NoDone,
        Self::Goaway,
        Self::GoawayLate,
        Self::Unframed,
        Self::UnframedCut,
    ];

    /// As in JSON.
    pub fn name(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Status(status) => return Cow::Owned(status.to_string()),
            Self::Refuse => "refuse",
            Self::Blackhole => "blackhole",
            Self::Mute => "mute",
            Self::HelloCut => "hello_cut",
            Self::Kill => "kill",
            Self::Slow => "slow",
            Self::Hang => "hang",
            Self::Reset => "reset",
            Self::Close => "close",
            Self::CloseReused => "close_reused",
            Self::ContextLength => "context_length",
            Self::ContentFilter => "content_filter",
            Self::Cut => "cut",
            Self::CutEnd => "cut_end",
            Self::Stall => "stall",
            Self::HeadersStall => "headers_stall",
            Self::Comments => "comments",
            Self::Trickle => "trickle",
            Self::WrongModel => "wrong_model",
            Self::Garbage => "garbage",
            Self::BadHttp => "bad_http",
            Self::PlainJson => "plain_json",
            Self::MalformedSse => "malformed_sse",
            Self::ErrorEvent => "error_event",
            Self::Abort => "abort",
            Self::FinishError => "finish_error",
            Self::MissingDone => "missing_done",
            Self::NoDone => "no_done",
            Self::Goaway => "goaway",
            Self::GoawayLate => "goaway_late",
            Self::Unframed => "unframed",
            Self::UnframedCut => "unframed_cut",
        })
    }

    pub(super) fn per_request(self) -> bool {
        !matches!(self, Self::Refuse | Self::Blackhole | Self::Mute | Self::HelloCut | Self::Kill | Self::Slow)
    }

    pub(super) fn default_after_tokens(self) -> u32 {
        match self {
            Self::Cut
            | Self::CutEnd
            | Self::Stall
            | Self::Comments
            | Self::MalformedSse
            | Self::Abort
            | Self::FinishError
            | Self::GoawayLate => 3,
            Self::MissingDone => u32::MAX,
            _ => 0,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no fault is named {0:?}; there are: {names} and every status from 400 to 599",
    names = FaultKind::ALL.map(FaultKind::name).join(", ")
)]
pub struct UnknownFault(String);

impl FromStr for FaultKind {
    type Err = UnknownFault;

    fn from_str(name: &str) -> Result<Self, UnknownFault> {
        let status = name.parse().ok().filter(|status| can_be_answered(*status) && name.len() == 3);
        let named = || Self::ALL.into_iter().find(|kind| kind.name() == name);
        status.map(Self::Status).or_else(named).ok_or_else(|| UnknownFault(name.to_owned()))
    }
}

impl TryFrom<String> for FaultKind {
    type Error = UnknownFault;

    fn try_from(name: String) -> Result<Self, UnknownFault> {
        name.parse()
    }
}

impl From<FaultKind> for Cow<'static, str> {
    fn from(kind: FaultKind) -> Self {
        kind.name()
    }
}

/// Whether a fault may put this status in place of an answer.
pub(super) fn can_be_answered(status: u16) -> bool {
    status == 307 || (400..600).contains(&status)
}
