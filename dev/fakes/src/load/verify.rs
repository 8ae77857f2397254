//! Reads an answer as a strict client would, and says what is wrong with it.
//!
//! A stream is checked while it is read, event by event, so that the time of the first content is known; its text is
//! kept and its numbering checked at the end. Comments (`: keep-alive`) are skipped, unknown keys are ignored, and
//! anything after `[DONE]` is a fault.

use serde::Deserialize;

use super::book::Verdict;

/// Longer than any answer of a fake; a stream that goes on beyond it is wrong.
const MAX_ANSWER: usize = 64 << 20;

#[derive(Debug, Deserialize)]
struct RawAnswer {
    #[serde(default)]
    choices: Vec<RawChoice>,
    usage: Option<RawUsage>,
    error: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct RawChoice {
    delta: Option<RawContent>,
    message: Option<RawContent>,
    finish_reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RawContent {
    content: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RawUsage {
    completion_tokens: u64,
}

/// What the text of an answer has shown so far.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) text: String,
    finish_reasons: Vec<String>,
    usage: Option<u64>,
    pub(super) done: bool,
    error: Option<String>,
    pending: Vec<u8>,
}

impl Reading {
    /// Takes the next bytes of a stream. An error is the reason why the stream is no good.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() + self.text.len() > MAX_ANSWER {
            return Err("an answer without end".into());
        }
        let Some(end) = self.pending.iter().rposition(|b| *b == b'\n') else { return Ok(()) };
        let rest = self.pending.split_off(end + 1);
        let lines = std::mem::replace(&mut self.pending, rest);
        lines.split(|b| *b == b'\n').try_for_each(|line| self.line(line))
    }

    /// Every engine writes an event as one `data:` line, so a line is an event here.
    fn line(&mut self, line: &[u8]) -> Result<(), String> {
        let line = std::str::from_utf8(line).map_err(|_| "not UTF-8")?.trim_end_matches('\r');
        if line.is_empty() || line.starts_with(':') {
            return Ok(());
        }
        let data = line.strip_prefix("data:").ok_or_else(|| format!("not an SSE line: {}", head(line, 80)))?.trim();
        if self.done {
            return Err("an event after [DONE]".into());
        }
        if data == "[DONE]" {
            self.done = true;
            return Ok(());
        }
        self.answer(serde_json::from_str(data).map_err(|e| format!("an event that is not JSON: {e}"))?)
    }

    pub(super) fn whole(&mut self, body: &[u8]) -> Result<(), String> {
        self.answer(serde_json::from_slice(body).map_err(|e| format!("a body that is not JSON: {e}"))?)
    }

    fn answer(&mut self, answer: RawAnswer) -> Result<(), String> {
        if self.error.is_some() {
            return Err("an event after an error".into());
        }
        if let Some(error) = answer.error {
            self.error = Some(error.to_string());
        }
        self.usage = answer.usage.map(|u| u.completion_tokens).or(self.usage);
        for choice in answer.choices {
            let content = choice.delta.or(choice.message).and_then(|c| c.content).unwrap_or_default();
            if !content.is_empty() && !self.finish_reasons.is_empty() {
                return Err("content after the finish reason".into());
            }
            self.text.push_str(&content);
            self.finish_reasons.extend(choice.finish_reason);
        }
        Ok(())
    }

    /// The verdict at the end of a stream. `broken`: it did not end but broke, for this reason.
    pub(super) fn stream_verdict(&self, broken: Option<String>, max_tokens: Option<u32>) -> Verdict {
        match (&self.error, broken) {
            (Some(error), _) if self.done => Verdict::Failed(format!("an error event and then [DONE]: {error}")),
            (Some(error), _) if self.text.is_empty() => Verdict::Failed(format!("an error event at once: {error}")),
            (Some(error), None) => match self.numbering() {
                Ok(_) => Verdict::Cut(error.clone()),
                Err(why) => Verdict::Failed(why),
            },
            (_, Some(why)) => Verdict::Failed(why),
            (None, None) if !self.done => Verdict::Failed("a stream that ended without [DONE]".into()),
            (None, None) => self.whole_verdict(max_tokens),
        }
    }

    pub(super) fn whole_verdict(&self, max_tokens: Option<u32>) -> Verdict {
        match self.check(max_tokens) {
            Ok(()) => Verdict::Ok,
            Err(why) => Verdict::Failed(why),
        }
    }

    fn check(&self, max_tokens: Option<u32>) -> Result<(), String> {
        let tokens = self.numbering()?;
        if tokens == 0 {
            return Err("no content".into());
        }
        let [reason] = self.finish_reasons.as_slice() else {
            return Err(format!("{} finish reasons", self.finish_reasons.len()));
        };
        match (reason.as_str(), max_tokens) {
            ("length", Some(max)) if tokens != u64::from(max) => {
                return Err(format!("{tokens} tokens, though the reason is length and max_tokens {max}"));
            }
            ("length" | "stop", _) => {}
            _ => return Err(format!("finish reason {reason}")),
        }
        match self.usage {
            Some(usage) if usage != tokens => Err(format!("usage says {usage} tokens, {tokens} came")),
            _ => Ok(()),
        }
    }

    /// The number of tokens, if they are t0, t1, … without a gap.
    fn numbering(&self) -> Result<u64, String> {
        let mut expected = 0;
        let mut rest = self.text.as_str();
        while !rest.is_empty() {
            let end = rest[1..].find(' ').map_or(rest.len(), |at| at + 1);
            let (token, tail) = rest.split_at(end);
            match token.strip_prefix(" t").and_then(|n| n.parse::<u64>().ok()) {
                Some(n) if n == expected => {}
                Some(n) if n < expected => return Err(format!("token t{n} repeated, t{expected} expected")),
                Some(n) => return Err(format!("token t{expected} lost, t{n} came")),
                None => return Err(format!("not a token: {:?}", head(token, 40))),
            }
            expected += 1;
            rest = tail;
        }
        Ok(expected)
    }

    pub(super) fn tokens(&self) -> u64 {
        self.text.matches(" t").count() as u64
    }
}

/// The first `limit` characters.
pub(super) fn head(text: &str, limit: usize) -> &str {
    text.char_indices().nth(limit).map_or(text, |(at, _)| &text[..at])
}
