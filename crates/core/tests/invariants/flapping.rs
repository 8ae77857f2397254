//! A backend that comes and goes: it is held for longer each time, nobody is turned away for it, and what happens once or
//! twice costs no waiting.

use std::time::Duration;

use outrigger_core::{
    Rng,
    facts::History,
    fleet::BackendId,
    record::{End, Fault, Usage},
    route::{Decision, Reason},
    state::{Event, State},
    units::Nanos,
};
use rand_core::SeedableRng as _;

use crate::{
    fleets::{fleet, request},
    harness::{Engine, QUICK, Sim},
};

const TURN: Duration = Duration::from_secs(3);
const MINUTES: u64 = 10;

/// 1 of 2 backends fails and heals every 3 s for ten minutes: how often it was taken out of use, and the moments.
fn flap(kinds: &[Engine], per_second: u64) -> Vec<Nanos> {
    let mut sim = Sim::new(fleet(&[&[1, 1]]), 1);
    let (begin, end) = (Nanos::from_secs(5), Nanos::from_secs(5 + MINUTES * 60));
    let (mut at, mut turn) = (begin, 0);
    while at < end {
        sim.engine(at, "b0", kinds[turn % kinds.len()]);
        sim.engine(at + TURN, "b0", QUICK);
        (at, turn) = (at + TURN + TURN, turn + 1);
    }
    sim.traffic(request(Nanos::ZERO), per_second, Nanos::ZERO, end, &mut Rng::seed_from_u64(1));
    let mut outs = Vec::new();
    let mut now = Nanos::ZERO;
    while now < end + Duration::from_secs(30) {
        now = now + Duration::from_millis(100);
        sim.run(now);
        let live = &sim.replicas[0].state.backend(BackendId(0)).live;
        while (outs.len() as u64) < live.taken_out() {
            outs.push(now);
        }
    }
    sim.assert_idle();
    // The other backend is healthy all the time.
    let lost = sim.calls.iter().filter(|c| !c.committed).count();
    assert_eq!(lost, 0, "{kinds:?} at {per_second}/s: lost of {}", sim.calls.len());
    outs
}

#[test]
fn a_flapping_backend_is_taken_out_once_in_thirty_seconds_at_most_and_nothing_is_lost() {
    let all = [Engine::Refuses, Engine::Answers(500), Engine::Hangs, Engine::Unreachable];
    let singles = all.map(|kind| vec![kind]);
    for kinds in singles.iter().chain([&all.to_vec()]) {
        for per_second in [20, 200] {
            let outs = flap(kinds, per_second);
            assert!(outs.len() as u64 <= MINUTES * 2, "{kinds:?} at {per_second}/s: {outs:?}");
            // After the two that are free, never twice within 30 s.
            let gaps = || outs.windows(2).skip(2).map(|pair| pair[1].since(pair[0]));
            assert!(gaps().all(|gap| gap >= Duration::from_secs(30)), "{kinds:?} at {per_second}/s: {outs:?}");
            assert!(!outs.is_empty(), "{kinds:?} at {per_second}/s: it was never noticed");
        }
    }
}

#[derive(Clone)]
struct Bench {
    state: State,
    rng: Rng,
}

impl Bench {
    fn new(tiers: &[&[u32]]) -> Self {
        let mut rng = Rng::seed_from_u64(1);
        let state = State::new(fleet(tiers).into(), Nanos::ZERO, &mut rng);
        let mut bench = Self { state, rng };
        bench.probe(Nanos::ZERO);
        bench
    }

    /// Every probe that is due succeeds.
    fn probe(&mut self, now: Nanos) {
        while let Some(backend) = self.state.take_probe(now) {
            self.state.observe(Event::Probed { backend, result: Ok(()) }, now, &mut self.rng);
        }
    }

    fn once(&mut self, end: End, now: Nanos) -> Option<(BackendId, Reason)> {
        let decision = self.state.decide(&request(now), &History::default(), now, &mut self.rng, &mut ());
        let Decision::Attempt(attempt) = decision else { return None };
        let ended = Event::Ended { attempt: attempt.id, end, usage: Usage::default() };
        self.state.observe(ended, now, &mut self.rng);
        Some((attempt.backend, attempt.reason))
    }

    /// The only backend refuses at `at`, and answers again a second later. From when it is used, and why then.
    fn outage(&mut self, at: u64) -> (u64, Reason) {
        let now = Nanos::from_secs(at);
        assert!(self.once(End::Failed(Fault::Refused), now).is_some(), "it is in use at {at} s");
        self.probe(Nanos::from_secs(at + 1));
        let live = &self.state.backend(BackendId(0)).live;
        assert!(!live.is_down());
        let from = live.ejected_until(Nanos::from_secs(at + 1)).unwrap_or(Nanos::from_secs(at + 1));
        assert_eq!(live.is_held(Nanos::from_secs(at + 1)), from > Nanos::from_secs(at + 1));
        let (_, reason) = self.once(End::Ok, Nanos::from_secs(at + 1)).expect("it answers, and nothing else does");
        (from.since(now).as_secs(), reason)
    }
}

#[test]
fn two_outages_are_forgiven_at_once_and_more_in_a_row_cost_half_a_minute_doubling() {
    let mut bench = Bench::new(&[&[1]]);
    let mut now = 100;
    let mut check = |bench: &mut Bench, out_for: u64, reason: Reason| {
        assert_eq!(bench.outage(now), (out_for, reason), "at {now} s");
        // Again ten seconds after it was in use again.
        now += out_for + 10;
    };
    check(&mut bench, 1, Reason::Trial);
    check(&mut bench, 1, Reason::Trial);
    // While it is held it answers, so that it is used where nothing else can serve.
    for out_for in [30, 60, 120, 240, 300, 300] {
        check(&mut bench, out_for, Reason::Panic);
    }
}

#[test]
fn whoever_vouches_for_a_backend_ends_its_time_and_it_begins_anew() {
    let mut bench = Bench::new(&[&[1]]);
    for at in [100, 110, 120] {
        bench.outage(at);
    }
    let now = Nanos::from_secs(121);
    assert!(bench.state.backend(BackendId(0)).live.is_held(now));
    assert!(bench.state.forgive(BackendId(0), now) && !bench.state.forgive(BackendId(0), now));
    let live = &bench.state.backend(BackendId(0)).live;
    assert!(!live.is_ejected(now) && (live.ramp(now) - 0.1).abs() < 1e-9, "by slow start");
    assert_eq!([130, 140, 150].map(|at| bench.outage(at).0), [1, 1, 30]);
}

#[test]
fn a_backend_that_stayed_for_as_long_as_it_was_held_has_come_back_for_good() {
    let mut bench = Bench::new(&[&[1]]);
    // A minute apart each: three accidents, not one that flaps.
    for at in [100, 161, 222, 283] {
        assert_eq!(bench.outage(at).0, 1, "at {at} s");
    }
    for (at, out_for) in [(293, 1), (303, 30), (343, 60), (413, 120)] {
        assert_eq!(bench.outage(at).0, out_for, "at {at} s");
    }
    // It is used again from 533 on. After a minute it is still on probation, after two not any more.
    assert_eq!(bench.clone().outage(533 + 119).0, 240);
    assert_eq!(bench.outage(533 + 120).0, 1);
}
