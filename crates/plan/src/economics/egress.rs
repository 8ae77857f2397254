//! Which bytes leave which cloud, and what that costs.
//!
//! A cloud has one meter a month: all bytes that leave it for elsewhere add up before the tiers are applied, so an edge
//! by itself has no price. What an edge is said to cost is its part of its meter's bill by bytes.

use outrigger_core::{
    price::{EgressTier, egress_usd_of_bytes},
    units::NanoUsd,
};

use super::figure::{self, gb, scaled, split, sum};
use super::scenario::{End, Flow};

/// A cloud that holds part of the load, or home.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) cloud: &'a str,
    pub(super) egress: &'a [EgressTier],
}

/// Bytes of one flow out of one cloud.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Edge {
    pub(super) name: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) bytes: u128,
    pub(super) usd: NanoUsd,
}

/// One cloud's bytes of a month.
#[derive(Clone, Debug)]
pub(super) struct Meter<'a> {
    place: Place<'a>,
    edges: Vec<Edge>,
}

#[derive(Clone, Debug)]
pub(super) struct Meters<'a>(Vec<Meter<'a>>);

impl<'a> Meters<'a> {
    /// From flows whose GPUs stand where `parts` says, with millionths of the load; what a factor of the load and of
    /// the egress (both in thousandths) makes of them.
    pub(super) fn new(home: Place<'a>, parts: &[(Place<'a>, u64)], flows: &[Flow], factor: u128) -> Self {
        let mut meters = Self(Vec::new());
        let shares: Vec<u64> = parts.iter().map(|(_, share)| *share).collect();
        for flow in flows {
            let bytes = figure::divided(u128::from(flow.bytes) * factor, 1_000_000);
            if (flow.from, flow.to) == (End::Home, End::Internet) {
                meters.add(home, &flow.name, "internet", bytes);
                continue;
            }
            for ((place, _), part) in parts.iter().zip(split(bytes, &shares)) {
                let is_home = place.cloud == home.cloud;
                match (flow.from, flow.to) {
                    (End::Home, End::Gpus) if !is_home => meters.add(home, &flow.name, place.cloud, part),
                    (End::Gpus, End::Home) if !is_home => meters.add(*place, &flow.name, home.cloud, part),
                    (End::Gpus, End::Internet) => meters.add(*place, &flow.name, "internet", part),
                    _ => {}
                }
            }
        }
        meters
    }

    pub(super) fn add(&mut self, place: Place<'a>, name: &str, to: &str, bytes: u128) {
        if bytes == 0 {
            return;
        }
        let edge =
            Edge { name: name.to_owned(), from: place.cloud.to_owned(), to: to.to_owned(), bytes, usd: NanoUsd::ZERO };
        let Some(meter) = self.0.iter_mut().find(|meter| meter.place.cloud == place.cloud) else {
            self.0.push(Meter { place, edges: vec![edge] });
            return;
        };
        match meter.edges.iter_mut().find(|known| known.name == name && known.to == to) {
            Some(known) => known.bytes += bytes,
            None => meter.edges.push(edge),
        }
    }

    pub(super) fn usd(&self) -> NanoUsd {
        self.0.iter().map(Meter::usd).sum()
    }

    pub(super) fn formula(&self) -> String {
        sum(self.0.iter().map(Meter::formula))
    }

    /// Each edge with its part of the bill.
    pub(super) fn edges(&self) -> Vec<Edge> {
        let priced = |meter: &Meter<'_>| {
            let (usd, all) = (meter.usd(), meter.bytes());
            meter
                .edges
                .iter()
                .map(move |edge| Edge { usd: scaled(usd, edge.bytes, all), ..edge.clone() })
                .collect::<Vec<_>>()
        };
        self.0.iter().flat_map(priced).collect()
    }
}

impl Meter<'_> {
    fn bytes(&self) -> u128 {
        self.edges.iter().map(|edge| edge.bytes).sum()
    }

    fn usd(&self) -> NanoUsd {
        egress_usd_of_bytes(self.place.egress, self.bytes())
    }

    fn formula(&self) -> String {
        tiers_formula(self.place.egress, self.bytes())
    }
}

/// Each tier's gigabytes times its price.
pub(super) fn tiers_formula(tiers: &[EgressTier], bytes: u128) -> String {
    const GB: u128 = 1_000_000_000;
    let last = tiers.len().saturating_sub(1);
    let part = |(i, tier): (usize, &EgressTier)| {
        let end = tier.up_to_gb.filter(|_| i < last).map_or(u128::MAX, |gb| u128::from(gb) * GB);
        let billed = bytes.min(end).saturating_sub(u128::from(tier.from_gb) * GB);
        (billed > 0).then(|| format!("{} * {}", gb(billed), figure::usd(tier.usd_per_gb)))
    };
    sum(tiers.iter().enumerate().filter_map(part))
}
