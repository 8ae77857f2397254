//! `weights add`, `replicate`, `rollback` and `gc`: what writes to a store.

use std::{path::PathBuf, sync::Arc, time::Duration};

use outrigger_weights::{
    Digest, Error, Manifest, ModelName, Store, Wanted,
    add::{self, Added},
    gc::{self, Collected, Rules, Why},
    path::RefName,
    publish::Published,
    refs,
    replicate::{self, Replicated},
    store::Side,
    uploads,
};
use serde_json::{Value, json};

use super::{failed, price::Limit, progress, progress::Progress, summary};
use crate::commands::{Exit, write_out};

/// Put a model's directory into a store as a new version, and point a ref to it.
///
/// Killed at any moment, it goes on where it was when it is called again.
#[derive(Debug, clap::Args)]
pub(super) struct AddArgs {
    /// The directory, as the hub's client leaves it.
    dir: PathBuf,
    /// What the model is called.
    #[arg(long, value_name = "ORG/MODEL")]
    name: ModelName,
    /// The store; a folder is made if it is not there.
    #[arg(long, value_name = "STORE")]
    to: String,
    /// The ref that will point to this version.
    #[arg(long = "ref", value_name = "REF", default_value = "main")]
    reference: RefName,
    /// Read what the store has of this version, and send again what is wrong.
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    state: State,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Bring a version from one store into another, hashed on the way.
///
/// Killed at any moment, it goes on where it was when it is called again. Where the stores are of one provider and two
/// accounts, put FROM_ or TO_ before the variables of a side, as in TO_AWS_ACCESS_KEY_ID.
#[derive(Debug, clap::Args)]
pub(super) struct ReplicateArgs {
    /// Which model, and which ref or version of it: `main` if nothing is said.
    #[arg(value_name = "ORG/MODEL[@REF]")]
    wanted: Wanted,
    /// The store that has it.
    #[arg(long, value_name = "STORE")]
    from: String,
    /// The store that is to have it.
    #[arg(long, value_name = "STORE")]
    to: String,
    /// The ref that will point to it there: the same one if nothing is said.
    #[arg(long = "ref", value_name = "REF")]
    reference: Option<RefName>,
    /// Read what the target has of this version, and send again what is wrong.
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    state: State,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Point a ref to another version that is in the store: back, or forward again.
#[derive(Debug, clap::Args)]
pub(super) struct RollbackArgs {
    /// Which ref of which model: `main` if nothing is said.
    #[arg(value_name = "ORG/MODEL[@REF]")]
    wanted: Wanted,
    /// The store.
    #[arg(long, value_name = "STORE")]
    to: String,
    /// The version, which has to be whole in the store.
    #[arg(long, value_name = "sha256:DIGEST")]
    version: Digest,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Delete versions that no ref names, and what was half published, once they are old.
#[derive(Debug, clap::Args)]
pub(super) struct GcArgs {
    /// The store.
    #[arg(long, value_name = "STORE")]
    from: String,
    /// Leave so many versions of each model that no ref names, the newest ones.
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep: usize,
    /// Leave what is younger, as in 12h or 30d.
    #[arg(long, value_name = "D", default_value = "7d", value_parser = age)]
    older_than: Duration,
    /// Say what would be deleted, and delete nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    state: State,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct State {
    /// Where the journal of uploads lies: $XDG_STATE_HOME/outrigger, or ~/.local/state/outrigger, if nothing is said.
    #[arg(long = "state", value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl State {
    fn folder(&self) -> Result<PathBuf, Error> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        self.folder.clone().map_or_else(|| uploads::state_folder(variable), Ok)
    }
}

/// `90s`, `30m`, `12h` or `30d`.
fn age(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: write a number and s, m, h or d, as in 12h");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// What there is of it in the target, and what it took to bring it.
fn of_published(out: &mut Value, reference: &RefName, published: &Published) {
    out["ref"] = reference.as_str().into();
    out["known"] = published.known.into();
    out["sent"] = published.sent.into();
    out["kept"] = published.kept.into();
    out["copied"] = published.copied.into();
    out["repaired"] = published.repaired.into();
    out["retries"] = published.retries.into();
}

fn in_words(name: &str, reference: &RefName, digest: &Digest, manifest: &Manifest, published: &Published) -> String {
    let bytes = progress::bytes;
    let (files, total) = (manifest.files.len(), bytes(manifest.total()));
    if published.known {
        return format!("{name}@{reference} is {digest}, which the store had already: {files} files, {total}\n");
    }
    let repaired = match published.repaired {
        0 => String::new(),
        files => format!(", {files} of the files there were damaged and are repaired"),
    };
    format!(
        "{name}@{reference} is {digest}: {files} files, {total}\n{} sent, {} copied inside the store, {} there before{repaired}\n",
        bytes(published.sent),
        bytes(published.copied),
        bytes(published.kept)
    )
}

pub(super) async fn add(args: AddArgs) -> Exit {
    let AddArgs { dir, name, to, reference, repair, state, json } = args;
    let progress = Progress::to_stderr(false);
    let added = async {
        let store = Store::parse(&to)?;
        let (model, state) = (name.clone(), state.folder()?);
        let add = add::Add { from: dir, model, reference: reference.clone(), state, repair };
        let (reading, sending) = (progress.clone(), progress.clone());
        let watch = Arc::new(move |event: &_| sending.event(event));
        add::add(add, &store, move |bytes| reading.add(bytes), watch).await
    };
    let added = added.await;
    progress.clear();
    let Added { digest, manifest, published, notes } = match added {
        Ok(added) => added,
        Err(error) => return failed(&error),
    };
    for note in &notes {
        eprintln!("note: {note}");
    }
    if !json {
        return write_out(&in_words(name.as_str(), &reference, &digest, &manifest, &published));
    }
    let mut out = summary(&digest, &manifest);
    of_published(&mut out, &reference, &published);
    out["notes"] = notes.into();
    write_out(&format!("{out}\n"))
}

pub(super) async fn replicate(args: ReplicateArgs) -> Exit {
    let ReplicateArgs { wanted, from, to, reference, repair, limit, state, json } = args;
    let progress = Progress::to_stderr(false);
    let replicated = async {
        let budget = limit.budget(&from)?;
        let (from, to) = (Store::parse_as(Side::From, &from)?, Store::parse_as(Side::To, &to)?);
        let (named, state) = (wanted.clone(), state.folder()?);
        let replicate = replicate::Replicate { wanted: named, reference, state, repair, budget };
        let sending = progress.clone();
        let watch = Arc::new(move |event: &_| sending.event(event));
        replicate::replicate(replicate, &from, &to, watch).await
    };
    let replicated = replicated.await;
    progress.clear();
    let Replicated { digest, manifest, reference, published } = match replicated {
        Ok(replicated) => replicated,
        Err(error) => return failed(&error),
    };
    if !json {
        return write_out(&in_words(wanted.model.as_str(), &reference, &digest, &manifest, &published));
    }
    let mut out = summary(&digest, &manifest);
    of_published(&mut out, &reference, &published);
    write_out(&format!("{out}\n"))
}

pub(super) async fn rollback(args: RollbackArgs) -> Exit {
    let RollbackArgs { wanted, to, version, json } = args;
    let moved = async { refs::rollback(&Store::parse(&to)?, &wanted, version).await };
    let moved = match moved.await {
        Ok(moved) => moved,
        Err(error) => return failed(&error),
    };
    let from = moved.from.map(|digest| digest.to_string());
    if json {
        let out = json!({"model": wanted.model.as_str(), "ref": moved.name.as_str(), "from": from,
            "digest": moved.to.to_string()});
        return write_out(&format!("{out}\n"));
    }
    let before = from.map_or("there was no such ref".to_owned(), |from| format!("it was {from}"));
    write_out(&format!("{wanted} is {}; {before}\n", moved.to))
}

pub(super) async fn gc(args: GcArgs) -> Exit {
    let GcArgs { from, keep, older_than, dry_run, state, json } = args;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let collected = async {
        let rules = Rules { keep, older_than, dry_run, state: state.folder()? };
        gc::collect(&Store::parse(&from)?, &rules, now).await
    };
    let Collected { gone, refs, kept, notes } = match collected.await {
        Ok(collected) => collected,
        Err(error) => return failed(&error),
    };
    let went = gone.iter().filter(|one| one.why != Why::NamedMeanwhile);
    let (count, freed) = went.fold((0, 0), |(count, bytes), one| (count + 1, bytes + one.bytes));
    for note in &notes {
        eprintln!("note: {note}");
    }
    if json {
        let rows: Vec<Value> = gone
            .iter()
            .map(|one| json!({"what": one.what, "why": one.why.name(), "bytes": one.bytes, "objects": one.objects}))
            .collect();
        let out = json!({"gone": rows, "bytes": freed, "refs": refs, "kept": kept, "dry_run": dry_run, "notes": notes});
        return write_out(&format!("{out}\n"));
    }
    let row = |one: &gc::Gone| format!("{}  {}  {}\n", one.what, one.why.name(), progress::bytes(one.bytes));
    let rows: String = gone.iter().map(row).collect();
    let would = if dry_run { "would be deleted" } else { "deleted" };
    write_out(&format!(
        "{rows}{count} {would}, {}; {kept} stay that no ref names, and what {refs} refs name\n",
        progress::bytes(freed)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_a_number_and_a_unit() {
        assert_eq!(age("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(age("30d"), Ok(Duration::from_hours(720)));
        for bad in ["", "d", "12", "1.5h", "-1h", "12 h", "12é", "99999999999999999999d", "999999999999999999d"] {
            assert!(age(bad).is_err(), "{bad}");
        }
    }
}
