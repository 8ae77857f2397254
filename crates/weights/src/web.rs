//! Reading from a web server, by ranges over kept HTTP/1.1 connections.
//!
//! hyper's client connection, as the gateway uses it, and not object_store's HTTP store: that one lists by WebDAV, hides the
//! connection that the bound on unfinished bytes is about, and brings 40 crates for one GET. Nothing that a server says is
//! believed beyond its form: a range has to be the range that was asked for, and what its bytes are, the caller's hashes say.
//!
//! A redirect is an answer that cannot be used: a store is given by the address at which its bytes are.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::{net::TcpStream, time::timeout};

use crate::Error;

/// Unreserved characters of RFC 3986, and the separator.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

const CONNECT: Duration = Duration::from_secs(10);
/// For the head of an answer, and then for each piece of its body: a store that says nothing for so long has stalled.
const IDLE: Duration = Duration::from_secs(30);
const LONGEST_RETRY_AFTER: u64 = 30;
/// Of manifests and refs, which are asked for before a pull has begun.
pub(crate) const TRIES: u32 = 5;

/// Why a GET did not bring everything.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It may work when asked again, at the earliest after a while.
    Again {
        why: String,
        after: Option<Duration>,
    },
    /// The server has no such object.
    Absent,
    Stop(Error),
}

fn again(why: impl Into<String>) -> Trouble {
    Trouble::Again { why: why.into(), after: None }
}

/// The address of a store.
#[derive(Clone, Debug)]
pub struct Base {
    authority: String,
    host: String,
    port: u16,
    /// Without a slash at its end.
    path: String,
}

impl Base {
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::usage(format!("{url} is not an address: {why}"), "give http://HOST/PATH");
        let uri: Uri = url.parse().map_err(|e: http::uri::InvalidUri| wrong(&e.to_string()))?;
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("names and passwords in it are not sent"));
        }
        if uri.query().is_some() {
            return Err(wrong("it has a query"));
        }
        Ok(Self {
            authority: authority.to_string(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

/// One connection to a store, made when it is needed and again when it has broken.
#[derive(Debug)]
pub(crate) struct Connection {
    base: Base,
    open: Option<http1::SendRequest<Empty<Bytes>>>,
}

impl Connection {
    pub(crate) fn new(base: Base) -> Self {
        Self { base, open: None }
    }

    /// Gives the bytes `from..from + len` of an object to `sink`, as they come.
    pub(crate) async fn range(
        &mut self,
        object: &str,
        (from, len): (u64, u64),
        sink: &mut (impl FnMut(&[u8]) -> Result<(), Error> + Send),
    ) -> Result<(), Trouble> {
        let last = from + len - 1;
        let (mut sender, answer) = self.ask(object, Some(format!("bytes={from}-{last}"))).await?;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT => {}
            StatusCode::OK => return Err(Trouble::Stop(no_ranges(object))),
            _ => return Err(refused(object, &answer)),
        }
        let place =
            answer.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !place.starts_with(&format!("bytes {from}-{last}/")) {
            return Err(again(format!("{object}: asked for bytes {from}-{last} and was given {place:?}")));
        }
        let mut left = len;
        relay(answer.into_body(), |piece| {
            left = left
                .checked_sub(piece.len() as u64)
                .ok_or_else(|| again(format!("{object}: more came than asked for")))?;
            sink(piece).map_err(Trouble::Stop)
        })
        .await?;
        if left > 0 {
            return Err(again(format!("{object}: the answer ended {left} bytes early")));
        }
        // Only a connection whose answer was read to its end can be asked again.
        if sender.ready().await.is_ok() {
            self.open = Some(sender);
        }
        Ok(())
    }

    async fn whole(&mut self, object: &str, limit: usize) -> Result<Vec<u8>, Trouble> {
        let (_sender, answer) = self.ask(object, None).await?;
        if answer.status() != StatusCode::OK {
            return Err(refused(object, &answer));
        }
        let mut bytes = Vec::new();
        relay(answer.into_body(), |piece| {
            if bytes.len() + piece.len() > limit {
                let message = format!("{object} is longer than {limit} bytes");
                return Err(Trouble::Stop(Error::content(message, "check the address of the store")));
            }
            bytes.extend_from_slice(piece);
            Ok(())
        })
        .await?;
        Ok(bytes)
    }

    /// The head of an answer. The connection is taken out: whoever reads the body to its end puts it back.
    async fn ask(
        &mut self,
        object: &str,
        range: Option<String>,
    ) -> Result<(http1::SendRequest<Empty<Bytes>>, Response<Incoming>), Trouble> {
        let mut sender = match self.open.take() {
            Some(open) if open.is_ready() => open,
            _ => self.connect().await?,
        };
        let path = format!("{}/{}", self.base.path, utf8_percent_encode(object, ESCAPED));
        let mut request = Request::get(path)
            .header(header::HOST, &self.base.authority)
            .header(header::ACCEPT_ENCODING, "identity")
            .header(header::USER_AGENT, concat!("outrigger/", env!("CARGO_PKG_VERSION")));
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        let request = request.body(Empty::new()).map_err(|e| {
            Trouble::Stop(Error::usage(format!("{object} cannot be asked for: {e}"), "check the address"))
        })?;
        let answer = timeout(IDLE, sender.send_request(request))
            .await
            .map_err(|_| again(format!("{object}: no answer for {} s", IDLE.as_secs())))?
            .map_err(|e| again(format!("{object}: {}", with_cause(&e))))?;
        Ok((sender, answer))
    }

    async fn connect(&self) -> Result<http1::SendRequest<Empty<Bytes>>, Trouble> {
        let Base { host, port, authority, .. } = &self.base;
        let stream = timeout(CONNECT, TcpStream::connect((host.as_str(), *port)))
            .await
            .map_err(|_| again(format!("{authority} does not answer")))?
            .map_err(|e| again(format!("cannot connect to {authority}: {e}")))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| again(format!("cannot speak to {authority}: {e}")))?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

async fn relay(mut body: Incoming, mut sink: impl FnMut(&[u8]) -> Result<(), Trouble> + Send) -> Result<(), Trouble> {
    loop {
        let frame =
            timeout(IDLE, body.frame()).await.map_err(|_| again(format!("nothing came for {} s", IDLE.as_secs())))?;
        let Some(frame) = frame else { return Ok(()) };
        let frame = frame.map_err(|e| again(format!("the connection broke: {}", with_cause(&e))))?;
        if let Some(piece) = frame.data_ref() {
            sink(piece)?;
        }
    }
}

/// A small object whole; `None` when the server has none.
pub(crate) async fn small(base: &Base, object: &str, limit: usize) -> Result<Option<Vec<u8>>, Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        match Connection::new(base.clone()).whole(object, limit).await {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(Trouble::Absent) => return Ok(None),
            Err(Trouble::Stop(error)) => return Err(error),
            Err(Trouble::Again { why, .. }) if tries == TRIES => return Err(gave_up(tries, &why)),
            Err(Trouble::Again { after, .. }) => tokio::time::sleep(after.unwrap_or_else(|| pause(tries))).await,
        }
    }
}

pub(crate) fn gave_up(tries: u32, why: &str) -> Error {
    Error::environment(
        format!("gave up after {tries} tries: {why}"),
        "check the store and the network, then run the same command again: what is there is kept",
    )
}

/// Before asking again: from a tenth of a second, doubling, at most five seconds.
pub(crate) fn pause(tries: u32) -> Duration {
    Duration::from_millis(50 << tries.min(10)).min(Duration::from_secs(5))
}

fn refused(object: &str, answer: &Response<Incoming>) -> Trouble {
    let status = answer.status();
    if status == StatusCode::NOT_FOUND || status == StatusCode::GONE {
        return Trouble::Absent;
    }
    if status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT) {
        let value = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after =
            value.and_then(|text| text.parse().ok()).map(|s: u64| Duration::from_secs(s.min(LONGEST_RETRY_AFTER)));
        return Trouble::Again { why: format!("{object}: the store answered {status}"), after };
    }
    let help = if status.is_redirection() {
        "give the address that it redirects to: redirects are not followed"
    } else if status == StatusCode::RANGE_NOT_SATISFIABLE {
        "the object is shorter than its manifest says: publish the version again"
    } else {
        "check the address and who may read it"
    };
    if status == StatusCode::RANGE_NOT_SATISFIABLE {
        return Trouble::Stop(Error::content(format!("{object}: the store answered {status}"), help));
    }
    Trouble::Stop(Error::environment(format!("{object}: the store answered {status}"), help))
}

fn no_ranges(object: &str) -> Error {
    Error::environment(
        format!("{object}: the server does not serve ranges (it answered 200 to one)"),
        "use a server that does, such as nginx",
    )
}

/// hyper says little by itself: the cause is what an operator can use.
fn with_cause(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
