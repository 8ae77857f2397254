"""LlamaIndex's OpenAILike. usage: llamaindex_client.py BASE_URL KEY MODEL"""

import importlib.metadata

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

from calls import KEY, LENGTH, MODEL, PROMPT, SEED, TOOL, URL, report


def llm(key=KEY, model=MODEL, chat=True, length=LENGTH):
    more = {"is_chat_model": chat, "is_function_calling_model": chat, "additional_kwargs": {"seed": SEED}}
    fixed = {"temperature": 0, "max_tokens": length, "max_retries": 0, "timeout": 60, "context_window": 2_048}
    return OpenAILike(api_base=URL, api_key=key, model=model, **fixed, **more)


def told(answer):
    raw = answer.raw
    return answer.message.content, raw.choices[0].finish_reason, raw.usage and raw.usage.total_tokens, raw.model == MODEL


def chat(**more):
    return told(llm(**more).chat([ChatMessage(role="user", content=PROMPT)]))


def streamed():
    answers = list(llm().stream_chat([ChatMessage(role="user", content=PROMPT)]))
    return len(answers) > 2, answers[-1].message.content


def completed():
    return llm(chat=False).complete(PROMPT).text


def completion_streamed():
    return [answer.delta for answer in llm(chat=False).stream_complete(PROMPT)]


def weather(city: str) -> str:
    return city


def tools():
    tool = FunctionTool.from_defaults(weather, name=TOOL, description="the weather")
    model = llm(length=64)
    answer = model.chat_with_tools([tool], user_msg=PROMPT, tool_required=True)
    calls = model.get_tool_calls_from_response(answer, error_on_no_tool_call=False)
    return [(call.tool_name, call.tool_kwargs) for call in calls], answer.message.content


async def awaited():
    return told(await llm().achat([ChatMessage(role="user", content=PROMPT)]))


report(f"llama-index-llms-openai-like {importlib.metadata.version('llama-index-llms-openai-like')}", {
    "whole": chat,
    "awaited": awaited,
    "streamed": streamed,
    "completion": completed,
    "completion streamed": completion_streamed,
    "tools": tools,
    "bad key": lambda: chat(key="sk-wrong"),
    "wrong model": lambda: chat(model="nobody"),
})
