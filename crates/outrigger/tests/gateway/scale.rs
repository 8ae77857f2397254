//! Whoever rents GPUs is told by the real process, and what it makes of those who do not listen.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime},
};

use outrigger_fakes::Fixed;
use serde_json::{Value, json};

use super::{Engines, Gateway, LLAMA_70B, Profile, eventually, eventually_within, hello, lock, signals::series};

/// Pools of up to 16 GPUs in steps of 8, each scaled as it says. `burst` has two engines of four GPUs, which take what the
/// first tier has no room for.
pub(super) fn fleet(engines: &Engines, state_dir: &Path, pools: &[(&str, String)]) -> String {
    let pool = |(name, scale): &(&str, String)| {
        format!(
            "  {name}:\n    cloud: c\n    gpu: h100\n    gpus: {{ min: 0, max: 16, step: 8 }}\n    \
             on_demand: {{ usd_per_gpu_hour: 4, billing_block: 1h, cold_start: 12m }}\n    scale:\n      {scale}\n"
        )
    };
    let pools: String = pools.iter().map(pool).collect();
    let (folder, first, burst) = (state_dir.display(), engines.url(0), engines.url(1));
    format!(
        "version: 1\ngateway:\n  state_dir: {folder}\nclouds:\n  c: {{}}\npools:\n{pools}backends:\n  first:\n    cloud: c\n    \
         engine: vllm\n    url: {first}/v1\n    model: {LLAMA_70B}\n    max_in_flight: 1\n  second:\n    pool: burst\n    \
         replicas: 2\n    gpus_per_replica: 4\n    engine: vllm\n    url: {burst}/v1\n    model: {LLAMA_70B}\n\
         models:\n  llama:\n    tiers:\n      - split: {{ first: 1 }}\n      - split: {{ second: 1 }}\n"
    )
}

/// A folder for the state, as a gateway leaves it that has asked for so many GPUs of each pool.
pub(super) fn asked_for(folder: &Path, pools: &[(&str, u32)]) {
    drop(fs::remove_dir_all(folder));
    fs::create_dir_all(folder).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let pool = |(name, gpus): &(&str, u32)| {
        let blocks = vec![now; (*gpus / 8) as usize];
        json!({
            "name": name, "id": 0, "gpus": gpus, "reason": "saturated", "changed": now, "raised": now,
            "blocks": blocks, "needed": now, "users": [],
        })
    };
    let text = serde_json::to_string(&pools.iter().map(pool).collect::<Vec<Value>>()).unwrap();
    fs::write(folder.join("scaling.json"), text).unwrap();
}

pub(super) fn calls(gateway: &Gateway, pool: &str, result: &str) -> f64 {
    let labels = [format!("pool=\"{pool}\""), format!("result=\"{result}\"")];
    series(gateway, "outrigger_scale_calls_total", &[&labels[0], &labels[1]]).unwrap_or(0.0)
}

#[test]
fn each_pools_command_is_told_the_number_and_one_that_fails_or_hangs_is_asked_again() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gateway-scale");
    asked_for(&folder, &[("burst", 8), ("failing", 8), ("hanging", 8), ("dry", 8), ("dear", 16)]);
    let file = |name: &str| folder.join(name).display().to_string();
    let real = "dry_run: false";
    let told = |pool: &str| format!("exec: [sh, -c, 'env | grep ^OUTRIGGER_ > \"$1\"', sh, '{}']", file(pool));
    let pools = [
        ("burst", format!("{}\n      {real}", told("burst"))),
        (
            "failing",
            format!(
                "exec: [sh, -c, 'date +%s%3N >> \"$1\"; echo no quota >&2; exit 1', sh, '{}']\n      {real}",
                file("tries")
            ),
        ),
        ("hanging", format!("exec: [sleep, '600.1']\n      timeout: 300ms\n      {real}")),
        ("dry", told("dry")),
        ("dear", format!("{}\n      {real}\n      max_usd_per_hour: 40", told("dear"))),
    ];
    let engines = Engines::instant(2);
    let gateway = Gateway::start("scale", &fleet(&engines, &folder, &pools));
    let said = |pool: &str| fs::read_to_string(folder.join(pool)).unwrap_or_default();
    let expected = "OUTRIGGER_GPUS=8 OUTRIGGER_POOL=burst OUTRIGGER_REASON=saturated OUTRIGGER_REPLICAS=2";
    let sorted = |text: String| {
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines.join(" ")
    };
    eventually("it is told", || sorted(said("burst")) == expected);
    eventually("the bound holds", || said("dear").contains("OUTRIGGER_GPUS=8\n"));
    eventually_within(Duration::from_mins(1), "it is called again", || calls(&gateway, "failing", "failed") >= 2.0);
    eventually("it is ended, twice", || calls(&gateway, "hanging", "timeout") >= 2.0);
    let tries: Vec<u64> = said("tries").lines().map(|line| line.parse().unwrap()).collect();
    // Ten seconds give or take a fifth, up to five more until it is looked again, and what a shell takes to begin on a busy machine.
    assert!((7_900..30_000).contains(&(tries[1] - tries[0])), "{tries:?}");
    for (pool, result) in [("burst", "ok"), ("dry", "dry_run"), ("dear", "ok"), ("dear", "held")] {
        assert_eq!(calls(&gateway, pool, result) as u32, 1, "{pool} {result}");
    }
    assert_eq!(said("dry"), "", "a dry run does nothing");
    let heard = lock(&gateway.stderr).clone();
    for line in [
        "scale burst to 8 GPUs (2 replicas, saturated): ok\n",
        "(8 replicas, saturated): failed: sh ended with exit status: 1: no quota; again in ",
        "scale hanging to 8 GPUs (8 replicas, saturated): failed: it took too long and was ended; again in ",
        "scale dry to 8 GPUs (8 replicas, saturated): dry run, nothing was done\n",
        "scale dear: 16 GPUs are wanted (saturated), and max_usd_per_hour allows 8\n",
    ] {
        assert!(heard.contains(line), "{line:?} in\n{heard}");
    }
    let words = String::from_utf8(gateway.command(&["status"]).stdout).unwrap();
    assert!(words.contains("pool burst: 8 of 0 to 16 GPUs wanted (2 replicas, saturated)\n"), "{words}");
    assert!(words.contains("pool dry: 8 of 0 to 16 GPUs wanted (8 replicas, saturated, dry run)\n"), "{words}");
    assert!(fs::read_to_string(folder.join("scaling.json")).unwrap().contains("\"burst\""), "it is kept for a restart");
}

/// A minute of real requests without room.
#[test]
#[ignore = "takes a minute and a half"]
fn a_minute_of_spill_wakes_the_pool() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gateway-scale-wakes");
    asked_for(&folder, &[]);
    let told = folder.join("told");
    let exec = format!("exec: [sh, -c, 'echo $OUTRIGGER_GPUS $OUTRIGGER_REASON > \"$1\"', sh, '{}']", told.display());
    let slow = Profile { fixed: Some(Fixed { ttft_ms: 10.0, tokens: 4, total_ms: 400.0 }), ..Profile::instant() };
    let engines = Engines::start([slow.clone(), slow]);
    let pools = [("burst", format!("{exec}\n      dry_run: false"))];
    let gateway = Gateway::start("scale_wakes", &fleet(&engines, &folder, &pools));
    let replicas = || series(&gateway, "outrigger_pool_desired_replicas", &["pool=\"burst\""]);
    assert_eq!(replicas(), Some(0.0));
    let began = Instant::now();
    let until = began + Duration::from_secs(75);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while Instant::now() < until && !told.exists() {
                    assert_eq!(gateway.chat(&hello()).status, 200);
                }
            });
        }
    });
    assert!(began.elapsed() >= Duration::from_mins(1), "{:?}", began.elapsed());
    eventually("it is told", || fs::read_to_string(&told).is_ok_and(|text| text == "8 spill\n"));
    assert_eq!(replicas(), Some(2.0));
}
