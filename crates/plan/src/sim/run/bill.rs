//! What the backends cost: by the clock what is always on, by the block what is there on demand.

use std::time::Duration;

use outrigger_core::{
    fleet::PoolPrice,
    units::{NanoUsd, Nanos},
};

use super::{Backend, Setup, Sim, pools};
use crate::sim::{
    happening::Metrics,
    report::{Tally, gpu_cost},
};

/// How a backend's GPUs are paid for, besides the steps of pools that follow the load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rent {
    /// GPUs that are always on; a part of one where backends share more than they use.
    always_on: f64,
    billed_until: Nanos,
    /// GPUs that are there as soon as a request is, and paid for until the end of its block.
    on_call: u32,
    paid_until: Option<Nanos>,
}

impl Setup {
    /// A backend's part of its pool, by the GPUs that it uses.
    pub(super) fn part_of_pool(&self, b: usize) -> f64 {
        let used = |b: &outrigger_core::fleet::Backend| f64::from(b.replicas * b.gpus_per_replica);
        let spec = &self.fleet.backends[b];
        let all: f64 = self.fleet.backends.iter().filter(|other| other.pool == spec.pool).map(used).sum();
        if all > 0.0 { used(spec) / all } else { 1.0 }
    }

    fn rent(&self, b: usize) -> Rent {
        let spec = &self.fleet.backends[b];
        let used = spec.replicas * spec.gpus_per_replica;
        let (always_on, on_call) = match spec.pool.map(|id| &self.fleet.pools[id.index()]) {
            None => (0.0, 0),
            Some(pool) if pools::follows_load(self, pool) => (f64::from(pool.gpus.min) * self.part_of_pool(b), 0),
            Some(pool) if pool.gpus.min == pool.gpus.max => (f64::from(pool.gpus.max) * self.part_of_pool(b), 0),
            Some(pool) if pool.gpus.min == 0 && matches!(pool.price, PoolPrice::OnDemand { .. }) => (0.0, used),
            Some(_) => (f64::from(used), 0),
        };
        Rent { always_on, billed_until: Nanos::ZERO, on_call, paid_until: None }
    }
}

impl Backend {
    pub(super) fn new(setup: &Setup, b: usize, first_server: u32, servers: u32) -> Self {
        let pool = setup.fleet.backends[b].pool.map(|p| &setup.fleet.pools[p.index()]);
        Self {
            first_server,
            servers,
            up_servers: servers,
            capacity: 1.0,
            outage: None,
            rate_limit: None,
            flaky: 0.0,
            metrics: Metrics::Right,
            stale: (0, 0),
            last_byte: Nanos::ZERO,
            usd_per_gpu_hour: pool.map_or(NanoUsd::ZERO, |p| p.price.usd_per_gpu_hour()),
            rent: setup.rent(b),
            tally: Tally::default(),
        }
    }

    pub(super) fn pay(&mut self, gpu_seconds: f64) {
        self.tally.gpu_seconds += gpu_seconds;
        self.tally.cost.gpu += gpu_cost(self.usd_per_gpu_hour, gpu_seconds);
    }
}

impl Sim<'_> {
    /// Notes what the backend has cost, always-on GPUs included.
    pub(super) fn note_spent(&mut self, b: usize) {
        let backend = &self.backends[b];
        let open = backend.rent.always_on * self.now.since(backend.rent.billed_until).as_secs_f64() / 3_600.0;
        let usd = backend.tally.cost.total().as_usd() + backend.usd_per_gpu_hour.as_usd() * open;
        self.series.spent(b, usd, self.now);
    }

    /// GPUs on call that were idle at the end of their last block begin a new one.
    pub(super) fn wake_pool(&mut self, b: usize) {
        if self.backends[b].rent.on_call == 0 {
            return;
        }
        let idle = self.servers_of(b).all(|s| self.servers[s as usize].load() == 0);
        let rent = &mut self.backends[b].rent;
        if idle && rent.paid_until.is_none_or(|until| until < self.now) {
            rent.paid_until = Some(self.now);
        }
    }

    /// On call, what has begun is paid for by the block.
    pub(super) fn pay_blocks(&mut self, b: usize) {
        let backend = &mut self.backends[b];
        if backend.rent.on_call == 0 {
            return;
        }
        let pool = self.setup.fleet.backends[b].pool.map(|p| &self.setup.fleet.pools[p.index()].price);
        let Some(PoolPrice::OnDemand { billing_block, .. }) = pool else { return };
        let block = (*billing_block).max(Duration::from_secs(1));
        let mut until = backend.rent.paid_until.unwrap_or(self.now);
        while until <= self.now {
            until = until + block;
            backend.pay(f64::from(backend.rent.on_call) * block.as_secs_f64());
        }
        backend.rent.paid_until = Some(until);
    }

    /// What is always on is paid for by the clock.
    pub(super) fn bill_until_now(&mut self, b: usize) {
        let backend = &mut self.backends[b];
        let seconds = self.now.since(backend.rent.billed_until).as_secs_f64();
        backend.rent.billed_until = self.now;
        backend.pay(backend.rent.always_on * seconds);
    }

    /// Pays for all that has been used by now.
    pub(super) fn settle(&mut self) {
        (0..self.backends.len()).for_each(|b| self.bill_until_now(b));
        (0..self.pools.len()).for_each(|pool| self.pay_steps(pool));
    }
}
