//! Paths that name no model: who may use them, where they go, and that nothing is held, changed or sent twice.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use outrigger_fakes::LLAMA_70B;
use serde_json::Value;

use super::{
    Engines, Gateway, eventually,
    http::{Recorder, Request, Response, answer, connect, read_all},
    lock, sha256,
};

/// `near` serves the model; `store` serves it too, and keeps files, batches and stored responses.
fn fleet(near: &str, store: &str, keys: &str) -> String {
    let backend = |name: &str, cloud: &str, url: &str| {
        format!(
            "  {name}:\n    cloud: {cloud}\n    engine: vllm\n    url: {url}/base/v1\n    model: {LLAMA_70B}\n    \
             metrics: none\n"
        )
    };
    [
        "version: 1\nclouds:\n  one: {}\n  two: {}\nbackends:\n",
        &backend("near", "one", near),
        &backend("store", "two", store),
        "models:\n  llama:\n    tiers:\n      - split: { near: 1 }\n",
        "routes:\n  /v1/files: store\n  /v1/batches: store\n  /v1/responses: store\n  /v1/files/public: near\n",
        keys,
    ]
    .concat()
}

fn start(test: &str, keys: &str) -> (Recorder, Recorder, Gateway) {
    let (near, store) = (Recorder::start(LLAMA_70B), Recorder::start(LLAMA_70B));
    let gateway = Gateway::start(test, &fleet(&near.url(), &store.url(), keys));
    (near, store, gateway)
}

fn line(gateway: &Gateway, answer: &Response) -> Value {
    let id = answer.header("x-outrigger-request-id").unwrap();
    let find = || gateway.log().into_iter().find(|line| line["request_id"] == id);
    eventually("a line in the request log", || find().is_some());
    find().unwrap()
}

#[test]
fn a_path_goes_to_its_backend_as_it_came_and_the_answer_comes_back_as_it_is() {
    let (near, store, gateway) = start("routes-pass", "");
    let file = "HTTP/1.1 206 Partial Content\r\ncontent-type: application/octet-stream\r\ncontent-range: bytes 0-3/9\r\n\
                content-disposition: attachment; filename=\"a\"\r\nset-cookie: s=1\r\nopenai-organization: acme\r\n\
                content-length: 4\r\nconnection: close\r\n\r\n\0\x01\x02\x03";
    store.answers(file);
    let asked =
        Request::get("/v1/files/file-1/content?part=1&x=%2F").header("range", "bytes=0-3").header("cookie", "c=1");
    let got = gateway.send(&asked.header("authorization", "Bearer mine"));
    assert_eq!((got.status, got.body.as_slice()), (206, &b"\0\x01\x02\x03"[..]), "{}", got.text());
    assert_eq!(got.header("content-range"), Some("bytes 0-3/9"));
    assert_eq!(got.header("content-length"), Some("4"));
    assert_eq!(got.header("content-disposition"), Some("attachment; filename=\"a\""));
    assert_eq!((got.header("set-cookie"), got.header("openai-organization")), (None, None), "whose account it is");
    assert_eq!(got.header("x-outrigger-backend"), Some("store"));
    let came = store.last();
    assert_eq!(came.head.lines().next(), Some("GET /base/v1/files/file-1/content?part=1&x=%2F HTTP/1.1"));
    assert_eq!(came.header("range"), Some("bytes=0-3"));
    assert_eq!((came.header("authorization"), came.header("cookie")), (None, None), "the client's own stay here");
    let line = line(&gateway, &got);
    let said = (&line["event"], &line["path"], &line["backend"], &line["status"], &line["bytes_in"]);
    assert_eq!(said, (&"routed".into(), &"/v1/files/file-1/content".into(), &"store".into(), &206.into(), &4.into()));
    // The longest prefix wins, and only whole segments are one.
    near.answers(answer("200 OK", "application/json", "{}"));
    assert_eq!(gateway.send(&Request::get("/v1/files/public/1")).header("x-outrigger-backend"), Some("near"));
    assert_eq!(gateway.send(&Request::get("/v1/filesystem")).status, 404);
    // Errors are the backend's own words.
    store.answers(answer("404 Not Found", "application/json", "{\"error\":{\"message\":\"no such file\"}}"));
    let gone = gateway.send(&Request { method: "DELETE", ..Request::get("/v1/files/file-2") });
    assert_eq!((gone.status, gone.json()["error"]["message"].as_str()), (404, Some("no such file")));
    assert!(store.last().head.starts_with("DELETE /base/v1/files/file-2 "));
}

#[test]
fn what_names_a_model_is_routed_by_it_and_what_is_stored_is_not() {
    let (near, store, gateway) = start("routes-stored", "");
    let words = "{\"id\":\"resp_1\",\"object\":\"response\"}";
    store.answers(answer("200 OK", "application/json", words));
    let stored = gateway.send(&Request::get("/v1/responses/resp_1"));
    assert_eq!((stored.status, stored.text().as_str()), (200, words));
    let made = gateway.send(&Request::post("/v1/responses", r#"{"model":"llama","input":"hi"}"#));
    assert!(made.header("x-outrigger-reason") != Some("route"), "{made:?}");
    drop(near);
    let models = gateway.send(&Request::get("/v1/models"));
    assert_eq!(models.json()["data"][0]["id"], "llama");
}

#[test]
fn paths_that_could_be_read_as_others_are_refused() {
    let (_near, store, gateway) = start("routes-paths", "");
    for path in ["/v1/files/../models", "/v1/files/%2e%2E/admin", "/v1/files/a%2fb", "/v1/files//a", "/v1/files/%5ca"] {
        let got = gateway.send(&Request::get(path));
        assert_eq!((got.status, got.json()["error"]["code"].as_str()), (400, Some("ambiguous_path")), "{path}");
    }
    assert!(store.all().iter().all(|r| !r.head.contains("files")), "none of them left the gateway");
}

#[test]
fn a_key_for_some_models_gets_no_routes_unless_they_are_listed() {
    let key = |name: &str, more: &str| format!("  {name}:\n    sha256: {}\n{more}", sha256(name));
    let keys = [
        "keys:\n".to_owned(),
        key("all", ""),
        key("some", "    models: [llama]\n"),
        key("listed", "    models: [llama]\n    routes: [/v1/files]\n"),
        key("elsewhere", "    allowed_clouds: [one]\n"),
    ];
    let (_near, store, gateway) = start("routes-keys", &keys.concat());
    store.answers(answer("200 OK", "application/json", "{}"));
    let status = |key: &str, path: &str| gateway.send(&Request::get(path).key(key)).status;
    assert_eq!([status("all", "/v1/files/1"), status("all", "/v1/batches")], [200, 200]);
    assert_eq!([status("some", "/v1/files/1"), status("some", "/v1/batches")], [404, 404]);
    assert_eq!([status("listed", "/v1/files/1"), status("listed", "/v1/batches")], [200, 404]);
    assert_eq!(status("elsewhere", "/v1/files/1"), 404, "the store is in a cloud that it may not use");
    assert_eq!(gateway.send(&Request::get("/v1/files/1")).status, 401);
}

#[test]
fn a_backend_that_fails_is_asked_once_and_a_drained_one_not_at_all() {
    let (_near, store, gateway) = start("routes-fail", "");
    let seen = || store.all().iter().filter(|r| r.head.contains("/batches")).count();
    // It closes without an answer: the upload has left, and is not sent again.
    store.answers(Vec::new());
    let got = gateway.send(&Request::post("/v1/batches", "{\"a\":1}"));
    assert_eq!(
        (got.status, got.json()["error"]["code"].as_str()),
        (502, Some("backend_unreachable")),
        "{}",
        got.text()
    );
    assert_eq!(seen(), 1);
    store.answers(answer("500 Internal Server Error", "text/plain", "oops"));
    assert_eq!(gateway.send(&Request::post("/v1/batches", "{}")).status, 500);
    assert_eq!(seen(), 2);
    store.answers(
        "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    );
    let redirected = gateway.send(&Request::get("/v1/batches/1"));
    assert_eq!((redirected.status, redirected.header("location")), (502, None), "no redirect is passed on");
    gateway.json(&["drain", "store", "--for", "1h", "--why", "test"]);
    let before = seen();
    let drained = gateway.send(&Request::get("/v1/batches/1"));
    assert_eq!((drained.status, drained.json()["error"]["code"].as_str()), (503, Some("drained")));
    assert_eq!(seen(), before);
}

/// A backend that reads uploads, waits for a while after their first mebibyte, and says how much came.
fn store(read: Arc<Mutex<usize>>, pause: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let read = read.clone();
            thread::spawn(move || take(stream, &read, pause));
        }
    });
    url
}

fn take(mut stream: TcpStream, read: &Mutex<usize>, mut pause: Duration) {
    let mut piece = vec![0; 1 << 16];
    let (mut seen, mut is_upload) = (Vec::new(), false);
    while let Ok(n @ 1..) = stream.read(&mut piece) {
        if !is_upload {
            seen.extend_from_slice(&piece[..n]);
            is_upload = seen.starts_with(b"POST /base/v1/files ");
        }
        if is_upload {
            *lock(read) += n;
            if *lock(read) > 1 << 20 {
                thread::sleep(std::mem::take(&mut pause));
            }
        }
    }
}

#[test]
fn an_upload_is_passed_on_while_it_comes_and_never_held() {
    let read = Arc::default();
    let engines = Engines::instant(1);
    let store = store(Arc::clone(&read), Duration::ZERO);
    let gateway = Gateway::start("routes-upload", &fleet(&engines.url(0), &store, ""));
    let mut client = connect(gateway.listen);
    // Twice what a request that is held may have.
    let whole: usize = 64 << 20;
    write!(client, "POST /v1/files HTTP/1.1\r\nhost: h\r\ncontent-length: {whole}\r\n\r\n").unwrap();
    let before = gateway.resident_kib();
    let part = vec![b'x'; 1 << 20];
    for _ in 0..48 {
        client.write_all(&part).unwrap();
    }
    eventually("what was sent so far", || *lock(&read) >= 47 << 20);
    let grown = gateway.resident_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB are held of an upload of 48 MiB");
    // The client leaves half way, which is not the backend's fault.
    drop(client);
    eventually("its line", || gateway.log().iter().any(|line| line["outcome"] == "client_gone"));
}

/// `limits.read_timeout` is how long the client may be silent, not how long the backend may think.
#[test]
fn a_backend_that_reads_slowly_is_waited_for_and_a_client_that_falls_silent_is_not() {
    let read = Arc::default();
    let engines = Engines::instant(1);
    let store = store(Arc::clone(&read), Duration::from_millis(2_500));
    let fleet = fleet(&engines.url(0), &store, "gateway:\n  limits: { read_timeout: 1s }\n");
    let gateway = Gateway::start("routes-slow", &fleet);
    let mut client = connect(gateway.listen);
    let whole: usize = 32 << 20;
    write!(client, "POST /v1/files HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", whole + 1).unwrap();
    client.write_all(&vec![b'x'; whole]).unwrap();
    eventually("all of it", || *lock(&read) >= whole);
    // The last byte never comes.
    let answer = Response::parse(&read_all(client));
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (408, Some("incomplete_body")));
}

#[test]
fn an_answer_that_breaks_off_does_not_look_whole() {
    let (_near, store, gateway) = start("routes-cut", "");
    store.answers("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n");
    let mut client = connect(gateway.listen);
    client.write_all(&Request::get("/v1/files/1/content").bytes()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let got = read_all(client);
    let text = String::from_utf8_lossy(&got);
    assert!(!text.ends_with("0\r\n\r\n"), "{text}");
    eventually("its line", || gateway.log().iter().any(|line| line["outcome"] == "cut" && line["bytes_in"] == 4));
}
