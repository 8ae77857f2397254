//! The way of a request through the gateway, between in-memory pipes and in paused time, for counting its instructions:
//! `bench/instructions.py` runs it with different numbers and takes the difference.
//!
//! usage: hot_path REQUESTS STREAMS EVENTS
//!
//! The gateway is the real one from its listener's loop to its request log. The client and the engine at either end of
//! it do as little as they can; what they cost is counted too, and is the same every time.

#[path = "../tests/simulated/door.rs"]
mod door;

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use outrigger_core::record::Fault;
use outrigger_gateway::{
    Setup,
    admin::Access,
    events::Outputs,
    litellm::Dialect,
    live::{Loaded, Secrets},
    net::{BoxStream, Connect},
};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
    net::TcpListener,
    time::sleep,
};

use self::door::Door;

const KEY: &str = "sk-hot-path-0123456789abcdef";
const FLEET: &str = "\
version: 1
clouds: { a: {}, b: {} }
backends:
  one: { cloud: a, engine: vllm, url: http://one/v1, model: org/model, metrics: none }
  two: { cloud: b, engine: vllm, url: http://two/v1, model: org/model, metrics: none }
models:
  model: { tiers: [ { split: { one: 1, two: 1 } } ] }
keys:
  team: { sha256: KEY_HASH }
";
const PIPE: usize = 64 << 10;

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).map(|n| n.parse().expect("a number")).collect();
    let [requests, streams, events] = numbers[..] else { panic!("usage: hot_path REQUESTS STREAMS EVENTS") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(run(requests, streams, events));
}

async fn run(requests: usize, streams: usize, events: usize) {
    let door = Arc::new(Door::new());
    let running = outrigger_gateway::start(setup(door.clone(), events).await).expect("the gateway starts");
    let mut client = door.open();
    for _ in 0..requests {
        ask(&mut client, &request(false), b"}}").await;
    }
    for _ in 0..streams {
        ask(&mut client, &request(true), b"0\r\n\r\n").await;
    }
    // To stop in order waits for the log in real time, while paused time runs on: for some millions of instructions.
    drop(running);
    std::process::exit(0);
}

async fn setup(door: Arc<Door>, events: usize) -> Setup {
    let hash: [u8; 32] = Sha256::digest(KEY).into();
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = std::env::temp_dir().join(format!("outrigger-hot-path-{}.yaml", std::process::id()));
    std::fs::write(&path, FLEET.replace("KEY_HASH", &hex)).expect("a place for the fleet file");
    let loaded = outrigger::config::load(&path).expect("the fleet is in order");
    std::fs::remove_file(&path).expect("the fleet file is there");
    Setup {
        loaded: Loaded {
            fleet: Arc::new(loaded.fleet),
            secrets: Secrets { key_hashes: vec![vec![hash]], ..Secrets::default() },
        },
        data: door,
        tls: None,
        admin: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port"),
        connector: Arc::new(Engines { events }),
        outputs: Outputs { requests: Some(Box::new(io::sink())), decisions: None },
        access: Access { token: None },
        reload: Arc::new(|| Err("there is no other fleet".to_owned())),
        watched: None,
        dialect: Dialect::default(),
        seed: 1,
    }
}

fn request(stream: bool) -> Vec<u8> {
    let prompt = "All work and no play makes Jack a dull boy. ".repeat(18);
    let body = format!(
        r#"{{"model":"model","messages":[{{"role":"user","content":"{prompt}"}}],"max_tokens":512,"stream":{stream}}}"#
    );
    let length = body.len();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {KEY}\r\nuser-agent: hot-path\r\n\
         accept: application/json\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    [head, body].concat().into_bytes()
}

async fn ask(client: &mut BoxStream, request: &[u8], ends_with: &[u8]) {
    client.write_all(request).await.expect("the gateway reads");
    let mut answer = Vec::with_capacity(PIPE);
    while !answer.ends_with(ends_with) {
        let n = client.read_buf(&mut answer).await.expect("the gateway answers");
        assert!(n > 0, "the gateway closed: {}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Engines that answer from memory.
#[derive(Debug)]
struct Engines {
    events: usize,
}

impl Connect for Engines {
    fn connect<'a>(&'a self, _host: &'a str, _port: u16) -> BoxFuture<'a, Result<BoxStream, Fault>> {
        Box::pin(async move {
            let (near, far) = duplex(PIPE);
            tokio::spawn(engine(Box::new(far), self.events));
            Ok(Box::new(near) as BoxStream)
        })
    }

    fn addresses<'a>(&'a self, _host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, Fault>> {
        Box::pin(async { Err(Fault::Dns) })
    }
}

async fn engine(mut stream: BoxStream, events: usize) {
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(16);
    let whole = format!(
        r#"{{"id":"chatcmpl-0","object":"chat.completion","created":1764000000,"model":"org/model","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":200,"total_tokens":360,"completion_tokens":160}}}}"#
    );
    let whole =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{whole}", whole.len());
    let event = |delta: &str, finish: &str| {
        let data = format!(
            r#"data: {{"id":"chatcmpl-0","object":"chat.completion.chunk","created":1764000000,"model":"org/model","choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}]}}"#
        ) + "\n\n";
        format!("{:x}\r\n{data}\r\n", data.len())
    };
    let (token, last) = (event(r#"{"content":" token"}"#, "null"), event("{}", r#""stop""#));
    let end = format!("{last}e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
    let mut came = Vec::with_capacity(PIPE);
    while stream.read_buf(&mut came).await.is_ok_and(|n| n > 0) {
        // Every request of the client and of the gateway's own probes ends with its body's last brace.
        if !came.ends_with(b"}") && !came.starts_with(b"GET ") {
            continue;
        }
        let streams = came.windows(13).any(|w| w == br#""stream":true"#);
        came.clear();
        if !streams {
            drop(stream.write_all(whole.as_bytes()).await);
            continue;
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        drop(stream.write_all(head.as_bytes()).await);
        for _ in 0..events {
            sleep(Duration::from_millis(1)).await;
            drop(stream.write_all(token.as_bytes()).await);
        }
        drop(stream.write_all(end.as_bytes()).await);
    }
}
