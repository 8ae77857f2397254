//! What bytes out of a store cost, from what was said and what the price book knows.

use outrigger_core::{
    bill::Egress,
    price::{self, EgressPath},
    units::NanoUsd,
};
use outrigger_weights::{Error, budget::Budget, store};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Price {
    /// The cloud that the store is in, for its price of egress (`outrigger prices`); s3://, gs:// and az:// say it themselves.
    #[arg(long, value_name = "NAME")]
    pub(super) source_cloud: Option<String>,
    /// Its region.
    #[arg(long, value_name = "NAME")]
    pub(super) source_region: Option<String>,
    /// What a GB out of the store costs, instead of the book's price.
    #[arg(long, value_name = "USD", value_parser = usd)]
    egress_usd_per_gb: Option<NanoUsd>,
    /// GB that have left the cloud this month already; if nothing is said, what is free counts as used.
    #[arg(long, value_name = "GB")]
    egress_gb_before: Option<u64>,
}

/// A limit on what a command may cost.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Limit {
    /// Stop before more than this is spent on egress, by all calls of this command together.
    #[arg(long, value_name = "USD", value_parser = usd)]
    max_egress_usd: Option<NanoUsd>,
    #[command(flatten)]
    price: Price,
}

impl Limit {
    pub(super) fn budget(&self, from: &str) -> Result<Option<Budget>, Error> {
        let Some(limit) = self.max_egress_usd else { return Ok(None) };
        Ok(Some(Budget { limit, egress: self.price.egress(from, None)? }))
    }
}

impl Price {
    /// What bytes out of a store cost on their way to a cloud; to elsewhere, if that is not said.
    pub(super) fn egress(&self, from: &str, to: Option<&str>) -> Result<Egress, Error> {
        if let Some(price) = self.egress_usd_per_gb {
            return Ok(Egress::flat(price));
        }
        let cloud = self.cloud(from)?;
        let before = self.egress_gb_before.map(|gb| u128::from(gb) * 1_000_000_000);
        let region = self.source_region.as_deref();
        let inside = to.is_some_and(|to| price::same_provider(&cloud, to) || cloud.eq_ignore_ascii_case(to));
        let tiers = match price::egress_tiers_by(EgressPath::InterRegion, &cloud, region) {
            between if inside && !between.is_empty() => between,
            _ => price::egress_tiers(&cloud, region),
        };
        if tiers.is_empty() {
            return Err(Error::usage(
                format!("the price book does not know what egress out of {cloud} costs"),
                "`outrigger prices` shows what it knows; give --egress-usd-per-gb",
            ));
        }
        Ok(Egress::new(tiers, before))
    }

    /// The cloud of a store.
    pub(super) fn cloud(&self, from: &str) -> Result<String, Error> {
        let named = self.source_cloud.clone().or_else(|| cloud_of(from).map(str::to_owned));
        named.ok_or_else(|| {
            Error::usage(
                format!("{} does not say which cloud it is in, so that what it costs is not known", store::shown(from)),
                "give --source-cloud, or --egress-usd-per-gb",
            )
        })
    }
}

/// The cloud that an address names. A bucket behind another endpoint may be anybody's.
pub(super) fn cloud_of(store: &str) -> Option<&'static str> {
    let (cloud, host, endpoints): (_, _, &[&str]) = match store.split("://").next()? {
        "s3" => ("aws", "amazonaws.com", &["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"]),
        "gs" => ("gcp", "googleapis.com", &["GOOGLE_STORAGE_ENDPOINT", "STORAGE_EMULATOR_HOST"]),
        "az" => ("azure", "windows.net", &["AZURE_STORAGE_ENDPOINT"]),
        _ => return None,
    };
    let is_elsewhere = |name: String| std::env::var(name).is_ok_and(|url| !url.is_empty() && !url.contains(host));
    // A side of a replication may have variables of its own.
    let mut named = endpoints.iter().flat_map(|name| [(*name).to_owned(), format!("FROM_{name}")]);
    if named.any(is_elsewhere) { None } else { Some(cloud) }
}

pub(super) fn usd(text: &str) -> Result<NanoUsd, String> {
    let amount = text.parse().ok().and_then(NanoUsd::from_usd).filter(|amount| amount.0 >= 0);
    amount.ok_or_else(|| format!("{text:?} is no amount of US dollars: write a number, as in 12.50"))
}
