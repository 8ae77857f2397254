//! The control listener: switches faults and tells what the fake saw. It is never faulty itself.
//!
//! `POST /faults` answers once the fault is in force (the port closed, the accept queue filled), so that a script
//! need not sleep. Only `kill` is answered just before.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};

use crate::{Shared, body::AnswerBody, faults::Fault, refusals::json_response};

const MAX_BODY: usize = 1 << 20;

/// Runs until it is aborted.
pub(crate) async fn run(shared: Arc<Shared>, listener: TcpListener) {
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

async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Result<Response<AnswerBody>, hyper::Error> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    Ok(match (method, path.as_str()) {
        (Method::POST, "/faults") => set_fault(shared, request).await,
        (Method::GET, "/faults") => faults(shared),
        (Method::DELETE, "/faults") => {
            shared.heal().await;
            faults(shared)
        }
        (Method::GET, "/stats") => json_response(StatusCode::OK, json!(shared.stats()).to_string()),
        (Method::DELETE, "/stats") => {
            shared.book.reset();
            json_response(StatusCode::OK, json!(shared.stats()).to_string())
        }
        (Method::GET, "/stats/requests") => {
            let records = shared.book.requests_after(after(request.uri().query()));
            json_response(StatusCode::OK, json!(records).to_string())
        }
        (Method::GET, "/health") => json_response(StatusCode::OK, Bytes::from_static(b"{}")),
        (method, path) => refuse(StatusCode::NOT_FOUND, &format!("no {method} {path} here")),
    })
}

async fn set_fault(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<AnswerBody> {
    let Ok(body) = Limited::new(request.into_body(), MAX_BODY).collect().await else {
        return refuse(StatusCode::BAD_REQUEST, "the body is too large, or was not read to its end");
    };
    let fault: Fault = match serde_json::from_slice(&body.to_bytes()) {
        Ok(fault) => fault,
        Err(e) => return refuse(StatusCode::BAD_REQUEST, &e.to_string()),
    };
    if let Some(why) = fault.invalid() {
        return refuse(StatusCode::BAD_REQUEST, why);
    }
    shared.set_fault(fault).await;
    faults(shared)
}

fn faults(shared: &Shared) -> Response<AnswerBody> {
    json_response(StatusCode::OK, json!(shared.faults.list()).to_string())
}

fn refuse(status: StatusCode, why: &str) -> Response<AnswerBody> {
    json_response(status, json!({"error": why}).to_string())
}

fn after(query: Option<&str>) -> u64 {
    query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("after=")?.parse().ok()).unwrap_or(0)
}

/// `http://ADDRESS`, without a path.
pub(crate) fn url(at: SocketAddr) -> String {
    format!("http://{at}")
}
