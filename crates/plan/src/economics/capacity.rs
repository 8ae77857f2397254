//! How many replicas a rate of requests needs, and how many machines those are.
//!
//! A replica is a server with as many slots as it may run requests at once within the objectives, taken at the speed it
//! has when all are full; that is pessimistic below the peak. `n` replicas are one queue with `n × slots` servers: the
//! gateway spills by predicted wait, so that requests do not wait at one replica while another is free. The wait's tail
//! is Erlang's C formula with the correction of Allen and Cunneen for arrivals and answers that vary more or less than
//! exponentially (A. O. Allen, "Probability, Statistics and Queueing Theory", 1990, section 5.3).

use super::scenario::{Demand, Profile, Slo};

/// Slots beyond which nothing is computed: a fleet of that size is a slip of a unit.
const MOST_SLOTS: f64 = 200_000.0;
/// The share of requests that may wait longer than the objective leaves time for.
const LATE: f64 = 0.05;

/// One replica at its best concurrency within the objectives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    pub slots: u32,
    pub ttft_ms: f64,
    pub tpot_ms: f64,
    /// From admission to the last token.
    pub service_s: f64,
    /// What the objective leaves for waiting.
    pub wait_s: f64,
    /// Standard deviation over mean, of the times between arrivals.
    pub arrival_cv: f64,
    /// The same, of the service.
    pub service_cv: f64,
}

/// Replicas by level of demand, levels by rising rate.
pub type Need = Vec<u32>;

/// The largest concurrency within the objectives, with both times there.
pub fn slots(profile: &Profile, slo: Slo) -> Option<(u32, f64, f64)> {
    let most = profile.points.last()?.concurrency;
    (1..=most).rev().find_map(|at| {
        let (ttft, tpot) = speed(profile, at)?;
        (ttft <= slo.ttft_ms && tpot <= slo.tpot_ms).then_some((at, ttft, tpot))
    })
}

/// Straight lines between measured points; before the first one its own times.
fn speed(profile: &Profile, at: u32) -> Option<(f64, f64)> {
    let points = &profile.points;
    let after = points.iter().position(|point| point.concurrency >= at)?;
    let b = points[after];
    let Some(a) = after.checked_sub(1).map(|before| points[before]).filter(|_| b.concurrency > at) else {
        return Some((b.ttft_ms, b.tpot_ms));
    };
    let part = f64::from(at - a.concurrency) / f64::from(b.concurrency - a.concurrency);
    Some((a.ttft_ms + (b.ttft_ms - a.ttft_ms) * part, a.tpot_ms + (b.tpot_ms - a.tpot_ms) * part))
}

impl Fit {
    pub fn new(profile: &Profile, demand: &Demand, slo: Slo) -> Option<Self> {
        let (slots, ttft_ms, tpot_ms) = slots(profile, slo)?;
        let output = demand.output_milli as f64 / 1_000.0;
        let service_s = (ttft_ms + tpot_ms * (output - 1.0).max(0.0)) / 1_000.0;
        let wait_s = (slo.ttft_ms - ttft_ms) / 1_000.0;
        let service_cv = demand.output_cv * tpot_ms * output / 1_000.0 / service_s;
        Some(Self { slots, ttft_ms, tpot_ms, service_s, wait_s, arrival_cv: demand.arrival_cv, service_cv })
    }

    /// The fewest replicas, from `at_least` on, with which 95 of 100 requests start in time. None at no load; `None`
    /// where it would be more than can be meant.
    pub fn replicas(&self, per_s: f64, at_least: u32) -> Option<u32> {
        if per_s <= 0.0 {
            return Some(0);
        }
        let busy = per_s * self.service_s;
        let fewest = (busy / f64::from(self.slots)).ceil();
        if fewest * f64::from(self.slots) > MOST_SLOTS {
            return None;
        }
        let mut replicas = (fewest as u32).max(at_least).max(1);
        while self.late(busy, replicas * self.slots) > LATE {
            replicas += 1;
        }
        Some(replicas)
    }

    /// Replicas for each of rising rates. As more requests never wait less, the rates that so many replicas are enough
    /// for are looked for by halving.
    pub fn need(&self, rates: &[f64]) -> Option<Need> {
        let mut need = Need::with_capacity(rates.len());
        let mut least = 0;
        while let Some(rate) = rates.get(need.len()) {
            let replicas = self.replicas(*rate, least)?;
            let enough = |rate: &f64| {
                let busy = rate * self.service_s;
                replicas > 0
                    && busy / f64::from(self.slots) <= f64::from(replicas)
                    && self.late(busy, replicas * self.slots) <= LATE
            };
            let more = rates[need.len() + 1..].partition_point(enough);
            need.resize(need.len() + 1 + more, replicas);
            least = replicas;
        }
        Some(need)
    }

    /// The share of requests that wait longer than they may, with this many slots.
    pub fn late(&self, busy: f64, slots: u32) -> f64 {
        self.waits_longer(busy, slots, self.wait_s)
    }

    /// The wait that a share of requests is longer than, with this many slots; none where fewer wait at all.
    pub fn wait_exceeded_by(&self, share: f64, busy: f64, slots: u32) -> f64 {
        let waits = self.waits_longer(busy, slots, 0.0);
        let each = self.spread(busy, slots) * self.service_s / (f64::from(slots) - busy).max(1e-12);
        ((waits / share).ln() * each).max(0.0)
    }

    /// The share that waits longer than `wait_s`.
    pub fn waits_longer(&self, busy: f64, slots: u32, wait_s: f64) -> f64 {
        let servers = f64::from(slots);
        if busy >= servers {
            return 1.0;
        }
        let blocked = (1..=slots).fold(1.0, |blocked, i| busy * blocked / (f64::from(i) + busy * blocked));
        let waits = servers * blocked / (servers - busy * (1.0 - blocked));
        waits * (-(servers - busy) / self.service_s * wait_s / self.spread(busy, slots).max(1e-9)).exp()
    }

    /// How much longer waits are than with exponential arrivals and answers.
    ///
    /// With many servers a wait ends when the first of them is free, which has little to do with how much answers vary: at
    /// low load and constant answers it is c/(c + 1) of the exponential one's, and not a half of it. Kimura's formula
    /// (Management Science 32, 1986) goes between the two by what Cosmetatos found for constant answers (INFOR 14, 1976).
    fn spread(&self, busy: f64, slots: u32) -> f64 {
        let (servers, arrivals, service) = (f64::from(slots), self.arrival_cv.powi(2), self.service_cv.powi(2));
        let load = (busy / servers).clamp(1e-9, 1.0);
        let few = (1.0 - load) * (servers - 1.0) * ((4.0 + 5.0 * servers).sqrt() - 2.0) / (16.0 * servers * load);
        let constant = f64::midpoint(1.0, few.min((servers - 1.0) / (servers + 1.0)));
        (arrivals + service) / (2.0 * service + (1.0 - service) / constant)
    }
}

/// How replicas sit on machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub replica_gpus: u32,
    pub instance_gpus: u32,
    pub min_gpus: u32,
}

impl Shape {
    /// Machines for so many replicas, no fewer than can be rented.
    pub fn instances(self, replicas: u32) -> u32 {
        if replicas == 0 { 0 } else { self.bare_instances(replicas).max(self.fewest()) }
    }

    fn bare_instances(self, replicas: u32) -> u32 {
        if self.replica_gpus <= self.instance_gpus {
            replicas.div_ceil(self.instance_gpus / self.replica_gpus)
        } else {
            replicas.saturating_mul(self.replica_gpus.div_ceil(self.instance_gpus))
        }
    }

    /// The fewest machines that can be rented.
    pub fn fewest(self) -> u32 {
        self.min_gpus.div_ceil(self.instance_gpus)
    }

    /// Replicas that so many machines hold.
    pub fn replicas(self, instances: u32) -> u32 {
        if self.replica_gpus <= self.instance_gpus {
            instances * (self.instance_gpus / self.replica_gpus)
        } else {
            instances / self.replica_gpus.div_ceil(self.instance_gpus)
        }
    }
}
