//! The fixture files, by name.

macro_rules! files {
    ($dir:literal: $($name:literal),+ $(,)?) => {
        &[$(($name, include_bytes!(concat!("fixtures/", $dir, "/", $name)))),+]
    };
}

pub(crate) type Fixture = (&'static str, &'static [u8]);

pub(crate) const STREAMS: &[Fixture] = files!["sse":
    "azure_prompt_filter.sse",
    "framing.sse",
    "llamacpp_chat.sse",
    "llamacpp_error.sse",
    "llamacpp_messages.sse",
    "llamacpp_responses.sse",
    "malformed.sse",
    "openai_chat.sse",
    "sglang_chat.sse",
    "sglang_error.sse",
    "sglang_flat_error.sse",
    "tgi_chat.sse",
    "vllm_0_32_chat.sse",
    "vllm_0_32_completions.sse",
    "vllm_0_32_messages.sse",
    "vllm_0_32_responses.sse",
    "vllm_0_32_tools.sse",
    "vllm_abort.sse",
    "vllm_chat.sse",
    "vllm_completions.sse",
    "vllm_continuous_usage.sse",
    "vllm_error_then_done.sse",
    "vllm_reasoning_and_tools.sse",
];

pub(crate) const BODIES: &[Fixture] = files!["body":
    "llamacpp_chat.json",
    "llamacpp_messages.json",
    "llamacpp_responses.json",
    "openai_embeddings.json",
    "sglang_two_choices.json",
    "truncated.json",
    "vllm_0_32_chat.json",
    "vllm_0_32_completions.json",
    "vllm_0_32_messages.json",
    "vllm_0_32_responses.json",
    "vllm_0_32_tools.json",
    "vllm_chat.json",
    "vllm_error_in_200.json",
];

pub(crate) const ERRORS: &[Fixture] = files!["error":
    "vllm_0_32_model.json",
    "vllm_0_32_parameter.json",
    "vllm_0_32_too_long.json",
    "vllm_0_32_type.json",
];
