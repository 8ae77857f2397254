//! A version, brought into a store: its files, then its manifest, and last the ref, in one step that another publisher sees.
//!
//! What is sent is what the manifest says: each byte comes from a [`Source`], which gives on only chunks whose hash was
//! right. A file that an older version in the store has under the same SHA-256 is copied there and not sent. Long files go
//! in parts of 16 MiB whose names in the store are in a journal ([`uploads`](crate::uploads)), so that a push that is called
//! again after a kill sends at most what was on its way: 64 MiB.
//!
//! Between reading and having been sent there are never more than 96 MiB in memory (more for files over 140 GiB, whose
//! parts are longer, since a store allows ten thousand of them).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};

use crate::{
    Digest, Error, Manifest, ModelName,
    manifest::{self, File},
    pace::Pace,
    path::RefName,
    plan::{self, Run},
    refs,
    source::{Buffers, Source, TRIES},
    store::{
        self, Found, Meta, Part, Put, Store, Upload, When,
        trouble::{Trouble, gave_up, pause},
    },
    transfer::{Event, Watch},
    uploads::{Begun, Uploads},
    verify,
};

/// Of a part, and the longest file that goes whole.
pub const PART: u64 = 16 << 20;
/// Parts of one file; S3 and Google Cloud Storage allow 10,000.
const MOST_PARTS: u64 = 9_000;
/// What may be on its way together, which is what a kill can cost.
pub const OPEN_BYTES: u64 = 64 << 20;
/// Files in parts that are worked on together; short files have more.
const LONG_FILES: usize = 2;
const SHORT_FILES: usize = 32;
/// Runs of one file that are read ahead, in order.
const AHEAD: usize = 3;
const COPIES: usize = 8;
/// For uploads that are being begun when a push ends: the store may have them, and the journal has to.
const LAST_BEGUN: Duration = Duration::from_secs(10);
/// Older versions that are looked through for files to copy, the newest first.
const OLDER: usize = 16;

/// What to bring where.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) source: Source,
    pub(crate) target: Store,
    pub(crate) version: Found,
    /// What lies beside it, where somebody has signed it.
    pub(crate) signature: Option<Bytes>,
    pub(crate) reference: RefName,
    /// Where the journal lies.
    pub(crate) state: PathBuf,
    /// Whether what is there is read, and sent again where it is wrong.
    pub(crate) repair: bool,
    /// The target was [tried](Store::prove) before.
    pub(crate) proved: bool,
}

/// How it went, in bytes of files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    pub total: u64,
    /// Given to the network, failed tries included.
    pub sent: u64,
    /// In the store before, whole files and parts, by an earlier push of this version.
    pub kept: u64,
    /// Copied inside the store from older versions.
    pub copied: u64,
    /// Files that were there and wrong, and were sent again.
    pub repaired: usize,
    pub retries: u64,
    /// The ref pointed to this very version before, and nothing was done.
    pub known: bool,
}

/// Publishes. Dropped at any time, it leaves a store in which the ref points to where it did, and a journal by which the
/// next call goes on.
pub(crate) async fn publish(job: Job, watch: Watch) -> Result<Published, Error> {
    // Before anything is written: without a journal nobody would know of what is begun.
    let found = &job.version;
    let journal = Arc::new(Uploads::open(&job.state, &job.target, &found.manifest.model, &found.digest)?);
    let target = job.target.clone();
    let published = with_journal(job, journal.clone(), watch).await;
    if published.is_ok() {
        // Of files that somebody else has brought meanwhile.
        for upload in journal.all() {
            target.abort(&upload).await?;
        }
    }
    // What was begun, the next call goes on with.
    if published.is_ok() || journal.is_empty() {
        journal.remove()?;
    }
    published
}

async fn with_journal(job: Job, journal: Arc<Uploads>, watch: Watch) -> Result<Published, Error> {
    let Job { source, target, version, signature, reference, repair, proved, .. } = job;
    if !proved {
        target.prove().await?;
    }
    let Found { digest, bytes, manifest } = version;
    let (model, total) = (manifest.model.clone(), manifest.total());
    let before = target.reference(&model, &reference).await?;
    let folder = store::version_object(&model, &digest);
    let there = target.objects(&folder).await?;
    refs::not_doomed(&there, &folder)?;
    // Before the ref: who pulls by a key should never see the version without its signature.
    if let Some(signature) = signature {
        target.put(&store::signature_object(&model, &digest), &signature, &When::Always).await?;
    }
    let object = store::manifest_object(&model, &digest);
    let wrong = if repair { wrong_files(&target, &there, &folder, &manifest).await? } else { Vec::new() };
    if repair {
        mend_manifest(&target, &object, &digest, &bytes).await?;
    }
    let missing = refs::missing(&there, &manifest, &digest);
    if refs::named_by(before.as_ref()) == Some(digest) && missing.is_empty() && wrong.is_empty() {
        same_manifest(&target, &object, &digest, &bytes).await?;
        watch(&Event::Progress { right: total, fetched: 0 });
        return Ok(Published { total, kept: total, known: true, ..Published::default() });
    }
    let is_lacking = |at: &usize| missing.contains(&manifest.files[*at].path.as_str()) || wrong.contains(at);
    let lacking: Vec<usize> = (0..manifest.files.len()).filter(is_lacking).collect();
    // What else is in the store may be as wrong.
    let older = if lacking.is_empty() || repair { Older::new() } else { older(&target, &model, &digest).await? };
    let mut push = Push::new(source, target, folder, journal, watch, &lacking);
    push.wrong.clone_from(&wrong);
    let push = Arc::new(push);
    let lacking_bytes: u64 = lacking.iter().map(|at| manifest.files[*at].size).sum();
    push.kept.store(total - lacking_bytes, Ordering::Relaxed);
    push.done(total - lacking_bytes);
    let to_send = push.clone().copy_known(&lacking, &older).await?;
    push.clone().send(to_send).await?;
    push.settle_manifest(&digest, &model, &bytes).await?;
    refs::point(&push.target, &manifest, &digest, &reference, before).await?;
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (sent, kept, copied, retries) = (read(&push.sent), read(&push.kept), read(&push.copied), read(&push.retries));
    Ok(Published { total, sent, kept, copied, repaired: wrong.len(), retries, known: false })
}

/// Files that are there with their size and are not what they should be.
async fn wrong_files(target: &Store, there: &[Meta], folder: &str, manifest: &Manifest) -> Result<Vec<usize>, Error> {
    let sizes: BTreeMap<&str, u64> = there.iter().map(|meta| (meta.object.as_str(), meta.size)).collect();
    let checks = manifest.files.iter().enumerate().filter_map(|(at, file)| {
        let object = format!("{folder}/{}", file.path);
        (sizes.get(object.as_str()) == Some(&file.size)).then_some(async move {
            let wrong = verify::check_stored(target, &object, file, &|_| {}).await?;
            Ok::<_, Error>(wrong.map(|_| at))
        })
    });
    let wrong: Vec<Option<usize>> = stream::iter(checks).buffered(verify::FILES).try_collect().await?;
    Ok(wrong.into_iter().flatten().collect())
}

/// Puts the manifest over what lies in its place, unless that is whole and of another version.
async fn mend_manifest(target: &Store, object: &str, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
    let Some((there, tag)) = target.whole(object, manifest::LONGEST).await? else { return Ok(()) };
    if there != bytes && Digest::of(&there).short() != digest.short() {
        target.put(object, &Bytes::copy_from_slice(bytes), &When::Is(tag)).await?;
    }
    Ok(())
}

/// Files of older versions by SHA-256 and size, and the objects that they are.
pub(crate) type Older = BTreeMap<([u8; 32], u64), String>;

/// What older versions in the store have. One whose manifest cannot be read gives nothing, and a file that is not in the
/// listing with its size is not there.
pub(crate) async fn older(target: &Store, model: &ModelName, digest: &Digest) -> Result<Older, Error> {
    let objects = target.objects(&format!("models/{model}")).await?;
    let sizes: BTreeMap<&str, u64> = objects.iter().map(|meta| (meta.object.as_str(), meta.size)).collect();
    let own = store::manifest_object(model, digest);
    let is_manifest = |meta: &&Meta| meta.object.ends_with(store::MANIFEST) && meta.object != own;
    let mut manifests: Vec<&Meta> = objects.iter().filter(is_manifest).collect();
    manifests.sort_by_key(|meta| std::cmp::Reverse(meta.modified));
    let mut older = Older::new();
    for meta in manifests.into_iter().take(OLDER) {
        let Some((bytes, _)) = target.whole(&meta.object, manifest::LONGEST).await? else { continue };
        let Ok(manifest) = Manifest::parse(&bytes) else { continue };
        let folder = store::version_object(&manifest.model, &Digest::of(&bytes));
        for file in manifest.files {
            let object = format!("{folder}/{}", file.path);
            if sizes.get(object.as_str()) == Some(&file.size) {
                older.entry((file.sha256, file.size)).or_insert(object);
            }
        }
    }
    Ok(older)
}

struct Push {
    source: Source,
    target: Store,
    /// The version's folder in the target.
    folder: String,
    journal: Arc<Uploads>,
    watch: Watch,
    /// Files in whose place something wrong lies, with their size.
    wrong: Vec<usize>,
    /// Files that are in their place.
    whole: Mutex<BTreeSet<usize>>,
    /// What is in memory, and what is on its way.
    held: Arc<Semaphore>,
    open: Semaphore,
    /// Uploads that are being begun, of which each has a permit.
    beginning: Arc<Semaphore>,
    pace: Pace,
    right: AtomicU64,
    sent: AtomicU64,
    kept: AtomicU64,
    copied: AtomicU64,
    retries: AtomicU64,
}

/// A task that ends with whoever waits for it.
struct Bound<T>(JoinHandle<Result<T, Error>>);

impl<T> Drop for Bound<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T: Send + 'static> Bound<T> {
    fn spawn(work: impl Future<Output = Result<T, Error>> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }

    async fn end(mut self) -> Result<T, Error> {
        let ended = (&mut self.0).await;
        ended.unwrap_or_else(|e| Err(Error::environment(format!("a task ended: {e}"), "run the same command again")))
    }
}

/// Bytes that count as held until nobody has them; then their memory is read into again.
struct Held {
    bytes: Vec<u8>,
    buffers: Arc<Buffers>,
    #[expect(dead_code, reason = "its end is what it is for")]
    permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.buffers.give(std::mem::take(&mut self.bytes));
    }
}

/// How an attempt at a long file ended.
enum Sent {
    All(Vec<String>),
    /// The store does not know the upload any more.
    Forgotten,
}

impl Push {
    fn new(
        source: Source,
        target: Store,
        folder: String,
        journal: Arc<Uploads>,
        watch: Watch,
        lacking: &[usize],
    ) -> Self {
        let sizes = lacking.iter().map(|at| part_size(source.manifest().files[*at].size));
        let longest = sizes.max().unwrap_or(PART).max(PART);
        // A part that is being put together may hold one run more than itself; of each long file there is one, and one run
        // more has to fit, or they would wait for each other.
        let held = (longest + PART) * LONG_FILES as u64 + 2 * PART;
        Self {
            source,
            target,
            folder,
            journal,
            watch,
            wrong: Vec::new(),
            whole: Mutex::default(),
            held: Arc::new(Semaphore::new(usize::try_from(held).unwrap_or(Semaphore::MAX_PERMITS))),
            open: Semaphore::new(OPEN_BYTES as usize),
            beginning: Arc::new(Semaphore::new(LONG_FILES)),
            pace: Pace::new(),
            right: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            copied: AtomicU64::new(0),
            retries: AtomicU64::new(0),
        }
    }

    fn file(&self, at: usize) -> &File {
        &self.source.manifest().files[at]
    }

    fn object(&self, at: usize) -> String {
        format!("{}/{}", self.folder, self.file(at).path)
    }

    /// So many bytes more are in their place.
    fn done(&self, bytes: u64) {
        let right = self.right.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (self.watch)(&Event::Progress { right, fetched: self.sent.load(Ordering::Relaxed) });
    }

    fn file_done(&self, at: usize) {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).insert(at);
        (self.watch)(&Event::File { path: self.file(at).path.to_string() });
    }

    /// Copies what older versions have, and says which files are left to send.
    async fn copy_known(self: Arc<Self>, lacking: &[usize], older: &Older) -> Result<Vec<usize>, Error> {
        let copies = lacking.iter().map(|&at| {
            let (push, file) = (self.clone(), self.file(at));
            let from = older.get(&(file.sha256, file.size)).filter(|_| push.target.copies(file.size)).cloned();
            async move {
                let Some(from) = from else { return Ok(Some(at)) };
                if !push.target.copy(&from, &push.object(at)).await? {
                    return Ok(Some(at));
                }
                push.copied.fetch_add(push.file(at).size, Ordering::Relaxed);
                push.done(push.file(at).size);
                push.file_done(at);
                Ok(None)
            }
        });
        let left: Vec<Option<usize>> = stream::iter(copies).buffered(COPIES).try_collect().await?;
        Ok(left.into_iter().flatten().collect())
    }

    async fn send(self: Arc<Self>, files: Vec<usize>) -> Result<(), Error> {
        // What was read and not yet sent is lost when a budget ends, so that one that does not reach is not begun.
        let unread = || files.iter().map(|at| self.unread(*at)).sum();
        if !self.source.meter.reaches(unread()) {
            return Err(self.source.meter.stopped(unread()));
        }
        self.target.room_for(files.iter().map(|at| self.unsent(*at)).sum())?;
        let (long, short): (Vec<usize>, Vec<usize>) = files.iter().partition(|at| goes_in_parts(self.file(**at).size));
        let short = short.into_iter().map(|at| Bound::spawn(self.clone().send_short(at)));
        let short = stream::iter(short).map(Bound::end).buffer_unordered(SHORT_FILES).try_collect::<()>();
        let long = stream::iter(long).map(|at| Bound::spawn(self.clone().send_long(at)).end());
        let long = long.buffer_unordered(LONG_FILES).try_collect::<()>();
        let sent = futures_util::future::try_join(short, long).await;
        if sent.is_err() {
            tokio::time::timeout(LAST_BEGUN, self.beginning.acquire_many(LONG_FILES as u32)).await.ok();
            self.beginning.close();
        }
        match sent {
            // What was asked for and has not been sent is lost.
            Err(_) if self.source.meter.is_over() => Err(self.source.meter.stopped(unread())),
            sent => sent.map(|_| ()),
        }
    }

    /// What the store has not acknowledged of a file.
    fn unsent(&self, at: usize) -> u64 {
        let sent = self.journal.resume(&self.object(at)).map_or(0, |begun| begun.parts.len() as u64 * begun.part_size);
        self.file(at).size.saturating_sub(sent)
    }

    /// What has to be read for it: chunks that lie in two parts are read for either.
    fn unread(&self, at: usize) -> u64 {
        let file = self.file(at);
        if self.whole.lock().unwrap_or_else(PoisonError::into_inner).contains(&at) {
            return 0;
        }
        match self.journal.resume(&self.object(at)).filter(|begun| fits(begun, file.size)) {
            Some(begun) => {
                let runs = lacking_runs(self.source.manifest(), at, &Assembly::new(file.size, &begun));
                runs.iter().map(|run| run.range(self.source.manifest()).1).sum()
            }
            None => file.size,
        }
    }

    async fn hold(&self, bytes: u64) -> OwnedSemaphorePermit {
        let permits = u32::try_from(bytes).expect("runs are short");
        self.held.clone().acquire_many_owned(permits).await.expect("it is never closed")
    }

    async fn send_short(self: Arc<Self>, at: usize) -> Result<(), Error> {
        let size = self.file(at).size;
        let _held = self.hold(size).await;
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        for run in plan::runs_of(self.source.manifest(), at, |_| true) {
            let read = self.source.run(run, &self.watch).await?;
            bytes.extend_from_slice(&read);
            self.source.buffers.give(read);
        }
        let (bytes, object) = (Bytes::from(bytes), self.object(at));
        self.offer(&object, size, || self.target.put_once(&object, &bytes, &When::Always)).await?;
        self.done(size);
        self.file_done(at);
        Ok(())
    }

    /// A file in parts.
    async fn send_long(self: Arc<Self>, at: usize) -> Result<(), Error> {
        let object = self.object(at);
        for _ in 0..3 {
            let begun = self.begun(at, &object).await?;
            let whole = match self.clone().send_parts(at, &begun).await? {
                Sent::All(names) => self.target.complete(&begun.upload, &names).await?,
                Sent::Forgotten => false,
            };
            // It may have become an object by a try whose answer was lost.
            let is_it = |meta: &Meta| meta.object == object && meta.size == self.file(at).size;
            let is_there = |listed: Vec<Meta>| !self.wrong.contains(&at) && listed.iter().any(is_it);
            if whole || is_there(self.target.objects(&self.folder).await?) {
                self.journal.gone(&object)?;
                self.file_done(at);
                return Ok(());
            }
            self.journal.gone(&object)?;
            let before = sent_of(&begun, self.file(at).size);
            self.right.fetch_sub(before, Ordering::Relaxed);
            self.kept.fetch_sub(before, Ordering::Relaxed);
            (self.watch)(&Event::Again { why: format!("{object}: the store does not know the upload any more") });
        }
        Err(Error::environment(
            format!("{object}: the store forgot three uploads"),
            "see whether another process or a rule of the bucket ends them",
        ))
    }

    /// The upload of a file: the one in the journal, or a new one.
    async fn begun(self: &Arc<Self>, at: usize, object: &str) -> Result<Begun, Error> {
        let size = self.file(at).size;
        if let Some(begun) = self.journal.resume(object).filter(|begun| fits(begun, size)) {
            self.kept.fetch_add(sent_of(&begun, size), Ordering::Relaxed);
            self.done(sent_of(&begun, size));
            return Ok(begun);
        }
        let (push, object) = (self.clone(), object.to_owned());
        let closed = |_| Error::environment("the push has ended", "run the same command again");
        let turn = self.beginning.clone().acquire_owned().await.map_err(closed)?;
        // To its end, also where this file's task is ended by another's fault.
        let begun = tokio::spawn(async move {
            let _turn = turn;
            push.begin(&object, part_size(size)).await
        });
        begun
            .await
            .unwrap_or_else(|e| Err(Error::environment(format!("a task ended: {e}"), "run the same command again")))
    }

    async fn begin(&self, object: &str, part_size: u64) -> Result<Begun, Error> {
        let upload = self.target.begin(object).await?;
        if let Err(error) = self.journal.begin(&upload, part_size) {
            // Nobody would know of it.
            self.target.abort(&upload).await.ok();
            return Err(error);
        }
        Ok(Begun { upload, part_size, parts: BTreeMap::new() })
    }

    /// Reads what is missing, in order, and sends parts as they become whole.
    async fn send_parts(self: Arc<Self>, at: usize, begun: &Begun) -> Result<Sent, Error> {
        let size = self.file(at).size;
        let mut parts = Assembly::new(size, begun);
        let runs = lacking_runs(self.source.manifest(), at, &parts);
        // Memory is taken in the order in which runs are needed: two files whose later runs hold what their next ones wait for
        // would wait for ever.
        let hold = |run: Run| {
            let push = self.clone();
            async move { (run, push.hold(run.range(push.source.manifest()).1).await) }
        };
        let read = |(run, held): (Run, OwnedSemaphorePermit)| {
            let push = self.clone();
            Bound::spawn(async move {
                let (offset, _) = run.range(push.source.manifest());
                let bytes = push.source.run(run, &push.watch).await?;
                let buffers = push.source.buffers.clone();
                Ok((offset, Bytes::from_owner(Held { bytes, buffers, permit: held })))
            })
        };
        let mut reads = pin!(stream::iter(runs).then(hold).map(|run| read(run).end()).buffered(AHEAD));
        let mut puts = stream::FuturesUnordered::new();
        while let Some((offset, bytes)) = reads.try_next().await? {
            for (number, pieces) in parts.take(offset, &bytes) {
                let put = self.clone().send_part((at, number), begun.upload.clone(), begun.part_size, pieces);
                puts.push(Bound::spawn(put).end());
            }
            // Those that have ended, and so many that no more than a few are open.
            while puts.len() >= LONG_FILES * 2 {
                let Some(put) = puts.try_next().await? else { break };
                if !parts.note(put) {
                    return Ok(Sent::Forgotten);
                }
            }
        }
        while let Some(put) = puts.try_next().await? {
            if !parts.note(put) {
                return Ok(Sent::Forgotten);
            }
        }
        Ok(Sent::All(parts.names()))
    }

    /// Puts one part of a file; its name, or nothing when the store does not know the upload.
    async fn send_part(
        self: Arc<Self>,
        (at, number): (usize, usize),
        upload: Upload,
        part_size: u64,
        pieces: Vec<Bytes>,
    ) -> Result<Option<(usize, String)>, Error> {
        let sha256 = self.source.part_sha256(at, number);
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        let offset = number as u64 * part_size;
        let put = self
            .offer(&upload.object, len, || async {
                match self.target.part(&upload, Part { number, offset, pieces: &pieces, sha256 }).await {
                    Err(Trouble::Absent) => Ok(None),
                    put => put.map(Some),
                }
            })
            .await?;
        let Some(name) = put else { return Ok(None) };
        self.journal.part(&upload, number, &name)?;
        self.done(len);
        Ok(Some((number, name)))
    }

    /// Sends so many bytes, again where it may help.
    async fn offer<T, F: Future<Output = Result<T, Trouble>>>(
        &self,
        object: &str,
        len: u64,
        send: impl Fn() -> F,
    ) -> Result<T, Error> {
        let permits = u32::try_from(len.min(OPEN_BYTES)).expect("it is less");
        let mut tries = 0;
        loop {
            tries += 1;
            let trouble = {
                let _turn = self.pace.turn().await;
                let _open = self.open.acquire_many(permits).await.expect("it is never closed");
                self.sent.fetch_add(len, Ordering::Relaxed);
                match send().await {
                    Ok(done) => {
                        self.pace.went(len);
                        return Ok(done);
                    }
                    Err(trouble) => trouble,
                }
            };
            self.pace.failed();
            let (why, after) = match trouble {
                Trouble::Stop(error) => return Err(error),
                Trouble::Again { why, after } => (why, after),
                other => (format!("{object}: {other}"), None),
            };
            if tries >= TRIES {
                return Err(gave_up(tries, &why));
            }
            self.retries.fetch_add(1, Ordering::Relaxed);
            (self.watch)(&Event::Again { why });
            tokio::time::sleep(after.unwrap_or_else(|| pause(tries))).await;
        }
    }

    /// The manifest, after all that it names.
    async fn settle_manifest(&self, digest: &Digest, model: &ModelName, bytes: &[u8]) -> Result<(), Error> {
        let object = store::manifest_object(model, digest);
        if self.target.put(&object, &Bytes::copy_from_slice(bytes), &When::Absent).await? != Put::Refused {
            return Ok(());
        }
        same_manifest(&self.target, &object, digest, bytes).await
    }
}

async fn same_manifest(target: &Store, object: &str, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
    let there = target.whole(object, manifest::LONGEST).await?;
    if there.is_some_and(|(there, _)| there == bytes) {
        return Ok(());
    }
    Err(Error::content(
        format!("{object} is there and is not {digest}"),
        "run the same command again with --repair, which puts it right: nothing that was there before was changed",
    ))
}

/// Whether an upload of a journal can be of a file of this size.
fn fits(begun: &Begun, size: u64) -> bool {
    begun.part_size == part_size(size) && begun.parts.keys().all(|n| (*n as u64) * begun.part_size < size)
}

/// What is read for the parts that are missing.
fn lacking_runs(manifest: &Manifest, at: usize, parts: &Assembly) -> Vec<Run> {
    let chunks = &manifest.files[at].chunks;
    plan::runs_of(manifest, at, |chunk| parts.lacks(chunks[chunk].offset, chunks[chunk].end()))
}

/// The bytes of the parts that are there.
fn sent_of(begun: &Begun, size: u64) -> u64 {
    begun.parts.keys().map(|number| begun.part_size.min(size - *number as u64 * begun.part_size)).sum()
}

pub(crate) fn goes_in_parts(size: u64) -> bool {
    size > PART
}

pub(crate) fn part_size(size: u64) -> u64 {
    size.div_ceil(MOST_PARTS).next_multiple_of(1 << 20).max(PART)
}

/// Parts of one file, put together from runs that come in order.
#[derive(Debug)]
struct Assembly {
    size: u64,
    part_size: u64,
    names: Vec<Option<String>>,
    /// Of the part that is coming.
    pieces: Vec<Bytes>,
}

impl Assembly {
    fn new(size: u64, begun: &Begun) -> Self {
        let count = usize::try_from(size.div_ceil(begun.part_size)).unwrap_or_default();
        let names = (0..count).map(|number| begun.parts.get(&number).cloned()).collect();
        Self { size, part_size: begun.part_size, names, pieces: Vec::new() }
    }

    /// The parts that hold some of these bytes.
    fn touched(&self, from: u64, to: u64) -> std::ops::RangeInclusive<usize> {
        let number = |at: u64| usize::try_from(at / self.part_size).unwrap_or(usize::MAX);
        number(from)..=number(to - 1)
    }

    fn lacks(&self, from: u64, to: u64) -> bool {
        self.touched(from, to).any(|number| self.names[number].is_none())
    }

    /// Takes in a run, and gives out the parts that it makes whole.
    fn take(&mut self, offset: u64, bytes: &Bytes) -> Vec<(usize, Vec<Bytes>)> {
        let end = offset + bytes.len() as u64;
        let mut whole = Vec::new();
        for number in self.touched(offset, end).filter(|number| self.names[*number].is_none()) {
            let first = number as u64 * self.part_size;
            let last = (first + self.part_size).min(self.size);
            let place = |at: u64| usize::try_from(at - offset).unwrap_or_default();
            self.pieces.push(bytes.slice(place(first.max(offset))..place(last.min(end))));
            if last <= end {
                whole.push((number, std::mem::take(&mut self.pieces)));
            }
        }
        whole
    }

    /// Notes a part that was put; false when the store did not know the upload.
    fn note(&mut self, put: Option<(usize, String)>) -> bool {
        let Some((number, name)) = put else { return false };
        self.names[number] = Some(name);
        true
    }

    fn names(self) -> Vec<String> {
        self.names.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cut::{self, Chunker},
        manifest::Chunk,
        store::conformance::{Scratch, memory},
    };

    /// Files whose chunks end just before the parts do, so that each part that is being put together holds two runs.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn two_long_files_do_not_wait_for_each_others_memory() {
        let scratch = Scratch::new();
        std::fs::create_dir_all(&scratch.0).unwrap();
        let len = cut::LONGEST - 1_000;
        let blake3 = *blake3::hash(&vec![0; len as usize]).as_bytes();
        let size = 5 * u64::from(len);
        let chunks: Vec<Chunk> = (0..5).map(|at| Chunk { offset: at * u64::from(len), len, blake3 }).collect();
        let files = ["a", "b", "c"].map(|path| {
            std::fs::File::create(scratch.0.join(path)).unwrap().set_len(size).unwrap();
            let chunks = chunks.clone();
            File { path: path.parse().unwrap(), size, sha256: [0; 32], chunker: Chunker::Fixed, chunks }
        });
        let manifest = Manifest::new("a/b".parse().unwrap(), files.to_vec()).unwrap();
        let (bytes, digest, target) = (manifest.to_bytes(), manifest.digest(), memory());
        let job = Job {
            source: Source::stored(Store::of_directory(&scratch.0), ".", Arc::new(manifest.clone())),
            target: target.clone(),
            version: Found { digest, bytes, manifest },
            signature: None,
            reference: RefName::default(),
            state: scratch.0.join("state"),
            repair: false,
            proved: true,
        };
        let published = tokio::time::timeout(Duration::from_secs(100), publish(job, Arc::new(|_| {}))).await;
        assert_eq!(published.expect("they wait for ever").unwrap().sent, 3 * size);
    }
}
