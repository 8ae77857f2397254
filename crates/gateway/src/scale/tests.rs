//! What is said to whoever rents GPUs, when, and what becomes of a command that misbehaves.

use std::sync::atomic::{AtomicU32, Ordering};

use outrigger_core::{
    fleet::{
        ApiSet, Backend, BackendId, Cloud, CloudId, Engine, Gateway, GpuCount, Limits, MetricsMode, Pool, PoolId,
        PoolPrice, Reach, Replicas, TimeoutOverrides,
    },
    units::{NanoUsd, Nanos},
};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use super::*;
use crate::net::Tcp;

/// A pool of up to 16 GPUs in steps of 8, at 4 USD each; its engines take 4.
fn fleet(scale: Option<Scale>) -> Fleet {
    let usd = |usd| NanoUsd::from_usd(usd).unwrap();
    let price = PoolPrice::OnDemand {
        usd_per_gpu_hour: usd(4.0),
        billing_block: Duration::from_hours(1),
        cold_start: Duration::ZERO,
    };
    let gpus = GpuCount { min: 0, max: 16, step: 8 };
    let pool = Pool { name: "burst".into(), cloud: CloudId(0), gpu: "h100".into(), gpus, price, scale };
    let backend = Backend {
        name: "b".into(),
        cloud: CloudId(0),
        pool: Some(PoolId(0)),
        replicas: 4,
        gpus_per_replica: 4,
        engine: Engine::Vllm,
        url: "http://b/v1".into(),
        api_key: None,
        model: "m".into(),
        max_in_flight: None,
        timeouts: TimeoutOverrides::default(),
        reach: Reach::default(),
        metrics: MetricsMode::None,
        token_price: None,
        engine_model: None,
        apis: ApiSet::default(),
    };
    let cloud = Cloud { name: "c".into(), region: None, api_key: None, spend_limit: None, egress_usd_per_gb: None };
    let gateway = Gateway {
        cloud: None,
        region: None,
        egress_usd_per_gb: None,
        listen: ([127, 0, 0, 1], 0).into(),
        admin: ([127, 0, 0, 1], 0).into(),
        replicas: Replicas::Count(1),
        state_dir: None,
        limits: Limits::default(),
        tls: None,
        trusted_proxies: Vec::new(),
        drain: Duration::ZERO,
    };
    Fleet {
        digest: "digest".into(),
        gateway,
        clouds: vec![cloud],
        pools: vec![pool],
        backends: vec![backend],
        models: Vec::new(),
        keys: Vec::new(),
        routes: Vec::new(),
    }
}

fn scale(call: ScaleCall) -> Scale {
    Scale { call, timeout: Duration::from_secs(10), max_usd_per_hour: None, dry_run: false }
}

fn script(text: &str, arguments: &[&str]) -> Scale {
    let words = ["sh", "-c", text, "script"].into_iter().chain(arguments.iter().copied());
    scale(ScaleCall::Exec(words.map(str::to_owned).collect()))
}

fn desired(gpus: u32) -> Desired {
    let since = (gpus > 0).then_some(Nanos(1));
    Desired { pool: PoolId(0), gpus, replicas: gpus / 4, reason: ScaleReason::Spill, since }
}

/// A teller that has seen the pool at its least.
fn teller() -> Teller {
    Teller::new(&desired(0))
}

fn order(fleet: &Fleet, gpus: u32) -> Order {
    teller().order(fleet, &desired(gpus), Instant::now()).expect("something to say")
}

async fn outcome_of(order: &Order) -> CallOutcome {
    let (_keep, stop) = watch::channel(false);
    carry_out(order, Arc::new(Tcp), stop).await
}

/// A file of this test's own that is not there yet.
fn file(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let unique = format!("outrigger-{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    std::env::temp_dir().join(unique)
}

#[tokio::test]
async fn a_command_is_told_the_number_by_its_environment_and_nothing_is_read_by_a_shell() {
    let out = file("env");
    let text = "cat >/dev/null; env | grep ^OUTRIGGER_ | sort >\"$1\"; echo \"$2\" >>\"$1\"";
    let fleet = fleet(Some(script(text, &[&out.display().to_string(), "$(false) ; *"])));
    assert_eq!(outcome_of(&order(&fleet, 8)).await, CallOutcome::Ok);
    let said = fs::read_to_string(&out).unwrap();
    drop(fs::remove_file(&out));
    for line in
        ["OUTRIGGER_GPUS=8", "OUTRIGGER_POOL=burst", "OUTRIGGER_REASON=spill", "OUTRIGGER_REPLICAS=2", "$(false) ; *"]
    {
        assert!(said.lines().any(|l| l == line), "{said}");
    }
}

#[tokio::test]
async fn a_command_that_fails_says_why() {
    let chatty =
        "i=0; while [ $i -lt 3000 ]; do echo 'a line of no use' >&2; i=$((i+1)); done; echo 'no quota' >&2; exit 3";
    let failed = outcome_of(&order(&fleet(Some(script(chatty, &[]))), 8)).await;
    assert_eq!(failed, CallOutcome::Failed("sh ended with exit status: 3: no quota".into()));
    let absent = scale(ScaleCall::Exec(vec!["/no/such/command".into()]));
    let CallOutcome::Failed(why) = outcome_of(&order(&fleet(Some(absent)), 8)).await else { panic!("it ran") };
    assert!(why.starts_with("cannot run /no/such/command: "), "{why}");
}

/// Gone, or dead and not yet collected by whoever inherited it.
fn is_over(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap_or_default();
    status.is_empty() || status.lines().any(|line| line.starts_with("State:\tZ"))
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if holds() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn a_command_that_hangs_is_ended_with_all_that_it_started() {
    let pid = file("pid");
    let text = "sleep 600 & echo $! >\"$1\"; wait";
    // Enough for a shell to begin and to say who its child is.
    let hangs = Scale { timeout: Duration::from_secs(3), ..script(text, &[&pid.display().to_string()]) };
    let began = Instant::now();
    assert_eq!(outcome_of(&order(&fleet(Some(hangs)), 8)).await, CallOutcome::Timeout);
    assert!(began.elapsed() < Duration::from_mins(1));
    let grandchild = fs::read_to_string(&pid).unwrap();
    drop(fs::remove_file(&pid));
    eventually("its child is gone", || is_over(&grandchild)).await;
}

#[tokio::test]
async fn a_gateway_that_stops_leaves_no_command_behind() {
    let pid = file("pid");
    let fleet = fleet(Some(script("echo $$ >\"$1\"; sleep 600", &[&pid.display().to_string()])));
    let (flag, stop) = watch::channel(false);
    let order = order(&fleet, 8);
    let call = tokio::spawn(async move { carry_out(&order, Arc::new(Tcp), stop).await });
    eventually("it runs", || fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n'))).await;
    flag.send_replace(true);
    call.await.unwrap();
    let child = fs::read_to_string(&pid).unwrap();
    drop(fs::remove_file(&pid));
    eventually("it is gone", || is_over(&child)).await;
}

#[test]
fn what_has_been_said_is_not_said_again() {
    let fleet = fleet(Some(script("true", &[])));
    let (now, mut rng) = (Instant::now(), Rng::seed_from_u64(1));
    let mut teller = teller();
    assert_eq!(teller.order(&fleet, &desired(0), now), None, "the least of a pool is not news");
    let order = teller.order(&fleet, &desired(8), now).unwrap();
    assert_eq!((order.gpus, order.replicas), (8, 2));
    assert_eq!(teller.order(&fleet, &desired(16), now), None, "one call at a time");
    assert_eq!(teller.ended(&order, &CallOutcome::Ok, now, &mut rng), None);
    assert_eq!(teller.order(&fleet, &desired(8), now), None);
    assert_eq!(teller.order(&fleet, &desired(16), now).unwrap().gpus, 16);
    // What was restored after a restart may never have been said to the end.
    assert_eq!(Teller::new(&desired(8)).order(&fleet, &desired(8), now).unwrap().gpus, 8);
}

#[test]
fn a_failure_is_tried_again_after_ten_seconds_and_twice_as_long_each_time_up_to_ten_minutes() {
    let fleet = fleet(Some(script("true", &[])));
    let (mut now, mut rng) = (Instant::now(), Rng::seed_from_u64(1));
    let mut teller = teller();
    for seconds in [10, 20, 40, 80, 160, 320, 600, 600, 600] {
        let order = teller.order(&fleet, &desired(8), now).unwrap();
        let outcome = if seconds == 40 { CallOutcome::Timeout } else { CallOutcome::Failed("no".into()) };
        let pause = teller.ended(&order, &outcome, now, &mut rng).unwrap();
        let about = Duration::from_secs(seconds);
        assert!(pause >= about * 8 / 10 && pause <= about * 12 / 10, "{pause:?} for {seconds}");
        assert_eq!(teller.order(&fleet, &desired(8), now + pause - Duration::from_millis(1)), None);
        now += pause;
    }
    // The command may have done its work although it failed: the old number has to be said, too.
    let order = teller.order(&fleet, &desired(0), now).unwrap();
    assert_eq!(order.gpus, 0);
    teller.ended(&order, &CallOutcome::Ok, now, &mut rng);
    let order = teller.order(&fleet, &desired(8), now).unwrap();
    let pause = teller.ended(&order, &CallOutcome::Timeout, now, &mut rng).unwrap();
    assert!(pause <= Duration::from_secs(12), "a success ends the row: {pause:?}");
}

#[tokio::test]
async fn a_dry_run_says_it_once_and_does_nothing() {
    let out = file("dry");
    let real = script("touch \"$1\"", &[&out.display().to_string()]);
    let dry = fleet(Some(Scale { dry_run: true, ..real.clone() }));
    let (now, mut rng) = (Instant::now(), Rng::seed_from_u64(1));
    let mut teller = teller();
    let order = teller.order(&dry, &desired(8), now).unwrap();
    let outcome = outcome_of(&order).await;
    assert_eq!(outcome, CallOutcome::DryRun);
    assert!(!out.exists());
    teller.ended(&order, &outcome, now, &mut rng);
    assert_eq!(teller.order(&dry, &desired(8), now), None);
    // A reload makes it real, and nobody knows of the eight yet.
    assert_eq!(teller.order(&fleet(Some(real)), &desired(8), now).unwrap().gpus, 8);
}

#[test]
fn no_more_is_asked_for_than_may_be_paid() {
    for (usd, most) in [(32.0, 8), (63.99, 8), (64.0, 16), (1_000.0, 16)] {
        let bound = Scale { max_usd_per_hour: NanoUsd::from_usd(usd), ..script("true", &[]) };
        let fleet = fleet(Some(bound));
        let now = Instant::now();
        let mut teller = teller();
        let order = teller.order(&fleet, &desired(16), now).unwrap();
        assert_eq!((order.gpus, order.replicas), (most, most / 4), "{usd}");
        assert!(f64::from(order.gpus) * 4.0 <= usd);
        assert_eq!(teller.newly_held(&fleet, &desired(16)), (most < 16).then_some(8), "said once");
        assert_eq!(teller.newly_held(&fleet, &desired(16)), None);
        teller.ended(&order, &CallOutcome::Ok, now, &mut Rng::seed_from_u64(1));
        assert_eq!(teller.order(&fleet, &desired(16), now), None);
    }
}

#[test]
fn a_pool_without_anyone_to_tell_is_left_alone() {
    assert_eq!(teller().order(&fleet(None), &desired(8), Instant::now()), None);
    assert_eq!(fleet(None).backend(BackendId(0)).pool, Some(PoolId(0)));
}

/// Answers one request with this status, and returns what it was.
async fn receiver(status: &'static str) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/pools/burst", listener.local_addr().unwrap());
    let heard = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut heard, mut piece) = (Vec::new(), [0; 4_096]);
        while !heard.ends_with(b"}") {
            let n = stream.read(&mut piece).await.unwrap();
            assert!(n > 0, "it ended early");
            heard.extend_from_slice(&piece[..n]);
        }
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(heard).unwrap()
    });
    (url, heard)
}

#[tokio::test]
async fn a_webhook_gets_the_same_as_json() {
    let (url, heard) = receiver("204 No Content").await;
    let fleet_with = |url: String| fleet(Some(scale(ScaleCall::Webhook(url))));
    assert_eq!(outcome_of(&order(&fleet_with(url), 8)).await, CallOutcome::Ok);
    let heard = heard.await.unwrap();
    assert!(heard.starts_with("POST /pools/burst HTTP/1.1\r\n"), "{heard}");
    let (head, body) = heard.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/json") && head.contains("host: 127.0.0.1:"), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    let expected = json!({ "pool": "burst", "gpus": 8, "replicas": 2, "reason": "spill", "fleet": "digest" });
    assert_eq!(body, expected);
    let (url, _) = receiver("503 Service Unavailable").await;
    assert_eq!(outcome_of(&order(&fleet_with(url), 8)).await, CallOutcome::Failed("the webhook answered 503".into()));
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let hangs = Scale { timeout: Duration::from_millis(200), ..scale(ScaleCall::Webhook(url.clone())) };
    assert_eq!(outcome_of(&order(&fleet(Some(hangs)), 8)).await, CallOutcome::Timeout);
    drop(silent);
    let refused = outcome_of(&order(&fleet_with(url), 8)).await;
    assert!(matches!(&refused, CallOutcome::Failed(why) if why.contains("could not be asked")), "{refused:?}");
}

#[test]
fn what_pools_were_asked_to_have_is_there_after_a_restart() {
    let folder = file("memory");
    fs::create_dir_all(&folder).unwrap();
    assert!(Memory::in_folder(None).is_none());
    let memory = Memory::in_folder(Some(&folder)).unwrap();
    assert_eq!(memory.read().unwrap(), []);
    let mut rng = Rng::seed_from_u64(1);
    let state = outrigger_core::state::State::new(fleet(None).into(), Nanos(7), &mut rng);
    let pools = state.observed().scaling.pools();
    assert_eq!(pools.len(), 1);
    write_whole(&memory.file, pools).unwrap();
    assert_eq!(memory.read().unwrap(), pools);
    fs::write(&memory.file, "no json").unwrap();
    assert_eq!(memory.read().unwrap_err().kind(), io::ErrorKind::InvalidData);
    drop(fs::remove_dir_all(&folder));
}
