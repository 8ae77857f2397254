//! A fake as a process of its own: what the `outrigger fake` command runs.
//!
//! Only here is `kill` a real death: `exit(137)`, the code of a process that got SIGKILL, with the sockets closed by
//! the kernel. A fake that must die with its parent asks the kernel for it, and looks for itself as well, because the
//! kernel speaks of the thread that started the process and only of a death that comes after the call.

use std::{io, sync::Arc, time::Duration};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::{Fake, Options};

/// Why a fake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// SIGTERM, or the parent's end.
    Asked,
    /// Ctrl-C.
    Interrupted,
}

/// Prints the ready line and serves until SIGTERM, SIGINT, a `kill` fault, or the parent's end if asked.
///
/// With `die_with_parent` the process must be started from a thread that lives as long as its parent should, so not
/// from tokio's blocking pool, whose idle threads end after 10 s.
pub async fn run_process(options: Options, die_with_parent: bool) -> io::Result<Ended> {
    let parent = getppid();
    if die_with_parent {
        set_parent_process_death_signal(Some(Signal::KILL))?;
    }
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let name = options.profile.name.clone();
    let fake = Fake::spawn(Options { on_kill: Some(Arc::new(|| std::process::exit(137))), ..options }).await?;
    ready(&fake, &name)?;
    let ended = tokio::select! {
        _ = term.recv() => Ended::Asked,
        _ = int.recv() => Ended::Interrupted,
        () = orphaned(parent), if die_with_parent => Ended::Asked,
    };
    fake.shutdown().await;
    Ok(ended)
}

/// Returns at SIGTERM, at Ctrl-C, or when whoever started this process is gone.
pub async fn until_asked() -> io::Result<()> {
    let parent = getppid();
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        () = orphaned(parent) => {}
    }
    Ok(())
}

fn ready(fake: &Fake, profile: &str) -> io::Result<()> {
    use io::Write as _;
    let line = json!({"event": "ready", "listen": fake.url(), "admin": fake.admin_url(), "profile": profile});
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Returns when the parent is no longer the one at the start.
async fn orphaned(parent: Option<Pid>) {
    while getppid() == parent {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
