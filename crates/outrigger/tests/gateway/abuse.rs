//! Clients that mean harm. Each attack runs beside a bystander, who has to be served all the while; afterwards the
//! process has grown by no more than a stated amount, has used no more processor time than that, and counts nothing in
//! flight, and the attacker's connection is closed.
//!
//! Slow clients of HTTP/1.1 are in [`super::bad_input`], those of HTTP/2 that do nothing in [`super::http2`], and a thousand that
//! read nothing in [`super::stalled`].

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use outrigger_fakes::Fixed;
use serde_json::json;

use super::{
    Engines, Gateway, LLAMA_70B, Profile, eventually,
    frames::{
        self, ACK, CANCEL, CONTINUATION, DATA, END_STREAM, ENHANCE_YOUR_CALM, Frame, GOAWAY, PING, PREFACE, RST_STREAM,
        SETTINGS, reset, window_update,
    },
    hello,
    http::{Recorder, Request, answer, connect},
    http2::{Client, greeted, until},
    one_backend, one_backend_with, streamed,
};

const CHAT: &str = "/v1/chat/completions";

/// Short times, so that the tests are short too.
const SHORT: &str = "gateway:\n  limits: { read_timeout: 1s, write_timeout: 1s }\n";

/// What an attack cost.
#[derive(Debug)]
struct Cost {
    took: Duration,
    cpu: Duration,
    grown_kib: u64,
    /// The bystander's answers, and the longest wait for one.
    asked: usize,
    longest: Duration,
}

impl Cost {
    /// The bystander shares two cores with the attack, the gateway and other tests.
    #[track_caller]
    fn assert_within(&self, cpu: Duration, mib: u64) {
        println!("cost: {self:?}");
        assert!(self.cpu < cpu && self.grown_kib < mib << 10, "{self:?}");
        assert!(self.longest < Duration::from_secs(3), "{self:?}");
    }
}

/// Runs an attack while somebody else asks on and on, who has to be answered every time.
fn beside<T>(gateway: &Gateway, attack: impl FnOnce() -> T) -> (T, Cost) {
    assert_eq!(gateway.chat(&hello()).status, 200);
    let (before, cpu, began) = (gateway.resident_kib(), gateway.cpu(), Instant::now());
    gateway.forget_peak();
    let over = AtomicBool::new(false);
    let (done, waits) = thread::scope(|scope| {
        // Also where the attack panics: the scope waits for the bystander.
        let _over = Raise(&over);
        let bystander = scope.spawn(|| {
            let mut waits = Vec::new();
            loop {
                let asked = Instant::now();
                assert_eq!(gateway.chat(&hello()).status, 200);
                waits.push(asked.elapsed());
                if over.load(Ordering::Relaxed) {
                    return waits;
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
        let done = attack();
        drop(Raise(&over));
        (done, bystander.join().expect("the bystander was served"))
    });
    let cost = Cost {
        took: began.elapsed(),
        cpu: gateway.cpu().saturating_sub(cpu),
        grown_kib: gateway.peak_kib().saturating_sub(before),
        asked: waits.len(),
        longest: waits.into_iter().max().unwrap_or_default(),
    };
    (done, cost)
}

/// Set when this goes.
pub(super) struct Raise<'a>(pub(super) &'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Nothing is left of the attack.
#[track_caller]
pub(super) fn is_quiet(gateway: &mut Gateway) {
    eventually("no connection", || gateway.admin_get("/metrics").text().contains("outrigger_client_connections 0\n"));
    eventually("nothing in flight", || {
        let state = gateway.admin_get("/api/v1/state").json();
        state["backends"].as_array().unwrap().iter().all(|backend| backend["in_flight"] == 0)
    });
    gateway.assert_healthy();
}

/// Sends all of it unless the gateway closes before; `true` if it did.
fn pour(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    match stream.write_all(bytes) {
        Ok(()) => false,
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => panic!("it neither reads nor closes"),
        Err(_) => true,
    }
}

/// Reads to the end of the connection: its goodbye, if it came through, and how many streams it reset.
fn last_of(stream: &mut TcpStream) -> (Option<Frame>, usize) {
    let (mut goodbye, mut resets) = (None, 0);
    while let Some(frame) = Frame::read(stream) {
        resets += usize::from(frame.kind == RST_STREAM);
        if frame.kind == GOAWAY {
            goodbye = Some(frame);
        }
    }
    (goodbye, resets)
}

/// A chat request, whole.
fn chat(stream: u32) -> Vec<u8> {
    chat_with(stream, &hello().to_string())
}

fn chat_with(stream: u32, body: &str) -> Vec<u8> {
    [frames::post(stream, CHAT).bytes(), Frame::new(DATA, END_STREAM, stream, body).bytes()].concat()
}

/// CVE-2023-44487, rapid reset: streams that are opened and reset at once cost their opener nothing, and must not cost us
/// more.
#[test]
fn streams_reset_in_bulk_end_their_connection() {
    let engines = Engines::instant(1);
    let mut gateway = Gateway::start("abuse-rapid", &one_backend(&engines.url(0)));
    let attack: Vec<u8> = (0..50_000)
        .flat_map(|n| [frames::post(2 * n + 1, CHAT).bytes(), reset(2 * n + 1, CANCEL).bytes()].concat())
        .collect();
    let (goodbye, cost) = beside(&gateway, || {
        let mut stream = greeted(&gateway);
        let mut to = stream.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| pour(&mut to, &attack));
            last_of(&mut stream).0
        })
    });
    if let Some(goodbye) = goodbye {
        assert_eq!(goodbye.code(), ENHANCE_YOUR_CALM);
        let served = u32::from_be_bytes(goodbye.payload[..4].try_into().unwrap()).div_ceil(2);
        assert!(served < 1_000, "it went along with {served}");
    }
    cost.assert_within(Duration::from_secs(2), 16);
    assert_eq!(engines.fakes[0].stats().received, cost.asked as u64 + 1, "no more than the bystander's");
    is_quiet(&mut gateway);
}

/// The same at a pace that lets each request begin, so that each costs the backend something.
#[test]
fn requests_given_up_one_after_the_other_end_their_connection() {
    let slow = Profile { fixed: Some(Fixed { ttft_ms: 1_000.0, tokens: 4, total_ms: 2_000.0 }), ..Profile::instant() };
    let engines = Engines::start([Profile::instant(), slow]);
    let second = format!(
        "  s:\n    cloud: c\n    engine: vllm\n    url: {}/v1\n    model: {LLAMA_70B}\nmodels:\n  slow:\n    tiers:\n      - split: {{ \
         s: 1 }}\n",
        engines.url(1)
    );
    let fleet = one_backend(&engines.url(0)).replace("models:\n", &second);
    let mut gateway = Gateway::start("abuse-paced", &fleet);
    let mut body = hello();
    body["model"] = json!("slow");
    let body = body.to_string();
    let (closed_after, cost) = beside(&gateway, || {
        let mut stream = greeted(&gateway);
        (0..3_000).find(|n| {
            let id = 2 * n + 1;
            let begun = pour(&mut stream, &chat_with(id, &body));
            thread::sleep(Duration::from_millis(1));
            begun || pour(&mut stream, &reset(id, CANCEL).bytes())
        })
    });
    assert!(closed_after.is_some_and(|n| n < 1_000), "{closed_after:?}");
    assert!(engines.fakes[1].stats().received < 1_000, "{:?}", engines.fakes[1].stats());
    cost.assert_within(Duration::from_secs(4), 16);
    is_quiet(&mut gateway);
    assert_eq!(engines.fakes[1].stats().in_flight, 0);
}

/// A connection that many people share (a proxy's) sees some of them leave. That is no attack.
#[test]
fn a_connection_on_which_most_are_answered_goes_on() {
    let engines = Engines::instant(1);
    let gateway = Gateway::start("abuse-mixed", &one_backend(&engines.url(0)));
    let mut stream = greeted(&gateway);
    let get = |stream| frames::get(stream, "/healthz").bytes();
    for n in 0..300 {
        let id = 6 * n + 1;
        assert!(!pour(&mut stream, &[chat(id), get(id + 2)].concat()));
        assert!(!pour(&mut stream, &[reset(id, CANCEL).bytes(), get(id + 4), window_update(0, 100).bytes()].concat()));
        let mut answered = 0;
        while answered < 2 {
            let piece = until(&mut stream, DATA).expect("the connection goes on");
            answered += usize::from(piece.stream > id && piece.flags & END_STREAM != 0);
        }
    }
}

/// CVE-2025-8671: streams that the client makes the gateway reset, by a frame that is wrong.
#[test]
fn streams_that_are_wrong_on_purpose_end_their_connection() {
    let engines = Engines::instant(1);
    let mut gateway = Gateway::start("abuse-wrong", &one_backend(&engines.url(0)));
    let attack: Vec<u8> = (0..20_000)
        .flat_map(|n| [frames::post(2 * n + 1, CHAT).bytes(), window_update(2 * n + 1, (1 << 31) - 1).bytes()].concat())
        .collect();
    let ((goodbye, resets), cost) = beside(&gateway, || {
        let mut stream = greeted(&gateway);
        let mut to = stream.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| pour(&mut to, &attack));
            last_of(&mut stream)
        })
    });
    assert!(resets < 1_000, "it went along with {resets}: {goodbye:?}");
    assert!(goodbye.as_ref().is_none_or(|frame| frame.code() == ENHANCE_YOUR_CALM), "{goodbye:?}");
    cost.assert_within(Duration::from_secs(2), 16);
    assert_eq!(engines.fakes[0].stats().received, cost.asked as u64 + 1, "no more than the bystander's");
    is_quiet(&mut gateway);
}

/// CVE-2024-27316 and its like: a head that goes on and on in frames, none of which ends it.
#[test]
fn a_head_that_never_ends_ends_its_connection() {
    let engines = Engines::instant(1);
    let mut gateway = Gateway::start("abuse-continuation", &one_backend(&engines.url(0)));
    let first = Frame { flags: END_STREAM, ..frames::get(1, "/healthz") };
    let field = [&[0][..], &[7], b"x-large", &[127, 129, 126], &[b'x'; 16_256]].concat();
    for (name, block) in
        [("large", field), ("small", [&[0][..], &[1], b"x", &[1], b"y"].concat()), ("empty", Vec::new())]
    {
        let frame = Frame::new(CONTINUATION, 0, 1, block).bytes();
        let many = frame.repeat(if frame.len() > 1_000 { 1_000 } else { 20_000 });
        let ((), cost) = beside(&gateway, || {
            let mut stream = greeted(&gateway);
            // What it does not read may lie in the sockets' buffers.
            pour(&mut stream, &[first.bytes(), many].concat());
            if let Some(goodbye) = last_of(&mut stream).0 {
                assert_eq!(goodbye.code(), ENHANCE_YOUR_CALM, "{name}");
            }
        });
        assert!(cost.took < Duration::from_secs(5), "{name}: {cost:?}");
        cost.assert_within(Duration::from_secs(2), 16);
    }
    is_quiet(&mut gateway);
}

/// Frames that have to be answered, from one who reads the answers and from one who does not.
#[test]
fn floods_of_settings_and_pings_hold_up_nobody() {
    let engines = Engines::instant(1);
    let mut gateway = Gateway::start("abuse-floods", &one_backend_with(SHORT, &engines.url(0)));
    let (ping, settings) = (Frame::new(PING, 0, 0, [7; 8]).bytes(), Frame::new(SETTINGS, 0, 0, []).bytes());
    let ((), cost) = beside(&gateway, || {
        thread::scope(|scope| {
            for (frame, reads) in [(&ping, true), (&settings, true), (&ping, false), (&settings, false)] {
                let stream = greeted(&gateway);
                scope.spawn(move || flood(stream, &frame.repeat(1_000), reads));
            }
        });
    });
    // Nothing that a request is goes on there, so that the connections are idle, however busy.
    assert!(cost.took < Duration::from_secs(8), "{cost:?}");
    cost.assert_within(2 * cost.took, 16);
    is_quiet(&mut gateway);
}

/// Until it is closed.
fn flood(mut stream: TcpStream, many: &[u8], reads: bool) {
    if reads {
        let mut from = stream.try_clone().unwrap();
        thread::spawn(move || io::copy(&mut from, &mut io::sink()));
    }
    let began = Instant::now();
    while !pour(&mut stream, many) {
        assert!(began.elapsed() < Duration::from_secs(15), "it goes along for ever");
    }
}

/// A backend that sends events as fast as they are taken, and how many requests it is sending to.
pub(super) fn hose() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, open) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = open.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let count = count.clone();
            thread::spawn(move || {
                let mut piece = [0; 16 << 10];
                let n = stream.read(&mut piece).unwrap_or(0);
                if String::from_utf8_lossy(&piece[..n]).contains("\"stream\":true") {
                    count.fetch_add(1, Ordering::Relaxed);
                    drop(gush(&mut stream));
                    count.fetch_sub(1, Ordering::Relaxed);
                } else {
                    drop(stream.write_all(&answer("200 OK", "application/json", &completion())));
                }
            });
        }
    });
    (address, open)
}

fn gush(to: &mut TcpStream) -> io::Result<()> {
    let chunk = json!({
        "id": "1", "object": "chat.completion.chunk", "created": 1, "model": LLAMA_70B,
        "choices": [{ "index": 0, "delta": { "content": "x".repeat(1_000) } }],
    });
    let events = format!("data: {chunk}\n\n").repeat(100);
    to.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")?;
    loop {
        to.write_all(events.as_bytes())?;
    }
}

pub(super) fn completion() -> String {
    json!({
        "id": "1", "object": "chat.completion", "created": 1, "model": LLAMA_70B,
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": "hi" }, "finish_reason": "stop" }],
    })
    .to_string()
}

/// A hundred streams whose window is never opened (RFC 9113, 10.5), on a connection on which something else goes on.
#[test]
fn streams_that_are_never_read_are_given_up() {
    let (address, open) = hose();
    let mut gateway = Gateway::start("abuse-unread", &one_backend_with(SHORT, &format!("http://{address}")));
    let ((), cost) = beside(&gateway, || {
        let mut stream = connect(gateway.listen);
        let body = streamed(hello()).to_string();
        let no_window = frames::setting(4, 0).bytes();
        let all: Vec<u8> = (0..100).flat_map(|n| chat_with(2 * n + 1, &body)).collect();
        stream.write_all(&[PREFACE, &no_window, &all].concat()).unwrap();
        // On a slow machine the first are given up before the last have begun. Somebody on the same connection is served, and nobody's neighbour is the reason for his end.
        let (began, mut id, mut from) = (Instant::now(), 1_001, stream.try_clone().unwrap());
        let resets = Arc::new(AtomicUsize::new(0));
        let count = resets.clone();
        thread::spawn(move || {
            while until(&mut from, RST_STREAM).is_some() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        while open.load(Ordering::Relaxed) > 0 || resets.load(Ordering::Relaxed) < 100 {
            assert!(began.elapsed() < Duration::from_secs(20), "{open:?} are still open, {resets:?} were reset");
            assert!(!pour(
                &mut stream,
                &[frames::get(id, "/healthz").bytes(), window_update(id, 100).bytes()].concat()
            ));
            thread::sleep(Duration::from_millis(50));
            id += 2;
        }
        assert_eq!(resets.load(Ordering::Relaxed), 100, "each was reset, and nothing else");
        drop(stream.shutdown(std::net::Shutdown::Both));
    });
    cost.assert_within(Duration::from_secs(6), 96);
    is_quiet(&mut gateway);
}

/// The same of HTTP/1.1.
#[test]
fn a_stream_that_nobody_reads_is_given_up_over_http1_too() {
    let (address, open) = hose();
    let mut gateway = Gateway::start("abuse-unread-1", &one_backend_with(SHORT, &format!("http://{address}")));
    let (stream, cost) = beside(&gateway, || {
        let mut stream = connect(gateway.listen);
        stream.write_all(&Request::chat(&streamed(hello())).bytes()).unwrap();
        eventually("it has begun", || open.load(Ordering::Relaxed) == 1);
        eventually("it is given up", || open.load(Ordering::Relaxed) == 0);
        stream
    });
    assert!(cost.took < Duration::from_secs(8), "{cost:?}");
    cost.assert_within(Duration::from_secs(2), 16);
    drop(stream);
    is_quiet(&mut gateway);
}

/// To wait for the engine, or to read slowly, is not to leave an answer lying.
#[test]
fn who_waits_or_reads_slowly_is_not_given_up() {
    // A token each 1.4 s, which is longer than an answer may lie.
    let slow = Profile { fixed: Some(Fixed { ttft_ms: 10.0, tokens: 3, total_ms: 4_000.0 }), ..Profile::instant() };
    let engines = Engines::start([slow]);
    let waits = Gateway::start("abuse-waits", &one_backend_with(SHORT, &engines.url(0)));
    let recorder = Recorder::start(LLAMA_70B);
    let mut large: serde_json::Value = serde_json::from_str(&completion()).unwrap();
    large["choices"][0]["message"]["content"] = json!("x".repeat(384 << 10));
    recorder.answers(answer("200 OK", "application/json", &large.to_string()));
    let limits = "gateway:\n  limits: { read_timeout: 1s, write_timeout: 5s }\n";
    let reads = Gateway::start("abuse-reads", &one_backend_with(limits, &recorder.url()));

    let waiting = engines.runtime.spawn(async move {
        let client = Client::to(waits.listen).await;
        let mut body = streamed(hello());
        body["max_tokens"] = json!(3);
        let answer = client.post(CHAT, body.to_string().as_bytes()).await;
        drop(waits);
        answer
    });
    let mut stream = greeted(&reads);
    stream.write_all(&chat(1)).unwrap();
    let (began, mut came, mut owed) = (Instant::now(), 0, 0);
    let mut is_over = false;
    while !is_over {
        let frame = Frame::read(&mut stream).expect("the connection goes on");
        assert!(frame.kind != RST_STREAM, "{frame:?} after {came} bytes");
        // The rest is on its way, and for all that the gateway knows, so is the client.
        assert!(frame.kind != GOAWAY || came > 256 << 10, "{frame:?} after {came} bytes");
        if frame.kind == DATA {
            came += frame.payload.len();
            is_over = frame.flags & END_STREAM != 0;
            owed += u32::try_from(frame.payload.len()).unwrap();
            if owed >= 16 << 10 {
                // 128 kB/s.
                thread::sleep(Duration::from_millis(u64::from(owed) / 128));
                stream.write_all(&[window_update(0, owed).bytes(), window_update(1, owed).bytes()].concat()).unwrap();
                owed = 0;
            }
        }
        if frame.kind == PING && frame.flags & ACK == 0 {
            stream.write_all(&Frame::new(PING, ACK, 0, frame.payload).bytes()).unwrap();
        }
    }
    assert!(began.elapsed() > Duration::from_secs(2), "too fast to show anything: {:?}", began.elapsed());
    let answer = engines.runtime.block_on(waiting).unwrap();
    let text = String::from_utf8(answer.body).unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
}

/// A body, a head and a preface of HTTP/2, each a byte at a time.
#[test]
fn who_sends_a_byte_at_a_time_over_http2_is_let_go() {
    let engines = Engines::instant(1);
    let mut gateway = Gateway::start("abuse-slow", &one_backend_with(SHORT, &engines.url(0)));
    let bytes = |frame: fn(u8) -> Vec<u8>| (0..=255).map(frame).collect::<Vec<_>>();
    let begun = |more: &[u8]| [PREFACE, &Frame::new(SETTINGS, 0, 0, []).bytes(), more].concat();
    let open_head = Frame { flags: END_STREAM, ..frames::get(1, "/healthz") }.bytes();
    let attacks = [
        ("preface", Vec::new(), PREFACE.iter().map(|byte| vec![*byte]).collect()),
        ("head", begun(&open_head), bytes(|_| Frame::new(CONTINUATION, 0, 1, []).bytes())),
        ("body", begun(&frames::post(1, CHAT).bytes()), bytes(|_| Frame::new(DATA, 0, 1, [b' ']).bytes())),
    ];
    let ((), cost) = beside(&gateway, || {
        thread::scope(|scope| {
            for (name, first, rest) in attacks {
                let mut stream = connect(gateway.listen);
                scope.spawn(move || {
                    let began = Instant::now();
                    stream.write_all(&first).unwrap();
                    let mut from = stream.try_clone().unwrap();
                    let reader = thread::spawn(move || last_of(&mut from));
                    for piece in rest {
                        if stream.write_all(&piece).is_err() {
                            break;
                        }
                        thread::sleep(Duration::from_millis(100));
                    }
                    reader.join().unwrap();
                    assert!(began.elapsed() < Duration::from_secs(8), "{name}: {:?}", began.elapsed());
                });
            }
        });
    });
    cost.assert_within(Duration::from_secs(2), 8);
    let refused = engines.fakes[0].stats().received - 1 == cost.asked as u64;
    assert!(refused, "none of it is a backend's business");
    let mut stream = greeted(&gateway);
    assert!(until(&mut stream, SETTINGS).is_some(), "and others are let in");
    drop(stream);
    is_quiet(&mut gateway);
}
