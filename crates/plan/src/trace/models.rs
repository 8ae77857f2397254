//! Names of models, each kept once; an [`Arrival`](super::Arrival) holds its number.

use std::collections::BTreeMap;

use super::fault::{TraceFault, shown};

/// More names than any fleet has: a column that is not a model's name would otherwise fill the memory.
const MOST: usize = 10_000;
const LONGEST: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Models {
    names: Vec<String>,
    by_name: BTreeMap<String, u16>,
    /// Rows mostly have the same model as the row before.
    last: usize,
}

impl Models {
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// The number of a name; an empty one has none.
    pub(super) fn number(&mut self, row: u64, column: &str, name: &[u8]) -> Result<Option<u16>, TraceFault> {
        if name.is_empty() {
            return Ok(None);
        }
        if self.names.get(self.last).is_none_or(|last| last.as_bytes() != name) {
            self.last = self.look_up(name).map_err(|message| {
                TraceFault::new(row, message, "check that this column holds names of models").in_column(column)
            })?;
        }
        Ok(u16::try_from(self.last).ok())
    }

    fn look_up(&mut self, name: &[u8]) -> Result<usize, String> {
        let text = std::str::from_utf8(name).map_err(|_| format!("{} is not UTF-8", shown(name)))?;
        if let Some(number) = self.by_name.get(text) {
            return Ok(usize::from(*number));
        }
        if name.len() > LONGEST {
            return Err(format!("{} is longer than {LONGEST} bytes", shown(name)));
        }
        let number = self.names.len();
        if number >= MOST {
            return Err(format!("{} is one name more than the {MOST} that are kept", shown(name)));
        }
        self.names.push(text.to_owned());
        self.by_name.insert(text.to_owned(), number as u16);
        Ok(number)
    }
}
