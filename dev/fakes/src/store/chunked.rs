//! `aws-chunked`: the frames that clients put around a body to sign it piece by piece, or to add a checksum after it.
//!
//! `SIZE[;chunk-signature=…]\r\n` and so many bytes and `\r\n`, until a size of zero; then perhaps headers, and an empty line.
//! Signatures are read past, as the request's own is.

use std::io;

/// Longer than a size and a signature can be.
const LONGEST_LINE: usize = 1024;

#[derive(Debug)]
pub(super) struct Chunked {
    at: At,
    line: Vec<u8>,
}

#[derive(Debug)]
enum At {
    Size,
    Data(u64),
    AfterData,
    Trailer,
    End,
}

impl Chunked {
    pub(super) fn new() -> Self {
        Self { at: At::Size, line: Vec::new() }
    }

    /// Gives `sink` the bytes of the body that are in this piece.
    pub(super) fn take(&mut self, mut piece: &[u8], sink: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        while !piece.is_empty() {
            if let At::Data(left) = self.at {
                let (now, later) = piece.split_at(usize::try_from(left).unwrap_or(usize::MAX).min(piece.len()));
                sink(now)?;
                let left = left - now.len() as u64;
                self.at = if left == 0 { At::AfterData } else { At::Data(left) };
                piece = later;
                continue;
            }
            self.line.push(piece[0]);
            piece = &piece[1..];
            if self.line.ends_with(b"\r\n") {
                self.line_ended()?;
                self.line.clear();
            } else if self.line.len() > LONGEST_LINE {
                return Err(wrong("a line of it is too long"));
            }
        }
        Ok(())
    }

    /// Whether the last piece and what belongs behind it have come.
    pub(super) fn ended(&self) -> bool {
        matches!(self.at, At::End)
    }

    fn line_ended(&mut self) -> io::Result<()> {
        let line = &self.line[..self.line.len() - 2];
        self.at = match self.at {
            At::Size => match size(line)? {
                0 => At::Trailer,
                more => At::Data(more),
            },
            At::AfterData if line.is_empty() => At::Size,
            At::Trailer if line.is_empty() => At::End,
            At::Trailer => At::Trailer,
            _ => return Err(wrong("there is more than was said")),
        };
        Ok(())
    }
}

fn size(line: &[u8]) -> io::Result<u64> {
    let text = std::str::from_utf8(line).unwrap_or_default();
    let digits = text.split(';').next().unwrap_or_default().trim();
    u64::from_str_radix(digits, 16).map_err(|_| wrong("a size is not a number"))
}

fn wrong(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the body is not aws-chunked: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &[u8], piece: usize) -> io::Result<(Vec<u8>, bool)> {
        let (mut chunked, mut out) = (Chunked::new(), Vec::new());
        for piece in text.chunks(piece) {
            chunked.take(piece, &mut |bytes| {
                out.extend_from_slice(bytes);
                Ok(())
            })?;
        }
        Ok((out, chunked.ended()))
    }

    #[test]
    fn bodies_are_the_same_however_they_are_cut() {
        let text = b"a;chunk-signature=00ff\r\n0123\r\n6789\r\n3\r\nabc\r\n0;chunk-signature=1\r\nx-amz-checksum-crc32:AA==\r\n\r\n";
        for piece in 1..text.len() {
            assert_eq!(taken(text, piece).unwrap(), (b"0123\r\n6789abc".to_vec(), true), "{piece}");
        }
        assert!(!taken(&text[..text.len() - 2], 7).unwrap().1, "the last line has not come");
        assert!(taken(b"3\r\nabcd\r\n", 100).is_err());
        assert!(taken(b"x\r\nabcd\r\n", 100).is_err());
    }
}
