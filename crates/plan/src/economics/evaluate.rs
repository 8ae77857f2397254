//! One option, priced: machines, then their bill, then what leaves which cloud, then what survives.
//!
//! The same code prices an option as it is and under changed inputs ([`Factors`]), so that a sensitivity is a
//! difference of two bills and not a formula of its own. Formulas are written only where somebody asks for them.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use outrigger_core::units::NanoUsd;

use super::{
    MONTH_HOURS,
    capacity::{Fit, Need, Shape},
    design::{Design, Kind, Leg, Mode},
    egress::{Edge, Meters, Place},
    figure::{Figure, Unit, divided, gb, scaled, sum, usd},
    scenario::{Level, Scenario},
};

/// Changed inputs, in thousandths of what the scenario says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Factors {
    /// Requests, and the bytes that go with them.
    pub load: u32,
    /// Prices on demand and by the token.
    pub price: u32,
    pub reserved: u32,
    pub people: u32,
    pub egress: u32,
    pub migration: u32,
}

impl Default for Factors {
    fn default() -> Self {
        Self { load: 1_000, price: 1_000, reserved: 1_000, people: 1_000, egress: 1_000, migration: 1_000 }
    }
}

/// One option's month.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluated {
    /// GPUs at the peak, by cloud.
    pub gpus: BTreeMap<String, u32>,
    /// GPUs reserved by this option, beside what is committed already.
    pub reserved_gpus: BTreeMap<String, u32>,
    pub on_demand: NanoUsd,
    pub reserved: NanoUsd,
    pub committed: NanoUsd,
    pub tokens: NanoUsd,
    pub egress: NanoUsd,
    pub weights: NanoUsd,
    pub other: NanoUsd,
    pub people: NanoUsd,
    pub total: NanoUsd,
    pub one_time: NanoUsd,
    /// What would still have to be paid if it were given up on the first day.
    pub liability: NanoUsd,
    /// Share of the peak that survives the loss of each cloud.
    pub survives: BTreeMap<String, f64>,
    /// What it costs more to survive any loss in full; `None` where there is no other cloud.
    pub cover: Option<NanoUsd>,
    /// Machines reserved, by leg.
    pub bases: Vec<u32>,
    pub fractiles: Vec<Fractile>,
    /// How weights reach other clouds; empty where there are none.
    pub weights_by: &'static str,
    pub(super) edges: Vec<Edge>,
    pub figures: Vec<Figure>,
}

/// What a base is judged by: where machines have any size, the two numbers are equal.
#[derive(Clone, Debug, PartialEq)]
pub struct Fractile {
    pub cloud: String,
    /// Reserved over the price of a burst.
    pub price_ratio: f64,
    /// Share of the time that needs more than the base.
    pub time_above: f64,
}

/// Bytes that leave a cloud, and their part of its bill.
#[derive(Clone, Debug, PartialEq)]
pub struct EdgeCost<'e> {
    pub name: &'e str,
    pub from: &'e str,
    pub to: &'e str,
    pub gb: f64,
    pub usd: NanoUsd,
}

impl Evaluated {
    pub fn edges(&self) -> impl Iterator<Item = EdgeCost<'_>> {
        self.edges.iter().map(|edge| EdgeCost {
            name: &edge.name,
            from: &edge.from,
            to: &edge.to,
            gb: edge.bytes as f64 / 1e9,
            usd: edge.usd,
        })
    }
}

/// By profile, percent of the load and factor of the load; `None` where no fleet is enough.
type Needs = BTreeMap<(usize, u32, u32), Option<Rc<Need>>>;

/// Everything that options of one scenario share.
#[derive(Debug)]
pub(super) struct World<'a> {
    pub(super) scenario: &'a Scenario,
    /// By rising rate, each rate once.
    pub(super) levels: Vec<Level>,
    pub(super) seconds: u64,
    fits: Vec<Option<Fit>>,
    needs: RefCell<Needs>,
}

/// What is asked of an evaluation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    pub(super) factors: Factors,
    /// Machines reserved by leg, where they are decided already.
    pub(super) bases: Option<&'a [u32]>,
    pub(super) formulas: bool,
}

impl Default for Ask<'_> {
    fn default() -> Self {
        Self { factors: Factors::default(), bases: None, formulas: true }
    }
}

impl<'a> World<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        let mut by_rate: BTreeMap<u64, u64> = BTreeMap::new();
        for level in &scenario.demand.levels {
            *by_rate.entry(level.micro_rps).or_default() += level.seconds;
        }
        let levels: Vec<Level> = by_rate.into_iter().map(|(micro_rps, seconds)| Level { seconds, micro_rps }).collect();
        let fit = |profile| Fit::new(profile, &scenario.demand, scenario.slo);
        Self {
            scenario,
            seconds: levels.iter().map(|level| level.seconds).sum(),
            levels,
            fits: scenario.model.profiles.iter().map(fit).collect(),
            needs: RefCell::default(),
        }
    }

    /// Requests per second of `percent` of the load at a level.
    pub(super) fn rate(level: &Level, percent: u32, load: u32) -> f64 {
        (u128::from(level.micro_rps) * u128::from(percent) * u128::from(load)) as f64 / 1e11
    }

    pub(super) fn fit(&self, cloud: usize) -> Option<&Fit> {
        self.fits[self.scenario.clouds[cloud].profile].as_ref()
    }

    pub(super) fn need(&self, cloud: usize, percent: u32, load: u32) -> Result<Rc<Need>, String> {
        let profile = self.scenario.clouds[cloud].profile;
        let known = self.needs.borrow().get(&(profile, percent, load)).cloned();
        let need = known.unwrap_or_else(|| {
            let rates: Vec<f64> = self.levels.iter().map(|level| Self::rate(level, percent, load)).collect();
            let need = self.fits[profile].as_ref().and_then(|fit| fit.need(&rates)).map(Rc::new);
            self.needs.borrow_mut().insert((profile, percent, load), need.clone());
            need
        });
        need.ok_or_else(|| self.why_not(profile))
    }

    fn why_not(&self, profile: usize) -> String {
        let profile = &self.scenario.model.profiles[profile];
        let (gpu, gpus) = (&profile.gpu, profile.gpus);
        if self.fits[self.scenario.model.profiles.iter().position(|p| std::ptr::eq(p, profile)).unwrap_or(0)].is_some()
        {
            return format!("slo: more than 200,000 requests at once on {gpus}x {gpu}; is a unit wrong?");
        }
        format!("slo: no measured concurrency of {gpus}x {gpu} is within the objectives, the smallest neither")
    }

    /// Machines at the peak for the whole load.
    pub(super) fn full(&self, cloud: usize, load: u32) -> Result<(u32, u32), String> {
        let peak = self.need(cloud, 100, load)?.last().copied().unwrap_or(0);
        Ok((peak, shape(self.scenario, cloud).instances(peak)))
    }

    /// Requests of a month.
    pub(super) fn requests(&self, load: u32) -> u64 {
        let of = |level: &Level| u128::from(level.micro_rps) * u128::from(level.seconds);
        let asked: u128 = self.levels.iter().map(of).sum();
        let month = u128::from(MONTH_HOURS * 3_600) * u128::from(load);
        let requests = divided(asked * month, 1_000_000_000 * u128::from(self.seconds.max(1)));
        u64::try_from(requests).unwrap_or(u64::MAX)
    }

    pub(super) fn place(&self, cloud: usize) -> Place<'a> {
        let candidate = &self.scenario.clouds[cloud];
        Place { cloud: &candidate.cloud, egress: &candidate.egress }
    }

    pub(super) fn home(&self) -> Place<'a> {
        Place { cloud: &self.scenario.home.cloud, egress: &self.scenario.home.egress }
    }

    /// Prices an option; the reason where it cannot be run.
    pub(super) fn evaluate(&self, design: &Design, ask: Ask<'_>) -> Result<Evaluated, String> {
        let mut work = Work::new(self, &design.id, ask);
        match design.kind {
            Kind::Today => work.today(),
            Kind::Hosted => work.hosted(design.hosted.unwrap_or(0)),
            _ => work.fleet(design)?,
        }
        work.common(design);
        Ok(work.done)
    }
}

pub(super) fn shape(scenario: &Scenario, cloud: usize) -> Shape {
    let candidate = &scenario.clouds[cloud];
    Shape {
        replica_gpus: scenario.model.profiles[candidate.profile].gpus,
        instance_gpus: candidate.instance_gpus,
        min_gpus: candidate.min_gpus,
    }
}

/// Whole machines that are committed in a cloud.
pub(super) fn committed(scenario: &Scenario, cloud: usize) -> u32 {
    let candidate = &scenario.clouds[cloud];
    let own = scenario.commitments.iter().filter(|commitment| commitment.cloud == candidate.cloud);
    own.map(|commitment| commitment.gpus).sum::<u32>() / candidate.instance_gpus
}

/// Machines that have to be paid for beyond those that are there: none, or no fewer than can be rented.
pub(super) fn paid(needed: u32, there: u32, shape: Shape) -> u32 {
    match needed.saturating_sub(there) {
        0 => 0,
        more => more.max(shape.fewest()),
    }
}

/// A part of the load on a base, in machines by level.
struct Follow {
    base: u32,
    /// Machines on demand, and for how many seconds.
    burst: BTreeMap<u32, u64>,
    reserved: NanoUsd,
    on_demand: NanoUsd,
}

struct Work<'w, 'a> {
    world: &'w World<'a>,
    scenario: &'a Scenario,
    id: &'w str,
    ask: Ask<'w>,
    done: Evaluated,
    on_demand: Vec<String>,
    reserved: Vec<String>,
    /// Replicas held at the peak, by cloud.
    held: BTreeMap<usize, u32>,
    /// Machines held at the peak, by cloud.
    machines: BTreeMap<usize, u32>,
    /// Millionths of the load, by cloud.
    shares: Vec<(usize, u64)>,
}

impl<'w, 'a> Work<'w, 'a> {
    fn new(world: &'w World<'a>, id: &'w str, ask: Ask<'w>) -> Self {
        let (done, scenario) = (Evaluated::default(), world.scenario);
        let (held, machines) = (BTreeMap::new(), BTreeMap::new());
        Self {
            world,
            scenario,
            id,
            ask,
            done,
            on_demand: Vec::new(),
            reserved: Vec::new(),
            held,
            machines,
            shares: Vec::new(),
        }
    }

    fn factors(&self) -> Factors {
        self.ask.factors
    }

    fn usd(&mut self, name: &str, what: &str, amount: NanoUsd, formula: impl FnOnce() -> String) {
        if self.ask.formulas {
            self.done.figures.push(Figure::usd(format!("{}.{name}", self.id), what, amount, formula()));
        }
    }

    /// The bill as it is: pools at their own price, tokens where the demand is served by somebody else.
    fn today(&mut self) {
        let scenario = self.scenario;
        let mut parts = Vec::new();
        for pool in &scenario.today.pools {
            let gpu_hours = u128::from(pool.gpus) * u128::from(MONTH_HOURS);
            let price = scaled(pool.usd_per_gpu_hour, u128::from(self.factors().price), 1_000);
            self.done.on_demand += scaled(price, gpu_hours, 1);
            self.on_demand.push(format!("{} * {} * {MONTH_HOURS}", pool.gpus, usd(price)));
            *self.done.gpus.entry(pool.cloud.clone()).or_default() += pool.gpus;
            parts.push((Place { cloud: &pool.cloud, egress: &pool.egress }, u64::from(pool.gpus)));
        }
        for commitment in &scenario.commitments {
            *self.done.gpus.entry(commitment.cloud.clone()).or_default() += commitment.gpus;
            let cloud = scenario.clouds.iter().position(|c| c.cloud == commitment.cloud);
            let place = cloud.map_or(self.world.home(), |cloud| self.world.place(cloud));
            parts.push((place, u64::from(commitment.gpus)));
        }
        if let Some(hosted) = scenario.today.hosted {
            self.tokens(hosted);
        }
        let parts = shares_of(parts);
        self.traffic(self.world.home(), &parts, scenario.today.hosted.is_some());
    }

    fn hosted(&mut self, hosted: usize) {
        self.tokens(hosted);
        self.traffic(self.world.home(), &[], true);
    }

    fn tokens(&mut self, hosted: usize) {
        let offer = &self.scenario.hosted[hosted];
        let requests = u128::from(self.world.requests(self.factors().load));
        let demand = &self.scenario.demand;
        let tokens = |milli: u64| divided(requests * u128::from(milli), 1_000);
        let (prompts, answers) = (tokens(demand.prompt_milli), tokens(demand.output_milli));
        let price = |price: NanoUsd| scaled(price, u128::from(self.factors().price), 1_000);
        let (input, output) = (price(offer.price.input), price(offer.price.output));
        let amount = scaled(input, prompts, 1_000_000) + scaled(output, answers, 1_000_000);
        self.done.tokens = amount;
        self.usd("tokens", "tokens of a month", amount, || {
            format!("{prompts} / 1000000 * {} + {answers} / 1000000 * {}", usd(input), usd(output))
        });
    }

    fn fleet(&mut self, design: &Design) -> Result<(), String> {
        for (i, leg) in design.legs.iter().enumerate() {
            match leg.mode {
                Mode::Peak => self.peak(leg)?,
                Mode::Base { burst } => self.base(i, leg, burst)?,
            }
        }
        let parts: Vec<(Place<'a>, u64)> =
            self.shares.iter().map(|(cloud, share)| (self.world.place(*cloud), *share)).collect();
        let home = design.moves_to.map_or(self.world.home(), |cloud| self.world.place(cloud));
        self.traffic(home, &parts, false);
        self.survival(design)
    }

    fn on_demand_price(&self, cloud: usize) -> NanoUsd {
        scaled(self.scenario.clouds[cloud].usd_per_hour, u128::from(self.factors().price), 1_000)
    }

    /// On demand at the size of the peak, all month.
    fn peak(&mut self, leg: &Leg) -> Result<(), String> {
        let (cloud, shape) = (leg.cloud, shape(self.scenario, leg.cloud));
        let need = self.world.need(cloud, leg.percent, self.factors().load)?;
        let (replicas, there) = (need.last().copied().unwrap_or(0), committed(self.scenario, cloud));
        let more = paid(shape.instances(replicas), there, shape);
        let price = self.on_demand_price(cloud);
        self.done.on_demand += scaled(price, u128::from(more) * u128::from(MONTH_HOURS), 1);
        self.on_demand.push(format!("{more} * {} * {MONTH_HOURS}", usd(price)));
        self.hold(cloud, more + there);
        self.shares.push((cloud, u64::from(leg.percent) * 10_000));
        Ok(())
    }

    fn hold(&mut self, cloud: usize, machines: u32) {
        let shape = shape(self.scenario, cloud);
        *self.machines.entry(cloud).or_default() += machines;
        self.held.insert(cloud, shape.replicas(self.machines[&cloud]));
        let gpus = self.machines[&cloud] * shape.instance_gpus;
        if gpus == 0 {
            return;
        }
        self.done.gpus.insert(self.scenario.clouds[cloud].cloud.clone(), gpus);
    }

    /// A reserved base, the cheapest unless it is given, and the rest on demand.
    fn base(&mut self, index: usize, leg: &Leg, burst: usize) -> Result<(), String> {
        let candidate = &self.scenario.clouds[leg.cloud];
        let Some(reserved) = candidate.reserved_usd_per_gpu_hour else {
            return Err(format!(
                "no reserved price is known at {}: set clouds.{}.reserved_usd_per_gpu_hour",
                candidate.cloud, candidate.cloud
            ));
        };
        let load = self.factors().load;
        let needs = (self.world.need(leg.cloud, leg.percent, load)?, self.world.need(burst, leg.percent, load)?);
        let machine = scaled(
            NanoUsd(reserved.0.saturating_mul(candidate.instance_gpus.into())),
            self.factors().reserved.into(),
            1_000,
        );
        let runs = runs(&self.world.levels, &needs);
        let split = Split { work: self, leg, burst, needs, runs, machine };
        let follow = match self.ask.bases.and_then(|bases| bases.get(index)) {
            Some(base) => split.follow(*base),
            None => split.cheapest(),
        };
        let in_base = split.share_in_base(follow.base);
        let above = split.seconds_above(follow.base);
        let burst_offer = &self.scenario.clouds[burst];
        let per_gpu = burst_offer.usd_per_hour.as_usd() / f64::from(burst_offer.instance_gpus);
        let fractile = Fractile {
            cloud: candidate.cloud.clone(),
            price_ratio: reserved.as_usd() / per_gpu,
            time_above: above as f64 / self.world.seconds as f64,
        };
        if self.ask.formulas {
            let (paid_base, paid_burst) = split.formulas(&follow);
            self.reserved.push(paid_base);
            self.on_demand.push(paid_burst);
            let (price, gpus) = (usd(burst_offer.usd_per_hour), burst_offer.instance_gpus);
            let ratio = format!("{} / ({price} / {gpus})", usd(reserved));
            self.fractile_figures(&fractile, [ratio, format!("{above} / {}", self.world.seconds)]);
        }
        self.done.bases.push(follow.base);
        self.done.fractiles.push(fractile);
        self.done.reserved += follow.reserved;
        self.done.on_demand += follow.on_demand;
        let gpus = follow.base * candidate.instance_gpus;
        *self.done.reserved_gpus.entry(candidate.cloud.clone()).or_default() += gpus;
        self.hold(leg.cloud, follow.base + committed(self.scenario, leg.cloud));
        let at_peak = follow.burst.keys().next_back().copied().unwrap_or(0);
        let there = if burst == leg.cloud { 0 } else { committed(self.scenario, burst) };
        if at_peak + there > 0 {
            self.hold(burst, at_peak + there);
        }
        let term = u128::from(candidate.term_months);
        self.done.liability += scaled(follow.reserved, term, 1);
        let percent = u64::from(leg.percent);
        let base_share = in_base * percent / 100;
        if burst == leg.cloud {
            self.shares.push((leg.cloud, percent * 10_000));
        } else {
            self.shares.push((leg.cloud, base_share));
            self.shares.push((burst, percent * 10_000 - base_share));
        }
        Ok(())
    }

    fn fractile_figures(&mut self, fractile: &Fractile, formulas: [String; 2]) {
        let [of_ratio, of_above] = formulas;
        let share = |name: &str, what: &str, value, formula| {
            let id = format!("{}.{name}.{}", self.id, fractile.cloud);
            Figure { id, what: what.to_owned(), unit: Unit::Share, value, formula }
        };
        self.done.figures.extend([
            share("fractile", "reserved price over the price of a burst", fractile.price_ratio, of_ratio),
            share("above_base", "share of the time that needs more than the base", fractile.time_above, of_above),
        ]);
    }

    /// What leaves which cloud, and how weights get to the GPUs.
    fn traffic(&mut self, home: Place<'a>, parts: &[(Place<'a>, u64)], to_hosted: bool) {
        let factor = u128::from(self.factors().load) * u128::from(self.factors().egress);
        let elsewhere = Place { cloud: "hosted", egress: &[] };
        let hosted = [(elsewhere, 1_000_000)];
        let meters = Meters::new(home, if to_hosted { &hosted } else { parts }, &self.scenario.flows, factor);
        self.done.egress = meters.usd();
        self.usd("egress", "what leaves the clouds", self.done.egress, || meters.formula());
        if !to_hosted {
            self.weights(&meters, home, parts);
        }
        self.done.edges.extend(meters.edges());
    }

    /// Each cold start reads from home, or each cloud keeps a copy: whichever is cheaper.
    fn weights(&mut self, meters: &Meters<'a>, home: Place<'a>, parts: &[(Place<'a>, u64)]) {
        let Some(weights) = self.scenario.weights else { return };
        let mut remote: Vec<&str> = Vec::new();
        for (place, share) in parts {
            if place.cloud != home.cloud && *share > 0 && !remote.contains(&place.cloud) {
                remote.push(place.cloud);
            }
        }
        if remote.is_empty() {
            return;
        }
        let shares: Vec<u64> = parts.iter().map(|(_, share)| *share).collect();
        let pulls = super::figure::split(u128::from(weights.bytes) * u128::from(weights.pulls), &shares);
        let mut by_pulls = meters.clone();
        for ((place, _), bytes) in parts.iter().zip(pulls) {
            if place.cloud != home.cloud {
                by_pulls.add(home, "weights", place.cloud, bytes);
            }
        }
        let mut by_copies = meters.clone();
        for cloud in &remote {
            by_copies.add(home, "weights", cloud, u128::from(weights.bytes) * u128::from(weights.releases));
        }
        let copies = remote.len() as u128;
        let storage = scaled(weights.usd_per_gb_month, u128::from(weights.bytes) * copies, 1_000_000_000);
        let base = meters.usd();
        let (pulling, copying) = (by_pulls.usd() - base, by_copies.usd() - base + storage);
        let keeps = copying <= pulling;
        self.done.weights = if keeps { copying } else { pulling };
        self.done.weights_by = if keeps { "a copy in each cloud" } else { "read from home at each cold start" };
        self.usd("weights", self.done.weights_by, self.done.weights, || {
            if keeps {
                let price = usd(weights.usd_per_gb_month);
                let stored = format!("{} * {price} * {copies}", gb(weights.bytes.into()));
                format!("({}) - ({}) + {stored}", by_copies.formula(), meters.formula())
            } else {
                format!("({}) - ({})", by_pulls.formula(), meters.formula())
            }
        });
        let other = |text: &str, amount| (text.to_owned(), amount);
        for (name, amount) in [other("weights.pulls", pulling), other("weights.copies", copying)] {
            self.usd(&name, "the two ways to move weights", amount, || usd(amount));
        }
    }

    /// What is left of the peak without each cloud, and what it costs to lose nothing.
    fn survival(&mut self, design: &Design) -> Result<(), String> {
        let load = self.factors().load;
        let clouds = design.clouds();
        let mut full = BTreeMap::new();
        for cloud in &clouds {
            full.insert(*cloud, self.world.full(*cloud, load)?);
        }
        let part = |cloud: usize| {
            let (needed, _) = full[&cloud];
            f64::from(self.held.get(&cloud).copied().unwrap_or(0)) / f64::from(needed.max(1))
        };
        for lost in &clouds {
            let left = clouds.iter().filter(|cloud| *cloud != lost).fold(0.0, |left, cloud| left + part(*cloud));
            self.done.survives.insert(self.scenario.clouds[*lost].cloud.clone(), left.min(1.0));
        }
        let more = |cloud: usize, there: u32, needed: u32| {
            let extra = paid(needed, there, shape(self.scenario, cloud));
            let price = self.on_demand_price(cloud);
            let amount = scaled(price, u128::from(extra) * u128::from(MONTH_HOURS), 1);
            (amount, format!("{extra} * {} * {MONTH_HOURS}", usd(price)))
        };
        let (cover, formula) = if clouds.len() > 1 {
            let topped =
                clouds.iter().map(|cloud| more(*cloud, self.machines.get(cloud).copied().unwrap_or(0), full[cloud].1));
            let topped: Vec<(NanoUsd, String)> = topped.collect();
            (Some(topped.iter().map(|(amount, _)| *amount).sum()), sum(topped.into_iter().map(|(_, formula)| formula)))
        } else {
            let others = (0..self.scenario.clouds.len()).filter(|cloud| !clouds.contains(cloud));
            let stood = others.filter_map(|cloud| {
                let (_, machines) = self.world.full(cloud, load).ok()?;
                Some(more(cloud, committed(self.scenario, cloud), machines))
            });
            match stood.min_by_key(|(amount, _)| *amount) {
                Some((amount, formula)) => (Some(amount), formula),
                None => (None, String::new()),
            }
        };
        self.done.cover = cover;
        if let Some(cover) = cover {
            self.usd("cover", "to survive the loss of any cloud in full", cover, || formula);
        }
        Ok(())
    }

    /// What every option has: commitments, other costs, people, the sum, and what it costs to get there.
    fn common(&mut self, design: &Design) {
        let scenario = self.scenario;
        if !self.on_demand.is_empty() {
            let formula = sum(self.on_demand.drain(..));
            self.usd("on_demand", "GPUs on demand", self.done.on_demand, || formula);
        }
        if !self.reserved.is_empty() {
            let formula = sum(self.reserved.drain(..));
            self.usd("reserved", "GPUs reserved", self.done.reserved, || formula);
        }
        self.commitments();
        self.done.other = scenario.today.other.iter().map(|other| other.usd_per_month).sum();
        self.done.people = scaled(people(scenario, design.kind), self.factors().people.into(), 1_000);
        let done = &self.done;
        let lines = [
            done.on_demand,
            done.reserved,
            done.committed,
            done.tokens,
            done.egress,
            done.weights,
            done.other,
            done.people,
        ];
        self.done.total = lines.into_iter().sum();
        self.usd("total", "a month", self.done.total, || sum(lines.into_iter().map(usd)));
        if !self.is_there_already(design) {
            self.one_time(design);
        }
    }

    /// Whether it takes nothing to get there: its GPUs stand where some do today, or its tokens come from who serves them
    /// today. More or fewer of the same are no migration.
    fn is_there_already(&self, design: &Design) -> bool {
        let scenario = self.scenario;
        let is_known = |cloud: usize| {
            let name = &scenario.clouds[cloud].cloud;
            scenario.today.pools.iter().any(|pool| pool.cloud == *name)
                || scenario.commitments.iter().any(|commitment| commitment.cloud == *name)
        };
        match design.kind {
            Kind::Today => true,
            Kind::Hosted => design.hosted == scenario.today.hosted,
            _ => design.moves_to.is_none() && design.clouds().into_iter().all(is_known),
        }
    }

    fn commitments(&mut self) {
        let scenario = self.scenario;
        let (mut month, mut left) = (Vec::new(), NanoUsd::ZERO);
        for commitment in &scenario.commitments {
            let gpus = u128::from(commitment.gpus);
            self.done.committed += scaled(commitment.usd_per_gpu_hour, gpus * u128::from(MONTH_HOURS), 1);
            left += scaled(commitment.usd_per_gpu_hour, gpus * 24 * u128::from(commitment.days_left), 1);
            month.push(format!("{gpus} * {} * {MONTH_HOURS}", usd(commitment.usd_per_gpu_hour)));
        }
        let own = self.done.liability;
        self.done.liability += left;
        if !month.is_empty() {
            self.usd("committed", "GPUs committed already", self.done.committed, || sum(month));
        }
        if self.done.liability > NanoUsd::ZERO {
            self.usd("liability", "to be paid in any case", self.done.liability, || {
                format!("{} + {}", usd(own), usd(left))
            });
        }
    }

    fn one_time(&mut self, design: &Design) {
        let scenario = self.scenario;
        let migration = scaled(scenario.migration.usd, self.factors().migration.into(), 1_000);
        let gpus: NanoUsd = scenario
            .today
            .pools
            .iter()
            .map(|pool| scaled(pool.usd_per_gpu_hour, u128::from(pool.gpus) * u128::from(MONTH_HOURS), 1))
            .sum();
        let overlap = scaled(gpus, scenario.migration.overlap_s.into(), u128::from(MONTH_HOURS * 3_600));
        let data = (scenario.constraints.data_gravity_tb * 1e12).round().max(0.0) as u128;
        let mut meters = Meters::new(self.world.home(), &[], &[], 0);
        if let Some(cloud) = design.moves_to {
            meters.add(self.world.home(), "data", &scenario.clouds[cloud].cloud, data);
        }
        let moved = meters.usd();
        self.done.one_time = migration + overlap + moved;
        self.usd("one_time", "to get there, once", self.done.one_time, || {
            let overlapping = format!("{} * {} / {}", usd(gpus), scenario.migration.overlap_s, MONTH_HOURS * 3_600);
            format!("{} + {overlapping} + {}", usd(migration), meters.formula())
        });
    }
}

/// One leg with a base, for any size of it.
struct Split<'s, 'w, 'a> {
    work: &'s Work<'w, 'a>,
    leg: &'s Leg,
    burst: usize,
    needs: (Rc<Need>, Rc<Need>),
    /// Seconds that need the same replicas in both clouds.
    runs: Vec<((u32, u32), u64)>,
    /// A reserved machine for an hour.
    machine: NanoUsd,
}

impl Split<'_, '_, '_> {
    fn shapes(&self) -> (Shape, Shape) {
        (shape(self.work.scenario, self.leg.cloud), shape(self.work.scenario, self.burst))
    }

    /// Replicas in the base, committed machines among them.
    fn in_base(&self, base: u32) -> u32 {
        self.shapes().0.replicas(base + committed(self.work.scenario, self.leg.cloud))
    }

    /// Machines on demand when the base needs `own` replicas for the load and the other cloud `theirs`.
    fn burst_machines(&self, in_base: u32, own: u32, theirs: u32) -> u32 {
        if own <= in_base {
            return 0;
        }
        let (over, all) = (u64::from(own - in_base), u64::from(own));
        let replicas = (u64::from(theirs) * over).div_ceil(all) as u32;
        let there = if self.burst == self.leg.cloud { 0 } else { committed(self.work.scenario, self.burst) };
        let shape = self.shapes().1;
        paid(shape.instances(replicas), there, shape)
    }

    fn follow(&self, base: u32) -> Follow {
        let in_base = self.in_base(base);
        let mut burst: BTreeMap<u32, u64> = BTreeMap::new();
        for ((own, theirs), seconds) in &self.runs {
            *burst.entry(self.burst_machines(in_base, *own, *theirs)).or_default() += seconds;
        }
        let machine_seconds: u128 = burst.iter().map(|(n, s)| u128::from(*n) * u128::from(*s)).sum();
        let hours = u128::from(MONTH_HOURS);
        let reserved = scaled(self.machine, u128::from(base) * hours, 1);
        let price = self.work.on_demand_price(self.burst);
        let on_demand = scaled(price, hours * machine_seconds, self.work.world.seconds.into());
        Follow { base, burst, reserved, on_demand }
    }

    /// Every base from none to all of the peak is tried: the cost has steps, so that the fractile, which is the answer
    /// for machines of any size, can be a machine off. The smallest of the cheapest wins.
    fn cheapest(&self) -> Follow {
        let shape = self.shapes().0;
        let peak = shape.instances(self.needs.0.last().copied().unwrap_or(0));
        let most = paid(peak, committed(self.work.scenario, self.leg.cloud), shape);
        let sizes = std::iter::once(0).chain(shape.fewest().max(1)..=most);
        let all = sizes.map(|base| self.follow(base));
        all.min_by_key(|follow| (follow.reserved + follow.on_demand, follow.base)).unwrap_or_else(|| self.follow(0))
    }

    /// Millionths of the leg's requests that the base serves.
    fn share_in_base(&self, base: u32) -> u64 {
        let in_base = self.in_base(base);
        let (mut served, mut all) = (0.0, 0.0);
        for (level, own) in self.work.world.levels.iter().zip(self.needs.0.iter()) {
            let asked = level.micro_rps as f64 * level.seconds as f64;
            all += asked;
            served += if *own <= in_base { asked } else { asked * f64::from(in_base) / f64::from(*own) };
        }
        (1e6 * served / all + 0.5).floor() as u64
    }

    /// How long the base is not enough.
    fn seconds_above(&self, base: u32) -> u64 {
        let in_base = self.in_base(base);
        let levels = self.work.world.levels.iter().zip(self.needs.0.iter());
        levels.filter(|(_, own)| **own > in_base).map(|(level, _)| level.seconds).sum()
    }

    fn formulas(&self, follow: &Follow) -> (String, String) {
        let seconds = follow.burst.iter().filter(|(n, _)| **n > 0).map(|(n, s)| format!("{n} * {s}"));
        let price = usd(self.work.on_demand_price(self.burst));
        let burst = format!("{price} * {MONTH_HOURS} * ({}) / {}", sum(seconds), self.work.world.seconds);
        (format!("{} * {} * {MONTH_HOURS}", follow.base, usd(self.machine)), burst)
    }
}

/// Levels are by rising rate, so that what needs as much follows one another.
fn runs(levels: &[Level], needs: &(Rc<Need>, Rc<Need>)) -> Vec<((u32, u32), u64)> {
    let mut runs: Vec<((u32, u32), u64)> = Vec::new();
    for (level, (own, theirs)) in levels.iter().zip(needs.0.iter().zip(needs.1.iter())) {
        match runs.last_mut().filter(|(both, _)| *both == (*own, *theirs)) {
            Some((_, seconds)) => *seconds += level.seconds,
            None => runs.push(((*own, *theirs), level.seconds)),
        }
    }
    runs
}

/// Counts as millionths that add up.
fn shares_of<'p>(parts: Vec<(Place<'p>, u64)>) -> Vec<(Place<'p>, u64)> {
    let all: u64 = parts.iter().map(|(_, n)| n).sum();
    let (mut before, mut given) = (0, 0);
    let share = |(place, n): (Place<'p>, u64)| {
        before += n;
        let up_to = before * 1_000_000 / all.max(1);
        let share = up_to - given;
        given = up_to;
        (place, share)
    };
    parts.into_iter().map(share).collect()
}

/// What people cost with an option: of two patterns at once, both of their extras.
pub(super) fn people(scenario: &Scenario, kind: Kind) -> NanoUsd {
    let people = &scenario.people;
    let both = |a: NanoUsd, b: NanoUsd| (a + b - people.single).max(NanoUsd::ZERO);
    match kind {
        Kind::Today => people.today,
        Kind::Single => people.single,
        Kind::Hosted => people.hosted,
        Kind::Pattern1 => people.pattern1,
        Kind::Pattern2 => people.pattern2,
        Kind::Pattern3 => people.pattern3,
        Kind::Pattern1And3 => both(people.pattern1, people.pattern3),
        Kind::Pattern2And3 => both(people.pattern2, people.pattern3),
    }
}
