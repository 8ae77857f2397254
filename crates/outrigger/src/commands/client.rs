//! Talking to an admin listener: one small request, its JSON answer, and errors that say what to do.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use outrigger_core::record::Fault;
use outrigger_gateway::net::{Connect as _, Tcp};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::time::timeout;

/// Where a local gateway's admin listener is by default.
pub(super) const DEFAULT_ADMIN: &str = "http://127.0.0.1:8081";
/// The variable that holds the admin listener's token, for the gateway and for these commands.
pub(super) const TOKEN_VARIABLE: &str = "OUTRIGGER_ADMIN_TOKEN";
const PATIENCE: Duration = Duration::from_secs(10);
const LARGEST: usize = 256 << 20;

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

impl Reply {
    /// The JSON of a successful answer; otherwise the error's own message.
    pub(super) fn json(&self) -> Result<Value> {
        let value: Value =
            serde_json::from_slice(&self.body).context("the answer is not JSON; is this an admin listener?")?;
        if (200..300).contains(&self.status) {
            return Ok(value);
        }
        match value.pointer("/error/message").and_then(Value::as_str) {
            Some(message) => bail!("{message}"),
            None => bail!("the answer was {}: {value}", self.status),
        }
    }
}

/// A name as a part of a path.
pub(super) fn part(name: &str) -> impl std::fmt::Display {
    utf8_percent_encode(name, NON_ALPHANUMERIC)
}

/// Sends one request to `base` (such as `http://127.0.0.1:8081`) and waits for the whole answer.
pub(super) async fn call(method: Method, base: &str, path: &str, body: Option<&Value>) -> Result<Reply> {
    let address =
        base.strip_prefix("http://").with_context(|| format!("{base} is not an http:// URL"))?.trim_end_matches('/');
    match timeout(PATIENCE, exchange(method, address, path, body)).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(e)) => bail!("cannot talk to {base}: {e:#}\n  help: is it running? --admin names another address"),
        Err(_) => bail!(
            "{base} did not answer within {} s\n  help: is that its address? --admin names another",
            PATIENCE.as_secs()
        ),
    }
}

async fn exchange(method: Method, address: &str, path: &str, body: Option<&Value>) -> Result<Reply> {
    let (host, port) = address.rsplit_once(':').context("the address has no port")?;
    // As the gateway connects, which needs no C library: that of a static binary cannot look names up.
    let stream = Tcp.connect(host.trim_matches(['[', ']']), port.parse()?).await.map_err(unreachable)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request =
        Request::builder().method(method).uri(path).header(header::HOST, address).header(header::CONNECTION, "close");
    if let Ok(token) = std::env::var(TOKEN_VARIABLE) {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let bytes = match body {
        Some(body) => {
            request = request.header(header::CONTENT_TYPE, "application/json");
            Bytes::from(body.to_string())
        }
        None => Bytes::new(),
    };
    let response = sender.send_request(request.body(Full::new(bytes))?).await?;
    let status = response.status().as_u16();
    let body =
        Limited::new(response.into_body(), LARGEST).collect().await.map_err(|e| anyhow::anyhow!("{e}"))?.to_bytes();
    Ok(Reply { status, body })
}

fn unreachable(fault: Fault) -> anyhow::Error {
    anyhow::Error::msg(match fault {
        Fault::Dns => "the name is not known to /etc/hosts or to the name servers",
        Fault::Refused => "nothing listens there (connection refused)",
        Fault::ConnectTimeout => "nothing answers there (timed out)",
        Fault::Reset => "the connection was reset",
        _ => "this machine has no connection to give (ports, file descriptors or memory)",
    })
}

/// Runs what waits for a network.
pub(super) fn block_on<T, E: From<std::io::Error>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
