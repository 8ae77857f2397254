//! `outrigger key new NAME`: a key for a client, printed once, and what to put into the fleet file.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::{Exit, write_out};

/// Make keys for clients.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Make a key of 256 random bits; only its hash belongs into a file.
    New {
        /// Its name in the fleet file, such as prod.
        name: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(args: &Args) -> Exit {
    let What::New { name, json } = &args.what;
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    if name.is_empty() || name.len() > 63 || !name.chars().all(fits) {
        eprintln!("error: a key's name has 1 to 63 of a-z, 0-9, `.`, `_` and `-`, not {name:?}");
        return Exit::Usage;
    }
    let mut bits = [0; 32];
    if let Err(e) = getrandom::fill(&mut bits) {
        eprintln!("error: the system gives no randomness: {e}");
        return Exit::Environment;
    }
    let key = format!("sk-or-{}", hex(&bits));
    let hash = hex(&Sha256::digest(key.as_bytes()));
    if *json {
        return write_out(&format!("{}\n", serde_json::json!({ "name": name, "key": key, "sha256": hash })));
    }
    eprintln!("The key is shown once; give it to the client. The lines with the hash go into the fleet file.");
    write_out(&format!("{key}\n\nkeys:\n  {name}:\n    sha256: {hash}\n"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").ok();
        text
    })
}
