//! What one decision costs: `cargo run --release -p outrigger-core --example decide_cost`.
//!
//! Ten backends with everything on: three tiers, a hosted one under a spend limit, a key's rules, an affinity, and
//! backends that are up, in slow start, cooling down and down. One cycle is `decide`, content, end. Five runs of two
//! million cycles each; the median is printed, by the wall and by the thread's own time on the processor (which a
//! neighbour on the same core does not disturb).
#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "a measurement needs a clock")]
#![expect(clippy::disallowed_macros, reason = "it prints what it measured")]

use std::time::{Duration, Instant};

use outrigger_core::{
    Rng,
    facts::{Facts, History},
    fleet::{BackendId, CloudId, Fleet, KeyId, SpendLimit},
    record::{End, Fault, TokensSource, Usage},
    route::{Candidate, Decision, Recorder},
    state::{Event, State},
    units::{NanoUsd, Nanos, Tokens},
};
use rand_core::SeedableRng as _;

#[path = "../tests/invariants/fleets.rs"]
mod fleets;

const CYCLES: u32 = 2_000_000;
const RUNS: usize = 5;
/// Virtual time between two requests.
const GAP: Duration = Duration::from_micros(5);

fn main() {
    report("without reasons", measure(|| (), |()| ()));
    report("with reasons", measure(Vec::<Candidate>::new, Vec::clear));
}

fn fleet() -> Fleet {
    let limit = SpendLimit { per_hour: NanoUsd::from_usd(1e6), per_day: NanoUsd::from_usd(1e7) };
    let whole = fleets::with_hosted(fleets::fleet(&[&[40, 30, 15, 10, 5], &[3, 1], &[1, 1]]), limit);
    let mut fleet = fleets::replicas(whole, 1);
    let mut key = fleets::key("prod");
    key.allowed_clouds = Some(vec![CloudId(0), CloudId(1), CloudId(2)]);
    fleet.keys.push(key);
    for backend in &mut fleet.backends {
        backend.max_in_flight = Some(256);
    }
    fleet
}

/// `b0` is down, `b1` is cooling down for five minutes, `b2` is in slow start, the others are up.
fn state(rng: &mut Rng) -> (State, Facts) {
    let fleet = fleet();
    assert_eq!(fleet.backends.len(), 10);
    let facts = fleets::request(Nanos::ZERO).with_key(KeyId(0), &fleet.keys[0]);
    let facts = Facts { affinity: Some(7), ..facts };
    let mut state = State::new(fleet.into(), Nanos::ZERO, rng);
    while let Some(backend) = state.take_probe(Nanos::ZERO) {
        let result = if backend.0 == 0 || backend.0 == 2 { Err(Fault::Refused) } else { Ok(()) };
        state.observe(Event::Probed { backend, result }, Nanos::ZERO, rng);
    }
    state.observe(Event::Probed { backend: BackendId(2), result: Ok(()) }, Nanos::ZERO, rng);
    let retry_after = Some(Duration::from_mins(5));
    let refused = End::Failed(Fault::Overloaded { status: 429, retry_after });
    let mut is_blocked = false;
    while !is_blocked {
        let decided = state.decide(&facts, &History::default(), Nanos::ZERO, rng, &mut ());
        let Decision::Attempt(attempt) = decided else { panic!("{decided:?}") };
        is_blocked = attempt.backend == BackendId(1);
        let end = if is_blocked { refused } else { End::Ok };
        let ended = Event::Ended { attempt: attempt.id, end, usage: Usage::default() };
        state.observe(ended, Nanos::ZERO, rng);
    }
    (state, facts)
}

/// Nanoseconds per cycle by the wall and by the processor, each the median of all runs.
fn measure<R: Recorder>(recorder: impl Fn() -> R, clear: fn(&mut R)) -> (f64, f64) {
    let mut runs: Vec<(f64, f64)> = (0..RUNS).map(|_| run(&mut recorder(), clear)).collect();
    let mut median = |of: fn(&(f64, f64)) -> f64| {
        runs.sort_by(|a, b| of(a).total_cmp(&of(b)));
        of(&runs[RUNS / 2])
    };
    (median(|r| r.0), median(|r| r.1))
}

fn run<R: Recorder>(recorder: &mut R, clear: fn(&mut R)) -> (f64, f64) {
    let mut rng = Rng::seed_from_u64(1);
    let (mut state, facts) = state(&mut rng);
    let usage = Usage { prompt: Tokens(200), output: Tokens(100), cached: Tokens(0), source: TokensSource::Engine };
    let mut now = Nanos::from_millis(1);
    let mut served = 0_u64;
    let (began, on_cpu) = (Instant::now(), thread_time());
    for _ in 0..CYCLES {
        clear(recorder);
        let facts = Facts { arrived: now, ..facts };
        let decided = state.decide(&facts, &History::default(), now, &mut rng, recorder);
        let Decision::Attempt(attempt) = decided else { panic!("{decided:?}") };
        state.observe(Event::Committed { attempt: attempt.id }, now, &mut rng);
        state.observe(Event::Ended { attempt: attempt.id, end: End::Ok, usage }, now, &mut rng);
        served += u64::from(attempt.backend.0);
        now = now + GAP;
    }
    let wall = began.elapsed().as_nanos() as f64;
    let cpu = thread_time().saturating_sub(on_cpu).as_nanos() as f64;
    std::hint::black_box(served);
    (wall / f64::from(CYCLES), cpu / f64::from(CYCLES))
}

/// What this thread has had of a processor, to a hundredth of a second or better.
fn thread_time() -> Duration {
    let line = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = line.split_whitespace().next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

fn report(what: &str, (wall, cpu): (f64, f64)) {
    println!("{what}: {wall:.0} ns by the wall, {cpu:.0} ns on the processor, mean per decide + content + end");
}
