//! The decision log, row by row.
//!
//! A row that is cut off is what a killed process leaves: the last row, or the one before the `fleet` line of the next
//! process. Anything else that cannot be read is a fault with its row, because a replay that left rows out in silence
//! would prove nothing.

use std::{
    borrow::Cow,
    io::{BufRead, Read as _},
};

use outrigger_core::{
    Rng,
    facts::{Facts, History, MAX_ATTEMPTS},
    fleet::{BackendId, Fleet},
    route::{Candidate, Decision},
    state::View,
    units::Nanos,
};
use outrigger_gateway::events::{DECISION_LOG, FleetLine};
use serde::Deserialize;
use serde_json::{error::Category, value::RawValue};

use super::{ALTERED, Fault};
use crate::commands::input::Failed;

/// Longest row that is read; a decision over a thousand backends is a third of it.
const MAX_ROW: u64 = 4 << 20;

pub(super) enum Row<'a> {
    Fleet(FleetLine),
    Decision(Box<Line<'a>>),
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    v: Option<u64>,
}

/// A decision as it is written down.
#[derive(Deserialize)]
pub(super) struct Line<'a> {
    #[serde(borrow)]
    request_id: Cow<'a, str>,
    #[serde(borrow)]
    fleet: Cow<'a, str>,
    now: Nanos,
    facts: Facts,
    #[serde(borrow)]
    history: &'a RawValue,
    rng: Rng,
    view: View,
    decision: Decision,
    candidates: Vec<Candidate>,
    #[serde(skip)]
    row: u64,
}

/// What a decision reads besides the fleet and the view.
pub(super) struct Inputs<'a> {
    pub(super) row: u64,
    pub(super) request_id: Cow<'a, str>,
    pub(super) now: Nanos,
    pub(super) facts: Facts,
    pub(super) history: History,
    /// Backends that the recorded history names.
    pub(super) named: Vec<BackendId>,
    pub(super) rng: Rng,
}

/// What came of it then.
pub(super) struct Recorded<'a> {
    pub(super) fleet: Cow<'a, str>,
    pub(super) decision: Decision,
    pub(super) candidates: Vec<Candidate>,
}

impl<'a> Line<'a> {
    /// What it was made from and what was made, apart: the second must not reach who decides again.
    pub(super) fn parts(self) -> Result<(Inputs<'a>, View, Recorded<'a>), Fault> {
        /// Where a history names backends; the type itself does not tell.
        #[derive(Deserialize)]
        struct Named {
            tried: [Option<BackendId>; MAX_ATTEMPTS],
            server_errors: [Option<BackendId>; 2],
        }
        let wrong = |e: serde_json::Error| Fault::new(format!("`history` is not one: {e}"), ALTERED);
        let history: History = serde_json::from_str(self.history.get()).map_err(wrong)?;
        let named: Named = serde_json::from_str(self.history.get()).map_err(wrong)?;
        let named = named.tried.into_iter().chain(named.server_errors).flatten().collect();
        let Self { row, request_id, fleet, now, facts, rng, view, decision, candidates, .. } = self;
        let inputs = Inputs { row, request_id, now, facts, history, named, rng };
        Ok((inputs, view, Recorded { fleet, decision, candidates }))
    }
}

impl Inputs<'_> {
    /// Whether all that the recorded facts and history name is in the fleet that they were recorded under.
    pub(super) fn check(&self, fleet: &Fleet) -> Result<(), Fault> {
        let has_key = self.facts.key.is_none_or(|key| key.index() < fleet.keys.len());
        let has_model = self.facts.model.index() < fleet.models.len();
        if has_key && has_model && self.named.iter().all(|b| b.index() < fleet.backends.len()) {
            return Ok(());
        }
        Err(Fault::new("it names a model, key or backend that its fleet does not have", ALTERED))
    }
}

/// Reads a log; the text of one row is kept.
pub(super) struct Rows {
    input: Box<dyn BufRead>,
    name: String,
    text: Vec<u8>,
    row: u64,
    torn: Vec<u64>,
    /// The row before is cut off, and it is not known yet whether that may be.
    doubtful: Option<(u64, String)>,
}

impl Rows {
    pub(super) fn new(input: Box<dyn BufRead>, name: String) -> Self {
        Self { input, name, text: Vec::new(), row: 0, torn: Vec::new(), doubtful: None }
    }

    /// Rows that were cut off and left out; the first few.
    pub(super) fn torn(&self) -> &[u64] {
        &self.torn
    }

    /// Says where it is.
    pub(super) fn fault(&self, fault: &Fault) -> Failed {
        at(&self.name, self.row, fault)
    }

    pub(super) fn next(&mut self) -> Result<Option<Row<'_>>, Failed> {
        loop {
            if !self.read()? {
                self.allow_torn();
                return Ok(None);
            }
            if self.text.trim_ascii().is_empty() {
                continue;
            }
            match serde_json::from_slice::<Head<'_>>(&self.text) {
                Ok(head) if head.event == "fleet" => {
                    self.allow_torn();
                    break;
                }
                Ok(_) => break,
                Err(e) if e.classify() == Category::Eof && self.doubtful.is_none() => {
                    self.doubtful = Some((self.row, e.to_string()));
                }
                Err(e) => return Err(self.fault(&unreadable(&e))),
            }
        }
        if let Some((row, message)) = self.doubtful.take() {
            let help = "another process wrote to the same file, or the row was altered; leave it out";
            return Err(at(&self.name, row, &Fault::new(message, help)));
        }
        let (name, row) = (&self.name, self.row);
        parsed(&self.text, row).map(Some).map_err(|fault| at(name, row, &fault))
    }

    fn allow_torn(&mut self) {
        if let Some((row, _)) = self.doubtful.take()
            && self.torn.len() < 20
        {
            self.torn.push(row);
        }
    }

    /// `false` at the end.
    fn read(&mut self) -> Result<bool, Failed> {
        self.text.clear();
        let read = self.input.by_ref().take(MAX_ROW).read_until(b'\n', &mut self.text);
        let read = read.map_err(|e| Failed::environment(format!("cannot read {}: {e}", self.name)))?;
        self.row += u64::from(read > 0);
        let is_whole = self.text.pop_if(|last| *last == b'\n').is_some();
        if read as u64 == MAX_ROW && !is_whole {
            return Err(self.fault(&Fault::new("the row is longer than 4 MiB", "this is not a decision log")));
        }
        Ok(read > 0)
    }
}

fn at(name: &str, row: u64, Fault { message, help }: &Fault) -> Failed {
    Failed::usage(format!("{name}: row {row}: {message}\n  help: {help}"))
}

fn parsed(text: &[u8], row: u64) -> Result<Row<'_>, Fault> {
    let head: Head<'_> = serde_json::from_slice(text).map_err(|e| unreadable(&e))?;
    if !matches!(&*head.event, "fleet" | "decision") {
        return Err(Fault::new(
            format!("it is an event `{}`, not a decision", head.event),
            "give what `serve --decision-log FILE` wrote; the request log does not hold what decisions read",
        ));
    }
    match head.v {
        Some(DECISION_LOG) => {}
        Some(v) => {
            return Err(Fault::new(
                format!("its format is version {v}, and this program reads {DECISION_LOG}"),
                "replay it with the version of outrigger that wrote it",
            ));
        }
        None => return Err(Fault::new("it has no `v`, the version of its format", ALTERED)),
    }
    let wrong = |e: serde_json::Error| Fault::new(e.to_string(), ALTERED);
    if head.event == "fleet" {
        return serde_json::from_slice(text).map(Row::Fleet).map_err(wrong);
    }
    let line: Line<'_> = serde_json::from_slice(text).map_err(wrong)?;
    Ok(Row::Decision(Box::new(Line { row, ..line })))
}

fn unreadable(e: &serde_json::Error) -> Fault {
    Fault::new(e.to_string(), "each row is one JSON object: give what `serve --decision-log FILE` wrote")
}
