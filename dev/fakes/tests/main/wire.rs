//! A client made of a bare socket, so that resets, silence and half chunks are seen as they come; and what it sees of
//! a fake in good health.

use std::{
    io,
    time::{Duration, Instant},
};

use outrigger_fakes::{Fake, Options, Profile};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

pub(crate) const CHAT: &str = "/v1/chat/completions";

pub(crate) async fn fake(profile: Profile) -> Fake {
    Fake::spawn(Options::new(profile)).await.expect("loopback has free ports")
}

/// 100 tokens in 2 s, the first after 20 ms.
pub(crate) fn two_seconds() -> Profile {
    let fixed = outrigger_fakes::Fixed { ttft_ms: 20.0, tokens: 100, total_ms: 2000.0 };
    Profile { fixed: Some(fixed), ..Profile::instant() }
}

pub(crate) fn chat(stream: bool, max_tokens: u32) -> String {
    format!(
        r#"{{"model":"{}","messages":[{{"role":"user","content":"hello"}}],"max_tokens":{max_tokens},"stream":{stream}}}"#,
        outrigger_fakes::LLAMA_70B
    )
}

/// Why a read ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Closed,
    Reset,
    /// Nothing came; see [`patient`].
    Silence,
}

/// Waits for something for 400 ms, in which this process has run: both sides of a connection live in it, so that neither is silent
/// while it waits for the processor. A wait that comes back late does not count.
pub(crate) async fn patient<T>(what: impl Future<Output = T>) -> Option<T> {
    const TURN: Duration = Duration::from_millis(20);
    let mut what = std::pin::pin!(what);
    let mut silent = 0;
    for _ in 0..1_000 {
        let began = Instant::now();
        if let Ok(done) = timeout(TURN, &mut what).await {
            return Some(done);
        }
        silent += u32::from(began.elapsed() < TURN * 2);
        if TURN * silent >= Duration::from_millis(400) {
            return None;
        }
    }
    None
}

pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) async fn connect(fake: &Fake) -> io::Result<Self> {
        match patient(TcpStream::connect(fake.listen_addr())).await {
            Some(connected) => connected.map(Self),
            None => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    pub(crate) async fn post(fake: &Fake, path: &str, body: &str) -> Self {
        Self::post_with(fake, path, body, "").await
    }

    pub(crate) async fn post_with(fake: &Fake, path: &str, body: &str, headers: &str) -> Self {
        let mut raw = Self::connect(fake).await.expect("the fake accepts");
        raw.send(&format!(
            "POST {path} HTTP/1.1\r\nhost: fake\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
        raw
    }

    pub(crate) async fn get(fake: &Fake, path: &str) -> String {
        let mut raw = Self::connect(fake).await.expect("the fake accepts");
        raw.send(&format!("GET {path} HTTP/1.1\r\nhost: fake\r\nconnection: close\r\n\r\n")).await;
        raw.rest().await.0
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.expect("the connection is open");
    }

    /// Reads until `needle` has come.
    pub(crate) async fn until(&mut self, needle: &str) -> String {
        let mut text = String::new();
        while !text.contains(needle) {
            let (piece, end) = self.piece().await;
            text.push_str(&piece);
            assert!(end.is_none(), "{needle:?} did not come before {end:?}: {text}");
        }
        text
    }

    pub(crate) async fn rest(&mut self) -> (String, End) {
        let mut text = String::new();
        loop {
            let (piece, end) = self.piece().await;
            text.push_str(&piece);
            if let Some(end) = end {
                return (text, end);
            }
        }
    }

    async fn piece(&mut self) -> (String, Option<End>) {
        let mut buf = vec![0; 65536];
        match patient(self.0.read(&mut buf)).await {
            None => (String::new(), Some(End::Silence)),
            Some(Err(_)) => (String::new(), Some(End::Reset)),
            Some(Ok(0)) => (String::new(), Some(End::Closed)),
            Some(Ok(n)) => (String::from_utf8_lossy(&buf[..n]).into_owned(), None),
        }
    }
}

pub(crate) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no status in {answer:?}"))
}

pub(crate) fn json(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no body in {answer:?}"));
    serde_json::from_str(body).unwrap_or_else(|e| panic!("{e} in {body:?}"))
}

/// The data of each event, in order.
pub(crate) fn events(answer: &str) -> Vec<&str> {
    answer.lines().filter_map(|line| line.strip_prefix("data: ")).collect()
}

pub(crate) fn content(events: &[&str]) -> String {
    events
        .iter()
        .filter_map(|e| serde_json::from_str::<Value>(e).ok())
        .filter_map(|e| e["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect()
}

#[tokio::test]
async fn a_stream_has_role_tokens_finish_usage_and_done_in_this_order() {
    let fake = fake(Profile::instant()).await;
    let body = chat(true, 3).replace("\"stream\"", "\"stream_options\":{\"include_usage\":true},\"stream\"");
    let (answer, end) = Raw::post(&fake, CHAT, &body).await.rest().await;
    assert_eq!((status(&answer), end), (200, End::Closed));
    let events = events(&answer);
    assert_eq!(content(&events), " t0 t1 t2");
    let kinds: Vec<&str> = events.iter().map(|e| kind(e)).collect();
    assert_eq!(kinds, ["role", "content", "content", "content", "length", "usage", "done"]);
    let usage: Value = serde_json::from_str(events[5]).unwrap();
    assert_eq!(usage["usage"], serde_json::json!({"prompt_tokens": 2, "total_tokens": 5, "completion_tokens": 3}));
}

fn kind(event: &str) -> &'static str {
    if event == "[DONE]" {
        return "done";
    }
    let event: Value = serde_json::from_str(event).unwrap();
    let choice = &event["choices"][0];
    match (choice["finish_reason"].as_str(), choice["delta"]["role"].is_string()) {
        (Some("length"), _) => "length",
        (Some(_), _) => "stop",
        (None, true) => "role",
        (None, false) if event["usage"].is_object() => "usage",
        _ => "content",
    }
}

#[tokio::test]
async fn headers_come_at_once_and_the_role_only_with_the_first_token() {
    let slow = outrigger_fakes::Fixed { ttft_ms: 300.0, tokens: 1, total_ms: 300.0 };
    let fake = fake(Profile { fixed: Some(slow), ..Profile::instant() }).await;
    let mut times = Vec::new();
    // On a busy machine both may be read late and together; a few tries tell.
    while times.len() < 10 {
        let start = Instant::now();
        let mut raw = Raw::post(&fake, CHAT, &chat(true, 1)).await;
        let mut text = raw.until("\r\n\r\n").await;
        assert_eq!(status(&text), 200);
        let (head, is_alone) = (start.elapsed(), !text.contains("data:"));
        text.push_str(&raw.rest().await.0);
        assert!(text.contains("\"role\"") && start.elapsed() > Duration::from_millis(250), "{:?}", start.elapsed());
        if is_alone && head < Duration::from_millis(150) {
            return;
        }
        times.push((head, is_alone));
    }
    panic!("the headers never came first: {times:?}");
}

#[tokio::test]
async fn whole_answers_of_all_three_endpoints_have_exact_usage() {
    let fake = fake(Profile::instant()).await;
    let (answer, _) = Raw::post(&fake, CHAT, &chat(false, 4)).await.rest().await;
    assert_eq!(json(&answer)["choices"][0]["message"]["content"], " t0 t1 t2 t3");
    assert_eq!(json(&answer)["choices"][0]["finish_reason"], "length");
    let body = format!(r#"{{"model":"{}","prompt":"abcdefghi"}}"#, outrigger_fakes::LLAMA_70B);
    let (answer, _) = Raw::post(&fake, "/v1/completions", &body).await.rest().await;
    assert_eq!(json(&answer)["usage"]["prompt_tokens"], 3);
    assert_eq!(json(&answer)["usage"]["completion_tokens"], 16);
    assert_eq!(json(&answer)["choices"][0]["finish_reason"], "stop");
    let body = body.replace("\"prompt\":\"abcdefghi\"", "\"input\":[\"abcd\",\"ef\"]");
    let (answer, _) = Raw::post(&fake, "/v1/embeddings", &body).await.rest().await;
    assert_eq!(json(&answer)["data"].as_array().map(Vec::len), Some(2));
    assert_eq!(json(&answer)["usage"]["prompt_tokens"], 2);
}

#[tokio::test]
async fn errors_have_the_form_of_the_engine() {
    let fake = fake(Profile { api_key: Some("k".into()), ..Profile::instant() }).await;
    let key = "authorization: Bearer k\r\n";
    let (answer, _) = Raw::post(&fake, CHAT, &chat(false, 1)).await.rest().await;
    assert_eq!(status(&answer), 401);
    let (answer, _) = Raw::post_with(&fake, CHAT, "{", key).await.rest().await;
    assert_eq!((status(&answer), &json(&answer)["error"]["code"]), (400, &Value::from(400)));
    let other = chat(false, 1).replace("Llama", "Other");
    let (answer, _) = Raw::post_with(&fake, CHAT, &other, key).await.rest().await;
    assert_eq!((status(&answer), &json(&answer)["error"]["type"]), (404, &Value::from("NotFoundError")));
    let (answer, _) = Raw::post_with(&fake, CHAT, &chat(false, 200_000), key).await.rest().await;
    assert_eq!(status(&answer), 400);
    assert!(answer.contains("maximum context length is 131072"));
    assert_eq!(fake.stats().rejected, 4);
}

#[tokio::test]
async fn a_full_queue_is_a_503_and_a_hosted_api_has_no_health_or_metrics() {
    let one = Profile { max_running: 1, max_queue: Some(0), ..two_seconds() };
    let vllm = fake(one).await;
    let mut running = Raw::post(&vllm, CHAT, &chat(true, 100)).await;
    running.until("t0").await;
    let (answer, _) = Raw::post(&vllm, CHAT, &chat(true, 100)).await.rest().await;
    assert_eq!((status(&answer), &json(&answer)["error"]["code"]), (503, &Value::from(503)));
    let hosted = fake(Profile::hosted()).await;
    for path in ["/health", "/metrics"] {
        assert_eq!(status(&Raw::get(&vllm, path).await), 200);
        assert_eq!(status(&Raw::get(&hosted, path).await), 404);
    }
    assert_eq!(status(&Raw::get(&vllm, "/v1/models/x").await), 404);
    assert_eq!(json(&Raw::get(&hosted, "/v1/models").await)["data"][0]["id"], "gpt-4o-mini");
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_five_seconds() {
    let fake = fake(Profile::instant()).await;
    let mut raw = Raw::connect(&fake).await.unwrap();
    raw.send("GET /health HTTP/1.1\r\nhost: fake\r\n\r\n").await;
    let start = Instant::now();
    raw.until("200 OK").await;
    let mut buf = [0; 1024];
    let closed = timeout(Duration::from_secs(20), raw.0.read(&mut buf)).await.expect("it closes").unwrap();
    let idle = start.elapsed();
    assert!(closed == 0 && (4900..9000).contains(&idle.as_millis()), "{closed} bytes after {idle:?}");
}

#[tokio::test]
async fn metrics_are_in_the_text_format_of_vllm() {
    let fake = fake(two_seconds()).await;
    let mut raw = Raw::post(&fake, CHAT, &chat(true, 100)).await;
    raw.until("t0").await;
    let page = Raw::get(&fake, "/metrics").await;
    let labels = format!("{{engine=\"0\",model_name=\"{}\"}}", outrigger_fakes::LLAMA_70B);
    for line in [format!("vllm:num_requests_running{labels} 1.0"), format!("vllm:num_requests_waiting{labels} 0.0")] {
        assert!(page.contains(&line), "{line} not in {page}");
    }
    for name in ["vllm:kv_cache_usage_perc{", "vllm:prompt_tokens_total{", "vllm:generation_tokens_total{"] {
        assert!(page.contains(name), "{name} not in {page}");
    }
    assert!(page.contains("le=\"+Inf\"} 1.0"), "{page}");
}
