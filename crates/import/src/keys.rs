//! LiteLLM's virtual keys from an export of its table `LiteLLM_VerificationToken`.
//!
//! LiteLLM stores a key as the SHA-256 of its text in hex, which is what a fleet file has too: clients keep their keys,
//! and nobody has to know them. An export is JSON (a list of rows, or an object with one) or CSV with a head line.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

/// A row, as far as it means anything here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualKey {
    /// Where it stands in the export, from 1.
    pub(super) row: usize,
    pub(super) sha256: String,
    pub(super) name: String,
    /// Empty for all.
    pub(super) models: Vec<String>,
    pub(super) max_in_flight: Option<u32>,
    pub(super) is_blocked: bool,
    pub(super) expires: Option<jiff::Timestamp>,
    /// Columns with a limit that is not enforced.
    pub(super) limits: Vec<&'static str>,
}

/// Columns that bound a key in LiteLLM and have no counterpart.
const LIMITS: &[&str] = &["max_budget", "tpm_limit", "rpm_limit", "team_id", "allowed_routes", "guardrails"];

/// The bytes of a hash in hex.
pub(super) fn bytes(sha256: &str) -> Option<[u8; 32]> {
    let digits = |i| sha256.get(2 * i..2 * i + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    let bytes: Vec<u8> = (0..sha256.len() / 2).map(digits).collect::<Option<_>>()?;
    bytes.try_into().ok()
}

/// Since 1970, so that the caller's clock decides what has expired.
pub(super) fn timestamp(now: Duration) -> jiff::Timestamp {
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX)
}

/// The day of a time, for people.
pub(super) fn date(at: jiff::Timestamp) -> String {
    at.to_string().split('T').next().unwrap_or_default().to_owned()
}

/// Reads an export. The message says what is wrong and what to do.
pub fn parse(text: &str) -> Result<Vec<VirtualKey>, String> {
    let text = text.trim_start_matches('\u{feff}').trim();
    let rows = if text.starts_with(['[', '{']) { json_rows(text)? } else { csv_rows(text)? };
    rows.iter().enumerate().map(|(i, row)| key(i + 1, row)).collect()
}

type Row = BTreeMap<String, Value>;

fn json_rows(text: &str) -> Result<Vec<Row>, String> {
    let value: Value =
        serde_json::from_str(text).map_err(|e| format!("this is not JSON: {e}; export the table again"))?;
    let list = match value {
        Value::Array(list) => list,
        Value::Object(object) => object
            .into_iter()
            .find_map(|(_, value)| match value {
                Value::Array(list) => Some(list),
                _ => None,
            })
            .unwrap_or_default(),
        _ => Vec::new(),
    };
    let row = |value| match value {
        Value::Object(object) => Ok(object.into_iter().collect()),
        _ => Err("a row is not an object; export rows with the names of their columns".to_owned()),
    };
    list.into_iter().map(row).collect()
}

fn csv_rows(text: &str) -> Result<Vec<Row>, String> {
    let mut lines = csv(text).into_iter();
    let head = lines.next().unwrap_or_default();
    if !head.iter().any(|column| column == "token") {
        return Err("the first line has no column `token`; export with a head line (`COPY … CSV HEADER`)".to_owned());
    }
    let filled = lines.filter(|cells| cells.iter().any(|cell| !cell.is_empty()));
    Ok(filled.map(|cells| head.iter().cloned().zip(cells.into_iter().map(Value::String)).collect()).collect())
}

/// RFC 4180: cells between commas, in quotes where they hold commas, quotes (doubled) or line ends.
fn csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell) = (Vec::new(), Vec::new(), String::new());
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => cell.extend(chars.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            '\r' if !quoted => {}
            c => cell.push(c),
        }
    }
    row.push(cell);
    rows.push(row);
    rows
}

fn key(number: usize, row: &Row) -> Result<VirtualKey, String> {
    let text = |column: &str| match row.get(column) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let sha256 = text("token").unwrap_or_default().to_ascii_lowercase();
    if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(format!(
            "the `token` of row {number} is not a SHA-256 in 64 hex digits; export the column as LiteLLM stores it"
        ));
    }
    let is_blocked = match row.get("blocked") {
        Some(Value::Bool(blocked)) => *blocked,
        Some(Value::String(text)) => matches!(text.to_ascii_lowercase().as_str(), "t" | "true" | "1"),
        _ => false,
    };
    let is_set = |column: &&&str| match row.get(**column) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !matches!(text.as_str(), "" | "{}" | "[]" | "null"),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(_) => true,
    };
    Ok(VirtualKey {
        row: number,
        name: text("key_alias").unwrap_or_else(|| format!("key-{}", &sha256[..8])),
        models: models(row.get("models")),
        max_in_flight: text("max_parallel_requests").and_then(|n| n.parse().ok()).filter(|n| *n > 0),
        is_blocked,
        expires: text("expires").map(|text| expiry(number, &text)).transpose()?,
        limits: LIMITS.iter().filter(is_set).copied().collect(),
        sha256,
    })
}

/// A list, or one as Postgres (`{a,b}`) or JSON (`["a","b"]`) writes it into a cell.
fn models(value: Option<&Value>) -> Vec<String> {
    let text = match value {
        Some(Value::Array(list)) => return list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::String(text)) => text.trim(),
        _ => return Vec::new(),
    };
    if let Ok(list) = serde_json::from_str::<Vec<String>>(text) {
        return list;
    }
    let inside = text.trim_start_matches('{').trim_end_matches('}');
    let names = inside.split(',').map(|name| name.trim().trim_matches('"').to_owned());
    names.filter(|name| !name.is_empty()).collect()
}

/// A time with or without its zone; without one it is UTC, as LiteLLM stores it.
fn expiry(number: usize, text: &str) -> Result<jiff::Timestamp, String> {
    let zoned = text.parse::<jiff::Timestamp>();
    zoned
        .or_else(|_| format!("{text}Z").parse())
        .map_err(|_| format!("`expires` of row {number} is not a time such as 2027-05-31T00:00:00Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[test]
    fn an_export_is_read_as_json_and_as_csv_alike() {
        let json = format!(
            r#"[{{"token":"{A}","key_alias":"team a","models":["gpt-4o","x/y"],"max_parallel_requests":3,"blocked":null,
               "expires":"2027-01-01T00:00:00Z","max_budget":5.0,"tpm_limit":null}}]"#
        );
        let csv = format!(
            "token,key_alias,models,max_parallel_requests,blocked,expires,max_budget\r\n\
             {A},team a,\"{{gpt-4o,x/y}}\",3,f,2027-01-01 00:00:00,5.0\r\n"
        );
        let expect = VirtualKey {
            row: 1,
            sha256: A.to_owned(),
            name: "team a".to_owned(),
            models: vec!["gpt-4o".to_owned(), "x/y".to_owned()],
            max_in_flight: Some(3),
            is_blocked: false,
            expires: Some("2027-01-01T00:00:00Z".parse().unwrap()),
            limits: vec!["max_budget"],
        };
        assert_eq!(parse(&json), Ok(vec![expect.clone()]));
        assert_eq!(parse(&format!("{{\"keys\":{json}}}")), Ok(vec![expect.clone()]));
        assert_eq!(parse(&csv), Ok(vec![expect]));
    }

    #[test]
    fn what_is_no_export_says_what_to_do() {
        for (text, expect) in [
            ("[1]", "names of their columns"),
            ("name,blocked\n", "COPY"),
            (r#"[{"token":"sk-secret"}]"#, "row 1 is not a SHA-256"),
            ("[{]", "not JSON"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(expect) && !said.contains("sk-secret"), "{said}");
        }
    }
}
