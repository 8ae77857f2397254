//! Turns an engine's tokens into an answer, stream or not, and breaks it where a fault says so.
//!
//! A stream is committed before the engine has done any work: 200 and headers go out at once, the role comes with the
//! first token. That is how vLLM behaves, and why a gateway must not take headers for success.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use serde_json::Value;

use crate::{
    answer::{ApiError, Voice, finish_reason},
    body::{AnswerBody, BrokenOff, Out},
    conn::Line,
    engine::{Event, Ticket},
    faults::{Dealt, FaultKind},
    request::Endpoint,
    stats::{Entry, Outcome},
};

/// How long a break waits so that hyper has written what came before it.
const FLUSH: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) voice: Voice,
    pub(crate) ticket: Ticket,
    pub(crate) entry: Entry,
    pub(crate) line: Arc<Line>,
    pub(crate) fault: Option<Dealt>,
    /// Embeddings only.
    pub(crate) inputs: usize,
}

impl Generation {
    pub(crate) fn stream(self) -> Response<AnswerBody> {
        let mut response = Response::new(AnswerBody::written(|out| self.write_stream(out)));
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/event-stream; charset=utf-8"));
        response
    }

    async fn write_stream(mut self, out: Out) -> Result<(), BrokenOff> {
        let mut sent = 0;
        let by_length = loop {
            let event = self.ticket.next().await.ok_or(BrokenOff)?;
            if let Some(fault) = self.fault.filter(|f| f.strikes(sent, event)) {
                match fault.kind {
                    FaultKind::MalformedSse => {
                        out.send("data: {\"id\":\"chatcmpl-broken\",\"choices\":[{\"index\":0,\"delta\":{\"con\n\n")
                            .await;
                        sent += 1;
                        if matches!(event, Event::Token(_)) {
                            continue;
                        }
                    }
                    _ => return self.strike(fault.kind, &out).await,
                }
            }
            match event {
                Event::Token(n) => self.send_token(n, &out).await,
                Event::Finished { by_length } => break by_length,
            }
            sent += 1;
        };
        self.end_stream(sent, by_length, &out).await;
        Ok(())
    }

    async fn send_token(&self, n: u32, out: &Out) {
        if let Some(opening) = self.voice.opening().filter(|_| n == 0) {
            out.send(event(&opening)).await;
        }
        self.entry.token();
        out.send(event(&self.voice.token(n))).await;
    }

    async fn end_stream(self, tokens: u32, by_length: bool, out: &Out) {
        out.send(event(&self.voice.finish(finish_reason(by_length)))).await;
        if self.voice.include_usage {
            out.send(event(&self.voice.usage_event(tokens))).await;
        }
        if self.fault.is_none_or(|f| f.kind != FaultKind::NoDone) {
            out.send("data: [DONE]\n\n").await;
        }
        self.entry.end(outcome(self.fault));
    }

    /// Ends a stream in the way of `kind`.
    async fn strike(self, kind: FaultKind, out: &Out) -> Result<(), BrokenOff> {
        match kind {
            FaultKind::Stall => std::future::pending().await,
            FaultKind::ErrorEvent => {
                out.send(event(&ApiError::internal().body(self.voice.engine))).await;
                out.send("data: [DONE]\n\n").await;
                self.entry.end(Outcome::Fault);
                Ok(())
            }
            FaultKind::Abort => {
                out.send(event(&self.voice.finish("abort"))).await;
                out.send("data: [DONE]\n\n").await;
                self.entry.end(Outcome::Fault);
                Ok(())
            }
            FaultKind::Cut => {
                tokio::time::sleep(FLUSH).await;
                self.line.break_off_after(b"f0\r\ndata: {\"id\":\"chatcmpl-");
                Err(BrokenOff)
            }
            _ => {
                self.entry.end(Outcome::Fault);
                Ok(())
            }
        }
    }

    pub(crate) async fn whole(mut self) -> Result<Response<AnswerBody>, BrokenOff> {
        let mut tokens = 0;
        let by_length = loop {
            match self.ticket.next().await.ok_or(BrokenOff)? {
                Event::Token(_) => tokens += 1,
                Event::Finished { by_length } => break by_length,
            }
            self.entry.token();
        };
        let aborted = self.fault.filter(|f| f.kind == FaultKind::Abort);
        let reason = aborted.map_or(finish_reason(by_length), |_| "abort");
        let answer = match self.voice.endpoint {
            Endpoint::Embeddings => self.voice.embeddings(self.inputs),
            _ => self.voice.complete(tokens, reason),
        };
        Ok(self.deliver(answer.to_string()))
    }

    fn deliver(self, answer: String) -> Response<AnswerBody> {
        match self.fault.map(|f| f.kind) {
            Some(FaultKind::Cut | FaultKind::Stall) => self.deliver_half(answer),
            Some(FaultKind::MalformedSse) => {
                self.entry.end(Outcome::Fault);
                json_response(StatusCode::OK, half(answer))
            }
            Some(FaultKind::ErrorEvent) => {
                self.entry.end(Outcome::Fault);
                let error = ApiError::internal();
                json_response(error.status, error.body(self.voice.engine).to_string())
            }
            _ => {
                // Faults that only a stream can have leave a whole answer as it is, and it counts as complete.
                let told = self.fault.filter(|f| matches!(f.kind, FaultKind::WrongModel | FaultKind::Abort));
                self.entry.end(outcome(told));
                json_response(StatusCode::OK, answer)
            }
        }
    }

    fn deliver_half(self, answer: String) -> Response<AnswerBody> {
        let length = answer.len();
        let Self { entry, line, fault, .. } = self;
        let mut response = Response::new(AnswerBody::written(|out| async move {
            out.send(half(answer)).await;
            if fault.is_some_and(|f| f.kind == FaultKind::Stall) {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(FLUSH).await;
            line.break_off();
            entry.end(Outcome::Fault);
            Err(BrokenOff)
        }));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_LENGTH, length.into());
        response
    }
}

impl Dealt {
    /// Whether it acts now, after `sent` tokens and before `next`. An answer shorter than `after_tokens` is struck
    /// at its end, so that a fault never passes unnoticed.
    fn strikes(self, sent: u32, next: Event) -> bool {
        let at_end = matches!(next, Event::Finished { .. });
        match self.kind {
            FaultKind::MalformedSse => sent == self.after_tokens || (at_end && sent < self.after_tokens),
            FaultKind::Cut | FaultKind::Stall | FaultKind::ErrorEvent | FaultKind::Abort | FaultKind::MissingDone => {
                sent >= self.after_tokens || at_end
            }
            _ => false,
        }
    }
}

fn outcome(fault: Option<Dealt>) -> Outcome {
    if fault.is_some() { Outcome::Fault } else { Outcome::Ok }
}

fn half(mut answer: String) -> String {
    // All that the fake writes is ASCII but for a model's name, so look for a boundary.
    let at = (0..=answer.len() / 2).rev().find(|at| answer.is_char_boundary(*at)).unwrap_or(0);
    answer.truncate(at);
    answer
}

fn event(value: &Value) -> Bytes {
    format!("data: {value}\n\n").into()
}

pub(crate) fn json_response(status: StatusCode, body: impl Into<Bytes>) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
