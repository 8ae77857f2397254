//! Bytes of a version from wherever they lie, given on only when their hashes were right.
//!
//! Runs are read into memory, since what they are for is another store, and not more of them than the caller has room for.
//! The rules for asking again are those of a pull.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    Error, Manifest, Store,
    add::{self, Reading},
    budget::{Meter, Over},
    manifest::{Chunk, File},
    plan::{self, Run},
    store::{
        folder::Folder,
        trouble::{Trouble, gave_up, pause},
    },
    transfer::{Event, Watch},
};

/// Of one run without a chunk gained.
pub(crate) const TRIES: u32 = 6;
/// Of one chunk that comes whole and wrong.
pub(crate) const WRONG: u32 = 4;

/// Bytes that are hashed soon enough after they were read.
const HOT: usize = 256 << 10;

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
    /// Of a directory that is being added, what is known of each file from when it was read first. Its files may be written to
    /// meanwhile, and a chunk that differs is then no damage.
    first: Option<Vec<Reading>>,
    seen: Mutex<Vec<Seen>>,
    pub(crate) read: AtomicU64,
    pub(crate) meter: Meter,
    pub(crate) buffers: Arc<Buffers>,
}

/// Memory that was read into and is free again: the system makes a new page of it only once.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// So many bytes, of any values.
    fn take(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        buffer.resize(len, 0);
        buffer
    }

    pub(crate) fn give(&self, buffer: Vec<u8>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

impl Source {
    pub(crate) fn stored(store: Store, folder: &str, manifest: Arc<Manifest>) -> Self {
        Self::new(store, format!("{folder}/"), manifest, None)
    }

    pub(crate) fn directory(path: &std::path::Path, manifest: Arc<Manifest>, first: Vec<Reading>) -> Self {
        Self::new(Store::of_directory(path), String::new(), manifest, Some(first))
    }

    fn new(store: Store, folder: String, manifest: Arc<Manifest>, first: Option<Vec<Reading>>) -> Self {
        let seen = Mutex::new(vec![Seen::default(); manifest.files.len()]);
        let read = AtomicU64::new(0);
        let (meter, buffers) = (Meter::default(), Arc::default());
        Self { store, folder, manifest, first, seen, read, meter, buffers }
    }

    pub(crate) fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The SHA-256 of a part of a file, where it was computed when the file was read first.
    pub(crate) fn part_sha256(&self, file: usize, number: usize) -> Option<[u8; 32]> {
        self.first.as_ref()?[file].parts.get(number).copied()
    }

    /// The bytes of a run, every chunk of it right.
    pub(crate) async fn run(&self, run: Run, watch: &Watch) -> Result<Vec<u8>, Error> {
        let file = &self.manifest.files[run.file];
        let (start, len) = run.range(&self.manifest);
        let mut bytes = self.buffers.take(usize::try_from(len).unwrap_or_default());
        let mut good = vec![false; run.end - run.first];
        let mut wrong = vec![0; run.end - run.first];
        let mut tries = 0;
        loop {
            let missing = |chunk: usize| (run.first..run.end).contains(&chunk) && !good[chunk - run.first];
            let next = plan::runs_of(&self.manifest, run.file, missing).first().copied();
            let Some(next) = next else { return Ok(bytes) };
            if self.meter.ask(next.range(&self.manifest).1)? == Err(Over) {
                return Err(self.meter.used_up());
            }
            let (right, trouble) = self.fill(next, start, &mut bytes, watch).await;
            let mut gained = false;
            for (chunk, right) in (next.first..next.end).zip(right) {
                let at = chunk - run.first;
                if right {
                    (good[at], gained) = (true, true);
                    continue;
                }
                wrong[at] += 1;
                self.wrong(file, chunk, wrong[at], watch)?;
            }
            tries = if gained { 0 } else { tries + 1 };
            if let Some(trouble) = trouble {
                tokio::time::sleep(consider(file, trouble, tries, watch)?).await;
            }
        }
    }

    /// Reads a run to its place in `bytes`, which begin at `start` of the file; for each chunk that came, whether it is right.
    async fn fill(&self, run: Run, start: u64, bytes: &mut Vec<u8>, watch: &Watch) -> (Vec<bool>, Option<Trouble>) {
        let (from, len) = run.range(&self.manifest);
        let object = format!("{}{}", self.folder, self.manifest.files[run.file].path);
        if let Store::Folder(folder) = &self.store {
            // A disk keeps a thread waiting, which must not be one that others wait for.
            let (folder, mut lent, file) = (folder.clone(), std::mem::take(bytes), &self.manifest.files[run.file]);
            let chunks = file.chunks[run.first..run.end].to_vec();
            let checks = self.first.as_ref().map(|first| first[run.file].checks[run.first..run.end].to_vec());
            let read = tokio::task::spawn_blocking(move || {
                let mut right = Vec::with_capacity(chunks.len());
                let read = read_hot(&folder, &object, &chunks, checks.as_deref(), &mut lent, start, &mut right);
                (lent, right, read.err())
            });
            let Ok((lent, right, trouble)) = read.await else {
                let ended = Error::environment("a thread ended", "run the same command again");
                return (Vec::new(), Some(Trouble::Stop(ended)));
            };
            *bytes = lent;
            let came = Run { end: run.first + right.len(), ..run }.range(&self.manifest).1;
            self.read.fetch_add(came, Ordering::Relaxed);
            return (right, trouble);
        }
        let mut etag = self.lock()[run.file].etag.clone();
        let mut at = usize::try_from(from - start).unwrap_or_default();
        let mut take = |piece: &[u8]| {
            bytes[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
            Ok(())
        };
        let read = self.store.range(&object, (from, len), &mut etag, &mut take).await;
        if self.lock()[run.file].note(etag, &read) {
            watch(&Event::Changed { path: self.manifest.files[run.file].path.to_string() });
        }
        let came = start + at as u64;
        self.read.fetch_add(came - from, Ordering::Relaxed);
        let chunks = self.manifest.files[run.file].chunks[run.first..run.end].iter();
        let right = chunks.take_while(|chunk| chunk.end() <= came).map(|chunk| {
            let at = usize::try_from(chunk.offset - start).unwrap_or_default();
            *blake3::hash(&bytes[at..at + chunk.len as usize]).as_bytes() == chunk.blake3
        });
        (right.collect(), read.err())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrong(&self, file: &File, chunk: usize, times: u32, watch: &Watch) -> Result<(), Error> {
        if self.first.is_some() {
            return Err(changed(file.path.as_str()));
        }
        let place = file.chunks[chunk];
        watch(&Event::Wrong { path: file.path.to_string(), offset: place.offset, len: place.len });
        if times < WRONG { Ok(()) } else { Err(damaged(file, chunk, times)) }
    }
}

/// Reads chunks of a file to their places in `bytes`, which begin at `start` of it, and looks at each piece while it is in the
/// processor's own memory: whether each chunk is the one that was checked before, or has its hash.
fn read_hot(
    folder: &Folder,
    object: &str,
    chunks: &[Chunk],
    checks: Option<&[u64]>,
    bytes: &mut [u8],
    start: u64,
    right: &mut Vec<bool>,
) -> Result<(), Trouble> {
    let opened = folder.open(object)?;
    for (number, chunk) in chunks.iter().enumerate() {
        let at = usize::try_from(chunk.offset - start).unwrap_or_default();
        let (mut hasher, mut check) = (blake3::Hasher::new(), add::check());
        let mut offset = chunk.offset;
        for piece in bytes[at..at + chunk.len as usize].chunks_mut(HOT) {
            opened.read(offset, piece)?;
            match checks {
                Some(_) => check.update(piece),
                None => drop(hasher.update(piece)),
            }
            offset += piece.len() as u64;
        }
        right.push(match checks {
            Some(checks) => check.finalize() == checks[number],
            None => *hasher.finalize().as_bytes() == chunk.blake3,
        });
    }
    Ok(())
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
