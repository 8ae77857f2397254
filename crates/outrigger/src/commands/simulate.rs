//! `outrigger simulate`: what fleets would do with a trace, by the code that decides in the live gateway.

pub(super) mod engines;
mod grid;
mod html;
mod input;
mod part;
mod place;
mod setup;
mod words;

use std::{
    path::{Path, PathBuf},
    thread,
};

use outrigger_plan::sim::{self, Report};
use serde_json::{Value, json};

use super::{Exit, input::Failed, values, write_out};

/// Play a trace of requests against fleets, and say what each would do and cost.
#[derive(Debug, clap::Args)]
#[command(override_usage = "outrigger simulate --fleet <FLEET> --trace <TRACE> [OPTIONS]\n       \
                            outrigger simulate --merge <FILE>... [--json] [--html <FILE>]")]
pub(super) struct Args {
    /// The fleet file. Given several times, the fleets are played side by side.
    #[arg(long, required_unless_present = "merge")]
    fleet: Vec<PathBuf>,
    /// The trace: CSV (arrival_s, prompt_tokens, output_tokens), a request log, Mooncake or LiteLLM SpendLogs, also as
    /// .gz; `-` for standard input. With --lengths, a curve of rates.
    #[arg(long, required_unless_present = "merge")]
    trace: Option<PathBuf>,
    /// What the trace is; found out from its first line where it is not given.
    #[arg(long, value_name = "csv|request-log|mooncake|spend-logs")]
    format: Option<outrigger_plan::trace::Format>,
    /// Make requests up: the trace has requests per second (window_start_s, rps), and this file how long prompts and
    /// answers are (quantile, prompt_tokens, output_tokens).
    #[arg(long, value_name = "FILE")]
    lengths: Option<PathBuf>,
    /// With --lengths, the columns are those of one service of several, such as chat_rps and chat_prompt_tokens.
    #[arg(long, value_name = "NAME", requires = "lengths")]
    service: Option<String>,
    /// With --lengths, this many times as many requests.
    #[arg(long, value_name = "N", default_value_t = 1.0, requires = "lengths", value_parser = values::number)]
    scale: f64,
    /// The model that requests ask for whose own the fleet does not have: the fleet's first unless given.
    #[arg(long)]
    model: Option<String>,
    /// What goes wrong: JSON lines such as {"event":"outage","cloud":"lambda","at_s":600,"for_s":300}.
    #[arg(long)]
    events: Option<PathBuf>,
    /// How a backend is chosen inside a tier, in place of what the fleet says. Given several times, each is played.
    #[arg(long, value_name = "weighted|latency|cheapest")]
    mode: Vec<grid::ModeName>,
    /// The same seed gives the same report. Given several times, each is played.
    #[arg(long, default_value = "1", value_parser = values::whole_number)]
    seed: Vec<u64>,
    /// Arrivals come this many times as fast.
    #[arg(long, default_value_t = 1.0, value_parser = values::number)]
    speed: f64,
    /// Seconds between two readings of an engine's metrics, on average; 0 for none.
    #[arg(long, default_value_t = 5.0, value_parser = values::number)]
    scrape_every: f64,
    /// Pools on demand are there at once and paid for from their first request, instead of following the load with
    /// their cold starts.
    #[arg(long)]
    warm: bool,
    /// Where gateways stand, in place of what the fleet says, and their part of the requests (1 unless given). Given
    /// several times, there are gateways in each place.
    #[arg(long, value_name = "CLOUD[/REGION][=PART]")]
    place: Vec<place::PlaceName>,
    /// Of the runs (fleets x modes x seeds), play only the i-th of n parts, and print what --merge reads.
    #[arg(long, value_name = "I/N")]
    shard: Option<grid::Shard>,
    /// Report what the parts of --shard found as if it had been one run.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["fleet", "trace", "shard"])]
    merge: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Write a page with plots, which needs nothing else to be read.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Args {
    fn trace(&self) -> &Path {
        self.trace.as_deref().unwrap_or(Path::new(""))
    }

    fn reads_stdin(&self) -> bool {
        self.trace().as_os_str() == "-"
    }

    /// As people call it.
    fn trace_name(&self) -> String {
        if self.reads_stdin() { "standard input".to_owned() } else { self.trace().display().to_string() }
    }
}

pub(super) fn run(args: &Args) -> Exit {
    let done = if args.merge.is_empty() { simulate(args) } else { part::merge(args) };
    done.unwrap_or_else(|failed| {
        eprintln!("error: {}", failed.message.trim_end());
        failed.exit
    })
}

/// A run and what came of it.
struct Played {
    name: String,
    report: Report,
    stopped: bool,
}

fn simulate(args: &Args) -> Result<Exit, Failed> {
    let all = grid::runs(args);
    let runs: Vec<_> = all.iter().filter(|run| args.shard.is_none_or(|shard| shard.has(run.number))).collect();
    if args.reads_stdin() && runs.len() > 1 {
        return Err(Failed::usage("standard input can be read once: give the trace as a file to play several runs"));
    }
    let setups = runs.iter().map(|run| setup::load(run, args)).collect::<Result<Vec<_>, _>>()?;
    let progress = input::Progress::new(args);
    let played = play_all(&setups, args, &progress);
    progress.clear();
    let played: Vec<Played> = (runs.iter().zip(played?))
        .map(|(run, (report, stopped))| Played { name: run.name.clone(), report, stopped })
        .collect();
    for note in notes(&setups) {
        eprintln!("note: {note}");
    }
    match args.shard {
        Some(shard) => part::print(args, shard, all.len(), &runs, &played),
        None => tell(args, &args.trace_name(), &played),
    }
}

/// As many at once as there are cores.
fn play_all(setups: &[setup::Ready], args: &Args, progress: &input::Progress) -> Result<Vec<(Report, bool)>, Failed> {
    let lanes = thread::available_parallelism().map_or(1, usize::from);
    let mut played = Vec::new();
    for batch in setups.chunks(lanes) {
        let results: Vec<_> = thread::scope(|scope| {
            let handles: Vec<_> = batch.iter().map(|setup| scope.spawn(|| play(setup, args, progress))).collect();
            handles.into_iter().map(thread::ScopedJoinHandle::join).collect()
        });
        for result in results {
            let panicked = |_| Failed::environment("the simulation panicked: a bug; please report it");
            played.push(result.map_err(panicked)??);
        }
    }
    Ok(played)
}

fn play(setup: &setup::Ready, args: &Args, progress: &input::Progress) -> Result<(Report, bool), Failed> {
    let arrivals = input::open(args, &setup.setup)?;
    let mut stopped = false;
    let report = sim::run(&setup.setup, arrivals, |requests, now| {
        stopped |= !progress.report(requests, now);
        !stopped
    });
    Ok((report.map_err(|fault| input::failed(args.trace(), &fault))?, stopped))
}

/// What a user should know, each thing once.
fn notes(setups: &[setup::Ready]) -> Vec<&String> {
    let mut notes: Vec<&String> = Vec::new();
    for note in setups.iter().flat_map(|s| &s.notes) {
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    notes
}

fn tell(args: &Args, trace: &str, played: &[Played]) -> Result<Exit, Failed> {
    if let Some(path) = &args.html {
        let page = html::page(trace, played);
        std::fs::write(path, page).map_err(|e| {
            Failed::environment(format!(
                "cannot write {}: {e}\n  help: give --html a file in a folder that is there",
                path.display()
            ))
        })?;
    }
    let stopped = played.iter().any(|p| p.stopped);
    if stopped {
        eprintln!("stopped: what follows is of the requests up to there");
    }
    let written = write_out(&if args.json { format!("{}\n", as_json(played)) } else { words::table(played) });
    Ok(if stopped { Exit::Interrupted } else { written })
}

/// One run's report as it is, several under their names.
fn as_json(played: &[Played]) -> Value {
    match played {
        [one] => json!(one.report),
        all => {
            let runs: serde_json::Map<_, _> = all.iter().map(|p| (p.name.clone(), json!(p.report))).collect();
            json!({ "fleets": runs })
        }
    }
}
