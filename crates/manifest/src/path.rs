//! Names from outside, parsed into types that cannot be wrong: paths of files in a model, models, and refs.
//!
//! A manifest comes from a store that others may write to, and its paths become paths on this disk. So a path is only
//! ever names below the directory: no `..`, nothing absolute, no separators of other systems, nothing in our own folder.

use std::{fmt, path::PathBuf, str::FromStr};

use crate::{Digest, OWN_FOLDER};

/// The bytes that Linux allows in one name.
const LONGEST_NAME: usize = 255;
/// Far below `PATH_MAX`, so that a directory fits before it.
const LONGEST_PATH: usize = 1_024;
/// As the hub has it.
const LONGEST_PART_OF_A_MODEL: usize = 96;

/// A file's path in its model, with `/` between names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    #[error("is empty")]
    Empty,
    #[error("is absolute")]
    Absolute,
    #[error("has an empty name in it")]
    EmptyName,
    #[error("has `.` or `..` in it")]
    Traversal,
    #[error("has a backslash or a control character in it")]
    Character,
    #[error("is longer than 1024 bytes, or a name in it than 255")]
    Long,
    #[error("is in the folder .outrigger, which is not the model's")]
    Own,
}

impl FilePath {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names of the folders above the file, from the top.
    pub fn folders(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }

    pub fn to_path(&self) -> PathBuf {
        self.0.split('/').collect()
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for FilePath {
    type Err = PathFault;

    fn from_str(text: &str) -> Result<Self, PathFault> {
        if text.is_empty() {
            return Err(PathFault::Empty);
        }
        if text.len() > LONGEST_PATH || text.split('/').any(|name| name.len() > LONGEST_NAME) {
            return Err(PathFault::Long);
        }
        if text.starts_with('/') {
            return Err(PathFault::Absolute);
        }
        if text.contains(|c: char| c == '\\' || c.is_control()) {
            return Err(PathFault::Character);
        }
        if text.split('/').any(|name| name == "." || name == "..") {
            return Err(PathFault::Traversal);
        }
        if text.split('/').any(str::is_empty) {
            return Err(PathFault::EmptyName);
        }
        // Some disks do not tell capitals from small letters.
        if text.split('/').next().is_some_and(|first| first.eq_ignore_ascii_case(OWN_FOLDER)) {
            return Err(PathFault::Own);
        }
        Ok(Self(text.to_owned()))
    }
}

/// `ORG/MODEL`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelName(String);

impl ModelName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a model is named ORG/MODEL, from letters, digits, `-`, `_` and `.`, at most 96 of them in each part")]
pub struct NameFault;

impl FromStr for ModelName {
    type Err = NameFault;

    fn from_str(text: &str) -> Result<Self, NameFault> {
        let (org, model) = text.split_once('/').ok_or(NameFault)?;
        if is_name(org) && is_name(model) { Ok(Self(text.to_owned())) } else { Err(NameFault) }
    }
}

fn is_name(text: &str) -> bool {
    (1..=LONGEST_PART_OF_A_MODEL).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// The name of a ref, such as `main`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefName(String);

impl RefName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for RefName {
    fn default() -> Self {
        Self("main".to_owned())
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a ref is named from letters, digits, `-`, `_` and `.`, as in `main`; a version is `sha256:` and 64 hex digits"
)]
pub struct RefFault;

impl FromStr for RefName {
    type Err = RefFault;

    fn from_str(text: &str) -> Result<Self, RefFault> {
        if is_name(text) { Ok(Self(text.to_owned())) } else { Err(RefFault) }
    }
}

/// `ORG/MODEL`, `ORG/MODEL@REF` or `ORG/MODEL@sha256:DIGEST`: what a command is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub model: ModelName,
    pub version: Version,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version {
    Ref(RefName),
    Digest(Digest),
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Version::Ref(name) => write!(f, "{}@{name}", self.model),
            Version::Digest(digest) => write!(f, "{}@{digest}", self.model),
        }
    }
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (model, version) = text.split_once('@').map_or((text, None), |(model, version)| (model, Some(version)));
        let model = model.parse().map_err(|e: NameFault| e.to_string())?;
        let version = match version {
            None => Version::Ref(RefName::default()),
            Some(v) if v.starts_with("sha256:") => Version::Digest(v.parse().map_err(|_| RefFault.to_string())?),
            Some(v) => Version::Ref(v.parse().map_err(|e: RefFault| e.to_string())?),
        };
        Ok(Self { model, version })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_that_could_leave_the_directory_are_refused() {
        for (path, fault) in [
            ("", PathFault::Empty),
            ("/etc/passwd", PathFault::Absolute),
            ("..", PathFault::Traversal),
            ("a/../../b", PathFault::Traversal),
            ("./a", PathFault::Traversal),
            ("a//b", PathFault::EmptyName),
            ("a/", PathFault::EmptyName),
            ("a\\..\\b", PathFault::Character),
            ("a\0b", PathFault::Character),
            ("a\nb", PathFault::Character),
            (".outrigger/READY", PathFault::Own),
            (".Outrigger", PathFault::Own),
        ] {
            assert_eq!(path.parse::<FilePath>(), Err(fault), "{path:?}");
        }
        assert_eq!("x".repeat(256).parse::<FilePath>(), Err(PathFault::Long));
        assert_eq!("x/".repeat(600).parse::<FilePath>(), Err(PathFault::Long));
        for path in ["config.json", ".gitattributes", "onnx/model.onnx", "..a/b..", "a.outrigger", "ä b"] {
            assert!(path.parse::<FilePath>().is_ok(), "{path}");
        }
    }

    #[test]
    fn names_stay_names() {
        for bad in ["", "a", "a/", "/b", "a/b/c", "../b", "a/..", "a/.b", "a/b c", "a/ü", "-a/b"] {
            assert!(bad.parse::<ModelName>().is_err(), "{bad}");
        }
        assert!("meta-llama/Llama-3.3-70B-Instruct".parse::<ModelName>().is_ok());
        for bad in ["a/b@", "a/b@../x", "a/b@sha256:12", "a/b@x/y", "a/b@c@d"] {
            assert!(bad.parse::<Wanted>().is_err(), "{bad}");
        }
        let wanted: Wanted = "a/b".parse().unwrap();
        assert_eq!(wanted.to_string(), "a/b@main");
    }

    proptest! {
        /// Whatever is accepted stays below the directory that it is joined to.
        #[test]
        fn what_is_accepted_stays_below(text in "[a.\\\\/\u{0}-\u{2f}é]{0,12}") {
            if let Ok(path) = text.parse::<FilePath>() {
                let joined = std::path::Path::new("/d").join(path.to_path());
                prop_assert!(joined.starts_with("/d"));
                prop_assert!(joined.components().skip(1).all(|c| matches!(c, std::path::Component::Normal(_))));
                prop_assert_eq!(joined.components().count(), 2 + text.split('/').count());
            }
        }
    }
}
