//! Deciding allocates nothing once it has warmed up: a simulation of millions of requests depends on it.
#![expect(unsafe_code, reason = "a global allocator that counts cannot be written without it")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    time::Duration,
};

use outrigger_core::{
    Rng,
    facts::{Facts, History},
    fleet::{CloudId, GpuCount, Pool, PoolId, PoolPrice, SpendLimit},
    record::{End, Usage},
    route::{Candidate, Decision, Recorder},
    state::{Event, State},
    units::{NanoUsd, Nanos},
};
use rand_core::SeedableRng as _;

#[path = "../invariants/fleets.rs"]
#[expect(dead_code, reason = "shared with the other tests")]
mod fleets;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; the counter neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn cycle(state: &mut State, facts: &Facts, now: Nanos, rng: &mut Rng, recorder: &mut impl Recorder) {
    let history = History::default();
    let decided = state.decide(facts, &history, now, rng, recorder);
    state.note_decision(facts, &history, &decided, now);
    let Decision::Attempt(attempt) = decided else { panic!("{decided:?}") };
    state.observe(Event::Committed { attempt: attempt.id }, now, rng);
    let ended = Event::Ended { attempt: attempt.id, end: End::Ok, usage: Usage::default() };
    state.observe(ended, now, rng);
}

fn burst() -> Pool {
    let price = PoolPrice::OnDemand {
        usd_per_gpu_hour: NanoUsd(4_000_000_000),
        billing_block: Duration::from_secs(1),
        cold_start: Duration::ZERO,
    };
    let gpus = GpuCount { min: 0, max: 3, step: 1 };
    Pool { name: "burst".to_owned(), cloud: CloudId(0), gpu: "h100".to_owned(), gpus, price, scale: None }
}

/// Allocations of 10,000 cycles after as many that warmed up, at most two thirds of a minute later.
fn allocations_of<R: Recorder>(mut recorder: R, clear: fn(&mut R)) -> u64 {
    let fleet = fleets::fleet(&[&[50, 30, 20], &[1, 1, 1], &[2, 1, 1]]);
    let mut fleet = fleets::with_hosted(fleet, SpendLimit::default());
    // The second tier stands in a pool that follows the load.
    fleet.pools.push(burst());
    fleet.backends[3..6].iter_mut().for_each(|backend| backend.pool = Some(PoolId(0)));
    let mut rng = Rng::seed_from_u64(1);
    let mut state = State::new(fleet.into(), Nanos::ZERO, &mut rng);
    let mut counted = 0;
    for i in 0..20_000_u64 {
        let now = Nanos::ZERO + Duration::from_millis(2 * i);
        let facts = Facts { stream: i.is_multiple_of(2), affinity: Some(i), ..fleets::request(now) };
        let before = ALLOCATIONS.with(Cell::get);
        clear(&mut recorder);
        cycle(&mut state, &facts, now, &mut rng, &mut recorder);
        if i >= 10_000 {
            counted += ALLOCATIONS.with(Cell::get) - before;
        }
    }
    counted
}

#[test]
fn deciding_and_observing_without_reasons_allocates_nothing() {
    assert_eq!(allocations_of((), |()| ()), 0);
}

#[test]
fn a_reused_list_of_reasons_allocates_nothing_either() {
    assert_eq!(allocations_of(Vec::<Candidate>::new(), Vec::clear), 0);
}
