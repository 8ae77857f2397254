//! The cache of the hub's own client, as a place to pull into: what reads models by their name, offline, finds them.
//!
//! ```text
//! models--ORG--MODEL/snapshots/REVISION/…    the files
//! models--ORG--MODEL/refs/main               REVISION
//! ```
//!
//! A revision is the first forty digits of the version's digest, as long as the hub's commits are. The hub keeps files under
//! `blobs` and links to them; files in their place are read just the same. The ref is written last and by rename, so that
//! a reader has a whole version or the one before.

use std::path::{Path, PathBuf};

use crate::{
    Digest, Error, ModelName, disk,
    path::{RefName, Version},
    reuse,
};

const REVISION: usize = 40;

/// The folder of a model in a cache.
fn folder(cache: &Path, model: &ModelName) -> PathBuf {
    cache.join(format!("models--{}", model.as_str().replace('/', "--")))
}

fn revision(digest: &Digest) -> String {
    let text = digest.to_string();
    text.trim_start_matches("sha256:").chars().take(REVISION).collect()
}

/// Where a version's files go.
pub fn snapshot(cache: &Path, model: &ModelName, digest: &Digest) -> PathBuf {
    snapshots(cache, model).join(revision(digest))
}

fn snapshots(cache: &Path, model: &ModelName) -> PathBuf {
    folder(cache, model).join("snapshots")
}

/// Where versions of a model lie that were pulled, and whose bytes need not be fetched again. The hub's own snapshots are links.
pub fn pulled(cache: &Path, model: &ModelName) -> Option<PathBuf> {
    let snapshots = snapshots(cache, model);
    let names = disk::names(&snapshots).ok()?;
    names.iter().any(|name| reuse::is_pulled(&snapshots.join(name))).then_some(snapshots)
}

/// Lets the ref by which a version was asked for name it; one that was asked for by its digest has none.
pub fn point(cache: &Path, model: &ModelName, version: &Version, digest: &Digest) -> Result<(), Error> {
    let Version::Ref(name) = version else { return Ok(()) };
    point_at(cache, model, name, digest)
}

fn point_at(cache: &Path, model: &ModelName, name: &RefName, digest: &Digest) -> Result<(), Error> {
    let refs = folder(cache, model).join("refs");
    disk::make_folder(&refs)?;
    disk::write_atomically(&refs.join(name.to_string()), revision(digest).as_bytes())
}
