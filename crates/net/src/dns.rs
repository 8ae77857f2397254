//! Names to addresses, from /etc/hosts and the name servers of /etc/resolv.conf, or those that [`VARIABLE`] names.
//!
//! Not by the C library's resolver: that one loads modules at run time, which a static binary cannot, and blocks a thread
//! for each lookup. What it knows beyond these two files (LDAP, mDNS) is not known here.
//!
//! A name that cannot be looked up any more goes on meaning what it last meant (RFC 8767): name servers fail more often
//! than engines move. One that means other addresses altogether has moved, which is counted, so that connections to
//! the old place can be left.

use std::{
    collections::HashMap,
    env,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};
use outrigger_core::record::Fault;
use tokio::time::{Instant, timeout};

/// Name servers to ask in place of those of /etc/resolv.conf: `ADDRESS` or `ADDRESS:PORT`, with commas between them.
pub const VARIABLE: &str = "OUTRIGGER_NAME_SERVERS";
const PORT: u16 = 53;

/// An answer is believed no longer than this, whatever it says: a backend that moves is to be found again.
const LONGEST: Duration = Duration::from_secs(30);
/// That a name does not exist, for as long as this.
const LONGEST_WITHOUT: Duration = Duration::from_secs(1);
/// Whoever knows what a name last meant waits no longer than this for news. It is part of the time to connect.
const PATIENCE: Duration = Duration::from_millis(150);
/// Between two attempts at a name that could not be looked up, or whose addresses did not answer.
const AGAIN: Duration = Duration::from_secs(1);
/// For as long a name goes on meaning what it last meant (RFC 8767, 5: one to three days).
const KEPT: Duration = Duration::from_hours(24);

/// Every address of a name, and an address for itself. The caller bounds the time.
pub(crate) async fn addresses(host: &str) -> Result<Vec<IpAddr>, Fault> {
    match without_asking(host) {
        Some(addresses) => Ok(addresses),
        None => BOOK.addresses(host, look_up(host.to_owned())).await,
    }
}

/// The same after these did not answer, without what was heard before; nothing for what is no name.
pub(crate) async fn afresh(host: &str) -> Vec<IpAddr> {
    if without_asking(host).is_some() || !BOOK.may_ask_afresh(host) {
        return Vec::new();
    }
    if let Some(resolver) = resolver() {
        resolver.clear_cache();
    }
    addresses(host).await.unwrap_or_default()
}

/// Looks a name up again in the background, if what was heard is too old, and says how often it has moved so far.
pub(crate) fn follow(host: &str) -> u32 {
    if without_asking(host).is_some() {
        return 0;
    }
    let name = host.to_owned();
    tokio::spawn(async move { drop(addresses(&name).await) });
    BOOK.moves(host)
}

/// What is wrong with [`VARIABLE`], and what to do.
pub fn check_settings() -> Result<(), String> {
    name_servers().map(|_| ())
}

fn name_servers() -> Result<Vec<SocketAddr>, String> {
    let Ok(text) = env::var(VARIABLE) else { return Ok(Vec::new()) };
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| parse_server(part).ok_or_else(|| not_a_server(part))).collect()
}

fn parse_server(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(|address| (address, PORT).into()))
}

fn not_a_server(text: &str) -> String {
    format!("{VARIABLE}: `{text}` is no address; write `10.0.0.2` or `127.0.0.1:8600`, with commas between several")
}

fn without_asking(host: &str) -> Option<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Some(vec![address]);
    }
    // Wherever it is left out of /etc/hosts, it means this all the same (RFC 6761).
    let is_here = host.trim_end_matches('.').eq_ignore_ascii_case("localhost");
    is_here.then(|| vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
}

async fn look_up(host: String) -> Option<Vec<IpAddr>> {
    let found = resolver()?.lookup_ip(host).await.ok()?;
    let addresses: Vec<IpAddr> = found.iter().collect();
    (!addresses.is_empty()).then_some(addresses)
}

/// `None` where /etc/resolv.conf cannot be read.
fn resolver() -> Option<&'static TokioResolver> {
    static RESOLVER: OnceLock<Option<TokioResolver>> = OnceLock::new();
    let build = || {
        let named = name_servers().ok()?;
        let mut builder = if named.is_empty() {
            TokioResolver::builder_tokio().ok()?
        } else {
            let servers = named.into_iter().map(name_server).collect();
            let config = ResolverConfig::from_name_servers(servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.positive_max_ttl = Some(LONGEST);
        options.negative_max_ttl = Some(LONGEST_WITHOUT);
        builder.build().ok()
    };
    RESOLVER.get_or_init(build).as_ref()
}

fn name_server(at: SocketAddr) -> NameServerConfig {
    let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
    (udp.port, tcp.port) = (at.port(), at.port());
    NameServerConfig::new(at.ip(), true, vec![udp, tcp])
}

static BOOK: LazyLock<Book> = LazyLock::new(Book::default);

/// What names were last known to mean. They come from the fleet file, so that there are few.
#[derive(Default)]
struct Book(Mutex<HashMap<String, Known>>);

struct Known {
    addresses: Vec<IpAddr>,
    heard: Instant,
    moves: u32,
    /// It is not asked for again before this.
    quiet_until: Instant,
    afresh: Option<Instant>,
}

impl Book {
    /// What `ask` finds, or after some patience what was known. The question goes on without whoever asked it.
    async fn addresses(
        &'static self,
        host: &str,
        ask: impl Future<Output = Option<Vec<IpAddr>>> + Send + 'static,
    ) -> Result<Vec<IpAddr>, Fault> {
        let known = self.known(host);
        if let Some((addresses, true)) = known {
            return Ok(addresses);
        }
        let name = host.to_owned();
        let asked = tokio::spawn(async move {
            let found = ask.await;
            if let Some(addresses) = &found {
                self.learn(&name, addresses.clone());
            }
            found
        });
        let Some((addresses, _)) = known else { return asked.await.ok().flatten().ok_or(Fault::Dns) };
        let found = timeout(PATIENCE, asked).await.ok().and_then(Result::ok).flatten();
        Ok(found.unwrap_or_else(|| {
            self.be_quiet(host);
            addresses
        }))
    }

    /// What was known, and whether it has to do for now.
    fn known(&self, host: &str) -> Option<(Vec<IpAddr>, bool)> {
        let now = Instant::now();
        let book = self.lock();
        let known = book.get(host).filter(|known| now - known.heard < KEPT)?;
        Some((known.addresses.clone(), now < known.quiet_until))
    }

    fn learn(&self, host: &str, addresses: Vec<IpAddr>) {
        let now = Instant::now();
        let mut book = self.lock();
        let before = book.get(host);
        let has_moved = before.is_some_and(|known| !known.addresses.iter().any(|a| addresses.contains(a)));
        let moves = before.map_or(0, |known| known.moves) + u32::from(has_moved);
        let afresh = before.and_then(|known| known.afresh);
        book.insert(host.to_owned(), Known { addresses, heard: now, moves, quiet_until: now, afresh });
    }

    fn be_quiet(&self, host: &str) {
        if let Some(known) = self.lock().get_mut(host) {
            known.quiet_until = Instant::now() + AGAIN;
        }
    }

    /// Once in a while: everybody whose connection fails at the same time would ask.
    fn may_ask_afresh(&self, host: &str) -> bool {
        let now = Instant::now();
        let mut book = self.lock();
        let Some(known) = book.get_mut(host) else { return false };
        let may = known.afresh.is_none_or(|last| now - last >= AGAIN);
        if may {
            known.afresh = Some(now);
        }
        may
    }

    fn moves(&self, host: &str) -> u32 {
        self.lock().get(host).map_or(0, |known| known.moves)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const HOST: &str = "engine.example";

    fn ip(last: u8) -> Vec<IpAddr> {
        vec![IpAddr::from([10, 0, 0, last])]
    }

    fn book() -> &'static Book {
        Box::leak(Box::default())
    }

    #[tokio::test]
    async fn addresses_and_this_machine_need_no_name_server() {
        assert_eq!(addresses("10.1.2.3").await, Ok(vec![IpAddr::from([10, 1, 2, 3])]));
        assert_eq!(addresses("::1").await, Ok(vec![Ipv6Addr::LOCALHOST.into()]));
        assert_eq!(addresses("LocalHost.").await.map(|all| all[0]), Ok(Ipv4Addr::LOCALHOST.into()));
        assert_eq!((afresh("10.1.2.3").await, follow("localhost")), (Vec::new(), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_goes_on_meaning_what_it_last_meant_for_a_day() {
        let book = book();
        assert_eq!(book.addresses(HOST, ready(None)).await, Err(Fault::Dns));
        assert_eq!(book.addresses(HOST, ready(Some(ip(1)))).await, Ok(ip(1)));
        assert_eq!(book.addresses(HOST, ready(None)).await, Ok(ip(1)));
        tokio::time::advance(KEPT.checked_sub(AGAIN).unwrap()).await;
        assert_eq!(book.addresses(HOST, ready(None)).await, Ok(ip(1)));
        tokio::time::advance(AGAIN).await;
        assert_eq!(book.addresses(HOST, ready(None)).await, Err(Fault::Dns));
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_server_that_is_silent_costs_its_patience_once_a_second() {
        let book = book();
        book.learn(HOST, ip(1));
        let waits = async || {
            let began = Instant::now();
            assert_eq!(book.addresses(HOST, pending()).await, Ok(ip(1)));
            began.elapsed()
        };
        assert!(waits().await >= PATIENCE);
        assert_eq!(waits().await, Duration::ZERO);
        tokio::time::advance(AGAIN).await;
        assert!(waits().await >= PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_late_is_heard_all_the_same() {
        let book = book();
        book.learn(HOST, ip(1));
        let late = async {
            tokio::time::sleep(PATIENCE * 2).await;
            Some(ip(2))
        };
        assert_eq!(book.addresses(HOST, late).await, Ok(ip(1)));
        tokio::time::sleep(PATIENCE * 2).await;
        assert_eq!(book.known(HOST), Some((ip(2), false)));
    }

    #[test]
    fn only_another_place_altogether_is_a_move() {
        let book = book();
        let both = [ip(1), ip(2)].concat();
        for (addresses, moves) in [(ip(1), 0), (both.clone(), 0), (ip(2), 0), (ip(3), 1), (ip(3), 1), (both, 2)] {
            book.learn(HOST, addresses.clone());
            assert_eq!(book.moves(HOST), moves, "{addresses:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_asked_for_afresh_once_a_second() {
        let book = book();
        assert!(!book.may_ask_afresh(HOST), "nothing is known of it");
        book.learn(HOST, ip(1));
        assert_eq!([book.may_ask_afresh(HOST), book.may_ask_afresh(HOST)], [true, false]);
        book.learn(HOST, ip(2));
        assert!(!book.may_ask_afresh(HOST));
        tokio::time::advance(AGAIN).await;
        assert!(book.may_ask_afresh(HOST));
    }

    #[test]
    fn name_servers_are_addresses_with_a_port_or_without() {
        assert_eq!(parse_server("10.0.0.2"), Some(([10, 0, 0, 2], 53).into()));
        assert_eq!(parse_server("127.0.0.1:8600"), Some(([127, 0, 0, 1], 8600).into()));
        assert_eq!(parse_server("[::1]:8600"), Some((Ipv6Addr::LOCALHOST, 8600).into()));
        assert_eq!(parse_server("fd00::1").map(|at| at.port()), Some(53));
        assert_eq!((parse_server("dns.example"), parse_server("10.0.0.2:x")), (None, None));
    }
}
