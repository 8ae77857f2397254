//! Large bodies: long prompts, pictures inside them, prompts in tokens. The backend gets the client's bytes with another
//! name for the model, however they come and however often they are sent, and they are not kept twice.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use bytes::Bytes;
use http::Response as Head;
use outrigger_fakes::LLAMA_70B;
use tokio::runtime::Runtime;

use super::{
    Gateway, eventually, hello,
    http::{Recorder, Request, Response, answer, connect, raw},
    one_backend,
};

const MB: usize = 1_000_000;

/// A body and its path: text with `MODEL` once where the name of the model stands.
struct Large {
    path: &'static str,
    text: String,
}

impl Large {
    fn sent(&self) -> String {
        self.text.replacen("MODEL", "llama", 1)
    }

    /// What a backend has to get. A stream is also asked for its usage, at the end.
    fn expected(&self) -> String {
        let text = self.text.replacen("MODEL", LLAMA_70B, 1);
        match text.strip_suffix('}') {
            Some(rest) if text.contains("\"stream\":true") => {
                format!("{rest},\"stream_options\":{{\"include_usage\":true}}}}")
            }
            _ => text,
        }
    }

    fn request(&self) -> Request {
        Request::post(self.path, self.sent())
    }
}

/// About this many bytes in which no two places are alike.
fn filler(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 16);
    for n in 0_u64.. {
        if text.len() >= bytes {
            break;
        }
        text.push_str(&format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    }
    text
}

fn chat(content: &str, model_first: bool, more: &str) -> Large {
    let messages = format!("\"messages\":[{{\"role\":\"user\",\"content\":{content}}}]");
    let model = "\"model\":\"MODEL\"";
    let (first, last) = if model_first { (model, messages.as_str()) } else { (messages.as_str(), model) };
    Large { path: "/v1/chat/completions", text: format!("{{{first},{last}{more}}}") }
}

fn prose(bytes: usize, model_first: bool) -> Large {
    chat(&format!("\"größer \\n\\\"{}\\\" 日本語\"", filler(bytes)), model_first, "")
}

fn picture(bytes: usize) -> Large {
    let url =
        format!("{{\"type\":\"image_url\",\"image_url\":{{\"url\":\"data:image/png;base64,{}\"}}}}", filler(bytes));
    chat(&format!("[{{\"type\":\"text\",\"text\":\"What is this?\"}},{url}]"), false, "")
}

fn tokens(number: usize) -> Large {
    let list: Vec<String> = (0..number).map(|n| (n * 7919 % 128_000).to_string()).collect();
    let text = format!("{{\"prompt\":[{}],\"max_tokens\":1,\"model\":\"MODEL\"}}", list.join(","));
    Large { path: "/v1/completions", text }
}

#[track_caller]
fn same(seen: &[u8], expected: &str) {
    let differ = seen.iter().zip(expected.as_bytes()).position(|(a, b)| a != b);
    assert_eq!((seen.len(), differ), (expected.len(), None), "the lengths, and where the first difference is");
}

#[test]
fn large_bodies_reach_the_backend_byte_for_byte() {
    let recorder = Recorder::start(LLAMA_70B);
    let mut gateway = Gateway::start("bodies-bytes", &one_backend(&recorder.url()));
    // 2 MB of prose is a prompt of 500,000 tokens.
    for large in [prose(10 * MB, true), prose(2 * MB, false), picture(3 * MB), tokens(500_000)] {
        let answer = gateway.send(&large.request());
        assert_eq!(answer.status, 200, "{}", answer.text());
        let got = recorder.last();
        same(&got.body, &large.expected());
        assert_eq!(got.header("content-length"), Some(large.expected().len().to_string().as_str()));
        assert_eq!(got.header("transfer-encoding"), None);
    }
    let streamed = chat(&format!("\"{}\"", filler(MB)), false, ",\"stream\":true");
    gateway.send(&streamed.request());
    same(&recorder.last().body, &streamed.expected());
    gateway.assert_healthy();
}

#[test]
fn a_large_body_in_chunks_is_the_same_body() {
    let recorder = Recorder::start(LLAMA_70B);
    let gateway = Gateway::start("bodies-chunked", &one_backend(&recorder.url()));
    let large = prose(3 * MB, false);
    let mut bytes = chunked_head();
    for piece in large.sent().as_bytes().chunks(77_777) {
        bytes.extend([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
    }
    bytes.extend(b"0\r\n\r\n");
    let answer = Response::parse(&raw(gateway.listen, &bytes, false));
    assert_eq!(answer.status, 200, "{}", answer.text());
    same(&recorder.last().body, &large.expected());
}

fn chunked_head() -> Vec<u8> {
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n".to_vec()
}

/// A backend that dies once it has all of the body: the next one gets all of it again.
#[test]
fn a_large_body_is_sent_again_whole() {
    let (dies, serves) = (Recorder::start(LLAMA_70B), Recorder::start(LLAMA_70B));
    dies.answers("");
    let backend = |name: &str, url: &str| {
        format!("  {name}: {{ cloud: c, engine: vllm, url: \"{url}/v1\", model: {LLAMA_70B}, metrics: none }}\n")
    };
    let fleet = format!(
        "version: 1\nclouds: {{ c: {{}} }}\nbackends:\n{}{}models:\n  llama:\n    tiers:\n      - split: {{ a: 1 }}\n      \
         - split: {{ b: 1 }}\n",
        backend("a", &dies.url()),
        backend("b", &serves.url())
    );
    let gateway = Gateway::start("bodies-again", &fleet);
    let large = prose(5 * MB, false);
    let answer = gateway.send(&large.request());
    assert_eq!((answer.status, answer.header("x-outrigger-backend")), (200, Some("b")), "{}", answer.text());
    for recorder in [&dies, &serves] {
        same(&recorder.last().body, &large.expected());
    }
}

/// Both sides over HTTP/2, where a body goes in frames and as fast as windows allow.
#[test]
fn large_bodies_pass_over_http2() {
    let runtime = Runtime::new().unwrap();
    let (address, came) = http2_backend(&runtime);
    let fleet = one_backend(&format!("http://{address}")).replace("    model:", "    http: 2\n    model:");
    let gateway = Gateway::start("bodies-http2", &fleet);
    for large in [prose(2 * MB, true), picture(MB)] {
        let answer = runtime.block_on(async {
            let client = super::http2::Client::to(gateway.listen).await;
            client.post(large.path, large.sent().as_bytes()).await
        });
        assert_eq!(answer.status, 200);
        let got = came.recv().unwrap();
        same(&got, &large.expected());
    }
}

/// Answers every request, and keeps the bodies of clients.
fn http2_backend(runtime: &Runtime) -> (SocketAddr, std::sync::mpsc::Receiver<Vec<u8>>) {
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let (keep, came) = std::sync::mpsc::channel();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let keep = keep.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let keep = keep.clone();
                    tokio::spawn(async move {
                        let is_a_clients = is_a_clients(&request);
                        let body = read(request.into_body()).await;
                        let head = Head::builder().header("content-type", "application/json").body(()).unwrap();
                        respond.send_response(head, false).unwrap().send_data(completion(), true).unwrap();
                        if is_a_clients {
                            keep.send(body).unwrap();
                        }
                    });
                }
            });
        }
    });
    (address, came)
}

fn is_a_clients<T>(request: &http::Request<T>) -> bool {
    request.method() == http::Method::POST && !request.headers().contains_key("x-outrigger-probe")
}

async fn read(mut from: h2::RecvStream) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(Ok(data)) = from.data().await {
        from.flow_control().release_capacity(data.len()).unwrap();
        body.extend_from_slice(&data);
    }
    body
}

fn completion() -> Bytes {
    let choice = r#"{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}"#;
    format!(r#"{{"id":"1","object":"chat.completion","created":1,"model":"{LLAMA_70B}","choices":[{choice}]}}"#).into()
}

/// A backend that answers probes only, and the bytes of everything else that it has read.
fn silent_backend() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, came) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = came.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let count = count.clone();
            thread::spawn(move || read_on(stream, &count));
        }
    });
    (address, came)
}

fn read_on(mut stream: TcpStream, count: &AtomicUsize) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(n @ 1..) = stream.read(&mut piece) {
        if String::from_utf8_lossy(&piece[..n]).contains("x-outrigger-probe") {
            let text = String::from_utf8(completion().to_vec()).unwrap();
            drop(stream.write_all(&answer("200 OK", "application/json", &text)));
            return;
        }
        count.fetch_add(n, Ordering::Relaxed);
    }
}

#[test]
fn a_body_is_held_once() {
    let (address, came) = silent_backend();
    let gateway = Gateway::start("bodies-memory", &one_backend(&format!("http://{address}")));
    let large = prose(10 * MB, false);
    gateway.send(&Request::post("/v1/chat/completions", "{"));
    let before = gateway.resident_kib();
    gateway.forget_peak();
    let mut client = connect(gateway.listen);
    client.write_all(&large.request().bytes()).unwrap();
    eventually("the backend has all of it", || came.load(Ordering::Relaxed) > large.expected().len());
    let grown = (gateway.peak_kib() - before) as usize * 1024;
    assert!(grown < large.sent().len() * 3 / 2, "{grown} bytes");
}

/// What a body costs beside its bytes must not depend on how many pieces it comes in.
#[test]
fn a_body_that_comes_byte_by_byte_costs_no_more() {
    let recorder = Recorder::start(LLAMA_70B);
    let gateway = Gateway::start("bodies-crumbs", &one_backend(&recorder.url()));
    let mut body = hello();
    body["padding"] = " ".repeat(200_000).into();
    let body = body.to_string();
    gateway.chat(&hello());
    let before = gateway.resident_kib();
    gateway.forget_peak();
    let crumbs = body.bytes().flat_map(|byte| [b'1', b'\r', b'\n', byte, b'\r', b'\n']);
    let bytes: Vec<u8> = chunked_head().into_iter().chain(crumbs).chain(*b"0\r\n\r\n").collect();
    let answer = Response::parse(&raw(gateway.listen, &bytes, false));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(recorder.last().body.len(), body.len() + LLAMA_70B.len() - "llama".len());
    let grown = gateway.peak_kib() - before;
    assert!(grown < 2 << 10, "{grown} KiB for a body of {} bytes", body.len());
}
