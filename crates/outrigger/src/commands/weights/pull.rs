//! `outrigger weights pull`: a version comes into a directory.

use std::{path::PathBuf, sync::Arc};

use outrigger_weights::{
    Digest, Error, Store, Wanted, hub_cache,
    path::Version,
    signing,
    transfer::{self, Options, Report},
};
use serde_json::json;

use super::{
    super::{Exit, write_out},
    failed,
    price::Limit,
    progress::{self, Progress},
};

/// Bring a version into a directory. Killed at any moment, it goes on where it was when it is called again.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which model, and which ref or version of it: `main` if nothing is said.
    #[arg(value_name = "ORG/MODEL[@REF]")]
    wanted: Wanted,
    /// The store.
    #[arg(long, value_name = "STORE")]
    from: String,
    /// The directory: empty, or new, or of a pull of this very version.
    #[arg(long, value_name = "DIR", required_unless_present = "hf_cache")]
    to: Option<PathBuf>,
    /// Instead of --to: into the cache of the hub's client (~/.cache/huggingface/hub), where engines find it by its name with
    /// HF_HUB_OFFLINE=1. Other versions there are reused.
    #[arg(long, value_name = "DIR", conflicts_with = "to")]
    hf_cache: Option<PathBuf>,
    /// Only what this public key has signed; nothing is fetched before that is known.
    #[arg(long, value_name = "PEM")]
    key: Option<PathBuf>,
    /// A directory that was pulled, a folder of such directories, or any copy of some of the files: what it has is copied and
    /// hashed instead of fetched. May be given several times.
    #[arg(long, value_name = "DIR")]
    reuse: Vec<PathBuf>,
    #[command(flatten)]
    limit: Limit,
    /// Print a line of JSON for each thing that happens.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args) -> Exit {
    let progress = Progress::to_stderr(args.json);
    let pulled = pull(&args, &progress).await;
    progress.clear();
    match pulled {
        Ok(pulled) if args.json => write_out(&format!("{}\n", as_json(&pulled))),
        Ok(pulled) => write_out(&as_words(&args.wanted, &pulled)),
        Err(error) => {
            if args.json {
                write_out(&format!("{}\n", json!({"event": "error", "message": error.message, "help": error.help})));
            }
            failed(&error)
        }
    }
}

/// A version in its place.
struct Pulled {
    dir: PathBuf,
    digest: Digest,
    report: Report,
}

async fn pull(args: &Args, progress: &Progress) -> Result<Pulled, Error> {
    let store = Store::parse(&args.from)?;
    let mut options = Options {
        key: args.key.as_deref().map(signing::public_key).transpose()?,
        reuse: args.reuse.clone(),
        budget: args.limit.budget(&args.from)?,
    };
    let watch = progress.clone();
    let watch = Arc::new(move |event: &_| watch.event(event));
    let Some(cache) = &args.hf_cache else {
        let dir = args.to.clone().unwrap_or_default();
        let (digest, report) = transfer::pull(&store, &args.wanted, &dir, options, watch).await?;
        return Ok(Pulled { dir, digest, report });
    };
    // The directory is called by the version, which therefore has to be known first, and to stay the same.
    let Wanted { model, version } = &args.wanted;
    let digest = store.find(&args.wanted).await?.digest;
    let dir = hub_cache::snapshot(cache, model, &digest);
    options.reuse.extend(hub_cache::pulled(cache, model));
    let exactly = Wanted { model: model.clone(), version: Version::Digest(digest) };
    let (digest, report) = transfer::pull(&store, &exactly, &dir, options, watch).await?;
    hub_cache::point(cache, model, version, &digest)?;
    Ok(Pulled { dir, digest, report })
}

fn as_json(Pulled { dir, digest, report }: &Pulled) -> serde_json::Value {
    let mut out = json!({"event": "done", "digest": digest.to_string(), "dir": dir.display().to_string(), "total": report.total,
        "kept": report.kept, "reused": report.reused, "fetched": report.fetched, "requests": report.requests, "retries": report.retries,
        "wrong_chunks": report.wrong_chunks, "changed_files": report.changed_files});
    if let Some((asked, spent)) = report.spent {
        out["egress"] = json!({"asked": asked, "usd": spent.as_usd()});
    }
    out
}

fn as_words(wanted: &Wanted, Pulled { dir, digest, report }: &Pulled) -> String {
    format!(
        "{} is in {}, every byte of it right: {digest}\n{} in all, {} of it there before, {} copied from other versions, {} fetched in \
         {} requests; {} chunks came wrong and were fetched again\n",
        wanted,
        dir.display(),
        progress::bytes(report.total),
        progress::bytes(report.kept),
        progress::bytes(report.reused),
        progress::bytes(report.fetched),
        report.requests,
        report.wrong_chunks,
    )
}
