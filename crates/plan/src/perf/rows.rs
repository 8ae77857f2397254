//! Measured points as a table: CSV in, checked rows out.
//!
//! A header names the columns, in any order; columns we do not know are ignored, so that a richer export still reads.
//! The first bad value ends the reading: a table with one wrong unit usually has it in every row.

use std::io::BufRead;

/// Kriging solves a dense system over the rows of one model: time grows with the cube, memory with the square.
const MAX_ROWS: usize = 4_000;
/// Far beyond any row of a benchmark; it keeps one line without an end from filling memory.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// An engine that was measured: what runs, on what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub model: String,
    /// GPU model and form, such as `h100_sxm`.
    pub system: String,
    /// GPUs of one replica (tensor parallel).
    pub gpus: u32,
    /// `vllm`, `sglang` or `trtllm`.
    pub backend: String,
    /// `fp8`, `fp4`, or `unknown` where the source does not say.
    pub precision: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {} x {} with {} ({})", self.model, self.gpus, self.system, self.backend, self.precision)
    }
}

/// One measured point: a closed loop of `concurrency` clients, each sending its next request when the last is answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub key: Key,
    /// Prompt tokens.
    pub isl: u32,
    /// Output tokens.
    pub osl: u32,
    pub concurrency: u32,
    /// Mean time to first token, waiting included.
    pub ttft_ms: f64,
    /// Mean time per output token after the first.
    pub tpot_ms: f64,
}

/// Why a table was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("row {row}, column {column}: {message}; {help}")]
pub struct RowFault {
    /// Line in the file; the header is row 1.
    pub row: usize,
    /// Empty where the whole line is at fault.
    pub column: String,
    pub message: String,
    pub help: String,
}

/// Reads a CSV with the columns `model, system, gpus, backend, precision, isl, osl, concurrency, ttft_ms, tpot_ms`.
/// Fields hold no quotes and no commas. `precision` may be left out.
pub fn read_rows(mut source: impl BufRead) -> Result<Vec<Row>, RowFault> {
    let mut line = String::new();
    let Some(header) = next_line(&mut source, &mut line, 1)? else {
        return Err(fault(1, "", "the table is empty", "begin with a header line that names the columns"));
    };
    let columns = Columns::of(header)?;
    let mut rows = Vec::new();
    let mut number = 1;
    loop {
        number += 1;
        let Some(text) = next_line(&mut source, &mut line, number)? else { return Ok(rows) };
        if text.trim().is_empty() {
            continue;
        }
        if rows.len() == MAX_ROWS {
            let message = format!("more than {MAX_ROWS} points");
            return Err(fault(number, "", &message, "fit fewer models at a time"));
        }
        rows.push(columns.row(text, number)?);
    }
}

const NAMES: [&str; 10] =
    ["model", "system", "gpus", "backend", "precision", "isl", "osl", "concurrency", "ttft_ms", "tpot_ms"];
const PRECISION: usize = 4;

/// Where each of `NAMES` stands in a line.
struct Columns {
    at: [Option<usize>; 10],
    width: usize,
}

impl Columns {
    fn of(header: &str) -> Result<Self, RowFault> {
        let names: Vec<&str> = header.trim_start_matches('\u{feff}').split(',').map(str::trim).collect();
        let at = NAMES.map(|name| names.iter().position(|found| *found == name));
        let missing = NAMES.iter().zip(&at).enumerate().find(|(i, (_, at))| at.is_none() && *i != PRECISION);
        if let Some((_, (name, _))) = missing {
            let help = format!("the header must name {}", NAMES.join(", "));
            return Err(fault(1, name, "the column is missing", &help));
        }
        Ok(Self { at, width: names.len() })
    }

    fn row(&self, text: &str, number: usize) -> Result<Row, RowFault> {
        let fields: Vec<&str> = text.split(',').map(str::trim).collect();
        if fields.len() != self.width {
            let message = format!("{} fields, the header has {}", fields.len(), self.width);
            return Err(fault(number, "", &message, "write every field, without quotes or commas inside"));
        }
        let field = |i: usize| self.at[i].map_or("", |at| fields[at]);
        let word = |i: usize| match field(i) {
            "" if i == PRECISION => Ok("unknown".to_owned()),
            "" => Err(fault(number, NAMES[i], "the field is empty", "name what was measured")),
            text => Ok(text.to_owned()),
        };
        let count = |i: usize, most: u32| match field(i).parse::<u32>() {
            Ok(value) if (1..=most).contains(&value) => Ok(value),
            _ => {
                let message = format!("`{}` is not a whole number from 1 to {most}", clip(field(i)));
                Err(fault(number, NAMES[i], &message, "write the number without unit or separators"))
            }
        };
        let millis = |i: usize| match field(i).parse::<f64>() {
            Ok(value) if (1e-6..=1e9).contains(&value) => Ok(value),
            _ => {
                let message = format!("`{}` is not a time in milliseconds above 0", clip(field(i)));
                Err(fault(number, NAMES[i], &message, "write milliseconds, such as 18.25"))
            }
        };
        Ok(Row {
            key: Key {
                model: word(0)?,
                system: word(1)?,
                gpus: count(2, 65_536)?,
                backend: word(3)?,
                precision: word(PRECISION)?,
            },
            isl: count(5, 100_000_000)?,
            osl: count(6, 100_000_000)?,
            concurrency: count(7, 1_000_000)?,
            ttft_ms: millis(8)?,
            tpot_ms: millis(9)?,
        })
    }
}

fn next_line<'a>(source: &mut impl BufRead, line: &'a mut String, number: usize) -> Result<Option<&'a str>, RowFault> {
    line.clear();
    let read = std::io::Read::take(&mut *source, MAX_LINE_BYTES).read_line(line);
    match read {
        Ok(0) => Ok(None),
        Ok(bytes) if bytes as u64 == MAX_LINE_BYTES => {
            Err(fault(number, "", "the line is longer than 64 KiB", "is this a CSV file?"))
        }
        Ok(_) => Ok(Some(line.trim_end_matches(['\r', '\n']))),
        Err(error) => Err(fault(number, "", &format!("cannot be read: {error}"), "the table must be UTF-8 text")),
    }
}

/// A bad value goes into a message; a long one would bury it.
fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}

fn fault(row: usize, column: &str, message: &str, help: &str) -> RowFault {
    RowFault { row, column: column.to_owned(), message: message.to_owned(), help: help.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: &str = "model,system,gpus,backend,precision,isl,osl,concurrency,ttft_ms,tpot_ms\n";

    fn refused(body: &str, row: usize, column: &str) {
        let fault = read_rows(format!("{HEADER}{body}").as_bytes()).unwrap_err();
        assert_eq!((fault.row, fault.column.as_str()), (row, column), "{fault}");
    }

    #[test]
    fn columns_go_by_name_and_unknown_ones_are_ignored() {
        let text =
            "date,tpot_ms,ttft_ms,concurrency,osl,isl,backend,gpus,system,model\n\n,7.5,80,4,128,1024,vllm,2,h,m\n";
        let rows = read_rows(text.as_bytes()).unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].tpot_ms, rows[0].ttft_ms, rows[0].concurrency), (7.5, 80.0, 4));
        assert_eq!(rows[0].key.precision, "unknown");
    }

    #[test]
    fn a_bad_value_is_named_by_row_and_column() {
        let good = "m,h,1,vllm,fp8,1024,128,4,80,7.5\n";
        refused(&format!("{good}m,h,1,vllm,fp8,1024,128,4,80,NaN\n"), 3, "tpot_ms");
        refused(&format!("{good}{good}m,h,1,vllm,fp8,1024,128,4,-3,7.5\n"), 4, "ttft_ms");
        refused("m,h,1,vllm,fp8,1024,128,0,80,7.5\n", 2, "concurrency");
        refused("m,h,1,vllm,fp8,1k,128,4,80,7.5\n", 2, "isl");
        refused("m,,1,vllm,fp8,1024,128,4,80,7.5\n", 2, "system");
        refused("m,h,1\n", 2, "");
    }

    #[test]
    fn a_missing_column_is_a_fault_of_the_header() {
        let fault = read_rows("model,system\n".as_bytes()).unwrap_err();
        assert_eq!((fault.row, fault.column.as_str()), (1, "gpus"));
        assert_eq!(read_rows("".as_bytes()).unwrap_err().row, 1);
    }

    #[test]
    fn a_table_without_end_is_refused() {
        let body = "m,h,1,vllm,fp8,1024,128,4,80,7.5\n".repeat(MAX_ROWS + 1);
        refused(&body, MAX_ROWS + 2, "");
        let long = "x".repeat(100_000);
        assert_eq!(read_rows(long.as_bytes()).unwrap_err().row, 1);
    }

    proptest! {
        #[test]
        fn any_bytes_read_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_rows(bytes.as_slice());
            let with_header = [HEADER.as_bytes(), &bytes].concat();
            let _ = read_rows(with_header.as_slice());
        }
    }
}
