"""An engine that calls tools when it is offered one, and that refuses unknown models and wrong keys, in the dialects of
chats, responses and messages, whole and streamed. A random model does the first only by chance, and llama-server neither
of the others.

The shapes are those of OpenAI's and Anthropic's API references.
"""

import contextlib
import http.server
import json
import threading

WORDS = ["It", " is", " fair"]


class Scripted(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model = key = ""
    words = WORDS

    def log_message(self, *_):
        pass

    def handle(self):
        # A client that goes away is its own business.
        with contextlib.suppress(ConnectionError):
            super().handle()

    def send(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, events):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in events:
            text = event.encode() + b"\n\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
        self.wfile.write(b"0\r\n\r\n")

    def refuse(self, status, kind, words):
        error = {"message": words, "type": kind, "param": None, "code": status}
        self.send(status, {"type": "error", "error": error} if self.path == "/v1/messages" else {"error": error})

    def do_GET(self):
        self.send(200, {"object": "list", "data": [{"id": self.model, "object": "model", "created": 1, "owned_by": "me"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        keys = self.headers.get("x-api-key"), (self.headers.get("authorization") or "").removeprefix("Bearer ")
        if self.key not in keys:
            return self.refuse(401, "authentication_error", "wrong key")
        if body.get("model") != self.model:
            return self.refuse(404, "not_found_error", f"The model `{body.get('model')}` does not exist.")
        written = {"/v1/chat/completions": chat, "/v1/responses": response, "/v1/messages": message}.get(self.path)
        if written is None:
            return self.refuse(404, "not_found_error", "Not Found")
        whole, events = written(self.model, self.words, bool(body.get("tools")), body)
        return self.stream(events) if body.get("stream") else self.send(200, whole)


def made(schema):
    """A value of this JSON Schema, of the kinds that tools have."""
    if "enum" in schema:
        return schema["enum"][-1]
    if schema.get("type") == "object":
        return {name: made(part) for name, part in schema.get("properties", {}).items()}
    plain = {"integer": 1, "number": 1.5, "boolean": True, "array": []}
    return plain.get(schema.get("type"), "a")


def split(text):
    return [text[:5], text[5:]]


def chat(model, words, calls, body):
    head = {"id": "chatcmpl-1", "created": 1, "model": model}
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    arguments = function = None
    if calls:
        offered = body["tools"][0]["function"]
        arguments = json.dumps(made(offered.get("parameters", {})))
        function = {"name": offered["name"], "arguments": arguments}
    if form := (body.get("response_format") or {}).get("json_schema"):
        words = split(json.dumps(made(form["schema"])))
    call = {"id": "call_1", "type": "function", "function": function}
    text = None if calls else "".join(words)
    spoken = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    if calls:
        spoken["tool_calls"] = [call]
    finish = "tool_calls" if calls else "stop"
    choice = {"index": 0, "message": spoken, "finish_reason": finish, "logprobs": None}
    whole = {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
    deltas = [{"role": "assistant", "content": ""}]
    if calls:
        first = {"index": 0, "id": "call_1", "type": "function", "function": {**function, "arguments": ""}}
        pieces = [{"index": 0, "function": {"arguments": piece}} for piece in split(arguments)]
        deltas += [{"tool_calls": [part]} for part in (first, *pieces)]
    else:
        deltas += [{"content": word} for word in words]
    head = {**head, "object": "chat.completion.chunk"}
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append({**head, "choices": [], "usage": usage})
    return whole, [*(f"data: {json.dumps(chunk)}" for chunk in chunks), "data: [DONE]"]


def message(model, words, calls, body):
    usage = {"input_tokens": 9, "output_tokens": 3, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    if calls:
        given = made(body["tools"][0]["input_schema"])
        block = {"type": "tool_use", "id": "toolu_1", "name": body["tools"][0]["name"], "input": given}
        empty = {**block, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in split(json.dumps(given))]
    else:
        block = {"type": "text", "text": "".join(words)}
        empty = {**block, "text": ""}
        deltas = [{"type": "text_delta", "text": word} for word in words]
    ended = {"stop_reason": "tool_use" if calls else "end_turn", "stop_sequence": None}
    begun = {"id": "msg_1", "type": "message", "role": "assistant", "model": model}
    whole = {**begun, "content": [block], **ended, "usage": usage}
    start = {**begun, "content": [], "stop_reason": None, "stop_sequence": None, "usage": {**usage, "output_tokens": 0}}
    events = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": empty},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": ended, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]
    return whole, [f"event: {event['type']}\ndata: {json.dumps(event)}" for event in events]


def response(model, words, calls, body):
    usage = {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12, "input_tokens_details": {"cached_tokens": 0},
             "output_tokens_details": {"reasoning_tokens": 0}}
    if calls:
        name, arguments = body["tools"][0]["name"], json.dumps(made(body["tools"][0]["parameters"]))
        item = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": name, "arguments": arguments,
                "status": "completed"}
        empty = {**item, "arguments": "", "status": "in_progress"}
        kind, last = "response.function_call_arguments", {"arguments": arguments, "name": name}
        pieces = split(arguments)
    else:
        part = {"type": "output_text", "text": "".join(words), "annotations": [], "logprobs": []}
        item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
        empty = {**item, "content": [], "status": "in_progress"}
        kind, last = "response.output_text", {"text": part["text"], "content_index": 0, "logprobs": []}
        pieces = words
    where = {"item_id": item["id"], "output_index": 0, **({} if calls else {"content_index": 0, "logprobs": []})}
    whole = {"id": "resp_1", "object": "response", "created_at": 1, "model": model, "status": "completed", "output": [item],
             "usage": usage, "error": None, "incomplete_details": None, "instructions": None, "metadata": {},
             "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "temperature": 0, "top_p": 1,
             "completed_at": 2, "previous_response_id": None, "truncation": "disabled", "text": {"format": {"type": "text"}},
             "presence_penalty": 0, "frequency_penalty": 0, "top_logprobs": 0, "reasoning": None, "max_output_tokens": None,
             "max_tool_calls": None, "store": False, "background": False, "service_tier": "default",
             "safety_identifier": None, "prompt_cache_key": None}
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    events = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": empty},
        *({"type": f"{kind}.delta", **where, "delta": piece} for piece in pieces),
        {"type": f"{kind}.done", **where, **last},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    numbered = [{**event, "sequence_number": number} for number, event in enumerate(events)]
    return whole, [f"event: {event['type']}\ndata: {json.dumps(event)}" for event in numbered]


def start(model, key, words=WORDS):
    """One that serves this model to this key; its base URL."""
    handler = type("Handler", (Scripted,), {"model": model, "key": key, "words": words})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/v1"
