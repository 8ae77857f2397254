//! What the admin API shows: the state for people and for `explain --state`, decisions, overlays.

use axum::{
    Json,
    extract::{Path, State as Shared},
    http::StatusCode,
};
use outrigger_core::{
    fleet::{BackendId, CloudId, Fleet},
    record::Fault,
    route::{Decision, Verdict},
    state::{BackendState, State, cooldown::Gate, health::Health, load::Scrape, scaling::Desired},
    units::{NanoUsd, Nanos},
};
use serde_json::{Value, json};

use super::{Admin, Refusal, refuse};
use crate::{
    events::{engine_said, outlooks, state_word},
    live::Explained,
};

pub(super) async fn state(Shared(admin): Shared<Admin>) -> Json<Value> {
    let live = &admin.live;
    let now = live.clock.now();
    let idle: Vec<usize> = live.snapshot().upstreams.iter().map(|u| u.pool.idle_connections()).collect();
    let mut view = live.with_state(|state| {
        json!({
            "fleet": state.fleet().digest,
            "now": now,
            "backends": backends(state, &idle, now),
            "models": models(state),
            "clouds": clouds(state, now),
            "survival": survival(state, now),
            "pools": pools(state, now),
            "dropped_overlays": live.overlays.dormant(state),
            "observed": state.observed(),
        })
    });
    view["draining"] = json!(live.is_draining());
    view["overlays"] = json!(live.overlays.list());
    view["reload_refused"] = json!(admin.reloader.refused());
    view["overlays_survive_restart"] = json!(live.overlays.is_durable());
    Json(view)
}

pub(super) async fn overlays(Shared(admin): Shared<Admin>) -> Json<Value> {
    let live = &admin.live;
    let dropped = live.with_state(|state| live.overlays.dormant(state));
    Json(json!({
        "overlays": live.overlays.list(),
        "dropped": dropped,
        "survive_restart": live.overlays.is_durable(),
        "reach": "this replica",
    }))
}

pub(super) async fn decisions(Shared(admin): Shared<Admin>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let found = admin.live.decisions(&id);
    if found.is_empty() {
        let message =
            "no decision about this request is kept; the last few thousand are. The id is in x-outrigger-request-id";
        return Err(refuse(StatusCode::NOT_FOUND, "unknown_request", message));
    }
    let decisions: Vec<Value> = found.iter().map(explained).collect();
    Ok(Json(json!({ "request_id": id, "decisions": decisions })))
}

fn explained(d: &Explained) -> Value {
    let candidates: Vec<Value> = (d.candidates.iter())
        .map(|c| {
            json!({
                "backend": d.fleet.backend(c.backend).name,
                "tier": c.tier,
                "eligible": c.verdict.is_eligible(),
                "reason": c.verdict.as_str(),
                "why": verdict_fault(c.verdict).map(Fault::as_str),
            })
        })
        .collect();
    let (chosen, reason) = outcome(&d.fleet, &d.decision);
    json!({ "at": d.at, "fleet": d.fleet.digest, "attempt": d.attempt, "chosen": chosen, "reason": reason, "candidates": candidates })
}

fn outcome<'a>(fleet: &'a Fleet, decision: &Decision) -> (Option<&'a str>, &'static str) {
    match decision {
        Decision::Attempt(a) => (Some(&fleet.backend(a.backend).name), a.reason.as_str()),
        Decision::Queue { .. } => (None, "queue"),
        Decision::Reject(r) => (None, r.why.as_str()),
    }
}

fn verdict_fault(verdict: Verdict) -> Option<Fault> {
    match verdict {
        Verdict::Down { why } | Verdict::Suspect { why } => Some(why),
        _ => None,
    }
}

fn backends(state: &State, idle: &[usize], now: Nanos) -> Vec<Value> {
    let fleet = state.fleet();
    (0..fleet.backends.len())
        .map(|i| {
            let id = BackendId(i as u16);
            let (backend, seen) = (fleet.backend(id), state.backend(id));
            let (why, ends) = pause(seen, now);
            let ms = |d: Option<std::time::Duration>| d.map(|d| d.as_millis() as u64);
            json!({
                "backend": backend.name,
                "cloud": fleet.cloud_of(id).name,
                "region": fleet.cloud_of(id).region,
                "model": backend.model,
                "state": state_word(seen, now),
                "why": why,
                "ends_in_s": ends.map(|at| at.since(now).as_secs_f64()),
                "ejections": seen.live.taken_out(),
                "in_flight": seen.in_flight,
                "engine": engine_said(state, id).map(|said| engine(&said, now)),
                "max_in_flight": backend.max_in_flight,
                "weight_now": seen.live.ramp(now),
                "ttft_p50_ms": ms(seen.ttft.p50()),
                "ttft_p99_ms": ms(seen.ttft.p99()),
                "idle_connections": idle.get(i),
            })
        })
        .collect()
}

/// Why a backend is not simply up, and when that ends by itself, if it does.
fn pause(seen: &BackendState, now: Nanos) -> (Option<&'static str>, Option<Nanos>) {
    match (seen.live.health, seen.live.ejected_until(now), seen.cooldown.gate(now)) {
        (Health::Suspect { why, .. } | Health::Down { why, .. }, _, _) => (Some(why.as_str()), None),
        (Health::Up, Some(until), _) => {
            (Some(if seen.live.is_held(now) { "flapping" } else { "failing" }), Some(until))
        }
        (Health::Up, None, Gate::Blocked { until }) => {
            (Some(if seen.cooldown.is_rate_limit() { "rate_limited" } else { "overloaded" }), Some(until))
        }
        _ => (None, None),
    }
}

fn engine(said: &Scrape, now: Nanos) -> Value {
    json!({ "running": said.running, "waiting": said.waiting, "age_s": now.since(said.at).as_secs_f64() })
}

fn models(state: &State) -> Vec<Value> {
    let fleet = state.fleet();
    (fleet.models.iter().zip(&state.observed().models))
        .map(|(model, seen)| {
            let tiers: Vec<Value> = (model.tiers.iter().zip(&seen.tiers).enumerate())
                .map(|(t, (tier, weights))| {
                    let total: u32 = weights.weights.iter().sum();
                    let split: Vec<Value> = (tier.split.iter().zip(&weights.weights))
                        .map(|(share, weight)| {
                            json!({
                                "backend": fleet.backend(share.backend).name,
                                "weight": weight,
                                "weight_in_file": share.weight,
                                "share": f64::from(*weight) / f64::from(total.max(1)),
                            })
                        })
                        .collect();
                    json!({ "tier": t + 1, "substitute": tier.substitute, "split": split })
                })
                .collect();
            json!({ "model": model.name, "aliases": model.aliases, "waiting": seen.queue.waiting(), "tiers": tiers })
        })
        .collect()
}

/// Those that follow the load.
fn pools(state: &mut State, now: Nanos) -> Vec<Value> {
    let fleet = state.fleet().clone();
    let shown = |d: Desired| {
        let pool = &fleet.pools[d.pool.index()];
        json!({
            "pool": pool.name,
            "gpus": { "min": pool.gpus.min, "max": pool.gpus.max },
            "desired_gpus": d.gpus,
            "desired_replicas": d.replicas,
            "reason": d.reason.as_str(),
            "since": d.since,
            "dry_run": pool.scale.as_ref().map(|scale| scale.dry_run),
        })
    };
    state.desired(now).into_iter().map(shown).collect()
}

fn survival(state: &State, now: Nanos) -> Vec<Value> {
    let shown = |o: crate::events::Outlook<'_>| {
        json!({
            "lost_cloud": o.lost_cloud,
            "model": o.model,
            "share": o.survival.share(),
            "share_with_substitutes": o.survival.share_with_substitutes(),
            "is_lower_bound": o.survival.is_lower_bound,
            "load": o.survival.load,
        })
    };
    outlooks(state, now).map(shown).collect()
}

fn clouds(state: &mut State, now: Nanos) -> Vec<Value> {
    let fleet = state.fleet().clone();
    (fleet.clouds.iter().enumerate())
        .map(|(i, cloud)| {
            let (hour, day, reserved) = state.spend(CloudId(i as u16), now);
            json!({
                "cloud": cloud.name,
                "spent_usd_last_hour": hour.as_usd(),
                "spent_usd_last_day": day.as_usd(),
                "reserved_usd": reserved.as_usd(),
                "limit_usd_per_hour": cloud.spend_limit.and_then(|l| l.per_hour).map(NanoUsd::as_usd),
                "limit_usd_per_day": cloud.spend_limit.and_then(|l| l.per_day).map(NanoUsd::as_usd),
            })
        })
        .collect()
}
