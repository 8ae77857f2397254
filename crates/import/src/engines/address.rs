//! The URL of an engine as people type it, made into the one that a fleet file has.
//!
//! With and without a scheme, a version, a slash or the path of an endpoint at the end: all of these are the same
//! engine, and asking for it twice would give it two shares of the traffic.

use std::fmt;

use http::Uri;

/// Where an engine may be: a host and the path before its version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    is_https: bool,
    /// Lower case; an IPv6 address in brackets.
    host: String,
    port: Option<u16>,
    /// Without a slash at the end; empty where the engine has the port to itself.
    path: String,
}

/// A URL that no engine can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    #[error("it is not an http or https URL; write it such as http://10.0.0.7:8000/v1")]
    NotAUrl,
    #[error("it has a user or a password in it; give the key as --key-env NAME")]
    HasUser,
    #[error("it has a query; cut it off at the `?` or `#`")]
    HasQuery,
}

const ENDPOINTS: &[&str] = &["/models", "/chat/completions", "/completions", "/embeddings", "/responses", "/messages"];

impl Address {
    pub fn parse(text: &str) -> Result<Self, BadAddress> {
        let text = text.trim();
        let (is_https, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some(_) => return Err(BadAddress::NotAUrl),
            None => (false, text),
        };
        if rest.split('/').next().is_some_and(|authority| authority.contains('@')) {
            return Err(BadAddress::HasUser);
        }
        if rest.contains(['?', '#']) {
            return Err(BadAddress::HasQuery);
        }
        let uri: Uri = format!("http://{rest}").parse().map_err(|_| BadAddress::NotAUrl)?;
        let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or(BadAddress::NotAUrl)?;
        let has_port = authority.as_str().len() > authority.host().len();
        if has_port && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(BadAddress::NotAUrl);
        }
        let default = if is_https { 443 } else { 80 };
        let path = uri.path().trim_end_matches('/');
        let path = ENDPOINTS.iter().find_map(|end| path.strip_suffix(end)).unwrap_or(path);
        let path = path.strip_suffix("/v1").unwrap_or(path).trim_end_matches('/');
        Ok(Self {
            is_https,
            host: authority.host().to_ascii_lowercase(),
            port: authority.port_u16().filter(|port| *port != default),
            path: path.to_owned(),
        })
    }

    /// The base URLs that it may have, the likelier first: most put `/v1` behind what they are given.
    pub fn bases(&self) -> Vec<String> {
        let root = self.to_string();
        let versioned = format!("{root}/v1");
        if self.path.is_empty() { vec![versioned] } else { vec![versioned, root] }
    }

    /// The path before the version, which an engine behind somebody's path has.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn is_https(&self) -> bool {
        self.is_https
    }

    /// Without brackets.
    pub fn host(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_an_engine_is_the_same_engine() {
        for text in [
            "http://Host:8000",
            "http://host:8000/",
            "http://host:8000/v1",
            "http://host:8000/v1/",
            "HTTP://host:8000/v1/models",
            "http://host:8000/v1/chat/completions",
            "host:8000",
            " host:8000/v1 ",
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.to_string(), "http://host:8000", "{text}");
            assert_eq!(address.bases(), ["http://host:8000/v1"], "{text}");
        }
    }

    #[test]
    fn ports_schemes_and_paths_tell_engines_apart() {
        let parse = |text: &str| Address::parse(text).unwrap();
        assert_eq!(parse("http://h:80/v1"), parse("http://h"));
        assert_eq!(parse("https://h:443"), parse("https://h/v1"));
        assert_ne!(parse("https://h"), parse("http://h"));
        assert_ne!(parse("http://h:8000"), parse("http://h:8001"));
        assert_eq!(parse("http://[::1]:8000/v1").to_string(), "http://[::1]:8000");
        assert_eq!(parse("http://[::1]:8000").host(), "::1");
        let behind = parse("https://api.example/v1/openai/");
        assert_eq!(behind.bases(), ["https://api.example/v1/openai/v1", "https://api.example/v1/openai"]);
        assert_eq!(parse("https://h/proxy/8000/v1").path(), "/proxy/8000");
    }

    #[test]
    fn what_no_engine_can_have_is_refused_with_what_to_do() {
        for (text, expect) in [
            ("", BadAddress::NotAUrl),
            ("ftp://h", BadAddress::NotAUrl),
            ("http://", BadAddress::NotAUrl),
            ("http:///v1", BadAddress::NotAUrl),
            ("http://h:0/v1", BadAddress::NotAUrl),
            ("http://h:/v1", BadAddress::NotAUrl),
            ("http://h:99999", BadAddress::NotAUrl),
            ("a b", BadAddress::NotAUrl),
            ("http://user:secret@h/v1", BadAddress::HasUser),
            ("http://h/v1?key=secret", BadAddress::HasQuery),
        ] {
            assert_eq!(Address::parse(text), Err(expect), "{text}");
        }
    }
}
