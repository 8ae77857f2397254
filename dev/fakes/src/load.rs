//! An open-loop load generator that checks every answer, token by token.
//!
//! Open loop: requests start when the clock says so, whether or not earlier ones have been answered, and their times
//! are taken from the moment they were due. A closed loop would send less exactly while the system under test is slow,
//! and its percentiles would hide the outage that one wants to see. The only brake is `max_concurrent`, and what it
//! holds back is counted as `skipped`, not forgotten.
//!
//! An answer is `ok` only if its tokens are t0…t(n−1) in order with one finish reason (and, for a stream, `[DONE]`);
//! `cut` if a stream broke after content and said so with an error event; everything else is `failed`.

mod book;
mod client;
mod verify;

use std::{io, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Uri};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

pub use self::book::{Failure, LoadStats, Percentiles, Snapshot};
use self::client::Client;
use crate::rng::Dice;

/// tokio's timer counts milliseconds, and rounds up.
const TIMER: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    Poisson,
    Uniform,
}

/// What an answer has to keep to, so that it was of use to somebody.
#[derive(Clone, Copy, Debug)]
pub struct Objective {
    pub ttft: Duration,
    /// On average, after the first.
    pub per_token: Duration,
}

#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// `http://HOST:PORT`, without a path.
    pub url: String,
    pub model: String,
    pub requests_per_second: f64,
    pub arrivals: Arrivals,
    pub seed: u64,
    /// How long new requests are started; None: until `stop`.
    pub duration: Option<Duration>,
    /// How much of the traffic is streams, 0..=1.
    pub stream_share: f64,
    pub max_tokens: Option<u32>,
    pub prompt_bytes: usize,
    /// Ask streams for their usage, which is then checked too.
    pub include_usage: bool,
    pub api_key: Option<String>,
    /// Sent with every request.
    pub headers: Vec<(String, String)>,
    pub max_concurrent: usize,
    /// Of a whole request; what takes longer is `failed`.
    pub timeout: Duration,
    /// What an answer has to keep to for `good`; without one every `ok` is good.
    pub objective: Option<Objective>,
}

impl LoadOptions {
    /// 20 requests a second, half of them streams of 32 tokens.
    pub fn new(url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            model: model.into(),
            requests_per_second: 20.0,
            arrivals: Arrivals::Poisson,
            seed: 0,
            duration: None,
            stream_share: 0.5,
            max_tokens: Some(32),
            prompt_bytes: 256,
            include_usage: false,
            api_key: None,
            headers: Vec::new(),
            max_concurrent: 4096,
            timeout: Duration::from_mins(2),
            objective: None,
        }
    }
}

impl Objective {
    /// Whether an answer of so many tokens kept to it. One that does not stream has its first token at its end.
    fn is_met(&self, ttft: Option<Duration>, whole: Duration, tokens: u64) -> bool {
        let rest = self.per_token * u32::try_from(tokens.saturating_sub(1)).unwrap_or(u32::MAX);
        match ttft {
            Some(ttft) => ttft <= self.ttft && whole.saturating_sub(ttft) <= rest,
            None => whole <= self.ttft + rest,
        }
    }
}

/// A running load. Dropping it starts no more requests and abandons those in flight.
#[derive(Debug)]
pub struct Load {
    stats: Arc<LoadStats>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Load {
    /// Must be called inside a tokio runtime. An error means that the options make no sense.
    pub fn start(options: LoadOptions) -> io::Result<Self> {
        let client = Arc::new(Client::new(&options)?);
        if !(options.requests_per_second > 0.0 && options.requests_per_second.is_finite()) {
            return Err(invalid("requests_per_second must be above 0"));
        }
        let stats = Arc::new(LoadStats::default());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(run(options, client, stats.clone(), stopped));
        Ok(Self { stats, stop, task })
    }

    /// Shared with a live display.
    pub fn stats(&self) -> Arc<LoadStats> {
        self.stats.clone()
    }

    /// Starts no more requests; those in flight go on.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until the duration is over (or `stop`) and every request has ended.
    pub async fn finish(mut self) -> Snapshot {
        // The only error would be a panic in the task, and then what was counted until there is the answer.
        let _ = (&mut self.task).await;
        self.stats.snapshot()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(options: LoadOptions, client: Arc<Client>, stats: Arc<LoadStats>, mut stopped: watch::Receiver<bool>) {
    let mut dice = Dice::new(options.seed, 3);
    let slots = Arc::new(Semaphore::new(options.max_concurrent.min(Semaphore::MAX_PERMITS)));
    let mut requests = tokio::task::JoinSet::new();
    let end = options.duration.and_then(|d| Instant::now().checked_add(d));
    let mut due = Instant::now();
    for number in 0_u64.. {
        due += gap(&options, &mut dice);
        if end.is_some_and(|end| due >= end) {
            break;
        }
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => break,
            () = sleep_until(due) => {}
        }
        let start = counts_from(due);
        while requests.try_join_next().is_some() {}
        let stream = dice.hit(options.stream_share);
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            stats.skipped();
            continue;
        };
        let (client, stats) = (client.clone(), stats.clone());
        requests.spawn(async move {
            client.request(number, stream, start, &stats).await;
            drop(slot);
        });
    }
    while requests.join_next().await.is_some() {}
}

/// The moment a request was due, or now if only the timer's resolution lies between: that delay is not the server's.
fn counts_from(due: Instant) -> Instant {
    let now = Instant::now();
    if now.saturating_duration_since(due) < TIMER { now } else { due }
}

fn gap(options: &LoadOptions, dice: &mut Dice) -> Duration {
    let mean = Duration::from_secs_f64(1.0 / options.requests_per_second);
    match options.arrivals {
        Arrivals::Poisson => dice.exponential(mean),
        Arrivals::Uniform => mean,
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// `http://HOST:PORT` as an address to connect to.
fn authority(url: &str) -> io::Result<String> {
    let uri: Uri = url.parse().map_err(|_| invalid("not a URL"))?;
    let host = uri.host().ok_or_else(|| invalid("a URL without a host"))?;
    match uri.scheme_str() {
        Some("http") => Ok(format!("{host}:{}", uri.port_u16().unwrap_or(80))),
        _ => Err(invalid("only http:// is spoken here")),
    }
}

fn header(name: &str, value: &str) -> io::Result<(HeaderName, HeaderValue)> {
    let name = name.parse().map_err(|_| invalid("not a header name"))?;
    let value = value.parse().map_err(|_| invalid("not a header value"))?;
    Ok((name, value))
}
