//! The members of a JSON object with the byte spans of their keys and values, without a tree.
//!
//! serde_json reads the grammar (its `RawValue` path is iterative and borrows from the input), so that there is no
//! second JSON parser to keep right; this file adds what a gateway needs and serde_json leaves out: UTF-8 is checked
//! everywhere, nesting is bounded before anything is parsed, and a key that occurs twice is a fault, because two
//! parsers in a row that disagree on which one counts are a way around every limit. Keys are compared decoded, since
//! `"mod\u0065l"` is `"model"` to every engine.
//!
//! Edges: only the outermost object is looked at; an escaped lone surrogate or `1e999` inside a value is grammatical
//! and passes (the engine judges it), in an outermost key a lone surrogate is a fault. Time is linear in the body plus
//! n log n in the number of members, of which there are at most [`MAX_MEMBERS`].

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use memchr::{memchr_iter, memchr2};
use serde::de::{Deserializer as _, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The most members an object may have. OpenAI's largest request has about 40; the bound keeps a body of many tiny
/// members from costing several times its size in memory.
pub const MAX_MEMBERS: usize = 1_024;

/// Bounds on a document from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many objects and arrays may be open at once, the outermost included.
    pub max_depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_depth: 128 }
    }
}

/// What is wrong with a document. The messages quote no more of it than a key, and may be shown to who sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the text is not valid UTF-8 (at byte {offset})")]
    NotUtf8 { offset: usize },
    #[error("the text is not valid JSON: {what} (at byte {offset})")]
    Syntax { what: String, offset: usize },
    #[error("the JSON is not what it should be: {what} (at byte {offset})")]
    Shape { what: String, offset: usize },
    #[error("the JSON is not an object (at byte {offset})")]
    NotAnObject { offset: usize },
    #[error("the JSON is nested deeper than {max_depth} levels (at byte {offset})")]
    TooDeep { max_depth: usize, offset: usize },
    #[error("the JSON object has more than {MAX_MEMBERS} members (at byte {offset})")]
    TooManyMembers { offset: usize },
    #[error("the key \"{key}\" occurs twice (the second time at byte {offset})")]
    DuplicateKey { key: String, offset: usize },
}

impl Fault {
    /// Where in the document, in bytes from its start.
    pub fn offset(&self) -> usize {
        match self {
            Self::NotUtf8 { offset }
            | Self::Syntax { offset, .. }
            | Self::Shape { offset, .. }
            | Self::NotAnObject { offset }
            | Self::TooDeep { offset, .. }
            | Self::TooManyMembers { offset }
            | Self::DuplicateKey { offset, .. } => *offset,
        }
    }
}

/// One `key: value` of the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The key as written, without its quotes; escapes are still escapes.
    pub key: Range<usize>,
    /// The value as written, without the white space around it.
    pub value: Range<usize>,
}

/// The members of one object, in the order of the text.
#[derive(Debug, Clone)]
pub struct Members<'a> {
    text: &'a str,
    open: usize,
    list: Vec<Member>,
}

impl<'a> Members<'a> {
    /// Where the object's `{` stands.
    pub fn open(&self) -> usize {
        self.open
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Member> {
        self.list.iter()
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The member whose decoded key is `name`.
    pub fn get(&self, name: &str) -> Option<&Member> {
        self.list.iter().find(|member| self.is_named(member, name))
    }

    /// Whether the decoded key is `name`, which has no escapes: those make a key longer than what it stands for.
    fn is_named(&self, member: &Member, name: &str) -> bool {
        let written = &self.text[member.key.clone()];
        written == name || (written.len() > name.len() && written.contains('\\') && self.key(member) == name)
    }

    /// A member's key, decoded.
    pub fn key(&self, member: &Member) -> Cow<'a, str> {
        let quoted = &self.text[member.key.start - 1..=member.key.end];
        decode(quoted).unwrap_or(Cow::Borrowed(quoted))
    }

    /// A member's value as written.
    pub fn value(&self, member: &Member) -> &'a str {
        &self.text[member.value.clone()]
    }
}

impl<'m> IntoIterator for &'m Members<'_> {
    type Item = &'m Member;
    type IntoIter = std::slice::Iter<'m, Member>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Checks the whole document and gives the members of its outermost object.
pub fn members<'a>(body: &'a [u8], limits: &Limits) -> Result<Members<'a>, Fault> {
    let text = std::str::from_utf8(body).map_err(|error| Fault::NotUtf8 { offset: error.valid_up_to() })?;
    check_depth(body, limits.max_depth)?;
    let open = body.iter().position(|byte| !is_space(*byte)).unwrap_or(body.len());
    if body.get(open).is_some_and(|byte| *byte != b'{') {
        return Err(Fault::NotAnObject { offset: open });
    }
    let found = scan(text).map_err(|error| fault(body, &error))?;
    if let Some(offset) = found.too_many {
        return Err(Fault::TooManyMembers { offset });
    }
    let members = Members { text, open, list: found.list };
    check_unique(&members)?;
    Ok(members)
}

/// The text of a JSON string (with its quotes), or `None` when it is not a string or has no text (a lone surrogate).
pub(crate) fn decode(value: &str) -> Option<Cow<'_, str>> {
    let inner = value.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(value).ok().map(Cow::Owned)
}

/// The document with `span` replaced by `text` as a JSON string.
pub(crate) fn splice_string(document: &[u8], span: &Range<usize>, text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(document.len() + text.len() + 2);
    out.extend_from_slice(&document[..span.start]);
    push_string(&mut out, text);
    out.extend_from_slice(&document[span.end..]);
    out
}

/// Applies replacements that are in order and do not overlap.
pub(crate) fn spliced(document: &[u8], splices: &[(Range<usize>, impl AsRef<[u8]>)]) -> Vec<u8> {
    let added: usize = splices.iter().map(|(_, text)| text.as_ref().len()).sum();
    let mut out = Vec::with_capacity(document.len() + added);
    let mut from = 0;
    for (span, text) in splices {
        out.extend_from_slice(&document[from..span.start]);
        out.extend_from_slice(text.as_ref());
        from = span.end;
    }
    out.extend_from_slice(&document[from..]);
    out
}

/// Appends `text` as a JSON string.
pub(crate) fn push_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing a string into memory cannot fail");
}

/// Where `part`, which borrows from `whole`, stands in it.
pub(crate) fn span_in(whole: &[u8], part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

/// serde_json's error as a fault with a byte offset instead of a line and a column.
pub(crate) fn fault(body: &[u8], error: &serde_json::Error) -> Fault {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what).to_owned();
    let before = error.line().checked_sub(2).and_then(|nth| memchr_iter(b'\n', body).nth(nth));
    let line_start = before.map_or(0, |newline| newline + 1);
    let offset = (line_start + error.column().saturating_sub(1)).min(body.len());
    if error.is_data() { Fault::Shape { what, offset } } else { Fault::Syntax { what, offset } }
}

pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Counts brackets outside strings. Runs before the grammar is known to hold, and needs only that a string ends at the
/// first quote that is not escaped.
fn check_depth(body: &[u8], max_depth: usize) -> Result<(), Fault> {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(&byte) = body.get(at) {
        at += 1;
        match byte {
            b'"' => at = string_end(body, at),
            b'{' | b'[' => {
                depth += 1;
                if depth > max_depth {
                    return Err(Fault::TooDeep { max_depth, offset: at - 1 });
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Just after the quote that ends the string whose first byte is at `at`.
fn string_end(body: &[u8], mut at: usize) -> usize {
    while let Some(found) = body.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found + 1;
        if body[at - 1] == b'"' {
            return at;
        }
        at += 1;
    }
    body.len()
}

#[derive(Default)]
struct Found {
    list: Vec<Member>,
    too_many: Option<usize>,
}

fn scan(text: &str) -> Result<Found, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let found = reader.deserialize_map(Scan { text })?;
    reader.end()?;
    Ok(found)
}

struct Scan<'a> {
    text: &'a str,
}

impl<'a> Visitor<'a> for Scan<'a> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut found = Found::default();
        while let Some((key, value)) = map.next_entry::<&'a RawValue, &'a RawValue>()? {
            let key = span_in(self.text.as_bytes(), key.get());
            let value = span_in(self.text.as_bytes(), value.get());
            if decode(&self.text[key.clone()]).is_none() {
                return Err(A::Error::custom("a key is not text"));
            }
            if found.list.len() < MAX_MEMBERS {
                found.list.push(Member { key: key.start + 1..key.end - 1, value });
            } else {
                found.too_many.get_or_insert(key.start);
            }
        }
        Ok(found)
    }
}

fn check_unique(members: &Members<'_>) -> Result<(), Fault> {
    let mut keys: Vec<_> = members.iter().map(|member| (members.key(member), member.key.start)).collect();
    keys.sort_unstable();
    let twice = keys.windows(2).filter(|pair| pair[0].0 == pair[1].0).min_by_key(|pair| pair[1].1);
    twice.map_or(Ok(()), |pair| {
        let key = crate::error::bounded(&pair[0].0, 64);
        Err(Fault::DuplicateKey { key, offset: pair[1].1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &[(&str, &str)]) {
        let members = members(text.as_bytes(), &Limits::default()).unwrap();
        let seen: Vec<_> = members.iter().map(|m| (&text[m.key.clone()], members.value(m))).collect();
        assert_eq!(seen, expect);
    }

    fn refused(body: &[u8]) -> Fault {
        members(body, &Limits::default()).unwrap_err()
    }

    #[test]
    fn spans_leave_out_quotes_and_white_space() {
        check("{}", &[]);
        check(" { \"a\" : 1 , \"b\\n\":\t[ {\"c\":\"}\"} ] }\n", &[("a", "1"), ("b\\n", "[ {\"c\":\"}\"} ]")]);
    }

    #[test]
    fn a_key_is_the_same_however_it_is_escaped() {
        let text = r#"{"mod\u0065l":"a"}"#;
        assert!(members(text.as_bytes(), &Limits::default()).unwrap().get("model").is_some());
        let twice = refused(br#"{"model":"a","x":1,"mod\u0065l":"b"}"#);
        assert_eq!(twice, Fault::DuplicateKey { key: "model".into(), offset: 20 });
    }

    #[test]
    fn faults_say_where() {
        assert_eq!(refused(b"{\"a\":\"\xff\"}"), Fault::NotUtf8 { offset: 6 });
        assert_eq!(refused(b" [1]"), Fault::NotAnObject { offset: 1 });
        assert_eq!(refused(b"{\"a\":1} x").offset(), 8);
        assert_eq!(refused(b"{\n\"a\":\n tru }").offset(), 11);
        assert!(matches!(refused(b""), Fault::Syntax { offset: 0, .. }));
        assert!(matches!(refused(br#"{"\ud800":1}"#), Fault::Shape { .. }));
    }

    #[test]
    fn a_million_brackets_are_refused_at_the_limit() {
        let mut body = b"{\"a\":".to_vec();
        body.resize(1_000_005, b'[');
        assert_eq!(refused(&body), Fault::TooDeep { max_depth: 128, offset: 132 });
        let deep = members(&body, &Limits { max_depth: usize::MAX }).unwrap_err();
        assert!(matches!(deep, Fault::Syntax { .. }));
    }

    #[test]
    fn many_members_are_refused() {
        let list: Vec<_> = (0..=MAX_MEMBERS).map(|n| format!("\"{n}\":0")).collect();
        let body = format!("{{{}}}", list.join(","));
        assert!(matches!(refused(body.as_bytes()), Fault::TooManyMembers { .. }));
    }
}
