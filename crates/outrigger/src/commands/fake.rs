//! `outrigger fake`: one simulated engine as a process, for trying things out and for tests.

use std::net::SocketAddr;

use outrigger_fakes::{Ended, Options, Profile, run_process};

use super::{Exit, values};

/// Run one simulated engine.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where it serves; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0", value_parser = values::address)]
    listen: SocketAddr,
    /// Where faults are set and its own counts are read.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0", value_parser = values::address)]
    admin: SocketAddr,
    /// A built-in profile (coreweave-h100, lambda-h100, h100x4-llama-70b, h100x8-llama-70b, hosted, instant) or a JSON
    /// file.
    #[arg(long, default_value = "coreweave-h100")]
    profile: String,
    /// Makes its jitter and its chances repeatable.
    #[arg(long, default_value_t = 0, value_parser = values::whole_number)]
    seed: u64,
    /// End when the process that started it ends.
    #[arg(long)]
    die_with_parent: bool,
}

pub(super) fn run(args: &Args) -> Exit {
    let profile = match Profile::load(&args.profile) {
        Ok(profile) => profile,
        Err(e) => {
            eprintln!("error: {e}");
            return Exit::Usage;
        }
    };
    let options = Options { listen: args.listen, admin: args.admin, seed: args.seed, ..Options::new(profile) };
    let served = tokio::runtime::Runtime::new().and_then(|rt| rt.block_on(run_process(options, args.die_with_parent)));
    match served {
        Ok(Ended::Asked) => Exit::Yes,
        Ok(Ended::Interrupted) => Exit::Interrupted,
        Err(e) => {
            eprintln!(
                "error: cannot run the engine on {} and {}: {e}; choose others with --listen and --admin",
                args.listen, args.admin
            );
            Exit::Environment
        }
    }
}
