//! Continuous batching, token by token, on tokio's clock (so that it runs in no time under a paused one).
//!
//! One task steps all sequences: a timer per sequence would be simpler, but then one request could not slow another,
//! and a router that ignores load would look as good as one that does not. The state is behind a short mutex rather
//! than inside the task, so that a hang-up frees its slot and its KV at once, not at the next step, and the next in
//! the queue takes it.
//!
//! Edges: a sequence joins at the next step boundary; tokens go to an unbounded channel because an engine does not
//! wait for a slow reader, and the channel is bounded all the same by the number of tokens asked for. An engine that is
//! late (a loaded machine) catches up without drift, but never by more than 100 ms. With a step of zero the whole
//! answer comes in one step.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use crate::{
    profile::{Fixed, Profile},
    rng::Dice,
};

/// Upper bounds of vLLM's `time_to_first_token_seconds` buckets.
pub(crate) const TTFT_BUCKETS: [f64; 22] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
];

/// The step that a `slow` fault multiplies when the profile takes no time at all: ten times nothing is not slow.
const SLOWED_FLOOR: Duration = Duration::from_millis(10);
const MAX_CATCH_UP: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Output token number `n` of this request, from 0.
    Token(u32),
    /// The last event. `true`: the output ended because `max_tokens` was reached.
    Finished { by_length: bool },
}

#[derive(Clone, Copy, Debug)]
pub struct Job {
    pub prompt_tokens: u64,
    /// What the client allows; the profile's own length otherwise. 0 = prefill only (embeddings).
    pub max_tokens: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the queue is full")]
    QueueFull,
    #[error("the request needs more tokens than the KV cache holds")]
    TooLong,
}

/// What the engine holds now, and what it has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub running: usize,
    pub waiting: usize,
    pub kv_tokens: u64,
    pub generated: u64,
    pub prompt: u64,
    pub aborted: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct TtftHistogram {
    pub(crate) buckets: [u64; TTFT_BUCKETS.len()],
    pub(crate) count: u64,
    pub(crate) sum_s: f64,
}

#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
    _task: Arc<StopOnDrop>,
}

/// One request in the engine. Dropping it aborts the sequence.
#[derive(Debug)]
pub struct Ticket {
    events: mpsc::UnboundedReceiver<Event>,
    id: u64,
    inner: Arc<Inner>,
}

impl Engine {
    /// Must be called inside a tokio runtime: the stepping task lives there until the last handle is dropped.
    pub fn start(profile: Profile, seed: u64) -> Self {
        let inner = Arc::new(Inner { state: Mutex::new(State::new(&profile, seed)), work: Notify::new(), profile });
        let task = tokio::spawn(run(inner.clone()));
        Self { inner, _task: Arc::new(StopOnDrop(task.abort_handle())) }
    }

    pub fn submit(&self, job: Job) -> Result<Ticket, Refused> {
        let (tx, events) = mpsc::unbounded_channel();
        let id = self.inner.lock().submit(&self.inner.profile, job, tx)?;
        self.inner.work.notify_one();
        Ok(Ticket { events, id, inner: self.inner.clone() })
    }

    pub fn load(&self) -> Load {
        self.inner.lock().load()
    }

    /// From now on each step takes `factor` times as long, with this probability. `None` heals.
    pub fn set_slow(&self, slow: Option<(f64, f64)>) {
        self.inner.lock().slow = slow;
    }

    pub(crate) fn ttft(&self) -> TtftHistogram {
        self.inner.lock().ttft.clone()
    }

    pub(crate) fn profile(&self) -> &Profile {
        &self.inner.profile
    }
}

impl Ticket {
    /// `None` only after `Finished`, or when the engine has stopped.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.inner.lock().abort(&self.inner.profile, self.id) {
            self.inner.work.notify_one();
        }
    }
}

#[derive(Debug)]
struct StopOnDrop(AbortHandle);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    work: Notify,
    profile: Profile,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run(inner: Arc<Inner>) {
    match inner.profile.fixed {
        Some(fixed) => run_fixed(&inner, fixed).await,
        None => run_stepped(&inner).await,
    }
}

async fn run_stepped(inner: &Inner) {
    let mut deadline = Instant::now();
    loop {
        let step = inner.lock().begin_step(&inner.profile);
        let Some(step) = step else {
            inner.work.notified().await;
            deadline = Instant::now();
            continue;
        };
        deadline = (deadline + step.lasts).max(Instant::now().checked_sub(MAX_CATCH_UP).unwrap_or(deadline));
        if deadline > Instant::now() {
            sleep_until(deadline).await;
        } else {
            // The timer would round a wait of nothing up to a millisecond.
            tokio::task::yield_now().await;
        }
        inner.lock().end_step(&inner.profile, step);
    }
}

async fn run_fixed(inner: &Inner, fixed: Fixed) {
    loop {
        let due = inner.lock().next_due();
        match due {
            None => inner.work.notified().await,
            Some(due) => tokio::select! {
                () = sleep_until(due) => inner.lock().emit_due(&inner.profile, fixed, Instant::now()),
                () = inner.work.notified() => {}
            },
        }
    }
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Sequence>,
    running: Vec<Sequence>,
    next_id: u64,
    max_running: usize,
    kv_capacity: u64,
    kv_used: u64,
    generated: u64,
    prompt: u64,
    aborted: u64,
    ttft: TtftHistogram,
    slow: Option<(f64, f64)>,
    dice: Dice,
}

/// One turn of the whole batch.
#[derive(Clone, Copy, Debug)]
struct Step {
    lasts: Duration,
    /// What a fault adds to `lasts` buys no work.
    work: Duration,
}

#[derive(Debug)]
struct Sequence {
    id: u64,
    events: mpsc::UnboundedSender<Event>,
    submitted: Instant,
    prompt: u64,
    output: u32,
    by_length: bool,
    sent: u32,
    prefill_left: f64,
    /// How much of it the step in progress may read.
    chunk: f64,
    /// Prefill does not begin before this.
    ready: Instant,
    /// It has a part in the step in progress.
    in_step: bool,
    /// Fixed service only: when the next event is due.
    due: Instant,
}

impl Sequence {
    fn kv(&self) -> u64 {
        self.prompt + u64::from(self.output)
    }
}

impl State {
    fn new(profile: &Profile, seed: u64) -> Self {
        Self {
            queue: VecDeque::new(),
            running: Vec::new(),
            next_id: 0,
            max_running: profile.max_running,
            kv_capacity: profile.kv_tokens,
            kv_used: 0,
            generated: 0,
            prompt: 0,
            aborted: 0,
            ttft: TtftHistogram::default(),
            slow: None,
            dice: Dice::new(seed, 1),
        }
    }

    fn load(&self) -> Load {
        Load {
            running: self.running.len(),
            waiting: self.queue.len(),
            kv_tokens: self.kv_used,
            generated: self.generated,
            prompt: self.prompt,
            aborted: self.aborted,
        }
    }

    fn submit(&mut self, profile: &Profile, job: Job, events: mpsc::UnboundedSender<Event>) -> Result<u64, Refused> {
        let natural = profile.fixed.map_or(profile.default_output_tokens, |f| f.tokens);
        let output = output_tokens(profile, natural, job.max_tokens);
        let now = Instant::now();
        let sequence = Sequence {
            id: self.next_id,
            events,
            submitted: now,
            prompt: job.prompt_tokens,
            output,
            by_length: job.max_tokens == Some(output),
            sent: 0,
            prefill_left: job.prompt_tokens as f64,
            chunk: 0.0,
            ready: now + Duration::from_secs_f64(profile.overhead_ms / 1e3),
            in_step: false,
            due: now,
        };
        if sequence.kv() > self.kv_capacity {
            return Err(Refused::TooLong);
        }
        let must_wait = !self.queue.is_empty() || !self.fits(&sequence);
        if must_wait && profile.max_queue.is_some_and(|max| self.queue.len() >= max) {
            return Err(Refused::QueueFull);
        }
        self.next_id += 1;
        let id = sequence.id;
        self.queue.push_back(sequence);
        self.admit(profile);
        Ok(id)
    }

    fn fits(&self, sequence: &Sequence) -> bool {
        self.running.len() < self.max_running && sequence.kv() <= self.kv_capacity - self.kv_used
    }

    /// First in, first out: a small request never overtakes a large one that waits for KV.
    fn admit(&mut self, profile: &Profile) {
        while self.queue.front().is_some_and(|first| self.fits(first)) {
            let Some(mut sequence) = self.queue.pop_front() else { return };
            self.kv_used += sequence.kv();
            self.prompt += sequence.prompt;
            if let Some(fixed) = profile.fixed {
                sequence.due = Instant::now() + self.slowed(Duration::from_secs_f64(fixed.ttft_ms / 1e3));
            }
            self.running.push(sequence);
        }
    }

    /// True if the sequence was still there; the next in the queue then has its place already.
    fn abort(&mut self, profile: &Profile, id: u64) -> bool {
        if let Some(at) = self.queue.iter().position(|s| s.id == id) {
            self.queue.remove(at);
        } else if let Some(at) = self.running.iter().position(|s| s.id == id) {
            let sequence = self.running.remove(at);
            self.kv_used -= sequence.kv();
        } else {
            return false;
        }
        self.aborted += 1;
        self.admit(profile);
        true
    }

    /// The step that now begins; none when there is nothing to do.
    fn begin_step(&mut self, profile: &Profile) -> Option<Step> {
        self.admit(profile);
        let ready = self.running.iter().map(|s| s.ready).min()?;
        let now = Instant::now();
        self.share_out(profile, now);
        let idle = ready.saturating_duration_since(now);
        if !idle.is_zero() {
            return Some(Step { lasts: idle, work: Duration::ZERO });
        }
        let jitter = 1.0 + profile.jitter * (2.0 * self.dice.unit() - 1.0);
        let work = self.step_time(profile).mul_f64(jitter);
        Some(Step { lasts: self.slowed(work), work })
    }

    /// Who takes part in the step that begins now, and how much of its prompt each may read.
    fn share_out(&mut self, profile: &Profile, now: Instant) {
        let Some(tokens) = profile.chunk_tokens else {
            for sequence in &mut self.running {
                (sequence.in_step, sequence.chunk) = (true, f64::INFINITY);
            }
            return;
        };
        let mut left = tokens as f64;
        for sequence in &mut self.running {
            let ready = sequence.ready <= now;
            sequence.chunk = if ready { sequence.prefill_left.min(left) } else { 0.0 };
            sequence.in_step = ready && (sequence.prefill_left == 0.0 || sequence.chunk > 0.0);
            left -= sequence.chunk;
        }
    }

    /// Where prompts are read beside decoding and that takes no time, a step lasts as long as the first prompt needs.
    fn step_time(&self, profile: &Profile) -> Duration {
        let decoding = self.running.iter().filter(|s| s.prefill_left == 0.0);
        let kv = decoding.clone().map(|s| s.prompt + u64::from(s.sent)).sum();
        if profile.chunk_tokens.is_some() {
            let prompt_tokens = self.running.iter().map(|s| s.chunk).sum();
            return profile.step(decoding.filter(|s| s.in_step).count(), kv, prompt_tokens);
        }
        let decode = profile.step(self.running.len(), kv, 0.0);
        let rate = profile.prefill_tokens_per_second;
        match self.running.iter().find(|s| s.prefill_left > 0.0) {
            Some(first) if decode.is_zero() && rate > 0.0 => Duration::from_secs_f64(first.prefill_left / rate),
            _ => decode,
        }
    }

    fn slowed(&mut self, time: Duration) -> Duration {
        match self.slow {
            Some((factor, probability)) if self.dice.hit(probability) => time.max(SLOWED_FLOOR).mul_f64(factor),
            _ => time,
        }
    }

    fn end_step(&mut self, profile: &Profile, step: Step) {
        let now = Instant::now();
        let mut budget = match profile.prefill_tokens_per_second {
            // The chunks were dealt out when the step began, and it lasts as long as they take.
            _ if profile.chunk_tokens.is_some() => f64::INFINITY,
            // Rounded up to the nanosecond's worth, so that a step made to fit a prompt does.
            rate if rate > 0.0 => rate * (step.work.as_secs_f64() + 1e-9),
            _ => f64::INFINITY,
        };
        let burst = if step.lasts.is_zero() { u32::MAX } else { 1 };
        let mut running = std::mem::take(&mut self.running);
        running.retain_mut(|sequence| {
            if !sequence.in_step || now < sequence.ready {
                return true;
            }
            let read = sequence.prefill_left.min(sequence.chunk).min(budget);
            sequence.prefill_left -= read;
            budget -= read;
            sequence.prefill_left > 0.0 || self.emit(sequence, burst, now)
        });
        self.running = running;
        self.admit(profile);
    }

    /// Sends up to `burst` tokens; false when the sequence has ended (its KV is then free again).
    fn emit(&mut self, sequence: &mut Sequence, burst: u32, now: Instant) -> bool {
        for _ in 0..burst.min(sequence.output - sequence.sent) {
            self.emit_token(sequence, now);
        }
        if sequence.sent < sequence.output {
            return true;
        }
        self.finish(sequence);
        false
    }

    fn emit_token(&mut self, sequence: &mut Sequence, now: Instant) {
        if sequence.sent == 0 {
            self.ttft.record(now - sequence.submitted);
        }
        // The receiver may be gone for the instant between its drop and its abort: the token is then lost on purpose.
        let _ = sequence.events.send(Event::Token(sequence.sent));
        sequence.sent += 1;
        self.generated += 1;
    }

    fn finish(&mut self, sequence: &Sequence) {
        self.kv_used -= sequence.kv();
        let _ = sequence.events.send(Event::Finished { by_length: sequence.by_length });
    }

    fn next_due(&self) -> Option<Instant> {
        self.running.iter().map(|s| s.due).min()
    }

    fn emit_due(&mut self, profile: &Profile, fixed: Fixed, now: Instant) {
        let gap = Duration::from_secs_f64((fixed.total_ms - fixed.ttft_ms) / 1e3 / f64::from(fixed.tokens));
        let mut running = std::mem::take(&mut self.running);
        running.retain_mut(|sequence| {
            while sequence.due <= now {
                if sequence.sent == sequence.output {
                    self.finish(sequence);
                    return false;
                }
                self.emit_token(sequence, now);
                sequence.due += self.slowed(gap);
            }
            true
        });
        self.running = running;
        self.admit(profile);
    }
}

fn output_tokens(profile: &Profile, natural: u32, max_tokens: Option<u32>) -> u32 {
    match (profile.fixed, max_tokens) {
        (Some(fixed), Some(max)) => max.min(fixed.tokens),
        (None, Some(max)) => max,
        (_, None) => natural,
    }
}

impl TtftHistogram {
    fn record(&mut self, ttft: Duration) {
        let seconds = ttft.as_secs_f64();
        self.count += 1;
        self.sum_s += seconds;
        if let Some(bucket) = TTFT_BUCKETS.iter().position(|upper| seconds <= *upper) {
            self.buckets[bucket] += 1;
        }
    }
}
