//! An engine's `/metrics` page (Prometheus text 0.0.4 or OpenMetrics 1.0) to the three signals that routing corrects
//! its own counts with.
//!
//! Each engine is a table, in a file of its own: for each signal the names it has had, newest first. A general
//! Prometheus parser would build every histogram of a page of a thousand lines to read three gauges; this reads the
//! lines whose name is in the table and skips the rest.
//!
//! Edges: one series per engine or data-parallel rank is the rule, so running and waiting are summed and KV usage is
//! the fullest rank's. A gauge that is missing is `None`, never 0, since "no queue" would draw all traffic; so is one
//! with a row that is not a finite number ≥ 0. A line that cannot be read is skipped, as an exporter's next version may
//! have new ones.

mod dynamo;
mod llamacpp;
mod sglang;
mod tgi;
mod trtllm;
mod vllm;

use std::borrow::Cow;

/// Which engine wrote the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    Vllm,
    Sglang,
    Tgi,
    Trtllm,
    Llamacpp,
    Dynamo,
}

impl Dialect {
    pub const ALL: [Self; 6] = [Self::Vllm, Self::Sglang, Self::Tgi, Self::Trtllm, Self::Llamacpp, Self::Dynamo];

    /// Where the engine serves the page, from the root of its port.
    pub fn path(self) -> &'static str {
        self.table().path
    }

    fn table(self) -> &'static Table {
        match self {
            Self::Vllm => &vllm::TABLE,
            Self::Sglang => &sglang::TABLE,
            Self::Tgi => &tgi::TABLE,
            Self::Trtllm => &trtllm::TABLE,
            Self::Llamacpp => &llamacpp::TABLE,
            Self::Dynamo => &dynamo::TABLE,
        }
    }
}

/// What the page says of the engine's load.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct EngineSignals {
    /// Requests being generated, over all ranks.
    pub running: Option<f64>,
    /// Requests in the engine's queue, over all ranks.
    pub waiting: Option<f64>,
    /// The share of the KV cache in use, 0–1, of the fullest rank.
    pub kv_usage: Option<f64>,
}

/// One engine's names.
struct Table {
    path: &'static str,
    running: Signal,
    waiting: Signal,
    kv_usage: Signal,
    /// Rows count only where each of these labels has this value, or is absent.
    only: &'static [(&'static str, &'static str)],
}

/// The ways a signal is told, the preferred first; the first whose leading gauge is on the page counts.
type Signal = &'static [Way];

/// Gauges that add up to a signal; all but the first may be missing.
type Way = &'static [Gauge];

/// A gauge, and a label that its row must have where one name holds several things.
struct Gauge {
    name: &'static str,
    label: Option<(&'static str, &'static str)>,
}

const fn gauge(name: &'static str) -> Gauge {
    Gauge { name, label: None }
}

const fn labelled(name: &'static str, key: &'static str, value: &'static str) -> Gauge {
    Gauge { name, label: Some((key, value)) }
}

/// Reads a page.
pub fn read(dialect: Dialect, page: &[u8]) -> EngineSignals {
    let table = dialect.table();
    let rows = rows_of_interest(table, page);
    EngineSignals {
        running: evaluate(table.running, &rows, |a, b| a + b),
        waiting: evaluate(table.waiting, &rows, |a, b| a + b),
        kv_usage: evaluate(table.kv_usage, &rows, f64::max),
    }
}

/// The first way that is on the page, its rows folded into one number.
fn evaluate(signal: Signal, rows: &[Row<'_>], fold: fn(f64, f64) -> f64) -> Option<f64> {
    let way = signal.iter().find(|way| rows.iter().any(|row| row.is(&way[0])))?;
    let values = rows.iter().filter(|row| way.iter().any(|gauge| row.is(gauge))).map(|row| row.value);
    let usable = |value: f64| (value.is_finite() && value >= 0.0).then_some(value);
    let values: Option<Vec<f64>> = values.map(usable).collect();
    values?.into_iter().reduce(fold)
}

type Labels<'a> = Vec<(&'a str, Cow<'a, str>)>;

/// One sample line.
struct Row<'a> {
    name: &'a str,
    labels: Labels<'a>,
    value: f64,
}

impl Row<'_> {
    fn is(&self, gauge: &Gauge) -> bool {
        self.name == gauge.name && gauge.label.is_none_or(|(key, value)| self.label(key) == Some(value))
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_ref())
    }
}

fn rows_of_interest<'a>(table: &Table, page: &'a [u8]) -> Vec<Row<'a>> {
    let names: Vec<&str> = [table.running, table.waiting, table.kv_usage]
        .into_iter()
        .flatten()
        .flat_map(|way| way.iter().map(|gauge| gauge.name))
        .collect();
    let counts = |row: &Row<'_>| table.only.iter().all(|(key, value)| row.label(key).is_none_or(|seen| seen == *value));
    page.split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .filter_map(|line| row(line, &names))
        .filter(counts)
        .collect()
}

/// `name{key="value",…} number [timestamp] [# exemplar]`
fn row<'a>(line: &'a str, names: &[&str]) -> Option<Row<'a>> {
    let line = line.trim_start();
    let name_end = line.find(|c: char| c == '{' || c.is_ascii_whitespace())?;
    let (name, rest) = line.split_at(name_end);
    if !names.contains(&name) {
        return None;
    }
    let (labels, rest) = match rest.trim_start().strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => (Vec::new(), rest),
    };
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Row { name, labels, value })
}

/// The labels, and what follows their closing brace.
fn labels(mut rest: &str) -> Option<(Labels<'_>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (key, after) = rest.split_once('=')?;
        let quoted = after.trim_start().strip_prefix('"')?;
        let end = closing_quote(quoted)?;
        labels.push((key.trim(), unescaped(&quoted[..end])));
        rest = &quoted[end + 1..];
    }
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

/// A label's value; `\\`, `\"` and `\n` are its only escapes.
fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next().map(|next| if next == 'n' { '\n' } else { next })),
            _ => out.push(c),
        }
    }
    Cow::Owned(out)
}
