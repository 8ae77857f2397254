//! The demo's clouds as processes: started, watched, and started again.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// Name and profile of each cloud.
const CLOUDS: [(&str, &str); 3] = [("coreweave", "coreweave-h100"), ("lambda", "lambda-h100"), ("openai", "hosted")];
const START: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Clouds {
    /// This program, as it was called at the start: a rebuild meanwhile must not hide it.
    program: PathBuf,
    all: BTreeMap<&'static str, Cloud>,
}

#[derive(Debug)]
pub(super) struct Cloud {
    profile: &'static str,
    child: Child,
    pub(super) pid: u32,
    /// `HOST:PORT` of the engine and of its admin listener.
    pub(super) listen: String,
    pub(super) admin: String,
}

impl Clouds {
    pub(super) async fn start() -> Result<Self> {
        let program = std::env::current_exe().context("where this program is")?;
        let mut all = BTreeMap::new();
        for (name, profile) in CLOUDS {
            let cloud = Cloud::start(&program, profile, "127.0.0.1:0", "127.0.0.1:0").await;
            all.insert(name, cloud.with_context(|| format!("cloud {name}"))?);
        }
        Ok(Self { program, all })
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.all.iter().map(|(name, cloud)| (*name, cloud.listen.as_str()))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Cloud> {
        self.all.get(name)
    }

    pub(super) fn to_json(&self) -> Value {
        let entry = |c: &Cloud| json!({ "url": format!("http://{}", c.listen), "admin": format!("http://{}", c.admin), "pid": c.pid });
        Value::Object(self.all.iter().map(|(name, c)| ((*name).to_owned(), entry(c))).collect::<Map<_, _>>())
    }

    /// Starts a cloud again on its old ports, if it is dead.
    pub(super) async fn restart(&mut self, name: &str) -> Result<()> {
        let Some(cloud) = self.all.get_mut(name) else { bail!("there is no cloud {name:?}") };
        if cloud.is_alive() {
            return Ok(());
        }
        *cloud = Cloud::start(&self.program, cloud.profile, &cloud.listen, &cloud.admin).await?;
        Ok(())
    }

    /// Whether the cloud's process still lives.
    pub(super) fn is_alive(&mut self, name: &str) -> bool {
        self.all.get_mut(name).is_some_and(Cloud::is_alive)
    }

    pub(super) async fn stop(mut self) {
        for cloud in self.all.values_mut() {
            // Already dead is as good.
            cloud.child.kill().await.ok();
        }
    }
}

impl Cloud {
    async fn start(program: &Path, profile: &'static str, listen: &str, admin: &str) -> Result<Self> {
        let mut child = Command::new(program)
            .args(["fake", "--die-with-parent", "--profile", profile, "--listen", listen, "--admin", admin])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            // Out of the terminal's process group: Ctrl-C ends the demo, and the demo ends its clouds.
            .process_group(0)
            .spawn()?;
        let stdout = child.stdout.take().context("its output")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(START, lines.next_line()).await.context("it did not start in time")??;
        let ready: Value = serde_json::from_str(&line.context("it ended at once")?)?;
        let address = |key: &str| ready[key].as_str().and_then(|url| url.strip_prefix("http://")).map(str::to_owned);
        Ok(Self {
            profile,
            pid: child.id().context("it ended at once")?,
            child,
            listen: address("listen").context("its address")?,
            admin: address("admin").context("its admin address")?,
        })
    }

    fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}
