"""A real vLLM with a random model, on a CPU: each call once directly and once through the gateway, with equal outcomes, and
what else the gateway does with a vLLM: it reads its metrics, hangs up on it, recognises it and compares it.

The answers are compared whole, but for ids, times and the model's name. A stream is compared by its joined texts and by the
kinds of its events, since vLLM puts as many tokens into one event as are ready. At temperature 0 the random model says the
same each time; it calls tools because vLLM makes it (`tool_choice`), and writes JSON because of the schema.

usage: vllm.py PYTHON [FOLDER], with PYTHON's environment having the packages of requirements-vllm.txt. With FOLDER, what
vLLM says is recorded there, as the golden files of crates/wire have it.
"""

import contextlib
import http.client
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

import httpx2

from rig import BIN, Gateway, run_all, stop_all

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "vllm"))
import relay  # noqa: E402
from engine import AT_ONCE, CONTEXT, HELLO, NAMES, PUBLIC, Server, Vllm, fleet_of, gauges, without_white_space  # noqa: E402
from outcomes import streamed, whole  # noqa: E402

GREEDY = {"temperature": 0, "seed": 7, "max_tokens": 24}
# Until the engine is stopped by its context.
ENDLESS = {"max_tokens": CONTEXT - 64, "ignore_eos": True}
CITIES = ["Paris", "Rome"]
WEATHER = {"type": "object",
           "properties": {"city": {"type": "string", "enum": CITIES}, "days": {"type": "integer", "enum": [1, 2]}},
           "required": ["city", "days"], "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": name, "description": "the weather", "strict": True, "parameters": WEATHER}}
         for name in ("forecast", "history")]
FORM = {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER, "strict": True}}
TALK = [{"role": "system", "content": "You answer in one word."}, *HELLO, {"role": "assistant", "content": "yes"}, *HELLO]
USAGE = {"stream_options": {"include_usage": True}}


def alike(ask, path, body, servers=None):
    """The same directly and through the gateway."""
    direct, through = (ask(server, path, body) for server in servers or (setting.direct, setting.through))
    assert direct == through, f"{path} {json.dumps(body)[:300]}\ndirect  {direct}\nthrough {through}"
    return through


class Setting:
    """The engine, and a gateway before it."""

    def __init__(self, python):
        self.folder = tempfile.TemporaryDirectory(prefix="outrigger-vllm-")
        self.engine = Vllm(python, self.folder.name).wait()
        key = json.loads(subprocess.run([BIN, "key", "new", "k", "--json"], capture_output=True, check=True).stdout)
        fleet = fleet_of(self.engine.url, NAMES[:1]) + f"keys:\n  k:\n    sha256: {key['sha256']}\n"
        self.gateway = Gateway.of(fleet, key["key"], tempfile.TemporaryDirectory(prefix="outrigger-vllm-"))
        bias = without_white_space(self.folder.name)
        self.called = chat({"tools": TOOLS, "tool_choice": "required", "max_tokens": 200, **bias})
        self.direct = Server(self.engine.url, NAMES[0])
        self.through = Server(self.gateway.url, PUBLIC, self.gateway.key)


# ---- the calls


def chat(more=None, messages=HELLO):
    return "/chat/completions", {"messages": messages, **GREEDY, **(more or {})}


def content(answer):
    return answer[2]["choices"][0]["message"]["content"]


def is_weather(text):
    value = json.loads(text)
    return value.keys() == {"city", "days"} and value["city"] in CITIES and value["days"] in (1, 2)


def whole_answers_are_equal():
    plain = alike(whole, *chat())
    assert plain[0] == 200 and content(plain) and plain[2]["usage"]["completion_tokens"] == 24, plain
    assert plain[2]["choices"][0]["finish_reason"] == "length", plain
    word = content(plain).split()[1]
    stopped = alike(whole, *chat({"stop": [word]}))
    assert stopped[2]["choices"][0]["finish_reason"] == "stop" and word not in content(stopped), stopped
    alike(whole, *chat(messages=TALK))
    scores = alike(whole, *chat({"logprobs": True, "top_logprobs": 2}))
    assert len(scores[2]["choices"][0]["logprobs"]["content"]) == 24, scores
    several = alike(whole, *chat({"n": 2, "temperature": 1}))
    assert len(several[2]["choices"]) == 2, several
    alike(whole, *chat({"top_k": 3, "repetition_penalty": 1.2, "x_unknown": {"a": [1]}}))


def streams_are_equal_and_tell_usage_only_when_asked():
    for more in ({}, {"stop": ["e"]}, {"n": 2, "temperature": 1}, {"logprobs": True}):
        status, kind, joined, kinds = alike(streamed, *chat(more))
        assert status == 200 and kind.startswith("text/event-stream") and joined["choices.0.delta.content"], joined
        assert kinds[-1] == "[DONE]" and not any(event.get("usage") for event in kinds[:-1]), kinds
    for more in (USAGE, {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}):
        kinds = alike(streamed, *chat(more))[3]
        assert kinds[-2]["choices"] == [] and kinds[-2]["usage"]["completion_tokens"] == 24, kinds
    assert alike(streamed, *chat())[2]["choices.0.delta.content"] == content(alike(whole, *chat()))


def tools_are_called():
    named = {"type": "function", "function": {"name": "history"}}
    for choice, names in ((named, {"history"}), ("required", {"forecast", "history"})):
        path, body = setting.called
        call = path, {**body, "tool_choice": choice}
        message = alike(whole, *call)[2]["choices"][0]["message"]
        assert message["tool_calls"], message
        for function in (called["function"] for called in message["tool_calls"]):
            assert function["name"] in names and is_weather(function["arguments"]), message
        pieces = alike(streamed, *call)[2]
        assert pieces["choices.0.delta.tool_calls.0.function.arguments"], pieces
    result = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
    call = {"id": "call_1", "type": "function", "function": {"name": "history", "arguments": '{"city":"Rome","days":1}'}}
    asked = {"role": "assistant", "content": "", "tool_calls": [call]}
    for choice in ("auto", "none"):
        assert content(alike(whole, *chat({"tools": TOOLS, "tool_choice": choice}, [*HELLO, asked, result])))


def answers_have_the_form_that_was_asked_for():
    call = chat({"response_format": FORM, "max_tokens": 200})
    assert is_weather(content(alike(whole, *call)))
    assert is_weather(alike(streamed, *call)[2]["choices.0.delta.content"])
    alike(whole, *chat({"structured_outputs": {"choice": ["yes", "no"]}}))


def completions_are_equal():
    for body in ({"prompt": "hello"}, {"prompt": ["hello", "good day"]}, {"prompt": [5, 6, 7]}, {"prompt": "hello", "echo": True},
                 {"prompt": "hello", "logprobs": 2}):
        answer = alike(whole, "/completions", {**GREEDY, **body})
        assert answer[0] == 200 and answer[2]["choices"][0]["text"], answer
        kinds = alike(streamed, "/completions", {**GREEDY, **body, **USAGE})[3]
        assert kinds[-2]["usage"].items() <= answer[2]["usage"].items(), (kinds, answer)


def responses_and_messages_are_equal():
    response = {"input": "hello", "max_output_tokens": 16, "temperature": 0}
    message = {"messages": HELLO, "max_tokens": 16, "temperature": 0}
    for path, body in (("/responses", response), ("/messages", message)):
        assert alike(whole, path, body)[0] == 200
        assert alike(streamed, path, body)[3]
    assert alike(whole, "/messages/count_tokens", {"messages": HELLO})[2]["input_tokens"] > 0


def what_is_wrong_is_refused_alike():
    long = [{"role": "user", "content": "word " * 4 * CONTEXT}]
    absent = {"type": "function", "function": {"name": "absent"}}
    for more in ({"messages": long}, {"temperature": 99}, {"temperature": "hot"}, {"messages": "hello"}, {"messages": []},
                 {"max_tokens": -1}, {"n": 2}, {"tools": TOOLS, "tool_choice": absent}, {"stop": [7]}):
        for ask in (whole, streamed):
            answer = alike(ask, *chat(more))
            assert answer[0] == 400 and answer[2]["error"]["message"], (more, answer)
    assert alike(whole, "/completions", {"prompt": "word " * 4 * CONTEXT})[0] == 400


def a_refusal_inside_a_stream_becomes_a_status():
    """vLLM looks at these only when it has begun to answer with 200."""
    broken = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}}
    for more in ({"response_format": broken}, {"logprobs": True, "top_logprobs": 99}):
        path, body = chat(more)
        assert alike(whole, path, body)[0] == 400
        status, _, _, (told, end) = streamed(setting.direct, path, body)
        assert (status, end) == (200, "[DONE]"), told
        assert streamed(setting.through, path, body)[::2] == (400, told)


def what_the_gateway_refuses_itself_has_the_engines_status():
    """The words are the gateway's own."""
    def refusal(server, path, body):
        answer = server.post(path, body)
        return answer.status_code, answer.json()["error"].keys() >= {"message", "type", "code"}

    for body, status in (({"model": "absent", "messages": HELLO}, 404), (b"{", 400)):
        assert alike(refusal, "/chat/completions", body) == (status, True)


# ---- what the gateway makes of the engine


def eventually(seconds, read, is_it):
    """How long it took until what is read was so, and what it was."""
    began = time.monotonic()
    while not is_it(value := read()):
        assert time.monotonic() - began < seconds, f"after {seconds} s: {value}"
        time.sleep(0.02)
    return time.monotonic() - began, value


@contextlib.contextmanager
def load(streams):
    """As many streams at once, each begun again when it ends."""
    stop = threading.Event()

    def work():
        while not stop.is_set():
            with setting.through.streaming(ENDLESS) as lines:
                for _ in lines:
                    if stop.is_set():
                        break

    threads = [threading.Thread(target=work) for _ in range(streams)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def said(gateway=None):
    """What the gateway has read of the engine's requests."""
    engine = (gateway or setting.gateway).state()["b0"]["engine"]
    return engine and (engine["running"], engine["waiting"])


def metrics_are_read_as_the_engine_shows_them():
    def is_full(page):
        shown = gauges(page)
        return (shown["num_requests_running"], shown["num_requests_waiting"]) == (AT_ONCE, 3)

    with load(AT_ONCE + 3):
        eventually(20, setting.engine.page, is_full)
        eventually(20, said, lambda seen: seen == (AT_ONCE, 3))
        page = httpx2.get(setting.gateway.admin + "/metrics", timeout=10).text
        for gauge, value in (("running", AT_ONCE), ("waiting", 3)):
            assert re.search(rf'^outrigger_engine_{gauge}{{backend="b0".*}} {value}$', page, re.MULTILINE), page
        _, full = eventually(20, setting.engine.page, is_full)
        an_altered_page_is_read_as_such()
    usage = gauges(full)["kv_cache_usage_perc"]
    assert 0 < usage < 1, usage
    eventually(20, said, lambda seen: seen == (0, 0))
    print(f"   {AT_ONCE} running and 3 waiting, {usage:.0%} of the KV cache")
    recorded["metrics/vllm_0_32.txt"] = full


def an_altered_page_is_read_as_such():
    """Or the numbers above would not be those of the page."""
    fleet = fleet_of(altered(f"}} {AT_ONCE}.0".encode(), b"} 99.0").url, NAMES[:1])
    gateway = Gateway.of(fleet, "none", tempfile.TemporaryDirectory(prefix="outrigger-vllm-"))
    eventually(20, lambda: said(gateway), lambda seen: seen and seen[0] == 99)
    gateway.stop()


def hung_up(server, is_stream):
    """How long after its client has gone the engine works on nothing."""
    eventually(20, setting.engine.running, lambda running: running == 0)
    if is_stream:
        with server.streaming(ENDLESS) as lines:
            assert next(lines).startswith("data: ")
            eventually(5, setting.engine.running, lambda running: running == 1)
    else:
        host, port = re.fullmatch(r"http://(.*):(\d+)/v1", server.url).groups()
        client = http.client.HTTPConnection(host, int(port))
        body = json.dumps({"model": server.model, "messages": HELLO, **ENDLESS})
        client.request("POST", "/v1/chat/completions", body, {**server.headers, "content-type": "application/json"})
        eventually(5, setting.engine.running, lambda running: running == 1)
        client.close()
    return eventually(3, setting.engine.running, lambda running: running == 0)[0]


def a_client_that_hangs_up_frees_the_engine():
    for kind, is_stream in (("streams", True), ("whole answers", False)):
        before = setting.engine.log().count(" aborted")
        times = [hung_up(setting.through, is_stream) for _ in range(5)]
        direct = hung_up(setting.direct, is_stream)
        print(f"   {kind}: idle after {max(times):.2f} s at most, of {len(times)}; directly {direct:.2f} s")
        assert max(times) < 1, times
        eventually(5, lambda: setting.engine.log().count(" aborted"), lambda count: count >= before + len(times))


def outrigger(*args, code=0):
    done = subprocess.run([BIN, *args], capture_output=True, text=True, timeout=300)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


def a_fleet_file_is_written_from_it():
    done = outrigger("init", setting.engine.url)
    found, text = done.stderr, done.stdout
    assert f"vllm {version()}" in found and f"({CONTEXT} tokens of context)" in found, found
    assert "engine: vllm" in text and f"model: {NAMES[0]}" in text and NAMES[1] in text, text
    assert "apis: [chat, completions, responses, messages]" in text, text


def online(models, code):
    path = os.path.join(setting.folder.name, "online.yaml")
    with open(path, "w") as out:
        out.write(fleet_of(setting.engine.url, models))
    return json.loads(outrigger("check", path, "--online", "--json", code=code).stdout)


def backends_of_it_are_equal():
    found = online(NAMES[:1] * 2, 0)
    assert found["errors"] + found["warnings"] == [], found
    assert [(seen["engine"], seen["context"]) for seen in found["backends"]] == [("vllm", CONTEXT)] * 2, found
    (parity,) = found["parity"]
    assert all(same["same"] == same["of"] > 0 for prompt in parity["prompts"] for same in prompt["alike"].values()), parity
    print("  ", json.dumps({key: value for key, value in parity.items() if key != "prompts"}))


def its_second_name_is_told():
    """It answers by its first, which the gateway would take for another model."""
    assert setting.direct.post("/chat/completions", {**chat()[1], "model": NAMES[1]}).json()["model"] == NAMES[0]
    (fault,) = online(NAMES[1:], 1)["errors"]
    assert fault["code"] == "backend_other_model" and f"`model: {NAMES[0]}`" in fault["help"], fault


def version():
    return httpx2.get(setting.engine.root + "/version", timeout=10).json()["version"]


def the_log_has_the_engines_own_tokens():
    usage = alike(whole, *chat())[2]["usage"]
    alike(streamed, *chat())
    expected = [(usage["prompt_tokens"], usage["completion_tokens"], "engine")] * 2

    def told():
        lines = setting.gateway.log[-2:]
        return [(line["prompt_tokens"], line["output_tokens"], line["tokens_source"]) for line in lines]

    eventually(5, told, lambda seen: seen == expected)


# ---- whether all of this can fail


def altered(before, after):
    return Server(relay.start(setting.engine.root, before, after), NAMES[0])


def tells(test):
    try:
        test()
    except AssertionError:
        return True
    return False


def what_is_altered_shows():
    said_first = setting.direct.post("/chat/completions", {**chat()[1], "stream": True}).text
    word = re.search(r'"content":"\W*(\w+)', said_first)[1].encode()
    tools = setting.called
    for ask, call, before, after in (
        (whole, chat(), b"nothing", b"of it"),
        (whole, chat(), word, b"foul"),
        (whole, chat(), b'"length"', b'"stop"'),
        (whole, tools, b"city", b"town"),
        (whole, chat({"temperature": 99}), b"temperature", b"heat"),
        (streamed, chat(), word, b"foul"),
        (streamed, chat(), b'"length"', b'"stop"'),
        (streamed, chat(), b"data: [DONE]", b""),
        (streamed, chat(USAGE), b'"completion_tokens":24', b'"completion_tokens":23'),
        (streamed, tools, b"history", b"forecast"),
    ):
        servers = setting.direct, altered(before, after)
        assert tells(lambda: alike(ask, *call, servers)) == (before != b"nothing"), (call, before)
    assert tells(lambda: hung_up(altered(b"-", b"-"), True)), "a server that reads on"


# ---- what is kept of it

recorded = {}


def answers_are_recorded():
    def text(path, body):
        return setting.direct.post(path, body).text

    calls = {
        "chat": chat(), "tools": setting.called, "completions": ("/completions", {**GREEDY, "prompt": "hello"}),
        "responses": ("/responses", {"input": "hello", "max_output_tokens": 8, "temperature": 0}),
        "messages": ("/messages", {"messages": HELLO, "max_tokens": 8, "temperature": 0}),
    }
    for name, (path, body) in calls.items():
        recorded[f"body/vllm_0_32_{name}.json"] = text(path, body)
        body = {**body, **(USAGE if name in ("chat", "tools", "completions") else {})}
        recorded[f"sse/vllm_0_32_{name}.sse"] = text(path, {**body, "stream": True})
    refused = {"model": {"model": "absent"}, "too_long": {"messages": [{"role": "user", "content": "word " * 4 * CONTEXT}]},
               "parameter": {"temperature": 99}, "type": {"temperature": "hot"}}
    for name, more in refused.items():
        recorded[f"error/vllm_0_32_{name}.json"] = text(*chat(more))
    for name, path in (("version", "/version"), ("models", "/v1/models")):
        recorded[f"page/vllm_0_32_{name}.json"] = httpx2.get(setting.engine.root + path, timeout=10).text
    for name in recorded if len(sys.argv) > 2 else ():
        path = pathlib.Path(sys.argv[2], name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(recorded[name])


def the_gateway_ends_well():
    code, text = setting.gateway.stop()
    assert code == 0 and "panicked" not in text, text


TESTS = [
    whole_answers_are_equal,
    streams_are_equal_and_tell_usage_only_when_asked,
    tools_are_called,
    answers_have_the_form_that_was_asked_for,
    completions_are_equal,
    responses_and_messages_are_equal,
    what_is_wrong_is_refused_alike,
    a_refusal_inside_a_stream_becomes_a_status,
    what_the_gateway_refuses_itself_has_the_engines_status,
    the_log_has_the_engines_own_tokens,
    metrics_are_read_as_the_engine_shows_them,
    a_client_that_hangs_up_frees_the_engine,
    a_fleet_file_is_written_from_it,
    backends_of_it_are_equal,
    its_second_name_is_told,
    what_is_altered_shows,
    answers_are_recorded,
    the_gateway_ends_well,
]

try:
    setting = Setting(sys.argv[1])
except BaseException:
    stop_all()
    raise
print(f"vLLM {version()}", flush=True)
run_all(TESTS)
