//! Names to addresses, from /etc/hosts and the name servers of /etc/resolv.conf.
//!
//! Not by the C library's resolver: that one loads modules at run time, which a static binary cannot, and blocks a thread
//! for each lookup. What it knows beyond these two files (LDAP, mDNS) is not known here.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::OnceLock,
    time::Duration,
};

use hickory_resolver::{TokioResolver, config::LookupIpStrategy};
use outrigger_core::record::Fault;

/// An answer is believed no longer than this, whatever it says: a backend that moves is to be found again.
const LONGEST: Duration = Duration::from_secs(30);
/// That a name does not exist, for as long as this.
const LONGEST_WITHOUT: Duration = Duration::from_secs(1);

/// Every address of a name, and an address for itself. The caller bounds the time.
pub(crate) async fn addresses(host: &str) -> Result<Vec<IpAddr>, Fault> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    // Wherever it is left out of /etc/hosts, it means this all the same (RFC 6761).
    if host.trim_end_matches('.').eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let found = resolver().ok_or(Fault::Dns)?.lookup_ip(host).await.map_err(|_| Fault::Dns)?;
    Ok(found.iter().collect())
}

/// `None` where /etc/resolv.conf cannot be read.
fn resolver() -> Option<&'static TokioResolver> {
    static RESOLVER: OnceLock<Option<TokioResolver>> = OnceLock::new();
    let build = || {
        let mut builder = TokioResolver::builder_tokio().ok()?;
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.positive_max_ttl = Some(LONGEST);
        options.negative_max_ttl = Some(LONGEST_WITHOUT);
        builder.build().ok()
    };
    RESOLVER.get_or_init(build).as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_and_this_machine_need_no_name_server() {
        assert_eq!(addresses("10.1.2.3").await, Ok(vec![IpAddr::from([10, 1, 2, 3])]));
        assert_eq!(addresses("::1").await, Ok(vec![Ipv6Addr::LOCALHOST.into()]));
        assert_eq!(addresses("LocalHost.").await.map(|all| all[0]), Ok(Ipv4Addr::LOCALHOST.into()));
    }
}
