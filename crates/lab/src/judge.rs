//! Plays a cell and compares what happened with what is right.
//!
//! Beside what its row expects, every cell has to keep what always holds: each request is in the log once, nothing is
//! in flight in the end, and no address or key of an engine reaches the client.

use std::{net::Ipv4Addr, path::Path, time::Duration};

use outrigger_fakes::{Fake, Fault, FaultKind};

use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    LabError, Pace,
    answer::{self, Read},
    cell::Cell,
    client::{Ask, Got},
    matrix::{AnswerKind, Expected, Naming, On, Protocol, Reach},
    names::{Means, Trouble},
    pki::Pki,
    stage::{ELSEWHERE, ENGINES_KEY, ENGINES_MODEL, Moved, NOWHERE, Place, Stage},
};

/// Within this the gateway's view of its backends has to be what is right.
const SETTLES_WITHIN: Duration = Duration::from_secs(3);
/// For as long it has to stay so: a probe that is on its way would change it.
const STAYS_FOR: Duration = Duration::from_millis(150);

/// How a cell went.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    pub ok: bool,
    pub expected: Expected,
    pub got: Expected,
    /// Why an answer is wrong, and what always holds and did not.
    pub notes: Vec<String>,
    /// What was wrong when it was played for the first time, a line each, if this is the second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub first_try: Vec<String>,
}

/// The words of a gateway about its backends, and whether it counts requests that are over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct View {
    first: String,
    second: String,
    in_flight: u64,
}

pub(crate) async fn run(program: &Path, cell: &Cell, pace: Pace) -> Result<Verdict, LabError> {
    let stage = Stage::build(program, cell, pace).await?;
    let is_proven = proven(&stage, cell).await?;
    let seen = play(&stage.place, cell).await;
    let received = stage.place.received();
    let expected = cell.row.expect.clone();
    let view = settled(&stage, &expected).await?;
    let log = stage.requests(cell.requests()).await;
    let mut got = seen.as_expected();
    got.received = Some(received);
    got.moved = stage.place.moved.as_ref().map(|moved| moved.engine.stats().received);
    if let Some(last) = log.last() {
        got.outcome = last["outcome"].as_str().map(str::to_owned);
        got.tried = Some(tried(last));
    }
    (got.first, got.second) = (Some(view.first.clone()), Some(view.second.clone()));
    let mut notes = seen.notes;
    if !is_proven {
        notes.push("before the fault, the gateway did not come to know its backends for what they are".to_owned());
    }
    notes.extend(broken_rules(&stage.place, cell, &view, &log));
    let said = stage.close().await;
    if said.contains(ENGINES_KEY) {
        notes.push("the engines' key is on stderr".to_owned());
    }
    Ok(compare(expected, got, notes))
}

/// Waits until the gateway has asked new backends whether they live, so that the fault meets requests and no probe.
/// `false` when it does not come to the right view of them in time.
async fn proven(stage: &Stage, cell: &Cell) -> Result<bool, LabError> {
    let first = if cell.row.reach.is_healthy() { "up" } else { "down" };
    let patience = Instant::now() + stage.place.pace.of(SETTLES_WITHIN);
    while Instant::now() < patience {
        let state = stage.state().await?;
        let view = view(&state);
        if view.first == first && view.second == "up" && !is_asking(&state, cell.row.reach) {
            return Ok(true);
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(false)
}

/// Whether a probe is on its way, or due, to an engine that can be reached.
fn is_asking(state: &Value, reach: Reach) -> bool {
    let observed = state["observed"]["backends"].as_array().map(Vec::as_slice).unwrap_or_default();
    let reachable = if reach.is_healthy() { observed } else { observed.get(1..).unwrap_or_default() };
    reachable
        .iter()
        .map(|backend| &backend["live"]["probe"])
        .any(|probe| probe["running"] == true || !probe["due"].is_null())
}

/// Breaks the engines and asks.
pub(crate) async fn play(place: &Place, cell: &Cell) -> Seen {
    let broken = match cell.row.on {
        On::First => &place.engines[..1],
        On::Both => &place.engines[..],
    };
    for _ in 0..cell.row.warm {
        Seen::default().ask(place, cell).await;
    }
    if cell.row.warm > 0 {
        place.engines.iter().for_each(Fake::reset_stats);
    }
    for engine in broken {
        if let Some(fault) = &cell.row.fault {
            engine.set_fault(fault.clone()).await;
        }
        if let Some(certificate) = cell.row.certificate {
            engine.show(Pki::shared().expect("the engines were started with it").identity(certificate));
        }
    }
    if let (Some(naming), Some(moved)) = (cell.row.name, &place.moved) {
        rename(moved, naming).await;
    }
    // The same on a second try: what is kept for long enough is closed for its age, and proves nothing.
    sleep(Duration::from_millis(cell.row.pause_ms)).await;
    for _ in 0..cell.row.before {
        Seen::default().ask(place, cell).await;
    }
    let mut seen = Seen::default();
    for _ in 0..cell.row.requests {
        seen.ask(place, cell).await;
    }
    seen
}

/// Makes the first engine's name mean something else.
async fn rename(moved: &Moved, naming: Naming) {
    let (here, there) = (Ipv4Addr::LOCALHOST, ELSEWHERE);
    let (addresses, trouble) = match naming {
        Naming::Gone => (vec![here], Some(Trouble::NoSuchName)),
        Naming::ServerFails => (vec![here], Some(Trouble::ServerFails)),
        Naming::Silent => (vec![here], Some(Trouble::Silence)),
        Naming::Moved | Naming::MovedEarly => (vec![there], None),
        Naming::OneRefuses => (vec![NOWHERE, here], None),
        Naming::OneBlackHole => (vec![there, here], None),
    };
    if naming == Naming::OneBlackHole {
        moved.engine.set_fault(Fault::new(FaultKind::Blackhole)).await;
    }
    moved.names.change(Means { addresses, seconds: 0, trouble });
}

/// What the client saw over all requests of a cell.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    last: Got,
    read: Option<Read>,
    pub(crate) notes: Vec<String>,
}

impl Seen {
    async fn ask(&mut self, place: &Place, cell: &Cell) {
        let ask = Ask::new(cell, place.listen, &place.model, &place.key).at(place.pace);
        let got = match ask.send(cell.protocol).await {
            Ok(got) => got,
            Err(e) => {
                self.notes.push(format!("the client's connection: {e}"));
                Got { how: e.to_string(), ..Got::default() }
            }
        };
        let mut read = answer::read(cell.endpoint, cell.streams(), &got);
        if cell.row.expect.answer == Some(AnswerKind::EnginesError) && is_engines_own(place, cell, &got).await {
            read = Read { kind: AnswerKind::EnginesError, why: None, ..read };
        }
        self.notes.extend(secrets_in(&got, place));
        self.notes.extend(read.why.clone());
        let is_odd =
            self.read.as_ref().is_some_and(|before| (before.kind, self.last.status) != (read.kind, got.status));
        if is_odd {
            self.notes.push(format!("an earlier request got {} {:?}", self.last.status, self.read));
        }
        (self.last, self.read) = (got, Some(read));
    }

    pub(crate) fn as_expected(&self) -> Expected {
        let read = self.read.as_ref();
        Expected {
            status: Some(self.last.status).filter(|status| *status != 0),
            answer: read.map(|read| read.kind),
            code: read.and_then(|read| read.code.clone()),
            retry_after: self.last.header("retry-after").and_then(|text| text.parse().ok()),
            ..Expected::default()
        }
    }
}

/// Whether the client got, byte for byte, what an engine with the same fault says to whoever asks it directly.
async fn is_engines_own(place: &Place, cell: &Cell, got: &Got) -> bool {
    let (Some(fault), engine) = (&cell.row.fault, &place.twin) else { return false };
    engine.heal().await;
    engine.set_fault(fault.clone()).await;
    let ask = Ask::new(cell, engine.listen_addr(), ENGINES_MODEL, ENGINES_KEY);
    let own = ask.send(Protocol::Http1).await;
    own.is_ok_and(|own| got.ended && (own.status, &own.body) == (got.status, &got.body))
}

/// What of an engine must not reach a client.
fn secrets_in(got: &Got, place: &Place) -> Vec<String> {
    let mut all = String::from_utf8_lossy(&got.body).into_owned();
    for (name, value) in &got.headers {
        all.push_str(&format!("\n{name}: {value}"));
    }
    let seen = place.secrets.iter().filter(|secret| all.contains(*secret));
    seen.map(|secret| format!("the client sees {secret}")).collect()
}

/// The gateway's view, as soon as it is what is expected and stays so, or when the time for that is over.
async fn settled(stage: &Stage, expected: &Expected) -> Result<View, LabError> {
    let patience = Instant::now() + stage.place.pace.of(SETTLES_WITHIN);
    let mut right_since: Option<Instant> = None;
    loop {
        let view = view(&stage.state().await?);
        let is_right = view.in_flight == 0
            && expected.first.as_ref().is_none_or(|word| *word == view.first)
            && expected.second.as_ref().is_none_or(|word| *word == view.second);
        let now = Instant::now();
        right_since = if is_right { right_since.or(Some(now)) } else { None };
        let has_stayed = right_since.is_some_and(|since| now - since >= STAYS_FOR);
        if has_stayed || now >= patience {
            return Ok(view);
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn view(state: &Value) -> View {
    let backend = |name: &str| {
        let all = state["backends"].as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().find(|backend| backend["backend"] == name).cloned().unwrap_or_default()
    };
    let (first, second) = (backend("first"), backend("second"));
    let word = |backend: &Value| backend["state"].as_str().unwrap_or_default().to_owned();
    let in_flight = |backend: &Value| backend["in_flight"].as_u64().unwrap_or(u64::MAX);
    View { first: word(&first), second: word(&second), in_flight: in_flight(&first).max(in_flight(&second)) }
}

fn tried(request: &Value) -> Vec<String> {
    let attempts = request["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let word = |attempt: &Value| match attempt["outcome"].as_str() {
        Some(outcome @ ("ok" | "client_gone" | "client_error")) => outcome.to_owned(),
        _ => attempt["reason"].as_str().unwrap_or_default().to_owned(),
    };
    attempts.iter().map(word).collect()
}

/// What holds in every cell.
fn broken_rules(place: &Place, cell: &Cell, view: &View, log: &[Value]) -> Vec<String> {
    let mut broken = Vec::new();
    if view.in_flight != 0 {
        broken.push(format!("{} requests are in flight for ever", view.in_flight));
    }
    if log.len() != cell.requests() {
        broken.push(format!("{} records in the request log of {} requests", log.len(), cell.requests()));
    }
    if log.iter().any(|line| line.to_string().contains(ENGINES_KEY)) {
        broken.push("the engines' key is in the log".to_owned());
    }
    let all = place.engines.iter().chain(place.moved.iter().map(|moved| &moved.engine));
    let open: u64 = all.map(|engine| engine.stats().in_flight).sum();
    if open != 0 {
        broken.push(format!("the engines still work on {open} requests that nobody waits for"));
    }
    broken
}

pub(crate) fn compare(expected: Expected, got: Expected, notes: Vec<String>) -> Verdict {
    let mut verdict = Verdict { ok: false, expected, got, notes, first_try: Vec::new() };
    verdict.ok = verdict.differences().is_empty() && verdict.notes.is_empty();
    verdict
}

impl Verdict {
    /// What is wrong, a line each.
    pub fn told(&self) -> Vec<String> {
        let differences = self.differences().into_iter();
        let mut lines: Vec<String> =
            differences.map(|(key, expected, got)| format!("{key}: {got} instead of {expected}")).collect();
        lines.extend(self.notes.iter().cloned());
        lines
    }

    /// What was expected and is not so: its name, what was right, and what was.
    pub fn differences(&self) -> Vec<(String, Value, Value)> {
        let as_json = |values: &Expected| serde_json::to_value(values).expect("plain data");
        let (expected, got) = (as_json(&self.expected), as_json(&self.got));
        let wanted = expected.as_object().into_iter().flatten();
        wanted
            .filter(|(key, value)| got[key.as_str()] != **value)
            .map(|(key, value)| (key.clone(), value.clone(), got[key.as_str()].clone()))
            .collect()
    }
}
