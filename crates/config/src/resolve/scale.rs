//! `pools.*.scale:` who is told when a pool should have more or fewer GPUs.
//!
//! A command that rents GPUs is the dearest thing a fleet file can say, so that everything about it that could only be
//! a slip is an error: a pool that never changes, a bound that allows nothing, a command that is none.

use std::time::Duration;

use outrigger_core::fleet::{Pool, PoolPrice, Scale, ScaleCall};

use super::{
    super::{collect::At, fault::Code, raw, values},
    clouds::UNKNOWN_GPUS,
    items,
};

const TIMEOUT: Duration = Duration::from_secs(30);

/// `None` where something is at fault. `at` is the pool's place.
pub(super) fn resolve(raw: &raw::Scale, pool: &Pool, at: &At<'_>) -> Option<Scale> {
    let (at, gpus) = (at.key("scale"), pool.gpus);
    let comes_and_goes = matches!(pool.price, PoolPrice::OnDemand { .. }) && gpus.min < gpus.max;
    if !comes_and_goes && gpus.min <= gpus.max && gpus != UNKNOWN_GPUS {
        at.error_at_key(
            Code::ScaleUnused,
            "the GPUs of this pool do not come and go, so there is nothing to scale",
            "write `gpus: { min, max, step }` and `on_demand`, or remove `scale`",
        );
    }
    let call = call(raw, &at);
    let timeout = raw.timeout.as_ref().map_or(Some(TIMEOUT), |text| values::some_duration(text, &at.key("timeout")));
    let most_at = at.key("max_usd_per_hour");
    let max_usd_per_hour = raw.max_usd_per_hour.and_then(|usd| values::budget(usd, &most_at));
    let scale = Scale { call: call?, timeout: timeout?, max_usd_per_hour, dry_run: raw.dry_run.unwrap_or(true) };
    if comes_and_goes && gpus != UNKNOWN_GPUS && scale.most_gpus(pool) <= gpus.min {
        let first = gpus.min.saturating_add(gpus.step);
        let usd = pool.price.usd_per_gpu_hour().as_usd() * f64::from(first);
        most_at.error(
            Code::ScaleBudget,
            format!("the first step is {first} GPUs at {usd} USD an hour, which is more than this"),
            format!("write at least {usd}, or remove the bound"),
        );
    }
    Some(scale)
}

fn call(raw: &raw::Scale, at: &At<'_>) -> Option<ScaleCall> {
    let (exec, webhook) = (at.key("exec"), at.key("webhook"));
    match (exec.is_written(), webhook.is_written()) {
        (true, true) => {
            webhook.error_at_key(
                Code::ScaleCall,
                "a pool is scaled by a command or by a webhook, and this one by both",
                "keep one; the command can call the webhook too",
            );
            return None;
        }
        (false, false) => {
            at.error_at_key(
                Code::ScaleCall,
                "who scales this pool is not said",
                "add `exec: [COMMAND, ARGUMENT, …]` or `webhook: http://…`",
            );
            return None;
        }
        _ => {}
    }
    if let Some(url) = &raw.webhook {
        return values::webhook(url, &webhook).map(ScaleCall::Webhook);
    }
    let all = raw.exec.as_ref()?.0.len();
    let words: Vec<String> = items(raw.exec.as_ref(), &exec).into_iter().map(|(word, _)| word.clone()).collect();
    if words.len() < all {
        return None;
    }
    if words.first().is_some_and(|command| command.trim().is_empty()) {
        exec.index(0).error(
            Code::ScaleCall,
            "this is no command",
            "write the program first, such as [scale-pool, burst]",
        );
        return None;
    }
    if let Some(at) = words.iter().position(|word| word.contains('\0')) {
        exec.index(at).error(Code::ScaleCall, "this word has a NUL in it, which no command can take", "remove it");
        return None;
    }
    (!words.is_empty()).then_some(ScaleCall::Exec(words))
}
