//! Where a request came from: the address of the connection, or what a trusted proxy says in its place.
//!
//! Anybody can write `X-Forwarded-For`. So it is read from its end, where the nearest proxy wrote, and only as far as
//! the addresses are those of `gateway.trusted_proxies`; the first one that is not is the client. `Forwarded`
//! (RFC 7239) is read only where the other is absent: a proxy that keeps one of them passes the other on as it came.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED: &str = "forwarded";

pub fn of(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return peer;
    }
    if headers.contains_key(X_FORWARDED_FOR) {
        let said = items(headers, X_FORWARDED_FOR).map(address);
        return first_stranger(peer, said, trusted);
    }
    let said = items(headers, FORWARDED).map(|element| address(forwarded_for(element)?));
    first_stranger(peer, said, trusted)
}

/// The first address that is no trusted proxy's; where one cannot be read, the proxy that passed it on.
fn first_stranger(peer: IpAddr, said: impl Iterator<Item = Option<IpAddr>>, trusted: &[IpNet]) -> IpAddr {
    let mut nearest = peer;
    for address in said {
        let Some(address) = address else { return nearest };
        nearest = address;
        if !is_trusted(address, trusted) {
            break;
        }
    }
    nearest
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// The items of a list that may stand in several headers, the last one first.
fn items<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().rev();
    lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','))
}

/// The `for` of one element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<&str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    Some(value.trim().trim_matches('"'))
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = || text.parse().ok();
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    bare().or_else(bracketed).or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const PEER: &str = "10.0.0.1";
    const TRUSTED: [&str; 2] = ["10.0.0.0/8", "2001:db8:ffff::/48"];

    fn check(peer: &str, headers: &[(&'static str, &'static str)], expected: &str) {
        let trusted: Vec<IpNet> = TRUSTED.iter().map(|n| n.parse().expect("a network")).collect();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        assert_eq!(of(peer.parse().expect("an address"), &map, &trusted).to_string(), expected, "{peer} {headers:?}");
    }

    #[test]
    fn a_stranger_is_not_believed() {
        check("192.0.2.9", &[], "192.0.2.9");
        check("192.0.2.9", &[("x-forwarded-for", "198.51.100.1")], "192.0.2.9");
        check("192.0.2.9", &[("forwarded", "for=198.51.100.1")], "192.0.2.9");
    }

    #[test]
    fn a_proxy_is_believed_as_far_as_proxies_go() {
        check(PEER, &[], PEER);
        check(PEER, &[("x-forwarded-for", "198.51.100.1")], "198.51.100.1");
        check("::ffff:10.0.0.1", &[("x-forwarded-for", "198.51.100.1")], "198.51.100.1");
        // What the client wrote itself stands to the left of what the proxy saw.
        check(PEER, &[("x-forwarded-for", "203.0.113.7, 198.51.100.1")], "198.51.100.1");
        check(
            PEER,
            &[("x-forwarded-for", "203.0.113.7"), ("x-forwarded-for", "198.51.100.1, 10.2.3.4")],
            "198.51.100.1",
        );
        check(PEER, &[("x-forwarded-for", "10.9.9.9, 10.2.3.4")], "10.9.9.9");
        check("2001:db8:ffff::1", &[("x-forwarded-for", "[2001:db8::7]:443")], "2001:db8::7");
    }

    #[test]
    fn what_cannot_be_read_ends_at_the_proxy_that_passed_it_on() {
        check(PEER, &[("x-forwarded-for", "unknown")], PEER);
        check(PEER, &[("x-forwarded-for", "198.51.100.1, \u{fc}, 10.2.3.4")], PEER);
        check(PEER, &[("x-forwarded-for", "198.51.100.1,, 10.2.3.4")], "10.2.3.4");
    }

    #[test]
    fn forwarded_counts_where_the_other_is_absent() {
        check(PEER, &[("forwarded", "for=198.51.100.1;proto=https")], "198.51.100.1");
        check(PEER, &[("forwarded", "proto=https; For=\"[2001:db8::7]:4711\"")], "2001:db8::7");
        check(PEER, &[("forwarded", "for=203.0.113.7, for=198.51.100.1:80, for=10.2.3.4")], "198.51.100.1");
        check(PEER, &[("forwarded", "for=_hidden")], PEER);
        check(PEER, &[("forwarded", "for=203.0.113.7"), ("x-forwarded-for", "198.51.100.1")], "198.51.100.1");
    }
}
