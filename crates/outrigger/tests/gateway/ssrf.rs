//! Where the gateway connects is what the fleet file says, whatever a backend or a client would have it do.
//!
//! The truth is a listener that nothing should come to: it counts the connections that it accepts, and would answer well.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    Engines, Gateway, LLAMA_70B, Start, eventually, hello,
    http::{Recorder, Request, completion, connect, raw},
    http2, one_backend, outrigger, scale, streamed,
};

/// A port that nobody should be led to.
struct Trap {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Trap {
    fn set() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
        let count = connections.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                drop(stream.write_all(&completion(LLAMA_70B)));
            }
        });
        Self { address, connections }
    }

    /// And it would have counted one.
    #[track_caller]
    fn assert_empty(self) {
        // Whoever was sent there does not need longer for it.
        thread::sleep(Duration::from_millis(300));
        assert_eq!(self.connections.load(Ordering::SeqCst), 0, "something connected to the trap");
        drop(connect(self.address));
        eventually("the trap counts", || self.connections.load(Ordering::SeqCst) == 1);
    }
}

/// An answer that leads elsewhere in every way that HTTP has.
fn redirect(status: u16, to: SocketAddr) -> Vec<u8> {
    let url = format!("http://{to}/v1/chat/completions");
    format!(
        "HTTP/1.1 {status} Elsewhere\r\nlocation: {url}\r\ncontent-location: {url}\r\nrefresh: 0;url={url}\r\nlink: \
         <{url}>; rel=\"alternate\"\r\nalt-svc: h2=\"{to}\"; ma=60, h3=\"{to}\"\r\nuri: {url}\r\ncontent-type: \
         application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"
    )
    .into_bytes()
}

/// Each endpoint, what asks for it, and what of a backend's `apis` it is.
const ENDPOINTS: [(&str, &str); 9] = [
    ("chat/completions", r#"{"model":"MODEL","messages":[{"role":"user","content":"x"}]}"#),
    ("chat/completions", r#"{"model":"MODEL","stream":true,"messages":[{"role":"user","content":"x"}]}"#),
    ("completions", r#"{"model":"MODEL","prompt":"x"}"#),
    ("embeddings", r#"{"model":"MODEL","input":"x"}"#),
    ("responses", r#"{"model":"MODEL","input":"x"}"#),
    ("messages", r#"{"model":"MODEL","max_tokens":4,"messages":[{"role":"user","content":"x"}]}"#),
    ("rerank", r#"{"model":"MODEL","query":"x","documents":["y"]}"#),
    ("audio/speech", r#"{"model":"MODEL","input":"x","voice":"v"}"#),
    ("images/generations", r#"{"model":"MODEL","prompt":"x"}"#),
];

/// A model on a backend of its own for each endpoint, so that one that is given up takes none of the others away, and
/// a path that is handed on as it is.
fn fleet(url: &str) -> String {
    let backend = |n: usize| {
        format!(
            "  b{n}:\n    cloud: c\n    engine: vllm\n    url: {url}/v1\n    model: {LLAMA_70B}\n    apis: [chat, completions, \
             embeddings, responses, messages, rerank, audio, images]\n"
        )
    };
    let model = |n: usize| format!("  m{n}:\n    tiers:\n      - split: {{ b{n}: 1 }}\n");
    let (backends, models): (String, String) =
        ((0..ENDPOINTS.len()).map(backend).collect(), (0..ENDPOINTS.len()).map(model).collect());
    format!("version: 1\nclouds:\n  c: {{}}\nbackends:\n{backends}models:\n{models}routes:\n  /v1/files: b0\n")
}

#[test]
fn no_redirect_of_a_backend_is_followed() {
    for status in [300, 301, 302, 303, 307, 308] {
        let trap = Trap::set();
        // Probes are answered well, so that every endpoint is asked.
        let backend = Recorder::saying(completion(LLAMA_70B), redirect(status, trap.address));
        let gateway = Gateway::start(&format!("ssrf-redirect-{status}"), &fleet(&backend.url()));
        for (n, (path, body)) in ENDPOINTS.iter().enumerate() {
            let body = body.replace("MODEL", &format!("m{n}"));
            let response = gateway.send(&Request::post(&format!("/v1/{path}"), body));
            assert_eq!(response.status, 502, "{status} {path}: {}", response.text());
            let shown = format!("{:?}{}", response.headers, response.text());
            assert!(!shown.contains(&trap.address.to_string()), "the client is not led there either: {shown}");
            let came = format!("POST /v1/{path} ");
            assert!(backend.all().iter().any(|r| r.head.starts_with(&came)), "{status}: nobody asked for {path}");
        }
        let response = gateway.send(&Request::get("/v1/files/1"));
        let shown = format!("{}{:?}{}", response.status, response.headers, response.text());
        assert!(response.status == 502 && !shown.contains(&trap.address.to_string()), "{shown}");
        eventually("its metrics are read", || backend.all().iter().any(|r| r.head.starts_with("GET /metrics ")));
        trap.assert_empty();
    }
}

#[test]
fn no_redirect_of_a_probe_a_scrape_or_a_survey_is_followed() {
    for status in [301, 302, 307, 308] {
        let trap = Trap::set();
        let answer = redirect(status, trap.address);
        let backend = Recorder::saying(answer.clone(), answer);
        let gateway = Gateway::start(&format!("ssrf-probe-{status}"), &one_backend(&backend.url()));
        gateway.chat(&hello());
        let probed = |r: &super::http::Received| r.header("x-outrigger-probe").is_some();
        eventually("it is probed, and its metrics are read", || {
            let all = backend.all();
            all.iter().any(probed) && all.iter().any(|r| r.head.starts_with("GET /metrics "))
        });
        let before = backend.all().len();
        let file = gateway.fleet_file().display().to_string();
        let said = outrigger(&["check", "--online", &file], &[]);
        assert_eq!(said.status.code(), Some(1), "{said:?}");
        let asked = backend.all().len();
        assert!(asked > before, "check --online asked");
        let said = outrigger(&["init", &backend.url()], &[]);
        assert_eq!(said.status.code(), Some(1), "{said:?}");
        assert!(backend.all().len() > asked, "init asked");
        trap.assert_empty();
    }
}

/// Here a redirect would turn an order for GPUs into a request of somebody else's choosing.
#[test]
fn no_redirect_of_a_webhook_is_followed() {
    let trap = Trap::set();
    let hook = Recorder::saying(Vec::new(), redirect(307, trap.address));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gateway-ssrf-webhook");
    scale::asked_for(&folder, &[("burst", 8)]);
    let engines = Engines::instant(2);
    let pools = [("burst", format!("webhook: {}/scale\n      dry_run: false", hook.url()))];
    let gateway = Gateway::start("ssrf-webhook", &scale::fleet(&engines, &folder, &pools));
    eventually("the call failed", || scale::calls(&gateway, "burst", "failed") >= 1.0);
    assert!(hook.all()[0].head.starts_with("POST /scale "), "{}", hook.all()[0].head);
    trap.assert_empty();
}

/// Members of a body that other proxies obey, and ones that an engine would have to fetch.
fn members(to: &str) -> String {
    let url = format!("\"{to}/v1\"");
    let fields = [
        "api_base",
        "base_url",
        "api_url",
        "url",
        "endpoint",
        "proxy",
        "host",
        "api_key_url",
        "callback_url",
        "webhook",
        "file_url",
        "image_url",
        "azure_endpoint",
        "organization",
        "custom_llm_provider",
        "user",
        "litellm_proxy",
    ];
    let plain: String = fields.iter().map(|name| format!(",\"{name}\":{url}")).collect();
    format!(
        "{plain},\"metadata\":{{\"api_base\":{url}}},\"litellm_params\":{{\"api_base\":{url}}},\"extra_body\":{{\"base_url\":\
         {url}}},\"model_info\":{{\"base_url\":{url}}},\"user_config\":{{\"model_list\":[{{\"model_name\":\"llama\",\
         \"litellm_params\":{{\"model\":\"openai/x\",\"api_base\":{url}}}}}]}},\"fallbacks\":[{{\"model\":\"llama\",\"api_base\":\
         {url}}}]"
    )
}

/// Requests that name another host in every place where one can stand.
fn led_astray(to: SocketAddr) -> Vec<Vec<u8>> {
    let plain = hello().to_string();
    let body = |body: &str| format!("content-length: {}\r\ncontent-type: application/json\r\n\r\n{body}", body.len());
    let mut all: Vec<String> = Vec::new();
    let mut add = |target: &str, head: &str, text: &str| {
        let host = if head.starts_with("host:") { "" } else { "host: 127.0.0.1\r\n" };
        all.push(format!("POST {target} HTTP/1.1\r\n{host}{head}connection: close\r\n{}", body(text)));
    };
    let chat = "/v1/chat/completions";
    add(chat, &format!("host: {to}\r\n"), &plain);
    add(&format!("http://{to}{chat}"), "", &plain);
    add(&format!("http://{to}{chat}"), &format!("host: {to}\r\n"), &plain);
    add(&format!("//{to}{chat}"), "", &plain);
    add(&format!("/v1/files/../../{to}"), "", &plain);
    add(&format!("/v1/files/@{to}/x"), "", &plain);
    add(&format!("/v1/files/http://{to}/x"), "", &plain);
    add(&format!("{chat}?api_base=http://{to}/v1&url=http://{to}"), "", &plain);
    for name in [
        "x-forwarded-host",
        "x-forwarded-server",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-host",
        "x-original-host",
        "x-original-url",
        "x-rewrite-url",
        "x-real-ip",
        "x-http-host-override",
        "x-envoy-original-dst-host",
        "forwarded",
        "x-outrigger-backend",
        "x-outrigger-url",
        "x-litellm-api-base",
        "x-portkey-custom-host",
        "helicone-target-url",
        "destination",
        "referer",
        "origin",
        "via",
        "x-upstream",
        "x-target-url",
        "openai-base-url",
        "proxy",
        "location",
    ] {
        add(chat, &format!("{name}: http://{to}/v1\r\n"), &plain);
        add(chat, &format!("{name}: {to}\r\n"), &plain);
    }
    let with = |more: &str| format!("{}{more}}}", plain.trim_end_matches('}'));
    add(chat, "", &with(&members(&format!("http://{to}"))));
    for model in [
        format!("http://{to}/v1"),
        format!("openai/http://{to}"),
        format!("llama@{to}"),
        format!("llama?api_base=http://{to}"),
    ] {
        add(chat, "", &plain.replace("\"llama\"", &format!("\"{model}\"")));
    }
    let picture = format!(r#"[{{"type":"image_url","image_url":{{"url":"http://{to}/x.png"}}}}]"#);
    add(chat, "", &plain.replace("\"hello\"", &picture));
    let mut all: Vec<Vec<u8>> = all.into_iter().map(String::into_bytes).collect();
    all.push(format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n\r\n").into_bytes());
    all.push(format!("GET http://{to}/metrics HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n\r\n").into_bytes());
    all
}

#[test]
fn nothing_in_a_request_says_where_the_gateway_connects() {
    let (trap, backend) = (Trap::set(), Recorder::start(LLAMA_70B));
    let fleet = one_backend(&backend.url()) + "routes:\n  /v1/files: b\n";
    let litellm = format!(
        "model_list:\n  - model_name: llama\n    litellm_params: {{ model: hosted_vllm/{LLAMA_70B}, api_base: '{}/v1' }}\n",
        backend.url()
    );
    for (name, text, is_litellm) in [("ssrf-request", &fleet, false), ("ssrf-litellm", &litellm, true)] {
        let gateway = Gateway::start_with(name, &Start { fleet: text, litellm: is_litellm, ..Start::default() });
        let before = backend.all().len();
        for request in led_astray(trap.address) {
            raw(gateway.listen, &request, false);
        }
        let all = backend.all();
        // Most are requests like any other, and were served from where the fleet file says.
        assert!(all.len() > before + 30, "{}", all.len() - before);
        for received in &all {
            assert_eq!(received.header("host"), Some(backend.address.to_string().as_str()), "{}", received.head);
            assert!(
                received
                    .head
                    .lines()
                    .next()
                    .is_some_and(|line| !line.contains("http://") || line.contains("/v1/files/"))
            );
        }
        over_http2(&gateway, trap.address);
        let before = fs::read_to_string(gateway.fleet_file()).unwrap();
        assert_eq!(&before, text, "and nothing is written down");
    }
    trap.assert_empty();
}

/// `:authority` is HTTP/2's host.
fn over_http2(gateway: &Gateway, to: SocketAddr) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listen = gateway.listen;
    let status = runtime.block_on(async move {
        let client = http2::Client::to(listen).await;
        client.post_to(&to.to_string(), "/v1/chat/completions", streamed(hello()).to_string().as_bytes()).await.status
    });
    assert!([200, 502].contains(&status), "{status}");
}
