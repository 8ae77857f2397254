//! Runs that were divided among machines: each writes its part, and `--merge` tells them as one.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use outrigger_plan::sim::{Report, report::Plots};
use serde::{Deserialize, Serialize};

use super::{
    Args, Played,
    grid::{Run, Shard},
    tell,
};
use crate::commands::{Exit, input::Failed, write_out};

/// What one machine played.
#[derive(Debug, Serialize, Deserialize)]
struct Part {
    trace: String,
    /// From 1.
    shard: usize,
    of: usize,
    /// Runs in all parts together.
    all_runs: usize,
    runs: Vec<Kept>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    number: usize,
    name: String,
    stopped: bool,
    report: Report,
    plots: Plots,
}

pub(super) fn print(
    args: &Args,
    shard: Shard,
    all_runs: usize,
    runs: &[&Run],
    played: &[Played],
) -> Result<Exit, Failed> {
    let kept = |(run, played): (&&Run, &Played)| Kept {
        number: run.number,
        name: played.name.clone(),
        stopped: played.stopped,
        report: played.report.clone(),
        plots: played.report.plots.clone(),
    };
    let part = Part {
        trace: args.trace_name(),
        shard: shard.index + 1,
        of: shard.of,
        all_runs,
        runs: runs.iter().zip(played).map(kept).collect(),
    };
    let text = serde_json::to_string(&part).map_err(|e| Failed::environment(format!("cannot write the part: {e}")))?;
    let written = write_out(&format!("{text}\n"));
    Ok(if played.iter().any(|p| p.stopped) { Exit::Interrupted } else { written })
}

pub(super) fn merge(args: &Args) -> Result<Exit, Failed> {
    let parts = args.merge.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    check(&args.merge, &parts)?;
    let trace = parts.first().map(|part| part.trace.clone()).unwrap_or_default();
    let mut kept: Vec<Kept> = parts.into_iter().flat_map(|part| part.runs).collect();
    kept.sort_by_key(|one| one.number);
    let played: Vec<Played> = kept
        .into_iter()
        .map(|k| Played { name: k.name, report: Report { plots: k.plots, ..k.report }, stopped: k.stopped })
        .collect();
    tell(args, &trace, &played)
}

fn read(path: &Path) -> Result<Part, Failed> {
    let name = path.display();
    let file = File::open(path).map_err(|e| Failed::unreadable(path, &e))?;
    serde_json::from_reader(BufReader::new(file)).map_err(|e| {
        let help = "give what `outrigger simulate --shard I/N` printed";
        Failed::usage(format!("{name} is no part of a simulation: {e}\n  help: {help}"))
    })
}

/// They are the parts of one whole, and all of them are there.
fn check(paths: &[PathBuf], parts: &[Part]) -> Result<(), Failed> {
    let Some(first) = parts.first() else { return Ok(()) };
    for (path, part) in paths.iter().zip(parts) {
        if (&part.trace, part.of, part.all_runs) != (&first.trace, first.of, first.all_runs) {
            let (one, other) = (paths[0].display(), path.display());
            let help = "merge parts that were played with the same arguments but for --shard";
            return Err(Failed::usage(format!("{one} and {other} are parts of different wholes\n  help: {help}")));
        }
    }
    for shard in 1..=first.of {
        let found = parts.iter().filter(|part| part.shard == shard).count();
        if found != 1 {
            let what = if found == 0 { "is missing" } else { "is there more than once" };
            let help = format!("give each of the {} parts once", first.of);
            return Err(Failed::usage(format!("part {shard}/{} {what}\n  help: {help}", first.of)));
        }
    }
    Ok(())
}
