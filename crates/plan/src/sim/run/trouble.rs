//! What goes wrong begins and ends.

use outrigger_core::{fleet::BackendId, record::Fault as Failure, units::NanoUsd};

use super::{Call, Due, Sim};
use crate::sim::happening::{Metrics, What};

impl Sim<'_> {
    /// A happening begins or ends.
    pub(super) fn turn(&mut self, index: u32, ends: bool) {
        let happening = &self.setup.happenings[index as usize];
        let fleet = &self.setup.fleet;
        let is_meant = |b: &usize| {
            let spec = &fleet.backends[*b];
            happening.backend.as_ref().is_none_or(|name| *name == spec.name)
                && happening.cloud.as_ref().is_none_or(|name| *name == fleet.cloud(spec.cloud).name)
        };
        let meant: Vec<usize> = (0..self.backends.len()).filter(is_meant).collect();
        for b in meant {
            self.turn_backend(b, happening.what, ends);
        }
        self.start_ticking();
    }

    pub(super) fn turn_backend(&mut self, b: usize, what: What, ends: bool) {
        match what {
            What::Outage | What::Hang | What::Errors => {
                self.backends[b].outage = (!ends).then_some(what);
                match what {
                    What::Outage if !ends => self.kill(b),
                    What::Hang => self.hang(b, ends),
                    _ => {}
                }
            }
            What::BrownOut { factor } => {
                let factor = if ends { 1.0 } else { factor.max(1e-3) };
                for s in self.servers_of(b) {
                    let mut told = Vec::new();
                    self.servers[s as usize].set_slowness(factor, self.now, &mut |t| told.push(t));
                    self.hear(s, &mut told);
                }
            }
            What::Capacity { share } => {
                let share = if ends { 1.0 } else { share.clamp(0.0, 1.0) };
                if self.backends[b].servers == 1 && share > 0.0 {
                    // One engine cannot be divided: it gets slower by as much.
                    self.turn_backend(b, What::BrownOut { factor: 1.0 / share.max(1e-3) }, false);
                }
                self.backends[b].capacity = share;
            }
            What::Flaky { share } => self.backends[b].flaky = if ends { 0.0 } else { share.clamp(0.0, 1.0) },
            What::RateLimit { requests_per_second } => {
                self.backends[b].rate_limit = (!ends).then_some((requests_per_second, self.now, 1.0));
            }
            What::Price { usd_per_gpu_hour } => {
                self.bill_until_now(b);
                let spec = &self.setup.fleet.backends[b];
                let before = spec.pool.map(|p| self.setup.fleet.pools[p.index()].price.usd_per_gpu_hour());
                let new = NanoUsd::from_usd(usd_per_gpu_hour).filter(|_| !ends).or(before);
                self.backends[b].usd_per_gpu_hour = new.unwrap_or(NanoUsd::ZERO);
            }
            What::Metrics { say } => {
                let range = self.servers_of(b);
                let truth = range.fold((0, 0), |(r, w), s| {
                    let server = &self.servers[s as usize];
                    (r + server.running() as u32, w + server.waiting() as u32)
                });
                self.backends[b].stale = truth;
                self.backends[b].metrics = if ends { Metrics::Right } else { say };
            }
        }
    }

    pub(super) fn servers_of(&self, b: usize) -> std::ops::Range<u32> {
        let backend = &self.backends[b];
        backend.first_server..backend.first_server + backend.servers
    }

    /// What it held dies: streams with content are cut, everything else goes elsewhere.
    pub(super) fn kill(&mut self, b: usize) {
        for s in self.servers_of(b) {
            self.servers[s as usize].clear(self.now);
        }
        for id in self.calls_on(b) {
            let begun = self.calls[id as usize]
                .as_ref()
                .is_some_and(|c| c.facts.stream && c.running.is_some_and(|r| r.first_token.is_some()));
            self.fail(id, if begun { Failure::Cut } else { Failure::Reset });
        }
    }

    /// What it holds comes to nothing: streams with content stall, the others run into their deadlines.
    pub(super) fn hang(&mut self, b: usize, ends: bool) {
        if ends {
            return;
        }
        self.backends[b].last_byte = self.now;
        for s in self.servers_of(b) {
            self.servers[s as usize].clear(self.now);
        }
        for id in self.calls_on(b) {
            let timeouts = self.timeouts(id, BackendId(b as u16));
            let Some(call) = &mut self.calls[id as usize] else { continue };
            let Some(running) = &mut call.running else { continue };
            if running.first_token.is_some() && call.facts.stream {
                self.fail(id, Failure::Stalled);
                continue;
            }
            running.is_stuck = true;
            running.first_token = None;
            let number = call.number;
            let wait = if call.facts.stream { timeouts.first_token } else { timeouts.total };
            let at = (running.started + wait).max(self.now);
            self.at(at, Due::Deadline { call: id, number });
        }
    }

    pub(super) fn calls_on(&self, b: usize) -> Vec<u32> {
        let on = |call: &Option<Call>| {
            call.as_ref().is_some_and(|c| c.running.is_some_and(|r| self.server_of[r.server as usize] == b as u32))
        };
        (0..self.calls.len() as u32).filter(|id| on(&self.calls[*id as usize])).collect()
    }
}
