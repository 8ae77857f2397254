//! `outrigger simulate`: what fleets would do with a trace, by the code that decides in the live gateway.

mod html;
mod input;
mod setup;
mod words;

use std::{path::PathBuf, sync::Arc, thread};

use outrigger_plan::sim::{self, Report};
use serde_json::{Value, json};

use super::{Exit, input::Failed, write_out};

/// Play a trace of requests against fleets, and say what each would do and cost.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The fleet file. Given several times, the fleets are played side by side.
    #[arg(long, required = true)]
    fleet: Vec<PathBuf>,
    /// The trace: CSV (arrival_s, prompt_tokens, output_tokens), a request log, Mooncake or LiteLLM SpendLogs, also as
    /// .gz; `-` for standard input.
    #[arg(long)]
    trace: PathBuf,
    /// What the trace is; found out from its first line where it is not given.
    #[arg(long, value_name = "csv|request-log|mooncake|spend-logs")]
    format: Option<outrigger_plan::trace::Format>,
    /// The model that requests ask for whose own the fleet does not have: the fleet's first unless given.
    #[arg(long)]
    model: Option<String>,
    /// What goes wrong: JSON lines such as {"event":"outage","cloud":"lambda","at_s":600,"for_s":300}.
    #[arg(long)]
    events: Option<PathBuf>,
    /// The same seed gives the same report.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Arrivals come this many times as fast.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Seconds between two readings of an engine's metrics, on average; 0 for none.
    #[arg(long, default_value_t = 5.0)]
    scrape_every: f64,
    /// Of the sessions or requests, play only the i-th of n parts.
    #[arg(long, value_name = "I/N")]
    shard: Option<input::Shard>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Write a page with plots, which needs nothing else to be read.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Args {
    /// As people call it.
    fn trace_name(&self) -> String {
        let is_input = self.trace.as_os_str() == "-";
        if is_input { "standard input".to_owned() } else { self.trace.display().to_string() }
    }
}

pub(super) fn run(args: &Args) -> Exit {
    match simulate(args) {
        Ok(exit) => exit,
        Err(failed) => {
            eprintln!("error: {}", failed.message.trim_end());
            failed.exit
        }
    }
}

/// A fleet and what came of it.
struct Played {
    name: String,
    report: Report,
    stopped: bool,
}

fn simulate(args: &Args) -> Result<Exit, Failed> {
    let setups = args.fleet.iter().map(|path| setup::load(path, args)).collect::<Result<Vec<_>, _>>()?;
    if args.trace.as_os_str() == "-" && setups.len() > 1 {
        return Err(Failed::usage("standard input can be read once: give the trace as a file to play several fleets"));
    }
    let progress = input::Progress::new(args);
    let (lanes, setups) = (thread::available_parallelism().map_or(1, usize::from), Arc::new(setups));
    let mut played = Vec::new();
    for batch in (0..setups.len()).collect::<Vec<_>>().chunks(lanes) {
        let results: Vec<_> = thread::scope(|scope| {
            let handles: Vec<_> = batch.iter().map(|i| scope.spawn(|| play(&setups[*i], args, &progress))).collect();
            handles.into_iter().map(thread::ScopedJoinHandle::join).collect()
        });
        for (i, result) in batch.iter().zip(results) {
            let (report, stopped) =
                result.map_err(|_| Failed::environment("the simulation panicked: a bug; please report it"))??;
            let name = args.fleet[*i].display().to_string();
            played.push(Played { name, report, stopped });
        }
    }
    progress.clear();
    tell(args, &setups, &played)
}

fn play(setup: &setup::Ready, args: &Args, progress: &input::Progress) -> Result<(Report, bool), Failed> {
    let arrivals = input::open(args, &setup.setup)?;
    let mut stopped = false;
    let report = sim::run(&setup.setup, arrivals, |requests, now| {
        stopped |= !progress.report(requests, now);
        !stopped
    });
    let report =
        report.map_err(|fault| Failed::usage(format!("{}: {fault}\n  help: {}", args.trace_name(), fault.help)))?;
    Ok((report, stopped))
}

fn tell(args: &Args, setups: &[setup::Ready], played: &[Played]) -> Result<Exit, Failed> {
    if let Some(path) = &args.html {
        let page = html::page(&args.trace_name(), played);
        std::fs::write(path, page).map_err(|e| Failed::environment(format!("cannot write {}: {e}", path.display())))?;
    }
    let mut notes: Vec<&String> = setups.iter().flat_map(|s| &s.notes).collect();
    notes.dedup();
    for note in notes {
        eprintln!("note: {note}");
    }
    let stopped = played.iter().any(|p| p.stopped);
    if stopped {
        eprintln!("stopped: what follows is of the requests up to there");
    }
    let written =
        if args.json { write_out(&format!("{}\n", as_json(args, played))) } else { write_out(&words::table(played)) };
    Ok(if stopped { Exit::Interrupted } else { written })
}

/// One fleet's report as it is, several under their files' names.
fn as_json(args: &Args, played: &[Played]) -> Value {
    match played {
        [one] => json!(one.report),
        all => {
            let fleets: serde_json::Map<_, _> = all.iter().map(|p| (p.name.clone(), json!(p.report))).collect();
            json!({ "seed": args.seed, "fleets": fleets })
        }
    }
}
