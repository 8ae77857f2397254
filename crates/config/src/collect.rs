//! Gathers faults, and walks the tree beside the values read from it.
//!
//! [`At`] is a place in the file: a path, and the node there if the file has one. Values and places are held apart,
//! instead of wrapping each value in its span, so that the types that describe the file stay plain and their JSON
//! Schema is the one that editors see. A place that the file does not have reports at the nearest one that it has.

use std::{cell::RefCell, cmp::Ordering, ops::Range};

use super::{
    fault::{Code, Fault, MOST, Severity},
    source::{Source, is_sensitive},
    tree::{Entry, Node, Span, Value},
};

/// Faults of one file, in the order found.
#[derive(Debug)]
pub(crate) struct Collector {
    pub(crate) source: Source,
    faults: RefCell<Vec<Fault>>,
}

impl Collector {
    pub(crate) fn new(source: Source) -> Self {
        Self { source, faults: RefCell::new(Vec::new()) }
    }

    pub(crate) fn error(
        &self,
        code: Code,
        span: Span,
        path: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(Severity::Error, code, span, path, (message.into(), help.into()));
    }

    pub(crate) fn warning(
        &self,
        code: Code,
        span: Span,
        path: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(Severity::Warning, code, span, path, (message.into(), help.into()));
    }

    fn add(&self, severity: Severity, code: Code, span: Span, path: &str, (message, help): (String, String)) {
        let mut faults = self.faults.borrow_mut();
        let same = faults.iter().filter(|fault| fault.severity == severity).count();
        match same.cmp(&MOST) {
            Ordering::Less => {
                let (line, column) = self.source.position(span.start);
                faults.push(Fault { severity, code, line, column, path: path.to_owned(), message, help, span });
            }
            Ordering::Equal => {
                let (line, column) = self.source.position(span.start);
                let message = format!("more than {MOST} faults; the rest is not shown");
                let help = "mend these first, and check again".to_owned();
                let code = Code::TooManyFaults;
                faults.push(Fault { severity, code, line, column, path: path.to_owned(), message, help, span });
            }
            Ordering::Greater => {}
        }
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.faults.borrow().iter().any(|fault| fault.severity == Severity::Error)
    }

    /// Ordered as the file is read.
    pub(crate) fn into_parts(self) -> (Source, Vec<Fault>) {
        let mut faults = self.faults.into_inner();
        faults.sort_by_key(|fault| (fault.line, fault.column));
        (self.source, faults)
    }
}

/// A place in the file.
#[derive(Clone, Debug)]
pub(crate) struct At<'a> {
    pub(crate) path: String,
    pub(crate) node: Option<&'a Node>,
    /// What to underline when there is no scalar to underline.
    anchor: Range<usize>,
    faults: &'a Collector,
    is_secret: bool,
}

impl<'a> At<'a> {
    pub(crate) fn root(node: &'a Node, faults: &'a Collector) -> Self {
        let anchor = node.span.start..node.span.start;
        Self { path: String::new(), node: Some(node), anchor, faults, is_secret: false }
    }

    pub(crate) fn key(&self, key: &str) -> Self {
        self.entry(key, self.node.and_then(|node| node.get(key)))
    }

    /// As [`At::key`], where the entry is at hand.
    pub(crate) fn entry(&self, key: &str, entry: Option<&'a Entry>) -> Self {
        Self {
            path: join_key(&self.path, key),
            node: entry.map(|entry| &entry.node),
            anchor: entry.map_or_else(|| self.anchor.clone(), |entry| entry.key_span.clone()),
            faults: self.faults,
            is_secret: self.is_secret || is_sensitive(key),
        }
    }

    pub(crate) fn index(&self, index: usize) -> Self {
        let item = match self.node.map(|node| &node.value) {
            Some(Value::Seq(items)) => items.get(index),
            _ => None,
        };
        let mut here = self.clone();
        here.path = join_index(&self.path, index);
        here.node = item;
        here.anchor = item.map_or_else(|| self.anchor.clone(), |item| item.span.start..item.span.start + 1);
        here
    }

    /// What the file holds, in a word.
    pub(crate) fn thing(&self) -> &'static str {
        self.faults.source.words.thing
    }

    /// Whether the file has something here, right or wrong.
    pub(crate) fn is_written(&self) -> bool {
        self.node.is_some()
    }

    /// Where `key` stands in the file, for a fault about the pair.
    pub(crate) fn at_key(&self) -> Span {
        self.anchor.clone()
    }

    pub(crate) fn span(&self) -> Span {
        match self.node {
            Some(Node { span, value: Value::Scalar(_) | Value::Broken }) if !span.is_empty() => span.clone(),
            _ => self.anchor.clone(),
        }
    }

    /// The value, also where that is a list or an object in brackets; the key where it starts on a later line.
    pub(crate) fn at_value(&self) -> Span {
        self.node.map(|node| node.span.clone()).filter(|span| !span.is_empty()).unwrap_or_else(|| self.anchor.clone())
    }

    /// The value as the file has it, for a message; never a secret's.
    pub(crate) fn shown(&self) -> String {
        match self.node.and_then(Node::text) {
            _ if self.is_secret => "this value".to_owned(),
            Some(text) => format!("`{}`", shown(text)),
            None => "this".to_owned(),
        }
    }

    pub(crate) fn error(&self, code: Code, message: impl Into<String>, help: impl Into<String>) {
        self.faults.error(code, self.span(), &self.path, message, help);
    }

    pub(crate) fn warning(&self, code: Code, message: impl Into<String>, help: impl Into<String>) {
        self.faults.warning(code, self.span(), &self.path, message, help);
    }

    pub(crate) fn error_at_value(&self, code: Code, message: impl Into<String>, help: impl Into<String>) {
        self.faults.error(code, self.at_value(), &self.path, message, help);
    }

    /// At the key rather than at its value.
    pub(crate) fn error_at_key(&self, code: Code, message: impl Into<String>, help: impl Into<String>) {
        self.faults.error(code, self.at_key(), &self.path, message, help);
    }

    pub(crate) fn warning_at_key(&self, code: Code, message: impl Into<String>, help: impl Into<String>) {
        self.faults.warning(code, self.at_key(), &self.path, message, help);
    }

    /// The key by itself: what is underlined is the name, not the value.
    pub(crate) fn as_key(&self) -> Self {
        Self { node: None, ..self.clone() }
    }

    /// The line that this place stands in.
    pub(crate) fn line(&self) -> usize {
        self.faults.source.position(self.span().start).0
    }
}

/// `path.key`, or `path["key"]` where a dot would not read well.
pub(crate) fn join_key(path: &str, key: &str) -> String {
    let is_word = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    match (is_word, path.is_empty()) {
        (true, true) => key.to_owned(),
        (true, false) => format!("{path}.{key}"),
        (false, _) => format!("{path}[\"{}\"]", shown(key)),
    }
}

pub(crate) fn join_index(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// Text from the file, short and on one line.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    let clean: String = text.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() { clean + "…" } else { clean }
}
