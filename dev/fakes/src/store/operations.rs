//! One request, from its head to its answer.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use crate::{
    body::BrokenOff,
    conn::{Line, Parting},
    store::{
        Shared,
        asked::{Asked, Operation, decoded},
        disk::{Conditions, Meta, Object, generation, hex, kept_headers},
        faults::{Dealt, Harm},
        intake::{self, Received},
        ledger::{Entry, What},
        listing,
        refusal::{Refusal, Stop},
        served::{FileBody, Served},
        uploads, xml,
    },
};

/// Of the documents that name objects and parts.
const LONGEST_DOCUMENT: usize = 4 << 20;

pub(super) async fn answer(
    shared: Arc<Shared>,
    line: Arc<Line>,
    request: Request<Incoming>,
) -> Result<Response<Served>, BrokenOff> {
    let (head, body) = request.into_parts();
    let read = Asked::read(&head.method, &head.uri, &head.headers);
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (operation, bucket, key) = match &read {
        Ok(asked) => (asked.operation.name(), asked.bucket.clone(), asked.key.clone()),
        Err(_) => ("", String::new(), head.uri.path().to_owned()),
    };
    let entry = shared.ledger.begin(What {
        method: head.method.to_string(),
        operation,
        bucket,
        key,
        query: head.uri.query().unwrap_or_default().to_owned(),
        range: text("range").or_else(|| text("x-amz-copy-source-range")),
    });
    let done = match read {
        Ok(asked) => {
            let request = Asking { shared, line, entry: entry.clone(), headers: head.headers, asked };
            request.answer(body).await
        }
        Err(refusal) => Err(refusal.into()),
    };
    let mut answer = match done {
        Ok(answer) => answer,
        Err(Stop::Refused(refusal)) => refused(&refusal, &head.method, &entry),
        Err(Stop::Broken) => return Err(BrokenOff),
    };
    // Google's clients make their conditions of it; others pass it over.
    let etag = answer.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok());
    if let Some(number) = etag.map(|etag| generation(etag.trim_matches('"'))) {
        answer.headers_mut().insert("x-goog-generation", number.into());
    }
    entry.status(answer.status().as_u16());
    Ok(answer)
}

struct Asking {
    shared: Arc<Shared>,
    line: Arc<Line>,
    entry: Entry,
    headers: HeaderMap,
    asked: Asked,
}

impl Asking {
    async fn answer(self, body: Incoming) -> Result<Response<Served>, Stop> {
        if self.asked.operation == Operation::GetObject {
            return self.get().await;
        }
        let dealt = self.deal(&intake::span(&self.headers)).await?;
        let answer = self.do_it(body, &dealt).await?;
        if dealt.loses_answer {
            self.line.end(Parting::reset_after(b"")).await;
        }
        Ok(answer)
    }

    /// What the faults make of a request; those that are an answer end it.
    async fn deal(&self, span: &Range<u64>) -> Result<Dealt, Stop> {
        let dealt = self.shared.faults.deal(&self.asked, Some(span));
        self.entry.faults(dealt.names.clone());
        if let Some((status, retry_after_s)) = dealt.status {
            let code = if status == 503 { "SlowDown" } else { "InternalError" };
            let mut refusal = Refusal::new(status, code, "on purpose");
            refusal.retry_after_s = retry_after_s;
            return Err(refusal.into());
        }
        if dealt.body.stop.is_some() && span.is_empty() {
            self.line.end(Parting::reset_after(b"")).await;
        }
        Ok(dealt)
    }

    async fn do_it(&self, body: Incoming, dealt: &Dealt) -> Result<Response<Served>, Stop> {
        let Asked { bucket, key, .. } = &self.asked;
        let disk = &self.shared.disk;
        match self.asked.operation {
            Operation::GetObject | Operation::HeadObject => self.head(dealt),
            Operation::ListBuckets => Ok(self.document(listing::buckets(disk)?)),
            Operation::CreateBucket => {
                disk.create_bucket(bucket)?;
                Ok(self.empty(StatusCode::OK))
            }
            Operation::HeadBucket => {
                disk.bucket(bucket)?;
                Ok(self.empty(StatusCode::OK))
            }
            Operation::DeleteBucket => {
                disk.delete_bucket(bucket)?;
                Ok(self.empty(StatusCode::NO_CONTENT))
            }
            Operation::BucketLocation => {
                disk.bucket(bucket)?;
                Ok(self.document(format!("{}<LocationConstraint/>", xml::HEAD)))
            }
            Operation::BucketVersioning => {
                disk.bucket(bucket)?;
                Ok(self.document(format!("{}<VersioningConfiguration/>", xml::HEAD)))
            }
            Operation::ListObjects => Ok(self.document(listing::objects(disk, &self.asked)?)),
            Operation::ListUploads => Ok(self.document(listing::uploads(disk, &self.asked)?)),
            Operation::ListParts => Ok(self.document(listing::parts(disk, &self.asked)?)),
            Operation::DeleteObject => {
                disk.delete(bucket, key, &self.conditions(dealt))?;
                Ok(self.empty(StatusCode::NO_CONTENT))
            }
            Operation::DeleteObjects => self.delete_many(body).await,
            Operation::PutObject => self.put(body, dealt).await,
            Operation::CopyObject => self.copy(dealt).await,
            Operation::CreateUpload => self.create_upload(),
            Operation::UploadPart => self.upload_part(body, dealt).await,
            Operation::UploadPartCopy => self.upload_part_copy().await,
            Operation::CompleteUpload => self.complete(body, dealt).await,
            Operation::AbortUpload => {
                uploads::remove(disk, &self.upload()?)?;
                Ok(self.empty(StatusCode::NO_CONTENT))
            }
        }
    }

    async fn get(self) -> Result<Response<Served>, Stop> {
        let object = self.shared.disk.look(&self.asked.bucket, &self.asked.key)?;
        let asked_for = range(&self.headers, object.size)?;
        let dealt = self.deal(&asked_for.clone().unwrap_or(0..object.size)).await?;
        let part = asked_for.filter(|_| !dealt.ignores_range);
        let answer = self.about(&object, &dealt, part.as_ref())?;
        let Range { start, end } = part.unwrap_or(0..object.size);
        let body = FileBody::new(object.file, (start, end), dealt.body, self.entry.clone(), self.line.clone());
        Ok(answer.map(|()| Served::File(Box::new(body))))
    }

    fn head(&self, dealt: &Dealt) -> Result<Response<Served>, Stop> {
        let object = self.shared.disk.look(&self.asked.bucket, &self.asked.key)?;
        let part = range(&self.headers, object.size)?;
        Ok(self.about(&object, dealt, part.as_ref())?.map(|()| self.no_body()))
    }

    /// The head of an answer that is an object or a part of it.
    fn about(&self, object: &Object, dealt: &Dealt, part: Option<&Range<u64>>) -> Result<Response<()>, Refusal> {
        let etag = shown_etag(&object.meta.etag, dealt);
        Conditions::of(&self.headers, "").for_reading(&etag)?;
        let len = part.map_or(object.size, |part| part.end - part.start);
        let mut answer = Response::builder()
            .header(header::ETAG, format!("\"{etag}\""))
            .header(header::LAST_MODIFIED, httpdate::fmt_http_date(object.modified))
            .header(header::ACCEPT_RANGES, "bytes")
            .header(header::CONTENT_LENGTH, len);
        if !object.meta.headers.iter().any(|(name, _)| name == "content-type") {
            answer = answer.header(header::CONTENT_TYPE, "binary/octet-stream");
        }
        for (name, value) in &object.meta.headers {
            answer = answer.header(name, value);
        }
        if let Some(part) = part {
            let place = format!("bytes {}-{}/{}", part.start, part.end - 1, object.size);
            answer = answer.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, place);
        }
        answer.body(()).map_err(|e| Refusal::new(500, "InternalError", e.to_string()))
    }

    async fn put(&self, body: Incoming, dealt: &Dealt) -> Result<Response<Served>, Stop> {
        let Asked { bucket, key, .. } = &self.asked;
        self.shared.disk.path(bucket, key)?;
        let came = self.receive(body, &dealt.body).await?;
        let meta = Meta::new(came.etag(), kept_headers(&self.headers));
        self.shared.disk.place(bucket, key, &came.whole, meta, &self.conditions(dealt))?;
        Ok(self.with_etag(&came.etag()))
    }

    async fn copy(&self, dealt: &Dealt) -> Result<Response<Served>, Stop> {
        let Asked { bucket, key, .. } = &self.asked;
        let source = self.source()?;
        if source.size > 5 << 30 {
            return Err(Refusal::new(400, "InvalidRequest", "more than 5 GiB have to be copied in parts").into());
        }
        let replaces = self.headers.get("x-amz-metadata-directive").is_some_and(|v| v == "REPLACE");
        let headers = if replaces { kept_headers(&self.headers) } else { source.meta.headers.clone() };
        let copy = self.copied(source, None).await?;
        let meta = Meta::new(copy.etag(), headers);
        self.shared.disk.place(bucket, key, &copy.whole, meta, &self.conditions(dealt))?;
        Ok(self.copy_result("CopyObjectResult", &copy))
    }

    fn create_upload(&self) -> Result<Response<Served>, Stop> {
        let Asked { bucket, key, .. } = &self.asked;
        let upload = uploads::create(&self.shared.disk, bucket, key, kept_headers(&self.headers))?;
        Ok(self.document(format!(
            "{}<InitiateMultipartUploadResult><Bucket>{}</Bucket><Key>{}</Key><UploadId>{}</UploadId>\
             </InitiateMultipartUploadResult>",
            xml::HEAD,
            xml::escaped(bucket),
            xml::escaped(key),
            upload.id
        )))
    }

    async fn upload_part(&self, body: Incoming, dealt: &Dealt) -> Result<Response<Served>, Stop> {
        let upload = self.upload()?;
        let came = self.receive(body, &dealt.body).await?;
        uploads::put_part(&self.shared.disk, &upload, self.asked.number("partNumber").unwrap_or(0), &came)?;
        Ok(self.with_etag(&came.etag()))
    }

    async fn upload_part_copy(&self) -> Result<Response<Served>, Stop> {
        let upload = self.upload()?;
        let source = self.source()?;
        let part = self.headers.get("x-amz-copy-source-range").and_then(|v| v.to_str().ok());
        let part = part.map(|text| within(text, source.size)).transpose()?;
        let copy = self.copied(source, part).await?;
        uploads::put_part(&self.shared.disk, &upload, self.asked.number("partNumber").unwrap_or(0), &copy)?;
        Ok(self.copy_result("CopyPartResult", &copy))
    }

    async fn complete(&self, body: Incoming, dealt: &Dealt) -> Result<Response<Served>, Stop> {
        let upload = self.upload()?;
        let text = self.document_in(body).await?;
        let parts = xml::elements(&text, "Part").into_iter().filter_map(|part| {
            let etag = xml::text(part, "ETag")?.trim_matches('"').to_owned();
            Some((xml::text(part, "PartNumber")?.parse().ok()?, etag))
        });
        let (parts, shared, conditions) = (parts.collect::<Vec<_>>(), self.shared.clone(), self.conditions(dealt));
        let Asked { bucket, key, .. } = &self.asked;
        let done = blocking(move || {
            let (whole, etag) = uploads::join(&shared.disk, &upload, &parts)?;
            let meta = Meta::new(etag.clone(), upload.headers.clone());
            shared.disk.place(&upload.bucket, &upload.key, &whole, meta, &conditions)?;
            uploads::remove(&shared.disk, &upload)?;
            Ok(etag)
        });
        let etag = done.await?;
        Ok(self.document(format!(
            "{}<CompleteMultipartUploadResult><Location>/{bucket}/{key}</Location><Bucket>{bucket}</Bucket><Key>{key}</Key>\
             <ETag>&quot;{etag}&quot;</ETag></CompleteMultipartUploadResult>",
            xml::HEAD,
            bucket = xml::escaped(bucket),
            key = xml::escaped(key),
        )))
    }

    async fn delete_many(&self, body: Incoming) -> Result<Response<Served>, Stop> {
        let text = self.document_in(body).await?;
        let quiet = xml::text(&text, "Quiet").as_deref() == Some("true");
        let mut out = format!("{}<DeleteResult>", xml::HEAD);
        for object in xml::elements(&text, "Object") {
            let Some(key) = xml::text(object, "Key") else { continue };
            let name = xml::escaped(&key);
            match self.shared.disk.delete(&self.asked.bucket, &key, &Conditions::default()) {
                Ok(()) if quiet => {}
                Ok(()) => out += &format!("<Deleted><Key>{name}</Key></Deleted>"),
                Err(_) => out += &format!("<Error><Key>{name}</Key><Code>InternalError</Code></Error>"),
            }
        }
        Ok(self.document(out + "</DeleteResult>"))
    }

    async fn receive(&self, body: Incoming, harm: &Harm) -> Result<Received, Stop> {
        intake::receive(&self.shared.disk, &self.headers, body, &self.entry, harm, &self.line).await
    }

    async fn document_in(&self, body: Incoming) -> Result<String, Stop> {
        let body = Limited::new(body, LONGEST_DOCUMENT).collect().await.map_err(|_| Stop::Broken)?.to_bytes();
        self.entry.came(body.len());
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    fn conditions(&self, dealt: &Dealt) -> Conditions {
        if dealt.lies { Conditions::default() } else { Conditions::of(&self.headers, "") }
    }

    fn upload(&self) -> Result<uploads::Upload, Refusal> {
        let id = self.asked.get("uploadId").unwrap_or_default();
        uploads::find(&self.shared.disk, &self.asked.bucket, &self.asked.key, id)
    }

    /// The object that a copy is of.
    fn source(&self) -> Result<Object, Refusal> {
        let named = self.headers.get("x-amz-copy-source").or_else(|| self.headers.get("x-goog-copy-source"));
        let named = named.and_then(|v| v.to_str().ok()).unwrap_or_default();
        let named = decoded(named.split("?versionId=").next().unwrap_or_default());
        let (bucket, key) = named.trim_start_matches('/').split_once('/').unwrap_or_default();
        let object = self.shared.disk.look(bucket, key)?;
        // What would be "not modified" of a read is a failed condition of a copy.
        Conditions::of(&self.headers, "x-amz-copy-source-")
            .for_reading(&object.meta.etag)
            .map_err(|_| Refusal::precondition("x-amz-copy-source-if-…"))?;
        Ok(object)
    }

    async fn copied(&self, source: Object, part: Option<Range<u64>>) -> Result<Received, Stop> {
        let shared = self.shared.clone();
        let Range { start, end } = part.unwrap_or(0..source.size);
        blocking(move || Ok(uploads::copied(&shared.disk, &source.file, start, end)?)).await
    }

    fn copy_result(&self, name: &str, copy: &Received) -> Response<Served> {
        self.document(format!(
            "{}<{name}><LastModified>{}</LastModified><ETag>&quot;{}&quot;</ETag></{name}>",
            xml::HEAD,
            listing::time(std::time::SystemTime::now()),
            copy.etag()
        ))
    }

    fn with_etag(&self, etag: &str) -> Response<Served> {
        let mut answer = self.empty(StatusCode::OK);
        if let Ok(value) = format!("\"{etag}\"").parse() {
            answer.headers_mut().insert(header::ETAG, value);
        }
        answer
    }

    fn document(&self, text: String) -> Response<Served> {
        document(StatusCode::OK, text, &self.entry)
    }

    fn empty(&self, status: StatusCode) -> Response<Served> {
        let mut answer = Response::new(self.no_body());
        *answer.status_mut() = status;
        answer
    }

    fn no_body(&self) -> Served {
        Served::Text(None, self.entry.clone())
    }
}

fn document(status: StatusCode, text: String, entry: &Entry) -> Response<Served> {
    let mut answer = Response::new(Served::Text(Some(Bytes::from(text)), entry.clone()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/xml"));
    answer
}

fn refused(refusal: &Refusal, method: &Method, entry: &Entry) -> Response<Served> {
    let bare = method == Method::HEAD || refusal.status == StatusCode::NOT_MODIFIED;
    let mut answer = document(refusal.status, refusal.body(), entry);
    if bare {
        *answer.body_mut() = Served::Text(None, entry.clone());
    }
    if let Some(seconds) = refusal.retry_after_s {
        answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    answer
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Refusal> + Send + 'static) -> Result<T, Stop> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(|_| Stop::Broken)??)
}

/// Another than the object has, and always the same one.
fn shown_etag(etag: &str, dealt: &Dealt) -> String {
    if dealt.other_etag { hex(&etag.bytes().rev().take(16).collect::<Vec<u8>>()) } else { etag.to_owned() }
}

/// The bytes that a `Range` asks for; `None` where there is no such header, or one that a server may ignore.
fn range(headers: &HeaderMap, size: u64) -> Result<Option<Range<u64>>, Refusal> {
    let Some(text) = headers.get(header::RANGE).and_then(|value| value.to_str().ok()) else { return Ok(None) };
    if !text.starts_with("bytes=") || text.contains(',') {
        return Ok(None);
    }
    within(text, size).map(Some)
}

fn within(text: &str, size: u64) -> Result<Range<u64>, Refusal> {
    let wrong = || Refusal::new(416, "InvalidRange", format!("{text} is not in an object of {size} bytes"));
    let (first, last) = text.strip_prefix("bytes=").and_then(|r| r.split_once('-')).ok_or_else(wrong)?;
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| wrong());
    let range = match (first, last) {
        ("", last) => size.saturating_sub(number(last)?)..size,
        (first, "") => number(first)?..size,
        (first, last) => number(first)?..number(last)?.saturating_add(1).min(size),
    };
    if range.is_empty() { Err(wrong()) } else { Ok(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_what_a_server_makes_of_them() {
        for (text, expected) in [
            ("bytes=0-0", Some(0..1)),
            ("bytes=5-", Some(5..10)),
            ("bytes=-3", Some(7..10)),
            ("bytes=-30", Some(0..10)),
            ("bytes=2-99", Some(2..10)),
            ("bytes=10-", None),
            ("bytes=5-4", None),
            ("bytes=-0", None),
            ("bytes=x-4", None),
        ] {
            assert_eq!(within(text, 10).ok(), expected, "{text}");
        }
    }
}
