//! TLS on the inference listener: which certificate is shown, and how a connection inside TLS ends.
//!
//! The certificate can be exchanged while the fake runs, because that is how one goes wrong in practice: it expires, or
//! a renewal brings one for another name. Connections that are open keep what they were opened with.
//!
//! Faults act below TLS as they do without it. What a connection says in parting is sealed before the socket is closed,
//! and whether `close_notify` comes with it is part of the fault: a process that dies says none, so that a cut is one
//! in TLS too (RFC 8446, 6.1).

use std::{
    io::{self, Write as _},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::conn::BreakableStream;

/// A certificate and its key, as a listener shows them.
#[derive(Clone, Debug)]
pub struct Identity(Arc<ServerConfig>);

impl Identity {
    /// From PEM: the chain, the listener's own certificate first, and its key.
    pub fn from_pem(chain: &str, key: &str) -> io::Result<Self> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let chain = chain.map_err(io::Error::other)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(io::Error::other)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }
}

/// What the listener shows, if it speaks TLS.
#[derive(Debug)]
pub(crate) struct Shown(Mutex<Option<Identity>>);

impl Shown {
    pub(crate) fn new(identity: Option<Identity>) -> Self {
        Self(Mutex::new(identity))
    }

    pub(crate) fn show(&self, identity: Identity) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(identity);
    }

    pub(crate) fn acceptor(&self) -> Option<TlsAcceptor> {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.as_ref().map(|identity| TlsAcceptor::from(identity.0.clone()))
    }
}

/// A breakable connection inside TLS.
pub(crate) struct Secured(TlsStream<BreakableStream>);

impl Secured {
    pub(crate) async fn accept(acceptor: TlsAcceptor, stream: BreakableStream) -> io::Result<Self> {
        acceptor.accept(stream).await.map(Self)
    }

    pub(crate) fn agreed_on_http2(&self) -> bool {
        self.0.get_ref().1.alpn_protocol() == Some(b"h2")
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        let (stream, session) = self.0.get_mut();
        let Some(parting) = stream.parting() else { return };
        // Into memory, which does not fail.
        let _ = session.writer().write_all(&parting.bytes);
        if parting.says_so {
            session.send_close_notify();
        }
        let mut sealed = Vec::new();
        while session.wants_write() && session.write_tls(&mut sealed).is_ok() {}
        stream.seal(sealed);
    }
}

impl AsyncRead for Secured {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.get_ref().0.parting().is_some() {
            return Poll::Ready(Ok(())); // close_notify is the parting's to say, or not
        }
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
