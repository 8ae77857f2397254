//! What each pool has cost since the gateway started, by the clock.
//!
//! Nothing ticks: the cost is worked out when somebody asks, from the time since the fleet in force took over, and what
//! came before it is kept at the prices of then. A pool that a reload removed keeps its total, because a counter that
//! falls reads as a restart.

use std::collections::BTreeMap;

use outrigger_core::{
    cost,
    fleet::{Fleet, Pool, PoolPrice},
    units::{NanoUsd, Nanos},
};

/// What a sum is kept by: a pool that is rented in another way, or elsewhere, is another bill.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bill {
    pub pool: String,
    pub cloud: String,
    pub kind: &'static str,
}

/// Sums that grow by the clock.
#[derive(Debug)]
pub struct PoolCosts {
    since: Nanos,
    /// Until then.
    before: BTreeMap<Bill, NanoUsd>,
}

impl PoolCosts {
    pub fn start(now: Nanos) -> Self {
        Self { since: now, before: BTreeMap::new() }
    }

    /// All sums now, `fleet` being in force.
    pub fn at(&self, fleet: &Fleet, now: Nanos) -> BTreeMap<Bill, NanoUsd> {
        let mut sums = self.before.clone();
        for pool in &fleet.pools {
            *sums.entry(bill(fleet, pool)).or_default() += cost::of_pool(pool, now.since(self.since));
        }
        sums
    }

    /// `old` is in force no longer.
    pub fn ends(&mut self, old: &Fleet, now: Nanos) {
        self.before = self.at(old, now);
        self.since = now;
    }
}

fn bill(fleet: &Fleet, pool: &Pool) -> Bill {
    let kind = match pool.price {
        PoolPrice::Reserved { .. } => "reserved",
        PoolPrice::OnDemand { .. } => "on_demand",
    };
    Bill { pool: pool.name.clone(), cloud: fleet.cloud(pool.cloud).name.clone(), kind }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use outrigger_core::fleet::{Cloud, CloudId, Gateway, GpuCount, Limits, Replicas};

    use super::*;

    /// One reserved pool of four GPUs at this price, and one on demand that keeps one GPU.
    fn fleet(reserved_usd: f64) -> Fleet {
        let usd = |usd| NanoUsd::from_usd(usd).unwrap();
        let reserved = PoolPrice::Reserved { usd_per_gpu_hour: usd(reserved_usd), until: None };
        let on_demand = PoolPrice::OnDemand {
            usd_per_gpu_hour: usd(4.0),
            billing_block: Duration::from_secs(1),
            cold_start: Duration::ZERO,
        };
        let pool = |name: &str, min, max, price| Pool {
            name: name.to_owned(),
            cloud: CloudId(0),
            gpu: "h100".to_owned(),
            gpus: GpuCount { min, max, step: 1 },
            price,
            scale: None,
        };
        let cloud =
            Cloud { name: "c".to_owned(), region: None, api_key: None, spend_limit: None, egress_usd_per_gb: None };
        Fleet {
            digest: String::new(),
            gateway: Gateway {
                cloud: None,
                region: None,
                egress_usd_per_gb: None,
                listen: ([127, 0, 0, 1], 0).into(),
                admin: ([127, 0, 0, 1], 0).into(),
                replicas: Replicas::Count(2),
                state_dir: None,
                limits: Limits::default(),
                tls: None,
                trusted_proxies: Vec::new(),
                drain: Duration::ZERO,
            },
            clouds: vec![cloud],
            pools: vec![pool("base", 4, 4, reserved), pool("burst", 1, 8, on_demand)],
            backends: Vec::new(),
            models: Vec::new(),
            keys: Vec::new(),
            routes: Vec::new(),
        }
    }

    #[test]
    fn a_reload_changes_the_price_from_then_on() {
        let hour = |n: u64| Nanos::from_secs(3_600 * n);
        let usd = |costs: &PoolCosts, fleet: &Fleet, at: Nanos| -> Vec<(String, &str, f64)> {
            costs.at(fleet, at).into_iter().map(|(bill, sum)| (bill.pool, bill.kind, sum.as_usd())).collect()
        };
        let sums = |base: f64, burst: f64| {
            vec![("base".to_owned(), "reserved", base), ("burst".to_owned(), "on_demand", burst)]
        };
        let (cheap, dear) = (fleet(2.0), fleet(3.0));
        let mut costs = PoolCosts::start(hour(10));
        assert_eq!(usd(&costs, &cheap, hour(10)), sums(0.0, 0.0));
        assert_eq!(usd(&costs, &cheap, hour(12)), sums(16.0, 8.0));
        costs.ends(&cheap, hour(12));
        assert_eq!(usd(&costs, &dear, hour(12)), sums(16.0, 8.0), "nothing is lost or counted twice");
        assert_eq!(usd(&costs, &dear, hour(13)), sums(28.0, 12.0));
        costs.ends(&dear, hour(13));
        let gone = Fleet { pools: Vec::new(), ..fleet(3.0) };
        assert_eq!(usd(&costs, &gone, hour(20)), sums(28.0, 12.0), "what was paid stays paid");
    }
}
