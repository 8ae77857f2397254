//! An attempt fails, and what becomes of its request.

use std::time::Duration;

use outrigger_core::{
    fleet::BackendId,
    record::{End, Fault as Failure, Usage},
    state::{Event, health::Effect},
};

use super::{SOON, Sim};
use crate::sim::happening::What;

impl Sim<'_> {
    /// An attempt has met a refusal, an error or its deadline.
    pub(super) fn deadline(&mut self, id: u32, number: u32) {
        let Some(call) = self.calls[id as usize].as_ref().filter(|c| c.number == number) else { return };
        let Some(running) = call.running.filter(|r| r.first_token.is_none()) else { return };
        let backend = &self.backends[running.attempt.backend.index()];
        let in_queue = running.admitted.is_none() && self.now.since(running.started) > SOON;
        let fault = match backend.trouble() {
            _ if running.is_stuck && call.facts.stream => Failure::HeadersTimeout,
            _ if running.is_stuck => Failure::TotalTimeout,
            _ if running.admitted.is_some() => return,
            _ if in_queue => Failure::FirstTokenTimeout,
            Some(What::Outage) => Failure::Refused,
            Some(_) => Failure::Status(500),
            None if running.stumbles => Failure::Status(500),
            None => Failure::Overloaded { status: 429, retry_after: Some(Duration::from_secs(1)) },
        };
        if in_queue {
            let mut told = Vec::new();
            self.servers[running.server as usize].cancel(id, false, self.now, &mut |t| told.push(t));
            self.hear(running.server, &mut told);
        }
        self.fail(id, fault);
    }

    pub(super) fn fail(&mut self, id: u32, fault: Failure) {
        let Some(call) = &mut self.calls[id as usize] else { return };
        let Some(running) = call.running.take() else { return };
        let backend = running.attempt.backend;
        let committed = running.first_token.is_some() && call.facts.stream;
        call.number += 1;
        if !committed {
            call.history.failed(backend, fault);
        }
        let g = call.gateway;
        let gateway = &mut self.gateways[g as usize];
        let usage = Usage::default();
        let event = Event::Ended { attempt: running.attempt.id, end: End::Failed(fault), usage };
        let effect = gateway.state.observe(event, self.now, &mut gateway.rng);
        self.backends[backend.index()].tally.failed_attempts += 1;
        if committed || fault == Failure::TotalTimeout {
            self.lose(id, fault.as_str());
        } else {
            self.decide(id);
        }
        if effect == Some(Effect::Abandon) {
            self.abandon(g, backend);
        }
        self.start_ticking();
        self.headroom(g);
    }

    /// The verdict is in: what this gateway has there, and has delivered nothing, goes elsewhere.
    pub(super) fn abandon(&mut self, g: u32, backend: BackendId) {
        let stranded: Vec<u32> = (0..self.calls.len() as u32)
            .filter(|id| {
                self.calls[*id as usize].as_ref().is_some_and(|c| {
                    c.gateway == g && c.running.is_some_and(|r| r.attempt.backend == backend && r.first_token.is_none())
                })
            })
            .collect();
        for id in stranded {
            self.withdraw(id);
            self.fail(id, Failure::Abandoned);
        }
    }

    /// Takes an attempt out of its engine, where it is in one.
    pub(super) fn withdraw(&mut self, id: u32) {
        let Some(running) = self.calls[id as usize].as_ref().and_then(|c| c.running) else { return };
        if running.is_stuck {
            return;
        }
        let mut told = Vec::new();
        let admitted = running.admitted.is_some();
        self.servers[running.server as usize].cancel(id, admitted, self.now, &mut |t| told.push(t));
        self.hear(running.server, &mut told);
    }
}
