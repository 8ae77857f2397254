//! Pools on demand whose GPUs come and go as the gateways ask: a step is paid for from the moment it is asked for, takes
//! requests after its cold start, and is given back at the end of a block. Engines that are given back finish what they
//! have.
//!
//! The gateways look at their pools as often as the live ones tell whoever scales them; where several ask for different
//! numbers, the largest counts, as with an autoscaler that takes the maximum of a metric.

use std::time::Duration;

use outrigger_core::{
    fleet::{self, PoolId, PoolPrice},
    units::Nanos,
};

use super::{Due, Setup, Sim};

/// Between two looks at what the gateways ask for.
const LOOK_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Pool {
    id: PoolId,
    backends: Vec<usize>,
    /// What is rented above the minimum, one step each.
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    number: u64,
    is_up: bool,
    paid_until: Nanos,
}

/// Whether the pool's GPUs come and go in this simulation.
pub(super) fn follows_load(setup: &Setup, pool: &fleet::Pool) -> bool {
    !setup.pools_are_warm && matches!(pool.price, PoolPrice::OnDemand { .. }) && pool.gpus.min < pool.gpus.max
}

pub(super) fn of(setup: &Setup) -> Vec<Pool> {
    let fleet = &setup.fleet;
    let backends = |id| (0..fleet.backends.len()).filter(|b| fleet.backends[*b].pool == Some(id)).collect();
    (fleet.pools.iter().enumerate().filter(|(_, pool)| follows_load(setup, pool)))
        .map(|(i, _)| PoolId(i as u16))
        .map(|id| Pool { id, backends: backends(id), steps: Vec::new() })
        .collect()
}

impl Sim<'_> {
    /// Rents and gives back what the gateways ask for now.
    pub(super) fn follow_load(&mut self) {
        let now = self.now;
        let mut wanted: Vec<u32> = self.pools.iter().map(|p| self.spec(p.id).gpus.min).collect();
        for gateway in &mut self.gateways {
            for desired in gateway.state.desired(now) {
                if let Some(i) = self.pools.iter().position(|pool| pool.id == desired.pool) {
                    wanted[i] = wanted[i].max(desired.gpus);
                }
            }
        }
        for (pool, gpus) in wanted.into_iter().enumerate() {
            self.pay_steps(pool);
            self.resize(pool, gpus);
            self.seat(pool);
        }
        self.at(now + LOOK_EVERY, Due::Scale);
    }

    fn spec(&self, id: PoolId) -> &fleet::Pool {
        &self.setup.fleet.pools[id.index()]
    }

    fn resize(&mut self, pool: usize, gpus: u32) {
        let spec = self.spec(self.pools[pool].id);
        let PoolPrice::OnDemand { cold_start, .. } = spec.price else { return };
        let each = spec.gpus.step.max(1);
        let wanted = (gpus.saturating_sub(spec.gpus.min) / each) as usize;
        while self.pools[pool].steps.len() < wanted && self.has_capacity(pool) {
            let number = self.made;
            self.pools[pool].steps.push(Step { number, is_up: false, paid_until: self.now });
            self.pay_steps(pool);
            self.at(self.now + cold_start, Due::Up { pool: pool as u32, step: number });
        }
        while self.pools[pool].steps.len() > wanted {
            // The one whose paid time ends first.
            let steps = &mut self.pools[pool].steps;
            let first = (0..steps.len()).min_by_key(|i| steps[*i].paid_until);
            first.map(|i| steps.remove(i));
        }
    }

    /// Whether the cloud has room for another step.
    fn has_capacity(&self, pool: usize) -> bool {
        let Pool { id, backends, steps } = &self.pools[pool];
        let gpus = self.spec(*id).gpus;
        let room = backends.iter().map(|b| self.backends[*b].capacity).fold(1.0, f64::min);
        let after = gpus.min + (steps.len() as u32 + 1) * gpus.step.max(1);
        f64::from(after) <= f64::from(gpus.max) * room
    }

    pub(super) fn step_up(&mut self, pool: usize, number: u64) {
        if let Some(step) = self.pools[pool].steps.iter_mut().find(|step| step.number == number) {
            step.is_up = true;
        }
        self.seat(pool);
    }

    /// Gives the GPUs that are up to the pool's backends, in the order of the fleet.
    pub(super) fn seat(&mut self, pool: usize) {
        let Pool { id, backends, steps } = &self.pools[pool];
        let gpus = self.setup.fleet.pools[id.index()].gpus;
        let mut left = gpus.min + steps.iter().filter(|step| step.is_up).count() as u32 * gpus.step.max(1);
        for b in backends {
            let spec = &self.setup.fleet.backends[*b];
            let replicas = spec.replicas.max(1);
            let up = replicas.min(left / spec.gpus_per_replica.max(1));
            left -= up * spec.gpus_per_replica.max(1);
            let backend = &mut self.backends[*b];
            backend.up_servers = (backend.servers * up).div_ceil(replicas);
        }
    }

    /// Pays for the blocks that have begun.
    pub(super) fn pay_steps(&mut self, pool: usize) {
        let spec = self.spec(self.pools[pool].id);
        let PoolPrice::OnDemand { billing_block, .. } = spec.price else { return };
        let (block, each) = (billing_block.max(Duration::from_secs(1)), spec.gpus.step.max(1));
        let mut blocks = 0.0;
        for step in &mut self.pools[pool].steps {
            while step.paid_until <= self.now {
                step.paid_until = step.paid_until + block;
                blocks += 1.0;
            }
        }
        if blocks > 0.0 {
            self.charge(pool, blocks * block.as_secs_f64() * f64::from(each));
        }
    }

    /// Its backends share what a pool costs by the GPUs that they use.
    fn charge(&mut self, pool: usize, gpu_seconds: f64) {
        for b in self.pools[pool].backends.clone() {
            let part = self.setup.part_of_pool(b);
            self.backends[b].pay(gpu_seconds * part);
        }
    }
}
