//! The live gateway under paused time: its listener's loop, dispatch, relay, probes and scrapes, all as they are in
//! production, between in-memory pipes. An hour of traffic takes half a minute.
//!
//! The two sides part where an answer ends in the millisecond in which a request comes, and after an outage, because probes are
//! jittered: from then on other requests meet the full tier. So no bar is on single requests, and that on cost is on the
//! whole hour: eight minutes of it are off by up to 3 % either way, as the order of two tasks has it.

use std::{
    collections::HashMap,
    io::{self, Write},
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use outrigger_gateway::{
    Setup,
    admin::Access,
    events::Outputs,
    litellm::Dialect,
    live::{Loaded, Secrets},
};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    Asked, Figures, Folder, azure,
    client::{self, Seen},
    door::Door,
    predicted,
    stub::{Pace, Stub, Wires},
    table,
};

const MODEL: &str = "llama";

/// Two clouds of constant rate that can queue a little, and a hosted API for what they cannot take.
const FLEET: &str = "\
version: 1
gateway:
  limits: { connections: 4096 }
clouds:
  one: {}
  two: {}
  api: {}
backends:
  a:
    cloud: one
    engine: vllm
    url: http://a/v1
    model: llama
    max_in_flight: 27
    engine_model: { constant_rate: { slots: 24, tokens_per_second: 25 } }
  b:
    cloud: two
    engine: vllm
    url: http://b/v1
    model: llama
    max_in_flight: 18
    engine_model: { constant_rate: { slots: 16, tokens_per_second: 25 } }
  hosted:
    cloud: api
    engine: openai
    url: http://hosted/v1
    model: llama
    usd_per_million_tokens: { input: 0.23, output: 0.40 }
models:
  llama:
    timeouts: { headers: 60s, first_token: 60s, idle: 60s, total: 10m }
    tiers:
      - split: { a: 60, b: 40 }
      - split: { hosted: 1 }
";

/// When `b` is gone, in seconds: about one request in a hundred comes in that time or is there when it begins.
const OUTAGE: (f64, f64) = (380.0, 5.0);
const EVENTS: &str = r#"{"event":"outage","backend":"b","at_s":380,"for_s":5}"#;

/// The published hour, in parts of so many requests, each from an idle fleet.
const PARTS: usize = 8;
const PART: usize = 2_400;

#[test]
fn the_simulator_predicts_the_live_gateway() {
    let parts: Vec<(Figures, Figures)> = thread::scope(|scope| {
        let halves: Vec<_> =
            (0..2).map(|half| scope.spawn(move || (half..PARTS).step_by(2).map(part).collect::<Vec<_>>())).collect();
        halves.into_iter().flat_map(|half| half.join().unwrap()).collect()
    });
    for (expected, got) in &parts {
        print!("{}", table("2,400 requests in paused time", expected, got));
        assert_eq!(got.requests, expected.requests);
        assert!(expected.shares_apart(got) <= 1.0, "shares: {expected:?} {got:?}");
        assert!((expected.ttft.p95 / got.ttft.p95 - 1.0).abs() <= 0.1, "ttft: {expected:?} {got:?}");
    }
    let sum = |of: fn(&Figures) -> f64| {
        (parts.iter().map(|p| of(&p.0)).sum::<f64>(), parts.iter().map(|p| of(&p.1)).sum::<f64>())
    };
    let (expected, got) = sum(|figures| figures.tokens_usd);
    println!("bar: tokens of the hour, USD {expected:.4} {got:.4}");
    assert!((expected / got - 1.0).abs() <= 0.01, "cost of the hour: {expected} {got}");
    let (expected, got) = sum(Figures::failed_percent);
    assert!((expected - got).abs() / PARTS as f64 <= 0.1, "failed: {expected} {got}");
}

/// What was predicted and what the gateway did.
fn part(nth: usize) -> (Figures, Figures) {
    let folder = Folder::new(&format!("paused-{nth}"));
    let fleet = folder.write("fleet.yaml", FLEET);
    let trace = azure(nth * PART, PART, 1.0);
    let expected = predicted(&folder, &fleet, &trace, EVENTS);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    (expected, runtime.block_on(live(&fleet, &trace)))
}

async fn live(fleet: &str, trace: &[Asked]) -> Figures {
    let began = Instant::now();
    let token = Duration::from_millis(40);
    let constant = |slots| Pace { slots, first_token: token, each_other: token };
    // What `outrigger simulate` assumes of a hosted API that nobody has measured.
    let hosted = Pace { slots: 4_096, first_token: Duration::from_millis(450), each_other: Duration::from_millis(12) };
    let stubs = [("a", constant(24)), ("b", constant(16)), ("hosted", hosted)]
        .map(|(n, pace)| (n, Stub::new(MODEL, pace, began)));
    let stubs = HashMap::from(stubs);
    let (door, log) = (Arc::new(Door::new()), Log::default());
    let loaded = outrigger::config::load(fleet.as_ref()).unwrap();
    let setup = Setup {
        loaded: Loaded { fleet: Arc::new(loaded.fleet), secrets: Secrets::default() },
        data: door.clone(),
        tls: None,
        admin: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(),
        connector: Arc::new(Wires(stubs.clone())),
        outputs: Outputs { requests: Some(Box::new(log.clone())), decisions: None },
        access: Access { token: None },
        reload: Arc::new(|| Err("there is no other fleet".to_owned())),
        watched: None,
        dialect: Dialect::default(),
        seed: 1,
    };
    let running = outrigger_gateway::start(setup).unwrap();
    let outage = tokio::spawn(outage(stubs["b"].clone(), began));
    let seen = play(&door, trace, began).await;
    outage.await.unwrap();
    assert!(running.stop(Duration::ZERO).await, "nothing is left in flight");
    let waits = stubs.values().flat_map(|stub| stub.waits()).collect();
    Figures::measured(&seen, Some(waits), &log.lines())
}

async fn outage(stub: Arc<Stub>, began: Instant) {
    sleep_until(began + Duration::from_secs_f64(OUTAGE.0)).await;
    stub.kill();
    sleep_until(began + Duration::from_secs_f64(OUTAGE.0 + OUTAGE.1)).await;
    stub.revive();
}

/// Every request at its time, whatever became of those before.
async fn play(door: &Door, trace: &[Asked], began: Instant) -> Vec<Seen> {
    let mut requests = JoinSet::new();
    for asked in trace.iter().copied() {
        sleep_until(began + asked.at).await;
        let stream = door.open();
        requests.spawn(async move { client::ask(stream, client::chat(MODEL, asked), Instant::now()).await });
    }
    requests.join_all().await
}

/// The request log, kept.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
