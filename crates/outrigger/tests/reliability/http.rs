//! The smallest HTTP client that can tell what was on the socket: one request per connection, read to its end.
//!
//! Not a library, because the bars are about bytes: whether a body ended in order, and what its last event was.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

/// One whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
    /// A chunked body's last chunk came, or as many bytes as were announced.
    pub(super) complete: bool,
    pub(super) took: Duration,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// The `data:` of each event.
    pub(super) fn events(&self) -> Vec<&str> {
        self.body.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim).collect()
    }
}

/// Sends a request and leaves the connection to the caller.
pub(super) fn open(at: SocketAddr, method: &str, path: &str, body: &str) -> TcpStream {
    let mut socket = TcpStream::connect(at).unwrap_or_else(|e| panic!("{at}: {e}"));
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    socket.write_all((head + body).as_bytes()).unwrap();
    socket
}

pub(super) fn call(at: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    let began = Instant::now();
    let mut socket = open(at, method, path, body);
    let mut raw = Vec::new();
    // A reset shows as an incomplete body.
    socket.read_to_end(&mut raw).ok();
    let raw = String::from_utf8(raw).unwrap();
    let (head, rest) = raw.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head from {at}{path}: {raw:?}"));
    let head = head.to_ascii_lowercase();
    let (body, complete) = if head.contains("transfer-encoding: chunked") {
        dechunked(rest)
    } else {
        let announced = head.lines().find_map(|l| l.strip_prefix("content-length:")).map(|n| n.trim().parse());
        (rest.to_owned(), announced == Some(Ok(rest.len())))
    };
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap();
    Answer { status, body, complete, took: began.elapsed() }
}

fn dechunked(mut rest: &str) -> (String, bool) {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size, 16) else { break };
        if size == 0 {
            return (body, true);
        }
        let Some(chunk) = after.get(..size) else { break };
        body.push_str(chunk);
        rest = after.get(size + 2..).unwrap_or_default();
    }
    (body, false)
}

/// A chat request of 32 tokens.
pub(super) fn chat(stream: bool) -> String {
    serde_json::json!({
        "model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 32, "stream": stream,
    })
    .to_string()
}
