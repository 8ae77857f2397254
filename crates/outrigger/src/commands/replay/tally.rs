//! What came of a replay: counts, where requests would have gone instead, and the first differences in full.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use outrigger_core::{
    fleet::Fleet,
    route::{Attempt, Candidate, Decision},
};
use serde_json::{Value, json};

use super::{ALTERED, Fault, log::Inputs};

/// Differences that are shown in full.
const SHOWN: usize = 20;
/// Lines of the table for people.
const MOVES: usize = 20;

/// A decision with the fleet that its numbers belong to.
pub(super) struct Made<'a> {
    fleet: &'a Fleet,
    decision: Decision,
    candidates: Vec<Candidate>,
}

impl<'a> Made<'a> {
    pub(super) fn new(fleet: &'a Fleet, decision: Decision, candidates: Vec<Candidate>) -> Result<Self, Fault> {
        let chosen = match decision {
            Decision::Attempt(attempt) => Some(attempt.backend),
            _ => None,
        };
        let mut named = candidates.iter().map(|c| c.backend).chain(chosen);
        if named.all(|b| b.index() < fleet.backends.len()) {
            return Ok(Self { fleet, decision, candidates });
        }
        Err(Fault::new("its decision names a backend that its fleet does not have", ALTERED))
    }

    /// Where the request went.
    fn place(&self) -> &str {
        match self.decision {
            Decision::Attempt(attempt) => &self.fleet.backend(attempt.backend).name,
            Decision::Queue { .. } => "(queue)",
            Decision::Reject(_) => "(rejected)",
        }
    }

    fn reason(&self) -> &'static str {
        match self.decision {
            Decision::Attempt(attempt) => attempt.reason.as_str(),
            Decision::Queue { .. } => "queue",
            Decision::Reject(reject) => reject.why.as_str(),
        }
    }

    /// The same decision, but for the number that its attempt was given: that counts attempts, and chooses nothing.
    fn chose_as(&self, recorded: &Made<'_>) -> bool {
        match (self.decision, recorded.decision) {
            (Decision::Attempt(a), Decision::Attempt(b)) => a == Attempt { id: a.id, ..b },
            (a, b) => a == b,
        }
    }

    fn as_json(&self) -> Value {
        match self.decision {
            Decision::Attempt(attempt) => {
                json!({ "chosen": self.place(), "tier": attempt.tier, "reason": self.reason() })
            }
            _ => json!({ "chosen": null, "tier": null, "reason": self.reason() }),
        }
    }

    fn words(&self) -> String {
        format!("{} ({})", self.place(), self.reason())
    }

    /// The verdict on a backend of this name.
    fn verdict(&self, backend: &str) -> Option<&'static str> {
        let named = self.candidates.iter().find(|c| self.fleet.backend(c.backend).name == backend);
        named.map(|c| c.verdict.as_str())
    }

    /// Why the other decision went elsewhere, or came to it in another way.
    fn differs_from(&self, recorded: &Made<'_>) -> String {
        let to = self.words();
        if self.place() != recorded.place() {
            return match recorded.decision {
                Decision::Attempt(_) => {
                    let verdict = self.verdict(recorded.place()).unwrap_or("not in the model's tiers");
                    format!("{to}, {}: {verdict}", recorded.place())
                }
                _ => to,
            };
        }
        if !self.chose_as(recorded) {
            return format!("{to} instead of {}", recorded.words());
        }
        let known = recorded.candidates.iter().map(|c| recorded.fleet.backend(c.backend).name.as_str());
        let mut all = known.chain(self.candidates.iter().map(|c| self.fleet.backend(c.backend).name.as_str()));
        let verdict = |made: &Made<'_>, name: &str| made.verdict(name).unwrap_or("no verdict");
        let other = all.find(|name| self.verdict(name) != recorded.verdict(name));
        other.map_or_else(
            || "the details of a verdict".to_owned(),
            |name| format!("{name}: {} instead of {}", verdict(self, name), verdict(recorded, name)),
        )
    }
}

struct Difference {
    row: u64,
    request_id: String,
    attempt: usize,
    recorded: Value,
    replayed: Value,
    why: String,
}

#[derive(Default)]
struct Share {
    recorded: u64,
    replayed: u64,
}

pub(super) struct Tally {
    given: Arc<Fleet>,
    decisions: u64,
    identical: u64,
    skipped: u64,
    /// Decisions made under other fleets than the given one.
    other_fleet: u64,
    /// Decisions made under the given fleet that were not the same again.
    contradictions: u64,
    differences: Vec<Difference>,
    moves: BTreeMap<(String, String), u64>,
    shares: BTreeMap<String, Share>,
}

impl Tally {
    pub(super) fn new(given: Arc<Fleet>) -> Self {
        Self {
            given,
            decisions: 0,
            identical: 0,
            skipped: 0,
            other_fleet: 0,
            contradictions: 0,
            differences: Vec::new(),
            moves: BTreeMap::new(),
            shares: BTreeMap::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.decisions == 0
    }

    /// Whether a decision under this very fleet was not the same again.
    pub(super) fn contradicts(&self) -> bool {
        self.contradictions > 0
    }

    /// Every detail has to be the same, the verdict on each backend too.
    pub(super) fn same_fleet(&mut self, inputs: &Inputs<'_>, recorded: &Made<'_>, replayed: &Made<'_>) {
        let is_same = replayed.chose_as(recorded) && recorded.candidates == replayed.candidates;
        self.contradictions += u64::from(!is_same);
        self.compared(is_same, inputs, recorded, replayed);
    }

    /// Tiers have other numbers and verdicts other backends there: what counts is where the request goes.
    pub(super) fn other_fleet(&mut self, inputs: &Inputs<'_>, recorded: &Made<'_>, replayed: &Made<'_>) {
        let turned_away = |made: &Made<'_>| matches!(made.decision, Decision::Reject(_)).then(|| made.reason());
        let is_same = recorded.place() == replayed.place() && turned_away(recorded) == turned_away(replayed);
        self.other_fleet += 1;
        self.compared(is_same, inputs, recorded, replayed);
    }

    pub(super) fn skipped(&mut self) {
        self.decisions += 1;
        self.other_fleet += 1;
        self.skipped += 1;
    }

    fn compared(&mut self, is_same: bool, inputs: &Inputs<'_>, recorded: &Made<'_>, replayed: &Made<'_>) {
        self.decisions += 1;
        self.count(recorded.place(), |share| share.recorded += 1);
        self.count(replayed.place(), |share| share.replayed += 1);
        if is_same {
            self.identical += 1;
            return;
        }
        if recorded.place() != replayed.place() {
            let places = (recorded.place().to_owned(), replayed.place().to_owned());
            *self.moves.entry(places).or_default() += 1;
        }
        if self.differences.len() < SHOWN {
            self.differences.push(Difference {
                row: inputs.row,
                request_id: inputs.request_id.clone().into_owned(),
                attempt: inputs.history.attempts() + 1,
                recorded: recorded.as_json(),
                replayed: replayed.as_json(),
                why: replayed.differs_from(recorded),
            });
        }
    }

    fn count(&mut self, place: &str, add: impl FnOnce(&mut Share)) {
        match self.shares.get_mut(place) {
            Some(share) => add(share),
            None => add(self.shares.entry(place.to_owned()).or_default()),
        }
    }

    fn different(&self) -> u64 {
        self.decisions - self.identical - self.skipped
    }

    /// The moves, most frequent first.
    fn sorted_moves(&self) -> Vec<(&str, &str, u64)> {
        let mut moves: Vec<_> = self.moves.iter().map(|((from, to), n)| (from.as_str(), to.as_str(), *n)).collect();
        moves.sort_by_key(|(_, _, n)| std::cmp::Reverse(*n));
        moves
    }

    pub(super) fn note_other_fleets(&self) {
        if self.other_fleet > 0 {
            eprintln!(
                "note: {} of {} decisions were made under another fleet than {}; that those differ is no failure",
                self.other_fleet, self.decisions, self.given.digest
            );
        }
    }

    pub(super) fn as_json(&self) -> Value {
        let difference = |d: &Difference| {
            json!({
                "row": d.row, "request_id": d.request_id, "attempt": d.attempt,
                "recorded": d.recorded, "replayed": d.replayed, "why": d.why,
            })
        };
        let moves = self.sorted_moves();
        let moves = moves.iter().map(|(from, to, n)| json!({ "from": from, "to": to, "n": n }));
        let shares = self.shares.iter();
        let shares = shares.map(|(k, s)| (k.clone(), json!({ "recorded": s.recorded, "replayed": s.replayed })));
        json!({
            "decisions": self.decisions,
            "identical": self.identical,
            "different": self.different(),
            "skipped": self.skipped,
            "other_fleet": self.other_fleet,
            "fleet": self.given.digest,
            "differences": self.differences.iter().map(difference).collect::<Vec<_>>(),
            "moves": moves.collect::<Vec<_>>(),
            "shares": shares.collect::<serde_json::Map<_, _>>(),
        })
    }

    pub(super) fn words(&self) -> String {
        let mut out = format!("{} decisions, {} identical", self.decisions, self.identical);
        let different = self.different();
        write!(out, ", {different} different").ok();
        if self.skipped > 0 {
            write!(out, ", {} skipped: their model or key is not in this fleet", self.skipped).ok();
        }
        out.push('\n');
        let moves = self.sorted_moves();
        if !moves.is_empty() {
            out.push_str("\nwould have gone elsewhere:\n");
        }
        for (from, to, n) in moves.iter().take(MOVES) {
            writeln!(out, "  {from} → {to}: {n}").ok();
        }
        if moves.len() > MOVES {
            writeln!(out, "  and {} other ways", moves.len() - MOVES).ok();
        }
        if !self.differences.is_empty() {
            let shown = self.differences.len();
            writeln!(out, "\nthe first {shown} differences (row, request, attempt, recorded → replayed, why):").ok();
        }
        let text = |made: &Value| made["chosen"].as_str().or(made["reason"].as_str()).unwrap_or("-").to_owned();
        for d in &self.differences {
            let (was, is) = (text(&d.recorded), text(&d.replayed));
            writeln!(out, "  {}  {}  {}  {was} → {is}  {}", d.row, d.request_id, d.attempt, d.why).ok();
        }
        let all = (self.decisions - self.skipped).max(1) as f64;
        let width = self.shares.keys().map(|name| name.chars().count()).max().unwrap_or(0).max("backend".len());
        writeln!(out, "\n{:width$}  recorded        replayed", "backend").ok();
        for (name, share) in &self.shares {
            let percent = |n: u64| n as f64 * 100.0 / all;
            let Share { recorded, replayed } = *share;
            let (was, is) = (percent(recorded), percent(replayed));
            writeln!(out, "{name:width$}  {recorded:>8} {was:>5.1}% {replayed:>8} {is:>5.1}%").ok();
        }
        out
    }
}
