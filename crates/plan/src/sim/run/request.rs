//! One request's way: it arrives, it is decided, an engine admits it, its first token comes, it ends.

use std::time::Duration;

use outrigger_core::{
    cost,
    facts::{Facts, History},
    fleet::{BackendId, ModelId, Timeouts},
    record::{End, TokensSource, Usage},
    route::{Attempt, Decision, Reason},
    state::Event,
    units::{Bytes, Nanos, Tokens},
    waiting::Walk,
};
use rand_core::Rng as _;

use super::{Backend, Call, Due, Running, SOON, Sim};
use crate::{
    sim::{
        engine::{Job, Server, Told},
        happening::What,
    },
    trace::Arrival,
};

/// A token is about this many bytes of a request or an answer.
const BYTES_PER_TOKEN: u64 = 4;
/// A token of a stream, with the event around it.
const STREAMED_TOKEN: u64 = 200;

impl Sim<'_> {
    pub(super) fn arrive(&mut self, arrival: &Arrival, model: ModelId) {
        self.requests += 1;
        self.open += 1;
        let fleet = &self.setup.fleet;
        let gateway = self.deal(arrival);
        let facts = Facts {
            stream: arrival.stream,
            prompt_tokens: arrival.prompt_tokens,
            body_bytes: Bytes(arrival.prompt_tokens.0 * BYTES_PER_TOKEN),
            affinity: arrival.session,
            patience: fleet.model(model).queue.max_wait,
            ..Facts::anonymous(model, self.now)
        };
        let call = Call {
            facts,
            history: History::default(),
            output: arrival.output_tokens.0,
            gateway,
            number: 0,
            running: None,
            place: None,
        };
        let id = if let Some(id) = self.free.pop() {
            self.calls[id as usize] = Some(call);
            id
        } else {
            self.calls.push(Some(call));
            self.calls.len() as u32 - 1
        };
        self.decide(id);
    }

    pub(super) fn decide(&mut self, id: u32) {
        let Some(call) = &mut self.calls[id as usize] else { return };
        let gateway = &mut self.gateways[call.gateway as usize];
        let decision = gateway.state.decide(&call.facts, &call.history, self.now, &mut gateway.rng, &mut ());
        if !self.pools.is_empty() {
            gateway.state.note_decision(&call.facts, &call.history, &decision, self.now);
        }
        call.history.waiting = false;
        let place = call.place.take();
        if let (Some(place), Decision::Attempt(_) | Decision::Reject(_)) = (place, decision) {
            gateway.waiting.leave(place);
        }
        match decision {
            Decision::Attempt(attempt) => self.start(id, attempt),
            Decision::Queue { until } => {
                call.history.waits(until);
                call.place = place.or_else(|| Some(gateway.waiting.enter(&call.facts, &call.history, id)));
                call.number += 1;
                let (number, g, model) = (call.number, call.gateway, call.facts.model);
                let at = until.max(self.now + Duration::from_millis(1));
                self.at(at, Due::Recheck { call: id, number });
                self.make_room(g, model);
            }
            Decision::Reject(reject) => {
                let why = match call.history.last_fault {
                    Some(fault) if call.history.attempts() > 0 => fault.as_str(),
                    _ => reject.why.as_str(),
                };
                self.lose(id, why);
            }
        }
    }

    pub(super) fn lose(&mut self, id: u32, why: &str) {
        self.failed += 1;
        *self.failures.entry(why.to_owned()).or_default() += 1;
        self.series.failed(self.now);
        self.close(id);
    }

    pub(super) fn close(&mut self, id: u32) {
        self.calls[id as usize] = None;
        self.free.push(id);
        self.open -= 1;
    }

    pub(super) fn start(&mut self, id: u32, attempt: Attempt) {
        let b = attempt.backend.index();
        let timeouts = self.timeouts(id, attempt.backend);
        let Some(call) = &mut self.calls[id as usize] else { return };
        call.number += 1;
        let number = call.number;
        let server = least_loaded(&self.servers, &self.backends[b]);
        call.running = Some(Running {
            attempt,
            server,
            started: self.now,
            admitted: None,
            first_token: None,
            is_stuck: false,
            stumbles: false,
        });
        let job = Job { id, prompt: call.facts.prompt_tokens.0, output: call.output.max(1) };
        let stream = call.facts.stream;
        self.wake_pool(b);
        self.pay_blocks(b);
        let backend = &mut self.backends[b];
        backend.tally.attempts += 1;
        let is_flaky = backend.flaky > 0.0 && f64::from(self.dealer.next_u32()) < backend.flaky * f64::from(u32::MAX);
        let over_rate = backend.rate_limit.as_mut().is_some_and(|limit| !take_one(limit, self.now));
        match backend.trouble() {
            Some(What::Hang) => {
                self.stick(id);
                let wait = if stream { timeouts.headers.min(timeouts.first_token) } else { timeouts.total };
                self.at(self.now + wait, Due::Deadline { call: id, number });
            }
            Some(_) => self.at(self.now + SOON, Due::Deadline { call: id, number }),
            None if over_rate || is_flaky => {
                if is_flaky {
                    self.stumble(id);
                }
                self.at(self.now + SOON, Due::Deadline { call: id, number });
            }
            None => {
                self.submit(server, job);
                let waits = self.calls[id as usize]
                    .as_ref()
                    .and_then(|c| c.running)
                    .is_some_and(|r| r.admitted.is_none() && stream);
                if waits && self.setup.engines[b].has_deadlines {
                    self.at(self.now + timeouts.first_token, Due::Deadline { call: id, number });
                }
                let waiting = self.servers[server as usize].waiting();
                let tally = &mut self.backends[b].tally;
                tally.most_waiting = tally.most_waiting.max(waiting);
            }
        }
    }

    pub(super) fn timeouts(&self, id: u32, backend: BackendId) -> Timeouts {
        let fleet = &self.setup.fleet;
        let model = self.calls[id as usize].as_ref().map_or(ModelId(0), |c| c.facts.model);
        fleet.model(model).timeouts.overridden_by(&fleet.backend(backend).timeouts)
    }

    pub(super) fn stumble(&mut self, id: u32) {
        if let Some(running) = self.calls[id as usize].as_mut().and_then(|c| c.running.as_mut()) {
            running.stumbles = true;
        }
    }

    pub(super) fn stick(&mut self, id: u32) {
        if let Some(running) = self.calls[id as usize].as_mut().and_then(|c| c.running.as_mut()) {
            running.is_stuck = true;
        }
    }

    pub(super) fn submit(&mut self, server: u32, job: Job) {
        let mut told = std::mem::take(&mut self.told);
        self.servers[server as usize].submit(job, self.now, &mut |t| told.push(t));
        self.hear(server, &mut told);
        self.told = told;
    }

    /// Schedules what an engine told.
    pub(super) fn hear(&mut self, server: u32, told: &mut Vec<Told>) {
        let mut i = 0;
        while i < told.len() {
            match told[i] {
                Told::Wake { at } => self.at(at, Due::Wake { server }),
                Told::Admitted { id, first_token } => {
                    let Some(call) = &mut self.calls[id as usize] else {
                        i += 1;
                        continue;
                    };
                    let number = call.number;
                    if let Some(running) = &mut call.running {
                        running.admitted = Some(self.now);
                    }
                    if first_token <= self.now {
                        let job = Job { id, prompt: 0, output: call.output.max(1) };
                        self.commit(id);
                        self.servers[server as usize].first_token(job, self.now, &mut |t| told.push(t));
                    } else {
                        self.at(first_token, Due::FirstToken { call: id, number });
                    }
                }
            }
            i += 1;
        }
        told.clear();
    }

    pub(super) fn first_token(&mut self, id: u32, number: u32) {
        let Some(call) = self.calls[id as usize].as_ref().filter(|c| c.number == number) else { return };
        let Some(running) = call.running.filter(|r| !r.is_stuck) else { return };
        let job = Job { id, prompt: 0, output: call.output.max(1) };
        self.commit(id);
        let mut told = std::mem::take(&mut self.told);
        self.servers[running.server as usize].first_token(job, self.now, &mut |t| told.push(t));
        self.hear(running.server, &mut told);
        self.told = told;
    }

    /// The first content has come. A request that does not stream has none before its end.
    pub(super) fn commit(&mut self, id: u32) {
        let Some(call) = &mut self.calls[id as usize] else { return };
        let Some(running) = &mut call.running else { return };
        running.first_token = Some(self.now);
        self.backends[running.attempt.backend.index()].last_byte = self.now;
        if call.facts.stream {
            let gateway = &mut self.gateways[call.gateway as usize];
            let event = Event::Committed { attempt: running.attempt.id };
            gateway.state.observe(event, self.now, &mut gateway.rng);
        }
    }

    pub(super) fn wake(&mut self, server: u32) {
        let mut ended = std::mem::take(&mut self.ended);
        let mut told = std::mem::take(&mut self.told);
        self.servers[server as usize].wake(self.now, &mut ended, &mut |t| told.push(t));
        self.hear(server, &mut told);
        self.told = told;
        for id in ended.drain(..) {
            self.serve(id);
        }
        self.ended = ended;
    }

    /// A request has its whole answer.
    pub(super) fn serve(&mut self, id: u32) {
        let Some(call) = self.calls[id as usize].as_ref() else { return };
        let Some(running) = call.running else { return };
        let (facts, output, g) = (call.facts, call.output, call.gateway);
        let (attempt, b) = (running.attempt, running.attempt.backend.index());
        let gateway = &mut self.gateways[g as usize];
        if !facts.stream {
            let event = Event::Committed { attempt: attempt.id };
            gateway.state.observe(event, self.now, &mut gateway.rng);
        }
        let usage = Usage {
            prompt: facts.prompt_tokens,
            output: Tokens(output),
            cached: Tokens(0),
            source: TokensSource::Engine,
        };
        let event = Event::Ended { attempt: attempt.id, end: End::Ok, usage };
        gateway.state.observe(event, self.now, &mut gateway.rng);
        self.pay_blocks(b);
        let waiting = self.servers[running.server as usize].waiting();
        self.series.served(b, waiting, self.now);
        self.spilled += u64::from(attempt.reason == Reason::Spill);
        self.fell_back += u64::from(attempt.reason == Reason::Fallback);
        let spec = self.setup.fleet.backend(attempt.backend);
        let answer = output * if facts.stream { STREAMED_TOKEN } else { BYTES_PER_TOKEN };
        let place = self.gateways[g as usize].place;
        let moved = cost::of_transfer(self.setup.fleet_at(place), attempt.backend, facts.body_bytes, Bytes(answer));
        let spent = cost::of_attempt(spec, &usage) + moved;
        let wait = running.admitted.unwrap_or(self.now).since(facts.arrived);
        let first = running.first_token.unwrap_or(self.now);
        let (ttft, whole) = (first.since(facts.arrived), self.now.since(facts.arrived));
        let backend = &mut self.backends[b];
        backend.last_byte = self.now;
        let tally = &mut backend.tally;
        tally.served += 1;
        tally.spilled += u64::from(attempt.reason == Reason::Spill);
        tally.prompt.0 += facts.prompt_tokens.0;
        tally.output.0 += output;
        tally.cost.tokens += spent.tokens;
        tally.cost.egress += spent.egress;
        tally.wait.record(wait);
        tally.whole.record(whole);
        self.wait.record(wait);
        self.whole.record(whole);
        if facts.stream {
            tally.ttft.record(ttft);
            self.ttft.record(ttft);
        }
        if let Some(place) = place {
            self.places[place].served(spent.egress);
        }
        if self.series.is_new_step(self.now) {
            (0..self.backends.len()).for_each(|b| self.note_spent(b));
        }
        self.note_spent(b);
        self.meet(facts.model, ttft, self.now.since(first), output);
        self.close(id);
        self.headroom(g);
    }

    pub(super) fn meet(&mut self, model: ModelId, ttft: Duration, decoding: Duration, output: u64) {
        let slo = self.setup.fleet.model(model).slo;
        let met = &mut self.slo[model.index()];
        if let Some(objective) = slo.ttft_p95 {
            met.ttft.0 += u64::from(ttft <= objective);
            met.ttft.1 += 1;
        }
        if let Some(objective) = slo.time_per_output_token_p95
            && output > 1
        {
            met.pace.0 += u64::from(decoding.as_secs_f64() / (output - 1) as f64 <= objective.as_secs_f64());
            met.pace.1 += 1;
        }
    }

    /// Something ended at this gateway: those who wait there decide again, in their order, while there is room.
    pub(super) fn headroom(&mut self, g: u32) {
        let mut walk = Walk::default();
        while let Some(place) = self.gateways[g as usize].waiting.next(&walk) {
            let Some(id) = self.gateways[g as usize].waiting.get_mut(place).copied() else { return };
            self.decide(id);
            self.gateways[g as usize].waiting.refused(&mut walk, place);
        }
    }

    /// Where a line is longer than it may be, the last of the lowest priority is turned away.
    fn make_room(&mut self, g: u32, model: ModelId) {
        let gateway = &mut self.gateways[g as usize];
        if !gateway.state.is_overfull(model) {
            return;
        }
        let Some(id) = gateway.waiting.displace(model) else { return };
        if let Some(call) = &mut self.calls[id as usize] {
            call.history.displaced = true;
            self.decide(id);
        }
    }

    pub(super) fn recheck(&mut self, id: u32, number: u32) {
        let Some(call) = self.calls[id as usize].as_ref() else { return };
        if call.number == number && call.history.waiting {
            self.decide(id);
        }
    }
}

/// Takes one from a bucket of a second's worth. `false` when it is empty.
fn take_one((rate, since, tokens): &mut (f64, Nanos, f64), now: Nanos) -> bool {
    *tokens = (*tokens + now.since(*since).as_secs_f64() * *rate).min(rate.max(1.0));
    *since = now;
    let allowed = *tokens >= 1.0;
    if allowed {
        *tokens -= 1.0;
    }
    allowed
}

/// The engine of a backend with the fewest requests; the first of equals.
fn least_loaded(servers: &[Server], backend: &Backend) -> u32 {
    let live = backend.first_server..backend.first_server + backend.live_servers();
    live.min_by_key(|s| servers[*s as usize].load()).unwrap_or(backend.first_server)
}
