//! How a backend is reached, beyond its URL: the HTTP version, whom to believe, what to show, and what to send.

use http::HeaderName;
use outrigger_core::fleet::{Backend, HeaderText, HttpVersion, Reach};

use super::{
    super::{
        collect::{At, shown},
        fault::Code,
        raw,
        source::{is_reference, is_sensitive},
        values,
    },
    Context,
};

/// Headers that the gateway sets itself, or that speak of the connection.
const OWN: [&str; 14] = [
    "host",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "content-length",
    "content-type",
    "content-encoding",
    "accept-encoding",
    "x-outrigger-probe",
];

pub(super) fn resolve(context: &Context<'_>, raw: &raw::Backend, at: &At<'_>) -> Reach {
    Reach {
        http: match raw.http.map(|http| http.0) {
            None => HttpVersion::Negotiated,
            Some(2) => HttpVersion::Http2,
            Some(_) => HttpVersion::Http1,
        },
        ca: raw.ca.as_ref().and_then(|ca| context.authorities(ca, &at.key("ca"))),
        client_cert: raw.client_cert.as_ref().and_then(|c| context.certificate(c, &at.key("client_cert"))),
        headers: raw.headers.as_ref().map(|all| headers(context, all, &at.key("headers"))).unwrap_or_default(),
    }
}

/// Settings of TLS that nothing would look at.
pub(super) fn check(backend: &Backend, at: &At<'_>) {
    if !backend.url.starts_with("http://") {
        return;
    }
    for key in ["ca", "client_cert"] {
        let place = at.key(key);
        if place.is_written() {
            place.error_at_key(
                Code::TlsUnused,
                format!("`{}` is reached in clear text, so that `{key}` protects nothing", backend.name),
                "write https:// in `url`, or remove the key",
            );
        }
    }
}

fn headers(context: &Context<'_>, all: &raw::Headers, at: &At<'_>) -> Vec<(String, HeaderText)> {
    let mut found: Vec<(String, HeaderText)> = Vec::new();
    for (name, text) in &all.0.0 {
        let at = at.key(name);
        let Some(lower) = header_name(name, &at) else { continue };
        if found.iter().any(|(known, _)| *known == lower) {
            at.error_at_key(Code::BadHeader, format!("`{}` stands here twice", shown(name)), "keep one of the two");
            continue;
        }
        if let Some(text) = text.as_ref().and_then(|text| value(context, &lower, &text.0, &at)) {
            found.push((lower, text));
        }
    }
    found
}

/// The name in lower case, if it may be set here.
fn header_name(name: &str, at: &At<'_>) -> Option<String> {
    let Ok(known) = HeaderName::from_bytes(name.as_bytes()) else {
        let help = "write letters, digits and `-`, such as x-team";
        at.error_at_key(Code::BadHeader, format!("`{}` is not the name of a header", shown(name)), help);
        return None;
    };
    if OWN.contains(&known.as_str()) {
        let help = "remove it; the gateway sets what belongs there";
        at.error_at_key(Code::BadHeader, format!("`{known}` is the gateway's own"), help);
        return None;
    }
    Some(known.as_str().to_owned())
}

/// Text as it stands, unless its name says that it is a secret: then only where the secret is.
fn value(context: &Context<'_>, name: &str, text: &str, at: &At<'_>) -> Option<HeaderText> {
    if text.contains("${") && !is_reference(text) {
        let help = "put the whole value into the variable or a file, and write \"${NAME}\" or file:PATH alone";
        at.error(Code::BadReference, "a reference cannot be part of a text", help);
        return None;
    }
    if is_reference(text) || text.starts_with('$') || is_secret(name) {
        return context.secret(&raw::Secret(text.to_owned()), at).map(HeaderText::Secret);
    }
    if text.trim() != text || text.is_empty() || !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        let help = "write ASCII on one line, without spaces around it";
        at.error(Code::BadHeader, format!("{} cannot be the value of a header", at.shown()), help);
        return None;
    }
    Some(HeaderText::Plain(text.to_owned()))
}

fn is_secret(name: &str) -> bool {
    is_sensitive(name) || values::CREDENTIALS.contains(&name)
}
