//! The scenario of `outrigger plan`: one team's own numbers, read as the fleet file is, with every fault at once.
//!
//! What it names outside (a trace, a table of rates, a bill) is read by whoever calls, through [`Outside`], so that a
//! file that cannot be used is a fault at the line that names it.

pub(crate) mod raw;
mod resolve;

use std::path::Path;

use jiff::civil::Date;
use outrigger_plan::economics::{Book, Invoice, Level, Scenario};

use crate::{
    Error, Faults,
    collect::{At, Collector},
    fault::Code,
    read_bounded, refuse,
    source::{SCENARIO, Source},
    tree,
    walk::walk,
};

/// What a trace says of a demand.
#[derive(Clone, Debug)]
pub struct TraceShape {
    pub levels: Vec<Level>,
    /// Means in thousandths of a token.
    pub prompt_milli: u64,
    pub output_milli: u64,
    pub output_cv: f64,
    pub arrival_cv: f64,
}

/// Reads what a scenario names. An error is a sentence.
pub trait Outside {
    fn rates(&self, file: &Path, column: &str, scale: f64) -> Result<Vec<Level>, String>;
    fn trace(&self, file: &Path, window_s: u64) -> Result<TraceShape, String>;
    fn invoice(&self, file: &Path) -> Result<Invoice, String>;
}

/// A scenario without errors.
#[derive(Debug)]
pub struct LoadedScenario {
    pub scenario: Scenario,
    pub warnings: Faults,
}

/// Reads the scenario at `path`, with prices from `book` and on the day `today`.
pub fn load_scenario(path: &Path, book: &Book, today: Date, outside: &dyn Outside) -> Result<LoadedScenario, Error> {
    let unreadable = |source| Error::Unreadable { path: path.to_owned(), source };
    let bytes = read_bounded(path).map_err(unreadable)?;
    let name = path.display().to_string();
    let base = path.parent().unwrap_or(Path::new(""));
    if bytes.len() > crate::LARGEST {
        let help = "a scenario has a few hundred lines; is this the right file?";
        return Err(Error::Faulty(refuse(&name, "", Code::TooLarge, 0, "larger than 1 MiB", help)));
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let at = error.valid_up_to();
        let readable = String::from_utf8_lossy(&bytes[..at]);
        let said = "this byte is not UTF-8";
        Error::Faulty(refuse(&name, &readable, Code::NotUtf8, at, said, "save the file as UTF-8"))
    })?;
    scenario_from_str(&name, text, base, book, today, outside).map_err(Error::Faulty)
}

/// As [`load_scenario`], for text; files that it names are looked for from `base`.
pub fn scenario_from_str(
    name: &str,
    text: &str,
    base: &Path,
    book: &Book,
    today: Date,
    outside: &dyn Outside,
) -> Result<LoadedScenario, Faults> {
    let collector = Collector::new(Source::new(name, text).of(&SCENARIO));
    let read = tree::parse(text, &collector).and_then(|root| {
        let at = At::root(&root, &collector);
        let value = walk(crate::schema::scenario_schema(), &at)?;
        let raw: raw::Scenario = match serde_json::from_value(value) {
            Ok(raw) => raw,
            Err(error) => {
                let message = format!("the file fits its schema and not its types ({:?})", error.classify());
                let help = "this is a bug in Outrigger; please report it";
                collector.error(Code::Internal, 0..0, "", message, help);
                return None;
            }
        };
        resolve::resolve(&raw, &at, &resolve::Context { name, base, book, today, outside })
    });
    let is_faulty = collector.has_errors();
    let (source, list) = collector.into_parts();
    let warnings = Faults { source, list };
    match read {
        Some(scenario) if !is_faulty => Ok(LoadedScenario { scenario, warnings }),
        _ => Err(warnings),
    }
}
