//! What is shown while bytes move: one line that is written over on a terminal, lines of JSON with `--json`, nothing else.

use std::{
    io::IsTerminal as _,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use outrigger_weights::transfer::Event;
use serde_json::json;

use crate::commands::{takes_escapes, write_out};

/// Between two lines that say how far it is.
const EVERY: Duration = Duration::from_millis(250);

#[derive(Clone)]
pub(super) struct Progress {
    shown: Arc<Mutex<Shown>>,
}

struct Shown {
    json: bool,
    terminal: bool,
    began: Instant,
    last: Option<Instant>,
    total: u64,
    done: u64,
    /// Right before anything moved, and not to be counted into the rate.
    kept: u64,
}

impl Progress {
    pub(super) fn to_stderr(json: bool) -> Self {
        let stderr = std::io::stderr();
        let terminal = !json && stderr.is_terminal() && takes_escapes(&stderr);
        let shown = Shown { json, terminal, began: Instant::now(), last: None, total: 0, done: 0, kept: 0 };
        Self { shown: Arc::new(Mutex::new(shown)) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn total(&self, bytes: u64) {
        self.lock().total = bytes;
    }

    /// So many bytes more.
    pub(super) fn add(&self, bytes: u64) {
        let mut shown = self.lock();
        shown.done += bytes;
        shown.draw();
    }

    /// Leaves the terminal as it was.
    pub(super) fn clear(&self) {
        if self.lock().terminal {
            eprint!("\r\x1b[K");
        }
    }

    pub(super) fn event(&self, event: &Event) {
        let mut shown = self.lock();
        match event {
            Event::Found { digest, total, files } => {
                // What was read to be hashed is read again to be sent.
                (shown.total, shown.done, shown.began) = (*total, 0, Instant::now());
                shown.line(&json!({"event": "found", "digest": digest.to_string(), "total": total, "files": files}));
            }
            Event::Kept { bytes } => {
                (shown.done, shown.kept, shown.began) = (*bytes, *bytes, Instant::now());
                shown.draw();
            }
            Event::Progress { right, fetched } => {
                shown.done = *right;
                if shown.json && shown.due() {
                    let total = shown.total;
                    shown.line(&json!({"event": "progress", "right": right, "fetched": fetched, "total": total}));
                }
                shown.draw();
            }
            Event::File { path } => shown.line(&json!({"event": "file", "path": path})),
            Event::Wrong { path, offset, len } => {
                shown.talk(&format!("{path}: the chunk at byte {offset} came wrong and is fetched again"));
                shown.line(&json!({"event": "wrong_chunk", "path": path, "offset": offset, "len": len}));
            }
            Event::Changed { path } => {
                shown.talk(&format!("{path} became another object in the store while it was read; its hashes decide"));
                shown.line(&json!({"event": "changed", "path": path}));
            }
            Event::Again { why } => {
                shown.talk(&format!("{why}; trying again"));
                shown.line(&json!({"event": "retry", "why": why}));
            }
        }
    }
}

impl Shown {
    fn line(&self, line: &serde_json::Value) {
        if self.json {
            write_out(&format!("{line}\n"));
        }
    }

    fn talk(&self, words: &str) {
        if !self.json {
            eprintln!("{}{words}", if self.terminal { "\r\x1b[K" } else { "" });
        }
    }

    fn due(&mut self) -> bool {
        let due = self.last.is_none_or(|last| last.elapsed() >= EVERY);
        if due {
            self.last = Some(Instant::now());
        }
        due
    }

    fn draw(&mut self) {
        if !self.terminal || !self.due() {
            return;
        }
        let rate = (self.done - self.kept) as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        let of = if self.total == 0 { String::new() } else { format!(" of {}", bytes(self.total)) };
        eprint!("\r\x1b[K{}{of}, {}/s", bytes(self.done), bytes(rate as u64));
    }
}

/// Bytes for people.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = n as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{size:.2} {}", UNITS[unit]) }
}
