//! The trace as it is read, and how far it has been.

use std::{
    io::{self, BufRead, IsTerminal as _},
    str::FromStr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use outrigger_core::{fleet::ModelId, units::Nanos};
use outrigger_plan::{
    sim::Setup,
    trace::{Arrival, Reader, TraceFault},
};

use super::Args;
use crate::commands::{
    Exit,
    input::{Failed, text_of},
};

/// One of several parts of a trace, each for a process of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shard {
    index: u64,
    of: u64,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse::<u64>().ok()?, n.parse::<u64>().ok()?)));
        match parts {
            Some((index, of)) if index >= 1 && index <= of => Ok(Self { index: index - 1, of }),
            _ => Err("write it as I/N, such as 1/4 for the first of four".to_owned()),
        }
    }
}

/// A trace's requests, with their models in the fleet.
pub(super) struct Arrivals {
    reader: Reader<Box<dyn BufRead>>,
    models: Vec<Option<ModelId>>,
    names: std::collections::BTreeMap<String, ModelId>,
    speed: f64,
    shard: Option<Shard>,
    number: u64,
}

impl Iterator for Arrivals {
    type Item = Result<(Arrival, Option<ModelId>), TraceFault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut arrival = match self.reader.next()? {
                Ok(arrival) => arrival,
                Err(fault) => return Some(Err(fault)),
            };
            self.number += 1;
            if let Some(shard) = self.shard
                && arrival.session.unwrap_or(self.number) % shard.of != shard.index
            {
                continue;
            }
            if (self.speed - 1.0).abs() > f64::EPSILON {
                arrival.at = Nanos((arrival.at.0 as f64 / self.speed) as u64);
            }
            let model = arrival.model.and_then(|i| self.model(usize::from(i)));
            return Some(Ok((arrival, model)));
        }
    }
}

impl Arrivals {
    fn model(&mut self, index: usize) -> Option<ModelId> {
        while self.models.len() <= index {
            let name = self.reader.models().get(self.models.len());
            self.models.push(name.and_then(|name| self.names.get(name).copied()));
        }
        self.models[index]
    }
}

pub(super) fn open(args: &Args, setup: &Setup) -> Result<Arrivals, Failed> {
    if !(args.speed.is_finite() && args.speed > 0.0) {
        return Err(Failed::usage("--speed must be above 0: 2 plays the trace twice as fast"));
    }
    let path = args.trace_name();
    let input = text_of(&args.trace)?;
    let reader = Reader::new(input, args.format)
        .map_err(|fault| Failed::usage(format!("{path}: {fault}\n  help: {}", fault.help)))?;
    let (names, speed, shard) = (setup.names.clone(), args.speed, args.shard);
    Ok(Arrivals { reader, models: Vec::new(), names, speed, shard, number: 0 })
}

/// A line on a terminal that says how far it is, and Ctrl-C.
pub(super) struct Progress {
    shown: Mutex<Option<Instant>>,
    began: Instant,
    is_terminal: bool,
}

/// Set by Ctrl-C: simulations stop and report what they have.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

impl Progress {
    pub(super) fn new(args: &Args) -> Self {
        watch_for_interrupts();
        let is_terminal = io::stderr().is_terminal() && !args.json;
        Self { shown: Mutex::new(None), began: Instant::now(), is_terminal }
    }

    /// `false` when it is time to stop.
    pub(super) fn report(&self, requests: u64, reached: Nanos) -> bool {
        const EVERY: Duration = Duration::from_millis(200);
        if self.is_terminal {
            let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
            if shown.is_none_or(|at| at.elapsed() >= EVERY) {
                *shown = Some(Instant::now());
                let hours = reached.0 as f64 / 3.6e12;
                let rate = requests as f64 / self.began.elapsed().as_secs_f64().max(1e-3);
                eprint!("\r{requests} requests, {hours:.1} h of the trace, {rate:.0}/s \x1b[K");
            }
        }
        !INTERRUPTED.load(Ordering::Relaxed)
    }

    pub(super) fn clear(&self) {
        if self.is_terminal && self.shown.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

/// The first Ctrl-C stops the simulation and reports; a second one ends the process.
fn watch_for_interrupts() {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                INTERRUPTED.store(true, Ordering::Relaxed);
            }
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(Exit::Interrupted as i32);
            }
        });
    });
}
