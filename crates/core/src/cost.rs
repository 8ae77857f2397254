//! What one request adds to the bill, by kind, and what a pool costs by the clock.
//!
//! A pool's own cost accrues whether it is used or not and is never part of a request's: adding the two would count
//! paid GPUs twice. A request on them adds no cost of GPUs, which is why it is better sent there.

use std::{ops::Add, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    facts::Facts,
    fleet::{Backend, BackendId, Cloud, Fleet, Pool, PoolPrice, TokenPrice},
    price,
    record::Usage,
    units::{Bytes, NanoUsd, Tokens},
};

/// Assumed length of an answer whose client set no bound. It only sizes the reservation against a spend limit, which
/// is settled with what was really used.
pub const ASSUMED_OUTPUT: Tokens = Tokens(1_024);

/// Marginal cost of one attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    pub gpu: NanoUsd,
    pub tokens: NanoUsd,
    pub egress: NanoUsd,
}

impl Cost {
    pub fn total(&self) -> NanoUsd {
        self.gpu + self.tokens + self.egress
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { gpu: self.gpu + other.gpu, tokens: self.tokens + other.tokens, egress: self.egress + other.egress }
    }
}

/// What an attempt on `backend` that used `usage` added.
pub fn of_attempt(backend: &Backend, usage: &Usage) -> Cost {
    let tokens = backend.token_price.map_or(NanoUsd::ZERO, |price| of_tokens(&price, usage));
    Cost { tokens, ..Cost::default() }
}

/// What a request would add on a backend whose slots take `rate` requests a second together, where that is known.
///
/// Reserved capacity is paid for whether it is used or not, so that it costs nothing more. Capacity on demand costs its
/// price by the hour, spread over what it can serve: without that, it would look as cheap as what is reserved.
pub fn expected(fleet: &Fleet, id: BackendId, facts: &Facts, rate: Option<f64>) -> Cost {
    let backend = fleet.backend(id);
    let tokens = backend.token_price.map_or(NanoUsd::ZERO, |price| reservation(&price, facts));
    let on_demand = backend.pool.map(|pool| &fleet.pools[pool.index()].price).and_then(|price| match price {
        PoolPrice::OnDemand { usd_per_gpu_hour, .. } => Some(*usd_per_gpu_hour),
        PoolPrice::Reserved { .. } => None,
    });
    let gpu = on_demand.map_or(NanoUsd::ZERO, |per_gpu| {
        let per_second = per_gpu.0 as f64 * f64::from(backend.replicas * backend.gpus_per_replica) / 3_600.0;
        NanoUsd((per_second / rate.unwrap_or(UNKNOWN_RATE)) as i64)
    });
    let output = facts.max_tokens.unwrap_or(ASSUMED_OUTPUT).0;
    let answer = output.saturating_mul(if facts.stream { STREAMED_TOKEN } else { PLAIN_TOKEN });
    Cost { gpu, tokens, ..of_transfer(fleet, id, facts.body_bytes, Bytes(answer)) }
}

/// Requests a second of a backend that has not served enough to know: low, so that what is unknown is not called cheap.
const UNKNOWN_RATE: f64 = 1.0;
/// A streamed token is about this many bytes of an answer, with the event around it; one in a whole answer is text.
const STREAMED_TOKEN: u64 = 200;
const PLAIN_TOKEN: u64 = 5;

/// What the bytes of an attempt added: those that left the gateway's cloud for another one, and those that came back out
/// of the backend's.
///
/// Egress is billed by who sends: the request at the rate of the gateway's cloud, the answer at the backend's. Inside one
/// cloud both are free. Where the gateway stands has to be said, or nothing is known to have left a cloud.
pub fn of_transfer(fleet: &Fleet, backend: BackendId, bytes_out: Bytes, bytes_in: Bytes) -> Cost {
    let Some(own) = &fleet.gateway.cloud else { return Cost::default() };
    let theirs = fleet.cloud_of(backend);
    if *own == theirs.name {
        return Cost::default();
    }
    let usd = |rate: Option<NanoUsd>, bytes: Bytes| rate.map_or(NanoUsd::ZERO, |rate| of_bytes(rate, bytes));
    Cost {
        egress: usd(fleet.gateway.egress_usd_per_gb, bytes_out) + usd(theirs.egress_usd_per_gb, bytes_in),
        ..Cost::default()
    }
}

/// What a gigabyte costs that leaves the gateway's cloud: as the fleet says, or by the book where the fleet does not
/// list that cloud, because no backend stands there.
pub fn gateway_egress(cloud: Option<&str>, clouds: &[Cloud]) -> Option<NanoUsd> {
    let own = cloud?;
    match clouds.iter().find(|cloud| cloud.name == own) {
        Some(cloud) => cloud.egress_usd_per_gb,
        None => price::egress_usd_per_gb(own),
    }
}

/// What a pool costs in this time: all that is reserved, and of a pool on demand the least that it keeps.
pub fn of_pool(pool: &Pool, time: Duration) -> NanoUsd {
    const HOUR: i128 = Duration::from_hours(1).as_nanos() as i128;
    let gpus = match pool.price {
        PoolPrice::Reserved { .. } => pool.gpus.max,
        PoolPrice::OnDemand { .. } => pool.gpus.min,
    };
    let nano = i128::from(gpus) * i128::from(pool.price.usd_per_gpu_hour().0);
    let nano = nano.saturating_mul(i128::try_from(time.as_nanos()).unwrap_or(i128::MAX));
    NanoUsd(i64::try_from(rounded(nano, HOUR)).unwrap_or(i64::MAX))
}

/// At a price for a gigabyte of 10⁹ bytes.
fn of_bytes(usd_per_gb: NanoUsd, bytes: Bytes) -> NanoUsd {
    let nano = i128::from(usd_per_gb.0) * i128::from(bytes.0);
    NanoUsd(i64::try_from(rounded(nano, 1_000_000_000)).unwrap_or(i64::MAX))
}

/// A quotient of what is not negative, to the nearest.
fn rounded(dividend: i128, divisor: i128) -> i128 {
    dividend.saturating_add(divisor / 2) / divisor
}

/// What to reserve for a request on a backend that is billed by the token.
pub fn reservation(price: &TokenPrice, facts: &Facts) -> NanoUsd {
    let output = facts.max_tokens.unwrap_or(ASSUMED_OUTPUT);
    price.input.per_million(facts.prompt_tokens.0) + price.output.per_million(output.0)
}

fn of_tokens(price: &TokenPrice, usage: &Usage) -> NanoUsd {
    let cached = usage.cached.0.min(usage.prompt.0);
    price.input.per_million(usage.prompt.0 - cached)
        + price.cached_input.per_million(cached)
        + price.output.per_million(usage.output.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fleet::{ApiSet, CloudId, Engine, Gateway, GpuCount, Limits, MetricsMode, Reach, Replicas, TimeoutOverrides},
        record::TokensSource,
    };

    #[test]
    fn cached_tokens_are_billed_at_their_own_price() {
        let price = TokenPrice {
            input: NanoUsd(2_000_000_000),
            output: NanoUsd(10_000_000_000),
            cached_input: NanoUsd(1_000_000_000),
        };
        let usage = Usage { prompt: Tokens(100), output: Tokens(10), cached: Tokens(40), source: TokensSource::Engine };
        assert_eq!(of_tokens(&price, &usage), NanoUsd(60 * 2_000 + 40 * 1_000 + 10 * 10_000));
    }

    fn cloud(name: &str, egress_usd_per_gb: Option<f64>) -> Cloud {
        Cloud {
            name: name.to_owned(),
            region: None,
            api_key: None,
            spend_limit: None,
            egress_usd_per_gb: egress_usd_per_gb.and_then(NanoUsd::from_usd),
        }
    }

    /// One backend in the cloud `gpus`, at 0.02 USD a gigabyte, and a gateway in this one.
    fn fleet(gateway_cloud: Option<&str>) -> Fleet {
        let backend = Backend {
            name: "b".to_owned(),
            cloud: CloudId(0),
            pool: None,
            replicas: 1,
            gpus_per_replica: 1,
            engine: Engine::Vllm,
            url: String::new(),
            api_key: None,
            model: String::new(),
            max_in_flight: None,
            timeouts: TimeoutOverrides::default(),
            reach: Reach::default(),
            metrics: MetricsMode::None,
            token_price: None,
            engine_model: None,
            apis: ApiSet::default(),
        };
        let clouds = vec![cloud("gpus", Some(0.02)), cloud("dear", Some(0.5)), cloud("unpriced", None)];
        Fleet {
            digest: String::new(),
            gateway: Gateway {
                cloud: gateway_cloud.map(str::to_owned),
                region: None,
                egress_usd_per_gb: gateway_egress(gateway_cloud, &clouds),
                listen: ([127, 0, 0, 1], 0).into(),
                admin: ([127, 0, 0, 1], 0).into(),
                replicas: Replicas::Count(1),
                state_dir: None,
                limits: Limits::default(),
                tls: None,
                trusted_proxies: Vec::new(),
                drain: Duration::ZERO,
            },
            clouds,
            pools: Vec::new(),
            backends: vec![backend],
            models: Vec::new(),
            keys: Vec::new(),
            routes: Vec::new(),
        }
    }

    /// 2 MB out and 50 kB back: 0.002 GB at the gateway's rate, and 0.00005 GB × 0.02 USD = 1,000 nano-USD.
    #[test]
    fn each_direction_is_billed_by_who_sends() {
        for (gateway, nano) in [
            (Some("aws"), 180_000 + 1_000),
            (Some("dear"), 1_000_000 + 1_000),
            (Some("unpriced"), 1_000),
            (Some("nobody-knows"), 1_000),
            (Some("gpus"), 0),
            (None, 0),
        ] {
            let cost = of_transfer(&fleet(gateway), BackendId(0), Bytes(2_000_000), Bytes(50_000));
            assert_eq!(cost, Cost { egress: NanoUsd(nano), ..Cost::default() }, "{gateway:?}");
        }
        let most = of_transfer(&fleet(Some("aws")), BackendId(0), Bytes(u64::MAX), Bytes(0));
        assert_eq!(most.egress.0, 1_660_206_966_633_859_645, "1.8446744 × 10¹⁰ GB at 0.09 USD");
    }

    #[test]
    fn a_pool_costs_by_the_clock() {
        let price = NanoUsd::from_usd(2.5).expect("finite");
        let pool = |price: PoolPrice, min: u32, max: u32| Pool {
            name: "p".to_owned(),
            cloud: CloudId(0),
            gpu: "h100".to_owned(),
            gpus: GpuCount { min, max, step: 1 },
            price,
            scale: None,
        };
        let reserved = PoolPrice::Reserved { usd_per_gpu_hour: price, until: None };
        let on_demand = PoolPrice::OnDemand {
            usd_per_gpu_hour: price,
            billing_block: Duration::from_secs(1),
            cold_start: Duration::ZERO,
        };
        let hour = Duration::from_hours(1);
        assert_eq!(of_pool(&pool(reserved.clone(), 16, 16), hour), NanoUsd(40_000_000_000));
        assert_eq!(of_pool(&pool(reserved.clone(), 16, 16), hour / 4), NanoUsd(10_000_000_000));
        assert_eq!(of_pool(&pool(on_demand.clone(), 8, 32), hour), NanoUsd(20_000_000_000));
        assert_eq!(of_pool(&pool(on_demand, 0, 32), hour), NanoUsd::ZERO);
        assert_eq!(of_pool(&pool(reserved, u32::MAX, u32::MAX), Duration::MAX), NanoUsd(i64::MAX));
    }
}
