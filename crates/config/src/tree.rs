//! The fleet file as a tree in which every key and value knows where it stands.
//!
//! A deserializer would stop at the first fault and forget the place of what it read, so the events of the YAML parser
//! are turned into our own nodes and everything that a fleet file may not hold is collected on the way: anchors, tags,
//! duplicate keys, and plain scalars that a YAML 1.1 reader (Helm, PyYAML) and a YAML 1.2 reader (this one, Terraform)
//! would read as different values, since all of them read this file. What is at fault becomes [`Value::Broken`], which
//! later passes step over. Text that is not YAML at all yields one fault and no tree.

use std::{collections::HashMap, ops::Range};

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, StrInput};

use super::{
    collect::{Collector, join_index, join_key, shown},
    fault::Code,
    portable,
    source::{env_name, is_reference, is_sensitive},
};

/// Objects in objects; a fleet file needs seven.
const DEPTH: usize = 32;

pub(crate) type Span = Range<usize>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Map(Vec<Entry>),
    Seq(Vec<Node>),
    Scalar(Scalar),
    /// Already reported.
    Broken,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) node: Node,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Without quotes, so that it may be a number or a truth value.
    pub(crate) plain: bool,
}

/// What a scalar is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text,
}

impl Scalar {
    pub(crate) fn kind(&self) -> Kind {
        if !self.plain {
            return Kind::Text;
        }
        match self.text.as_str() {
            "" | "null" | "Null" | "NULL" => Kind::Null,
            "true" | "True" | "TRUE" => Kind::Bool(true),
            "false" | "False" | "FALSE" => Kind::Bool(false),
            text if portable::is_number(text) => match (text.parse(), text.parse()) {
                (Ok(int), _) => Kind::Int(int),
                (_, Ok(float)) => Kind::Float(float),
                _ => Kind::Text,
            },
            _ => Kind::Text,
        }
    }
}

impl Node {
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }
}

/// Reads `text`; `None` when there is no tree to go on with. Everything found is in `faults`.
pub(crate) fn parse(text: &str, faults: &Collector) -> Option<Node> {
    // `{ api_key: ${NAME} }` is not YAML, because `{` opens an object there. It is such a likely slip that the braces
    // are made harmless and the rest of the file is read all the same.
    let patched = if parser(text).all(|event| event.is_ok()) { None } else { harmless(text) };
    let parser = parser(patched.as_deref().unwrap_or(text));
    let mut builder = Builder { original: text, is_patched: patched.is_some(), parser, path: String::new(), faults };
    match builder.document() {
        Ok(None) => {
            let words = faults.source.words;
            faults.error(Code::EmptyFile, 0..0, "", format!("the file holds no {}", words.thing), words.start);
            None
        }
        Ok(root) => root,
        Err(error) => {
            report_malformed(&error, faults);
            None
        }
    }
}

fn parser(text: &str) -> Parser<'_, StrInput<'_>> {
    let options = granit_parser::options! {
        disallow_directives: true,
        emit_unresolved_aliases: true,
        emit_anchor_events: true,
        emit_comments: false,
        flow_nesting_limit: DEPTH,
        block_nesting_limit: DEPTH,
    };
    Parser::new_from_str_with_options(text, options)
}

/// Where `${NAME}` stands as a value of its own without a quote before it.
fn braces(text: &str) -> Vec<Span> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("${") {
        let end = text[at..].find('}').map_or(at, |length| at + length + 1);
        if text[..at].ends_with([' ', '[', ',', ':']) && env_name(&text[at..end]).is_some() {
            found.push(at..end);
        }
    }
    found
}

/// `text` with those braces replaced, byte for byte, so that every place stays where it is; `None` without any.
fn harmless(text: &str) -> Option<String> {
    let mut patched = String::with_capacity(text.len());
    let mut last = 0;
    for span in braces(text) {
        patched += &text[last..span.start];
        patched += "$_";
        patched += &text[span.start + 2..span.end - 1];
        patched += "_";
        last = span.end;
    }
    patched += &text[last..];
    (last > 0).then_some(patched)
}

struct Builder<'a, 'f> {
    original: &'a str,
    /// Whether `parser` reads a copy with harmless braces.
    is_patched: bool,
    parser: Parser<'a, StrInput<'a>>,
    path: String,
    faults: &'f Collector,
}

impl<'a> Builder<'a, '_> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, ScanError> {
        let Some(next) = self.parser.next_event() else { return Ok(None) };
        let (event, span) = next?;
        let end = self.original.len();
        let range = span.byte_range().unwrap_or(end..end);
        let start = span.tag_span().and_then(|tag| tag.byte_range());
        Ok(Some(match start {
            Some(tag) if event.tag().is_some() => (event, tag.start..range.end.max(tag.end)),
            _ => (event, range),
        }))
    }

    fn document(&mut self) -> Result<Option<Node>, ScanError> {
        let mut root = None;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::DocumentStart(..) if root.is_some() => {
                    self.error(
                        Code::ManyDocuments,
                        span,
                        "a second document starts here",
                        "keep one in a file: remove `---` and what follows, or put it into a file of its own",
                    );
                    return Ok(root);
                }
                Event::StreamStart | Event::StreamEnd | Event::DocumentStart(..) | Event::DocumentEnd => {}
                event => root = Some(self.node(event, span)?),
            }
        }
        let is_nothing = |node: &Node| matches!(&node.value, Value::Scalar(s) if s.plain && s.text.is_empty());
        Ok(root.filter(|root| !is_nothing(root)))
    }

    fn node(&mut self, event: Event<'a>, span: Span) -> Result<Node, ScanError> {
        if event.tag().is_some() {
            self.error(Code::Tag, span.clone(), self.has_no("tags"), "remove the `!…` and write the value by itself");
        }
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.anchor(anchor)?;
                let scalar = self.scalar(&text, style, &span);
                let broken = tag.is_some() || !self.is_portable(&scalar, &span);
                Ok(Node { span, value: if broken { Value::Broken } else { Value::Scalar(scalar) } })
            }
            Event::SequenceStart(_, anchor, _) => {
                self.anchor(anchor)?;
                self.sequence(span)
            }
            Event::MappingStart(_, anchor, _) => {
                self.anchor(anchor)?;
                self.mapping(span)
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.error(
                    Code::Anchor,
                    span.clone(),
                    self.has_no("aliases"),
                    "write out what `*…` stands for; every value is then found where it is used",
                );
                Ok(Node { span, value: Value::Broken })
            }
            _ => Ok(Node { span, value: Value::Broken }),
        }
    }

    /// Takes the event that follows an anchored node.
    fn anchor(&mut self, anchor: usize) -> Result<(), ScanError> {
        if anchor == 0 {
            return Ok(());
        }
        if let Some((_, span)) = self.next()? {
            self.error(
                Code::Anchor,
                span,
                self.has_no("anchors"),
                "remove the `&…`, and write the value out where it is meant again",
            );
        }
        Ok(())
    }

    fn sequence(&mut self, span: Span) -> Result<Node, ScanError> {
        let mut items = Vec::new();
        while let Some((event, at)) = self.next()? {
            if matches!(event, Event::SequenceEnd) {
                break;
            }
            let item = self.inside(&join_index("", items.len()), |builder| builder.node(event, at))?;
            items.push(item);
        }
        Ok(Node { span, value: Value::Seq(items) })
    }

    fn mapping(&mut self, span: Span) -> Result<Node, ScanError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut first: HashMap<String, Span> = HashMap::new();
        while let Some((event, key_span)) = self.next()? {
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let key = self.key(event, &key_span)?;
            let Some((event, at)) = self.next()? else { break };
            let Some(key) = key else {
                self.node(event, at)?;
                continue;
            };
            let step = join_key(&self.path, &key)[self.path.len()..].to_owned();
            let node = self.inside(&step, |builder| builder.node(event, at))?;
            if let Some(earlier) = first.get(&key) {
                let (line, _) = self.faults.source.position(earlier.start);
                let message = format!("`{}` stands here a second time", shown(&key));
                let help = format!("keep this one or the first, in line {line}");
                self.inside(&step, |builder| builder.error(Code::DuplicateKey, key_span, message, help));
                continue;
            }
            first.insert(key.clone(), key_span.clone());
            entries.push(Entry { key, key_span, node });
        }
        Ok(Node { span, value: Value::Map(entries) })
    }

    fn has_no(&self, what: &str) -> String {
        format!("a {} has no {what}", self.faults.source.words.file)
    }

    fn inside<T>(&mut self, step: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(step);
        let result = read(self);
        self.path.truncate(length);
        result
    }

    fn error(&mut self, code: Code, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.faults.error(code, span, &self.path, message, help);
    }

    /// The text of a key, or nothing where it cannot be used. One that readers disagree on is used as it stands.
    fn key(&mut self, event: Event<'a>, span: &Span) -> Result<Option<String>, ScanError> {
        let Event::Scalar(text, style, 0, None) = &event else {
            self.node(event, span.clone())?;
            let help = "write `name: value`; a list, an object, an alias or a tag cannot be a key";
            self.error(Code::BadKey, span.clone(), "a key is one word", help);
            return Ok(None);
        };
        let scalar = self.scalar(text, *style, span);
        if scalar.plain && scalar.text == "<<" {
            let help = "write out the keys that `<<` would bring in";
            self.error(Code::MergeKey, span.clone(), self.has_no("merge keys"), help);
            return Ok(None);
        }
        if scalar.text.is_empty() {
            self.error(Code::BadKey, span.clone(), "this key has no name", "write `name: value`");
            return Ok(None);
        }
        let step = join_key(&self.path, &scalar.text)[self.path.len()..].to_owned();
        self.inside(&step, |builder| builder.is_portable(&scalar, span));
        Ok(Some(scalar.text))
    }

    fn scalar(&self, text: &str, style: ScalarStyle, span: &Span) -> Scalar {
        let plain = style == ScalarStyle::Plain;
        let written = self.original.get(span.clone()).unwrap_or_default();
        if written.is_empty() {
            // The parser says `~` for nothing at all.
            return Scalar { text: String::new(), plain };
        }
        if !self.is_patched || !text.contains("$_") {
            return Scalar { text: text.to_owned(), plain };
        }
        let quotes: &[char] = if plain { &[] } else { &['"', '\''] };
        Scalar { text: written.trim_matches(quotes).to_owned(), plain }
    }

    fn is_portable(&mut self, scalar: &Scalar, span: &Span) -> bool {
        if !scalar.plain {
            return true;
        }
        if env_name(&scalar.text).is_some() {
            self.error(
                Code::UnquotedReference,
                span.clone(),
                format!("`{}` is not in quotes", scalar.text),
                format!("quote it: \"{}\"; without quotes `{{` opens an object inside `{{ … }}`", scalar.text),
            );
            return false;
        }
        let Some((message, help)) = portable::fault(&scalar.text) else { return true };
        self.error(Code::AmbiguousScalar, span.clone(), message, help);
        false
    }
}

/// One fault for text that is not YAML. The parser's own words are kept: they name no values.
fn report_malformed(error: &ScanError, faults: &Collector) {
    let at = error.marker().byte_offset().unwrap_or_default();
    let at = tab_before(&faults.source.text, at).unwrap_or(at);
    let span = at..at + 1;
    let (code, help): (_, &str) = match error.kind() {
        ErrorKind::DirectiveDisallowed => {
            (Code::Directive, "remove the line that starts with `%`: it is read as YAML 1.2 and has no tags")
        }
        ErrorKind::RecursionLimitExceeded => {
            (Code::TooDeep, "write it flatter: nothing here needs that many objects in objects")
        }
        _ => (Code::MalformedYaml, malformed_help(&faults.source.text, at)),
    };
    faults.error(code, span, "", error.info(), help);
}

/// The first tab that a line is indented with, in the line that could not be read or the one before it: a parser often
/// takes such a line for something else and stumbles over what follows.
fn tab_before(text: &str, at: usize) -> Option<usize> {
    let head = text.get(..at)?;
    let line = head.rfind('\n').map_or(0, |i| i + 1);
    let before = head[..line.saturating_sub(1)].rfind('\n').map_or(0, |i| i + 1);
    [before, line].into_iter().find_map(|start| {
        let indent = text[start..].bytes().take_while(|b| matches!(b, b' ' | b'\t'));
        indent.into_iter().position(|b| b == b'\t').map(|offset| start + offset)
    })
}

/// What most often stands behind text that cannot be read, going by the line it stopped at.
fn malformed_help(text: &str, at: usize) -> &'static str {
    let at = (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or_default();
    let start = text[..at].rfind('\n').map_or(0, |i| i + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    if line.trim_start_matches(' ').starts_with('\t') {
        "indent with spaces: YAML does not allow tabs"
    } else if line.contains("${") {
        "quote the reference: \"${NAME}\""
    } else if line.matches(": ").count() > 1 && !line.contains('{') {
        "put each key on a line of its own, or quote a value that has `: ` in it"
    } else {
        "look at this line and the one before it: an indent, a quote or a closing bracket is likely missing"
    }
}

/// The places in `text` of values that may be secrets: they are not drawn.
pub(crate) fn secrets(text: &str, node: &Node, inside: bool, found: &mut Vec<Span>) {
    let is_shown = || text.get(node.span.clone()).is_some_and(|value| is_reference(value.trim_matches(['"', '\''])));
    match &node.value {
        Value::Scalar(_) | Value::Broken if inside && !is_shown() => found.push(node.span.clone()),
        Value::Map(entries) => {
            for entry in entries {
                secrets(text, &entry.node, inside || is_sensitive(&entry.key), found);
            }
        }
        Value::Seq(items) => {
            for item in items {
                secrets(text, item, inside, found);
            }
        }
        Value::Scalar(_) | Value::Broken => {}
    }
}
