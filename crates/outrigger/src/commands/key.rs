//! `outrigger key`: a new key for a client, printed once, with what to put into the fleet file; and the hash of one that
//! exists already.

use std::{
    fmt::Write as _,
    io::{IsTerminal as _, Read as _},
};

use sha2::{Digest, Sha256};

use super::{Exit, write_out};
use crate::config::weak;

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
    /// Print the hash of the key on standard input, for a `file:` of the fleet file.
    Hash {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(args: &Args) -> Exit {
    match &args.what {
        What::New { name, json } => new(name, *json),
        What::Hash { json } => hash(*json),
    }
}

/// A longer one is not a key but a file given by mistake.
const LONGEST: u64 = 4_096;

/// The key comes by standard input, since arguments can be seen by everybody on the machine.
fn hash(json: bool) -> Exit {
    if std::io::stdin().is_terminal() {
        eprintln!("type the key, then Enter and Ctrl-D");
    }
    let mut key = String::new();
    if let Err(e) = std::io::stdin().take(LONGEST + 1).read_to_string(&mut key) {
        eprintln!("error: cannot read the key: {e}; give it on standard input");
        return Exit::Environment;
    }
    let key = key.trim();
    if key.is_empty() || key.len() as u64 > LONGEST {
        eprintln!("error: there is no key on standard input; try `printf %s \"$KEY\" | outrigger key hash`");
        return Exit::Usage;
    }
    if weak::is_known(key) {
        eprintln!("error: this is a key that everybody knows, and `check` and `serve` refuse its hash; {}", weak::HELP);
        return Exit::No;
    }
    let hash = hex(&Sha256::digest(key.as_bytes()));
    write_out(&if json { format!("{}\n", serde_json::json!({ "sha256": hash })) } else { format!("{hash}\n") })
}

fn new(name: &str, json: bool) -> Exit {
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
    if json {
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
