//! The trace as it is read, and how far it has been.

use std::{
    io::{self, BufRead, IsTerminal as _},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use outrigger_core::{fleet::ModelId, units::Nanos};
use outrigger_plan::{
    sim::Setup,
    trace::{Arrival, Quantiles, RateCurve, Reader, TraceFault, generate},
};

use super::Args;
use crate::commands::{
    Exit,
    input::{Failed, text_of},
    takes_escapes,
};

/// A trace's requests, with their models in the fleet.
struct Arrivals {
    reader: Reader<Box<dyn BufRead>>,
    models: Vec<Option<ModelId>>,
    names: std::collections::BTreeMap<String, ModelId>,
    speed: f64,
}

impl Iterator for Arrivals {
    type Item = Result<(Arrival, Option<ModelId>), TraceFault>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut arrival = match self.reader.next()? {
            Ok(arrival) => arrival,
            Err(fault) => return Some(Err(fault)),
        };
        if (self.speed - 1.0).abs() > f64::EPSILON {
            arrival.at = Nanos((arrival.at.0 as f64 / self.speed) as u64);
        }
        let model = arrival.model.and_then(|i| self.model(usize::from(i)));
        Some(Ok((arrival, model)))
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

type Requests = Box<dyn Iterator<Item = Result<(Arrival, Option<ModelId>), TraceFault>>>;

/// What is played: the requests of a trace, or requests made up from statistics.
pub(super) fn open(args: &Args, setup: &Setup) -> Result<Requests, Failed> {
    if !(args.speed.is_finite() && args.speed > 0.0) {
        return Err(Failed::usage("--speed must be above 0: 2 plays the trace twice as fast"));
    }
    if let Some(lengths) = &args.lengths {
        return made_up(args, lengths, setup.seed);
    }
    let reader = Reader::new(text_of(args.trace())?, args.format).map_err(|fault| failed(args.trace(), &fault))?;
    Ok(Box::new(Arrivals { reader, models: Vec::new(), names: setup.names.clone(), speed: args.speed }))
}

/// From a curve of rates and tables of lengths; the same ones for the same seed.
fn made_up(args: &Args, lengths: &Path, seed: u64) -> Result<Requests, Failed> {
    if !(args.scale.is_finite() && args.scale > 0.0) {
        return Err(Failed::usage("--scale must be above 0: 2 makes twice as many requests"));
    }
    let column = |what: &str| args.service.as_ref().map_or_else(|| what.to_owned(), |name| format!("{name}_{what}"));
    let rate = RateCurve::from_csv(text_of(args.trace())?, &column("rps")).map_err(|f| failed(args.trace(), &f))?;
    let tokens = Quantiles::from_csv(text_of(lengths)?, &column("prompt_tokens"), &column("output_tokens"))
        .map_err(|fault| failed(lengths, &fault))?;
    let speed = args.speed;
    let faster = move |arrival: Arrival| Arrival { at: Nanos((arrival.at.0 as f64 / speed) as u64), ..arrival };
    Ok(Box::new(generate(rate.scaled(args.scale), tokens, seed, None).map(move |a| Ok((faster(a), None)))))
}

/// A file's fault, with its name.
pub(super) fn failed(file: &Path, fault: &TraceFault) -> Failed {
    let name = if file.as_os_str() == "-" { "standard input".to_owned() } else { file.display().to_string() };
    Failed::usage(format!("{name}: {fault}\n  help: {}", fault.help))
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
        let is_terminal = io::stderr().is_terminal() && takes_escapes(&io::stderr()) && !args.json;
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
