//! Probes: one real one-token generation, because a readiness endpoint that says 200 does not mean that the engine can
//! generate, and does not say which model it serves.
//!
//! The core decides which backend is to be probed and when; this only asks and reports back. It also tells the core,
//! ten times a second, when each busy backend was last heard, so that silence is noticed.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use outrigger_core::{
    fleet::{Api, Backend, BackendId, Engine, Fleet},
    record::Fault,
};
use outrigger_wire::{endpoint::Endpoint, response};
use serde_json::json;
use tokio::{sync::watch, time::timeout};

use crate::{
    attempt::{classify, is_own_model},
    body::Upload,
    live::Live,
    net::Clock,
    raised,
    upstream::Upstream,
};

/// How often the core is asked whose probe is due.
const TICK: Duration = Duration::from_millis(25);
/// Ticks between two reports of when backends were last heard.
const HEARD_EVERY: u32 = 4;
/// Ticks between two rounds of closing idle connections and ending overlays.
const HOUSEKEEPING_EVERY: u32 = 40;
const MAX_ANSWER: usize = 1 << 20;

/// Marks a probe, so that a backend's operator can tell it from traffic.
pub const HEADER: &str = "x-outrigger-probe";

pub async fn run(live: Arc<Live>, mut stop: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for n in 0_u32.. {
        tokio::select! {
            _ = ticks.tick() => {}
            () = raised(&mut stop) => return,
        }
        if n.is_multiple_of(HEARD_EVERY) {
            live.report_last_bytes();
            live.call_waiting();
        }
        if n.is_multiple_of(HOUSEKEEPING_EVERY) {
            housekeeping(&live);
        }
        for (backend, fleet, upstream) in live.take_probes() {
            let live = live.clone();
            tokio::spawn(async move {
                let result = probe(&live, backend, &fleet, &upstream).await;
                if let Some(why) = upstream.pool.new_trouble() {
                    live.events.backend_tls_failed(&upstream.name, &why);
                }
                live.events.metrics().probed(&fleet, backend, result.as_ref().map_or_else(|f| f.as_str(), |()| "ok"));
                live.probed(backend, &fleet, result);
            });
        }
    }
}

fn housekeeping(live: &Live) {
    for upstream in &live.snapshot().upstreams {
        upstream.pool.close_stale();
    }
    if live.overlays.expire(live.clock.now()) {
        live.apply_overlays();
    }
}

async fn probe(live: &Live, id: BackendId, fleet: &Fleet, upstream: &Upstream) -> Result<(), Fault> {
    let backend = fleet.backend(id);
    let patience = live.with_state(|state| state.probe_patience(id, live.clock.now()));
    let connect = backend.timeouts.connect.unwrap_or(Duration::from_secs(1));
    let generation = async {
        let mut last = Err(Fault::WrongModel);
        let questions = questions(backend);
        if questions.is_empty() {
            return lists_models(upstream, connect, live.clock).await;
        }
        for endpoint in questions {
            last = ask(backend, upstream, endpoint, connect, live.clock).await;
            if last == Err(Fault::Auth) && upstream.fall_back() {
                last = ask(backend, upstream, endpoint, connect, live.clock).await;
                match last {
                    Err(Fault::Auth) => upstream.trust_key(),
                    _ => live.events.key_refused(&upstream.name),
                }
            }
            if last != Err(Fault::WrongModel) {
                break;
            }
        }
        last
    };
    timeout(patience, generation).await.unwrap_or(Err(Fault::FirstTokenTimeout))
}

/// What to ask, until one is understood: the model of one that declares chats and embeddings may be for either.
pub fn questions(backend: &Backend) -> Vec<Endpoint> {
    let all = [
        (Api::Chat, Endpoint::Chat),
        (Api::Completions, Endpoint::Completions),
        (Api::Embeddings, Endpoint::Embeddings),
        (Api::Responses, Endpoint::Responses),
        (Api::Messages, Endpoint::Messages),
        (Api::Rerank, Endpoint::Rerank),
    ];
    all.into_iter().filter(|(api, _)| backend.apis.contains(*api)).map(|(_, endpoint)| endpoint).collect()
}

/// Where nothing small can be asked for (a picture, a minute of speech), that the server answers has to do.
async fn lists_models(upstream: &Upstream, connect: Duration, clock: Clock) -> Result<(), Fault> {
    let mut lease = upstream.pool.fresh(connect).await?;
    let mut request = upstream.request(&format!("{}/models", upstream.base_path), Bytes::new());
    request.headers_mut().insert(HEADER, HeaderValue::from_static("1"));
    let response = lease.send(request).await?;
    match classify(response.status(), response.headers(), clock.now()) {
        _ if response.status().is_success() => Ok(()),
        Some(fault @ (Fault::Auth | Fault::Overloaded { .. } | Fault::Status(_))) => Err(fault),
        // It has no such list, and says so: it is alive.
        _ => Ok(()),
    }
}

/// Asks for one token on a connection of its own, so that a pooled one cannot mislead.
async fn ask(
    backend: &Backend,
    upstream: &Upstream,
    endpoint: Endpoint,
    connect: Duration,
    clock: Clock,
) -> Result<(), Fault> {
    let mut lease = upstream.pool.fresh(connect).await?;
    let response = lease.send(request(backend, upstream, endpoint)).await?;
    let status = response.status();
    if !status.is_success() {
        return refusal(status, response.headers(), clock);
    }
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|_| Fault::BadBody)?.to_bytes();
    judge(backend, endpoint, &body)
}

/// What a status other than success says of the backend.
pub fn refusal(status: StatusCode, headers: &HeaderMap, clock: Clock) -> Result<(), Fault> {
    match classify(status, headers, clock.now()) {
        Some(fault) => Err(fault),
        // It understood the request well enough to refuse it: it is alive.
        None if status == StatusCode::BAD_REQUEST => Ok(()),
        None => Err(Fault::WrongModel),
    }
}

/// What the body of a success says of it.
pub fn judge(backend: &Backend, endpoint: Endpoint, body: &[u8]) -> Result<(), Fault> {
    let view = response::inspect_body(endpoint, body).map_err(|_| Fault::BadBody)?;
    if view.error.is_some() {
        return Err(Fault::Status(500));
    }
    match view.model_span {
        Some(span) if !is_own_model(backend, &body[span.clone()]) => Err(Fault::WrongModel),
        _ => Ok(()),
    }
}

/// The request for one token, or the least that the endpoint gives.
pub fn request(backend: &Backend, upstream: &Upstream, endpoint: Endpoint) -> Request<Upload> {
    let bound = if backend.engine == Engine::Openai { "max_completion_tokens" } else { "max_tokens" };
    let model = &backend.model;
    let body = match endpoint {
        Endpoint::Embeddings => json!({ "model": model, "input": "ping" }),
        // OpenAI's API refuses fewer tokens.
        Endpoint::Responses => json!({ "model": model, "input": "ping", "max_output_tokens": 16, "store": false }),
        Endpoint::Completions => json!({ "model": model, "prompt": "ping", "max_tokens": 1 }),
        Endpoint::Rerank => json!({ "model": model, "query": "ping", "documents": ["ping"] }),
        Endpoint::Messages => {
            json!({ "model": model, "max_tokens": 1, "messages": [{ "role": "user", "content": "ping" }] })
        }
        _ => json!({ "model": model, "messages": [{ "role": "user", "content": "ping" }], bound: 1 }),
    };
    let path = format!("{}{}", upstream.base_path, endpoint.path());
    let mut request = upstream.request(&path, Bytes::from(body.to_string()));
    *request.method_mut() = Method::POST;
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HEADER, HeaderValue::from_static("1"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    request
}
