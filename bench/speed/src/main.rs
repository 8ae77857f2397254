//! What the speed of gateways is measured with; `bench/speed.py` runs it. Each command is one thread, so that it can be
//! pinned to a core, and does as little as it can for a request, so that the gateway between them is what is measured.

mod bare;
mod load;
mod message;
mod mock;

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answers as an engine of vLLM's would, from memory
    Mock(mock::Mock),
    /// Asks over a fixed number of connections, each anew as soon as it is answered
    Closed(load::Closed),
    /// Asks at a fixed rate, whether or not the answers keep up
    Open(load::Open),
    /// Opens streams at a fixed rate, and times every event of them
    Streams(load::Streams),
    /// Passes requests on in turn and does nothing else: what HTTP alone costs in this language
    Bare {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long = "to", required = true)]
        to: Vec<SocketAddr>,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    tokio::task::LocalSet::new()
        .run_until(async {
            match Cli::parse().command {
                Command::Mock(mock) => mock.run().await,
                Command::Closed(closed) => closed.run().await,
                Command::Open(open) => open.run().await,
                Command::Streams(streams) => streams.run().await,
                Command::Bare { listen, to } => bare::run(listen, to).await,
            }
        })
        .await
}
