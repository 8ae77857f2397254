//! One field of a form, by its place in the body (RFC 7578): the form itself goes on as it came.
//!
//! Only the headers of the parts are read. A part's content is skipped by searching for the next boundary, so that a
//! recording of 25 MB costs one pass over it.

use std::ops::Range;

use memchr::memmem;

/// The longest boundary (RFC 2046, section 5.1.1).
const LONGEST_BOUNDARY: usize = 70;
/// More parts than any client sends.
const MOST_PARTS: usize = 256;

/// A body that is not the form that its content type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MultipartFault {
    #[error("the content type has to be multipart/form-data with a boundary")]
    NotAForm,
    #[error("no part begins where the boundary says")]
    NoParts,
    #[error("a part ends before its content")]
    Truncated,
    #[error("it has more than {MOST_PARTS} parts")]
    TooMany,
    #[error("'{0}' is given more than once")]
    Twice(&'static str),
}

/// The content of the field `name`; `None` if the form has none.
pub fn field(body: &[u8], content_type: &str, name: &'static str) -> Result<Option<Range<usize>>, MultipartFault> {
    let delimiter = format!("--{}", boundary(content_type).ok_or(MultipartFault::NotAForm)?);
    let next = memmem::Finder::new(delimiter.as_bytes());
    let mut at = next.find(body).ok_or(MultipartFault::NoParts)? + delimiter.len();
    let mut found = None;
    for _ in 0..MOST_PARTS {
        if body[at..].starts_with(b"--") {
            return Ok(found);
        }
        let headers = at..at + memmem::find(&body[at..], b"\r\n\r\n").ok_or(MultipartFault::Truncated)?;
        let start = headers.end + 4;
        let end = start + next.find(&body[start..]).ok_or(MultipartFault::Truncated)?;
        if is_field(&body[headers], name) {
            let content = start..end.saturating_sub(2).max(start);
            if found.replace(content).is_some() {
                return Err(MultipartFault::Twice(name));
            }
        }
        at = end + delimiter.len();
    }
    Err(MultipartFault::TooMany)
}

fn boundary(content_type: &str) -> Option<&str> {
    let mut parts = content_type.split(';');
    let is_form = parts.next()?.trim().eq_ignore_ascii_case("multipart/form-data");
    let value = parts.find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"'))
    })?;
    (is_form && !value.is_empty() && value.len() <= LONGEST_BOUNDARY).then_some(value)
}

/// Whether the headers of a part say that it is the field `name`, and no file.
fn is_field(headers: &[u8], name: &str) -> bool {
    let text = String::from_utf8_lossy(headers);
    let disposition = text.lines().find_map(|line| {
        let (header, value) = line.split_once(':')?;
        header.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    });
    let given = disposition.and_then(|value| {
        value.split(';').find_map(|part| {
            let (key, value) = part.split_once('=')?;
            key.trim().eq_ignore_ascii_case("name").then(|| value.trim().trim_matches('"').to_owned())
        })
    });
    given.is_some_and(|given| given == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=\"x-1\"";

    fn model(body: &str) -> Result<Option<String>, MultipartFault> {
        Ok(field(body.as_bytes(), TYPE, "model")?.map(|span| body[span].to_owned()))
    }

    #[test]
    fn a_field_is_found_between_files() {
        let body = "--x-1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\nContent-Type: audio/wav\r\n\r\n\
                    RIFF\r\n\r\n--x\r\n--x-1\r\ncontent-disposition: form-data; name=model\r\n\r\nwhisper\r\n--x-1--\r\n";
        assert_eq!(model(body), Ok(Some("whisper".to_owned())));
        assert_eq!(field(body.as_bytes(), TYPE, "language"), Ok(None));
        assert_eq!(model("--x-1--"), Ok(None));
    }

    #[test]
    fn what_is_no_form_is_refused() {
        let part = "--x-1\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\n";
        assert_eq!(model(&format!("{part}{part}--x-1--")), Err(MultipartFault::Twice("model")));
        assert_eq!(model(part), Err(MultipartFault::Truncated));
        assert_eq!(model("--x-1\r\nContent-Disposition"), Err(MultipartFault::Truncated));
        assert_eq!(model("hello"), Err(MultipartFault::NoParts));
        assert_eq!(model(&"--x-1\r\n\r\n\r\n".repeat(300)), Err(MultipartFault::TooMany));
        for content_type in ["application/json", "multipart/form-data", "multipart/form-data; boundary=", ""] {
            assert_eq!(field(b"--x", content_type, "model"), Err(MultipartFault::NotAForm), "{content_type}");
        }
    }
}
