//! What moving a model's weights costs: bytes that leave a cloud, copies that lie in stores, and the ways to have both.
//!
//! Everything here is exact in whole nano-USD by the conventions of docs/economics.md: a GB is 10⁹ bytes, a month's bytes
//! add up before tiers are applied, and each product is rounded once.

use crate::{
    price::{EgressTier, egress_usd_of_bytes},
    units::NanoUsd,
};

const BYTES_PER_GB: u128 = 1_000_000_000;

/// What bytes cost that leave a cloud, on top of those that have left it this month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    tiers: Vec<EgressTier>,
    before: u128,
}

impl Egress {
    /// By the tiers of a provider. `before` are the bytes of this month so far; without it what is free of charge counts as
    /// used, since a team that asks what weights cost has other traffic too.
    pub fn new(tiers: &[EgressTier], before: Option<u128>) -> Self {
        let allowance = tiers.iter().find(|tier| tier.usd_per_gb.0 > 0).map_or(0, |tier| tier.from_gb);
        let before = before.unwrap_or_else(|| u128::from(allowance) * BYTES_PER_GB);
        Self { tiers: tiers.to_vec(), before }
    }

    /// One price for every GB.
    pub fn flat(usd_per_gb: NanoUsd) -> Self {
        let tier = EgressTier { from_gb: 0, up_to_gb: None, usd_per_gb, as_of: "", source: "" };
        Self { tiers: vec![tier], before: 0 }
    }

    pub fn usd(&self, bytes: u128) -> NanoUsd {
        let until = |bytes| egress_usd_of_bytes(&self.tiers, bytes);
        until(self.before.saturating_add(bytes)) - until(self.before)
    }
}

/// What a GB costs, times bytes.
pub fn usd_of(usd_per_gb: NanoUsd, bytes: u128) -> NanoUsd {
    let nano = bytes.saturating_mul(usd_per_gb.0.unsigned_abs().into()).saturating_add(BYTES_PER_GB / 2) / BYTES_PER_GB;
    NanoUsd(i64::try_from(nano).unwrap_or(i64::MAX))
}

/// A month of a model that is needed where it does not lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Month {
    /// Of one version.
    pub bytes: u64,
    /// Clouds that need it, besides the one where it lies.
    pub clouds: u64,
    /// Nodes there that load it, and how often they do all together.
    pub nodes: u64,
    pub cold_starts: u64,
    /// New versions.
    pub releases: u64,
    /// Out of the cloud where it lies.
    pub egress: Egress,
    pub storage_usd_per_gb: NanoUsd,
    /// Out of a neutral store or a network in front of it; `None` where nobody has said.
    pub neutral_usd_per_gb: Option<NanoUsd>,
}

/// What a month costs in one way of having the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    pub egress: NanoUsd,
    pub storage: NanoUsd,
}

impl Cost {
    pub fn total(self) -> NanoUsd {
        self.egress + self.storage
    }
}

/// The ways. In each but the first one a byte leaves once for what keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Every cold start reads where the model lies.
    Direct,
    /// A store in each cloud has a copy, and cold starts read that.
    Replicate,
    /// Each node keeps its copy on its own disk, which is paid for with the node.
    NodeLocal,
    /// A store outside of the clouds has a copy, and cold starts read that.
    Neutral,
}

impl Way {
    pub const ALL: [Self; 4] = [Self::Direct, Self::Replicate, Self::NodeLocal, Self::Neutral];

    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Replicate => "replicate",
            Self::NodeLocal => "node_local",
            Self::Neutral => "neutral_store",
        }
    }
}

impl Month {
    /// What a way costs; `None` where a price is missing.
    pub fn cost(&self, way: Way) -> Option<Cost> {
        let times = |n: u64| u128::from(self.bytes) * u128::from(n);
        let leaving = |n: u64| self.egress.usd(times(n));
        let stored = |copies: u64| usd_of(self.storage_usd_per_gb, times(copies));
        Some(match way {
            Way::Direct => Cost { egress: leaving(self.cold_starts), storage: NanoUsd::ZERO },
            Way::Replicate => {
                Cost { egress: leaving(self.clouds.saturating_mul(self.releases)), storage: stored(self.clouds) }
            }
            Way::NodeLocal => {
                Cost { egress: leaving(self.nodes.saturating_mul(self.releases)), storage: NanoUsd::ZERO }
            }
            Way::Neutral => Cost {
                egress: leaving(self.releases) + usd_of(self.neutral_usd_per_gb?, times(self.cold_starts)),
                storage: stored(1),
            },
        })
    }

    /// The cheapest of the ways that have a price; the first of equals.
    pub fn cheapest(&self) -> Way {
        let priced = Way::ALL.into_iter().filter_map(|way| Some((self.cost(way)?.total(), way)));
        priced.min_by_key(|(usd, _)| *usd).map_or(Way::Direct, |(_, way)| way)
    }

    /// The least number of cold starts a month at which one way costs more than another; `None` where none is enough.
    pub fn cold_starts_until(&self, way: Way, costs_more_than: Way) -> Option<u64> {
        first(|cold_starts| {
            let month = Self { cold_starts, ..self.clone() };
            Some(month.cost(way)?.total() > month.cost(costs_more_than)?.total())
        })
    }

    /// The same in nodes.
    pub fn nodes_until(&self, way: Way, costs_more_than: Way) -> Option<u64> {
        first(|nodes| {
            let month = Self { nodes, ..self.clone() };
            Some(month.cost(way)?.total() > month.cost(costs_more_than)?.total())
        })
    }
}

/// More of anything is not asked about.
const MOST: u64 = 10_000_000;

/// The least number for which it is so, of something that once it is so stays so: a bill never falls with what it is for.
fn first(is_so: impl Fn(u64) -> Option<bool>) -> Option<u64> {
    let (mut low, mut high) = (0, MOST);
    if !is_so(high)? {
        return None;
    }
    while low < high {
        let middle = low.midpoint(high);
        if is_so(middle)? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Some(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::egress_tiers;

    fn month() -> Month {
        Month {
            bytes: 141_000_000_000,
            clouds: 1,
            nodes: 4,
            cold_starts: 600,
            releases: 1,
            egress: Egress::new(egress_tiers("aws", None), Some(0)),
            storage_usd_per_gb: NanoUsd(23_000_000),
            neutral_usd_per_gb: Some(NanoUsd(10_000_000)),
        }
    }

    fn dollars(way: Way) -> String {
        month().cost(way).unwrap().total().to_string()
    }

    /// By hand, in GB at AWS from nothing: 600 x 141 = 84,600 are 912.60 + 3,481.60 + 33,400 x 0.07 = 6,732.20. Once, 41 x 0.09
    /// = 3.69, and 141 x 0.023 = 3.243 to keep it. Four nodes, 464 x 0.09 = 41.76. 84,600 x 0.01 + 3.69 + 3.243.
    #[test]
    fn the_ways_cost_what_a_pencil_says() {
        assert_eq!(dollars(Way::Direct), "$6732.2000");
        assert_eq!(dollars(Way::Replicate), "$6.9330");
        assert_eq!(dollars(Way::NodeLocal), "$41.7600");
        assert_eq!(dollars(Way::Neutral), "$852.9330");
        assert_eq!(month().cheapest(), Way::Replicate);
        assert_eq!(Month { neutral_usd_per_gb: None, ..month() }.cost(Way::Neutral), None);
    }

    /// One cold start is 3.69 and two are 182 x 0.09 = 16.38 against 6.933; a fifth node makes 605 x 0.09.
    #[test]
    fn a_copy_pays_from_some_cold_start_on() {
        assert_eq!(month().cold_starts_until(Way::Direct, Way::Replicate), Some(2));
        assert_eq!(month().cold_starts_until(Way::Direct, Way::NodeLocal), Some(5));
        assert_eq!(month().nodes_until(Way::NodeLocal, Way::Replicate), Some(2));
        assert_eq!(month().cold_starts_until(Way::Replicate, Way::Direct), None, "it does not grow with cold starts");
        let free = Month { egress: Egress::new(egress_tiers("lambda", None), None), ..month() };
        assert_eq!(free.cold_starts_until(Way::Direct, Way::Replicate), None);
        assert_eq!(free.cheapest(), Way::Direct);
    }

    #[test]
    fn what_is_free_counts_as_used_unless_said() {
        let aws = egress_tiers("aws", None);
        assert_eq!(Egress::new(aws, None).usd(1_000_000_000), NanoUsd(90_000_000));
        assert_eq!(Egress::new(aws, Some(0)).usd(1_000_000_000), NanoUsd::ZERO);
        // The last 40 GB of the first paid tier and the first 60 of the next.
        assert_eq!(
            Egress::new(aws, Some(10_200_000_000_000)).usd(100_000_000_000),
            NanoUsd(3_600_000_000 + 5_100_000_000)
        );
        assert_eq!(Egress::flat(NanoUsd(50_000_000)).usd(500_000_000), NanoUsd(25_000_000));
        assert!(Egress::new(aws, Some(0)).usd(u128::MAX) == NanoUsd(i64::MAX));
    }
}
