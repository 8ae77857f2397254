//! From a scenario as written to one that can be priced: names looked up, prices from the book, demand as levels.
//!
//! As with the fleet file everything is looked at whatever was wrong before it; a scenario comes out only where nothing
//! was.

mod demand;
mod money;

use std::path::Path;

use jiff::civil::Date;
use outrigger_core::{
    fleet::TokenPrice,
    price::{self, EgressTier},
    units::NanoUsd,
};
use outrigger_plan::economics::{
    Book, Candidate, Commitment, Constraints, End, Flow, Home, HostedOffer, Interconnect, InvoiceKind, Migration,
    Model, OtherCost, People, Point, Profile, Scenario, Slo, Today, TodayPool, Weights,
};

use self::money::{amount, any_amount, percent, price as gpu_price};
use super::{Outside, raw};
use crate::{
    collect::{At, shown},
    fault::Code,
    raw::List,
    values,
    walk::nearest,
};

/// What a scenario is resolved against.
pub(super) struct Context<'a> {
    pub(super) name: &'a str,
    pub(super) base: &'a Path,
    pub(super) book: &'a Book,
    pub(super) today: Date,
    pub(super) outside: &'a dyn Outside,
}

pub(super) fn resolve(raw: &raw::Scenario, at: &At<'_>, context: &Context<'_>) -> Option<Scenario> {
    let demand = demand::resolve(raw.demand.as_ref(), &at.key("demand"), context);
    let model = model(raw.model.as_ref(), &at.key("model"), context);
    let slo = slo(raw.slo.as_ref(), &at.key("slo"));
    let clouds = clouds(raw, at, model.as_ref(), context);
    let hosted = hosted(raw, at, context);
    let flows = flows(raw, &at.key("egress"));
    let mut clouds = clouds;
    let needs_egress = !flows.is_empty() || raw.weights.is_some();
    let home = home(raw.home.as_ref(), &at.key("home"), needs_egress, raw, &mut clouds);
    let commitments = commitments(raw, &at.key("commitments"), &clouds, context);
    let today = today(raw, &at.key("today"), &clouds, &hosted, context);
    let constraints = constraints(raw, &at.key("constraints"), &clouds, home.as_ref());
    if today.as_ref().is_some_and(|today| commitments.is_empty() && today.pools.is_empty() && today.hosted.is_none())
        && raw.commitments.as_ref().is_none_or(|list| list.0.is_empty())
        && !at.key("today").key("pools").is_written()
    {
        let help = "add `pools:` with what runs now, or `hosted:` with who serves it by the token";
        at.key("today").error_at_key(Code::Empty, "nothing is run today", help);
    }
    let uncertainty = raw.uncertainty.as_ref();
    Some(Scenario {
        name: raw.name.clone().unwrap_or_else(|| context.name.to_owned()),
        home: home?,
        demand: demand?,
        model: model?,
        slo: slo?,
        clouds,
        hosted,
        split_percent: raw.split_percent.unwrap_or(60),
        today: today?,
        flows,
        weights: weights(raw, &at.key("weights")),
        interconnect: interconnect(raw, &at.key("interconnect")),
        people: people(raw, &at.key("people")),
        migration: migration(raw, &at.key("migration")),
        commitments,
        constraints,
        price_uncertainty: uncertainty.and_then(|u| u.price_percent).unwrap_or(20),
        load_uncertainty: uncertainty.and_then(|u| u.load_percent).unwrap_or(20),
        horizon_months: raw.horizon_months.unwrap_or(12),
    })
}

/// The items of a list that were not at fault, each with its place.
fn items<'a, T>(list: Option<&'a List<T>>, at: &At<'a>) -> Vec<(&'a T, At<'a>)> {
    let items = list.map(|list| list.0.as_slice()).unwrap_or_default();
    items.iter().enumerate().filter_map(|(i, item)| Some((item.as_ref()?, at.index(i)))).collect()
}

/// Home, and the cloud of its name with the same price of what leaves it: it has one meter.
fn home(
    raw: Option<&raw::Home>,
    at: &At<'_>,
    needs_egress: bool,
    scenario: &raw::Scenario,
    clouds: &mut [Candidate],
) -> Option<Home> {
    let raw = raw?;
    let cloud = raw.cloud.clone()?;
    let same = scenario.clouds.as_ref().and_then(|named| named.0.iter().find(|(name, _)| *name == cloud));
    let as_cloud = same.and_then(|(_, raw)| raw.as_ref()).and_then(|raw| raw.egress_usd_per_gb);
    let own = raw.egress_usd_per_gb.or(as_cloud);
    if as_cloud.is_some() && own != as_cloud {
        let message = format!("what leaves {} has two prices, here and under `clouds`", shown(&cloud));
        at.key("egress_usd_per_gb").error(Code::Contradiction, message, "keep one of them");
    }
    let egress = egress(&cloud, raw.region.as_deref(), own, needs_egress, at);
    if let Some(same) = clouds.iter_mut().find(|candidate| candidate.cloud == cloud) {
        same.egress.clone_from(&egress);
    }
    Some(Home { cloud, egress, may_move: raw.may_move.unwrap_or(false) })
}

/// The tiers of a cloud: one price from the file, or the book's.
fn egress(cloud: &str, region: Option<&str>, own: Option<f64>, needed: bool, at: &At<'_>) -> Vec<EgressTier> {
    if let Some(usd) = own {
        let usd_per_gb = amount(usd, &at.key("egress_usd_per_gb")).unwrap_or_default();
        return vec![EgressTier { from_gb: 0, up_to_gb: None, usd_per_gb, as_of: "", source: "the scenario" }];
    }
    let tiers = price::egress_tiers(cloud, region);
    if tiers.is_empty() && needed {
        let message = format!("no price list says what leaves {} costs", shown(cloud));
        let help = "write `egress_usd_per_gb:` here; 0 if it is free";
        at.error_at_key(Code::PriceUnknown, message, help);
    }
    tiers.to_vec()
}

fn model(raw: Option<&raw::Model>, at: &At<'_>, context: &Context<'_>) -> Option<Model> {
    const MOST: usize = 8;
    let raw = raw?;
    let listed = raw.profiles.as_ref().map_or(0, |list| list.0.len());
    if listed > MOST {
        let help = "leave the GPUs that are to be compared";
        at.key("profiles").error_at_key(Code::TooMany, format!("{listed} profiles are more than {MOST}"), help);
        return None;
    }
    let profiles = items(raw.profiles.as_ref(), &at.key("profiles")).into_iter().filter_map(|(raw, at)| {
        let (gpu, gpus) = (raw.gpu.clone()?, raw.gpus?);
        known_gpu(&gpu, &at.key("gpu"), context);
        let points = points(raw, &at.key("points"));
        (!points.is_empty()).then_some(Profile { gpu, gpus, points })
    });
    let profiles: Vec<Profile> = profiles.collect();
    (!profiles.is_empty()).then(|| Model { name: raw.name.clone().unwrap_or_default(), profiles })
}

fn known_gpu(gpu: &str, at: &At<'_>, context: &Context<'_>) -> bool {
    if context.book.knows_gpu(gpu) {
        return true;
    }
    let known = context.book.gpus();
    // `a100` is short for one of several.
    let begun = |name: &&str| name.get(..gpu.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(gpu));
    let near = known.iter().copied().find(begun).or_else(|| nearest(gpu, known.iter().copied()));
    let help = match near {
        Some(near) => format!("did you mean `{}`?", near.to_ascii_lowercase()),
        None => format!("write one of: {}; `outrigger prices` lists them", known.join(", ").to_ascii_lowercase()),
    };
    at.error(Code::UnknownGpu, format!("no price list has a GPU `{}`", shown(gpu)), help);
    false
}

fn points(raw: &raw::Profile, at: &At<'_>) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::new();
    for (point, at) in items(raw.points.as_ref(), at) {
        let (Some(concurrency), Some(ttft_ms), Some(tpot_ms)) = (point.concurrency, point.ttft_ms, point.tpot_ms)
        else {
            continue;
        };
        if points.last().is_some_and(|last| last.concurrency >= concurrency) {
            let help = "sort the points by rising concurrency, each once";
            at.key("concurrency").error(Code::Contradiction, "this is not more than the one before it", help);
        }
        if ttft_ms <= 0.0 || tpot_ms <= 0.0 {
            at.key("ttft_ms").error(Code::OutOfRange, "a time of nothing", "write what was measured, above 0");
        }
        points.push(Point { concurrency, ttft_ms, tpot_ms });
    }
    points
}

fn slo(raw: Option<&raw::Slo>, at: &At<'_>) -> Option<Slo> {
    let raw = raw?;
    let ms = |text: &Option<crate::raw::Duration>, key: &str| {
        Some(values::some_duration(text.as_ref()?, &at.key(key))?.as_secs_f64() * 1e3)
    };
    let (ttft, tpot) = (ms(&raw.ttft_p95, "ttft_p95"), ms(&raw.time_per_output_token_p95, "time_per_output_token_p95"));
    Some(Slo { ttft_ms: ttft?, tpot_ms: tpot? })
}

fn clouds(raw: &raw::Scenario, at: &At<'_>, model: Option<&Model>, context: &Context<'_>) -> Vec<Candidate> {
    const MOST: usize = 12;
    let at = at.key("clouds");
    let named = raw.clouds.as_ref().map(|named| named.0.as_slice()).unwrap_or_default();
    if raw.clouds.is_some() && named.is_empty() {
        at.error_at_key(Code::Empty, "there is no cloud", "name at least one provider of GPUs, such as `aws: {}`");
    }
    if named.len() > MOST {
        let help = "leave the ones that matter; `--optimize` searches the whole book";
        at.error_at_key(Code::TooMany, format!("{} clouds are more than {MOST}", named.len()), help);
        return Vec::new();
    }
    let empty = raw::Cloud::default();
    let needs_egress = raw.egress.is_some();
    let one = |(name, raw): &(String, Option<raw::Cloud>)| {
        let raw = raw.as_ref().unwrap_or(&empty);
        candidate(name, raw, &at.key(name), model?, needs_egress, context)
    };
    named.iter().filter_map(one).collect()
}

fn candidate(
    name: &str,
    raw: &raw::Cloud,
    at: &At<'_>,
    model: &Model,
    needs_egress: bool,
    context: &Context<'_>,
) -> Option<Candidate> {
    let gpu = raw.gpu.clone().unwrap_or_else(|| model.profiles[0].gpu.clone());
    if raw.gpu.is_some() && !known_gpu(&gpu, &at.key("gpu"), context) {
        return None;
    }
    let Some(profile) = model.profiles.iter().position(|profile| profile.gpu.eq_ignore_ascii_case(&gpu)) else {
        let known: Vec<&str> = model.profiles.iter().map(|profile| profile.gpu.as_str()).collect();
        let help = format!("add one under `model.profiles`, or use one of: {}", known.join(", "));
        at.key("gpu").error(Code::UnknownGpu, format!("no profile says how fast `{}` is", shown(&gpu)), help);
        return None;
    };
    let replica = model.profiles[profile].gpus;
    let mut gaps = Vec::new();
    let offer = offer(name, raw, &gpu, replica, at, context, &mut gaps)?;
    let reserved = raw.reserved_usd_per_gpu_hour.and_then(|usd| gpu_price(usd, &at.key("reserved_usd_per_gpu_hour")));
    if let Some(reserved) = reserved {
        let on_demand = NanoUsd(offer.usd_per_hour.0 / i64::from(offer.instance_gpus.max(1)));
        if reserved > on_demand {
            let message = format!("{reserved} reserved is more than {on_demand} on demand");
            let help = "is it the price of one GPU for an hour? Remove it if it is dearer: nobody reserves then";
            at.key("reserved_usd_per_gpu_hour").error(Code::Contradiction, message, help);
        }
    } else {
        gaps.push(format!("no reserved price of {name} is known: patterns with a base there are left out"));
    }
    let cold_start = raw.cold_start.as_ref().and_then(|text| values::duration(text, &at.key("cold_start")));
    Some(Candidate {
        reserved_usd_per_gpu_hour: reserved,
        term_months: raw.term_months.unwrap_or(12),
        cold_start_s: cold_start.map_or(600, |time| time.as_secs()),
        egress: egress(name, raw.region.as_deref(), raw.egress_usd_per_gb, needs_egress, at),
        profile,
        gaps,
        gpu,
        ..offer
    })
}

/// What a machine costs: by the file, or by the book.
fn offer(
    name: &str,
    raw: &raw::Cloud,
    gpu: &str,
    replica: u32,
    at: &At<'_>,
    context: &Context<'_>,
    gaps: &mut Vec<String>,
) -> Option<Candidate> {
    let blank = Candidate {
        cloud: name.to_owned(),
        gpu: String::new(),
        profile: 0,
        instance_gpus: 1,
        min_gpus: 1,
        usd_per_hour: NanoUsd::ZERO,
        source: String::new(),
        as_of: String::new(),
        reserved_usd_per_gpu_hour: None,
        term_months: 12,
        cold_start_s: 600,
        egress: Vec::new(),
        gaps: Vec::new(),
    };
    let in_book = context.book.offer(name, gpu, raw.region.as_deref(), replica);
    let instance_gpus = raw.instance_gpus.or(in_book.map(|row| row.gpus)).unwrap_or(replica);
    let min_gpus = raw.min_gpus.or(in_book.map(|row| row.min_gpus)).unwrap_or(instance_gpus);
    if let Some(usd) = raw.usd_per_gpu_hour {
        let each = gpu_price(usd, &at.key("usd_per_gpu_hour"))?;
        let usd_per_hour = NanoUsd(each.0.saturating_mul(instance_gpus.into()));
        return Some(Candidate { instance_gpus, min_gpus, usd_per_hour, source: "the scenario".to_owned(), ..blank });
    }
    let Some(row) = in_book else {
        let place = raw.region.as_ref().map_or_else(String::new, |region| format!(" in {}", shown(region)));
        let message = format!("the book has no price of {} at {}{place}", shown(gpu), shown(name));
        let help = "write `usd_per_gpu_hour:` here, or another region or GPU; `outrigger prices` lists what is known";
        at.error_at_key(Code::PriceUnknown, message, help);
        return None;
    };
    if row.gpus < replica {
        gaps.push(format!(
            "{name}: only {}x {} is known; {replica} of them are taken to cost {replica} times as much",
            row.gpus, row.gpu
        ));
    }
    let each = NanoUsd(row.usd_per_hour.0 / i64::from(row.gpus));
    let usd_per_hour =
        if instance_gpus == row.gpus { row.usd_per_hour } else { NanoUsd(each.0.saturating_mul(instance_gpus.into())) };
    Some(Candidate {
        instance_gpus,
        min_gpus,
        usd_per_hour,
        source: format!("{} {} {} ({})", row.provider, row.region, row.instance_type, row.source),
        as_of: row.as_of.clone(),
        ..blank
    })
}

fn hosted(raw: &raw::Scenario, at: &At<'_>, context: &Context<'_>) -> Vec<HostedOffer> {
    let at = at.key("hosted");
    let named = raw.hosted.as_ref().map(|named| named.0.as_slice()).unwrap_or_default();
    let one = |(name, raw): &(String, Option<raw::Hosted>)| {
        let (raw, at) = (raw.as_ref()?, at.key(name));
        if let Some(own) = &raw.usd_per_million_tokens {
            let at = at.key("usd_per_million_tokens");
            let input = gpu_price(own.input?, &at.key("input"));
            let output = gpu_price(own.output?, &at.key("output"));
            let price = TokenPrice { input: input?, output: output?, cached_input: input? };
            let source = "the scenario".to_owned();
            return Some(HostedOffer { name: name.clone(), price, source, as_of: String::new() });
        }
        let (Some(provider), Some(model)) = (&raw.provider, &raw.model) else {
            let help = "write `provider:` and `model:` as the book has them, or `usd_per_million_tokens:`";
            at.error_at_key(Code::MissingKey, format!("`{}` has no price", at.path), help);
            return None;
        };
        let Some(row) = context.book.token_price(provider, model) else {
            let message = format!("the book has no `{}` at `{}`", shown(model), shown(provider));
            let help = "write `usd_per_million_tokens: { input, output }`, or a row of `outrigger prices`";
            at.key("model").error(Code::PriceUnknown, message, help);
            return None;
        };
        let source = format!("{} ({})", row.key, row.source);
        Some(HostedOffer { name: name.clone(), price: row.price, source, as_of: row.as_of.clone() })
    };
    named.iter().filter_map(one).collect()
}

fn flows(raw: &raw::Scenario, at: &At<'_>) -> Vec<Flow> {
    let end = |end: raw::End| match end {
        raw::End::Home => End::Home,
        raw::End::Gpus => End::Gpus,
        raw::End::Internet => End::Internet,
    };
    let one = |(raw, at): (&raw::Flow, At<'_>)| {
        let flow = Flow {
            name: raw.name.clone()?,
            from: end(raw.from?),
            to: end(raw.to?),
            bytes: bytes(raw.gb_per_month?),
            unique_bytes: raw.unique_gb_per_month.map(bytes),
        };
        if flow.from == flow.to || flow.from == End::Internet {
            let help = "an edge leads from `home` or `gpus` to another end; what comes in is free everywhere";
            at.key("from").error(Code::Contradiction, "these bytes leave no cloud", help);
        }
        if flow.unique_bytes.is_some_and(|unique| unique > flow.bytes) {
            let help = "write at most as much as `gb_per_month`";
            at.key("unique_gb_per_month").error(Code::Contradiction, "more are different than there are", help);
        }
        Some(flow)
    };
    items(raw.egress.as_ref(), at).into_iter().filter_map(one).collect()
}

/// Gigabytes as bytes, to the nearest.
fn bytes(gb: f64) -> u64 {
    (gb * 1e9).round() as u64
}

fn weights(raw: &raw::Scenario, at: &At<'_>) -> Option<Weights> {
    let raw = raw.weights.as_ref()?;
    let stored = raw.storage_usd_per_gb_month.unwrap_or(0.023);
    Some(Weights {
        bytes: bytes(raw.gb?),
        pulls: raw.pulls_per_month?.into(),
        releases: raw.releases_per_month.unwrap_or(1).into(),
        usd_per_gb_month: amount(stored, &at.key("storage_usd_per_gb_month"))?,
    })
}

fn interconnect(raw: &raw::Scenario, at: &At<'_>) -> Option<Interconnect> {
    let raw = raw.interconnect.as_ref()?;
    let usd_per_month = amount(raw.usd_per_month?, &at.key("usd_per_month"));
    Some(Interconnect { usd_per_month: usd_per_month?, usd_per_gb: amount(raw.usd_per_gb?, &at.key("usd_per_gb"))? })
}

fn people(raw: &raw::Scenario, at: &At<'_>) -> People {
    let Some(raw) = &raw.people else { return People::default() };
    let usd = |own: Option<f64>, key: &str, otherwise: NanoUsd| {
        own.map_or(otherwise, |usd| amount(usd, &at.key(key)).unwrap_or(otherwise))
    };
    let today = usd(raw.today, "today", NanoUsd::ZERO);
    let single = usd(raw.single, "single", today);
    let pattern1 = usd(raw.pattern1, "pattern1", single);
    People {
        today,
        single,
        hosted: usd(raw.hosted, "hosted", single),
        pattern1,
        pattern2: usd(raw.pattern2, "pattern2", pattern1),
        pattern3: usd(raw.pattern3, "pattern3", single),
    }
}

fn migration(raw: &raw::Scenario, at: &At<'_>) -> Migration {
    let Some(raw) = &raw.migration else { return Migration::default() };
    let usd = raw.usd.and_then(|usd| amount(usd, &at.key("usd"))).unwrap_or_default();
    let overlap = raw.overlap.as_ref().and_then(|text| values::duration(text, &at.key("overlap")));
    Migration { usd, overlap_s: overlap.map_or(0, |time| time.as_secs()) }
}

fn cloud_named<'c>(name: &str, clouds: &'c [Candidate], at: &At<'_>) -> Option<&'c Candidate> {
    let found = clouds.iter().find(|candidate| candidate.cloud == name);
    if found.is_none() && !clouds.is_empty() {
        let known: Vec<&str> = clouds.iter().map(|candidate| candidate.cloud.as_str()).collect();
        let help = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("add it under `clouds:`, or name one of: {}", known.join(", ")),
        };
        at.error(Code::UnknownCloud, format!("there is no cloud `{}`", shown(name)), help);
    }
    found
}

fn commitments(raw: &raw::Scenario, at: &At<'_>, clouds: &[Candidate], context: &Context<'_>) -> Vec<Commitment> {
    let one = |(raw, at): (&raw::Commitment, At<'_>)| {
        let cloud = cloud_named(raw.cloud.as_deref()?, clouds, &at.key("cloud"))?;
        let until = values::date(raw.until.as_ref()?, &at.key("until"))?;
        let days = until.parse::<Date>().ok()?.since(context.today).ok()?.get_days() + 1;
        let gpus = raw.gpus?;
        if days <= 0 {
            let help = "remove it: it costs nothing any more";
            at.key("until").error(Code::Contradiction, format!("this ended before {}", context.today), help);
        }
        if gpus % cloud.instance_gpus != 0 {
            let message = format!("{gpus} GPUs are not whole machines of {}", cloud.instance_gpus);
            let help = format!("write a multiple of {}, or another `instance_gpus` of the cloud", cloud.instance_gpus);
            at.key("gpus").error(Code::GpusStep, message, help);
        }
        let usd_per_gpu_hour = gpu_price(raw.usd_per_gpu_hour?, &at.key("usd_per_gpu_hour"))?;
        let days_left = u32::try_from(days.max(0)).unwrap_or(0);
        Some(Commitment { cloud: cloud.cloud.clone(), gpus, usd_per_gpu_hour, days_left })
    };
    items(raw.commitments.as_ref(), at).into_iter().filter_map(one).collect()
}

fn today(
    raw: &raw::Scenario,
    at: &At<'_>,
    clouds: &[Candidate],
    hosted: &[HostedOffer],
    context: &Context<'_>,
) -> Option<Today> {
    let raw = raw.today.as_ref()?;
    let pool = |(raw, at): (&raw::Pool, At<'_>)| {
        let cloud = cloud_named(raw.cloud.as_deref()?, clouds, &at.key("cloud"))?;
        let gpus = raw.gpus?;
        let own = raw.usd_per_gpu_hour.map(|usd| gpu_price(usd, &at.key("usd_per_gpu_hour")));
        let listed = NanoUsd(cloud.usd_per_hour.0 / i64::from(cloud.instance_gpus));
        let (usd_per_gpu_hour, source) = match own {
            Some(price) => (price?, "the scenario".to_owned()),
            None => (listed, cloud.source.clone()),
        };
        Some(TodayPool { cloud: cloud.cloud.clone(), gpus, usd_per_gpu_hour, source, egress: cloud.egress.clone() })
    };
    let other = |(raw, at): (&raw::Other, At<'_>)| {
        let usd_per_month = amount(raw.usd_per_month?, &at.key("usd_per_month"))?;
        Some(OtherCost { name: raw.name.clone()?, usd_per_month })
    };
    let by_tokens = raw.hosted.as_ref().and_then(|name| {
        let found = hosted.iter().position(|offer| offer.name == *name);
        if found.is_none() {
            let help = "name one under `hosted:` of this file";
            at.key("hosted").error(Code::UnknownBackend, format!("there is no hosted `{}`", shown(name)), help);
        }
        found
    });
    Some(Today {
        pools: items(raw.pools.as_ref(), &at.key("pools")).into_iter().filter_map(pool).collect(),
        hosted: by_tokens,
        other: items(raw.other.as_ref(), &at.key("other")).into_iter().filter_map(other).collect(),
        invoice: invoice(raw.invoice.as_ref(), &at.key("invoice"), context),
    })
}

fn invoice(raw: Option<&raw::Invoice>, at: &At<'_>, context: &Context<'_>) -> outrigger_plan::economics::Invoice {
    let mut invoice = outrigger_plan::economics::Invoice::new();
    let Some(raw) = raw else { return invoice };
    if raw.lines.is_some() == raw.focus.is_some() {
        let help = "write `lines:` with what was billed, or `focus:` with an export";
        at.error_at_key(Code::Contradiction, "a bill has either lines or a file", help);
    }
    for (line, at) in items(raw.lines.as_ref(), &at.key("lines")) {
        let (Some(kind), Some(usd)) = (line.kind, line.usd) else { continue };
        let kind = match kind {
            raw::InvoiceKind::Gpu => InvoiceKind::Gpu,
            raw::InvoiceKind::Tokens => InvoiceKind::Tokens,
            raw::InvoiceKind::Egress => InvoiceKind::Egress,
            raw::InvoiceKind::Storage => InvoiceKind::Storage,
            raw::InvoiceKind::Other => InvoiceKind::Other,
        };
        *invoice.entry(kind).or_default() += any_amount(usd, &at.key("usd")).unwrap_or_default();
    }
    if let Some(file) = &raw.focus {
        match context.outside.invoice(&context.base.join(file)) {
            Ok(read) => invoice.extend(read),
            Err(why) => at.key("focus").error(Code::BadOutsideFile, why, "export the bill in FOCUS as CSV"),
        }
    }
    invoice
}

fn constraints(raw: &raw::Scenario, at: &At<'_>, clouds: &[Candidate], home: Option<&Home>) -> Constraints {
    let empty = raw::Constraints::default();
    let raw = raw.constraints.as_ref().unwrap_or(&empty);
    let only = raw.only_clouds.as_ref().map(|list| {
        let here = at.key("only_clouds");
        let named = items(Some(list), &here).into_iter();
        let known = named.filter_map(|(name, at)| cloud_named(name, clouds, &at).map(|cloud| cloud.cloud.clone()));
        known.collect::<Vec<String>>()
    });
    let limit = raw.cold_start_limit.as_ref().and_then(|text| values::duration(text, &at.key("cold_start_limit")));
    let tb = raw.data_gravity_tb.unwrap_or(0.0);
    let limit_tb = raw.data_gravity_limit_tb.unwrap_or(1_000.0);
    if let (Some(only), Some(home)) = (&only, home)
        && tb >= limit_tb
        && !only.is_empty()
        && !only.contains(&home.cloud)
    {
        let message = format!("{tb} TB keep the GPUs at {}, and only_clouds keeps them away from it", home.cloud);
        let help = "allow the home cloud, or put `home:` where the data may be";
        at.key("only_clouds").error_at_value(Code::Contradiction, message, help);
    }
    let survive_percent = percent(raw.survive_percent, 0);
    if survive_percent > 0 && only.as_ref().is_some_and(|only| only.len() == 1) {
        let help = "allow a second cloud, or write 0";
        at.key("survive_percent").error(Code::Contradiction, "one cloud cannot survive its own loss", help);
    }
    if survive_percent > 0 && raw.platform_team == Some(false) {
        let help = "write 0, or `platform_team: true`";
        let message = "surviving a provider takes two of them, and nobody is there to run two";
        at.key("survive_percent").error(Code::Contradiction, message, help);
    }
    Constraints {
        only_clouds: only,
        data_gravity_tb: tb,
        data_gravity_limit_tb: limit_tb,
        cold_start_limit_s: limit.map(|time| time.as_secs()),
        platform_team: raw.platform_team.unwrap_or(true),
        survive_percent,
    }
}
