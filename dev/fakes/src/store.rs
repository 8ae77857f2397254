//! An object store that speaks as much of S3 as weights need, counts every byte, and breaks or lies when told to.
//!
//! None of the servers that can be had is of use for the hard questions: they are slower than the client that is measured,
//! keep gigabytes in memory, let two clients create one object, or break at nobody's command. So this one exists, and what it
//! says of itself is held against boto3, s5cmd and rclone. Signatures are not looked at. Of Google Cloud Storage's XML API it speaks
//! what differs: generations, conditions on them, and the name of a copy's source; that is held against nothing but its reference.
//!
//! An object is a plain file under `ROOT/BUCKET/KEY`, moved there when it was whole, so that a test can put a sparse file of
//! 16 GiB in place, damage one at rest, or serve the same folder by nginx. The price: `a` and `a/b` cannot both be objects.
//! All else (ETags, uploads, unfinished bodies) is under `ROOT/.store`. A file that was put there by hand has an ETag of the
//! form that S3 gives to uploads in parts, which nobody takes for an MD5.
//!
//! In the order of a request: `server` accepts → `asked` (which operation) → `faults` (what it is dealt) → `operations`, with
//! `intake` (a body that comes, out of `chunked`), `disk`, `uploads`, `listing` → `served` (a body that goes) → `ledger`.

mod admin;
mod asked;
mod chunked;
mod disk;
mod faults;
mod intake;
mod ledger;
mod listing;
mod operations;
mod refusal;
mod served;
mod server;
mod uploads;
mod xml;

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use tokio::task::JoinHandle;

use self::{disk::Disk, faults::FaultSet, ledger::Ledger};
pub use self::{
    faults::{StoreFault, StoreFaultKind},
    ledger::Totals,
};

#[derive(Clone, Debug)]
pub struct StoreOptions {
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    /// Where buckets are folders and objects files; it is made if it is not there.
    pub root: PathBuf,
    /// A JSON object for each request that has ended. `None`: `ROOT/.store/ledger.jsonl`.
    pub ledger: Option<PathBuf>,
}

impl StoreOptions {
    /// Loopback and free ports.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { listen: any, admin: any, root: root.into(), ledger: None }
    }
}

/// One running store. Dropping it stops it at once, with every connection.
pub struct FakeStore {
    shared: Arc<Shared>,
    listen: SocketAddr,
    admin: SocketAddr,
    tasks: [JoinHandle<()>; 2],
}

impl FakeStore {
    #[expect(clippy::unused_async, reason = "it needs a runtime, and a future says so to every caller")]
    pub async fn spawn(options: StoreOptions) -> io::Result<Self> {
        let disk = Disk::open(&options.root)?;
        let ledger = Ledger::open(&options.ledger.unwrap_or_else(|| disk.own("ledger.jsonl")))?;
        let listener = crate::server::bind(options.listen)?;
        let admin_listener = crate::server::bind(options.admin)?;
        let (listen, admin) = (listener.local_addr()?, admin_listener.local_addr()?);
        let shared = Arc::new(Shared { disk, ledger: Arc::new(ledger), faults: FaultSet::default() });
        let tasks = [
            tokio::spawn(server::run(shared.clone(), listener)),
            tokio::spawn(admin::run(shared.clone(), admin_listener)),
        ];
        Ok(Self { shared, listen, admin, tasks })
    }

    /// `http://127.0.0.1:PORT`: the endpoint of a client that writes buckets into the path.
    pub fn url(&self) -> String {
        crate::admin::url(self.listen)
    }

    pub fn admin_url(&self) -> String {
        crate::admin::url(self.admin)
    }

    pub fn set_fault(&self, fault: StoreFault) {
        self.shared.faults.set(fault);
    }

    pub fn heal(&self) {
        self.shared.faults.clear();
    }

    /// What was asked for and what came and went so far, of requests that have ended.
    pub fn totals(&self) -> Totals {
        self.shared.ledger.totals()
    }
}

impl fmt::Debug for FakeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeStore").field("listen", &self.listen).field("admin", &self.admin).finish_non_exhaustive()
    }
}

impl Drop for FakeStore {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

struct Shared {
    disk: Disk,
    ledger: Arc<Ledger>,
    faults: FaultSet,
}
