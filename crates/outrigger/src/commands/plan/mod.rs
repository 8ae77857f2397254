//! `outrigger plan`: what a fleet would cost on one cloud or on several, and whether changing it is worth it.

mod diff;
mod html;
mod json;
mod of_fleet;
mod optimum;
mod options;
mod outside;
mod simulated;
mod words;

use std::{
    fs,
    path::{Path, PathBuf},
};

use jiff::civil::Date;
use outrigger_config::{load_scenario, scenario_from_str};
use outrigger_plan::economics::{self, Book, Plan, Scenario, Staleness};

use super::{Exit, colour_on_stderr, input::Failed, values, write_out};
use crate::config;

/// Price today's fleet and the ways to change it, and say whether one is worth it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The scenario: demand, model, clouds, today's fleet and its bill (examples/scenarios/chat.yaml is a complete one).
    #[arg(long, value_name = "FILE", required_unless_present_any = ["diff", "fleet"])]
    scenario: Option<PathBuf>,
    /// Instead of a scenario: the fleet file, with the requests that it served. What it does not say is left out.
    #[arg(long, value_name = "FILE", requires = "trace", conflicts_with_all = ["scenario", "diff"])]
    fleet: Option<PathBuf>,
    /// With --fleet: the request log, or any trace that `outrigger simulate` reads.
    #[arg(long, value_name = "FILE", requires = "fleet")]
    trace: Option<PathBuf>,
    /// With --fleet: the model to plan for, where it has several.
    #[arg(long, value_name = "NAME", requires = "fleet")]
    model: Option<String>,
    /// With --fleet: write the scenario that was made of it, to be completed and planned again.
    #[arg(long, value_name = "FILE", requires = "fleet")]
    save_scenario: Option<PathBuf>,
    /// More prices, as `outrigger prices import` prints them; they win over the built-in ones.
    #[arg(long, value_name = "FILE")]
    prices: Vec<PathBuf>,
    /// The day of the plan: ages of prices and commitments count from it. Today unless given.
    #[arg(long, value_name = "DATE", value_parser = values::date)]
    as_of: Option<Date>,
    /// Show how a figure comes about, such as pattern1-lambda.egress; `all` for every one.
    #[arg(long, value_name = "ID")]
    explain: Option<String>,
    /// Search the whole price book for the cheapest machines that carry the peak, always on, under the objectives and
    /// constraints of the scenario (survive_percent, only_clouds, commitments).
    #[arg(long, conflicts_with = "explain")]
    optimize: bool,
    /// Compare two scenarios, as Markdown for a pull request.
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"], conflicts_with_all = ["scenario", "explain", "optimize", "html"])]
    diff: Vec<PathBuf>,
    /// Write a page with plots, which needs nothing else to be read.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["explain", "optimize"])]
    html: Option<PathBuf>,
    /// Play the demand through the chosen option's machines in the simulator, and put what it finds beside the plan.
    #[arg(long, conflicts_with_all = ["explain", "optimize", "diff", "html"])]
    simulate: bool,
    /// With --simulate: this option instead of the chosen one.
    #[arg(long, value_name = "ID", requires = "simulate")]
    option: Option<String>,
    /// With --simulate: the same seed gives the same requests.
    #[arg(long, default_value_t = 1, value_parser = values::whole_number)]
    seed: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A plan with what it was made of.
struct Planned {
    scenario: Scenario,
    plan: Plan,
    stale: Staleness,
    as_of: Date,
}

pub(super) fn run(args: &Args) -> Exit {
    match answer(args) {
        Ok(exit) => exit,
        Err(failed) => {
            eprintln!("error: {}", failed.message.trim_end());
            failed.exit
        }
    }
}

fn answer(args: &Args) -> Result<Exit, Failed> {
    if args.optimize {
        return optimum::answer(args);
    }
    if let [old, new] = &args.diff[..] {
        return Ok(diff::answer(&planned(args, Some(old))?, &planned(args, Some(new))?, args.json));
    }
    let planned = planned(args, args.scenario.as_deref())?;
    if args.simulate {
        return simulated::answer(&planned, args);
    }
    if let Some(path) = &args.html {
        let help = "give --html a file in a folder that is there";
        let wrong = |error| Failed::environment(format!("cannot write {}: {error}\n  help: {help}", path.display()));
        fs::write(path, html::page(&planned)).map_err(wrong)?;
    }
    if let Some(id) = &args.explain {
        return explained(&planned, id, args.json);
    }
    Ok(write_out(&if args.json { format!("{}\n", json::plan(&planned)) } else { words::plan(&planned) }))
}

/// The scenario at `path`; without one, that of the fleet file.
fn scenario(args: &Args, path: Option<&Path>, book: &Book, as_of: Date) -> Result<Scenario, Failed> {
    let loaded = match (path, &args.fleet, &args.trace) {
        (None, Some(fleet), Some(trace)) => {
            let derived = of_fleet::scenario(fleet, trace, args.model.as_deref(), book)?;
            for note in &derived.notes {
                eprintln!("note: {note}");
            }
            if let Some(to) = &args.save_scenario {
                of_fleet::save(to, &derived)?;
            }
            let name = args.save_scenario.as_ref().unwrap_or(fleet);
            let shown = format!("the scenario of {}", name.display());
            let read = scenario_from_str(&shown, &derived.yaml, Path::new("/"), book, as_of, &outside::Files);
            read.map_err(|faults| Failed::of_config(name, &config::Error::Faulty(faults)))
        }
        (path, ..) => {
            let path = path.unwrap_or(Path::new(""));
            let loaded = load_scenario(path, book, as_of, &outside::Files);
            loaded.map_err(|error| Failed::of_config(path, &error))
        }
    }?;
    eprint!("{}", loaded.warnings.render(colour_on_stderr()));
    Ok(loaded.scenario)
}

fn planned(args: &Args, path: Option<&Path>) -> Result<Planned, Failed> {
    let as_of = args.as_of.unwrap_or_else(values::today);
    let scenario = scenario(args, path, &book(args)?, as_of)?;
    let plan = economics::plan(&scenario).map_err(|why| Failed::usage(format!("today cannot be priced: {why}")))?;
    let stale = economics::staleness(&scenario, &plan, as_of);
    Ok(Planned { scenario, plan, stale, as_of })
}

fn book(args: &Args) -> Result<Book, Failed> {
    let mut book = Book::builtin();
    for file in &args.prices {
        let text = fs::read_to_string(file).map_err(|error| Failed::unreadable(file, &error))?;
        let before = book.dropped.len();
        let help = "`outrigger prices import` makes such a file";
        let wrong = |why| Failed::usage(format!("{}: {why}\n  help: {help}", file.display()));
        book.add_csv(&text, &file.display().to_string()).map_err(wrong)?;
        for dropped in &book.dropped[before..] {
            eprintln!("left out: {}: {}: {}", file.display(), dropped.row, dropped.why);
        }
    }
    Ok(book)
}

/// One figure with its formula, or all that start with the id.
fn explained(planned: &Planned, id: &str, as_json: bool) -> Result<Exit, Failed> {
    let inner = |own: &str| id == "all" || own == id || own.strip_prefix(id).is_some_and(|rest| rest.starts_with('.'));
    let found: Vec<_> = planned.plan.figures.iter().filter(|figure| inner(&figure.id)).collect();
    if found.is_empty() {
        let known: Vec<&str> = planned.plan.choices.iter().map(|choice| choice.id.as_str()).collect();
        let help = format!("give an option ({}), a figure of one such as today.total, or all", known.join(", "));
        return Err(Failed::usage(format!("there is no figure {id}\n  help: {help}")));
    }
    let text: String = if as_json {
        let figures: Vec<_> = found.iter().map(|figure| json::figure(figure)).collect();
        format!("{}\n", serde_json::json!({ "figures": figures }))
    } else {
        found.iter().map(|f| format!("{}  {}\n  = {}\n  = {}\n", f.id, f.what, f.formula, f.shown())).collect()
    };
    Ok(write_out(&text))
}
