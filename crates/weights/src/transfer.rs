//! A version, pulled into a directory: what is missing is asked for in a few requests at once, hashed as it comes, and
//! counted chunk by chunk.
//!
//! Of what the open requests have asked for, never more than 64 MiB are still to come, and over a long way what a round trip
//! holds besides ([`window`](crate::window)). That bound holds for what a kill loses whatever the network keeps in its buffers,
//! since a server cannot send what it was not asked for, and what has come is on the disk ([`landing`](crate::landing)). As
//! bytes come others are asked for, so that a long way stays full.
//!
//! A chunk counts when its bytes had the right hash on their way to the disk. Every 256 MiB the data and then the journal are
//! synced, so that a power cut costs as much; a killed process costs only what was to come, because the system keeps what it
//! had written. A chunk with a wrong hash is asked for again by itself, and one that was cut off goes on where it was.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use outrigger_core::units::NanoUsd;
use tokio::task::JoinSet;

use crate::{
    Digest, Error, Manifest, Store, Wanted,
    budget::{Budget, Meter},
    journal::{self, Claim, Journal},
    landing::{Begun, Came, Landing},
    manifest::File,
    pace::{MOST, Pace},
    plan::{self, Run},
    reuse,
    sign::PublicKey,
    signing,
    source::{Seen, WRONG, consider, damaged},
    store::{self, Found, trouble::Trouble},
    target::{self, Have, Target},
    window::Window,
};

/// For what is asked for as soon as it is known what is missing.
const CONNECTIONS: usize = 8;
const SYNC_EVERY: u64 = 256 << 20;

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
    /// A file became another object in the store while it was read.
    Changed { path: String },
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
    /// That became other objects in the store on the way.
    pub changed_files: u64,
    /// With a budget: bytes that were asked for into this directory, by all calls, and what they cost at most.
    pub spent: Option<(u64, NanoUsd)>,
}

pub type Watch = Arc<dyn Fn(&Event) + Send + Sync>;

/// What a pull may be told besides from where and to where.
#[derive(Debug, Default)]
pub struct Options {
    /// Only a version that this key has signed.
    pub key: Option<PublicKey>,
    /// Directories whose bytes need not be fetched again.
    pub reuse: Vec<PathBuf>,
    /// What it may cost, with all that was asked for into the same directory before.
    pub budget: Option<Budget>,
}

/// Pulls the version that was asked for. Dropped at any time, it leaves a directory in which the next call goes on.
pub async fn pull(
    store: &Store,
    wanted: &Wanted,
    dir: &Path,
    options: Options,
    watch: Watch,
) -> Result<(Digest, Report), Error> {
    target::within(dir, options.budget.as_ref())?;
    let found = store.find_before(wanted, CONNECTIONS).await?;
    let control = store::control_bytes(wanted, &found);
    let Found { digest, bytes, manifest } = found;
    let signature = match &options.key {
        Some(key) => Some(signing::vouched(store, &wanted.model, key, digest, &manifest).await?),
        None => None,
    };
    watch(&Event::Found { digest, total: manifest.total(), files: manifest.files.len() });
    let budget = options.budget.clone();
    let (dir, watching, manifest) = (dir.to_owned(), watch.clone(), Arc::new(manifest));
    let looked = blocking({
        let manifest = manifest.clone();
        move || {
            let mut survey = survey(&dir, digest, &bytes, &manifest, &watching)?;
            survey.reused = survey.bring_over(&options, &dir, &manifest, &watching)?;
            Ok(survey)
        }
    });
    let Survey { target, journal, have, begun, reused } = looked.await?;
    let meter = target.meter(budget)?;
    meter.note(control + signature.as_ref().map_or(0, |signature| signature.len() as u64))?;
    if let Some(signature) = signature {
        target.keep_signature(&signature)?;
    }
    let right = right_bytes(&manifest, &have);
    target.room_for(&manifest.files, |at| right_of(&manifest.files[at], have[at].as_ref()))?;
    let runs = plan::runs(&manifest, |file, chunk| !have[file].as_ref().is_none_or(|chunks| chunks[chunk]));
    let left = have.iter().map(|chunks| chunks.as_ref().map(|c| c.iter().filter(|good| !**good).count())).collect();
    let report = Report { total: manifest.total(), kept: right - reused, reused, ..Report::default() };
    let seen = vec![Seen::default(); manifest.files.len()];
    let pull = Arc::new(Pull {
        source: store.clone(),
        folder: store::version_object(&wanted.model, &digest),
        manifest,
        target,
        watch,
        meter,
        window: Window::new(),
        pace: Pace::new(),
        state: Mutex::new(State {
            left,
            runs: runs.into(),
            parts: Vec::new(),
            journal,
            unsynced: 0,
            right,
            begun,
            report,
            seen,
        }),
    });
    pull.finish_those_without_a_gap().await?;
    pull.clone().fetch().await?;
    if pull.meter.is_over() {
        return Err(pull.stopped());
    }
    let ended = pull.clone();
    blocking(move || ended.target.ready(digest)).await?;
    let mut report = pull.lock().report.clone();
    report.spent = pull.meter.spent();
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
    /// Chunks of which a part is there that nobody has looked at, by file and chunk.
    begun: BTreeMap<(usize, usize), Begun>,
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
        self.target.room_for(&manifest.files, |at| right_of(&manifest.files[at], self.have[at].as_ref()))?;
        let mut reused = 0;
        for copy in copies {
            let Some(source) = sources[copy.source].open(copy.source_file) else { continue };
            let good = self.target.bring_over(&source, copy.offset, copy.run, manifest)?;
            let claims: Vec<Claim> = good.iter().map(|chunk| Claim::whole(copy.run.file, *chunk)).collect();
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
    let (claimed, reached) = journal::claimed(&claims, manifest);
    let mut have = Vec::with_capacity(manifest.files.len());
    let mut kept = 0;
    for (at, file) in manifest.files.iter().enumerate() {
        let found = match target.look(at, file, &claimed[at])? {
            Have::Whole => None,
            Have::Chunks(chunks) => Some(chunks),
        };
        if let Some(chunks) = &found {
            let new = chunks.iter().enumerate().filter(|(chunk, good)| **good && !claimed[at][*chunk]);
            let new: Vec<Claim> = new.map(|(chunk, _)| Claim::whole(at, chunk)).collect();
            journal.append(&new).map_err(|e| Error::io("write the journal in", dir, &e))?;
        }
        kept += right_of(file, found.as_ref());
        have.push(found);
        watch(&Event::Kept { bytes: kept });
    }
    if have.iter().any(Option::is_some) {
        target.not_ready()?;
    }
    let lacks = |&(file, chunk): &(usize, usize)| {
        have[file].as_ref().is_some_and(|chunks| !chunks[chunk]) && target.has_part(file, &manifest.files[file])
    };
    let begun = reached.into_iter().filter(|(place, _)| lacks(place));
    let begun = begun.map(|(place, bytes)| (place, Begun { bytes, before: true })).collect();
    Ok(Survey { target, journal, have, begun, reused: 0 })
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
    meter: Meter,
    window: Window,
    /// How many connections there are is found out.
    pace: Pace,
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
    begun: BTreeMap<(usize, usize), Begun>,
    report: Report,
    /// Of each file, which object it is in the store.
    seen: Vec<Seen>,
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
        for _ in 0..MOST {
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
        loop {
            if self.meter.is_over() {
                return Ok(());
            }
            let Some(run) = self.lock().runs.pop_front() else { return Ok(()) };
            self.bring(run).await?;
        }
    }

    /// Brings all chunks of a run, asking again for those that did not come.
    async fn bring(self: &Arc<Self>, run: Run) -> Result<(), Error> {
        let file = &self.manifest.files[run.file];
        let part = self.part(run.file)?;
        let mut good = vec![false; file.chunks.len()];
        let mut wrong = vec![0; file.chunks.len()];
        let mut tries = 0;
        loop {
            let missing = |chunk: usize| (run.first..run.end).contains(&chunk) && !good[chunk];
            let Some(next) = plan::runs_of(&self.manifest, run.file, missing).first().copied() else { break };
            let begun = self.lock().begun.get(&(run.file, next.first)).copied().unwrap_or_default();
            if !self.may_ask(next, begun).await? {
                return Ok(());
            }
            self.lock().begun.remove(&(run.file, next.first));
            let (came, trouble) = self.ask(next, begun, &part).await;
            came.good.iter().for_each(|chunk| good[*chunk] = true);
            tries = if came.gained { 0 } else { tries + 1 };
            self.account(run.file, &came);
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

    /// Whether the budget allows a request, which counts from here on.
    async fn may_ask(self: &Arc<Self>, run: Run, begun: Begun) -> Result<bool, Error> {
        if self.meter.is_over() {
            return Ok(false);
        }
        let len = run.range(&self.manifest).1 - u64::from(begun.bytes);
        let pull = self.clone();
        let allowed = blocking(move || pull.meter.ask(len)).await?;
        Ok(allowed.is_ok())
    }

    fn stopped(&self) -> Error {
        let state = self.lock();
        let begun: u64 = state.begun.values().map(|begun| u64::from(begun.bytes)).sum();
        self.meter.stopped(state.report.total - state.right - begun)
    }

    /// One request: what came of it, and what went wrong.
    async fn ask(&self, run: Run, begun: Begun, part: &fs::File) -> (Came, Option<Trouble>) {
        let (from, len) = run.range(&self.manifest);
        let (from, len) = (from + u64::from(begun.bytes), len - u64::from(begun.bytes));
        let file = &self.manifest.files[run.file];
        let _turn = self.pace.turn().await;
        let open = self.window.ask(len).await;
        self.lock().report.requests += 1;
        let written = |claim| self.written(claim);
        let mut landing = match Landing::new(file, run, begun, part, open, &written) {
            Ok(landing) => landing,
            // What the journal speaks of is not there.
            Err(came) => return (came, None),
        };
        let object = format!("{}/{}", self.folder, file.path);
        let mut etag = self.lock().seen[run.file].etag.clone();
        let mut asked = Some(Instant::now());
        let mut take = |piece: &[u8]| {
            if let Some(asked) = asked.take() {
                self.window.answered(asked.elapsed());
            }
            self.window.came(piece.len() as u64);
            landing.take(piece)
        };
        let read = self.source.range(&object, (from, len), &mut etag, &mut take).await;
        if self.lock().seen[run.file].note(etag, &read) {
            self.lock().report.changed_files += 1;
            (self.watch)(&Event::Changed { path: file.path.to_string() });
        }
        let came = landing.end();
        if read.is_ok() {
            self.pace.went(came.bytes);
        } else {
            self.pace.failed();
        }
        (came, read.err())
    }

    /// Notes what is on the disk.
    fn written(&self, claim: Claim) -> Result<(), Error> {
        let mut state = self.lock();
        let noted = state.journal.append(&[claim]);
        noted.map_err(|e| Error::io("write the journal for", &self.manifest.files[claim.file()].path.to_path(), &e))
    }

    fn account(&self, at: usize, came: &Came) {
        let file = &self.manifest.files[at];
        let mut state = self.lock();
        let bytes: u64 = came.good.iter().map(|chunk| u64::from(file.chunks[*chunk].len)).sum();
        state.right += bytes;
        state.unsynced += bytes;
        state.report.fetched += came.bytes;
        state.report.kept += u64::from(came.kept);
        state.report.wrong_chunks += came.wrong.len() as u64;
        if let Some((chunk, begun)) = came.begun {
            state.begun.insert((at, chunk), begun);
        }
        let event = Event::Progress { right: state.right, fetched: state.report.fetched };
        drop(state);
        (self.watch)(&event);
    }

    fn wrong(&self, file: &File, at: usize, times: u32) -> Result<(), Error> {
        let chunk = file.chunks[at];
        (self.watch)(&Event::Wrong { path: file.path.to_string(), offset: chunk.offset, len: chunk.len });
        if times < WRONG { Ok(()) } else { Err(damaged(file, at, times)) }
    }

    /// Whether to ask again, and after what pause.
    fn consider(&self, file: &File, trouble: Trouble, tries: u32) -> Result<Duration, Error> {
        if matches!(trouble, Trouble::Again { .. }) {
            self.lock().report.retries += 1;
        }
        consider(file, trouble, tries, &self.watch)
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
