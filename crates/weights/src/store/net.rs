//! Connections to stores: HTTP/1.1 over TCP or TLS, kept while they are good, and given up when nothing moves on them.
//!
//! hyper's client connection, as the gateway uses it, under our own reads from web servers and, as its connector, under
//! object_store. That saves reqwest with its hundred crates; and it means that one place decides how long a silence may
//! last, what a certificate that cannot be trusted is called, and what of an answer's head and body an error tells.
//! HTTP/1.1 and not 2: one connection for each request that is open is what carries weights fastest, and a store's limit
//! for each connection then counts for each of them.
//!
//! Proxies are not used.

use std::{
    error::Error as StdError,
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header, uri::Scheme};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use object_store::{
    ClientOptions,
    client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequestBody, HttpResponseBody, HttpService},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, Sleep, timeout},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{self, ClientConfig, RootCertStore, pki_types::ServerName},
};

use crate::Error;

/// For a kept connection to take another request.
const READY: Duration = Duration::from_secs(1);
const CONNECT: Duration = Duration::from_secs(10);
/// Without a byte in either direction: a store that says nothing for so long has stalled.
const IDLE: Duration = Duration::from_secs(30);
const LONGEST_RETRY_AFTER: u64 = 30;
/// Of an error's body, which is XML of a few lines.
const LONGEST_WORDS: usize = 4_096;

type Sender = http1::SendRequest<Sending>;

/// Why there is no answer, or none that can be used.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The network, or a server that went away: it may work when asked again.
    Broken(String),
    /// It will not work when asked again.
    Refused(Error),
    /// An answer with another status than 2xx.
    Status(Status),
}

/// What a store says when it does not do what it was asked for.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) number: StatusCode,
    /// As in `NoSuchBucket`.
    pub(crate) code: Option<String>,
    /// In words.
    pub(crate) message: Option<String>,
    pub(crate) retry_after: Option<Duration>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(why) => f.write_str(why),
            Self::Refused(error) => f.write_str(&error.message),
            Self::Status(said) => said.fmt(f),
        }
    }
}

impl StdError for Fault {}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store answered {}", self.number)?;
        match (&self.code, &self.message) {
            (Some(code), Some(message)) => write!(f, " ({code}: {message})"),
            (Some(words), None) | (None, Some(words)) => write!(f, " ({words})"),
            (None, None) => Ok(()),
        }
    }
}

/// Where a connection leads.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    secure: bool,
    host: String,
    port: u16,
}

impl Origin {
    fn of(uri: &Uri) -> Result<Self, Fault> {
        let authority = uri.authority().ok_or_else(|| Fault::Broken(format!("{uri} has no host")))?;
        let secure = uri.scheme() == Some(&Scheme::HTTPS);
        Ok(Self {
            secure,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if secure { 443 } else { 80 }),
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Asks, over connections that are kept between requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Client {
    idle: Arc<Mutex<Vec<(Origin, Sender)>>>,
}

impl Client {
    /// The answer to a request with an absolute address, whatever its status.
    pub(crate) async fn send(&self, mut request: Request<HttpRequestBody>) -> Result<Response<Answer>, Fault> {
        let origin = Origin::of(request.uri())?;
        to_origin_form(&mut request)?;
        let moved = Arc::new(AtomicU64::new(0));
        let mut request = request.map(|body| Sending { body, moved: moved.clone() });
        while let Some(mut sender) = self.kept(&origin).await {
            match exchange(&mut sender, request, &moved, &origin).await {
                Ok(answer) => return Ok(self.wrap(answer, origin, sender)),
                // It was closed before anything of the request had left.
                Err((_, Some(unsent))) => request = unsent,
                Err((why, None)) => return Err(Fault::Broken(why)),
            }
        }
        let mut sender = connect(&origin).await?;
        match exchange(&mut sender, request, &moved, &origin).await {
            Ok(answer) => Ok(self.wrap(answer, origin, sender)),
            Err((why, _)) => Err(Fault::Broken(why)),
        }
    }

    /// Opens connections for requests that will come: over a long way that is a round trip, and two more for TLS. One that
    /// cannot be opened is not missed.
    pub(crate) fn open_ahead(&self, uri: &Uri, requests: usize) {
        let Ok(origin) = Origin::of(uri) else { return };
        for _ in 0..requests {
            let (client, origin) = (self.clone(), origin.clone());
            tokio::spawn(async move {
                if let Ok(sender) = connect(&origin).await {
                    client.idle.lock().unwrap_or_else(PoisonError::into_inner).push((origin, sender));
                }
            });
        }
    }

    async fn kept(&self, origin: &Origin) -> Option<Sender> {
        loop {
            let mut sender = {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                let at = idle.iter().rposition(|(of, _)| of == origin)?;
                idle.swap_remove(at).1
            };
            // One that never becomes ready has a body on it that its server no longer reads.
            if matches!(timeout(READY, sender.ready()).await, Ok(Ok(()))) {
                return Some(sender);
            }
        }
    }

    fn wrap(&self, answer: Response<Incoming>, origin: Origin, sender: Sender) -> Response<Answer> {
        answer.map(|body| {
            let mut answer = Answer { body, home: Some((self.clone(), origin, sender)), silence: None };
            if answer.body.is_end_stream() {
                answer.keep();
            }
            answer
        })
    }
}

/// As it is signed, which is as browsers write it: in small letters, and the port only where it is not the scheme's own.
fn host(uri: &Uri) -> String {
    let name = uri.host().unwrap_or_default().to_ascii_lowercase();
    let own = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    uri.port_u16().filter(|port| *port != own).map_or(name.clone(), |port| format!("{name}:{port}"))
}

/// The path alone as the target, and the host beside it.
fn to_origin_form(request: &mut Request<HttpRequestBody>) -> Result<(), Fault> {
    let wrong = |e: &dyn fmt::Display| Fault::Broken(format!("the request cannot be written: {e}"));
    let uri = request.uri();
    let host = HeaderValue::try_from(host(uri)).map_err(|e| wrong(&e))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).parse().map_err(|e| wrong(&e))?;
    *request.uri_mut() = path;
    let headers = request.headers_mut();
    headers.insert(header::HOST, host);
    headers
        .entry(header::USER_AGENT)
        .or_insert(HeaderValue::from_static(concat!("outrigger/", env!("CARGO_PKG_VERSION"))));
    Ok(())
}

/// One request on a connection; with a failure also the request, when nothing of it was sent.
async fn exchange(
    sender: &mut Sender,
    request: Request<Sending>,
    moved: &AtomicU64,
    origin: &Origin,
) -> Result<Response<Incoming>, (String, Option<Request<Sending>>)> {
    let mut sent = std::pin::pin!(sender.try_send_request(request));
    let mut before = 0;
    loop {
        match timeout(IDLE, &mut sent).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(mut failed)) => {
                let unsent = failed.take_message();
                return Err((format!("{origin}: {}", with_cause(failed.error())), unsent));
            }
            Err(_) => {
                let now = moved.load(Ordering::Relaxed);
                if now == before {
                    return Err((format!("{origin}: no answer for {} s", IDLE.as_secs()), None));
                }
                before = now;
            }
        }
    }
}

async fn connect(origin: &Origin) -> Result<Sender, Fault> {
    let stream = timeout(CONNECT, TcpStream::connect((origin.host.as_str(), origin.port)))
        .await
        .map_err(|_| Fault::Broken(format!("{origin} does not answer")))?
        .map_err(|e| Fault::Broken(format!("cannot connect to {origin}: {e}")))?;
    stream.set_nodelay(true).ok();
    if !origin.secure {
        return handshake(stream, origin).await;
    }
    let name = ServerName::try_from(origin.host.clone()).map_err(|e| {
        Fault::Refused(Error::usage(format!("{} is not a host's name: {e}", origin.host), "check the address"))
    })?;
    let secured = timeout(CONNECT, TlsConnector::from(tls()?).connect(name, stream))
        .await
        .map_err(|_| Fault::Broken(format!("{origin} does not answer to TLS")))?
        .map_err(|e| untrusted(origin, &e))?;
    handshake(secured, origin).await
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    origin: &Origin,
) -> Result<Sender, Fault> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| Fault::Broken(format!("cannot speak to {origin}: {e}")))?;
    tokio::spawn(connection);
    Ok(sender)
}

/// rustls with the machine's authorities, or those of `SSL_CERT_FILE`.
fn tls() -> Result<Arc<ClientConfig>, Fault> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    let made = CONFIG.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err("no authority is trusted on this machine".to_owned());
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder.map_err(|e| e.to_string())?.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    });
    made.clone().map_err(|why| Fault::Refused(Error::environment(why, TRUST)))
}

const TRUST: &str =
    "install the machine's certificates (`ca-certificates`), or name the authority's file in SSL_CERT_FILE";

/// A handshake that failed: a certificate is not better on the second try, a network may be.
fn untrusted(origin: &Origin, error: &std::io::Error) -> Fault {
    let cause = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    let help = match cause {
        None => return Fault::Broken(format!("{origin}: TLS: {error}")),
        Some(rustls::Error::InvalidCertificate(_)) => TRUST,
        Some(rustls::Error::InvalidMessage(_)) => "if it speaks plain HTTP, write http:// in the address",
        Some(_) => "the server has to speak TLS 1.2 or 1.3 and HTTP/1.1",
    };
    Fault::Refused(Error::environment(format!("cannot speak TLS to {origin}: {error}"), help))
}

/// A request's body, which counts the pieces that were taken from it.
#[derive(Debug)]
pub(crate) struct Sending {
    body: HttpRequestBody,
    moved: Arc<AtomicU64>,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        self.moved.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body. Read to its end, it gives its connection back.
#[derive(Debug)]
pub(crate) struct Answer {
    body: Incoming,
    home: Option<(Client, Origin, Sender)>,
    /// Runs while nothing comes.
    silence: Option<Pin<Box<Sleep>>>,
}

impl Answer {
    fn keep(&mut self) {
        if let Some((client, origin, sender)) = self.home.take() {
            client.idle.lock().unwrap_or_else(PoisonError::into_inner).push((origin, sender));
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            let silence = self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(IDLE)));
            return silence
                .as_mut()
                .poll(cx)
                .map(|()| Some(Err(Fault::Broken(format!("nothing came for {} s", IDLE.as_secs())))));
        };
        if let Some(silence) = &mut self.silence {
            silence.as_mut().reset(Instant::now() + IDLE);
        }
        match frame {
            None => {
                self.keep();
                Poll::Ready(None)
            }
            Some(Ok(frame)) => {
                if self.body.is_end_stream() {
                    self.keep();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(e)) => Poll::Ready(Some(Err(Fault::Broken(format!("the connection broke: {}", with_cause(&e)))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What an answer that is not 2xx says of itself.
pub(crate) async fn words_of(answer: Response<Answer>) -> Status {
    let status = answer.status();
    let value = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after =
        value.and_then(|text| text.parse().ok()).map(|s: u64| Duration::from_secs(s.min(LONGEST_RETRY_AFTER)));
    let code = |name| answer.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok()).map(str::to_owned);
    let header = code("x-ms-error-code");
    let mut body = answer.into_body();
    let mut text = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        text.extend_from_slice(frame.data_ref().map_or(&[][..], |piece| piece));
        if text.len() > LONGEST_WORDS {
            break;
        }
    }
    let text = String::from_utf8_lossy(&text);
    Status {
        number: status,
        code: element(&text, "Code").or(header),
        message: element(&text, "Message").map(|words| words.lines().next().unwrap_or_default().to_owned()),
        retry_after,
    }
}

pub(super) fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text.trim().chars().filter(|c| !c.is_control()).collect())
}

#[async_trait::async_trait]
impl HttpService for Client {
    /// Answers that are not 2xx are errors here, with all that they say: object_store keeps too little of it.
    async fn call(&self, request: Request<HttpRequestBody>) -> Result<Response<HttpResponseBody>, HttpError> {
        let answer = self.send(request).await.map_err(|fault| HttpError::new(HttpErrorKind::Unknown, fault))?;
        if !answer.status().is_success() {
            let fault = Fault::Status(words_of(answer).await);
            return Err(HttpError::new(HttpErrorKind::Unknown, fault));
        }
        let as_theirs = |fault| HttpError::new(HttpErrorKind::Unknown, fault);
        Ok(answer.map(|body| HttpResponseBody::new(body.map_err(as_theirs))))
    }
}

impl HttpConnector for Client {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

/// hyper says little by itself: the cause is what an operator can use.
fn with_cause(error: &hyper::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    async fn head_of(connection: &mut TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await.unwrap());
        }
    }

    #[test]
    fn a_host_is_written_as_it_is_signed() {
        let named = [
            ("http://MinIO:80/x", "minio"),
            ("http://minio:9000/x", "minio:9000"),
            ("https://Key:Secret@S3.example.com:443/x", "s3.example.com"),
            ("https://h:80/x", "h:80"),
            ("http://[::1]:81/", "[::1]:81"),
        ];
        for (url, expect) in named {
            assert_eq!(host(&url.parse().unwrap()), expect, "{url}");
        }
    }

    /// A server that answered and reads the rest of the body no more: its connection takes no further request, ever.
    #[tokio::test]
    async fn a_kept_connection_that_never_becomes_ready_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let mut open = Vec::new();
            for _ in 0..2 {
                let mut connection = listener.accept().await.unwrap().0;
                head_of(&mut connection).await;
                connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                open.push(connection);
            }
            open
        });
        let client = Client::default();
        // More than the buffers of both sides take.
        let long = Request::put(&url).body(HttpRequestBody::from(Bytes::from(vec![0; 32 << 20]))).unwrap();
        assert_eq!(client.send(long).await.unwrap().status(), 200);
        assert_eq!(client.idle.lock().unwrap().len(), 1, "it was to be kept");
        let next = client.send(Request::get(&url).body(HttpRequestBody::empty()).unwrap());
        let next = timeout(Duration::from_mins(1), next).await.expect("it waits for ever");
        assert_eq!(next.unwrap().status(), 200);
        assert_eq!(server.await.unwrap().len(), 2);
    }
}
