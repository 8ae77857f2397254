//! The lab's client: one request over a connection of its own, and every byte that came back.
//!
//! Both versions of HTTP are read from the socket by code that shares nothing with the gateway's.

mod hpack;
pub mod http1;
pub mod http2;

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use serde_json::json;

use crate::{
    Pace,
    cell::Cell,
    matrix::{Behaviour, Endpoint, Protocol},
    stage::TOKENS,
};

/// Longer than any answer of a cell may take.
const PATIENCE: Duration = Duration::from_secs(8);

/// When a client that leaves has seen nothing that it could wait for.
const LEAVES_AFTER: Duration = Duration::from_millis(150);

/// After leaving one request of a connection that could have others.
const STAYS_CONNECTED: Duration = Duration::from_secs(1);

/// A request as the lab sends it.
#[derive(Clone, Debug)]
pub struct Ask {
    pub to: SocketAddr,
    pub path: &'static str,
    pub key: String,
    pub body: String,
    pub behaviour: Behaviour,
    pub patience: Duration,
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Got {
    /// 0: no answer at all.
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// The body came to the end that its framing announces.
    pub ended: bool,
    /// By what it ended, in words.
    pub how: String,
    /// The client left before that.
    pub left: bool,
}

impl Got {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl Ask {
    pub fn new(cell: &Cell, to: SocketAddr, model: &str, key: &str) -> Self {
        let (path, body) = (cell.endpoint.path(), body(cell, model));
        Self { to, path, key: key.to_owned(), body, behaviour: cell.row.client, patience: PATIENCE }
    }

    pub(crate) fn at(self, pace: Pace) -> Self {
        Self { patience: pace.of(PATIENCE), ..self }
    }

    pub async fn send(&self, protocol: Protocol) -> io::Result<Got> {
        let sent = async {
            match protocol {
                Protocol::Http1 => http1::send(self).await,
                Protocol::Http2 => http2::send(self).await,
            }
        };
        tokio::time::timeout(self.patience, sent).await?
    }
}

fn body(cell: &Cell, model: &str) -> String {
    let messages = json!([{"role": "user", "content": "Count."}]);
    let mut body = match cell.endpoint {
        Endpoint::Chat | Endpoint::Messages => json!({"model": model, "messages": messages, "max_tokens": TOKENS}),
        Endpoint::Completions => json!({"model": model, "prompt": "Count.", "max_tokens": TOKENS}),
        // The API takes no fewer than 16 tokens, which some gateways see to; the engines stop by themselves before that.
        Endpoint::Responses => json!({"model": model, "input": "Count."}),
    };
    if cell.streams() {
        body["stream"] = json!(true);
    }
    body.to_string()
}

/// Whether a client that leaves in the middle has seen enough.
fn has_seen_enough(body: &[u8]) -> bool {
    body.windows(3).any(|three| three == b" t2")
}
