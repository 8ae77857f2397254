//! Looking at one backend: its pages, which engine they are of, and its answers in words.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use outrigger_core::{fleet::Engine, record::Fault};
use outrigger_gateway::{
    ask::{Patience, Reply, Unanswered, ask},
    probe,
    upstream::Upstream,
};
use outrigger_wire::{
    engine::{Identity, Look, Pages, Served, identify},
    error::UpstreamError,
    metrics::Dialect,
};

/// For a page that takes no thinking.
const PAGE: Duration = Duration::from_secs(5);
/// A list of models or a page of metrics is smaller; what is larger is something else.
const MOST_BYTES: usize = 4 << 20;

/// For a page of a backend.
pub(crate) fn page_patience(connect: Duration) -> Patience {
    Patience { connect, whole: PAGE.max(connect), most_bytes: MOST_BYTES }
}

/// For an answer that the model has to make. The first of its kind may have to compile something.
pub(crate) fn answer_patience(connect: Duration, whole: Duration) -> Patience {
    Patience { connect, whole, most_bytes: MOST_BYTES }
}

/// Gets a page of the backend's host.
pub(crate) async fn get(upstream: &Upstream, path: &str, patience: Patience) -> Result<Reply, Unanswered> {
    let mut request = upstream.request(path, Bytes::new());
    request.headers_mut().insert(probe::HEADER, HeaderValue::from_static("1"));
    ask(upstream, request, patience).await
}

/// Which engine it is, by the pages that it has; those that do not come are as good as absent.
pub(crate) async fn recognise(upstream: &Upstream, root: &str, models: &[Served], connect: Duration) -> Identity {
    let mut pages: Pages = BTreeMap::new();
    for look in Look::ALL {
        match get(upstream, &format!("{root}{}", look.path()), page_patience(connect)).await {
            Ok(reply) if reply.status == StatusCode::OK => drop(pages.insert(look, reply.body)),
            // One that hangs here would hang at each of them.
            Err(silent) if silent.fault == Fault::TotalTimeout => break,
            _ => {}
        }
    }
    identify(models, &pages)
}

/// The engine as the fleet file says it.
pub(crate) fn engine_of(dialect: Option<Dialect>) -> Engine {
    match dialect {
        Some(Dialect::Vllm) => Engine::Vllm,
        Some(Dialect::Sglang) => Engine::Sglang,
        Some(Dialect::Tgi) => Engine::Tgi,
        Some(Dialect::Trtllm) => Engine::Trtllm,
        Some(Dialect::Llamacpp) => Engine::Llamacpp,
        Some(Dialect::Dynamo) => Engine::Dynamo,
        None => Engine::Openai,
    }
}

/// An answer in words, in the backend's own where it has any; a page for browsers is only named.
pub(crate) fn said(upstream: &Upstream, reply: &Reply) -> String {
    /// As much as reads well on a line.
    const LONGEST: usize = 160;
    let (status, body) = (reply.status.as_u16(), reply.body.trim_ascii());
    let kind = reply.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if body.is_empty() {
        return format!("{status} with nothing");
    }
    if kind.contains("html") || body.starts_with(b"<") {
        return format!("{status} with a page for browsers");
    }
    // Before it is cut, or half a secret would be left.
    let message = upstream.without_secrets(&UpstreamError::read(None, body).message);
    format!("{status}: {}", message.chars().take(LONGEST).collect::<String>())
}
