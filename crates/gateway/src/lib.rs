//! The data plane: one request from socket to socket, and the admin listener beside it.
//!
//! Read the files in the order of a request: [`serve`] accepts it on a connection, [`auth`] says whose it is, [`intake`]
//! reads it, the core admits it, [`dispatch`] decides, lets it wait in [`queue`] where it must, and tries until an [`attempt`] commits, [`relay`] passes the answer
//! on, and [`account`] writes it down. One that names no model takes [`route`] instead. Beside that way stand [`live`] (the decision core behind its lock), [`probe`],
//! [`scrape`], [`overlays`], [`reload`], [`events`] (every log line and metric), [`pool_cost`], [`scale`] (pools that follow the
//! load), [`upstream`], [`pool`], [`tls`] and [`net`] (connections), [`reply`] (errors), [`models`], [`litellm`] (clients of
//! another proxy) and [`admin`]. [`ask`] is for commands that look at backends without serving.

/// The standard macro panics when whoever reads standard error has gone away, which is no reason to stop serving.
macro_rules! eprintln {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        writeln!(std::io::stderr().lock(), $($words)*).ok();
    }};
}

pub mod account;
pub mod admin;
pub mod ask;
pub mod attempt;
pub mod auth;
pub mod body;
pub mod client_address;
mod connection;
pub mod dispatch;
pub mod events;
pub mod intake;
pub mod litellm;
pub mod live;
pub mod models;
pub mod overlays;
pub mod pieces;
pub mod pool;
pub mod pool_cost;
pub mod probe;
pub mod queue;
pub mod relay;
pub mod reload;
pub mod reply;
mod request_id;
mod route;
pub mod scale;
pub mod scrape;
pub mod serve;
pub mod tls;
pub mod upstream;

pub use outrigger_net as net;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle};

use self::{
    admin::Access,
    events::{Events, Outputs},
    litellm::Dialect,
    live::{Live, Loaded},
    net::{Accept, Clock, Connect},
    overlays::Overlays,
    reload::Reloader,
};

/// What a gateway needs from the outside.
pub struct Setup {
    pub loaded: Loaded,
    pub data: Arc<dyn Accept>,
    /// What clients are served with; without it, in clear text.
    pub tls: Option<tls::listener::Listener>,
    pub admin: tokio::net::TcpListener,
    pub connector: Arc<dyn Connect>,
    pub outputs: Outputs,
    pub access: Access,
    pub reload: Arc<reload::Read>,
    /// The fleet file, if it and the files that it names are to be read again when they change.
    pub watched: Option<PathBuf>,
    pub dialect: Dialect,
    pub seed: u64,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("data", &self.data).field("admin", &self.admin).finish_non_exhaustive()
    }
}

/// How long the logs' writers may take for what is left at the end.
const LAST_LINES: Duration = Duration::from_secs(2);

/// A gateway that serves until [`Running::stop`].
#[derive(Debug)]
pub struct Running {
    pub live: Arc<Live>,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    drain: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    data: JoinHandle<()>,
}

/// Starts serving. Fails when an address cannot be read, the state folder cannot be used, or the fleet cannot be served.
pub fn start(setup: Setup) -> io::Result<Running> {
    let gateway = &setup.loaded.fleet.gateway;
    let overlays = Overlays::open(gateway.state_dir.as_deref())?;
    let events = Events::start(setup.outputs)?;
    let clock = Clock::start();
    events.metrics().starts(clock.now());
    let live = Live::new(&setup.loaded, clock, setup.connector, events, overlays, setup.seed);
    let mut live = live.map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    live.dialect = setup.dialect;
    let live = Arc::new(live);
    let memory = scale::Memory::in_folder(gateway.state_dir.as_deref());
    if let Some(memory) = &memory {
        let pools = memory.read()?;
        live.with_state(|state| state.restore_scaling(&pools, live.clock.now()));
    }
    let (listen, admin) = (setup.data.local_addr()?, setup.admin.local_addr()?);
    let (drain, draining) = watch::channel(false);
    let (stop, stopping) = watch::channel(false);
    let tls = setup.tls.map(Arc::new);
    if let Some(tls) = tls.clone() {
        tokio::spawn(tls.follow_files(live.events.clone(), stopping.clone()));
    }
    let data = tokio::spawn(serve::run(live.clone(), setup.data, tls, draining, stopping.clone()));
    tokio::spawn(probe::run(live.clone(), stopping.clone()));
    tokio::spawn(scrape::run(live.clone(), stopping.clone(), setup.seed));
    tokio::spawn(scale::run(live.clone(), stopping.clone(), memory, setup.seed));
    let reloader = Arc::new(Reloader::new(live.clone(), setup.reload, setup.watched));
    tokio::spawn(reloader.clone().follow_files(stopping));
    tokio::spawn(admin::run(live.clone(), setup.admin, setup.access, reloader));
    Ok(Running { live, listen, admin, drain, stop, data })
}

impl Running {
    /// Stops accepting, lets requests in flight end for as long as the fleet's drain time, then ends the rest with an
    /// error. `true` when all ended by themselves.
    ///
    /// For `notice` it still accepts, while /readyz says no: a load balancer has to see that first, or it sends new
    /// connections to a closed port.
    pub async fn stop(self, notice: Duration) -> bool {
        self.live.start_draining();
        tokio::time::sleep(notice).await;
        let allowed = self.live.snapshot().fleet.gateway.drain;
        self.drain.send_replace(true);
        let mut data = self.data;
        let clean = tokio::time::timeout(allowed, &mut data).await.is_ok();
        self.stop.send_replace(true);
        if !clean {
            drop(tokio::time::timeout(Duration::from_secs(5), data).await);
        }
        // The answers are out; their lines must not be lost with the process.
        self.live.written_down(LAST_LINES).await;
        clean
    }
}

/// Resolves once `flag` is true; also when nobody can raise it any more.
pub(crate) async fn raised(flag: &mut watch::Receiver<bool>) {
    drop(flag.wait_for(|raised| *raised).await);
}
