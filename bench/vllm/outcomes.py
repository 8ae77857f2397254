"""What two answers to one request have in common, whole and streamed."""

import json
import re

# What differs from one request to the next, or depends on what was asked before.
FLEETING = {"id", "created", "created_at", "completed_at", "call_id", "item_id", "cached_tokens", "sequence_number"}
# What a stream tells in pieces.
PIECES = {"content", "reasoning", "text", "arguments", "delta", "partial_json"}


def lasting(value, model):
    """Without what is fleeting, and with one name for the model."""
    if isinstance(value, list):
        return [lasting(part, model) for part in value]
    if isinstance(value, str):
        return re.sub(r"\[\d\d:\d\d:\d\d\]", "[TIME]", value)
    if not isinstance(value, dict):
        return value
    kept = {key: lasting(part, model) for key, part in value.items() if key not in FLEETING}
    if kept.get("model") == model:
        kept["model"] = "MODEL"
    return kept


def without_pieces(value, path, joined):
    """What is left of an event when its pieces are put to those before, each at its place, such as `choices.0.delta.content`."""
    if isinstance(value, list):
        place = lambda part: f".{part['index']}" if isinstance(part, dict) and "index" in part else ""
        return [without_pieces(part, path + place(part), joined) for part in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for key, part in value.items():
        at = f"{path}.{key}".lstrip(".")
        if isinstance(part, str) and key in PIECES or isinstance(part, list) and ".logprobs." in at:
            joined[at] = joined[at] + part if at in joined else part
        else:
            kept[key] = without_pieces(part, at, joined)
    return kept


def whole(server, path, body):
    answer = server.post(path, body)
    return answer.status_code, answer.headers["content-type"], lasting(answer.json(), server.model)


def streamed(server, path, body):
    """Its texts, each joined, and its kinds of events in the order in which they first came."""
    answer = server.post(path, {**body, "stream": True})
    if answer.status_code != 200:
        return answer.status_code, answer.headers["content-type"], lasting(answer.json(), server.model)
    joined, kinds = {}, []
    for data in re.findall(r"^data: (.*)$", answer.text, re.MULTILINE):
        kind = data
        if data != "[DONE]":
            event = lasting(json.loads(data), server.model)
            # vLLM puts it into the last chunk. Where no usage was asked for, that one is the gateway's, and does not come.
            event.pop("system_fingerprint", None)
            kind = without_pieces(event, event.get("type", ""), joined)
        if kind not in kinds:
            kinds.append(kind)
    # Which of several choices comes first is chance.
    last = float("inf")
    kinds.sort(key=lambda kind: kind["choices"][0]["index"] if isinstance(kind, dict) and kind.get("choices") else last)
    return answer.status_code, answer.headers["content-type"], joined, kinds
