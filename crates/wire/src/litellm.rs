//! A body written for LiteLLM's proxy, turned into one for an engine.
//!
//! LiteLLM takes some members of a request for itself: how often to retry, what to log, which tags to match. An engine
//! ignores such a member at best; a hosted API answers 400. They are cut out by their spans, and what is left is the
//! client's bytes. The list is that of LiteLLM 1.109 (`all_litellm_params` and the named arguments of `completion`),
//! without those that only its own code can set.
//!
//! Edges: a body that cannot be read is left as it is, because [`crate::request::parse`] says what is wrong with it.
//! `metadata` is LiteLLM's here, although OpenAI has a member of that name: LiteLLM does not pass it on either.
//! `user` and `priority` are passed on.

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;

use crate::json::{self, Limits, Members};

/// Members that LiteLLM takes for itself, sorted.
const OWNED: &[&str] = &[
    "additional_drop_params",
    "allowed_model_region",
    "allowed_openai_params",
    "api_base",
    "api_key",
    "api_version",
    "base_model",
    "base_url",
    "budget_duration",
    "cache",
    "caching",
    "content_policy_fallbacks",
    "context_window_fallback_dict",
    "context_window_fallbacks",
    "cooldown_time",
    "custom_llm_provider",
    "custom_prompt_dict",
    "deployment_id",
    "disable_fallbacks",
    "drop_params",
    "enable_json_schema_validation",
    "enable_tag_filtering",
    "ensure_alternating_roles",
    "extra_headers",
    "fallbacks",
    "fastest_response",
    "force_timeout",
    "guardrails",
    "headers",
    "input_cost_per_second",
    "input_cost_per_token",
    "litellm_call_id",
    "litellm_credential_name",
    "litellm_metadata",
    "litellm_request_debug",
    "litellm_session_id",
    "litellm_system_prompt",
    "litellm_trace_id",
    "max_budget",
    "max_fallbacks",
    "max_parallel_requests",
    "max_retries",
    "merge_reasoning_content_in_choices",
    "metadata",
    "mock_response",
    "mock_testing_content_policy_fallbacks",
    "mock_testing_context_fallbacks",
    "mock_testing_fallbacks",
    "mock_testing_rate_limit_error",
    "mock_timeout",
    "mock_tool_calls",
    "model_info",
    "model_list",
    "no-log",
    "num_retries",
    "output_cost_per_second",
    "output_cost_per_token",
    "prompt_id",
    "prompt_label",
    "prompt_variables",
    "prompt_version",
    "provider_specific_header",
    "region_name",
    "request_timeout",
    "retry_policy",
    "retry_strategy",
    "routing_strategy",
    "rpm",
    "ssl_verify",
    "stream_timeout",
    "supports_system_message",
    "tags",
    "timeout",
    "tpm",
    "ttl",
    "use_in_pass_through",
    "use_litellm_proxy",
    "user_config",
    "verbose",
];

/// A body without what was meant for LiteLLM, and the part of that which has a meaning here too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adapted {
    pub body: Bytes,
    /// What keeps requests of one conversation together.
    pub session: Option<String>,
    /// The answer that the client wants to get without an engine being asked.
    pub mock: Option<String>,
}

/// Adapts a body; `model`, where the URL names one, is written into it.
pub fn adapt(body: &Bytes, model: Option<&str>, limits: &Limits) -> Adapted {
    let Ok(members) = json::members(body, limits) else {
        return Adapted { body: body.clone(), session: None, mock: None };
    };
    let mut splices = removals(&members);
    splices.extend(model.map(|model| name(&members, model)));
    // What is put in before a member that goes comes first.
    splices.sort_by_key(|(span, _)| (span.start, span.end));
    let adapted = if splices.is_empty() { body.clone() } else { json::spliced(body, &splices).into() };
    Adapted { body: adapted, session: session(&members, *limits), mock: text(&members, "mock_response") }
}

type Splice = (Range<usize>, Vec<u8>);

/// Each member goes together with one comma: the one before it, or after it where nothing is left before.
fn removals(members: &Members<'_>) -> Vec<Splice> {
    let list: Vec<_> = members.iter().collect();
    let mut removals = Vec::new();
    let mut is_first = true;
    for (i, member) in list.iter().enumerate() {
        if OWNED.binary_search(&&*members.key(member)).is_err() {
            is_first = false;
            continue;
        }
        let span = match (is_first, list.get(i + 1)) {
            (true, Some(next)) => member.key.start - 1..next.key.start - 1,
            (true, None) => member.key.start - 1..member.value.end,
            (false, _) => list[i - 1].value.end..member.value.end,
        };
        removals.push((span, Vec::new()));
    }
    removals
}

fn name(members: &Members<'_>, model: &str) -> Splice {
    let mut quoted = Vec::new();
    json::push_string(&mut quoted, model);
    if let Some(member) = members.get("model") {
        return (member.value.clone(), quoted);
    }
    let is_alone = members.iter().all(|member| OWNED.binary_search(&&*members.key(member)).is_ok());
    let mut text = b"\"model\":".to_vec();
    text.append(&mut quoted);
    if !is_alone {
        text.push(b',');
    }
    let at = members.open() + 1;
    (at..at, text)
}

/// `litellm_session_id`, or `session_id` of the metadata.
fn session(members: &Members<'_>, limits: Limits) -> Option<String> {
    text(members, "litellm_session_id").or_else(|| {
        ["metadata", "litellm_metadata"].iter().find_map(|key| {
            let inside = json::members(members.value(members.get(key)?).as_bytes(), &limits).ok()?;
            ["session_id", "litellm_session_id"].iter().find_map(|key| text(&inside, key))
        })
    })
}

fn text(members: &Members<'_>, key: &str) -> Option<String> {
    json::decode(members.value(members.get(key)?)).map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &'static str, model: Option<&str>, expect: &str) -> Adapted {
        let adapted = adapt(&Bytes::from_static(body.as_bytes()), model, &Limits::default());
        assert_eq!(std::str::from_utf8(&adapted.body).unwrap(), expect);
        adapted
    }

    #[test]
    fn the_list_is_sorted() {
        assert!(OWNED.is_sorted());
    }

    #[test]
    fn what_is_litellms_goes_and_the_rest_stays_byte_for_byte() {
        check(r#"{ "model" : "a", "seed":1e0 }"#, None, r#"{ "model" : "a", "seed":1e0 }"#);
        check(r#"{"tags":["x"],"num_retries":3, "model":"a"}"#, None, r#"{"model":"a"}"#);
        check(r#"{"model":"a" , "tags":["x"] , "cache":{} }"#, None, r#"{"model":"a" }"#);
        check(r#"{"tags":[],"model":"a","fallbacks":["b"],"top_k": 3}"#, None, r#"{"model":"a","top_k": 3}"#);
        check(r#"{"metadata":{},"a":1,"model":"a","t\u0061gs":1}"#, None, r#"{"a":1,"model":"a"}"#);
    }

    #[test]
    fn the_urls_model_wins_over_the_bodys() {
        check(r#"{"model":"a","n":1}"#, Some("b/\""), r#"{"model":"b/\"","n":1}"#);
        check(r#"{"n":1}"#, Some("b"), r#"{"model":"b","n":1}"#);
        check(r#"{"tags":[],"n":1}"#, Some("b"), r#"{"model":"b","n":1}"#);
        check(r#"{"tags":[]}"#, Some("b"), r#"{"model":"b"}"#);
        check("{}", Some("b"), r#"{"model":"b"}"#);
    }

    #[test]
    fn what_has_a_meaning_here_is_read() {
        let adapted = check(r#"{"metadata":{"session_id":"s"},"model":"a"}"#, None, r#"{"model":"a"}"#);
        assert_eq!(adapted.session.as_deref(), Some("s"));
        let adapted = check(r#"{"litellm_session_id":"t","mock_response":"hi","model":"a"}"#, None, r#"{"model":"a"}"#);
        assert_eq!((adapted.session.as_deref(), adapted.mock.as_deref()), (Some("t"), Some("hi")));
    }

    #[test]
    fn what_cannot_be_read_is_left_to_the_parser() {
        check("{\"tags\":", None, "{\"tags\":");
        check(r#"{"tags":1,"tags":2}"#, Some("b"), r#"{"tags":1,"tags":2}"#);
    }
}
