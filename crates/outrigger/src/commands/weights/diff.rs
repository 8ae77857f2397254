//! `outrigger weights diff`: what changed from one version to another, and what that costs to fetch.

use std::path::Path;

use outrigger_weights::{
    Error, Store, Wanted,
    diff::{self, Changed, Diff, Side, Tensors},
};
use serde_json::{Value, json};

use super::{
    super::{Exit, write_out},
    failed,
    progress::{self, Progress},
};

/// Tensors that are named of a file, for people; `--json` names all.
const NAMED: usize = 8;

/// Show what changed from one version to another: files, tensors, and the bytes that a pull would fetch.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The one before: ORG/MODEL[@REF], or a directory, which begins with a dot or a slash.
    before: String,
    /// The one after, likewise; @REF is of the same model.
    after: String,
    /// The store of what is not a directory.
    #[arg(long, value_name = "STORE")]
    from: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args) -> Exit {
    let done = async {
        let progress = Progress::to_stderr(args.json);
        let before = side(&args, &args.before, &progress).await?;
        let after = match args.after.strip_prefix('@') {
            Some(_) => {
                let model = args.before.split('@').next().unwrap_or_default();
                side(&args, &format!("{model}{}", args.after), &progress).await?
            }
            None => side(&args, &args.after, &progress).await?,
        };
        progress.clear();
        let diff = diff::diff(&before, &after).await?;
        Ok(if args.json { format!("{}\n", as_json(&before, &after, &diff)) } else { as_words(&before, &after, &diff) })
    };
    done.await.map_or_else(|error| failed(&error), |text| write_out(&text))
}

async fn side(args: &Args, what: &str, progress: &Progress) -> Result<Side, Error> {
    if what.starts_with(['.', '/']) {
        return Side::directory(Path::new(what), &|bytes| progress.add(bytes));
    }
    let wanted: Wanted = what
        .parse()
        .map_err(|e| Error::usage(format!("{what:?}: {e}"), "give ORG/MODEL[@REF], or a directory as ./DIR or /DIR"))?;
    let from = args.from.as_deref().ok_or_else(|| {
        Error::usage(
            format!("{what} is in a store, and none is given"),
            "give --from STORE, or a directory as ./DIR or /DIR",
        )
    })?;
    Side::version(&Store::parse(from)?, &wanted).await
}

fn as_json(before: &Side, after: &Side, diff: &Diff) -> Value {
    let side = |side: &Side| json!({"name": side.name, "digest": side.digest.map(|digest| digest.to_string())});
    let files = |files: &[(outrigger_weights::path::FilePath, u64)]| -> Value {
        files.iter().map(|(path, size)| json!({"path": path.as_str(), "size": size})).collect()
    };
    let tensors = |tensors: &Tensors| {
        json!({"added": tensors.added, "removed": tensors.removed, "changed": tensors.changed,
            "may_have_changed": tensors.perhaps, "unchanged": tensors.unchanged})
    };
    let changed = |changed: &Changed| {
        json!({"path": changed.path.as_str(), "size_before": changed.size.0, "size": changed.size.1,
            "new_bytes": changed.new_bytes, "tensors": changed.tensors.as_ref().map(tensors)})
    };
    json!({"before": side(before), "after": side(after), "added": files(&diff.added), "removed": files(&diff.removed),
        "changed": diff.changed.iter().map(changed).collect::<Value>(), "unchanged": diff.unchanged,
        "pull": {"bytes": diff.fetch_bytes, "requests": diff.fetch_requests}})
}

fn as_words(before: &Side, after: &Side, diff: &Diff) -> String {
    let digest = |side: &Side| side.digest.map(|digest| format!(" {digest}")).unwrap_or_default();
    let mut text = format!("- {}{}\n+ {}{}\n", before.name, digest(before), after.name, digest(after));
    for (sign, files) in [("-", &diff.removed), ("+", &diff.added)] {
        for (path, size) in files {
            text += &format!("{sign} {path}  {}\n", progress::bytes(*size));
        }
    }
    for Changed { path, size, new_bytes, tensors } in &diff.changed {
        text += &format!("~ {path}  {} -> {}", progress::bytes(size.0), progress::bytes(size.1));
        text += &format!(", {} of it new\n", progress::bytes(*new_bytes));
        let Some(tensors) = tensors else { continue };
        let lists = [("-", &tensors.removed), ("+", &tensors.added), ("~", &tensors.changed), ("?", &tensors.perhaps)];
        for (sign, names) in lists {
            for name in names.iter().take(NAMED) {
                let doubt = if sign == "?" { ": it shares its chunk with others, of which one changed" } else { "" };
                text += &format!("    {sign} {}{doubt}\n", name.escape_debug());
            }
            if names.len() > NAMED {
                text += &format!("    {sign} and {} more: --json names them\n", names.len() - NAMED);
            }
        }
        text += &format!("      {} tensors unchanged\n", tensors.unchanged);
    }
    text += &format!("  {} files unchanged\n", diff.unchanged);
    let Diff { fetch_bytes, fetch_requests, .. } = diff;
    text + &format!(
        "a pull of the second with the first at hand (--reuse) fetches {} in {fetch_requests} requests\n",
        progress::bytes(*fetch_bytes)
    )
}
