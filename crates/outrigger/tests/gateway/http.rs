//! HTTP by hand: requests byte by byte, answers taken apart, and a backend that keeps what it was sent.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use super::lock;

/// Longer than any answer takes; a test that waits for this long fails.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("a listener");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_nodelay(true).expect("a socket");
    stream
}

/// Sends these bytes, closes the sending side if told to, and reads until the other side closes.
pub(super) fn raw(to: SocketAddr, bytes: &[u8], then_close: bool) -> Vec<u8> {
    let mut stream = connect(to);
    // The gateway may answer and close before it has read all of it.
    drop(stream.write_all(bytes));
    if then_close {
        drop(stream.shutdown(Shutdown::Write));
    }
    read_all(stream)
}

/// Everything until the other side closes, also where it closes with a reset.
pub(super) fn read_all(mut stream: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut piece = [0; 16_384];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return all,
            Ok(n) => all.extend_from_slice(&piece[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("silent for {PATIENCE:?} after {all:?}"),
            Err(_) => return all,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    pub(super) fn post(path: &str, body: impl Into<Vec<u8>>) -> Self {
        let request = Self { method: "POST", body: body.into(), ..Self::get(path) };
        request.header("content-type", "application/json")
    }

    pub(super) fn chat(body: &Value) -> Self {
        Self::post("/v1/chat/completions", body.to_string())
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn key(self, key: &str) -> Self {
        self.header("authorization", &format!("Bearer {key}"))
    }

    /// The bytes, with a length and asking to close.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: 127.0.0.1\r\n", self.method, self.path);
        if self.method != "GET" {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("connection")) {
            head.push_str("connection: close\r\n");
        }
        head.push_str("\r\n");
        [head.into_bytes(), self.body.clone()].concat()
    }

    pub(super) fn send(&self, to: SocketAddr) -> Response {
        Response::parse(&raw(to, &self.bytes(), false))
    }
}

#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Response {
    #[track_caller]
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let (head, body) = split_head(bytes).unwrap_or_else(|| panic!("no answer: {}", String::from_utf8_lossy(bytes)));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status line");
        let headers = headers(&head);
        let chunked = headers.iter().any(|(n, v)| n == "transfer-encoding" && v == "chunked");
        let body = if chunked { unchunked(body) } else { body.to_vec() };
        Self { status, headers, body }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The data of every event of a stream.
    pub(super) fn events(&self) -> Vec<String> {
        self.text().split("\n\n").filter_map(|e| e.strip_prefix("data: ").map(str::to_owned)).collect()
    }
}

fn split_head(bytes: &[u8]) -> Option<(String, &[u8])> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    Some((String::from_utf8_lossy(&bytes[..end]).into_owned(), &bytes[end + 4..]))
}

fn headers(head: &str) -> Vec<(String, String)> {
    let pairs = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect()
}

/// The body without its chunks' sizes; a chunk that never ended counts as far as it came.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&body[..end]).ok().and_then(|s| usize::from_str_radix(s, 16).ok());
        let size = size.expect("a chunk's size");
        let from = end + 2;
        whole.extend_from_slice(&body[from..(from + size).min(body.len())]);
        body = body.get(from + size + 2..).unwrap_or_default();
        if size == 0 {
            break;
        }
    }
    whole
}

/// A request as a backend got it.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) head: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Received {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(super) fn text(&self) -> String {
        format!("{}\n{}", self.head, String::from_utf8_lossy(&self.body))
    }
}

type Answer = Arc<Mutex<Vec<u8>>>;

/// A backend that keeps what it was sent and answers what it was told to.
pub(super) struct Recorder {
    pub(super) address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    answer: Answer,
}

impl Recorder {
    /// Answers a chat completion by `model`.
    pub(super) fn start(model: &str) -> Self {
        Self::saying(completion(model), completion(model))
    }

    /// Answers probes and everything else so.
    pub(super) fn saying(probed: Vec<u8>, said: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a listener");
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let answer = Answer::new(Mutex::new(said));
        let (keep, say) = (Arc::clone(&received), answer.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (keep, say, probed) = (keep.clone(), say.clone(), probed.clone());
                thread::spawn(move || serve(stream, &keep, &say, &probed));
            }
        });
        Self { address, received, answer }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn answers(&self, bytes: impl Into<Vec<u8>>) {
        *lock(&self.answer) = bytes.into();
    }

    /// All that came, probes and readings of its metrics included.
    pub(super) fn all(&self) -> Vec<Received> {
        lock(&self.received).clone()
    }

    /// The last request of a client.
    #[track_caller]
    pub(super) fn last(&self) -> Received {
        let all = self.all();
        let is_a_clients =
            |r: &Received| r.header("x-outrigger-probe").is_none() && !r.head.starts_with("GET /metrics ");
        all.into_iter().rfind(is_a_clients).expect("a request")
    }
}

fn serve(mut stream: TcpStream, keep: &Mutex<Vec<Received>>, say: &Mutex<Vec<u8>>, probed: &[u8]) {
    let mut bytes = Vec::new();
    let mut piece = [0; 16_384];
    let received = loop {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(n) => bytes.extend_from_slice(&piece[..n]),
        }
        let Some((head, body)) = split_head(&bytes) else { continue };
        let headers = headers(&head);
        let length = headers.iter().find(|(n, _)| n == "content-length").and_then(|(_, v)| v.parse().ok()).unwrap_or(0);
        if body.len() >= length {
            let body = body.to_vec();
            break Received { head, headers, body };
        }
    };
    let is_probe = received.header("x-outrigger-probe").is_some();
    let answer = if is_probe { probed.to_vec() } else { lock(say).clone() };
    lock(keep).push(received);
    drop(stream.write_all(&answer));
}

pub(super) fn answer(status: &str, content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

pub(super) fn completion(model: &str) -> Vec<u8> {
    let body = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model, "unknown": { "kept": [1, 2.50] },
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": "hi" }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4 },
    });
    answer("200 OK", "application/json", &body.to_string())
}

pub(super) fn stream_of(events: &[String]) -> Vec<u8> {
    let body: String = events.iter().map(|e| format!("data: {e}\n\n")).collect();
    answer("200 OK", "text/event-stream", &body)
}
