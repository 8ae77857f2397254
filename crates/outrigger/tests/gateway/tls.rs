//! Clients over TLS: what is agreed on, what is refused, and a certificate that is renewed under them.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    time::{Duration, Instant},
};

use outrigger_fakes::Fixed;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    Engines, Gateway, Profile, eventually, hello,
    http::{Request, Response, connect, raw},
    lock, one_backend_with, outrigger,
    pki::{self, Authority, Issued},
    signals::series,
    streamed,
};

const TLS: &str = "gateway:\n  tls: { cert: file:server.crt, key: file:server.key }\n";

fn start(test: &str, gateway: &str, issued: &Issued, engines: &Engines) -> Gateway {
    issued.write(test, "server");
    Gateway::start(test, &one_backend_with(gateway, &engines.url(0)))
}

/// One request of HTTP/1.1 inside TLS, with the version that was agreed on.
async fn ask(to: SocketAddr, authority: &Authority, alpn: &[&str], request: &Request) -> (Option<Vec<u8>>, Response) {
    let (mut stream, _) = pki::connect(to, &authority.pem, alpn).await.unwrap();
    let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    stream.write_all(&request.bytes()).await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    (agreed, Response::parse(&all))
}

#[test]
fn the_handshake_decides_between_both_versions() {
    let (engines, authority) = (Engines::instant(1), Authority::new("ours"));
    let gateway = start("tls-versions", TLS, &authority.issue(), &engines);
    engines.runtime.block_on(async {
        let request = Request::chat(&hello());
        let (agreed, response) = ask(gateway.listen, &authority, &["http/1.1"], &request).await;
        assert_eq!((agreed.as_deref(), response.status), (Some(b"http/1.1".as_slice()), 200));
        let (agreed, response) = ask(gateway.listen, &authority, &[], &request).await;
        assert_eq!((agreed, response.status), (None, 200), "a client without ALPN speaks HTTP/1.1");

        let (stream, _) = pki::connect(gateway.listen, &authority.pem, &["h2", "http/1.1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        let client = super::http2::Client::on(stream).await;
        let answer = client.chat(&hello()).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["choices"][0]["finish_reason"], json!("length"));
        let stranger = Authority::new("theirs");
        assert!(pki::connect(gateway.listen, &stranger.pem, &["h2"]).await.is_err(), "it must show our certificate");
    });
    let ready = lock(&gateway.stdout).lines().next().unwrap().to_owned();
    assert!(ready.contains(&format!("\"listen\":\"https://{}\"", gateway.listen)), "{ready}");
    assert_eq!(engines.fakes[0].stats().received, 3);
}

/// A ClientHello of this version (RFC 5246, 7.4.1.2) with suites that TLS 1.0 to 1.2 share, and one that 1.2 needs.
fn client_hello(version: [u8; 2]) -> Vec<u8> {
    let suites: [u8; 8] = [0xc0, 0x2b, 0xc0, 0x09, 0xc0, 0x13, 0x00, 0x2f];
    let extensions: Vec<u8> = [
        // Groups: x25519 and P-256; point formats; signature schemes.
        vec![0, 10, 0, 6, 0, 4, 0, 29, 0, 23],
        vec![0, 11, 0, 2, 1, 0],
        vec![0, 13, 0, 6, 0, 4, 4, 3, 4, 1],
    ]
    .concat();
    let mut hello = version.to_vec();
    hello.extend([7; 32]);
    hello.extend([0, 0, suites.len() as u8]);
    hello.extend(suites);
    hello.extend([1, 0, 0, extensions.len() as u8]);
    hello.extend(extensions);
    let handshake = [&[1, 0, 0, hello.len() as u8], hello.as_slice()].concat();
    [&[22, 3, 1, 0, handshake.len() as u8], handshake.as_slice()].concat()
}

#[test]
fn versions_before_tls_1_2_are_refused() {
    let engines = Engines::instant(1);
    let mut gateway = start("tls-old", TLS, &Authority::new("ours").issue(), &engines);
    let first = |version| {
        let mut stream = connect(gateway.listen);
        stream.write_all(&client_hello(version)).unwrap();
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).unwrap();
        answer
    };
    for old in [[3, 1], [3, 2]] {
        let answer = first(old);
        assert_eq!((answer[0], answer[6]), (21, 70), "an alert, protocol_version: {answer:?}");
    }
    assert_eq!(first([3, 3])[0], 22, "the same hello with TLS 1.2 is answered");
    // Clear text is not answered on this port: what came would have been read by others already.
    let plain = raw(gateway.listen, &Request::get("/healthz").bytes(), false);
    assert!(!plain.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&plain));
    assert!(gateway.child.try_wait().unwrap().is_none());
}

#[test]
fn a_renewed_certificate_is_shown_and_streams_go_on() {
    let slow = Fixed { ttft_ms: 10.0, tokens: 40, total_ms: 5_000.0 };
    let engines = Engines::start([Profile { fixed: Some(slow), ..Profile::instant() }]);
    let authority = Authority::new("ours");
    let (first, second) = (authority.issue(), authority.issue());
    let gateway = start("tls-renewed", TLS, &first, &engines);
    let shown = || {
        let connected = engines.runtime.block_on(pki::connect(gateway.listen, &authority.pem, &[]));
        connected.unwrap().1
    };
    assert_eq!(shown(), first.leaf());
    let mut body = streamed(hello());
    body["max_tokens"] = json!(40);
    let stream = {
        let (to, pem) = (gateway.listen, authority.pem.clone());
        engines.runtime.spawn(async move {
            let (mut stream, _) = pki::connect(to, &pem, &["http/1.1"]).await.unwrap();
            stream.write_all(&Request::chat(&body).bytes()).await.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            Response::parse(&all)
        })
    };
    eventually("the stream runs", || engines.fakes[0].stats().tokens > 0);

    second.write("tls-renewed", "server");
    eventually("the new certificate", || shown() == second.leaf());
    // A key that belongs to another certificate changes nothing, and is said once.
    pki::write("tls-renewed", "server.key", &first.key);
    eventually("the warning", || lock(&gateway.stderr).contains("does not belong to the certificate"));
    assert_eq!(shown(), second.leaf());
    let said = lock(&gateway.stderr).clone();
    let warnings: Vec<&str> = said.lines().filter(|line| line.contains("certificate of before")).collect();
    assert_eq!(warnings.len(), 1, "{said}");
    assert!(
        warnings[0].contains("server.key: its private key") && warnings[0].contains("; put the key there"),
        "{said}"
    );
    assert!(!said.contains("BEGIN"), "no key is shown");
    for result in ["ok", "refused"] {
        let labels = [format!("result=\"{result}\"")];
        let count = series(&gateway, "outrigger_certificate_reloads_total", &[labels[0].as_str()]);
        assert_eq!(count, Some(1.0), "{result}");
    }
    assert!(!stream.is_finished(), "the stream outlived both changes");
    let response = engines.runtime.block_on(stream).unwrap();
    assert_eq!(response.events().last().map(String::as_str), Some("[DONE]"), "{}", response.text());
}

/// With two places for clients, and both held by somebody who does not go on.
#[test]
fn who_never_finishes_a_handshake_is_let_go() {
    let engines = Engines::instant(1);
    let authority = Authority::new("ours");
    let limits = "  limits: { connections: 2, read_timeout: 1s }\n";
    let gateway = start("tls-slow", &format!("{TLS}{limits}"), &authority.issue(), &engines);
    let began = Instant::now();
    let silent = connect(gateway.listen);
    let mut halfway = connect(gateway.listen);
    halfway.write_all(&client_hello([3, 3])[..40]).unwrap();
    let waited = engines.runtime.block_on(async {
        let (_, response) = ask(gateway.listen, &authority, &[], &Request::get("/healthz")).await;
        assert_eq!(response.status, 200);
        began.elapsed()
    });
    assert!(waited >= Duration::from_millis(900), "it had no place before: {waited:?}");
    assert!(waited < Duration::from_secs(5), "{waited:?}");
    for mut stream in [silent, halfway] {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).ok();
        assert!(began.elapsed() < Duration::from_secs(8), "closed by now");
    }
}

#[test]
fn a_certificate_of_no_use_is_refused_with_a_reason() {
    let authority = Authority::new("ours");
    let (ours, other) = (authority.issue(), authority.issue());
    let check = |test: &str, chain: &str, key: &str, line: usize, expected: &str| {
        pki::write(test, "server.crt", chain);
        pki::write(test, "server.key", key);
        let file = pki::write(test, "fleet.yaml", &one_backend_with(TLS, "http://127.0.0.1:1"));
        let file = file.to_str().unwrap();
        let out = outrigger(&["serve", "--fleet", file, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], &[]);
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert!(said.contains("error: gateway.tls: ") && said.contains(expected), "{said}");
        let out = outrigger(&["check", file, "--json"], &[]);
        assert_eq!(out.status.code(), Some(1));
        let found: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        let fault = &found["errors"][0];
        assert_eq!((&fault["code"], &fault["line"]), (&json!("bad_certificate"), &json!(line)), "{found}");
        assert!(fault["message"].as_str().unwrap().contains(expected), "{found}");
        assert!(!fault["help"].as_str().unwrap().is_empty());
    };
    check("tls-other-key", &ours.chain, &other.key, 3, "its private key does not belong to the certificate");
    check("tls-no-chain", "nothing\n", &ours.key, 3, "there is no certificate in it");
    check("tls-no-key", &ours.chain, &ours.chain, 3, "there is no private key in it");
    check("tls-broken", &ours.chain[..ours.chain.len() / 2], &ours.key, 3, "its PEM is broken");

    let file = pki::write("tls-absent", "fleet.yaml", &one_backend_with(TLS, "http://127.0.0.1:1"));
    let out = outrigger(&["check", file.to_str().unwrap(), "--json"], &[]);
    assert_eq!(out.status.code(), Some(0), "what is not here may be where `serve` runs");
    let found: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(found["warnings"][0]["code"], "secret_absent", "{found}");
    assert_eq!(found["warnings"][0]["path"], "gateway.tls.cert", "{found}");
}
