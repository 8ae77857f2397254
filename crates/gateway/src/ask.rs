//! One question to a backend and its whole answer, for commands that look at backends and serve nobody.
//!
//! On a connection of its own, through the same connector, TLS and headers as a request of a client, so that what
//! answers here answers there. Unlike an attempt it ends with words for a person: whoever runs a command has no metrics
//! to look into. Time and size are bounded, since what is asked may be anything that listens.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use outrigger_core::record::Fault;
use tokio::time::timeout;

use crate::{body::Upload, upstream::Upstream};

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// No whole answer came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unanswered {
    pub fault: Fault,
    /// In words that go on from the backend's name: `does not resolve`.
    pub why: String,
}

/// How long a question may take, and how large its answer may be.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub connect: Duration,
    /// From the start to the last byte.
    pub whole: Duration,
    pub most_bytes: usize,
}

/// Asks. The request comes from [`Upstream::request`].
pub async fn ask(upstream: &Upstream, request: Request<Upload>, patience: Patience) -> Result<Reply, Unanswered> {
    let exchanged = timeout(patience.whole, exchange(upstream, request, patience)).await;
    exchanged.unwrap_or_else(|_| {
        Err(Unanswered {
            fault: Fault::TotalTimeout,
            why: format!("gives no whole answer within {:?}", patience.whole),
        })
    })
}

async fn exchange(upstream: &Upstream, request: Request<Upload>, patience: Patience) -> Result<Reply, Unanswered> {
    let no_answer = |fault: Fault| Unanswered { fault, why: words(fault, upstream, patience.connect) };
    let mut lease = upstream.pool.fresh(patience.connect).await.map_err(no_answer)?;
    let (head, mut body) = lease.send(request).await.map_err(|lost| no_answer(lost.fault))?.into_parts();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let cut = |_| Unanswered { fault: Fault::Cut, why: "breaks off in the middle of its answer".to_owned() };
        let data = frame.map_err(cut)?.into_data().unwrap_or_default();
        if bytes.len() + data.len() > patience.most_bytes {
            let why = format!("answers with more than {} KiB", patience.most_bytes >> 10);
            return Err(Unanswered { fault: Fault::BadBody, why });
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Reply { status: head.status, headers: head.headers, body: bytes.into() })
}

fn words(fault: Fault, upstream: &Upstream, connect: Duration) -> String {
    match fault {
        Fault::Dns => "has a name that does not resolve".to_owned(),
        Fault::Refused => "refuses the connection: nothing listens there".to_owned(),
        Fault::ConnectTimeout => format!("accepts no connection within {connect:?}"),
        Fault::Tls => {
            let why = upstream.pool.new_trouble().unwrap_or_else(|| "it was refused".to_owned());
            format!("allows no TLS connection: {why}")
        }
        Fault::Reset => "closes the connection without an answer".to_owned(),
        Fault::BadBody => "answers with something that is not HTTP".to_owned(),
        Fault::Local => "cannot be asked: this machine has no port or file descriptor left".to_owned(),
        other => format!("fails ({})", other.as_str()),
    }
}
