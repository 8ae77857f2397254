//! Whether a backend is alive: consecutive faults, silence, success rate, probes and slow start.
//!
//! Three kinds of evidence, kept apart because panic may override only the soft ones:
//!
//! - **down** is hard: nothing listens, a probe failed, or faults came in a row. Only a successful probe (one real
//!   generation) ends it, and the backend then comes back by slow start.
//! - **suspect** is a question: a connection died, a deadline passed, or the backend has been silent for too long. It
//!   gets no new traffic while another backend can serve, and a probe is due at once. Asking is cheap, so that
//!   detection can be fast without ejecting a backend that is merely busy.
//! - **ejected** is statistical: too few of its recent requests succeeded, or it has gone down again and again. It ends
//!   by time, doubling each time.
//!
//! A backend that flaps would otherwise be taken in and thrown out with every turn, and each time what was in flight on
//! it has to move. One that goes down for the third time, each time soon after it came back, is therefore held for a
//! while once it answers again: half a minute, doubling. It is held as *ejected* and not as *down*, because it does
//! answer: when nothing else can serve, it is used. A single outage, and a second one, cost no waiting.
//!
//! Client errors never count. 429 and 503 are backpressure and belong to [`super::cooldown`].
//!
//! Sources of the constants: linkerd2-proxy's unified breaker (consecutive faults and a success-rate window) and
//! Envoy's outlier detection (5 in a row, ejection doubling up to 300 s, slow start with a 10 % floor). That a first flap
//! is free and that it has to behave for longer the longer it was held is from BGP's route flap damping (RFC 2439).

use std::time::Duration;

use rand_core::Rng as _;
use serde::{Deserialize, Serialize};

use super::latency::Latency;
use crate::{Rng, record::Fault, units::Nanos};

/// Faults in a row that open the breaker.
pub const FAULTS_TO_OPEN: u8 = 5;
/// Connect timeouts within [`CONNECT_TIMEOUT_WINDOW`] that open the breaker.
pub const CONNECT_TIMEOUTS_TO_OPEN: u8 = 2;
pub const CONNECT_TIMEOUT_WINDOW: Duration = Duration::from_secs(10);
/// Pause between the probes of a backend that is down, jittered by a fifth either way.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// A backend that came back gets its full weight after this long.
pub const SLOW_START: Duration = Duration::from_secs(30);
/// The share of its weight that it starts with.
pub const SLOW_START_FLOOR: f64 = 0.1;
/// Never call a backend silent sooner than this.
pub const MIN_SILENCE: Duration = Duration::from_secs(1);
/// A probe that takes longer than this says "silent", whatever the deadline of real requests.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// What a probe may take beyond the configured deadline of a backend that has said nothing for that long already: with
/// what it takes to notice and to act, such a backend is left within its deadline and a second.
const LAST_CHANCE: Duration = Duration::from_millis(750);
/// A backend that was heard within this time is known to be alive.
pub const PROOF_OF_LIFE: Duration = Duration::from_secs(2);
/// Silence is this many times the 99th percentile of the time to first token.
const SILENCE_FACTOR: u32 = 3;

const SUCCESS_WINDOW: Duration = Duration::from_secs(30);
const SUCCESS_MIN_REQUESTS: u32 = 20;
const SUCCESS_MIN_RATE: f64 = 0.8;
const EJECTION_BASE: Duration = Duration::from_secs(10);
const EJECTION_MAX: Duration = Duration::from_mins(5);

/// A backend that was in use for this long, or for as long as it was held before, has come back for good.
const STEADY: Duration = Duration::from_mins(1);
/// Outages soon after coming back that are not held against it.
const FREE_RELAPSES: u8 = 1;
const HOLD_BASE: Duration = Duration::from_secs(30);
const HOLD_MAX: Duration = Duration::from_mins(5);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    #[default]
    Up,
    Suspect {
        since: Nanos,
        why: Fault,
    },
    Down {
        since: Nanos,
        why: Fault,
    },
}

/// What the caller has to do after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Requests that have delivered nothing should leave this backend now; the verdict is in.
    Abandon,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Liveness {
    pub health: Health,
    faults_in_row: u8,
    cuts_in_row: u8,
    connect_timeouts: u8,
    last_connect_timeout: Nanos,
    window: SuccessWindow,
    ejected_until: Nanos,
    ejections: u8,
    /// Outages in a row of which each began soon after it had come back from the one before.
    #[serde(default)]
    relapses: u8,
    /// When it was last put into use after an outage.
    #[serde(default)]
    returned: Option<Nanos>,
    /// Until when it is held for having relapsed; matters once it answers again.
    #[serde(default)]
    held_until: Nanos,
    /// Times that it was taken out of use, since it was configured.
    #[serde(default)]
    taken_out: u64,
    slow_start_since: Option<Nanos>,
    probe: ProbeSlot,
    /// When a byte last came from it, as far as the caller has said.
    last_byte: Nanos,
    /// Since when the silence lasts that made it suspect; meaningful while it is.
    quiet_since: Nanos,
    /// It came back and has had no request since: the next one is its own, so that it is not left out while traffic is
    /// thin and its share small.
    is_returning: bool,
    /// When it last answered a request, and when it last failed one with a 500: the poison rule.
    last_success: Option<Nanos>,
    last_server_error: Option<Nanos>,
    server_error_before: Option<Nanos>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ProbeSlot {
    /// `None` when no probe is wanted.
    due: Option<Nanos>,
    running: bool,
    /// When the last one began.
    #[serde(default)]
    began: Nanos,
}

impl Liveness {
    /// A backend that has just been configured: in use, with a probe due at once.
    pub fn unproven(now: Nanos) -> Self {
        Self { probe: ProbeSlot { due: Some(now), ..ProbeSlot::default() }, ..Self::default() }
    }

    pub fn is_down(&self) -> bool {
        matches!(self.health, Health::Down { .. })
    }

    pub fn is_suspect(&self) -> bool {
        matches!(self.health, Health::Suspect { .. })
    }

    pub fn is_ejected(&self, now: Nanos) -> bool {
        now < self.ejected_until
    }

    /// Until when it is ejected, while it is.
    pub fn ejected_until(&self, now: Nanos) -> Option<Nanos> {
        self.is_ejected(now).then_some(self.ejected_until)
    }

    /// Whether the ejection is for flapping, and not for failing too often.
    pub fn is_held(&self, now: Nanos) -> bool {
        self.is_ejected(now) && self.ejected_until == self.held_until
    }

    /// Somebody vouches for it: an ejection ends, and what led to it is forgotten. Whether it was ejected.
    pub fn forgive(&mut self, now: Nanos) -> bool {
        let was_ejected = self.is_ejected(now);
        if was_ejected {
            self.ejected_until = now;
            self.slow_start_since = Some(now);
            self.window = SuccessWindow::default();
        }
        (self.ejections, self.relapses, self.returned, self.held_until) = (0, 0, None, Nanos::ZERO);
        was_ejected
    }

    /// Times that it was taken out of use, since it was configured. Suspicion is none of them.
    pub fn taken_out(&self) -> u64 {
        self.taken_out
    }

    /// The part of its weight that it may have now, from [`SLOW_START_FLOOR`] to 1.
    pub fn ramp(&self, now: Nanos) -> f64 {
        match self.slow_start_since {
            Some(since) => (now.since(since).as_secs_f64() / SLOW_START.as_secs_f64()).clamp(SLOW_START_FLOOR, 1.0),
            None => 1.0,
        }
    }

    /// Whether the next request should go to it, because it came back and has had none.
    pub fn is_returning(&self) -> bool {
        self.is_returning
    }

    /// A request is on its way to it.
    pub fn given_a_request(&mut self) {
        self.is_returning = false;
    }

    /// Whether it is known to be alive now.
    pub fn is_proven(&self, now: Nanos) -> bool {
        self.last_byte > Nanos::ZERO && now.since(self.last_byte) <= PROOF_OF_LIFE
    }

    /// Wants a probe, because a request depends on whether it is alive.
    pub fn ask_for_proof(&mut self, now: Nanos) {
        if self.probe.due.is_none() && !self.probe.running {
            self.probe.due = Some(now);
        }
    }

    /// How long a probe may take that begins now, where real requests may take `patience`. One that is asked after a
    /// silence gets what is left of that, and a last chance.
    pub fn probe_patience(&self, patience: Duration, now: Nanos) -> Duration {
        let most = patience.min(PROBE_TIMEOUT);
        match self.health {
            Health::Suspect { why: Fault::Stalled | Fault::HeadersTimeout | Fault::FirstTokenTimeout, .. } => {
                (self.quiet_since + patience + LAST_CHANCE).since(now).clamp(LAST_CHANCE, most.max(LAST_CHANCE))
            }
            _ => most,
        }
    }

    /// Content arrived, or a whole answer.
    pub fn committed(&mut self, now: Nanos) {
        self.faults_in_row = 0;
        self.connect_timeouts = 0;
        self.last_byte = self.last_byte.max(now);
        self.last_success = Some(now);
        self.window.record(now, true);
    }

    /// A request ended as it should.
    pub fn completed(&mut self) {
        self.cuts_in_row = 0;
    }

    /// Folds in the fault of an attempt that began at `started`. Refusals must not come here.
    pub fn fault(&mut self, fault: Fault, started: Nanos, now: Nanos, rng: &mut Rng) -> Option<Effect> {
        let was_down = self.is_down();
        let quiet_since = self.last_byte.max(started);
        match fault {
            Fault::Local | Fault::Abandoned | Fault::TotalTimeout | Fault::Overloaded { .. } => {}
            Fault::Refused | Fault::Tls | Fault::Auth | Fault::WrongModel => self.go_down(fault, now, rng),
            Fault::ConnectTimeout => self.connect_timed_out(now, rng),
            Fault::Cut | Fault::Stalled => {
                self.cuts_in_row = self.cuts_in_row.saturating_add(1);
                self.count(self.cuts_in_row, fault, now, rng);
                self.suspect(fault, quiet_since, now);
            }
            Fault::Dns | Fault::Reset | Fault::HeadersTimeout | Fault::FirstTokenTimeout => {
                self.consecutive(fault, now, rng);
                self.suspect(fault, quiet_since, now);
            }
            Fault::Status(_) | Fault::BadBody => self.consecutive(fault, now, rng),
        }
        if fault.is_server_error() {
            self.server_error_before = self.last_server_error.replace(now);
        }
        // Several answers overdue in a row are a verdict on silence too. A listener that takes no connection may still
        // be working for those that it has: the next probe says.
        let silent = matches!(fault, Fault::HeadersTimeout | Fault::FirstTokenTimeout | Fault::Stalled);
        (silent && self.is_down() && !was_down).then_some(Effect::Abandon)
    }

    /// Takes back what a poisonous request's 500 did.
    pub fn withdraw_server_error(&mut self, now: Nanos) {
        self.faults_in_row = self.faults_in_row.saturating_sub(1);
        self.window.withdraw_failure(now);
        if let Health::Down { why, since } = self.health
            && why.is_server_error()
            && self.last_server_error == Some(since)
        {
            self.health = Health::Up;
            self.relapses = self.relapses.saturating_sub(1);
            self.probe = ProbeSlot { due: None, ..self.probe };
        }
    }

    /// Whether it answered another request lately, and since its previous 500: evidence that the fault is the
    /// request's. (Without the second half, every request in the first seconds of an outage would look poisonous.)
    pub fn is_serving_others(&self, now: Nanos, within: Duration) -> bool {
        self.last_success
            .is_some_and(|at| now.since(at) <= within && self.server_error_before.is_none_or(|previous| at >= previous))
    }

    /// The caller saw bytes from it at `last_byte`. `busy_since` is when its oldest run of requests of the watched
    /// kind began; `patience` the silence that its configured deadline allows at most.
    pub fn heard(&mut self, last_byte: Nanos, busy_since: Nanos, latency: &Latency, patience: Duration, now: Nanos) {
        self.last_byte = self.last_byte.max(last_byte);
        let quiet_since = self.last_byte.max(busy_since);
        if now.since(quiet_since) >= silence(latency, patience) {
            self.suspect(Fault::Stalled, quiet_since, now);
        }
    }

    /// Starts the probe that is due, if one is. The caller reports back by [`Self::probed`].
    pub fn take_probe(&mut self, now: Nanos) -> bool {
        let due = !self.probe.running && self.probe.due.is_some_and(|at| at <= now);
        if due {
            self.probe = ProbeSlot { due: None, running: true, began: now };
        }
        due
    }

    pub fn next_probe(&self) -> Option<Nanos> {
        self.probe.due.filter(|_| !self.probe.running)
    }

    /// The result of a probe.
    pub fn probed(&mut self, result: Result<(), Fault>, now: Nanos, rng: &mut Rng) -> Option<Effect> {
        self.probe.running = false;
        match (result, self.health) {
            // It was asked before it failed, and says nothing about what came since.
            (Ok(()), Health::Down { since, .. }) if since > self.probe.began => self.schedule_probe(now, rng),
            (Ok(()), Health::Down { .. }) => self.come_back(now),
            // Busy is not dead: it answered, if only to refuse.
            (Ok(()), _)
            | (Err(Fault::Overloaded { .. }), Health::Up | Health::Suspect { .. })
            | (Err(Fault::Status(_) | Fault::BadBody), Health::Suspect { .. }) => {
                self.health = Health::Up;
                self.last_byte = self.last_byte.max(now);
            }
            // Our own trouble says nothing about the backend.
            (Err(Fault::Local), Health::Up) => {}
            (Err(Fault::Local), Health::Suspect { .. }) => self.schedule_probe(now, rng),
            // Bytes came since we began to wonder.
            (Err(_), Health::Up) if self.is_proven(now) => {}
            (Err(_), Health::Suspect { since, .. }) if self.last_byte > since => self.health = Health::Up,
            (Err(fault), before) => return self.probe_failed(fault, before, now, rng),
        }
        None
    }

    fn probe_failed(&mut self, fault: Fault, before: Health, now: Nanos, rng: &mut Rng) -> Option<Effect> {
        if matches!(before, Health::Down { .. }) {
            self.schedule_probe(now, rng);
        } else {
            self.go_down(fault, now, rng);
        }
        // A listener that is gone may still finish what it holds (a graceful shutdown); silence will not, whatever it
        // was that took the backend down before.
        let silent = matches!(fault, Fault::ConnectTimeout | Fault::HeadersTimeout | Fault::FirstTokenTimeout);
        silent.then_some(Effect::Abandon)
    }

    fn connect_timed_out(&mut self, now: Nanos, rng: &mut Rng) {
        if now.since(self.last_connect_timeout) > CONNECT_TIMEOUT_WINDOW {
            self.connect_timeouts = 0;
        }
        self.last_connect_timeout = now;
        self.connect_timeouts = self.connect_timeouts.saturating_add(1);
        self.window.record(now, false);
        if self.connect_timeouts >= CONNECT_TIMEOUTS_TO_OPEN {
            self.go_down(Fault::ConnectTimeout, now, rng);
        } else {
            self.suspect(Fault::ConnectTimeout, self.last_byte, now);
        }
    }

    fn consecutive(&mut self, fault: Fault, now: Nanos, rng: &mut Rng) {
        self.faults_in_row = self.faults_in_row.saturating_add(1);
        self.window.record(now, false);
        self.count(self.faults_in_row, fault, now, rng);
        self.eject_if_failing(now);
    }

    fn count(&mut self, in_row: u8, fault: Fault, now: Nanos, rng: &mut Rng) {
        if in_row >= FAULTS_TO_OPEN {
            self.go_down(fault, now, rng);
        }
    }

    fn eject_if_failing(&mut self, now: Nanos) {
        let (ok, all) = self.window.totals(now);
        if all < SUCCESS_MIN_REQUESTS || f64::from(ok) >= SUCCESS_MIN_RATE * f64::from(all) || self.is_ejected(now) {
            return;
        }
        if now.since(self.ejected_until) > EJECTION_MAX {
            self.ejections = 0;
        }
        let time = EJECTION_BASE.saturating_mul(1 << self.ejections.min(5)).min(EJECTION_MAX);
        self.ejections = self.ejections.saturating_add(1);
        self.taken_out += 1;
        self.ejected_until = now + time;
        self.slow_start_since = Some(self.ejected_until);
        self.window = SuccessWindow::default();
    }

    fn suspect(&mut self, why: Fault, quiet_since: Nanos, now: Nanos) {
        if self.health == Health::Up {
            self.health = Health::Suspect { since: now, why };
            self.quiet_since = quiet_since;
            self.probe.due = Some(now);
        }
    }

    fn go_down(&mut self, why: Fault, now: Nanos, rng: &mut Rng) {
        if self.is_down() {
            return;
        }
        if !self.is_ejected(now) {
            self.count_relapse(now);
            self.taken_out += 1;
        }
        self.health = Health::Down { since: now, why };
        self.slow_start_since = None;
        self.schedule_probe(now, rng);
    }

    fn count_relapse(&mut self, now: Nanos) {
        let steady = hold(self.relapses).max(STEADY);
        let is_relapse = self.returned.is_some_and(|at| now.since(at) < steady);
        self.relapses = if is_relapse { self.relapses.saturating_add(1) } else { 0 };
        self.held_until = now + hold(self.relapses);
    }

    fn come_back(&mut self, now: Nanos) {
        let in_use_from = self.held_until.max(now);
        *self = Self {
            health: Health::Up,
            ejected_until: self.held_until,
            slow_start_since: Some(in_use_from),
            last_byte: now,
            is_returning: true,
            returned: Some(in_use_from),
            probe: self.probe,
            ejections: self.ejections,
            relapses: self.relapses,
            held_until: self.held_until,
            taken_out: self.taken_out,
            last_success: self.last_success,
            last_server_error: self.last_server_error,
            ..Self::default()
        };
    }

    fn schedule_probe(&mut self, now: Nanos, rng: &mut Rng) {
        self.probe.due = Some(now + jittered(PROBE_INTERVAL, rng));
    }
}

/// How long a backend stays out at least, that has relapsed this often in a row.
fn hold(relapses: u8) -> Duration {
    match relapses.checked_sub(FREE_RELAPSES + 1) {
        None => Duration::ZERO,
        Some(more) => HOLD_BASE.saturating_mul(1 << more.min(4)).min(HOLD_MAX),
    }
}

/// `d` shortened or lengthened by up to a fifth, so that replicas and backends do not act in step.
pub(super) fn jittered(d: Duration, rng: &mut Rng) -> Duration {
    let unit = (rng.next_u32() >> 8) as f32 / (1 << 24) as f32;
    d.mul_f32(0.8 + 0.4 * unit)
}

fn silence(latency: &Latency, patience: Duration) -> Duration {
    match latency.p99() {
        Some(p99) => p99.saturating_mul(SILENCE_FACTOR).max(MIN_SILENCE).min(patience.max(MIN_SILENCE)),
        None => patience.max(MIN_SILENCE),
    }
}

/// Successes and requests of the last [`SUCCESS_WINDOW`], in ten buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct SuccessWindow {
    buckets: [(u32, u32); 10],
    /// Number of the newest bucket since the epoch.
    newest: u64,
}

impl SuccessWindow {
    fn record(&mut self, now: Nanos, ok: bool) {
        self.advance(now);
        let bucket = &mut self.buckets[(self.newest % 10) as usize];
        bucket.0 += u32::from(ok);
        bucket.1 += 1;
    }

    fn withdraw_failure(&mut self, now: Nanos) {
        self.advance(now);
        let bucket = &mut self.buckets[(self.newest % 10) as usize];
        if bucket.1 > bucket.0 {
            bucket.1 -= 1;
        }
    }

    fn totals(&mut self, now: Nanos) -> (u32, u32) {
        self.advance(now);
        self.buckets.iter().fold((0, 0), |sum, b| (sum.0 + b.0, sum.1 + b.1))
    }

    fn advance(&mut self, now: Nanos) {
        let number = now.0 / (SUCCESS_WINDOW.as_nanos() as u64 / 10);
        let passed = number.saturating_sub(self.newest).min(10);
        for i in 0..passed {
            self.buckets[((self.newest + 1 + i) % 10) as usize] = (0, 0);
        }
        if passed == 10 {
            self.buckets = Default::default();
        }
        self.newest = self.newest.max(number);
    }
}
