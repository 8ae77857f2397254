"""LiteLLM as a library. usage: litellm_client.py BASE_URL KEY MODEL"""

import importlib.metadata
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm  # noqa: E402

from calls import KEY, LENGTH, MODEL, PARAMETERS, PROMPT, SEED, TOOL, URL, report  # noqa: E402

litellm.suppress_debug_info = True
FIXED = {"temperature": 0, "seed": SEED, "max_tokens": LENGTH, "num_retries": 0, "max_retries": 0, "timeout": 60}
MESSAGES = [{"role": "user", "content": PROMPT}]


def ask(provider="openai", model=MODEL, key=KEY, **more):
    return {"model": f"{provider}/{model}", "messages": MESSAGES, "api_base": URL, "api_key": key, **FIXED, **more}


def told(answer):
    choice, usage = answer.choices[0], answer.usage
    calls = [(call.function.name, call.function.arguments) for call in choice.message.tool_calls or []]
    counts = usage.prompt_tokens, usage.completion_tokens
    return choice.message.content, calls, choice.finish_reason, counts, answer.model.removeprefix("openai/") == MODEL


def streamed(**more):
    chunks = list(litellm.completion(**ask(stream=True, **more)))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    usage = [c.usage.completion_tokens for c in chunks if getattr(c, "usage", None)]
    return text, [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason], usage


FUNCTION = {"name": TOOL, "description": "the weather", "parameters": PARAMETERS}
WITH_TOOL = {"tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "required", "max_tokens": 64}


def tools():
    return told(litellm.completion(**ask(**WITH_TOOL)))


def tools_streamed():
    return told(litellm.stream_chunk_builder(list(litellm.completion(**ask(stream=True, **WITH_TOOL)))))


async def awaited():
    return told(await litellm.acompletion(**ask()))


def text():
    answer = litellm.text_completion(
        model=f"text-completion-openai/{MODEL}", prompt=PROMPT, api_base=URL, api_key=KEY, max_tokens=LENGTH,
        temperature=0, seed=SEED,
    )
    return answer.choices[0].text, answer.choices[0].finish_reason


report(f"litellm {importlib.metadata.version('litellm')}", {
    "whole": lambda: told(litellm.completion(**ask())),
    "as hosted_vllm": lambda: told(litellm.completion(**ask(provider="hosted_vllm")))[:4],
    "awaited": awaited,
    "streamed": streamed,
    "streamed with usage": lambda: streamed(stream_options={"include_usage": True}),
    "tools": tools,
    "tools streamed": tools_streamed,
    "completion": text,
    "bad key": lambda: told(litellm.completion(**ask(key="sk-wrong"))),
    "wrong model": lambda: told(litellm.completion(**ask(model="nobody"))),
    "a wrong type": lambda: told(litellm.completion(**ask(messages=[{"role": "nobody", "content": PROMPT}]))),
})
