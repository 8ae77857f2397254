//! As much XML as S3's requests and answers have: elements with text, without attributes that matter.
//!
//! Not a parser: what a client sends is looked through for its elements by name. A document that is not well formed gives
//! fewer elements than it meant, which the operations refuse.

use std::fmt::Write as _;

pub(super) const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// The contents of all elements of this name, in order; they do not nest in themselves.
pub(super) fn elements<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let (close, mut found, mut rest) = (format!("</{name}>"), Vec::new(), text);
    while let Some(at) = rest.find(&format!("<{name}")) {
        rest = &rest[at + 1 + name.len()..];
        // `<Key>` and `<Key attribute="…">`, but not `<KeyMarker>`.
        let (Some('>' | ' '), Some(begin)) = (rest.chars().next(), rest.find('>')) else { continue };
        let Some(end) = rest.find(&close) else { break };
        if begin < end {
            found.push(&rest[begin + 1..end]);
        }
        rest = &rest[end + close.len()..];
    }
    found
}

/// The text of the first element of this name.
pub(super) fn text(within: &str, name: &str) -> Option<String> {
    elements(within, name).first().map(|raw| unescaped(raw.trim()))
}

pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let Some(end) = rest.find(';') else { break };
        match character(&rest[1..end]) {
            Some(c) => out.push(c),
            None => out.push_str(&rest[..=end]),
        }
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    out
}

fn character(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_by_their_whole_name_and_text_comes_back() {
        let text = "<Delete xmlns=\"x\"><Quiet>true</Quiet><Object><Key>a&amp;b&#x2F;&quot;</Key></Object><KeyMarker>no</KeyMarker>\
                    <Object><Key >c</Key></Object></Delete>";
        let keys: Vec<_> = elements(text, "Object").iter().filter_map(|o| super::text(o, "Key")).collect();
        assert_eq!(keys, ["a&b/\"", "c"]);
        assert_eq!(super::text("<Key>1</Key", "Key"), None);
        assert_eq!(unescaped(&escaped("a<b>&\"c\u{1}")), "a<b>&\"c\u{1}");
        assert_eq!(unescaped("50 % & more; &nbsp;"), "50 % & more; &nbsp;");
    }
}
