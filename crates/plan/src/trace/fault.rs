//! What is wrong with a trace, and on which line. One type for all formats: whoever repairs a file needs to know where
//! to look and what to do, not which reader complained.

use std::{fmt, io};

/// A trace that cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceFault {
    /// Line of the file, from 1; of a record that spans several lines, the first.
    pub row: u64,
    /// Where the fault is in one column or field.
    pub column: Option<String>,
    pub message: String,
    /// What to do about it.
    pub help: String,
}

impl TraceFault {
    #[cold]
    pub(super) fn new(row: u64, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { row, column: None, message: message.into(), help: help.into() }
    }

    #[must_use]
    pub(super) fn in_column(mut self, column: &str) -> Self {
        self.column = Some(column.to_owned());
        self
    }

    /// The input broke while this row was read.
    #[cold]
    pub(super) fn io(row: u64, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::new(
                row,
                "the input ends too early in or after this row",
                "the file was cut off while it was written, copied or packed: fetch it again",
            ),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Self::new(
                row,
                format!("the input is damaged in or after this row: {error}"),
                "fetch the file again; for a packed file, try to unpack it by hand",
            ),
            _ => {
                Self::new(row, format!("the input cannot be read on: {error}"), "check the disk or pipe it comes from")
            }
        }
    }
}

impl fmt::Display for TraceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}", self.row)?;
        if let Some(column) = &self.column {
            write!(f, ", column {column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for TraceFault {}

/// What stands in a file, as a message may show it: short, and with nothing that a terminal would obey.
pub(super) fn shown(text: &[u8]) -> String {
    const LONGEST: usize = 40;
    let cut = text.len().min(LONGEST);
    let more = if text.len() > cut { "…" } else { "" };
    format!("\"{}{more}\"", String::from_utf8_lossy(&text[..cut]).escape_debug())
}
