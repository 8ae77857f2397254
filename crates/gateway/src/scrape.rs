//! Engines' own metrics: requests running and waiting there, from whoever sent them, so that routing sees the load that
//! it did not cause.
//!
//! A page that cannot be read, or that lacks a gauge, reports nothing: "no queue" in place of "not known" would draw all
//! traffic. For the same reason nothing here touches a backend's health: an engine without metrics serves well, and one
//! that hangs may still show a page. Failures are counted and not logged, since a llama.cpp without `--metrics` fails
//! every time and is not at fault.
//!
//! Edges: where each address behind the name is one pod, all of them must answer, since a part of the sum looks like
//! spare room. Of a name with addresses in both families one family is read, or each pod would count twice.

use std::{iter::Sum, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use outrigger_core::{
    Rng,
    fleet::{Backend, BackendId, Engine, MetricsMode},
};
use outrigger_wire::metrics::{self, Dialect};
use rand_core::{Rng as _, SeedableRng as _};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    body::Upload,
    live::{Live, Snapshot},
    raised,
    upstream::Upstream,
};

/// Between two readings of one backend, give or take a fifth, so that replicas of the gateway drift apart.
const PERIOD: Duration = Duration::from_secs(5);
/// How often it is asked whose reading is due.
const TICK: Duration = Duration::from_millis(250);
/// For one reading, all its pods included: a sum of numbers from further apart is no reading.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A page of a busy vLLM is about 200 KiB.
const MAX_PAGE: usize = 4 << 20;
/// Pages of one backend that are held at once.
const PAGES_AT_ONCE: usize = 8;

/// The words in which a backend's engine tells its load; `None` where it is not read.
pub fn dialect(backend: &Backend) -> Option<Dialect> {
    if backend.metrics == MetricsMode::None {
        return None;
    }
    match backend.engine {
        Engine::Vllm => Some(Dialect::Vllm),
        Engine::Sglang => Some(Dialect::Sglang),
        Engine::Tgi => Some(Dialect::Tgi),
        Engine::Trtllm => Some(Dialect::Trtllm),
        Engine::Llamacpp => Some(Dialect::Llamacpp),
        Engine::Dynamo => Some(Dialect::Dynamo),
        Engine::Openai => None,
    }
}

pub async fn run(live: Arc<Live>, mut stop: watch::Receiver<bool>, seed: u64) {
    let mut schedule = Schedule { snapshot: live.snapshot(), next: Vec::new(), rng: Rng::seed_from_u64(seed) };
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = raised(&mut stop) => return,
        }
        for (backend, dialect) in schedule.due(live.snapshot(), Instant::now()) {
            tokio::spawn(reading(live.clone(), schedule.snapshot.clone(), backend, dialect));
        }
    }
}

async fn reading(live: Arc<Live>, snapshot: Arc<Snapshot>, id: BackendId, dialect: Dialect) {
    let (fleet, upstream) = (&snapshot.fleet, &snapshot.upstreams[id.index()]);
    let load = timeout(TIMEOUT, read(fleet.backend(id), upstream, dialect)).await.unwrap_or(Err(Unread::Timeout));
    live.events.metrics().scraped(fleet, id, load.as_ref().map_or_else(|unread| unread.as_str(), |_| "ok"));
    if let Ok(load) = load {
        live.scraped(id, fleet, load.running.round() as u32, load.waiting.round() as u32);
    }
}

/// When each backend is read next.
struct Schedule {
    snapshot: Arc<Snapshot>,
    /// In the order of the snapshot's backends; one that is new is due at once.
    next: Vec<Option<Instant>>,
    rng: Rng,
}

impl Schedule {
    /// Those whose time has come, each with its next time set.
    fn due(&mut self, snapshot: Arc<Snapshot>, now: Instant) -> Vec<(BackendId, Dialect)> {
        self.follow(snapshot);
        let Self { snapshot, next, rng } = self;
        let read = |(i, backend): (usize, &Backend)| Some((i, dialect(backend)?));
        let mut due = Vec::new();
        for (i, dialect) in snapshot.fleet.backends.iter().enumerate().filter_map(read) {
            if next[i].is_none_or(|at| at <= now) {
                next[i] = Some(now + PERIOD.mul_f64(0.8 + 0.4 * f64::from(rng.next_u32()) / f64::from(u32::MAX)));
                due.push((BackendId(i as u16), dialect));
            }
        }
        due
    }

    /// Takes the times over into another fleet, so that reloads do not read anybody more often.
    fn follow(&mut self, snapshot: Arc<Snapshot>) {
        let from = std::mem::replace(&mut self.snapshot, snapshot);
        if Arc::ptr_eq(&from, &self.snapshot) && !self.next.is_empty() {
            return;
        }
        let place = |upstream| from.upstreams.iter().position(|old| Arc::ptr_eq(old, upstream));
        let next = |upstream| place(upstream).and_then(|i| self.next.get(i).copied().flatten());
        self.next = self.snapshot.upstreams.iter().map(next).collect();
    }
}

/// What one page said, or all pages of a backend together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Load {
    running: f64,
    waiting: f64,
}

impl Sum for Load {
    fn sum<I: Iterator<Item = Self>>(loads: I) -> Self {
        loads.fold(Self::default(), |sum, load| Self {
            running: sum.running + load.running,
            waiting: sum.waiting + load.waiting,
        })
    }
}

/// Why a reading came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unread {
    Unreachable,
    Timeout,
    /// The engine has no such page, or it is switched off.
    Absent,
    Status,
    BadBody,
    NoGauges,
    /// Fewer addresses behind the name than the backend has replicas.
    MissingPods,
}

impl Unread {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Absent => "absent",
            Self::Status => "status",
            Self::BadBody => "bad_body",
            Self::NoGauges => "no_gauges",
            Self::MissingPods => "missing_pods",
        }
    }
}

async fn read(backend: &Backend, upstream: &Arc<Upstream>, dialect: Dialect) -> Result<Load, Unread> {
    if backend.metrics == MetricsMode::Pods && backend.replicas > 1 {
        pods(upstream, dialect, backend.replicas).await
    } else {
        page(upstream, dialect, None).await
    }
}

async fn pods(upstream: &Arc<Upstream>, dialect: Dialect, replicas: u32) -> Result<Load, Unread> {
    let addresses = upstream.pool.addresses().await.map_err(|_| Unread::Unreachable)?;
    let addresses = all_pods(addresses, replicas).ok_or(Unread::MissingPods)?;
    let mut loads = Vec::with_capacity(addresses.len());
    let mut pages = JoinSet::new();
    for address in addresses {
        if pages.len() == PAGES_AT_ONCE {
            loads.push(next(&mut pages).await?);
        }
        let upstream = upstream.clone();
        pages.spawn(async move { page(&upstream, dialect, Some(address)).await });
    }
    while !pages.is_empty() {
        loads.push(next(&mut pages).await?);
    }
    Ok(loads.into_iter().sum())
}

async fn next(pages: &mut JoinSet<Result<Load, Unread>>) -> Result<Load, Unread> {
    pages.join_next().await.and_then(Result::ok).unwrap_or(Err(Unread::BadBody))
}

/// The addresses of one family, each once, if they are at least as many as the replicas.
fn all_pods(mut addresses: Vec<IpAddr>, replicas: u32) -> Option<Vec<IpAddr>> {
    addresses.sort_unstable();
    addresses.dedup();
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = addresses.into_iter().partition(IpAddr::is_ipv4);
    [v4, v6].into_iter().find(|family| family.len() >= replicas as usize)
}

/// Reads one page on a connection of its own, so that traffic never waits for it: of the host, or of one address.
async fn page(upstream: &Upstream, dialect: Dialect, address: Option<IpAddr>) -> Result<Load, Unread> {
    let lease = match address {
        Some(address) => upstream.pool.fresh_at(&address.to_string(), TIMEOUT).await,
        None => upstream.pool.fresh(TIMEOUT).await,
    };
    let mut lease = lease.map_err(|_| Unread::Unreachable)?;
    let response = lease.send(request(upstream, dialect)).await.map_err(|_| Unread::BadBody)?;
    match response.status() {
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
            return Err(Unread::Absent);
        }
        status if !status.is_success() => return Err(Unread::Status),
        _ => {}
    }
    let body = Limited::new(response.into_body(), MAX_PAGE).collect().await.map_err(|_| Unread::BadBody)?;
    let signals = metrics::read(dialect, &body.to_bytes());
    let load = signals.running.zip(signals.waiting).map(|(running, waiting)| Load { running, waiting });
    load.ok_or(Unread::NoGauges)
}

fn request(upstream: &Upstream, dialect: Dialect) -> Request<Upload> {
    let mut request = upstream.request(dialect.path(), Bytes::new());
    let headers = request.headers_mut();
    let either = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.9,*/*;q=0.1";
    headers.insert(header::ACCEPT, HeaderValue::from_static(either));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    request
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use outrigger_core::{
        fleet::{ApiSet, CloudId, Reach, TimeoutOverrides},
        record::Fault,
    };
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::{
        net::{BoxStream, Connect},
        upstream::Credentials,
    };

    /// A name with these pods behind it, each with its page; one without refuses.
    #[derive(Debug)]
    struct Pods(Vec<(IpAddr, Option<&'static str>)>);

    impl Connect for Pods {
        fn connect<'a>(
            &'a self,
            host: &'a str,
            _: u16,
        ) -> Pin<Box<dyn Future<Output = Result<BoxStream, Fault>> + Send + 'a>> {
            Box::pin(async move {
                let page = self.0.iter().find(|(ip, _)| ip.to_string() == host).and_then(|(_, page)| *page);
                let page = page.ok_or(Fault::Refused)?;
                let (ours, mut theirs) = tokio::io::duplex(4_096);
                tokio::spawn(async move {
                    let mut head = [0; 4_096];
                    let n = theirs.read(&mut head).await.unwrap();
                    assert!(head[..n].starts_with(b"GET /metrics HTTP/1.1\r\n"));
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{page}", page.len());
                    theirs.write_all(answer.as_bytes()).await.unwrap();
                });
                Ok(Box::new(ours) as BoxStream)
            })
        }

        fn addresses<'a>(
            &'a self,
            _: &'a str,
        ) -> Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, Fault>> + Send + 'a>> {
            Box::pin(async { Ok(self.0.iter().map(|(ip, _)| *ip).collect()) })
        }
    }

    async fn read_pods(pages: &[Option<&'static str>], replicas: u32) -> Result<Load, Unread> {
        let pods = (1..).zip(pages).map(|(n, page)| (IpAddr::from([10, 0, 0, n]), *page)).collect();
        let connector: Arc<dyn Connect> = Arc::new(Pods(pods));
        let backend = backend(replicas);
        let upstream = Arc::new(Upstream::new(&backend, Credentials::default(), &connector).unwrap());
        read(&backend, &upstream, Dialect::Vllm).await
    }

    fn backend(replicas: u32) -> Backend {
        Backend {
            name: "b".to_owned(),
            cloud: CloudId(0),
            pool: None,
            replicas,
            gpus_per_replica: 1,
            engine: Engine::Vllm,
            url: "http://pods.svc:8000/v1".to_owned(),
            api_key: None,
            model: "m".to_owned(),
            max_in_flight: None,
            timeouts: TimeoutOverrides::default(),
            reach: Reach::default(),
            metrics: MetricsMode::Pods,
            token_price: None,
            engine_model: None,
            apis: ApiSet::default(),
        }
    }

    const BUSY: &str = "vllm:num_requests_running 3\nvllm:num_requests_waiting 2\n";

    #[tokio::test]
    async fn the_pods_of_a_backend_are_summed() {
        let sum = |n: f64| Ok(Load { running: 3.0 * n, waiting: 2.0 * n });
        assert_eq!(read_pods(&[Some(BUSY); 2], 2).await, sum(2.0));
        // More than are held at once, and more than there should be, as during a rollout.
        assert_eq!(read_pods(&[Some(BUSY); 20], 19).await, sum(20.0));
        assert_eq!(read_pods(&[Some(BUSY)], 2).await, Err(Unread::MissingPods));
    }

    #[tokio::test]
    async fn one_pod_that_does_not_tell_spoils_the_sum() {
        assert_eq!(read_pods(&[Some(BUSY), None], 2).await, Err(Unread::Unreachable));
        assert_eq!(read_pods(&[Some(BUSY), Some("vllm:num_requests_running 3\n")], 2).await, Err(Unread::NoGauges));
    }

    fn check(addresses: &[&str], replicas: u32, expected: Option<&[&str]>) {
        let parsed = |all: &[&str]| all.iter().map(|a| a.parse().expect("an address")).collect::<Vec<IpAddr>>();
        assert_eq!(all_pods(parsed(addresses), replicas), expected.map(parsed), "{addresses:?}");
    }

    #[test]
    fn a_pod_with_two_addresses_counts_once() {
        check(&["10.0.0.2", "10.0.0.1", "10.0.0.2"], 2, Some(&["10.0.0.1", "10.0.0.2"]));
        check(&["fd00::1", "10.0.0.1", "fd00::2", "10.0.0.2"], 2, Some(&["10.0.0.1", "10.0.0.2"]));
        check(&["fd00::1", "10.0.0.1", "fd00::2"], 2, Some(&["fd00::1", "fd00::2"]));
    }

    #[test]
    fn a_part_of_the_pods_is_no_reading() {
        check(&["10.0.0.1"], 2, None);
        check(&["10.0.0.1", "fd00::1"], 2, None);
        check(&[], 2, None);
    }
}
