//! What every request cost: a line of JSON for each that has ended, and totals.
//!
//! Counted are the bytes of bodies, as they came (with the frames of `aws-chunked`) and as they were handed to the connection.
//! Of an answer that was broken off, up to half a megabyte that was counted may not have left: the meter errs to its own
//! disadvantage. A request is written down when the last that belongs to it is dropped, so also when its client was killed.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write as _,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use serde_json::json;

/// Sums over requests that have ended, and how many have not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    pub requests: u64,
    pub open: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub operations: BTreeMap<&'static str, Sum>,
    /// By status; 0 where the connection broke before the head of an answer.
    pub statuses: BTreeMap<u16, u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sum {
    pub requests: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

#[derive(Debug)]
pub(super) struct Ledger(Mutex<Book>);

#[derive(Debug)]
struct Book {
    out: fs::File,
    next: u64,
    totals: Totals,
}

impl Ledger {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let out = fs::OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self(Mutex::new(Book { out, next: 1, totals: Totals::default() })))
    }

    pub(super) fn totals(&self) -> Totals {
        self.lock().totals.clone()
    }

    /// Forgets the sums. What is open stays open, and the file as it is.
    pub(super) fn reset(&self) {
        let mut book = self.lock();
        book.totals = Totals { open: book.totals.open, ..Totals::default() };
    }

    pub(super) fn begin(self: &Arc<Self>, what: What) -> Entry {
        let mut book = self.lock();
        let number = book.next;
        book.next += 1;
        book.totals.open += 1;
        drop(book);
        Entry(Arc::new(Open {
            ledger: self.clone(),
            number,
            at: SystemTime::now(),
            what,
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            status: AtomicU16::new(0),
            faults: Mutex::default(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(super) struct What {
    pub(super) method: String,
    pub(super) operation: &'static str,
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) query: String,
    pub(super) range: Option<String>,
}

/// A request that is being answered; whoever holds one of these works for it.
#[derive(Clone, Debug)]
pub(super) struct Entry(Arc<Open>);

impl Entry {
    pub(super) fn came(&self, bytes: usize) {
        self.0.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn went(&self, bytes: usize) {
        self.0.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn status(&self, status: u16) {
        self.0.status.store(status, Ordering::Relaxed);
    }

    pub(super) fn faults(&self, names: Vec<&'static str>) {
        *self.0.faults.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }
}

#[derive(Debug)]
struct Open {
    ledger: Arc<Ledger>,
    number: u64,
    at: SystemTime,
    what: What,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    status: AtomicU16,
    faults: Mutex<Vec<&'static str>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        let (bytes_in, bytes_out) = (self.bytes_in.load(Ordering::Relaxed), self.bytes_out.load(Ordering::Relaxed));
        let status = self.status.load(Ordering::Relaxed);
        let What { method, operation, bucket, key, query, range } = &self.what;
        let line = json!({
            "n": self.number,
            "began_ms": self.at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64),
            "ms": self.at.elapsed().map_or(0, |d| d.as_millis() as u64),
            "method": method,
            "operation": operation,
            "bucket": bucket,
            "key": key,
            "query": query,
            "range": range,
            "bytes_in": bytes_in,
            "bytes_out": bytes_out,
            "status": status,
            "faults": *self.faults.lock().unwrap_or_else(PoisonError::into_inner),
        });
        let mut book = self.ledger.lock();
        // A full disk costs lines of the file, and no totals.
        let _ = writeln!(book.out, "{line}");
        let totals = &mut book.totals;
        totals.open -= 1;
        totals.requests += 1;
        totals.bytes_in += bytes_in;
        totals.bytes_out += bytes_out;
        *totals.statuses.entry(status).or_default() += 1;
        let sum = totals.operations.entry(operation).or_default();
        sum.requests += 1;
        sum.bytes_in += bytes_in;
        sum.bytes_out += bytes_out;
    }
}
