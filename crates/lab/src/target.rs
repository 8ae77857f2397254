//! Cells before another gateway, set up by whoever runs it.
//!
//! Its breakers, its log and its words for errors are its own, so that only what a client got and what the engines got is
//! judged. It cannot be started anew for each cell: the engines stay where they are, one cell follows another, and
//! before each the gateway is asked until it serves from its first engine again.

use std::{net::SocketAddr, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    LabError, Pace,
    answer::{self, Read},
    cell::Cell,
    client::{Ask, Got},
    judge::{self, Verdict, compare},
    matrix::{AnswerKind, Behaviour, Expected, Protocol, Reach},
    stage::{ENGINES_KEY, Place, engine},
};

/// How long a gateway may take to trust an engine again.
const RECOVERS_WITHIN: Duration = Duration::from_secs(20);
const BETWEEN: Duration = Duration::from_millis(250);

/// Another gateway: where it listens, what it has to be asked for, and where it looks for its two engines. The first has
/// to be preferred, and the second to serve what the first does not.
#[derive(Clone, Debug)]
pub struct Target {
    pub listen: SocketAddr,
    pub model: String,
    pub key: String,
    pub engines: [SocketAddr; 2],
}

/// Whether a cell can be played before a gateway that is set up already.
pub fn can_play(cell: &Cell) -> bool {
    cell.row.reach == Reach::Plain
}

/// Plays one cell after another.
pub async fn run(
    target: &Target,
    cells: Vec<Cell>,
    mut on_verdict: impl FnMut(&Cell, &Verdict),
) -> Result<Vec<(Cell, Verdict)>, LabError> {
    let [first, second] = target.engines;
    let place = Place {
        engines: [engine(Some(first), None).await?, engine(Some(second), None).await?],
        moved: None,
        pace: Pace::USUAL,
        twin: engine(None, None).await?,
        listen: target.listen,
        model: target.model.clone(),
        key: target.key.clone(),
        // Whether a gateway says who is behind it is a matter of its settings.
        secrets: vec![ENGINES_KEY.to_owned()],
    };
    let mut judged = Vec::new();
    for cell in cells {
        let came_back = recover(&place, &cell).await;
        if judged.is_empty()
            && let Err(why) = &came_back
        {
            return Err(LabError::NotServing(target.listen, why.clone()));
        }
        let seen = judge::play(&place, &cell).await;
        let got = Expected { received: Some(place.received()), ..seen.as_expected() };
        let mut notes = seen.notes;
        notes.extend(came_back.err());
        let verdict = compare(visible(&cell.row.expect), got, notes);
        on_verdict(&cell, &verdict);
        judged.push((cell, verdict));
    }
    Ok(judged)
}

/// What can be seen from outside.
fn visible(expected: &Expected) -> Expected {
    Expected { status: expected.status, answer: expected.answer, received: expected.received, ..Expected::default() }
}

/// Heals the engines and waits until a request goes to the first of them and is answered; why not, otherwise.
async fn recover(place: &Place, cell: &Cell) -> Result<(), String> {
    for engine in &place.engines {
        engine.heal().await;
    }
    let ask = Ask { behaviour: Behaviour::Reads, ..Ask::new(cell, place.listen, &place.model, &place.key) };
    let patience = Instant::now() + RECOVERS_WITHIN;
    loop {
        reset(place);
        let got = ask.send(Protocol::Http1).await.unwrap_or_default();
        let read = answer::read(cell.endpoint, cell.streams(), &got);
        let is_back = read.kind == AnswerKind::Whole && place.received() == [1, 0];
        if is_back {
            reset(place);
            return Ok(());
        }
        if Instant::now() >= patience {
            reset(place);
            return Err(not_back(&got, &read));
        }
        sleep(BETWEEN).await;
    }
}

fn reset(place: &Place) {
    for engine in &place.engines {
        engine.reset_stats();
    }
}

fn not_back(got: &Got, read: &Read) -> String {
    let why = read.why.as_deref().unwrap_or("it is not served by the first engine");
    format!("a healthy request before it: status {}, {why}", got.status)
}
