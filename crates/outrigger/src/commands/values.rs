//! Values of flags that more than one command takes. A wrong one is refused before anything else happens, with an
//! example of a right one.

use std::net::SocketAddr;

/// An admin listener: `http://HOST:PORT` without anything behind it.
pub(super) fn admin_url(text: &str) -> Result<String, String> {
    let wrong = || "write it as http://HOST:PORT, such as http://127.0.0.1:8081".to_owned();
    if text.starts_with("https://") {
        return Err(format!("the admin listener speaks http and not https; {}", wrong()));
    }
    let url: http::Uri = text.parse().map_err(|_| wrong())?;
    let bare = url.path() == "/" && url.query().is_none();
    match (url.scheme_str(), url.host(), url.port_u16()) {
        (Some("http"), Some(host), Some(port)) if bare && !text.contains('@') => Ok(format!("http://{host}:{port}")),
        _ => Err(wrong()),
    }
}

/// Where something listens.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write it as ADDRESS:PORT, such as 127.0.0.1:8080; a name is not taken".to_owned())
}

pub(super) fn whole_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "give a whole number".to_owned())
}

pub(super) fn number(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|n| n.is_finite()).ok_or_else(|| "give a number, such as 2 or 0.5".to_owned())
}

/// The day of a plan.
pub(super) fn date(text: &str) -> Result<jiff::civil::Date, String> {
    text.parse().map_err(|_| "write year-month-day, such as 2026-11-30".to_owned())
}

/// Today, in UTC.
pub(super) fn today() -> jiff::civil::Date {
    let epoch = jiff::civil::date(1970, 1, 1);
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let days = i32::try_from(seconds / 86_400).unwrap_or(0);
    epoch.checked_add(jiff::Span::new().days(days)).unwrap_or(epoch)
}

/// How long an overlay lasts, by the admin API's own rule; it is sent as it is written.
pub(super) fn time(text: &str) -> Result<String, String> {
    match outrigger_gateway::admin::duration(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("give a whole number with s, m, h or d, such as 30m or 2h, up to 366d".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_listener_is_a_url_with_a_port_and_nothing_else() {
        for (text, url) in [
            ("http://127.0.0.1:8081", "http://127.0.0.1:8081"),
            ("http://gw.example:80/", "http://gw.example:80"),
            ("http://[::1]:8081", "http://[::1]:8081"),
        ] {
            assert_eq!(admin_url(text).as_deref(), Ok(url));
        }
        let wrong = [
            "",
            "localhost:8081",
            "http://gw",
            "https://gw:1",
            "http://gw:1/api",
            "http://u@gw:1",
            "http://gw:1?x",
            "ftp://gw:1",
        ];
        for text in wrong {
            assert!(admin_url(text).is_err_and(|why| why.contains("http://HOST:PORT")), "{text}");
        }
    }
}
