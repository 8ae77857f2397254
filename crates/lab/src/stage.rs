//! What a cell is played on: two simulated engines and a gateway before them, all its own, so that what one cell did to
//! a breaker is unknown to the next.
//!
//! The gateway is a process, started as a person would start it. It ends with the stage.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use outrigger_fakes::{Fake, Identity, Options, Profile};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::{
    LabError, Pace,
    cell::Cell,
    client::http1,
    matrix::{Certificate, Naming, Protocol, Reach},
    names::{Means, NameServer},
    pki::Pki,
};

/// What clients call the model, and what the engines do.
pub const MODEL: &str = "lab";
pub const ENGINES_MODEL: &str = "org/lab-model";
/// What certificates call the engines, beside their address.
pub(crate) const ENGINES_NAME: &str = "engine.lab.test";
/// The key of the lab's client.
pub const CLIENTS_KEY: &str = "sk-lab-client-6f1d0c9a2b7e4853";
/// The engines' key, which only the gateway knows. It must never be seen outside.
pub const ENGINES_KEY: &str = "sk-lab-engine-9b3e7a51c04d2f68";
/// Where the gateway asks for names, in place of the machine's own name servers.
const NAME_SERVERS_VARIABLE: &str = "OUTRIGGER_NAME_SERVERS";
/// Addresses of this machine beside the usual one.
pub(crate) const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
pub(crate) const NOWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const ENGINES_KEY_VARIABLE: &str = "OUTRIGGER_LAB_ENGINE_KEY";

const FLEET: &str = "fleet.yaml";
/// Whom the gateway believes, where engines are reached over TLS.
const AUTHORITY: &str = "authority.pem";

/// Tokens of every answer.
pub const TOKENS: u32 = 8;

const READY: Duration = Duration::from_secs(20);
const SETTLED: Duration = Duration::from_millis(20);

/// Two engines, and the gateway that a client asks for them.
#[derive(Debug)]
pub struct Place {
    pub engines: [Fake; 2],
    /// At another address on the first one's port, where engines are reached by name.
    pub moved: Option<Moved>,
    /// Another engine like them, which only the lab asks.
    pub twin: Fake,
    pub listen: SocketAddr,
    /// What the gateway calls the model, and the key that it wants.
    pub model: String,
    pub key: String,
    pub(crate) pace: Pace,
    /// What of the engines must not reach a client.
    pub secrets: Vec<String>,
}

impl Place {
    pub fn received(&self) -> [u64; 2] {
        [self.engines[0].stats().received, self.engines[1].stats().received]
    }
}

/// Where the first engine's name can move to, and who answers for the name.
#[derive(Debug)]
pub struct Moved {
    pub engine: Fake,
    pub(crate) names: NameServer,
}

/// A place with a gateway of the lab's own.
#[derive(Debug)]
pub struct Stage {
    pub place: Place,
    admin: SocketAddr,
    log: Arc<Mutex<Vec<Value>>>,
    gateway: Child,
    _folder: Folder,
}

impl Stage {
    /// Starts everything.
    pub(crate) async fn build(program: &Path, cell: &Cell, pace: Pace) -> Result<Self, LabError> {
        let shown = match cell.row.reach {
            Reach::Tls => Some(Pki::shared()?.identity(Certificate::Good)),
            _ => None,
        };
        let engines = [engine(None, shown.clone()).await?, engine(None, shown).await?];
        let folder = Folder::new()?;
        let file = folder.0.join(FLEET);
        folder.write(FLEET, &fleet(cell, &engines, pace))?;
        if cell.row.reach == Reach::Tls {
            folder.write(AUTHORITY, &Pki::shared()?.authority)?;
        }
        let moved = match cell.row.reach {
            Reach::Named => Some(Moved::start(&engines[0], cell.row.name).await?),
            _ => None,
        };
        let mut gateway = (Command::new(program).arg("serve").arg("--fleet").arg(&file))
            .env(ENGINES_KEY_VARIABLE, ENGINES_KEY)
            .envs(moved.iter().map(|moved| (NAME_SERVERS_VARIABLE, moved.names.at.to_string())))
            .env_remove("OUTRIGGER_ADMIN_TOKEN")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| LabError::Start { program: program.to_owned(), source })?;
        let (listen, admin, log) = ready(program, &mut gateway).await?;
        let (model, key) = (MODEL.to_owned(), CLIENTS_KEY.to_owned());
        let mut secrets: Vec<String> = engines.iter().map(|engine| engine.listen_addr().to_string()).collect();
        secrets.extend([ENGINES_KEY, "uvicorn"].map(str::to_owned));
        let place = Place { engines, moved, twin: engine(None, None).await?, listen, model, key, pace, secrets };
        Ok(Self { place, admin, log, gateway, _folder: folder })
    }

    /// The request log so far, once it has this many requests or has had the time for them.
    pub async fn requests(&self, wanted: usize) -> Vec<Value> {
        let patience = Instant::now() + Duration::from_secs(3);
        loop {
            let seen = self.log.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if seen.len() >= wanted || Instant::now() >= patience {
                return seen;
            }
            sleep(SETTLED).await;
        }
    }

    /// The gateway's own view of its backends.
    pub async fn state(&self) -> Result<Value, LabError> {
        let got = http1::get(self.admin, "/api/v1/state").await.map_err(|e| LabError::Admin(e.to_string()))?;
        serde_json::from_slice(&got).map_err(|e| LabError::Admin(e.to_string()))
    }

    /// Ends the gateway and returns what it said on stderr.
    pub async fn close(mut self) -> String {
        let _ = self.gateway.start_kill();
        let mut said = String::new();
        if let Some(stderr) = self.gateway.stderr.take() {
            let _ = timeout(Duration::from_secs(1), stderr.take(1 << 20).read_to_string(&mut said)).await;
        }
        let _ = self.gateway.wait().await;
        said
    }
}

impl Moved {
    /// The engine has to have the port of the first one, which may be taken there.
    async fn start(first: &Fake, naming: Option<Naming>) -> Result<Self, LabError> {
        let at = SocketAddr::from((ELSEWHERE, first.listen_addr().port()));
        let seconds = if naming == Some(Naming::MovedEarly) { 3_600 } else { 0 };
        let means = Means { addresses: vec![Ipv4Addr::LOCALHOST], seconds, trouble: None };
        let names = NameServer::start(means).await.map_err(LabError::Names)?;
        Ok(Self { engine: engine(Some(at), None).await?, names })
    }
}

/// An engine at this address, or at a free one.
pub(crate) async fn engine(at: Option<SocketAddr>, tls: Option<Identity>) -> Result<Fake, LabError> {
    let profile = Profile {
        name: "lab".to_owned(),
        model: ENGINES_MODEL.to_owned(),
        decode_base_ms: 2.0,
        default_output_tokens: TOKENS,
        api_key: Some(ENGINES_KEY.to_owned()),
        ..Profile::default()
    };
    let options = Options::new(profile);
    let options = Options { listen: at.unwrap_or(options.listen), tls, ..options };
    Fake::spawn(options).await.map_err(LabError::Engine)
}

/// A folder that is gone with its owner.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, LabError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("outrigger-lab-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let at = env::temp_dir().join(name);
        std::fs::create_dir_all(&at).map_err(|source| LabError::Folder { at: at.clone(), source })?;
        Ok(Self(at))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), LabError> {
        std::fs::write(self.0.join(name), text).map_err(|source| LabError::Folder { at: self.0.clone(), source })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Two clouds with an engine each; the second serves what the first does not.
fn fleet(cell: &Cell, engines: &[Fake; 2], pace: Pace) -> String {
    let version = match cell.protocol {
        Protocol::Http1 => 1,
        Protocol::Http2 => 2,
    };
    let [first, second] = engines.each_ref().map(Fake::listen_addr);
    let (first, second) = match cell.row.reach {
        Reach::Plain => (format!("http://{first}"), format!("http://{second}")),
        Reach::Unresolvable => ("http://engine.invalid:8000".to_owned(), format!("http://{second}")),
        Reach::Named => (format!("http://{ENGINES_NAME}:{}", first.port()), format!("http://{second}")),
        Reach::NoTls => (format!("https://{first}"), format!("http://{second}")),
        Reach::Tls => (format!("https://{first}"), format!("https://{second}")),
    };
    let authority = if cell.row.reach == Reach::Tls { format!("ca: \"file:{AUTHORITY}\", ") } else { String::new() };
    let backend = |cloud: &str, url: &str| {
        format!(
            "{{ cloud: {cloud}, engine: vllm, url: \"{url}/v1\", model: {ENGINES_MODEL}, http: {version}, metrics: none, {authority}\
             api_key: \"${{{ENGINES_KEY_VARIABLE}}}\", apis: [chat, completions, responses, messages] }}"
        )
    };
    // Within it two addresses are tried one after the other, or a handshake of TLS is done.
    let connect = if matches!(cell.row.reach, Reach::Named | Reach::Tls) { 800 } else { 300 };
    let times = [("connect", connect), ("headers", 400), ("first_token", 500), ("idle", 500), ("total", 3_000)];
    let times = times.map(|(key, usual)| format!("{key}: {}ms", pace.of(Duration::from_millis(usual)).as_millis()));
    let hash: String = Sha256::digest(CLIENTS_KEY).iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "version: 1\n\
         gateway: {{ listen: \"127.0.0.1:0\", admin: \"127.0.0.1:0\" }}\n\
         clouds: {{ one: {{}}, two: {{}} }}\n\
         backends:\n  first: {}\n  second: {}\n\
         models:\n  {MODEL}:\n    \
           timeouts: {{ {} }}\n    \
           tiers: [ {{ split: {{ first: 1 }} }}, {{ split: {{ second: 1 }} }} ]\n\
         keys:\n  lab: {{ sha256: \"{hash}\" }}\n",
        backend("one", &first),
        backend("two", &second),
        times.join(", "),
    )
}

/// Reads the ready line, and then the log for as long as there is one.
async fn ready(
    program: &Path,
    gateway: &mut Child,
) -> Result<(SocketAddr, SocketAddr, Arc<Mutex<Vec<Value>>>), LabError> {
    let stdout = gateway.stdout.take().expect("its stdout is a pipe");
    let mut lines = BufReader::new(stdout).lines();
    let first = timeout(READY, lines.next_line()).await;
    let line = first.ok().and_then(Result::ok).flatten().unwrap_or_default();
    let said: Value = serde_json::from_str(&line).unwrap_or_default();
    let address = |key: &str| said[key].as_str()?.strip_prefix("http://")?.parse().ok();
    let (Some(listen), Some(admin)) = (address("listen"), address("admin")) else {
        let mut why = String::new();
        if let Some(stderr) = gateway.stderr.take() {
            let _ = timeout(Duration::from_secs(1), stderr.take(16 << 10).read_to_string(&mut why)).await;
        }
        return Err(LabError::NotReady { program: program.to_owned(), said: why.trim().to_owned() });
    };
    let log = Arc::<Mutex<Vec<Value>>>::default();
    let kept = log.clone();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            let Ok(said) = serde_json::from_str::<Value>(&line) else { continue };
            if said["event"] == "request" {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(said);
            }
        }
    });
    Ok((listen, admin, log))
}
