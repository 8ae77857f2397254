//! The rules as data: `matrix.yaml`, one row for each fault and what is right when it strikes.
//!
//! A row is multiplied by what it does not name itself: two versions of HTTP, four endpoints, streams and whole
//! answers. `rule` is a heading of docs/failure-matrix.md, where the reason stands.

use outrigger_fakes::Fault;
use serde::{Deserialize, Serialize};

use crate::cell::Cell;

const TEXT: &str = include_str!("matrix.yaml");

#[derive(Debug, thiserror::Error)]
#[error("matrix.yaml: {0}")]
pub struct MatrixError(String);

#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct Matrix(Vec<Row>);

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub id: String,
    pub rule: String,
    /// What the engine does, in the words of its own `/faults`.
    #[serde(default)]
    pub fault: Option<Fault>,
    /// Which engines do it: the first of two tiers, or both.
    #[serde(default)]
    pub on: On,
    /// How the engines are addressed.
    #[serde(default)]
    pub reach: Reach,
    /// What the engines that break show from then on, where they are reached over TLS.
    #[serde(default)]
    pub certificate: Option<Certificate>,
    /// What becomes of the first engine's name.
    #[serde(default)]
    pub name: Option<Naming>,
    /// Requests before the fault, whose answers are not judged and are not in the counts.
    #[serde(default)]
    pub warm: u32,
    /// Between the fault and the first request.
    #[serde(default)]
    pub pause_ms: u64,
    #[serde(default = "Protocol::all")]
    pub protocols: Vec<Protocol>,
    #[serde(default = "Endpoint::all")]
    pub endpoints: Vec<Endpoint>,
    #[serde(default = "Form::all")]
    pub forms: Vec<Form>,
    /// Requests that go before and whose answers are not judged.
    #[serde(default)]
    pub before: u32,
    /// Requests one after another; each has to be answered as expected, and the counts are of all.
    #[serde(default = "once")]
    pub requests: u32,
    #[serde(default)]
    pub client: Behaviour,
    pub expect: Expected,
}

fn once() -> u32 {
    1
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    #[default]
    First,
    Both,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    #[default]
    Plain,
    /// The first by a name that nobody has.
    Unresolvable,
    /// The first by https, on a port that speaks plain HTTP.
    NoTls,
    /// Both over TLS.
    Tls,
    /// The first by a name that the lab's own name server answers for.
    Named,
}

impl Reach {
    /// Whether the first engine can be reached before the fault.
    pub fn is_healthy(self) -> bool {
        !matches!(self, Self::Unresolvable | Self::NoTls)
    }
}

/// What a name comes to mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Naming {
    /// There is no such name any more.
    Gone,
    /// The name server says that it fails.
    ServerFails,
    /// The name server says nothing.
    Silent,
    /// It means a third engine, like the first.
    Moved,
    /// As `moved`; but what was said before holds for an hour more.
    MovedEarly,
    /// It means a closed port before the first engine.
    OneRefuses,
    /// It means an engine that takes no connection before the first one.
    OneBlackHole,
}

/// What an engine shows over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Certificate {
    Good,
    Expired,
    AnotherName,
    /// Issued by an authority that the gateway does not believe.
    UnknownIssuer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    #[serde(rename = "h1")]
    Http1,
    #[serde(rename = "h2")]
    Http2,
}

impl Protocol {
    fn all() -> Vec<Self> {
        vec![Self::Http1, Self::Http2]
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "h1",
            Self::Http2 => "h2",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    Chat,
    Completions,
    Responses,
    Messages,
}

impl Endpoint {
    fn all() -> Vec<Self> {
        vec![Self::Chat, Self::Completions, Self::Responses, Self::Messages]
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Responses => "responses",
            Self::Messages => "messages",
        }
    }

    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Responses => "/v1/responses",
            Self::Messages => "/v1/messages",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    Stream,
    Whole,
}

impl Form {
    fn all() -> Vec<Self> {
        vec![Self::Stream, Self::Whole]
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Whole => "whole",
        }
    }
}

/// What the client does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Behaviour {
    #[default]
    Reads,
    /// Leaves in the middle of the answer: after three tokens of a stream, or before a whole answer has come.
    HangsUp,
}

/// What is right. What a row leaves out is not judged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What the client could read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<AnswerKind>,
    /// The gateway's word for the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The seconds of `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// Requests in the books of the two engines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<[u64; 2]>,
    /// And of the one that the first one's name moved to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<u64>,
    /// How the attempts of the last request ended, by the request log; `ok` for one that served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<Vec<String>>,
    /// How the last request ended, by the request log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// What the gateway thinks of the first backend in the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    /// And of the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerKind {
    /// Every token, once and in order, and the end that the dialect has.
    Whole,
    /// The beginning of it, then one typed error event, and no sign of a good end.
    Broken,
    /// An error in the gateway's words.
    Error,
    /// An error in the engine's own words, byte for byte.
    EnginesError,
    /// The client left.
    Left,
    /// None of these: what a client cannot understand, or cannot tell from a good answer.
    Wrong,
}

impl Matrix {
    /// The table that the lab ships with.
    pub fn built_in() -> Result<Self, MatrixError> {
        Self::read(TEXT)
    }

    pub fn read(text: &str) -> Result<Self, MatrixError> {
        serde_saphyr::from_str(text).map_err(|e| MatrixError(e.to_string()))
    }

    pub fn rows(&self) -> &[Row] {
        &self.0
    }

    pub fn cells(&self) -> Vec<Cell> {
        self.0.iter().flat_map(Cell::of).collect()
    }
}
