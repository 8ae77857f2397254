"""OpenAI's agents, on chats and on responses. usage: agents_client.py BASE_URL KEY MODEL"""

import importlib.metadata

from agents import (
    Agent, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled,
)
from openai import AsyncOpenAI

from calls import KEY, LENGTH, MODEL, PROMPT, SEED, URL, report

set_tracing_disabled(True)


@function_tool
def weather(city: str) -> str:
    """The weather."""
    return f"fair in {city}"


def agent(kind=OpenAIChatCompletionsModel, key=KEY, model=MODEL, length=LENGTH, choice=None, **more):
    client = AsyncOpenAI(base_url=URL, api_key=key, max_retries=0, timeout=60)
    extra = {"seed": SEED} if kind is OpenAIChatCompletionsModel else None
    settings = ModelSettings(temperature=0, max_tokens=length, extra_body=extra, tool_choice=choice)
    return Agent(name="a", instructions="be short", model=kind(model, client), model_settings=settings, **more)


def told(result):
    usage = result.context_wrapper.usage
    return str(result.final_output), [item.type for item in result.new_items], usage.input_tokens, usage.output_tokens


async def run(**more):
    return told(await Runner.run(agent(**more), PROMPT))


async def streamed(**more):
    result = Runner.run_streamed(agent(**more), PROMPT)
    kinds = [event.type async for event in result.stream_events()]
    return sorted(set(kinds)), told(result)


async def tools():
    return await run(tools=[weather], choice="required", tool_use_behavior="stop_on_first_tool", length=64)


async def tools_on_responses():
    more = {"tool_use_behavior": "stop_on_first_tool", "length": 64}
    return await streamed(kind=OpenAIResponsesModel, tools=[weather], choice="required", **more)


async def response():
    # llama-server gives no seed to responses; at temperature 0 there is nothing to draw.
    return await run(kind=OpenAIResponsesModel)


async def response_streamed():
    return await streamed(kind=OpenAIResponsesModel)


async def bad_key():
    return await run(key="sk-wrong")


async def wrong_model():
    return await run(model="nobody")


report(f"openai-agents {importlib.metadata.version('openai-agents')}", {
    "chat": run,
    "chat streamed": streamed,
    "tools": tools,
    "tools on responses": tools_on_responses,
    "response": response,
    "response streamed": response_streamed,
    "bad key": bad_key,
    "wrong model": wrong_model,
})
