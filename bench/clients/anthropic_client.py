"""Anthropic's client for Python, on /v1/messages. usage: anthropic_client.py BASE_URL KEY MODEL"""

import anthropic

from calls import KEY, LENGTH, MODEL, PARAMETERS, PROMPT, SEED, TOOL, URL, report

MESSAGES = [{"role": "user", "content": PROMPT}]
FIXED = {"max_tokens": LENGTH, "extra_body": {"seed": SEED, "temperature": 0}}


def client(key=KEY):
    return anthropic.Anthropic(base_url=URL.removesuffix("/v1"), api_key=key, max_retries=0, timeout=60)


def create(key=KEY, **more):
    return client(key).messages.create(**{"model": MODEL, "messages": MESSAGES, **FIXED, **more})


def told(answer):
    blocks = [block.model_dump(exclude={"id"}) for block in answer.content]
    # What was cached depends on what was asked before.
    usage = answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0), answer.usage.output_tokens
    return blocks, answer.stop_reason, usage, answer.role, answer.model == MODEL


def streamed():
    with client().messages.stream(model=MODEL, messages=MESSAGES, **FIXED) as stream:
        kinds = [event.type for event in stream]
        return kinds, told(stream.get_final_message())


def tools(stream=False):
    tool = {"name": TOOL, "description": "the weather", "input_schema": PARAMETERS}
    more = {**FIXED, "tools": [tool], "tool_choice": {"type": "any"}, "max_tokens": 64}
    if not stream:
        return told(create(**more))
    with client().messages.stream(model=MODEL, messages=MESSAGES, **more) as stream:
        return told(stream.get_final_message())


report(f"anthropic {anthropic.__version__}", {
    "whole": lambda: told(create()),
    "streamed": streamed,
    "system": lambda: told(create(system="be short")),
    "tools": tools,
    "tools streamed": lambda: tools(stream=True),
    "counted": lambda: client().messages.count_tokens(model=MODEL, messages=MESSAGES).input_tokens,
    "bad key": lambda: told(create(key="sk-wrong")),
    "wrong model": lambda: told(create(model="nobody")),
    "no messages": lambda: told(create(messages=[])),
})
