//! Everything read again: every chunk and every file against the manifest, and what lies there besides.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    path::Path,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sha2::{Digest as _, Sha256};

use crate::{
    Digest, Error, Manifest, OWN_FOLDER, add, disk,
    manifest::File,
    path::FilePath,
    plan, sign,
    store::{self, Meta, Store},
};

const BUFFER: usize = 1 << 20;

/// Objects of a store that are read at once, at most 16 MiB of each.
pub(crate) const FILES: usize = 4;

/// Something that is not as the manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub path: String,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Missing,
    /// Its size, where another was expected.
    Size {
        is: u64,
        expected: u64,
    },
    /// Chunks whose bytes have another hash: how many, and the first one's place.
    Chunks {
        bad: usize,
        offset: u64,
    },
    /// Every chunk is right and the whole is not: the manifest contradicts itself.
    Sha256,
    /// A link, a directory or something else in a file's place.
    NotAFile,
    /// No file of the manifest.
    Unlisted,
    /// Its SHA-256 is not the one that was signed.
    NotAsSigned,
    /// The signature does not know it.
    NotSigned,
}

impl What {
    /// One word, for scripts.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Size { .. } => "size",
            Self::Chunks { .. } => "chunks",
            Self::Sha256 => "sha256",
            Self::NotAFile => "not_a_file",
            Self::Unlisted => "unlisted",
            Self::NotAsSigned => "not_as_signed",
            Self::NotSigned => "not_signed",
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ", self.path)?;
        match &self.what {
            What::Missing => f.write_str("it is missing"),
            What::Size { is, expected } => write!(f, "it has {is} bytes where {expected} were published"),
            What::Chunks { bad, offset } => write!(f, "{bad} of its chunks differ, the first at byte {offset}"),
            What::Sha256 => f.write_str("its chunks are right and its SHA-256 is not: the manifest contradicts itself"),
            What::NotAFile => f.write_str("it is not a plain file"),
            What::Unlisted => f.write_str("it is in the directory and not in the manifest"),
            What::NotAsSigned => f.write_str("it is not what was signed"),
            What::NotSigned => f.write_str("it is there and was not signed"),
        }
    }
}

/// Compares a version's directory with its manifest.
pub fn verify(folder: &Path, manifest: &Manifest, on_bytes: &dyn Fn(u64)) -> Result<Vec<Problem>, Error> {
    let mut problems = Vec::new();
    for file in &manifest.files {
        if let Some(what) = check(folder, file, on_bytes)? {
            problems.push(Problem { path: file.path.to_string(), what });
        }
    }
    unlisted(folder, manifest, &mut problems)?;
    Ok(problems)
}

fn check(folder: &Path, file: &File, on_bytes: &dyn Fn(u64)) -> Result<Option<What>, Error> {
    let path = folder.join(file.path.to_path());
    let meta = match std::fs::symlink_metadata(&path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Some(What::Missing)),
        Err(e) => return Err(Error::io("read", &path, &e)),
    };
    if !meta.is_file() {
        return Ok(Some(What::NotAFile));
    }
    if meta.len() != file.size {
        return Ok(Some(What::Size { is: meta.len(), expected: file.size }));
    }
    let reading = |e| Error::io("read", &path, &e);
    let mut source = disk::open(&path).map_err(reading)?;
    let mut whole = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    let mut bad = Vec::new();
    for chunk in &file.chunks {
        let mut hash = blake3::Hasher::new();
        let mut left = chunk.len as usize;
        while left > 0 {
            let piece = &mut buffer[..left.min(BUFFER)];
            source.read_exact(piece).map_err(reading)?;
            hash.update(piece);
            whole.update(&*piece);
            left -= piece.len();
            on_bytes(piece.len() as u64);
        }
        if *hash.finalize().as_bytes() != chunk.blake3 {
            bad.push(chunk.offset);
        }
    }
    if let Some(&offset) = bad.first() {
        return Ok(Some(What::Chunks { bad: bad.len(), offset }));
    }
    let sha256: [u8; 32] = whole.finalize().into();
    Ok((sha256 != file.sha256).then_some(What::Sha256))
}

/// The SHA-256 of each file of a directory that no manifest describes, without what is left out.
pub(crate) fn hashes(
    folder: &Path,
    left_out: &[String],
    on_bytes: &dyn Fn(u64),
) -> Result<Vec<(FilePath, [u8; 32])>, Error> {
    let mut buffer = vec![0; BUFFER];
    let mut hash = |path: FilePath| {
        let place = folder.join(path.to_path());
        let reading = |e| Error::io("read", &place, &e);
        let mut source = disk::open(&place).map_err(reading)?;
        let mut whole = Sha256::new();
        loop {
            let len = source.read(&mut buffer).map_err(reading)?;
            if len == 0 {
                return Ok((path, whole.finalize().into()));
            }
            whole.update(&buffer[..len]);
            on_bytes(len as u64);
        }
    };
    add::walk(folder, &|path| sign::is_left_out(left_out, path), &mut Vec::new())?.into_iter().map(&mut hash).collect()
}

fn unlisted(folder: &Path, manifest: &Manifest, problems: &mut Vec<Problem>) -> Result<(), Error> {
    let listed: BTreeSet<&str> = manifest.files.iter().map(|file| file.path.as_str()).collect();
    let above: BTreeSet<&str> = manifest.files.iter().flat_map(|file| file.path.folders()).collect();
    let mut folders = vec![String::new()];
    while let Some(below) = folders.pop() {
        for name in disk::names(&folder.join(&below))? {
            if below.is_empty() && name == OWN_FOLDER {
                continue;
            }
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            // Not through links: what one leads to is not in this directory.
            let is_folder = std::fs::symlink_metadata(folder.join(&path)).is_ok_and(|meta| meta.is_dir());
            if is_folder && above.contains(path.as_str()) {
                folders.push(path);
            } else if !listed.contains(path.as_str()) {
                problems.push(Problem { path, what: What::Unlisted });
            }
        }
    }
    Ok(())
}

/// Compares a version where it lies in a store with its manifest, by reading all of it. Where the store cannot be listed, what
/// lies there besides is not seen.
pub async fn verify_stored(
    store: &Store,
    manifest: &Manifest,
    digest: &Digest,
    on_bytes: &(dyn Fn(u64) + Sync),
) -> Result<Vec<Problem>, Error> {
    let folder = store::version_object(&manifest.model, digest);
    let listed = match store {
        Store::Web(_) => None,
        _ => Some(store.objects(&folder).await?),
    };
    let name = |meta: &Meta| Some(meta.object.strip_prefix(&folder)?.strip_prefix('/')?.to_owned());
    let sizes = listed.map(|all| all.iter().filter_map(|meta| Some((name(meta)?, meta.size))).collect());
    let sizes: Option<BTreeMap<String, u64>> = sizes;
    let size_of = |file: &File| sizes.as_ref().map(|sizes| sizes.get(file.path.as_str()).copied());
    let mut problems = Vec::new();
    let checks = manifest.files.iter().map(|file| {
        let (object, size) = (format!("{folder}/{}", file.path), size_of(file));
        async move {
            let what = match size {
                Some(None) => Some(What::Missing),
                Some(Some(is)) if is != file.size => Some(What::Size { is, expected: file.size }),
                _ => check_stored(store, &object, file, on_bytes).await?,
            };
            Ok::<_, Error>(what.map(|what| Problem { path: file.path.to_string(), what }))
        }
    });
    let mut checked = stream::iter(checks).buffered(FILES);
    while let Some(problem) = checked.try_next().await? {
        problems.extend(problem);
    }
    drop(checked);
    let known: BTreeSet<&str> = manifest.files.iter().map(|file| file.path.as_str()).collect();
    let own = format!("{OWN_FOLDER}/");
    let others = sizes.iter().flatten().filter(|(name, _)| !known.contains(name.as_str()) && !name.starts_with(&own));
    problems.extend(others.map(|(name, _)| Problem { path: name.clone(), what: What::Unlisted }));
    Ok(problems)
}

/// What is wrong with an object of the right size, if anything. Each of its chunks is read once.
pub(crate) async fn check_stored(
    store: &Store,
    object: &str,
    file: &File,
    on_bytes: &(dyn Fn(u64) + Sync),
) -> Result<Option<What>, Error> {
    let (mut whole, mut bad) = (Sha256::new(), Vec::new());
    if file.size == 0 && store.whole(object, 1).await?.is_none() {
        return Ok(Some(What::Missing));
    }
    for run in plan::runs_in(std::slice::from_ref(file), |_, _| true) {
        let (from, len) = run.range_in(std::slice::from_ref(file));
        let Some(bytes) = store.some(object, (from, len)).await? else { return Ok(Some(What::Missing)) };
        for chunk in &file.chunks[run.first..run.end] {
            let at = usize::try_from(chunk.offset - from).unwrap_or_default();
            if *blake3::hash(&bytes[at..at + chunk.len as usize]).as_bytes() != chunk.blake3 {
                bad.push(chunk.offset);
            }
        }
        whole.update(&bytes);
        on_bytes(len);
    }
    if let Some(&offset) = bad.first() {
        return Ok(Some(What::Chunks { bad: bad.len(), offset }));
    }
    let sha256: [u8; 32] = whole.finalize().into();
    Ok((sha256 != file.sha256).then_some(What::Sha256))
}
