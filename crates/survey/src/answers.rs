//! Reading what came back: plain functions of bytes.
//!
//! Edges: an engine that says nothing of its tokens is compared by words; one that thinks first is compared by what it
//! thinks, since that is what comes first.

use serde_json::Value;

use crate::questions::{CITIES, TOOL, WORDS};

/// An answer to a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub prompt_tokens: Option<u64>,
    pub text: String,
    /// Its tokens, where they came.
    pub tokens: Option<Vec<String>>,
}

/// How many tokens, or words, two answers have in common from the start, of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    pub same: usize,
    pub of: usize,
}

impl Agreed {
    pub fn is_whole(self) -> bool {
        self.same == self.of
    }
}

/// Whether an engine can do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ability {
    Works,
    /// It refuses, in its own words.
    Refused(String),
    /// It answers, and not as it was asked to.
    Wrong(String),
    /// It had not come to an end when it was stopped, which says nothing.
    Unfinished,
}

/// Reads a chat completion; `None` where it is none.
pub fn answer(body: &[u8]) -> Option<Answer> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let choice = body.pointer("/choices/0")?;
    let message = choice.get("message")?;
    let text = |key: &str| message.get(key).and_then(Value::as_str).unwrap_or_default();
    let thought = [text("reasoning_content"), text("reasoning")].into_iter().find(|text| !text.is_empty());
    let tokens = choice.pointer("/logprobs/content").and_then(Value::as_array).map(|tokens| {
        tokens.iter().map(|token| token.get("token").and_then(Value::as_str).unwrap_or_default().to_owned()).collect()
    });
    Some(Answer {
        prompt_tokens: body.pointer("/usage/prompt_tokens").and_then(Value::as_u64),
        text: format!("{}{}", thought.unwrap_or_default(), text("content")),
        tokens: tokens.filter(|tokens: &Vec<String>| !tokens.is_empty()),
    })
}

/// Compares by tokens where both have them, else by words.
pub fn agreed(one: &Answer, other: &Answer) -> Agreed {
    match (&one.tokens, &other.tokens) {
        (Some(one), Some(other)) => common(one, other),
        _ => {
            let words = |answer: &Answer| answer.text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            common(&words(one), &words(other))
        }
    }
}

fn common(one: &[String], other: &[String]) -> Agreed {
    let same = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    Agreed { same, of: one.len().max(other.len()) }
}

/// Whether the tool was called as it was asked for.
pub fn tool_call(body: &[u8]) -> Ability {
    judged(body, |message| {
        let Some(function) = message.pointer("/tool_calls/0/function") else {
            return Err("answers without a tool call".to_owned());
        };
        if function.get("name").and_then(Value::as_str) != Some(TOOL) {
            return Err("calls a tool that was not asked for".to_owned());
        }
        let arguments = function.get("arguments").and_then(Value::as_str).unwrap_or_default();
        member(arguments, "city", &CITIES).map_err(|why| format!("calls the tool with arguments that {why}"))
    })
}

/// Whether the answer has the form that was asked for.
pub fn in_form(body: &[u8]) -> Ability {
    judged(body, |message| {
        let text = message.get("content").and_then(Value::as_str).unwrap_or_default();
        member(text, "answer", &WORDS).map_err(|why| format!("answers with contents that {why}"))
    })
}

fn judged(body: &[u8], judge: impl Fn(&Value) -> Result<(), String>) -> Ability {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let Some(message) = body.pointer("/choices/0/message") else {
        return Ability::Wrong("answers with something that is no chat completion".to_owned());
    };
    match judge(message) {
        Ok(()) => Ability::Works,
        Err(_) if body.pointer("/choices/0/finish_reason").is_some_and(|why| why == "length") => Ability::Unfinished,
        Err(why) => Ability::Wrong(why),
    }
}

/// Whether the text is an object whose member is one of the words.
fn member(text: &str, name: &str, words: &[&str]) -> Result<(), String> {
    let value: Value = serde_json::from_str(text).map_err(|_| "are not JSON".to_owned())?;
    match value.get(name).and_then(Value::as_str) {
        Some(word) if words.contains(&word) => Ok(()),
        Some(_) => Err(format!("have another `{name}` than the schema allows")),
        None => Err(format!("have no `{name}`, which the schema demands")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn completion(message: &Value, finish: &str) -> Vec<u8> {
        json!({ "choices": [{ "message": message, "finish_reason": finish }], "usage": { "prompt_tokens": 7 } })
            .to_string()
            .into_bytes()
    }

    fn of(tokens: &[&str]) -> Answer {
        let tokens: Vec<String> = tokens.iter().map(|token| (*token).to_owned()).collect();
        Answer { prompt_tokens: Some(7), text: tokens.concat(), tokens: Some(tokens) }
    }

    #[test]
    fn an_answer_has_its_text_its_tokens_and_its_prompts_count() {
        let plain = answer(&completion(&json!({ "content": "a b" }), "stop")).unwrap();
        assert_eq!(plain, Answer { prompt_tokens: Some(7), text: "a b".to_owned(), tokens: None });
        let thought = json!({ "content": null, "reasoning_content": "hm" });
        assert_eq!(answer(&completion(&thought, "length")).unwrap().text, "hm");
        let tokens = json!({ "choices": [{ "message": { "content": "ab" },
            "logprobs": { "content": [{ "token": "a" }, { "token": "b" }] } }] });
        assert_eq!(answer(tokens.to_string().as_bytes()).unwrap().tokens, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(answer(b"<html>"), None);
        assert_eq!(answer(br#"{"choices":[]}"#), None);
    }

    #[test]
    fn answers_agree_as_far_as_their_beginnings_do() {
        let all = of(&["a", "b", "c"]);
        assert_eq!(agreed(&all, &all), Agreed { same: 3, of: 3 });
        assert_eq!(agreed(&all, &of(&["a", "x", "c"])), Agreed { same: 1, of: 3 });
        assert_eq!(agreed(&all, &of(&["a", "b"])), Agreed { same: 2, of: 3 });
        assert!(agreed(&of(&[]), &of(&[])).is_whole());
        let words = |text: &str| Answer { text: text.to_owned(), ..Answer::default() };
        assert_eq!(agreed(&words("one two three"), &words("one  two four")), Agreed { same: 2, of: 3 });
        assert_eq!(agreed(&of(&["one", " two"]), &words("one two")), Agreed { same: 2, of: 2 });
    }

    #[test]
    fn a_tool_call_counts_with_arguments_that_the_schema_allows() {
        let call = |name: &str, arguments: &str| json!({ "tool_calls": [{ "function": { "name": name, "arguments": arguments } }] });
        let judged = |message: Value, finish: &str| tool_call(&completion(&message, finish));
        assert_eq!(judged(call(TOOL, r#"{"city":"Paris"}"#), "tool_calls"), Ability::Works);
        for (message, expect) in [
            (json!({ "content": "sunny" }), "answers without a tool call"),
            (call("other", "{}"), "calls a tool that was not asked for"),
            (call(TOOL, "{city"), "calls the tool with arguments that are not JSON"),
            (call(TOOL, r#"{"city":"Oslo"}"#), "have another `city` than the schema allows"),
            (call(TOOL, "{}"), "have no `city`"),
        ] {
            let Ability::Wrong(why) = judged(message, "stop") else { panic!("{expect}") };
            assert!(why.contains(expect), "{why}");
        }
        assert_eq!(judged(json!({ "content": "let me think" }), "length"), Ability::Unfinished);
        assert!(matches!(tool_call(b"<html>"), Ability::Wrong(_)));
    }

    #[test]
    fn a_form_counts_when_the_text_has_it() {
        let judged = |text: &str, finish: &str| in_form(&completion(&json!({ "content": text }), finish));
        assert_eq!(judged(" {\"answer\": \"yes\"}\n", "stop"), Ability::Works);
        assert_eq!(judged("yes", "stop"), Ability::Wrong("answers with contents that are not JSON".to_owned()));
        assert_eq!(judged("{\"answer\":", "length"), Ability::Unfinished);
    }
}
