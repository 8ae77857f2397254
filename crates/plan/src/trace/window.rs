//! Puts rows in order that are nearly so: a log is written in the order in which requests end.
//!
//! The earliest of the last [`ROWS`] is handed on, so that memory is bounded whatever the file's size. A row that is
//! earlier than one already handed on is a fault; to let it pass would give a simulation a clock that runs backwards.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use super::{fault::TraceFault, row::Row};

/// A gateway at 1,000 requests a second writes these in 100 seconds, longer than nearly all requests last.
pub(super) const ROWS: usize = 100_000;

pub(super) struct Window {
    held: BinaryHeap<Reverse<Held>>,
    most: usize,
    /// Time of the last row handed on.
    reached: i64,
}

impl Window {
    pub(super) fn new(most: usize) -> Self {
        Self { held: BinaryHeap::new(), most, reached: i64::MIN }
    }

    /// Takes a row, and gives back the earliest when there are more than it may hold.
    pub(super) fn put(&mut self, row: Row, column: &str, how_to_sort: &str) -> Result<Option<Row>, TraceFault> {
        if row.time < self.reached {
            let message = format!("this row is earlier than one that is more than {} rows before it", self.most);
            return Err(TraceFault::new(row.number, message, how_to_sort).in_column(column));
        }
        self.held.push(Reverse(Held(row)));
        Ok(if self.held.len() > self.most { self.take() } else { None })
    }

    /// The earliest.
    pub(super) fn take(&mut self) -> Option<Row> {
        let Reverse(Held(row)) = self.held.pop()?;
        self.reached = row.time;
        Some(row)
    }
}

/// Ordered by time, and in the file's order at the same time.
struct Held(Row);

impl Held {
    fn key(&self) -> (i64, u64) {
        (self.0.time, self.0.number)
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Held {}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::trace::Reader;

    #[test]
    fn rows_are_put_in_order_only_within_the_window() {
        let rows = |order: &[u64]| -> String {
            let row = |at| format!("{{\"timestamp\":{at},\"input_length\":1,\"output_length\":{at}}}\n");
            order.iter().map(row).collect()
        };
        let read = |order: &[u64]| -> Result<Vec<u64>, TraceFault> {
            let mut reader = Reader::new(io::Cursor::new(rows(order)), None)?;
            reader.window = Window::new(2);
            reader.map(|arrival| arrival.map(|arrival| arrival.output_tokens.0)).collect()
        };
        assert_eq!(read(&[2, 3, 1, 4, 2]).unwrap(), [1, 2, 2, 3, 4]);
        let fault = read(&[4, 5, 6, 7, 3]).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "row 5, column timestamp: this row is earlier than one that is more than 2 rows before it"
        );
        assert!(fault.help.contains("sort_by"));
    }
}
