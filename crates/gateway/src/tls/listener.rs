//! What clients are served with: one certificate, renewed when its files change.
//!
//! The files are read twice a second rather than watched: certificates come through symbolic links that are exchanged
//! (Kubernetes), by rename (certbot) or in place, from local disks and network ones, and only reading sees all of
//! them. A certificate and its key are two files and cannot be written at once, so that a change counts only when both
//! have held still from one reading to the next. What is then broken changes nothing: the old certificate stays, and
//! the reason is said once. Connections that are open keep what they were opened with.

use std::{io, path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use outrigger_core::fleet::Certificate;
use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::{HTTP1, HTTP2, certified_key, ends, provider};
use crate::{events::Events, net::BoxStream, raised};

/// Between two readings of the files.
const PERIOD: Duration = Duration::from_millis(500);

/// Accepts clients over TLS.
#[derive(Debug)]
pub struct Listener {
    files: Certificate,
    current: Arc<Current>,
    config: Arc<ServerConfig>,
    began_with: Verdict,
}

/// The certificate in force.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// What the files held: identified by a hash, so that no second copy of the key is kept; or why they cannot be read.
type Verdict = Result<[u8; 32], String>;

impl Listener {
    /// Fails with what is wrong with which file, and what to do.
    pub fn open(files: Certificate) -> Result<Self, String> {
        let (key, hash) = read(&files)?;
        let current = Arc::new(Current(ArcSwap::from_pointee(key)));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        // Resumption without memory of ours: a client that comes back costs no signature.
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|e| e.to_string())?;
        Ok(Self { files, current, config: Arc::new(config), began_with: Ok(hash) })
    }

    /// The stream inside TLS, and whether HTTP/2 was agreed on. The caller bounds the time.
    pub(crate) async fn accept(&self, stream: BoxStream) -> io::Result<(BoxStream, bool)> {
        let stream = TlsAcceptor::from(self.config.clone()).accept(stream).await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
        Ok((Box::new(stream), is_http2))
    }

    /// Renews the certificate whenever its files hold another one, until told to stop.
    pub(crate) async fn follow_files(self: Arc<Self>, events: Events, mut stop: watch::Receiver<bool>) {
        self.say_when_it_ends(&events);
        let mut judged = self.began_with.clone();
        let mut seen = judged.clone();
        loop {
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = raised(&mut stop) => return,
            }
            let files = self.files.clone();
            let Ok((key, found)) = tokio::task::spawn_blocking(move || look(&files)).await else { continue };
            let held_still = found == seen;
            seen = found;
            if !held_still || seen == judged {
                continue;
            }
            judged = seen.clone();
            match key {
                Ok(key) => {
                    self.current.0.store(Arc::new(key));
                    events.certificate_renewed(&self.files.chain);
                    self.say_when_it_ends(&events);
                }
                Err(why) => events.certificate_kept(&why),
            }
        }
    }

    fn say_when_it_ends(&self, events: &Events) {
        if let Some(at) = ends(&self.current.0.load().cert) {
            events.metrics().certificate_ends(&self.files.chain, at);
        }
    }
}

/// What the files hold now, and what identifies it; of files that hold nothing of use, the reason does.
fn look(files: &Certificate) -> (Result<CertifiedKey, String>, Verdict) {
    match read(files) {
        Ok((key, hash)) => (Ok(key), Ok(hash)),
        Err(why) => (Err(why.clone()), Err(why)),
    }
}

fn read(files: &Certificate) -> Result<(CertifiedKey, [u8; 32]), String> {
    let (chain, key) = (bytes(&files.chain)?, bytes(&files.key)?);
    let certified = certified_key(&chain, &key).map_err(|why| {
        let at = if why.is_the_keys() { &files.key } else { &files.chain };
        format!("{}: {why}; {}", at.display(), why.help())
    })?;
    let hash = Sha256::new().chain_update((chain.len() as u64).to_be_bytes()).chain_update(chain).chain_update(key);
    Ok((certified, hash.finalize().into()))
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}
