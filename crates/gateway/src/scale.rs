//! Tells whoever rents GPUs how many each pool should have: by a command or a webhook of the fleet file.
//!
//! The core says how many are desired; here it is only passed on, at most one call a pool at a time. Every call carries
//! the whole number and never a difference, so that one which is made twice, or by two replicas, changes nothing. After
//! a call that failed nobody knows what came of it, so it is made again even if the number is the old one by then.
//!
//! Edges: at the start nobody is told anything until a number changes, since the least of a pool is not news, and a
//! gateway that restarts must not end what is running and paid for. What a dry run said counts as said to nobody.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use outrigger_core::{
    Rng,
    fleet::{Fleet, Scale, ScaleCall},
    state::scaling::{Desired, PoolScale, ScaleReason, replicas_on},
};
use rand_core::{Rng as _, SeedableRng as _};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    body::Upload,
    live::Live,
    net::Connect,
    overlays::write_whole,
    pool::{Pool as Connections, Target},
    raised,
};

/// Between two looks at what is desired.
const EVERY: Duration = Duration::from_secs(5);
/// After the first failure, doubled with each further one up to the longest, give or take a fifth.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_mins(10);
/// Of what a command wrote to standard error, this much of its end is kept.
const LAST_WORDS: usize = 1_024;
const FILE: &str = "scaling.json";

/// What pools were asked to have, over a restart.
#[derive(Clone, Debug)]
pub struct Memory {
    file: PathBuf,
}

impl Memory {
    pub fn in_folder(state_dir: Option<&Path>) -> Option<Self> {
        state_dir.map(|dir| Self { file: dir.join(FILE) })
    }

    pub fn read(&self) -> io::Result<Vec<PoolScale>> {
        match fs::read(&self.file) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {e}", self.file.display()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }
}

/// One thing to say: so many GPUs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Order {
    pub pool: String,
    pub gpus: u32,
    pub replicas: u32,
    pub reason: ScaleReason,
    /// The digest of the fleet in force.
    pub fleet: String,
    #[serde(skip)]
    scale: Scale,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    Ok,
    /// Nobody was told.
    DryRun,
    Failed(String),
    Timeout,
}

impl CallOutcome {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::DryRun => "dry_run",
            Self::Failed(_) => "failed",
            Self::Timeout => "timeout",
        }
    }
}

pub async fn run(live: Arc<Live>, mut stop: watch::Receiver<bool>, memory: Option<Memory>, seed: u64) {
    let mut rng = Rng::seed_from_u64(seed);
    let mut tellers: BTreeMap<String, Teller> = BTreeMap::new();
    let mut calls: JoinSet<(Order, CallOutcome)> = JoinSet::new();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut written = Vec::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let (fleet, desired) = live.desired();
                if let Some(memory) = memory.as_ref().filter(|_| written != desired) {
                    remember(&live, memory);
                }
                for order in orders(&live, &fleet, &desired, &mut tellers, Instant::now()) {
                    let (connector, stop) = (live.connector(), stop.clone());
                    calls.spawn(async move {
                        let outcome = carry_out(&order, connector, stop).await;
                        (order, outcome)
                    });
                }
                written = desired;
            }
            Some(Ok((order, outcome))) = calls.join_next() => {
                let pause = tellers.get_mut(&order.pool).and_then(|t| t.ended(&order, &outcome, Instant::now(), &mut rng));
                live.events.scaled(&order, &outcome, pause);
            }
            () = raised(&mut stop) => break,
        }
    }
    // They see the same flag, and end what they run.
    while calls.join_next().await.is_some() {}
}

/// A disk that cannot take it costs the memory and not the scaling.
fn remember(live: &Live, memory: &Memory) {
    let pools = live.with_state(|state| state.observed().scaling.pools().to_vec());
    if let Err(e) = write_whole(&memory.file, &pools) {
        eprintln!(
            "cannot write {}: {e}; a restart would not know what pools were asked to have",
            memory.file.display()
        );
    }
}

/// Whom to tell something now. Pools that are gone, or are not scaled any more, are forgotten.
fn orders(
    live: &Live,
    fleet: &Fleet,
    desired: &[Desired],
    tellers: &mut BTreeMap<String, Teller>,
    now: Instant,
) -> Vec<Order> {
    let is_there = |name: &str| desired.iter().any(|d| fleet.pools[d.pool.index()].name == name);
    tellers.retain(|name, _| is_there(name));
    let mut orders = Vec::new();
    for wanted in desired {
        let name = &fleet.pools[wanted.pool.index()].name;
        let teller = tellers.entry(name.clone()).or_insert_with(|| Teller::new(wanted));
        if let Some(most) = teller.newly_held(fleet, wanted) {
            live.events.scale_held(name, wanted, most);
        }
        orders.extend(teller.order(fleet, wanted, now));
    }
    orders
}

/// What was last said about one pool, and when something may be said again.
#[derive(Debug)]
struct Teller {
    /// `None` while nobody knows what the pool was told last.
    told: Option<u32>,
    /// What a dry run would have said.
    would_have: Option<u32>,
    failures: u32,
    not_before: Option<Instant>,
    is_calling: bool,
    /// More GPUs than may be paid for, already said so.
    held: Option<u32>,
}

impl Teller {
    fn new(desired: &Desired) -> Self {
        // What has never changed is what the pool always has; what was restored may not have been said to the end.
        let told = desired.since.is_none().then_some(desired.gpus);
        Self { told, would_have: None, failures: 0, not_before: None, is_calling: false, held: None }
    }

    /// The most that the pool may have, when that is less than is desired and has not been said yet.
    fn newly_held(&mut self, fleet: &Fleet, desired: &Desired) -> Option<u32> {
        let pool = &fleet.pools[desired.pool.index()];
        let most = pool.scale.as_ref().map_or(u32::MAX, |scale| scale.most_gpus(pool));
        let held = (desired.gpus > most).then_some(desired.gpus);
        let is_new = held.is_some() && held != self.held;
        self.held = held;
        is_new.then_some(most)
    }

    fn order(&mut self, fleet: &Fleet, desired: &Desired, now: Instant) -> Option<Order> {
        let pool = &fleet.pools[desired.pool.index()];
        let scale = pool.scale.as_ref()?;
        let gpus = desired.gpus.min(scale.most_gpus(pool));
        let said = if scale.dry_run { self.would_have.or(self.told) } else { self.told };
        if said == Some(gpus) || self.is_calling || self.not_before.is_some_and(|at| at > now) {
            return None;
        }
        self.is_calling = true;
        Some(Order {
            pool: pool.name.clone(),
            gpus,
            replicas: replicas_on(fleet, desired.pool, gpus),
            reason: desired.reason,
            fleet: fleet.digest.clone(),
            scale: scale.clone(),
        })
    }

    /// The pause before the next try, after a failure.
    fn ended(&mut self, order: &Order, outcome: &CallOutcome, now: Instant, rng: &mut Rng) -> Option<Duration> {
        self.is_calling = false;
        match outcome {
            CallOutcome::Ok => (self.told, self.would_have) = (Some(order.gpus), None),
            CallOutcome::DryRun => self.would_have = Some(order.gpus),
            CallOutcome::Failed(_) | CallOutcome::Timeout => {
                self.told = None;
                self.failures += 1;
                let pause = pause(self.failures, rng);
                self.not_before = Some(now + pause);
                return Some(pause);
            }
        }
        (self.failures, self.not_before) = (0, None);
        None
    }
}

fn pause(failures: u32, rng: &mut Rng) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled.min(LONGEST_PAUSE).mul_f64(0.8 + 0.4 * f64::from(rng.next_u32()) / f64::from(u32::MAX))
}

async fn carry_out(order: &Order, connector: Arc<dyn Connect>, mut stop: watch::Receiver<bool>) -> CallOutcome {
    let Scale { call, timeout: patience, dry_run, .. } = &order.scale;
    match call {
        _ if *dry_run => CallOutcome::DryRun,
        ScaleCall::Exec(words) => exec(words, order, *patience, &mut stop).await,
        ScaleCall::Webhook(url) => {
            timeout(*patience, post(url, order, connector)).await.unwrap_or(CallOutcome::Timeout)
        }
    }
}

async fn exec(words: &[String], order: &Order, patience: Duration, stop: &mut watch::Receiver<bool>) -> CallOutcome {
    let Some((program, arguments)) = words.split_first() else {
        return CallOutcome::Failed("there is no command".into());
    };
    let child = Command::new(program)
        .args(arguments)
        .env("OUTRIGGER_POOL", &order.pool)
        .env("OUTRIGGER_GPUS", order.gpus.to_string())
        .env("OUTRIGGER_REPLICAS", order.replicas.to_string())
        .env("OUTRIGGER_REASON", order.reason.as_str())
        .stdin(Stdio::null())
        // The gateway's own standard output is its request log.
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // A group of its own, so that a script's children end with it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) => return CallOutcome::Failed(format!("cannot run {program}: {e}")),
    };
    let said = child.stderr.take().map(|stderr| tokio::spawn(last_words(stderr)));
    let ended = tokio::select! {
        status = child.wait() => Some(status),
        () = sleep(patience) => None,
        () = raised(stop) => None,
    };
    let Some(status) = ended else {
        end(&mut child).await;
        return CallOutcome::Timeout;
    };
    match status {
        Ok(status) if status.success() => CallOutcome::Ok,
        Ok(status) => {
            // A grandchild may hold the pipe open for longer than anyone wants to wait.
            let words = match said {
                Some(said) => timeout(Duration::from_millis(200), said).await.ok().and_then(Result::ok),
                None => None,
            };
            let words = words.filter(|words| !words.is_empty()).map(|words| format!(": {words}"));
            CallOutcome::Failed(format!("{program} ended with {status}{}", words.unwrap_or_default()))
        }
        Err(e) => CallOutcome::Failed(format!("{program}: {e}")),
    }
}

/// Ends a command and all that it started.
async fn end(child: &mut Child) {
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    if let Some(group) = group {
        // Gone already is as well.
        kill_process_group(group, Signal::KILL).ok();
    }
    drop(child.kill().await);
}

/// The last line of what was written; all of it is read, or a talkative command would stand still.
async fn last_words(mut from: impl AsyncRead + Unpin) -> String {
    let (mut tail, mut piece) = (Vec::new(), [0; 1_024]);
    while let Ok(n @ 1..) = from.read(&mut piece).await {
        tail.extend_from_slice(&piece[..n]);
        tail.drain(..tail.len().saturating_sub(LAST_WORDS));
    }
    let text = String::from_utf8_lossy(&tail);
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    last.chars().filter(|c| !c.is_control()).take(200).collect::<String>().trim().to_owned()
}

async fn post(url: &str, order: &Order, connector: Arc<dyn Connect>) -> CallOutcome {
    match try_post(url, order, connector).await {
        Ok(status) if status.is_success() => CallOutcome::Ok,
        Ok(status) => CallOutcome::Failed(format!("the webhook answered {}", status.as_u16())),
        Err(why) => CallOutcome::Failed(format!("the webhook could not be asked: {why}")),
    }
}

async fn try_post(url: &str, order: &Order, connector: Arc<dyn Connect>) -> Result<http::StatusCode, String> {
    let uri: Uri = url.parse().map_err(|_| "its URL cannot be parsed".to_owned())?;
    let target = Target::plain(&uri)?;
    let host = HeaderValue::from_str(target.authority.as_str()).map_err(|_| "its host cannot be sent".to_owned())?;
    let connections = Connections::new(connector, target);
    let body = serde_json::to_vec(order).map_err(|e| e.to_string())?;
    let mut request = Request::new(Upload::from(Bytes::from(body)));
    *request.method_mut() = Method::POST;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|_| "its path cannot be parsed".to_owned())?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, host);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let mut lease = connections.fresh(order.scale.timeout).await.map_err(|fault| fault.as_str().to_owned())?;
    let response = lease.send(request).await.map_err(|lost| lost.fault.as_str().to_owned())?;
    Ok(response.status())
}

#[cfg(test)]
mod tests;
