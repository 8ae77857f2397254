//! A thousand clients, each with a stream that it does not read: what they cost, whether that comes back, and what somebody
//! else notices of them.
//!
//! Somebody else's p99 is measured in turns without and with them, in one run, because a machine that is shared with other
//! work is faster and slower by the minute; what counts is the median over the turns. That takes minutes and a release
//! build: `./test heavy hostile`.
//!
//! After 10 s without a byte taken the kernel lets such a client go (`TCP_USER_TIMEOUT`), before `write_timeout` does. Those of the
//! long form know that, and take a little every few seconds; a turn sees to it that all were there until its end.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    net::sockopt::set_socket_recv_buffer_size,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use serde_json::{Value, json};

use super::{
    Engines, Gateway, LLAMA_70B,
    abuse::{Raise, hose, is_quiet},
    eventually, hello,
    http::{Request, connect},
    lock, streamed,
};

const READERS: usize = 1_000;
const MOST_EACH_KIB: u64 = 256;
const MOST_LEFT_KIB: u64 = 24 << 10;

/// Two sockets for each reader here, and two in the gateway, which inherits the limit: 1,024 files, as many systems allow
/// at first, are not enough.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let enough = limit.maximum.map_or(16_384, |most| most.min(16_384));
    if limit.current.is_some_and(|now| now < enough) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(enough), maximum: limit.maximum })
            .expect("below the hard limit");
    }
    assert!(enough > 5 * READERS as u64, "raise the hard limit of open files (`ulimit -Hn`), which is {enough}");
}

/// `llama` on a backend that sends as fast as it is let, `quiet` on an engine of its own.
fn fleet(hose: &str, quiet: &str) -> String {
    let backend = |name: &str, url: &str| {
        format!("  {name}:\n    cloud: c\n    engine: openai\n    url: {url}/v1\n    model: {LLAMA_70B}\n")
    };
    let model = |name: &str, backend: &str| format!("  {name}:\n    tiers:\n      - split: {{ {backend}: 1 }}\n");
    [
        "version: 1\nclouds:\n  c: {}\nbackends:\n",
        &backend("h", hose),
        &backend("q", quiet),
        "models:\n",
        &model("llama", "h"),
        &model("quiet", "q"),
    ]
    .concat()
}

fn quiet() -> Value {
    let mut body = hello();
    body["model"] = json!("quiet");
    body
}

/// How long each request of somebody else took, for so long.
fn bystander(gateway: &Gateway, phase: Duration) -> Vec<Duration> {
    let (request, began) = (Request::chat(&quiet()), Instant::now());
    let mut took = Vec::new();
    while began.elapsed() < phase {
        let asked = Instant::now();
        assert_eq!(gateway.send(&request).status, 200);
        took.push(asked.elapsed());
        thread::sleep(Duration::from_millis(2));
    }
    took.sort_unstable();
    took
}

/// Clients that ask for a stream each and read nothing of it.
fn open_readers(gateway: &Gateway, many: usize) -> Vec<TcpStream> {
    let request = Request::chat(&streamed(hello())).bytes();
    let mut readers: Vec<TcpStream> = Vec::new();
    while readers.len() < many {
        let mut stream = connect(gateway.listen);
        // Or a turn is spent on filling the kernel's buffers, up to 6 MiB for each. It changes nothing for the gateway.
        set_socket_recv_buffer_size(&stream, 4 << 10).unwrap();
        stream.write_all(&request).unwrap();
        stream.set_nonblocking(true).unwrap();
        readers.push(stream);
    }
    readers
}

#[test]
fn hundreds_of_stalled_readers_cost_little_each_and_it_comes_back() {
    raise_open_files();
    let (engines, (address, open)) = (Engines::instant(1), hose());
    let mut gateway = Gateway::start("stalled", &fleet(&format!("http://{address}"), &engines.url(0)));
    assert_eq!(gateway.chat(&hello()).status, 200);
    let before = gateway.resident_kib();
    gateway.forget_peak();
    let readers = open_readers(&gateway, READERS);
    let mut most = 0;
    // A slow machine loses the first to the kernel before the last have come: all of them at once are for the long form.
    eventually("many of them stall at once", || {
        most = most.max(open.load(Ordering::Relaxed));
        most >= READERS / 2
    });
    // The buffers between fill, and others are served.
    bystander(&gateway, Duration::from_secs(2));
    let each = gateway.peak_kib().saturating_sub(before) / most as u64;
    drop(readers);
    is_quiet(&mut gateway);
    let mut left = u64::MAX;
    let until = Instant::now() + Duration::from_secs(20);
    while left > 24 << 10 && Instant::now() < until {
        left = gateway.resident_kib().saturating_sub(before);
        thread::sleep(Duration::from_millis(100));
    }
    println!("stalled: {most} at {each} KiB each, {left} KiB left after");
    assert!(each <= MOST_EACH_KIB, "{each} KiB for each of {most}");
    assert!(left <= 24 << 10, "{left} KiB are left of {} KiB", each * most as u64);
}

/// A percentile in milliseconds.
fn at(sorted: &[Duration], percent: usize) -> f64 {
    sorted[(sorted.len() * percent).div_ceil(100) - 1].as_secs_f64() * 1e3
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_unstable_by(f64::total_cmp);
    of[of.len() / 2]
}

/// The threads of a process that have something to do, also where others are in their way (proc_pid_stat(5)).
fn running(pid: u32) -> usize {
    thread::sleep(Duration::from_millis(5));
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process of ours").flatten();
    let stats = tasks.map(|task| fs::read_to_string(task.path().join("stat")).unwrap_or_default());
    stats.filter(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('R'))).count()
}

#[derive(Debug)]
struct Turn {
    without: f64,
    with: f64,
    medians: [f64; 2],
    each_kib: u64,
    left_kib: u64,
}

/// Takes what has come to each of them, every 7 s or so, until it is over: no more often than it must be, because what is taken
/// is work for the gateway, and theirs is to be none.
fn nibble(readers: &Mutex<Vec<TcpStream>>, is_over: &AtomicBool) {
    let mut piece = vec![0; 128 << 10];
    for n in 0.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let mut readers = lock(readers);
        let at = n % readers.len();
        drop(readers[at].read(&mut piece));
        drop(readers);
        thread::sleep(Duration::from_millis(6));
    }
}

/// Somebody else's p99 without and with them, in milliseconds, and the memory of each.
fn turn(gateway: &mut Gateway, open: &AtomicUsize, first: u64) -> Turn {
    const PHASE: Duration = Duration::from_secs(5);
    let without = bystander(gateway, PHASE);
    let before = gateway.resident_kib();
    gateway.forget_peak();
    let (readers, is_over) = (Mutex::new(open_readers(gateway, READERS)), AtomicBool::new(false));
    let with = thread::scope(|scope| {
        scope.spawn(|| nibble(&readers, &is_over));
        // Also where this panics: the scope waits for who nibbles.
        let _over = Raise(&is_over);
        let began = Instant::now();
        // On a slow machine some are lost before they are all there, and others come for them.
        while open.load(Ordering::Relaxed) < READERS {
            assert!(began.elapsed() < Duration::from_mins(1), "only {} are there", open.load(Ordering::Relaxed));
            thread::sleep(Duration::from_secs(1));
            let missing = READERS.saturating_sub(open.load(Ordering::Relaxed));
            lock(&readers).extend(open_readers(gateway, missing));
        }
        // The buffers between fill.
        eventually("all of them stall", || (0..8).all(|_| running(gateway.child.id()) == 0));
        bystander(gateway, PHASE)
    });
    let were_there = open.load(Ordering::Relaxed);
    assert!(were_there >= READERS * 99 / 100, "{were_there} were there in the end");
    let each_kib = gateway.peak_kib().saturating_sub(before) / were_there.max(READERS) as u64;
    drop(readers);
    is_quiet(gateway);
    // Each thread lets go within a few seconds.
    let until = Instant::now() + Duration::from_secs(10);
    let left = || gateway.resident_kib().saturating_sub(first);
    while left() >= MOST_LEFT_KIB && Instant::now() < until {
        thread::sleep(Duration::from_millis(100));
    }
    let left_kib = left();
    let medians = [at(&without, 50), at(&with, 50)];
    let turn = Turn { without: at(&without, 99), with: at(&with, 99), medians, each_kib, left_kib };
    println!("turn: {turn:.2?}, of {} and {} requests, {were_there} there in the end", without.len(), with.len());
    turn
}

#[test]
#[ignore = "takes minutes, and a release build"]
fn stalled_readers_hurt_nobody_else() {
    const TURNS: usize = 9;
    raise_open_files();
    let (engines, (address, open)) = (Engines::instant(1), hose());
    let mut gateway = Gateway::start("stalled-others", &fleet(&format!("http://{address}"), &engines.url(0)));
    assert_eq!(gateway.chat(&hello()).status, 200);
    let first = gateway.resident_kib();
    let turns: Vec<Turn> = (0..TURNS).map(|_| turn(&mut gateway, &open, first)).collect();
    let of = |pick: fn(&Turn) -> f64| median(turns.iter().map(pick).collect());
    let (without, with, ratio) = (of(|t| t.without), of(|t| t.with), of(|t| t.with / t.without));
    let (each, left, p50) =
        (of(|t| t.each_kib as f64), of(|t| t.left_kib as f64 / 1024.0), of(|t| t.medians[1] / t.medians[0]));
    println!(
        "bar: {READERS} stalled readers: {each:.0} KiB each, {left:.1} MiB left after; somebody else's p99 {without:.2} ms without and \
         {with:.2} ms with them, ratio {ratio:.2} (p50 {p50:.2}); medians of {TURNS} turns"
    );
    assert!(turns.iter().all(|turn| turn.each_kib <= MOST_EACH_KIB && turn.left_kib < MOST_LEFT_KIB), "{turns:?}");
    assert!(ratio <= 1.1, "somebody else waits {ratio:.2} times as long");
}
