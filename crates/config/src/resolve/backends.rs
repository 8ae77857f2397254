//! `backends:` where each runs, how it is reached, what it costs, and whether the pools have the GPUs for them all.

use outrigger_core::{
    fleet::{Api, ApiSet, Backend, CloudId, Engine, EngineModel, Pool, PoolId, TimeoutOverrides, TokenPrice},
    price::token_price,
};

use super::{
    super::{collect::At, fault::Code, raw, values},
    Context, MOST_THINGS,
    clouds::UNKNOWN_GPUS,
    look_up, reach,
};

/// Hosted APIs that speak the OpenAI dialect, by the name of their cloud. Sources: each vendor's API reference.
const HOSTED: &[(&str, &str)] = &[
    ("openai", "https://api.openai.com/v1"),
    ("together", "https://api.together.xyz/v1"),
    ("fireworks", "https://api.fireworks.ai/inference/v1"),
    ("groq", "https://api.groq.com/openai/v1"),
    ("deepinfra", "https://api.deepinfra.com/v1/openai"),
    ("openrouter", "https://openrouter.ai/api/v1"),
    ("mistral", "https://api.mistral.ai/v1"),
];

fn hosted_url(cloud: &str) -> Option<&'static str> {
    HOSTED.iter().find(|(name, _)| *name == cloud).map(|(_, url)| *url)
}

/// Whether a backend is somebody's API, billed by the token, rather than GPUs that are rented.
pub(super) fn is_hosted(backend: &Backend, cloud: &str) -> bool {
    backend.pool.is_none()
        && backend.engine == Engine::Openai
        && (hosted_url(cloud).is_some() || !is_nearby(&backend.url))
}

/// An engine by its address is one's own, whatever it speaks.
fn is_nearby(url: &str) -> bool {
    url.starts_with("http://")
}

pub(super) fn resolve(context: &Context<'_>, pools: &[Pool]) -> Vec<Backend> {
    let backends = context.each("backends", context.raw.backends.as_ref(), MOST_THINGS);
    let none = raw::Backend::default();
    let resolved: Vec<Backend> = backends
        .into_iter()
        .map(|(name, raw, at)| match raw {
            Some(raw) => backend(context, name, raw, &at, pools),
            None => assemble(context, name, &none, &at, (CloudId(0), None)),
        })
        .collect();
    check_allocation(context, pools, &resolved);
    resolved
}

fn backend(context: &Context<'_>, name: &str, raw: &raw::Backend, at: &At<'_>, pools: &[Pool]) -> Backend {
    let place = place(context, raw, at, pools);
    let mut backend = assemble(context, name, raw, at, place.unwrap_or((CloudId(0), None)));
    let cloud = place.and_then(|(cloud, _)| context.raw.clouds.as_ref()?.names().nth(cloud.index()));
    find(context, &mut backend, raw, at, cloud);
    reach::check(&backend, at);
    if let (Some(cloud), None, Engine::Openai, None) = (cloud, backend.pool, backend.engine, &backend.token_price) {
        backend.token_price = token_price(cloud, &backend.model);
    }
    if raw.usd_per_million_tokens.is_some() && backend.pool.is_some() {
        at.key("usd_per_million_tokens").warning_at_key(
            Code::PricedTwice,
            "this backend's GPUs are paid for by the hour in its pool, and it is priced by the token too",
            "remove `usd_per_million_tokens`, or replace `pool` by `cloud` if it is billed by the token",
        );
    }
    backend
}

fn assemble(
    context: &Context<'_>,
    name: &str,
    raw: &raw::Backend,
    at: &At<'_>,
    place: (CloudId, Option<PoolId>),
) -> Backend {
    let (cloud, pool) = place;
    Backend {
        name: name.to_owned(),
        cloud,
        pool,
        replicas: raw.replicas.unwrap_or(1),
        gpus_per_replica: raw.gpus_per_replica.unwrap_or(u32::from(pool.is_some())),
        engine: raw.engine.map_or(Engine::Openai, Into::into),
        url: raw.url.as_ref().and_then(|url| values::url(url, &at.key("url"))).unwrap_or_default(),
        api_key: raw.api_key.as_ref().and_then(|key| context.secret(key, &at.key("api_key"))),
        model: raw.model.clone().unwrap_or_default(),
        max_in_flight: raw.max_in_flight,
        timeouts: raw.timeouts.as_ref().map(|t| timeouts(t, &at.key("timeouts"))).unwrap_or_default(),
        reach: reach::resolve(context, raw, at),
        metrics: raw.metrics.map(Into::into).unwrap_or_default(),
        token_price: raw.usd_per_million_tokens.as_ref().and_then(|p| price(p, &at.key("usd_per_million_tokens"))),
        engine_model: raw.engine_model.as_ref().and_then(|m| engine_model(context, m, &at.key("engine_model"))),
        apis: raw.apis.as_ref().map(apis).unwrap_or_default(),
    }
}

/// A limit is divided among the gateway's replicas, and each may have at least one request in flight.
pub(super) fn check_caps(context: &Context<'_>, backends: &[Backend], gateways: u32) {
    for backend in backends {
        if let Some(limit) = backend.max_in_flight.filter(|limit| *limit < gateways) {
            context.root.key("backends").key(&backend.name).key("max_in_flight").warning(
                Code::LimitBelowReplicas,
                format!("{limit} requests are divided among {gateways} gateway replicas, each of which may send one"),
                format!("raise it to {gateways} at least, or lower `gateway.replicas`"),
            );
        }
    }
}

/// The cloud and the pool. `None` when they are not known, which has been reported.
fn place(context: &Context<'_>, raw: &raw::Backend, at: &At<'_>, pools: &[Pool]) -> Option<(CloudId, Option<PoolId>)> {
    let (cloud_at, pool_at) = (at.key("cloud"), at.key("pool"));
    if !cloud_at.is_written() && !pool_at.is_written() {
        at.error_at_key(
            Code::BackendPlace,
            "where this backend runs is not said",
            "add `pool:` for GPUs that you rent, or `cloud:` for a hosted API",
        );
    }
    let cloud = raw.cloud.as_ref().and_then(|name| context.cloud(name, &cloud_at));
    let Some(pool_name) = &raw.pool else { return cloud.filter(|_| !pool_at.is_written()).map(|cloud| (cloud, None)) };
    let pool = look_up(context.raw.pools.as_ref(), pool_name, &pool_at, "pool", Code::UnknownPool)?;
    let pool = PoolId(pool);
    let known =
        context.raw.pools.as_ref().and_then(|all| all.0[pool.index()].1.as_ref()).and_then(|p| p.cloud.as_deref());
    let in_pool = pools.get(pool.index())?.cloud;
    if let (Some(cloud_name), Some(known)) = (&raw.cloud, known)
        && cloud_name != known
    {
        cloud_at.error(
            Code::BackendPlace,
            format!("this backend is in the cloud `{cloud_name}`, and its pool `{pool_name}` in `{known}`"),
            "remove `cloud:`; a backend is in the cloud of its pool",
        );
    }
    Some((in_pool, Some(pool)))
}

/// The URL and the key, which a hosted API may leave to its cloud.
fn find(context: &Context<'_>, backend: &mut Backend, raw: &raw::Backend, at: &At<'_>, cloud: Option<&str>) {
    let default = cloud.and_then(hosted_url).filter(|_| backend.engine == Engine::Openai && backend.pool.is_none());
    if !at.key("url").is_written() {
        let is_known = raw.engine.is_some() && cloud.is_some();
        match default {
            Some(url) => url.clone_into(&mut backend.url),
            None if is_known => at.error_at_key(
                Code::MissingUrl,
                "where this backend is reached is not said",
                "add `url:` with the version, such as `url: http://10.0.0.7:8000/v1`",
            ),
            None => {}
        }
    }
    let cloud_at = context.root.key("clouds").key(cloud.unwrap_or_default());
    if default.is_some() && !at.key("api_key").is_written() && !cloud_at.key("api_key").is_written() {
        at.warning_at_key(
            Code::NoApiKey,
            format!("`{}` answers nobody without a key", cloud.unwrap_or_default()),
            format!("add `api_key: \"${{NAME}}\"` under `clouds.{}`", cloud.unwrap_or_default()),
        );
    }
}

fn price(raw: &raw::TokenPrice, at: &At<'_>) -> Option<TokenPrice> {
    let price = |usd: Option<f64>, key: &str| usd.and_then(|usd| values::price(usd, &at.key(key)));
    let (input, output) = (price(raw.input, "input"), price(raw.output, "output"));
    let cached_input = price(raw.cached_input, "cached_input");
    Some(TokenPrice { input: input?, output: output?, cached_input: cached_input.or(input)? })
}

fn apis(raw: &raw::List<raw::Api>) -> ApiSet {
    raw.0.iter().flatten().map(|api| Api::from(*api)).collect()
}

fn engine_model(context: &Context<'_>, raw: &raw::EngineModel, at: &At<'_>) -> Option<EngineModel> {
    let (constant_rate, measured) = (at.key("constant_rate"), at.key("measured"));
    match (constant_rate.is_written(), measured.is_written()) {
        (true, true) => measured.error_at_key(
            Code::EngineModel,
            "an engine is simulated either at a constant rate or as it was measured, and this one is both",
            "keep one of `constant_rate` and `measured`",
        ),
        (false, false) => at.error_at_key(
            Code::EngineModel,
            "how this engine is simulated is not said",
            "add `constant_rate:` or `measured:`, or remove `engine_model:` to have the nearest engine known",
        ),
        _ => {}
    }
    if let Some(raw) = &raw.measured {
        let (file, slots) = (context.base.join(raw.file.as_ref()?), raw.slots?);
        return Some(EngineModel::Measured { file, slots });
    }
    let raw = raw.constant_rate.as_ref()?;
    let (slots, tokens_per_second) = (raw.slots?, raw.tokens_per_second?);
    if tokens_per_second <= 0.0 {
        constant_rate.key("tokens_per_second").error(
            Code::OutOfRange,
            "an engine at this speed never answers",
            "write a number above 0",
        );
    }
    Some(EngineModel::ConstantRate { slots, tokens_per_second })
}

/// A model's timeouts or a backend's, as far as they are written.
pub(super) fn timeouts(raw: &raw::Timeouts, at: &At<'_>) -> TimeoutOverrides {
    let phase =
        |text: &Option<raw::Duration>, key: &str| text.as_ref().and_then(|d| values::some_duration(d, &at.key(key)));
    TimeoutOverrides {
        connect: phase(&raw.connect, "connect"),
        headers: phase(&raw.headers, "headers"),
        first_token: phase(&raw.first_token, "first_token"),
        idle: phase(&raw.idle, "idle"),
        total: phase(&raw.total, "total"),
    }
}

/// Adds up aloud what the backends of each pool need.
fn check_allocation(context: &Context<'_>, pools: &[Pool], backends: &[Backend]) {
    for (index, pool) in pools.iter().enumerate().filter(|(_, pool)| pool.gpus != UNKNOWN_GPUS) {
        let users: Vec<&Backend> = backends.iter().filter(|b| b.pool.is_some_and(|p| p.index() == index)).collect();
        let needs = |b: &Backend| u64::from(b.replicas) * u64::from(b.gpus_per_replica);
        let needed: u64 = users.iter().map(|b| needs(b)).sum();
        let has = u64::from(pool.gpus.max);
        if needed <= has {
            continue;
        }
        let sums: Vec<String> = users
            .iter()
            .map(|b| format!("`{}` {} × {} = {}", b.name, b.replicas, b.gpus_per_replica, needs(b)))
            .collect();
        let gpus = context.root.key("pools").key(&pool.name).key("gpus");
        let place = if gpus.key("max").is_written() { gpus.key("max") } else { gpus };
        place.error(
            Code::PoolOverAllocated,
            format!("`{}` has {has} GPUs, and its backends need {needed}: {}", pool.name, sums.join(", ")),
            format!("rent {needed} GPUs, or lower `replicas` or `gpus_per_replica` by {} GPUs in all", needed - has),
        );
    }
}
