//! What became of each key of the file that was read.
//!
//! The four verdicts say what a client of the old proxy would notice, because that is what the reader has to decide on:
//! nothing (kept, ignored), a difference that the message states (approximated), or requests that are answered
//! otherwise or not at all (refused). Warnings are about the old file: what it does not do although it looks so.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Means the same here.
    Kept,
    /// Something close to it, and the message says how it differs.
    Approximated,
    /// Not carried over, and no request is answered otherwise for it.
    Ignored,
    /// Not carried over: requests are answered otherwise, or not at all.
    Refused,
    /// About the old file.
    Warning,
}

impl Verdict {
    pub const ALL: [Self; 5] = [Self::Refused, Self::Warning, Self::Approximated, Self::Ignored, Self::Kept];

    /// Its key in the JSON, and its heading.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Approximated => "approximated",
            Self::Ignored => "ignored",
            Self::Refused => "refused",
            Self::Warning => "warnings",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub verdict: Verdict,
    /// Such as `model_list[0].litellm_params.timeout`.
    pub path: String,
    /// From 1, in the file that was read.
    pub line: usize,
    pub message: String,
    /// What to do; for what is kept, where it went.
    pub help: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    notes: Vec<Note>,
}

impl Report {
    pub(super) fn note(
        &mut self,
        verdict: Verdict,
        (path, line): (&str, usize),
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.notes.push(Note { verdict, path: path.to_owned(), line, message: message.into(), help: help.into() });
    }

    pub fn of(&self, verdict: Verdict) -> impl Iterator<Item = &Note> {
        self.notes.iter().filter(move |note| note.verdict == verdict)
    }

    pub fn has(&self, verdict: Verdict) -> bool {
        self.of(verdict).next().is_some()
    }

    /// `{"kept":[…],"approximated":[…],"ignored":[…],"refused":[…],"warnings":[…]}`.
    pub fn to_json(&self) -> Value {
        let of = |verdict| -> Vec<Value> {
            let note = |n: &Note| json!({ "path": n.path, "line": n.line, "message": n.message, "help": n.help });
            self.of(verdict).map(note).collect()
        };
        let keys = [Verdict::Kept, Verdict::Approximated, Verdict::Ignored, Verdict::Refused, Verdict::Warning];
        Value::Object(keys.into_iter().map(|verdict| (verdict.as_str().to_owned(), json!(of(verdict)))).collect())
    }

    /// For people: what matters most comes first, what is the same for many places is said once, and what is kept is
    /// only counted.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for verdict in Verdict::ALL.into_iter().filter(|verdict| self.has(*verdict)) {
            let count = self.of(verdict).count();
            if verdict == Verdict::Kept {
                let _ = writeln!(text, "kept: {count}");
                continue;
            }
            let _ = writeln!(text, "{}: {count}", verdict.as_str());
            for (first, more) in self.grouped(verdict) {
                let places = if more == 0 { String::new() } else { format!(" and {more} more like it") };
                let _ = writeln!(text, "  line {}  {}{places}\n    {}", first.line, first.path, first.message);
                let _ = writeln!(text, "    help: {}", first.help);
            }
        }
        text
    }

    /// The first of the notes that say the same, and how many more there are, in the order of the file.
    fn grouped(&self, verdict: Verdict) -> Vec<(&Note, usize)> {
        let mut groups: BTreeMap<(&str, &str), (&Note, usize)> = BTreeMap::new();
        for note in self.of(verdict) {
            groups.entry((&note.message, &note.help)).and_modify(|(_, more)| *more += 1).or_insert((note, 0));
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.sort_by_key(|(note, _)| note.line);
        groups
    }
}
