//! Backends over TLS and HTTP/2: whom the gateway believes, what it shows, and what it does when they leave.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    Engines, Gateway, LLAMA_70B, Start, eventually,
    frames::{Act, CANCEL, Came, Scripted},
    hello,
    http::{self, Recorder, Request, Response, connect},
    lock, outrigger,
    pki::{self, Authority, Door},
    streamed,
};

/// Backends by name, URL, and what else is said of each, one tier for each.
fn fleet(backends: &[(&str, &str, &str)]) -> String {
    let backend = |(name, url, more): &(&str, &str, &str)| {
        format!("  {name}:\n    cloud: c\n    engine: openai\n    url: {url}/v1\n    model: {LLAMA_70B}\n{more}")
    };
    let tier = |(name, ..): &(&str, &str, &str)| format!("      - split: {{ {name}: 1 }}\n");
    let (all, tiers): (String, String) = (backends.iter().map(backend).collect(), backends.iter().map(tier).collect());
    format!("version: 1\nclouds:\n  c: {{}}\nbackends:\n{all}models:\n  llama:\n    tiers:\n{tiers}")
}

#[track_caller]
fn answered(response: &Response, backend: &str) {
    let said = (response.status, response.header("x-outrigger-backend"));
    assert_eq!(said, (200, Some(backend)), "{}", response.text());
}

/// Why a backend is down, by the state.
fn why(gateway: &Gateway, backend: &str) -> Value {
    let state = gateway.json(&["status"]);
    let found = state["backends"].as_array().unwrap().iter().find(|b| b["backend"] == backend).unwrap();
    found["why"].clone()
}

/// In TLS 1.3 the refusal comes after the handshake, and the end of the connection may overtake it.
fn is_turned_away(gateway: &Gateway) -> bool {
    ["tls", "reset"].iter().any(|word| why(gateway, "far") == *word)
}

#[test]
fn a_private_authority_is_believed_where_it_is_named() {
    let engines = Engines::instant(2);
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let issued = ours.issue();
    let door = Door { shows: &issued, demands: None, alpn: &["http/1.1"] };
    let url = format!("https://{}", door.open(&engines.runtime, engines.fakes[0].listen_addr()));
    let plain = engines.url(1);

    let test = "backend-ca";
    pki::write(test, "ca.crt", &ours.pem);
    let gateway = Gateway::start(test, &fleet(&[("far", &url, "    ca: file:ca.crt\n"), ("near", &plain, "")]));
    eventually("the probe came through TLS", || engines.fakes[0].stats().probes > 0);
    answered(&gateway.chat(&hello()), "far");
    let events = gateway.chat(&streamed(hello()));
    answered(&events, "far");
    assert_eq!(events.events().last().map(String::as_str), Some("[DONE]"));
    assert_eq!(engines.fakes[0].stats().received, 2);

    // Without it, and with another one: refused at once, said why, and served elsewhere.
    for (test, more) in [("backend-no-ca", ""), ("backend-other-ca", "    ca: file:ca.crt\n")] {
        pki::write(test, "ca.crt", &theirs.pem);
        let gateway = Gateway::start(test, &fleet(&[("far", &url, more), ("near", &plain, "")]));
        answered(&gateway.chat(&hello()), "near");
        eventually("the state", || why(&gateway, "far") == "tls");
        let expected = "warning: no TLS connection to backend far: invalid peer certificate: UnknownIssuer; \
                        name the authority that issued it as `ca: file:PATH`";
        eventually("the reason", || lock(&gateway.stderr).contains(expected));
        // Two more probes.
        thread::sleep(Duration::from_secs(1));
        assert_eq!(lock(&gateway.stderr).matches("no TLS connection").count(), 1, "said once, probed often");

        let alone = Gateway::start(&format!("{test}-alone"), &fleet(&[("far", &url, "")]));
        eventually("the state", || why(&alone, "far") == "tls");
        let refused = alone.chat(&hello());
        assert_eq!(refused.status, 503);
        assert_eq!(refused.json()["error"]["backends"][0]["reason"], "tls", "{}", refused.text());
    }
    assert_eq!(engines.fakes[0].stats().received, 2, "nothing more got through");
}

/// What the machine trusts is what its administrator says, here by the variable that OpenSSL and its like read.
#[test]
fn the_machines_authorities_are_believed_and_named_ones_come_on_top() {
    let engines = Engines::instant(2);
    let (machines, named) = (Authority::new("the machine's"), Authority::new("named"));
    let shown = [machines.issue(), named.issue()];
    let door = |n: usize| {
        let door = Door { shows: &shown[n], demands: None, alpn: &["http/1.1"] };
        format!("https://{}", door.open(&engines.runtime, engines.fakes[n].listen_addr()))
    };
    let urls = [door(0), door(1)];
    let test = "backend-machine";
    let store = pki::write(test, "store.crt", &machines.pem);
    let nobody = pki::write(test, "nobody.crt", "");
    pki::write(test, "ca.crt", &named.pem);
    let with_ca = "    ca: file:ca.crt\n";
    let text = fleet(&[("a", &urls[0], ""), ("b", &urls[0], with_ca), ("c", &urls[1], with_ca), ("d", &urls[1], "")]);
    let env = [("SSL_CERT_FILE", store.to_str().unwrap()), ("SSL_CERT_DIR", "")];
    let gateway = Gateway::start_with(test, &Start { fleet: &text, env: &env, ..Start::default() });
    eventually("the stranger", || why(&gateway, "d") == "tls");
    for known in ["a", "b", "c"] {
        assert!(why(&gateway, known).is_null(), "{known}: {}", lock(&gateway.stderr));
    }
    answered(&gateway.chat(&hello()), "a");

    let file = gateway.fleet_file();
    let serve = ["serve", "--fleet", file.to_str().unwrap(), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let out = outrigger(&serve, &[("SSL_CERT_FILE", nobody.to_str().unwrap()), ("SSL_CERT_DIR", "")]);
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(!out.status.success() && said.contains("backend a: no authority is trusted here; install"), "{said}");
}

/// What a port is sent on each connection on which anything comes, until the other side is silent for a while, and what it says
/// then.
fn listening(says: &'static [u8]) -> (String, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, came) = (format!("https://{}", listener.local_addr().unwrap()), Arc::<Mutex<Vec<Vec<u8>>>>::default());
    let keep = came.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let (mut all, mut piece) = (Vec::new(), [0; 4_096]);
            let mut has_spoken = says.is_empty();
            loop {
                match stream.read(&mut piece) {
                    Ok(n @ 1..) => {
                        all.extend_from_slice(&piece[..n]);
                        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                    }
                    // It has said what it had to say; now it is answered, and may go on.
                    Err(_) if !has_spoken => drop(stream.write_all(says)),
                    _ => break,
                }
                has_spoken |= !all.is_empty();
            }
            if !all.is_empty() {
                lock(&keep).push(all);
            }
        }
    });
    (url, came)
}

/// Whatever is at the other end: something that speaks plain HTTP, that closes, that is silent, that refuses TLS.
#[test]
fn an_https_backend_is_never_spoken_to_in_clear_text() {
    let plain = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    let moved = b"HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1/v1\r\ncontent-length: 0\r\n\r\n";
    // A fatal alert, protocol_version.
    let alert = &[21, 3, 1, 0, 2, 2, 70];
    for (test, says) in [("plain", &plain[..]), ("moved", moved), ("alert", alert), ("silent", &[])] {
        for http in ["1", "2"] {
            let (url, came) = listening(says);
            let more = format!("    http: {http}\n    api_key: \"${{KEY}}\"\n    timeouts: {{ connect: 1s }}\n");
            let text = fleet(&[("far", &url, &more)]);
            let start = Start { fleet: &text, env: &[("KEY", "CANARY-KEY")], ..Start::default() };
            let gateway = Gateway::start_with(&format!("backend-clear-{test}-{http}"), &start);
            for _ in 0..3 {
                let status = gateway.chat(&hello()).status;
                assert!([502, 503, 504].contains(&status), "{test}: {status}");
            }
            eventually("it connects", || lock(&came).len() >= 2);
            for bytes in &*lock(&came) {
                assert_eq!(bytes.get(..2), Some(&[22, 3][..]), "{test}: a handshake comes first: {bytes:?}");
                let text = String::from_utf8_lossy(bytes);
                assert!(
                    !text.contains("CANARY") && !text.contains("HTTP/") && !text.contains("hello"),
                    "{test}: {text}"
                );
            }
        }
    }
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let engines = Engines::instant(1);
    let ours = Authority::new("ours");
    let issued = ours.issue_for(&["elsewhere.example"]);
    let door = Door { shows: &issued, demands: None, alpn: &[] };
    let url = format!("https://{}", door.open(&engines.runtime, engines.fakes[0].listen_addr()));
    pki::write("backend-name", "ca.crt", &ours.pem);
    let gateway = Gateway::start("backend-name", &fleet(&[("far", &url, "    ca: file:ca.crt\n")]));
    eventually("the reason", || lock(&gateway.stderr).contains("invalid peer certificate: certificate not valid for"));
    assert_eq!(gateway.chat(&hello()).status, 503);
    assert_eq!(engines.fakes[0].stats().probes, 0);
}

#[test]
fn a_backend_that_demands_a_certificate_gets_ours() {
    let engines = Engines::instant(2);
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let issued = ours.issue();
    let door = Door { shows: &issued, demands: Some(&theirs), alpn: &["http/1.1"] };
    let url = format!("https://{}", door.open(&engines.runtime, engines.fakes[0].listen_addr()));
    let plain = engines.url(1);
    let start = |test: &str, more: &str| {
        pki::write(test, "ca.crt", &ours.pem);
        theirs.issue().write(test, "client");
        ours.issue().write(test, "stranger");
        Gateway::start(test, &fleet(&[("far", &url, &format!("    ca: file:ca.crt\n{more}")), ("near", &plain, "")]))
    };
    let gateway = start("backend-mtls", "    client_cert: { cert: file:client.crt, key: file:client.key }\n");
    answered(&gateway.chat(&hello()), "far");
    assert_eq!(engines.fakes[0].stats().received, 1);
    // In TLS 1.3 it says no after the handshake, also to HTTP/2.
    let two = Scripted::start(LLAMA_70B, |_, _| Act::Answer);
    let door = Door { shows: &issued, demands: Some(&theirs), alpn: &["h2"] };
    let url2 = format!("https://{}", door.open(&engines.runtime, two.address));
    pki::write("backend-mtls-2", "ca.crt", &ours.pem);
    let gateway =
        Gateway::start("backend-mtls-2", &fleet(&[("far", &url2, "    ca: file:ca.crt\n"), ("near", &plain, "")]));
    answered(&gateway.chat(&hello()), "near");
    eventually("the state", || is_turned_away(&gateway));
    let stranger = "    client_cert: { cert: file:stranger.crt, key: file:stranger.key }\n";
    for (test, more) in [("backend-mtls-none", ""), ("backend-mtls-stranger", stranger)] {
        let gateway = start(test, more);
        answered(&gateway.chat(&hello()), "near");
        eventually("the state", || is_turned_away(&gateway));
    }
    assert_eq!(engines.fakes[0].stats().received, 1);
}

#[test]
fn files_of_backends_are_checked() {
    let ours = Authority::new("ours");
    let (one, other) = (ours.issue(), ours.issue());
    one.write("backend-check", "client");
    pki::write("backend-check", "client.key", &other.key);
    pki::write("backend-check", "ca.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let more = "    ca: file:ca.crt\n    client_cert: { cert: file:client.crt, key: file:client.key }\n";
    let file = pki::write("backend-check", "fleet.yaml", &fleet(&[("far", "https://127.0.0.1:1", more)]));
    let out = outrigger(&["check", file.to_str().unwrap(), "--json"], &[]);
    let found: Value = serde_json::from_slice(&out.stdout).unwrap();
    let found: Vec<_> =
        found["errors"].as_array().unwrap().iter().map(|f| (f["code"].clone(), f["path"].clone())).collect();
    let expected = |path: &str| (json!("bad_certificate"), json!(path));
    assert_eq!(found, [expected("backends.far.ca"), expected("backends.far.client_cert.key")]);
    let out = outrigger(
        &["serve", "--fleet", file.to_str().unwrap(), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
        &[],
    );
    assert!(!out.status.success());
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.contains("backend far: ca: a certificate in it cannot be read"), "{said}");
}

#[test]
fn headers_of_the_fleet_file_reach_the_backend_and_nobody_else() {
    let recorder = Recorder::start(LLAMA_70B);
    let more = "    api_key: \"${KEY}\"\n    headers:\n      X-Team: platform\n      x-gate-token: \"${GATE}\"\n      \
                x-file: file:value\n";
    pki::write("backend-headers", "value", "from-a-file\n");
    let (key, gate) = ("sk-canary-key", "canary-gate");
    let text = fleet(&[("far", &recorder.url(), more)]);
    let start = Start { fleet: &text, env: &[("KEY", key), ("GATE", gate)], ..Start::default() };
    let gateway = Gateway::start_with("backend-headers", &start);
    let request =
        Request::chat(&hello()).header("x-team", "forged").header("x-gate-token", "forged").header("x-other", "kept");
    let answer = gateway.send(&request);
    assert_eq!(answer.status, 200);
    let got = recorder.last();
    let all = |name: &str| got.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>();
    assert_eq!(all("x-team"), ["platform"]);
    assert_eq!(all("x-gate-token"), [gate]);
    assert_eq!(all("x-file"), ["from-a-file"]);
    assert_eq!(all("authorization"), [format!("Bearer {key}")]);
    assert_eq!(all("x-other"), ["kept"]);
    let probe = || recorder.all().into_iter().find(|r| r.header("x-outrigger-probe").is_some());
    eventually("a probe, which a request may overtake", || probe().is_some());
    let probe = probe().unwrap();
    assert_eq!(probe.header("x-gate-token"), Some(gate), "probes are let in as requests are");
    let state = gateway.admin_get("/api/v1/state").text() + &gateway.admin_get("/metrics").text();
    let said = [lock(&gateway.stdout).clone(), lock(&gateway.stderr).clone(), state, format!("{answer:?}")].concat();
    for secret in [key, gate, "from-a-file"] {
        assert!(!said.contains(secret), "{secret} was told");
    }
}

/// What a scripted backend does from the first connection on, and the gateway in front of it and of a plain one.
fn scripted(
    test: &str,
    engines: &Engines,
    script: impl Fn(usize, usize) -> Act + Send + Sync + 'static,
) -> (Scripted, Gateway) {
    let backend = Scripted::start(LLAMA_70B, script);
    let gateway =
        Gateway::start(test, &fleet(&[("far", &backend.url(), "    http: 2\n"), ("near", &engines.url(0), "")]));
    eventually("the probe", || backend.was_probed() && why(&gateway, "far").is_null());
    (backend, gateway)
}

fn attempts(gateway: &Gateway, n: usize) -> Vec<Value> {
    eventually("the request log", || gateway.log().len() >= n);
    gateway.log().into_iter().map(|line| line["attempts"].clone()).collect()
}

#[test]
fn many_requests_share_a_connection_and_none_waits_for_another() {
    let engines = Engines::instant(1);
    // All hang, but for five that are answered beside them.
    let (backend, gateway) = scripted("backend-shared", &engines, |connection, nth| match (connection, nth) {
        (0, 90..95) => Act::Answer,
        _ => Act::Hang,
    });
    let hanging: Vec<TcpStream> = (0..90).map(|_| send(&gateway, &streamed(hello()))).collect();
    eventually("all have come", || requests(&backend.came()) == 90);
    // Few, since a backend that is silent towards ninety is soon asked whether it lives.
    for _ in 0..5 {
        answered(&gateway.chat(&hello()), "far");
    }
    assert_eq!(requests(&backend.came()), 95);
    let connections = backend.came().iter().filter(|came| came.requests > 0).count();
    assert_eq!(connections, 1, "one connection has room for them: {:?}", backend.came());
    // More than a connection takes go onto the next one.
    let more: Vec<TcpStream> = (0..20).map(|_| send(&gateway, &streamed(hello()))).collect();
    eventually("those too", || requests(&backend.came()) == 115);
    assert_eq!(backend.came()[0].requests, 105, "{:?}", backend.came());
    drop((hanging, more));
    eventually("every stream that hung is reset", || {
        backend.came().iter().flat_map(|c| c.resets.clone()).filter(|(_, code)| *code == CANCEL).count() == 110
    });
}

fn send(gateway: &Gateway, body: &Value) -> TcpStream {
    let mut stream = connect(gateway.listen);
    stream.write_all(&Request::chat(body).bytes()).unwrap();
    stream
}

fn requests(came: &[Came]) -> usize {
    came.iter().map(|c| c.requests).sum()
}

#[test]
fn a_hang_up_resets_its_own_stream_only() {
    let engines = Engines::instant(1);
    let (backend, gateway) = scripted("backend-cancel", &engines, |_, _| Act::Hang);
    let (first, second) = (send(&gateway, &streamed(hello())), send(&gateway, &streamed(hello())));
    eventually("both have come", || requests(&backend.came()) == 2);
    thread::sleep(Duration::from_millis(100));
    let hung_up = Instant::now();
    drop(first);
    eventually("a reset", || !backend.came()[0].resets.is_empty());
    assert!(hung_up.elapsed() < Duration::from_secs(5), "{:?}", hung_up.elapsed());
    let came = backend.came();
    assert_eq!((came.len(), came[0].resets.len(), came[0].resets[0].1), (1, 1, CANCEL));
    drop(second);
    eventually("the other", || backend.came()[0].resets.len() == 2);
    let streams: BTreeSet<u32> = backend.came()[0].resets.iter().map(|(stream, _)| *stream).collect();
    assert_eq!(streams.len(), 2);
}

/// The connection's window holds all streams': clients that do not read stop their own stream and no other.
#[test]
fn a_client_that_does_not_read_stops_nobody_else() {
    let engines = Engines::instant(1);
    let (backend, gateway) =
        scripted("backend-window", &engines, |_, nth| if nth < 20 { Act::Flood } else { Act::Answer });
    let stalled: Vec<TcpStream> = (0..20).map(|_| send(&gateway, &streamed(hello()))).collect();
    eventually("all have come", || requests(&backend.came()) == 20);
    thread::sleep(Duration::from_millis(300));
    let asked = Instant::now();
    answered(&gateway.chat(&hello()), "far");
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    let came = backend.came();
    assert_eq!((came.len(), requests(&came)), (1, 21), "on the same connection");
    assert!(came[0].resets.is_empty(), "no stream broke a window: {came:?}");
    drop(stalled);
}

#[test]
fn what_a_backend_did_not_begin_is_sent_again_for_nothing() {
    let engines = Engines::instant(1);
    for (test, act) in
        [("backend-refuses", Act::Refuse), ("backend-leaves", Act::Leave(1)), ("backend-leaves-all", Act::Leave(0))]
    {
        // The first is answered, so that the connection is a used one; then it takes no more.
        let (backend, gateway) = scripted(test, &engines, move |connection, nth| match (connection, nth) {
            (0, 1) => act,
            _ => Act::Answer,
        });
        for _ in 0..3 {
            answered(&gateway.chat(&hello()), "far");
        }
        let attempts = attempts(&gateway, 3);
        assert!(attempts.iter().all(|a| a.as_array().unwrap().len() == 1 && a[0]["outcome"] == "ok"), "{attempts:?}");
        let came: Vec<usize> = backend.came().iter().map(|c| c.requests).collect();
        assert_eq!((came.len(), came.iter().sum::<usize>()), (2, 4), "{test}: a second connection, once: {came:?}");
        assert!(why(&gateway, "far").is_null(), "and nothing is held against it");
    }
    assert_eq!(engines.fakes[0].stats().received, 0);
}

/// A goodbye while many wait: they all move, and to one connection.
#[test]
fn all_who_were_not_begun_share_the_next_connection() {
    let engines = Engines::instant(1);
    let (backend, gateway) = scripted("backend-leaves-many", &engines, |connection, nth| match (connection, nth) {
        (0, 0..10) => Act::Ignore,
        (0, _) => Act::Leave(0),
        _ => Act::Answer,
    });
    let clients: Vec<TcpStream> = (0..11).map(|_| send(&gateway, &hello())).collect();
    let attempts = attempts(&gateway, 11);
    assert!(attempts.iter().all(|a| a.as_array().unwrap().len() == 1 && a[0]["outcome"] == "ok"), "{attempts:?}");
    let came: Vec<usize> = backend.came().iter().map(|c| c.requests).collect();
    assert_eq!(came, [11, 11]);
    drop(clients);
}

#[test]
fn a_backend_that_begins_nothing_is_left_for_another() {
    let engines = Engines::instant(1);
    let (backend, gateway) = scripted("backend-refuses-all", &engines, |_, _| Act::Refuse);
    answered(&gateway.chat(&hello()), "near");
    let attempts = attempts(&gateway, 1);
    assert_eq!((&attempts[0][0]["backend"], &attempts[0][0]["reason"]), (&json!("far"), &json!("reset")));
    assert_eq!((&attempts[0][1]["backend"], &attempts[0][1]["outcome"]), (&json!("near"), &json!("ok")));
    let before_suspicion: usize = backend.came().iter().take(2).map(|c| c.requests).sum();
    assert!(before_suspicion <= 2, "tried again once, and not for ever: {:?}", backend.came());
}

/// A connection that dies under a request is another matter than one that never took it: the request may be what killed
/// it, and is not put to the same backend twice.
#[test]
fn a_connection_that_dies_takes_no_request_twice() {
    let engines = Engines::instant(1);
    let deaths = AtomicUsize::new(0);
    let (backend, gateway) = scripted("backend-dies", &engines, move |_, nth| {
        if nth == 1 && deaths.fetch_add(1, Ordering::Relaxed) == 0 { Act::Die } else { Act::Answer }
    });
    answered(&gateway.chat(&hello()), "far");
    answered(&gateway.chat(&hello()), "near");
    let attempts = attempts(&gateway, 2);
    assert_eq!((&attempts[1][0]["backend"], &attempts[1][0]["reason"]), (&json!("far"), &json!("reset")));
    assert_eq!(backend.came()[0].requests, 2);
    assert_eq!(engines.fakes[0].stats().received, 1);
}

#[test]
fn the_version_is_what_both_sides_agree_on() {
    let engines = Engines::instant(2);
    let ours = Authority::new("ours");
    let issued = ours.issue();
    let two = Scripted::start(LLAMA_70B, |_, _| Act::Answer);
    let open = |alpn: &'static [&'static str], to| {
        let door = Door { shows: &issued, demands: None, alpn };
        format!("https://{}", door.open(&engines.runtime, to))
    };
    let one = engines.fakes[0].listen_addr();
    let (h2, h1, silent) = (open(&["h2", "http/1.1"], two.address), open(&["http/1.1"], one), open(&[], one));
    let near = engines.url(1);
    let served_by = |test: &str, url: &str, http: &str| {
        pki::write(test, "ca.crt", &ours.pem);
        let more = format!("    ca: file:ca.crt\n{http}");
        let gateway = Gateway::start(test, &fleet(&[("far", url, &more), ("near", &near, "")]));
        let answer = gateway.chat(&hello());
        assert_eq!(answer.status, 200);
        answer.header("x-outrigger-backend").unwrap().to_owned()
    };
    assert_eq!(served_by("alpn-2", &h2, ""), "far");
    assert!(requests(&two.all()) >= 1, "over HTTP/2: the backend reads nothing else");
    assert_eq!(served_by("alpn-2-only", &h2, "    http: 2\n"), "far");
    assert_eq!(served_by("alpn-1", &h1, ""), "far");
    assert_eq!(served_by("alpn-none", &silent, ""), "far");
    // Who insists on HTTP/2 is not given anything else.
    assert_eq!(served_by("alpn-not-2", &h1, "    http: 2\n"), "near");
    assert_eq!(served_by("alpn-silent-not-2", &silent, "    http: 2\n"), "near");
    assert_eq!(engines.fakes[0].stats().received, 2);
}

#[test]
fn prior_knowledge_that_is_wrong_serves_nothing_and_is_said() {
    let engines = Engines::instant(1);
    // One hangs up, and one answers in the version that it knows.
    let (deaf, polite) = (
        http1_only(|_| {}),
        http1_only(|stream| {
            drop(stream.write_all(&http::answer("400 Bad Request", "text/plain", "what?")));
            drop(std::io::copy(stream, &mut std::io::sink()));
        }),
    );
    // Whether the answer is read before the connection ends is a matter of who is faster.
    for (test, url, expected) in [("deaf", deaf, &["reset"][..]), ("polite", polite, &["bad_body", "reset"])] {
        let test = format!("backend-not-2-{test}");
        let gateway = Gateway::start(&test, &fleet(&[("far", &url, "    http: 2\n"), ("near", &engines.url(0), "")]));
        answered(&gateway.chat(&hello()), "near");
        eventually("the state", || expected.iter().any(|word| why(&gateway, "far") == *word));
    }
}

/// The URL of a server that does not know the preface of HTTP/2, and closes when it has done what it does about it.
fn http1_only(answer: fn(&mut TcpStream)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                drop(stream.read(&mut [0; 16]));
                answer(&mut stream);
            });
        }
    });
    url
}
