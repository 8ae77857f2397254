//! The directory that a version is pulled into, and what is in it already.
//!
//! ```text
//! DIR/config.json            a file that is whole, moved to its place when its last chunk was hashed
//! DIR/.outrigger/manifest.json
//! DIR/.outrigger/parts/3     file 3 of the manifest, with holes, until then
//! DIR/.outrigger/journal     where to look for chunks in parts
//! DIR/.outrigger/READY       the version's digest, written last
//! DIR/.outrigger/lock
//! ```
//!
//! A directory belongs to one version from its first moment: it was empty, or it has that version's manifest. Anything
//! else is refused with nothing touched, since an engine may be reading it. What is there is hashed before it counts,
//! whatever journal, size or READY say. A file in its place that is damaged is never written to: its good chunks are
//! copied into a new part, which takes its place when it is whole.

use std::{
    fs, io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use crate::{
    Digest, Error, Manifest, OWN_FOLDER,
    budget::{Budget, Meter},
    disk,
    journal::{self, Claim, Claimed, Journal},
    manifest::{self, File},
    plan::Run,
    sign,
    store::read_small,
};

const BUFFER: usize = 1 << 20;

const LEDGER: &str = "egress";

/// Of a model of 2 TB that was pulled seven times over.
const LONGEST_JOURNAL: usize = 256 << 20;

#[derive(Debug)]
pub(crate) struct Target {
    dir: PathBuf,
    own: PathBuf,
    _lock: disk::Lock,
}

/// Which chunks of a file are there and right.
#[derive(Debug)]
pub(crate) enum Have {
    /// The file is in its place, and whole.
    Whole,
    /// In its part.
    Chunks(Vec<bool>),
}

impl Target {
    /// Takes the directory for a version, making it if need be.
    pub(crate) fn open(dir: &Path, digest: Digest, bytes: &[u8]) -> Result<Self, Error> {
        let own = dir.join(OWN_FOLDER);
        let manifest = own.join("manifest.json");
        if dir.exists() {
            no_link(&own)?;
            let ours = is_of(dir, &manifest, digest, bytes)?;
            if !ours && disk::names(dir)?.iter().any(|name| name != OWN_FOLDER) {
                return Err(Error::usage(
                    format!("{} has files in it that no pull has put there", dir.display()),
                    "pull into an empty directory, or a new one",
                ));
            }
        }
        disk::make_folder(&own.join("parts"))?;
        let lock = disk::lock(&own.join("lock"), &dir.display().to_string())?;
        // Again, since another may have taken the directory just before.
        if !is_of(dir, &manifest, digest, bytes)? {
            disk::write_atomically(&manifest, bytes)?;
        }
        Ok(Self { dir: dir.to_owned(), own, _lock: lock })
    }

    pub(crate) fn journal(&self, digest: Digest) -> Result<(Journal, Vec<Claim>), Error> {
        let path = self.own.join("journal");
        Journal::open(&path, digest).map_err(|e| Error::io("write", &path, &e))
    }

    fn part_path(&self, at: usize) -> PathBuf {
        self.own.join("parts").join(at.to_string())
    }

    /// Whether a file has a part that a pull has made.
    pub(crate) fn has_part(&self, at: usize, file: &File) -> bool {
        fs::symlink_metadata(self.part_path(at)).is_ok_and(|meta| meta.is_file() && meta.len() == file.size)
    }

    /// Opens the part of a file, as long as the file will be.
    pub(crate) fn part(&self, at: usize, file: &File) -> Result<fs::File, Error> {
        let path = self.part_path(at);
        disk::open_to_write(&path)
            .and_then(|part| part.set_len(file.size).map(|()| part))
            .map_err(|e| Error::io("write", &path, &e))
    }

    /// Refuses what would not fit, before anything is fetched. `right` are the bytes that each file has. What a part holds
    /// besides, of a pull that was ended, is written over in its place, and needs no other.
    pub(crate) fn room_for(&self, files: &[File], right: impl Fn(usize) -> u64) -> Result<(), Error> {
        let lacks = |(at, file): (usize, &File)| file.size.saturating_sub(right(at).max(self.allocated(at)));
        disk::room_for(&self.own, files.iter().enumerate().map(lacks).sum(), &self.dir.display())
    }

    /// Bytes that the disk holds for a file's part.
    fn allocated(&self, at: usize) -> u64 {
        fs::symlink_metadata(self.part_path(at)).map_or(0, |meta| meta.blocks().saturating_mul(512))
    }

    /// What of a file is there, by hashing it. `claimed` are the chunks that the journal names.
    pub(crate) fn look(&self, at: usize, file: &File, claimed: &[bool]) -> Result<Have, Error> {
        let place = self.dir.join(file.path.to_path());
        for folder in file.path.folders() {
            no_link(&self.dir.join(folder))?;
        }
        let mut have = vec![false; file.chunks.len()];
        if let Some(old) = open_if_there(&place)? {
            let len = old.metadata().map_err(|e| Error::io("read", &place, &e))?.len();
            let all = vec![true; file.chunks.len()];
            hash(&old, &place, file, &all, &mut have)?;
            if len == file.size && have.iter().all(|good| *good) {
                return Ok(Have::Whole);
            }
            copy_good(&old, &place, &self.part(at, file)?, file, &have)?;
            return Ok(Have::Chunks(have));
        }
        let path = self.part_path(at);
        if claimed.iter().any(|claimed| *claimed)
            && let Some(part) = open_if_there(&path)?
        {
            hash(&part, &path, file, claimed, &mut have)?;
        }
        Ok(Have::Chunks(have))
    }

    /// Copies chunks from another version's file into a part, and says which of them are right there: the other file may be
    /// damaged, or written to while it is read, and what counts is what has come.
    pub(crate) fn bring_over(
        &self,
        from: &fs::File,
        offset: u64,
        run: Run,
        manifest: &Manifest,
    ) -> Result<Vec<usize>, Error> {
        let file = &manifest.files[run.file];
        let part = self.part(run.file, file)?;
        let path = self.part_path(run.file);
        let (to, len) = run.range(manifest);
        disk::copy(from, offset, &part, to, len).map_err(|e| Error::io("copy into", &path, &e))?;
        let chosen: Vec<bool> = (0..file.chunks.len()).map(|at| (run.first..run.end).contains(&at)).collect();
        let mut good = vec![false; file.chunks.len()];
        hash(&part, &path, file, &chosen, &mut good)?;
        Ok((run.first..run.end).filter(|at| good[*at]).collect())
    }

    /// Moves a whole part to its place, for good.
    pub(crate) fn finish(&self, at: usize, file: &File, part: &fs::File) -> Result<(), Error> {
        let from = self.part_path(at);
        part.sync_all().map_err(|e| Error::io("sync", &from, &e))?;
        let place = self.dir.join(file.path.to_path());
        disk::make_folder(place.parent().unwrap_or(&self.dir))?;
        for folder in file.path.folders() {
            no_link(&self.dir.join(folder))?;
        }
        fs::rename(&from, &place).map_err(|e| Error::io("move into place", &place, &e))?;
        for folder in file.path.folders() {
            disk::sync_folder_of(&self.dir.join(folder))?;
        }
        disk::sync_folder_of(&place)
    }

    /// The ledger of what was asked for into this directory.
    pub(crate) fn meter(&self, budget: Option<Budget>) -> Result<Meter, Error> {
        Meter::open(&self.own.join(LEDGER), budget)
    }

    /// What was fetched with the manifest, and checked against a key.
    pub(crate) fn keep_signature(&self, bytes: &[u8]) -> Result<(), Error> {
        disk::write_atomically(&self.own.join(sign::FILE), bytes)
    }

    /// Everything is in its place: says so, and leaves nothing else behind.
    pub(crate) fn ready(&self, digest: Digest) -> Result<(), Error> {
        disk::write_atomically(&self.own.join("READY"), format!("{digest}\n").as_bytes())?;
        let parts = self.own.join("parts");
        fs::remove_dir_all(&parts).map_err(|e| Error::io("remove", &parts, &e))?;
        let journal = self.own.join("journal");
        fs::remove_file(&journal).map_err(|e| Error::io("remove", &journal, &e))
    }

    /// Says that not everything is in its place, until [`Self::ready`] is called.
    pub(crate) fn not_ready(&self) -> Result<(), Error> {
        let ready = self.own.join("READY");
        match fs::remove_file(&ready) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &ready, &e)),
            _ => Ok(()),
        }
    }
}

/// Which chunks a directory seems to have of a version, and the beginnings of which others, by its journal and the sizes of
/// files; nothing is read or written.
pub(crate) fn glance(dir: &Path, digest: Digest, bytes: &[u8], manifest: &Manifest) -> Result<Claimed, Error> {
    let own = dir.join(OWN_FOLDER);
    let is_ours = is_of(dir, &own.join("manifest.json"), digest, bytes)?;
    let journal = if is_ours { read_small(&own.join("journal"), LONGEST_JOURNAL)? } else { None };
    let claims = journal::read(&journal.unwrap_or_default(), digest).unwrap_or_default();
    let (mut have, begun) = journal::claimed(&claims, manifest);
    for (file, have) in manifest.files.iter().zip(&mut have).filter(|_| is_ours) {
        let there = fs::symlink_metadata(dir.join(file.path.to_path()));
        if there.is_ok_and(|meta| meta.is_file() && meta.len() == file.size) {
            have.fill(true);
        }
    }
    Ok((have, begun))
}

/// Before anything is asked for at all: whether the budget of a directory has anything left. The manifest, which says what
/// is missing, is small and counts too; calls without end would cost it without end.
pub(crate) fn within(dir: &Path, budget: Option<&Budget>) -> Result<(), Error> {
    let ledger = dir.join(OWN_FOLDER).join(LEDGER);
    let Some(budget) = budget.filter(|_| ledger.exists()) else { return Ok(()) };
    let meter = Meter::open(&ledger, Some(budget.clone()))?;
    match meter.spent() {
        Some((_, spent)) if spent > budget.limit => Err(meter.used_up()),
        _ => Ok(()),
    }
}

/// The version that a pulled directory says it holds, for `verify`.
pub fn manifest_of(dir: &Path) -> Result<(Digest, Manifest, bool), Error> {
    let path = dir.join(OWN_FOLDER).join("manifest.json");
    let bytes = read_small(&path, manifest::LONGEST)?.ok_or_else(|| {
        Error::usage(
            format!("{} was not pulled by outrigger", dir.display()),
            "name a directory that `pull --to` has filled",
        )
    })?;
    let manifest = Manifest::parse(&bytes).map_err(|fault| {
        Error::content(format!("{}: {fault}", path.display()), "pull it again into another directory")
    })?;
    let digest = Digest::of(&bytes);
    let ready = read_small(&dir.join(OWN_FOLDER).join("READY"), 200)?;
    let ready = ready.is_some_and(|text| text == format!("{digest}\n").into_bytes());
    Ok((digest, manifest, ready))
}

/// Whether a directory belongs to the version already; an error when it belongs to another.
fn is_of(dir: &Path, manifest: &Path, digest: Digest, bytes: &[u8]) -> Result<bool, Error> {
    match read_small(manifest, manifest::LONGEST)? {
        None => Ok(false),
        Some(there) if there == bytes => Ok(true),
        Some(_) => Err(Error::usage(
            format!("{} holds another version than {digest}", dir.display()),
            "pull into a directory of its own: engines may be reading this one",
        )),
    }
}

fn no_link(path: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_symlink() => Err(Error::usage(
            format!("{} is a symbolic link", path.display()),
            "remove it: a pull does not write through links",
        )),
        _ => Ok(()),
    }
}

fn open_if_there(path: &Path) -> Result<Option<fs::File>, Error> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read", path, &e)),
        Ok(meta) if !meta.is_file() => {
            return Err(Error::usage(format!("{} is not a plain file", path.display()), "move it away"));
        }
        Ok(_) => {}
    }
    disk::open(path).map(Some).map_err(|e| Error::io("read", path, &e))
}

/// Marks those of the chosen chunks whose bytes are right. A file that is too short has none there.
fn hash(from: &fs::File, path: &Path, file: &File, chosen: &[bool], good: &mut [bool]) -> Result<(), Error> {
    let mut buffer = vec![0; BUFFER];
    for (at, chunk) in file.chunks.iter().enumerate().filter(|(at, _)| chosen[*at]) {
        let mut hasher = blake3::Hasher::new();
        let read = pieces(chunk.offset, chunk.len).try_for_each(|(offset, len)| {
            from.read_exact_at(&mut buffer[..len], offset)?;
            hasher.update(&buffer[..len]);
            Ok::<(), io::Error>(())
        });
        match read {
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(Error::io("read", path, &e)),
            Err(_) => {}
            Ok(()) => good[at] = *hasher.finalize().as_bytes() == chunk.blake3,
        }
    }
    Ok(())
}

fn copy_good(from: &fs::File, place: &Path, to: &fs::File, file: &File, good: &[bool]) -> Result<(), Error> {
    let mut buffer = vec![0; BUFFER];
    for (_, chunk) in file.chunks.iter().enumerate().filter(|(at, _)| good[*at]) {
        for (offset, len) in pieces(chunk.offset, chunk.len) {
            from.read_exact_at(&mut buffer[..len], offset)
                .and_then(|()| to.write_all_at(&buffer[..len], offset))
                .map_err(|e| Error::io("copy from", place, &e))?;
        }
    }
    Ok(())
}

fn pieces(offset: u64, len: u32) -> impl Iterator<Item = (u64, usize)> {
    (0..len as usize).step_by(BUFFER).map(move |at| (offset + at as u64, BUFFER.min(len as usize - at)))
}
