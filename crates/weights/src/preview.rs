//! What a pull or a replication would ask for, before it does.
//!
//! By the same calculation as theirs, from the manifest, the target and the directories at hand, without reading any file: what
//! a journal or a size says counts as there. If that is not so, more is fetched than was said. Nothing is written.

use std::path::{Path, PathBuf};

use crate::{
    Digest, Error, Manifest, Store, Wanted,
    path::Version,
    plan, publish, refs, reuse,
    store::{self, Found},
    target,
};

/// Bytes and requests to the store that has the version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    pub digest: Digest,
    pub total: u64,
    /// In the target already.
    pub there: u64,
    /// Copied on the target's side: from other directories, or from older versions in the store.
    pub copied: u64,
    /// Files' bytes that are fetched.
    pub fetched: u64,
    /// The ref and the manifest.
    pub control: u64,
    pub requests: u64,
}

impl Preview {
    fn of(wanted: &Wanted, found: &Found) -> Self {
        Self {
            digest: found.digest,
            total: found.manifest.total(),
            there: 0,
            copied: 0,
            fetched: 0,
            control: store::control_bytes(wanted, found),
            requests: 1 + u64::from(matches!(wanted.version, Version::Ref(_))),
        }
    }

    /// All that leaves the store.
    pub fn bytes(&self) -> u64 {
        self.fetched + self.control
    }
}

/// Of a pull into a directory.
pub async fn of_pull(store: &Store, wanted: &Wanted, dir: &Path, others: &[PathBuf]) -> Result<Preview, Error> {
    let found = store.find(wanted).await?;
    let manifest = &found.manifest;
    let mut preview = Preview::of(wanted, &found);
    let (mut have, begun) = target::glance(dir, found.digest, &found.bytes, manifest)?;
    preview.there = sum(manifest, &have);
    let sources = reuse::sources(others, &manifest.model)?;
    for copy in plan::copies(&manifest.files, |file, chunk| !have[file][chunk], &reuse::lists(&sources)) {
        have[copy.run.file][copy.run.first..copy.run.end].fill(true);
    }
    preview.copied = sum(manifest, &have) - preview.there;
    let runs = plan::runs(manifest, |file, chunk| !have[file][chunk]);
    let begun = begun.iter().filter(|((file, chunk), _)| !have[*file][*chunk]);
    preview.there += begun.map(|(_, bytes)| u64::from(*bytes)).sum::<u64>();
    preview.fetched = preview.total - preview.there - preview.copied;
    preview.requests += runs.len() as u64;
    Ok(preview)
}

fn sum(manifest: &Manifest, have: &[Vec<bool>]) -> u64 {
    let chunks = manifest.files.iter().zip(have).flat_map(|(file, have)| file.chunks.iter().zip(have));
    chunks.filter(|(_, have)| **have).map(|(chunk, _)| u64::from(chunk.len)).sum()
}

/// Of a replication into another store.
pub async fn of_replication(store: &Store, wanted: &Wanted, to: &Store) -> Result<Preview, Error> {
    let found = store.find(wanted).await?;
    let manifest = &found.manifest;
    let mut preview = Preview::of(wanted, &found);
    let there = to.objects(&store::version_object(&manifest.model, &found.digest)).await?;
    let lacking = refs::missing(&there, manifest, &found.digest);
    let lacking: Vec<usize> =
        (0..manifest.files.len()).filter(|at| lacking.contains(&manifest.files[*at].path.as_str())).collect();
    let older = publish::older(to, &manifest.model, &found.digest).await?;
    let size = |at: usize| manifest.files[at].size;
    let known = |at: &usize| older.contains_key(&(manifest.files[*at].sha256, size(*at))) && to.copies(size(*at));
    preview.there = preview.total - lacking.iter().map(|at| size(*at)).sum::<u64>();
    preview.copied = lacking.iter().filter(|at| known(at)).map(|at| size(*at)).sum();
    preview.fetched = preview.total - preview.there - preview.copied;
    let runs = lacking.iter().filter(|at| !known(at)).map(|at| plan::runs_of(manifest, *at, |_| true).len() as u64);
    // One more, for a signature that is brought along.
    preview.requests += runs.sum::<u64>() + 1;
    Ok(preview)
}
