//! What no ref names, deleted after a while.
//!
//! Versions, half-published ones, what killed runs of it have left, and uploads of ours that were begun and are in the journal.
//! A version that a ref names is never deleted, nor one that a ref is moved to meanwhile: see [`refs`]. What is old
//! goes by the store's own times and this machine's clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    Error, ModelName, OWN_FOLDER,
    refs::{is_doomed, mark_object, marks},
    store::{MANIFEST, Meta, Store, Unfinished, When, fresh_id},
    uploads,
};

/// Objects that are deleted at once.
const DELETES: usize = 8;

/// How old, in seconds, what a process writes and soon removes has to be to have been left behind.
const LEAVINGS: u64 = 3_600;

/// What may go.
#[derive(Clone, Debug)]
pub struct Rules {
    /// So many of the newest versions of each model stay that no ref names.
    pub keep: usize,
    /// What is younger stays.
    pub older_than: Duration,
    /// Only say what would go.
    pub dry_run: bool,
    /// Where the journals of uploads lie; see [`crate::uploads`].
    pub state: PathBuf,
}

/// Why something goes, or stays though no ref names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No ref names it.
    Unnamed,
    /// It never became whole: it has no manifest.
    Half,
    /// A gc that was killed had begun with it.
    Begun,
    /// An upload that nobody goes on with.
    Upload,
    /// A ref was moved to it while gc ran: it stays.
    NamedMeanwhile,
}

impl Why {
    /// One word, for scripts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unnamed => "unnamed",
            Self::Half => "half_published",
            Self::Begun => "begun",
            Self::Upload => "upload",
            Self::NamedMeanwhile => "named_meanwhile",
        }
    }
}

/// Something that went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// A version's folder, or the object that an upload was for.
    pub what: String,
    pub why: Why,
    pub bytes: u64,
    pub objects: usize,
}

/// What gc did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub gone: Vec<Gone>,
    /// Refs that hold what they name.
    pub refs: usize,
    /// Versions that stay though no ref names them: too young, or of those to keep.
    pub kept: usize,
    /// What could not be looked for.
    pub notes: Vec<String>,
}

/// A version's folder, with what lies in it.
pub(crate) struct Version {
    model: ModelName,
    pub(crate) folder: String,
    objects: Vec<Meta>,
}

impl Version {
    fn newest(&self) -> u64 {
        self.objects.iter().map(|meta| meta.modified).max().unwrap_or_default()
    }

    fn why(&self) -> Why {
        let manifest = format!("{}/{MANIFEST}", self.folder);
        if is_doomed(&self.objects, &self.folder) {
            Why::Begun
        } else if self.objects.iter().any(|meta| meta.object == manifest) {
            Why::Unnamed
        } else {
            Why::Half
        }
    }

    fn gone(&self, why: Why) -> Gone {
        let bytes = self.objects.iter().map(|meta| meta.size).sum();
        Gone { what: self.folder.clone(), why, bytes, objects: self.objects.len() }
    }
}

/// Deletes what may go. `now` is in seconds since 1970.
pub async fn collect(store: &Store, rules: &Rules, now: u64) -> Result<Collected, Error> {
    let old = |modified: u64| now.saturating_sub(modified) >= rules.older_than.as_secs();
    let listed = store.list().await?;
    let named: BTreeSet<String> =
        listed.iter().map(|one| crate::store::version_object(&one.model, &one.digest)).collect();
    let mut collected = Collected { refs: listed.len(), ..Collected::default() };
    let leavings = |modified: u64| old(modified) && now.saturating_sub(modified) >= LEAVINGS;
    for versions in unnamed(store, &named).await?.into_values() {
        let mut whole = 0;
        for version in versions {
            let why = version.why();
            whole += usize::from(why == Why::Unnamed);
            let stays = why == Why::Unnamed && whole <= rules.keep;
            if stays || !old(version.newest()) && why != Why::Begun {
                collected.kept += 1;
            } else if rules.dry_run {
                collected.gone.push(version.gone(why));
            } else {
                collected.gone.push(delete(store, &version, why).await?);
            }
        }
    }
    for left in uploads::left(&rules.state, store)? {
        if !old(left.modified) {
            continue;
        }
        for begun in &left.begun {
            let bytes = begun.parts.len() as u64 * begun.part_size;
            collected.gone.push(Gone {
                what: begun.upload.object.clone(),
                why: Why::Upload,
                bytes,
                objects: begun.parts.len(),
            });
            if !rules.dry_run {
                store.abort(&begun.upload).await?;
            }
        }
        if !rules.dry_run {
            left.remove()?;
        }
    }
    end_lost_uploads(store, rules, &old, &mut collected).await?;
    if !rules.dry_run {
        // Not those of processes that are at work.
        sweep_leavings(store, &named, &leavings).await?;
    }
    Ok(collected)
}

/// Uploads that are in no journal of this machine: their ids were lost with the network, or another machine began them and is
/// older than the rules allow. A push of that one would begin again, as after any rule of the bucket.
async fn end_lost_uploads(
    store: &Store,
    rules: &Rules,
    old: &impl Fn(u64) -> bool,
    collected: &mut Collected,
) -> Result<(), Error> {
    let listed = match store.unfinished("models").await {
        Ok(listed) => listed,
        Err(error) => {
            collected.notes.push(format!("uploads that are in no journal were not looked for: {}", error.message));
            return Ok(());
        }
    };
    // After the list, so that what is on it has come into its journal.
    let known = uploads::known(&rules.state)?;
    let is_lost = |one: &Unfinished| {
        old(one.begun) && !known.contains(&one.upload.id) && version_of(&one.upload.object).is_some()
    };
    for lost in listed.into_iter().filter(is_lost) {
        if !rules.dry_run {
            store.abort(&lost.upload).await?;
        }
        collected.gone.push(Gone { what: lost.upload.object, why: Why::Upload, bytes: 0, objects: 0 });
    }
    Ok(())
}

/// The versions of each model that no ref names, the newest first.
pub(crate) async fn unnamed(
    store: &Store,
    named: &BTreeSet<String>,
) -> Result<BTreeMap<ModelName, Vec<Version>>, Error> {
    let mut folders: BTreeMap<String, Version> = BTreeMap::new();
    for meta in store.objects("models").await? {
        let Some((model, folder)) = version_of(&meta.object) else { continue };
        if !named.contains(&folder) {
            let version =
                folders.entry(folder.clone()).or_insert_with(|| Version { model, folder, objects: Vec::new() });
            version.objects.push(meta);
        }
    }
    let mut versions: BTreeMap<ModelName, Vec<Version>> = BTreeMap::new();
    for version in folders.into_values() {
        versions.entry(version.model.clone()).or_default().push(version);
    }
    for of_model in versions.values_mut() {
        of_model.sort_by_key(|version| std::cmp::Reverse(version.newest()));
    }
    Ok(versions)
}

/// The model and the version's folder of an object. What somebody else has put there is none of ours.
fn version_of(object: &str) -> Option<(ModelName, String)> {
    let mut parts = object.strip_prefix("models/")?.splitn(4, '/');
    let (org, name, short, _) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_short = short.len() == 12 && short.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let model = format!("{org}/{name}").parse::<ModelName>().ok().filter(|_| is_short)?;
    let folder = format!("models/{model}/{short}");
    Some((model, folder))
}

/// Deletes a version, unless a ref names it by now. The order is what keeps it from one that is being published.
pub(crate) async fn delete(store: &Store, version: &Version, why: Why) -> Result<Gone, Error> {
    let name = fresh_id().map_err(|e| Error::environment(e.to_string(), "run it again"))?;
    let mark = mark_object(&version.folder, &name);
    store.put(&mark, &Bytes::from_static(b"by outrigger weights gc\n"), &When::Always).await?;
    let refs = store.list_below(&format!("refs/{}", version.model)).await?;
    if refs.iter().any(|one| crate::store::version_object(&one.model, &one.digest) == version.folder) {
        store.delete(&mark).await?;
        return Ok(version.gone(Why::NamedMeanwhile));
    }
    // The manifest first: without it nobody takes the rest for a version. Then what has come since the listing, too.
    store.delete(&format!("{}/{MANIFEST}", version.folder)).await?;
    let there = store.objects(&version.folder).await?;
    let (marks, files): (Vec<String>, Vec<String>) = there
        .into_iter()
        .map(|meta| meta.object)
        .partition(|object| object.starts_with(&mark_object(&version.folder, "")));
    let deletes = files.into_iter().map(|object| async move { store.delete(&object).await });
    stream::iter(deletes).buffer_unordered(DELETES).try_collect::<()>().await?;
    for mark in &marks {
        store.delete(mark).await?;
    }
    Ok(version.gone(why))
}

/// What killed processes have left beside versions.
async fn sweep_leavings(store: &Store, named: &BTreeSet<String>, old: &impl Fn(u64) -> bool) -> Result<(), Error> {
    // A gc that was killed before it saw that a ref names the version. One that deletes it would have ended.
    for folder in named {
        for mark in marks(&store.objects(folder).await?, folder).filter(|mark| old(mark.modified)) {
            store.delete(&mark.object).await?;
        }
    }
    if let Store::Folder(folder) = store {
        return folder.sweep(old).map(|_| ());
    }
    for meta in store.objects(&format!("{OWN_FOLDER}/probe")).await? {
        if old(meta.modified) {
            store.delete(&meta.object).await?;
        }
    }
    Ok(())
}
