//! Simulated inference engines with scripted faults, and a load generator that counts what really arrived.
//!
//! A gateway can only be shown to survive a broken cloud if the cloud can be broken at will and if somebody else than
//! the gateway counts. So a fake batches token by token like an engine, numbers its tokens, breaks in every way that
//! was seen in the wild, and keeps its own book. It shares no code with the planner's simulator: two models that agree
//! say more than one model used twice.
//!
//! In the order of a request: `server` accepts → `routes` → `request` (parse) → [`engine`] → `generate`
//! (tokens to bytes) → `answer` (shapes) → `body`, `conn` (the wire). Beside them `error` and `refusals` (what is no
//! answer), `faults`, `stats`, `metrics`, `admin`; `process` runs one fake as a command, and `load` is the client.
//!
//! [`store`] is another fake: the object store that weights are tested against, and `relay` a long way to it.

mod admin;
mod answer;
mod body;
mod conn;
pub mod engine;
mod error;
mod faults;
mod generate;
pub mod load;
mod metrics;
mod process;
mod profile;
mod refusals;
mod relay;
mod request;
mod rng;
mod routes;
mod server;
mod stats;
pub mod store;
mod tls;

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tokio::{sync::watch, task::JoinHandle, time::sleep_until};

use crate::{
    engine::Engine,
    faults::{FaultSet, Network},
    stats::StatsBook,
};
pub use crate::{
    faults::{Fault, FaultKind, UnknownFault},
    process::{Ended, run_process, until_asked},
    profile::{EngineKind, Fixed, LLAMA_70B, Profile, ProfileError},
    relay::{Relay, RelayOptions},
    stats::{Outcome, RequestRecord, Stats},
    store::{FakeStore, StoreOptions},
    tls::Identity,
};

/// What a `kill` fault does; it need not return.
pub type OnKill = Arc<dyn Fn() + Send + Sync>;

/// How long a `kill` waits for its own answer to reach whoever asked for it.
const LAST_WORDS: Duration = Duration::from_millis(10);

#[derive(Clone)]
pub struct Options {
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub profile: Profile,
    pub seed: u64,
    /// None: clear text.
    pub tls: Option<Identity>,
    /// None: a `kill` acts as `refuse`.
    pub on_kill: Option<OnKill>,
}

impl Options {
    /// Loopback, free ports, seed 0.
    pub fn new(profile: Profile) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { listen: any, admin: any, profile, seed: 0, tls: None, on_kill: None }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("listen", &self.listen)
            .field("admin", &self.admin)
            .field("profile", &self.profile)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// One running fake. Dropping it stops it at once, with every connection.
#[derive(Debug)]
pub struct Fake {
    shared: Arc<Shared>,
    listen: SocketAddr,
    admin: SocketAddr,
    tasks: [JoinHandle<()>; 2],
}

impl Fake {
    #[expect(clippy::unused_async, reason = "it needs a runtime, and a future says so to every caller")]
    pub async fn spawn(options: Options) -> io::Result<Self> {
        let listener = server::bind(options.listen)?;
        let admin_listener = server::bind(options.admin)?;
        let (listen, admin) = (listener.local_addr()?, admin_listener.local_addr()?);
        let shared = Arc::new(Shared {
            engine: Engine::start(options.profile, options.seed),
            faults: FaultSet::new(options.seed),
            tls: tls::Shown::new(options.tls),
            book: Arc::default(),
            network: watch::Sender::new(Network::Open),
            applied: watch::Sender::new(Network::Open),
            on_kill: options.on_kill,
            next_id: AtomicU64::new(1),
        });
        let tasks = [
            tokio::spawn(server::run(shared.clone(), listener, listen)),
            tokio::spawn(admin::run(shared.clone(), admin_listener)),
        ];
        Ok(Self { shared, listen, admin, tasks })
    }

    /// `http://127.0.0.1:PORT`, without a path.
    pub fn url(&self) -> String {
        admin::url(self.listen)
    }

    pub fn admin_url(&self) -> String {
        admin::url(self.admin)
    }

    pub fn listen_addr(&self) -> SocketAddr {
        self.listen
    }

    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Forgets the counts and the request log, but not what is in flight.
    pub fn reset_stats(&self) {
        self.shared.book.reset();
    }

    /// The log's records with a `seq` above this one, oldest first.
    pub fn requests_after(&self, seq: u64) -> Vec<RequestRecord> {
        self.shared.book.requests_after(seq)
    }

    /// Shows this certificate to whoever connects from now on.
    pub fn show(&self, identity: Identity) {
        self.shared.tls.show(identity);
    }

    /// Returns once the fault is in force.
    pub async fn set_fault(&self, fault: Fault) {
        self.shared.set_fault(fault).await;
    }

    pub fn active_faults(&self) -> Vec<Fault> {
        self.shared.faults.list()
    }

    /// Ends every fault; returns once the listener accepts again.
    pub async fn heal(&self) {
        self.shared.heal().await;
    }

    /// Closes the listeners and every connection; requests in flight are cut, as by an engine's SIGTERM.
    pub async fn shutdown(mut self) {
        for task in &mut self.tasks {
            task.abort();
            // The only error is the abort itself.
            let _ = task.await;
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What the listener, its connections and the admin listener share.
struct Shared {
    engine: Engine,
    faults: FaultSet,
    tls: tls::Shown,
    book: Arc<StatsBook>,
    /// What the faults demand of the network.
    network: watch::Sender<Network>,
    /// What the listener has made true of it.
    applied: watch::Sender<Network>,
    on_kill: Option<OnKill>,
    next_id: AtomicU64,
}

impl Shared {
    fn stats(&self) -> Stats {
        let load = self.engine.load();
        Stats {
            running: load.running as u64,
            waiting: load.waiting as u64,
            generated: load.generated,
            ..self.book.snapshot()
        }
    }

    async fn set_fault(self: &Arc<Self>, fault: Fault) {
        let heals_at = faults::heals_at(&fault);
        let kills = fault.kind == FaultKind::Kill;
        if let (true, Some(on_kill)) = (kills, self.on_kill.clone()) {
            tokio::spawn(async move {
                tokio::time::sleep(LAST_WORDS).await;
                on_kill();
            });
            return;
        }
        let id = self.faults.set(fault);
        self.apply().await;
        if let Some(at) = heals_at {
            let shared = Arc::downgrade(self);
            tokio::spawn(async move {
                sleep_until(at).await;
                if let Some(shared) = shared.upgrade() {
                    shared.faults.end(id);
                    shared.apply().await;
                }
            });
        }
    }

    async fn heal(&self) {
        self.faults.clear();
        self.apply().await;
    }

    /// Makes the engine and the listener agree with the set of faults.
    async fn apply(&self) {
        self.engine.set_slow(self.faults.slow());
        self.network.send_replace(self.faults.network());
        // Compared with what is demanded by then, since another call may overtake this one. The sender of `applied`
        // is in this very struct, so it cannot be gone.
        let _ = self.applied.subscribe().wait_for(|n| *n == *self.network.borrow()).await;
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("engine", &self.engine).field("faults", &self.faults).finish_non_exhaustive()
    }
}
