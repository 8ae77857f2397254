//! Where gateways stand, as it is written on the command line.

use std::{str::FromStr, sync::Arc};

use outrigger_core::{
    cost,
    fleet::{Fleet, Replicas},
};
use outrigger_plan::sim::Place;

/// A cloud, perhaps a region, and its part of the requests.
#[derive(Clone, Debug)]
pub(super) struct PlaceName {
    cloud: String,
    region: Option<String>,
    part: f64,
}

impl FromStr for PlaceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (place, part) = text.split_once('=').unwrap_or((text, "1"));
        let (cloud, region) = place.split_once('/').map_or((place, None), |(cloud, region)| (cloud, Some(region)));
        let part = part.parse::<f64>().ok().filter(|part| part.is_finite() && *part > 0.0);
        match part {
            Some(part) if !cloud.is_empty() && region != Some("") => {
                Ok(Self { cloud: cloud.to_owned(), region: region.map(str::to_owned), part })
            }
            _ => Err("write it as CLOUD, CLOUD/REGION or CLOUD/REGION=PART, such as aws/us-east-1=2".to_owned()),
        }
    }
}

impl PlaceName {
    fn name(&self) -> String {
        self.region.as_ref().map_or_else(|| self.cloud.clone(), |region| format!("{}/{region}", self.cloud))
    }

    /// The fleet as gateways in this one of `places` places see it.
    fn fleet(&self, fleet: &Fleet, places: usize) -> Fleet {
        let mut fleet = fleet.clone();
        let all = fleet.gateway.replicas.count() * u32::try_from(places).unwrap_or(u32::MAX);
        fleet.gateway.cloud = Some(self.cloud.clone());
        fleet.gateway.region.clone_from(&self.region);
        fleet.gateway.egress_usd_per_gb = cost::gateway_egress(Some(&self.cloud), &fleet.clouds);
        fleet.gateway.replicas = Replicas::Count(all);
        fleet
    }
}

/// The places for a fleet, and what is not known about them.
pub(super) fn places(names: &[PlaceName], fleet: &Fleet, notes: &mut Vec<String>) -> Vec<Place> {
    let place = |name: &PlaceName| {
        let seen = name.fleet(fleet, names.len());
        if seen.gateway.egress_usd_per_gb.is_none() {
            notes.push(format!("{}: its egress price is not known, and counts as nothing", name.name()));
        }
        Place { name: name.name(), fleet: Arc::new(seen), share: name.part }
    };
    names.iter().map(place).collect()
}
