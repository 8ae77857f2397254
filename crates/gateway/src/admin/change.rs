//! What the admin API changes: always as an overlay with an owner, a reason and an end.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, State as Shared},
    http::StatusCode,
};
use serde_json::{Value, json};

use super::{Admin, Refusal, known_backend, refuse, value};
use crate::{
    live::Live,
    overlays::{DEFAULT_TIME, Overlay, What},
};

pub(super) async fn drain(
    Shared(admin): Shared<Admin>,
    path: Path<String>,
    body: Option<Json<Value>>,
) -> Result<Json<Value>, Refusal> {
    let backend = known_backend(&admin.live, path)?;
    add(&admin.live, What::Drain { backend }, &body.map(|Json(b)| b).unwrap_or_default())
}

pub(super) async fn undrain(Shared(admin): Shared<Admin>, path: Path<String>) -> Result<Json<Value>, Refusal> {
    let backend = known_backend(&admin.live, path)?;
    let now = admin.live.clock.now();
    let forgiven = admin.live.with_state(|state| {
        let id = state.fleet().backend_by_name(&backend);
        id.is_some_and(|id| state.forgive(id, now))
    });
    let Json(mut said) = end(&admin.live, &What::Drain { backend })?;
    said["forgiven"] = json!(forgiven);
    Ok(Json(said))
}

pub(super) async fn split(
    Shared(admin): Shared<Admin>,
    Path(model): Path<String>,
    Json(body): Json<Value>,
) -> Result<Json<Value>, Refusal> {
    let what = weights(&admin.live, &model, &body)?;
    add(&admin.live, what, &body)
}

pub(super) async fn unsplit(
    Shared(admin): Shared<Admin>,
    Path(model): Path<String>,
    body: Option<Json<Value>>,
) -> Result<Json<Value>, Refusal> {
    let tier = body.as_ref().and_then(|Json(b)| b.get("tier")?.as_u64()).unwrap_or(1) as usize;
    end(&admin.live, &What::Weights { model, tier, weights: Vec::new() })
}

/// Reads `{"tier":1,"weights":{"B":60,"C":40}}` against the fleet.
fn weights(live: &Live, name: &str, body: &Value) -> Result<What, Refusal> {
    let fleet = live.snapshot().fleet.clone();
    let wrong = |message: &str| refuse(StatusCode::BAD_REQUEST, "wrong_split", message);
    let Some(id) = fleet.model_by_name(name) else {
        return Err(refuse(StatusCode::NOT_FOUND, "unknown_model", &format!("there is no model '{name}'")));
    };
    let model = fleet.model(id);
    let tier = body.get("tier").map_or(Some(1), Value::as_u64).unwrap_or(0) as usize;
    let Some(spec) = tier.checked_sub(1).and_then(|t| model.tiers.get(t)) else {
        return Err(wrong(&format!("model '{}' has tiers 1 to {}", model.name, model.tiers.len())));
    };
    let given = body
        .get("weights")
        .and_then(Value::as_object)
        .ok_or_else(|| wrong("give weights as {\"weights\":{\"BACKEND\":60}}"))?;
    let members: Vec<&str> = spec.split.iter().map(|s| fleet.backend(s.backend).name.as_str()).collect();
    let mut weights = Vec::new();
    for (backend, weight) in given {
        if !members.contains(&backend.as_str()) {
            return Err(wrong(&format!("'{backend}' is not in tier {tier}; it has: {}", members.join(", "))));
        }
        let weight = weight
            .as_u64()
            .filter(|w| *w <= 1_000_000)
            .ok_or_else(|| wrong("weights are whole numbers from 0 to 1000000"))?;
        weights.push((backend.clone(), weight as u32));
    }
    if weights.iter().all(|(_, w)| *w == 0) {
        return Err(wrong("at least one weight must be above 0"));
    }
    Ok(What::Weights { model: model.name.clone(), tier, weights })
}

fn add(live: &Live, what: What, body: &Value) -> Result<Json<Value>, Refusal> {
    let time = match value(body, "for") {
        Some(text) => duration(&text).ok_or_else(|| {
            refuse(
                StatusCode::BAD_REQUEST,
                "wrong_duration",
                "give the time as a whole number with s, m, h or d, such as 30m or 2h",
            )
        })?,
        None => DEFAULT_TIME,
    };
    let now = live.clock.now();
    let overlay = Overlay {
        what,
        owner: value(body, "owner").unwrap_or_else(|| "operator".to_owned()),
        why: value(body, "why").unwrap_or_default(),
        since: now,
        until: now + time,
    };
    live.overlays.add(overlay.clone()).map_err(|e| {
        let message = format!("the overlay could not be written to gateway.state_dir, so it is not in force: {e}");
        refuse(StatusCode::INSUFFICIENT_STORAGE, "not_durable", &message)
    })?;
    live.apply_overlays();
    let answer = json!({ "overlay": overlay, "for_s": time.as_secs(), "survives_restart": live.overlays.is_durable(), "reach": "this replica" });
    Ok(Json(answer))
}

fn end(live: &Live, target: &What) -> Result<Json<Value>, Refusal> {
    let ended = live.overlays.end(target).map_err(|e| {
        let message = format!("the change could not be written to gateway.state_dir: {e}");
        refuse(StatusCode::INSUFFICIENT_STORAGE, "not_durable", &message)
    })?;
    live.apply_overlays();
    Ok(Json(json!({ "ended": ended })))
}

/// How long an overlay lasts: `90s`, `30m`, `2h`, `1d`, up to 366 days.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let number: u64 = number.parse().ok().filter(|n| *n > 0)?;
    number.checked_mul(seconds).filter(|s| *s <= 366 * 86_400).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_with_a_unit() {
        assert_eq!(duration("2h"), Some(Duration::from_hours(2)));
        assert_eq!(duration("90s"), Some(Duration::from_secs(90)));
        for wrong in ["", "h", "2", "0h", "-1h", "1.5h", "9999999999999999h", "é"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}
