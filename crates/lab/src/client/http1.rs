//! HTTP/1.1 by hand, so that what the client is said to have got is what was on the wire.

use std::{io, net::SocketAddr};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{Ask, Got, LEAVES_AFTER, has_seen_enough};
use crate::matrix::Behaviour;

const MAX_HEADERS: usize = 64;

pub(super) async fn send(ask: &Ask) -> io::Result<Got> {
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: lab\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        ask.path,
        ask.key,
        ask.body.len()
    );
    let mut socket = TcpStream::connect(ask.to).await?;
    socket.write_all([head.as_bytes(), ask.body.as_bytes()].concat().as_slice()).await?;
    let (bytes, left) = read(&mut socket, ask.behaviour).await;
    drop(socket);
    Ok(Got { left, ..parse(&bytes)? })
}

/// The body of an answer to GET.
pub(crate) async fn get(to: SocketAddr, path: &str) -> io::Result<Bytes> {
    let mut socket = TcpStream::connect(to).await?;
    socket.write_all(format!("GET {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let (bytes, _) = read(&mut socket, Behaviour::Reads).await;
    let got = parse(&bytes)?;
    if got.status != 200 {
        return Err(io::Error::other(format!("status {} for {path}", got.status)));
    }
    Ok(got.body)
}

/// Everything until the other side ends, by FIN or by reset, or until the client has had enough.
async fn read(socket: &mut TcpStream, behaviour: Behaviour) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 4_096];
        let read = match behaviour {
            Behaviour::Reads => socket.read(&mut piece).await,
            Behaviour::HangsUp if has_seen_enough(&bytes) => return (bytes, true),
            Behaviour::HangsUp => match timeout(LEAVES_AFTER, socket.read(&mut piece)).await {
                Ok(read) => read,
                Err(_) => return (bytes, true),
            },
        };
        match read {
            Ok(0) | Err(_) => return (bytes, false),
            Ok(n) => bytes.extend_from_slice(&piece[..n]),
        }
    }
}

fn parse(bytes: &[u8]) -> io::Result<Got> {
    let nothing = Got { how: "the connection ended".to_owned(), ..Got::default() };
    if bytes.is_empty() {
        return Ok(nothing);
    }
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(bytes).map_err(io::Error::other)? else {
        return Ok(nothing);
    };
    let headers: Vec<(String, String)> =
        (head.headers.iter()).map(|h| (h.name.to_owned(), String::from_utf8_lossy(h.value).into_owned())).collect();
    let status = head.code.unwrap_or(0);
    let raw = &bytes[length..];
    let mut got = Got { status, headers, ..nothing };
    (got.body, got.ended) = if got.header("transfer-encoding").is_some() {
        unchunked(raw)
    } else {
        let announced = got.header("content-length").and_then(|text| text.parse().ok());
        (Bytes::copy_from_slice(raw), announced.is_none_or(|length: usize| length == raw.len()))
    };
    Ok(got)
}

/// The bytes of a chunked body, and whether its last chunk came.
fn unchunked(mut raw: &[u8]) -> (Bytes, bool) {
    let mut body = Vec::new();
    loop {
        let Some(line) = raw.windows(2).position(|two| two == b"\r\n") else { return (body.into(), false) };
        let size = std::str::from_utf8(&raw[..line]).ok().and_then(|text| usize::from_str_radix(text.trim(), 16).ok());
        let Some(size) = size else { return (body.into(), false) };
        raw = &raw[line + 2..];
        if size == 0 {
            return (body.into(), true);
        }
        let here = size.min(raw.len());
        body.extend_from_slice(&raw[..here]);
        match raw.get(size + 2..) {
            Some(rest) => raw = rest,
            None => return (body.into(), false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_body_is_whole_only_with_its_last_chunk() {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let whole = parse(format!("{head}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").as_bytes()).expect("an answer");
        assert_eq!((whole.status, &whole.body[..], whole.ended), (200, &b"abcde"[..], true));
        for cut in ["3\r\nabc\r\n2\r\nde\r\n", "3\r\nab", "3\r\nabc\r\n2", "zz\r\n"] {
            assert!(!parse(format!("{head}{cut}").as_bytes()).expect("an answer").ended, "{cut:?}");
        }
    }

    #[test]
    fn a_body_shorter_than_its_length_is_not_whole() {
        let head = "HTTP/1.1 500 No\r\ncontent-length: 4\r\n\r\n";
        assert!(parse(format!("{head}abcd").as_bytes()).expect("an answer").ended);
        assert!(!parse(format!("{head}abc").as_bytes()).expect("an answer").ended);
    }
}
