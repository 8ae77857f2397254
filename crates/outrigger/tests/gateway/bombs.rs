//! A backend whose answers are small and unpack to very much. The gateway asks for none that is compressed, unpacks none,
//! and does not grow.

use std::{
    fs,
    io::Write as _,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};

use super::{
    Gateway, LLAMA_70B, eventually, hello,
    http::{Recorder, Request, completion},
    one_backend, outrigger, streamed,
};

/// A gigabyte of zeros, as gzip has it: about a megabyte. It is 32 MiB and the same again (RFC 1952, 2.2), since packing a
/// gigabyte takes its time; the first part alone is more than a gateway may grow by.
fn bomb() -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&vec![0; 32 << 20]).unwrap();
    packed.finish().unwrap().repeat(32)
}

fn packed(content_type: &str, coding: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-encoding: {coding}\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.to_vec()].concat()
}

#[test]
fn a_compressed_answer_is_never_unpacked() {
    let bomb = bomb();
    assert!((500_000..2_000_000).contains(&bomb.len()), "{}", bomb.len());
    for content_type in ["application/json", "text/event-stream"] {
        let packed = packed(content_type, "gzip", &bomb);
        let backend = Recorder::saying(completion(LLAMA_70B), packed.clone());
        let name = format!("bomb-{}", content_type.replace('/', "-"));
        let mut gateway = Gateway::start(&name, &(one_backend(&backend.url()) + "routes:\n  /v1/files: b\n"));
        eventually("its metrics were read, which are a bomb, too", || {
            backend.all().iter().any(|r| r.head.starts_with("GET /metrics "))
        });
        let (before, cpu, began) = (gateway.resident_kib(), gateway.cpu(), Instant::now());
        gateway.forget_peak();
        for request in [Request::chat(&hello()), Request::chat(&streamed(hello()))] {
            let response = gateway.send(&request);
            assert_eq!(response.status, 502, "{:?}", response.headers);
            assert_eq!(response.header("content-encoding"), None);
            assert_eq!(backend.last().header("accept-encoding"), Some("identity"), "nobody asked for it");
        }
        // What is handed on as it is stays packed.
        let response = gateway.send(&Request::get("/v1/files/1"));
        assert_eq!((response.status, response.header("content-encoding")), (200, Some("gzip")));
        assert_eq!(response.body, bomb);
        let grown = gateway.peak_kib().saturating_sub(before);
        let cpu = gateway.cpu().saturating_sub(cpu);
        println!("bomb: {content_type}: grown by {grown} KiB, {cpu:?} of the processor in {:?}", began.elapsed());
        assert!(grown < 24 << 10, "it grew by {grown} KiB");
        assert!(cpu < Duration::from_secs(1), "{cpu:?}");
        gateway.assert_healthy();
    }
}

/// `init` and `check --online` read pages of whoever is at the other end, too.
#[test]
fn a_survey_does_not_unpack_either() {
    let answer = packed("application/json", "gzip", &bomb());
    let backend = Recorder::saying(answer.clone(), answer);
    let file = super::folder("bomb-survey").join("fleet.yaml");
    fs::write(&file, one_backend(&backend.url())).unwrap();
    for args in [&["init", &backend.url()][..], &["check", "--online", file.to_str().unwrap()]] {
        let out = outrigger(args, &[]);
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        assert!(out.stdout.len() + out.stderr.len() < 64 << 10, "it says too much");
    }
}
