//! The demand as levels of a rate, and lengths as a mean and a variation.

use outrigger_plan::economics::{Demand, Level};

use super::{Context, items, raw};
use crate::{collect::At, fault::Code, values};

/// Requests per second; a thousand times a large service.
const MOST_RPS: f64 = 100_000.0;

pub(super) fn resolve(raw: Option<&raw::Demand>, at: &At<'_>, context: &Context<'_>) -> Option<Demand> {
    let raw = raw?;
    let ways: Vec<&str> = [
        ("requests_per_second", raw.requests_per_second.is_some()),
        ("curve", raw.curve.is_some()),
        ("rates", raw.rates.is_some()),
        ("trace", raw.trace.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, is_there)| is_there.then_some(name))
    .collect();
    match ways[..] {
        // What was cut out has its fault already.
        [] if ["requests_per_second", "curve", "rates", "trace"].iter().any(|key| at.key(key).is_written()) => {}
        [] => {
            let help = "add `requests_per_second:`, a `curve:`, a file of `rates:` or a `trace:`";
            at.error_at_key(Code::EmptyDemand, "nothing says how much is asked for", help);
        }
        [_] => {}
        [first, second, ..] => {
            let message = format!("`{first}` and `{second}` both say how much is asked for");
            at.key(second).error_at_key(Code::Contradiction, message, "keep one of them");
        }
    }
    let shape = raw.trace.as_ref().and_then(|trace| of_trace(trace, &at.key("trace"), context));
    let levels = match &shape {
        Some(shape) => Some(shape.levels.clone()),
        None => levels(raw, at, context),
    };
    let lengths = |tokens: &Option<raw::Tokens>, key: &str, of_trace: Option<(u64, f64)>| match tokens {
        Some(own) => length(own, &at.key(key)),
        None if of_trace.is_some() || raw.trace.is_some() => of_trace,
        None if at.key(key).is_written() => None,
        None => {
            let help = "write a mean, such as 211, or `{ mean, cv }`, or `{ quantiles }`";
            at.error_at_key(Code::MissingKey, format!("`demand` has no `{key}`"), help);
            None
        }
    };
    let prompt = lengths(&raw.prompt_tokens, "prompt_tokens", shape.as_ref().map(|s| (s.prompt_milli, 1.0)));
    let output = lengths(&raw.output_tokens, "output_tokens", shape.as_ref().map(|s| (s.output_milli, s.output_cv)));
    let levels = levels?;
    if levels.iter().all(|level| level.micro_rps == 0) {
        let place = ways.first().map_or_else(|| at.clone(), |way| at.key(way));
        place.error(Code::EmptyDemand, "nothing is asked for", "write a rate above 0 somewhere");
    }
    let (output_milli, output_cv) = output?;
    Some(Demand {
        levels,
        prompt_milli: prompt?.0,
        output_milli,
        output_cv,
        arrival_cv: raw.arrival_cv.or(shape.map(|shape| shape.arrival_cv)).unwrap_or(1.0),
    })
}

fn levels(raw: &raw::Demand, at: &At<'_>, context: &Context<'_>) -> Option<Vec<Level>> {
    if let Some(rps) = raw.requests_per_second {
        let micro_rps = rate(rps, &at.key("requests_per_second"))?;
        return Some(vec![Level { seconds: 3_600, micro_rps }]);
    }
    if raw.curve.is_some() {
        let one = |(raw, at): (&raw::Level, At<'_>)| {
            let seconds = values::some_duration(raw.length.as_ref()?, &at.key("for"))?.as_secs().max(1);
            Some(Level { seconds, micro_rps: rate(raw.requests_per_second?, &at.key("requests_per_second"))? })
        };
        let curve: Vec<Level> = items(raw.curve.as_ref(), &at.key("curve")).into_iter().filter_map(one).collect();
        return (!curve.is_empty()).then_some(curve);
    }
    let rates = raw.rates.as_ref()?;
    let at = at.key("rates");
    let scale = rates.scale.unwrap_or(1.0);
    if scale <= 0.0 || !scale.is_finite() {
        at.key("scale").error(Code::OutOfRange, "a scale of nothing", "write a number above 0, such as 0.01");
        return None;
    }
    let file = context.base.join(rates.file.as_ref()?);
    match context.outside.rates(&file, rates.column.as_deref().unwrap_or("rps"), scale) {
        Ok(levels) if levels.iter().any(|level| level.micro_rps as f64 > MOST_RPS * 1e6) => {
            at.key("file").error(Code::OutOfRange, "above 100,000 requests per second", "is `scale` right?");
            None
        }
        Ok(levels) => Some(levels),
        Err(why) => {
            at.key("file").error(Code::BadOutsideFile, why, "give a CSV with `window_start_s` and the rate's column");
            None
        }
    }
}

fn of_trace(raw: &raw::Trace, at: &At<'_>, context: &Context<'_>) -> Option<super::super::TraceShape> {
    let window = match &raw.window {
        Some(text) => values::some_duration(text, &at.key("window"))?.as_secs().max(1),
        None => 600,
    };
    let file = context.base.join(raw.file.as_ref()?);
    let shape = context.outside.trace(&file, window);
    shape
        .map_err(|why| at.key("file").error(Code::BadOutsideFile, why, "give a trace that `outrigger simulate` reads"))
        .ok()
}

/// In millionths.
fn rate(rps: f64, at: &At<'_>) -> Option<u64> {
    if rps.is_finite() && (0.0..=MOST_RPS).contains(&rps) {
        return Some((rps * 1e6).round() as u64);
    }
    let help = "write requests per second, from 0 to 100000";
    at.error(Code::OutOfRange, format!("{} is not a rate", at.shown()), help);
    None
}

/// The mean in thousandths, and the variation.
fn length(raw: &raw::Tokens, at: &At<'_>) -> Option<(u64, f64)> {
    let (mean, cv) = match raw {
        raw::Tokens::Mean(mean) => (*mean, 1.0),
        raw::Tokens::Spread(spread) => match (&spread.mean, &spread.quantiles) {
            (Some(mean), None) => (*mean, spread.cv.unwrap_or(1.0)),
            (None, Some(_)) => of_quantiles(spread, at)?,
            _ => {
                let help = "write `mean:` and `cv:`, or `quantiles:`";
                at.error_at_key(Code::Contradiction, "a length has either a mean or quantiles", help);
                return None;
            }
        },
    };
    let is_length = mean > 0.0 && mean <= 1e7 && (0.0..=100.0).contains(&cv);
    if !is_length {
        let help = "write tokens above 0, and a variation from 0 to 100";
        at.error(Code::OutOfRange, "this is not a length", help);
        return None;
    }
    Some(((mean * 1e3).round() as u64, cv))
}

/// Straight lines between quantiles: of a piece from a to b, the mean is (a + b) / 2 and the mean square
/// (a² + ab + b²) / 3.
fn of_quantiles(spread: &raw::Spread, at: &At<'_>) -> Option<(f64, f64)> {
    let quantiles = items(spread.quantiles.as_ref(), &at.key("quantiles"));
    let mut pairs: Vec<(f64, f64)> = Vec::new();
    for (quantile, at) in quantiles {
        let (share, tokens) = (quantile.at?, quantile.tokens?);
        if pairs.last().is_some_and(|(before, least)| share <= *before || tokens < *least) {
            let help = "sort them by `at`; tokens never fall";
            at.key("at").error(Code::Contradiction, "this does not follow the quantile before it", help);
            return None;
        }
        pairs.push((share, tokens));
    }
    let (first, last) = (*pairs.first()?, *pairs.last()?);
    pairs.insert(0, (0.0, first.1));
    pairs.push((1.0, last.1));
    let pieces = || pairs.windows(2).map(|pair| (pair[1].0 - pair[0].0, pair[0].1, pair[1].1));
    let mean: f64 = pieces().map(|(share, a, b)| share * (a + b) / 2.0).sum();
    let square: f64 = pieces().map(|(share, a, b)| share * (a * a + a * b + b * b) / 3.0).sum();
    Some((mean, (square - mean * mean).max(0.0).sqrt() / mean))
}
