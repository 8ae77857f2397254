//! What one request adds to the bill, by kind.
//!
//! A pool's own cost accrues by the clock whether it is used or not and is never part of this.

use serde::{Deserialize, Serialize};

use crate::{
    facts::Facts,
    fleet::{Backend, BackendId, Fleet, PoolPrice, TokenPrice},
    record::Usage,
    units::{NanoUsd, Tokens},
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
    Cost { tokens, gpu, egress: NanoUsd::ZERO }
}

/// Requests a second of a backend that has not served enough to know: low, so that what is unknown is not called cheap.
const UNKNOWN_RATE: f64 = 1.0;

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
    use crate::record::TokensSource;

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
}
