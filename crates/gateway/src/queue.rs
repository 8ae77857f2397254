//! Requests that wait for a place at a backend, and who is called when one comes free.
//!
//! Whoever ends a request gives its place on, in the same moment and under the same lock: to the first in line who can
//! use it. So nobody who comes by just then is faster, and those who wait do not all wake up to find out that there is
//! one place. A request that gives up (its client has gone, its time is over) leaves by dropping its [`InLine`]; if it
//! had been called in that moment, the place goes to the next.

use std::time::Duration;

use outrigger_core::{
    fleet::ModelId,
    record::{End, Usage},
    route::Decision,
    state::Event,
    units::Nanos,
    waiting::{Place, WaitingList, Walk},
};
use tokio::sync::oneshot;

use crate::live::{Core, Decided, Live, Ticket, follow};

/// What is to be done with a request.
#[derive(Debug)]
pub enum Turn<'a> {
    Now(Decided),
    Later(InLine<'a>),
}

/// A request's place in line. Dropped, it leaves.
#[derive(Debug)]
pub struct InLine<'a> {
    live: &'a Live,
    place: Place,
    until: Nanos,
    called: oneshot::Receiver<Box<Called>>,
}

/// A request that has been called, and what was decided for it.
#[derive(Debug)]
struct Called {
    ticket: Ticket,
    decided: Decided,
}

#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    call: oneshot::Sender<Box<Called>>,
}

/// All that wait in this gateway.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    list: WaitingList<Waiter>,
}

impl InLine<'_> {
    /// Resolves with what was decided when it is this request's turn, or when it has waited as long as it may.
    pub async fn turn(mut self, ticket: &mut Ticket) -> Decided {
        loop {
            let left = self.until.since(self.live.clock.now());
            tokio::select! {
                called = &mut self.called => match called {
                    Ok(called) => {
                        *ticket = called.ticket;
                        return called.decided;
                    }
                    // Nobody drops a waiter without calling it.
                    Err(_) => std::future::pending().await,
                },
                // A millisecond more than nothing, so that a clock which stands still cannot make this a busy loop.
                () = tokio::time::sleep(left.max(Duration::from_millis(1))) => {
                    self.until = self.live.core().ask_again(self.live, self.place).unwrap_or(self.until);
                }
            }
        }
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let mut core = self.live.core();
        if core.leave_queue(self.live, self.place) {
            return;
        }
        if let Ok(called) = self.called.try_recv() {
            core.give_back(self.live, &called.decided);
        }
    }
}

impl Core {
    /// Puts a request in line that was told to wait.
    pub(crate) fn wait<'a>(&mut self, live: &'a Live, ticket: &Ticket) -> InLine<'a> {
        let (call, called) = oneshot::channel();
        let (model, until) = (ticket.facts.model, ticket.history.until);
        let place = self.queues.list.enter(&ticket.facts, &ticket.history, Waiter { ticket: ticket.clone(), call });
        self.make_room(live, model);
        InLine { live, place, until, called }
    }

    /// Brings those who wait in step with the fleet in force. One whose model is gone is told so.
    pub(crate) fn follow_reload(&mut self, live: &Live) {
        let fleet = self.state.fleet().clone();
        let left = self.queues.list.follow(|waiter| {
            follow(&mut waiter.ticket, &fleet).then_some((waiter.ticket.facts, waiter.ticket.history))
        });
        for mut waiter in left {
            let decided = self.decide(live, &mut waiter.ticket);
            self.call(live, waiter, decided);
        }
        self.call_waiting(live);
    }

    /// Asks those who wait, in their order, until there is no place for any of them.
    pub(crate) fn call_waiting(&mut self, live: &Live) {
        let mut walk = Walk::default();
        while let Some(place) = self.queues.list.next(&walk) {
            if self.ask_again(live, place).is_some() {
                self.queues.list.refused(&mut walk, place);
            }
        }
    }

    /// Decides again for one that waits, and calls it if it need not wait any more; else until when it may.
    fn ask_again(&mut self, live: &Live, place: Place) -> Option<Nanos> {
        let mut list = std::mem::take(&mut self.queues.list);
        let waiting = list.get_mut(place).map(|waiter| self.decide(live, &mut waiter.ticket));
        let called = match waiting {
            Some(Decided { decision: Decision::Queue { until }, .. }) => {
                self.queues.list = list;
                return Some(until);
            }
            Some(decided) => list.leave(place).map(|waiter| (waiter, decided)),
            None => None,
        };
        self.queues.list = list;
        if let Some((waiter, decided)) = called {
            self.call(live, waiter, decided);
        }
        None
    }

    /// Where a line is longer than it may be, the last of the lowest priority is turned away.
    fn make_room(&mut self, live: &Live, model: ModelId) {
        if !self.state.is_overfull(model) {
            return;
        }
        if let Some(mut waiter) = self.queues.list.displace(model) {
            waiter.ticket.history.displaced = true;
            let decided = self.decide(live, &mut waiter.ticket);
            self.call(live, waiter, decided);
        }
    }

    fn call(&mut self, live: &Live, waiter: Waiter, decided: Decided) {
        let Waiter { ticket, call } = waiter;
        if let Err(called) = call.send(Box::new(Called { ticket, decided })) {
            self.give_back(live, &called.decided);
        }
    }

    /// One has gone without being called. `false` when it had been.
    fn leave_queue(&mut self, live: &Live, place: Place) -> bool {
        let Some(waiter) = self.queues.list.leave(place) else { return false };
        let facts = &waiter.ticket.facts;
        self.observe(Event::LeftQueue { model: facts.model, priority: facts.priority }, live.clock.now());
        true
    }

    /// Nobody is left to use the place that was given.
    fn give_back(&mut self, live: &Live, decided: &Decided) {
        if let Decision::Attempt(attempt) = decided.decision {
            let event = Event::Ended { attempt: attempt.id, end: End::ClientGone, usage: Usage::default() };
            self.observe(event, live.clock.now());
            self.call_waiting(live);
        }
    }
}
