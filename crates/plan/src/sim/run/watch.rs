//! What a gateway does on the side: looks for silence, probes, and reads the engines' metrics.

use std::time::Duration;

use outrigger_core::{
    fleet::BackendId,
    record::Fault as Failure,
    state::{Event, health::Effect},
    units::Nanos,
};
use rand_core::Rng as _;

use super::{Due, Gateway, SOON, Sim, TICK};
use crate::sim::happening::{Metrics, What};

impl Sim<'_> {
    pub(super) fn start_ticking(&mut self) {
        self.tick_at(self.now + TICK);
    }

    fn tick_at(&mut self, at: Nanos) {
        if self.next_tick.is_none_or(|next| next > at) {
            self.next_tick = Some(at);
            self.at(at, Due::Tick);
        }
    }

    /// Looks for silence, takes the probes that are due, and goes on as long as anything is wrong.
    pub(super) fn tick(&mut self) {
        let (mut trouble, mut next_probe) = (false, None);
        for g in 0..self.gateways.len() {
            for b in 0..self.backends.len() {
                let id = BackendId(b as u16);
                let silent = matches!(self.backends[b].trouble(), Some(What::Hang));
                let last_byte = if silent { self.backends[b].last_byte } else { self.now };
                let Gateway { state, rng, .. } = &mut self.gateways[g];
                if state.backend(id).in_flight > 0 {
                    state.observe(Event::Heard { backend: id, last_byte }, self.now, rng);
                }
                let live = &state.backend(id).live;
                trouble |= live.is_suspect() || self.backends[b].outage.is_some();
            }
            while let Some(backend) = self.gateways[g].state.take_probe(self.now) {
                trouble = true;
                let wait = match self.backends[backend.index()].trouble() {
                    Some(What::Hang) => self.gateways[g].state.probe_patience(backend, self.now),
                    _ => SOON,
                };
                let due = Due::Probed { gateway: g as u32, backend: u32::from(backend.0) };
                self.at(self.now + wait, due);
            }
            self.headroom(g as u32);
            next_probe = next_probe.into_iter().chain(self.gateways[g].state.next_probe()).min();
        }
        if trouble || self.gateways.iter().any(|g| !g.waiting.is_empty()) {
            self.start_ticking();
        } else if let Some(due) = next_probe {
            // In the same steps, so that skipping those where nothing happens changes nothing.
            let steps = due.since(self.now).as_nanos().div_ceil(TICK.as_nanos()).max(1);
            self.tick_at(self.now + TICK * u32::try_from(steps).unwrap_or(u32::MAX));
        }
    }

    pub(super) fn probed(&mut self, g: u32, b: u32) {
        let backend = BackendId(b as u16);
        let result = match self.backends[b as usize].trouble() {
            None => Ok(()),
            Some(What::Hang) => Err(Failure::FirstTokenTimeout),
            Some(What::Outage) => Err(Failure::Refused),
            Some(_) => Err(Failure::Status(500)),
        };
        let gateway = &mut self.gateways[g as usize];
        let effect = gateway.state.observe(Event::Probed { backend, result }, self.now, &mut gateway.rng);
        if effect == Some(Effect::Abandon) {
            self.abandon(g, backend);
        }
        self.headroom(g);
        self.start_ticking();
    }

    pub(super) fn jittered_scrape(&mut self) -> Nanos {
        let every = self.setup.scrape_every.unwrap_or(Duration::from_hours(1));
        let unit = f64::from(self.dealer.next_u32()) / f64::from(u32::MAX);
        self.now + every.mul_f64(0.8 + 0.4 * unit)
    }

    pub(super) fn scrape(&mut self, g: u32, b: u32) {
        let backend = &self.backends[b as usize];
        let range = backend.first_server as usize..(backend.first_server + backend.servers) as usize;
        let truth = self.servers[range.clone()]
            .iter()
            .fold((0, 0), |(r, w), s| (r + s.running() as u32, w + s.waiting() as u32));
        let said = match backend.metrics {
            Metrics::Right => Some(truth),
            Metrics::Absent => None,
            Metrics::Zero => Some((0, 0)),
            Metrics::Huge => Some((truth.0, 1_000_000_000)),
            Metrics::Stale => Some(backend.stale),
            Metrics::OnePod => {
                let one = &self.servers[range.start];
                let share = if backend.servers > 1 { 1 } else { 4 };
                Some((one.running() as u32 / share, one.waiting() as u32 / share))
            }
        };
        if let Some((running, waiting)) = said.filter(|_| backend.trouble().is_none()) {
            let event = Event::Scraped { backend: BackendId(b as u16), running, waiting };
            let gateway = &mut self.gateways[g as usize];
            gateway.state.observe(event, self.now, &mut gateway.rng);
        }
        let at = self.jittered_scrape();
        self.at(at, Due::Scrape { gateway: g, backend: b });
    }
}
