//! `clouds:` and `pools:`, and whether limits on spending can hold.

use std::time::Duration;

use outrigger_core::{
    fleet::{Backend, Cloud, CloudId, GpuCount, Pool, PoolPrice, SpendLimit},
    price,
    units::NanoUsd,
};

use super::{
    super::{collect::At, fault::Code, raw, values},
    Context, MOST_CLOUDS, MOST_THINGS, scale,
};

const BILLING_BLOCK: Duration = Duration::from_secs(1);
const COLD_START: Duration = Duration::from_mins(10);

pub(super) fn clouds(context: &Context<'_>) -> Vec<Cloud> {
    let none = raw::Cloud::default();
    let clouds = context.each("clouds", context.raw.clouds.as_ref(), MOST_CLOUDS);
    let resolve = |(name, raw, at): (&str, Option<&raw::Cloud>, At<'_>)| {
        let raw = raw.unwrap_or(&none);
        Cloud {
            name: name.to_owned(),
            region: raw.region.clone(),
            api_key: raw.api_key.as_ref().and_then(|key| context.secret(key, &at.key("api_key"))),
            spend_limit: raw.spend_limit.as_ref().map(|limit| spend_limit(limit, &at.key("spend_limit"))),
            egress_usd_per_gb: egress_price(name, raw, &at.key("egress_usd_per_gb")),
        }
    };
    clouds.into_iter().map(resolve).collect()
}

/// As written, or the list price of a cloud that the price book knows by its name.
fn egress_price(cloud: &str, raw: &raw::Cloud, at: &At<'_>) -> Option<NanoUsd> {
    match raw.egress_usd_per_gb {
        Some(usd) => free_price(usd, at),
        None if at.is_written() => None,
        None => price::egress_usd_per_gb(cloud),
    }
}

/// Egress is free in some clouds, so that 0 needs no warning.
fn free_price(usd: f64, at: &At<'_>) -> Option<NanoUsd> {
    if usd == 0.0 { Some(NanoUsd::ZERO) } else { values::price(usd, at) }
}

fn spend_limit(raw: &raw::SpendLimit, at: &At<'_>) -> SpendLimit {
    let (hour, day) = (at.key("usd_per_hour"), at.key("usd_per_day"));
    if !hour.is_written() && !day.is_written() {
        at.error_at_key(Code::Empty, "this limit limits nothing", "write usd_per_hour, usd_per_day, or both");
    }
    SpendLimit {
        per_hour: raw.usd_per_hour.and_then(|usd| values::budget(usd, &hour)),
        per_day: raw.usd_per_day.and_then(|usd| values::budget(usd, &day)),
    }
}

pub(super) fn pools(context: &Context<'_>) -> Vec<Pool> {
    let none = raw::Pool::default();
    let pools = context.each("pools", context.raw.pools.as_ref(), MOST_THINGS);
    let resolve = |(name, raw, at): (&str, Option<&raw::Pool>, At<'_>)| {
        let price = match raw {
            Some(raw) => pool_price(raw, &at),
            None => stand_in(),
        };
        let raw = raw.unwrap_or(&none);
        let pool = Pool {
            name: name.to_owned(),
            cloud: raw.cloud.as_ref().and_then(|cloud| context.cloud(cloud, &at.key("cloud"))).unwrap_or(CloudId(0)),
            gpu: raw.gpu.clone().unwrap_or_default(),
            gpus: gpus(raw.gpus.as_ref(), &at.key("gpus")),
            price,
            scale: None,
        };
        let scale = raw.scale.as_ref().and_then(|raw| scale::resolve(raw, &pool, &at));
        Pool { scale, ..pool }
    };
    pools.into_iter().map(resolve).collect()
}

/// What a pool goes on with whose GPUs were at fault: no sum over it is reported.
pub(super) const UNKNOWN_GPUS: GpuCount = GpuCount { min: 0, max: u32::MAX, step: 1 };

fn gpus(raw: Option<&raw::Gpus>, at: &At<'_>) -> GpuCount {
    let range = match raw {
        None => return UNKNOWN_GPUS,
        Some(raw::Gpus::Count(count)) => return GpuCount { min: *count, max: *count, step: 1 },
        Some(raw::Gpus::Range(range)) => range,
    };
    let Some(max) = range.max else { return UNKNOWN_GPUS };
    let gpus = GpuCount { min: range.min.unwrap_or(0), max, step: range.step.unwrap_or(1) };
    if gpus.min > gpus.max {
        let message = format!("min {} is more than max {}", gpus.min, gpus.max);
        at.key("min").error(Code::GpusRange, message, "write at most as many for `min` as for `max`");
        return gpus;
    }
    for (key, count) in [("min", gpus.min), ("max", gpus.max)] {
        if count % gpus.step != 0 {
            let below = count / gpus.step * gpus.step;
            at.key(key).error(
                Code::GpusStep,
                format!("{count} GPUs cannot be rented {} at a time", gpus.step),
                format!("write {below} or {}, or another `step`", u64::from(below) + u64::from(gpus.step)),
            );
        }
    }
    gpus
}

fn stand_in() -> PoolPrice {
    PoolPrice::Reserved { usd_per_gpu_hour: NanoUsd::ZERO, until: None }
}

fn pool_price(raw: &raw::Pool, at: &At<'_>) -> PoolPrice {
    let (reserved, on_demand) = (at.key("reserved"), at.key("on_demand"));
    match (reserved.is_written(), on_demand.is_written()) {
        (true, true) => on_demand.error_at_key(
            Code::PoolPrice,
            "a pool is either reserved or on demand, and this one is both",
            "keep one; make a second pool for the GPUs that are paid for in the other way",
        ),
        (false, false) => at.error_at_key(
            Code::PoolPrice,
            "how this pool is paid for is not said",
            "add `reserved: { usd_per_gpu_hour: … }` or `on_demand: { usd_per_gpu_hour: … }`",
        ),
        _ => {}
    }
    let price = |usd: Option<f64>, at: &At<'_>| usd.and_then(|usd| values::price(usd, &at.key("usd_per_gpu_hour")));
    if let Some(raw) = &raw.on_demand {
        let at = &on_demand;
        let duration =
            |text: &Option<raw::Duration>, key: &str| text.as_ref().and_then(|d| values::duration(d, &at.key(key)));
        return PoolPrice::OnDemand {
            usd_per_gpu_hour: price(raw.usd_per_gpu_hour, at).unwrap_or_default(),
            billing_block: duration(&raw.billing_block, "billing_block").unwrap_or(BILLING_BLOCK),
            cold_start: duration(&raw.cold_start, "cold_start").unwrap_or(COLD_START),
        };
    }
    let Some(raw) = &raw.reserved else { return stand_in() };
    PoolPrice::Reserved {
        usd_per_gpu_hour: price(raw.usd_per_gpu_hour, &reserved).unwrap_or_default(),
        until: raw.until.as_ref().and_then(|date| values::date(date, &reserved.key("until"))),
    }
}

/// A limit must have something to limit, and know the price of all that it limits.
pub(super) fn check_spend_limits(context: &Context<'_>, clouds: &[Cloud], backends: &[Backend]) {
    let all = context.raw.backends.as_ref().map(|all| all.0.as_slice()).unwrap_or_default();
    let is_whole =
        |raw: &raw::Backend| raw.model.is_some() && raw.engine.is_some() && (raw.cloud.is_some() || raw.pool.is_some());
    let is_known = all.iter().all(|(_, raw)| raw.as_ref().is_some_and(is_whole));
    for cloud in clouds.iter().filter(|cloud| cloud.spend_limit.is_some()) {
        let raw = |backend: &Backend| all.iter().find(|(name, _)| *name == backend.name)?.1.as_ref();
        // Asked of the file, because a backend whose place was at fault stands in the first cloud for now.
        let here = |backend: &&Backend| {
            raw(backend).is_some_and(|raw| raw.cloud.as_ref() == Some(&cloud.name) && raw.model.is_some())
                && !context.root.key("backends").key(&backend.name).key("pool").is_written()
        };
        let by_token =
            |backend: &Backend| backend.token_price.is_some() || super::backends::is_hosted(backend, &cloud.name);
        let limited: Vec<&Backend> = backends.iter().filter(here).filter(|backend| by_token(backend)).collect();
        if limited.is_empty() && is_known {
            context.root.key("clouds").key(&cloud.name).key("spend_limit").warning_at_key(
                Code::SpendLimitUnused,
                format!("no backend in `{}` is billed by the token, so there is nothing to limit", cloud.name),
                "remove the limit, or give `usd_per_million_tokens` to the backends it is for",
            );
        }
        for backend in limited.iter().filter(|backend| backend.token_price.is_none()) {
            let at = context.root.key("backends").key(&backend.name);
            if at.key("usd_per_million_tokens").is_written() {
                continue;
            }
            at.error_at_key(
                Code::PriceUnknown,
                format!(
                    "`{}` has a spend limit, and the price of `{}` is not in the price book",
                    cloud.name,
                    super::shown(&backend.model)
                ),
                "add `usd_per_million_tokens: { input: …, output: … }` to this backend",
            );
        }
    }
}
