//! The store's listener and its connections.

use std::{pin::pin, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};

use crate::{
    conn::{BreakableStream, Line},
    store::{Shared, operations},
};

/// Clients of S3 keep connections for longer than they are silent.
const IDLE: Duration = Duration::from_secs(20);

/// Runs until it is aborted; with it end all its connections.
pub(super) async fn run(shared: Arc<Shared>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => {
                    number += 1;
                    connections.spawn(serve(shared.clone(), tcp, number));
                }
                // Out of file descriptors, or the client gave up: neither is cured by trying faster.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn serve(shared: Arc<Shared>, tcp: TcpStream, number: u64) {
    // An error here only delays the last piece of an answer.
    let _ = tcp.set_nodelay(true);
    let line = Arc::new(Line::new(number));
    let service = service_fn(|request| operations::answer(shared.clone(), line.clone(), request));
    let stream = TokioIo::new(BreakableStream::new(tcp, line.clone()));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE);
    let connection = pin!(http.serve_connection(stream, service));
    // How a connection ends is its client's business; only its requests are recorded.
    tokio::select! {
        biased;
        () = line.over() => {}
        _ = connection => {}
    }
}
