//! A bucket of S3, Google Cloud Storage or Azure Blob Storage as a store, through object_store.
//!
//! object_store signs and speaks the three dialects. Its own repeats are off: who repeats has to know what else is open, and
//! what a repeat costs. What a refusal says comes from our connections ([`super::net`]), since object_store keeps it to
//! itself, and becomes words about the bucket, the permission or the variable that is at fault.

use std::{error::Error as StdError, fmt, sync::Arc};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http::StatusCode;
use object_store::{
    CopyOptions, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    multipart::{MultipartStore, PartId},
    path::Path,
};

use super::{
    Meta, Part, Put, Tag, Unfinished, Upload, When,
    net::{Fault, Status},
    s3::S3,
    trouble::{Trouble, again},
    web::{may_pass, no_ranges, note_etag, too_short},
};
use crate::Error;

/// What a part is handed to a connection in, so that a slow one is seen to move.
const PIECE: usize = 256 << 10;

/// What object_store has for all of them.
pub(crate) trait Provider: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> Provider for T {}

#[derive(Clone)]
pub struct Bucket {
    provider: Arc<dyn Provider>,
    /// As it was given, without a slash at its end.
    url: String,
    name: String,
    /// Without slashes at its ends.
    prefix: String,
    /// Where the credentials come from, for errors.
    variables: String,
    /// The longest object that the provider copies in one request.
    longest_copy: u64,
    /// Where it speaks S3, for what object_store does not ask.
    s3: Option<S3>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bucket").field(&self.url).finish()
    }
}

/// What a bucket is made from.
pub(super) struct Parts {
    pub(super) provider: Arc<dyn Provider>,
    pub(super) url: String,
    pub(super) name: String,
    pub(super) prefix: String,
    pub(super) variables: &'static str,
    pub(super) longest_copy: u64,
    pub(super) s3: Option<S3>,
}

impl Bucket {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { provider, url, name, prefix, variables, longest_copy, s3 } = parts;
        Self { provider, url, name, prefix, variables: variables.to_owned(), longest_copy, s3 }
    }

    /// With other names of its variables, for errors.
    pub(super) fn called(mut self, names: impl Fn(&str) -> String) -> Self {
        self.variables = names(&self.variables);
        self
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn copies(&self, size: u64) -> bool {
        size <= self.longest_copy
    }

    fn path(&self, object: &str) -> Result<Path, Trouble> {
        let whole = if self.prefix.is_empty() { object.to_owned() } else { format!("{}/{object}", self.prefix) };
        Path::parse(&whole)
            .map_err(|e| Trouble::Stop(Error::usage(format!("{whole:?} cannot be an object's name: {e}"), "rename it")))
    }

    pub(crate) async fn range(
        &self,
        object: &str,
        (from, len): (u64, u64),
        etag: &mut Option<String>,
        sink: &mut (impl FnMut(&[u8]) -> Result<(), Error> + Send),
    ) -> Result<(), Trouble> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(from..from + len)),
            if_match: etag.clone(),
            ..GetOptions::default()
        };
        let asked = self.provider.get_opts(&self.path(object)?, options).await;
        let answer = asked.map_err(|e| self.trouble(object, "read", e))?;
        note_etag(etag, answer.meta.e_tag.as_deref().unwrap_or_default())?;
        let mut left = len;
        let mut stream = answer.into_stream();
        while let Some(piece) = stream.try_next().await.map_err(|e| self.trouble(object, "read", e))? {
            left = left
                .checked_sub(piece.len() as u64)
                .ok_or_else(|| again(format!("{object}: more came than asked for")))?;
            sink(&piece).map_err(Trouble::Stop)?;
        }
        if left > 0 {
            return Err(again(format!("{object}: the answer ended {left} bytes early")));
        }
        Ok(())
    }

    pub(crate) async fn whole(&self, object: &str, limit: usize) -> Result<(Vec<u8>, Tag), Trouble> {
        let asked = self.provider.get_opts(&self.path(object)?, GetOptions::default()).await;
        let answer = asked.map_err(|e| self.trouble(object, "read", e))?;
        let tag = Tag { etag: answer.meta.e_tag.clone(), version: answer.meta.version.clone() };
        let mut bytes = Vec::new();
        let mut stream = answer.into_stream();
        while let Some(piece) = stream.try_next().await.map_err(|e| self.trouble(object, "read", e))? {
            if bytes.len() + piece.len() > limit {
                let message = format!("{object} is longer than {limit} bytes");
                return Err(Trouble::Stop(Error::content(message, "it is not one of ours")));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok((bytes, tag))
    }

    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<Meta>, Trouble> {
        let below = self.path(prefix)?;
        let ours = if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) };
        let listed: Vec<_> =
            self.provider.list(Some(&below)).try_collect().await.map_err(|e| self.trouble(prefix, "list", e))?;
        let named = listed.into_iter().filter_map(|meta| {
            let object = meta.location.as_ref().strip_prefix(&ours)?.to_owned();
            Some(Meta { object, size: meta.size, modified: u64::try_from(meta.last_modified.timestamp()).unwrap_or(0) })
        });
        let mut named: Vec<Meta> = named.collect();
        named.sort_by(|a, b| a.object.cmp(&b.object));
        Ok(named)
    }

    pub(crate) async fn put(&self, object: &str, bytes: &[Bytes], when: &When) -> Result<Put, Trouble> {
        let mode = match when {
            When::Always => PutMode::Overwrite,
            When::Absent => PutMode::Create,
            When::Is(tag) => {
                PutMode::Update(object_store::UpdateVersion { e_tag: tag.etag.clone(), version: tag.version.clone() })
            }
        };
        let options = PutOptions { mode, ..PutOptions::default() };
        let put = self.provider.put_opts(&self.path(object)?, payload(bytes), options).await;
        match put.map_err(|e| self.trouble(object, "write", e)) {
            Ok(put) => Ok(Put::Done(Tag { etag: put.e_tag, version: put.version })),
            Err(Trouble::Changed) if !matches!(when, When::Always) => Ok(Put::Refused),
            Err(Trouble::Absent) if matches!(when, When::Is(_)) => Ok(Put::Refused),
            Err(Trouble::Changed | Trouble::Absent) => Err(again(format!("{object}: it changed while it was written"))),
            Err(trouble) => Err(trouble),
        }
    }

    pub(crate) async fn copy(&self, from: &str, to: &str) -> Result<(), Trouble> {
        let copied = self.provider.copy_opts(&self.path(from)?, &self.path(to)?, CopyOptions::default()).await;
        copied.map_err(|e| self.trouble(from, "copy", e))
    }

    pub(crate) async fn delete(&self, object: &str) -> Result<(), Trouble> {
        match self.provider.delete(&self.path(object)?).await.map_err(|e| self.trouble(object, "delete", e)) {
            Err(Trouble::Absent) => Ok(()),
            done => done,
        }
    }

    /// Whether it wants to know the SHA-256 of a part before the part comes.
    pub(crate) fn signs_parts(&self) -> bool {
        self.s3.as_ref().is_some_and(|s3| s3.signs_payload)
    }

    pub(crate) async fn begin(&self, object: &str) -> Result<String, Trouble> {
        self.provider.create_multipart(&self.path(object)?).await.map_err(|e| self.trouble(object, "write", e))
    }

    /// The uploads below a prefix that have not become objects; nothing where there is no such list.
    pub(crate) async fn unfinished(&self, prefix: &str) -> Result<Vec<Unfinished>, Trouble> {
        let Some(s3) = &self.s3 else { return Ok(Vec::new()) };
        let ours = if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) };
        let listed = s3.list(&format!("{ours}{prefix}/")).await;
        let listed = listed.map_err(|e| self.trouble(prefix, "list the uploads of", e))?;
        let named = listed.into_iter().filter_map(|one| {
            let object = one.key.strip_prefix(&ours)?.to_owned();
            Some(Unfinished { upload: Upload { object, id: one.id }, begun: one.begun })
        });
        Ok(named.collect())
    }

    pub(crate) async fn part(&self, object: &str, id: &str, part: &Part<'_>) -> Result<String, Trouble> {
        let (path, number, pieces) = (self.path(object)?, part.number, payload(part.pieces));
        if let (Some(sha256), Some(s3)) = (&part.sha256, self.s3.as_ref().filter(|s3| s3.signs_payload)) {
            let put = s3.put_part(path.as_ref(), (id, number), pieces, sha256).await;
            return put.map_err(|e| self.trouble(object, "write", e));
        }
        let put = self.provider.put_part(&path, &id.to_owned(), number, pieces).await;
        put.map(|part| part.content_id).map_err(|e| self.trouble(object, "write", e))
    }

    pub(crate) async fn complete(&self, object: &str, id: &str, parts: Vec<String>) -> Result<(), Trouble> {
        let parts = parts.into_iter().map(|content_id| PartId { content_id }).collect();
        let done = self.provider.complete_multipart(&self.path(object)?, &id.to_owned(), parts).await;
        done.map(|_| ()).map_err(|e| self.trouble(object, "write", e))
    }

    pub(crate) async fn abort(&self, object: &str, id: &str) -> Result<(), Trouble> {
        let done = self.provider.abort_multipart(&self.path(object)?, &id.to_owned()).await;
        match done.map_err(|e| self.trouble(object, "delete", e)) {
            Err(Trouble::Absent) => Ok(()),
            done => done,
        }
    }

    /// What an error of object_store means here; `doing` reads as in `may not write`.
    fn trouble(&self, object: &str, doing: &str, error: object_store::Error) -> Trouble {
        use object_store::Error as Theirs;
        if let Some(fault) = fault_in(&error) {
            return match fault {
                Fault::Broken(why) => again(format!("{object}: {why}")),
                Fault::Refused(error) => Trouble::Stop(Error::environment(&error.message, &error.help)),
                Fault::Status(said) => self.said(object, doing, said),
            };
        }
        match error {
            Theirs::NotFound { .. } => Trouble::Absent,
            Theirs::Precondition { .. } | Theirs::AlreadyExists { .. } | Theirs::NotModified { .. } => Trouble::Changed,
            error => {
                let words = words_of(&error);
                if words.contains("non-partial response") {
                    return Trouble::Stop(no_ranges(object));
                }
                again(format!("{object}: {words}"))
            }
        }
    }

    /// What a status means here.
    fn said(&self, object: &str, doing: &str, said: &Status) -> Trouble {
        let code = said.code.as_deref().unwrap_or_default();
        let stop = |message: String, help: String| Trouble::Stop(Error::environment(message, help));
        let (name, variables) = (&self.name, &self.variables);
        if matches!(code, "NoSuchBucket" | "ContainerNotFound") {
            return stop(
                format!("there is no bucket {name}: {said}"),
                "make it, or check its name and the endpoint".into(),
            );
        }
        // What came was not what was sent, or the store was tired of waiting for it.
        if matches!(
            code,
            "XAmzContentSHA256Mismatch" | "BadDigest" | "IncompleteBody" | "RequestTimeout" | "Md5Mismatch"
        ) {
            return again(format!("{object}: {said}"));
        }
        // Of an upload that is no more, or of a part that it does not have.
        if matches!(code, "NoSuchUpload" | "InvalidPart" | "InvalidPartOrder" | "InvalidBlockList" | "InvalidBlockId") {
            return Trouble::Absent;
        }
        if code == "RequestTimeTooSkewed" {
            return stop(format!("{said}"), "set this machine's clock".into());
        }
        match said.number {
            StatusCode::NOT_FOUND | StatusCode::GONE => Trouble::Absent,
            StatusCode::PRECONDITION_FAILED | StatusCode::NOT_MODIFIED => Trouble::Changed,
            // Azure says so of an object that is there; S3 of two writers at once, and then it may pass.
            StatusCode::CONFLICT if code == "BlobAlreadyExists" => Trouble::Changed,
            StatusCode::CONFLICT => again(format!("{object}: {said}")),
            StatusCode::RANGE_NOT_SATISFIABLE => Trouble::Stop(too_short(object)),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => stop(
                format!("the credentials may not {doing} {object} in {name}: {said}"),
                format!("check {variables}, and what they are allowed to do"),
            ),
            StatusCode::NOT_IMPLEMENTED => stop(
                format!("{name} cannot {doing} {object}: {said}"),
                "the store lacks what this needs: use another".into(),
            ),
            status if may_pass(status) => Trouble::Again { why: format!("{object}: {said}"), after: said.retry_after },
            status if status.is_redirection() || code == "AuthorizationHeaderMalformed" => stop(
                format!("{name} is not where it was asked for: {said}"),
                "set the bucket's own region, in AWS_REGION for s3://".into(),
            ),
            _ => stop(
                format!("cannot {doing} {object} in {name}: {said}"),
                "check the bucket's name, the endpoint, and what the store supports".into(),
            ),
        }
    }
}

/// In pieces, so that they are seen to leave.
fn payload(bytes: &[Bytes]) -> PutPayload {
    let cut = |bytes: &Bytes| {
        let bytes = bytes.clone();
        (0..bytes.len()).step_by(PIECE).map(move |at| bytes.slice(at..bytes.len().min(at + PIECE)))
    };
    bytes.iter().flat_map(cut).collect()
}

/// What our connections said, below whatever object_store has put around it.
fn fault_in<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Fault> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(fault) = error.downcast_ref::<Fault>() {
            return Some(fault);
        }
        next = error.source();
    }
    None
}

/// The innermost words, which are the ones to act on.
fn words_of(error: &(dyn StdError + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
