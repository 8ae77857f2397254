//! Faults for people and for programs.
//!
//! People see the line itself with the place underlined, as compilers show it, because a line number alone makes them
//! open the file to understand the message. Lines are taken through [`Source::shown_line`], so that no secret is drawn.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{
    Faults,
    fault::{Fault, Severity},
    source::Source,
};

/// Columns of a source line that are drawn.
const WIDTH: usize = 110;

struct Style {
    error: &'static str,
    warning: &'static str,
    frame: &'static str,
    bold: &'static str,
    end: &'static str,
}

const PLAIN: Style = Style { error: "", warning: "", frame: "", bold: "", end: "" };
const COLOUR: Style =
    Style { error: "\x1b[1;31m", warning: "\x1b[1;33m", frame: "\x1b[1;34m", bold: "\x1b[1m", end: "\x1b[0m" };

impl Faults {
    /// For a terminal, with or without colours; each fault ends in an empty line.
    pub fn render(&self, colour: bool) -> String {
        let style = if colour { COLOUR } else { PLAIN };
        self.list.iter().map(|fault| render(fault, &self.source, &style)).collect()
    }

    /// `{"errors": […], "warnings": […]}`.
    pub fn to_json(&self) -> Value {
        let of = |severity| -> Vec<Value> {
            self.list.iter().filter(|fault| fault.severity == severity).map(|fault| self.fault_json(fault)).collect()
        };
        json!({ "errors": of(Severity::Error), "warnings": of(Severity::Warning) })
    }

    fn fault_json(&self, fault: &Fault) -> Value {
        json!({
            "code": fault.code.as_str(),
            "file": self.source.name,
            "line": fault.line,
            "column": fault.column,
            "path": fault.path,
            "message": fault.message,
            "help": fault.help,
        })
    }
}

fn render(fault: &Fault, source: &Source, style: &Style) -> String {
    let Style { frame, bold, end, .. } = style;
    let (word, paint) = match fault.severity {
        Severity::Error => ("error", style.error),
        Severity::Warning => ("warning", style.warning),
    };
    let number = fault.line.to_string();
    let gap = " ".repeat(number.len());
    let (line, column) = window(&source.shown_line(fault.line), fault.column);
    let under = underline(fault, source, line.chars().count().saturating_sub(column - 1));
    let indent = " ".repeat(column - 1);
    let mut text = String::new();
    let place = format!("{}:{}:{}", source.name, fault.line, fault.column);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{paint}{word}[{}]{end}{bold}: {}{end}", fault.code, fault.message);
    let _ = writeln!(text, "{gap}{frame}-->{end} {place}");
    let _ = writeln!(text, "{gap} {frame}|{end}");
    let _ = writeln!(text, "{frame}{number} |{end} {line}");
    let _ = writeln!(text, "{gap} {frame}|{end} {indent}{paint}{under}{end}");
    if !fault.path.is_empty() {
        let _ = writeln!(text, "{gap} {frame}={end} at: {}", fault.path);
    }
    let _ = writeln!(text, "{gap} {frame}={end} {bold}help{end}: {}\n", fault.help);
    text
}

/// As many carets as the place has characters on its first line.
fn underline(fault: &Fault, source: &Source, room: usize) -> String {
    let first_line = source.text.get(fault.span.clone()).unwrap_or_default().lines().next().unwrap_or_default();
    "^".repeat(first_line.chars().count().clamp(1, room.max(1)))
}

/// The part of a long line that has the column in it, and the column there.
fn window(line: &str, column: usize) -> (String, usize) {
    let length = line.chars().count();
    if length <= WIDTH {
        return (line.to_owned(), column.min(length + 1));
    }
    let start = column.saturating_sub(WIDTH / 2).min(length - WIDTH);
    let mut shown: String = line.chars().skip(start).take(WIDTH).collect();
    if start + WIDTH < length {
        shown.push('…');
    }
    let column = column.min(length + 1) - start;
    if start > 0 { (format!("…{shown}"), column + 1) } else { (shown, column) }
}
