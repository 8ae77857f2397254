//! What can be done with objects, in whichever store they lie.
//!
//! The same calls mean the same everywhere, which `conformance` asks of each of them: an object is there whole or not at
//! all, a condition and its write are one step, and a part that was acknowledged stays. A store over http(s) can only read.

use bytes::Bytes;

use super::{
    Store,
    trouble::{Trouble, insist},
};
use crate::Error;

/// What a condition compares. What is in it is the store's own affair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    pub(crate) etag: Option<String>,
    pub(crate) version: Option<String>,
}

/// When to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    Always,
    /// Only where there is no such object.
    Absent,
    /// Only over the object with this tag.
    Is(Tag),
}

/// What became of a write under a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    Done(Tag),
    /// The condition did not hold.
    Refused,
}

/// An object, as a listing has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    pub object: String,
    pub size: u64,
    /// In seconds since 1970.
    pub modified: u64,
}

/// An object that comes in parts: its name, and what the store calls the upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    pub object: String,
    pub id: String,
}

/// An upload that has not become an object, and when it was begun, in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    pub upload: Upload,
    pub begun: u64,
}

/// A part: its number from 0, where it belongs, and its bytes.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    pub number: usize,
    pub offset: u64,
    pub pieces: &'a [Bytes],
    /// Of all of them, where it is known: a store that [wants it](Store::signs_parts) need not wait for it.
    pub sha256: Option<[u8; 32]>,
}

impl Store {
    /// A small object whole, with its tag; `None` when it is not there.
    pub async fn whole(&self, object: &str, limit: usize) -> Result<Option<(Vec<u8>, Tag)>, Error> {
        let asked = insist(|| async move {
            match self {
                Self::Folder(folder) => folder.whole(object, limit),
                Self::Bucket(bucket) => bucket.whole(object, limit).await,
                Self::Web(base) => {
                    base.whole(object, limit).await.map(|(bytes, etag)| (bytes, Tag { etag, version: None }))
                }
            }
        });
        answer(object, asked.await)
    }

    /// Gives the bytes `from..from + len` of an object to `sink`, as they come. The first answer sets `etag`; with one set,
    /// an object that has another is [`Trouble::Changed`].
    pub(crate) async fn range(
        &self,
        object: &str,
        range: (u64, u64),
        etag: &mut Option<String>,
        sink: &mut (impl FnMut(&[u8]) -> Result<(), Error> + Send),
    ) -> Result<(), Trouble> {
        match self {
            Self::Folder(folder) => folder.range(object, range, sink),
            Self::Bucket(bucket) => bucket.range(object, range, etag, sink).await,
            Self::Web(base) => base.range(object, range, etag, sink).await,
        }
    }

    /// A part of an object, for whoever checks it himself; `None` when there is no such object.
    pub(crate) async fn some(&self, object: &str, range: (u64, u64)) -> Result<Option<Vec<u8>>, Error> {
        let asked = insist(|| async move {
            let mut bytes = Vec::new();
            let mut sink = |piece: &[u8]| {
                bytes.extend_from_slice(piece);
                Ok(())
            };
            self.range(object, range, &mut None, &mut sink).await.map(|()| bytes)
        });
        answer(object, asked.await)
    }

    /// Every object below `prefix`, by name.
    pub async fn objects(&self, prefix: &str) -> Result<Vec<Meta>, Error> {
        let listed = match self {
            Self::Folder(folder) => return folder.list(prefix),
            Self::Bucket(bucket) => insist(|| bucket.list(prefix)).await,
            Self::Web(_) => return Err(self.read_only("list")),
        };
        Ok(answer(prefix, listed)?.unwrap_or_default())
    }

    /// Writes an object. It is asked again when no answer came; so a write under a condition may have been done by a try
    /// before the one that was refused, and whoever is refused reads what is there.
    pub async fn put(&self, object: &str, bytes: &Bytes, when: &When) -> Result<Put, Error> {
        written(object, insist(|| self.put_once(object, bytes, when)).await)
    }

    /// The same, asked once.
    pub(crate) async fn put_once(&self, object: &str, bytes: &Bytes, when: &When) -> Result<Put, Trouble> {
        match self {
            Self::Folder(folder) => {
                let (folder, object, bytes, when) = (folder.clone(), object.to_owned(), bytes.clone(), when.clone());
                blocking(move || folder.put(&object, &bytes, &when)).await
            }
            Self::Bucket(bucket) => bucket.put(object, std::slice::from_ref(bytes), when).await,
            Self::Web(_) => Err(Trouble::Stop(self.read_only("write"))),
        }
    }

    /// Copies an object inside the store; whether there was one.
    pub async fn copy(&self, from: &str, to: &str) -> Result<bool, Error> {
        let copied = match self {
            Self::Folder(folder) => {
                let (folder, from, to) = (folder.clone(), from.to_owned(), to.to_owned());
                blocking(move || folder.copy(&from, &to)).await
            }
            Self::Bucket(bucket) => insist(|| bucket.copy(from, to)).await,
            Self::Web(_) => return Err(self.read_only("copy")),
        };
        Ok(answer(from, copied)?.is_some())
    }

    /// Whether an object of this size can be copied in one step.
    pub fn copies(&self, size: u64) -> bool {
        match self {
            Self::Folder(_) => true,
            Self::Bucket(bucket) => bucket.copies(size),
            Self::Web(_) => false,
        }
    }

    /// Deletes an object, or finds it gone.
    pub async fn delete(&self, object: &str) -> Result<(), Error> {
        let done = match self {
            Self::Folder(folder) => folder.delete(object),
            Self::Bucket(bucket) => insist(|| bucket.delete(object)).await,
            Self::Web(_) => return Err(self.read_only("delete")),
        };
        answer(object, done).map(|_| ())
    }

    /// Refuses so many bytes more where it can be known that they do not fit.
    pub(crate) fn room_for(&self, bytes: u64) -> Result<(), Error> {
        match self {
            Self::Folder(folder) => folder.room_for(bytes),
            Self::Bucket(_) | Self::Web(_) => Ok(()),
        }
    }

    /// Whether it wants to know the SHA-256 of a part before the part comes.
    pub(crate) fn signs_parts(&self) -> bool {
        matches!(self, Self::Bucket(bucket) if bucket.signs_parts())
    }

    /// Begins an object that comes in parts.
    pub async fn begin(&self, object: &str) -> Result<Upload, Error> {
        let begun = match self {
            Self::Folder(folder) => folder.begin(),
            Self::Bucket(bucket) => insist(|| bucket.begin(object)).await,
            Self::Web(_) => return Err(self.read_only("write")),
        };
        Ok(Upload { object: object.to_owned(), id: written(object, begun)? })
    }

    /// Puts a part, once; what comes back is the part's name for [`Self::complete`]. [`Trouble::Absent`]: the store does
    /// not know this upload any more.
    pub(crate) async fn part(&self, upload: &Upload, part: Part<'_>) -> Result<String, Trouble> {
        match self {
            Self::Folder(folder) => {
                let (folder, id, offset) = (folder.clone(), upload.id.clone(), part.offset);
                let pieces = part.pieces.to_vec();
                blocking(move || folder.part(&id, offset, &pieces)).await
            }
            Self::Bucket(bucket) => bucket.part(&upload.object, &upload.id, &part).await,
            Self::Web(_) => Err(Trouble::Stop(self.read_only("write"))),
        }
    }

    /// Makes an object of its parts; whether the store knew the upload and all of them.
    pub async fn complete(&self, upload: &Upload, parts: &[String]) -> Result<bool, Error> {
        let done = match self {
            Self::Folder(folder) => {
                let (folder, upload) = (folder.clone(), upload.clone());
                blocking(move || folder.complete(&upload.object, &upload.id)).await
            }
            Self::Bucket(bucket) => insist(|| bucket.complete(&upload.object, &upload.id, parts.to_vec())).await,
            Self::Web(_) => return Err(self.read_only("write")),
        };
        Ok(answer(&upload.object, done)?.is_some())
    }

    /// Uploads below a folder that have not become objects, whoever began them, where the store can be asked: S3 can.
    pub async fn unfinished(&self, prefix: &str) -> Result<Vec<Unfinished>, Error> {
        match self {
            Self::Bucket(bucket) => written(prefix, insist(|| bucket.unfinished(prefix)).await),
            Self::Folder(_) | Self::Web(_) => Ok(Vec::new()),
        }
    }

    /// Forgets an object that came in parts.
    pub async fn abort(&self, upload: &Upload) -> Result<(), Error> {
        let done = match self {
            Self::Folder(folder) => folder.abort(&upload.id),
            Self::Bucket(bucket) => insist(|| bucket.abort(&upload.object, &upload.id)).await,
            Self::Web(_) => return Err(self.read_only("write")),
        };
        answer(&upload.object, done).map(|_| ())
    }

    pub fn read_only(&self, doing: &str) -> Error {
        Error::usage(
            format!("{self} is read over the web and cannot be used to {doing}"),
            "use its file://, s3://, gs:// or az:// address",
        )
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Trouble> + Send + 'static) -> Result<T, Trouble> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(Trouble::Stop(Error::environment(format!("a thread ended: {e}"), "try again"))))
}

/// What there is; `None` when there is none.
fn answer<T>(object: &str, asked: Result<T, Trouble>) -> Result<Option<T>, Error> {
    match asked {
        Ok(answer) => Ok(Some(answer)),
        Err(Trouble::Absent) => Ok(None),
        Err(trouble) => written(object, Err(trouble)),
    }
}

fn written<T>(object: &str, asked: Result<T, Trouble>) -> Result<T, Error> {
    asked.map_err(|trouble| match trouble {
        Trouble::Stop(error) => error,
        other => Error::environment(format!("{object}: {other}"), "run the same command again"),
    })
}
