//! The faults of connections, statuses and streams, over HTTP/1.1, and how often one strikes.

use std::time::{Duration, Instant};

use outrigger_fakes::{Fault, FaultKind, Outcome, Profile};

use crate::{
    faults::{admin, answer, faulty, outcomes},
    wire::{CHAT, End, Raw, chat, content, events, fake, json, status, two_seconds},
};

/// A request that keeps its connection.
async fn keep(raw: &mut Raw, stream: bool) {
    let body = chat(stream, 10);
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: fake\r\ncontent-length: {}\r\n\r\n", body.len());
    raw.send(&format!("{head}{body}")).await;
}

#[tokio::test]
async fn any_status_has_a_body_and_its_retry_after() {
    for code in [400, 401, 403, 404, 405, 408, 413, 415, 422, 451, 500, 501, 502, 503, 504, 505, 599] {
        let fake = faulty(Fault::with_status(code).retry_after_s(7)).await;
        let (text, end) = answer(&fake, code % 2 == 0).await;
        assert_eq!((status(&text), end, text.contains("retry-after: 7\r\n")), (code, End::Closed, true), "{text}");
        let is_page = matches!(code, 413 | 502 | 504 | 505);
        assert_eq!((is_page, !is_page), (text.contains("<html>"), text.contains("application/json")), "{text}");
        assert_eq!(outcomes(&fake, 0).await, [Outcome::Fault]);
    }
    let bad = json(&answer(&faulty(Fault::with_status(400)).await, false).await.0);
    assert_eq!((&bad["error"]["type"], &bad["error"]["code"]), (&"BadRequestError".into(), &400.into()));
}

#[tokio::test]
async fn a_redirect_leads_to_a_host_that_does_not_exist() {
    let (text, _) = answer(&faulty(Fault::with_status(307)).await, true).await;
    assert_eq!(status(&text), 307);
    assert!(text.contains("location: http://elsewhere.invalid/v1/chat/completions\r\n"), "{text}");
}

#[tokio::test]
async fn refusals_of_a_prompt_have_their_code_in_words() {
    for (kind, code) in
        [(FaultKind::ContextLength, "context_length_exceeded"), (FaultKind::ContentFilter, "content_filter")]
    {
        let (text, _) = answer(&faulty(Fault::new(kind)).await, true).await;
        assert_eq!((status(&text), &json(&text)["error"]["code"]), (400, &code.into()));
    }
}

#[tokio::test]
async fn close_is_an_end_without_a_byte_and_without_a_reset() {
    for kind in [FaultKind::Close, FaultKind::Goaway] {
        let fake = faulty(Fault::new(kind)).await;
        for stream in [true, false] {
            assert_eq!(answer(&fake, stream).await, (String::new(), End::Closed), "{kind:?}");
        }
        assert_eq!(outcomes(&fake, 0).await, [Outcome::Fault; 2]);
    }
}

#[tokio::test]
async fn only_a_kept_connection_is_reset_by_close_reused() {
    let fake = faulty(Fault::new(FaultKind::CloseReused).times(1)).await;
    let mut raw = Raw::connect(&fake).await.unwrap();
    keep(&mut raw, true).await;
    raw.until("[DONE]\n\n\r\n0\r\n\r\n").await;
    keep(&mut raw, true).await;
    assert_eq!(raw.rest().await, (String::new(), End::Reset));
    assert_eq!(answer(&fake, false).await.1, End::Closed);
    assert_eq!(outcomes(&fake, 0).await, [Outcome::Ok, Outcome::Fault, Outcome::Ok]);
    let connections: Vec<u64> = fake.requests_after(0).iter().map(|r| r.connection).collect();
    assert_eq!(connections, [1, 1, 2]);
    assert!(fake.active_faults().is_empty(), "the one strike was the second request");
}

#[tokio::test]
async fn cut_end_closes_inside_a_chunk_and_in_half_a_body() {
    let fake = faulty(Fault::new(FaultKind::CutEnd)).await;
    let (text, end) = answer(&fake, true).await;
    assert_eq!((content(&events(&text)).as_str(), end), (" t0 t1 t2", End::Closed));
    assert!(text.ends_with("f0\r\ndata: {\"id\":\"chatcmpl-"), "{text}");
    let (text, end) = answer(&fake, false).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert_eq!((status(head), end), (200, End::Closed));
    let length: usize = head.split("content-length: ").nth(1).unwrap().split('\r').next().unwrap().parse().unwrap();
    assert!(!body.is_empty() && body.len() < length, "{} of {length}", body.len());
    assert_eq!(outcomes(&fake, 0).await, [Outcome::Fault; 2]);
}

#[tokio::test]
async fn headers_stall_sends_a_head_and_no_body() {
    let fake = faulty(Fault::new(FaultKind::HeadersStall)).await;
    for (stream, header) in [(true, "text/event-stream"), (false, "content-length: 512")] {
        let (text, end) = answer(&fake, stream).await;
        assert_eq!((status(&text), end), (200, End::Silence));
        assert!(text.ends_with("\r\n\r\n") && text.contains(header), "{text}");
    }
    assert_eq!(outcomes(&fake, 0).await, [Outcome::Aborted; 2]);
}

#[tokio::test]
async fn comments_keep_a_stream_alive_that_says_nothing_more() {
    for after in [3, 0] {
        let fake = faulty(Fault::new(FaultKind::Comments).after_tokens(after)).await;
        let mut raw = Raw::post(&fake, CHAT, &chat(true, 10)).await;
        let start = Instant::now();
        let text = raw.until(": ping\n\n").await;
        assert_eq!(content(&events(&text)), [" t0", " t1", " t2"][..after as usize].concat());
        let mut text = String::new();
        while start.elapsed() < Duration::from_millis(600) || text.matches(": ping").count() < 5 {
            text.push_str(&raw.until(": ping\n\n").await);
        }
        // One each 50 ms, and no more often; a busy machine has fewer of them.
        let (pings, took) = (text.matches(": ping").count(), start.elapsed());
        assert!(took >= Duration::from_millis(50) * (pings as u32 - 1), "{pings} in {took:?}: {text}");
        assert!(took < Duration::from_secs(15) && events(&text).is_empty(), "{pings} in {took:?}: {text}");
    }
    let whole = answer(&faulty(Fault::new(FaultKind::Comments)).await, false).await;
    assert_eq!((status(&whole.0), whole.1), (200, End::Closed));
}

#[tokio::test]
async fn a_trickle_is_slow_and_whole() {
    let fake = faulty(Fault::new(FaultKind::Trickle).delay_ms(30)).await;
    for (stream, least) in [(true, 9 * 30), (false, 7 * 30)] {
        let start = Instant::now();
        let (text, end) = answer(&fake, stream).await;
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(least), "{took:?}");
        assert_eq!(end, End::Closed);
        assert!(text.contains(" t9") && (!stream || text.contains("[DONE]")), "{text}");
    }
    assert_eq!(outcomes(&fake, 0).await, [Outcome::Ok; 2]);
}

#[tokio::test]
async fn finish_error_is_a_good_end_but_for_its_reason() {
    let fake = faulty(Fault::new(FaultKind::FinishError).after_tokens(2)).await;
    let (text, end) = answer(&fake, true).await;
    assert_eq!((content(&events(&text)).as_str(), end), (" t0 t1", End::Closed));
    assert!(text.contains("\"finish_reason\":\"error\"") && text.contains("data: [DONE]"), "{text}");
    assert_eq!(json(&answer(&fake, false).await.0)["choices"][0]["finish_reason"], "error");
}

#[tokio::test]
async fn bad_http_is_no_response_at_all() {
    let fake = faulty(Fault::new(FaultKind::BadHttp)).await;
    assert_eq!(answer(&fake, true).await, ("garbage\r\n\r\n".to_owned(), End::Closed));
}

#[tokio::test]
async fn plain_json_answers_a_stream_with_a_whole() {
    let fake = faulty(Fault::new(FaultKind::PlainJson)).await;
    for stream in [true, false] {
        let (text, _) = answer(&fake, stream).await;
        assert!(text.contains("content-type: application/json\r\n"), "{text}");
        assert_eq!(json(&text)["object"], "chat.completion");
    }
    assert_eq!(outcomes(&fake, 0).await, [Outcome::Fault, Outcome::Ok]);
}

#[tokio::test]
async fn goaway_late_asks_for_another_connection_next_time() {
    let fake = faulty(Fault::new(FaultKind::GoawayLate)).await;
    for stream in [true, false] {
        let mut raw = Raw::connect(&fake).await.unwrap();
        keep(&mut raw, stream).await;
        let (text, end) = raw.rest().await;
        assert!(text.contains("connection: close\r\n") && text.contains(" t9"), "{text}");
        assert_eq!(end, End::Closed);
    }
    assert_eq!(outcomes(&fake, 0).await, [Outcome::Ok; 2]);
}

#[tokio::test]
async fn an_error_event_has_the_status_that_it_was_given() {
    let fake = faulty(Fault::new(FaultKind::ErrorEvent).status(429)).await;
    let (text, _) = answer(&fake, true).await;
    let error: serde_json::Value = serde_json::from_str(events(&text)[0]).unwrap();
    assert_eq!((status(&text), &error["error"]["code"]), (200, &429.into()));
    assert_eq!(status(&answer(&fake, false).await.0), 429);
}

#[tokio::test]
async fn a_fault_strikes_as_many_times_as_it_is_set_to() {
    let fake = faulty(Fault::with_status(503).times(2)).await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(status(&answer(&fake, false).await.0));
        if seen.len() == 1 {
            assert_eq!(fake.active_faults()[0].times, Some(1));
        }
    }
    assert_eq!(seen, [503, 503, 200, 200]);
    assert!(fake.active_faults().is_empty());
}

#[tokio::test]
async fn the_new_fields_are_set_over_http_and_wrong_ones_refused() {
    let fake = fake(Profile::instant()).await;
    let set = r#"{"fault":"error_event","status":503,"times":3,"delay_ms":5}"#;
    let listed = json(&admin(&fake, "POST", "/faults", set).await);
    assert_eq!(listed, serde_json::json!([{"fault": "error_event", "status": 503, "times": 3, "delay_ms": 5}]));
    for kind in FaultKind::ALL {
        assert_eq!(kind.name().parse(), Ok(kind));
    }
    for bad in ["\"200\"", "\"600\"", "\"0500\"", "\"+99\"", "500", "\"nonsense\""] {
        let answer = admin(&fake, "POST", "/faults", &format!("{{\"fault\":{bad}}}")).await;
        assert_eq!(status(&answer), 400, "{bad}");
    }
    for bad in [r#""times":0"#, r#""status":200"#, r#""delay_ms":-1"#, r#""delay":1"#] {
        let answer = admin(&fake, "POST", "/faults", &format!("{{\"fault\":\"hang\",{bad}}}")).await;
        assert_eq!(status(&answer), 400, "{bad}");
    }
}

#[tokio::test]
async fn each_record_says_on_which_connection_it_came() {
    let fake = fake(two_seconds()).await;
    let mut kept = Raw::connect(&fake).await.unwrap();
    for _ in 0..2 {
        keep(&mut kept, false).await;
        kept.until(" t9").await;
    }
    answer(&fake, false).await;
    let seen: Vec<(u64, bool)> = fake.requests_after(0).iter().map(|r| (r.connection, r.http2)).collect();
    assert_eq!(seen, [(1, false), (1, false), (2, false)]);
    assert_eq!(outcomes(&fake, 1).await, [Outcome::Ok; 3]);
}
