//! Bytes of a version from wherever they lie, given on only when their hashes were right.
//!
//! Runs are read into memory, since what they are for is another store, and not more of them than the caller has room for.
//! The rules for asking again are those of a pull.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    Error, Manifest, Store,
    budget::{Meter, Over},
    manifest::File,
    plan::{self, Run},
    store::trouble::{Trouble, gave_up, pause},
    transfer::{Event, Watch},
};

/// Of one run without a chunk gained.
pub(crate) const TRIES: u32 = 6;
/// Of one chunk that comes whole and wrong.
pub(crate) const WRONG: u32 = 4;

/// Which object a file was, the first time that a part of it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) etag: Option<String>,
    changed: bool,
}

impl Seen {
    /// Every later range has to be of the same object; whether this one showed that it is another. Of one that changed no
    /// more is asked: mirrors that call the same bytes by different names are no reason to fail, and a chunk that is not the
    /// right one has the wrong hash.
    pub(crate) fn note(&mut self, etag: Option<String>, read: &Result<(), Trouble>) -> bool {
        // Ranges that were asked for together did not know of one another.
        let differs = matches!((&self.etag, &etag), (Some(before), Some(now)) if before != now);
        let is_new = !self.changed && (differs || matches!(read, Err(Trouble::Changed)));
        self.changed |= is_new;
        self.etag = if self.changed { None } else { self.etag.take().or(etag) };
        is_new
    }
}

/// A chunk that came wrong so often that it is given up.
pub(crate) fn damaged(file: &File, chunk: usize, times: u32) -> Error {
    let offset = file.chunks[chunk].offset;
    Error::content(
        format!("{}: the chunk at byte {offset} came {times} times and was not what was published", file.path),
        "the store's copy is damaged: `outrigger weights add` with --repair, or `replicate` from another store, sends again what is wrong",
    )
}

/// A file that the manifest names and the store does not have.
pub(crate) fn deleted(file: &File) -> Error {
    Error::content(
        format!("{}: the manifest names it and the store does not have it", file.path),
        "publish the version again: a part of it was deleted",
    )
}

#[derive(Debug)]
pub(crate) struct Source {
    store: Store,
    /// The version's folder, with a slash; nothing for a directory that is being added.
    folder: String,
    manifest: Arc<Manifest>,
    /// A directory's files may be written to while they are read, and a chunk that differs is then no damage.
    is_directory: bool,
    seen: Mutex<Vec<Seen>>,
    pub(crate) read: AtomicU64,
    pub(crate) meter: Meter,
    /// The budget does not allow another request.
    pub(crate) over: AtomicBool,
}

impl Source {
    pub(crate) fn stored(store: Store, folder: &str, manifest: Arc<Manifest>) -> Self {
        Self::new(store, format!("{folder}/"), manifest, false)
    }

    pub(crate) fn directory(path: &std::path::Path, manifest: Arc<Manifest>) -> Self {
        Self::new(Store::of_directory(path), String::new(), manifest, true)
    }

    fn new(store: Store, folder: String, manifest: Arc<Manifest>, is_directory: bool) -> Self {
        let seen = Mutex::new(vec![Seen::default(); manifest.files.len()]);
        let (read, over) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { store, folder, manifest, is_directory, seen, read, meter: Meter::default(), over }
    }

    pub(crate) fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The bytes of a run, every chunk of it right.
    pub(crate) async fn run(&self, run: Run, watch: &Watch) -> Result<Vec<u8>, Error> {
        let file = &self.manifest.files[run.file];
        let (start, len) = run.range(&self.manifest);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
        let mut good = vec![false; run.end - run.first];
        let mut wrong = vec![0; run.end - run.first];
        let mut tries = 0;
        loop {
            let missing = |chunk: usize| (run.first..run.end).contains(&chunk) && !good[chunk - run.first];
            let next = plan::runs_of(&self.manifest, run.file, missing).first().copied();
            let Some(next) = next else { return Ok(bytes) };
            if self.meter.ask(next.range(&self.manifest).1)? == Err(Over) {
                self.over.store(true, Ordering::Relaxed);
                return Err(self.meter.used_up());
            }
            let (came, trouble) = self.fill(next, start, &mut bytes, watch).await;
            let mut gained = false;
            for chunk in next.first..next.end {
                let place = file.chunks[chunk];
                if place.end() > came {
                    break;
                }
                let at = usize::try_from(place.offset - start).unwrap_or_default();
                if *blake3::hash(&bytes[at..at + place.len as usize]).as_bytes() == place.blake3 {
                    (good[chunk - run.first], gained) = (true, true);
                    continue;
                }
                wrong[chunk - run.first] += 1;
                self.wrong(file, chunk, wrong[chunk - run.first], watch)?;
            }
            tries = if gained { 0 } else { tries + 1 };
            if let Some(trouble) = trouble {
                tokio::time::sleep(consider(file, trouble, tries, watch)?).await;
            }
        }
    }

    /// Reads a run to its place in `bytes`, which begin at `start` of the file; up to where it came.
    async fn fill(&self, run: Run, start: u64, bytes: &mut Vec<u8>, watch: &Watch) -> (u64, Option<Trouble>) {
        let (from, len) = run.range(&self.manifest);
        let object = format!("{}{}", self.folder, self.manifest.files[run.file].path);
        let mut etag = self.lock()[run.file].etag.clone();
        let mut at = usize::try_from(from - start).unwrap_or_default();
        let read = match &self.store {
            // A disk keeps a thread waiting, which must not be one that others wait for.
            Store::Folder(folder) => {
                let (folder, mut lent) = (folder.clone(), std::mem::take(bytes));
                let read = tokio::task::spawn_blocking(move || {
                    let mut at = at;
                    let read = folder.range(&object, (from, len), &mut |piece| {
                        put(&mut lent, &mut at, piece);
                        Ok(())
                    });
                    (lent, at, read)
                });
                let Ok((lent, came, read)) = read.await else {
                    return (
                        from,
                        Some(Trouble::Stop(Error::environment("a thread ended", "run the same command again"))),
                    );
                };
                (*bytes, at) = (lent, came);
                read
            }
            store => {
                let mut take = |piece: &[u8]| {
                    put(bytes, &mut at, piece);
                    Ok(())
                };
                store.range(&object, (from, len), &mut etag, &mut take).await
            }
        };
        if self.lock()[run.file].note(etag, &read) {
            watch(&Event::Changed { path: self.manifest.files[run.file].path.to_string() });
        }
        let came = start + at as u64;
        self.read.fetch_add(came - from, Ordering::Relaxed);
        (came, read.err())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrong(&self, file: &File, chunk: usize, times: u32, watch: &Watch) -> Result<(), Error> {
        if self.is_directory {
            return Err(changed(file.path.as_str()));
        }
        let place = file.chunks[chunk];
        watch(&Event::Wrong { path: file.path.to_string(), offset: place.offset, len: place.len });
        if times < WRONG { Ok(()) } else { Err(damaged(file, chunk, times)) }
    }
}

/// A piece to its place; no store gives more than was asked for.
fn put(bytes: &mut [u8], at: &mut usize, piece: &[u8]) {
    bytes[*at..*at + piece.len()].copy_from_slice(piece);
    *at += piece.len();
}

pub(crate) fn changed(path: &str) -> Error {
    Error::environment(format!("{path} changed while it was read"), "add it when nobody writes to it")
}

/// Whether to ask again, and after what pause.
pub(crate) fn consider(file: &File, trouble: Trouble, tries: u32, watch: &Watch) -> Result<Duration, Error> {
    match trouble {
        Trouble::Stop(error) => Err(error),
        Trouble::Absent => Err(deleted(file)),
        // It is asked for without a condition from now on; a server may say so all the same.
        Trouble::Changed if tries >= TRIES => Err(gave_up(tries, "the store says each time that it is another file")),
        Trouble::Changed => Ok(if tries > 1 { pause(tries) } else { Duration::ZERO }),
        Trouble::Again { why, .. } if tries >= TRIES => Err(gave_up(tries, &why)),
        Trouble::Again { why, after } => {
            watch(&Event::Again { why });
            Ok(after.unwrap_or_else(|| pause(tries)))
        }
    }
}
