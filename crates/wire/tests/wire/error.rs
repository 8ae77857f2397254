//! OpenAI's error shape out, and every engine's in.

use outrigger_wire::endpoint::Dialect;
use outrigger_wire::error::{BackendNote, ErrorBody, MAX_MESSAGE, UpstreamError};

#[test]
fn our_own_errors() {
    let body = ErrorBody {
        message: "no \"backend\"",
        kind: "server_error",
        param: None,
        code: Some("no_backend"),
        backends: None,
    };
    let text = r#"{"error":{"message":"no \"backend\"","type":"server_error","param":null,"code":"no_backend"}}"#;
    assert_eq!(body.to_bytes(Dialect::Choices), text);
    assert_eq!(body.to_event(Dialect::Choices), format!("data: {text}\n\n"));
    let notes = [
        BackendNote { backend: "cw-llama", reason: "connect_refused", retry_after_s: None },
        BackendNote { backend: "oa-mini", reason: "rate_limited", retry_after_s: Some(20) },
    ];
    let shown = ErrorBody { backends: Some(&notes), ..body };
    assert_eq!(
        shown.to_bytes(Dialect::Choices),
        r#"{"error":{"message":"no \"backend\"","type":"server_error","param":null,"code":"no_backend","backends":[{"backend":"cw-llama","reason":"connect_refused","retry_after_s":null},{"backend":"oa-mini","reason":"rate_limited","retry_after_s":20}]}}"#
    );
}

fn check(body: &str, status: Option<u16>, message: &str, kind: Option<&str>, code: Option<&str>) {
    let error = UpstreamError::read(None, body.as_bytes());
    let expect = UpstreamError {
        status,
        message: message.to_owned(),
        kind: kind.map(str::to_owned),
        code: code.map(str::to_owned),
    };
    assert_eq!(error, expect, "{body}");
}

#[test]
fn every_engines_errors() {
    // vLLM ≥ 0.10, and before.
    check(
        r#"{"error":{"message":"This model's maximum context length is 16 tokens.","type":"BadRequestError","param":null,"code":400}}"#,
        Some(400),
        "This model's maximum context length is 16 tokens.",
        Some("BadRequestError"),
        None,
    );
    check(
        r#"{"object":"error","message":"m","type":"NotFoundError","param":null,"code":404}"#,
        Some(404),
        "m",
        Some("NotFoundError"),
        None,
    );
    // OpenAI
    check(
        r#"{"error":{"message":"too long","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
        Some(400),
        "too long",
        Some("invalid_request_error"),
        Some("context_length_exceeded"),
    );
    // Azure: the status as a string.
    check(r#"{"error":{"code":"429","message":"wait"}}"#, Some(429), "wait", None, None);
    // TGI
    check(
        r#"{"error":"Model is overloaded","error_type":"overloaded"}"#,
        None,
        "Model is overloaded",
        Some("overloaded"),
        None,
    );
    check(r#"{"error":{"message":"bad","http_status_code":422}}"#, Some(422), "bad", None, None);
    // FastAPI
    check(r#"{"detail":"Not Found"}"#, None, "Not Found", None, None);
    check(r#"{"detail":[{"loc":["body"],"msg":"x"}]}"#, None, r#"[{"loc":["body"],"msg":"x"}]"#, None, None);
    // Proxies
    check("upstream connect error or\r\n disconnect", None, "upstream connect error or disconnect", None, None);
    check("<html>\n<h1>502</h1>\n</html>", None, "<html> <h1>502</h1> </html>", None, None);
    check("", None, "an error without a message", None, None);
    check("{}", None, "an error without a message", None, None);
    check(r#"{"error":{"code":17,"message":null}}"#, None, "an error without a message", None, None);
}

#[test]
fn the_http_status_wins_and_fills_in() {
    let error = UpstreamError::read(Some(503), br#"{"error":{"code":500}}"#);
    assert_eq!((error.status, error.message.as_str()), (Some(503), "status 503 without a message"));
}

#[test]
fn messages_are_bounded() {
    for text in ["é".repeat(10_000), format!("{{\"message\":\"{}\"}}", "é ".repeat(10_000))] {
        let message = UpstreamError::read(None, text.as_bytes()).message;
        assert!(message.len() <= MAX_MESSAGE && message.len() > MAX_MESSAGE - 4, "{}", message.len());
    }
}

/// Clients of typed events look for the type outside, too.
#[test]
fn errors_in_the_dialects_of_typed_events() {
    let body = ErrorBody { message: "gone", kind: "upstream_error", param: None, code: Some("cut"), backends: None };
    let typed = r#"{"type":"error","error":{"message":"gone","type":"upstream_error","param":null,"code":"cut"}}"#;
    for dialect in [Dialect::Messages, Dialect::Responses] {
        assert_eq!(body.to_event(dialect), format!("event: error\ndata: {typed}\n\n"));
    }
    assert_eq!(body.to_bytes(Dialect::Messages), typed);
    assert!(!body.to_bytes(Dialect::Responses).starts_with(b"{\"type\""));
}
