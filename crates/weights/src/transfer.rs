//! A version, pulled into a directory: what is missing is asked for in a few requests at once, hashed as it comes, and
//! counted chunk by chunk.
//!
//! The requests that are open never ask for more than 48 MiB together. That bound holds for what a kill loses whatever the
//! network keeps in its buffers, since a server cannot send what it was not asked for; and it is what the process needs in
//! memory at most, though it needs far less: bytes go to the disk as they come.
//!
//! A chunk counts when its bytes had the right hash on their way to the disk, and then it is journalled. Every 256 MiB the
//! data and then the journal are synced, so that a power cut costs as much; a killed process costs only what was open,
//! because the system keeps what it had written. A chunk with a wrong hash, or none, is asked for again by itself.

use std::{
    collections::VecDeque,
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    Digest, Error, Manifest, Store, Wanted, disk,
    journal::{Claim, Journal},
    manifest::File,
    plan::{self, Run},
    reuse,
    sign::PublicKey,
    signing,
    store::{self, Found},
    target::{Have, Target},
    web::{self, Connection, Trouble},
};

/// What open requests may have asked for together, in bytes.
pub const OPEN_BYTES: u32 = 48 << 20;
/// More than fit into that when chunks are long, so that short files are not fetched one by one.
const CONNECTIONS: usize = 6;
/// Of one run without a chunk gained.
const TRIES: u32 = 6;
/// Of one chunk that comes whole and wrong.
const WRONG: u32 = 4;
const SYNC_EVERY: u64 = 256 << 20;
const WRITE_AT_ONCE: usize = 1 << 20;

/// What happens, for whoever shows it.
#[derive(Clone, Debug)]
pub enum Event {
    /// The version was found; its bytes and files.
    Found { digest: Digest, total: u64, files: usize },
    /// So many bytes of what was there have been looked at and were right.
    Kept { bytes: u64 },
    /// So many bytes are right, of them so many fetched.
    Progress { right: u64, fetched: u64 },
    /// A file is whole and in its place.
    File { path: String },
    /// A chunk came with the wrong hash.
    Wrong { path: String, offset: u64, len: u32 },
    /// A request failed and is made again.
    Again { why: String },
}

/// How a pull went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub total: u64,
    /// Right in the directory before.
    pub kept: u64,
    /// Copied from other versions on this machine.
    pub reused: u64,
    /// Bytes of files that came over the network, wrong and unfinished ones included.
    pub fetched: u64,
    pub requests: u64,
    pub retries: u64,
    pub wrong_chunks: u64,
}

pub type Watch = Arc<dyn Fn(&Event) + Send + Sync>;

/// What a pull may be told besides from where and to where.
#[derive(Debug, Default)]
pub struct Options {
    /// Only a version that this key has signed.
    pub key: Option<PublicKey>,
    /// Directories whose bytes need not be fetched again.
    pub reuse: Vec<PathBuf>,
}

/// Pulls the version that was asked for. Dropped at any time, it leaves a directory in which the next call goes on.
pub async fn pull(
    store: &Store,
    wanted: &Wanted,
    dir: &Path,
    options: Options,
    watch: Watch,
) -> Result<(Digest, Report), Error> {
    let Found { digest, bytes, manifest } = store.find(wanted).await?;
    let signature = match &options.key {
        Some(key) => Some(signing::vouched(store, &wanted.model, key, digest, &manifest).await?),
        None => None,
    };
    watch(&Event::Found { digest, total: manifest.total(), files: manifest.files.len() });
    let (dir, watching, manifest) = (dir.to_owned(), watch.clone(), Arc::new(manifest));
    let looked = blocking({
        let manifest = manifest.clone();
        move || {
            let mut survey = survey(&dir, digest, &bytes, &manifest, &watching)?;
            survey.reused = survey.bring_over(&options, &dir, &manifest, &watching)?;
            Ok(survey)
        }
    });
    let Survey { target, journal, have, reused } = looked.await?;
    if let Some(signature) = signature {
        target.keep_signature(&signature)?;
    }
    let right = right_bytes(&manifest, &have);
    target.room_for(manifest.total() - right)?;
    let runs = plan::runs(&manifest.files, |file, chunk| !have[file].as_ref().is_none_or(|chunks| chunks[chunk]));
    let left = have.iter().map(|chunks| chunks.as_ref().map(|c| c.iter().filter(|good| !**good).count())).collect();
    let report = Report { total: manifest.total(), kept: right - reused, reused, ..Report::default() };
    let pull = Arc::new(Pull {
        source: store.clone(),
        folder: store::version_object(&wanted.model, &digest),
        manifest,
        target,
        watch,
        open: Semaphore::new(OPEN_BYTES as usize),
        state: Mutex::new(State { left, runs: runs.into(), parts: Vec::new(), journal, unsynced: 0, right, report }),
    });
    pull.finish_those_without_a_gap().await?;
    pull.clone().fetch().await?;
    let ended = pull.clone();
    blocking(move || ended.target.ready(digest)).await?;
    let report = pull.lock().report.clone();
    Ok((digest, report))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(Error::environment(format!("a thread ended: {e}"), "run the same command again")))
}

struct Survey {
    target: Target,
    journal: Journal,
    /// For each file its chunks, or `None` where it is whole and in its place.
    have: Vec<Option<Vec<bool>>>,
    /// Bytes that other versions on this machine had.
    reused: u64,
}

impl Survey {
    /// Copies what other versions have of what is missing.
    fn bring_over(&mut self, options: &Options, dir: &Path, manifest: &Manifest, watch: &Watch) -> Result<u64, Error> {
        let lacks =
            |have: &[Option<Vec<bool>>], file: usize, chunk: usize| have[file].as_ref().is_some_and(|c| !c[chunk]);
        if !self.have.iter().flatten().flatten().any(|good| !good) {
            return Ok(0);
        }
        let sources = reuse::sources(&options.reuse, &manifest.model)?;
        let copies =
            plan::copies(&manifest.files, |file, chunk| lacks(&self.have, file, chunk), &reuse::lists(&sources));
        self.target.room_for(manifest.total() - right_bytes(manifest, &self.have))?;
        let mut reused = 0;
        for copy in copies {
            let Some(source) = sources[copy.source].open(copy.source_file) else { continue };
            let good = self.target.bring_over(&source, copy.offset, copy.run, manifest)?;
            let claims: Vec<Claim> = good.iter().map(|chunk| (copy.run.file as u32, *chunk as u32)).collect();
            self.journal.append(&claims).map_err(|e| Error::io("write the journal in", dir, &e))?;
            let chunks = &manifest.files[copy.run.file].chunks;
            reused += good.iter().map(|chunk| u64::from(chunks[*chunk].len)).sum::<u64>();
            let Some(have) = &mut self.have[copy.run.file] else { continue };
            for chunk in good {
                have[chunk] = true;
            }
            watch(&Event::Kept { bytes: right_bytes(manifest, &self.have) });
        }
        Ok(reused)
    }
}

/// Takes the directory and hashes what is there.
fn survey(dir: &Path, digest: Digest, bytes: &[u8], manifest: &Manifest, watch: &Watch) -> Result<Survey, Error> {
    let target = Target::open(dir, digest, bytes)?;
    let (mut journal, claims) = target.journal(digest)?;
    let mut claimed: Vec<Vec<bool>> = manifest.files.iter().map(|file| vec![false; file.chunks.len()]).collect();
    for (file, chunk) in &claims {
        if let Some(place) = claimed.get_mut(*file as usize).and_then(|file| file.get_mut(*chunk as usize)) {
            *place = true;
        }
    }
    let mut have = Vec::with_capacity(manifest.files.len());
    let mut kept = 0;
    for (at, file) in manifest.files.iter().enumerate() {
        let found = match target.look(at, file, &claimed[at])? {
            Have::Whole => None,
            Have::Chunks(chunks) => Some(chunks),
        };
        if let Some(chunks) = &found {
            let new = chunks.iter().enumerate().filter(|(chunk, good)| **good && !claimed[at][*chunk]);
            let new: Vec<Claim> = new.map(|(chunk, _)| (at as u32, chunk as u32)).collect();
            journal.append(&new).map_err(|e| Error::io("write the journal in", dir, &e))?;
        }
        kept += right_of(file, found.as_ref());
        have.push(found);
        watch(&Event::Kept { bytes: kept });
    }
    if have.iter().any(Option::is_some) {
        target.not_ready()?;
    }
    Ok(Survey { target, journal, have, reused: 0 })
}

fn right_of(file: &File, have: Option<&Vec<bool>>) -> u64 {
    let Some(have) = have else { return file.size };
    file.chunks.iter().zip(have).filter(|(_, good)| **good).map(|(chunk, _)| u64::from(chunk.len)).sum()
}

fn right_bytes(manifest: &Manifest, have: &[Option<Vec<bool>>]) -> u64 {
    manifest.files.iter().zip(have).map(|(file, have)| right_of(file, have.as_ref())).sum()
}

struct Pull {
    source: Store,
    /// The version's folder in the store.
    folder: String,
    manifest: Arc<Manifest>,
    target: Target,
    watch: Watch,
    open: Semaphore,
    state: Mutex<State>,
}

struct State {
    /// Chunks that each file lacks; `None` where it is in its place.
    left: Vec<Option<usize>>,
    runs: VecDeque<Run>,
    /// Files that are being written.
    parts: Vec<(usize, Arc<fs::File>)>,
    journal: Journal,
    unsynced: u64,
    right: u64,
    report: Report,
}

impl Pull {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Empty files, and those whose last chunk had come when the process before was killed.
    async fn finish_those_without_a_gap(self: &Arc<Self>) -> Result<(), Error> {
        let whole: Vec<usize> = {
            let state = self.lock();
            state.left.iter().enumerate().filter(|(_, left)| **left == Some(0)).map(|(at, _)| at).collect()
        };
        for at in whole {
            self.finish(at).await?;
        }
        Ok(())
    }

    async fn fetch(self: Arc<Self>) -> Result<(), Error> {
        let mut workers = JoinSet::new();
        for _ in 0..CONNECTIONS {
            workers.spawn(self.clone().work());
        }
        while let Some(ended) = workers.join_next().await {
            // The first fault ends all: dropping the set aborts the others.
            ended.unwrap_or_else(|e| {
                Err(Error::environment(format!("a task ended: {e}"), "run the same command again"))
            })?;
        }
        Ok(())
    }

    async fn work(self: Arc<Self>) -> Result<(), Error> {
        let mut reader = Reader::new(&self.source);
        loop {
            let Some(run) = self.lock().runs.pop_front() else { return Ok(()) };
            self.bring(&mut reader, run).await?;
        }
    }

    /// Brings all chunks of a run, asking again for those that did not come.
    async fn bring(self: &Arc<Self>, reader: &mut Reader, run: Run) -> Result<(), Error> {
        let file = &self.manifest.files[run.file];
        let part = self.part(run.file)?;
        let mut good = vec![false; file.chunks.len()];
        let mut wrong = vec![0; file.chunks.len()];
        let mut tries = 0;
        loop {
            let missing = |chunk: usize| (run.first..run.end).contains(&chunk) && !good[chunk];
            let Some(next) = plan::runs_of(&self.manifest.files, run.file, missing).first().copied() else { break };
            let (came, trouble) = self.ask(reader, next, &part).await;
            let gained: Vec<Claim> = came.good.iter().map(|chunk| (run.file as u32, *chunk as u32)).collect();
            came.good.iter().for_each(|chunk| good[*chunk] = true);
            self.account(file, &came, &gained)?;
            tries = if gained.is_empty() { tries + 1 } else { 0 };
            for &chunk in &came.wrong {
                wrong[chunk] += 1;
                self.wrong(file, chunk, wrong[chunk])?;
            }
            if let Some(trouble) = trouble {
                let pause = self.consider(file, trouble, tries)?;
                tokio::time::sleep(pause).await;
            }
        }
        self.sync_if_due().await?;
        let done = {
            let mut state = self.lock();
            let left = state.left[run.file].map(|left| left - (run.end - run.first));
            state.left[run.file] = left;
            left == Some(0)
        };
        if done { self.finish(run.file).await } else { Ok(()) }
    }

    /// One request: what came of it, and what went wrong.
    async fn ask(&self, reader: &mut Reader, run: Run, part: &fs::File) -> (Came, Option<Trouble>) {
        let (from, len) = run.range(&self.manifest.files);
        let file = &self.manifest.files[run.file];
        let permits = u32::try_from(len).unwrap_or(OPEN_BYTES).min(OPEN_BYTES);
        let _open = self.open.acquire_many(permits).await.expect("it is never closed");
        self.lock().report.requests += 1;
        let mut landing = Landing::new(file, run, part);
        let object = format!("{}/{}", self.folder, file.path);
        let read = reader.read(&object, (from, len), &mut |piece| landing.take(piece)).await;
        let came = landing.came;
        (came, read.err())
    }

    fn account(&self, file: &File, came: &Came, gained: &[Claim]) -> Result<(), Error> {
        let mut state = self.lock();
        state.journal.append(gained).map_err(|e| Error::io("write the journal for", &file.path.to_path(), &e))?;
        let bytes: u64 = came.good.iter().map(|chunk| u64::from(file.chunks[*chunk].len)).sum();
        state.right += bytes;
        state.unsynced += bytes;
        state.report.fetched += came.bytes;
        state.report.wrong_chunks += came.wrong.len() as u64;
        let event = Event::Progress { right: state.right, fetched: state.report.fetched };
        drop(state);
        (self.watch)(&event);
        Ok(())
    }

    fn wrong(&self, file: &File, chunk: usize, times: u32) -> Result<(), Error> {
        let chunk = file.chunks[chunk];
        (self.watch)(&Event::Wrong { path: file.path.to_string(), offset: chunk.offset, len: chunk.len });
        if times < WRONG {
            return Ok(());
        }
        Err(Error::content(
            format!(
                "{}: the chunk at byte {} came {times} times and was not what was published",
                file.path, chunk.offset
            ),
            "the store's copy is damaged: `outrigger weights verify` at the store, or publish it again",
        ))
    }

    /// Whether to ask again, and after what pause.
    fn consider(&self, file: &File, trouble: Trouble, tries: u32) -> Result<Duration, Error> {
        match trouble {
            Trouble::Stop(error) => Err(error),
            Trouble::Absent => Err(Error::content(
                format!("{}: the manifest names it and the store does not have it", file.path),
                "publish the version again: a part of it was deleted",
            )),
            Trouble::Again { why, .. } if tries >= TRIES => Err(web::gave_up(tries, &why)),
            Trouble::Again { why, after } => {
                self.lock().report.retries += 1;
                (self.watch)(&Event::Again { why });
                Ok(after.unwrap_or_else(|| web::pause(tries)))
            }
        }
    }

    fn part(&self, at: usize) -> Result<Arc<fs::File>, Error> {
        let mut state = self.lock();
        if let Some((_, part)) = state.parts.iter().find(|(file, _)| *file == at) {
            return Ok(part.clone());
        }
        let part = Arc::new(self.target.part(at, &self.manifest.files[at])?);
        state.parts.push((at, part.clone()));
        Ok(part)
    }

    async fn finish(self: &Arc<Self>, at: usize) -> Result<(), Error> {
        let part = self.part(at)?;
        let pull = self.clone();
        blocking(move || pull.target.finish(at, &pull.manifest.files[at], &part)).await?;
        let mut state = self.lock();
        state.parts.retain(|(file, _)| *file != at);
        state.left[at] = None;
        drop(state);
        (self.watch)(&Event::File { path: self.manifest.files[at].path.to_string() });
        Ok(())
    }

    /// Data first and then the journal that claims it.
    async fn sync_if_due(&self) -> Result<(), Error> {
        let (parts, journal) = {
            let mut state = self.lock();
            if state.unsynced < SYNC_EVERY {
                return Ok(());
            }
            state.unsynced = 0;
            let parts: Vec<Arc<fs::File>> = state.parts.iter().map(|(_, part)| part.clone()).collect();
            (parts, state.journal.handle())
        };
        blocking(move || {
            let all = parts.iter().try_for_each(|part| part.sync_data());
            all.and_then(|()| journal?.sync_data()).map_err(|e| Error::io("sync", Path::new("what was pulled"), &e))
        })
        .await
    }
}

/// What a request brought.
#[derive(Debug, Default)]
struct Came {
    good: Vec<usize>,
    wrong: Vec<usize>,
    bytes: u64,
}

/// Hashes bytes as they come and writes them to where they belong.
struct Landing<'a> {
    file: &'a File,
    part: &'a fs::File,
    /// The chunk that is coming, and the one at which the run ends.
    chunk: usize,
    end: usize,
    hasher: blake3::Hasher,
    in_chunk: u32,
    /// Bytes that are hashed and written together, and where they belong.
    buffer: Vec<u8>,
    offset: u64,
    came: Came,
}

impl<'a> Landing<'a> {
    fn new(file: &'a File, run: Run, part: &'a fs::File) -> Self {
        Self {
            file,
            part,
            chunk: run.first,
            end: run.end,
            hasher: blake3::Hasher::new(),
            in_chunk: 0,
            buffer: Vec::with_capacity(WRITE_AT_ONCE),
            offset: file.chunks[run.first].offset,
            came: Came::default(),
        }
    }

    fn take(&mut self, mut piece: &[u8]) -> Result<(), Error> {
        self.came.bytes += piece.len() as u64;
        while !piece.is_empty() && self.chunk < self.end {
            let chunk = self.file.chunks[self.chunk];
            let room = (WRITE_AT_ONCE - self.buffer.len()).min((chunk.len - self.in_chunk) as usize);
            let (now, later) = piece.split_at(room.min(piece.len()));
            self.buffer.extend_from_slice(now);
            self.in_chunk += now.len() as u32;
            piece = later;
            let ended = self.in_chunk == chunk.len;
            if ended || self.buffer.len() == WRITE_AT_ONCE {
                self.flush()?;
            }
            if ended {
                self.judge(chunk.blake3);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.hasher.update(&self.buffer);
        self.part
            .write_all_at(&self.buffer, self.offset)
            .map_err(|e| Error::io("write", &self.file.path.to_path(), &e))?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn judge(&mut self, expected: [u8; 32]) {
        let right = *self.hasher.finalize().as_bytes() == expected;
        if right { &mut self.came.good } else { &mut self.came.wrong }.push(self.chunk);
        self.hasher.reset();
        self.in_chunk = 0;
        self.chunk += 1;
    }
}

/// One way into a store.
pub(crate) enum Reader {
    Folder(PathBuf),
    Web(Connection),
}

impl Reader {
    pub(crate) fn new(store: &Store) -> Self {
        match store {
            Store::Folder(folder) => Self::Folder(folder.clone()),
            Store::Web(base) => Self::Web(Connection::new(base.clone())),
        }
    }

    pub(crate) async fn read(
        &mut self,
        object: &str,
        range: (u64, u64),
        sink: &mut (impl FnMut(&[u8]) -> Result<(), Error> + Send),
    ) -> Result<(), Trouble> {
        match self {
            Self::Web(connection) => connection.range(object, range, sink).await,
            Self::Folder(folder) => read_folder(&folder.join(object), range, sink),
        }
    }
}

fn read_folder(
    path: &Path,
    (from, len): (u64, u64),
    sink: &mut impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Trouble> {
    let reading = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => Trouble::Absent,
        std::io::ErrorKind::UnexpectedEof => {
            let message = format!("{} is shorter than its manifest says", path.display());
            Trouble::Stop(Error::content(message, "publish the version again"))
        }
        _ => Trouble::Stop(Error::io("read", path, &e)),
    };
    let file = disk::open(path).map_err(reading)?;
    let mut buffer = vec![0; WRITE_AT_ONCE];
    let mut at = 0;
    while at < len {
        let piece = &mut buffer[..WRITE_AT_ONCE.min(usize::try_from(len - at).unwrap_or(WRITE_AT_ONCE))];
        file.read_exact_at(piece, from + at).map_err(reading)?;
        sink(piece).map_err(Trouble::Stop)?;
        at += piece.len() as u64;
    }
    Ok(())
}
