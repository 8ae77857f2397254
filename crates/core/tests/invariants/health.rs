//! Invariant 6: what panic may override; and how a backend comes back.

use std::time::Duration;

use outrigger_core::{
    Rng,
    facts::History,
    fleet::BackendId,
    record::{End, Fault, Usage},
    route::{Decision, Reason, RejectReason},
    state::{Event, State, health::SLOW_START},
    units::Nanos,
};
use proptest::prelude::*;
use rand_core::SeedableRng as _;

use crate::{
    fleets::{fleet, request},
    harness::{Engine, Line, QUICK, Sim},
};

struct Bench {
    state: State,
    rng: Rng,
}

impl Bench {
    fn new(tiers: &[&[u32]]) -> Self {
        let mut rng = Rng::seed_from_u64(1);
        let mut state = State::new(fleet(tiers).into(), Nanos::ZERO, &mut rng);
        while let Some(backend) = state.take_probe(Nanos::ZERO) {
            state.observe(Event::Probed { backend, result: Ok(()) }, Nanos::ZERO, &mut rng);
        }
        Self { state, rng }
    }

    fn decide(&mut self, now: Nanos) -> Decision {
        self.state.decide(&request(now), &History::default(), now, &mut self.rng, &mut ())
    }

    /// One request that ends as `end` says; where it went.
    fn once(&mut self, end: End, now: Nanos) -> (BackendId, Reason) {
        let decision = self.decide(now);
        let Decision::Attempt(attempt) = decision else { panic!("{decision:?}") };
        if end == End::Ok {
            self.state.observe(Event::Committed { attempt: attempt.id }, now, &mut self.rng);
        }
        let ended = Event::Ended { attempt: attempt.id, end, usage: Usage::default() };
        self.state.observe(ended, now, &mut self.rng);
        (attempt.backend, attempt.reason)
    }

    /// Seventeen successes and as many failures, never five in a row.
    fn eject(&mut self, now: Nanos) {
        for _ in 0..17 {
            self.once(End::Ok, now);
            self.once(End::Failed(Fault::Status(502)), now);
        }
    }
}

#[test]
fn panic_overrides_suspicion_and_ejection() {
    let now = Nanos::from_secs(5);
    let mut bench = Bench::new(&[&[1]]);
    bench.once(End::Failed(Fault::Reset), now);
    assert!(bench.state.backend(BackendId(0)).live.is_suspect());
    assert_eq!(bench.once(End::Ok, now).1, Reason::Panic);

    let mut bench = Bench::new(&[&[1]]);
    bench.eject(now);
    assert!(bench.state.backend(BackendId(0)).live.is_ejected(now));
    assert_eq!(bench.once(End::Ok, now).1, Reason::Panic);
}

#[test]
fn panic_waits_until_no_tier_can_serve() {
    let now = Nanos::from_secs(5);
    let mut bench = Bench::new(&[&[1], &[1]]);
    bench.once(End::Failed(Fault::Reset), now);
    assert_eq!(bench.once(End::Failed(Fault::Reset), now), (BackendId(1), Reason::Fallback));
    assert_eq!(bench.once(End::Ok, now), (BackendId(0), Reason::Panic));
}

#[test]
fn panic_never_overrides_hard_evidence() {
    let now = Nanos::from_secs(5);
    let check = |fault: Fault, times: usize| {
        let mut bench = Bench::new(&[&[1]]);
        for _ in 0..times {
            bench.once(End::Failed(fault), now);
        }
        assert!(bench.state.backend(BackendId(0)).live.is_down(), "{fault:?}");
        let Decision::Reject(reject) = bench.decide(now) else { panic!("{fault:?} was overridden") };
        assert_eq!(reject.why, RejectReason::NoBackend);
    };
    for fault in [Fault::Refused, Fault::Tls, Fault::Auth, Fault::WrongModel] {
        check(fault, 1);
    }
    check(Fault::ConnectTimeout, 2);
    for fault in [Fault::FirstTokenTimeout, Fault::HeadersTimeout, Fault::Reset, Fault::Status(500), Fault::Cut] {
        check(fault, 5);
    }
}

#[test]
fn a_failed_generation_probe_is_hard_evidence() {
    let now = Nanos::from_secs(5);
    let mut bench = Bench::new(&[&[1]]);
    bench.once(End::Failed(Fault::HeadersTimeout), now);
    assert_eq!(bench.state.take_probe(now), Some(BackendId(0)));
    let result = Err(Fault::FirstTokenTimeout);
    bench.state.observe(Event::Probed { backend: BackendId(0), result }, now, &mut bench.rng);
    assert!(matches!(bench.decide(now), Decision::Reject(_)));
}

#[test]
fn a_backend_that_came_back_starts_at_a_tenth_and_has_its_full_share_after_half_a_minute() {
    let mut sim = Sim::new(fleet(&[&[1, 1]]), 1);
    sim.engine(Nanos::from_secs(10), "b0", Engine::Refuses);
    sim.engine(Nanos::from_secs(60), "b0", QUICK);
    sim.traffic(request(Nanos::ZERO), 100, Nanos::ZERO, Nanos::from_secs(140), &mut Rng::seed_from_u64(1));
    sim.run(Nanos::from_secs(150));
    let back = sim.attempts_on("b0").map(|l| l.at).find(|at| *at > Nanos::from_secs(60)).expect("it came back");
    let got = |from: Duration, to: Duration| {
        let within = |l: &&Line| l.at >= back + from && l.at < back + to;
        let all = sim.log.iter().filter(within).count();
        sim.attempts_on("b0").filter(within).count() as f64 / all as f64
    };
    let seconds = Duration::from_secs;
    // A tenth of its weight against a whole one is a share of 1/11 for three seconds.
    assert!((0.07..0.11).contains(&got(seconds(0), seconds(3))), "{}", got(seconds(0), seconds(3)));
    for second in 0..29 {
        let now = got(seconds(second), seconds(second + 1));
        let ramp = (second as f64 + 1.0) / 30.0;
        assert!(now <= ramp.max(0.1) / (1.0 + ramp.max(0.1)) + 0.03, "second {second}: {now}");
    }
    assert!((got(SLOW_START, seconds(70)) - 0.5).abs() < 0.01, "full afterwards, and nothing on top");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(20) })]

    #[test]
    fn no_catch_up_burst_after_any_absence(away in 1_u32..3_000, weights in proptest::collection::vec(1_u32..50, 2..6)) {
        let mut bench = Bench::new(&[&weights]);
        let second = |s: u64| Nanos::from_secs(s);
        for _ in 0..300 {
            bench.once(End::Ok, second(1));
        }
        bench.state.set_drained(BackendId(0), true);
        for _ in 0..away {
            bench.once(End::Ok, second(2));
        }
        bench.state.set_drained(BackendId(0), false);
        let share = f64::from(weights[0]) / f64::from(weights.iter().sum::<u32>());
        let mut got = 0.0;
        for n in 1..=200 {
            got += f64::from(u8::from(bench.once(End::Ok, second(3)).0 == BackendId(0)));
            prop_assert!(got - f64::from(n) * share < 2.0, "{got} of {n}");
        }
    }
}

#[test]
fn an_ejected_backend_returns_by_slow_start() {
    let now = Nanos::from_secs(5);
    let mut bench = Bench::new(&[&[1]]);
    bench.eject(now);
    let live = &bench.state.backend(BackendId(0)).live;
    let over = now + Duration::from_secs(10);
    assert!(live.is_ejected(now + Duration::from_millis(9_999)) && !live.is_ejected(over));
    assert!((live.ramp(over) - 0.1).abs() < 1e-9);
    assert!((live.ramp(over + SLOW_START / 2) - 0.5).abs() < 1e-9);
    assert!((live.ramp(over + SLOW_START) - 1.0).abs() < 1e-9);
}

#[test]
fn a_probe_that_was_asked_before_a_backend_failed_does_not_bring_it_back() {
    let mut bench = Bench::new(&[&[1], &[1]]);
    let at = |ms| Nanos::ZERO + Duration::from_millis(ms);
    // A request that will be refused is on its way when another one's death asks for a probe.
    let Decision::Attempt(held) = bench.decide(at(999)) else { panic!("both are up") };
    bench.once(End::Failed(Fault::Reset), at(1_000));
    let backend = bench.state.take_probe(at(1_001)).expect("a suspect is asked");
    assert_eq!(backend, held.backend);
    let refused = Event::Ended { attempt: held.id, end: End::Failed(Fault::Auth), usage: Usage::default() };
    bench.state.observe(refused, at(1_002), &mut bench.rng);
    let answered = |bench: &mut Bench, now| {
        bench.state.observe(Event::Probed { backend, result: Ok(()) }, now, &mut bench.rng);
        bench.state.backend(backend).live.is_down()
    };
    assert!(answered(&mut bench, at(1_003)), "the probe is older than the refusal");
    assert_eq!(bench.state.take_probe(at(2_003)), Some(backend), "it is asked again");
    assert!(!answered(&mut bench, at(2_004)));
}
