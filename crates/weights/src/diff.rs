//! Two versions beside each other: files, the tensors of those that changed, and what a pull of one over the other fetches.
//!
//! It goes by the manifests, whose hashes are of chunks: a tensor that fills chunks of its own is told by them. A small one
//! shares its chunk with others, and which of them changed only the bytes tell; they are compared where both sides lie on this
//! machine, and elsewhere the tensor is listed as one that may have changed, since fetching both to know would cost what a diff
//! is asked for to save. Only headers are fetched, and hashed before they are believed.

use std::{
    collections::BTreeMap,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use crate::{
    Digest, Error, OWN_FOLDER, Store, Wanted, add,
    cut::Chunker,
    disk,
    manifest::File,
    path::FilePath,
    reuse,
    safetensors::{self, Named},
    store, target,
};

const READ_AT_ONCE: u64 = 1 << 20;

/// A version, or a directory.
#[derive(Debug)]
pub struct Side {
    pub name: String,
    pub digest: Option<Digest>,
    pub files: Vec<File>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Folder(PathBuf),
    Store { store: Store, folder: String },
}

/// What differs. Bytes are of files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    pub added: Vec<(FilePath, u64)>,
    pub removed: Vec<(FilePath, u64)>,
    pub changed: Vec<Changed>,
    pub unchanged: usize,
    /// What a pull of the second would fetch with the first at hand, and in how many requests.
    pub fetch_bytes: u64,
    pub fetch_requests: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub path: FilePath,
    /// Before and after.
    pub size: (u64, u64),
    /// In chunks that the file before does not have.
    pub new_bytes: u64,
    /// Of a safetensors file.
    pub tensors: Option<Tensors>,
}

/// Tensors by name, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tensors {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    /// Other bytes, another type or another shape.
    pub changed: Vec<String>,
    /// In a chunk that changed, together with others.
    pub perhaps: Vec<String>,
    pub unchanged: usize,
}

impl Side {
    /// A directory: by its manifest if it was pulled, and otherwise read and cut.
    pub fn directory(dir: &Path, on_bytes: &(dyn Fn(u64) + Sync)) -> Result<Self, Error> {
        let (digest, files) = if dir.join(OWN_FOLDER).join("manifest.json").exists() {
            let (digest, manifest, _) = target::manifest_of(dir)?;
            (Some(digest), manifest.files)
        } else {
            (None, add::read_all(dir, false, on_bytes)?.files)
        };
        Ok(Self { name: dir.display().to_string(), digest, files, place: Place::Folder(dir.to_owned()) })
    }

    /// A version of a store.
    pub async fn version(store: &Store, wanted: &Wanted) -> Result<Self, Error> {
        let found = store.find(wanted).await?;
        let folder = store::version_object(&wanted.model, &found.digest);
        let place = match store {
            Store::Folder(root) => Place::Folder(root.root().join(folder)),
            Store::Bucket(_) | Store::Web(_) => Place::Store { store: store.clone(), folder },
        };
        Ok(Self { name: wanted.to_string(), digest: Some(found.digest), files: found.manifest.files, place })
    }

    /// The header of a safetensors file, whose chunks are its own.
    async fn header(&self, file: &File) -> Result<Vec<Named>, Error> {
        let damaged = || {
            Error::content(
                format!("{}: the header of {} is not what its manifest says", self.name, file.path),
                "`outrigger weights verify` says what is damaged",
            )
        };
        let mut bytes = Vec::new();
        let mut end = safetensors::PREFIX;
        for chunk in &file.chunks {
            if chunk.offset >= end {
                break;
            }
            let piece = self.read(file, chunk.offset, u64::from(chunk.len)).await?;
            if *blake3::hash(&piece).as_bytes() != chunk.blake3 {
                return Err(damaged());
            }
            bytes.extend(piece);
            if let Some(prefix) = bytes.first_chunk() {
                end = safetensors::PREFIX + safetensors::header_len(*prefix, file.size).map_err(|_| damaged())? as u64;
            }
        }
        let header = bytes.get(safetensors::PREFIX as usize..end as usize).ok_or_else(damaged)?;
        safetensors::tensors(header, file.size).map_err(|_| damaged())
    }

    async fn read(&self, file: &File, from: u64, len: u64) -> Result<Vec<u8>, Error> {
        match &self.place {
            Place::Folder(folder) => read_local(&folder.join(file.path.to_path()), from, len),
            Place::Store { store, folder } => {
                let object = format!("{folder}/{}", file.path);
                store.some(&object, (from, len)).await?.ok_or_else(|| {
                    let message = format!("the store has no {object}");
                    Error::content(message, "publish the version again: a part of it was deleted")
                })
            }
        }
    }

    fn local(&self, file: &File) -> Option<PathBuf> {
        match &self.place {
            Place::Folder(folder) => Some(folder.join(file.path.to_path())),
            Place::Store { .. } => None,
        }
    }
}

fn read_local(path: &Path, from: u64, len: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    disk::open(path).and_then(|file| file.read_exact_at(&mut bytes, from)).map_err(|e| Error::io("read", path, &e))?;
    Ok(bytes)
}

/// What differs from one to the other.
pub async fn diff(before: &Side, after: &Side) -> Result<Diff, Error> {
    let old: BTreeMap<&FilePath, &File> = before.files.iter().map(|file| (&file.path, file)).collect();
    let mut diff = Diff::default();
    for file in &after.files {
        match old.get(&file.path) {
            None => diff.added.push((file.path.clone(), file.size)),
            Some(old) if (old.sha256, old.size) == (file.sha256, file.size) => diff.unchanged += 1,
            Some(old) => diff.changed.push(changed((before, old), (after, file)).await?),
        }
    }
    let is_there = |path: &FilePath| after.files.iter().any(|file| file.path == *path);
    diff.removed = before.files.iter().filter(|f| !is_there(&f.path)).map(|f| (f.path.clone(), f.size)).collect();
    (diff.fetch_bytes, diff.fetch_requests) = reuse::fetch_after(&after.files, &[&before.files]);
    Ok(diff)
}

async fn changed((before, old): (&Side, &File), (after, new): (&Side, &File)) -> Result<Changed, Error> {
    let one = std::slice::from_ref;
    let (new_bytes, _) = reuse::fetch_after(one(new), &[one(old)]);
    let mut tensors = None;
    if (old.chunker, new.chunker) == (Chunker::Safetensors, Chunker::Safetensors) {
        let (a, b) = (before.header(old).await?, after.header(new).await?);
        let mut found = compare((old, &a), (new, &b));
        if let (Some(from), Some(to)) = (before.local(old), after.local(new)) {
            decide(&mut found, (&from, &a), (&to, &b))?;
        }
        tensors = Some(found);
    }
    Ok(Changed { path: new.path.clone(), size: (old.size, new.size), new_bytes, tensors })
}

/// What the chunks' hashes say of the tensors.
fn compare((old, before): (&File, &[Named]), (new, after): (&File, &[Named])) -> Tensors {
    let there: BTreeMap<&str, &Named> = before.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let mut found = Tensors::default();
    for tensor in after {
        match there.get(tensor.name.as_str()) {
            None => found.added.push(tensor.name.clone()),
            Some(was) => match same((old, was), (new, tensor)) {
                Some(true) => found.unchanged += 1,
                Some(false) => found.changed.push(tensor.name.clone()),
                None => found.perhaps.push(tensor.name.clone()),
            },
        }
    }
    let kept = |name: &str| after.binary_search_by(|tensor| tensor.name.as_str().cmp(name)).is_ok();
    found.removed = before.iter().filter(|tensor| !kept(&tensor.name)).map(|tensor| tensor.name.clone()).collect();
    found
}

/// Whether two tensors are the same, where the hashes of their chunks can tell.
fn same((old, was): (&File, &Named), (new, is): (&File, &Named)) -> Option<bool> {
    let len = |tensor: &Named| tensor.end - tensor.begin;
    if (&was.dtype, &was.shape, len(was)) != (&is.dtype, &is.shape, len(is)) {
        return Some(false);
    }
    if len(is) == 0 {
        return Some(true);
    }
    let (before, after) = (covering(old, was), covering(new, is));
    let hashes = |chunks: &[crate::manifest::Chunk]| chunks.iter().map(|c| (c.len, c.blake3)).collect::<Vec<_>>();
    let equal = hashes(before) == hashes(after);
    let skipped =
        |chunks: &[crate::manifest::Chunk], tensor: &Named| tensor.begin - chunks.first().map_or(0, |c| c.offset);
    if equal && skipped(before, was) == skipped(after, is) {
        return Some(true);
    }
    let alone = |chunks: &[crate::manifest::Chunk], tensor: &Named| {
        chunks.first().is_some_and(|c| c.offset == tensor.begin) && chunks.last().is_some_and(|c| c.end() == tensor.end)
    };
    (alone(before, was) && alone(after, is)).then_some(false)
}

/// The chunks that have a tensor's bytes.
fn covering<'a>(file: &'a File, tensor: &Named) -> &'a [crate::manifest::Chunk] {
    let first = file.chunks.partition_point(|chunk| chunk.end() <= tensor.begin);
    let end = file.chunks.partition_point(|chunk| chunk.offset < tensor.end);
    &file.chunks[first..end]
}

/// Reads what the hashes could not tell. The tensors that are asked for are in both, and as long in both.
fn decide(found: &mut Tensors, (from, before): (&Path, &[Named]), (to, after): (&Path, &[Named])) -> Result<(), Error> {
    let find =
        |tensors: &[Named], name: &str| tensors.iter().find(|tensor| tensor.name == name).map(|t| (t.begin, t.end));
    for name in std::mem::take(&mut found.perhaps) {
        let (Some((a, _)), Some((b, end))) = (find(before, &name), find(after, &name)) else { continue };
        if equal((from, a), (to, b), end - b)? {
            found.unchanged += 1;
        } else {
            found.changed.push(name);
        }
    }
    found.changed.sort();
    Ok(())
}

fn equal((from, a): (&Path, u64), (to, b): (&Path, u64), len: u64) -> Result<bool, Error> {
    let mut at = 0;
    while at < len {
        let now = (len - at).min(READ_AT_ONCE);
        if read_local(from, a + at, now)? != read_local(to, b + at, now)? {
            return Ok(false);
        }
        at += now;
    }
    Ok(true)
}
