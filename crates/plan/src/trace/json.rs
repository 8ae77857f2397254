//! JSON lines: one object a line, of which a few fields are read and the rest is passed over.
//!
//! Fields are kept as they are written ([`Raw`]), so that numbers, times and names go through the same checks, and earn
//! the same words, as those of CSV.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{fault::TraceFault, lines::Line, row::Field};

/// A field as it is written; absent and `null` are the same.
pub(super) type Raw<'l> = Option<&'l RawValue>;

pub(super) fn object<'l, T: Deserialize<'l>>(line: Line<'l>) -> Result<T, TraceFault> {
    // serde would also take a list for a struct.
    if !line.text.trim_ascii_start().starts_with(b"{") {
        return Err(TraceFault::new(
            line.row,
            "this line is not a JSON object",
            "write one object a line; `jq -c '.[]'` makes lines of a list",
        ));
    }
    serde_json::from_slice(line.text).map_err(|error| {
        let text = error.to_string();
        let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
        let help = if error.is_eof() {
            "the row was cut off while it was written or copied: leave it out"
        } else {
            "repair the row or leave it out"
        };
        TraceFault::new(line.row, format!("not readable as JSON at byte {}: {what}", error.column()), help)
    })
}

pub(super) fn field<'f>(column: &'f str, raw: Raw<'f>) -> Field<'f> {
    Field { column, text: bytes(raw) }
}

/// The text of a string; anything else as it is written.
pub(super) fn text(raw: Raw<'_>) -> Cow<'_, [u8]> {
    let written = bytes(raw);
    let inner = written.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\""));
    match inner {
        Some(inner) if !inner.contains(&b'\\') => Cow::Borrowed(inner),
        Some(_) => serde_json::from_slice::<String>(written)
            .map_or(Cow::Borrowed(written), |text| Cow::Owned(text.into_bytes())),
        None => Cow::Borrowed(written),
    }
}

pub(super) fn bytes(raw: Raw<'_>) -> &[u8] {
    raw.map_or(&[], |raw| raw.get().as_bytes())
}
