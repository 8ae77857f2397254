//! `outrigger check`: every fault of a fleet file at once.
//!
//! Secrets are not resolved, only looked for, and engines are not called, unless `--online` asks for it. So it runs in CI
//! without credentials, where an absent secret is a warning and not a fault. Certificates and files of hashes that are
//! here are read, because one that does not fit its key, or the hash of a key that everybody knows, is found by nothing
//! else before `serve` starts.

use std::path::PathBuf;

use outrigger_core::fleet::{Fleet, SecretRef};
use serde_json::Value;

use super::{Exit, colour_on_stderr, interrupt, online, write_out};
use crate::config::{self, Error, Faults, Loaded, Severity};

/// Find every fault in a fleet file.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The fleet file.
    fleet: PathBuf,
    /// Print the faults as JSON.
    #[arg(long)]
    json: bool,
    /// Ask every backend for a token, and compare those that serve one model.
    #[arg(long)]
    online: bool,
    #[command(flatten)]
    manner: online::Manner,
}

pub(super) fn run(args: &Args) -> Exit {
    match config::load(&args.fleet) {
        Ok(mut loaded) => {
            let absent = if args.online { Severity::Error } else { Severity::Warning };
            loaded.report_absent(absent, is_there);
            loaded.examine_certificates(|path| std::fs::read(path));
            loaded.examine_hashes(|path| std::fs::read_to_string(path));
            if loaded.warnings.count(Severity::Error) > 0 {
                return refuse(&loaded.warnings, args.json);
            }
            if args.online {
                return interrupt::until_interrupted(online::run(loaded, args.manner, args.json));
            }
            accept(&loaded, args.json)
        }
        Err(Error::Faulty(faults)) => refuse(&faults, args.json),
        Err(error @ Error::Unreadable { .. }) => {
            eprintln!("error: {error}");
            Exit::Environment
        }
    }
}

fn is_there(secret: &SecretRef) -> bool {
    match secret {
        SecretRef::Env(name) => std::env::var_os(name).is_some(),
        SecretRef::File(path) => path.is_file(),
    }
}

fn accept(loaded: &Loaded, json: bool) -> Exit {
    if json {
        return write_json(&loaded.warnings.to_json());
    }
    eprint!("{}", loaded.warnings.render(colour_on_stderr()));
    write_out(&summary(loaded))
}

pub(super) fn refuse(faults: &Faults, json: bool) -> Exit {
    if json {
        let written = write_json(&faults.to_json());
        return if written == Exit::Yes { Exit::No } else { written };
    }
    eprint!("{}", faults.render(colour_on_stderr()));
    eprintln!("{}", counted(faults));
    Exit::No
}

pub(super) fn write_json(value: &Value) -> Exit {
    write_out(&format!("{value}\n"))
}

/// `2 errors, 1 warning`.
pub(super) fn counted(faults: &Faults) -> String {
    let (errors, warnings) = (faults.count(Severity::Error), faults.count(Severity::Warning));
    format!("{}, {}", many(errors, "error"), many(warnings, "warning"))
}

pub(super) fn many(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// What the fleet is, in a few lines.
pub(super) fn summary(loaded: &Loaded) -> String {
    let Fleet { digest, clouds, pools, backends, models, keys, .. } = &loaded.fleet;
    let gpus: u64 = pools.iter().map(|pool| u64::from(pool.gpus.max)).sum();
    let tiers: usize = models.iter().map(|model| model.tiers.len()).sum();
    let rented = match pools.len() {
        0 => String::new(),
        count => format!(" in {} of up to {gpus} GPUs", many(count, "pool")),
    };
    format!(
        "fleet {digest}: {}, {}{rented}\n{} in {}, {}; {}\n",
        many(clouds.len(), "cloud"),
        many(backends.len(), "backend"),
        many(models.len(), "model"),
        many(tiers, "tier"),
        many(keys.len(), "key"),
        counted(&loaded.warnings),
    )
}
