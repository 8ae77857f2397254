//! HTTP/2 by hand with prior knowledge (RFC 9113), one stream on a connection of its own: what is judged are the frames on
//! the socket. How the stream ends, by END_STREAM, by RST_STREAM with which code, or with its connection, is as it came.
//!
//! Windows are given back as bytes come, and pings are answered. What a server must not send is an error.

use std::io;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{Ask, Got, LEAVES_AFTER, STAYS_CONNECTED, has_seen_enough, hpack};
use crate::matrix::Behaviour;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD: usize = 9;
/// The largest payload that may come, unless more is allowed.
const LARGEST: usize = 16 << 10;
/// The one request.
const STREAM: u32 = 1;
/// No dynamic table for headers, and no pushes.
const SETTINGS: &[u8] = &[0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0];
const CANCEL: u32 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// The types of frames, by their number.
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PUSH_PROMISE: u8 = 5;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    pub(super) const CONTINUATION: u8 = 9;
}

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

pub(super) async fn send(ask: &Ask) -> io::Result<Got> {
    let mut socket = TcpStream::connect(ask.to).await?;
    socket.set_nodelay(true)?;
    socket.write_all(&request(ask)).await?;
    let mut heard = Heard::default();
    loop {
        let next = match ask.behaviour {
            Behaviour::Reads => next_frame(&mut socket, &mut heard.unread).await,
            Behaviour::HangsUp if has_seen_enough(&heard.body) => break,
            Behaviour::HangsUp => match timeout(LEAVES_AFTER, next_frame(&mut socket, &mut heard.unread)).await {
                Ok(next) => next,
                Err(_) => break,
            },
        };
        let Some(frame) = next? else { return Ok(heard.ended_by("the connection ended")) };
        let answer = heard.frame(frame)?;
        if let Some(how) = heard.end.take() {
            return Ok(heard.ended_by(&how));
        }
        // A server that is gone is heard in what is read.
        let _ = socket.write_all(&answer).await;
    }
    leave(socket).await;
    Ok(Got { left: true, ..heard.ended_by("the client left") })
}

fn request(ask: &Ask) -> Vec<u8> {
    let key = format!("Bearer {}", ask.key);
    let length = ask.body.len().to_string();
    let head = hpack::encode([
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "lab"),
        (":path", ask.path),
        ("authorization", key.as_str()),
        ("content-type", "application/json"),
        ("content-length", length.as_str()),
    ]);
    [
        PREFACE.to_vec(),
        frame(kind::SETTINGS, 0, 0, SETTINGS),
        frame(kind::HEADERS, END_HEADERS, STREAM, &head),
        frame(kind::DATA, END_STREAM, STREAM, ask.body.as_bytes()),
    ]
    .concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Gives the request up and stays connected, as a client does that has other requests there.
async fn leave(mut socket: TcpStream) {
    // A server that is gone needs not be told.
    let _ = socket.write_all(&frame(kind::RST_STREAM, 0, STREAM, &CANCEL.to_be_bytes())).await;
    tokio::spawn(async move {
        sleep(STAYS_CONNECTED).await;
        drop(socket);
    });
}

/// `None` when the connection ends. Nothing is lost when it is not waited for to the end.
async fn next_frame(socket: &mut TcpStream, unread: &mut Vec<u8>) -> io::Result<Option<Frame>> {
    loop {
        if let Some(frame) = split_off(unread)? {
            return Ok(Some(frame));
        }
        match socket.read_buf(unread).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(_) => {}
        }
    }
}

fn split_off(unread: &mut Vec<u8>) -> io::Result<Option<Frame>> {
    let Some((head, rest)) = unread.split_first_chunk::<HEAD>() else { return Ok(None) };
    let [a, b, c, kind, flags, s0, s1, s2, s3] = *head;
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    if length > LARGEST {
        return Err(wrong("a frame that is too large, or no HTTP/2"));
    }
    let Some(payload) = rest.get(..length) else { return Ok(None) };
    let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
    let frame = Frame { kind, flags, stream, payload: payload.to_vec() };
    unread.drain(..HEAD + length);
    Ok(Some(frame))
}

/// What has come so far.
#[derive(Debug, Default)]
struct Heard {
    unread: Vec<u8>,
    has_settings: bool,
    /// Of a header block that is not whole yet: what came, and whether the stream ends with it.
    block: Option<(Vec<u8>, bool)>,
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    is_whole: bool,
    end: Option<String>,
}

impl Heard {
    fn ended_by(self, how: &str) -> Got {
        Got {
            status: self.status,
            headers: self.headers,
            body: self.body.into(),
            ended: self.is_whole,
            how: how.to_owned(),
            left: false,
        }
    }

    /// Takes a frame in, and returns what is to be answered.
    fn frame(&mut self, frame: Frame) -> io::Result<Vec<u8>> {
        if !self.has_settings && frame.kind != kind::SETTINGS {
            return Err(wrong("HTTP/2 that does not begin with settings"));
        }
        if self.block.is_some() && frame.kind != kind::CONTINUATION {
            return Err(wrong("something in the middle of a header block"));
        }
        match frame.kind {
            kind::SETTINGS => return Ok(self.settings(&frame)),
            kind::PING if frame.flags & ACK == 0 => return Ok(self::frame(kind::PING, ACK, 0, &frame.payload)),
            kind::DATA => return self.data(frame),
            kind::HEADERS => {
                let ends = frame.flags & END_STREAM != 0;
                let is_last = frame.flags & END_HEADERS != 0;
                on_stream(&frame)?;
                self.block = Some((unpadded(frame)?, ends));
                self.block_so_far(is_last)?;
            }
            kind::CONTINUATION => {
                let Some((block, _)) = &mut self.block else { return Err(wrong("a continuation of nothing")) };
                block.extend(&frame.payload);
                self.block_so_far(frame.flags & END_HEADERS != 0)?;
            }
            kind::RST_STREAM if frame.stream == STREAM => {
                self.end = Some(format!("RST_STREAM {}", code(&frame.payload, 0)));
            }
            kind::GOAWAY => self.goaway(&frame.payload),
            kind::PUSH_PROMISE => return Err(wrong("a push, which was not allowed")),
            // What says nothing here, and what is not known, which is to be left alone (RFC 9113, 5.5).
            _ => {}
        }
        Ok(Vec::new())
    }

    fn settings(&mut self, frame: &Frame) -> Vec<u8> {
        self.has_settings = true;
        if frame.flags & ACK == 0 { self::frame(kind::SETTINGS, ACK, 0, &[]) } else { Vec::new() }
    }

    fn data(&mut self, frame: Frame) -> io::Result<Vec<u8>> {
        on_stream(&frame)?;
        if self.status == 0 {
            return Err(wrong("a body before the head"));
        }
        let (ends, length) = (frame.flags & END_STREAM != 0, frame.payload.len() as u32);
        self.body.extend(unpadded(frame)?);
        self.ends(ends);
        if length == 0 {
            return Ok(Vec::new());
        }
        let update = |stream| self::frame(kind::WINDOW_UPDATE, 0, stream, &length.to_be_bytes());
        Ok([update(0), update(STREAM)].concat())
    }

    fn ends(&mut self, ends: bool) {
        if ends {
            self.is_whole = true;
            self.end = Some("END_STREAM".to_owned());
        }
    }

    /// A head is read when it is whole: an interim one is passed over, and after the head come trailers.
    fn block_so_far(&mut self, is_last: bool) -> io::Result<()> {
        let Some((block, ends)) = self.block.take_if(|_| is_last) else { return Ok(()) };
        let fields = hpack::decode(&block).map_err(io::Error::other)?;
        if self.status != 0 {
            self.ends(ends);
            return Ok(());
        }
        let status = fields.iter().find(|(name, _)| name == ":status").and_then(|(_, value)| value.parse().ok());
        let status: u16 = status.ok_or_else(|| wrong("a head without a status"))?;
        if status >= 200 {
            self.status = status;
            self.headers = fields.into_iter().filter(|(name, _)| !name.starts_with(':')).collect();
        }
        self.ends(ends);
        Ok(())
    }

    /// It ends the stream only if it disowns it.
    fn goaway(&mut self, payload: &[u8]) {
        if code(payload, 0) & 0x7fff_ffff < STREAM {
            self.end = Some(format!("GOAWAY {}", code(payload, 4)));
        }
    }
}

fn on_stream(frame: &Frame) -> io::Result<()> {
    if frame.stream == STREAM { Ok(()) } else { Err(wrong("an answer on a stream that nobody opened")) }
}

/// The number at this place of a payload; none is as bad as the worst.
fn code(payload: &[u8], at: usize) -> u32 {
    let four = payload.get(at..).and_then(<[u8]>::first_chunk::<4>);
    four.map_or(u32::MAX, |four| u32::from_be_bytes(*four))
}

/// Without padding, and without what HEADERS may say of priorities.
fn unpadded(frame: Frame) -> io::Result<Vec<u8>> {
    let Frame { kind, flags, mut payload, .. } = frame;
    let padding = if flags & PADDED == 0 { None } else { payload.first().copied() };
    let priority = if kind == kind::HEADERS && flags & PRIORITY != 0 { 5 } else { 0 };
    let from = usize::from(padding.is_some()) + priority;
    let to = payload.len().checked_sub(usize::from(padding.unwrap_or(0))).filter(|to| *to >= from);
    let to = to.ok_or_else(|| wrong("a frame with more padding than it has bytes"))?;
    payload.truncate(to);
    payload.drain(..from);
    Ok(payload)
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client makes of frames: the answer, or what is wrong with them.
    fn hear(frames: &[Vec<u8>]) -> Result<Got, String> {
        let mut heard = Heard { unread: frames.concat(), ..Heard::default() };
        while let Some(frame) = split_off(&mut heard.unread).map_err(|e| e.to_string())? {
            heard.frame(frame).map_err(|e| e.to_string())?;
            if let Some(how) = heard.end.take() {
                return Ok(heard.ended_by(&how));
            }
        }
        Ok(heard.ended_by("the connection ended"))
    }

    fn settings() -> Vec<u8> {
        frame(kind::SETTINGS, 0, 0, &[])
    }

    fn head(flags: u8) -> Vec<u8> {
        frame(kind::HEADERS, flags, STREAM, &[0x88])
    }

    fn data(flags: u8, bytes: &[u8]) -> Vec<u8> {
        frame(kind::DATA, flags, STREAM, bytes)
    }

    #[test]
    fn an_answer_is_whole_only_with_end_stream() {
        let whole = hear(&[settings(), head(END_HEADERS), data(0, b"ab"), data(END_STREAM, b"c")]).unwrap();
        assert_eq!((whole.status, &whole.body[..], whole.ended), (200, &b"abc"[..], true));
        let reset = frame(kind::RST_STREAM, 0, STREAM, &[0, 0, 0, 2]);
        for (last, how) in [
            (reset, "RST_STREAM 2"),
            (Vec::new(), "the connection ended"),
            (frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 7]), "GOAWAY 7"),
            // One that owns the stream does not end it.
            (frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]), "the connection ended"),
        ] {
            let got = hear(&[settings(), head(END_HEADERS), data(0, b"ab"), last]).unwrap();
            assert_eq!((&got.body[..], got.ended, got.how.as_str()), (&b"ab"[..], false, how));
        }
    }

    #[test]
    fn heads_come_in_pieces_after_interim_ones_and_before_trailers() {
        let interim = frame(kind::HEADERS, END_HEADERS, STREAM, &hpack::encode([(":status", "103")]));
        let first = frame(kind::HEADERS, 0, STREAM, &[0x8d]);
        let rest = frame(kind::CONTINUATION, END_HEADERS, STREAM, &hpack::encode([("retry-after", "7")]));
        let padded = frame(kind::DATA, PADDED, STREAM, b"\x03ab\0\0\0");
        let trailers = frame(kind::HEADERS, END_HEADERS | END_STREAM, STREAM, &hpack::encode([("x", "y")]));
        let got = hear(&[settings(), interim, first, rest, padded, trailers]).unwrap();
        assert_eq!((got.status, got.header("Retry-After"), &got.body[..]), (404, Some("7"), &b"ab"[..]));
        assert!(got.ended);
    }

    #[test]
    fn what_a_server_must_not_send_is_an_error() {
        for frames in [
            vec![head(END_HEADERS)],
            vec![settings(), data(0, b"early")],
            vec![settings(), head(0), data(0, b"x")],
            vec![settings(), frame(kind::HEADERS, END_HEADERS, 3, &[0x88])],
            vec![settings(), frame(kind::DATA, PADDED, STREAM, b"\x09a")],
            vec![settings(), frame(kind::PUSH_PROMISE, END_HEADERS, STREAM, &[0; 5])],
            vec![settings(), frame(kind::HEADERS, END_HEADERS, STREAM, &hpack::encode([("no", "status")]))],
            vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()],
        ] {
            assert!(hear(&frames).is_err(), "{frames:?}");
        }
    }
}
