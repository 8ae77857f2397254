//! What an answer says to a client of its dialect, read by code that shares nothing with the gateway's.
//!
//! The engines number their tokens, so that one lost, repeated or out of order is seen. A stream is whole when its
//! dialect says so, and broken when exactly one error event ends it; everything else is wrong, above all a stream that
//! just ends, or one that says `[DONE]` after less than all.

use serde_json::Value;

use crate::{
    client::Got,
    matrix::{AnswerKind, Endpoint},
    stage::TOKENS,
};

/// What a client could read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub kind: AnswerKind,
    /// The error's code, or its type where it has none.
    pub code: Option<String>,
    /// Why it is wrong.
    pub why: Option<String>,
}

impl Read {
    fn of(kind: AnswerKind) -> Self {
        Self { kind, code: None, why: None }
    }

    fn wrong(why: impl Into<String>) -> Self {
        Self { why: Some(why.into()), ..Self::of(AnswerKind::Wrong) }
    }

    fn error(kind: AnswerKind, error: &Value) -> Self {
        Self { code: code_of(error), ..Self::of(kind) }
    }
}

pub fn read(endpoint: Endpoint, streams: bool, got: &Got) -> Read {
    if got.left {
        return Read::of(AnswerKind::Left);
    }
    match got.status {
        0 => Read::wrong(format!("no answer at all: {}", got.how)),
        200 if streams => stream(endpoint, got),
        200 => whole(endpoint, got),
        _ => refusal(endpoint, got),
    }
}

fn refusal(endpoint: Endpoint, got: &Got) -> Read {
    if !got.ended {
        return Read::wrong(format!("an error that breaks off: {}", got.how));
    }
    match serde_json::from_slice::<Value>(&got.body) {
        Ok(body) if body["error"].is_object() => match (endpoint, &body["type"]) {
            (Endpoint::Messages, kind) if kind != "error" => {
                Read::wrong("an error that is none in Anthropic's dialect")
            }
            _ => Read::error(AnswerKind::Error, &body["error"]),
        },
        _ => Read::wrong(format!("status {} without an error object", got.status)),
    }
}

fn code_of(error: &Value) -> Option<String> {
    [&error["code"], &error["type"]].into_iter().find_map(|value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

fn whole(endpoint: Endpoint, got: &Got) -> Read {
    if !got.ended {
        return Read::wrong(format!("a whole answer that breaks off: {}", got.how));
    }
    let Ok(body) = serde_json::from_slice::<Value>(&got.body) else { return Read::wrong("200 with no JSON") };
    let text = match endpoint {
        Endpoint::Chat => &body["choices"][0]["message"]["content"],
        Endpoint::Completions => &body["choices"][0]["text"],
        Endpoint::Responses => &body["output"][0]["content"][0]["text"],
        Endpoint::Messages => &body["content"][0]["text"],
    };
    match (all_tokens(text.as_str().unwrap_or_default()), body["error"].is_object()) {
        (Ok(()), false) => Read::of(AnswerKind::Whole),
        (Ok(()), true) => Read::wrong("200 with an error"),
        (Err(why), _) => Read::wrong(why),
    }
}

/// ` t0 t1 …` up to the last one.
fn all_tokens(text: &str) -> Result<(), String> {
    match in_order(text)? {
        n if n == TOKENS => Ok(()),
        n => Err(format!("{n} of {TOKENS} tokens")),
    }
}

fn in_order(text: &str) -> Result<u32, String> {
    let mut next = 0;
    for token in text.split(' ').filter(|token| !token.is_empty()) {
        if token != format!("t{next}") {
            return Err(format!("'{token}' where t{next} was due"));
        }
        next += 1;
    }
    Ok(next)
}

/// A stream, as far as it has been read.
#[derive(Debug, Default)]
struct Heard {
    text: String,
    /// Ends of the answer: a finish reason, or the typed event that completes it.
    finishes: u32,
    /// `[DONE]`, where the dialect has it.
    done: u32,
    error: Option<Value>,
    /// Something came after the end.
    after_end: bool,
}

fn stream(endpoint: Endpoint, got: &Got) -> Read {
    let Ok(text) = std::str::from_utf8(&got.body) else { return Read::wrong("not UTF-8") };
    let mut heard = Heard::default();
    let Some((events, rest)) = text.rsplit_once("\n\n") else {
        return Read::wrong("a stream without an event");
    };
    if !rest.trim().is_empty() {
        return Read::wrong("an event that breaks off");
    }
    for event in events.split("\n\n") {
        let data: Vec<&str> =
            event.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim_start).collect();
        if data.is_empty() {
            continue;
        }
        if let Err(why) = heard.event(endpoint, &data.join("\n")) {
            return Read::wrong(why);
        }
    }
    heard.verdict(endpoint, got)
}

impl Heard {
    fn event(&mut self, endpoint: Endpoint, data: &str) -> Result<(), String> {
        self.after_end |= self.done > 0 || self.error.is_some();
        if data == "[DONE]" {
            self.done += 1;
            return Ok(());
        }
        let value: Value = serde_json::from_str(data).map_err(|_| "an event that is no JSON".to_owned())?;
        if let Some(error) = value.get("error").filter(|error| error.is_object()) {
            self.error = Some(error.clone());
            return Ok(());
        }
        let (text, finishes) = match endpoint {
            Endpoint::Chat => {
                (&value["choices"][0]["delta"]["content"], !value["choices"][0]["finish_reason"].is_null())
            }
            Endpoint::Completions => (&value["choices"][0]["text"], !value["choices"][0]["finish_reason"].is_null()),
            Endpoint::Responses if value["type"] == "response.output_text.delta" => (&value["delta"], false),
            Endpoint::Messages if value["type"] == "content_block_delta" => (&value["delta"]["text"], false),
            Endpoint::Responses => (&Value::Null, value["type"] == "response.completed"),
            Endpoint::Messages => (&Value::Null, value["type"] == "message_stop"),
        };
        self.text.push_str(text.as_str().unwrap_or_default());
        self.finishes += u32::from(finishes);
        Ok(())
    }

    fn verdict(self, endpoint: Endpoint, got: &Got) -> Read {
        let order = match in_order(&self.text) {
            Ok(tokens) => tokens,
            Err(why) => return Read::wrong(why),
        };
        let needs_done = matches!(endpoint, Endpoint::Chat | Endpoint::Completions);
        if self.after_end {
            return Read::wrong("something after the end");
        }
        if !got.ended {
            return Read::wrong(format!("the body breaks off: {}", got.how));
        }
        match self.error {
            Some(_) if self.done > 0 => Read::wrong("[DONE] beside an error"),
            Some(error) => Read::error(AnswerKind::Broken, &error),
            None if order != TOKENS => Read::wrong(format!("ends in order after {order} of {TOKENS} tokens")),
            None if self.finishes != 1 => Read::wrong(format!("{} ends of the answer", self.finishes)),
            None if needs_done && self.done != 1 => Read::wrong("no [DONE]"),
            None => Read::of(AnswerKind::Whole),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(events: &[&str], ended: bool) -> Read {
        let body: String = events.iter().map(|data| format!("data: {data}\n\n")).collect();
        read(Endpoint::Chat, true, &Got { status: 200, body: body.into(), ended, ..Got::default() })
    }

    fn tokens(from: u32, to: u32) -> Vec<String> {
        (from..to)
            .map(|n| format!(r#"{{"choices":[{{"delta":{{"content":" t{n}"}},"finish_reason":null}}]}}"#))
            .collect()
    }

    const FINISH: &str = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    const ERROR: &str = r#"{"error":{"message":"m","code":"upstream_cut"}}"#;

    fn stream_of(tokens: &[String], then: &[&str]) -> Read {
        let events: Vec<&str> = tokens.iter().map(String::as_str).chain(then.iter().copied()).collect();
        chat(&events, true)
    }

    #[test]
    fn a_stream_is_whole_with_all_its_tokens_one_end_and_its_done() {
        let all = tokens(0, TOKENS);
        assert_eq!(stream_of(&all, &[FINISH, "[DONE]"]).kind, AnswerKind::Whole);
        for (less, then) in [
            (tokens(0, TOKENS - 1), vec![FINISH, "[DONE]"]),
            (tokens(1, TOKENS), vec![FINISH, "[DONE]"]),
            (all.clone(), vec!["[DONE]"]),
            (all.clone(), vec![FINISH]),
            (all.clone(), vec![FINISH, FINISH, "[DONE]"]),
            ([all.clone(), all.clone()].concat(), vec![FINISH, "[DONE]"]),
            (all.clone(), vec![FINISH, "[DONE]", FINISH]),
        ] {
            assert_eq!(stream_of(&less, &then).kind, AnswerKind::Wrong, "{less:?} {then:?}");
        }
    }

    #[test]
    fn a_broken_stream_ends_with_one_error_and_no_done() {
        let broken = stream_of(&tokens(0, 3), &[ERROR]);
        assert_eq!((broken.kind, broken.code.as_deref()), (AnswerKind::Broken, Some("upstream_cut")));
        assert_eq!(stream_of(&tokens(0, 3), &[ERROR, "[DONE]"]).kind, AnswerKind::Wrong);
        assert_eq!(stream_of(&tokens(0, 3), &["[DONE]", ERROR]).kind, AnswerKind::Wrong);
        assert_eq!(stream_of(&tokens(0, 3), &[]).kind, AnswerKind::Wrong);
        assert_eq!(stream_of(&tokens(0, 3), &["{\"choi"]).kind, AnswerKind::Wrong);
        let events = tokens(0, 3);
        let cut: Vec<&str> = events.iter().map(String::as_str).collect();
        assert_eq!(chat(&cut, false).kind, AnswerKind::Wrong);
    }
}
