//! TLS on both sides: what clients are served with ([`listener`]) and what backends are reached with ([`backend`]).
//!
//! rustls with its own defaults: TLS 1.2 and 1.3 and no older one, and the cipher suites and key exchanges that its
//! authors stand by. There is no key in the fleet file to weaken them. What is here is reading PEM, which both sides
//! and `outrigger check` share, so that a file which passes the check is one that serves.

pub mod backend;
pub mod listener;

use std::sync::{Arc, OnceLock};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

/// HTTP/2 and HTTP/1.1 as ALPN names them.
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Why a file of PEM is of no use, in which of the two it lies, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("there is no certificate in it")]
    NoCertificate,
    #[error("its PEM is broken")]
    BrokenPem,
    #[error("a certificate in it cannot be read")]
    BadCertificate,
    #[error("there is no private key in it")]
    NoKey,
    #[error("its PEM is broken")]
    BrokenKey,
    #[error("its private key is of a kind that is not known, or encrypted")]
    UnknownKey,
    #[error("its private key does not belong to the certificate")]
    OtherKey,
}

impl Unusable {
    /// Whether it is the file of the key that has to be mended.
    pub fn is_the_keys(self) -> bool {
        matches!(self, Self::NoKey | Self::BrokenKey | Self::UnknownKey | Self::OtherKey)
    }

    pub fn help(self) -> &'static str {
        match self {
            Self::NoCertificate => "put the chain there in PEM, the server's own certificate first",
            Self::BrokenPem | Self::BadCertificate | Self::BrokenKey => "write the file again, in PEM and whole",
            Self::NoKey => "put the private key there in PEM (PKCS#8, PKCS#1 or SEC1)",
            Self::UnknownKey => "use an RSA, ECDSA (P-256, P-384, P-521) or Ed25519 key without a passphrase",
            Self::OtherKey => "put the key there that this certificate was issued for, or the other certificate",
        }
    }
}

/// A chain and its key, as far as they fit together.
pub fn certified_key(chain: &[u8], key: &[u8]) -> Result<CertifiedKey, Unusable> {
    let chain = certificates(chain)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| match e {
        rustls::pki_types::pem::Error::NoItemsFound => Unusable::NoKey,
        _ => Unusable::BrokenKey,
    })?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => Unusable::OtherKey,
        rustls::Error::InvalidCertificate(_) => Unusable::BadCertificate,
        _ => Unusable::UnknownKey,
    })
}

/// Authorities to trust.
pub fn authorities(pem: &[u8]) -> Result<RootCertStore, Unusable> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|_| Unusable::BadCertificate)?;
    }
    Ok(roots)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|_| Unusable::BrokenPem)?;
    if all.is_empty() { Err(Unusable::NoCertificate) } else { Ok(all) }
}

/// When the server's own certificate ends, in seconds since the Unix epoch. Not the others of its chain: servers also
/// send some that nobody needs any more.
fn ends(chain: &[CertificateDer<'_>]) -> Option<i64> {
    let (_, own) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
    Some(own.validity().not_after.timestamp())
}

/// One for the process, named wherever it is used: nothing depends on which one was installed first.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())).clone()
}
