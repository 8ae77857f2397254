//! Header blocks of HTTP/2 (RFC 7541), as far as the lab's client needs them.
//!
//! What is sent are literals without Huffman. What is read may have any form but entries of the dynamic table, which the
//! client's settings make impossible: a block that names one is wrong. The code of Huffman is canonical (RFC 7541, 5.2), so
//! that its lengths are all there is to know.

use std::sync::LazyLock;

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Wrong {
    #[error("a header block that breaks off")]
    Short,
    #[error("a header block that names no entry of the static table")]
    Index,
    #[error("a number in a header block that is too large")]
    Number,
    #[error("a string in a header block that is no Huffman code")]
    Huffman,
}

/// Fields as literals that are never indexed; names in lower case.
pub(super) fn encode<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0x10);
        for text in [name, value] {
            put_number(&mut block, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// With a prefix of seven bits, of which the first bit of all says that there is no Huffman.
fn put_number(block: &mut Vec<u8>, number: usize) {
    if number < 0x7f {
        block.push(number as u8);
        return;
    }
    block.push(0x7f);
    let mut rest = number - 0x7f;
    while rest >= 0x80 {
        block.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    block.push(rest as u8);
}

pub(super) fn decode(block: &[u8]) -> Result<Vec<(String, String)>, Wrong> {
    let mut rest = block;
    let mut fields = Vec::new();
    while let Some(first) = rest.first() {
        match first {
            0x80.. => {
                let (name, value) = entry(number(&mut rest, 7)?)?;
                fields.push((name.to_owned(), value.to_owned()));
            }
            // A size for the dynamic table, which has none.
            0x20..0x40 => drop(number(&mut rest, 5)?),
            _ => {
                let bits = if *first >= 0x40 { 6 } else { 4 };
                let name = match number(&mut rest, bits)? {
                    0 => string(&mut rest)?,
                    index => entry(index)?.0.to_owned(),
                };
                fields.push((name, string(&mut rest)?));
            }
        }
    }
    Ok(fields)
}

fn entry(index: usize) -> Result<(&'static str, &'static str), Wrong> {
    index.checked_sub(1).and_then(|at| STATIC.get(at)).copied().ok_or(Wrong::Index)
}

/// A number with a prefix of so many bits.
fn number(rest: &mut &[u8], bits: u32) -> Result<usize, Wrong> {
    let most = (1 << bits) - 1;
    let mut number = usize::from(take(rest)?) & most;
    if number < most {
        return Ok(number);
    }
    for shift in [0, 7, 14, 21] {
        let byte = take(rest)?;
        number += usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(Wrong::Number)
}

fn take(rest: &mut &[u8]) -> Result<u8, Wrong> {
    let (first, others) = rest.split_first().ok_or(Wrong::Short)?;
    *rest = others;
    Ok(*first)
}

fn string(rest: &mut &[u8]) -> Result<String, Wrong> {
    let is_huffman = rest.first().ok_or(Wrong::Short)? & 0x80 != 0;
    let length = number(rest, 7)?;
    let (bytes, others) = rest.split_at_checked(length).ok_or(Wrong::Short)?;
    *rest = others;
    let bytes = if is_huffman { unhuffman(bytes)? } else { bytes.to_vec() };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn unhuffman(coded: &[u8]) -> Result<Vec<u8>, Wrong> {
    let mut text = Vec::new();
    let (mut code, mut length) = (0_u32, 0_u8);
    for bit in coded.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        (code, length) = (code << 1 | u32::from(bit), length + 1);
        if let Ok(at) = CODES.binary_search_by_key(&(length, code), |&(length, code, _)| (length, code)) {
            text.push(CODES[at].2);
            (code, length) = (0, 0);
        } else if length == 30 {
            return Err(Wrong::Huffman);
        }
    }
    // What is left fills the last byte, and is the beginning of a code of ones.
    if length < 8 && code == (1 << length) - 1 { Ok(text) } else { Err(Wrong::Huffman) }
}

/// Length, code and byte, in the order of the first two. Codes of one length follow one another, and a longer one begins
/// where the shorter ones end.
static CODES: LazyLock<Vec<(u8, u32, u8)>> = LazyLock::new(|| {
    let mut codes: Vec<(u8, u32, u8)> = (0..=u8::MAX).map(|byte| (LENGTHS[usize::from(byte)], 0, byte)).collect();
    codes.sort_unstable();
    let (mut next, mut before) = (0, 0);
    for (length, code, _) in &mut codes {
        next <<= *length - before;
        (*code, before) = (next, *length);
        next += 1;
    }
    codes
});

/// RFC 7541, appendix B. The 257th, which says that a string ends, must not be in one.
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26,
];

/// RFC 7541, appendix A.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(block: &[u8]) -> Result<Vec<(String, String)>, Wrong> {
        decode(block)
    }

    fn fields(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// RFC 7541, C.6.1: with Huffman, and names from the static table.
    #[test]
    fn the_examples_of_the_rfc_are_read() {
        let block = [
            0x48, 0x82, 0x64, 0x02, 0x58, 0x85, 0xae, 0xc3, 0x77, 0x1a, 0x4b, 0x61, 0x96, 0xd0, 0x7a, 0xbe, 0x94, 0x10,
            0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b, 0x81, 0x66, 0xe0, 0x82, 0xa6, 0x2d, 0x1b, 0xff, 0x6e,
            0x91, 0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f, 0x0b, 0x97, 0xc8, 0xe9, 0xae, 0x82, 0xae, 0x43, 0xd3,
        ];
        let wanted = [
            (":status", "302"),
            ("cache-control", "private"),
            ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("location", "https://www.example.com"),
        ];
        assert_eq!(read(&block), Ok(fields(&wanted)));
        assert_eq!(read(&[0x88]), Ok(fields(&[(":status", "200")])));
        // C.2.1 and C.1.2: a literal with a new name, and a number of more than one byte.
        let literal = b"\x40\x0acustom-key\x0dcustom-header";
        assert_eq!(read(literal), Ok(fields(&[("custom-key", "custom-header")])));
        assert_eq!(number(&mut [0x1f, 0x9a, 0x0a].as_slice(), 5), Ok(1337));
    }

    #[test]
    fn what_is_written_can_be_read() {
        let long = "x".repeat(5_000);
        let all = [(":method", "POST"), ("authorization", "Bearer k"), ("x", long.as_str()), ("empty", "")];
        assert_eq!(read(&encode(all)), Ok(fields(&all)));
    }

    #[test]
    fn a_block_that_cannot_be_is_refused() {
        for (block, wrong) in [
            (&b"\xbe"[..], Wrong::Index), // the first entry of a dynamic table
            (b"\x80", Wrong::Index),
            (b"\x10\x05ab", Wrong::Short),
            (b"\x10", Wrong::Short),
            (b"\xff\xff\xff\xff\xff\xff", Wrong::Number),
            (b"\x08\x81\xfe", Wrong::Huffman),
            (b"\x08\x84\xff\xff\xff\xff", Wrong::Huffman),
        ] {
            assert_eq!(read(block), Err(wrong), "{block:?}");
        }
    }
}
