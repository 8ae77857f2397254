//! Requests to simulate: when each arrives, how long its prompt is and how long its answer.
//!
//! [`Reader`] takes them out of a file in one of four [`Format`]s, [`generate`] makes them from a curve of rates and
//! tables of lengths, [`merge`] puts several regions together. All are iterators that hold a bounded part of the trace,
//! so that tens of gigabytes pass through a few megabytes of memory. Whatever is wrong with a file ends the iterator
//! with a [`TraceFault`], which says where and what to do; a trace that is read halfway would answer another question
//! than the one that was asked.

mod csv;
mod fault;
mod generate;
mod json;
mod lines;
mod merge;
mod models;
mod mooncake;
mod number;
mod request_log;
mod row;
mod spend_logs;
mod table;
mod window;

use std::{fmt, io::BufRead, iter::FusedIterator, str::FromStr};

use outrigger_core::units::{Nanos, Tokens};
use serde::{Deserialize, de::IgnoredAny};

pub use self::{
    fault::TraceFault,
    generate::{Generated, Quantiles, RateCurve, generate},
    merge::{Merge, merge},
};
use self::{
    lines::{Ends, Line, Lines},
    models::Models,
    request_log::Entry,
    row::Row,
    window::Window,
};

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

/// How a trace is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A header, then `arrival_s,prompt_tokens,output_tokens[,model][,session][,stream]` in any order.
    Csv,
    /// What the gateway writes.
    RequestLog,
    /// JSON lines of the Mooncake project.
    Mooncake,
    /// LiteLLM's table of requests, as JSON lines or CSV.
    SpendLogs,
}

impl Format {
    pub const ALL: [Self; 4] = [Self::Csv, Self::RequestLog, Self::Mooncake, Self::SpendLogs];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::RequestLog => "request-log",
            Self::Mooncake => "mooncake",
            Self::SpendLogs => "spend-logs",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word is not one of [`Format::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a trace's format is csv, request-log, mooncake or spend-logs")]
pub struct UnknownFormat;

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(word: &str) -> Result<Self, UnknownFormat> {
        Self::ALL.into_iter().find(|format| format.as_str() == word).ok_or(UnknownFormat)
    }
}

/// The format of a trace whose first line that is not blank is this one.
pub fn detect(first_line: &[u8]) -> Option<Format> {
    let line = first_line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(first_line).trim_ascii();
    if line.starts_with(b"{") {
        return detect_json(line);
    }
    let has_start = line.split(|byte| *byte == b',').any(|name| number::unquoted(name) == b"startTime");
    let text = line.contains(&b',') && !line.contains(&0) && !line.starts_with(b"[");
    text.then_some(if has_start { Format::SpendLogs } else { Format::Csv })
}

fn detect_json(line: &[u8]) -> Option<Format> {
    #[derive(Default, Deserialize)]
    struct Keys {
        event: Option<IgnoredAny>,
        timestamp: Option<IgnoredAny>,
        input_length: Option<IgnoredAny>,
        #[serde(rename = "startTime")]
        start_time: Option<IgnoredAny>,
    }
    // A line that is cut off still has its keys, and the reader will say what is wrong with it.
    let written = |key: &[u8]| memchr::memmem::find(line, key).map(|_| IgnoredAny);
    let keys = serde_json::from_slice(line).unwrap_or_else(|_| Keys {
        event: written(b"\"event\""),
        timestamp: written(b"\"timestamp\""),
        input_length: written(b"\"input_length\""),
        start_time: written(b"\"startTime\""),
    });
    match keys {
        Keys { event: Some(_), .. } => Some(Format::RequestLog),
        Keys { timestamp: Some(_), input_length: Some(_), .. } => Some(Format::Mooncake),
        Keys { start_time: Some(_), .. } => Some(Format::SpendLogs),
        _ => None,
    }
}

/// Reads a trace: an iterator over its arrivals in order of time, the first at 0. It ends at the first fault.
pub struct Reader<R> {
    lines: Lines<R>,
    rows: Rows,
    models: Models,
    /// Out of use for CSV, which has to be in order.
    window: Window,
    /// Time of the last row handed on.
    reached: Option<i64>,
    origin: Option<i64>,
    skipped: u64,
    over: bool,
}

/// How this file's rows are read.
enum Rows {
    Csv(table::Table),
    RequestLog,
    Mooncake,
    SpendJson,
    SpendCsv(spend_logs::Table),
}

impl<R: BufRead> Reader<R> {
    /// Reads the first line, to find the format where none is given, and the header where the format has one.
    pub fn new(input: R, format: Option<Format>) -> Result<Self, TraceFault> {
        let mut lines = Lines::new(input);
        let Some(first) = lines.next(Ends::Newline)? else {
            return Err(TraceFault::new(1, "the trace is empty", "check where it was meant to come from"));
        };
        let list = first.text.trim_ascii_start().starts_with(b"[");
        let Some(format) = format.or_else(|| detect(first.text)).filter(|_| !list) else { return Err(unknown(first)) };
        let json = first.text.trim_ascii_start().starts_with(b"{");
        lines.again();
        let rows = match format {
            Format::Csv => Rows::Csv(table::Table::new(header(&mut lines)?)?),
            Format::RequestLog => Rows::RequestLog,
            Format::Mooncake => Rows::Mooncake,
            Format::SpendLogs if json => Rows::SpendJson,
            Format::SpendLogs => Rows::SpendCsv(spend_logs::Table::new(header(&mut lines)?)?),
        };
        Ok(Self {
            lines,
            rows,
            models: Models::default(),
            window: Window::new(window::ROWS),
            reached: None,
            origin: None,
            skipped: 0,
            over: false,
        })
    }
}

impl<R> Reader<R> {
    /// Names of models so far, in the order in which they were met; [`Arrival::model`] counts in them.
    pub fn models(&self) -> &[String] {
        self.models.names()
    }

    /// Requests passed over because they failed without output, so far.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The time of the first arrival as the file has it, once that has been read: nanoseconds since 1970 where times
    /// are dated, otherwise since what the file counts from.
    pub fn origin(&self) -> Option<i64> {
        self.origin
    }
}

impl<R: BufRead> Reader<R> {
    fn arrival(&mut self) -> Result<Option<Arrival>, TraceFault> {
        let next = if let Rows::Csv(table) = &self.rows {
            let Some(line) = self.lines.next(Ends::OutsideQuotes)? else { return self.end() };
            let row = table.row(line, &mut self.models)?;
            if self.reached.is_some_and(|reached| row.time < reached) {
                return Err(backwards(row.number, table.time_column()));
            }
            Some(row)
        } else {
            self.in_order()?
        };
        let Some(row) = next else { return self.end() };
        self.reached = Some(row.time);
        let origin = *self.origin.get_or_insert(row.time);
        Ok(Some(Arrival { at: Nanos(row.time.abs_diff(origin)), ..row.arrival }))
    }

    /// The next row of a file whose rows are out of order.
    fn in_order(&mut self) -> Result<Option<Row>, TraceFault> {
        loop {
            let (entry, column, how_to_sort) = match &self.rows {
                Rows::Csv(_) => return Ok(None),
                Rows::SpendCsv(table) => {
                    let Some(line) = self.lines.next(Ends::OutsideQuotes)? else { break };
                    (table.entry(line, &mut self.models)?, "startTime", SORT_SPEND)
                }
                rows => {
                    let Some(line) = self.lines.next(Ends::Newline)? else { break };
                    match rows {
                        Rows::RequestLog => (request_log::entry(line, &mut self.models)?, "ts", SORT_LOG),
                        Rows::SpendJson => (spend_logs::json_entry(line, &mut self.models)?, "startTime", SORT_SPEND),
                        _ => (Entry::Request(mooncake::row(line)?), "timestamp", SORT_MOONCAKE),
                    }
                }
            };
            match entry {
                Entry::Request(row) => {
                    if let Some(earliest) = self.window.put(row, column, how_to_sort)? {
                        return Ok(Some(earliest));
                    }
                }
                Entry::Failed => self.skipped += 1,
                Entry::Other => {}
            }
        }
        Ok(self.window.take())
    }

    fn end(&self) -> Result<Option<Arrival>, TraceFault> {
        if self.origin.is_some() {
            return Ok(None);
        }
        let help = match self.skipped {
            0 => "check that the file is the one that was meant, and complete".to_owned(),
            failed => format!("it has {failed} that failed without output, which say nothing of the load"),
        };
        Err(TraceFault::new(self.lines.row().saturating_sub(1).max(1), "the trace has no requests", help))
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Arrival, TraceFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.arrival().transpose();
        self.over = !matches!(next, Some(Ok(_)));
        next
    }
}

impl<R: BufRead> FusedIterator for Reader<R> {}

impl<R> fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("models", &self.models()).field("skipped", &self.skipped).finish_non_exhaustive()
    }
}

const SORT_LOG: &str = "sort the log first: `LC_ALL=C sort FILE` does, since lines begin with their time";
const SORT_SPEND: &str = "export the table with ORDER BY \"startTime\"";
const SORT_MOONCAKE: &str = "sort the file first: `jq -s -c 'sort_by(.timestamp)[]' FILE`";

fn header<R: BufRead>(lines: &mut Lines<R>) -> Result<Line<'_>, TraceFault> {
    lines
        .next(Ends::OutsideQuotes)?
        .ok_or_else(|| TraceFault::new(1, "the trace has no header", "its first row names the columns"))
}

fn backwards(row: u64, column: &str) -> TraceFault {
    let help = "sort the rows by time; a file of several traces has to be split, or merged by time";
    TraceFault::new(row, "this row is earlier than the one before it", help).in_column(column)
}

fn unknown(line: Line<'_>) -> TraceFault {
    let text = line.text;
    let help = if text.starts_with(b"\x1f\x8b") || text.starts_with(b"\x28\xb5\x2f\xfd") {
        "the file is packed: unpack it first (`gzip -dc` or `zstd -dc`)"
    } else if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") || text.contains(&0) {
        "the file is not UTF-8 text: `iconv -t UTF-8` may make it so"
    } else if text.starts_with(b"[") {
        "a list has to become lines first: `jq -c '.[]'`"
    } else {
        "name it: csv, request-log, mooncake or spend-logs. CSV begins with a header such as \
         arrival_s,prompt_tokens,output_tokens"
    };
    TraceFault::new(line.row, format!("the format of this trace is unknown; it begins {}", fault::shown(text)), help)
}
