//! Just enough of HTTP/1.1 to find where a message ends: its head, and a body of known length or in chunks.

use std::{io, net::SocketAddr};

use anyhow::{Context as _, bail};
use bytes::BytesMut;
use memchr::memmem;
use tokio::net::{TcpListener, TcpSocket};

/// Listens, with room for a thousand clients who come at once.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(4_096)
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Length(usize),
    Chunked,
}

/// The end of a head in what has come so far.
pub(crate) fn head_end(buffer: &[u8]) -> Option<usize> {
    memmem::find(buffer, b"\r\n\r\n").map(|at| at + 4)
}

/// How the body after this head ends. One without either header has none.
pub(crate) fn body_of(headers: &[httparse::Header<'_>]) -> anyhow::Result<Body> {
    for header in headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(header.value).context("a length that is no text")?;
            return Ok(Body::Length(text.trim().parse().context("a length that is no number")?));
        }
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Ok(Body::Chunked);
        }
    }
    Ok(Body::Length(0))
}

/// Takes whole chunks off the front, handing each one's data on. `true` when the last one was among them.
pub(crate) fn take_chunks(buffer: &mut BytesMut, mut data: impl FnMut(&[u8])) -> anyhow::Result<bool> {
    loop {
        let (at, length) = match httparse::parse_chunk_size(buffer) {
            Ok(httparse::Status::Complete(size)) => size,
            Ok(httparse::Status::Partial) => return Ok(false),
            Err(_) => bail!("a chunk without a size"),
        };
        let end = at + length as usize;
        if buffer.len() < end + 2 {
            return Ok(false);
        }
        data(&buffer[at..end]);
        let _ = buffer.split_to(end + 2);
        if length == 0 {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_taken_whole() {
        let mut buffer = BytesMut::from(&b"3\r\nabc\r\n2\r\nd"[..]);
        let mut seen = Vec::new();
        assert!(!take_chunks(&mut buffer, |data| seen.extend_from_slice(data)).unwrap());
        buffer.extend_from_slice(b"e\r\n0\r\n\r\n");
        assert!(take_chunks(&mut buffer, |data| seen.extend_from_slice(data)).unwrap());
        assert_eq!((&seen[..], buffer.len()), (&b"abcde"[..], 0));
    }
}
