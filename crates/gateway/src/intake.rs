//! Reading a request: its whole body within bounds, and the few members that routing needs.
//!
//! The body has to be held until the answer commits, because a failover sends it again. So it counts against one
//! budget of held bytes for all requests; a request that does not fit is turned away rather than queued in memory.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use outrigger_core::fleet::{Api, Fleet, KeyId, Limits, ModelId};
use outrigger_wire::{
    endpoint::{Endpoint, Form},
    json,
    request::{self, RequestHead},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::reply::Failure;

/// Deepest nesting of a request's JSON.
pub const MAX_DEPTH: usize = 128;

/// Bytes that are made room for before any have come. A length is only a client's word; who has sent this much is given
/// room for the rest in one step, since memory that is never written to costs nothing and every step copies.
const FIRST_ROOM: usize = 1 << 20;

/// A body and its share of the budget, released together.
#[derive(Debug)]
pub struct Held {
    pub bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

/// Reads a body of at most `limits.body_bytes`, in at most `limits.read_timeout`.
pub async fn read(
    headers: &HeaderMap,
    body: Incoming,
    limits: &Limits,
    held: &Arc<Semaphore>,
) -> Result<Held, Failure> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|v| v != "identity") {
        let message = "compressed request bodies are not accepted; send the body without Content-Encoding";
        return Err(Failure::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid_request_error",
            "unsupported_encoding",
            message,
        ));
    }
    if body.size_hint().lower() > limits.body_bytes {
        return Err(too_large(limits));
    }
    let deadline = Instant::now() + limits.read_timeout;
    collect(body, limits, held, deadline).await
}

async fn collect(
    mut body: Incoming,
    limits: &Limits,
    held: &Arc<Semaphore>,
    deadline: Instant,
) -> Result<Held, Failure> {
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(declared.min(FIRST_ROOM));
    let mut permit = share(held, 0)?;
    loop {
        let frame = timeout_at(deadline, body.frame()).await.map_err(|_| too_slow(limits.read_timeout))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| Failure::invalid("incomplete_body", "the request body ended early"))?;
        let Ok(data) = frame.into_data() else { continue };
        if (bytes.len() + data.len()) as u64 > limits.body_bytes {
            return Err(too_large(limits));
        }
        // One permit that grows: a list of them would outweigh a body that comes byte by byte.
        permit.merge(share(held, data.len())?);
        make_room(&mut bytes, data.len(), declared);
        bytes.extend_from_slice(&data);
    }
    Ok(Held { bytes: bytes.into(), _permit: permit })
}

fn share(held: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, Failure> {
    held.clone().try_acquire_many_owned(bytes as u32).map_err(|_| full())
}

fn make_room(bytes: &mut Vec<u8>, more: usize, declared: usize) {
    let needed = bytes.len() + more;
    if needed > bytes.capacity() && needed <= declared {
        bytes.reserve_exact(declared - bytes.len());
    }
}

/// Reads what routing needs, and finds the model. One that the key may not use looks like one that does not exist.
pub fn parse(
    endpoint: Endpoint,
    headers: &HeaderMap,
    body: &[u8],
    fleet: &Fleet,
    key: Option<KeyId>,
) -> Result<(RequestHead, ModelId), Failure> {
    let read = match endpoint.form() {
        Form::Json => request::parse(endpoint, body, &json::Limits { max_depth: MAX_DEPTH }),
        Form::Multipart => {
            let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
            request::parse_form(endpoint, body, content_type)
        }
    };
    let head = read.map_err(|fault| Failure::invalid(fault.code(), fault.message()).param(fault.param()))?;
    match fleet.model_by_name(&head.model).filter(|model| may_use(fleet, key, *model)) {
        Some(model) => Ok((head, model)),
        None => Err(unknown_model(&head.model, fleet, key)),
    }
}

/// What a backend has to have for this endpoint.
pub fn api(endpoint: Endpoint) -> Api {
    match endpoint {
        Endpoint::Chat => Api::Chat,
        Endpoint::Completions => Api::Completions,
        Endpoint::Embeddings => Api::Embeddings,
        Endpoint::Responses => Api::Responses,
        Endpoint::Messages | Endpoint::CountTokens => Api::Messages,
        Endpoint::Rerank => Api::Rerank,
        Endpoint::Speech | Endpoint::Transcriptions | Endpoint::Translations => Api::Audio,
        Endpoint::ImageGenerations | Endpoint::ImageEdits | Endpoint::ImageVariations => Api::Images,
    }
}

/// A request that refers to what a backend keeps has to come to that backend, which only a model with one backend for
/// this endpoint can promise.
pub fn refuse_reference(head: &RequestHead, model: ModelId, fleet: &Fleet) -> Result<(), Failure> {
    let Some(param) = head.refers_by else { return Ok(()) };
    let shares = fleet.model(model).tiers.iter().flat_map(|tier| &tier.split);
    let mut backends: Vec<_> = shares
        .map(|share| share.backend)
        .filter(|backend| fleet.backend(*backend).apis.contains(api(head.endpoint)))
        .collect();
    backends.sort_unstable();
    backends.dedup();
    if backends.len() <= 1 {
        return Ok(());
    }
    let message = format!(
        "'{param}' refers to what one backend keeps, and '{}' is served by {}; send the whole conversation as `input`, or ask \
         for a model with one backend",
        head.model,
        backends.len()
    );
    Err(Failure::invalid("stored_state_not_shared", message).param(Some(param)))
}

/// Whether the key's own list of models, if it has one, has this one.
pub fn may_use(fleet: &Fleet, key: Option<KeyId>, model: ModelId) -> bool {
    let listed = key.and_then(|key| fleet.keys[key.index()].models.as_ref());
    listed.is_none_or(|models| models.contains(&model))
}

pub fn unknown_model(name: &str, fleet: &Fleet, key: Option<KeyId>) -> Failure {
    let shown: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
    let hint = match nearest(name, fleet, key) {
        Some(near) => format!("did you mean '{near}'? "),
        None => String::new(),
    };
    let message = format!("the model '{shown}' does not exist here; {hint}GET /v1/models lists them");
    Failure::new(StatusCode::NOT_FOUND, "invalid_request_error", "model_not_found", message).param(Some("model"))
}

/// The public name closest to `name`, of those that the key may use, if it is close enough to be a slip.
fn nearest<'a>(name: &str, fleet: &'a Fleet, key: Option<KeyId>) -> Option<&'a str> {
    if name.len() > 128 {
        return None;
    }
    let usable = fleet.models.iter().enumerate().filter(|(i, _)| may_use(fleet, key, ModelId(*i as u16)));
    let names = usable.flat_map(|(_, m)| std::iter::once(&m.name).chain(&m.aliases));
    let distance = |known: &str| strsim::levenshtein(&name.to_lowercase(), &known.to_lowercase());
    let scored = names.map(|n| (distance(n), n.as_str()));
    scored.min().filter(|(d, near)| *d <= near.len().max(name.len()) / 2).map(|(_, near)| near)
}

fn too_large(limits: &Limits) -> Failure {
    let message =
        format!("the request body is larger than {} bytes; send less, or raise gateway.limits.body", limits.body_bytes);
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "body_too_large", message)
}

fn too_slow(allowed: Duration) -> Failure {
    let message = format!("the request body did not arrive within {} s", allowed.as_secs());
    Failure::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", "body_timeout", message)
}

fn full() -> Failure {
    let mut failure = Failure::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "service_unavailable",
        "held_bytes",
        "the gateway holds as many request bodies as it may; retry later",
    );
    failure.retry_after = Some(Duration::from_secs(1));
    failure
}
