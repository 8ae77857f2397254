//! Reading from a web server, by ranges.
//!
//! Our own few lines and not object_store's HTTP store: that one lists by WebDAV, and what is needed here is one GET.
//! Nothing that a server says is believed beyond its form: a range has to be the range that was asked for, and what its
//! bytes are, the caller's hashes say.
//!
//! A redirect is an answer that cannot be used: a store is given by the address at which its bytes are.

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use object_store::client::HttpRequestBody;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    net::{Answer, Client, Fault, Status, words_of},
    trouble::{Trouble, again},
};
use crate::Error;

/// Unreserved characters of RFC 3986, and the separator.
pub(super) const ESCAPED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// The address of a store, and the connections to it.
#[derive(Clone, Debug)]
pub struct Base {
    /// Without a slash at its end.
    url: String,
    client: Client,
}

impl Base {
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let address = super::shown(url);
        let wrong = |why: &str| Error::usage(format!("{address} is not an address: {why}"), "give https://HOST/PATH");
        let uri: Uri = url.parse().map_err(|e: http::uri::InvalidUri| wrong(&e.to_string()))?;
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("names and passwords in it are not sent"));
        }
        if uri.query().is_some() {
            return Err(wrong("it has a query"));
        }
        Ok(Self { url: url.trim_end_matches('/').to_owned(), client: Client::default() })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn open_ahead(&self, requests: usize) {
        if let Ok(uri) = self.url.parse() {
            self.client.open_ahead(&uri, requests);
        }
    }

    /// As [`super::Store::range`].
    pub(crate) async fn range(
        &self,
        object: &str,
        (from, len): (u64, u64),
        etag: &mut Option<String>,
        sink: &mut (impl FnMut(&[u8]) -> Result<(), Error> + Send),
    ) -> Result<(), Trouble> {
        let last = from + len - 1;
        let answer = self.ask(object, Some(format!("bytes={from}-{last}")), etag.as_deref()).await?;
        if answer.status() == StatusCode::OK {
            return Err(Trouble::Stop(no_ranges(object)));
        }
        let text = |name| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let place = text(header::CONTENT_RANGE);
        if !place.starts_with(&format!("bytes {from}-{last}/")) {
            return Err(again(format!("{object}: asked for bytes {from}-{last} and was given {place:?}")));
        }
        note_etag(etag, text(header::ETAG))?;
        let mut left = len;
        relay(answer.into_body(), object, |piece| {
            left = left
                .checked_sub(piece.len() as u64)
                .ok_or_else(|| again(format!("{object}: more came than asked for")))?;
            sink(&piece).map_err(Trouble::Stop)
        })
        .await?;
        if left > 0 {
            return Err(again(format!("{object}: the answer ended {left} bytes early")));
        }
        Ok(())
    }

    /// A small object whole, and its ETag.
    pub(crate) async fn whole(&self, object: &str, limit: usize) -> Result<(Vec<u8>, Option<String>), Trouble> {
        let answer = self.ask(object, None, None).await?;
        let etag = answer.headers().get(header::ETAG).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut bytes = Vec::new();
        relay(answer.into_body(), object, |piece| {
            if bytes.len() + piece.len() > limit {
                let message = format!("{object} is longer than {limit} bytes");
                return Err(Trouble::Stop(Error::content(message, "check the address of the store")));
            }
            bytes.extend_from_slice(&piece);
            Ok(())
        })
        .await?;
        Ok((bytes, etag))
    }

    /// The head of an answer that is 2xx.
    async fn ask(&self, object: &str, range: Option<String>, etag: Option<&str>) -> Result<Response<Answer>, Trouble> {
        let mut request = Request::get(format!("{}/{}", self.url, utf8_percent_encode(object, ESCAPED)))
            .header(header::ACCEPT_ENCODING, "identity");
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        if let Some(etag) = etag {
            request = request.header(header::IF_MATCH, etag);
        }
        let request = request.body(HttpRequestBody::empty()).map_err(|e| {
            Trouble::Stop(Error::usage(format!("{object} cannot be asked for: {e}"), "check the address"))
        })?;
        let answer = self.client.send(request).await.map_err(|fault| of_fault(object, fault))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(refused(object, &words_of(answer).await))
    }
}

/// Remembers the first ETag of a file, and notices another one. Weak ones say nothing of bytes.
pub(super) fn note_etag(etag: &mut Option<String>, came: &str) -> Result<(), Trouble> {
    if came.is_empty() || came.starts_with("W/") {
        return Ok(());
    }
    match etag {
        None => *etag = Some(came.to_owned()),
        Some(before) if before == came => {}
        Some(_) => return Err(Trouble::Changed),
    }
    Ok(())
}

async fn relay(
    mut body: Answer,
    object: &str,
    mut sink: impl FnMut(Bytes) -> Result<(), Trouble> + Send,
) -> Result<(), Trouble> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|fault| of_fault(object, fault))?;
        if let Ok(piece) = frame.into_data() {
            sink(piece)?;
        }
    }
    Ok(())
}

fn of_fault(object: &str, fault: Fault) -> Trouble {
    match fault {
        Fault::Broken(why) => again(format!("{object}: {why}")),
        Fault::Refused(error) => Trouble::Stop(error),
        Fault::Status(said) => refused(object, &said),
    }
}

fn refused(object: &str, said: &Status) -> Trouble {
    let status = said.number;
    if status == StatusCode::NOT_FOUND || status == StatusCode::GONE {
        return Trouble::Absent;
    }
    if status == StatusCode::PRECONDITION_FAILED {
        return Trouble::Changed;
    }
    if may_pass(status) {
        return Trouble::Again { why: format!("{object}: {said}"), after: said.retry_after };
    }
    if status == StatusCode::RANGE_NOT_SATISFIABLE {
        return Trouble::Stop(too_short(object));
    }
    let help = if status.is_redirection() {
        "give the address that it redirects to: redirects are not followed"
    } else {
        "check the address and who may read it"
    };
    Trouble::Stop(Error::environment(format!("{object}: {said}"), help))
}

/// Whether the same request may be answered otherwise a moment later.
pub(super) fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

pub(super) fn too_short(object: &str) -> Error {
    Error::content(
        format!("{object} is shorter than its manifest says (the store answered 416)"),
        "publish the version again",
    )
}

pub(super) fn no_ranges(object: &str) -> Error {
    Error::environment(
        format!("{object}: the server does not serve ranges (it answered 200 to one)"),
        "use a server that does, such as nginx",
    )
}
