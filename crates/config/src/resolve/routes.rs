//! `routes:` paths that name no model, and the backend that each belongs to.

use outrigger_core::fleet::{BackendId, Route};

use super::{
    super::{
        collect::{At, shown},
        fault::Code,
    },
    Context, look_up,
};

/// More than these are a second product behind one port.
const MOST: usize = 64;

pub(super) fn resolve(context: &Context<'_>) -> Vec<Route> {
    let at = context.root.key("routes");
    let written = context.raw.routes.as_ref().map(|routes| routes.0.0.as_slice()).unwrap_or_default();
    if written.len() > MOST {
        let message = format!("{} routes are more than {MOST}", written.len());
        at.error_at_key(Code::TooMany, message, "name shorter prefixes: each has all the paths below it");
    }
    written
        .iter()
        .filter_map(|(prefix, backend)| {
            let at = at.key(prefix);
            check_prefix(prefix, &at);
            let backend =
                look_up(context.raw.backends.as_ref(), backend.as_ref()?, &at, "backend", Code::UnknownBackend)?;
            Some(Route { prefix: prefix.clone(), backend: BackendId(backend) })
        })
        .collect()
}

fn check_prefix(prefix: &str, at: &At<'_>) {
    let is_segment =
        |segment: &str| !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    if prefix == "/v1/models" || prefix.starts_with("/v1/models/") {
        let help = "remove it: the list of models is the fleet file's own";
        return at.error_at_key(Code::BadRoute, "the gateway itself answers /v1/models", help);
    }
    if !prefix.strip_prefix("/v1/").is_some_and(|rest| rest.split('/').all(is_segment)) {
        let help = "write whole segments below /v1 without a slash at the end, such as `/v1/files`";
        at.error_at_key(Code::BadRoute, format!("`{}` is no prefix of a path", shown(prefix)), help);
    }
}
