//! The cheapest fleet over the whole book: whole machines, always on, enough for the peak, and what has to be left of it
//! when any one provider is gone.
//!
//! The search is exact. A provider's machines are combined to those of its (capacity, cost) pairs that nothing beats, and
//! providers likewise; what makes this more than a knapsack is the loss of a provider. It is taken apart by the
//! largest part that a provider may have: with no part above m, the fleet survives any loss to the extent s if all parts
//! together are at least s + m, which is a plain knapsack again; and m need only be tried at the capacities that there
//! are. An integer program says the same and brings a solver; a search from the cheapest machine down misses the minimums.
//!
//! Capacity is counted in whole units: a replica that is one of N for the whole load is 1/N of it, over a common
//! denominator. Replicas of several speeds are added up as if they shared one queue fairly.

use std::collections::BTreeMap;

use outrigger_core::{price::same_provider, units::NanoUsd};

use super::{
    MONTH_HOURS,
    book::{Book, Offer},
    capacity::{Fit, Shape},
    scenario::Scenario,
};

/// Larger fleets are not searched: their frontier is as long as they are large.
const MOST_REPLICAS: u32 = 1_000;

/// Machines that could be rented.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Index into the providers.
    pub provider: usize,
    /// Index into the offers.
    pub offer: usize,
    /// In units of the target.
    pub capacity: u128,
    pub nano_per_month: i64,
    /// The fewest that can be rented.
    pub least: u32,
    /// Machines of the offer that make one of these: more than one where a replica takes several.
    pub group: u32,
}

/// What is asked of a fleet.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The whole load.
    pub all: u128,
    /// What has to be left without any one provider.
    pub survives: u128,
    /// Whether one provider is all that may be used.
    pub one_provider: bool,
}

/// A combination that nothing beats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub capacity: u128,
    pub cost: i64,
    /// Machines by index, each with how many.
    pub picks: Vec<(usize, u32)>,
}

/// Some machines of a found fleet.
#[derive(Clone, Debug)]
pub struct Pick {
    pub offer: Offer,
    pub machines: u32,
    /// Whether a replica spans several of them: the book knows none that holds one.
    pub is_spanned: bool,
    pub usd_per_month: NanoUsd,
}

/// A fleet.
#[derive(Clone, Debug)]
pub struct Found {
    pub picks: Vec<Pick>,
    pub usd_per_month: NanoUsd,
    /// Share of the peak without each provider that it uses.
    pub survives: BTreeMap<String, f64>,
}

/// The answer of a search.
#[derive(Clone, Debug)]
pub struct Optimum {
    pub best: Found,
    /// Without each provider of the best: the next one, where there is one.
    pub without: Vec<(String, Option<Found>)>,
    /// The cheapest machine for the whole load of every other provider: what the load would cost at its rate.
    pub others: Vec<(Offer, NanoUsd)>,
    pub offers: usize,
}

/// Why there is no fleet: the constraint, and what it leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Infeasible {
    pub constraint: &'static str,
    pub why: String,
}

/// Searches the book.
pub fn optimize(scenario: &Scenario, book: &Book) -> Result<Optimum, Infeasible> {
    let search = Search::new(scenario, book)?;
    let best = search.cheapest(None).ok_or_else(|| search.why_not())?;
    let mut without: Vec<(String, Option<Found>)> = Vec::new();
    for provider in best.survives.keys() {
        let lost = search.providers.iter().position(|name| name == provider);
        without.push((provider.clone(), search.cheapest(lost)));
    }
    Ok(Optimum { others: search.others(&best), offers: search.offers.len(), without, best })
}

struct Search {
    providers: Vec<String>,
    offers: Vec<Offer>,
    machines: Vec<Machine>,
    /// By provider, what is committed there.
    committed: Vec<u128>,
    target: Target,
    survive_percent: u32,
}

impl Search {
    fn new(scenario: &Scenario, book: &Book) -> Result<Self, Infeasible> {
        let needs = needs(scenario)?;
        let all: u128 = needs.iter().flatten().map(|need| u128::from(*need)).product();
        let constraints = &scenario.constraints;
        let mut search = Self {
            providers: Vec::new(),
            offers: Vec::new(),
            machines: Vec::new(),
            committed: Vec::new(),
            target: Target {
                all: all * 100,
                survives: all * u128::from(constraints.survive_percent),
                one_provider: !constraints.platform_team,
            },
            survive_percent: constraints.survive_percent,
        };
        let own = own_offers(scenario);
        let is_own = |offer: &&Offer| {
            own.iter().any(|own| same_provider(&offer.provider, &own.provider) && offer.is_a(&own.gpu))
        };
        for offer in rentable(scenario, book).into_iter().filter(|offer| !is_own(offer)).chain(own.iter()) {
            search.add(scenario, offer, &needs, all);
        }
        if search.machines.is_empty() {
            return Err(nothing_left(scenario));
        }
        search.add_commitments(scenario, &needs, all);
        Ok(search)
    }

    fn add(&mut self, scenario: &Scenario, offer: &Offer, needs: &[Option<u32>], all: u128) {
        let fitting = scenario.model.profiles.iter().zip(needs).filter(|(profile, _)| offer.is_a(&profile.gpu));
        for (profile, need) in fitting {
            let shape = Shape { replica_gpus: profile.gpus, instance_gpus: offer.gpus, min_gpus: offer.min_gpus };
            let Some(need) = need else { continue };
            let (group, holds) = match shape.replicas(1) {
                0 => (profile.gpus.div_ceil(offer.gpus), 1),
                holds => (1, holds),
            };
            let provider = self.provider(&offer.provider);
            let hours = i64::try_from(MONTH_HOURS).unwrap_or(i64::MAX);
            self.machines.push(Machine {
                provider,
                offer: self.offers.len(),
                capacity: u128::from(holds) * 100 * (all / u128::from(*need)),
                nano_per_month: offer.usd_per_hour.0.saturating_mul(hours).saturating_mul(group.into()),
                least: shape.fewest().div_ceil(group),
                group,
            });
            self.offers.push(offer.clone());
        }
    }

    fn provider(&mut self, name: &str) -> usize {
        self.providers.iter().position(|known| known == name).unwrap_or_else(|| {
            self.providers.push(name.to_owned());
            self.committed.push(0);
            self.providers.len() - 1
        })
    }

    /// What is committed is there, and costs the same whatever is rented.
    fn add_commitments(&mut self, scenario: &Scenario, needs: &[Option<u32>], all: u128) {
        for commitment in &scenario.commitments {
            let Some(cloud) = scenario.clouds.iter().find(|cloud| cloud.cloud == commitment.cloud) else { continue };
            let Some(need) = needs[cloud.profile] else { continue };
            let shape = Shape {
                replica_gpus: scenario.model.profiles[cloud.profile].gpus,
                instance_gpus: cloud.instance_gpus,
                min_gpus: cloud.min_gpus,
            };
            let replicas = shape.replicas(commitment.gpus / cloud.instance_gpus);
            let name = self.providers.iter().find(|name| same_provider(name, &commitment.cloud)).cloned();
            let provider = self.provider(&name.unwrap_or_else(|| commitment.cloud.clone()));
            self.committed[provider] += u128::from(replicas) * 100 * (all / u128::from(need));
        }
    }

    fn cheapest(&self, lost: Option<usize>) -> Option<Found> {
        let committed: Vec<u128> =
            self.committed.iter().enumerate().map(|(i, own)| if lost == Some(i) { 0 } else { *own }).collect();
        let machines: Vec<Machine> =
            self.machines.iter().filter(|machine| lost != Some(machine.provider)).cloned().collect();
        let pair = cheapest(&machines, &committed, self.target)?;
        Some(self.found(&machines, &committed, &pair))
    }

    fn found(&self, machines: &[Machine], committed: &[u128], pair: &Pair) -> Found {
        let mut by_provider = committed.to_vec();
        let mut picks: Vec<Pick> = Vec::new();
        for (index, count) in &pair.picks {
            let machine = &machines[*index];
            by_provider[machine.provider] += machine.capacity * u128::from(*count);
            picks.push(Pick {
                offer: self.offers[machine.offer].clone(),
                machines: *count * machine.group,
                is_spanned: machine.group > 1,
                usd_per_month: NanoUsd(machine.nano_per_month.saturating_mul((*count).into())),
            });
        }
        picks.sort_by_key(|pick| std::cmp::Reverse(pick.usd_per_month));
        let total: u128 = by_provider.iter().sum();
        let left = |own: u128| ((total - own) as f64 / self.target.all as f64).min(1.0);
        let used = by_provider.iter().enumerate().filter(|(_, own)| **own > 0);
        let survives = used.map(|(i, own)| (self.providers[i].clone(), left(*own))).collect();
        Found { picks, usd_per_month: NanoUsd(pair.cost), survives }
    }

    /// What the whole load would cost at the rate of each other provider's cheapest machine.
    fn others(&self, best: &Found) -> Vec<(Offer, NanoUsd)> {
        let mut cheapest: BTreeMap<usize, (i64, usize)> = BTreeMap::new();
        for machine in &self.machines {
            let rate = i128::from(machine.nano_per_month) * i128::try_from(self.target.all).unwrap_or(i128::MAX)
                / i128::try_from(machine.capacity).unwrap_or(1).max(1);
            let rate = (i64::try_from(rate).unwrap_or(i64::MAX), machine.offer);
            let own = cheapest.entry(machine.provider).or_insert(rate);
            *own = rate.min(*own);
        }
        let unused =
            cheapest.into_iter().filter(|(provider, _)| !best.survives.contains_key(&self.providers[*provider]));
        let mut others: Vec<(i64, usize)> = unused.map(|(_, rate)| rate).collect();
        others.sort_unstable();
        others.into_iter().map(|(rate, offer)| (self.offers[offer].clone(), NanoUsd(rate))).collect()
    }

    fn why_not(&self) -> Infeasible {
        let names = self.providers.join(", ");
        Infeasible {
            constraint: "survive_percent",
            why: format!(
                "{} % of the peak cannot survive the loss of a provider with these alone: {names}",
                self.survive_percent
            ),
        }
    }
}

/// Replicas for the whole load at its peak, by profile; at least one profile can be used.
fn needs(scenario: &Scenario) -> Result<Vec<Option<u32>>, Infeasible> {
    let peak = scenario.demand.levels.iter().map(|level| level.micro_rps).max().unwrap_or(0) as f64 / 1e6;
    let need = |profile| Fit::new(profile, &scenario.demand, scenario.slo)?.replicas(peak, 0);
    let needs: Vec<Option<u32>> = scenario.model.profiles.iter().map(need).collect();
    if needs.iter().all(Option::is_none) {
        let why = "no measured concurrency of any profile is within the objectives".to_owned();
        return Err(Infeasible { constraint: "slo", why });
    }
    match needs.iter().flatten().max() {
        Some(most) if *most > MOST_REPLICAS => Err(Infeasible {
            constraint: "demand",
            why: format!("{most} replicas are more than the {MOST_REPLICAS} that are searched; divide the demand"),
        }),
        _ => Ok(needs),
    }
}

/// The offers that may be taken: of each machine the cheapest region, unless the scenario names one.
fn rentable<'b>(scenario: &Scenario, book: &'b Book) -> Vec<&'b Offer> {
    let constraints = &scenario.constraints;
    let stays = constraints.data_gravity_tb >= constraints.data_gravity_limit_tb;
    let allowed = |offer: &&Offer| {
        let only = constraints.only_clouds.as_ref();
        offer.is_steady()
            && only.is_none_or(|only| only.iter().any(|one| same_provider(&offer.provider, one)))
            && (!stays || same_provider(&offer.provider, &scenario.home.cloud))
    };
    let mut cheapest: BTreeMap<[&str; 4], &Offer> = BTreeMap::new();
    for offer in book.offers.iter().filter(allowed) {
        let key = [offer.provider.as_str(), &offer.instance_type, &offer.gpu, &offer.tier];
        let known = cheapest.entry(key).or_insert(offer);
        if (offer.usd_per_hour, &offer.region) < (known.usd_per_hour, &known.region) {
            *known = offer;
        }
    }
    cheapest.into_values().collect()
}

/// Clouds of the scenario with a price of their own, which is worth more than the book's.
fn own_offers(scenario: &Scenario) -> Vec<Offer> {
    let constraints = &scenario.constraints;
    let stays = constraints.data_gravity_tb >= constraints.data_gravity_limit_tb;
    let own = scenario.clouds.iter().filter(|cloud| cloud.as_of.is_empty());
    let allowed = own.filter(|cloud| constraints.only_clouds.as_ref().is_none_or(|only| only.contains(&cloud.cloud)));
    let allowed = allowed.filter(|cloud| !stays || cloud.cloud == scenario.home.cloud);
    let offer = |cloud: &super::Candidate| Offer {
        provider: cloud.cloud.clone(),
        region: "any".to_owned(),
        instance_type: format!("{}x {}", cloud.instance_gpus, cloud.gpu),
        gpu: cloud.gpu.clone(),
        form: String::new(),
        gpus: cloud.instance_gpus,
        min_gpus: cloud.min_gpus,
        usd_per_hour: cloud.usd_per_hour,
        tier: "on-demand".to_owned(),
        billed_apart: false,
        as_of: String::new(),
        source: cloud.source.clone(),
        licence: String::new(),
    };
    allowed.map(offer).collect()
}

fn nothing_left(scenario: &Scenario) -> Infeasible {
    let gpus: Vec<&str> = scenario.model.profiles.iter().map(|profile| profile.gpu.as_str()).collect();
    let gpus = gpus.join(", ");
    let constraints = &scenario.constraints;
    let (constraint, why) = if constraints.data_gravity_tb >= constraints.data_gravity_limit_tb {
        (
            "data_gravity_tb",
            format!("{} has no machine in the book that holds a replica on {gpus}", scenario.home.cloud),
        )
    } else if let Some(only) = &constraints.only_clouds {
        ("only_clouds", format!("{} have no machine in the book that holds a replica on {gpus}", only.join(", ")))
    } else {
        ("model.profiles", format!("no machine in the book holds a replica on {gpus}"))
    };
    Infeasible { constraint, why }
}

/// The cheapest fleet of these machines, with what is committed by provider.
pub fn cheapest(machines: &[Machine], committed: &[u128], target: Target) -> Option<Pair> {
    let frontiers: Vec<Vec<Pair>> =
        (0..committed.len()).map(|provider| frontier(machines, provider, committed[provider], target.all)).collect();
    if target.one_provider {
        let whole = frontiers.iter().flatten().filter(|pair| pair.capacity >= target.all && target.survives == 0);
        return whole.min_by_key(|pair| pair.cost).cloned();
    }
    if target.survives == 0 {
        return knapsack(&frontiers, u128::MAX, target.all, i64::MAX);
    }
    let mut parts: Vec<u128> = frontiers.iter().flatten().map(|pair| pair.capacity).collect();
    parts.sort_unstable();
    parts.dedup();
    let mut best: Option<Pair> = None;
    for most in parts {
        let bound = best.as_ref().map_or(i64::MAX, |pair| pair.cost);
        let needed = target.all.max(target.survives + most);
        best = knapsack(&frontiers, most, needed, bound).or(best);
    }
    best
}

/// The (capacity, cost) pairs of one provider that nothing beats, capacity counted up to the whole load: more of one
/// provider helps nobody.
fn frontier(machines: &[Machine], provider: usize, committed: u128, all: u128) -> Vec<Pair> {
    let mut pairs = vec![Pair { capacity: committed.min(all), cost: 0, picks: Vec::new() }];
    for (index, machine) in machines.iter().enumerate().filter(|(_, machine)| machine.provider == provider) {
        let most = u32::try_from(all.div_ceil(machine.capacity)).unwrap_or(u32::MAX).max(machine.least);
        let mut more = pairs.clone();
        for pair in &pairs {
            for count in machine.least.max(1)..=most {
                let capacity = (pair.capacity + machine.capacity * u128::from(count)).min(all);
                let cost = pair.cost.saturating_add(machine.nano_per_month.saturating_mul(count.into()));
                let mut picks = pair.picks.clone();
                picks.push((index, count));
                more.push(Pair { capacity, cost, picks });
                if capacity == all {
                    break;
                }
            }
        }
        pairs = unbeaten(more, i64::MAX);
    }
    pairs
}

/// The cheapest sum of one pair of each provider, no part above `most`, of at least `needed`; only where it costs less
/// than `bound`.
fn knapsack(frontiers: &[Vec<Pair>], most: u128, needed: u128, bound: i64) -> Option<Pair> {
    let mut sums = vec![Pair { capacity: 0, cost: 0, picks: Vec::new() }];
    for frontier in frontiers {
        let mut more = Vec::new();
        for sum in &sums {
            for pair in frontier.iter().filter(|pair| pair.capacity <= most) {
                let cost = sum.cost.saturating_add(pair.cost);
                if cost < bound {
                    let picks = [&sum.picks[..], &pair.picks].concat();
                    more.push(Pair { capacity: (sum.capacity + pair.capacity).min(needed), cost, picks });
                }
            }
        }
        sums = unbeaten(more, bound);
    }
    sums.into_iter().filter(|pair| pair.capacity >= needed).min_by_key(|pair| pair.cost)
}

/// Sorted by rising capacity and cost, without those that another one has at least the capacity of for no more.
fn unbeaten(mut pairs: Vec<Pair>, bound: i64) -> Vec<Pair> {
    pairs.retain(|pair| pair.cost < bound);
    pairs.sort_by(|a, b| b.capacity.cmp(&a.capacity).then(a.cost.cmp(&b.cost)));
    let mut least = i64::MAX;
    pairs.retain(|pair| {
        let keeps = pair.cost < least;
        least = least.min(pair.cost);
        keeps
    });
    pairs.reverse();
    pairs
}
