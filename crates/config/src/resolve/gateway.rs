//! `gateway:` where it stands, what it listens on, and its bounds.

use std::time::Duration;

use ipnet::IpNet;
use outrigger_core::fleet::{Gateway, Limits, Replicas};

use super::{
    super::{collect::At, fault::Code, raw, values},
    Context, items,
};

const LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);
const ADMIN: ([u8; 4], u16) = ([127, 0, 0, 1], 8081);
const DRAIN: Duration = Duration::from_secs(30);

pub(super) fn resolve(context: &Context<'_>) -> Gateway {
    let none = raw::Gateway::default();
    let raw = context.raw.gateway.as_ref().unwrap_or(&none);
    let at = context.root.key("gateway");
    let address = |text: &Option<raw::Address>, key: &str| text.as_ref().and_then(|a| values::address(a, &at.key(key)));
    let gateway = Gateway {
        cloud: raw.cloud.clone(),
        region: raw.region.clone(),
        // Known once the clouds are.
        egress_usd_per_gb: None,
        listen: address(&raw.listen, "listen").unwrap_or(LISTEN.into()),
        admin: address(&raw.admin, "admin").unwrap_or(ADMIN.into()),
        replicas: replicas(raw.replicas.as_ref(), &at.key("replicas")),
        state_dir: raw.state_dir.as_ref().map(|dir| context.base.join(dir)),
        limits: limits(raw.limits.as_ref(), &at.key("limits")),
        tls: raw.tls.as_ref().and_then(|tls| context.certificate(tls, &at.key("tls"))),
        trusted_proxies: trusted_proxies(raw.trusted_proxies.as_ref(), &at.key("trusted_proxies")),
        drain: raw.drain.as_ref().and_then(|d| values::duration(d, &at.key("drain"))).unwrap_or(DRAIN),
    };
    check_exposure(context, &gateway, &at);
    gateway
}

fn replicas(raw: Option<&raw::Replicas>, at: &At<'_>) -> Replicas {
    match raw {
        None => Replicas::Count(1),
        Some(raw::Replicas::Count(count)) => Replicas::Count(*count),
        Some(raw::Replicas::Dns(text)) => {
            let name = text.0.strip_prefix("dns:").filter(|name| !name.is_empty() && !name.contains([' ', '/', ':']));
            if name.is_none() {
                let help = "write a number, or dns:NAME for a name with one address per replica";
                at.error(Code::BadReference, format!("{} is neither a number nor dns:NAME", at.shown()), help);
            }
            Replicas::Dns(name.unwrap_or_default().to_owned())
        }
    }
}

fn limits(raw: Option<&raw::Limits>, at: &At<'_>) -> Limits {
    let default = Limits::default();
    let Some(raw) = raw else { return default };
    let size = |text: &Option<raw::Size>, key: &str| text.as_ref().and_then(|size| values::size(size, &at.key(key)));
    let time = |text: &Option<raw::Duration>, key: &str| {
        text.as_ref().and_then(|time| values::some_duration(time, &at.key(key)))
    };
    let limits = Limits {
        body_bytes: size(&raw.body, "body").unwrap_or(default.body_bytes),
        held_bytes: size(&raw.held, "held").unwrap_or(default.held_bytes),
        head_bytes: size(&raw.head, "head").map_or(default.head_bytes, |n| usize::try_from(n).unwrap_or(usize::MAX)),
        connections: raw.connections.map_or(default.connections, |n| n as usize),
        read_timeout: time(&raw.read_timeout, "read_timeout").unwrap_or(default.read_timeout),
        write_timeout: time(&raw.write_timeout, "write_timeout").unwrap_or(default.write_timeout),
    };
    if limits.body_bytes > limits.held_bytes {
        let place = if raw.body.is_some() { at.key("body") } else { at.key("held") };
        let message = format!(
            "one body may have {} bytes, and all together {}: the largest can never be taken",
            limits.body_bytes, limits.held_bytes
        );
        place.error(Code::LimitsOrder, message, "make `held` larger than `body`, best by many times");
    }
    limits
}

fn trusted_proxies(raw: Option<&raw::List<raw::Network>>, at: &At<'_>) -> Vec<IpNet> {
    let networks = items(raw, at).into_iter().filter_map(|(text, at)| {
        let network = values::network(text, &at)?;
        if network.prefix_len() == 0 {
            at.warning(
                Code::TrustsEveryone,
                "every client is trusted to say where it comes from",
                "name the addresses of your proxies only",
            );
        }
        Some(network)
    });
    networks.collect()
}

/// Who can reach the two listeners.
fn check_exposure(context: &Context<'_>, gateway: &Gateway, at: &At<'_>) {
    let listen = at.key("listen");
    let has_keys =
        context.root.key("keys").is_written() && context.raw.keys.as_ref().is_none_or(|keys| !keys.0.is_empty());
    if !gateway.listen.ip().is_loopback() && !has_keys {
        listen.error(
            Code::KeysRequired,
            format!("{} is open to others, and the fleet has no keys", gateway.listen),
            "add a key under `keys:` (`outrigger key new NAME` prints one), or listen on 127.0.0.1",
        );
    }
    let admin = at.key("admin");
    if !gateway.admin.ip().is_loopback() {
        admin.warning(
            Code::AdminExposed,
            format!("{} is open to others: whoever has the token can drain backends and change weights", gateway.admin),
            "set OUTRIGGER_ADMIN_TOKEN, without which `serve` refuses this, or write 127.0.0.1",
        );
    }
    if gateway.listen == gateway.admin && gateway.listen.port() != 0 {
        let place = if admin.is_written() { admin } else { listen };
        place.error(Code::SameAddress, "clients and operators cannot share an address", "give `admin` another port");
    }
}
