//! Some three hundred requests that nobody should send, each over a connection of its own: every one is refused with a
//! status that says why or has its connection closed, none reaches a backend, and the gateway is as it was.
//!
//! What takes many frames or much time is in [`super::abuse`], what a refusal says in [`super::bad_input`].

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    Engines, Gateway, eventually,
    frames::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, get,
        goaway, head, reset, setting, window_update,
    },
    hello,
    http::raw,
    lock, one_backend_with,
};

/// The answer is none: the connection is closed.
const CLOSED: u16 = 0;

struct Case {
    group: &'static str,
    bytes: Vec<u8>,
    /// What may come back.
    statuses: &'static [u16],
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(&mut self, group: &'static str, statuses: &'static [u16], bytes: impl Into<Vec<u8>>) {
        self.0.push(Case { group, bytes: bytes.into(), statuses });
    }

    /// A request for chat with this body and its length.
    fn body(&mut self, group: &'static str, statuses: &'static [u16], body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let head =
            format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        self.add(group, statuses, [head.as_bytes(), body].concat());
    }

    /// A request for chat with these lines in its head, and something to eat behind it.
    fn head(&mut self, group: &'static str, statuses: &'static [u16], lines: impl AsRef<[u8]>) {
        let body = hello().to_string();
        let begin = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
        self.add(group, statuses, [begin.as_bytes(), lines.as_ref(), b"\r\n\r\n", body.as_bytes()].concat());
    }

    /// Frames after a greeting.
    fn frames(&mut self, group: &'static str, frames: &[Frame]) {
        let frames = frames.iter().flat_map(Frame::bytes).collect::<Vec<u8>>();
        let hello = Frame::new(SETTINGS, 0, 0, []).bytes();
        self.add(group, &[CLOSED], [PREFACE, &hello, &frames].concat());
    }
}

const CHAT: &str = "/v1/chat/completions";

#[test]
fn nothing_hostile_reaches_a_backend_or_stays() {
    let engines = Engines::instant(1);
    let limits = "gateway:\n  limits: { read_timeout: 1s, write_timeout: 1s, body: 1MiB }\n";
    let mut gateway = Gateway::start("hostile", &one_backend_with(limits, &engines.url(0)));
    let cases = all();
    assert!(cases.len() >= 300, "{}", cases.len());
    // Once to warm up, once to be measured.
    drop(play(gateway.listen, &cases));
    eventually("no connection", || gateway.admin_get("/metrics").text().contains("outrigger_client_connections 0\n"));
    let before = gateway.resident_kib();
    gateway.forget_peak();
    let wrong = play(gateway.listen, &cases);
    let mut groups = BTreeMap::<&str, usize>::new();
    for case in &cases {
        *groups.entry(case.group).or_default() += 1;
    }
    println!(
        "hostile: {} cases {groups:?}, grown by {} KiB at most",
        cases.len(),
        gateway.peak_kib().saturating_sub(before)
    );
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert_eq!(engines.fakes[0].stats().received, 0, "something reached the backend");
    assert!(gateway.peak_kib().saturating_sub(before) < 32 << 10, "{before} KiB before");
    eventually("no connection", || gateway.admin_get("/metrics").text().contains("outrigger_client_connections 0\n"));
    eventually("memory is back", || gateway.resident_kib() < before + (8 << 10));
    gateway.assert_healthy();
    // What is not hostile is told apart.
    let mut good = Cases::default();
    good.body("good", &[400], hello().to_string());
    assert_eq!((play(gateway.listen, &good.0).len(), engines.fakes[0].stats().received), (1, 1));
}

/// Sends all of them, sixteen at a time; what was not refused as it should be.
fn play(to: SocketAddr, cases: &[Case]) -> Vec<String> {
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let answer = raw(to, &case.bytes, false);
                    let statuses = statuses(&answer);
                    let is_right = match statuses[..] {
                        [] => case.statuses.contains(&CLOSED),
                        [status] => case.statuses.contains(&status),
                        _ => false,
                    };
                    if !is_right {
                        let shown = case.bytes[..case.bytes.len().min(160)].escape_ascii();
                        lock(&wrong)
                            .push(format!("{}: {statuses:?} instead of {:?} to {shown}", case.group, case.statuses));
                    }
                }
            });
        }
    });
    wrong.into_inner().unwrap()
}

/// Of every answer over HTTP/1.1; frames are none.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    let begin = |at: usize| text.get(at + 9..at + 12).and_then(|code| code.parse().ok());
    text.match_indices("HTTP/1.").filter_map(|(at, _)| begin(at)).collect()
}

fn all() -> Vec<Case> {
    let mut cases = Cases::default();
    request_lines(&mut cases);
    header_lines(&mut cases);
    lengths(&mut cases);
    chunks(&mut cases);
    encodings(&mut cases);
    json_bodies(&mut cases);
    wrong_types(&mut cases);
    not_http(&mut cases);
    frames(&mut cases);
    cases.0
}

fn request_lines(cases: &mut Cases) {
    let rest = "\r\nhost: x\r\nconnection: close\r\n\r\n";
    for method in ["get", "G\u{0}T", "GE\tT", "", " GET", "\"GET\"", "G(T", "GET\u{1}", "ÄÖÜ", "<script>"] {
        cases.add("method", &[400, 404, 405, CLOSED], format!("{method} / HTTP/1.1{rest}"));
    }
    cases.add("method", &[400, 414, 431, CLOSED], format!("{} / HTTP/1.1{rest}", "A".repeat(100_000)));
    for target in [
        "",
        "*",
        "v1/models",
        "\u{0}",
        "/v1/models\u{0}",
        "/ü",
        "/%",
        "/%zz",
        "/a b",
        "http://",
        "http://[::1",
        "//",
        "/..",
        "/../../etc/passwd",
        "/v1/../v1/models",
        "/v1/chat/completions/../../x",
        "?",
        "#",
        "/#f",
        "@x",
        "/\\",
        "/\u{7f}",
        "/v1/models/%00",
        "/v1/models/..%2f..%2fetc",
        "http://other.example/v1/nothing",
        "/v1/chat/completions%20",
    ] {
        cases.add("target", &[400, 404, 405, 501, CLOSED], format!("GET {target} HTTP/1.1{rest}"));
    }
    cases.add("target", &[400, 414, 431, CLOSED], format!("GET /{} HTTP/1.1{rest}", "a".repeat(200_000)));
    cases.add("target", &[400, 405, 404, CLOSED], format!("CONNECT 127.0.0.1:22 HTTP/1.1{rest}"));
    cases.add("target", &[404, 405], format!("OPTIONS * HTTP/1.1{rest}"));
    cases.add("target", &[404, 405], format!("TRACE / HTTP/1.1{rest}"));
    for version in [
        "",
        "HTTP",
        "HTTP/",
        "HTTP/1",
        "HTTP/1.",
        "HTTP/1.2",
        "HTTP/2.0",
        "HTTP/3",
        "HTTP/9.9",
        "http/1.1",
        "XTTP/1.1",
        "HTTP/1.1 x",
        "HTTP/-1.1",
        "HTTP/1.1\u{0}",
    ] {
        cases.add("version", &[400, 505, CLOSED], format!("GET / {version}{rest}"));
    }
}

fn header_lines(cases: &mut Cases) {
    const REFUSED: &[u16] = &[400, CLOSED];
    for line in [
        "no colon",
        ": no name",
        "na me: x",
        "name : x",
        " folded: x",
        "x: a\r\n folded",
        "x: a\r\n\tfolded",
        "n\u{0}me: x",
        "x: a\u{0}b",
        "nämé: x",
        "(x): y",
        "x\u{7f}: y",
        "x: a\u{1}b",
        "{}: y",
        "a/b: y",
        "\"q\": y",
        "x: \r\u{0}",
        "@: y",
        "[x]: y",
        "x\t: y",
    ] {
        cases.head("header", REFUSED, format!("content-length: 1000\r\n{line}"));
    }
    cases.head("header", REFUSED, b"content-length: 1000\r\nx: a\rb");
    cases.head("header", REFUSED, b"content-length: 1000\r\n\xff\xfe: x");
    cases.head("header flood", &[400, 431, CLOSED], format!("x: {}", "a".repeat(1 << 20)));
    cases.head("header flood", &[400, 431, CLOSED], format!("{}: a", "x".repeat(1 << 20)));
    for n in [200, 2_000, 20_000] {
        cases.head("header flood", &[400, 431, CLOSED], (0..n).map(|i| format!("x{i}: {i}\r\n")).collect::<String>());
    }
    cases.head("header flood", &[400, 431, CLOSED], "x: y\r\n".repeat(50_000));
}

fn lengths(cases: &mut Cases) {
    const REFUSED: &[u16] = &[400, 408, 411, 413, 501, CLOSED];
    for length in [
        "-1",
        "+5",
        "0x5",
        "5.0",
        "5,6",
        "5, 6",
        "1e3",
        "a",
        "5 6",
        "99999999999999999999999",
        "18446744073709551616",
        "9223372036854775808",
        "-9223372036854775808",
        "\u{0}5",
        "5\u{0}",
        "٥",
        "0b1",
        "1_000",
        "\"5\"",
        "5;",
        "5\u{b}",
    ] {
        cases.head("length", REFUSED, format!("content-length: {length}"));
    }
    let two = |a: &str, b: &str| format!("content-length: {a}\r\ncontent-length: {b}");
    for (a, b) in [("5", "6"), ("0", "5"), ("5", "0"), ("5", "-5"), ("5", "5"), ("", "5")] {
        cases.head("length twice", REFUSED, two(a, b));
    }
    for coding in [
        "x",
        "identity",
        "gzip",
        "chunked, chunked",
        "chunked, gzip",
        "chunked, identity",
        "xchunked",
        "chunked;q=1",
        "\"chunked\"",
        "chunked\u{b}",
        "\u{b}chunked",
        "chunked\u{0}",
        "chun ked",
        "cow, chunked\r\ntransfer-encoding: x",
        "chunked\r\ntransfer-encoding: chunked",
        "identity, chunked\r\ncontent-length: 5",
        ",",
        "chunked,,",
        "deflate, chunked, x",
    ] {
        cases.head("transfer coding", REFUSED, format!("transfer-encoding: {coding}"));
    }
    for both in [
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
        "content-length: 0\r\ntransfer-encoding: chunked",
        "Transfer-Encoding: chunked\r\nCONTENT-LENGTH: 10000",
        "content-length: 5\r\ntransfer-encoding: x",
        "content-length: 5\r\nTransfer-Encoding : chunked",
    ] {
        cases.head("length and coding", REFUSED, both);
    }
}

fn chunks(cases: &mut Cases) {
    const REFUSED: &[u16] = &[400, 408, 413, CLOSED];
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut add = |body: Vec<u8>| cases.add("chunk", REFUSED, [head.as_bytes(), &body].concat());
    for size in [
        "zz",
        "-1",
        "+1",
        "0x5",
        "",
        " ",
        "5 5",
        "ffffffffffffffff",
        "fffffffffffffffff",
        "10000000000000000",
        "5;\u{0}",
        "\u{0}",
        "5\u{0}",
        "g",
        "1,",
        "\"5\"",
        "7fffffffffffffff",
    ] {
        add(format!("{size}\r\nhello\r\n0\r\n\r\n").into_bytes());
    }
    add(b"5\nhello\n0\n\n".to_vec());
    add(b"5\r\nhelloXX0\r\n\r\n".to_vec());
    add(b"5\r\nhello0\r\n\r\n".to_vec());
    add(b"5\rhello\r0\r\r".to_vec());
    add(format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(1 << 20)).into_bytes());
    add(b"5\r\nhell".to_vec());
    add(b"5".to_vec());
    add(b"5\r\nhello\r\n".to_vec());
    add(format!("5\r\nhello\r\n0\r\n{}\r\n", "x: y\r\n".repeat(100_000)).into_bytes());
    add(format!("5\r\nhello\r\n0\r\nx: {}\r\n\r\n", "y".repeat(1 << 20)).into_bytes());
    add(b"5\r\nhello\r\n0\r\nno colon\r\n\r\n".to_vec());
    add(format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(50_000)).into_bytes());
    add(format!("{:x}\r\n{}\r\n0\r\n\r\n", 2 << 20, "x".repeat(2 << 20)).into_bytes());
}

fn encodings(cases: &mut Cases) {
    // A megabyte of zeros in a kilobyte, as gzip has it: it is never unpacked.
    let bomb = [&b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"[..], &[0xec; 1_000]].concat();
    for coding in [
        "gzip",
        "x-gzip",
        "deflate",
        "br",
        "zstd",
        "compress",
        "gzip, gzip",
        "gzip, identity",
        "identity, gzip",
        "GZIP",
        "x",
        "exi",
    ] {
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-encoding: {coding}\r\ncontent-length: {}\r\n\r\n",
            bomb.len()
        );
        cases.add("compressed", &[415], [head.as_bytes(), &bomb].concat());
    }
    // Told twice, and the first time that it is not.
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-encoding: identity\r\ncontent-encoding: gzip\r\n\
         content-length: {}\r\n\r\n",
        bomb.len()
    );
    cases.add("compressed", &[400, 415], [head.as_bytes(), &bomb].concat());
}

fn json_bodies(cases: &mut Cases) {
    const REFUSED: &[u16] = &[400];
    for body in [
        "",
        " ",
        "nul",
        "NaN",
        "Infinity",
        "'a'",
        "{",
        "}",
        "[",
        "]",
        "{\"",
        "{\"a",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{\"model\":\"llama\"",
        "{\"model\":\"llama\"}}",
        "{\"model\":\"llama\"} x",
        "{\"model\":\"llama\"}{}",
        "{model:\"llama\"}",
        "{'model':'llama'}",
        "{\"model\":\"llama\"/* c */}",
        "// c\n{\"model\":\"llama\"}",
        "{\"model\":\"llama\",\"x\":01}",
        "{\"model\":\"llama\",\"x\":+1}",
        "{\"model\":\"llama\",\"x\":.5}",
        "{\"model\":\"llama\",\"x\":1.}",
        "{\"model\":\"llama\",\"x\":0x1}",
        "{\"model\":\"llama\",\"x\":1e}",
        "{\"model\":\"llama\",\"x\":-}",
        "{\"model\":\"llama\",\"x\":tru}",
        "{\"model\":\"llama\",\"x\":\"\t\"}",
        "{\"model\":\"llama\",\"x\":\"\u{0}\"}",
        "{\"model\":\"llama\",\"x\":\"\\x\"}",
        "{\"model\":\"llama\",\"x\":\"\\u12\"}",
        "{\"model\":\"llama\",\"x\":\"\\u{41}\"}",
        "{\"model\":\"llama\",\"model\":\"llama\"}",
        "{\"mod\\u0065l\":\"a\",\"model\":\"llama\"}",
        "\u{feff}{\"model\":\"llama\"}",
        "\"model\"",
        "7",
        "true",
        "[{\"model\":\"llama\"}]",
        "{\"a\":[}",
        "{\"a\":]}",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "{1:2}",
        "{null:1}",
        "{\"model\":\"llama\",\"stream\":true",
        "model=llama&stream=true",
        "<xml/>",
        "--x\r\n\r\n",
    ] {
        cases.body("JSON", REFUSED, body);
    }
    for bad in [
        &b"\xff"[..],
        b"\xc0\xaf",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xc3",
        b"\x80",
        b"\xf4\x90\x80\x80",
    ] {
        cases.body("UTF-8", REFUSED, [&b"{\"model\":\"llama\",\"x\":\""[..], bad, b"\"}"].concat());
        cases.body("UTF-8", REFUSED, [&b"{\"model\":\"llama\",\""[..], bad, b"\":1}"].concat());
    }
    let utf16: Vec<u8> = "{\"model\":\"llama\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    cases.body("UTF-8", REFUSED, utf16);
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
        for depth in [1_000, 30_000] {
            let deep = format!("{{\"model\":\"llama\",\"x\":{}1{}}}", open.repeat(depth), close.repeat(depth));
            cases.body("depth", REFUSED, deep);
            cases.body("depth", REFUSED, open.repeat(depth));
        }
    }
}

fn wrong_types(cases: &mut Cases) {
    for model in [
        "null",
        "7",
        "true",
        "[]",
        "{}",
        "\"\"",
        "[\"llama\"]",
        "\"nobody\"",
        "\"../llama\"",
        "\"llama\\u0000\"",
        "\" llama\"",
        "\"LLAMA\"",
    ] {
        cases.body("model", &[400, 404], format!("{{\"model\":{model},\"messages\":[]}}"));
    }
    cases.body("model", &[400, 404], format!("{{\"model\":\"{}\",\"messages\":[]}}", "x".repeat(500_000)));
    for stream in ["1", "0", "\"true\"", "\"\"", "[]", "{}", "1.5"] {
        cases.body("stream", &[400], format!("{{\"model\":\"llama\",\"stream\":{stream},\"messages\":[]}}"));
    }
}

fn not_http(cases: &mut Cases) {
    const REFUSED: &[u16] = &[400, 408, CLOSED];
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"SSH-2.0-x\r\n",
        b"\r\n\r\n\r\n",
        b"\0\0\0\0\0\0\0\0",
        b"EHLO x\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"\x05\x01\x00",
        b"GET /\r\n",
        b"G",
        b"GET / HTTP/1.1\r\nhost: x\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"\n",
        b"GET / HTTP/1.1\nhost",
        b"\xff\xff\xff\xff",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    ] {
        cases.add("not HTTP", REFUSED, bytes);
    }
    // The same noise every time.
    let mut noise = 1_u64;
    for _ in 0..20 {
        let bytes: Vec<u8> = (0..512)
            .map(|_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (noise >> 33) as u8
            })
            .collect();
        cases.add("noise", REFUSED, bytes.clone());
        cases.add("noise", REFUSED, [PREFACE, &bytes].concat());
    }
}

/// Everything here is a connection error, or leaves nothing to do, so that the connection ends by `read_timeout`.
fn frames(cases: &mut Cases) {
    let fields = |extra: &[(&'static str, &'static str)]| {
        let base = [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/v1/nothing")];
        head(1, END_STREAM, &[&base[..], extra].concat())
    };
    let mut add = |frames: &[Frame]| cases.frames("frames", frames);
    for stream in [0, 2, 4] {
        add(&[Frame { stream, ..get(1, "/v1/nothing") }]);
    }
    for kind in [DATA, RST_STREAM, HEADERS, CONTINUATION] {
        add(&[Frame::new(kind, 0, 0, [0; 4])]);
    }
    add(&[Frame::new(DATA, END_STREAM, 1, *b"x")]);
    add(&[Frame::new(DATA, 0, 3, [0; 16_000])]);
    add(&[reset(1, 8)]);
    add(&[reset(2, 8)]);
    add(&[Frame::new(RST_STREAM, 0, 1, [0; 3])]);
    add(&[Frame::new(CONTINUATION, END_HEADERS, 1, [])]);
    add(&[Frame::new(HEADERS, 0, 1, []), Frame::new(DATA, 0, 1, *b"x")]);
    add(&[Frame::new(HEADERS, 0, 1, []), Frame::new(CONTINUATION, END_HEADERS, 3, [])]);
    add(&[Frame::new(HEADERS, 0, 1, []), get(3, "/")]);
    add(&[Frame::new(HEADERS, END_HEADERS | END_STREAM, 1, [0xff; 64])]);
    add(&[Frame::new(HEADERS, END_HEADERS | END_STREAM, 1, [0x80])]);
    add(&[Frame::new(HEADERS, END_HEADERS | END_STREAM, 1, [0x3f, 0xff, 0xff, 0xff, 0xff, 0xff])]);
    add(&[Frame::new(HEADERS, END_HEADERS | END_STREAM | 8, 1, [0xff])]);
    add(&[Frame::new(5, END_HEADERS, 1, [0, 0, 0, 2])]);
    add(&[window_update(0, 0)]);
    add(&[window_update(0, 0x7fff_ffff), window_update(0, 0x7fff_ffff)]);
    add(&[window_update(1, 1)]);
    add(&[Frame::new(8, 0, 0, [0; 3])]);
    add(&[setting(2, 2)]);
    add(&[setting(4, 0x8000_0000)]);
    add(&[setting(5, 1)]);
    add(&[setting(5, 0x0100_0000)]);
    add(&[Frame::new(SETTINGS, 0, 0, [0; 5])]);
    add(&[Frame::new(SETTINGS, 0, 1, [])]);
    add(&[Frame::new(SETTINGS, ACK, 0, [0; 6])]);
    add(&[Frame::new(PING, 0, 0, [0; 7])]);
    add(&[Frame::new(PING, 0, 1, [0; 8])]);
    add(&[Frame::new(7, 0, 0, [0; 4])]);
    add(&[Frame::new(7, 0, 1, [0; 8])]);
    add(&[goaway(0, 0)]);
    add(&[Frame::new(DATA, 8, 1, [255, 0])]);
    add(&[Frame::new(0xfe, 0xff, 0x7fff_ffff, [0; 100])]);
    add(&[Frame::new(DATA, 0, 1, vec![0; 70_000])]);
    add(&[Frame::new(2, 0, 1, [0, 0, 0, 1, 0])]);
    add(&[Frame::new(2, 0, 0, [0; 5])]);
    add(&[Frame::new(2, 0, 1, [0; 4])]);
    for extra in [
        &[("Upper", "x")][..],
        &[("connection", "close")],
        &[("transfer-encoding", "chunked")],
        &[("keep-alive", "x")],
        &[("upgrade", "h2c")],
        &[("te", "gzip")],
        &[(":path", "/again")],
        &[(":status", "200")],
        &[(":unknown", "x")],
        &[("x", "a\r\nb")],
        &[("x", "\0")],
        &[("x y", "a")],
        &[("", "a")],
        &[("content-length", "5")],
    ] {
        add(&[fields(extra)]);
    }
    add(&[head(1, END_STREAM, &[(":method", "GET")])]);
    add(&[head(1, END_STREAM, &[("x", "y"), (":method", "GET"), (":path", "/"), (":scheme", "http")])]);
    add(&[head(1, END_STREAM, &[(":method", "GET"), (":scheme", "http"), (":path", "")])]);
    add(&[head(1, END_STREAM, &[(":method", "CONNECT"), (":authority", "127.0.0.1:22")])]);
    add(&[head(1, END_STREAM, &[])]);
    add(&[get(3, "/v1/nothing"), get(1, "/v1/nothing")]);
    add(&[get(1, "/v1/nothing"), get(1, "/v1/nothing")]);
}
