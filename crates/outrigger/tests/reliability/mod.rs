//! What the README promises about failures, measured on the real binary: `outrigger fake` processes stand for clouds,
//! `outrigger serve` stands before them, and the load generator is the client.
//!
//! Nothing here reads the gateway's own numbers where somebody else's can be had: what a client met is counted by the
//! client, what a backend met by the fake. Each bar prints one line with its figure. The same tests have a long form
//! (`OUTRIGGER_LONG=1`, which `./test heavy reliability` sets); the short one is small enough for every change.
//!
//! These tests measure time, so each has the machine to itself: a group in `.config/nextest.toml` sees to that.

mod demo;
mod hang_up;
mod http;
mod kill;
mod memory;
mod outage;
mod overload;
mod refusal;
mod rig;
mod silence;
mod streams;

use std::time::{Duration, Instant};

/// Whether the long form is asked for.
fn long() -> bool {
    std::env::var("OUTRIGGER_LONG").is_ok_and(|v| v == "1")
}

/// One line for a bar: what it is, and the figure of this run.
fn report(bar: &str, figure: &str) {
    println!("bar: {bar}: {figure}");
}

/// How much later than its bar something may be in the short form: it runs wherever a change is tested, also where nobody gets a
/// processor when he wants it. The bars themselves are for the long form.
fn slack() -> Duration {
    Duration::from_secs(if long() { 0 } else { 2 })
}

/// Of sorted times the one that its bar is for: this percentile in the long form, and in the short one, in which a single late one would
/// be it, the median.
fn judged(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * if long() { percent } else { 50 }).div_ceil(100) - 1]
}

/// Asks until the answer is yes, and says how long that took. `None` when the time is over.
fn until(limit: Duration, mut yes: impl FnMut() -> bool) -> Option<Duration> {
    let began = Instant::now();
    while began.elapsed() < limit {
        if yes() {
            return Some(began.elapsed());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

fn wait(seconds: f64) {
    std::thread::sleep(Duration::from_secs_f64(seconds));
}
