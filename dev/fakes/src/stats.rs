//! What the fake saw, counted at the fake: the other half of every claim that a gateway makes about its requests.
//!
//! Counts and log change in the same critical section, so that a test never reads a total that the log does not
//! explain. An inference request is counted from the moment its headers were read, whatever becomes of it; its end is
//! recorded by a guard, so that a request that nobody answers any more (the client hung up, the connection died) is
//! ended too. The log holds the last 100,000 requests.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::conn::Line;

const LOG_CAPACITY: usize = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    InFlight,
    /// Answered in full, 200; late (`trickle`) or with a farewell (`goaway_late`) too.
    Ok,
    /// Answered with an error of its own accord: bad request, unknown model, full queue.
    Rejected,
    /// A scripted fault ended it.
    Fault,
    /// The client went away before the end of its answer.
    Aborted,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// From 1, in order of arrival; probes count too.
    pub seq: u64,
    pub at_unix_ns: u64,
    pub path: String,
    /// The number of the connection that it came on, from 1 in order of arrival.
    pub connection: u64,
    pub http2: bool,
    pub stream: bool,
    pub probe: bool,
    pub outcome: Outcome,
    /// Output tokens handed to the connection.
    pub tokens: u64,
    pub ended_at_unix_ns: Option<u64>,
}

/// The answer of `GET /stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Client inference requests; probes (`x-outrigger-probe: 1`) are not among them.
    pub received: u64,
    pub running: u64,
    pub waiting: u64,
    /// Client requests that the client abandoned.
    pub aborted: u64,
    /// Output tokens handed to client connections.
    pub tokens: u64,
    pub probes: u64,
    pub completed: u64,
    pub rejected: u64,
    pub faulted: u64,
    /// Client requests that have no outcome yet, whether in the engine or held by a fault.
    pub in_flight: u64,
    /// Output tokens that the engine has made, for anybody, wanted or not. Not reset.
    pub generated: u64,
    /// Open connections to the inference listener.
    pub connections: u64,
    pub last_abort_ms_ago: Option<u64>,
    /// The newest `seq` in the request log.
    pub last_seq: u64,
}

#[derive(Debug, Default)]
pub(crate) struct StatsBook {
    inner: Mutex<Book>,
    connections: AtomicU64,
    accepted: AtomicU64,
}

#[derive(Debug, Default)]
struct Book {
    counts: Stats,
    last_abort: Option<Instant>,
    log: VecDeque<RequestRecord>,
}

/// One request in the book; dropping it without an outcome means that its connection is gone: by the client's will,
/// unless the fake itself broke it.
#[derive(Debug)]
pub(crate) struct Entry {
    book: Arc<StatsBook>,
    line: Arc<Line>,
    seq: u64,
    probe: bool,
    open: bool,
}

/// Counts a connection for as long as it lives.
#[derive(Debug)]
pub(crate) struct ConnectionCount {
    book: Arc<StatsBook>,
    number: u64,
}

impl StatsBook {
    pub(crate) fn open(self: &Arc<Self>, path: &str, probe: bool, line: Arc<Line>) -> Entry {
        let mut book = self.lock();
        book.counts.last_seq += 1;
        if probe {
            book.counts.probes += 1;
        } else {
            book.counts.received += 1;
            book.counts.in_flight += 1;
        }
        let seq = book.counts.last_seq;
        if book.log.len() == LOG_CAPACITY {
            book.log.pop_front();
        }
        book.log.push_back(RequestRecord {
            seq,
            at_unix_ns: unix_ns(),
            path: path.into(),
            connection: line.number,
            http2: line.is_http2(),
            stream: false,
            probe,
            outcome: Outcome::InFlight,
            tokens: 0,
            ended_at_unix_ns: None,
        });
        Entry { book: self.clone(), line, seq, probe, open: true }
    }

    pub(crate) fn connected(self: &Arc<Self>) -> ConnectionCount {
        self.connections.fetch_add(1, Ordering::Relaxed);
        let number = self.accepted.fetch_add(1, Ordering::Relaxed) + 1;
        ConnectionCount { book: self.clone(), number }
    }

    pub(crate) fn snapshot(&self) -> Stats {
        let book = self.lock();
        Stats {
            connections: self.connections.load(Ordering::Relaxed),
            last_abort_ms_ago: book.last_abort.map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)),
            ..book.counts.clone()
        }
    }

    pub(crate) fn requests_after(&self, seq: u64) -> Vec<RequestRecord> {
        let book = self.lock();
        let from = book.log.partition_point(|r| r.seq <= seq);
        book.log.range(from..).cloned().collect()
    }

    /// Forgets everything but what is still in flight (it will end, and must find its count) and the numbering.
    pub(crate) fn reset(&self) {
        let mut book = self.lock();
        book.counts = Stats { in_flight: book.counts.in_flight, last_seq: book.counts.last_seq, ..Stats::default() };
        book.last_abort = None;
        book.log.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// None when it has fallen out of the log, or the log was reset.
    fn record(&mut self, seq: u64) -> Option<&mut RequestRecord> {
        let at = self.log.binary_search_by_key(&seq, |r| r.seq).ok()?;
        self.log.get_mut(at)
    }

    fn count(&mut self, outcome: Outcome) {
        self.counts.in_flight = self.counts.in_flight.saturating_sub(1);
        match outcome {
            Outcome::InFlight => {}
            Outcome::Ok => self.counts.completed += 1,
            Outcome::Rejected => self.counts.rejected += 1,
            Outcome::Fault => self.counts.faulted += 1,
            Outcome::Aborted => {
                self.counts.aborted += 1;
                self.last_abort = Some(Instant::now());
            }
        }
    }
}

impl Entry {
    pub(crate) fn streams(&self) {
        if let Some(record) = self.book.lock().record(self.seq) {
            record.stream = true;
        }
    }

    pub(crate) fn token(&self) {
        let mut book = self.book.lock();
        if !self.probe {
            book.counts.tokens += 1;
        }
        if let Some(record) = book.record(self.seq) {
            record.tokens += 1;
        }
    }

    pub(crate) fn end(mut self, outcome: Outcome) {
        self.close(outcome);
    }

    fn close(&mut self, outcome: Outcome) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let mut book = self.book.lock();
        if !self.probe {
            book.count(outcome);
        }
        if let Some(record) = book.record(self.seq) {
            record.outcome = outcome;
            record.ended_at_unix_ns = Some(unix_ns());
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let ours = self.line.is_over();
        self.close(if ours { Outcome::Fault } else { Outcome::Aborted });
    }
}

impl ConnectionCount {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.book.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The wall clock, which tests compare with their own; the fake itself never decides by it.
pub(crate) fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
