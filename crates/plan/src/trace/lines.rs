//! Lines out of a stream, in constant memory.
//!
//! A buffer of our own rather than `BufRead::read_until`: that one copies each line into a vector, and returns what it
//! has so far together with an error. Here a line is a slice of the buffer, which grows only for a line longer than
//! itself and never beyond [`LONGEST`]. How the input is cut into reads does not show.

use std::io::{self, Read};

use memchr::{memchr, memchr_iter};

use super::fault::TraceFault;

/// A spend log may carry a whole conversation in one row; nothing sane is longer than this.
const LONGEST: usize = 16 << 20;
const FIRST: usize = 256 << 10;

/// How lines end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// At each newline.
    Newline,
    /// At each newline that is not within `"…"`, as in CSV.
    OutsideQuotes,
}

/// One line, without its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'b> {
    pub row: u64,
    pub text: &'b [u8],
    /// Whether there are quotes in it; not looked for where they do not matter.
    pub quoted: bool,
}

pub(super) struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    /// The line begins here,
    start: usize,
    /// is known to reach to here,
    scanned: usize,
    /// and the input that has been read ends here.
    end: usize,
    over: bool,
    /// Number of the line that begins at `start`.
    row: u64,
    /// Newlines within the line so far.
    inner: u64,
    /// Whether `scanned` is within quotes.
    open: bool,
    quoted: bool,
    /// Start of the last line that was handed out, and its number.
    last: (usize, u64),
}

impl<R: Read> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            end: 0,
            over: false,
            row: 1,
            inner: 0,
            open: false,
            quoted: false,
            last: (0, 1),
        }
    }

    /// The next line that is not blank.
    pub(super) fn next(&mut self, ends: Ends) -> Result<Option<Line<'_>>, TraceFault> {
        loop {
            let Some(end) = self.find(ends)? else { return Ok(None) };
            let (start, row) = (self.start, self.row);
            self.last = (start, row);
            self.row += self.inner + 1;
            self.start = self.scanned;
            let quoted = self.quoted;
            (self.inner, self.open, self.quoted) = (0, false, false);
            let text = &self.buffer[start..end];
            if !text.trim_ascii().is_empty() {
                // The buffer is borrowed anew because the loop may go on with it.
                let text = trimmed(&self.buffer[start..end], row);
                return Ok(Some(Line { row, text, quoted }));
            }
        }
    }

    /// Hands the last line out once more. Only directly after [`Self::next`].
    pub(super) fn again(&mut self) {
        (self.start, self.row) = self.last;
        self.scanned = self.start;
    }

    /// The line that the next call would begin with.
    pub(super) fn row(&self) -> u64 {
        self.row
    }

    /// Where the line at `start` ends; `scanned` is then behind its newline.
    fn find(&mut self, ends: Ends) -> Result<Option<usize>, TraceFault> {
        loop {
            while let Some(offset) = memchr(b'\n', &self.buffer[self.scanned..self.end]) {
                let end = self.scanned + offset;
                self.pass_quotes(end, ends);
                self.scanned = end + 1;
                if !self.open {
                    return Ok(Some(end));
                }
                self.inner += 1;
            }
            self.pass_quotes(self.end, ends);
            self.scanned = self.end;
            if !self.over {
                self.fill()?;
            } else if self.open {
                return Err(TraceFault::new(
                    self.row,
                    "a quote is opened in this row and never closed",
                    "close it, write a quote within a field twice (\"\"), or remove a row that was cut off",
                ));
            } else {
                return Ok((self.start < self.end).then_some(self.end));
            }
        }
    }

    fn pass_quotes(&mut self, to: usize, ends: Ends) {
        if ends == Ends::OutsideQuotes {
            let quotes = memchr_iter(b'"', &self.buffer[self.scanned..to]).count();
            self.quoted |= quotes > 0;
            self.open ^= quotes % 2 == 1;
        }
    }

    fn fill(&mut self) -> Result<(), TraceFault> {
        if self.end == self.buffer.len() {
            self.make_room()?;
        }
        loop {
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.over = true,
                Ok(count) => self.end = self.buffer.len().min(self.end + count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(TraceFault::io(self.row, &error)),
            }
            return Ok(());
        }
    }

    fn make_room(&mut self) -> Result<(), TraceFault> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.scanned -= self.start;
            self.start = 0;
        } else if self.buffer.len() < LONGEST {
            self.buffer.resize((self.buffer.len() * 2).clamp(FIRST, LONGEST), 0);
        } else {
            return Err(TraceFault::new(
                self.row,
                format!("this row is longer than {} MiB", LONGEST >> 20),
                "look for a quote that is never closed, or for a file that is not text with one request a line",
            ));
        }
        Ok(())
    }
}

/// Without the carriage return of Windows, and without the mark that some editors put before the first line.
fn trimmed(text: &[u8], row: u64) -> &[u8] {
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if row == 1 { text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, ends: Ends, expect: &[(u64, &str)]) {
        let mut lines = Lines::new(input.as_bytes());
        let mut got = Vec::new();
        while let Some(line) = lines.next(ends).unwrap() {
            got.push((line.row, String::from_utf8(line.text.to_vec()).unwrap()));
        }
        assert_eq!(got, expect.iter().map(|&(row, text)| (row, text.to_owned())).collect::<Vec<_>>());
    }

    #[test]
    fn lines_keep_their_numbers() {
        check("a\n\n  \r\nb\r\nc", Ends::Newline, &[(1, "a"), (4, "b"), (5, "c")]);
        check("\u{feff}a\n", Ends::Newline, &[(1, "a")]);
        check("\"a\n\"\"b\",1\nc\n", Ends::OutsideQuotes, &[(1, "\"a\n\"\"b\",1"), (3, "c")]);
        check("\"a\nb\n", Ends::Newline, &[(1, "\"a"), (2, "b")]);
        check("", Ends::Newline, &[]);
    }

    #[test]
    fn a_line_may_be_read_again() {
        let mut lines = Lines::new(&b"\na\nb"[..]);
        assert_eq!(lines.next(Ends::Newline).unwrap().unwrap().text, b"a");
        lines.again();
        let line = lines.next(Ends::OutsideQuotes).unwrap().unwrap();
        assert_eq!((line.row, line.text), (2, &b"a"[..]));
        assert_eq!(lines.next(Ends::Newline).unwrap().unwrap().text, b"b");
    }

    #[test]
    fn a_long_input_is_not_kept() {
        let text = "0.5,100,10\n".repeat(500_000);
        let mut lines = Lines::new(text.as_bytes());
        while lines.next(Ends::OutsideQuotes).unwrap().is_some() {}
        assert_eq!((lines.row(), lines.buffer.len()), (500_001, FIRST));
    }

    #[test]
    fn a_line_without_end_does_not_fill_the_memory() {
        let mut lines = Lines::new(io::repeat(b'a'));
        assert!(lines.next(Ends::Newline).unwrap_err().message.contains("longer than 16 MiB"));
    }
}
