//! `outrigger weights`: models put into a store, looked at, pulled and verified.
//!
//! What it does is in `outrigger_weights`; here are its words. Data goes to stdout: with `--json` one object, or for `pull`,
//! which lasts, a line for each thing that happens.

mod progress;
mod publish;

use std::path::PathBuf;

use outrigger_weights::{
    Digest, Error, Kind, Manifest, Store, Wanted, add, target, transfer,
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
    /// Bring a version into a directory. Killed at any moment, it goes on where it was when it is called again.
    Pull {
        /// Which model, and which ref or version of it: `main` if nothing is said.
        #[arg(value_name = "ORG/MODEL[@REF]")]
        wanted: Wanted,
        /// The store.
        #[arg(long, value_name = "STORE")]
        from: String,
        /// The directory: empty, or new, or of a pull of this very version.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// Print a line of JSON for each thing that happens.
        #[arg(long)]
        json: bool,
    },
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
        /// The store, file:///PATH.
        #[arg(long, value_name = "STORE")]
        from: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(args: Args) -> Exit {
    match args.what {
        What::Add(args) => until_interrupted(publish::add(args)),
        What::Pull { wanted, from, to, json } => until_interrupted(pull(wanted, from, to, json)),
        What::Ls { from, json } => until_interrupted(ls(from, json)),
        What::Show { wanted, from, json } => until_interrupted(show(wanted, from, json)),
        What::Replicate(args) => until_interrupted(publish::replicate(args)),
        What::Rollback(args) => until_interrupted(publish::rollback(args)),
        What::Gc(args) => until_interrupted(publish::gc(args)),
        What::Verify { what, from: Some(from), json } => until_interrupted(verify_in_store(what, from, json)),
        What::Verify { what, from: None, json } => {
            verify_directory(&PathBuf::from(what), json).unwrap_or_else(|error| failed(&error))
        }
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

async fn pull(wanted: Wanted, from: String, to: PathBuf, json: bool) -> Exit {
    let progress = Progress::to_stderr(json);
    let store = match Store::parse(&from) {
        Ok(store) => store,
        Err(error) => return failed(&error),
    };
    let watch = progress.clone();
    let pulled = transfer::pull(&store, &wanted, &to, std::sync::Arc::new(move |event| watch.event(event))).await;
    progress.clear();
    match pulled {
        Ok((digest, report)) if json => write_out(&format!(
            "{}\n",
            json!({"event": "done", "digest": digest.to_string(), "dir": to.display().to_string(), "total": report.total,
                "kept": report.kept, "fetched": report.fetched, "requests": report.requests, "retries": report.retries,
                "wrong_chunks": report.wrong_chunks, "changed_files": report.changed_files})
        )),
        Ok((digest, report)) => write_out(&format!(
            "{wanted} is in {}, every byte of it right: {digest}\n{} in all, {} of it there before, {} fetched in {} requests; \
             {} chunks came wrong and were fetched again\n",
            to.display(),
            progress::bytes(report.total),
            progress::bytes(report.kept),
            progress::bytes(report.fetched),
            report.requests,
            report.wrong_chunks,
        )),
        Err(error) => {
            if json {
                write_out(&format!("{}\n", json!({"event": "error", "message": error.message, "help": error.help})));
            }
            failed(&error)
        }
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

async fn verify_in_store(what: String, from: String, json: bool) -> Exit {
    let verified = async {
        let wanted: Wanted =
            what.parse().map_err(|e| Error::usage(format!("{what:?}: {e}"), "give ORG/MODEL[@REF]"))?;
        let store = Store::parse(&from)?;
        let root = store.folder("verify in place (a pull verifies all that it brings)")?.to_owned();
        let found = store.find(&wanted).await?;
        let folder = add::version_folder(&root, &wanted.model, &found.digest);
        tokio::task::spawn_blocking(move || all_read_again(&folder, found.digest, &found.manifest, None, json))
            .await
            .unwrap_or_else(|e| Err(Error::environment(format!("a thread ended: {e}"), "try again")))
    };
    verified.await.unwrap_or_else(|error| failed(&error))
}

fn verify_directory(dir: &std::path::Path, json: bool) -> Result<Exit, Error> {
    let (digest, manifest, ready) = target::manifest_of(dir)?;
    all_read_again(dir, digest, &manifest, Some(ready), json)
}

/// Reads a version's directory. `ready` is what a pulled one says of itself.
fn all_read_again(
    folder: &std::path::Path,
    digest: Digest,
    manifest: &Manifest,
    ready: Option<bool>,
    json: bool,
) -> Result<Exit, Error> {
    let progress = Progress::to_stderr(json);
    progress.total(manifest.total());
    let problems = verify::verify(folder, manifest, &|bytes| progress.add(bytes));
    progress.clear();
    let problems = problems?;
    let right = problems.is_empty() && ready != Some(false);
    let text = if json {
        let mut out = summary(&digest, manifest);
        out["ok"] = right.into();
        if let Some(ready) = ready {
            out["ready"] = ready.into();
        }
        out["problems"] = problems.iter().map(problem).collect();
        format!("{out}\n")
    } else if right {
        format!(
            "every byte is right: {digest}, {} files, {}\n",
            manifest.files.len(),
            progress::bytes(manifest.total())
        )
    } else {
        let unfinished = if ready == Some(false) { "the pull has not ended: call it again\n" } else { "" };
        let rows: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
        format!("{rows}{unfinished}")
    };
    match write_out(&text) {
        Exit::Yes if !right => Ok(Exit::No),
        exit => Ok(exit),
    }
}

fn problem(problem: &Problem) -> Value {
    json!({"path": problem.path, "problem": problem.what.name(), "message": problem.to_string()})
}
