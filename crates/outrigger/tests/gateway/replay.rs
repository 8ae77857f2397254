//! What a live gateway decided is decided again from its log, to the last verdict; and a log or a fleet that was changed
//! is noticed.
//!
//! The recording is made under everything at once: three engines that fail by turns, an operator who drains and shifts
//! weights, two models in two modes with sessions, a tier that is entered for its shorter wait, a spend limit, a reload.
//! `OUTRIGGER_LONG=1` (as `./test heavy replay` sets it) records 10,000 decisions instead of 1,500.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs::{self, File},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use outrigger_core::{
    Rng,
    facts::{Facts, History},
    route::{Decision, Reject, RejectReason},
    state::{Event, State},
    units::Nanos,
};
use outrigger_fakes::{
    Fault, FaultKind, Fixed, LLAMA_70B,
    load::{Arrivals, Load, LoadOptions},
};
use rand_core::SeedableRng as _;
use serde_json::{Value, json};

use super::{Engines, Gateway, Profile, Start, eventually, hello, http::Request, lock, outrigger, sha256};

/// `fast` by latency and `chat` by weights on the same two backends; `chat` spills to a third that is billed by the
/// token, up to a limit.
fn fleet(engines: &Engines, weights: (u32, u32)) -> String {
    let mut text = String::from(
        "version: 1\nclouds:\n  one: {}\n  two: {}\n  dear: { spend_limit: { usd_per_hour: 0.0015 } }\nbackends:\n",
    );
    for (n, (name, cloud, more)) in [
        ("a", "one", "max_in_flight: 16"),
        ("b", "two", "metrics: none"),
        ("dear", "dear", "usd_per_million_tokens: { input: 1, output: 2 }"),
    ]
    .into_iter()
    .enumerate()
    {
        let url = engines.url(n);
        writeln!(
            text,
            "  {name}:\n    cloud: {cloud}\n    engine: vllm\n    url: {url}/v1\n    model: {LLAMA_70B}\n    {more}"
        )
        .unwrap();
    }
    let timeouts = "timeouts: { connect: 1s, headers: 800ms, first_token: 800ms, idle: 800ms, total: 20s }";
    let (a, b) = weights;
    write!(
        text,
        "models:\n  fast:\n    mode: latency\n    {timeouts}\n    tiers:\n      - split: {{ a: 1, b: 1 }}\n  \
         chat:\n    {timeouts}\n    tiers:\n      - split: {{ a: {a}, b: {b} }}\n      - split: {{ dear: 1 }}\n        \
         enter_when: {{ wait_above: 100ms }}\n\
         keys:\n  any:\n    sha256: {}\n  near:\n    sha256: {}\n    allowed_clouds: [one, two]\n",
        sha256("any"),
        sha256("near")
    )
    .unwrap();
    text
}

/// A gateway that logs its decisions, to a file of the test's own.
fn recording(test: &str, fleet: &str) -> (Gateway, PathBuf) {
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}.jsonl"));
    drop(fs::remove_file(&log));
    (recording_to(test, fleet, &log), log)
}

fn recording_to(test: &str, fleet: &str, log: &Path) -> Gateway {
    Gateway::start_with(test, &Start { fleet, args: &["--decision-log", log.to_str().unwrap()], ..Start::default() })
}

/// Ends it, so that all is written.
fn finish(mut gateway: Gateway) -> PathBuf {
    gateway.terminate();
    eventually("it ends", || gateway.child.try_wait().unwrap().is_some());
    let said = lock(&gateway.stderr);
    assert!(!said.contains("panicked"), "{said}");
    gateway.fleet_file()
}

/// What `replay --json` prints, with its exit code.
fn replay(log: &Path, fleet: &Path) -> (Option<i32>, Value) {
    let out = outrigger(&["replay", log.to_str().unwrap(), "--fleet", fleet.to_str().unwrap(), "--json"], &[]);
    let said = serde_json::from_slice(&out.stdout);
    (out.status.code(), said.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out.stderr))))
}

/// What it says to people: stdout, stderr and the exit code.
fn replay_in_words(log: &str, fleet: &Path, stdin: Stdio) -> (String, String, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
    let out = command.args(["replay", log, "--fleet", fleet.to_str().unwrap()]).stdin(stdin).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&out.stdout), text(&out.stderr), out.status.code())
}

fn rows(log: &Path) -> Vec<Value> {
    fs::read_to_string(log).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn write_rows(log: &Path, rows: &[Value]) {
    fs::write(log, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
}

fn beside(log: &Path, suffix: &str) -> PathBuf {
    log.with_extension(format!("{suffix}.jsonl"))
}

/// Counts the lines of a file that grows.
struct Lines {
    path: PathBuf,
    file: Option<File>,
    seen: usize,
}

impl Lines {
    fn count(&mut self) -> usize {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let mut new = Vec::new();
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut new).unwrap();
        }
        self.seen += new.iter().filter(|byte| **byte == b'\n').count();
        self.seen
    }
}

fn loads(gateway: &Gateway) -> Vec<Load> {
    let load = |model: &str, key: &str, rate: f64, session: Option<&str>, seed: u64| {
        let headers = session.map(|name| ("x-session-id".to_owned(), name.to_owned())).into_iter().collect();
        Load::start(LoadOptions {
            requests_per_second: rate,
            arrivals: Arrivals::Poisson,
            api_key: Some(key.to_owned()),
            headers,
            seed,
            ..LoadOptions::new(format!("http://{}", gateway.listen), model)
        })
        .unwrap()
    };
    vec![
        load("fast", "any", 50.0, None, 1),
        load("chat", "any", 30.0, None, 2),
        load("chat", "near", 10.0, None, 3),
        load("chat", "any", 10.0, Some("ann"), 4),
        load("chat", "any", 10.0, Some("ben"), 5),
    ]
}

/// Without these the figure would be worth little.
const NEEDED: [&str; 17] = [
    "attempt",
    "queue",
    "latency",
    "weight",
    "affinity",
    "only_one",
    "spill",
    "failover",
    "trial",
    "down",
    "suspect",
    "cooling_down",
    "saturated",
    "drained",
    "would_wait",
    "spend_limit",
    "cloud_not_allowed",
];

/// One thing after another goes wrong until `goal` lines are written and each word has been said.
fn record(engines: &Engines, gateway: &Gateway, log: &Path, goal: usize) {
    let mut lines = Lines { path: log.to_owned(), file: None, seen: 0 };
    let slow = |mut fault: Fault| {
        fault.factor = Some(8.0);
        fault
    };
    let troubles = [
        (1, slow(Fault::new(FaultKind::Slow))),
        (0, Fault::new(FaultKind::Status(500))),
        (1, Fault::new(FaultKind::Hang)),
        (0, slow(Fault::new(FaultKind::Slow))),
        (1, Fault::new(FaultKind::Kill)),
        (0, Fault::new(FaultKind::Status(429))),
        (2, Fault::new(FaultKind::Status(503)).retry_after_s(1)),
        (0, Fault::new(FaultKind::Cut).probability(0.5)),
        (0, Fault::new(FaultKind::Kill)),
        (1, Fault::new(FaultKind::Status(500)).probability(0.3)),
    ];
    let until = Instant::now() + Duration::from_mins(5);
    let pause = || thread::sleep(Duration::from_millis(450));
    for (round, (engine, fault)) in troubles.iter().cycle().enumerate() {
        assert!(Instant::now() < until, "only {} decisions", lines.seen);
        match round % troubles.len() {
            // What is left is slow, and the dear one is still within its limit.
            0 => drop(gateway.json(&["drain", "a"])),
            1 => drop(gateway.json(&["undrain", "a"])),
            4 => drop(gateway.json(&["weight", "chat", "a=1", "b=3"])),
            6 => drop(gateway.json(&["weight", "chat", "a=60", "b=40"])),
            7 => drop(gateway.json(&["drain", "b"])),
            8 => drop(gateway.json(&["undrain", "b"])),
            _ => {}
        }
        let fake = &engines.fakes[*engine];
        engines.runtime.block_on(fake.set_fault(fault.clone()));
        pause();
        engines.runtime.block_on(fake.heal());
        pause();
        if round + 1 >= troubles.len() && lines.count() > goal && has_all(log) {
            return;
        }
    }
}

/// Whether a log that is being written has the words that are needed. Its last line may be half there.
fn has_all(log: &Path) -> bool {
    let text = fs::read_to_string(log).unwrap();
    let rows: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let words = words(&rows);
    NEEDED.iter().all(|needed| words.contains(*needed))
}

/// The words of a recording: why something was chosen or not, and what came of it.
fn words(rows: &[Value]) -> BTreeSet<String> {
    let word = |value: &Value| match value {
        Value::Object(map) => map.keys().next().cloned().unwrap_or_default(),
        other => other.as_str().unwrap_or_default().to_owned(),
    };
    let of = |row: &Value| {
        let candidates = row["candidates"].as_array().into_iter().flatten();
        let mut words: Vec<String> = candidates.map(|c| word(&c["verdict"])).collect();
        words.push(word(&row["decision"]));
        words.extend(row["decision"]["attempt"]["reason"].as_str().map(str::to_owned));
        words.extend(row["decision"]["reject"]["why"].as_str().map(str::to_owned));
        words
    };
    rows.iter().flat_map(of).collect()
}

#[test]
fn live_decisions_are_the_same_again_and_what_was_changed_is_noticed() {
    let goal = if std::env::var("OUTRIGGER_LONG").is_ok_and(|v| v == "1") { 10_000 } else { 1_500 };
    let engine = Profile { fixed: Some(Fixed { ttft_ms: 20.0, tokens: 32, total_ms: 150.0 }), ..Profile::instant() };
    let engines = Engines::start([engine.clone(), engine.clone(), engine]);
    let (gateway, log) = recording("replay", &fleet(&engines, (60, 40)));
    let loads = {
        let _inside = engines.runtime.enter();
        loads(&gateway)
    };
    record(&engines, &gateway, &log, goal);
    loads.iter().for_each(Load::stop);
    for load in loads {
        drop(engines.runtime.block_on(load.finish()));
    }
    let file = finish(gateway);

    let all = rows(&log);
    let decisions = all.iter().filter(|row| row["event"] == "decision").count();
    assert!(decisions >= goal && all.len() == decisions + 1 && all[0]["event"] == "fleet", "{decisions}");
    let attempts = all.iter().filter(|row| row["decision"]["attempt"].is_object()).count();
    let words = words(&all);
    for needed in NEEDED {
        assert!(words.contains(needed), "nothing was ever {needed:?}: {words:?}");
    }

    let began = Instant::now();
    let (exit, said) = replay(&log, &file);
    let rate = decisions as f64 / began.elapsed().as_secs_f64();
    println!(
        "\nbar: replay of live decisions under faults: {} of {decisions} identical ({attempts} attempts), {rate:.0} decisions/s, {} bytes each",
        said["identical"],
        fs::metadata(&log).unwrap().len() / decisions as u64
    );
    assert_eq!((&said["identical"], &said["decisions"]), (&json!(decisions), &json!(decisions)), "{said:#}");
    assert_eq!((&said["different"], &said["skipped"], &said["other_fleet"]), (&json!(0), &json!(0), &json!(0)));
    assert_eq!(exit, Some(0));

    one_choice_altered(&log, &file, all, decisions);
    other_weights(&engines, &log, &file, decisions);
}

/// A choice that was altered in the log is found, and nothing else.
fn one_choice_altered(log: &Path, file: &Path, mut rows: Vec<Value>, decisions: usize) {
    let altered = beside(log, "altered");
    let row = rows.iter().position(|row| row["decision"]["attempt"]["reason"] == "latency").unwrap();
    let chosen = &mut rows[row]["decision"]["attempt"]["backend"];
    *chosen = json!(1 - chosen.as_u64().unwrap());
    let id = rows[row]["request_id"].clone();
    write_rows(&altered, &rows);
    let (exit, said) = replay(&altered, file);
    assert_eq!((exit, &said["identical"]), (Some(1), &json!(decisions - 1)), "{said:#}");
    let found = said["differences"].as_array().unwrap();
    assert_eq!(found.len(), 1, "{said:#}");
    assert_eq!((&found[0]["request_id"], &found[0]["row"]), (&id, &json!(row + 1)));
    assert_ne!(found[0]["recorded"]["chosen"], found[0]["replayed"]["chosen"]);
    assert_eq!(found[0]["replayed"]["reason"], "latency");
}

/// Under other weights requests go elsewhere, in their shares; that is an answer and no failure.
fn other_weights(engines: &Engines, log: &Path, file: &Path, decisions: usize) {
    let other = file.with_file_name("other.yaml");
    fs::write(&other, fleet(engines, (5, 95))).unwrap();
    let (exit, said) = replay(log, &other);
    assert_eq!((exit, &said["decisions"], &said["other_fleet"]), (Some(0), &json!(decisions), &json!(decisions)));
    let count = |backend: &str, which: &str| said["shares"][backend][which].as_u64().unwrap();
    assert!(said["different"].as_u64().unwrap() > 20, "{said:#}");
    assert!(count("b", "replayed") > count("b", "recorded") + 20, "{said:#}");
    assert!(said["moves"].as_array().unwrap().iter().any(|m| m["from"] == "a" && m["to"] == "b"), "{said:#}");
    // The same fleet in another file: all of it goes over names, and nothing changes.
    fs::write(&other, fleet(engines, (60, 40)) + "# a remark\n").unwrap();
    let (exit, said) = replay(log, &other);
    assert_eq!((exit, &said["identical"], &said["other_fleet"]), (Some(0), &json!(decisions), &json!(decisions)));
}

/// Two equal backends, `m` over both and `only_a` over one.
fn pair(engines: &Engines, split: &str) -> String {
    let backend = |name: &str, n: usize| {
        format!("  {name}:\n    cloud: c\n    engine: vllm\n    url: {}/v1\n    model: {LLAMA_70B}\n", engines.url(n))
    };
    format!(
        "version: 1\nclouds:\n  c: {{}}\nbackends:\n{}{}models:\n  llama:\n    tiers:\n      - split: {{ {split} }}\n  \
         only-a:\n    tiers:\n      - split: {{ a: 1 }}\n",
        backend("a", 0),
        backend("b", 1)
    )
}

fn ask(gateway: &Gateway, model: &str, times: usize) {
    let mut body = hello();
    body["model"] = json!(model);
    for _ in 0..times {
        assert_eq!(gateway.send(&Request::chat(&body)).status, 200);
    }
}

#[test]
fn a_log_over_a_reload_a_crash_and_a_restart_is_replayed_under_each_of_its_fleets() {
    let engines = Engines::instant(2);
    let first = pair(&engines, "a: 3, b: 1");
    let (gateway, log) = recording("replay_reload", &first);
    ask(&gateway, "llama", 12);
    let file = gateway.fleet_file();
    // The other way round, and one more in front, so that every number means something else.
    let second = pair(&engines, "b: 3, a: 1").replace("backends:\n", &format!(
        "backends:\n  new:\n    cloud: c\n    engine: vllm\n    url: {}/v1\n    model: {LLAMA_70B}\n    max_in_flight: 1\n",
        engines.url(0)
    ));
    fs::write(&file, &second).unwrap();
    gateway.json(&["reload"]);
    ask(&gateway, "llama", 8);
    finish(gateway);
    let kept = beside(&log, "first.yaml");
    fs::write(&kept, &first).unwrap();
    for (fleet, own) in [(&kept, 12), (&file, 8)] {
        let (exit, said) = replay(&log, fleet);
        assert_eq!(
            (exit, &said["decisions"], &said["other_fleet"]),
            (Some(0), &json!(20), &json!(20 - own)),
            "{said:#}"
        );
        let same = said["identical"].as_u64().unwrap();
        assert!((own..20).contains(&same), "{said:#}");
    }
    // Three quarters for `a` under the first fleet, whatever was recorded.
    let (_, said) = replay(&log, &kept);
    assert_eq!(said["shares"]["a"]["replayed"], 15, "{said:#}");
    let (words, notes, _) = replay_in_words(log.to_str().unwrap(), &kept, Stdio::null());
    assert!(words.contains("20 decisions") && words.contains("  b → a: 6\n"), "{words}");
    assert!(notes.contains("8 of 20 decisions were made under another fleet"), "{notes}");

    // A process that is killed leaves half a line; the next one goes on behind it.
    let text = fs::read(&log).unwrap();
    fs::write(&log, &text[..text.len() - 30]).unwrap();
    let (_, notes, exit) = replay_in_words(log.to_str().unwrap(), &file, Stdio::null());
    assert!(notes.contains("warning") && notes.contains("row 22 is cut off"), "{notes}");
    assert_eq!(exit, Some(0));
    let gateway = recording_to("replay_reload", &second, &log);
    ask(&gateway, "llama", 5);
    finish(gateway);
    let (words, notes, exit) = replay_in_words(log.to_str().unwrap(), &file, Stdio::null());
    assert!(words.starts_with("24 decisions, ") && notes.contains("row 22 is cut off"), "{words}{notes}");
    assert_eq!(exit, Some(0));
}

#[test]
fn what_another_fleet_does_not_have_is_skipped_and_counted() {
    let engines = Engines::instant(2);
    let (gateway, log) = recording("replay_skipped", &pair(&engines, "a: 1, b: 1"));
    ask(&gateway, "llama", 6);
    ask(&gateway, "only-a", 3);
    let file = finish(gateway);
    let text = fs::read_to_string(&file).unwrap();
    let without_model = text.split("  only-a:").next().unwrap();
    let other = file.with_file_name("other.yaml");
    let (from, to) = (without_model.find("  a:\n").unwrap(), without_model.find("  b:\n").unwrap());
    let without_a = format!("{}{}", &without_model[..from], &without_model[to..]).replace("a: 1, b: 1", "b: 1");
    fs::write(&other, without_a).unwrap();
    let (exit, said) = replay(&log, &other);
    assert_eq!(exit, Some(0));
    assert_eq!(
        (&said["decisions"], &said["skipped"], &said["identical"]),
        (&json!(9), &json!(3), &json!(3)),
        "{said:#}"
    );
    assert_eq!(said["shares"], json!({ "a": { "recorded": 3, "replayed": 0 }, "b": { "recorded": 3, "replayed": 6 } }));
    assert_eq!(said["differences"][0]["why"], "b (only_one), a: not in the model's tiers");
}

#[test]
fn a_log_is_read_packed_and_from_standard_input() {
    let engines = Engines::instant(2);
    let (gateway, log) = recording("replay_input", &pair(&engines, "a: 1, b: 1"));
    ask(&gateway, "llama", 4);
    let file = finish(gateway);
    let packed = log.with_extension("jsonl.gz");
    let mut gz = flate2::write::GzEncoder::new(File::create(&packed).unwrap(), flate2::Compression::fast());
    gz.write_all(&fs::read(&log).unwrap()).unwrap();
    gz.finish().unwrap();
    for (name, stdin) in [
        (packed.to_str().unwrap(), Stdio::null()),
        ("-", Stdio::from(File::open(&log).unwrap())),
        ("-", Stdio::from(File::open(&packed).unwrap())),
    ] {
        let (words, said, exit) = replay_in_words(name, &file, stdin);
        assert!(words.starts_with("4 decisions, 4 identical, 0 different\n"), "{name}: {words}{said}");
        assert_eq!((said.as_str(), exit), ("", Some(0)), "{name}");
    }
}

#[test]
fn a_log_that_cannot_be_replayed_says_where_and_what_to_do() {
    let engines = Engines::instant(2);
    let (gateway, log) = recording("replay_faults", &pair(&engines, "a: 1, b: 1"));
    ask(&gateway, "llama", 3);
    let file = finish(gateway);
    let good = rows(&log);
    let bad = beside(&log, "bad");
    let check = |text: &str, exit: i32, expect: &[&str]| {
        fs::write(&bad, text).unwrap();
        let (_, said, code) = replay_in_words(bad.to_str().unwrap(), &file, Stdio::null());
        assert_eq!(code, Some(exit), "{said}");
        for part in expect {
            assert!(said.contains(part), "{part:?} is not in {said}");
        }
    };
    let altered = |row: usize, alter: &dyn Fn(&mut Value)| {
        let mut rows = good.clone();
        alter(&mut rows[row]);
        rows.iter().map(|row| format!("{row}\n")).collect::<String>()
    };
    let version = altered(2, &|row| row["v"] = json!(2));
    check(
        &version,
        2,
        &["row 3: its format is version 2", "help: replay it with the version of outrigger that wrote it"],
    );
    let request = altered(1, &|row| row["event"] = json!("request"));
    check(&request, 2, &["row 2: it is an event `request`", "help: give what `serve --decision-log FILE` wrote"]);
    check(
        &altered(1, &|row| row["facts"]["model"] = json!(9)),
        2,
        &["row 2: it names a model, key or backend", "help:"],
    );
    check(&altered(1, &|row| row["history"]["server_errors"][0] = json!(7)), 2, &["row 2: it names a model", "help:"]);
    check(&altered(1, &|row| row["view"]["model"]["tiers"] = json!([])), 2, &["row 2: its view does not fit", "help:"]);
    check(&altered(1, &|row| drop(row.as_object_mut().unwrap().remove("rng"))), 2, &["row 2: missing field `rng`"]);
    check(
        &altered(3, &|row| row["decision"]["attempt"]["backend"] = json!(8)),
        2,
        &["row 4: its decision names a backend"],
    );
    check(
        &altered(1, &|row| row["fleet"] = json!("0123456789abcdef")),
        2,
        &["row 2: it was made under fleet 0123456789abcdef"],
    );
    check("{\"event\":\"dec\n{\"event\":\"decision\",\"v\":1}\n", 2, &["row 1: EOF", "help:"]);
    check("a,b,c\n1,2,3\n", 2, &["row 1: expected value", "help: each row is one JSON object"]);
    check("", 2, &["there is no decision in it", "help:"]);
    let (_, said, code) = replay_in_words("no-such-file.jsonl", &file, Stdio::null());
    assert!(code == Some(3) && said.contains("cannot read no-such-file.jsonl"), "{said}");
}

/// Two 500s make a request poison if one of the backends serves others, also when a reload has since taken it out of
/// the request's tiers: what it did is then part of what the decision reads.
#[test]
fn a_view_holds_the_backends_that_a_request_accuses() {
    let text = "version: 1\nclouds:\n  c: {}\nbackends:\n  a: { cloud: c, engine: vllm, url: \"http://a/v1\", model: m }\n  \
                b: { cloud: c, engine: vllm, url: \"http://b/v1\", model: m }\n  \
                d: { cloud: c, engine: vllm, url: \"http://d/v1\", model: m }\nmodels:\n  \
                llama:\n    tiers:\n      - split: { a: 1, d: 1 }\n  other:\n    tiers:\n      - split: { b: 1 }\n";
    let fleet = Arc::new(outrigger::config::load_str(text, Path::new("/")).unwrap().fleet);
    let now = Nanos::from_secs(100);
    let mut rng = Rng::seed_from_u64(1);
    let mut state = State::new(fleet.clone(), now, &mut rng);
    let other = Facts::anonymous(fleet.model_by_name("other").unwrap(), now);
    let Decision::Attempt(attempt) = state.decide(&other, &History::default(), now, &mut rng, &mut ()) else {
        panic!()
    };
    state.observe(Event::Committed { attempt: attempt.id }, now, &mut rng);
    let facts = Facts::anonymous(fleet.model_by_name("llama").unwrap(), now);
    let mut history = History::default();
    for backend in ["a", "b"] {
        history.failed(fleet.backend_by_name(backend).unwrap(), outrigger_core::record::Fault::Status(500));
    }
    let view = serde_json::to_string(&state.view_after(&facts, &history)).unwrap();
    let again = State::from_view(fleet, &facts, serde_json::from_str(&view).unwrap()).unwrap();
    for mut state in [state, again] {
        let decision = state.decide(&facts, &history, now, &mut rng, &mut ());
        assert!(matches!(decision, Decision::Reject(Reject { why: RejectReason::Poison, .. })), "{decision:?}");
    }
}
