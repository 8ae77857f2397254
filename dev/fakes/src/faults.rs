//! The scripted faults: how a cloud breaks, as data that can be switched while requests are in flight.
//!
//! Two kinds, because they act in different places. Faults of the network (`refuse`, `blackhole`) and of the process
//! (`kill`) act on the listener and on every open connection at once. The others are drawn once per request, with a
//! seeded probability, and change its answer; `/health` and `/metrics` stay fine on purpose, since engines that hang
//! do keep answering their health checks. `slow` belongs to the engine and is drawn per step.
//!
//! Several faults may be active; of those drawn per request the first that hits wins, in the order they were set.
//! Setting a kind again replaces it. `for` ends a fault by itself, and `times` after so many requests.

mod kind;
mod setting;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

pub use self::{
    kind::{FaultKind, UnknownFault},
    setting::Fault,
};
use crate::rng::Dice;

const DEFAULT_DELAY_MS: u64 = 200;
const DEFAULT_STATUS: u16 = 500;

/// What one request was dealt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Dealt {
    pub(crate) kind: FaultKind,
    pub(crate) after_tokens: u32,
    pub(crate) retry_after_s: Option<u64>,
    pub(crate) delay: Duration,
    pub(crate) status: u16,
}

impl Dealt {
    fn of(fault: &Fault) -> Self {
        Self {
            kind: fault.kind,
            after_tokens: fault.after_tokens.unwrap_or(fault.kind.default_after_tokens()),
            retry_after_s: fault.retry_after_s,
            delay: Duration::from_millis(fault.delay_ms.unwrap_or(DEFAULT_DELAY_MS)),
            status: fault.status.unwrap_or(DEFAULT_STATUS),
        }
    }
}

/// What the listener and its connections do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    Open,
    Refusing,
    Blackholed,
}

#[derive(Debug)]
pub(crate) struct FaultSet(Mutex<Active>);

#[derive(Debug)]
struct Active {
    faults: Vec<(u64, Fault)>,
    next_id: u64,
    dice: Dice,
}

impl FaultSet {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new(Active { faults: Vec::new(), next_id: 0, dice: Dice::new(seed, 2) }))
    }

    /// Returns the id by which this very setting can be ended.
    pub(crate) fn set(&self, fault: Fault) -> u64 {
        let mut active = self.lock();
        let id = active.next_id;
        active.next_id += 1;
        active.faults.retain(|(_, f)| f.kind != fault.kind);
        active.faults.push((id, fault));
        id
    }

    pub(crate) fn end(&self, id: u64) {
        self.lock().faults.retain(|(i, _)| *i != id);
    }

    pub(crate) fn clear(&self) {
        self.lock().faults.clear();
    }

    pub(crate) fn list(&self) -> Vec<Fault> {
        self.lock().faults.iter().map(|(_, f)| f.clone()).collect()
    }

    /// Draws for one request; `first` says whether it is the first on its connection.
    pub(crate) fn deal(&self, first: bool) -> Option<Dealt> {
        let mut active = self.lock();
        let Active { faults, dice, .. } = &mut *active;
        let may_strike = |f: &Fault| f.kind.per_request() && !(first && f.kind == FaultKind::CloseReused);
        let at = faults.iter().position(|(_, f)| may_strike(f) && dice.hit(f.probability.unwrap_or(1.0)))?;
        let fault = &mut faults[at].1;
        let dealt = Dealt::of(fault);
        fault.times = fault.times.map(|times| times.saturating_sub(1));
        if fault.times == Some(0) {
            faults.remove(at);
        }
        Some(dealt)
    }

    pub(crate) fn network(&self) -> Network {
        let active = self.lock();
        let has = |kind| active.faults.iter().any(|(_, f)| f.kind == kind);
        if has(FaultKind::Refuse) || has(FaultKind::Kill) {
            Network::Refusing
        } else if has(FaultKind::Blackhole) {
            Network::Blackholed
        } else {
            Network::Open
        }
    }

    /// What becomes of a new connection in place of being spoken on.
    pub(crate) fn greeting(&self) -> Option<FaultKind> {
        let kinds = [FaultKind::Mute, FaultKind::HelloCut];
        kinds.into_iter().find(|kind| self.lock().faults.iter().any(|(_, f)| f.kind == *kind))
    }

    /// Factor and probability, for the engine.
    pub(crate) fn slow(&self) -> Option<(f64, f64)> {
        let active = self.lock();
        let (_, fault) = active.faults.iter().find(|(_, f)| f.kind == FaultKind::Slow)?;
        Some((fault.factor.unwrap_or(10.0), fault.probability.unwrap_or(1.0)))
    }

    fn lock(&self) -> MutexGuard<'_, Active> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a fault that was set now heals by itself. A time too long to represent is for ever.
pub(crate) fn heals_at(fault: &Fault) -> Option<Instant> {
    fault.lasting.and_then(|time| Instant::now().checked_add(time))
}
