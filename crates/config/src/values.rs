//! Text into durations, sizes, addresses, URLs, dates, prices and references.
//!
//! Each reads one value, reports what is wrong with it at its place, and gives `None` then. The units are written with
//! the number, not in the key's name alone, because `timeout: 30` has been read as seconds, milliseconds and minutes
//! by one program or another.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use outrigger_core::{
    fleet::{KeyHash, SecretRef},
    units::NanoUsd,
};

use super::{
    collect::At,
    fault::Code,
    raw,
    source::{env_name, is_reference},
};

/// A reference to something outside the file, and where it stands, so that `check` can see whether it is there.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub(crate) to: SecretRef,
    pub(crate) path: String,
    pub(crate) span: std::ops::Range<usize>,
}

/// Headers that carry credentials, beside those whose names say so.
pub(crate) const CREDENTIALS: [&str; 2] = ["cookie", "proxy-authorization"];

/// Longer than this is a slip of a unit.
const LONGEST: Duration = Duration::from_hours(366 * 24);

pub(crate) fn duration(text: &raw::Duration, at: &At<'_>) -> Option<Duration> {
    let help = "write a number and ms, s, m, h or d, such as 800ms or 12m";
    let (number, unit) = split_unit(&text.0);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => {
            at.error(Code::BadDuration, format!("{} is not a duration", at.shown()), help);
            return None;
        }
    };
    let value = number.and_then(|n| Duration::try_from_secs_f64(n * seconds).ok());
    match value {
        None => at.error(Code::BadDuration, format!("{} is not a duration", at.shown()), help),
        Some(d) if d > LONGEST => {
            at.error(
                Code::BadDuration,
                format!("{} is longer than a year", at.shown()),
                "is the unit right? ms, s, m, h or d",
            );
        }
        Some(d) => return Some(d),
    }
    None
}

/// A duration that may not be zero.
pub(crate) fn some_duration(text: &raw::Duration, at: &At<'_>) -> Option<Duration> {
    let duration = duration(text, at)?;
    if duration.is_zero() {
        at.error(Code::BadDuration, "no time at all", "write more than zero, or remove the key to get its default");
        return None;
    }
    Some(duration)
}

/// The number and the unit of `12.5MiB`.
fn split_unit(text: &str) -> (Option<f64>, &str) {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let is_number = number.starts_with(|c: char| c.is_ascii_digit()) && number.ends_with(|c: char| c.is_ascii_digit());
    (number.parse().ok().filter(|_| is_number), unit)
}

pub(crate) fn size(text: &raw::Size, at: &At<'_>) -> Option<u64> {
    let (number, unit) = split_unit(&text.0);
    let scale = match unit {
        "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KiB" => 1024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        "TiB" => 1_099_511_627_776.0,
        _ => 0.0,
    };
    // 2^53: beyond it the product is no longer exact, and no machine has it.
    let bytes = number.map(|n| n * scale).filter(|bytes| *bytes >= 1.0 && *bytes < 9.0e15);
    if bytes.is_none() {
        at.error(
            Code::BadSize,
            format!("{} is not a size", at.shown()),
            "write a number and KiB, MiB or GiB, such as 32MiB",
        );
    }
    bytes.map(|bytes| bytes as u64)
}

/// `host:port`, where the host is an address of this machine. Names are not looked up.
pub(crate) fn address(text: &raw::Address, at: &At<'_>) -> Option<SocketAddr> {
    let text = text.0.as_str();
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Some((Ipv4Addr::LOCALHOST, port).into());
    }
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let help = if let Some(port) = text.strip_prefix(':').and_then(|port| port.parse::<u16>().ok()) {
        format!("write the host too: 127.0.0.1:{port} for this machine only, 0.0.0.0:{port} for all")
    } else if let Ok(ip) = text.parse::<IpAddr>() {
        format!("write the port too: {}", SocketAddr::from((ip, 8080)))
    } else if text.contains("://") {
        "write the address without http://, such as 127.0.0.1:8080".to_owned()
    } else {
        "write host:port with an IP address, such as 127.0.0.1:8080 or 0.0.0.0:8080".to_owned()
    };
    at.error(Code::BadAddress, format!("{} is not an address to listen on", at.shown()), help);
    None
}

/// A base URL, without a trailing slash.
pub(crate) fn url(text: &raw::Url, at: &At<'_>) -> Option<String> {
    const EXAMPLE: &str = "http://10.0.0.7:8000/v1";
    let parsed = any_url(text, at, EXAMPLE, "give the key as `api_key: \"${NAME}\"`")?;
    let text = text.0.as_str();
    let path = parsed.path().trim_end_matches('/');
    if path.ends_with("/completions") || path.ends_with("/embeddings") || path.ends_with("/models") {
        at.error(
            Code::BadUrl,
            "this is the URL of one endpoint",
            format!("cut it off after the version, such as {EXAMPLE}"),
        );
        return None;
    }
    let base = text.trim_end_matches('/');
    if path.is_empty() {
        at.warning(Code::UrlWithoutPath, "this URL has no path", format!("did you mean {base}/v1?"));
    }
    Some(base.to_owned())
}

/// Where something is posted to.
pub(crate) fn webhook(text: &raw::Url, at: &At<'_>) -> Option<String> {
    any_url(text, at, "http://scaler.internal:9000/scale", "let the receiver know its callers by their addresses")?;
    Some(text.0.clone())
}

/// An http or https URL without a user and without a query.
fn any_url(text: &raw::Url, at: &At<'_>, example: &str, instead_of_user: &str) -> Option<http::Uri> {
    let text = text.0.as_str();
    let bad = |message: &str, help: String| {
        at.error(Code::BadUrl, message, help);
        None
    };
    let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else {
        let help = format!("write it with its scheme, such as {example}");
        return bad("this URL is not http:// or https://", help);
    };
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        at.error(
            Code::SecretInFile,
            "this URL has a user or a password in it",
            format!("remove it from the URL, and {instead_of_user}"),
        );
        return None;
    }
    let Ok(parsed) = text.parse::<http::Uri>() else {
        return bad("this is not a URL", format!("write scheme, host, port and path, such as {example}"));
    };
    let has_port = authority.rsplit_once(']').map_or(authority, |(_, rest)| rest).contains(':');
    if parsed.host().is_none_or(str::is_empty) || (has_port && parsed.port_u16().is_none_or(|port| port == 0)) {
        return bad("this URL has no host or no valid port", format!("write host and port, such as {example}"));
    }
    if text.contains(['?', '#']) {
        return bad("this URL has a query", "cut it off at the `?` or `#`".to_owned());
    }
    Some(parsed)
}

pub(crate) fn date(text: &raw::Date, at: &At<'_>) -> Option<String> {
    const WRITTEN: usize = "2027-05-31".len();
    let text = text.0.as_str();
    if text.len() == WRITTEN && text.parse::<jiff::civil::Date>().is_ok() {
        return Some(text.to_owned());
    }
    at.error(Code::BadDate, format!("{} is not a date", at.shown()), "write year-month-day, such as 2027-05-31");
    None
}

/// A price that is not negative; nothing at all is let through with a warning, as a GPU of one's own may be.
pub(crate) fn price(usd: f64, at: &At<'_>) -> Option<NanoUsd> {
    let price = NanoUsd::from_usd(usd).filter(|_| usd >= 0.0);
    match price {
        None => {
            at.error(
                Code::BadPrice,
                format!("{} is not a price", at.shown()),
                "write USD as a number of at least 0, such as 2.39",
            );
        }
        Some(NanoUsd::ZERO) => {
            at.warning(
                Code::ZeroPrice,
                "this costs nothing",
                "write what it costs; at 0 it looks like the cheapest way",
            );
        }
        Some(_) => {}
    }
    price
}

/// A bound on spending: not zero.
pub(crate) fn budget(usd: f64, at: &At<'_>) -> Option<NanoUsd> {
    let budget = NanoUsd::from_usd(usd).filter(|budget| *budget > NanoUsd::ZERO);
    if budget.is_none() {
        at.error(
            Code::BadPrice,
            format!("{} is not an amount to spend", at.shown()),
            "write USD as a number above 0, such as 40",
        );
    }
    budget
}

/// `"${ENV}"` or `file:PATH`. The value is never repeated: what is not a reference is likely the secret itself.
pub(crate) fn secret(text: &str, base: &Path, at: &At<'_>) -> Option<SecretRef> {
    if let Some(name) = env_name(text) {
        return Some(SecretRef::Env(name.to_owned()));
    }
    if let Some(path) = text.strip_prefix("file:") {
        return file(path, base, at).map(SecretRef::File);
    }
    if text.starts_with('$') {
        let help = "write \"${NAME}\" with letters, digits and _ in the name";
        at.error(Code::BadReference, "this is not a reference to a variable", help);
    } else {
        let help = "put it into a variable or a file, and write \"${NAME}\" or file:PATH; \
                    replace the secret, since whoever read this file has seen it";
        at.error(Code::SecretInFile, "a secret stands here as a value", help);
    }
    None
}

/// The path of `file:PATH`, from the fleet file's folder.
pub(crate) fn file(path: &str, base: &Path, at: &At<'_>) -> Option<PathBuf> {
    // `file://` is a URL's way to write it; `//run/x` would name the same file by luck on Unix.
    if path.is_empty() || path.starts_with("//") {
        at.error(Code::BadReference, "this names no file", "write file:PATH, such as file:/run/secrets/openai");
        return None;
    }
    Some(base.join(path))
}

/// A file of PEM. A variable cannot be renewed, and is refused.
pub(crate) fn pem(text: &str, base: &Path, at: &At<'_>) -> Option<PathBuf> {
    if let Some(path) = text.strip_prefix("file:") {
        return file(path, base, at);
    }
    at.error(
        Code::BadReference,
        "certificates and their keys are files",
        "write file:PATH, such as file:/etc/outrigger/tls.crt",
    );
    None
}

/// A network, or one address.
pub(crate) fn network(text: &raw::Network, at: &At<'_>) -> Option<IpNet> {
    let network = text.0.parse().or_else(|_| text.0.parse::<IpAddr>().map(IpNet::from));
    if network.is_err() {
        let help = "write a network or an address, such as 10.0.0.0/8 or 192.0.2.7; names are not looked up";
        at.error(Code::BadAddress, format!("{} is not a network", at.shown()), help);
    }
    network.ok()
}

/// 64 hex digits or `file:PATH`. Anything else may be the key itself, and is not repeated.
pub(crate) fn key_hash(text: &raw::Hash, base: &Path, at: &At<'_>) -> Option<KeyHash> {
    if let Some(path) = text.0.strip_prefix("file:") {
        return file(path, base, at).map(KeyHash::File);
    }
    let hash = from_hex(&text.0);
    if hash.is_none() {
        let help = "write 64 hex digits or file:PATH; `outrigger key new NAME` prints a key and its hash";
        let message = if is_reference(&text.0) {
            "a variable cannot stand here".to_owned()
        } else {
            format!("this is not the SHA-256 of a key: it has {} characters", text.0.chars().count())
        };
        at.error(Code::BadSha256, message, help);
    }
    hash.map(KeyHash::Literal)
}

pub(crate) fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(hash)
}
