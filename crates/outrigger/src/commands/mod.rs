//! The commands, one file each: its arguments and what it does.
//!
//! A command gives an [`Exit`], because scripts branch on it; data goes to stdout and talk to stderr. Adding one takes
//! a file with `Args` and `run`, and a line in each place below.

mod check;
mod client;
mod demo;
mod explain;
mod fake;
mod import;
mod init;
mod input;
mod interrupt;
mod key;
mod model;
mod online;
mod operate;
mod replay;
mod schema;
mod secrets;
mod serve;
mod simulate;
mod sockets;

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

/// Serves LLMs from GPUs rented on several clouds as one OpenAI-compatible endpoint.
#[derive(Debug, Parser)]
#[command(name = "outrigger", version)]
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
    Replay(replay::Args),
    Demo(demo::Args),
    Status(operate::Status),
    Drain(operate::Drain),
    Undrain(operate::Undrain),
    Weight(operate::Weight),
    Reload(operate::Reload),
    Key(key::Args),
    Import(import::Args),
    Schema(schema::Args),
    Fake(fake::Args),
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

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    let exit = match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Model(args) => model::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Status(args) => operate::status(&args),
        Command::Drain(args) => operate::drain(&args),
        Command::Undrain(args) => operate::undrain(&args),
        Command::Weight(args) => operate::weight(&args),
        Command::Reload(args) => operate::reload(&args),
        Command::Key(args) => key::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Fake(args) => fake::run(&args),
    };
    ExitCode::from(exit as u8)
}

/// Whether to colour what goes to stderr.
fn colour_on_stderr() -> bool {
    let is_asked_not_to = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !is_asked_not_to && std::io::stderr().is_terminal()
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
