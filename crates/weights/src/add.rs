//! A directory becomes a version of a store.
//!
//! Each file is read once: what is hashed is what was copied, so that a file that changes meanwhile cannot end up under
//! hashes of something else. All of it is made beside its place and moved there whole, and the ref after that; a kill
//! before leaves the store as it was, and what it left is swept up by the next add of the model.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::{
    Digest, Error, Manifest, ModelName, OWN_FOLDER,
    cut::{self, Chunker},
    disk,
    manifest::{Chunk, File},
    path::{FilePath, RefName},
    safetensors, store,
};

/// At the top of a directory, and not the model's: the hub's client keeps its own state in `.cache`.
const NOT_THE_MODELS: [&str; 3] = [".cache", ".git", OWN_FOLDER];

const BUFFER: usize = 1 << 20;

/// What was added, and what is worth saying of it.
#[derive(Debug)]
pub struct Added {
    pub digest: Digest,
    pub manifest: Manifest,
    /// The store had this very version already.
    pub known: bool,
    pub notes: Vec<String>,
}

/// Puts what is in `from` into the store at `root` and points the ref to it.
pub fn add(
    from: &Path,
    root: &Path,
    model: &ModelName,
    name: &RefName,
    on_bytes: &dyn Fn(u64),
) -> Result<Added, Error> {
    let mut notes = Vec::new();
    let paths = walk(from, &|path| NOT_THE_MODELS.contains(&path), &mut notes)?;
    let home = root.join("models").join(model.as_str());
    disk::make_folder(&home)?;
    let _lock = disk::lock(&home.join(".lock"), &format!("{model} in this store"))?;
    sweep(&home)?;
    let staging = home.join(format!(".adding-{}", std::process::id()));
    let added = copy_all(from, &staging, paths, &mut notes, on_bytes).and_then(|files| {
        let manifest = Manifest::new(model.clone(), files)
            .map_err(|fault| Error::usage(format!("{} cannot be a version: {fault}", from.display()), "rename it"))?;
        publish(root, &staging, model, name, manifest)
    });
    if staging.exists() {
        fs::remove_dir_all(&staging).ok();
    }
    let (digest, manifest, known) = added?;
    Ok(Added { digest, manifest, known, notes })
}

/// What adds that were killed have left.
fn sweep(home: &Path) -> Result<(), Error> {
    for name in disk::names(home)?.iter().filter(|name| name.starts_with(".adding-")) {
        let path = home.join(name);
        fs::remove_dir_all(&path).map_err(|e| Error::io("remove", &path, &e))?;
    }
    Ok(())
}

fn publish(
    root: &Path,
    staging: &Path,
    model: &ModelName,
    name: &RefName,
    manifest: Manifest,
) -> Result<(Digest, Manifest, bool), Error> {
    let bytes = manifest.to_bytes();
    let digest = Digest::of(&bytes);
    let version = root.join(store::version_object(model, &digest));
    let known = version.exists();
    if known {
        let there = store::read_small(&root.join(store::manifest_object(model, &digest)), crate::manifest::LONGEST)?;
        if there.as_ref() != Some(&bytes) {
            return Err(Error::content(
                format!("{} is there and is not {digest}", version.display()),
                "move it away: nothing of it was changed",
            ));
        }
    } else {
        disk::make_folder(&staging.join(OWN_FOLDER))?;
        disk::write_atomically(&staging.join(OWN_FOLDER).join("manifest.json"), &bytes)?;
        disk::sync_folder_of(&staging.join(OWN_FOLDER))?;
        fs::rename(staging, &version).map_err(|e| Error::io("move into place", &version, &e))?;
        disk::sync_folder_of(&version)?;
    }
    let reference = root.join(store::ref_object(model, name));
    disk::make_folder(reference.parent().unwrap_or(root))?;
    disk::write_atomically(&reference, &store::ref_text(&digest))?;
    Ok((digest, manifest, known))
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

fn copy_all(
    from: &Path,
    staging: &Path,
    paths: Vec<FilePath>,
    notes: &mut Vec<String>,
    on_bytes: &dyn Fn(u64),
) -> Result<Vec<File>, Error> {
    disk::make_folder(staging)?;
    let mut folders = std::collections::BTreeSet::new();
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        let to = staging.join(path.to_path());
        let folder = to.parent().unwrap_or(staging).to_owned();
        if folders.insert(folder.clone()) {
            disk::make_folder(&folder)?;
        }
        files.push(copy(&from.join(path.to_path()), Some(&to), path, notes, on_bytes)?);
    }
    // Names last only when their folders were synced, and theirs.
    folders.insert(staging.to_owned());
    for folder in &folders {
        disk::sync_folder_of(&folder.join("x"))?;
    }
    Ok(files)
}

/// The files of a directory, cut and hashed as [`add`] would, and nothing written.
pub fn describe(from: &Path, notes: &mut Vec<String>, on_bytes: &dyn Fn(u64)) -> Result<Vec<File>, Error> {
    let paths = walk(from, &|path| NOT_THE_MODELS.contains(&path), notes)?;
    paths.into_iter().map(|path| copy(&from.join(path.to_path()), None, path, notes, on_bytes)).collect()
}

/// Copies a file, if it is to be copied, and hashes what was read.
fn copy(
    from: &Path,
    to: Option<&Path>,
    path: FilePath,
    notes: &mut Vec<String>,
    on_bytes: &dyn Fn(u64),
) -> Result<File, Error> {
    let reading = |e| Error::io("read", from, &e);
    let mut source = disk::open(from).map_err(reading)?;
    let size = source.metadata().map_err(reading)?.len();
    let (chunker, lens) = cuts(from, &path, size, notes)?;
    let writing = |e| Error::io("write", to.unwrap_or(from), &e);
    let mut out = to.map(fs::File::create_new).transpose().map_err(writing)?;
    let mut whole = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    let mut chunks = Vec::with_capacity(lens.len());
    let mut offset = 0;
    for len in lens {
        let mut hash = blake3::Hasher::new();
        let mut left = len as usize;
        while left > 0 {
            let piece = &mut buffer[..left.min(BUFFER)];
            source.read_exact(piece).map_err(|e| changed_or(from, &e))?;
            hash.update(piece);
            whole.update(&*piece);
            if let Some(out) = &mut out {
                out.write_all(piece).map_err(writing)?;
            }
            left -= piece.len();
            on_bytes(piece.len() as u64);
        }
        chunks.push(Chunk { offset, len, blake3: hash.finalize().into() });
        offset += u64::from(len);
    }
    if source.read(&mut buffer[..1]).map_err(reading)? > 0 {
        return Err(changed(from));
    }
    if let Some(out) = out {
        out.sync_all().map_err(writing)?;
    }
    Ok(File { path, size, sha256: whole.finalize().into(), chunker, chunks })
}

fn changed(path: &Path) -> Error {
    Error::environment(format!("{} changed while it was read", path.display()), "add it when nobody writes to it")
}

fn changed_or(path: &Path, error: &std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::UnexpectedEof { changed(path) } else { Error::io("read", path, error) }
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
