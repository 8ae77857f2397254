//! The failure lab: what a gateway does when the engines behind it break, as a table that anyone can run.
//!
//! It shares no code with the gateway, which it sees as a stranger does: a process with a fleet file. What a client got
//! is read from a socket of the lab's own, what the engines got from the book of the simulated engines, and only what
//! the gateway thinks of its backends comes from itself. A lab that asked the gateway how it went would be told that it
//! went well.
//!
//! In the order of a cell: [`matrix`] (the rules, as data) → [`cell`] (one fault in one form) → [`stage`] (two engines
//! and a gateway) → [`client`] → [`answer`] (what the bytes say) → [`judge`].

pub mod answer;
pub mod cell;
pub mod client;
pub mod judge;
pub mod matrix;
mod names;
mod pki;
pub mod stage;
pub mod target;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::JoinSet};

pub use crate::{
    cell::Cell,
    judge::Verdict,
    matrix::{Matrix, MatrixError},
    target::Target,
};

/// What keeps a cell from being run at all; a red cell is not an error.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    #[error("could not start `{program} serve`: {source}")]
    Start { program: PathBuf, source: std::io::Error },
    #[error("`{program} serve` said no ready line; it said: {said}")]
    NotReady { program: PathBuf, said: String },
    #[error("could not make certificates for the engines: {0}")]
    Certificates(String),
    #[error("could not start a name server: {0}")]
    Names(std::io::Error),
    #[error("could not start a simulated engine: {0}")]
    Engine(std::io::Error),
    #[error("could not write below {at}: {source}")]
    Folder { at: PathBuf, source: std::io::Error },
    #[error("the gateway's admin listener did not answer: {0}")]
    Admin(String),
    #[error("{0} did not answer a healthy request: {1}")]
    NotServing(SocketAddr, String),
}

/// How the lab is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The gateway's program.
    pub program: PathBuf,
    /// Cells at a time. Each has a gateway and two engines.
    pub jobs: usize,
}

/// How much longer than usual everything may take: the gateway's own times and the lab's patience alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace(u32);

impl Pace {
    pub(crate) const USUAL: Self = Self(1);
    const SLOW: Self = Self(3);

    pub(crate) fn of(self, time: Duration) -> Duration {
        time * self.0
    }
}

/// Runs the cells and hands each verdict on as it comes; the order is that of `cells` in what is returned.
///
/// A cell that is red is played once more when all others are over: alone, and with three times as long for
/// everything. On a machine that is busy with something else a cell can miss its times, and a bug does not come and go
/// with them. What was wrong at first is told with the verdict.
pub async fn run(
    options: &Options,
    cells: Vec<Cell>,
    mut on_verdict: impl FnMut(&Cell, &Verdict),
) -> Result<Vec<(Cell, Verdict)>, LabError> {
    let mut judged = once(options, cells, &mut on_verdict).await?;
    for (cell, verdict) in judged.iter_mut().filter(|(_, verdict)| !verdict.ok) {
        let first_try = verdict.told();
        *verdict = Verdict { first_try, ..judge::run(&options.program, cell, Pace::SLOW).await? };
        on_verdict(cell, verdict);
    }
    Ok(judged)
}

/// Hands on the verdicts that are good.
async fn once(
    options: &Options,
    cells: Vec<Cell>,
    on_verdict: &mut impl FnMut(&Cell, &Verdict),
) -> Result<Vec<(Cell, Verdict)>, LabError> {
    let places = Arc::new(Semaphore::new(options.jobs.max(1)));
    let mut running = JoinSet::new();
    for (index, cell) in cells.into_iter().enumerate() {
        let (places, program) = (places.clone(), options.program.clone());
        running.spawn(async move {
            let _place = places.acquire_owned().await;
            let verdict = judge::run(&program, &cell, Pace::USUAL).await;
            (index, cell, verdict)
        });
    }
    let mut judged = Vec::new();
    while let Some(ended) = running.join_next().await {
        let (index, cell, verdict) = ended.expect("a cell does not panic and is not cancelled");
        let verdict = verdict?;
        if verdict.ok {
            on_verdict(&cell, &verdict);
        }
        judged.push((index, cell, verdict));
    }
    judged.sort_by_key(|(index, ..)| *index);
    Ok(judged.into_iter().map(|(_, cell, verdict)| (cell, verdict)).collect())
}
