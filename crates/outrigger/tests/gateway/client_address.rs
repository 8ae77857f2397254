//! Where requests came from, in the request log; and what the gateway does not serve, said so that a client understands.

use serde_json::json;

use super::{
    Engines, Gateway, eventually, hello,
    http::{Request, raw},
    lock, one_backend, one_backend_with, outrigger, pki,
};

#[test]
fn a_proxy_is_believed_only_if_it_is_trusted() {
    let engines = Engines::instant(1);
    let check = |test: &str, gateway: &str, expected: [&str; 3]| {
        let gateway = Gateway::start(test, &one_backend_with(gateway, &engines.url(0)));
        let request = || Request::chat(&hello());
        assert_eq!(gateway.send(&request()).status, 200);
        assert_eq!(gateway.send(&request().header("x-forwarded-for", "203.0.113.7, 198.51.100.1")).status, 200);
        assert_eq!(gateway.send(&request().header("forwarded", "for=\"[2001:db8::7]:80\"")).status, 200);
        eventually("three lines", || gateway.log().len() == 3);
        let clients: Vec<_> = gateway.log().iter().map(|line| line["client"].clone()).collect();
        assert_eq!(clients, expected, "{test}");
    };
    check("proxies-none", "", ["127.0.0.1"; 3]);
    check("proxies-other", "gateway:\n  trusted_proxies: [192.0.2.0/24]\n", ["127.0.0.1"; 3]);
    let trusted = "gateway:\n  trusted_proxies: [127.0.0.0/8, 198.51.100.1]\n";
    check("proxies-trusted", trusted, ["127.0.0.1", "203.0.113.7", "2001:db8::7"]);
}

#[test]
fn a_network_that_is_none_is_a_fault_at_its_place() {
    let check = |networks: &str, code: i32, kind: &str, expected: &str| {
        let fleet = one_backend_with(&format!("gateway:\n  trusted_proxies: {networks}\n"), "http://127.0.0.1:1");
        let file = pki::write("proxies-check", "fleet.yaml", &fleet);
        let out = outrigger(&["check", file.to_str().unwrap(), "--json"], &[]);
        assert_eq!(out.status.code(), Some(code), "{networks}");
        let found: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(found[kind][0]["code"], expected, "{networks}: {found}");
        assert_eq!(found[kind][0]["line"], 3);
    };
    check("[proxy.internal]", 1, "errors", "bad_address");
    check("[10.0.0.0/33]", 1, "errors", "bad_address");
    check("[10.0.0.0/8, \"::/0\"]", 0, "warnings", "trusts_everyone");
}

#[test]
fn the_realtime_api_is_refused_in_words_that_help() {
    let engines = Engines::instant(1);
    let mut gateway = Gateway::start("realtime", &one_backend(&engines.url(0)));
    let upgrade = |path: &str| {
        Request::get(path)
            .header("connection", "Upgrade")
            .header("upgrade", "WebSocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    let session = Request::post("/v1/realtime/sessions", json!({ "model": "llama" }).to_string());
    let plain = Request::get("/v1/realtime?model=llama");
    for request in [upgrade("/v1/realtime?model=llama"), upgrade("/v1/chat/completions"), plain, session] {
        let answer = gateway.send(&request);
        assert_eq!(answer.status, 501, "{request:?}");
        let error = &answer.json()["error"];
        assert_eq!(error["code"], "realtime_not_supported");
        assert_eq!(error["type"], "invalid_request_error");
        assert!(error["message"].as_str().unwrap().contains("POST /v1/chat/completions"), "{error}");
    }
    // Only WebSockets are meant: a client may offer HTTP/2 in this way, and is served without it.
    let offer = Request::chat(&hello()).header("connection", "close, upgrade").header("upgrade", "h2c");
    assert_eq!(gateway.send(&offer).status, 200);
    let similar = raw(gateway.listen, &Request::get("/v1/realtimes").bytes(), false);
    assert!(similar.starts_with(b"HTTP/1.1 404"), "{}", String::from_utf8_lossy(&similar));
    assert!(!lock(&gateway.stderr).contains("panicked"));
    gateway.assert_healthy();
}
