//! YAML as LiteLLM's users write it: anchors, merge keys, YAML 1.1 words, keys that nobody knows.
//!
//! A fleet file is read strictly, by `config::tree`. A LiteLLM configuration is somebody else's file that works today,
//! so here everything that PyYAML reads is read, and in the same way: of two equal keys the last one counts, tags are
//! ignored, an alias is a copy. Lines are kept for the report. What aliases could grow to is bounded.

use std::collections::BTreeMap;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, StrInput};

/// Nodes after all aliases are written out. The largest configuration that we know of has a few thousand.
const MOST_NODES: usize = 500_000;
const DEPTH: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Map(Vec<Entry>),
    Seq(Vec<Node>),
    Scalar { text: String, plain: bool },
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) node: Node,
}

/// Why a text is not YAML.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct Malformed {
    pub line: usize,
    pub message: String,
}

impl Node {
    pub(super) fn empty() -> Self {
        Self { line: 1, value: Value::Map(Vec::new()) }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(super) fn items(&self) -> &[Self] {
        match &self.value {
            Value::Seq(items) => items,
            _ => &[],
        }
    }

    /// The value of a key, `null` being none.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.node).filter(|node| !node.is_null())
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        const NULLS: &[&str] = &["", "~", "null", "Null", "NULL"];
        matches!(&self.value, Value::Scalar { text, plain: true } if NULLS.contains(&text.as_str()))
    }

    /// The digits of a number, without the `_` that YAML 1.1 allows between them.
    pub(super) fn number(&self) -> Option<String> {
        let text = self.text()?.replace('_', "");
        text.parse::<f64>().ok().filter(|number| number.is_finite()).map(|_| text)
    }
}

pub(super) fn parse(text: &str) -> Result<Node, Malformed> {
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: DEPTH,
        block_nesting_limit: DEPTH,
    };
    let parser = Parser::new_from_str_with_options(text, options);
    let mut reader = Reader { parser, anchors: BTreeMap::new(), nodes: 0 };
    let root = reader.document().map_err(|error| match error {
        Fault::Scan(error) => Malformed { line: error.marker().line().max(1), message: error.info().clone() },
        Fault::TooLarge(line) => Malformed { line, message: "aliases make this file too large".to_owned() },
    })?;
    Ok(root.filter(|root| !root.is_null()).unwrap_or_else(Node::empty))
}

enum Fault {
    Scan(Box<ScanError>),
    TooLarge(usize),
}

impl From<ScanError> for Fault {
    fn from(error: ScanError) -> Self {
        Self::Scan(Box::new(error))
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: BTreeMap<usize, (Node, usize)>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, usize)>, Fault> {
        let Some(next) = self.parser.next_event() else { return Ok(None) };
        let (event, span) = next?;
        Ok(Some((event, span.start.line())))
    }

    /// The first document; LiteLLM reads no other.
    fn document(&mut self) -> Result<Option<Node>, Fault> {
        while let Some((event, line)) = self.next()? {
            match event {
                Event::StreamStart | Event::DocumentStart(..) => {}
                Event::StreamEnd | Event::DocumentEnd => return Ok(None),
                event => return self.node(event, line).map(Some),
            }
        }
        Ok(None)
    }

    fn count(&mut self, more: usize, line: usize) -> Result<(), Fault> {
        self.nodes += more;
        if self.nodes > MOST_NODES { Err(Fault::TooLarge(line)) } else { Ok(()) }
    }

    fn node(&mut self, event: Event<'a>, line: usize) -> Result<Node, Fault> {
        self.count(1, line)?;
        let before = self.nodes;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                (Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.sequence()?, anchor),
            Event::MappingStart(_, anchor, _) => (self.mapping()?, anchor),
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).map(|(node, size)| (node.value.clone(), *size));
                let (value, size) = known.unwrap_or((null(), 1));
                self.count(size, line)?;
                (value, 0)
            }
            _ => (null(), 0),
        };
        let node = Node { line, value };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before + 1));
        }
        Ok(node)
    }

    fn sequence(&mut self) -> Result<Value, Fault> {
        let mut items = Vec::new();
        while let Some((event, line)) = self.next()? {
            if matches!(event, Event::SequenceEnd) {
                break;
            }
            items.push(self.node(event, line)?);
        }
        Ok(Value::Seq(items))
    }

    fn mapping(&mut self) -> Result<Value, Fault> {
        let (mut own, mut merged): (Vec<Entry>, Vec<Entry>) = Default::default();
        while let Some((event, line)) = self.next()? {
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let key = self.node(event, line)?;
            let Some((event, at)) = self.next()? else { break };
            let node = self.node(event, at)?;
            match key.value {
                Value::Scalar { text, plain: true } if text == "<<" => merge(&mut merged, node),
                Value::Scalar { text, .. } => {
                    own.retain(|entry| entry.key != text);
                    own.push(Entry { key: text, line, node });
                }
                Value::Map(_) | Value::Seq(_) => {}
            }
        }
        own.extend(merged.into_iter().filter(|entry| !own.iter().any(|o| o.key == entry.key)).collect::<Vec<_>>());
        Ok(Value::Map(own))
    }
}

fn null() -> Value {
    Value::Scalar { text: String::new(), plain: true }
}

/// What `<<` brings in, from one object or several, of which the first that has a key wins.
fn merge(into: &mut Vec<Entry>, node: Node) {
    match node.value {
        Value::Map(entries) => {
            for entry in entries {
                if !into.iter().any(|known| known.key == entry.key) {
                    into.push(entry);
                }
            }
        }
        Value::Seq(items) => items.into_iter().for_each(|item| merge(into, item)),
        Value::Scalar { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_1_1_is_read_as_its_author_meant_it() {
        let root = parse("a: &x {tpm: 20_000, on: Yes}\nb: {<<: *x, tpm: 5}\nc: ~\nd: 1\nd: 2\n").unwrap();
        let b = root.get("b").unwrap();
        assert_eq!(b.get("tpm").unwrap().number().as_deref(), Some("5"));
        assert_eq!(b.get("on").unwrap().text(), Some("Yes"));
        assert_eq!(root.get("a").unwrap().get("tpm").unwrap().number().as_deref(), Some("20000"));
        assert!(root.get("c").is_none());
        assert_eq!((root.get("d").unwrap().text(), root.get("d").unwrap().line), (Some("2"), 5));
    }

    #[test]
    fn aliases_of_aliases_are_bounded() {
        let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for n in 1..9 {
            let before = format!("*a{}", n - 1);
            text += &format!("a{n}: &a{n} [{}]\n", vec![before; 10].join(","));
        }
        assert!(parse(&text).unwrap_err().message.contains("too large"));
    }

    #[test]
    fn an_empty_file_is_an_empty_object_and_a_broken_one_says_where() {
        assert!(parse("# nothing\n").unwrap().entries().is_empty());
        assert_eq!(parse("a: 1\nb: [\n").unwrap_err().line, 2);
    }
}
