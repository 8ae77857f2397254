//! `outrigger serve`: the gateway as a process.
//!
//! Standard output carries JSON lines only, the ready line first and then the request log; words for people go to
//! standard error. SIGTERM and Ctrl-C drain.

use std::{
    cell::Cell,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use outrigger_core::fleet::{Fleet, KeyHash};
use outrigger_gateway::{
    Running, Setup,
    admin::Access,
    events::Outputs,
    litellm::Dialect,
    live::Loaded,
    net::{Tcp, dns},
    tls::listener::Listener,
};
use outrigger_import::{Variables, Verdict};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};

use super::{Exit, client::TOKEN_VARIABLE, colour_on_stderr, import, secrets, sockets::Sockets, values};
use crate::config::{self, Error, Severity, weak};

/// Serve a fleet as one endpoint.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// Where clients connect, in place of what the fleet says; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = values::address)]
    listen: Option<SocketAddr>,
    /// Where metrics and the admin API are, in place of what the fleet says.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = values::address)]
    admin: Option<SocketAddr>,
    /// Read the fleet file and the files that it names again only by `outrigger reload`, and not when they change.
    #[arg(long)]
    no_watch: bool,
    /// Append every decision here, with all that it read, so that `outrigger replay` can make it again.
    #[arg(long)]
    decision_log: Option<PathBuf>,
}

/// What is served.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// The fleet file.
    #[arg(long)]
    fleet: Option<PathBuf>,
    /// The configuration of LiteLLM's proxy in its place; requests may then also be written as LiteLLM takes them.
    #[arg(long)]
    litellm_config: Option<PathBuf>,
}

impl Source {
    fn dialect(&self) -> Dialect {
        if self.litellm_config.is_some() { Dialect::LiteLlm } else { Dialect::OpenAi }
    }

    /// The one file of the two.
    fn file(&self) -> &Path {
        self.litellm_config.as_deref().or(self.fleet.as_deref()).unwrap_or(Path::new("fleet.yaml"))
    }
}

/// How long /readyz says no before the port closes, when an orchestrator ends the gateway.
const NOTICE: Duration = Duration::from_secs(1);

/// What kept the gateway from starting, and the exit code that says whose fault it is.
type Refusal = (Exit, String);

pub(super) fn run(args: &Args, collect: fn()) -> Exit {
    let runtime = match runtime(collect) {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: cannot start: {e}");
            return Exit::Environment;
        }
    };
    match runtime.block_on(serve(args)) {
        Ok(exit) => exit,
        Err((exit, message)) => {
            eprintln!("{}", message.trim_end());
            exit
        }
    }
}

/// On one core a runtime of one thread: threads that can only take turns have nothing to share. A thread that is about to wait
/// calls `collect`, which lets go of its memory.
fn runtime(collect: fn()) -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut builder = match cores {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.enable_all().on_thread_park(move || now_and_then(collect)).build()
}

/// A thread that has waited since it was told to let go of memory, and since others freed more of its own, would keep that
/// until there is work for it. A task that does nothing wakes one.
async fn wake_the_idle() {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut ticks = tokio::time::interval(Duration::from_secs(2));
    loop {
        ticks.tick().await;
        (0..threads).for_each(|_| drop(tokio::spawn(async {})));
    }
}

/// Once a second at most.
fn now_and_then(what: fn()) {
    thread_local!(static LAST: Cell<Option<Instant>> = const { Cell::new(None) });
    let now = Instant::now();
    if LAST.get().is_none_or(|last| now - last >= Duration::from_secs(1)) {
        LAST.set(Some(now));
        what();
    }
}

async fn serve(args: &Args) -> Result<Exit, Refusal> {
    dns::check_settings().map_err(|why| (Exit::Usage, format!("error: {why}")))?;
    let loaded = load(&args.source, colour_on_stderr())?;
    let fleet = loaded.fleet.clone();
    let mut sockets = Sockets::from_env();
    let data = sockets.place(0, args.listen.unwrap_or(fleet.gateway.listen))?;
    let admin = sockets.place(1, args.admin.unwrap_or(fleet.gateway.admin))?;
    let (listen, admin_address) = (data.address(), admin.address());
    let access = Access { token: std::env::var(TOKEN_VARIABLE).ok().filter(|t| !t.is_empty()) };
    may_listen(&fleet, listen, admin_address, &access)?;
    let tls = fleet.gateway.tls.clone().map(Listener::open).transpose();
    let tls = tls.map_err(|why| (Exit::Usage, format!("error: gateway.tls: {why}")))?;
    let (data, admin) = (data.listener("--listen")?, admin.listener("--admin")?);
    let outputs = Outputs {
        requests: Some(Box::new(std::io::stdout())),
        decisions: args.decision_log.as_deref().map(append).transpose()?,
    };
    // Before the ready line: whoever reads it may stop the gateway at once, and then expects it to drain.
    let signals = Signals::new().map_err(|e| (Exit::Environment, format!("error: cannot wait for signals: {e}")))?;
    let ready = Ready::of(&fleet, &data, &admin)?;
    let setup = Setup {
        loaded,
        data: Arc::new(data),
        tls,
        admin,
        connector: Arc::new(Tcp),
        outputs,
        access,
        reload: reload(args.source.clone(), listen, admin_address),
        watched: (!args.no_watch).then(|| args.source.file().to_owned()),
        dialect: args.source.dialect(),
        seed: seed(),
    };
    // Nothing is ready that does not start; and until the line is out, no request's line may come before it.
    let mut out = std::io::stdout().lock();
    let running = outrigger_gateway::start(setup).map_err(|e| (Exit::Environment, format!("error: {e}")))?;
    ready.tell(&mut out)?;
    drop(out);
    tokio::spawn(wake_the_idle());
    Ok(until_stopped(running, signals).await)
}

async fn until_stopped(running: Running, mut signals: Signals) -> Exit {
    let interrupted = signals.next().await;
    eprintln!(
        "draining: no new connections; requests in flight may end within {:?}",
        running.live.snapshot().fleet.gateway.drain
    );
    let clean = tokio::select! {
        clean = running.stop(if interrupted { Duration::ZERO } else { NOTICE }) => clean,
        _ = signals.next() => false,
    };
    if !clean {
        eprintln!("stopped before every request had ended; those streams got an error event");
    }
    if interrupted { Exit::Interrupted } else { Exit::Yes }
}

/// SIGTERM and Ctrl-C, noticed from the moment that this is made.
#[derive(Debug)]
pub(super) struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// `true` for Ctrl-C.
    pub(super) async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.term.recv() => false,
            _ = self.int.recv() => true,
        }
    }
}

/// Reads what is served and resolves its secrets; warnings are printed.
fn load(source: &Source, in_colour: bool) -> Result<Loaded, Refusal> {
    let (loaded, variables) = match &source.litellm_config {
        Some(config) => imported(config)?,
        None => (read(source.file(), in_colour)?, Variables::default()),
    };
    if loaded.warnings.count(Severity::Warning) > 0 {
        eprint!("{}", loaded.warnings.render(in_colour));
    }
    let variable = |name: &str| variables.get(name).or_else(|| std::env::var(name).ok());
    let secrets = secrets::resolve_with(&loaded.fleet, &variable)
        .map_err(|faults| (Exit::Usage, format!("error: {}", faults.join("\nerror: "))))?;
    Ok(Loaded { fleet: Arc::new(loaded.fleet), secrets })
}

/// The configuration of LiteLLM's proxy as a fleet, with the variables that it sets itself. What could not be carried
/// over is said on standard error.
fn imported(path: &Path) -> Result<(config::Loaded, Variables), Refusal> {
    let imported =
        import::read(path, None, None, true).map_err(|(exit, message)| (exit, format!("error: {message}")))?;
    eprint!("{}", imported.report.render());
    let Some(text) = imported.fleet else {
        let message = format!("error: no model of {} can be served; mend what is refused", path.display());
        return Err((Exit::Usage, message));
    };
    let loaded = config::load_imported(&text, Path::new("."))
        .map_err(|faults| (Exit::Usage, format!("{faults}error: the imported fleet has faults; please report this")))?;
    if imported.report.has(Verdict::Refused) {
        eprintln!("serving without what is refused; `outrigger import litellm` writes the fleet that is served");
    }
    Ok((loaded, imported.secrets))
}

/// Reads the fleet file.
fn read(path: &Path, in_colour: bool) -> Result<config::Loaded, Refusal> {
    config::load(path).map_err(|error| match error {
        Error::Faulty(faults) => (
            Exit::Usage,
            format!(
                "{}error: {path} cannot be served; `outrigger check {path}` shows the same",
                faults.render(in_colour),
                path = path.display()
            ),
        ),
        Error::Unreadable { .. } => (Exit::Environment, format!("error: {error}")),
    })
}

/// Reads the file again. The rules of the start hold for every fleet: one that drops its keys must not open a port
/// that others can reach.
fn reload(source: Source, listen: SocketAddr, admin: SocketAddr) -> Arc<outrigger_gateway::reload::Read> {
    let access = Access { token: std::env::var(TOKEN_VARIABLE).ok().filter(|t| !t.is_empty()) };
    Arc::new(move || {
        // What is wrong is also shown by the admin API, where colours are noise.
        let loaded = load(&source, false).map_err(|(_, message)| message)?;
        may_listen(&loaded.fleet, listen, admin, &access).map_err(|(_, message)| message)?;
        Ok(loaded)
    })
}

/// Without keys anyone who reaches the port is served; without a token anyone who reaches the admin port may drain.
fn may_listen(fleet: &Fleet, listen: SocketAddr, admin: SocketAddr, access: &Access) -> Result<(), Refusal> {
    let is_local = |ip: IpAddr| ip.is_loopback();
    if fleet.keys.is_empty() && !is_local(listen.ip()) {
        let message = format!(
            "error: without `keys:` only loopback may be listened on, not {listen}; add keys (`outrigger key new NAME`) or listen on 127.0.0.1"
        );
        return Err((Exit::Usage, message));
    }
    // Any other source of a fleet refuses such a key altogether.
    if has_known_key(fleet) && !is_local(listen.ip()) {
        let message = format!(
            "error: the master key is one that everybody knows, and with it only loopback may be listened on, not {listen}; \
             make one with `outrigger key new master`, and give it to the clients"
        );
        return Err((Exit::Usage, message));
    }
    if access.token.is_none() && !is_local(admin.ip()) {
        let message = format!("error: the admin listener on {admin} needs {TOKEN_VARIABLE}; set it, or use 127.0.0.1");
        return Err((Exit::Usage, message));
    }
    if access.token.as_deref().is_some_and(weak::is_known) && !is_local(admin.ip()) {
        let message = format!(
            "error: {TOKEN_VARIABLE} is a key that everybody knows, and the admin listener on {admin} is for others too; set a \
             random one, or use 127.0.0.1"
        );
        return Err((Exit::Usage, message));
    }
    Ok(())
}

fn has_known_key(fleet: &Fleet) -> bool {
    let known = |hash: &KeyHash| matches!(hash, KeyHash::Literal(hash) if weak::known_key(hash).is_some());
    fleet.keys.iter().any(|key| key.sha256.iter().any(known))
}

fn append(path: &Path) -> Result<Box<dyn std::io::Write + Send>, Refusal> {
    let open = || {
        let mut file = File::options().create(true).append(true).open(path)?;
        if ends_within_a_line(path)? {
            file.write_all(b"\n")?;
        }
        Ok(file)
    };
    let file = open().map_err(|e: std::io::Error| {
        (
            Exit::Environment,
            format!("error: cannot write {}: {e}; give another file with --decision-log", path.display()),
        )
    })?;
    Ok(Box::new(file))
}

/// A process that was killed may have left half a line, which must not swallow the first one of this.
fn ends_within_a_line(path: &Path) -> std::io::Result<bool> {
    let about = std::fs::metadata(path)?;
    if !about.is_file() || about.len() == 0 {
        return Ok(false);
    }
    let mut file = File::open(path)?;
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// What is said when the gateway serves: a line for programs and one for people.
struct Ready {
    line: serde_json::Value,
    words: String,
}

impl Ready {
    fn of(fleet: &Fleet, data: &TcpListener, admin: &TcpListener) -> Result<Self, Refusal> {
        let address = |listener: &TcpListener, scheme| {
            let at = listener.local_addr().map_err(|e| (Exit::Environment, format!("error: {e}")))?;
            Ok(format!("{scheme}://{at}"))
        };
        let scheme = if fleet.gateway.tls.is_some() { "https" } else { "http" };
        let (listen, admin) = (address(data, scheme)?, address(admin, "http")?);
        let models: Vec<&str> = fleet.models.iter().map(|m| m.name.as_str()).collect();
        let words = format!("serving {} on {listen}, admin on {admin}", models.join(", "));
        let line = serde_json::json!({ "event": "ready", "listen": listen, "admin": admin, "fleet": fleet.digest });
        Ok(Self { line, words })
    }

    fn tell(&self, out: &mut impl std::io::Write) -> Result<(), Refusal> {
        let written = writeln!(out, "{}", self.line).and_then(|()| out.flush());
        written.map_err(|e| (Exit::Environment, format!("error: cannot write the ready line: {e}")))?;
        eprintln!("{}", self.words);
        Ok(())
    }
}

pub(super) fn seed() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness replicas share a phase, which costs exactness of the split and nothing else.
    getrandom::fill(&mut bytes).ok();
    u64::from_le_bytes(bytes)
}
