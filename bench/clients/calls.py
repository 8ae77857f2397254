"""What every client does here: calls by name, each call's outcome, all of them as one line of JSON."""

import asyncio
import inspect
import json
import sys

URL, KEY, MODEL = sys.argv[1:4]
PROMPT = "hello"
SEED, LENGTH = 7, 12
TOOL = "weather"
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Oslo", "Lima"]}},
    "required": ["city"],
    "additionalProperties": False,
}


def outcome(call, again=True):
    try:
        return asyncio.run(call()) if inspect.iscoroutinefunction(call) else call()
    except Exception as error:
        kind = type(error).__name__
        # llama-server closes connections when it likes, which who asks it directly meets now and then.
        if "Connection" in kind and again:
            return outcome(call, False)
        return [kind, getattr(error, "status_code", None), None if hasattr(error, "status_code") else str(error)[:200]]


def report(client, calls):
    print(json.dumps({"client": client, **{name: outcome(call) for name, call in calls.items()}}))
