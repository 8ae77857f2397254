//! Turns an engine's tokens into an answer, stream or not, and breaks it where a fault says so.
//!
//! A stream is committed before the engine has done any work: 200 and headers go out at once, the role comes with the
//! first token. That is how vLLM behaves, and why a gateway must not take headers for success.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use tokio::time::sleep;

use crate::{
    answer::{Finish, Voice},
    body::{AnswerBody, BrokenOff, Out},
    conn::{Line, Parting},
    engine::{Event, Ticket},
    error::ApiError,
    faults::{Dealt, FaultKind},
    refusals::{error_response, json_response},
    request::{Dialect, Endpoint},
    stats::{Entry, Outcome},
};

/// Where a token's event is cut.
const CUT_AT: usize = 22;
const COMMENTS_EVERY: Duration = Duration::from_millis(50);
/// Of a whole answer that trickles.
const PIECES: usize = 8;

#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) voice: Voice,
    pub(crate) ticket: Ticket,
    pub(crate) entry: Entry,
    pub(crate) line: Arc<Line>,
    pub(crate) fault: Option<Dealt>,
    /// What was asked for.
    pub(crate) stream: bool,
    /// Embeddings only.
    pub(crate) inputs: usize,
}

impl Generation {
    pub(crate) fn stream(self) -> Response<AnswerBody> {
        event_stream(AnswerBody::written(|out| self.write_stream(out)))
    }

    async fn write_stream(mut self, out: Out) -> Result<(), BrokenOff> {
        out.send_all(self.voice.at_once()).await;
        let (mut sent, mut is_open) = (0, false);
        let by_length = loop {
            let event = self.ticket.next().await.ok_or(BrokenOff)?;
            let fault = self.fault.filter(|f| f.strikes(sent, event));
            match fault.map(|f| f.kind) {
                None => {}
                Some(FaultKind::GoawayLate) => self.line.retire(),
                Some(FaultKind::MalformedSse) => {
                    out.send(format!("{}\n\n", self.voice.broken_token())).await;
                    sent += 1;
                    if matches!(event, Event::Token(_)) {
                        continue;
                    }
                }
                Some(_) => return self.strike(sent, is_open, &out).await,
            }
            match event {
                Event::Token(n) => self.send_token(n, &mut is_open, &out).await,
                Event::Finished { by_length } => break by_length,
            }
            sent += 1;
        };
        self.end_stream(sent, Finish::natural(by_length), is_open, &out).await;
        Ok(())
    }

    async fn send_token(&self, n: u32, is_open: &mut bool, out: &Out) {
        if let Some(fault) = self.fault.filter(|f| f.kind == FaultKind::Trickle && n > 0) {
            sleep(fault.delay).await;
        }
        // Of choices, only the first token brings the role: a stream in which that is broken has none.
        if !std::mem::replace(is_open, true) && (n == 0 || self.voice.dialect() != Dialect::Choices) {
            out.send_all(self.voice.opening()).await;
        }
        self.entry.token();
        out.send(self.voice.token(n)).await;
    }

    async fn end_stream(self, tokens: u32, finish: Finish, is_open: bool, out: &Out) {
        if !is_open && self.voice.dialect() != Dialect::Choices {
            out.send_all(self.voice.opening()).await;
        }
        out.send_all(self.voice.closing(tokens, finish)).await;
        if self.fault.is_none_or(|f| f.kind != FaultKind::NoDone) {
            out.send_all(self.voice.done()).await;
        }
        self.entry.end(stream_outcome(self.fault, self.voice.dialect()));
    }

    /// Ends a stream in the way of its fault.
    async fn strike(self, sent: u32, is_open: bool, out: &Out) -> Result<(), BrokenOff> {
        let Some(fault) = self.fault else { return Ok(()) };
        match fault.kind {
            FaultKind::Stall => std::future::pending().await,
            FaultKind::Comments => loop {
                out.send(": ping\n\n").await;
                sleep(COMMENTS_EVERY).await;
            },
            FaultKind::ErrorEvent => {
                out.send(self.voice.error(sent, &ApiError::of_status(fault.status))).await;
                out.send_all(self.voice.done()).await;
            }
            FaultKind::Abort => return self.end_early(sent, Finish::Abort, is_open, out).await,
            FaultKind::FinishError => return self.end_early(sent, Finish::Error, is_open, out).await,
            FaultKind::Cut | FaultKind::CutEnd => return self.cut(fault.kind).await,
            // A missing end.
            _ => {}
        }
        self.entry.end(Outcome::Fault);
        Ok(())
    }

    async fn end_early(self, sent: u32, finish: Finish, is_open: bool, out: &Out) -> Result<(), BrokenOff> {
        self.end_stream(sent, finish, is_open, out).await;
        Ok(())
    }

    async fn cut(self, kind: FaultKind) -> Result<(), BrokenOff> {
        let chunk = format!("f0\r\n{}", &self.voice.broken_token()[..CUT_AT]);
        let broken = break_by(kind, &self.line, chunk.as_bytes()).await;
        self.entry.end(Outcome::Fault);
        Err(broken)
    }

    pub(crate) async fn whole(mut self) -> Result<Response<AnswerBody>, BrokenOff> {
        let mut tokens = 0;
        let by_length = loop {
            let event = self.ticket.next().await.ok_or(BrokenOff)?;
            if self.fault.is_some_and(|f| f.kind == FaultKind::GoawayLate && f.strikes(tokens, event)) {
                self.line.retire();
            }
            match event {
                Event::Token(_) => tokens += 1,
                Event::Finished { by_length } => break by_length,
            }
            self.entry.token();
        };
        let finish = match self.fault.map(|f| f.kind) {
            Some(FaultKind::Abort) => Finish::Abort,
            Some(FaultKind::FinishError) => Finish::Error,
            _ => Finish::natural(by_length),
        };
        let answer = match self.voice.endpoint {
            Endpoint::Embeddings => self.voice.embeddings(self.inputs),
            _ => self.voice.whole(tokens, finish),
        };
        Ok(self.deliver(answer.to_string()))
    }

    /// Answers by hand, and ends the answer with its connection.
    pub(crate) async fn without_framing<T>(mut self, says_so: bool) -> T {
        let mut tokens = 0;
        while let Some(Event::Token(_)) = self.ticket.next().await {
            self.entry.token();
            tokens += 1;
        }
        let (kind, body) = if self.stream {
            ("text/event-stream; charset=utf-8", self.all_events(tokens))
        } else {
            ("application/json", self.voice.whole(tokens, Finish::natural(true)).to_string().into_bytes())
        };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n");
        let bytes = [head.as_bytes(), &body].concat();
        self.entry.end(if says_so { Outcome::Ok } else { Outcome::Fault });
        let parting = if says_so { Parting::end_with(bytes) } else { Parting::close_after(&bytes) };
        self.line.end(parting).await
    }

    fn all_events(&self, tokens: u32) -> Vec<u8> {
        let voice = &self.voice;
        let mut events = voice.at_once();
        events.extend(voice.opening());
        events.extend((0..tokens).map(|n| voice.token(n)));
        events.extend(voice.closing(tokens, Finish::natural(true)));
        events.extend(voice.done().map(Bytes::from));
        events.concat()
    }

    fn deliver(self, answer: String) -> Response<AnswerBody> {
        let Some(fault) = self.fault else { return self.deliver_whole(answer, Outcome::Ok) };
        match fault.kind {
            FaultKind::Cut | FaultKind::CutEnd | FaultKind::Stall => self.deliver_half(answer, fault.kind),
            FaultKind::Trickle => self.deliver_slowly(answer, fault.delay),
            FaultKind::MalformedSse => self.deliver_whole(half(answer), Outcome::Fault),
            FaultKind::ErrorEvent => self.deliver_error(&ApiError::of_status(fault.status)),
            FaultKind::FinishError if self.voice.dialect() == Dialect::Messages => {
                self.deliver_error(&ApiError::internal())
            }
            FaultKind::WrongModel | FaultKind::Abort | FaultKind::FinishError => {
                self.deliver_whole(answer, Outcome::Fault)
            }
            FaultKind::PlainJson if self.stream => self.deliver_whole(answer, Outcome::Fault),
            // Faults that only a stream can have leave a whole answer as it is, and it counts as complete.
            _ => self.deliver_whole(answer, Outcome::Ok),
        }
    }

    fn deliver_whole(self, answer: String, outcome: Outcome) -> Response<AnswerBody> {
        self.entry.end(outcome);
        json_response(StatusCode::OK, answer)
    }

    fn deliver_error(self, error: &ApiError) -> Response<AnswerBody> {
        self.entry.end(Outcome::Fault);
        error_response(self.voice.engine, self.voice.dialect(), error)
    }

    fn deliver_half(self, answer: String, kind: FaultKind) -> Response<AnswerBody> {
        let Self { entry, line, .. } = self;
        sized_json(answer.len(), |out| async move {
            out.send(half(answer)).await;
            let broken = break_by(kind, &line, b"").await;
            entry.end(Outcome::Fault);
            Err(broken)
        })
    }

    fn deliver_slowly(self, answer: String, delay: Duration) -> Response<AnswerBody> {
        let entry = self.entry;
        sized_json(answer.len(), |out| async move {
            for (n, piece) in answer.as_bytes().chunks(answer.len().div_ceil(PIECES)).enumerate() {
                if n > 0 {
                    sleep(delay).await;
                }
                out.send(piece.to_vec()).await;
            }
            entry.end(Outcome::Ok);
            Ok(())
        })
    }
}

impl Dealt {
    /// Whether it acts now, after `sent` tokens and before `next`. An answer shorter than `after_tokens` is struck
    /// at its end, so that a fault never passes unnoticed.
    fn strikes(self, sent: u32, next: Event) -> bool {
        let at_end = matches!(next, Event::Finished { .. });
        match self.kind {
            FaultKind::MalformedSse => sent == self.after_tokens || (at_end && sent < self.after_tokens),
            FaultKind::Cut
            | FaultKind::CutEnd
            | FaultKind::Stall
            | FaultKind::Comments
            | FaultKind::ErrorEvent
            | FaultKind::Abort
            | FaultKind::FinishError
            | FaultKind::MissingDone
            | FaultKind::GoawayLate => sent >= self.after_tokens || at_end,
            _ => false,
        }
    }
}

/// 200 and headers, and then nothing for as long as the client waits.
pub(crate) fn stalled(stream: bool, entry: Entry) -> Response<AnswerBody> {
    let wait = |_out| async move {
        let _entry = entry;
        std::future::pending().await
    };
    if stream { event_stream(AnswerBody::written(wait)) } else { sized_json(512, wait) }
}

/// Breaks off what has been sent so far, once it has reached the socket. Never returns for a stall.
async fn break_by(kind: FaultKind, line: &Line, parting: &[u8]) -> BrokenOff {
    line.flushed().await;
    match kind {
        FaultKind::Cut => line.break_off(parting).await,
        FaultKind::CutEnd if line.is_http2() => line.end(Parting::close_after(b"")).await,
        FaultKind::CutEnd => line.end(Parting::close_after(parting)).await,
        _ => std::future::pending().await,
    }
}

fn stream_outcome(fault: Option<Dealt>, dialect: Dialect) -> Outcome {
    match fault.map(|f| f.kind) {
        None | Some(FaultKind::Trickle | FaultKind::GoawayLate) => Outcome::Ok,
        Some(FaultKind::NoDone) if dialect != Dialect::Choices => Outcome::Ok,
        Some(_) => Outcome::Fault,
    }
}

fn half(mut answer: String) -> String {
    // All that the fake writes is ASCII but for a model's name, so look for a boundary.
    let at = (0..=answer.len() / 2).rev().find(|at| answer.is_char_boundary(*at)).unwrap_or(0);
    answer.truncate(at);
    answer
}

fn event_stream(body: AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// JSON of this length, whatever is then written of it.
fn sized_json<W, F>(length: usize, writer: W) -> Response<AnswerBody>
where
    W: FnOnce(Out) -> F,
    F: Future<Output = Result<(), BrokenOff>> + Send + 'static,
{
    let mut response = Response::new(AnswerBody::written(writer));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, length.into());
    response
}
