//! A directory becomes a version of a store.
//!
//! It is read twice: once to know what it is, since the name of a version and what of it need not be sent follow from the
//! hashes, and once to be sent. The second reading is checked against the first, so that a file that changes meanwhile
//! does not end up under hashes of something else. That is a matter of accidents, since who can write to the directory could
//! have done so before: a CRC-64 of each chunk finds them for a tenth of what a hash would cost.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    Digest, Error, Manifest, ModelName, OWN_FOLDER, Store,
    cut::{self, Chunker},
    disk,
    hash::{self, FileHash},
    manifest::{Chunk, File},
    path::{FilePath, RefName},
    publish::{self, Job, Published},
    safetensors,
    source::{Source, changed},
    store::{self, Found},
    transfer::{Event, Watch},
    uploads,
};

/// At the top of a directory, and not the model's: the hub's client keeps its own state in `.cache`.
const NOT_THE_MODELS: [&str; 3] = [".cache", ".git", OWN_FOLDER];

/// Short enough to be hashed twice while it is in the processor's own memory.
const BUFFER: usize = 256 << 10;

/// Files that are hashed at once: a disk gives more than one core can hash.
const MOST_READERS: usize = 8;

/// What to add, and where.
#[derive(Clone, Debug)]
pub struct Add {
    pub from: PathBuf,
    pub model: ModelName,
    pub reference: RefName,
    /// Where the journal lies; see [`crate::uploads`].
    pub state: PathBuf,
    /// Whether to read what is in the store, and to send again what is wrong.
    pub repair: bool,
}

/// What was added, and what is worth saying of it.
#[derive(Debug)]
pub struct Added {
    pub digest: Digest,
    pub manifest: Arc<Manifest>,
    pub published: Published,
    pub notes: Vec<String>,
}

/// Puts what is in a directory into the store and points the ref to it. `on_bytes` is called as it is read the first time.
pub async fn add(
    add: Add,
    store: &Store,
    on_bytes: impl Fn(u64) + Send + Sync + 'static,
    watch: Watch,
) -> Result<Added, Error> {
    let Add { from, model, reference, state, repair } = add;
    // What cannot be used is known before terabytes are hashed.
    uploads::try_out(&state)?;
    store.prove().await?;
    let (directory, in_parts) = (from.clone(), store.signs_parts() && hash::is_side_by_side());
    let hashed = tokio::task::spawn_blocking(move || read_all(&directory, in_parts, &on_bytes)).await;
    let Hashed { files, readings, notes } =
        hashed.unwrap_or_else(|e| Err(Error::environment(format!("a thread ended: {e}"), "try again")))?;
    let manifest = Manifest::new(model, files)
        .map_err(|fault| Error::usage(format!("{} cannot be a version: {fault}", from.display()), "rename it"))?;
    let bytes = manifest.to_bytes();
    let digest = Digest::of(&bytes);
    watch(&Event::Found { digest, total: manifest.total(), files: manifest.files.len() });
    let shared = Arc::new(manifest.clone());
    let source = Source::directory(&from, shared.clone(), readings);
    let version = Found { digest, bytes, manifest };
    let job = Job { source, target: store.clone(), version, signature: None, reference, state, repair, proved: true };
    let published = publish::publish(job, watch).await?;
    Ok(Added { digest, manifest: shared, published, notes })
}

/// What is in a directory.
#[derive(Debug, Default)]
pub(crate) struct Hashed {
    pub(crate) files: Vec<File>,
    pub(crate) readings: Vec<Reading>,
    /// What is worth saying.
    pub(crate) notes: Vec<String>,
}

/// What is known of a file once it was read, beyond what its manifest says.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// Of each chunk, what [`check`] says of it.
    pub(crate) checks: Vec<u64>,
    /// The SHA-256 of each part, where that was asked for and the file goes in parts.
    pub(crate) parts: Vec<[u8; 32]>,
}

/// For noticing that bytes are not those of before: CRC-64/NVME.
pub(crate) fn check() -> crc_fast::Digest {
    crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme)
}

/// A file, and notes on it.
type Read = (File, Reading, Vec<String>);

/// Hashes every file of a directory, and with `in_parts` also the parts in which long ones go into a store.
pub(crate) fn read_all(from: &Path, in_parts: bool, on_bytes: &(dyn Fn(u64) + Sync)) -> Result<Hashed, Error> {
    let mut notes = Vec::new();
    let paths = walk(from, &|path| NOT_THE_MODELS.contains(&path), &mut notes)?;
    let next = AtomicUsize::new(0);
    let read: Mutex<Vec<(usize, Result<Read, Error>)>> = Mutex::new(Vec::with_capacity(paths.len()));
    let readers = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_READERS).min(paths.len());
    std::thread::scope(|scope| {
        for _ in 0..readers {
            scope.spawn(|| {
                while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let at = paths.binary_search(path).unwrap_or_default();
                    let file = read_file(&from.join(path.to_path()), path.clone(), in_parts, on_bytes);
                    if file.is_err() {
                        // The others need not go on.
                        next.store(paths.len(), Ordering::Relaxed);
                    }
                    read.lock().unwrap_or_else(PoisonError::into_inner).push((at, file));
                }
            });
        }
    });
    let mut read = read.into_inner().unwrap_or_else(PoisonError::into_inner);
    read.sort_by_key(|(at, _)| *at);
    let mut hashed = Hashed { notes, ..Hashed::default() };
    for (_, read) in read {
        let (file, reading, words) = read?;
        hashed.files.push(file);
        hashed.readings.push(reading);
        hashed.notes.extend(words);
    }
    Ok(hashed)
}

/// The files of a directory, in order. Everything that is not a plain file or a directory is refused.
pub(crate) fn walk(
    from: &Path,
    left_out: &dyn Fn(&str) -> bool,
    notes: &mut Vec<String>,
) -> Result<Vec<FilePath>, Error> {
    let mut paths = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for name in disk::names(&from.join(&folder))? {
            let below = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            if left_out(&below) {
                notes.push(format!("{below} is not the model's and was left out"));
                continue;
            }
            let path = from.join(&below);
            let kind = fs::symlink_metadata(&path).map_err(|e| Error::io("read", &path, &e))?.file_type();
            if kind.is_dir() {
                folders.push(below);
            } else if kind.is_file() {
                let file = below.parse().map_err(|fault| {
                    Error::usage(
                        format!("{below:?} cannot be in a model: its path {fault}"),
                        "rename it or move it away",
                    )
                })?;
                paths.push(file);
            } else {
                let help =
                    "copy the directory with `cp -rL`, which puts files in the place of links; move other things away";
                return Err(Error::usage(format!("{} is not a plain file", path.display()), help));
            }
        }
    }
    if paths.is_empty() {
        return Err(Error::usage(format!("there is no file in {}", from.display()), "give the model's directory"));
    }
    paths.sort();
    Ok(paths)
}

fn read_file(from: &Path, path: FilePath, in_parts: bool, on_bytes: &(dyn Fn(u64) + Sync)) -> Result<Read, Error> {
    let mut notes = Vec::new();
    let reading = |e| Error::io("read", from, &e);
    let mut source = disk::open(from).map_err(reading)?;
    let size = source.metadata().map_err(reading)?.len();
    let (chunker, lens) = cuts(from, &path, size, &mut notes)?;
    let mut whole = FileHash::new((in_parts && publish::goes_in_parts(size)).then(|| publish::part_size(size)));
    let mut buffer = vec![0; BUFFER];
    let mut chunks = Vec::with_capacity(lens.len());
    let mut checks = Vec::with_capacity(lens.len());
    let mut offset = 0;
    for len in lens {
        let (mut hash, mut check) = (blake3::Hasher::new(), check());
        let mut left = len as usize;
        while left > 0 {
            let piece = &mut buffer[..left.min(BUFFER)];
            source.read_exact(piece).map_err(|e| changed_or(from, &e))?;
            hash.update(piece);
            whole.update(piece);
            check.update(piece);
            left -= piece.len();
            on_bytes(piece.len() as u64);
        }
        chunks.push(Chunk { offset, len, blake3: hash.finalize().into() });
        checks.push(check.finalize());
        offset += u64::from(len);
    }
    if source.read(&mut buffer[..1]).map_err(reading)? > 0 {
        return Err(changed(&from.display().to_string()));
    }
    let (sha256, parts) = whole.finalize();
    Ok((File { path, size, sha256, chunker, chunks }, Reading { checks, parts }, notes))
}

fn changed_or(path: &Path, error: &std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        changed(&path.display().to_string())
    } else {
        Error::io("read", path, error)
    }
}

/// How to cut a file. One that calls itself safetensors and is not is a file like others, which is worth a word.
fn cuts(from: &Path, path: &FilePath, size: u64, notes: &mut Vec<String>) -> Result<(Chunker, Vec<u32>), Error> {
    if !path.as_str().ends_with(".safetensors") {
        return Ok((Chunker::Fixed, cut::fixed(size)));
    }
    let fault = match layout(from, size)? {
        Ok(layout) => return Ok((Chunker::Safetensors, cut::at_tensors(&layout, size))),
        Err(fault) => fault,
    };
    notes.push(format!("{path} is not safetensors, {fault}: cut every 16 MiB"));
    Ok((Chunker::Fixed, cut::fixed(size)))
}

fn layout(from: &Path, size: u64) -> Result<Result<safetensors::Layout, safetensors::HeaderFault>, Error> {
    if size < safetensors::PREFIX {
        return Ok(Err(safetensors::HeaderFault::Short));
    }
    let mut file = disk::open(from).map_err(|e| Error::io("read", from, &e))?;
    let mut prefix = [0; 8];
    file.read_exact(&mut prefix).map_err(|e| changed_or(from, &e))?;
    let len = match safetensors::header_len(prefix, size) {
        Ok(len) => len,
        Err(fault) => return Ok(Err(fault)),
    };
    let mut header = vec![0; len];
    file.read_exact(&mut header).map_err(|e| changed_or(from, &e))?;
    Ok(safetensors::layout(&header, size))
}

/// The directory of the version that lies in a store, for what reads it in place.
pub fn version_folder(root: &Path, model: &ModelName, digest: &Digest) -> PathBuf {
    root.join(store::version_object(model, digest))
}
