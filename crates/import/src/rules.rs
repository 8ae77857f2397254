//! Keys of LiteLLM's that no code here reads: what becomes of each, why, and what to do.
//!
//! A table, so that a key that is missing is a line and that the reasons can be read as one list. What it does not name
//! gets the verdict of its section: an unknown setting of a deployment is a parameter that LiteLLM would add to
//! requests, so that it is refused; an unknown setting of the proxy concerns the proxy.

use super::report::Verdict::{self, Approximated, Ignored, Refused};

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Top,
    Deployment,
    Params,
    Info,
    Router,
    LiteLlm,
    General,
}

pub(super) struct Rule {
    pub(super) verdict: Verdict,
    pub(super) message: &'static str,
    pub(super) help: &'static str,
}

/// Where it stands, the keys with spaces between them, and what to say.
struct Row(&'static [Section], &'static str, Rule);

const fn rule(verdict: Verdict, message: &'static str, help: &'static str) -> Rule {
    Rule { verdict, message, help }
}

const SETTINGS: &[Section] = &[Section::Router, Section::LiteLlm, Section::General];
const CALLS: &[Section] = &[Section::Router, Section::LiteLlm, Section::Params];
const DEPLOYMENT: &[Section] = &[Section::Params, Section::Info, Section::Deployment];

const RULES: &[Row] = &[
    Row(
        CALLS,
        "num_retries max_retries retry_policy model_group_retry_policy retry_strategy",
        rule(
            Approximated,
            "Outrigger has its own rules for another attempt: one at once and free when a connection died, the rest \
             from a budget, and never to a backend that was tried",
            "nothing to do; `outrigger explain` and docs/life-of-a-request.md show what happens",
        ),
    ),
    Row(
        CALLS,
        "allowed_fails allowed_fails_policy cooldown_time disable_cooldowns",
        rule(
            Approximated,
            "a backend is taken out on hard evidence at once and comes back by a probe, not by a number of failures \
             and a fixed time",
            "nothing to do; docs/routing.md says what counts as evidence",
        ),
    ),
    Row(
        CALLS,
        "retry_after max_fallbacks",
        rule(
            Approximated,
            "waits and the number of attempts follow from the backends' own Retry-After and the retry budget",
            "nothing to do",
        ),
    ),
    Row(
        CALLS,
        "context_window_fallbacks context_window_fallback_dict",
        rule(
            Refused,
            "a prompt that is too long is the request's fault: the engine's 400 goes to the client and no other model \
             is asked",
            "let the client ask for the longer model by its name",
        ),
    ),
    Row(
        CALLS,
        "content_policy_fallbacks",
        rule(
            Refused,
            "a refusal for content is the engine's answer and goes to the client; no other model is asked",
            "let the client ask for the other model by its name",
        ),
    ),
    Row(
        CALLS,
        "drop_params additional_drop_params allowed_openai_params",
        rule(
            Approximated,
            "requests are passed on byte for byte: no parameter is dropped, and an engine that does not know one may \
             answer 400",
            "remove the parameter in the client if an engine refuses it",
        ),
    ),
    Row(
        &[Section::Router],
        "enable_pre_call_checks optional_pre_call_checks",
        rule(
            Refused,
            "the length of a prompt is not compared with the model's before it is sent; the engine does that",
            "let the client ask for a model that is long enough",
        ),
    ),
    Row(
        &[Section::Router, Section::Params, Section::Deployment],
        "enable_tag_filtering tag_filtering_match_any tags tag_regex",
        rule(
            Refused,
            "deployments are not chosen by tags: every request of the model may go to each of them",
            "give each tag a model of its own, and each team a key with `models:`",
        ),
    ),
    Row(
        &[Section::Router],
        "routing_strategy_args set_verbose debug_level default_litellm_params",
        rule(Ignored, "belongs to LiteLLM's router", "nothing to do"),
    ),
    Row(
        SETTINGS,
        "redis_host redis_port redis_password redis_url cache_kwargs coordination_redis use_redis_transaction_buffer \
         client_ttl cache_responses cache cache_params caching_groups \
         enable_caching_on_provider_specific_optional_params",
        rule(
            Ignored,
            "answers are not cached and state is not shared: every request goes to a backend",
            "count on the engines' own prefix caches (`affinity: prefix` on a model); say how many gateways there are \
             in `gateway.replicas`",
        ),
    ),
    Row(
        &[Section::LiteLlm, Section::General],
        "callbacks success_callback failure_callback service_callback langfuse_default_tags otel alerting alert_types \
         alerting_threshold alert_to_webhook_url set_verbose json_logs log_raw_request_response \
         turn_off_message_logging redact_user_api_key_info disable_end_user_cost_tracking_prometheus_only \
         require_auth_for_metrics_endpoint include_cost_in_streaming_usage disable_end_user_cost_tracking",
        rule(
            Ignored,
            "Outrigger writes one line a request to standard output and serves Prometheus metrics on the admin \
             listener",
            "point your log and metric collectors there; see docs/request-log.md and docs/admin-api.md",
        ),
    ),
    Row(
        &[Section::Top, Section::LiteLlm],
        "guardrails policies policy_attachments guardrail_settings",
        rule(
            Refused,
            "guardrails are not run: what they block today would pass",
            "keep LiteLLM in front of these models, or check content in the client",
        ),
    ),
    Row(
        &[Section::Params],
        "guardrails",
        rule(
            Refused,
            "guardrails are not run: what they block today would pass",
            "keep LiteLLM in front of these models, or check content in the client",
        ),
    ),
    Row(
        SETTINGS,
        "max_budget budget_duration max_user_budget max_internal_user_budget provider_budget_config \
         default_team_settings max_end_user_budget upperbound_key_generate_params enforce_user_param enforced_params \
         reject_clientside_metadata_tags max_parallel_requests global_max_parallel_requests blocked_user_list \
         banned_keywords_list max_request_size_mb max_response_size_mb",
        rule(
            Refused,
            "budgets and limits of LiteLLM's users and teams are not enforced",
            "write `spend_limit` under a cloud, `max_in_flight` under a backend or a key, and `gateway.limits.body`",
        ),
    ),
    Row(
        DEPLOYMENT,
        "max_budget budget_duration",
        rule(Refused, "a deployment has no budget of its own", "write `spend_limit` under the backend's cloud"),
    ),
    Row(
        &[Section::General],
        "custom_auth custom_auth_settings enable_jwt_auth litellm_jwtauth enable_oauth2_auth allowed_ips custom_sso \
         user_header_name control_plane",
        rule(
            Refused,
            "clients are known by a key alone",
            "give each client a key (`outrigger key new NAME`), or check who it is in a proxy in front",
        ),
    ),
    Row(
        &[Section::General],
        "database_url database_connection_pool_limit store_model_in_db store_prompts_in_spend_logs disable_spend_logs \
         allow_requests_on_db_unavailable disable_prisma_schema_update proxy_batch_write_at database_type \
         use_shared_health_check custom_team_metadata_validate team_metadata_validation_timeout \
         team_metadata_validation_error_message",
        rule(
            Ignored,
            "there is no database: models and keys are those of the fleet file",
            "export the virtual keys and give them with `--keys`; models that live only in the database have to be \
             written into the file",
        ),
    ),
    Row(
        &[Section::General],
        "background_health_checks health_check_interval health_check_details health_check_concurrency",
        rule(Ignored, "every backend is probed anyway, and the requests themselves count", "nothing to do"),
    ),
    Row(
        &[Section::General],
        "pass_through_endpoints completion_model infer_model_from_keys",
        rule(
            Refused,
            "only chat completions, completions, embeddings and the list of models are served",
            "let the clients call the other endpoint themselves",
        ),
    ),
    Row(
        &[Section::Top],
        "include",
        rule(Refused, "included files are not read", "put their contents into one file and import it"),
    ),
    Row(
        &[Section::Top],
        "mcp_servers vector_store_registry search_tools sandbox_tools files_settings finetune_settings prompts \
         assistant_settings agent_list vector_stores skills",
        rule(
            Refused,
            "only chat completions, completions, embeddings and the list of models are served",
            "keep LiteLLM for what needs this",
        ),
    ),
    Row(
        &[Section::Top],
        "credential_list",
        rule(
            Refused,
            "named credentials are not looked up",
            "write `api_key` and `api_base` into each deployment, and import again",
        ),
    ),
    Row(
        &[Section::LiteLlm],
        "websearch_interception_params code_interpreter_interception_params default_internal_user_params \
         public_routes model_group_settings",
        rule(Refused, "this feature of LiteLLM has no counterpart", "keep LiteLLM for the models that need it"),
    ),
    Row(
        &[Section::Params],
        "litellm_credential_name",
        rule(
            Refused,
            "named credentials are not looked up",
            "write `api_key` and `api_base` into the deployment, and import again",
        ),
    ),
    Row(
        &[Section::Params],
        "organization extra_headers headers default_headers",
        rule(
            Refused,
            "no header is added to a request, except the backend's key",
            "let the client send it: headers other than credentials are passed on",
        ),
    ),
    Row(
        &[Section::Params],
        "api_version",
        rule(Ignored, "only Azure's own dialect has versions in the URL", "nothing to do"),
    ),
    Row(
        &[Section::Params],
        "use_in_pass_through configurable_clientside_auth_params region_name merge_reasoning_content_in_choices \
         mock_response litellm_system_prompt",
        rule(
            Refused,
            "this feature of LiteLLM has no counterpart",
            "keep LiteLLM for this deployment, or do without it",
        ),
    ),
    Row(
        DEPLOYMENT,
        "input_cost_per_second output_cost_per_second cache_creation_input_token_cost input_cost_per_character \
         output_cost_per_character input_cost_per_pixel input_cost_per_image cost_per_query",
        rule(
            Ignored,
            "backends are priced by the token, and GPUs of your own by the hour of their pool",
            "write a `pool` with its price, if this runs on GPUs that you rent",
        ),
    ),
    Row(
        DEPLOYMENT,
        "max_tokens max_input_tokens max_output_tokens",
        rule(Ignored, "lengths are the engine's to judge", "nothing to do"),
    ),
    Row(
        &[Section::Deployment, Section::Info],
        "rpm tpm",
        rule(
            Ignored,
            "here it only serves usage-based routing; as a share of the traffic LiteLLM reads it under \
             `litellm_params`",
            "bound a backend with `max_in_flight`, and share traffic with the weights of the split",
        ),
    ),
    Row(
        &[Section::Info],
        "access_groups",
        rule(
            Approximated,
            "groups of models are written out in the keys that name them (`--keys`)",
            "list the models under each key of your own",
        ),
    ),
];

/// What to say of a key that no code reads.
pub(super) fn of(section: Section, key: &str) -> Rule {
    let known = RULES
        .iter()
        .find(|Row(sections, keys, _)| sections.contains(&section) && keys.split(' ').any(|known| known == key));
    if let Some(Row(_, _, rule)) = known {
        return Rule { ..*rule };
    }
    match section {
        Section::Params => rule(
            Refused,
            "LiteLLM adds this to each request; Outrigger passes requests on as they are",
            "let the client send it, or set it where the engine starts",
        ),
        Section::Info => rule(Ignored, "only describes the model", "nothing to do"),
        Section::Deployment => rule(Ignored, "LiteLLM does not read this here either", "nothing to do"),
        Section::Top => rule(Ignored, "no section of LiteLLM's proxy that is known here", "look whether it is needed"),
        _ => rule(Ignored, "no setting that Outrigger needs", "look it up in docs/fleet-file.md if you miss it"),
    }
}
