//! What backends are reached with: whom to believe, what to show, and which HTTP version to agree on.
//!
//! The roots are the machine's own, read once, so that whoever runs the machine says whom it trusts; none are built in,
//! since those of an old binary would go stale. A backend's `ca` comes on top.

use std::{
    error::Error,
    io,
    sync::{Arc, OnceLock},
};

use outrigger_core::fleet::HttpVersion;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName, sign::SingleCertAndKey};
use tokio_rustls::TlsConnector;

use super::{HTTP1, HTTP2, authorities, certified_key, ends, provider};
use crate::net::BoxStream;

/// What the files named in a backend's `ca` and `client_cert` hold. Never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Pem {
    pub ca: Option<Vec<u8>>,
    /// The chain, and its key.
    pub client_cert: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pem(…)")
    }
}

/// A connection that is safe.
pub(crate) struct Secured {
    pub(crate) stream: BoxStream,
    /// Whether HTTP/2 was agreed on.
    pub(crate) is_http2: bool,
    /// When the backend's certificate ends, in seconds since the Unix epoch.
    pub(crate) certificate_ends: Option<i64>,
}

/// TLS to one backend.
#[derive(Clone)]
pub struct Secure {
    connector: TlsConnector,
    name: ServerName<'static>,
    needs_http2: bool,
}

impl Secure {
    /// Fails with what is wrong, and what to do about it.
    pub fn new(host: &str, http: HttpVersion, pem: &Pem) -> Result<Self, String> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("`{host}` is not a name that a certificate can carry"))?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots(pem.ca.as_deref())?)
            .with_no_client_auth();
        if let Some((chain, key)) = &pem.client_cert {
            let key = certified_key(chain, key).map_err(|why| {
                let key = if why.is_the_keys() { "key" } else { "cert" };
                format!("client_cert.{key}: {why}; {}", why.help())
            })?;
            config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(key));
        }
        config.alpn_protocols = match http {
            HttpVersion::Negotiated => vec![HTTP2.to_vec(), HTTP1.to_vec()],
            HttpVersion::Http1 => vec![HTTP1.to_vec()],
            HttpVersion::Http2 => vec![HTTP2.to_vec()],
        };
        let needs_http2 = http == HttpVersion::Http2;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name, needs_http2 })
    }

    /// The stream inside TLS. The caller bounds the time.
    pub(crate) async fn connect(&self, stream: BoxStream) -> io::Result<Secured> {
        let stream = self.connector.connect(self.name.clone(), stream).await?;
        let tls = stream.get_ref().1;
        let is_http2 = tls.alpn_protocol() == Some(HTTP2);
        let certificate_ends = tls.peer_certificates().and_then(ends);
        if self.needs_http2 && !is_http2 {
            return Err(io::Error::other("the backend does not agree to HTTP/2; write `http: 1`"));
        }
        Ok(Secured { stream: Box::new(stream), is_http2, certificate_ends })
    }
}

impl std::fmt::Debug for Secure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secure").field("name", &self.name).finish_non_exhaustive()
    }
}

fn roots(ca: Option<&[u8]>) -> Result<Arc<RootCertStore>, String> {
    let own = machine_roots();
    let Some(ca) = ca else {
        let help = "install the machine's certificates (`ca-certificates`), or name the authority as `ca: file:PATH`";
        return if own.is_empty() { Err(format!("no authority is trusted here; {help}")) } else { Ok(own.clone()) };
    };
    let mut roots = authorities(ca).map_err(|why| format!("ca: {why}; {}", why.help()))?;
    roots.roots.extend(own.roots.iter().cloned());
    Ok(Arc::new(roots))
}

/// As many of the machine's roots as can be read: one that is broken must not take the others away.
fn machine_roots() -> &'static Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    })
}

/// Whether a handshake failed because one side refused the other, and not because the connection died.
pub(crate) fn is_refusal(e: &io::Error) -> bool {
    cause(e).is_some() || e.kind() == io::ErrorKind::Other
}

/// Why a handshake failed, for the operator.
pub(crate) fn words(e: &io::Error) -> String {
    match cause(e).and_then(help) {
        Some(help) => format!("{e}; {help}"),
        None => e.to_string(),
    }
}

fn help(e: &rustls::Error) -> Option<&'static str> {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error};
    Some(match e {
        Error::InvalidCertificate(Bad::UnknownIssuer) => "name the authority that issued it as `ca: file:PATH`",
        Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "have the backend's certificate renewed, or set this machine's clock"
        }
        Error::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => "set this machine's clock",
        Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "write a name that it is for in `url`, or have one issued for this name"
        }
        Error::AlertReceived(Alert::ProtocolVersion) => "the backend has neither TLS 1.2 nor 1.3: bring it up to date",
        Error::AlertReceived(Alert::NoApplicationProtocol) => "it does not speak the HTTP version of `http:`",
        Error::AlertReceived(_) => "it may want another `client_cert`, or another HTTP version",
        Error::PeerIncompatible(_) => {
            "bring the backend up to date: TLS 1.3, or 1.2 with ECDHE and AES-GCM or ChaCha20"
        }
        Error::InvalidMessage(_) => "is it plain http?",
        _ => return None,
    })
}

/// The TLS error inside another one: in TLS 1.3 a backend refuses our certificate only after the handshake, with the
/// first bytes that are read.
pub(crate) fn cause<'a>(e: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(e);
    while let Some(e) = next {
        if let Some(tls) = e.downcast_ref() {
            return Some(tls);
        }
        let inside = e.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = inside.map(|e| e as &(dyn Error + 'static)).or_else(|| e.source());
    }
    None
}
