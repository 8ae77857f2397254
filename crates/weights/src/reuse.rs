//! Other versions on this machine's disks, whose bytes need not be fetched again.
//!
//! A directory that was pulled has a manifest, which says where to look and is believed as little as a journal: what is copied
//! is hashed where it has come to. A folder of such directories stands for those in it that hold a finished version of the same
//! model. Any other directory is read and cut first, which takes as long as reading it. They are only read, and only when they are
//! named: a directory that an engine serves from should not be read through because it lies nearby.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Error, ModelName, OWN_FOLDER, add, disk, manifest::File, target};

/// So many are looked at in a folder: one of a thousand models should cost no thousand manifests.
const MOST_IN_A_FOLDER: usize = 64;

/// A directory, and what it says it has.
#[derive(Debug)]
pub(crate) struct Source {
    dir: PathBuf,
    pub(crate) files: Vec<File>,
}

/// What is at the directories that were named.
pub(crate) fn sources(named: &[PathBuf], model: &ModelName) -> Result<Vec<Source>, Error> {
    let found = named.iter().map(|dir| at(dir, model)).collect::<Result<Vec<_>, _>>()?;
    Ok(found.into_iter().flatten().collect())
}

fn at(dir: &Path, model: &ModelName) -> Result<Vec<Source>, Error> {
    if dir.join(OWN_FOLDER).join("manifest.json").exists() {
        let (_, manifest, _) = target::manifest_of(dir)?;
        return Ok(vec![Source { dir: dir.to_owned(), files: manifest.files }]);
    }
    let names = disk::names(dir)?;
    let pulled = |name: &&String| is_pulled(&dir.join(name));
    let mut pulled = names.iter().filter(pulled).peekable();
    if pulled.peek().is_none() {
        // What cannot be read cannot be reused, which is no reason not to pull.
        let read = add::read_all(dir, false, &|_| {}).ok();
        return Ok(read.map(|read| Source { dir: dir.to_owned(), files: read.files }).into_iter().collect());
    }
    // Whatever is wrong with one of them, it is not one.
    let versions = pulled.take(MOST_IN_A_FOLDER).filter_map(|name| {
        let dir = dir.join(name);
        let (_, manifest, ready) = target::manifest_of(&dir).ok()?;
        (ready && manifest.model == *model).then_some(Source { dir, files: manifest.files })
    });
    Ok(versions.collect())
}

/// Whether a directory holds a version that a pull has finished.
pub(crate) fn is_pulled(dir: &Path) -> bool {
    dir.join(OWN_FOLDER).join("READY").is_file()
}

impl Source {
    /// A file of it to read, if it is there and no link.
    pub(crate) fn open(&self, file: usize) -> Option<fs::File> {
        let file = disk::open(&self.dir.join(self.files[file].path.to_path())).ok()?;
        file.metadata().is_ok_and(|meta| meta.is_file()).then_some(file)
    }
}

/// The files of sources, as [`crate::plan::copies`] takes them.
pub(crate) fn lists(sources: &[Source]) -> Vec<&[File]> {
    sources.iter().map(|source| &source.files[..]).collect()
}

/// What a pull would have to fetch of a version with these at hand: bytes, and in how many requests.
pub fn fetch_after(files: &[File], sources: &[&[File]]) -> (u64, usize) {
    let mut missing: Vec<Vec<bool>> = files.iter().map(|file| vec![true; file.chunks.len()]).collect();
    for copy in crate::plan::copies(files, |_, _| true, sources) {
        missing[copy.run.file][copy.run.first..copy.run.end].fill(false);
    }
    let runs = crate::plan::runs_in(files, |file, chunk| missing[file][chunk]);
    (runs.iter().map(|run| run.range_in(files).1).sum(), runs.len())
}
