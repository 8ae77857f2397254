//! Buckets as folders and objects as files, and the one lock under which an object is looked at, judged and replaced.
//!
//! A condition and the write that hangs on it are one step under that lock, which is what makes the store fit for testing
//! leases and refs. No body is copied under it.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use http::HeaderMap;
use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};

use crate::store::refusal::Refusal;

/// Headers of an upload that come back with the object; those that begin with `x-amz-meta-` do too.
const KEPT: &[&str] = &["content-type", "cache-control", "content-disposition", "content-encoding", "content-language"];

#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    lock: Mutex<()>,
    next: AtomicU64,
}

/// What is known of an object beside its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    /// Without quotes.
    pub(super) etag: String,
    pub(super) headers: Vec<(String, String)>,
    /// Of the file that this was written for: of another that was put in its place it says nothing.
    inode: u64,
    size: u64,
}

impl Meta {
    /// Of an object that stands nowhere yet.
    pub(super) fn new(etag: String, headers: Vec<(String, String)>) -> Self {
        Self { etag, headers, inode: 0, size: 0 }
    }
}

#[derive(Debug)]
pub(super) struct Object {
    pub(super) file: fs::File,
    pub(super) size: u64,
    pub(super) modified: SystemTime,
    pub(super) meta: Meta,
}

/// `If-Match` and `If-None-Match` of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions {
    if_match: Option<String>,
    if_none_match: Option<String>,
    /// Google's condition of a write; 0 is that there is no object.
    generation: Option<u64>,
}

/// What Google calls a version of an object, which is a number. Ours follows from the bytes, as an ETag does.
pub(super) fn generation(etag: &str) -> u64 {
    u64::from_str_radix(etag.get(..15).unwrap_or_default(), 16).unwrap_or_default() + 1
}

impl Conditions {
    /// `before` is what stands before the names: copies have conditions on their source, too.
    pub(super) fn of(headers: &HeaderMap, before: &str) -> Self {
        let get = |name: &str| headers.get(format!("{before}{name}")).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let generation = get("x-goog-if-generation-match").and_then(|number| number.parse().ok());
        Self { if_match: get("if-match"), if_none_match: get("if-none-match"), generation }
    }

    pub(super) fn for_reading(&self, etag: &str) -> Result<(), Refusal> {
        if self.if_match.as_deref().is_some_and(|wanted| !names(wanted, etag)) {
            return Err(Refusal::precondition("If-Match"));
        }
        if self.if_none_match.as_deref().is_some_and(|known| names(known, etag)) {
            return Err(Refusal::new(304, "NotModified", "it is the one that you have"));
        }
        Ok(())
    }

    fn for_writing(&self, key: &str, current: Option<&str>) -> Result<(), Refusal> {
        if self.generation.is_some_and(|wanted| wanted != current.map_or(0, generation)) {
            return Err(Refusal::precondition("x-goog-if-generation-match"));
        }
        match (&self.if_match, &self.if_none_match, current) {
            (_, Some(other), _) if other != "*" => {
                Err(Refusal::new(501, "NotImplemented", "If-None-Match of a write can only be *"))
            }
            (_, Some(_), Some(_)) => Err(Refusal::precondition("If-None-Match")),
            (Some(_), _, None) => Err(Refusal::no_such_key(key)),
            (Some(wanted), _, Some(etag)) if !names(wanted, etag) => Err(Refusal::precondition("If-Match")),
            _ => Ok(()),
        }
    }
}

fn names(list: &str, etag: &str) -> bool {
    list.split(',')
        .map(|one| one.trim().trim_start_matches("W/").trim_matches('"'))
        .any(|one| one == "*" || one == etag)
}

/// A file that goes when nobody has moved it to its place.
#[derive(Debug)]
pub(super) struct Temporary {
    pub(super) file: fs::File,
    path: PathBuf,
}

impl Temporary {
    /// Moves it to another place among the store's own files.
    pub(super) fn keep(&self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Of one that was moved away there is nothing here.
        let _ = fs::remove_file(&self.path);
    }
}

impl Disk {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let disk = Self { root: root.to_owned(), lock: Mutex::new(()), next: AtomicU64::new(1) };
        let _ = fs::remove_dir_all(disk.own("tmp"));
        for folder in ["tmp", "uploads", "meta"] {
            fs::create_dir_all(disk.own(folder))?;
        }
        Ok(disk)
    }

    /// A place among the store's own files.
    pub(super) fn own(&self, name: &str) -> PathBuf {
        self.root.join(".store").join(name)
    }

    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn temporary(&self) -> io::Result<Temporary> {
        let path = self.own("tmp").join(self.number().to_string());
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        Ok(Temporary { file, path })
    }

    pub(super) fn buckets(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() && is_bucket(&name) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    pub(super) fn bucket(&self, name: &str) -> Result<PathBuf, Refusal> {
        let path = self.root.join(name);
        if is_bucket(name) && path.is_dir() { Ok(path) } else { Err(Refusal::no_such_bucket(name)) }
    }

    pub(super) fn create_bucket(&self, name: &str) -> Result<(), Refusal> {
        if !is_bucket(name) {
            return Err(Refusal::new(400, "InvalidBucketName", format!("{name} is no name for a bucket")));
        }
        Ok(fs::create_dir_all(self.root.join(name))?)
    }

    pub(super) fn delete_bucket(&self, name: &str) -> Result<(), Refusal> {
        fs::remove_dir(self.bucket(name)?).map_err(|e| match e.kind() {
            io::ErrorKind::DirectoryNotEmpty => Refusal::new(409, "BucketNotEmpty", "it has objects"),
            _ => e.into(),
        })
    }

    pub(super) fn look(&self, bucket: &str, key: &str) -> Result<Object, Refusal> {
        let _looking = self.locked();
        self.find(bucket, key)?.ok_or_else(|| Refusal::no_such_key(key))
    }

    /// Moves a file that is whole into its place, if the conditions allow it.
    pub(super) fn place(
        &self,
        bucket: &str,
        key: &str,
        whole: &Temporary,
        meta: Meta,
        conditions: &Conditions,
    ) -> Result<(), Refusal> {
        let path = self.path(bucket, key)?;
        let _placing = self.locked();
        let current = self.find(bucket, key)?;
        conditions.for_writing(key, current.as_ref().map(|object| &*object.meta.etag))?;
        let about = whole.file.metadata()?;
        let meta = Meta { inode: about.ino(), size: about.len(), ..meta };
        let folder = path.parent().expect("an object lies in its bucket");
        if path.is_dir() || fs::create_dir_all(folder).is_err() {
            let why = "this store keeps objects as files in folders: a key cannot be below another";
            return Err(Refusal::new(409, "OperationAborted", why));
        }
        let text = serde_json::to_vec(&meta).map_err(io::Error::from)?;
        let beside = self.temporary()?;
        (&beside.file).write_all(&text)?;
        fs::rename(&beside.path, self.meta_path(bucket, key))?;
        Ok(fs::rename(&whole.path, path)?)
    }

    pub(super) fn delete(&self, bucket: &str, key: &str, conditions: &Conditions) -> Result<(), Refusal> {
        let path = self.path(bucket, key)?;
        let _deleting = self.locked();
        let Some(current) = self.find(bucket, key)? else { return Ok(()) };
        conditions.for_writing(key, Some(&current.meta.etag))?;
        fs::remove_file(&path)?;
        let _ = fs::remove_file(self.meta_path(bucket, key));
        // Folders are only there for their objects, but a bucket stays.
        let bucket = self.root.join(bucket);
        for folder in path.ancestors().skip(1).take_while(|folder| **folder != *bucket) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Where an object lies or would lie.
    pub(super) fn path(&self, bucket: &str, key: &str) -> Result<PathBuf, Refusal> {
        let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
        if !key.split('/').all(plain) {
            let why = "this store keeps keys as paths: no part may be empty, . or ..";
            return Err(Refusal::invalid(why));
        }
        if key.len() > 1024 || key.split('/').any(|part| part.len() > 255) {
            return Err(Refusal::new(400, "KeyTooLongError", "the key, or a part of it, is too long"));
        }
        Ok(self.bucket(bucket)?.join(key))
    }

    fn find(&self, bucket: &str, key: &str) -> Result<Option<Object>, Refusal> {
        let file = match fs::File::open(self.path(bucket, key)?) {
            Ok(file) => file,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let about = file.metadata()?;
        if about.is_dir() {
            return Ok(None);
        }
        let written = fs::read(self.meta_path(bucket, key)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let meta = written.filter(|meta: &Meta| (meta.inode, meta.size) == (about.ino(), about.len()));
        Ok(Some(Object {
            size: about.len(),
            modified: about.modified()?,
            meta: meta.unwrap_or_else(|| put_by_hand(&about)),
            file,
        }))
    }

    /// By a hash, since a key can be longer than a file's name.
    fn meta_path(&self, bucket: &str, key: &str) -> PathBuf {
        self.own("meta").join(hex(&Md5::digest(format!("{bucket}/{key}"))))
    }

    fn locked(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an upload says of an object.
pub(super) fn kept_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let kept = |name: &str| KEPT.contains(&name) || name.starts_with("x-amz-meta-");
    let kept = headers.iter().filter(|(name, _)| kept(name.as_str())).filter_map(|(name, value)| {
        let value = value.to_str().ok()?;
        if name != "content-encoding" {
            return Some((name.to_string(), value.to_owned()));
        }
        // The frames around the body are not a part of it.
        let codings = value.split(',').map(str::trim).filter(|coding| *coding != "aws-chunked");
        let codings: Vec<&str> = codings.collect();
        (!codings.is_empty()).then(|| (name.to_string(), codings.join(", ")))
    });
    kept.collect()
}

fn put_by_hand(about: &fs::Metadata) -> Meta {
    let since = about.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let text = format!("{} {} {}", about.ino(), about.len(), since.as_nanos());
    Meta { etag: format!("{}-1", hex(&Md5::digest(text))), ..Meta::default() }
}

fn is_bucket(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.');
    (3..=63).contains(&name.len()) && name.bytes().all(plain) && name.as_bytes()[0].is_ascii_alphanumeric()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
