//! Lines of comma-separated values with quotes (RFC 4180), for price lists and bills that people export.
//!
//! The trace reader has a faster one of its own for plain numbers; here cells are text that may hold commas.

/// A table with its header, looked up by name.
#[derive(Debug)]
pub(super) struct Table {
    header: Vec<String>,
    pub(super) rows: Vec<(usize, Vec<String>)>,
}

impl Table {
    /// Each row with its line (from 1). Empty lines are skipped.
    pub(super) fn read(text: &str) -> Self {
        let mut records = records(text).into_iter();
        let header = records.next().map(|(_, cells)| cells).unwrap_or_default();
        let header = header.into_iter().map(|cell| cell.trim().trim_start_matches('\u{feff}').to_owned()).collect();
        Self { header, rows: records.collect() }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.column(name).is_some()
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|own| own.eq_ignore_ascii_case(name))
    }

    /// A cell; empty where the row is short or there is no such column.
    pub(super) fn cell<'r>(&self, row: &'r [String], name: &str) -> &'r str {
        self.column(name).and_then(|at| row.get(at)).map_or("", |cell| cell.trim())
    }
}

fn records(text: &str) -> Vec<(usize, Vec<String>)> {
    let mut records = Vec::new();
    let (mut cells, mut cell, mut quoted) = (Vec::new(), String::new(), false);
    let (mut line, mut first) = (1, 1);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(std::mem::take(&mut cell)),
            '\n' => {
                line += 1;
                if quoted {
                    cell.push('\n');
                    continue;
                }
                cells.push(std::mem::take(&mut cell));
                records.push((first, std::mem::take(&mut cells)));
                first = line;
            }
            '\r' if !quoted => {}
            other => cell.push(other),
        }
    }
    if !cell.is_empty() || !cells.is_empty() {
        cells.push(cell);
        records.push((first, cells));
    }
    records.retain(|(_, cells)| cells.len() > 1 || cells.first().is_some_and(|cell| !cell.trim().is_empty()));
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hold_commas_quotes_and_line_ends() {
        let table = Table::read("a,b\n\"x, \"\"y\"\"\nz\",1\n\n2\n");
        assert_eq!(table.rows.len(), 2);
        assert_eq!(table.rows[0], (2, vec!["x, \"y\"\nz".to_owned(), "1".to_owned()]));
        assert_eq!((table.cell(&table.rows[1].1, "A"), table.cell(&table.rows[1].1, "b")), ("2", ""));
        assert_eq!(table.rows[1].0, 5);
        assert!(!table.has("c"));
    }
}
