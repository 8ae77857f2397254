//! A folder as a store.
//!
//! ```text
//! .outrigger/lock        held while an object takes its place, so that a condition and the move are one step
//! .outrigger/uploads/ID  an object that is being written; no reader looks here
//! ```
//!
//! An object takes its place by rename, whole and synced. The tag of an object is the hash of its bytes for a small one,
//! where conditions are made of it.

use std::{
    fs, io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use bytes::Bytes;

use super::{
    Meta, Put, Tag, When,
    trouble::{Trouble, again},
};
use crate::{Error, OWN_FOLDER, disk};

const BUFFER: usize = 1 << 20;
/// Objects that conditions are made of are refs and manifests.
const LONGEST_TAGGED: u64 = 64 << 20;

#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
}

/// An object that is being read.
#[derive(Debug)]
pub(crate) struct Opened {
    file: fs::File,
    path: PathBuf,
}

impl Opened {
    /// Reads what lies at a place, all of it.
    pub(crate) fn read(&self, from: u64, to: &mut [u8]) -> Result<(), Trouble> {
        self.file.read_exact_at(to, from).map_err(|e| {
            Trouble::Stop(match e.kind() {
                io::ErrorKind::UnexpectedEof => {
                    let message = format!("{} is shorter than its manifest says", self.path.display());
                    Error::content(message, "publish the version again")
                }
                _ => Error::io("read", &self.path, &e),
            })
        })
    }
}

impl Folder {
    pub(crate) fn new(root: &Path) -> Self {
        // One folder has one name, by which journals and ledgers are found.
        Self { root: root.components().collect() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn place(&self, object: &str) -> PathBuf {
        self.root.join(object)
    }

    fn upload(&self, id: &str) -> PathBuf {
        self.root.join(OWN_FOLDER).join("uploads").join(id)
    }

    /// Gives a range to `sink`, a MiB at a time.
    pub(crate) fn range(
        &self,
        object: &str,
        (from, len): (u64, u64),
        sink: &mut impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Trouble> {
        let object = self.open(object)?;
        let mut buffer = vec![0; BUFFER.min(usize::try_from(len).unwrap_or(BUFFER))];
        let mut at = 0;
        while at < len {
            let piece = &mut buffer[..BUFFER.min(usize::try_from(len - at).unwrap_or(BUFFER))];
            object.read(from + at, piece)?;
            sink(piece).map_err(Trouble::Stop)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    pub(crate) fn open(&self, object: &str) -> Result<Opened, Trouble> {
        let path = self.place(object);
        match disk::open(&path) {
            Ok(file) => Ok(Opened { file, path }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Trouble::Absent),
            Err(e) => Err(Trouble::Stop(Error::io("read", &path, &e))),
        }
    }

    pub(crate) fn whole(&self, object: &str, limit: usize) -> Result<(Vec<u8>, Tag), Trouble> {
        let bytes = read_small(&self.place(object), limit)?.ok_or(Trouble::Absent)?;
        let tag = tag_of(&bytes);
        Ok((bytes, tag))
    }

    /// Every object below a prefix, which is a folder's name or nothing.
    pub(crate) fn list(&self, prefix: &str) -> Result<Vec<Meta>, Error> {
        let mut found = Vec::new();
        let mut folders = vec![prefix.trim_end_matches('/').to_owned()];
        while let Some(folder) = folders.pop() {
            let path = self.place(&folder);
            let names = match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => disk::names(&path)?,
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io("read", &path, &e)),
                _ => continue,
            };
            for name in names.iter().filter(|name| !(folder.is_empty() && *name == OWN_FOLDER)) {
                let object = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
                let path = self.place(&object);
                let meta = match fs::symlink_metadata(&path) {
                    Ok(meta) => meta,
                    // Deleted meanwhile.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(Error::io("read", &path, &e)),
                };
                if meta.is_dir() {
                    folders.push(object);
                } else if meta.is_file() {
                    found.push(Meta { object, size: meta.len(), modified: seconds(&meta) });
                }
            }
        }
        found.sort_by(|a, b| a.object.cmp(&b.object));
        Ok(found)
    }

    pub(crate) fn put(&self, object: &str, bytes: &Bytes, when: &When) -> Result<Put, Trouble> {
        let id = fresh_id()?;
        let path = self.make_upload(&id)?;
        let written = fs::write(&path, bytes).and_then(|()| fs::File::open(&path)?.sync_all());
        let put = written
            .map_err(|e| Trouble::Stop(Error::io("write", &self.place(object), &e)))
            .and_then(|()| self.settle(&path, object, when));
        if !matches!(put, Ok(Put::Done(_))) {
            fs::remove_file(&path).ok();
        }
        Ok(match put? {
            Put::Done(_) => Put::Done(tag_of(bytes)),
            Put::Refused => Put::Refused,
        })
    }

    /// Moves a finished file to its place, if the condition holds.
    fn settle(&self, from: &Path, object: &str, when: &When) -> Result<Put, Trouble> {
        let to = self.place(object);
        let _lock = self.lock()?;
        let holds = match when {
            When::Always => true,
            When::Absent => fs::symlink_metadata(&to).is_err(),
            When::Is(tag) => {
                let limit = usize::try_from(LONGEST_TAGGED).unwrap_or(usize::MAX);
                read_small(&to, limit)?.is_some_and(|bytes| tag_of(&bytes) == *tag)
            }
        };
        if !holds {
            return Ok(Put::Refused);
        }
        disk::make_folder(to.parent().unwrap_or(&self.root))?;
        fs::rename(from, &to).map_err(|e| Error::io("move into place", &to, &e))?;
        disk::sync_folder_of(&to)?;
        Ok(Put::Done(Tag::default()))
    }

    fn lock(&self) -> Result<disk::Lock, Error> {
        disk::wait_for_lock(&self.root.join(OWN_FOLDER).join("lock"))
    }

    /// A copy of its own: nothing that happens to one file may reach the other. The file system shares what it can share.
    pub(crate) fn copy(&self, from: &str, to: &str) -> Result<(), Trouble> {
        let (source, id) = (self.place(from), fresh_id()?);
        let upload = self.make_upload(&id)?;
        let copied = fs::copy(&source, &upload).and_then(|_| fs::File::open(&upload)?.sync_all());
        let done = match copied {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Trouble::Absent),
            Err(e) => Err(Trouble::Stop(Error::io("copy", &source, &e))),
            Ok(()) => self.settle(&upload, to, &When::Always).map(|_| ()),
        };
        if done.is_err() {
            fs::remove_file(&upload).ok();
        }
        done
    }

    /// Deletes an object, and the folders that are empty without it.
    pub(crate) fn delete(&self, object: &str) -> Result<(), Trouble> {
        let path = self.place(object);
        let _lock = self.lock()?;
        match fs::remove_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Trouble::Stop(Error::io("remove", &path, &e))),
            Ok(()) => {}
        }
        for folder in path.ancestors().skip(1).take_while(|folder| *folder != self.root) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Refuses what would not fit, before any of it is written; a store that is not there yet is asked by writing to it.
    pub(crate) fn room_for(&self, bytes: u64) -> Result<(), Error> {
        disk::room_for(&self.root, bytes, &self.root.display())
    }

    pub(crate) fn begin(&self) -> Result<String, Trouble> {
        let id = fresh_id()?;
        let path = self.make_upload(&id)?;
        fs::File::create_new(&path).map_err(|e| Trouble::Stop(Error::io("write", &path, &e)))?;
        Ok(id)
    }

    fn make_upload(&self, id: &str) -> Result<PathBuf, Error> {
        let path = self.upload(id);
        disk::make_folder(path.parent().unwrap_or(&self.root))?;
        Ok(path)
    }

    /// Writes a part, for good.
    pub(crate) fn part(&self, id: &str, offset: u64, pieces: &[Bytes]) -> Result<String, Trouble> {
        let path = self.upload(plain(id)?);
        let writing = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => Trouble::Absent,
            _ => Trouble::Stop(Error::io("write", &path, &e)),
        };
        let file = fs::OpenOptions::new().write(true).open(&path).map_err(writing)?;
        let mut at = offset;
        for piece in pieces {
            file.write_all_at(piece, at).map_err(writing)?;
            at += piece.len() as u64;
        }
        file.sync_data().map_err(writing)?;
        Ok(String::new())
    }

    pub(crate) fn complete(&self, object: &str, id: &str) -> Result<(), Trouble> {
        let path = self.upload(plain(id)?);
        let synced = fs::File::open(&path).and_then(|file| file.sync_all());
        synced.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Trouble::Absent,
            _ => Trouble::Stop(Error::io("sync", &path, &e)),
        })?;
        self.settle(&path, object, &When::Always).map(|_| ())
    }

    /// Removes what killed writers have left here, and returns the bytes of it.
    pub(crate) fn sweep(&self, old: impl Fn(u64) -> bool) -> Result<u64, Error> {
        let folder = self.root.join(OWN_FOLDER).join("uploads");
        let names = if folder.is_dir() { disk::names(&folder)? } else { Vec::new() };
        let mut swept = 0;
        for path in names.iter().map(|name| folder.join(name)) {
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if meta.is_file() && old(seconds(&meta)) {
                fs::remove_file(&path).map_err(|e| Error::io("remove", &path, &e))?;
                swept += meta.len();
            }
        }
        Ok(swept)
    }

    pub(crate) fn abort(&self, id: &str) -> Result<(), Trouble> {
        let path = self.upload(plain(id)?);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Trouble::Stop(Error::io("remove", &path, &e))),
            _ => Ok(()),
        }
    }
}

/// When a file was written to last, since 1970.
fn seconds(meta: &fs::Metadata) -> u64 {
    let modified = meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    modified.map_or(0, |at| at.as_secs())
}

/// An id comes from a journal that others may have written to, and becomes a path.
fn plain(id: &str) -> Result<&str, Trouble> {
    let is_plain = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric());
    if is_plain { Ok(id) } else { Err(Trouble::Absent) }
}

pub(crate) fn fresh_id() -> Result<String, Trouble> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).map_err(|e| again(format!("no randomness: {e}")))?;
    Ok(crate::manifest::hex(&bytes))
}

fn tag_of(bytes: &[u8]) -> Tag {
    Tag { etag: Some(blake3::hash(bytes).to_hex().to_string()), version: None }
}

/// A whole file of at most `limit` bytes; `None` when it is not there.
pub(crate) fn read_small(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, Error> {
    use io::Read as _;
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(limit as u64 + 1).read_to_end(&mut bytes));
    match read {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path, &e)),
        Ok(n) if n > limit => {
            Err(Error::content(format!("{} is longer than {limit} bytes", path.display()), "it is not one of ours"))
        }
        Ok(_) => Ok(Some(bytes)),
    }
}
