//! A body that comes, into a file that is nobody's yet, hashed on the way.
//!
//! What the client says of it is held against it: its length, `Content-MD5`, and `x-amz-content-sha256` where that is a hash.
//! `x-amz-checksum-*` are let by. The faults of a body act here before it is hashed, as on a bad way to the store.

use std::{
    io::{self, Write as _},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use md5::{Digest as _, Md5};
use sha2::Sha256;
use tokio::time::sleep;

use crate::{
    conn::{Line, Parting},
    store::{
        chunked::Chunked,
        disk::{Disk, Temporary, hex},
        faults::{Harm, How},
        ledger::Entry,
        refusal::{Refusal, Stop},
    },
};

/// S3's limit for what comes in one request.
const LARGEST: u64 = 5 << 30;

#[derive(Debug)]
pub(super) struct Received {
    pub(super) whole: Temporary,
    pub(super) md5: [u8; 16],
}

impl Received {
    pub(super) fn etag(&self) -> String {
        hex(&self.md5)
    }
}

/// The bytes that a body will be, as far as its head says.
pub(super) fn span(headers: &HeaderMap) -> Range<u64> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
    0..number("x-amz-decoded-content-length").or_else(|| number("content-length")).unwrap_or(0)
}

pub(super) async fn receive(
    disk: &Disk,
    headers: &HeaderMap,
    mut body: Incoming,
    entry: &Entry,
    harm: &Harm,
    line: &Arc<Line>,
) -> Result<Received, Stop> {
    if span(headers).end > LARGEST {
        return Err(Refusal::new(400, "EntityTooLarge", "more than 5 GiB have to come in parts").into());
    }
    let mut intake = Intake::new(disk.temporary()?, headers, harm.flip);
    let mut stop = harm.stop;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Stop::Broken)?;
        let Some(piece) = frame.data_ref() else { continue };
        entry.came(piece.len());
        intake.take(piece)?;
        if let Some(stopping) = stop.take_if(|stopping| intake.size >= stopping.after) {
            match stopping.how {
                How::Close => line.end(Parting::close_after(b"")).await,
                How::Reset => line.end(Parting::reset_after(b"")).await,
                How::Stall(None) => std::future::pending().await,
                How::Stall(Some(time)) => sleep(time).await,
            }
        }
        if let Some(rate) = harm.bytes_per_second {
            sleep(Duration::from_secs_f64(piece.len() as f64 / rate as f64)).await;
        }
    }
    Ok(intake.finish(headers)?)
}

struct Intake {
    to: Temporary,
    /// `None`: the body is as it comes.
    frames: Option<Chunked>,
    md5: Md5,
    /// Only where it was promised.
    sha256: Option<Sha256>,
    size: u64,
    flip: Option<u64>,
}

impl Intake {
    fn new(to: Temporary, headers: &HeaderMap, flip: Option<u64>) -> Self {
        let content = headers.get("x-amz-content-sha256").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let coding = headers.get(header::CONTENT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let framed = content.starts_with("STREAMING-") || coding.contains("aws-chunked");
        Self {
            to,
            frames: framed.then(Chunked::new),
            md5: Md5::new(),
            sha256: promised_sha256(headers).map(|_| Sha256::new()),
            size: 0,
            flip,
        }
    }

    fn take(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        let Some(mut frames) = self.frames.take() else { return Ok(self.store(piece)?) };
        let taken = frames.take(piece, &mut |bytes| self.store(bytes));
        self.frames = Some(frames);
        taken.map_err(|e| match e.kind() {
            io::ErrorKind::InvalidData => Refusal::new(400, "IncompleteBody", e.to_string()),
            _ => e.into(),
        })
    }

    fn store(&mut self, bytes: &[u8]) -> io::Result<()> {
        let place = self.flip.and_then(|flip| flip.checked_sub(self.size)).filter(|at| *at < bytes.len() as u64);
        let flipped = place.map(|at| {
            let mut flipped = bytes.to_vec();
            flipped[at as usize] ^= 1;
            flipped
        });
        let bytes = flipped.as_deref().unwrap_or(bytes);
        self.md5.update(bytes);
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
        self.size += bytes.len() as u64;
        self.to.file.write_all(bytes)
    }

    fn finish(self, headers: &HeaderMap) -> Result<Received, Refusal> {
        let promised = span(headers).end;
        if self.frames.is_some_and(|frames| !frames.ended()) || (promised > 0 && promised != self.size) {
            let why = format!("{promised} bytes were promised and {} came", self.size);
            return Err(Refusal::new(400, "IncompleteBody", why));
        }
        let md5: [u8; 16] = self.md5.finalize().into();
        let promised = headers.get("content-md5").map(|v| BASE64_STANDARD.decode(v.as_bytes()));
        if promised.is_some_and(|promised| promised.as_deref() != Ok(&md5[..])) {
            return Err(Refusal::new(400, "BadDigest", "Content-MD5 is not that of what came"));
        }
        let came = self.sha256.map(|sha256| hex(&sha256.finalize()));
        if came.as_deref() != promised_sha256(headers) {
            let why = "x-amz-content-sha256 is not that of what came";
            return Err(Refusal::new(400, "XAmzContentSHA256Mismatch", why));
        }
        Ok(Received { whole: self.to, md5 })
    }
}

fn promised_sha256(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get("x-amz-content-sha256")?.to_str().ok()?;
    (value.len() == 64 && value.bytes().all(|b| b.is_ascii_hexdigit())).then_some(value)
}
