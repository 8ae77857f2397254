//! Comma-separated lines (RFC 4180) with a header, of which a few columns are wanted.
//!
//! The `csv` crate copies each record and finds columns anew for each row; here a row is cut into slices of the line,
//! and only those of wanted columns are looked at. Quotes stay on the slices until somebody needs the text.

use std::{borrow::Cow, collections::BTreeSet};

use memchr::memchr;

use super::{
    fault::{TraceFault, shown},
    lines::Line,
};

const MOST_COLUMNS: usize = 4096;

/// A column that a reader looks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'w> {
    /// The first of these that the header has is taken.
    pub names: &'w [&'w str],
    pub required: bool,
}

impl<'w> Wanted<'w> {
    pub(super) const fn required(names: &'w [&'w str]) -> Self {
        Self { names, required: true }
    }

    pub(super) const fn optional(names: &'w [&'w str]) -> Self {
        Self { names, required: false }
    }
}

/// Where the `N` wanted columns are.
#[derive(Debug)]
pub(super) struct Header<const N: usize> {
    /// For each column of the file, which of the wanted ones it is.
    wanted_at: Vec<Option<usize>>,
    /// The name under which each was found, empty for one that is absent.
    names: [String; N],
}

impl<const N: usize> Header<N> {
    pub(super) fn parse(line: Line<'_>, wanted: &[Wanted<'_>; N]) -> Result<Self, TraceFault> {
        let columns = columns(line)?;
        let mut header = Self { wanted_at: vec![None; columns.len()], names: [const { String::new() }; N] };
        for (slot, wanted) in wanted.iter().enumerate() {
            let found = wanted.names.iter().find_map(|name| columns.iter().position(|column| column == name));
            if let Some(column) = found {
                if header.wanted_at[column].replace(slot).is_some() {
                    let message = format!("column {} was named for two purposes", shown(columns[column].as_bytes()));
                    return Err(TraceFault::new(line.row, message, "name another one, or copy the column"));
                }
                header.names[slot].clone_from(&columns[column]);
            } else if wanted.required {
                return Err(missing(line.row, wanted.names, &columns));
            }
        }
        Ok(header)
    }

    /// As the file writes it.
    pub(super) fn name(&self, slot: usize) -> &str {
        &self.names[slot]
    }

    /// The wanted fields of a row; absent ones are empty.
    pub(super) fn split<'l>(&self, line: Line<'l>) -> Result<[&'l [u8]; N], TraceFault> {
        let mut fields: [&[u8]; N] = [&[]; N];
        let mut count = 0;
        for_each_field(line, |field| {
            if let Some(Some(slot)) = self.wanted_at.get(count) {
                fields[*slot] = field;
            }
            count += 1;
        });
        if count == self.wanted_at.len() { Ok(fields) } else { Err(self.ragged(line, count)) }
    }

    #[cold]
    fn ragged(&self, line: Line<'_>, count: usize) -> TraceFault {
        let expect = self.wanted_at.len();
        let help = if count < expect {
            "was the row cut off while it was written or copied? Then leave it out"
        } else {
            "put a field that contains a comma in quotes"
        };
        TraceFault::new(line.row, format!("{count} fields, where the header has {expect}"), help)
    }
}

/// The text of a field: without blanks and quotes around it.
pub(super) fn text(field: &[u8]) -> Cow<'_, [u8]> {
    let field = field.trim_ascii();
    let Some(inner) = field.strip_prefix(b"\"").and_then(|field| field.strip_suffix(b"\"")) else {
        return Cow::Borrowed(field);
    };
    if memchr(b'"', inner).is_none() {
        return Cow::Borrowed(inner);
    }
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b'"' {
            bytes.next_if_eq(&b'"');
        }
        text.push(byte);
    }
    Cow::Owned(text)
}

fn for_each_field<'l>(line: Line<'l>, mut put: impl FnMut(&'l [u8])) {
    let Line { text, quoted, .. } = line;
    let (mut start, mut open) = (0, false);
    for (at, byte) in text.iter().enumerate() {
        if *byte == b',' && !open {
            put(&text[start..at]);
            start = at + 1;
        } else if quoted && *byte == b'"' {
            open = !open;
        }
    }
    put(&text[start..]);
}

fn columns(line: Line<'_>) -> Result<Vec<String>, TraceFault> {
    let mut columns = Vec::new();
    for_each_field(line, |field| {
        if columns.len() <= MOST_COLUMNS {
            columns.push(String::from_utf8_lossy(&text(field)).into_owned());
        }
    });
    if columns.len() > MOST_COLUMNS {
        return Err(TraceFault::new(
            line.row,
            format!("the header has more than {MOST_COLUMNS} columns"),
            "check that this is a table with one request in each row",
        ));
    }
    if columns.iter().all(|column| column.parse::<f64>().is_ok()) {
        return Err(TraceFault::new(
            line.row,
            "the first row holds numbers, not names of columns",
            "put a header before it: arrival_s,prompt_tokens,output_tokens",
        ));
    }
    let mut seen = BTreeSet::new();
    match columns.iter().find(|column| !column.is_empty() && !seen.insert(column.as_str())) {
        Some(twice) => Err(TraceFault::new(
            line.row,
            format!("the header has column {} twice", shown(twice.as_bytes())),
            "rename or remove one of them",
        )),
        None => Ok(columns),
    }
}

fn missing(row: u64, names: &[&str], columns: &[String]) -> TraceFault {
    let message = format!("the header has no column {}", names.join(" or "));
    if let [one] = columns
        && (one.contains(';') || one.contains('\t'))
    {
        return TraceFault::new(row, message, "separate the columns by commas");
    }
    let help = match nearest(names, columns) {
        Some(near) => format!("is it the one called {}? Rename it", shown(near.as_bytes())),
        None => {
            let some: Vec<_> = columns.iter().take(12).map(|column| shown(column.as_bytes())).collect();
            format!(
                "it has {}; a trace has arrival_s, prompt_tokens and output_tokens, or what another tool calls them (docs/simulate.md)",
                some.join(", ")
            )
        }
    };
    TraceFault::new(row, message, help)
}

/// The column with the fewest edits from one of the names, if it is near enough to be a slip.
fn nearest<'c>(names: &[&str], columns: &'c [String]) -> Option<&'c str> {
    const LONGEST: usize = 80;
    let near_enough = |name: &str| (name.len() / 3).max(1);
    let distances = columns.iter().filter(|column| column.len() <= LONGEST).flat_map(|column| {
        let lower = column.to_ascii_lowercase().replace([' ', '-'], "_");
        names.iter().filter_map(move |name| {
            let distance = strsim::osa_distance(&name.to_ascii_lowercase(), &lower);
            (distance <= near_enough(name)).then_some((distance, column.as_str()))
        })
    });
    distances.min_by_key(|(distance, _)| *distance).map(|(_, column)| column)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: [Wanted<'static>; 2] = [Wanted::required(&["a", "alpha"]), Wanted::optional(&["b"])];

    fn line(text: &str) -> Line<'_> {
        Line { row: 7, text: text.as_bytes(), quoted: text.contains('"') }
    }

    fn check(header: &str, row: &str, expect: [&str; 2]) {
        let header = Header::parse(line(header), &WANTED).unwrap();
        let fields = header.split(line(row)).unwrap();
        assert_eq!(fields.map(|field| String::from_utf8(text(field).into_owned()).unwrap()), expect);
    }

    #[test]
    fn columns_are_found_by_name() {
        check("a,b", "1,2", ["1", "2"]);
        check("x,b,y, alpha", "1,2,3, 4", ["4", "2"]);
        check("alpha", "1", ["1", ""]);
        check("\"a\",c", "\"1\",2", ["1", ""]);
        check("a,,", "1,2,3", ["1", ""]);
    }

    #[test]
    fn quoted_fields_may_hold_commas_quotes_and_newlines() {
        check("x,a,b", "\"1,\n2\",\"say \"\"hi\"\", twice\",3", ["say \"hi\", twice", "3"]);
        check("a,b", ",\"\"", ["", ""]);
    }

    #[test]
    fn faults_of_headers() {
        let check = |text: &str, message: &str, help: &str| {
            let fault = Header::parse(line(text), &WANTED).unwrap_err();
            assert!(fault.message.contains(message), "{fault}");
            assert!(fault.help.contains(help), "{}", fault.help);
        };
        check("alhpa,b", "no column a or alpha", "\"alhpa\"? Rename");
        check("one,two", "no column a or alpha", "it has \"one\", \"two\"");
        check("a;b", "no column a or alpha", "by commas");
        check("a,b,c,b", "column \"b\" twice", "rename");
        check("1,2", "numbers, not names", "header");
        check(&",".repeat(5000), "more than 4096", "table");
    }

    #[test]
    fn a_row_has_as_many_fields_as_the_header() {
        let header = Header::parse(line("a,b"), &WANTED).unwrap();
        let fault = header.split(line("1")).unwrap_err();
        assert_eq!(fault.to_string(), "row 7: 1 fields, where the header has 2");
        assert!(fault.help.contains("cut off"));
        assert!(header.split(line("1,2,3")).unwrap_err().help.contains("quotes"));
    }
}
