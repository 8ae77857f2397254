//! What S3 can be asked and object_store does not ask: requests of our own, signed by its signer.
//!
//! One is the list of uploads that were begun and have not become objects: an upload whose id was lost on its way to us is in
//! no journal, and costs until somebody ends it. Google Cloud Storage has such a list too and is not asked; Azure has no
//! uploads, only blocks, which it drops after a week. The other is to put a part whose SHA-256 is known: object_store would
//! compute it once more.

use http::{Method, Request, Response, header};
use http_body_util::BodyExt as _;
use object_store::{
    Error as Theirs, PutPayload,
    aws::{AwsAuthorizer, AwsCredentialProvider},
    client::HttpRequestBody,
};
use percent_encoding::{percent_decode_str, utf8_percent_encode};

use super::{
    net::{Answer, Client, Fault, element, words_of},
    web::ESCAPED,
};

/// A page names a thousand uploads.
const LONGEST_PAGE: usize = 4 << 20;
const MOST_PAGES: usize = 100;

/// One bucket.
#[derive(Clone, Debug)]
pub(super) struct S3 {
    /// Of the bucket, without a slash at its end.
    pub(super) url: String,
    pub(super) region: String,
    pub(super) credentials: AwsCredentialProvider,
    pub(super) client: Client,
    /// Whether what is sent is under the signature: where nothing else would notice a flipped bit. TLS does, for a fraction of a
    /// SHA-256.
    pub(super) signs_payload: bool,
}

/// An upload, as the bucket lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) key: String,
    pub(super) id: String,
    /// When it was begun, in seconds since 1970.
    pub(super) begun: u64,
}

/// Where the next page begins.
#[derive(Debug, PartialEq, Eq)]
struct Behind {
    key: String,
    id: String,
}

impl S3 {
    /// All below a prefix of keys.
    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Theirs> {
        let (mut all, mut behind) = (Vec::new(), None);
        for _ in 0..MOST_PAGES {
            let (listed, next) = page(&self.ask(prefix, behind.as_ref()).await?);
            all.extend(listed);
            if next.is_none() || next == behind {
                return Ok(all);
            }
            behind = next;
        }
        Ok(all)
    }

    /// Puts a part, numbered from 0, whose SHA-256 the store compares with what comes; its ETag.
    pub(super) async fn put_part(
        &self,
        key: &str,
        (id, number): (&str, usize),
        pieces: PutPayload,
        sha256: &[u8; 32],
    ) -> Result<String, Theirs> {
        let url = format!("{}/{}?partNumber={}&uploadId={}", self.url, escaped(key), number + 1, value(id));
        let answer = self.send(Method::PUT, url, pieces.into(), Some(sha256)).await?;
        let etag = answer.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        etag.ok_or_else(|| theirs(Fault::Broken("the store did not say what it calls the part".to_owned())))
    }

    async fn ask(&self, prefix: &str, behind: Option<&Behind>) -> Result<String, Theirs> {
        let mut url = format!("{}?uploads=&encoding-type=url&prefix={}", self.url, value(prefix));
        if let Some(Behind { key, id }) = behind {
            url += &format!("&key-marker={}&upload-id-marker={}", value(key), value(id));
        }
        let answer = self.send(Method::GET, url, HttpRequestBody::empty(), None).await?;
        let (mut body, mut text) = (answer.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            text.extend_from_slice(frame.map_err(theirs)?.data_ref().map_or(&[][..], |piece| piece));
            if text.len() > LONGEST_PAGE {
                return Err(theirs(Fault::Broken("the list of uploads is too long".to_owned())));
            }
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Signs a request and sends it; the answer, if that is a success.
    async fn send(
        &self,
        method: Method,
        url: String,
        body: HttpRequestBody,
        sha256: Option<&[u8; 32]>,
    ) -> Result<Response<Answer>, Theirs> {
        let request = Request::builder().method(method).uri(url).body(body);
        let mut request = request.map_err(|e| theirs(Fault::Broken(format!("the request cannot be made: {e}"))))?;
        let credential = self.credentials.get_credential().await?;
        let signer = AwsAuthorizer::new(&credential, "s3", &self.region).with_sign_payload(self.signs_payload);
        signer.try_authorize(&mut request, sha256.map(|hash| &hash[..]))?;
        let answer = self.client.send(request).await.map_err(theirs)?;
        if answer.status().is_success() { Ok(answer) } else { Err(theirs(Fault::Status(words_of(answer).await))) }
    }
}

/// A fault as object_store would hand it on, so that its requests and ours fail alike.
fn theirs(fault: Fault) -> Theirs {
    Theirs::Generic { store: "S3", source: Box::new(fault) }
}

fn escaped(key: &str) -> String {
    utf8_percent_encode(key, ESCAPED).to_string()
}

/// In a query slashes are escaped too: so it is signed, and some stores compare with what came and not with what it means.
fn value(text: &str) -> String {
    escaped(text).replace('/', "%2F")
}

/// The uploads of a page, and where the next one begins. One that cannot be read is passed over: it is not ended.
fn page(text: &str) -> (Vec<Listed>, Option<Behind>) {
    let by_url = element(text, "EncodingType").as_deref() == Some("url");
    let key = |text: String| {
        let escaped = if by_url { text.replace('+', " ") } else { return unescaped(&text) };
        percent_decode_str(&escaped).decode_utf8_lossy().into_owned()
    };
    let mut uploads = text.split("<Upload>");
    let head = uploads.next().unwrap_or_default();
    let listed = uploads.filter_map(|upload| {
        let begun = element(upload, "Initiated")?.parse::<jiff::Timestamp>().ok()?;
        let id = unescaped(&element(upload, "UploadId")?);
        let begun = u64::try_from(begun.as_second()).ok()?;
        Some(Listed { key: key(element(upload, "Key")?), id, begun })
    });
    // These stand before or behind the uploads.
    let of_page = |name| element(head, name).or_else(|| element(text, name));
    let more = of_page("IsTruncated").as_deref() == Some("true");
    let next = more
        .then(|| Some(Behind { key: key(of_page("NextKeyMarker")?), id: unescaped(&of_page("NextUploadIdMarker")?) }));
    (listed.collect(), next.flatten())
}

fn unescaped(text: &str) -> String {
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&#39;", "'"), ("&amp;", "&")]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the form that S3's reference shows for `ListMultipartUploads`.
    #[test]
    fn a_page_is_read_as_s3_writes_it() {
        let text = "<?xml version=\"1.0\"?><ListMultipartUploadsResult><Bucket>b</Bucket><KeyMarker></KeyMarker>\
            <UploadIdMarker></UploadIdMarker><NextKeyMarker>p/a%2Bb+c%25.bin</NextKeyMarker><NextUploadIdMarker>Yi&amp;x\
            </NextUploadIdMarker><EncodingType>url</EncodingType><MaxUploads>2</MaxUploads><IsTruncated>true</IsTruncated>\
            <Upload><Key>p/x</Key><UploadId>1.a_B-</UploadId><Initiator><ID>i</ID></Initiator>\
            <StorageClass>STANDARD</StorageClass><Initiated>2026-11-30T07:00:00.000Z</Initiated></Upload>\
            <Upload><Key>p/y</Key><UploadId>2</UploadId><Initiated>yesterday</Initiated></Upload>\
            </ListMultipartUploadsResult>";
        let begun = 1_796_022_000;
        assert_eq!(
            page(text),
            (
                vec![Listed { key: "p/x".into(), id: "1.a_B-".into(), begun }],
                Some(Behind { key: "p/a+b c%.bin".into(), id: "Yi&x".into() })
            )
        );
        assert_eq!(page(&text.replace(">true<", ">false<")).1, None);
        let plain = text.replace("<EncodingType>url</EncodingType>", "").replace("p/x", "p/a+b%20&amp;c");
        assert_eq!(page(&plain).0[0].key, "p/a+b%20&c");
        assert_eq!(page("<html>no</html>"), (vec![], None));
    }
}
