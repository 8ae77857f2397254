//! A simulated engine: continuous batching with a queue before it, without stepping token by token.
//!
//! All running requests advance at one speed, that of the curve at their number. So one virtual clock of tokens for the
//! whole engine is enough: a request that begins to decode at `v` ends at `v` plus its tokens, whatever joins or leaves
//! meanwhile, and only the next end has to be known. This costs about two events a request.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use outrigger_core::units::Nanos;

/// How fast an engine is.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Seconds per output token with `n + 1` requests running. Its length is how many run at once.
    seconds_per_token: Vec<f64>,
    /// Seconds to the first token, besides what each token of the prompt adds, with `n + 1` running.
    first_token: Vec<f64>,
    /// What each token of the prompt adds to that.
    per_prompt_token: Vec<f64>,
    is_constant: bool,
}

impl Curve {
    /// `slots` servers that generate `tokens_per_second` each, without a prefill.
    pub fn constant(slots: u32, tokens_per_second: f64) -> Self {
        let slots = slots.max(1) as usize;
        Self {
            seconds_per_token: vec![1.0 / tokens_per_second; slots],
            first_token: vec![0.0; slots],
            per_prompt_token: vec![0.0; slots],
            is_constant: true,
        }
    }

    /// From tables by the number of running requests. All have the same length, at least 1.
    pub fn from_tables(seconds_per_token: Vec<f64>, first_token: Vec<f64>, per_prompt_token: Vec<f64>) -> Self {
        debug_assert_eq!(seconds_per_token.len(), first_token.len());
        Self { seconds_per_token, first_token, per_prompt_token, is_constant: false }
    }

    pub fn slots(&self) -> usize {
        self.seconds_per_token.len()
    }

    /// From measured times to the first token and for each one after it.
    pub fn measured(curve: &crate::perf::Curve) -> Self {
        // The time grows with the prompt nearly as a line; these two are where most prompts are.
        const SHORT: u64 = 512;
        const LONG: u64 = 4_096;
        let running = || 1..=curve.slots().max(1);
        let slope = |n: u32| {
            let (short, long) = (curve.first_token_seconds(n, SHORT), curve.first_token_seconds(n, LONG));
            ((long - short) / (LONG - SHORT) as f64).max(0.0)
        };
        let base = |n: u32| (curve.first_token_seconds(n, SHORT) - slope(n) * SHORT as f64).max(0.0);
        Self::from_tables(
            running().map(|n| curve.seconds_per_token(n)).collect(),
            running().map(base).collect(),
            running().map(slope).collect(),
        )
    }

    /// Seconds to the first token of a prompt, and to each one after it, with so many running.
    pub fn speeds(&self, running: usize, prompt: u64) -> (f64, f64) {
        (self.first_token(running, prompt), self.pace(running))
    }

    fn pace(&self, running: usize) -> f64 {
        self.seconds_per_token[running.clamp(1, self.slots()) - 1]
    }

    fn first_token(&self, running: usize, prompt: u64) -> f64 {
        let i = running.clamp(1, self.slots()) - 1;
        self.first_token[i] + self.per_prompt_token[i] * prompt as f64
    }
}

/// What the engine is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    pub id: u32,
    pub prompt: u64,
    pub output: u64,
}

/// What an engine has to tell: the caller schedules these.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Told {
    /// The job has a slot; its first token comes then.
    Admitted { id: u32, first_token: Nanos },
    /// Look again at that time.
    Wake { at: Nanos },
}

/// One engine of a backend.
#[derive(Clone, Debug)]
pub struct Server {
    curve: std::sync::Arc<Curve>,
    /// What its speed is divided by: more than 1 in a brown-out.
    slowness: f64,
    running: usize,
    queue: VecDeque<Job>,
    decoding: BinaryHeap<Ending>,
    /// Tokens that a request which has decoded from the beginning would have.
    progress: f64,
    progressed_at: Nanos,
    /// The earliest wake that was asked for and has not come. It may come too early, and then asks for the next: what
    /// joins mostly ends later than what is there, so that this costs less than a new wake for each.
    wake_at: Option<Nanos>,
}

/// Ends when the engine's progress is this.
#[derive(Clone, Copy, Debug)]
struct Ending {
    at: f64,
    id: u32,
}

impl PartialEq for Ending {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ending {}

impl PartialOrd for Ending {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The earliest is the greatest, and of equals the one that came first.
impl Ord for Ending {
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.total_cmp(&self.at).then(other.id.cmp(&self.id))
    }
}

impl Server {
    pub fn new(curve: std::sync::Arc<Curve>) -> Self {
        Self {
            curve,
            slowness: 1.0,
            running: 0,
            queue: VecDeque::new(),
            decoding: BinaryHeap::new(),
            progress: 0.0,
            progressed_at: Nanos::ZERO,
            wake_at: None,
        }
    }

    pub fn running(&self) -> usize {
        self.running
    }

    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    pub fn load(&self) -> usize {
        self.running + self.queue.len()
    }

    /// Gives the engine a job. `tell` gets what is to be scheduled.
    pub fn submit(&mut self, job: Job, now: Nanos, tell: &mut impl FnMut(Told)) {
        self.queue.push_back(job);
        self.admit(now, tell);
    }

    /// The first token of an admitted job has come: the rest is decoded.
    pub fn first_token(&mut self, job: Job, now: Nanos, tell: &mut impl FnMut(Told)) {
        self.advance(now);
        let rest = if self.curve.is_constant { job.output } else { job.output.saturating_sub(1) };
        self.decoding.push(Ending { at: self.progress + rest as f64, id: job.id });
        self.schedule(now, tell);
    }

    /// The jobs that have ended by now, where the wake is the one that is waited for.
    pub fn wake(&mut self, now: Nanos, ended: &mut Vec<u32>, tell: &mut impl FnMut(Told)) {
        if self.wake_at != Some(now) {
            return;
        }
        self.wake_at = None;
        self.advance(now);
        // Rounding to nanoseconds must not leave one behind that would wake the engine without end.
        let until = self.progress + 1e-6;
        while self.decoding.peek().is_some_and(|next| next.at <= until) {
            if let Some(next) = self.decoding.pop() {
                self.running -= 1;
                ended.push(next.id);
            }
        }
        self.admit(now, tell);
        self.schedule(now, tell);
    }

    /// Takes a job back: the client has gone, or the gateway has given up. `true` when it was here.
    pub fn cancel(&mut self, id: u32, is_admitted: bool, now: Nanos, tell: &mut impl FnMut(Told)) -> bool {
        self.advance(now);
        if !is_admitted {
            let before = self.queue.len();
            self.queue.retain(|job| job.id != id);
            return self.queue.len() < before;
        }
        self.running -= 1;
        self.decoding.retain(|ending| ending.id != id);
        self.admit(now, tell);
        self.schedule(now, tell);
        true
    }

    /// Everything it held is gone.
    pub fn clear(&mut self, now: Nanos) {
        self.advance(now);
        self.running = 0;
        self.queue.clear();
        self.decoding.clear();
    }

    pub fn set_slowness(&mut self, slowness: f64, now: Nanos, tell: &mut impl FnMut(Told)) {
        self.advance(now);
        self.slowness = slowness;
        self.schedule(now, tell);
    }

    fn admit(&mut self, now: Nanos, tell: &mut impl FnMut(Told)) {
        let mut any = false;
        while self.running < self.curve.slots()
            && let Some(job) = self.queue.pop_front()
        {
            if !any {
                self.advance(now);
                any = true;
            }
            self.running += 1;
            let wait = self.curve.first_token(self.running, job.prompt) * self.slowness;
            tell(Told::Admitted { id: job.id, first_token: now + Duration::from_secs_f64(wait) });
        }
        if any && !self.curve.is_constant {
            self.schedule(now, tell);
        }
    }

    fn advance(&mut self, now: Nanos) {
        let seconds = now.since(self.progressed_at).as_secs_f64();
        if self.running > 0 {
            self.progress += seconds / (self.curve.pace(self.running) * self.slowness);
        }
        self.progressed_at = now;
    }

    fn schedule(&mut self, now: Nanos, tell: &mut impl FnMut(Told)) {
        let Some(next) = self.decoding.peek() else { return };
        let tokens = (next.at - self.progress).max(0.0);
        let nanos = tokens * self.curve.pace(self.running) * self.slowness * 1e9;
        // Up, so that it has ended by then.
        let at = Nanos(now.0 + nanos as u64 + 1);
        if self.wake_at.is_none_or(|wake| at < wake) {
            self.wake_at = Some(at);
            tell(Told::Wake { at });
        }
    }
}
