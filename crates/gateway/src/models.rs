//! `GET /v1/models` and `GET /v1/models/{id}`: answered from the fleet, since no engine knows the public names, and
//! some have no endpoint for a single model.

use bytes::Bytes;
use http::{Response, StatusCode};
use outrigger_core::fleet::{Fleet, KeyId, Model, ModelId, Reveal};
use serde::Serialize;

use crate::{body::Answer, intake, reply};

#[derive(Serialize)]
struct Entry<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Entry<'a>>,
}

/// `rest` is the path after `/v1/models`.
pub fn answer(fleet: &Fleet, key: Option<KeyId>, rest: &str, request_id: &str) -> Response<Answer> {
    let visible = |i: usize| intake::may_use(fleet, key, ModelId(i as u16));
    match rest.strip_prefix('/') {
        None | Some("") if rest.len() <= 1 => {
            let models = fleet.models.iter().enumerate().filter(|(i, _)| visible(*i));
            let data = models.flat_map(|(_, m)| names(m)).map(entry).collect();
            ok(&List { object: "list", data }, request_id)
        }
        Some(id) => match fleet.model_by_name(id).filter(|m| visible(m.index())) {
            Some(_) => ok(&entry(id), request_id),
            None => intake::unknown_model(id, fleet, key).to_response(request_id, Reveal::None),
        },
        None => intake::unknown_model(rest, fleet, key).to_response(request_id, Reveal::None),
    }
}

fn names(model: &Model) -> impl Iterator<Item = &str> {
    std::iter::once(model.name.as_str()).chain(model.aliases.iter().map(String::as_str))
}

fn entry(id: &str) -> Entry<'_> {
    Entry { id, object: "model", created: 0, owned_by: "outrigger" }
}

fn ok(body: &impl Serialize, request_id: &str) -> Response<Answer> {
    let body = serde_json::to_vec(body).expect("plain data");
    reply::json(StatusCode::OK, Bytes::from(body), request_id)
}
