//! The fleet file: read, checked and resolved.
//!
//! Text goes through four steps, each in a file of its own: [`tree`] reads it into nodes that know their places;
//! [`walk`] checks their shape against the JSON Schema and cuts out what is at fault; what is left becomes the types in
//! [`raw`]; [`resolve`] looks names up, parses units, and gives a [`Fleet`]. All steps run, whatever the ones before
//! have found, so that one pass shows every fault. Deserializing straight into the types would be a tenth of the code
//! and would stop at the first fault without its place.
//!
//! Nothing here reads the environment, and no file but the fleet file: a secret stays a reference. Whoever serves
//! resolves it; `check` only asks whether it is there.

mod certificates;
mod collect;
mod fault;
mod not_yet;
mod portable;
mod raw;
mod renamed;
mod render;
mod resolve;
mod scenario;
mod schema;
mod source;
mod tree;
mod values;
mod walk;
pub mod weak;

use std::{
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use outrigger_core::fleet::{Fleet, SecretRef};
use sha2::{Digest, Sha256};

use self::{
    collect::{At, Collector, join_key},
    resolve::Outside,
    source::Source,
    tree::Span,
};
pub use self::{
    fault::{Code, Fault, Severity},
    scenario::{LoadedScenario, Outside as ScenarioOutside, TraceShape, load_scenario, scenario_from_str},
    schema::{json_schema, json_schema_text, scenario_schema_text},
};

/// A fleet file is written by hand; one of this size is something else.
const LARGEST: usize = 1 << 20;

/// A fleet file without errors.
#[derive(Debug)]
pub struct Loaded {
    pub fleet: Fleet,
    pub warnings: Faults,
    outside: Outside,
    /// Where each backend and each model is named.
    places: Vec<(String, Span)>,
}

impl Loaded {
    /// Adds a fault for each reference that `is_there` denies. Nothing is read here.
    pub fn report_absent(&mut self, severity: Severity, is_there: impl Fn(&SecretRef) -> bool) {
        for reference in self.outside.references.iter().filter(|reference| !is_there(&reference.to)) {
            let (message, help) = match &reference.to {
                SecretRef::Env(name) => {
                    (format!("the variable `{name}` is not set here"), format!("set `{name}` where `serve` runs"))
                }
                SecretRef::File(path) => {
                    let path = path.display();
                    (format!("the file `{path}` is not here"), format!("put `{path}` where `serve` runs"))
                }
            };
            self.warnings.add(severity, Code::SecretAbsent, &reference.path, reference.span.clone(), (message, help));
        }
    }

    /// Adds what was found out about a backend or a model (`section` is where it is written) by asking;
    /// about none of them where the name is empty.
    pub fn report(&mut self, severity: Severity, code: Code, (section, name): (&str, &str), said: (String, String)) {
        let path = if name.is_empty() { section.to_owned() } else { join_key(section, name) };
        let known = self.places.iter().find(|(place, _)| *place == path);
        let span = known.map_or(0..0, |(_, span)| span.clone());
        self.warnings.add(severity, code, &path, span, said);
    }
}

/// What was found in a file, in the order of the file, with the text to show it in.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    source: Source,
    list: Vec<Fault>,
}

impl Faults {
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.list.iter()
    }

    /// Adds a fault of what is outside the file, where the file refers to it.
    fn add(&mut self, severity: Severity, code: Code, path: &str, span: Span, (message, help): (String, String)) {
        let (line, column) = self.source.position(span.start);
        let path = path.to_owned();
        self.list.push(Fault { severity, code, line, column, path, message, help, span });
        self.list.sort_by_key(|fault| (fault.line, fault.column));
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn count(&self, severity: Severity) -> usize {
        self.list.iter().filter(|fault| fault.severity == severity).count()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Faults {}

/// Why there is no fleet.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The environment's fault.
    #[error("{}", unreadable(path, source))]
    Unreadable { path: PathBuf, source: io::Error },
    /// The file's fault; warnings are among them.
    #[error("{0}")]
    Faulty(Faults),
}

/// What keeps a file from being read, and what to do about it.
pub fn unreadable(path: &Path, error: &io::Error) -> String {
    let help = match error.kind() {
        io::ErrorKind::NotFound if path.is_absolute() => "\n  help: check the path",
        io::ErrorKind::NotFound => "\n  help: check the path; it is looked for from the current directory",
        io::ErrorKind::IsADirectory => "\n  help: give a file in it",
        io::ErrorKind::PermissionDenied => "\n  help: let this user read it",
        _ => "",
    };
    format!("cannot read {}: {error}{help}", path.display())
}

/// Reads the fleet file at `path`.
pub fn load(path: &Path) -> Result<Loaded, Error> {
    let unreadable = |source| Error::Unreadable { path: path.to_owned(), source };
    let bytes = read_bounded(path).map_err(unreadable)?;
    let absolute = std::path::absolute(path).map_err(unreadable)?;
    let base = absolute.parent().unwrap_or(Path::new("/"));
    load_bytes(&path.display().to_string(), &bytes, base).map_err(Error::Faulty)
}

/// Reads a fleet file's text; `file:` paths are relative to `base`.
pub fn load_str(text: &str, base: &Path) -> Result<Loaded, Faults> {
    load_bytes("fleet.yaml", text.as_bytes(), base)
}

/// As [`load_str`], for a text that was made of another program's configuration: a key that everybody knows is a warning,
/// and whoever serves it decides whom it may be served to.
pub fn load_imported(text: &str, base: &Path) -> Result<Loaded, Faults> {
    load_text("fleet.yaml", text, base, Severity::Warning)
}

/// One byte more than is allowed, so that a longer file is seen to be longer.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// As [`load_str`], for bytes that may not be text, under the name that faults show.
pub fn load_bytes(name: &str, bytes: &[u8], base: &Path) -> Result<Loaded, Faults> {
    if bytes.len() > LARGEST {
        let help = "a fleet file has a few hundred lines; is this the right file?";
        return Err(refuse(name, "", Code::TooLarge, 0, &format!("larger than {} MiB", LARGEST >> 20), help));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => load_text(name, text, base, Severity::Error),
        Err(error) => {
            let readable = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let at = error.valid_up_to();
            Err(refuse(name, &readable, Code::NotUtf8, at, "this byte is not UTF-8", "save the file as UTF-8"))
        }
    }
}

fn refuse(name: &str, text: &str, code: Code, at: usize, message: &str, help: &str) -> Faults {
    let faults = Collector::new(Source::new(name, text));
    faults.error(code, at..at, "", message, help);
    let (source, list) = faults.into_parts();
    Faults { source, list }
}

/// `weak` says how bad a key is that everybody knows.
fn load_text(name: &str, text: &str, base: &Path, weak: Severity) -> Result<Loaded, Faults> {
    let collector = Collector::new(Source::new(name, text));
    let mut hidden = Vec::new();
    let read = tree::parse(text, &collector).and_then(|mut root| {
        renamed::rename(renamed::RENAMED, &mut root, &collector);
        tree::secrets(text, &root, false, &mut hidden);
        let at = At::root(&root, &collector);
        let value = walk::walk(json_schema(), &at)?;
        let raw = read_raw(value, &collector)?;
        let resolved = resolve::resolve(&raw, &at, (base, weak), digest(text));
        not_yet::warn(&at);
        let named = ["backends.*", "models.*"].iter().flat_map(|path| not_yet::matching(&at, path));
        let places: Vec<(String, Span)> = named.map(|at| (at.path.clone(), at.at_key())).collect();
        Some((resolved, places))
    });
    let is_faulty = collector.has_errors();
    let (mut source, list) = collector.into_parts();
    for span in hidden {
        source.hide(span);
    }
    let warnings = Faults { source, list };
    match read {
        Some(((fleet, outside), places)) if !is_faulty => Ok(Loaded { fleet, warnings, outside, places }),
        _ => Err(warnings),
    }
}

/// Cannot fail, since the walk leaves only what the types take; if it does, that is a fault of ours and is said so.
fn read_raw(value: serde_json::Value, collector: &Collector) -> Option<raw::Fleet> {
    serde_json::from_value(value)
        .map_err(|error| {
            // Only the kind of the error: its text may repeat a value.
            let message = format!("the file fits its schema and not its types ({:?})", error.classify());
            collector.error(Code::Internal, 0..0, "", message, "this is a bug in Outrigger; please report it");
        })
        .ok()
}

/// Identifies the text of a fleet file.
fn digest(text: &str) -> String {
    let hash = Sha256::digest(text.as_bytes());
    hash.iter().take(8).fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}
