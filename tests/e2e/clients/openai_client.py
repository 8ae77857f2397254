"""What one of openai's Python clients makes of a server: each call's outcome, as one line of JSON.

usage: openai_client.py BASE_URL KEY MODEL
"""

import json
import sys

import openai

url, key, model = sys.argv[1:]
client = openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=30)
MESSAGES = [{"role": "user", "content": "hello"}]
# A random model's text is the same for the same seed; without an end token it is as long as it may be.
FIXED = {"seed": 7, "temperature": 0, "max_tokens": 12, "extra_body": {"ignore_eos": True}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}


def chat(**more):
    return client.chat.completions.create(model=model, **{"messages": MESSAGES, **FIXED, **more})


def whole():
    answer = chat()
    return answer.choices[0].message.content, answer.choices[0].finish_reason, answer.model == model


def streamed(**more):
    chunks = list(chat(stream=True, **more))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    finishes = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
    usage = [c.usage.completion_tokens for c in chunks if c.usage and not c.choices]
    return text, finishes, usage, all(c.model == model for c in chunks)


def helper():
    with client.chat.completions.stream(model=model, messages=MESSAGES, **FIXED) as stream:
        deltas = sum(1 for event in stream if event.type == "content.delta")
        return deltas > 0, stream.get_final_completion().choices[0].finish_reason


def hung_up():
    stream = chat(stream=True, max_tokens=2_000)
    next(iter(stream))
    stream.close()
    return whole()


def completion():
    answer = client.completions.create(model=model, prompt="hello", **FIXED)
    return answer.choices[0].text, answer.model == model


def response():
    answer = client.responses.create(model=model, input="hello", max_output_tokens=6)
    return answer.status, answer.model == model


def response_streamed():
    events = list(client.responses.create(model=model, input="hello", max_output_tokens=6, stream=True))
    return sorted({event.type for event in events}), events[-1].response.model == model


CALLS = {
    "whole": whole,
    "streamed": streamed,
    "streamed with usage": lambda: streamed(stream_options={"include_usage": True}),
    "streaming helper": helper,
    "hung up": hung_up,
    "completion": completion,
    "tools": lambda: type(chat(tools=[TOOL])).__name__,
    "json schema": lambda: json.loads(
        chat(
            max_tokens=64,
            extra_body={},
            response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
        ).choices[0].message.content
    ),
    "raw response": lambda: client.chat.completions.with_raw_response.create(
        model=model, messages=MESSAGES, max_tokens=2
    ).headers["content-type"].split(";")[0],
    "response": response,
    "response streamed": response_streamed,
    "embeddings": lambda: len(client.embeddings.create(model=model, input="hello").data),
    "no messages": lambda: chat(messages=[]).choices[0].finish_reason,
    "a wrong type": lambda: chat(messages="hello").choices[0].finish_reason,
    "a wrong role": lambda: chat(messages=[{"role": "nobody", "content": "hello"}]).choices[0].finish_reason,
}


def outcome(call, again=True):
    try:
        return call()
    except openai.APIConnectionError as error:
        # llama-server closes connections when it likes, which who asks it directly meets now and then.
        return outcome(call, False) if again else type(error).__name__
    except openai.APIStatusError as error:
        return type(error).__name__, error.status_code
    except (openai.OpenAIError, json.JSONDecodeError) as error:
        return type(error).__name__


print(json.dumps({"client": openai.__version__, **{name: outcome(call) for name, call in CALLS.items()}}))
