//! HTTP/2 by hand (RFC 9113): frames byte by byte, for what a library would never send, and a backend that keeps to a
//! script.
//!
//! Heads are written without compression and without names from the dynamic table, which every reader takes; heads that
//! come in are counted and not read.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use super::lock;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const ACK: u8 = 1;

pub(super) const REFUSED_STREAM: u32 = 7;
pub(super) const CANCEL: u32 = 8;
pub(super) const ENHANCE_YOUR_CALM: u32 = 11;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    pub(super) fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[self.kind, self.flags], &self.stream.to_be_bytes()].concat();
        [head, self.payload.clone()].concat()
    }

    /// `None` at the end of the connection.
    pub(super) fn read(from: &mut impl Read) -> Option<Self> {
        let mut head = [0; 9];
        from.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        from.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Some(Self { kind: head[3], flags: head[4], stream, payload })
    }

    /// The error code of a reset or a goodbye.
    pub(super) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// Settings by their number.
    pub(super) fn settings(&self) -> Vec<(u16, u32)> {
        let pair = |c: &[u8]| (u16::from_be_bytes([c[0], c[1]]), u32::from_be_bytes([c[2], c[3], c[4], c[5]]));
        self.payload.chunks_exact(6).map(pair).collect()
    }
}

pub(super) fn reset(stream: u32, code: u32) -> Frame {
    Frame::new(RST_STREAM, 0, stream, code.to_be_bytes())
}

pub(super) fn goaway(last: u32, code: u32) -> Frame {
    Frame::new(GOAWAY, 0, 0, [last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// A head, each field written out (RFC 7541, 6.2.2).
pub(super) fn head(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Frame {
    let text = |text: &str| [vec![u8::try_from(text.len()).unwrap()], text.as_bytes().to_vec()].concat();
    let block =
        fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect::<Vec<u8>>();
    Frame::new(HEADERS, flags | END_HEADERS, stream, block)
}

/// The head of a request without a body.
pub(super) fn get(stream: u32, path: &str) -> Frame {
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "gateway"), (":path", path)];
    head(stream, END_STREAM, &fields)
}

/// The head of a request to `path` with a body of JSON.
pub(super) fn post(stream: u32, path: &str) -> Frame {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "gateway"),
        (":path", path),
        ("content-type", "application/json"),
    ];
    head(stream, 0, &fields)
}

/// More room for one stream, or with 0 for the connection.
pub(super) fn window_update(stream: u32, bytes: u32) -> Frame {
    Frame::new(WINDOW_UPDATE, 0, stream, bytes.to_be_bytes())
}

/// A setting by its number.
pub(super) fn setting(number: u16, value: u32) -> Frame {
    Frame::new(SETTINGS, 0, 0, [&number.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

/// What a scripted backend does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Answer,
    /// REFUSED_STREAM: it has not begun.
    Refuse,
    /// GOAWAY, having begun nothing above this stream.
    Leave(u32),
    /// Nothing, for now.
    Ignore,
    /// Ends the connection in the middle of it.
    Die,
    /// One event with content, and no end.
    Hang,
    /// Content without end, as fast as windows allow.
    Flood,
}

/// What came on one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Came {
    pub(super) requests: usize,
    /// Streams that were reset, and why.
    pub(super) resets: Vec<(u32, u32)>,
    pub(super) pings: usize,
}

/// A backend that speaks HTTP/2 in clear text and keeps to a script. Its first connection is the gateway's probe, which
/// is always answered.
pub(super) struct Scripted {
    pub(super) address: SocketAddr,
    came: Arc<Mutex<Vec<Came>>>,
}

impl Scripted {
    /// `script` says what to do with the nth request of the nth connection, both from 0 and without the probe's.
    pub(super) fn start(model: &str, script: impl Fn(usize, usize) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let came: Arc<Mutex<Vec<Came>>> = Arc::default();
        let (book, script, model) = (came.clone(), Arc::new(script), model.to_owned());
        thread::spawn(move || {
            for (n, stream) in listener.incoming().flatten().enumerate() {
                lock(&book).push(Came::default());
                let (book, script, model) = (book.clone(), script.clone(), model.clone());
                thread::spawn(move || {
                    let act = |nth| if n == 0 { Act::Answer } else { script(n - 1, nth) };
                    serve(stream, &model, &book, n, act);
                });
            }
        });
        Self { address, came }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What came on each connection, the probe's too: which of them is the first is open where a request came at once.
    pub(super) fn all(&self) -> Vec<Came> {
        lock(&self.came).clone()
    }

    /// What came on each connection but the first.
    pub(super) fn came(&self) -> Vec<Came> {
        lock(&self.came).iter().skip(1).cloned().collect()
    }

    /// The probe has been answered.
    pub(super) fn was_probed(&self) -> bool {
        lock(&self.came).first().is_some_and(|came| came.requests > 0)
    }
}

fn serve(stream: TcpStream, model: &str, book: &Mutex<Vec<Came>>, n: usize, act: impl Fn(usize) -> Act) {
    let (mut from, to) = (stream.try_clone().unwrap(), Arc::new(Mutex::new(stream)));
    to.lock().unwrap().set_nodelay(true).unwrap();
    let mut preface = [0; PREFACE.len()];
    if from.read_exact(&mut preface).is_err() {
        return;
    }
    assert_eq!(preface, PREFACE, "HTTP/2 begins with this");
    send(&to, &[Frame::new(SETTINGS, 0, 0, [])]);
    while let Some(frame) = Frame::read(&mut from) {
        let mut requests = 0;
        if let Some(came) = lock(book).get_mut(n) {
            match frame.kind {
                HEADERS => came.requests += 1,
                RST_STREAM => came.resets.push((frame.stream, frame.code())),
                PING if frame.flags & ACK == 0 => came.pings += 1,
                _ => {}
            }
            requests = came.requests;
        }
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => send(&to, &[Frame::new(SETTINGS, ACK, 0, [])]),
            PING if frame.flags & ACK == 0 => send(&to, &[Frame::new(PING, ACK, 0, frame.payload)]),
            HEADERS => match act(requests - 1) {
                Act::Answer => send(&to, &answer(frame.stream, model)),
                Act::Ignore => {}
                Act::Refuse => send(&to, &[reset(frame.stream, REFUSED_STREAM)]),
                Act::Leave(last) => send(&to, &[goaway(last, 0)]),
                Act::Die => return drop(to.lock().unwrap().shutdown(std::net::Shutdown::Both)),
                Act::Hang => send(&to, &[stream_head(frame.stream), event(frame.stream, model, "one")]),
                Act::Flood => {
                    send(&to, &[stream_head(frame.stream), event(frame.stream, model, "one")]);
                    // As much as the stream's own window takes, whatever it is: more would be an error.
                    flood(&to, frame.stream, model);
                }
            },
            _ => {}
        }
    }
}

/// 15 KiB short of 128 KiB, the window that the gateway gives to a stream.
fn flood(to: &Mutex<TcpStream>, stream: u32, model: &str) {
    let text = "x".repeat(1_000);
    for _ in 0..90 {
        send(to, &[event(stream, model, &text)]);
    }
}

fn send(to: &Mutex<TcpStream>, frames: &[Frame]) {
    let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
    // The gateway may have left.
    drop(to.lock().unwrap().write_all(&bytes));
}

fn answer(stream: u32, model: &str) -> Vec<Frame> {
    let body = format!(
        r#"{{"id":"1","object":"chat.completion","created":1,"model":"{model}","choices":[{{"index":0,"message":{{"role":"assistant","content":"hi"}},"finish_reason":"stop"}}]}}"#
    );
    let fields = [(":status", "200"), ("content-type", "application/json")];
    vec![head(stream, 0, &fields), Frame::new(DATA, END_STREAM, stream, body)]
}

fn stream_head(stream: u32) -> Frame {
    head(stream, 0, &[(":status", "200"), ("content-type", "text/event-stream")])
}

fn event(stream: u32, model: &str, text: &str) -> Frame {
    let data = format!(
        r#"{{"id":"1","object":"chat.completion.chunk","created":1,"model":"{model}","choices":[{{"index":0,"delta":{{"content":"{text}"}}}}]}}"#
    );
    Frame::new(DATA, 0, stream, format!("data: {data}\n\n"))
}
