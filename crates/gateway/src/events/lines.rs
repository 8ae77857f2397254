//! A log: lines go into a buffer in memory, and a thread of its own writes that down.
//!
//! Waking a thread costs more than making a line. So the thread sleeps for a moment after the first line, and takes all
//! that has come by then: twenty wake-ups a second at the very most, whatever the load.

use std::{
    io::Write,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use serde::Serialize;

/// Lines that may wait for the writer.
const QUEUE: usize = 16_384;
/// How long a line may wait for others to be written with.
const GATHER: Duration = Duration::from_millis(50);

/// A buffer larger than this is not kept for the next lines.
const KEPT: usize = 64 << 10;

/// A bounded buffer of lines in front of one writer, who ends with it.
#[derive(Debug)]
pub(super) struct Lines {
    shared: Arc<Shared>,
    /// Counts lines that could not be written.
    lost: Counter,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    some: Condvar,
    /// Lines that were handed over and are not written yet.
    open: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    text: Vec<u8>,
    lines: usize,
    is_over: bool,
}

impl Lines {
    /// Starts the writing thread. `lost` counts lines that could not be written.
    pub(super) fn start(out: Box<dyn Write + Send>, lost: Counter) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (writer, counter) = (shared.clone(), lost.clone());
        std::thread::Builder::new().name("log".into()).spawn(move || writer.write_down(out, &counter))?;
        Ok(Self { shared, lost })
    }

    /// `false` when the line is lost.
    pub(super) fn write(&self, line: &impl Serialize) -> bool {
        let mut text = Vec::with_capacity(1_024);
        serde_json::to_writer(&mut text, line).expect("log lines are plain data");
        text.push(b'\n');
        let is_taken = self.shared.take(&text);
        if !is_taken {
            self.lost.inc();
        }
        is_taken
    }

    pub(super) fn all_written(&self) -> bool {
        self.shared.open.load(Ordering::Acquire) == 0
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_over = true;
        self.shared.some.notify_one();
    }
}

impl Shared {
    fn take(&self, line: &[u8]) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.lines >= QUEUE {
            return false;
        }
        waiting.text.extend_from_slice(line);
        waiting.lines += 1;
        self.open.fetch_add(1, Ordering::Relaxed);
        let is_first = waiting.lines == 1;
        drop(waiting);
        if is_first {
            self.some.notify_one();
        }
        true
    }

    fn write_down(&self, mut out: Box<dyn Write + Send>, lost: &Counter) {
        let mut text = Vec::new();
        loop {
            let (lines, is_over) = self.next(&mut text);
            if lines > 0 {
                if out.write_all(&text).and_then(|()| out.flush()).is_err() {
                    lost.inc_by(lines as u64);
                }
                self.open.fetch_sub(lines as u64, Ordering::Release);
            }
            if is_over {
                return;
            }
        }
    }

    /// Waits for lines, and swaps them for an empty buffer: how many they are, and whether they are the last.
    fn next(&self, text: &mut Vec<u8>) -> (usize, bool) {
        if text.capacity() > KEPT {
            *text = Vec::new();
        }
        text.clear();
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting =
            self.some.wait_while(waiting, |w| w.lines == 0 && !w.is_over).unwrap_or_else(PoisonError::into_inner);
        let waiting = self.some.wait_timeout_while(waiting, GATHER, |w| !w.is_over);
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner).0;
        std::mem::swap(&mut waiting.text, text);
        (std::mem::take(&mut waiting.lines), waiting.is_over)
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::mpsc, time::Instant};

    use super::*;

    struct To(mpsc::Sender<Vec<u8>>);

    impl Write for To {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_come_together_are_written_together_and_none_is_left_at_the_end() {
        let (to, written) = mpsc::channel();
        let began = Instant::now();
        let lines = Lines::start(Box::new(To(to)), Counter::default()).unwrap();
        for nth in 0..1_000 {
            assert!(lines.write(&nth));
            std::thread::sleep(Duration::from_micros(100));
        }
        drop(lines);
        let pieces: Vec<Vec<u8>> = written.iter().collect();
        let expected: String = (0..1_000).map(|nth| format!("{nth}\n")).collect();
        assert_eq!(String::from_utf8(pieces.concat()).unwrap(), expected);
        let wakes = began.elapsed().as_millis() / GATHER.as_millis();
        assert!(pieces.len() as u128 <= wakes + 1, "{} pieces in {wakes} times {GATHER:?}", pieces.len());
    }

    #[test]
    fn a_line_that_is_written_is_no_longer_open() {
        let (to, written) = mpsc::channel();
        let lines = Lines::start(Box::new(To(to)), Counter::default()).unwrap();
        lines.write(&"one");
        assert_eq!(written.recv().unwrap(), b"\"one\"\n");
        while !lines.all_written() {
            std::thread::yield_now();
        }
    }

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_a_full_disk_does_not_take_are_counted() {
        let lost = Counter::default();
        let lines = Lines::start(Box::new(Full), lost.clone()).unwrap();
        for nth in 0..10 {
            lines.write(&nth);
        }
        while !lines.all_written() {
            std::thread::yield_now();
        }
        assert_eq!(lost.get(), 10);
    }
}
