//! How the store breaks and lies, as data that can be switched while requests are in flight.
//!
//! A fault says what it does and to which requests: those of an operation, of a key, those that cover a byte; from the n-th on,
//! each n-th, so many times. All that strike a request act on it together. Nothing is drawn by chance, so that a run repeats.

use std::{
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::store::asked::Asked;

const DEFAULT_STATUS: u16 = 503;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreFaultKind {
    /// One bit of the body is another: of the byte at `offset` of the object, or else in the middle of what goes or comes.
    Flip,
    /// After `after` bytes of the body (half of it) the connection is closed.
    Truncate,
    /// The same, by a reset. A body that comes is read until then.
    Reset,
    /// After `after` bytes (half) nothing goes for `for_ms`, or ever.
    Stall,
    /// `status` (503) in place of an answer, with `retry_after_s`.
    Status,
    /// The object has another ETag than it had: a condition on the old one fails.
    Etag,
    /// Conditions of writes are not looked at, as by stores that do not know them.
    Lie,
    /// What was asked for is done, and the connection reset before the answer.
    LoseAnswer,
    /// `bytes_per_second` for each body, either way.
    Slow,
    /// The whole object, where a range was asked for.
    IgnoreRange,
}

impl StoreFaultKind {
    fn name(self) -> &'static str {
        match self {
            Self::Flip => "flip",
            Self::Truncate => "truncate",
            Self::Reset => "reset",
            Self::Stall => "stall",
            Self::Status => "status",
            Self::Etag => "etag",
            Self::Lie => "lie",
            Self::LoseAnswer => "lose_answer",
            Self::Slow => "slow",
            Self::IgnoreRange => "ignore_range",
        }
    }
}

/// One fault, as it is posted to `/faults`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreFault {
    pub kind: StoreFaultKind,
    /// By S3's name, as in the ledger; all of them if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// `BUCKET/KEY`, or the beginning of it with a `*` behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// So many requests that match are let by first.
    #[serde(default)]
    pub skip: u64,
    /// After those, each such, beginning with the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// And so many times in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
}

impl StoreFault {
    /// Of every request, for ever.
    pub fn new(kind: StoreFaultKind) -> Self {
        Self {
            kind,
            operation: None,
            key: None,
            skip: 0,
            every: None,
            times: None,
            offset: None,
            after: None,
            for_ms: None,
            status: None,
            retry_after_s: None,
            bytes_per_second: None,
        }
    }

    /// Why it can not be.
    pub(super) fn invalid(&self) -> Option<&'static str> {
        if self.kind == StoreFaultKind::Slow && self.bytes_per_second.unwrap_or(0) == 0 {
            return Some("slow needs bytes_per_second");
        }
        if self.status.is_some_and(|status| !(200..=599).contains(&status)) {
            return Some("status is none that an answer can have");
        }
        (self.every == Some(0)).then_some("every needs a number above 0")
    }

    fn concerns(&self, asked: &Asked, span: Option<&Range<u64>>) -> bool {
        let name = format!("{}/{}", asked.bucket, asked.key);
        let key = self.key.as_deref().is_none_or(|key| match key.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == key,
        });
        let covers = self.offset.is_none_or(|offset| span.is_some_and(|span| span.contains(&offset)));
        key && covers && self.operation.as_deref().is_none_or(|name| name == asked.operation.name())
    }
}

/// What one request was dealt.
#[derive(Clone, Debug, Default)]
pub(super) struct Dealt {
    pub(super) names: Vec<&'static str>,
    pub(super) status: Option<(u16, Option<u64>)>,
    pub(super) body: Harm,
    pub(super) other_etag: bool,
    pub(super) lies: bool,
    pub(super) loses_answer: bool,
    pub(super) ignores_range: bool,
}

/// What is done to a body. Places are bytes from where the body begins in its object.
#[derive(Clone, Debug, Default)]
pub(super) struct Harm {
    pub(super) flip: Option<u64>,
    pub(super) stop: Option<Stopping>,
    pub(super) bytes_per_second: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Stopping {
    pub(super) after: u64,
    pub(super) how: How,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    Close,
    Reset,
    Stall(Option<Duration>),
}

#[derive(Debug, Default)]
pub(super) struct FaultSet(Mutex<Vec<Active>>);

#[derive(Debug)]
struct Active {
    fault: StoreFault,
    seen: u64,
    struck: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Listed {
    #[serde(flatten)]
    fault: StoreFault,
    /// Requests that it has acted on.
    struck: u64,
}

impl FaultSet {
    pub(super) fn set(&self, fault: StoreFault) {
        self.lock().push(Active { fault, seen: 0, struck: 0 });
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    pub(super) fn list(&self) -> Vec<Listed> {
        self.lock().iter().map(|active| Listed { fault: active.fault.clone(), struck: active.struck }).collect()
    }

    /// For a request whose body is these bytes of its object; once for each request, since it counts them.
    pub(super) fn deal(&self, asked: &Asked, span: Option<&Range<u64>>) -> Dealt {
        let mut dealt = Dealt::default();
        for active in self.lock().iter_mut() {
            if active.fault.concerns(asked, span) && active.strikes() {
                dealt.add(&active.fault, span);
            }
        }
        dealt
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Active>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Active {
    fn strikes(&mut self) -> bool {
        let nth = self.seen.checked_sub(self.fault.skip);
        self.seen += 1;
        let due = nth.is_some_and(|nth| nth.is_multiple_of(self.fault.every.unwrap_or(1)));
        let strikes = due && self.fault.times.is_none_or(|times| self.struck < times);
        self.struck += u64::from(strikes);
        strikes
    }
}

impl Dealt {
    fn add(&mut self, fault: &StoreFault, span: Option<&Range<u64>>) {
        let (begin, len) = span.map_or((0, 0), |span| (span.start, span.end - span.start));
        let after = fault.after.unwrap_or(len / 2);
        self.names.push(fault.kind.name());
        match fault.kind {
            StoreFaultKind::Flip => self.body.flip = Some(fault.offset.map_or(len / 2, |offset| offset - begin)),
            StoreFaultKind::Truncate => self.body.stop = Some(Stopping { after, how: How::Close }),
            StoreFaultKind::Reset => self.body.stop = Some(Stopping { after, how: How::Reset }),
            StoreFaultKind::Stall => {
                let how = How::Stall(fault.for_ms.map(Duration::from_millis));
                self.body.stop = Some(Stopping { after, how });
            }
            StoreFaultKind::Status => {
                self.status = Some((fault.status.unwrap_or(DEFAULT_STATUS), fault.retry_after_s));
            }
            StoreFaultKind::Etag => self.other_etag = true,
            StoreFaultKind::Lie => self.lies = true,
            StoreFaultKind::LoseAnswer => self.loses_answer = true,
            StoreFaultKind::Slow => self.body.bytes_per_second = fault.bytes_per_second,
            StoreFaultKind::IgnoreRange => self.ignores_range = true,
        }
    }
}
