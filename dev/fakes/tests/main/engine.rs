//! The engine alone, under a paused clock: what batching, queueing, KV and hang-ups do to time.

use std::time::Duration;

use outrigger_fakes::{
    Fixed, Profile,
    engine::{Engine, Event, Job, Refused, Ticket},
};
use tokio::time::Instant;

/// 10 ms a step plus 1 ms for each running sequence, 1000 prompt tokens a second.
fn profile() -> Profile {
    Profile {
        prefill_tokens_per_second: 1000.0,
        decode_base_ms: 10.0,
        decode_per_running_ms: 1.0,
        max_running: 4,
        ..Profile::instant()
    }
}

fn job(prompt_tokens: u64, max_tokens: u32) -> Job {
    Job { prompt_tokens, max_tokens: Some(max_tokens) }
}

/// When each token came, and last the end.
async fn times(mut ticket: Ticket, start: Instant) -> Vec<Duration> {
    let mut times = Vec::new();
    while let Some(event) = ticket.next().await {
        times.push(start.elapsed());
        match event {
            Event::Token(n) => assert_eq!(n as usize + 1, times.len(), "tokens come in order"),
            Event::Finished { .. } => return times,
        }
    }
    panic!("the engine stopped");
}

/// As `times`, for many at once.
async fn all_times(tickets: Vec<Ticket>, start: Instant) -> Vec<Vec<Duration>> {
    let readers: Vec<_> = tickets.into_iter().map(|t| tokio::spawn(times(t, start))).collect();
    let mut all = Vec::new();
    for reader in readers {
        all.push(reader.await.unwrap());
    }
    all
}

fn near(time: Duration, ms: u64) {
    let off = time.abs_diff(Duration::from_millis(ms));
    assert!(off <= Duration::from_millis(2), "{time:?}, expected {ms} ms");
}

#[tokio::test(start_paused = true)]
async fn a_lone_sequence_prefills_and_then_takes_one_step_a_token() {
    let engine = Engine::start(profile(), 0);
    let start = Instant::now();
    let times = times(engine.submit(job(33, 3)).unwrap(), start).await;
    near(times[0], 33); // 33 tokens at 11 a step
    near(times[1], 44);
    near(times[2], 55);
}

#[tokio::test(start_paused = true)]
async fn batching_slows_every_token_as_configured() {
    let engine = Engine::start(profile(), 0);
    let start = Instant::now();
    let tickets: Vec<Ticket> = (0..4).map(|_| engine.submit(job(0, 10)).unwrap()).collect();
    assert_eq!(engine.load().running, 4);
    for times in all_times(tickets, start).await {
        near(times[9], 140); // 10 steps of 10 + 4 · 1 ms
    }
}

#[tokio::test(start_paused = true)]
async fn a_chunk_of_a_prompt_makes_the_step_longer_for_everybody() {
    let engine = Engine::start(Profile { chunk_tokens: Some(20), ..profile() }, 0);
    let start = Instant::now();
    let decoding = engine.submit(job(0, 3)).unwrap();
    let reading = [engine.submit(job(30, 1)).unwrap(), engine.submit(job(5, 1)).unwrap()];
    let all = all_times([decoding].into_iter().chain(reading).collect(), start).await;
    near(all[0][0], 31); // 10 + 1 for the one that decodes, 20 for as many prompt tokens
    near(all[0][1], 57); // the other 10 of the first prompt, and the second prompt
    near(all[0][2], 68);
    near(all[1][0], 57);
    near(all[2][0], 57);
}

#[tokio::test(start_paused = true)]
async fn a_table_of_step_times_is_followed_between_and_beyond_its_points() {
    let table = vec![(1, 10.0), (3, 30.0), (5, 34.0)];
    let profile = Profile { decode_table_ms: table, max_running: 8, ..profile() };
    for (running, step_ms) in [(1, 10), (2, 20), (3, 30), (4, 32), (7, 38)] {
        let engine = Engine::start(profile.clone(), 0);
        let start = Instant::now();
        let tickets: Vec<Ticket> = (0..running).map(|_| engine.submit(job(0, 1)).unwrap()).collect();
        for times in all_times(tickets, start).await {
            near(times[0], step_ms);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_costs_what_the_kv_that_it_reads_costs() {
    let profile = Profile { decode_per_kv_ktoken_ms: 1.0, prefill_tokens_per_second: 0.0, ..profile() };
    let engine = Engine::start(profile, 0);
    let start = Instant::now();
    let tickets = vec![engine.submit(job(10_000, 3)).unwrap()];
    let times = all_times(tickets, start).await.remove(0);
    near(times[2].abs_diff(times[1]), 21);
    near(times[1].abs_diff(times[0]), 21);
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_first_in_first_out() {
    let engine = Engine::start(Profile { max_running: 1, ..profile() }, 0);
    let start = Instant::now();
    let tickets: Vec<Ticket> = (0..3).map(|_| engine.submit(job(0, 10)).unwrap()).collect();
    assert_eq!((engine.load().running, engine.load().waiting), (1, 2));
    for (times, ends) in all_times(tickets, start).await.into_iter().zip([110, 220, 330]) {
        near(times[9], ends);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sequence_waits_until_its_kv_fits_and_is_not_overtaken() {
    let engine = Engine::start(Profile { kv_tokens: 100, ..profile() }, 0);
    let first = engine.submit(job(50, 10)).unwrap();
    let large = engine.submit(job(50, 10)).unwrap();
    let small = engine.submit(job(1, 1)).unwrap();
    assert_eq!((engine.load().running, engine.load().waiting, engine.load().kv_tokens), (1, 2, 60));
    assert_eq!(engine.submit(job(100, 1)).unwrap_err(), Refused::TooLong);
    times(first, Instant::now()).await;
    assert_eq!((engine.load().running, engine.load().waiting), (2, 0));
    drop((large, small));
    assert_eq!(engine.load().kv_tokens, 0);
}

#[tokio::test(start_paused = true)]
async fn a_hang_up_frees_its_slot_at_once_for_the_next() {
    let engine = Engine::start(Profile { max_running: 1, ..profile() }, 0);
    let first = engine.submit(job(10, 1000)).unwrap();
    let second = engine.submit(job(20, 10)).unwrap();
    tokio::time::sleep(Duration::from_millis(55)).await;
    drop(first);
    let load = engine.load();
    assert_eq!((load.running, load.waiting, load.kv_tokens, load.aborted), (1, 0, 30, 1));
    times(second, Instant::now()).await;
    assert_eq!((engine.load().running, engine.load().kv_tokens, engine.load().aborted), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses() {
    let engine = Engine::start(Profile { max_running: 1, max_queue: Some(1), ..profile() }, 0);
    let _running = engine.submit(job(0, 1)).unwrap();
    let _waiting = engine.submit(job(0, 1)).unwrap();
    assert_eq!(engine.submit(job(0, 1)).unwrap_err(), Refused::QueueFull);
}

#[tokio::test(start_paused = true)]
async fn slow_multiplies_steps_from_now_on() {
    let engine = Engine::start(profile(), 0);
    let start = Instant::now();
    engine.set_slow(Some((10.0, 1.0)));
    let times = times(engine.submit(job(0, 2)).unwrap(), start).await;
    near(times[1], 220);
}

#[tokio::test(start_paused = true)]
async fn fixed_service_takes_its_time_in_slots() {
    let fixed = Fixed { ttft_ms: 500.0, tokens: 10, total_ms: 2000.0 };
    let engine = Engine::start(Profile { fixed: Some(fixed), max_running: 2, ..profile() }, 0);
    let start = Instant::now();
    let job = Job { prompt_tokens: 7, max_tokens: None };
    let tickets: Vec<Ticket> = (0..3).map(|_| engine.submit(job).unwrap()).collect();
    let expected = [(500, 2000), (500, 2000), (2500, 4000)];
    for (times, (first, end)) in all_times(tickets, start).await.into_iter().zip(expected) {
        assert_eq!(times.len(), 11);
        near(times[0], first);
        near(times[10], end);
    }
}

#[tokio::test(start_paused = true)]
async fn the_built_in_profile_keeps_to_the_measured_times() {
    for (running, tpot_ms) in [(4, 11.8), (16, 13.2), (64, 19.5)] {
        let engine = Engine::start(Profile::coreweave_h100(), 7);
        let start = Instant::now();
        let tickets: Vec<Ticket> = (0..running).map(|_| engine.submit(job(1, 512)).unwrap()).collect();
        for times in all_times(tickets, start).await {
            let tpot = times[511].abs_diff(times[0]).as_secs_f64() * 1e3 / 511.0;
            assert!((tpot / tpot_ms - 1.0).abs() < 0.06, "{running} running: {tpot} ms, measured {tpot_ms}");
        }
    }
    let engine = Engine::start(Profile::coreweave_h100(), 7);
    let first = times(engine.submit(job(1024, 1)).unwrap(), Instant::now()).await[0];
    assert!((100..140).contains(&first.as_millis()), "{first:?} to the first token of a 1k prompt");
}

#[tokio::test(start_paused = true)]
async fn overhead_or_prefill_alone_take_their_time_and_no_more() {
    let overhead = Profile { overhead_ms: 300.0, ..Profile::instant() };
    let prefill = Profile { prefill_tokens_per_second: 1000.0, ..Profile::instant() };
    for (profile, ms) in [(overhead, 300), (prefill, 77)] {
        let engine = Engine::start(profile, 0);
        let start = Instant::now();
        let times = times(engine.submit(job(77, 5)).unwrap(), start).await;
        near(times[0], ms);
        near(times[5], ms);
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_times() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let engine = Engine::start(Profile::lambda_h100(), 42);
        let start = Instant::now();
        runs.push(times(engine.submit(job(500, 50)).unwrap(), start).await);
    }
    assert_eq!(runs[0], runs[1]);
}
