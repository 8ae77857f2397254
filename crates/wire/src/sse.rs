//! A byte stream into server-sent events (WHATWG HTML, "Interpreting an event stream"), whatever way it was cut.
//!
//! The gateway forwards events byte for byte, so an event keeps its raw bytes, comments and blank line included, and
//! the raw bytes of all events and the leftover, joined, are the input. An event that lies in one chunk is a slice of
//! it; only an event that straddles chunks is copied, once. The search for the blank line goes on where it stopped, so
//! that one event in a thousand chunks costs a thousand chunks and not their square.
//!
//! Edges: a line ends with LF, CRLF or CR. A CR that is the last byte so far may be half of a CRLF, so an event that
//! seems to end with it waits for one more byte or the end of the stream; otherwise the result would depend on how the
//! network cut the bytes. No engine ends lines with a bare CR. A byte order mark before the first line is no part of it.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The default bound on one event: a tool call or an audio delta may be large, a token is a few hundred bytes.
pub const MAX_EVENT: usize = 4 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The bytes as they came, up to and including the blank line.
    pub raw: Bytes,
    /// The payload of the `data` lines joined by LF; `None` when there is none (a comment) or it is empty.
    pub data: Option<Bytes>,
    /// Where its first line starts: after the byte order mark, if the stream began with one.
    start: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SseFault {
    #[error("an event is larger than {max_event} bytes")]
    TooLarge { max_event: usize },
}

/// What was left when the stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Its lines read as if they were an event.
    pub event: Event,
    /// Its blank line was there after all (a CR that the end of the stream has shown to stand alone). Otherwise the
    /// stream was cut, or its author forgot the blank line after the last event.
    pub complete: bool,
}

/// Splits a stream into events.
#[derive(Debug)]
pub struct Splitter {
    max_event: usize,
    /// The bytes not yet given out: in `chunk` while they all came in one piece, else in `held`; never in both.
    chunk: Bytes,
    held: BytesMut,
    search: Search,
    first: bool,
    failed: bool,
}

impl Default for Splitter {
    fn default() -> Self {
        Self::new(MAX_EVENT)
    }
}

impl Splitter {
    /// `max_event`: the most bytes one event may have, its blank line included.
    pub fn new(max_event: usize) -> Self {
        Self {
            max_event,
            chunk: Bytes::new(),
            held: BytesMut::new(),
            search: Search::default(),
            first: true,
            failed: false,
        }
    }

    /// Adds bytes. Take all events out with [`Self::next`] before the next push, or they are copied.
    pub fn push(&mut self, chunk: Bytes) {
        if self.failed || chunk.is_empty() {
            return;
        }
        if self.held.is_empty() && self.chunk.is_empty() {
            self.chunk = chunk;
            return;
        }
        if !self.chunk.is_empty() {
            self.held.extend_from_slice(&self.chunk);
            self.chunk = Bytes::new();
        }
        self.held.extend_from_slice(&chunk);
    }

    /// The next whole event. After a fault there are no more.
    #[expect(clippy::should_implement_trait, reason = "None means 'push more', which would end an iterator")]
    pub fn next(&mut self) -> Option<Result<Event, SseFault>> {
        if self.failed {
            return None;
        }
        let waiting = if self.chunk.is_empty() { &self.held[..] } else { &self.chunk[..] };
        let end = self.search.advance(waiting);
        if end.unwrap_or(waiting.len()) > self.max_event {
            self.fail();
            return Some(Err(SseFault::TooLarge { max_event: self.max_event }));
        }
        let end = end?;
        self.search = Search::default();
        let raw = if self.chunk.is_empty() { self.held.split_to(end).freeze() } else { self.chunk.split_to(end) };
        Some(Ok(Event::read(raw, std::mem::take(&mut self.first))))
    }

    /// How many bytes wait for the rest of their event.
    pub fn buffered(&self) -> usize {
        self.chunk.len() + self.held.len()
    }

    /// Ends the stream, after [`Self::next`] gave `None`.
    pub fn finish(self) -> Option<Leftover> {
        let raw = if self.chunk.is_empty() { self.held.freeze() } else { self.chunk };
        if raw.is_empty() {
            return None;
        }
        let complete = self.search.ends_with_blank_line(&raw);
        Some(Leftover { event: Event::read(raw, self.first), complete })
    }

    fn fail(&mut self) {
        self.failed = true;
        self.chunk = Bytes::new();
        self.held = BytesMut::new();
    }
}

impl Event {
    /// An event from the bytes of its lines.
    pub fn parse(raw: Bytes) -> Self {
        Self::read(raw, false)
    }

    fn read(raw: Bytes, first: bool) -> Self {
        let start = if first && raw.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        let data = join(&raw, start).filter(|data| !data.is_empty());
        Self { raw, data, start }
    }

    /// Where `span` of the payload stands in the raw bytes; `None` if it is not within one line.
    pub(crate) fn raw_span(&self, span: &Range<usize>) -> Option<Range<usize>> {
        let mut before = 0;
        for line in data_lines(&self.raw, self.start) {
            if span.start >= before && span.end <= before + line.len() {
                return Some(line.start + span.start - before..line.start + span.end - before);
            }
            before += line.len() + 1;
        }
        None
    }
}

/// Where the search for the blank line stands, from the start of the event.
#[derive(Debug, Default)]
struct Search {
    line_start: usize,
    scanned: usize,
}

impl Search {
    /// The end of the event's blank line, if it is there.
    fn advance(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(found) = memchr2(b'\n', b'\r', &bytes[self.scanned..]) {
            let line_end = self.scanned + found;
            let next = match (bytes[line_end], bytes.get(line_end + 1)) {
                (b'\r', None) => {
                    self.scanned = line_end;
                    return None;
                }
                (b'\r', Some(b'\n')) => line_end + 2,
                _ => line_end + 1,
            };
            if line_end == self.line_start {
                return Some(next);
            }
            self.line_start = next;
            self.scanned = next;
        }
        self.scanned = bytes.len();
        None
    }

    fn ends_with_blank_line(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.line_start + 1 && bytes.ends_with(b"\r")
    }
}

/// The payload: a slice when there is one `data` line, a copy when there are several.
fn join(raw: &Bytes, start: usize) -> Option<Bytes> {
    let mut lines = data_lines(raw, start);
    let first = lines.next()?;
    let Some(second) = lines.next() else { return Some(raw.slice(first)) };
    let mut joined = BytesMut::from(&raw[first]);
    for line in std::iter::once(second).chain(lines) {
        joined.extend_from_slice(b"\n");
        joined.extend_from_slice(&raw[line]);
    }
    Some(joined.freeze())
}

/// The values of the `data` lines.
fn data_lines(raw: &[u8], start: usize) -> impl Iterator<Item = Range<usize>> {
    let mut at = start;
    std::iter::from_fn(move || {
        while at < raw.len() {
            let from = at;
            let end = memchr2(b'\n', b'\r', &raw[at..]).map_or(raw.len(), |found| at + found);
            at = if raw[end..].starts_with(b"\r\n") { end + 2 } else { end + 1 };
            if let Some(value) = data_value(&raw[from..end]) {
                return Some(end - value..end);
            }
        }
        None
    })
}

/// How many bytes at the end of a `data` line are its value: all after the colon but for one space.
fn data_value(line: &[u8]) -> Option<usize> {
    match line.strip_prefix(b"data")? {
        [] => Some(0),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value.len()),
        _ => None,
    }
}
