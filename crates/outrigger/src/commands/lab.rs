//! `outrigger lab`: the failure lab, on this very program.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use outrigger_lab::{Cell, LabError, Matrix, Options, Target, Verdict, target};
use serde::Serialize;

use super::{Exit, interrupt::until_interrupted, name_column, write_out};

/// Break the engines behind a gateway in every known way, and judge what clients, engines and log saw.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each cell is one fault over one version of HTTP at one endpoint, for a stream or a whole answer, and has a gateway \
    and two simulated engines of its own. What is right in each is in docs/failure-matrix.md.
A cell that is red is played once more at the end, alone and with three times as long for everything, so that a busy machine is \
    not taken for a bug.
Exit codes: 0 when every cell is as it should be, 1 when one is not."
)]
pub(super) struct Args {
    /// Only cells whose id has this in it: a fault, or `/h2/`, or a whole id; may be given again.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Print the cells and play none.
    #[arg(long)]
    list: bool,
    /// Cells at a time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64), conflicts_with = "target")]
    jobs: u8,
    /// Another gateway, such as http://127.0.0.1:4000, in place of this one: one cell after another, judged by what the client
    /// and the engines saw.
    #[arg(long, value_name = "URL", value_parser = address)]
    target: Option<SocketAddr>,
    /// Where the other gateway looks for the two engines that the lab starts: the one it prefers, and the one that serves
    /// what that one does not.
    #[arg(
        long,
        value_name = "A,B",
        value_delimiter = ',',
        default_value = "127.0.0.1:18101,127.0.0.1:18102",
        requires = "target"
    )]
    engines: Vec<SocketAddr>,
    /// What the other gateway calls the model; the engines call it org/lab-model.
    #[arg(long, value_name = "NAME", default_value = "org/lab-model", requires = "target")]
    model: String,
    /// The variable with the key that the other gateway wants; the engines want sk-lab-engine-9b3e7a51c04d2f68.
    #[arg(long, value_name = "VARIABLE", requires = "target")]
    key_env: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The address in a URL without a path.
fn address(url: &str) -> Result<SocketAddr, String> {
    let rest = url.strip_prefix("http://").ok_or("it begins with http://")?;
    rest.trim_end_matches('/')
        .parse()
        .map_err(|_| "it is http:// and an address with a port, such as http://127.0.0.1:4000".to_owned())
}

/// A cell as a script reads it.
#[derive(Serialize)]
struct Line<'a> {
    id: String,
    rule: &'a str,
    fault: String,
    protocol: &'static str,
    endpoint: &'static str,
    stream: bool,
    #[serde(flatten)]
    verdict: &'a Verdict,
}

pub(super) fn run(args: &Args) -> Exit {
    let cells = match Matrix::built_in() {
        Ok(matrix) => matrix.cells(),
        Err(e) => {
            eprintln!("error: {e}; please report it");
            return Exit::Environment;
        }
    };
    let is_asked_for = |cell: &Cell| args.only.is_empty() || args.only.iter().any(|text| cell.id().contains(text));
    let cells: Vec<Cell> = cells.into_iter().filter(is_asked_for).collect();
    if cells.is_empty() {
        eprintln!("error: no cell has that in its id\n  help: `outrigger lab --list` prints them all");
        return Exit::Usage;
    }
    if args.list {
        return write_out(&cells.iter().map(|cell| format!("{}\n", cell.id())).collect::<String>());
    }
    if let Some(listen) = args.target {
        return match other_gateway(args, listen) {
            Ok(target) => until_interrupted(play_before(args, target, cells)),
            Err(why) => {
                eprintln!("error: {why}");
                Exit::Usage
            }
        };
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(e) => {
            eprintln!("error: cannot find this program's own file: {e}");
            return Exit::Environment;
        }
    };
    until_interrupted(play(args, program, cells))
}

fn other_gateway(args: &Args, listen: SocketAddr) -> Result<Target, String> {
    let [first, second] = args.engines[..] else {
        return Err("--engines takes two addresses\n  help: as in --engines 127.0.0.1:18101,127.0.0.1:18102".to_owned());
    };
    let key = match &args.key_env {
        None => String::new(),
        Some(name) => std::env::var(name).map_err(|_| {
            format!("the variable `{name}` is not set\n  help: it holds the key that the other gateway wants")
        })?,
    };
    Ok(Target { listen, model: args.model.clone(), key, engines: [first, second] })
}

async fn play(args: &Args, program: PathBuf, cells: Vec<Cell>) -> Exit {
    let options = Options { program, jobs: usize::from(args.jobs) };
    let mut told = Told { all: cells.len(), ..Told::default() };
    conclude(args, outrigger_lab::run(&options, cells, |cell, verdict| told.tell(cell, verdict)).await)
}

async fn play_before(args: &Args, target: Target, cells: Vec<Cell>) -> Exit {
    let cells: Vec<Cell> = cells.into_iter().filter(target::can_play).collect();
    let mut told = Told { all: cells.len(), ..Told::default() };
    conclude(args, target::run(&target, cells, |cell, verdict| told.tell(cell, verdict)).await)
}

/// What is said while cells are played.
#[derive(Default)]
struct Told {
    all: usize,
    played: usize,
    red: usize,
}

impl Told {
    fn tell(&mut self, cell: &Cell, verdict: &Verdict) {
        self.played += 1;
        if !verdict.ok {
            self.red += 1;
            eprintln!("red: {}\n{}", cell.id(), lines(&verdict.told()));
        } else if !verdict.first_try.is_empty() {
            eprintln!("green on the second try: {}\n{}", cell.id(), lines(&verdict.first_try));
        }
        if self.played.is_multiple_of(50) && self.played < self.all {
            eprintln!("{} of {} cells, {} red", self.played, self.all, self.red);
        }
    }
}

fn conclude(args: &Args, ran: Result<Vec<(Cell, Verdict)>, LabError>) -> Exit {
    match ran {
        Ok(judged) => report(args, &judged),
        Err(e) => {
            eprintln!("error: {e}{}", help(&e));
            Exit::Environment
        }
    }
}

fn help(e: &LabError) -> &'static str {
    match e {
        LabError::Engine(_) | LabError::Names(_) | LabError::Start { .. } | LabError::Admin(_) => {
            "\n  help: each cell takes some sockets and a process; try a smaller --jobs"
        }
        LabError::Folder { .. } => "\n  help: TMPDIR says where temporary files go",
        LabError::Certificates(_) | LabError::NotReady { .. } => "",
        LabError::NotServing(..) => {
            "\n  help: it has to look for its engines where --engines says, prefer the first, and ask them for org/lab-model"
        }
    }
}

fn report(args: &Args, judged: &[(Cell, Verdict)]) -> Exit {
    let text = if args.json { json(judged) } else { table(judged) };
    match write_out(&text) {
        Exit::Yes if judged.iter().any(|(_, verdict)| !verdict.ok) => Exit::No,
        exit => exit,
    }
}

fn json(judged: &[(Cell, Verdict)]) -> String {
    let cells: Vec<Line<'_>> = (judged.iter())
        .map(|(cell, verdict)| Line {
            id: cell.id(),
            rule: &cell.row.rule,
            fault: cell.fault(),
            protocol: cell.protocol.as_str(),
            endpoint: cell.endpoint.as_str(),
            stream: cell.streams(),
            verdict,
        })
        .collect();
    format!("{}\n", serde_json::json!({ "cells": cells }))
}

/// A line for each row of the matrix, and the sum.
fn table(judged: &[(Cell, Verdict)]) -> String {
    let mut rows: Vec<(&str, &str)> = Vec::new();
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (cell, verdict) in judged {
        let id = cell.row.id.as_str();
        let (green, all) = counts.entry(id).or_insert_with(|| {
            rows.push((id, &cell.row.rule));
            (0, 0)
        });
        *all += 1;
        *green += usize::from(verdict.ok);
    }
    let (width, rules) = (name_column(rows.iter().map(|row| row.0)), name_column(rows.iter().map(|row| row.1)));
    let mut text = String::new();
    for (id, rule) in rows {
        let (green, all) = counts[id];
        let mark = if green == all { "" } else { "  RED" };
        text.push_str(&format!("{id:<width$}  {rule:<rules$}  {green:>2} of {all:>2}{mark}\n"));
    }
    let green = judged.iter().filter(|(_, verdict)| verdict.ok).count();
    let second = judged.iter().filter(|(_, verdict)| verdict.ok && !verdict.first_try.is_empty()).count();
    let again = if second == 0 { String::new() } else { format!(", {second} of them on the second try") };
    text.push_str(&format!("{green} of {} cells are as they should be{again}\n", judged.len()));
    text
}

fn lines(told: &[String]) -> String {
    told.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
