//! The commands, one file each: its arguments and what it does.
//!
//! A command gives an [`Exit`], because scripts branch on it; data goes to stdout and talk to stderr. Adding one takes
//! a file with `Args` and `run`, and a line in each place below.

#[macro_use]
mod say;

mod check;
mod client;
mod completions;
mod demo;
mod explain;
mod fake;
mod import;
mod init;
mod input;
mod interrupt;
mod key;
mod lab;
mod man;
mod model;
mod online;
mod operate;
mod plan;
mod prices;
mod replay;
mod schema;
mod secrets;
mod serve;
mod simulate;
mod sockets;
mod values;
mod weights;

use std::{io::Write, process::ExitCode};

use anstream::{AutoStream, ColorChoice, stream::RawStream};
use clap::{CommandFactory as _, Parser, Subcommand};

/// Serves LLMs from GPUs rented on several clouds as one OpenAI-compatible endpoint.
#[derive(Debug, Parser)]
#[command(
    name = "outrigger",
    version,
    after_help = "Exit codes: 0 yes; 1 it ran, and the answer is no; 2 wrong arguments or input; 3 a port, a disk or a network
is in the way; 130 Ctrl-C. Data goes to standard output, words to standard error.
Variables: OUTRIGGER_ADMIN_TOKEN for the admin listener; OUTRIGGER_NAME_SERVERS in place of those of
/etc/resolv.conf; NO_COLOR, CLICOLOR_FORCE for colours."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Check(check::Args),
    Init(init::Args),
    Explain(explain::Args),
    Simulate(simulate::Args),
    Model(model::Args),
    Prices(prices::Args),
    Plan(plan::Args),
    Replay(replay::Args),
    Demo(demo::Args),
    Lab(lab::Args),
    Status(operate::Status),
    Drain(operate::Drain),
    Undrain(operate::Undrain),
    Weight(operate::Weight),
    Reload(operate::Reload),
    Weights(weights::Args),
    Key(key::Args),
    Import(import::Args),
    Schema(schema::Args),
    Fake(fake::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It ran, and the answer is yes.
    Yes = 0,
    /// It ran, and the answer is no.
    No = 1,
    /// It was called in a way that it does not take.
    Usage = 2,
    /// A port, a disk or a network is in the way.
    Environment = 3,
    /// Ended by Ctrl-C.
    Interrupted = 130,
}

/// Runs the command that the process was called with. `collect` lets go of memory that the calling thread does not use any
/// more, in a process that serves for long.
pub fn main(collect: fn()) -> ExitCode {
    let exit = match Cli::parse().command {
        Command::Serve(args) => serve::run(&args, collect),
        Command::Check(args) => check::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Model(args) => model::run(&args),
        Command::Prices(args) => prices::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Lab(args) => lab::run(&args),
        Command::Status(args) => operate::status(&args),
        Command::Drain(args) => operate::drain(&args),
        Command::Undrain(args) => operate::undrain(&args),
        Command::Weight(args) => operate::weight(&args),
        Command::Reload(args) => operate::reload(&args),
        Command::Weights(args) => weights::run(args),
        Command::Key(args) => key::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Fake(args) => fake::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    };
    ExitCode::from(exit as u8)
}

/// All commands, as their help, completions and manual pages know them.
fn cli() -> clap::Command {
    Cli::command()
}

/// Whether to colour what goes to stderr.
fn colour_on_stderr() -> bool {
    takes_escapes(&std::io::stderr())
}

/// Whether escapes may be written to a stream: by the rule that clap has for help and errors (NO_COLOR, CLICOLOR,
/// CLICOLOR_FORCE, TERM=dumb, and no terminal).
fn takes_escapes(stream: &impl RawStream) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}

/// The width of a column of names: as wide as the longest, so that what stands behind them stays in its column.
fn name_column<'a>(names: impl IntoIterator<Item = &'a str>) -> usize {
    const LEAST: usize = 20;
    names.into_iter().map(|name| name.chars().count()).fold(LEAST, usize::max)
}

/// Writes data to stdout. A reader that has gone away (`| head`) is no fault of the command.
fn write_out(text: &str) -> Exit {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("error: cannot write to standard output: {error}");
            Exit::Environment
        }
        _ => Exit::Yes,
    }
}
