//! What can go wrong when weights are moved: whose fault it is, as a script has to know it, and what to do next.

use std::{fmt, io, path::Path};

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What was asked for cannot be done as asked.
    Usage,
    /// The store's content is not what its manifest says, or is not there.
    Content,
    /// A disk or a network is in the way.
    Environment,
}

#[derive(Debug)]
pub struct Error {
    pub kind: Kind,
    pub message: String,
    pub help: String,
}

impl Error {
    pub fn usage(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, message: message.into(), help: help.into() }
    }

    pub fn content(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { kind: Kind::Content, message: message.into(), help: help.into() }
    }

    pub fn environment(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { kind: Kind::Environment, message: message.into(), help: help.into() }
    }

    /// A call to the file system failed; `doing` reads as in `cannot write /models/x`.
    pub fn io(doing: &str, path: &Path, error: &io::Error) -> Self {
        let help = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "make room, then run the same command again: what is there is kept"
            }
            io::ErrorKind::FileTooLarge => {
                "raise the limit on the size of a file (`ulimit -f`), then run the same command again: what is there is kept"
            }
            io::ErrorKind::ReadOnlyFilesystem => "choose a directory on a disk that can be written to",
            io::ErrorKind::PermissionDenied => "run as a user who may, or choose another directory",
            io::ErrorKind::NotFound => "check the path",
            _ => "see the system's log, then run the same command again",
        };
        Self::environment(format!("cannot {doing} {}: {error}", path.display()), help)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  help: {}", self.message, self.help)
    }
}

impl std::error::Error for Error {}
