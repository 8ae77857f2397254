//! The price book with what a user adds to it, and what cannot be believed left out with its reason.
//!
//! Every trap here has been met in a real list: prices of a whole machine under the name of one GPU, "spot" rates above
//! the on-demand ones, memory in MiB under a header of GiB, prices of zero for what is not free, dates of a year or a
//! month. A row that cannot be right is dropped and named; it never becomes a guess.

use std::collections::BTreeMap;

use jiff::civil::Date;
use outrigger_core::{
    fleet::TokenPrice,
    price::{self, same_provider},
    units::NanoUsd,
};
use serde::Deserialize;

use super::csv::Table;

/// One offer of GPUs by the hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub provider: String,
    pub region: String,
    pub instance_type: String,
    pub gpu: String,
    pub form: String,
    pub gpus: u32,
    pub min_gpus: u32,
    /// The whole instance.
    pub usd_per_hour: NanoUsd,
    pub tier: String,
    pub billed_apart: bool,
    pub as_of: String,
    pub source: String,
    pub licence: String,
}

/// One model by the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosted {
    pub key: String,
    pub provider: String,
    pub price: TokenPrice,
    pub as_of: String,
    pub source: String,
    pub licence: String,
}

/// A row that is not in the book, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    pub row: String,
    pub why: String,
}

#[derive(Clone, Debug, Default)]
pub struct Book {
    pub offers: Vec<Offer>,
    pub hosted: Vec<Hosted>,
    /// Rows that were read another way than they are written.
    pub notes: Vec<String>,
    pub dropped: Vec<Dropped>,
}

impl Offer {
    /// Whether it is the whole price of a machine that stays.
    pub fn is_steady(&self) -> bool {
        !self.billed_apart && matches!(self.tier.as_str(), "on-demand" | "secure" | "production" | "community")
    }

    /// Whether `h100`, or `h100-sxm` with its form, names this GPU.
    pub fn is_a(&self, gpu: &str) -> bool {
        let (own, wanted) = (normal(&self.gpu), normal(gpu));
        wanted == own || wanted == own + &normal(&self.form)
    }

    fn is_in(&self, region: Option<&str>) -> bool {
        region.is_none_or(|region| self.region == "any" || self.region.eq_ignore_ascii_case(region))
    }

    /// What makes two offers the same kind of machine.
    fn kind(&self) -> (&str, &str, &str, u32) {
        (&self.provider, &self.region, &self.gpu, self.gpus)
    }

    fn name(&self) -> String {
        format!("{} {} {} {}", self.provider, self.region, self.instance_type, self.tier)
    }
}

impl Book {
    /// What ships with Outrigger.
    pub fn builtin() -> Self {
        let offers = price::gpu_prices().iter().map(|row| Offer {
            provider: row.provider.to_owned(),
            region: row.region.to_owned(),
            instance_type: row.instance_type.to_owned(),
            gpu: row.gpu.to_owned(),
            form: row.form.to_owned(),
            gpus: row.gpus,
            min_gpus: row.min_gpus,
            usd_per_hour: row.usd_per_hour,
            tier: row.tier.to_owned(),
            billed_apart: row.is_billed_apart(),
            as_of: row.as_of.to_owned(),
            source: row.source.to_owned(),
            licence: row.licence.to_owned(),
        });
        let hosted = price::hosted_prices().map(|row| Hosted {
            key: row.key.to_owned(),
            provider: row.provider.to_owned(),
            price: row.price,
            as_of: price::TOKEN_PRICES_AS_OF.to_owned(),
            source: "litellm 1.109.1".to_owned(),
            licence: "MIT".to_owned(),
        });
        let mut book = Self { offers: offers.collect(), hosted: hosted.collect(), ..Self::default() };
        book.drop_dear_spot();
        book
    }

    /// The offer that a replica of `replica_gpus` would be put on: machines that hold a whole replica first, then
    /// those of the provider itself, then the cheapest GPU, the smallest machine, the first name.
    pub fn offer(&self, cloud: &str, gpu: &str, region: Option<&str>, replica_gpus: u32) -> Option<&Offer> {
        let fits =
            |row: &&Offer| row.is_steady() && same_provider(&row.provider, cloud) && row.is_a(gpu) && row.is_in(region);
        self.offers.iter().filter(fits).min_by_key(|row| {
            let too_small = row.gpus < replica_gpus;
            let per_gpu = row.usd_per_hour.0 / i64::from(row.gpus.max(1));
            (too_small, row.tier == "community", per_gpu, row.gpus, row.instance_type.clone(), row.region.clone())
        })
    }

    /// Whether any offer has this GPU.
    pub fn knows_gpu(&self, gpu: &str) -> bool {
        self.offers.iter().any(|row| row.is_a(gpu))
    }

    /// The GPUs that offers have, by name.
    pub fn gpus(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.offers.iter().map(|row| row.gpu.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    pub fn token_price(&self, provider: &str, model: &str) -> Option<&Hosted> {
        let is_its = |row: &&Hosted| {
            let name = row.key.split_once('/').map_or(row.key.as_str(), |(_, rest)| rest);
            normal(&row.provider).starts_with(&normal(provider))
                && (row.key.eq_ignore_ascii_case(model) || name.eq_ignore_ascii_case(model))
        };
        self.hosted.iter().find(is_its)
    }

    /// Adds the rows of a CSV of offers or of token prices; its rows win over those of the same name.
    pub fn add_csv(&mut self, text: &str, source: &str) -> Result<usize, String> {
        let table = Table::read(text);
        if table.has("gpu") && (table.has("usd_per_hour") || table.has("usd_per_gpu_hour")) {
            return Ok(self.add_offers(&table, source));
        }
        if table.has("key") && table.has("input_usd_per_mtok") {
            return Ok(self.add_hosted(&table, source));
        }
        Err("the first line has to name the columns: provider, gpu and usd_per_hour or usd_per_gpu_hour for GPUs, \
             or provider, key, input_usd_per_mtok and output_usd_per_mtok for tokens"
            .to_owned())
    }

    fn add_offers(&mut self, table: &Table, source: &str) -> usize {
        let mut added = Vec::new();
        for (line, cells) in &table.rows {
            match self.read_offer(table, cells, source) {
                Ok(offer) => added.push(offer),
                Err(why) => self.dropped.push(Dropped { row: format!("line {line}"), why }),
            }
        }
        let count = added.len();
        self.offers.retain(|old| !added.iter().any(|new: &Offer| new.name() == old.name()));
        self.offers.splice(0..0, added);
        let before = self.offers.len();
        self.drop_dear_spot();
        count - (before - self.offers.len()).min(count)
    }

    fn read_offer(&mut self, table: &Table, cells: &[String], source: &str) -> Result<Offer, String> {
        let text = |name: &str, otherwise: &str| {
            Some(table.cell(cells, name)).filter(|cell| !cell.is_empty()).unwrap_or(otherwise).to_owned()
        };
        let count = |name: &str| match table.cell(cells, name) {
            "" => Ok(None),
            cell => match cell.parse::<u32>() {
                Ok(number) if number > 0 => Ok(Some(number)),
                _ => Err(format!("{name} is `{cell}` and not a whole number above 0")),
            },
        };
        let (provider, gpu) = (text("provider", ""), text("gpu", ""));
        if provider.is_empty() || gpu.is_empty() {
            return Err("it names no provider or no gpu".to_owned());
        }
        let gpus = count("gpus")?.unwrap_or(1);
        let usd_per_hour = whole_price(table.cell(cells, "usd_per_hour"), table.cell(cells, "usd_per_gpu_hour"), gpus)?;
        let tier = text("tier", "on-demand").to_ascii_lowercase();
        if tier.contains("estimate") {
            return Err("an estimated price is nobody's offer".to_owned());
        }
        let as_of = text("as_of", "");
        if earliest(&as_of).is_none() {
            return Err(format!("as_of is `{as_of}` and not a date such as 2026-11-24, 2026-11 or 2026"));
        }
        if let Some(mem) = count("gpu_mem_gib")?.filter(|mem| *mem >= 1_024) {
            self.notes.push(format!("{provider} {gpu}: a memory of {mem} is in MiB and not in GiB: {}", mem / 1_024));
        }
        Ok(Offer {
            instance_type: text("instance_type", &format!("{gpu}-{gpus}x")),
            region: text("region", "any"),
            form: text("form", ""),
            min_gpus: count("min_gpus")?.unwrap_or(gpus),
            billed_apart: table.cell(cells, "billed_apart").eq_ignore_ascii_case("true"),
            source: text("source", source),
            licence: text("licence", "yours"),
            provider,
            gpu,
            gpus,
            usd_per_hour,
            tier,
            as_of,
        })
    }

    fn add_hosted(&mut self, table: &Table, source: &str) -> usize {
        let mut added = Vec::new();
        for (line, cells) in &table.rows {
            let cell = |name: &str| table.cell(cells, name);
            let (input, output) = (dollars(cell("input_usd_per_mtok")), dollars(cell("output_usd_per_mtok")));
            let cached = dollars(cell("cached_input_usd_per_mtok"));
            let as_of = cell("as_of");
            let read = match (believable(input, output, cached), earliest(as_of)) {
                (Ok(price), Some(_)) if !cell("key").is_empty() => Ok(price),
                (Ok(_), Some(_)) => Err("it names no key".to_owned()),
                (Ok(_), None) => Err(format!("as_of is `{as_of}` and not a date such as 2026-11-24")),
                (Err(why), _) => Err(why),
            };
            match read {
                Ok(price) => added.push(Hosted {
                    key: cell("key").to_owned(),
                    provider: cell("provider").to_owned(),
                    price,
                    as_of: as_of.to_owned(),
                    source: Some(cell("source")).filter(|own| !own.is_empty()).unwrap_or(source).to_owned(),
                    licence: Some(cell("licence")).filter(|own| !own.is_empty()).unwrap_or("yours").to_owned(),
                }),
                Err(why) => self.dropped.push(Dropped { row: format!("line {line}"), why }),
            }
        }
        self.put_hosted(added)
    }

    /// Adds LiteLLM's `model_prices_and_context_window.json`: what chat and completion cost by the token.
    pub fn add_litellm(&mut self, json: &str, as_of: &str) -> Result<usize, String> {
        let rows: BTreeMap<String, serde_json::Value> =
            serde_json::from_str(json).map_err(|error| format!("this is not LiteLLM's table of prices: {error}"))?;
        let mut added = Vec::new();
        for (key, row) in rows {
            let Ok(row) = LiteLlm::deserialize(row) else {
                self.dropped.push(Dropped { row: key, why: "a price in it is not a number".to_owned() });
                continue;
            };
            if key == "sample_spec" || !matches!(row.mode.as_deref(), Some("chat" | "completion" | "responses")) {
                continue;
            }
            let million = |usd: Option<f64>| usd.and_then(|usd| NanoUsd::from_usd(usd * 1e6));
            let (input, output) = (million(row.input_cost_per_token), million(row.output_cost_per_token));
            match believable(input, output, million(row.cache_read_input_token_cost)) {
                Ok(price) => added.push(Hosted {
                    provider: row.litellm_provider.unwrap_or_default(),
                    key,
                    price,
                    as_of: as_of.to_owned(),
                    source: "litellm".to_owned(),
                    licence: "MIT".to_owned(),
                }),
                Err(why) => self.dropped.push(Dropped { row: key, why }),
            }
        }
        Ok(self.put_hosted(added))
    }

    fn put_hosted(&mut self, added: Vec<Hosted>) -> usize {
        let count = added.len();
        self.hosted.retain(|old| !added.iter().any(|new| (&new.key, &new.provider) == (&old.key, &old.provider)));
        self.hosted.splice(0..0, added);
        count
    }

    /// A spot price above the on-demand one of the same machine is a rate for something else. Where spot machines have
    /// names of their own, it is one above all on-demand prices of as many such GPUs.
    fn drop_dear_spot(&mut self) {
        let mut steady: BTreeMap<(&str, &str, &str, u32), i64> = BTreeMap::new();
        let mut named: BTreeMap<[&str; 3], i64> = BTreeMap::new();
        for row in self.offers.iter().filter(|row| row.is_steady()) {
            let most = steady.entry(row.kind()).or_default();
            *most = (*most).max(row.usd_per_hour.0);
            named.insert([&row.provider, &row.region, &row.instance_type], row.usd_per_hour.0);
        }
        let is_dear = |row: &Offer| {
            let own = named.get(&[row.provider.as_str(), &row.region, &row.instance_type]);
            let most = own.or_else(|| steady.get(&row.kind()));
            row.tier == "spot" && most.is_some_and(|most| row.usd_per_hour.0 > *most)
        };
        let dear: Vec<bool> = self.offers.iter().map(is_dear).collect();
        let mut dear = dear.into_iter();
        let dropped = &mut self.dropped;
        self.offers.retain(|row| {
            let keep = !dear.next().unwrap_or(false);
            if !keep {
                let why = "a spot price above the on-demand one of the same machine is a rate for something else";
                dropped.push(Dropped { row: row.name(), why: why.to_owned() });
            }
            keep
        });
    }
}

#[derive(Deserialize)]
struct LiteLlm {
    litellm_provider: Option<String>,
    mode: Option<String>,
    input_cost_per_token: Option<f64>,
    output_cost_per_token: Option<f64>,
    cache_read_input_token_cost: Option<f64>,
}

/// A price by the token that can be true: zero is a gap in the list, and so is a negative one.
fn believable(input: Option<NanoUsd>, output: Option<NanoUsd>, cached: Option<NanoUsd>) -> Result<TokenPrice, String> {
    const DEAREST: NanoUsd = NanoUsd(10_000_000_000_000);
    let (Some(input), Some(output)) = (input, output) else { return Err("it has no price of both ways".to_owned()) };
    if input.0 <= 0 || output.0 <= 0 {
        return Err("a price of zero is a gap in the list, not a gift".to_owned());
    }
    if input > DEAREST || output > DEAREST {
        return Err("above 10,000 USD for a million tokens: the unit is another one".to_owned());
    }
    let cached_input = cached.filter(|cached| cached.0 > 0 && *cached <= input).unwrap_or(input);
    Ok(TokenPrice { input, output, cached_input })
}

fn dollars(cell: &str) -> Option<NanoUsd> {
    cell.parse().ok().and_then(NanoUsd::from_usd)
}

/// The price of a whole instance from what a row gives of the two; both have to tell the same.
fn whole_price(instance: &str, one: &str, gpus: u32) -> Result<NanoUsd, String> {
    let read = |cell: &str| match cell {
        "" => Ok(None),
        _ => match dollars(cell) {
            Some(price) if price.0 > 0 => Ok(Some(price)),
            _ => Err(format!("`{cell}` is not a price above 0")),
        },
    };
    let from_one = |one: NanoUsd| NanoUsd(one.0.saturating_mul(gpus.into()));
    match (read(instance)?, read(one)?) {
        (Some(whole), Some(one)) if (from_one(one).0 - whole.0).abs().saturating_mul(100) > whole.0 => Err(format!(
            "{whole} for {gpus} GPUs and {one} for one of them do not agree: one of the two is the other's price"
        )),
        (Some(whole), _) => Ok(whole),
        (None, Some(one)) => Ok(from_one(one)),
        (None, None) => Err("it has no price".to_owned()),
    }
}

/// Days from a date to `today`. Of a month or a year the first day counts: the price may be as old as that.
pub fn age_days(as_of: &str, today: Date) -> Option<i64> {
    Some(i64::from(today.since(earliest(as_of)?).ok()?.get_days()))
}

fn earliest(as_of: &str) -> Option<Date> {
    let padded = match as_of.len() {
        4 => format!("{as_of}-01-01"),
        7 => format!("{as_of}-01"),
        _ => as_of.to_owned(),
    };
    padded.parse().ok()
}

fn normal(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}
