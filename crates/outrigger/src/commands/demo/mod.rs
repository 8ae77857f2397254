//! `outrigger demo`: three simulated clouds, a gateway and steady traffic on one machine, to watch and to break.
//!
//! Each cloud is a process of its own, so that it can be killed as a cloud is; the gateway is the one that `serve`
//! runs. Whoever is asked to believe the numbers can: they are counted by the client that sends the traffic.

mod clouds;
mod control;
mod screen;

use std::{
    io::{ErrorKind, IsTerminal as _, Write as _},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use outrigger_fakes::load::{Load, LoadOptions, Snapshot};
use outrigger_gateway::{Running, Setup, admin::Access, events::Outputs, litellm::Dialect, live::Loaded, net::Tcp};
use serde_json::json;
use tokio::net::TcpListener;

use self::{clouds::Clouds, screen::Screen};
use super::{Exit, secrets, serve, takes_escapes};
use crate::config;

const FLEET: &str = include_str!("fleet.yaml");
const MODEL: &str = "llama-70b";
/// How often the screen is drawn.
const FRAME: Duration = Duration::from_millis(500);
/// How often a line is printed where there is no screen.
const LINE: Duration = Duration::from_secs(5);

/// Watch a fleet of three simulated clouds survive what you do to it.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// End after this long, such as 30s; otherwise with Ctrl-C.
    #[arg(long = "for", value_parser = seconds)]
    time: Option<Duration>,
    /// Requests per second; half of them are streams.
    #[arg(long, default_value_t = 20.0, value_parser = rate)]
    rate: f64,
    /// Print JSON lines instead of a screen: one when ready, one when done.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Break a cloud of the running demo.
    Break(control::Break),
    /// Heal a cloud of the running demo; one that was killed is started again.
    Heal(control::Heal),
}

pub(super) fn run(args: &Args) -> Exit {
    match &args.action {
        Some(Action::Break(args)) => return control::break_cloud(args),
        Some(Action::Heal(args)) => return control::heal_cloud(args),
        None => {}
    }
    let runtime = tokio::runtime::Runtime::new().context("cannot start");
    match runtime.and_then(|runtime| runtime.block_on(demo(args))) {
        Ok(exit) => exit,
        Err(e) => {
            eprintln!("error: {e:#}");
            Exit::Environment
        }
    }
}

async fn demo(args: &Args) -> Result<Exit> {
    let mut clouds = Clouds::start().await?;
    let gateway = gateway(&clouds).await?;
    let (listen, admin) = (format!("http://{}", gateway.listen), format!("http://{}", gateway.admin));
    let control = control::Listener::open(&admin, &clouds).await?;
    // Before the ready line: whoever reads it may end the demo at once.
    let mut signals = serve::Signals::new().context("cannot wait for signals")?;
    if args.json {
        say(&json!({
            "event": "ready",
            "listen": listen,
            "admin": admin,
            "fleet": gateway.live.snapshot().fleet.digest,
            "clouds": clouds.to_json(),
        }))?;
    }
    let load = Load::start(LoadOptions { requests_per_second: args.rate, ..LoadOptions::new(listen, MODEL) })?;
    let mut screen = (!args.json).then(|| Screen::new(has_screen(), &gateway, &clouds, load.stats()));
    let interrupted = watch(args, &mut clouds, &control, screen.as_mut(), &mut signals).await;
    load.stop();
    let settle = tokio::time::timeout(Duration::from_secs(30), load.finish());
    let seen = tokio::select! {
        seen = settle => seen.ok(),
        _ = signals.next() => None,
    };
    drop(screen);
    let failed = report(args, seen)?;
    gateway.stop(Duration::ZERO).await;
    clouds.stop().await;
    Ok(match (interrupted, failed) {
        (true, _) => Exit::Interrupted,
        (false, true) => Exit::No,
        (false, false) => Exit::Yes,
    })
}

/// The gateway of `serve`, on free ports, in front of the clouds.
async fn gateway(clouds: &Clouds) -> Result<Running> {
    let text =
        clouds.addresses().fold(FLEET.to_owned(), |text, (name, address)| text.replace(&name.to_uppercase(), address));
    let loaded = config::load_str(&text, std::path::Path::new("/")).context("the demo's fleet")?;
    let secrets = secrets::resolve(&loaded.fleet).map_err(|faults| anyhow::anyhow!(faults.join("; ")))?;
    let setup = Setup {
        loaded: Loaded { fleet: Arc::new(loaded.fleet), secrets },
        data: Arc::new(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?),
        admin: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
        tls: None,
        connector: Arc::new(Tcp),
        outputs: Outputs::default(),
        access: Access::default(),
        reload: Arc::new(|| Err("the demo's fleet has no file".to_owned())),
        watched: None,
        dialect: Dialect::default(),
        seed: serve::seed(),
    };
    Ok(outrigger_gateway::start(setup)?)
}

/// Draws and serves `demo heal` until it is time to end. `true` when ended by Ctrl-C.
async fn watch(
    args: &Args,
    clouds: &mut Clouds,
    control: &control::Listener,
    mut screen: Option<&mut Screen>,
    signals: &mut serve::Signals,
) -> bool {
    let end = async {
        match args.time {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
    };
    let every = if screen.as_ref().is_some_and(|s| s.is_live()) { FRAME } else { LINE };
    let mut frames = tokio::time::interval(every);
    let mut end = std::pin::pin!(end);
    loop {
        tokio::select! {
            interrupted = signals.next() => return interrupted,
            () = &mut end => return false,
            request = control.next() => {
                if let Some(request) = request {
                    let answer = clouds.restart(&request.cloud).await;
                    request.answer(answer).await;
                }
            }
            _ = frames.tick() => {
                if let Some(screen) = screen.as_deref_mut() {
                    screen.draw(clouds).await;
                }
            }
        }
    }
}

/// The last line. `true` when requests failed.
fn report(args: &Args, seen: Option<Snapshot>) -> Result<bool> {
    let Some(seen) = seen else { return Ok(true) };
    if args.json {
        say(&json!({
            "event": "done",
            "requests": seen.requests,
            "failed": seen.failed,
            "cut": seen.cut,
            "by_backend": seen.by_backend,
        }))?;
    } else {
        let shares: Vec<String> = seen.by_backend.iter().map(|(b, n)| format!("{b} {n}")).collect();
        println!("\n{} requests, {} failed, {} cut: {}", seen.requests, seen.failed, seen.cut, shares.join(", "));
    }
    for failure in seen.failures.iter().filter(|_| seen.failed > 0).take(5) {
        eprintln!("{}: {}", failure.why, failure.body.trim());
    }
    Ok(seen.failed > 0)
}

fn say(line: &serde_json::Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        // A reader that has gone away (`| head`) is no fault of the demo.
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e).context("cannot write to standard output"),
        _ => Ok(()),
    }
}

fn has_screen() -> bool {
    let out = std::io::stdout();
    out.is_terminal() && takes_escapes(&out)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || "give it as 30s, 5m or 1h".to_owned();
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u64 = text[..text.len() - unit.len()].parse().map_err(|_| wrong())?;
    match unit {
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(60 * number)),
        "h" => Ok(Duration::from_secs(3_600 * number)),
        _ => Err(wrong()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 10_000.0 => Ok(rate),
        _ => Err("give requests per second, above 0 and up to 10000".to_owned()),
    }
}
