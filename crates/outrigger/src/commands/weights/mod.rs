//! `outrigger weights`: models put into a store, looked at, pulled and verified.
//!
//! What it does is in `outrigger_weights`; here are its words. Data goes to stdout: with `--json` one object, or for `pull`,
//! which lasts, a line for each thing that happens.

mod bill;
mod diff;
mod price;
mod progress;
mod publish;
mod pull;
mod sign;

use std::path::PathBuf;

use outrigger_weights::{
    Digest, Error, Kind, Manifest, Store, Wanted,
    signing::{self, Place},
    store::Found,
    verify::{self, Problem},
};
use serde_json::{Value, json};

use self::progress::Progress;
use super::{Exit, interrupt::until_interrupted, name_column, write_out};

/// Move model weights: verified, and resumed where a killed process stopped.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A STORE is s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///PATH, or for reading alone \
                  https://HOST/PATH, which is such a folder or bucket behind a web server. Credentials come from the environment, \
                  in the variables that each provider's own tools read."
)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Add(publish::AddArgs),
    Pull(pull::Args),
    /// List what a store has.
    Ls {
        /// The store.
        #[arg(long, value_name = "STORE")]
        from: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show a version's files and hashes.
    Show {
        /// Which model, and which ref or version of it.
        #[arg(value_name = "ORG/MODEL[@REF]")]
        wanted: Wanted,
        /// The store.
        #[arg(long, value_name = "STORE")]
        from: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    Replicate(publish::ReplicateArgs),
    Rollback(publish::RollbackArgs),
    Gc(publish::GcArgs),
    /// Read everything again: a pulled directory, or with --from a version where it lies in a store.
    Verify {
        /// A directory that was pulled; with --from, ORG/MODEL[@REF].
        what: String,
        /// The store.
        #[arg(long, value_name = "STORE")]
        from: Option<String>,
        /// Also refuse what this public key has not signed: PEM. The directory may then be any.
        #[arg(long, value_name = "PEM")]
        key: Option<PathBuf>,
        /// Where the signature lies, if not where `sign` puts it.
        #[arg(long, value_name = "FILE", requires = "key")]
        signature: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    Sign(sign::Args),
    Diff(diff::Args),
    Plan(bill::Args),
}

pub(super) fn run(args: Args) -> Exit {
    match args.what {
        What::Add(args) => until_interrupted(publish::add(args)),
        What::Pull(args) => until_interrupted(pull::run(args)),
        What::Ls { from, json } => until_interrupted(ls(from, json)),
        What::Show { wanted, from, json } => until_interrupted(show(wanted, from, json)),
        What::Replicate(args) => until_interrupted(publish::replicate(args)),
        What::Rollback(args) => until_interrupted(publish::rollback(args)),
        What::Gc(args) => until_interrupted(publish::gc(args)),
        What::Verify { what, from, key, signature, json } => {
            let signed = key.map(|key| SignedBy { key, signature });
            until_interrupted(verify(what, from, signed, json))
        }
        What::Plan(args) => until_interrupted(bill::run(args)),
        What::Diff(args) => until_interrupted(diff::run(args)),
        What::Sign(args) => until_interrupted(sign::run(args)),
    }
}

fn failed(error: &Error) -> Exit {
    eprintln!("error: {error}");
    match error.kind {
        Kind::Usage => Exit::Usage,
        Kind::Content => Exit::No,
        Kind::Environment => Exit::Environment,
    }
}

async fn ls(from: String, json: bool) -> Exit {
    let listed = match Store::parse(&from) {
        Ok(store) => store.list().await,
        Err(error) => Err(error),
    };
    let listed = match listed {
        Ok(listed) => listed,
        Err(error) => return failed(&error),
    };
    if json {
        let rows: Vec<Value> = listed
            .iter()
            .map(|one| json!({"model": one.model.as_str(), "ref": one.name.as_str(), "digest": one.digest.to_string()}))
            .collect();
        return write_out(&format!("{}\n", json!({"refs": rows})));
    }
    let names: Vec<String> = listed.iter().map(|one| format!("{}@{}", one.model, one.name)).collect();
    let width = name_column(names.iter().map(String::as_str));
    let rows: String =
        names.iter().zip(&listed).map(|(name, one)| format!("{name:<width$}  {}\n", one.digest)).collect();
    if rows.is_empty() {
        eprintln!("the store is empty");
    }
    write_out(&rows)
}

async fn show(wanted: Wanted, from: String, json: bool) -> Exit {
    let found = match Store::parse(&from) {
        Ok(store) => store.find(&wanted).await,
        Err(error) => Err(error),
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => return failed(&error),
    };
    let manifest = &found.manifest;
    if json {
        let files: Vec<Value> = manifest
            .files
            .iter()
            .map(|file| {
                json!({"path": file.path.as_str(), "size": file.size, "sha256": outrigger_weights::manifest::hex(&file.sha256),
                    "chunker": file.chunker.name(), "chunks": file.chunks.len()})
            })
            .collect();
        let mut out = summary(&found.digest, manifest);
        out["files"] = files.into();
        return write_out(&format!("{out}\n"));
    }
    let width = name_column(manifest.files.iter().map(|file| file.path.as_str()));
    let mut text = format!("{} {}\n{}\n", manifest.model, progress::bytes(manifest.total()), found.digest);
    for file in &manifest.files {
        let sha256 = outrigger_weights::manifest::hex(&file.sha256);
        text +=
            &format!("{:<width$}  {:>15}  {:>6} chunks  {sha256}\n", file.path.as_str(), file.size, file.chunks.len());
    }
    write_out(&text)
}

fn summary(digest: &Digest, manifest: &Manifest) -> Value {
    json!({"model": manifest.model.as_str(), "digest": digest.to_string(), "total": manifest.total(),
        "files": manifest.files.len(), "chunks": manifest.chunks()})
}

/// A key, and where its signature lies.
struct SignedBy {
    key: PathBuf,
    signature: Option<PathBuf>,
}

async fn verify(what: String, from: Option<String>, signed: Option<SignedBy>, json: bool) -> Exit {
    let verified = async {
        if let Some((store, found)) = sign::in_bucket(&what, from.as_deref(), "verify").await? {
            return read_there(&store, found, signed.as_ref(), json).await;
        }
        let (place, _) = sign::place(&what, from.as_deref(), "verify").await?;
        tokio::task::spawn_blocking(move || all_read_again(&place, signed.as_ref(), json))
            .await
            .unwrap_or_else(|e| Err(Error::environment(format!("a thread ended: {e}"), "try again")))
    };
    verified.await.unwrap_or_else(|error| failed(&error))
}

/// Reads a version over the network.
async fn read_there(store: &Store, found: Found, signed: Option<&SignedBy>, json: bool) -> Result<Exit, Error> {
    let Found { digest, manifest, .. } = found;
    let progress = Progress::to_stderr(json);
    progress.total(manifest.total());
    let key = signed.map(|signed| signing::public_key(&signed.key)).transpose()?;
    let count = |bytes| progress.add(bytes);
    let problems = match signed.zip(key.as_ref()) {
        Some((signed, key)) => {
            let by = (key, signed.signature.as_deref());
            signing::check_stored(store, &digest, &manifest, by, &count).await
        }
        None => verify::verify_stored(store, &manifest, &digest, &count).await,
    };
    progress.clear();
    let place = Place { folder: PathBuf::new(), version: Some((digest, manifest)), ready: None };
    Ok(told(&place, signed.is_some(), &problems?, json))
}

/// Reads all files, against the manifest and, with a key, against what it has signed.
fn all_read_again(place: &Place, signed: Option<&SignedBy>, json: bool) -> Result<Exit, Error> {
    let progress = Progress::to_stderr(json);
    let key = signed.map(|signed| signing::public_key(&signed.key)).transpose()?;
    let count = |bytes| progress.add(bytes);
    let problems = match (&place.version, signed.zip(key.as_ref())) {
        (_, Some((signed, key))) => signing::check(place, key, signed.signature.as_deref(), &count),
        (Some((_, manifest)), None) => {
            progress.total(manifest.total());
            verify::verify(&place.folder, manifest, &count)
        }
        (None, None) => return Err(not_pulled(&place.folder)),
    };
    progress.clear();
    Ok(told(place, signed.is_some(), &problems?, json))
}

/// What was found, in words or as JSON.
fn told(place: &Place, is_signed: bool, problems: &[Problem], json: bool) -> Exit {
    let right = problems.is_empty() && place.ready != Some(false);
    let text = if json {
        let mut out = match &place.version {
            Some((digest, manifest)) => summary(digest, manifest),
            None => json!({}),
        };
        out["ok"] = right.into();
        if let Some(ready) = place.ready {
            out["ready"] = ready.into();
        }
        if is_signed {
            out["signed"] = problems.is_empty().into();
        }
        out["problems"] = problems.iter().map(problem).collect();
        format!("{out}\n")
    } else if right {
        let signed = if is_signed { "every byte is right and signed by this key" } else { "every byte is right" };
        match &place.version {
            Some((digest, manifest)) => {
                format!("{signed}: {digest}, {} files, {}\n", manifest.files.len(), progress::bytes(manifest.total()))
            }
            None => format!("{signed}\n"),
        }
    } else {
        let unfinished = if place.ready == Some(false) { "the pull has not ended: call it again\n" } else { "" };
        let rows: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
        format!("{rows}{unfinished}")
    };
    match write_out(&text) {
        Exit::Yes if !right => Exit::No,
        exit => exit,
    }
}

fn not_pulled(folder: &std::path::Path) -> Error {
    Error::usage(
        format!("{} was not pulled by outrigger", folder.display()),
        "name a directory that `pull --to` has filled, or give --key and verify against a signature",
    )
}

fn problem(problem: &Problem) -> Value {
    json!({"path": problem.path, "problem": problem.what.name(), "message": problem.to_string()})
}
