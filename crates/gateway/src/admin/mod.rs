//! The admin listener: metrics, state, decisions, overlays and reload. Separate from the data listener, so that
//! nothing here is ever reachable by a client, and built with a framework, since nothing here is hot.
//!
//! Off loopback it demands a token. On loopback without one it still refuses requests that a web page could have
//! caused: a foreign `Host` (DNS rebinding) or any `Origin`.

mod change;
mod view;

pub use change::duration;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Request, State as Shared},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;

use crate::{live::Live, reload::Reloader};

/// Who may use the admin API.
#[derive(Clone, Default)]
pub struct Access {
    pub token: Option<String>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("token", &self.token.as_ref().map(|_| "…")).finish()
    }
}

#[derive(Clone)]
struct Admin {
    live: Arc<Live>,
    access: Access,
    reloader: Arc<Reloader>,
}

/// Serves until the process ends: while requests drain, the operator still wants to look.
pub async fn run(live: Arc<Live>, listener: TcpListener, access: Access, reloader: Arc<Reloader>) {
    let admin = Admin { live, access, reloader };
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/api/v1/state", get(view::state))
        .route("/api/v1/decisions/{id}", get(view::decisions))
        .route("/api/v1/overlays", get(view::overlays))
        .route("/api/v1/backends/{backend}/drain", post(change::drain))
        .route("/api/v1/backends/{backend}/undrain", post(change::undrain))
        .route("/api/v1/models/{model}/split", put(change::split).delete(change::unsplit))
        .route("/api/v1/reload", post(reload_now))
        .fallback(|| async {
            refuse(StatusCode::NOT_FOUND, "unknown_url", "there is no such admin endpoint; see docs/admin-api.md")
        })
        .layer(middleware::from_fn_with_state(admin.clone(), guard))
        .with_state(admin);
    drop(axum::serve(listener, routes).await);
}

async fn guard(Shared(admin): Shared<Admin>, request: Request, next: Next) -> Response {
    match may_use(&admin.access, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn may_use(access: &Access, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(token) = &access.token else {
        let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
        let from_a_page = headers.contains_key(header::ORIGIN) || !is_loopback(host);
        let message =
            "without OUTRIGGER_ADMIN_TOKEN the admin API answers only local tools; set the token to reach it otherwise";
        return if from_a_page { Err(refuse(StatusCode::FORBIDDEN, "forbidden", message)) } else { Ok(()) };
    };
    let given =
        headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
    let hash = |text: &str| -> [u8; 32] { Sha256::digest(text.as_bytes()).into() };
    let same = given.is_some_and(|given| bool::from(hash(given).ct_eq(&hash(token))));
    let message = "the admin API needs `Authorization: Bearer TOKEN`, with the value of OUTRIGGER_ADMIN_TOKEN";
    if same { Ok(()) } else { Err(refuse(StatusCode::UNAUTHORIZED, "unauthorized", message)) }
}

fn is_loopback(host: &str) -> bool {
    let name = host
        .rsplit_once(':')
        .map_or(host, |(name, port)| if port.bytes().all(|b| b.is_ascii_digit()) { name } else { host });
    let name = name.trim_matches(['[', ']']);
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Why a request to the admin API was not carried out, and what to do about it.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

fn refuse(status: StatusCode, code: &'static str, message: &str) -> Refusal {
    Refusal { status, code, message: message.to_owned() }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": { "code": self.code, "message": self.message } }))).into_response()
    }
}

async fn metrics(Shared(admin): Shared<Admin>) -> Response {
    let live = &admin.live;
    let overlays = live.overlays.list().len();
    let pool_costs = live.pool_costs();
    let page = live.with_state(|state| {
        // Inside, so that both are of the same fleet.
        let upstreams = &live.snapshot().upstreams;
        live.events.metrics().page(state, upstreams, overlays, &pool_costs, live.clock.now())
    });
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], page).into_response()
}

async fn reload_now(Shared(admin): Shared<Admin>) -> Result<Json<Value>, Refusal> {
    match admin.reloader.now().await {
        Ok(replaced) => {
            let dormant = admin.live.with_state(|state| admin.live.overlays.dormant(state));
            Ok(Json(json!({
                "fleet": replaced.fleet.digest,
                "before": replaced.before,
                "dropped_overlays": dormant,
                "needs_restart": replaced.needs_restart,
            })))
        }
        Err(why) => {
            let before = admin.live.snapshot().fleet.digest.clone();
            let message = format!("the fleet in force is still {before}: {why}");
            Err(refuse(StatusCode::UNPROCESSABLE_ENTITY, "fleet_refused", &message))
        }
    }
}

/// A path parameter that must name a backend of the fleet.
fn known_backend(live: &Live, Path(name): Path<String>) -> Result<String, Refusal> {
    let fleet = live.snapshot().fleet.clone();
    if fleet.backend_by_name(&name).is_some() {
        return Ok(name);
    }
    let names: Vec<&str> = fleet.backends.iter().map(|b| b.name.as_str()).collect();
    let message = format!("there is no backend '{name}'; there are: {}", names.join(", "));
    Err(refuse(StatusCode::NOT_FOUND, "unknown_backend", &message))
}

fn value(body: &Value, key: &str) -> Option<String> {
    body.get(key).and_then(Value::as_str).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(access: &Access, headers: &[(&'static str, &str)]) -> Option<u16> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().expect("a header value"));
        }
        may_use(access, &map).err().map(|r| r.status.as_u16())
    }

    #[test]
    fn without_a_token_only_local_tools_are_answered() {
        let open = Access::default();
        assert_eq!(status(&open, &[("host", "127.0.0.1:8081")]), None);
        assert_eq!(status(&open, &[("host", "localhost:8081")]), None);
        assert_eq!(status(&open, &[("host", "[::1]:8081")]), None);
        assert_eq!(status(&open, &[("host", "evil.example")]), Some(403));
        assert_eq!(status(&open, &[("host", "127.0.0.1:8081"), ("origin", "https://evil.example")]), Some(403));
    }

    #[test]
    fn with_a_token_nothing_else_counts() {
        let closed = Access { token: Some("t0ken".to_owned()) };
        assert_eq!(status(&closed, &[("host", "localhost")]), Some(401));
        assert_eq!(status(&closed, &[("host", "x"), ("authorization", "Bearer t0ke")]), Some(401));
        assert_eq!(status(&closed, &[("host", "x"), ("authorization", "Bearer t0ken")]), None);
    }
}
