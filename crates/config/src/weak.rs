//! Keys that everybody knows, by their hashes.
//!
//! A fleet file has hashes, so that how long a key is cannot be seen from it. What can be seen is whether it is the
//! hash of a key that stands in the documents of other programs, or of a word that is tried first. The list is text
//! (`weak_keys.txt`) and is hashed when it is first asked, so that whoever reads it sees what it refuses; it proves
//! weakness only, and a key that is not on it may still be weak. `outrigger key new` makes none that is.
//!
//! The empty key is one of them: `printf %s "$UNSET" | outrigger key hash` is refused, and with other programs that
//! hash it is an easy slip, after which `Authorization: Bearer ` would be let in.

use std::{collections::HashMap, io, path::Path, sync::OnceLock};

use outrigger_core::fleet::SecretRef;
use sha2::{Digest, Sha256};

use super::{Code, Loaded, Severity, values};

const LIST: &str = include_str!("weak_keys.txt");

/// What to do about such a key.
pub const HELP: &str = "make a key with `outrigger key new NAME`, and give it to the client";

/// The key of which this is the hash, if everybody knows it; empty for the empty key.
pub fn known_key(hash: &[u8; 32]) -> Option<&'static str> {
    static KNOWN: OnceLock<HashMap<[u8; 32], String>> = OnceLock::new();
    KNOWN.get_or_init(table).get(hash).map(String::as_str)
}

/// The same for a key itself.
pub fn is_known(key: &str) -> bool {
    known_key(&Sha256::digest(key.as_bytes()).into()).is_some()
}

/// What is wrong with such a key, for people.
pub fn message(key: &str) -> String {
    if key.is_empty() {
        "this is the hash of the empty key, with which everybody is let in".to_owned()
    } else {
        format!("this is the hash of `{key}`, a key that everybody knows")
    }
}

fn table() -> HashMap<[u8; 32], String> {
    let lines = LIST.lines().filter(|line| !line.starts_with('#'));
    let forms = lines.flat_map(|line| {
        let (prefixed, upper) = (format!("sk-{line}"), line.to_uppercase());
        [line.to_owned(), format!("sk-{upper}"), prefixed, upper]
    });
    forms.chain([String::new()]).map(|key| (Sha256::digest(key.as_bytes()).into(), key)).collect()
}

impl Loaded {
    /// Adds an error for each file of hashes that is there and has one of a key that everybody knows, or no hash at all,
    /// and a warning for each that `read` is not allowed to read.
    pub fn examine_hashes(&mut self, read: impl Fn(&Path) -> io::Result<String>) {
        for at in self.outside.hashes.clone() {
            let SecretRef::File(path) = &at.to else { continue };
            let shown = path.display();
            let (severity, code, said) = match read(path).map(|text| hashes(&text).map_err(|line| (line, text))) {
                // One that is not here has been said to be absent.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => {
                    let help = "let whoever runs `serve` read it, or run `check` as they do".to_owned();
                    (Severity::Warning, Code::SecretAbsent, (format!("`{shown}` cannot be read here: {e}"), help))
                }
                Ok(Ok(hashes)) => {
                    let Some((line, key)) = hashes.iter().find_map(|(line, hash)| Some((line, known_key(hash)?)))
                    else {
                        continue;
                    };
                    (Severity::Error, Code::WeakKey, (format!("`{shown}`, line {line}: {}", message(key)), HELP.into()))
                }
                Ok(Err(_)) => {
                    let help = "write 64 hex digits on each line; `outrigger key new NAME` prints a key and its hash";
                    (Severity::Error, Code::BadSha256, (format!("`{shown}` does not hold hashes of keys"), help.into()))
                }
            };
            self.warnings.add(severity, code, &at.path, at.span, said);
        }
    }
}

/// The hashes in the text of a file, one a line, each with its line from 1; `Err` with the line of what is none, which is
/// never repeated, since it may be the key itself. Empty lines and those that start with `#` are left out.
pub fn hashes(text: &str) -> Result<Vec<(usize, [u8; 32])>, usize> {
    let lines = text.lines().map(str::trim).enumerate().map(|(index, line)| (index + 1, line));
    let hashes: Vec<_> = lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| values::from_hex(line).map(|hash| (number, hash)).ok_or(number))
        .collect::<Result<_, _>>()?;
    if hashes.is_empty() { Err(1) } else { Ok(hashes) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Computed by coreutils' `sha256sum`, so that this is not our own hash compared with itself.
    const OF_SK_1234: &str = "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b";
    const OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn known(hex: &str) -> Option<&'static str> {
        known_key(&values::from_hex(hex).unwrap())
    }

    #[test]
    fn a_known_key_is_known_by_its_hash() {
        assert_eq!(known(OF_SK_1234), Some("sk-1234"));
        assert_eq!(known(OF_NOTHING), Some(""));
        assert_eq!(known(&"0".repeat(64)), None);
        for key in ["test", "changeme", "password", "admin", "sk-test", "secret", "master-key", "EMPTY", "token-abc123"]
        {
            assert!(is_known(key), "{key}");
        }
        for key in ["SK-1234", "sk-EMPTY", "PASSWORD"] {
            assert!(is_known(key), "{key}: in capitals, and with a prefix");
        }
        assert!(!is_known("sk-or-5f0c1e7a9d3b4286"));
    }

    #[test]
    fn each_line_of_the_list_is_a_key_that_could_be_sent_and_stands_there_once() {
        let lines: Vec<&str> = LIST.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(lines.len() >= 300, "{}", lines.len());
        assert_eq!(lines.iter().collect::<HashSet<_>>().len(), lines.len(), "one stands there twice");
        assert!(lines.iter().all(|line| !line.is_empty() && line.trim() == *line && line.is_ascii()));
    }

    #[test]
    fn a_file_of_hashes_has_one_a_line() {
        let text = format!("# old\n{OF_NOTHING}\n\n  {OF_SK_1234}  \n");
        let lines: Vec<usize> = hashes(&text).unwrap().into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [2, 4]);
        assert_eq!(hashes(&format!("{OF_NOTHING}\nsk-canary\n")), Err(2));
        assert_eq!(hashes("# nothing\n"), Err(1));
    }
}
