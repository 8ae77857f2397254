//! Another fleet takes over: when an operator says so, and when the files that it came from have changed.
//!
//! Whole or not at all: what is at fault changes nothing, and the reason is in the state, a metric and a warning until a
//! reload is taken. The files are looked at rather than watched, since they come by rename, in place and through
//! symbolic links that are exchanged, from local disks and network ones. A change counts once it has held still from one
//! look to the next, so that a file that is being written is not read half way.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use outrigger_core::fleet::{Certificate, Fleet, Gateway, HeaderText, KeyHash, SecretRef};
use tokio::sync::watch;

use crate::{
    live::{Live, Loaded},
    raised,
};

/// Reads the fleet file again: the new fleet, or every fault in one text.
pub type Read = dyn Fn() -> Result<Loaded, String> + Send + Sync;

/// Between two looks at the files.
const PERIOD: Duration = Duration::from_millis(500);

/// Where fleets come from.
pub struct Reloader {
    live: Arc<Live>,
    read: Arc<Read>,
    /// The fleet file, if it is to be watched.
    watched: Option<PathBuf>,
    /// One reload at a time, and what the files looked like before the last one.
    judged: tokio::sync::Mutex<Stamp>,
    refused: Mutex<Option<String>>,
}

/// A fleet that has taken over.
#[derive(Debug)]
pub struct Replaced {
    pub before: String,
    pub fleet: Arc<Fleet>,
    /// Settings that differ and are only read at the start.
    pub needs_restart: Vec<&'static str>,
}

/// What tells one content of the files from another: device, inode, size and the times of the last changes of each.
type Stamp = Vec<Option<[u64; 5]>>;

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader").field("watched", &self.watched).finish_non_exhaustive()
    }
}

impl Reloader {
    pub fn new(live: Arc<Live>, read: Arc<Read>, watched: Option<PathBuf>) -> Self {
        let stamp = watched.as_ref().map(|file| stamp(file, &live.snapshot().fleet)).unwrap_or_default();
        Self { live, read, watched, judged: tokio::sync::Mutex::new(stamp), refused: Mutex::new(None) }
    }

    /// Why the fleet in force is not the one in the file, if the last reload was refused.
    pub fn refused(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the fleet again and puts it in force. Fails with why the one before stays.
    pub async fn now(&self) -> Result<Replaced, String> {
        let mut judged = self.judged.lock().await;
        *judged = self.look().await;
        let read = self.read.clone();
        // Reading files and resolving secrets blocks.
        let loaded = tokio::task::spawn_blocking(move || read())
            .await
            .unwrap_or_else(|_| Err("reading the fleet file panicked".to_owned()));
        let old = self.live.snapshot().fleet.clone();
        let replaced = loaded.and_then(|loaded| self.live.replace(&loaded));
        if replaced.is_ok() {
            // The new fleet may name other files.
            *judged = self.look().await;
        }
        self.live.events.metrics().reloaded(replaced.is_ok());
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = replaced.clone().err();
        replaced?;
        let fleet = self.live.snapshot().fleet.clone();
        let needs_restart = needs_restart(&old.gateway, &fleet.gateway);
        Ok(Replaced { before: old.digest.clone(), fleet, needs_restart })
    }

    /// Reloads whenever the files have changed, until told to stop.
    pub async fn follow_files(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        if self.watched.is_none() {
            return;
        }
        let mut seen = self.judged.lock().await.clone();
        loop {
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = raised(&mut stop) => return,
            }
            let found = self.look().await;
            let held_still = found == seen;
            seen = found;
            if !held_still || *self.judged.lock().await == seen {
                continue;
            }
            match self.now().await {
                Ok(replaced) => self.live.events.fleet_replaced(&replaced),
                Err(why) => self.live.events.fleet_kept(&self.live.snapshot().fleet.digest, &why),
            }
        }
    }

    async fn look(&self) -> Stamp {
        let Some(file) = self.watched.clone() else { return Stamp::new() };
        let fleet = self.live.snapshot().fleet.clone();
        tokio::task::spawn_blocking(move || stamp(&file, &fleet)).await.unwrap_or_default()
    }
}

/// Settings that differ and are only read at the start.
fn needs_restart(old: &Gateway, new: &Gateway) -> Vec<&'static str> {
    let settings = [
        ("gateway.listen", old.listen != new.listen),
        ("gateway.admin", old.admin != new.admin),
        ("gateway.tls", old.tls != new.tls),
        ("gateway.state_dir", old.state_dir != new.state_dir),
        ("gateway.limits.held", old.limits.held_bytes != new.limits.held_bytes),
        ("gateway.limits.connections", old.limits.connections != new.limits.connections),
    ];
    settings.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

fn stamp(file: &Path, fleet: &Fleet) -> Stamp {
    let one = |path: &Path| {
        let about = fs::metadata(path).ok()?;
        let nanos = |seconds: i64, nanos: i64| seconds.wrapping_mul(1_000_000_000).wrapping_add(nanos).cast_unsigned();
        let (written, changed) = (nanos(about.mtime(), about.mtime_nsec()), nanos(about.ctime(), about.ctime_nsec()));
        Some([about.dev(), about.ino(), about.size(), written, changed])
    };
    std::iter::once(file).chain(files_of(fleet)).map(one).collect()
}

/// The files that a fleet refers to, each once, but for the listener's certificate, which renews itself.
fn files_of(fleet: &Fleet) -> BTreeSet<&Path> {
    fn file(reference: &SecretRef) -> Option<&Path> {
        match reference {
            SecretRef::File(path) => Some(path),
            SecretRef::Env(_) => None,
        }
    }
    let mut files = BTreeSet::new();
    for backend in &fleet.backends {
        let reach = &backend.reach;
        files.extend(backend.api_key.as_ref().and_then(file));
        files.extend(reach.ca.as_deref());
        files.extend(reach.client_cert.iter().flat_map(|Certificate { chain, key }| [chain.as_path(), key.as_path()]));
        files.extend(reach.headers.iter().filter_map(|(_, text)| match text {
            HeaderText::Secret(reference) => file(reference),
            HeaderText::Plain(_) => None,
        }));
    }
    files.extend(fleet.clouds.iter().filter_map(|cloud| cloud.api_key.as_ref().and_then(file)));
    files.extend(fleet.keys.iter().flat_map(|key| &key.sha256).filter_map(|hash| match hash {
        KeyHash::File(path) => Some(path.as_path()),
        KeyHash::Literal(_) => None,
    }));
    files
}
