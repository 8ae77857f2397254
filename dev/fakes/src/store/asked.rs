//! A request as the operation that it asks for, by method, path and query.

use http::{HeaderMap, Method, Uri};
use percent_encoding::percent_decode_str;

use crate::store::refusal::Refusal;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    ListBuckets,
    CreateBucket,
    HeadBucket,
    DeleteBucket,
    BucketLocation,
    BucketVersioning,
    ListObjects,
    ListUploads,
    DeleteObjects,
    GetObject,
    HeadObject,
    PutObject,
    CopyObject,
    DeleteObject,
    CreateUpload,
    UploadPart,
    UploadPartCopy,
    CompleteUpload,
    AbortUpload,
    ListParts,
}

impl Operation {
    /// S3's own names.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ListBuckets => "ListBuckets",
            Self::CreateBucket => "CreateBucket",
            Self::HeadBucket => "HeadBucket",
            Self::DeleteBucket => "DeleteBucket",
            Self::BucketLocation => "GetBucketLocation",
            Self::BucketVersioning => "GetBucketVersioning",
            Self::ListObjects => "ListObjects",
            Self::ListUploads => "ListMultipartUploads",
            Self::DeleteObjects => "DeleteObjects",
            Self::GetObject => "GetObject",
            Self::HeadObject => "HeadObject",
            Self::PutObject => "PutObject",
            Self::CopyObject => "CopyObject",
            Self::DeleteObject => "DeleteObject",
            Self::CreateUpload => "CreateMultipartUpload",
            Self::UploadPart => "UploadPart",
            Self::UploadPartCopy => "UploadPartCopy",
            Self::CompleteUpload => "CompleteMultipartUpload",
            Self::AbortUpload => "AbortMultipartUpload",
            Self::ListParts => "ListParts",
        }
    }
}

#[derive(Debug)]
pub(super) struct Asked {
    pub(super) operation: Operation,
    pub(super) bucket: String,
    pub(super) key: String,
    query: Vec<(String, String)>,
}

impl Asked {
    pub(super) fn read(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Self, Refusal> {
        let (bucket, key) =
            uri.path().trim_start_matches('/').split_once('/').unwrap_or((uri.path().trim_start_matches('/'), ""));
        let query = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let query = query.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // A form's plus is a blank; a real one comes escaped.
            (decoded(name), decoded(&value.replace('+', " ")))
        });
        let mut asked = Self {
            operation: Operation::ListBuckets,
            bucket: decoded(bucket),
            key: decoded(key),
            query: query.collect(),
        };
        asked.operation = asked.operation(
            method,
            ["x-amz", "x-goog"].iter().any(|whose| headers.contains_key(format!("{whose}-copy-source"))),
        )?;
        Ok(asked)
    }

    fn operation(&self, method: &Method, copies: bool) -> Result<Operation, Refusal> {
        let has = |name: &str| self.get(name).is_some();
        let operation = match (method.as_str(), self.bucket.is_empty(), self.key.is_empty()) {
            ("GET", true, _) => Operation::ListBuckets,
            ("PUT", _, true) => Operation::CreateBucket,
            ("HEAD", _, true) => Operation::HeadBucket,
            ("DELETE", _, true) => Operation::DeleteBucket,
            ("GET", _, true) if has("location") => Operation::BucketLocation,
            ("GET", _, true) if has("versioning") => Operation::BucketVersioning,
            ("GET", _, true) if has("uploads") => Operation::ListUploads,
            ("GET", _, true) => Operation::ListObjects,
            ("POST", _, true) if has("delete") => Operation::DeleteObjects,
            ("GET", _, false) if has("uploadId") => Operation::ListParts,
            ("GET", _, false) => Operation::GetObject,
            ("HEAD", _, false) => Operation::HeadObject,
            ("PUT", _, false) if has("uploadId") && copies => Operation::UploadPartCopy,
            ("PUT", _, false) if has("uploadId") => Operation::UploadPart,
            ("PUT", _, false) if copies => Operation::CopyObject,
            ("PUT", _, false) => Operation::PutObject,
            ("DELETE", _, false) if has("uploadId") => Operation::AbortUpload,
            ("DELETE", _, false) => Operation::DeleteObject,
            ("POST", _, false) if has("uploads") => Operation::CreateUpload,
            ("POST", _, false) if has("uploadId") => Operation::CompleteUpload,
            _ => return Err(Refusal::new(501, "NotImplemented", "this test store does not do that")),
        };
        Ok(operation)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, value)| &**value)
    }

    pub(super) fn number(&self, name: &str) -> Option<usize> {
        self.get(name)?.parse().ok()
    }
}

pub(super) fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}
