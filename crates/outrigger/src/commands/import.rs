//! `outrigger import litellm`: another proxy's configuration as a fleet file.
//!
//! The fleet file goes to standard output and what became of each key to standard error, so that `> fleet.yaml` does
//! what it looks like. The exit code answers "was everything carried over?": a script stops where a person has to
//! look, although there is a file.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use outrigger_import::{self as import, Imported, Inputs, Prices, Verdict, VirtualKey};

use super::{Exit, input, write_out};
use crate::config;

/// Write a fleet file from another proxy's configuration.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, clap::Subcommand)]
enum From {
    /// From the config.yaml of LiteLLM's proxy. Exits with 1 when something had to be refused.
    Litellm {
        /// The configuration; `-` for standard input.
        config: PathBuf,
        /// LiteLLM's model_prices_and_context_window.json, for the prices of hosted models.
        #[arg(long)]
        prices: Option<PathBuf>,
        /// An export of LiteLLM_VerificationToken as JSON or CSV, for the clients' keys.
        #[arg(long)]
        keys: Option<PathBuf>,
        /// Print the report as JSON on standard error.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(args: &Args) -> Exit {
    let From::Litellm { config, prices, keys, json } = &args.from;
    match read(config, prices.as_deref(), keys.as_deref(), false) {
        Ok(imported) => tell(&imported, *json),
        Err((exit, message)) => {
            eprintln!("error: {message}");
            exit
        }
    }
}

/// Reads and imports a configuration. An error comes with its exit code.
pub(super) fn read(
    config: &Path,
    prices: Option<&Path>,
    keys: Option<&Path>,
    is_served: bool,
) -> Result<Imported, (Exit, String)> {
    let usage = |path: &Path, what: &str| (Exit::Usage, format!("{}: {what}", path.display()));
    let prices = match prices {
        None => Prices::default(),
        Some(path) => Prices::parse(&text(path)?)
            .map_err(|e| usage(path, &format!("{e}; give LiteLLM's model_prices_and_context_window.json")))?,
    };
    let keys: Vec<VirtualKey> = match keys {
        None => Vec::new(),
        Some(path) => import::parse_keys(&text(path)?).map_err(|e| usage(path, &e))?,
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let env = |name: &str| std::env::var(name).ok();
    let known_key = &config::weak::known_key;
    let inputs = Inputs { env: &env, prices: &prices, keys: &keys, now, known_key, is_served };
    let imported = import::import(&text(config)?, &inputs)
        .map_err(|e| usage(config, &format!("{e}; give the YAML that LiteLLM's proxy starts with")))?;
    if let Some(fleet) = &imported.fleet
        && let Err(faults) = config::load_imported(fleet, Path::new("."))
    {
        let message = format!("{faults}the imported fleet has faults; this is a bug in Outrigger, please report it");
        return Err((Exit::No, message));
    }
    Ok(imported)
}

fn text(path: &Path) -> Result<String, (Exit, String)> {
    let file = input::text_of(path).map_err(|failed| (failed.exit, failed.message))?;
    let mut text = String::new();
    let read = file.take(import::LARGEST as u64 + 1).read_to_string(&mut text);
    read.map_err(|e| (Exit::Environment, format!("cannot read {}: {e}", path.display())))?;
    if text.len() > import::LARGEST {
        let most = import::LARGEST >> 20;
        return Err((Exit::Usage, format!("{} is larger than {most} MiB; is this the right file?", path.display())));
    }
    Ok(text)
}

fn tell(imported: &Imported, json: bool) -> Exit {
    let report = &imported.report;
    if json {
        eprintln!("{}", report.to_json());
    } else {
        eprint!("{}", report.render());
        eprintln!("{}", next_step(imported));
    }
    let written = imported.fleet.as_deref().map_or(Exit::Yes, write_out);
    match (written, report.has(Verdict::Refused)) {
        (Exit::Yes, true) => Exit::No,
        (written, _) => written,
    }
}

fn next_step(imported: &Imported) -> &'static str {
    match (&imported.fleet, imported.report.has(Verdict::Refused)) {
        (None, _) => "no fleet was written, since no model can be served; mend what is refused and import again",
        (Some(_), true) => {
            "a fleet was written without what is refused; decide on each of those, then run `outrigger check` on it"
        }
        (Some(_), false) => "a fleet was written; run `outrigger check` on it, then `outrigger serve --fleet`",
    }
}
