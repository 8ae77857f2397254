//! How an attempt can end, and the record that is kept of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    cost::Cost,
    fleet::BackendId,
    units::{Bytes, Tokens},
};

/// Why an attempt failed, as seen from the gateway. What it means for the backend is decided in `state::health`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The address does not resolve.
    Dns,
    /// Nothing listens there.
    Refused,
    ConnectTimeout,
    Tls,
    /// The connection died before the first byte of an answer.
    Reset,
    HeadersTimeout,
    FirstTokenTimeout,
    /// The whole request ran out of time.
    TotalTimeout,
    /// 5xx that is not backpressure.
    Status(u16),
    /// 429 or 503: backpressure.
    Overloaded {
        status: u16,
        retry_after: Option<Duration>,
    },
    /// 401 or 403: our key is not accepted there.
    Auth,
    /// 404, or an answer by another model than the one asked for.
    WrongModel,
    /// Not JSON, not server-sent events, or too large.
    BadBody,
    /// The stream broke after content.
    Cut,
    /// The stream went silent after content.
    Stalled,
    /// The backend was found dead while it held the request.
    Abandoned,
    /// Ours: no free port, no file descriptor, no memory.
    Local,
}

impl Fault {
    pub fn is_server_error(self) -> bool {
        matches!(self, Self::Status(500))
    }

    /// The connection died, or never came to be: another attempt is free once.
    pub fn is_dead_connection(self) -> bool {
        matches!(self, Self::Dns | Self::Refused | Self::ConnectTimeout | Self::Tls | Self::Reset | Self::Abandoned)
    }

    /// A death that was found out by waiting: requests went on to strand until then.
    pub fn is_silent_death(self) -> bool {
        matches!(self, Self::ConnectTimeout | Self::Abandoned)
    }

    /// The word for logs, metrics and error bodies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Refused => "refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "tls",
            Self::Reset => "reset",
            Self::HeadersTimeout => "headers_timeout",
            Self::FirstTokenTimeout => "first_token_timeout",
            Self::TotalTimeout => "total_timeout",
            Self::Status(_) => "server_error",
            Self::Overloaded { status: 429, .. } => "rate_limited",
            Self::Overloaded { .. } => "overloaded",
            Self::Auth => "auth",
            Self::WrongModel => "wrong_model",
            Self::BadBody => "bad_body",
            Self::Cut => "cut",
            Self::Stalled => "stalled",
            Self::Abandoned => "abandoned",
            Self::Local => "local",
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    Ok,
    /// The backend said that the request is wrong; it is passed on and never held against the backend.
    ClientError(u16),
    /// The client hung up.
    ClientGone,
    Failed(Fault),
}

/// How a request or an attempt ended, in the words of the request log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Ok,
    ClientError,
    UpstreamError,
    Timeout,
    Cut,
    ClientGone,
    Rejected,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ClientError => "client_error",
            Self::UpstreamError => "upstream_error",
            Self::Timeout => "timeout",
            Self::Cut => "cut",
            Self::ClientGone => "client_gone",
            Self::Rejected => "rejected",
        }
    }
}

impl From<End> for Outcome {
    fn from(end: End) -> Self {
        match end {
            End::Ok => Self::Ok,
            End::ClientError(_) => Self::ClientError,
            End::ClientGone => Self::ClientGone,
            End::Failed(Fault::Cut | Fault::Stalled) => Self::Cut,
            End::Failed(
                Fault::ConnectTimeout
                | Fault::HeadersTimeout
                | Fault::FirstTokenTimeout
                | Fault::TotalTimeout
                | Fault::Abandoned,
            ) => Self::Timeout,
            End::Failed(_) => Self::UpstreamError,
        }
    }
}

/// Tokens of one attempt, and who counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub prompt: Tokens,
    pub output: Tokens,
    pub cached: Tokens,
    pub source: TokensSource,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokensSource {
    /// The engine reported them.
    Engine,
    /// Counted by events, or guessed from bytes.
    #[default]
    Estimated,
}

/// One finished attempt, handed to a sink: the request log now, the ledger later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    pub backend: BackendId,
    pub tier: u8,
    pub end: End,
    /// Why this backend was chosen.
    pub reason: crate::route::Reason,
    pub ttft: Option<Duration>,
    pub duration: Duration,
    pub usage: Usage,
    pub bytes_out: Bytes,
    pub bytes_in: Bytes,
    pub cost: Cost,
}
