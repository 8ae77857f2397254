//! Invariant 4: client errors never count; 429 and 503 block for the time asked, or after three in a row; then one trial.

use std::time::Duration;

use outrigger_core::{
    Rng,
    facts::History,
    record::{End, Fault, Usage},
    route::{Decision, Reason},
    state::{
        Event, State,
        cooldown::{Cooldown, Gate},
        health::Health,
    },
    units::Nanos,
};
use rand_core::SeedableRng as _;

use crate::{
    fleets::{fleet, request},
    harness::{Engine, QUICK, Sim},
};

#[test]
fn client_errors_never_count_against_a_backend() {
    for status in [400, 401, 404, 413, 422, 499] {
        let mut sim = Sim::new(fleet(&[&[1, 1]]), 1);
        sim.engine(Nanos::ZERO, "b0", Engine::Answers(status));
        sim.traffic(request(Nanos::ZERO), 40, Nanos::ZERO, Nanos::from_secs(40), &mut Rng::seed_from_u64(1));
        sim.run(Nanos::from_secs(60));
        let state = sim.replicas[0].state.backend(sim.id("b0"));
        assert_eq!(state.live.health, Health::Up, "{status}");
        assert!(!state.live.is_ejected(sim.now));
        assert_eq!(sim.attempts_on("b0").count(), 800, "{status}: half of the traffic goes on");
        assert!(sim.log.iter().all(|l| l.number == 0), "{status}: and is passed on as it is");
    }
}

#[test]
fn a_named_time_blocks_for_that_long_and_no_longer_than_five_minutes() {
    for (asked, blocked) in [(7, 7), (60, 60), (3_600, 300)] {
        let mut sim = Sim::new(fleet(&[&[1, 1]]), 1);
        let retry_after = Some(Duration::from_secs(asked));
        sim.engine(Nanos::ZERO, "b0", Engine::Limits { status: 429, retry_after });
        sim.engine(Nanos::from_secs(1), "b0", QUICK);
        let first = Nanos::from_millis(900);
        sim.traffic(request(Nanos::ZERO), 5, first, Nanos::from_secs(400), &mut Rng::seed_from_u64(1));
        sim.run(Nanos::from_secs(420));
        let at: Vec<Nanos> = sim.attempts_on("b0").map(|l| l.at).collect();
        let refused = sim.attempts_on("b0").find_map(|l| l.end).expect("an end").0;
        assert!(at[1] >= refused + Duration::from_secs(blocked), "{asked} s");
        assert!(at[1] < refused + Duration::from_millis(blocked * 1_000 + 500), "{asked} s");
    }
}

#[test]
fn the_third_refusal_in_a_row_blocks_for_a_second_that_doubles_to_thirty() {
    let mut rng = Rng::seed_from_u64(5);
    let mut cooldown = Cooldown::default();
    let mut now = Nanos::from_secs(10);
    for _ in 0..2 {
        cooldown.refused(503, None, false, now, &mut rng);
        assert_eq!(cooldown.gate(now), Gate::Open);
    }
    cooldown.refused(503, None, false, now, &mut rng);
    for expected in [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
        let Gate::Blocked { until } = cooldown.gate(now) else { panic!("open at {now:?}") };
        let time = until.since(now).as_secs_f64();
        assert!((expected * 0.8..=expected * 1.2).contains(&time), "{time} for {expected}");
        now = until;
        assert_eq!(cooldown.gate(now), Gate::Trial);
        cooldown.trial_started();
        assert_eq!(cooldown.gate(now), Gate::TrialRunning);
        cooldown.refused(503, None, true, now, &mut rng);
    }
}

#[test]
fn a_success_between_refusals_ends_the_row() {
    let mut rng = Rng::seed_from_u64(5);
    let mut cooldown = Cooldown::default();
    for i in 0..50 {
        let now = Nanos::from_millis(10 * i);
        cooldown.refused(429, None, false, now, &mut rng);
        if i % 2 == 1 {
            cooldown.answered(false, now);
        }
        assert_eq!(cooldown.gate(now), Gate::Open);
    }
}

#[test]
fn after_a_block_exactly_one_trial_decides() {
    let mut sim = Sim::new(fleet(&[&[1, 1]]), 1);
    let refuses = Engine::Limits { status: 429, retry_after: Some(Duration::from_secs(5)) };
    sim.engine(Nanos::ZERO, "b0", refuses);
    // The trial takes three seconds to its first content.
    sim.engine(Nanos::from_secs(2), "b0", Engine::Serves { first: 3_000, last: 3_100 });
    sim.traffic(request(Nanos::ZERO), 50, Nanos::from_secs(1), Nanos::from_secs(20), &mut Rng::seed_from_u64(1));
    sim.run(Nanos::from_secs(40));
    let trials: Vec<Nanos> = sim.log.iter().filter(|l| l.reason == Reason::Trial).map(|l| l.at).collect();
    assert_eq!(trials.len(), 1);
    let during = |l: &&crate::harness::Line| l.at > trials[0] && l.at < trials[0] + Duration::from_millis(2_900);
    assert_eq!(sim.attempts_on("b0").filter(during).count(), 0, "nobody else while the trial runs");
    let after = |l: &&crate::harness::Line| l.at > trials[0] + Duration::from_millis(3_100);
    assert!(sim.attempts_on("b0").filter(after).count() > 100, "open again");
}

#[test]
fn refusals_of_requests_on_their_way_change_neither_the_block_nor_the_trial() {
    let mut rng = Rng::seed_from_u64(5);
    let mut cooldown = Cooldown::default();
    for _ in 0..40 {
        cooldown.refused(503, None, false, Nanos::from_secs(1), &mut rng);
    }
    let Gate::Blocked { until } = cooldown.gate(Nanos::from_secs(1)) else { panic!("open") };
    assert!(until.since(Nanos::from_secs(1)) <= Duration::from_millis(1_200));
    cooldown.trial_started();
    cooldown.refused(503, None, false, until, &mut rng);
    assert_eq!(cooldown.gate(until), Gate::TrialRunning);
}

#[test]
fn a_trial_that_says_nothing_makes_room_for_another() {
    let mut rng = Rng::seed_from_u64(1);
    let mut state = State::new(fleet(&[&[1]]).into(), Nanos::ZERO, &mut rng);
    let facts = request(Nanos::ZERO);
    let mut now = Nanos::from_secs(1);
    let attempt = |state: &mut State, now| match state.decide(
        &facts,
        &History::default(),
        now,
        &mut Rng::seed_from_u64(1),
        &mut (),
    ) {
        Decision::Attempt(attempt) => attempt,
        other => panic!("{other:?}"),
    };
    let retry_after = Some(Duration::from_secs(1));
    let mut end = End::Failed(Fault::Overloaded { status: 429, retry_after });
    for (next, reason) in [(End::ClientGone, Reason::OnlyOne), (End::Failed(Fault::Local), Reason::Trial)] {
        let tried = attempt(&mut state, now);
        assert_eq!(tried.reason, reason);
        state.observe(Event::Ended { attempt: tried.id, end, usage: Usage::default() }, now, &mut rng);
        now = now + Duration::from_secs(2);
        end = next;
    }
    assert_eq!(attempt(&mut state, now).reason, Reason::Trial);
}
