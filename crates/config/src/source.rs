//! The text of a fleet file: where a byte stands, and which bytes must not be shown.
//!
//! Lines and columns are computed from byte offsets here rather than taken from the YAML parser, so that what is
//! reported and what is drawn cannot disagree. Secrets are hidden by the place they stand at and by what the line
//! looks like, both: a malformed file has no tree to ask, and that is when a secret is most likely to be on the line
//! that is drawn.

use std::ops::Range;

/// What faults call the file that they are in.
#[derive(Debug)]
pub(crate) struct Words {
    /// As in "a fleet file has no anchors".
    pub(crate) file: &'static str,
    /// What it holds.
    pub(crate) thing: &'static str,
    /// What an empty one starts with.
    pub(crate) start: &'static str,
}

pub(crate) static FLEET: Words = Words {
    file: "fleet file",
    thing: "fleet",
    start: "start it with `version: 1`, `backends:` and `models:`; examples/single-cloud.yaml is a short one",
};

pub(crate) static SCENARIO: Words = Words {
    file: "scenario",
    thing: "scenario",
    start: "start it with `version: 1`, `demand:` and `model:`; examples/scenarios/chat.yaml is a complete one",
};

/// A file's text.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) words: &'static Words,
    /// As the user named it.
    pub(crate) name: String,
    pub(crate) text: String,
    line_starts: Vec<usize>,
    /// Where values stand that may be secrets.
    hidden: Vec<Range<usize>>,
}

/// Words in a key that make its value one not to print.
const SENSITIVE: &[&str] =
    &["key", "secret", "token", "password", "passwd", "sha256", "credential", "authorization", "cert"];

/// Keys that have such a word in them and hold no secret.
const HARMLESS: &[&str] = &[
    "keys",
    "first_token",
    "time_per_output_token_p95",
    "tokens_per_second",
    "usd_per_million_tokens",
    "prompt_tokens",
    "output_tokens",
    "uncertainty",
];

/// Whether the value of `key` may be a secret.
pub(crate) fn is_sensitive(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    !HARMLESS.contains(&key.as_str()) && SENSITIVE.iter().any(|word| key.contains(word))
}

/// Whether `text` only says where a secret is.
pub(crate) fn is_reference(text: &str) -> bool {
    text.starts_with("file:") || env_name(text).is_some()
}

/// `NAME` of `${NAME}`.
pub(crate) fn env_name(text: &str) -> Option<&str> {
    let name = text.strip_prefix("${")?.strip_suffix('}')?;
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    (starts_well && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')).then_some(name)
}

impl Default for Source {
    fn default() -> Self {
        Self::new("", "")
    }
}

impl Source {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { words: &FLEET, name: name.to_owned(), text: text.to_owned(), line_starts, hidden: Vec::new() }
    }

    pub(crate) fn of(self, words: &'static Words) -> Self {
        Self { words, ..self }
    }

    /// Line and column, both from 1; the column counts characters.
    pub(crate) fn position(&self, offset: usize) -> (usize, usize) {
        let offset = self.floor(offset);
        let line = self.line_starts.partition_point(|start| *start <= offset).max(1);
        let start = self.line_starts[line - 1];
        let before = self.text.get(start..offset).unwrap_or_default();
        (line, before.chars().filter(|c| *c != '\u{feff}').count() + 1)
    }

    /// The nearest character boundary at or before `offset`.
    fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }

    pub(crate) fn hide(&mut self, span: Range<usize>) {
        self.hidden.push(span);
    }

    /// The text of a line (from 1) as it may be shown: secrets as `***`, control characters as spaces.
    pub(crate) fn shown_line(&self, line: usize) -> String {
        let range = self.line_range(line);
        let text = &self.text[range.clone()];
        let mut masks: Vec<Range<usize>> = lexical_secrets(text);
        if self.is_under_secret(line) && !is_reference(text.trim_matches([' ', '-', '"', '\''])) {
            masks.push(indent(text)..text.len());
        }
        let here = |hidden: &Range<usize>| hidden.start < range.end && hidden.end > range.start;
        masks.extend(
            self.hidden
                .iter()
                .filter(|hidden| here(hidden))
                .map(|hidden| hidden.start.saturating_sub(range.start)..hidden.end.min(range.end) - range.start),
        );
        masked(text, &masks)
    }

    /// Whether a line is indented under a key whose value may be a secret, at any depth.
    fn is_under_secret(&self, line: usize) -> bool {
        let text = |line: usize| &self.text[self.line_range(line)];
        let is_item = |text: &str| text.trim_start().starts_with('-');
        let (mut depth, mut may_be_level) = (indent(text(line)), is_item(text(line)));
        for above in (1..line).rev().map(text).filter(|text| !text.trim().is_empty()) {
            // The items of a list may stand as far left as its key.
            if indent(above) < depth || (may_be_level && indent(above) == depth && !is_item(above)) {
                if above.split(':').next().is_some_and(|key| is_sensitive(key.trim_matches([' ', '-', '"', '\'']))) {
                    return true;
                }
                (depth, may_be_level) = (indent(above), is_item(above));
            }
            if depth == 0 {
                break;
            }
        }
        false
    }

    fn line_range(&self, line: usize) -> Range<usize> {
        let start = self.line_starts.get(line.saturating_sub(1)).copied().unwrap_or(self.text.len());
        let end = self.line_starts.get(line).copied().unwrap_or(self.text.len());
        let line = self.text[start..end].trim_end_matches(['\n', '\r']);
        start..start + line.len()
    }
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches([' ', '\t']).len()
}

/// Keeps every character's column: a mask is as wide as what it hides.
fn masked(text: &str, masks: &[Range<usize>]) -> String {
    text.char_indices()
        .filter(|(_, c)| *c != '\u{feff}')
        .map(|(at, c)| {
            if masks.iter().any(|mask| mask.contains(&at)) {
                '*'
            } else if c.is_control() {
                ' '
            } else {
                c
            }
        })
        .collect()
}

/// What looks like a secret on a line by itself: what follows a key that names one, and a password in a URL.
fn lexical_secrets(line: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for (colon, _) in line.match_indices(':') {
        let key = line[..colon].trim_end().trim_end_matches(['"', '\'']);
        let word = key.rsplit(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).next().unwrap_or_default();
        let value = line[colon + 1..].trim_start();
        if is_sensitive(word) && !value.is_empty() && !is_shown_whole(value) {
            found.push(line.len() - value.len()..line.len());
        }
    }
    if let Some(scheme) = line.find("://") {
        let rest = &line[scheme + 3..];
        let end = rest.find(['/', '"', '\'', ' ']).unwrap_or(rest.len());
        if let Some(at) = rest[..end].rfind('@') {
            found.push(scheme + 3..scheme + 3 + at);
        }
    }
    found
}

/// Whether the value that follows a sensitive key is a reference or only opens a list or an object.
fn is_shown_whole(value: &str) -> bool {
    let quoted = value.starts_with(['"', '\'']);
    let value = value.trim_start_matches(['"', '\'']);
    let end = if quoted { value.find(['"', '\'']) } else { value.find([',', ' ', '\r']) };
    let first = &value[..end.unwrap_or(value.len())];
    first == "{" || first == "[" || first.starts_with('#') || is_reference(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        Source::new("fleet.yaml", line).shown_line(1)
    }

    #[test]
    fn positions_count_characters_from_one() {
        let source = Source::new("fleet.yaml", "a: ü\r\nb: x\n");
        assert_eq!(source.position(0), (1, 1));
        assert_eq!(source.position(5), (1, 5));
        assert_eq!(source.position(10), (2, 4));
        assert_eq!(source.position(999), (3, 1));
    }

    #[test]
    fn what_may_be_a_secret_is_hidden_and_what_names_one_is_not() {
        assert_eq!(shown("  api_key: sk-canary"), "  api_key: *********");
        assert_eq!(shown("{\"api_key\": \"sk-canary\"}"), "{\"api_key\": ************");
        assert_eq!(shown("engine: x api_key: sk"), "engine: x api_key: **");
        assert_eq!(shown("url: http://me:pw@host/v1"), "url: http://*****@host/v1");
        for harmless in [
            "  api_key: \"${OPENAI}\"",
            "sha256: file:run/prod # ours",
            "keys:",
            "{ api_key: ${A} }",
            "p: { sha256: file:x, prority: high }",
        ] {
            assert_eq!(shown(harmless), harmless);
        }
    }

    #[test]
    fn what_is_indented_under_a_secrets_key_is_hidden() {
        let source = Source::new(
            "f",
            "keys:\n  prod:\n    sha256:\n    - sk\n    - file:a\n  api_key:\n\n    a:\n      sk\nx: y",
        );
        let shown: Vec<String> = (1..=10).map(|line| source.shown_line(line)).collect();
        assert_eq!(shown[3], "    ****");
        assert_eq!(shown[4], "    - file:a");
        assert_eq!((shown[1].as_str(), shown[9].as_str()), ("  prod:", "x: y"));
        assert_eq!(shown[8], "      **");
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(shown("a: \u{1b}[31mred"), "a:  [31mred");
    }
}
