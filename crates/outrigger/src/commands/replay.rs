//! `outrigger replay`: recorded decisions made again, under their own fleet as a proof or under another as a question.
//!
//! Under its own fleet a decision is a function of what its line holds, so that any difference is a fault: of the log,
//! or of this program against the one that wrote it. Under another fleet the same requests meet the same state of the
//! world, decision by decision. What would have followed from going elsewhere (other queues, other failures) is not
//! known here; `outrigger simulate` answers that.
//!
//! One row is in memory at a time, so that a log may be of any size.

mod fleets;
mod log;
mod tally;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use outrigger_core::{
    facts::Moved,
    fleet::{Fleet, ModelId},
    route::{Candidate, Decision},
    state::{State, TierState, View},
};

use self::{
    fleets::Fleets,
    log::{Inputs, Line, Row, Rows},
    tally::{Made, Tally},
};
use super::{
    Exit,
    input::{Failed, text_of},
    write_out,
};
use crate::config;

/// Make the decisions of a decision log again, and say which would be others.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 when every decision made under this very fleet file is the same again, 1 when one is not. \
    Decisions made under another fleet file are compared and counted, and may differ: that is what a changed file is given for."
)]
pub(super) struct Args {
    /// What `serve --decision-log` wrote, also as .gz; `-` for standard input.
    log: PathBuf,
    /// The fleet file to decide under.
    #[arg(long)]
    fleet: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Exit {
    match replay(args) {
        Ok(exit) => exit,
        Err(failed) => {
            eprintln!("error: {}", failed.message.trim_end());
            failed.exit
        }
    }
}

fn replay(args: &Args) -> Result<Exit, Failed> {
    let loaded = config::load(&args.fleet).map_err(|error| Failed::of_config(&args.fleet, &error))?;
    let fleet = Arc::new(loaded.fleet);
    let mut rows = Rows::new(text_of(&args.log)?, args.log.display().to_string());
    let mut replayer = Replayer { fleets: Fleets::new(fleet.clone()), turns: BTreeMap::new() };
    let mut tally = Tally::new(fleet);
    while let Some(row) = rows.next()? {
        match row {
            Row::Fleet(line) => replayer.fleets.announced(&line),
            Row::Decision(line) => replayer.again(*line, &mut tally).map_err(|fault| rows.fault(&fault))?,
        }
    }
    for torn in rows.torn() {
        eprintln!(
            "warning: {}: row {torn} is cut off, as when a process is killed; it is left out",
            args.log.display()
        );
    }
    if tally.is_empty() {
        return Err(Failed::usage(format!(
            "{}: there is no decision in it\n  help: `outrigger serve --decision-log FILE` writes them",
            args.log.display()
        )));
    }
    tally.note_other_fleets();
    let text = if args.json { format!("{}\n", tally.as_json()) } else { tally.words() };
    match write_out(&text) {
        Exit::Yes if tally.contradicts() => Ok(Exit::No),
        exit => Ok(exit),
    }
}

/// What is wrong with a row, and what to do about it.
struct Fault {
    message: String,
    help: &'static str,
}

impl Fault {
    fn new(message: impl Into<String>, help: &'static str) -> Self {
        Self { message: message.into(), help }
    }
}

/// For what no gateway writes.
const ALTERED: &str = "the row was altered, or another version wrote it; leave it out, or replay with that version";

struct Replayer {
    fleets: Fleets,
    /// Under another fleet: how far each model's splits are, where their weights are not the recorded ones.
    turns: BTreeMap<ModelId, Vec<TierState>>,
}

impl Replayer {
    /// Makes one recorded decision again and compares.
    fn again(&mut self, line: Line<'_>, tally: &mut Tally) -> Result<(), Fault> {
        let (inputs, view, recorded) = line.parts()?;
        let to = self.fleets.given().clone();
        if recorded.fleet == to.digest {
            inputs.check(&to)?;
            let recorded = Made::new(&to, recorded.decision, recorded.candidates)?;
            let (decision, candidates, _) = decide(&to, view, &inputs)?;
            tally.same_fleet(&inputs, &recorded, &Made::new(&to, decision, candidates)?);
            return Ok(());
        }
        let from = self.fleets.recorded(&recorded.fleet)?.clone();
        inputs.check(&from)?;
        let recorded = Made::new(&from, recorded.decision, recorded.candidates)?;
        let Some((inputs, view)) = self.moved(&from, &to, inputs, view)? else {
            tally.skipped();
            return Ok(());
        };
        let model = inputs.facts.model;
        let (decision, candidates, state) = decide(&to, view, &inputs)?;
        self.turns.insert(model, state.observed().models[model.index()].tiers.clone());
        tally.other_fleet(&inputs, &recorded, &Made::new(&to, decision, candidates)?);
        Ok(())
    }

    /// The same inputs in the given fleet; `None` when that has no such model or key.
    fn moved<'a>(
        &self,
        from: &Fleet,
        to: &Fleet,
        inputs: Inputs<'a>,
        view: View,
    ) -> Result<Option<(Inputs<'a>, View)>, Fault> {
        let moved = Moved { from, to };
        let has_key = inputs.facts.key.is_none_or(|key| moved.key(key).is_some());
        let Some(facts) = moved.facts(&inputs.facts).filter(|_| has_key) else { return Ok(None) };
        let turns = self.turns.get(&facts.model).map_or(&[][..], Vec::as_slice);
        let view = view.moved(&moved, inputs.facts.model, turns).ok_or_else(no_such_view)?;
        let history = moved.history(&inputs.history);
        Ok(Some((Inputs { facts, history, ..inputs }, view)))
    }
}

/// The decision from what it reads and nothing else.
fn decide(fleet: &Arc<Fleet>, view: View, inputs: &Inputs<'_>) -> Result<(Decision, Vec<Candidate>, State), Fault> {
    let mut state = State::from_view(fleet.clone(), &inputs.facts, view).ok_or_else(no_such_view)?;
    let mut rng = inputs.rng.clone();
    let mut candidates = Vec::with_capacity(8);
    let decision = state.decide(&inputs.facts, &inputs.history, inputs.now, &mut rng, &mut candidates);
    Ok((decision, candidates, state))
}

fn no_such_view() -> Fault {
    Fault::new("its view does not fit its fleet", ALTERED)
}
