//! The fakes that only tests need, as processes: the object store and the long way to it. Engines are `outrigger fake`, which
//! users have, too.
//!
//! Each prints one line of JSON with its addresses when it serves, and ends by SIGTERM, Ctrl-C or with its parent.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use outrigger_fakes::{FakeStore, Relay, RelayOptions, StoreOptions, until_asked};
use serde_json::{Value, json};

#[derive(Debug, Parser)]
enum Command {
    /// An object store that speaks S3, counts and breaks.
    Store(StoreArgs),
    /// A TCP relay with a delay.
    Relay(RelayArgs),
}

#[derive(Debug, clap::Args)]
struct StoreArgs {
    /// Where buckets are folders and objects files.
    #[arg(long)]
    root: PathBuf,
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where faults are set and the ledger is read.
    #[arg(long, default_value = "127.0.0.1:0")]
    admin: SocketAddr,
    /// A line of JSON for each request; ROOT/.store/ledger.jsonl if it is left out.
    #[arg(long)]
    ledger: Option<PathBuf>,
    /// Made at the start.
    #[arg(long)]
    bucket: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct RelayArgs {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[arg(long)]
    to: SocketAddr,
    /// Each way, in milliseconds: a round trip is twice as long.
    #[arg(long, default_value_t = 40)]
    delay_ms: u64,
    /// Of all connections together, each way.
    #[arg(long)]
    bytes_per_second: Option<u64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Command::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(3)
        }
    }
}

async fn run(command: Command) -> std::io::Result<()> {
    match command {
        Command::Store(args) => {
            for bucket in &args.bucket {
                std::fs::create_dir_all(args.root.join(bucket))?;
            }
            let options = StoreOptions { root: args.root, listen: args.listen, admin: args.admin, ledger: args.ledger };
            let store = FakeStore::spawn(options).await?;
            ready(&json!({"event": "ready", "listen": store.url(), "admin": store.admin_url()}));
            until_asked().await
        }
        Command::Relay(RelayArgs { listen, to, delay_ms, bytes_per_second }) => {
            let delay = Duration::from_millis(delay_ms);
            let relay = Relay::spawn(RelayOptions { listen, to, delay, bytes_per_second }).await?;
            ready(&json!({"event": "ready", "listen": format!("http://{}", relay.listen_addr())}));
            until_asked().await
        }
    }
}

fn ready(line: &Value) {
    println!("{line}");
}
