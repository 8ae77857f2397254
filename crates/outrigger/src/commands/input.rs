//! What the commands that read large files share: opening one as text, and saying what is wrong with it.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use outrigger_plan::perf::{Row, read_rows};

use super::{Exit, colour_on_stderr};
use crate::config;

/// Why there is no answer.
pub(super) struct Failed {
    pub(super) exit: Exit,
    pub(super) message: String,
}

impl Failed {
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }

    pub(super) fn environment(message: impl Into<String>) -> Self {
        Self { exit: Exit::Environment, message: message.into() }
    }

    pub(super) fn unreadable(path: &Path, error: &io::Error) -> Self {
        Self::environment(config::unreadable(path, error))
    }

    pub(super) fn of_config(path: &Path, error: &config::Error) -> Self {
        match error {
            config::Error::Faulty(faults) => {
                let shown = faults.render(colour_on_stderr());
                Self::usage(format!("{} has faults\n{shown}", path.display()))
            }
            config::Error::Unreadable { .. } => Self::environment(error.to_string()),
        }
    }
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self::environment(format!("{error:#}"))
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::environment(error.to_string())
    }
}

/// A table of measured points.
pub(super) fn measured_rows(file: &Path) -> Result<Vec<Row>, Failed> {
    let rows = read_rows(text_of(file)?);
    rows.map_err(|fault| {
        let column = if fault.column.is_empty() { String::new() } else { format!(", column {}", fault.column) };
        let at = format!("{}: row {}{column}", file.display(), fault.row);
        Failed::usage(format!("{at}: {}\n  help: {}", fault.message, fault.help))
    })
}

/// A file's text, unpacked where it is .gz; `-` is standard input.
pub(super) fn text_of(file: &Path) -> Result<Box<dyn BufRead>, Failed> {
    let unreadable = |e: io::Error| Failed::unreadable(file, &e);
    let is_stdin = file.as_os_str() == "-";
    let raw: Box<dyn Read> =
        if is_stdin { Box::new(io::stdin()) } else { Box::new(File::open(file).map_err(unreadable)?) };
    let mut input = BufReader::with_capacity(1 << 20, raw);
    if input.fill_buf().map_err(unreadable)?.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(BufReader::with_capacity(1 << 20, flate2::bufread::MultiGzDecoder::new(input))));
    }
    Ok(Box::new(input))
}
