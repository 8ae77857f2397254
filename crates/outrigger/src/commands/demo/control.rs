//! `demo break` and `demo heal` from another terminal.
//!
//! The running demo leaves a note for its user: where each cloud is, and a port on which it takes one word, the name of
//! a cloud to start again. Faults go straight to the cloud's own admin listener, as they would in a test.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, Result, bail};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{
    super::{
        Exit,
        client::{block_on, call},
        input::Failed,
        values, write_out,
    },
    clouds::Clouds,
};

/// Break a cloud of the running demo.
#[derive(Debug, clap::Args)]
pub(super) struct Break {
    /// coreweave, lambda or openai.
    cloud: String,
    /// What happens to it.
    #[arg(long, default_value = "kill")]
    fault: Fault,
    /// The demo's gateway, by its admin URL; the demo last started by default.
    #[arg(long, value_parser = values::admin_url)]
    admin: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Heal a cloud of the running demo.
#[derive(Debug, clap::Args)]
pub(super) struct Heal {
    /// coreweave, lambda or openai.
    cloud: String,
    /// The demo's gateway, by its admin URL; the demo last started by default.
    #[arg(long, value_parser = values::admin_url)]
    admin: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Fault {
    /// The process dies.
    Kill,
    /// Nothing listens.
    Refuse,
    /// Connections are never accepted.
    Blackhole,
    /// Requests are read and never answered.
    Hang,
    #[value(name = "500")]
    ServerError,
    #[value(name = "429")]
    RateLimit,
    #[value(name = "503")]
    Overload,
    /// Ten times slower.
    Slow,
    /// Answers break off after a few tokens.
    Cut,
}

impl Fault {
    fn to_json(self) -> Value {
        match self {
            Self::Kill => json!({ "fault": "kill" }),
            Self::Refuse => json!({ "fault": "refuse" }),
            Self::Blackhole => json!({ "fault": "blackhole" }),
            Self::Hang => json!({ "fault": "hang" }),
            Self::ServerError => json!({ "fault": "500" }),
            Self::RateLimit => json!({ "fault": "429" }),
            Self::Overload => json!({ "fault": "503" }),
            Self::Slow => json!({ "fault": "slow" }),
            Self::Cut => json!({ "fault": "cut", "after_tokens": 5 }),
        }
    }
}

/// The note that a running demo leaves.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    pid: u32,
    admin: String,
    control: SocketAddr,
    /// Name, and the address of the cloud's admin listener.
    clouds: Vec<(String, String)>,
}

/// Takes the names of clouds to start again, while the demo runs.
#[derive(Debug)]
pub(super) struct Listener {
    socket: TcpListener,
    note: PathBuf,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) cloud: String,
    stream: TcpStream,
}

impl Listener {
    pub(super) async fn open(admin: &str, clouds: &Clouds) -> Result<Self> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let note = Note {
            pid: std::process::id(),
            admin: admin.to_owned(),
            control: socket.local_addr()?,
            clouds: clouds
                .addresses()
                .filter_map(|(name, _)| Some((name.to_owned(), clouds.get(name)?.admin.clone())))
                .collect(),
        };
        let path = folder()?.join(format!("{}.json", note.pid));
        fs::File::create(&path)?.write_all(&serde_json::to_vec(&note)?)?;
        Ok(Self { socket, note: path })
    }

    pub(super) async fn next(&self) -> Option<Request> {
        let (mut stream, _) = self.socket.accept().await.ok()?;
        let mut name = [0; 64];
        let n = stream.read(&mut name).await.ok()?;
        Some(Request { cloud: String::from_utf8_lossy(&name[..n]).trim().to_owned(), stream })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        fs::remove_file(&self.note).ok();
    }
}

impl Request {
    pub(super) async fn answer(mut self, result: Result<()>) {
        let text = result.map_or_else(|e| format!("{e:#}"), |()| "ok".to_owned());
        self.stream.write_all(text.as_bytes()).await.ok();
    }
}

pub(super) fn break_cloud(args: &Break) -> Exit {
    let fault = args.fault.to_json();
    let done = block_on(async {
        let cloud = Target::find(args.admin.as_deref(), &args.cloud)?;
        // A cloud that is told to die may not live to answer.
        let reply = call(Method::POST, &cloud.admin, "/faults", Some(&fault)).await;
        match (reply, args.fault) {
            (Ok(reply), _) => drop(reply.json()?),
            (Err(_), Fault::Kill) => {}
            (Err(e), _) => {
                return Err(e
                    .context(format!("is {} dead? `outrigger demo heal {0}` starts it again", args.cloud))
                    .into());
            }
        }
        Ok(format!("{} is broken; `outrigger demo heal {0}` puts it right\n", args.cloud))
    });
    told(done, args.json, &json!({ "cloud": args.cloud, "fault": fault["fault"] }))
}

pub(super) fn heal_cloud(args: &Heal) -> Exit {
    let done = block_on(async {
        let cloud = Target::find(args.admin.as_deref(), &args.cloud)?;
        restart(cloud.control, &args.cloud).await?;
        call(Method::DELETE, &cloud.admin, "/faults", None).await?.json()?;
        Ok(format!("{} is healthy\n", args.cloud))
    });
    told(done, args.json, &json!({ "cloud": args.cloud, "fault": null }))
}

async fn restart(control: SocketAddr, cloud: &str) -> Result<()> {
    let mut stream = TcpStream::connect(control).await.context("the demo does not run any more")?;
    stream.write_all(cloud.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if answer == "ok" { Ok(()) } else { bail!("{answer}") }
}

fn told(done: Result<String, Failed>, json: bool, value: &Value) -> Exit {
    match done {
        Ok(_) if json => write_out(&format!("{value}\n")),
        Ok(words) => write_out(&words),
        Err(failed) => {
            eprintln!("error: {}", failed.message);
            failed.exit
        }
    }
}

/// Where one cloud of a running demo is reached.
struct Target {
    /// URL of the cloud's admin listener.
    admin: String,
    control: SocketAddr,
}

impl Target {
    fn find(admin: Option<&str>, cloud: &str) -> Result<Self, Failed> {
        let notes = notes()?;
        let note = match admin {
            Some(url) => notes.into_iter().find(|n| n.admin == url),
            None => notes.into_iter().next(),
        };
        let Some(note) = note else {
            let which = admin.map_or_else(String::new, |url| format!(" whose gateway has its admin listener at {url}"));
            return Err(Failed::environment(format!("no demo runs{which}; start one with `outrigger demo`")));
        };
        let names: Vec<&str> = note.clouds.iter().map(|(name, _)| name.as_str()).collect();
        let Some((_, address)) = note.clouds.iter().find(|(name, _)| name == cloud) else {
            return Err(Failed::usage(format!(
                "the demo has no cloud `{cloud}`\n  help: name one of: {}",
                names.join(", ")
            )));
        };
        Ok(Self { admin: format!("http://{address}"), control: note.control })
    }
}

/// The notes of demos that still run, the newest first.
fn notes() -> Result<Vec<Note>> {
    let mut found: Vec<(SystemTime, Note)> = Vec::new();
    for entry in fs::read_dir(folder()?)?.flatten() {
        let (Ok(text), Ok(about)) = (fs::read(entry.path()), entry.metadata()) else { continue };
        let Ok(note) = serde_json::from_slice::<Note>(&text) else { continue };
        if Path::new(&format!("/proc/{}", note.pid)).exists() {
            found.push((about.modified()?, note));
        } else {
            // Left by a demo that was killed.
            fs::remove_file(entry.path()).ok();
        }
    }
    found.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    Ok(found.into_iter().map(|(_, note)| note).collect())
}

/// A folder that only this user can write to.
fn folder() -> Result<PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let base = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = base.join(format!("outrigger-demo-{uid}"));
    match fs::DirBuilder::new().mode(0o700).create(&folder) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(e).context(format!("cannot create {}", folder.display()));
        }
        _ => {}
    }
    let about = fs::symlink_metadata(&folder)?;
    if !about.is_dir() || about.uid() != uid {
        bail!("{} belongs to somebody else; set XDG_RUNTIME_DIR to a folder of yours", folder.display());
    }
    Ok(folder)
}
