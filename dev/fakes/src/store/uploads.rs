//! Uploads in parts: a folder for each, a file for each part, and in the end one object.
//!
//! A part counts when it was whole, so that a client that was killed leaves none that is half. Completing copies the parts one
//! behind the other inside the kernel. They go when the object stands and not before, since a condition may still refuse it:
//! for that moment the disk has the object twice.
//! What S3 wants of parts is wanted here: numbers from 1 to 10,000 in ascending order, and 5 MiB for all but the last.

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};

use crate::store::{
    disk::{Disk, Temporary, hex},
    intake::Received,
    refusal::Refusal,
};

const LEAST: u64 = 5 << 20;
const MOST_PARTS: usize = 10_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Upload {
    pub(super) id: String,
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) headers: Vec<(String, String)>,
    begun_ms: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) number: usize,
    pub(super) size: u64,
    /// Without quotes.
    pub(super) etag: String,
    pub(super) modified: SystemTime,
}

impl Upload {
    pub(super) fn begun(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.begun_ms)
    }
}

pub(super) fn create(disk: &Disk, bucket: &str, key: &str, headers: Vec<(String, String)>) -> Result<Upload, Refusal> {
    disk.path(bucket, key)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let id = format!("{:x}-{}", now.as_nanos(), disk.number());
    let upload =
        Upload { id, bucket: bucket.to_owned(), key: key.to_owned(), headers, begun_ms: now.as_millis() as u64 };
    let folder = folder(disk, &upload.id);
    fs::create_dir(&folder)?;
    fs::write(folder.join("upload.json"), serde_json::to_vec(&upload).map_err(io::Error::from)?)?;
    Ok(upload)
}

pub(super) fn find(disk: &Disk, bucket: &str, key: &str, id: &str) -> Result<Upload, Refusal> {
    let plain = id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let upload = if plain { read(disk, id) } else { None };
    upload.filter(|upload| upload.bucket == bucket && upload.key == key).ok_or_else(Refusal::no_such_upload)
}

/// All of a bucket, by key and then by when they were begun.
pub(super) fn list(disk: &Disk, bucket: &str) -> io::Result<Vec<Upload>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(disk.own("uploads"))? {
        found.extend(read(disk, &entry?.file_name().to_string_lossy()).filter(|upload| upload.bucket == bucket));
    }
    found.sort_by(|a, b| (&a.key, a.begun_ms, &a.id).cmp(&(&b.key, b.begun_ms, &b.id)));
    Ok(found)
}

pub(super) fn put_part(disk: &Disk, upload: &Upload, number: usize, part: &Received) -> Result<(), Refusal> {
    if !(1..=MOST_PARTS).contains(&number) {
        return Err(Refusal::invalid(format!("parts have numbers from 1 to {MOST_PARTS}")));
    }
    // The ETag is in the name, and of several with one number the newest counts.
    let name = format!("{number:05}-{:020}-{}", disk.number(), part.etag());
    part.whole.keep(&folder(disk, &upload.id).join(name)).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Refusal::no_such_upload(),
        _ => e.into(),
    })
}

/// By number, of each the one that came last.
pub(super) fn parts(disk: &Disk, upload: &Upload) -> Result<Vec<Part>, Refusal> {
    Ok(found_parts(disk, upload)?.into_iter().map(|(part, _)| part).collect())
}

fn found_parts(disk: &Disk, upload: &Upload) -> Result<Vec<(Part, PathBuf)>, Refusal> {
    let Ok(entries) = fs::read_dir(folder(disk, &upload.id)) else { return Err(Refusal::no_such_upload()) };
    let mut names: Vec<String> =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    names.sort();
    let mut found: Vec<(Part, PathBuf)> = Vec::new();
    for name in names {
        let mut fields = name.splitn(3, '-');
        let (Some(number), Some(_), Some(etag)) =
            (fields.next().and_then(|n| n.parse().ok()), fields.next(), fields.next())
        else {
            continue;
        };
        let path = folder(disk, &upload.id).join(&name);
        let about = fs::metadata(&path)?;
        let part = Part { number, size: about.len(), etag: etag.to_owned(), modified: about.modified()? };
        found.pop_if(|(last, _)| last.number == number);
        found.push((part, path));
    }
    Ok(found)
}

/// The object of these parts, and its ETag. It stands nowhere yet, and the upload stays until [`remove`].
pub(super) fn join(disk: &Disk, upload: &Upload, wanted: &[(usize, String)]) -> Result<(Temporary, String), Refusal> {
    let there = found_parts(disk, upload)?;
    if wanted.is_empty() {
        return Err(Refusal::new(400, "MalformedXML", "no part is named"));
    }
    if !wanted.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(Refusal::new(400, "InvalidPartOrder", "the parts are not in ascending order"));
    }
    let mut chosen = Vec::with_capacity(wanted.len());
    for (number, etag) in wanted {
        let part = there.iter().find(|(part, _)| part.number == *number && part.etag == *etag);
        chosen.push(part.ok_or_else(|| {
            Refusal::new(400, "InvalidPart", format!("part {number} is not there, or not with this ETag"))
        })?);
    }
    if let Some((small, _)) = chosen.iter().rev().skip(1).find(|(part, _)| part.size < LEAST) {
        let why =
            format!("part {} has {} bytes, and only the last may have less than {LEAST}", small.number, small.size);
        return Err(Refusal::new(400, "EntityTooSmall", why));
    }
    let mut hashes = Md5::new();
    let whole = disk.temporary()?;
    for (part, path) in &chosen {
        hashes.update(bytes_of(&part.etag));
        append(&whole.file, path)?;
    }
    Ok((whole, format!("{}-{}", hex(&hashes.finalize()), chosen.len())))
}

pub(super) fn remove(disk: &Disk, upload: &Upload) -> io::Result<()> {
    fs::remove_dir_all(folder(disk, &upload.id))
}

fn append(whole: &fs::File, path: &std::path::Path) -> io::Result<()> {
    let mut part = fs::File::open(path)?;
    io::copy(&mut part, &mut &*whole)?;
    Ok(())
}

fn read(disk: &Disk, id: &str) -> Option<Upload> {
    serde_json::from_slice(&fs::read(folder(disk, id).join("upload.json")).ok()?).ok()
}

fn folder(disk: &Disk, id: &str) -> PathBuf {
    disk.own("uploads").join(id)
}

fn bytes_of(etag: &str) -> Vec<u8> {
    (0..etag.len() / 2).filter_map(|at| u8::from_str_radix(etag.get(2 * at..2 * at + 2)?, 16).ok()).collect()
}

/// A copy of bytes of a file, hashed as if they had come over the network.
pub(super) fn copied(disk: &Disk, from: &fs::File, mut at: u64, end: u64) -> io::Result<Received> {
    use std::os::unix::fs::FileExt as _;
    let whole = disk.temporary()?;
    let mut md5 = Md5::new();
    let mut buffer = vec![0; 1 << 20];
    while at < end {
        let piece = &mut buffer[..(end - at).min(1 << 20) as usize];
        from.read_exact_at(piece, at)?;
        md5.update(&*piece);
        (&whole.file).write_all(piece)?;
        at += piece.len() as u64;
    }
    Ok(Received { whole, md5: md5.finalize().into() })
}
