//! How loaded a backend is, how much it can take at once, and what the next request would wait there.
//!
//! Own requests in flight come first: they are exact, at once, and cost nothing. Several gateway replicas multiply them
//! by their number. What the engine's metrics say is seconds old and may be wrong, so that it only corrects the estimate,
//! and only as far as own counts can explain it: a gauge that cannot be true is worth nothing.
//!
//! The wait behind a full backend follows from Little's law: `max(0, n − L) · H / L` with `n` requests there, `L` slots
//! and `H` seconds that a request holds one. `L` is configured, or learned from the time to first token: end-to-end time
//! cannot tell a long answer from a long queue, and a limit learned from it drifts upwards without end.
//!
//! Sources: peak-EWMA as in Finagle and tower (jump to a peak, decay with 10 s); the shape of the learned limit is TCP
//! Vegas's (queue length from the measured excess over the idle time) as in Netflix's concurrency-limits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::{Nanos, Tokens};

/// Metrics older than this say nothing.
pub const SCRAPE_FRESH: Duration = Duration::from_secs(20);
/// How far, in standard deviations of what the other replicas may have in flight, a scrape may lie from own counts.
const PLAUSIBLE: f64 = 2.0;
/// Decay of the time to first token.
const TTFT_DECAY: Duration = Duration::from_secs(10);
/// Weight of one sample in the mean time that a request holds a slot.
const HOLD_GAIN: f64 = 1.0 / 64.0;
/// A window of the learned limit lasts at least this long…
const WINDOW: Duration = Duration::from_secs(1);
/// … and has this many samples, or the fewer that came in the longer time.
const SAMPLES: u32 = 20;
const LONG_WINDOW: Duration = Duration::from_secs(5);
const FEW_SAMPLES: u32 = 5;
/// More than this share of a window's requests beyond half of the objective is pressure (its 90th percentile is).
const PRESSURE: f64 = 0.1;
/// The limit is never cut by more than this at once.
const DEEPEST_CUT: f64 = 0.7;
/// Cuts down to this part of where they began, without the excess falling to that part of what it was, mean that the
/// excess does not come from the load.
const HOPELESS: f64 = 0.25;
const RELIEF: f64 = 0.67;
/// Of the limit that must be in use before it grows, and below which it is not cut: there the queue is not its doing.
const IN_USE: f64 = 0.9;
const IDLE: f64 = 0.5;
/// A first token older than this says nothing about the queue.
const EVIDENCE: Duration = Duration::from_secs(5);
/// A prompt counts as this much longer, so that short ones do not set an impossible pace.
const PROMPT_OFFSET: f64 = 50.0;

/// What an engine's metrics said, and what was known then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrape {
    pub at: Nanos,
    pub running: u32,
    pub waiting: u32,
    /// Own requests in flight at that moment.
    pub in_flight: u32,
}

/// What is known of one backend's load besides its requests in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Seconds that a request holds a slot.
    hold: Option<f64>,
    ttft: PeakEwma,
    /// Requests that failed fast, for as long as they would have held a slot: else what fails looks idle.
    ghosts: Decaying,
    learned: LearnedLimit,
    line: Line,
    /// Requests that the engine was seen running while others waited.
    slots_seen: Option<f64>,
    scrape: Option<Scrape>,
}

/// A request whose first token came: what the limit is learned from.
#[derive(Clone, Copy, Debug)]
pub(super) struct FirstToken {
    pub(super) started: Nanos,
    pub(super) took: Duration,
    pub(super) prompt: Tokens,
    /// Estimated requests on the backend when it was sent.
    pub(super) behind: f64,
    /// The objective for the 95th percentile.
    pub(super) objective: Option<Duration>,
}

impl Load {
    /// Estimated requests on the backend, over all `replicas` of the gateway.
    pub fn requests(&self, own: u32, replicas: u32, now: Nanos) -> f64 {
        let estimate = f64::from(own) * f64::from(replicas);
        let corrected = self.scrape.filter(|s| now.since(s.at) <= SCRAPE_FRESH && replicas > 1).map(|scrape| {
            let since = (f64::from(own) - f64::from(scrape.in_flight)) * f64::from(replicas);
            (f64::from(scrape.running) + f64::from(scrape.waiting) + since).max(f64::from(own))
        });
        match corrected {
            Some(corrected) if (corrected - estimate).abs() <= spread(own, replicas) => corrected,
            _ => estimate,
        }
    }

    /// The same, with failures counted as if they were still there.
    pub fn requests_and_ghosts(&self, own: u32, replicas: u32, now: Nanos) -> f64 {
        self.requests(own, replicas, now) + self.ghosts.value(now, self.hold_time()) * f64::from(replicas)
    }

    /// Slots that are known: configured, learned, or seen full. `None` when nothing limits it that anyone has noticed.
    pub fn slots(&self, configured: Option<u32>) -> Option<f64> {
        let known = self.learned.limit.or(self.slots_seen);
        match (configured.map(f64::from), known) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The limit to keep to, learned from the time to first token.
    pub fn learned_limit(&self) -> Option<f64> {
        self.learned.limit
    }

    /// What the next request would wait.
    ///
    /// Where one gateway sends everything and the slots are known, counting is exact. The first tokens that came, or did
    /// not come yet, say the rest: the engine's queue is shared by all gateways, and each of their requests measures
    /// it. A replica's own count times their number would call a backend full by chance.
    pub fn expected_wait(&self, own: u32, configured: Option<u32>, replicas: u32, now: Nanos) -> Duration {
        let counted = || self.wait(self.requests(own, replicas, now), self.slots(configured));
        match self.line.wait(now) {
            // A bound may have been set higher than what the engine can run: then only its queue shows it.
            Some(measured) if replicas == 1 => measured.max(counted()),
            Some(measured) => measured,
            None => counted(),
        }
    }

    /// What a request would wait behind `requests` others, where `slots` are known.
    pub fn wait(&self, requests: f64, slots: Option<f64>) -> Duration {
        let (Some(slots), Some(hold)) = (slots, self.hold) else { return Duration::ZERO };
        let beyond = (requests + 1.0 - slots).max(0.0);
        Duration::from_secs_f64((beyond * hold / slots.max(1.0)).min(1e6))
    }

    /// Seconds that a request holds a slot, where that has been seen.
    pub fn hold(&self) -> Option<Duration> {
        self.hold.map(Duration::from_secs_f64)
    }

    /// What the time to first token is now, weighted towards its peaks.
    pub fn expected_ttft(&self, now: Nanos) -> Duration {
        Duration::from_secs_f64(self.ttft.value(now))
    }

    pub fn last_scrape(&self) -> Option<Scrape> {
        self.scrape
    }

    pub(super) fn scraped(&mut self, scrape: Scrape, replicas: u32) {
        self.scrape = Some(scrape);
        let total = f64::from(scrape.running) + f64::from(scrape.waiting);
        let own = f64::from(scrape.in_flight) * f64::from(replicas);
        // What was on its way while the page was written is neither more nor less than a tenth.
        let plausible = (total - own).abs() <= spread(scrape.in_flight, replicas) + 2.0 + own / 10.0;
        if plausible {
            let running = f64::from(scrape.running);
            if scrape.waiting > 0 || self.slots_seen.is_some_and(|slots| running > slots) {
                self.slots_seen = Some(running);
            }
        }
    }

    /// A request whose first token can be seen is on its way.
    pub(super) fn sent(&mut self, now: Nanos) {
        self.line.sent(now);
    }

    /// One of those has ended without a first token.
    pub(super) fn left(&mut self) {
        self.line.unanswered = self.line.unanswered.saturating_sub(1);
    }

    pub(super) fn first_token(&mut self, token: &FirstToken, now: Nanos) {
        self.ttft.record(token.took.as_secs_f64(), now);
        if let Some(objective) = token.objective {
            let hold = self.hold;
            self.learned.record(token, objective, hold, now);
        }
        self.learned.pace_of(token);
        let excess = self.learned.excess(token.took, token.prompt);
        self.line.answered(token.started, token.took.as_secs_f64(), excess, now);
    }

    /// A request ended as it should, `excess` after it might have begun.
    pub(super) fn served(&mut self, took: Duration, ttft: Option<Duration>, prompt: Tokens) {
        let waited = ttft.map_or(0.0, |ttft| self.learned.excess(ttft, prompt));
        let sample = (took.as_secs_f64() - waited).max(0.0);
        self.hold = Some(self.hold.map_or(sample, |hold| hold + (sample - hold) * HOLD_GAIN));
    }

    pub(super) fn failed(&mut self, now: Nanos) {
        let hold = self.hold_time();
        self.ghosts.add(now, hold);
    }

    /// It came back: what it was is no guide to what it is.
    pub(super) fn forget(&mut self) {
        let line = Line { unanswered: self.line.unanswered, ..Line::default() };
        *self = Self { hold: self.hold, line, ..Self::default() };
    }

    fn hold_time(&self) -> f64 {
        self.hold.unwrap_or(1.0)
    }
}

/// The engine's queue, as own requests measure it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Line {
    /// Own requests without a first token yet.
    unanswered: u32,
    /// When the one was sent whose first token came last, and when the newest was sent.
    answered_start: Nanos,
    newest_start: Nanos,
    /// Seconds that the last first token was later than an idle backend's, and when it came.
    excess: f64,
    at: Nanos,
    /// Seconds to a first token on an idle backend, as for the last.
    idle: f64,
    /// Seconds between two first tokens while more were waited for.
    gap: Option<f64>,
}

/// Weight of one sample in the mean time between first tokens.
const GAP_GAIN: f64 = 1.0 / 16.0;

impl Line {
    fn sent(&mut self, now: Nanos) {
        if self.unanswered == 0 {
            self.answered_start = now;
        }
        self.unanswered += 1;
        self.newest_start = now;
    }

    fn answered(&mut self, started: Nanos, took: f64, excess: f64, now: Nanos) {
        self.unanswered = self.unanswered.saturating_sub(1);
        // The first of a busy time follows an idle one and says nothing about the pace.
        if self.unanswered > 0 && started < self.at {
            let sample = now.since(self.at).as_secs_f64();
            self.gap = Some(self.gap.map_or(sample, |gap| gap + (sample - gap) * GAP_GAIN));
        }
        self.idle = took - excess;
        self.answered_start = self.answered_start.max(started);
        (self.excess, self.at) = (excess, now);
    }

    /// `None` when there is no evidence that is fresh enough.
    ///
    /// What was measured drains by a second each second, so that a backend which is spared for its queue is tried again
    /// when that may be gone. Those without a first token yet have waited already: the oldest of them, taken as evenly
    /// spread between the last that got one and the newest. And
    /// each of them takes its turn: their number times the time between two first tokens.
    fn wait(&self, now: Nanos) -> Option<Duration> {
        let age = now.since(self.at);
        if self.unanswered == 0 && age > EVIDENCE {
            return None;
        }
        let measured = Duration::from_secs_f64(self.excess.clamp(0.0, 1e6)).saturating_sub(age);
        let pending = self.newest_start.since(self.answered_start) / (self.unanswered + 1);
        let oldest = if self.unanswered > 1 { now.since(self.answered_start + pending) } else { Duration::ZERO };
        let position = self.gap.map_or(0.0, |gap| f64::from(self.unanswered) * gap - self.idle);
        Some(measured.max(oldest).max(Duration::from_secs_f64(position.clamp(0.0, 1e6))))
    }
}

/// How far from `own · replicas` the requests of all replicas may be: each request goes to one of them at random.
fn spread(own: u32, replicas: u32) -> f64 {
    let (own, replicas) = (f64::from(own), f64::from(replicas));
    PLAUSIBLE * (own * replicas * (replicas - 1.0)).sqrt()
}

/// A mean that jumps to peaks and decays from them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct PeakEwma {
    seconds: f64,
    at: Nanos,
}

impl PeakEwma {
    fn record(&mut self, sample: f64, now: Nanos) {
        let kept = decayed(now.since(self.at), TTFT_DECAY.as_secs_f64());
        self.seconds = if sample > self.seconds { sample } else { self.seconds * kept + sample * (1.0 - kept) };
        self.at = now;
    }

    fn value(&self, now: Nanos) -> f64 {
        self.seconds * decayed(now.since(self.at), TTFT_DECAY.as_secs_f64())
    }
}

/// A count whose members leave it at a rate: on average each stays for the given time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Decaying {
    count: f64,
    at: Nanos,
}

impl Decaying {
    fn add(&mut self, now: Nanos, stay: f64) {
        self.count = self.value(now, stay) + 1.0;
        self.at = now;
    }

    fn value(&self, now: Nanos, stay: f64) -> f64 {
        if self.count == 0.0 { 0.0 } else { self.count * decayed(now.since(self.at), stay) }
    }
}

fn decayed(time: Duration, constant: f64) -> f64 {
    (-time.as_secs_f64() / constant.max(1e-3)).exp()
}

/// A limit learned from how much longer first tokens take than on an idle backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct LearnedLimit {
    /// `None` until there has been pressure.
    limit: Option<f64>,
    /// Shortest time to first token by length of prompt that was seen, in seconds per token: an idle backend's.
    pace: Option<f64>,
    /// No pace below this is believed: prompts that an engine had in its cache are no guide to the others.
    fastest: f64,
    /// Limit and seconds of excess at the first of the cuts that go on.
    cuts: Option<(f64, f64)>,
    since: Nanos,
    samples: u32,
    late: u32,
    /// Sums over the window: seconds of excess, requests on the backend, and lengths of prompts.
    excess: f64,
    behind: f64,
    length: f64,
    most_behind: f64,
}

impl LearnedLimit {
    /// Seconds beyond what an idle backend takes.
    fn excess(&self, ttft: Duration, prompt: Tokens) -> f64 {
        let idle = self.pace.map_or(0.0, |pace| pace * length(prompt));
        (ttft.as_secs_f64() - idle).max(0.0)
    }

    fn pace_of(&mut self, token: &FirstToken) {
        let pace = token.took.as_secs_f64() / length(token.prompt);
        self.pace = Some(self.pace.map_or(pace, |best| best.min(pace)).max(self.fastest));
    }

    fn record(&mut self, token: &FirstToken, objective: Duration, hold: Option<f64>, now: Nanos) {
        self.pace_of(token);
        let excess = self.excess(token.took, token.prompt);
        self.samples += 1;
        self.late += u32::from(excess > objective.as_secs_f64() / 2.0);
        self.excess += excess;
        self.behind += token.behind;
        self.length += length(token.prompt);
        self.most_behind = self.most_behind.max(token.behind);
        let age = now.since(self.since);
        let is_full = age >= WINDOW && self.samples >= SAMPLES || age >= LONG_WINDOW && self.samples >= FEW_SAMPLES;
        if is_full {
            self.close_window(hold);
            let Self { limit, pace, fastest, cuts, .. } = *self;
            *self = Self { limit, pace, fastest, cuts, since: now, ..Self::default() };
        }
    }

    fn close_window(&mut self, hold: Option<f64>) {
        let n = f64::from(self.samples);
        let before = self.limit.unwrap_or(self.most_behind);
        if f64::from(self.late) > PRESSURE * n {
            let Some(hold) = hold else { return };
            if self.most_behind < before * IDLE {
                return;
            }
            let (behind, wait) = (self.behind / n, self.excess / n);
            let (began, wait_then) = *self.cuts.get_or_insert((before, wait));
            if before < began * HOPELESS && wait > wait_then * RELIEF {
                // Far fewer requests wait as long as before: that is what first tokens take here, and no queue.
                self.fastest = self.pace.unwrap_or(0.0) + self.excess / self.length.max(1.0);
                (self.pace, self.limit, self.cuts) = (Some(self.fastest), None, None);
                return;
            }
            let room = behind * hold / (hold + wait).max(1e-9);
            self.limit = Some(room.max(before * DEEPEST_CUT).min(before).max(1.0));
            return;
        }
        self.cuts = None;
        if let Some(limit) = self.limit
            && self.most_behind >= limit * IN_USE
        {
            self.limit = Some(limit + (limit / 100.0).max(1.0));
        }
    }
}

fn length(prompt: Tokens) -> f64 {
    prompt.0 as f64 + PROMPT_OFFSET
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First tokens that take `took`, whatever the load, on a backend that is kept at its limit.
    fn after(windows: u32, seed: Duration, took: Duration) -> Option<f64> {
        let mut learned = LearnedLimit::default();
        let objective = Duration::from_secs(1);
        let token = |took: Duration, behind: f64, at: Nanos| FirstToken {
            started: at,
            took,
            prompt: Tokens(1_000),
            behind,
            objective: Some(objective),
        };
        learned.record(&token(seed, 1.0, Nanos::ZERO), objective, Some(10.0), Nanos::ZERO);
        for i in 0..windows * SAMPLES {
            let now = Nanos::from_millis(u64::from(i) * 60);
            let behind = learned.limit.unwrap_or(60.0).min(60.0);
            learned.record(&token(took, behind, now), objective, Some(10.0), now);
        }
        learned.limit
    }

    /// One prompt that was in the engine's cache, and then prompts that are not: late by the idle time that the first
    /// one seemed to show, and no shorter for fewer requests. That is no queue, and must not end in one request at once.
    #[test]
    fn a_lateness_that_does_not_come_from_the_load_does_not_shut_a_backend() {
        for windows in [5, 20, 60, 200] {
            let limit = after(windows, Duration::from_millis(20), Duration::from_millis(900));
            assert!(limit.is_none_or(|limit| limit >= 12.0), "{limit:?} after {windows} windows");
        }
        assert!(after(200, Duration::from_millis(20), Duration::from_millis(300)).is_none());
    }
}
