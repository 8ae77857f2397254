//! One backend as the data plane sees it: its connections, what is sent with every request, and when it was last heard.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header};
use outrigger_core::{fleet::Backend, record::End, units::Nanos};
use outrigger_wire::endpoint::Endpoint;
use tokio::sync::watch;

use crate::{
    body::Upload,
    net::Connect,
    pool::{Pool, Target},
    tls::backend::Pem,
};

/// More connections than this are not opened for the sake of a load balancer.
const MOST_SPREAD: u32 = 16;

/// What a backend's secrets and files resolved to. Never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub api_key: Option<String>,
    pub pem: Pem,
    /// Values of its headers, in the order of the fleet file.
    pub headers: Vec<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// One backend; kept over a reload while its identity and how it is reached stay the same.
pub struct Upstream {
    pub name: String,
    pub pool: Pool,
    /// The path of the base URL, without a trailing slash.
    pub base_path: String,
    /// Where each endpoint is, in the order of [`Endpoint::ALL`].
    endpoints: Vec<Uri>,
    /// Sent with every request: its host, the gateway's key for it, and what the fleet file adds.
    headers: Vec<(HeaderName, HeaderValue)>,
    credentials: Credentials,
    /// The key that a reload replaced.
    key_before: Option<HeaderValue>,
    is_on_key_before: AtomicBool,
    /// Attempts that ended here, and those among them that failed.
    pub attempts: AtomicU64,
    pub failed: AtomicU64,
    /// When the last byte came from it.
    last_byte: AtomicU64,
    /// Counts verdicts; those who wait on the backend without having delivered anything watch it.
    abandoned: watch::Sender<u64>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("name", &self.name).field("pool", &self.pool).finish_non_exhaustive()
    }
}

impl Upstream {
    /// Fails with what is wrong, and what to do about it.
    pub fn new(backend: &Backend, credentials: Credentials, connector: &Arc<dyn Connect>) -> Result<Self, String> {
        let wrong = |what: &str| format!("backend {}: {what}", backend.name);
        let uri: Uri = backend.url.parse().map_err(|_| wrong("its url cannot be parsed"))?;
        let spread = backend.replicas.clamp(1, MOST_SPREAD) as usize;
        let target = Target::new(&uri, &backend.reach, &credentials.pem, spread).map_err(|what| wrong(&what))?;
        let headers = headers(backend, &target, &credentials).map_err(|what| wrong(&what))?;
        let base_path = uri.path().trim_end_matches('/').to_owned();
        let endpoints = Endpoint::ALL.map(|endpoint| format!("{base_path}{}", endpoint.path()).parse());
        let endpoints: Result<_, _> = endpoints.into_iter().collect();
        Ok(Self {
            name: backend.name.clone(),
            pool: Pool::new(connector.clone(), target),
            base_path,
            endpoints: endpoints.map_err(|_| wrong("its url has no proper path"))?,
            headers,
            credentials,
            key_before: None,
            is_on_key_before: AtomicBool::new(false),
            attempts: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            last_byte: AtomicU64::new(0),
            abandoned: watch::Sender::new(0),
        })
    }

    /// Where an endpoint is, below the base URL.
    pub(crate) fn uri(&self, endpoint: Endpoint) -> Uri {
        self.endpoints[endpoint as usize].clone()
    }

    /// A request to this path of the host, with what is sent with every one.
    pub fn request(&self, path: &str, body: Bytes) -> Request<Upload> {
        let mut request = Request::new(Upload::from(body));
        *request.uri_mut() = path.parse().expect("a base path and an endpoint make a path");
        self.sign(request.headers_mut());
        request
    }

    /// Puts the backend's own headers in place of any others of their names.
    pub(crate) fn sign(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        if let Some(key) = self.key_before.as_ref().filter(|_| self.is_on_key_before.load(Ordering::Relaxed)) {
            headers.insert(header::AUTHORIZATION, key.clone());
        }
    }

    /// Remembers the key that this one's replaces: a rotation that is not through yet, or that went wrong, is no outage.
    #[must_use]
    pub(crate) fn after(mut self, old: &Self) -> Self {
        let key =
            |upstream: &Self| upstream.headers.iter().find(|(n, _)| n == header::AUTHORIZATION).map(|(_, v)| v.clone());
        let (new, before) = (key(&self), key(old).or_else(|| old.key_before.clone()));
        self.key_before = before.filter(|before| new.is_some_and(|new| new != *before));
        self
    }

    /// Goes back to the key before after the backend has refused the new one. `false` where that cannot help.
    pub(crate) fn fall_back(&self) -> bool {
        self.key_before.is_some() && !self.is_on_key_before.swap(true, Ordering::Relaxed)
    }

    /// Asks with the new key again.
    pub(crate) fn trust_key(&self) {
        self.is_on_key_before.store(false, Ordering::Relaxed);
    }

    pub(crate) fn is_reached_with(&self, credentials: &Credentials) -> bool {
        self.credentials == *credentials
    }

    /// What a backend said, without what it was sent in confidence and may have repeated.
    pub fn without_secrets(&self, text: &str) -> String {
        let Credentials { api_key, headers, .. } = &self.credentials;
        let secrets = api_key.iter().chain(headers).filter(|secret| !secret.is_empty());
        secrets.fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "…"))
    }

    pub fn heard(&self, now: Nanos) {
        self.last_byte.fetch_max(now.0, Ordering::Relaxed);
    }

    pub(crate) fn last_byte(&self) -> Nanos {
        Nanos(self.last_byte.load(Ordering::Relaxed))
    }

    /// Counts an attempt that is over.
    pub fn ended(&self, end: End) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(u64::from(matches!(end, End::Failed(_))), Ordering::Relaxed);
    }

    pub fn verdicts(&self) -> watch::Receiver<u64> {
        self.abandoned.subscribe()
    }

    /// Frees the requests that wait here.
    pub(crate) fn abandon(&self) {
        self.abandoned.send_modify(|n| *n += 1);
    }
}

fn headers(
    backend: &Backend,
    target: &Target,
    credentials: &Credentials,
) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let host = HeaderValue::from_str(target.authority.as_str()).map_err(|_| "its url has no proper host".to_owned())?;
    let mut all = vec![(header::HOST, host)];
    if let Some(key) = &credentials.api_key {
        all.push((header::AUTHORIZATION, secret(&format!("Bearer {key}"), "api_key")?));
    }
    for ((name, _), value) in backend.reach.headers.iter().zip(&credentials.headers) {
        let value = secret(value, &format!("header {name}"))?;
        let name = name.parse().map_err(|_| format!("`{name}` is not the name of a header"))?;
        all.push((name, value));
    }
    Ok(all)
}

fn secret(text: &str, what: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| format!("its {what} has characters that a header cannot carry; write it again without them"))?;
    value.set_sensitive(true);
    Ok(value)
}
