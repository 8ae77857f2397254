//! The control listener: switches faults and tells what the ledger sums up to. It is never faulty itself.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use crate::store::{Shared, faults::StoreFault};

const MAX_BODY: usize = 1 << 20;

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((tcp, _)) = accepted {
                let shared = shared.clone();
                connections.spawn(async move {
                    let service = service_fn(|request| answer(&shared, request));
                    // A client that misbehaves here only hurts itself.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(tcp), service).await;
                });
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, value) = match (request.method(), request.uri().path()) {
        (&Method::POST, "/faults") => set_fault(shared, request).await,
        (&Method::GET, "/faults") => faults(shared),
        (&Method::DELETE, "/faults") => {
            shared.faults.clear();
            faults(shared)
        }
        (&Method::GET, "/ledger") => (StatusCode::OK, json!(shared.ledger.totals())),
        (&Method::DELETE, "/ledger") => {
            shared.ledger.reset();
            (StatusCode::OK, json!(shared.ledger.totals()))
        }
        (&Method::GET, "/health") => (StatusCode::OK, json!({})),
        (method, path) => refuse(StatusCode::NOT_FOUND, &format!("no {method} {path} here")),
    };
    let mut answer = Response::new(Full::from(value.to_string()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(answer)
}

async fn set_fault(shared: &Shared, request: Request<Incoming>) -> (StatusCode, Value) {
    let Ok(body) = Limited::new(request.into_body(), MAX_BODY).collect().await else {
        return refuse(StatusCode::BAD_REQUEST, "the body is too large, or was not read to its end");
    };
    let fault: StoreFault = match serde_json::from_slice(&body.to_bytes()) {
        Ok(fault) => fault,
        Err(e) => return refuse(StatusCode::BAD_REQUEST, &e.to_string()),
    };
    if let Some(why) = fault.invalid() {
        return refuse(StatusCode::BAD_REQUEST, why);
    }
    shared.faults.set(fault);
    faults(shared)
}

fn faults(shared: &Shared) -> (StatusCode, Value) {
    (StatusCode::OK, json!(shared.faults.list()))
}

fn refuse(status: StatusCode, why: &str) -> (StatusCode, Value) {
    (status, json!({"error": why}))
}
