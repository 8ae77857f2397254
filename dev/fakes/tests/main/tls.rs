//! TLS on the listener, and how a connection inside it ends, seen by a client that counts what `close_notify` is for.

use std::{io, sync::Arc, time::Duration};

use outrigger_fakes::{Fake, Fault, FaultKind, Identity, Options, Profile};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    faults::{answer, faulty},
    wire::{CHAT, End, Raw, chat, content, events, status},
};

struct Shown {
    fake: Fake,
    believed: CertificateDer<'static>,
}

fn identity() -> (Identity, CertificateDer<'static>) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (Identity::from_pem(&cert.pem(), &signing_key.serialize_pem()).unwrap(), cert.der().clone())
}

async fn secure(fault: Option<FaultKind>) -> Shown {
    let (identity, believed) = identity();
    let fake = Fake::spawn(Options { tls: Some(identity), ..Options::new(Profile::instant()) }).await.unwrap();
    if let Some(kind) = fault {
        fake.set_fault(Fault::new(kind)).await;
    }
    Shown { fake, believed }
}

impl Shown {
    async fn connect(&self, alpn: &[&[u8]]) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.believed.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let tcp = TcpStream::connect(self.fake.listen_addr()).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), tcp).await
    }

    /// What came, and how it ended: `Ok` with `close_notify`, `UnexpectedEof` without.
    async fn ask(&self, stream: bool) -> (String, Result<(), io::ErrorKind>) {
        let mut inside = self.connect(&[b"http/1.1"]).await.unwrap();
        let body = chat(stream, 10);
        let head = format!("POST {CHAT} HTTP/1.1\r\nhost: fake\r\nconnection: close\r\ncontent-length: {}", body.len());
        inside.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let read = timeout(Duration::from_secs(5), inside.read_to_end(&mut bytes)).await.unwrap();
        (String::from_utf8(bytes).unwrap(), read.map(|_| ()).map_err(|e| e.kind()))
    }
}

#[tokio::test]
async fn an_answer_in_tls_ends_with_close_notify() {
    let shown = secure(None).await;
    for stream in [true, false] {
        let (text, end) = shown.ask(stream).await;
        assert_eq!((status(&text), end), (200, Ok(())), "{text}");
    }
}

#[tokio::test]
async fn http2_is_agreed_on_in_tls() {
    let shown = secure(None).await;
    for (alpn, agreed) in [(b"h2".as_slice(), b"h2".as_slice()), (b"http/1.1", b"http/1.1")] {
        let inside = shown.connect(&[alpn]).await.unwrap();
        assert_eq!(inside.get_ref().1.alpn_protocol(), Some(agreed));
    }
}

#[tokio::test]
async fn a_cut_in_tls_lacks_close_notify_and_keeps_what_came_before() {
    let shown = secure(Some(FaultKind::CutEnd)).await;
    let (text, end) = shown.ask(true).await;
    assert_eq!((content(&events(&text)).as_str(), end), (" t0 t1 t2", Err(io::ErrorKind::UnexpectedEof)), "{text}");
    assert!(text.ends_with("data: {\"id\":\"chatcmpl-"), "{text}");
}

#[tokio::test]
async fn an_answer_without_framing_ends_with_close_notify_or_in_doubt() {
    for (kind, ends) in [(FaultKind::Unframed, Ok(())), (FaultKind::UnframedCut, Err(io::ErrorKind::UnexpectedEof))] {
        let shown = secure(Some(kind)).await;
        for stream in [true, false] {
            let (text, end) = shown.ask(stream).await;
            assert_eq!((status(&text), end), (200, ends), "{text}");
            assert!(!text.contains("content-length") && !text.contains("chunked"), "{text}");
            assert!(text.contains(" t9"), "{text}");
        }
    }
    let (text, end) = answer(&faulty(Fault::new(FaultKind::Unframed)).await, false).await;
    assert_eq!((status(&text), end), (200, End::Closed));
}

#[tokio::test]
async fn another_certificate_is_shown_to_whoever_connects_later() {
    let mut shown = secure(None).await;
    let (other, believed) = identity();
    shown.fake.show(other);
    assert!(shown.connect(&[]).await.is_err());
    shown.believed = believed;
    assert!(shown.connect(&[]).await.is_ok());
}

#[tokio::test]
async fn a_mute_listener_takes_connections_and_a_cut_hello_ends_them() {
    for (kind, ends) in [(FaultKind::Mute, End::Silence), (FaultKind::HelloCut, End::Closed)] {
        let fake = faulty(Fault::new(kind)).await;
        assert_eq!(answer(&fake, false).await, (String::new(), ends));
        assert_eq!(fake.stats().received, 0);
        fake.heal().await;
        assert_eq!(status(&answer(&fake, false).await.0), 200);
    }
    let shown = secure(Some(FaultKind::Mute)).await;
    assert!(timeout(Duration::from_millis(300), shown.connect(&[])).await.is_err());
    let open = Raw::connect(&shown.fake).await;
    assert!(open.is_ok());
}
