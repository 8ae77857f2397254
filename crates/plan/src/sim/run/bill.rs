//! What the backends cost: by the clock what is always on, by the block what is there on demand.

use std::time::Duration;

use outrigger_core::fleet::PoolPrice;

use super::Sim;
use crate::sim::report::gpu_cost;

impl Sim<'_> {
    /// Notes what the backend has cost, always-on GPUs included.
    pub(super) fn note_spent(&mut self, b: usize) {
        let backend = &self.backends[b];
        let running = if backend.is_on_demand { 0.0 } else { f64::from(backend.gpus) * self.now.0 as f64 / 3.6e12 };
        let usd = backend.tally.cost.total().as_usd() + backend.usd_per_gpu_hour.as_usd() * running;
        self.series.spent(b, usd, self.now);
    }

    /// A pool on demand that was idle at the end of its last block begins a new one.
    pub(super) fn wake_pool(&mut self, b: usize) {
        let idle = self.servers_of(b).all(|s| self.servers[s as usize].load() == 0);
        let backend = &mut self.backends[b];
        if idle && backend.paid_until.is_none_or(|until| until < self.now) {
            backend.paid_until = Some(self.now);
        }
    }

    /// On demand, what has begun is paid for by the block.
    pub(super) fn pay_blocks(&mut self, b: usize) {
        let backend = &mut self.backends[b];
        let pool = self.setup.fleet.backends[b].pool.map(|p| &self.setup.fleet.pools[p.index()].price);
        let Some(PoolPrice::OnDemand { billing_block, .. }) = pool.filter(|_| backend.is_on_demand) else { return };
        let block = (*billing_block).max(Duration::from_secs(1));
        let mut until = backend.paid_until.unwrap_or(self.now);
        while until <= self.now {
            until = until + block;
            let seconds = f64::from(backend.gpus) * block.as_secs_f64();
            backend.tally.gpu_seconds += seconds;
            backend.tally.cost.gpu += gpu_cost(backend.usd_per_gpu_hour, seconds);
        }
        backend.paid_until = Some(until);
    }

    /// What is always on is paid for by the clock.
    pub(super) fn bill_until_now(&mut self, b: usize) {
        let backend = &mut self.backends[b];
        if backend.is_on_demand {
            return;
        }
        let seconds = f64::from(backend.gpus) * self.now.since(backend.billed_from).as_secs_f64();
        backend.billed_from = self.now;
        backend.tally.gpu_seconds += seconds;
        backend.tally.cost.gpu += gpu_cost(backend.usd_per_gpu_hour, seconds);
    }
}
