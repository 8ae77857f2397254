//! Which of LiteLLM's providers speak OpenAI's dialect, and where.
//!
//! LiteLLM translates for a hundred providers and Outrigger for none, so that this table is the border: what is not in
//! it stays with LiteLLM. Base URLs and variables are those that LiteLLM 1.109 takes by itself
//! (`get_llm_provider_logic.py`), except for clouds whose URL a fleet knows by their name.

/// How a provider is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Somebody's API. Without a URL the cloud's name is enough.
    Hosted { cloud: &'static str, url: Option<&'static str>, variable: &'static str },
    /// An engine at `api_base`, with this behind it.
    Engine { engine: &'static str, default_base: Option<&'static str>, suffix: &'static str },
    /// Speaks a dialect of its own.
    Foreign { help: &'static str },
}

const STAY: &str = "keep this model in LiteLLM, and reach it from the fleet as one more backend: `engine: openai`, the \
                    URL of LiteLLM, and the model's name there";
const AZURE: &str = "where the resource has Azure's v1 API, write `model: openai/DEPLOYMENT` and \
                     `api_base: https://RESOURCE.openai.azure.com/openai/v1`, and import again; otherwise keep this \
                     model in LiteLLM and make LiteLLM a backend of the fleet";
const ANTHROPIC: &str = "for plain chat write `model: openai/MODEL` and `api_base: https://api.anthropic.com/v1` \
                         (Anthropic's endpoint for OpenAI's clients), and import again; otherwise keep this model in \
                         LiteLLM and make LiteLLM a backend of the fleet";
const GEMINI: &str = "write `model: openai/MODEL` and \
                      `api_base: https://generativelanguage.googleapis.com/v1beta/openai`, and import again; otherwise \
                      keep this model in LiteLLM and make LiteLLM a backend of the fleet";

const fn known(cloud: &'static str, variable: &'static str) -> Reach {
    Reach::Hosted { cloud, url: None, variable }
}

const fn hosted(cloud: &'static str, url: &'static str, variable: &'static str) -> Reach {
    Reach::Hosted { cloud, url: Some(url), variable }
}

const fn engine(engine: &'static str) -> Reach {
    Reach::Engine { engine, default_base: None, suffix: "" }
}

const OLLAMA: Reach = Reach::Engine { engine: "openai", default_base: Some("http://localhost:11434"), suffix: "/v1" };

const PROVIDERS: &[(&str, Reach)] = &[
    ("openai", known("openai", "OPENAI_API_KEY")),
    ("text-completion-openai", known("openai", "OPENAI_API_KEY")),
    ("together_ai", known("together", "TOGETHERAI_API_KEY")),
    ("fireworks_ai", known("fireworks", "FIREWORKS_API_KEY")),
    ("groq", known("groq", "GROQ_API_KEY")),
    ("deepinfra", known("deepinfra", "DEEPINFRA_API_KEY")),
    ("openrouter", known("openrouter", "OPENROUTER_API_KEY")),
    ("mistral", known("mistral", "MISTRAL_API_KEY")),
    ("cerebras", hosted("cerebras", "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY")),
    ("deepseek", hosted("deepseek", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY")),
    ("hyperbolic", hosted("hyperbolic", "https://api.hyperbolic.xyz/v1", "HYPERBOLIC_API_KEY")),
    ("lambda_ai", hosted("lambda", "https://api.lambda.ai/v1", "LAMBDA_API_KEY")),
    ("nebius", hosted("nebius", "https://api.studio.nebius.ai/v1", "NEBIUS_API_KEY")),
    ("novita", hosted("novita", "https://api.novita.ai/v3/openai", "NOVITA_API_KEY")),
    ("nvidia_nim", hosted("nvidia-nim", "https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY")),
    ("perplexity", hosted("perplexity", "https://api.perplexity.ai", "PERPLEXITYAI_API_KEY")),
    ("sambanova", hosted("sambanova", "https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY")),
    ("xai", hosted("xai", "https://api.x.ai/v1", "XAI_API_KEY")),
    ("hosted_vllm", engine("vllm")),
    ("vllm", engine("vllm")),
    ("custom_openai", engine("openai")),
    ("litellm_proxy", engine("openai")),
    ("openai_like", engine("openai")),
    ("lm_studio", engine("openai")),
    ("xinference", engine("openai")),
    ("llamafile", Reach::Engine { engine: "openai", default_base: Some("http://127.0.0.1:8080/v1"), suffix: "" }),
    ("ollama", OLLAMA),
    ("ollama_chat", OLLAMA),
    ("huggingface", Reach::Engine { engine: "tgi", default_base: None, suffix: "/v1" }),
    ("azure", Reach::Foreign { help: AZURE }),
    ("azure_ai", Reach::Foreign { help: AZURE }),
    ("azure_text", Reach::Foreign { help: AZURE }),
    ("anthropic", Reach::Foreign { help: ANTHROPIC }),
    ("gemini", Reach::Foreign { help: GEMINI }),
    (
        "auto_router",
        Reach::Foreign {
            help: "ask for one of its models by name; Outrigger does not choose a model by \
                                            what a prompt says",
        },
    ),
];

/// Other providers that LiteLLM knows by their prefix, so that `bedrock/x` is told from a model's own slash.
const FOREIGN: &[&str] = &[
    "a2a",
    "ai21",
    "ai21_chat",
    "aiml",
    "anthropic_text",
    "baseten",
    "bedrock",
    "bytez",
    "clarifai",
    "cloudflare",
    "codestral",
    "cohere",
    "cohere_chat",
    "dashscope",
    "databricks",
    "datarobot",
    "elevenlabs",
    "featherless_ai",
    "friendliai",
    "galadriel",
    "gigachat",
    "github",
    "github_copilot",
    "infinity",
    "jina_ai",
    "maritalk",
    "moonshot",
    "nlp_cloud",
    "nscale",
    "oci",
    "oobabooga",
    "petals",
    "predibase",
    "recraft",
    "replicate",
    "runwayml",
    "sagemaker",
    "sagemaker_chat",
    "snowflake",
    "topaz",
    "triton",
    "vercel_ai_gateway",
    "vertex_ai",
    "vertex_ai_beta",
    "volcengine",
    "voyage",
    "watsonx",
    "watsonx_text",
];

/// Whose model names without a prefix are, as LiteLLM guesses.
const BARE: &[(&str, &str)] = &[
    ("gpt-", "openai"),
    ("chatgpt-", "openai"),
    ("ft:gpt-", "openai"),
    ("o1", "openai"),
    ("o3", "openai"),
    ("o4", "openai"),
    ("text-embedding-", "openai"),
    ("text-davinci", "openai"),
    ("davinci", "openai"),
    ("babbage", "openai"),
    ("claude-", "anthropic"),
    ("gemini-", "gemini"),
    ("command", "cohere"),
];

/// A provider's name and the model without it; `None` for the provider where LiteLLM would not know one either.
pub(super) fn split<'a>(
    model: &'a str,
    custom: Option<&'a str>,
    listed: Option<&'a str>,
) -> (Option<&'a str>, &'a str) {
    let is_known = |name: &str| PROVIDERS.iter().any(|(known, _)| *known == name) || FOREIGN.contains(&name);
    match (custom, model.split_once('/')) {
        (Some(provider), Some((prefix, rest))) if prefix == provider => (Some(provider), rest),
        (Some(provider), _) => (Some(provider), model),
        (None, Some((prefix, rest))) if is_known(prefix) => (Some(prefix), rest),
        _ => {
            let guess = BARE.iter().find(|(start, _)| model.starts_with(start)).map(|(_, provider)| *provider);
            (listed.or(guess), model)
        }
    }
}

pub(super) fn reach(provider: &str) -> Reach {
    PROVIDERS.iter().find(|(known, _)| *known == provider).map_or(Reach::Foreign { help: STAY }, |(_, reach)| *reach)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_told_from_a_models_own_slash() {
        assert_eq!(split("openai/gpt-4o", None, None), (Some("openai"), "gpt-4o"));
        assert_eq!(split("hosted_vllm/meta-llama/Llama", None, None), (Some("hosted_vllm"), "meta-llama/Llama"));
        assert_eq!(split("gpt-3.5-turbo", None, None), (Some("openai"), "gpt-3.5-turbo"));
        assert_eq!(split("mistralai/mistral-7b", None, None), (None, "mistralai/mistral-7b"));
        assert_eq!(split("meta-llama/L", Some("openai"), None), (Some("openai"), "meta-llama/L"));
        assert_eq!(split("openai/m", Some("openai"), None), (Some("openai"), "m"));
        assert_eq!(split("bedrock/us.anthropic", None, None), (Some("bedrock"), "us.anthropic"));
    }
}
