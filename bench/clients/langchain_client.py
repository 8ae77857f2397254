"""LangChain's ChatOpenAI. usage: langchain_client.py BASE_URL KEY MODEL"""

import importlib.metadata

from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from calls import KEY, LENGTH, MODEL, PARAMETERS, PROMPT, SEED, TOOL, URL, report


def chat(key=KEY, **more):
    fixed = {"model": MODEL, "temperature": 0, "seed": SEED, "max_tokens": LENGTH, "max_retries": 0, "timeout": 60}
    return ChatOpenAI(base_url=URL, api_key=SecretStr(key), **{**fixed, **more})


def told(message):
    meta, usage = message.response_metadata, message.usage_metadata
    calls = [(call["name"], call["args"]) for call in message.tool_calls]
    named = meta.get("model_name") == MODEL
    # What was cached depends on what was asked before.
    counts = usage and {name: count for name, count in usage.items() if isinstance(count, int)}
    return message.content, calls, meta.get("finish_reason"), counts, named


def streamed(**more):
    chunks = list(chat(**more).stream(PROMPT))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return len(chunks) > 2, told(whole)


def tools(stream=False):
    function = {"name": TOOL, "description": "the weather", "parameters": PARAMETERS}
    bound = chat(max_tokens=64).bind_tools([{"type": "function", "function": function}], tool_choice="required")
    if not stream:
        return told(bound.invoke(PROMPT))
    whole = None
    for chunk in bound.stream(PROMPT):
        whole = chunk if whole is None else whole + chunk
    return told(whole)


def batched():
    return [told(message) for message in chat().batch([PROMPT, "good bye"])]


async def awaited():
    return told(await chat().ainvoke(PROMPT))


async def bad_key_awaited():
    return told(await chat(key="sk-wrong").ainvoke(PROMPT * 10_000))


report(f"langchain-openai {importlib.metadata.version('langchain-openai')}", {
    "whole": lambda: told(chat().invoke(PROMPT)),
    "awaited": awaited,
    "streamed": streamed,
    "streamed with usage": lambda: streamed(stream_usage=True),
    "batched": batched,
    "tools": tools,
    "tools streamed": lambda: tools(stream=True),
    "response": lambda: chat(use_responses_api=True, seed=None).invoke(PROMPT).type,
    "bad key": lambda: told(chat(key="sk-wrong").invoke(PROMPT)),
    "bad key awaited": bad_key_awaited,
    "wrong model": lambda: told(chat(model="nobody").invoke(PROMPT)),
})
