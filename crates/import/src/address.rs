//! `api_base`: where a deployment is reached.
//!
//! A fleet file has the address itself, because an address is no secret and a fleet that depends on the environment of
//! whoever reads it is another fleet for each. So a variable is looked up once, at the import.

use super::{
    Context,
    deployment::Item,
    names::variable,
    report::Verdict::{Approximated, Kept, Refused},
    yaml::Node,
};

/// An address that cannot be used; the report says why.
#[derive(Debug)]
pub(super) struct Unusable;

/// Where a deployment is reached, if it says so. Engines of their own dialect have OpenAI's under `suffix`.
pub(super) fn read(
    context: &mut Context<'_>,
    item: &Item<'_>,
    suffix: &str,
    is_openai: bool,
) -> Result<Option<String>, Unusable> {
    let key = if item.params.get("api_base").is_some() { "api_base" } else { "base_url" };
    let Some(written) = item.params.get(key).and_then(Node::text) else { return Ok(None) };
    let (path, line) = item.param(key);
    let place = (path.as_str(), line);
    let from = variable(written);
    let value = match from.map(|name| (name, (context.env)(name))) {
        None => written.to_owned(),
        Some((_, Some(value))) => value,
        Some((name, None)) => {
            let message = format!("the address is in the variable {name}, which is not set here");
            context.note(
                Refused,
                place,
                message,
                format!("set {name} and import again; a fleet file has the address itself"),
            );
            return Err(Unusable);
        }
    };
    let base = value.trim().trim_end_matches('/');
    let base = ["/chat/completions", "/completions", "/embeddings"]
        .iter()
        .find_map(|end| base.strip_suffix(end))
        .unwrap_or(base);
    let base = if suffix.is_empty() || base.ends_with(suffix) { base.to_owned() } else { format!("{base}{suffix}") };
    if !is_url(&base) {
        let help = "write a plain http or https URL without a user and a query, and import again";
        context.note(Refused, place, "this is not an address that a fleet can have", help);
        return Err(Unusable);
    }
    if is_openai && base == "https://api.openai.com/v1" {
        context.note(Kept, place, "the address of the cloud `openai`", "`cloud: openai`");
        return Ok(None);
    }
    match from {
        Some(name) => context.note(
            Approximated,
            place,
            format!("the address that {name} has now stands in the file"),
            "change it there when it changes, and run `outrigger reload`",
        ),
        None => context.note(Kept, place, "its address", "`url`"),
    }
    Ok(Some(base))
}

/// What `check` takes for a URL of an engine.
fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let is_plain = text.bytes().all(|b| b.is_ascii_graphic()) && !text.contains(['@', '?', '#', '"', '\\', '<', '>']);
    let port =
        |host: &str| host.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0));
    let is_host = |host: &str| !host.is_empty() && !host.starts_with(':') && (host.ends_with(']') || port(host));
    let host = rest.and_then(|rest| rest.split('/').next());
    is_plain && host.is_some_and(is_host) && text.parse::<http::Uri>().is_ok() && !text.ends_with("/models")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_check_would_refuse_is_no_address() {
        for good in ["http://a/v1", "https://a.b:8443/v1", "http://[::1]:8000/v1", "http://10.0.0.7"] {
            assert!(is_url(good), "{good}");
        }
        for bad in
            ["a/v1", "http://", "http://u:p@a/v1", "http://a:x/v1", "http://a/v1?x=1", "http://:80", "http://a b"]
        {
            assert!(!is_url(bad), "{bad}");
        }
    }
}
