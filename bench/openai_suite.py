"""The tests that OpenAI ships with its Python client, against the mock server that they are written for: directly, and
through the gateway. What passes directly has to pass through the gateway.

The mock (`steady`) makes answers up from OpenAI's OpenAPI description, the model's name in them too, and answers whole
where a stream was asked for. The gateway takes both for faults, as it does of an engine. So a small server in front of the
mock writes the name that was asked for into answers, and streams those of chats, completions and responses; it also takes
the `/v1` off paths. Both runs go through it.

Some tests ask for what the gateway refuses by design (`EXPLAINED`). They are counted apart, and only if the gateway said so
in that very test, and in an area of the suite where that may be.

usage: openai_suite.py SUITE MOCK SPEC PYTHON [PYTEST-ARGUMENT…]
"""

import collections
import contextlib
import glob
import http.client
import http.server
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import xml.etree.ElementTree

from rig import BIN, Gateway, children, free_port, stop_all

KEY = "My API Key"  # the suite's own, see its conftest.py
APIS = "[chat, completions, embeddings, responses, audio, images]"
# Administration of an organisation is no traffic of models, and is a third of the suite.
LEFT_OUT = {"admin"}
# Paths whose requests name no model: each goes to one backend as a whole, where the gateway can be told to.
PREFIXES = [
    "assistants", "audio/voice_consents", "audio/voices", "batches", "chat/completions", "chatkit", "containers",
    "conversations", "evals", "files", "fine_tuning", "moderations", "responses", "skills", "threads", "uploads",
    "vector_stores", "videos",
]
SERVED = "chat/completions|completions|embeddings|responses|models|images|audio/(speech|transcriptions|translations)"
# Why a test may fail through the gateway only: what the gateway says then, and in which areas it may.
EXPLAINED = {
    "no route": ("there is no '/v1/", ".*"),
    "method": ("this endpoint takes ", "chat/completions|models"),
    "no model": ("you must provide a model", "images|(beta/)?responses"),
    "realtime": ("does not serve the Realtime API", "realtime.*"),
}
HOP = {"connection", "content-length", "transfer-encoding", "keep-alive"}


class Named(http.server.BaseHTTPRequestHandler):
    """Passes requests to the mock, and writes the model that was asked for into its answer."""

    protocol_version = "HTTP/1.1"
    mock = 0

    def log_message(self, *_):
        pass

    def handle(self):
        # A client that goes away is its own business.
        with contextlib.suppress(ConnectionError):
            super().handle()

    def pass_on(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.headers.get("transfer-encoding") == "chunked":
            body = self.chunks()
        mock = http.client.HTTPConnection("127.0.0.1", self.mock, timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP | {"host", "accept-encoding"}}
        mock.request(self.command, self.path.removeprefix("/v1"), body or None, headers)
        answer = mock.getresponse()
        kind, content = answer.headers.get("content-type", ""), answer.read()
        mock.close()
        if kind.startswith("application/json"):
            kind, content = as_asked(kind, content, body, self.path)
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP | {"date", "server", "content-type"}:
                self.send_header(name, value)
        if kind:
            self.send_header("content-type", kind)
        if answer.status != 204:
            self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = pass_on

    def chunks(self):
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


def asked(body):
    """The model of a request, in JSON or in a form."""
    found = re.search(rb'"model"\s*:\s*"([^"]+)"|name="model"\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]+)', body)
    return found and (found[1] or found[2]).decode()


def as_asked(kind, content, body, path):
    """The answer by the model that was asked for, and as a stream where that was asked for."""
    model, value = asked(body), json.loads(content)
    if model and isinstance(value, dict) and isinstance(value.get("model"), str):
        value["model"] = model
    streamed = STREAMS.get(path.removeprefix("/v1")) if re.search(rb'"stream"\s*:\s*true', body) else None
    if streamed and not value.get("error"):
        return "text/event-stream", "".join(f"{event}\n\n" for event in streamed(value)).encode()
    return kind, json.dumps(value).encode()


def chunks_of_chat(value):
    head = {"id": value["id"], "object": "chat.completion.chunk", "created": 1, "model": value["model"]}
    for delta, finish in ({"role": "assistant", "content": "a"}, None), ({}, "stop"):
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        yield "data: " + json.dumps({**head, "choices": [choice]})
    yield "data: [DONE]"


def chunks_of_completion(value):
    yield "data: " + json.dumps(value)
    yield "data: [DONE]"


def events_of_response(value):
    item = {"item_id": "i", "output_index": 0, "content_index": 0, "delta": "a", "logprobs": []}
    events = {"response.created": {"response": value}, "response.output_text.delta": item,
              "response.completed": {"response": {**value, "status": "completed"}}}
    for number, (kind, event) in enumerate(events.items()):
        yield f"event: {kind}\ndata: " + json.dumps({"type": kind, "sequence_number": number, **event})


STREAMS = {
    "/chat/completions": chunks_of_chat,
    "/completions": chunks_of_completion,
    "/responses": events_of_response,
}


def start_mock(command, spec):
    port = free_port()
    brackets = [f"--validator-{where}-{what}-format=brackets" for where in ("query", "form") for what in ("array", "object")]
    args = [command, "--host", "127.0.0.1", "-p", str(port), "-q", *brackets, spec]
    children.append(subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/_x-steady/health", timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)
    else:
        raise RuntimeError("the mock did not start")
    Named.mock = port
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Named)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/v1"


def models_of(suite):
    """Every name of a model in the suite."""
    names = set()
    for path in glob.glob(f"{suite}/tests/api_resources/**/*.py", recursive=True):
        with open(path) as file:
            names |= set(re.findall(r'^\s*model="([^"]+)"', file.read(), re.M))
    return sorted(names)


def fleet_of(url, models):
    """One backend for each model, all of them the mock."""
    text = "version: 1\nclouds:\n  here: {}\nbackends:\n"
    for model in models:
        text += f"  {model}:\n    cloud: here\n    engine: openai\n    url: {url}\n    model: {model}\n    apis: {APIS}\n"
    text += "models:\n" + "".join(f"  {model}:\n    tiers:\n      - split: {{ {model}: 1 }}\n" for model in models)
    text += "routes:\n" + "".join(f"  /v1/{prefix}: {models[0]}\n" for prefix in PREFIXES)
    digest = subprocess.run([BIN, "key", "hash"], input=KEY, capture_output=True, text=True, check=True).stdout.strip()
    return text + f"keys:\n  suite:\n    sha256: {digest}\n"


def tests_of(suite):
    """All of the suite but for what the gateway cannot have a route for."""
    below = sorted(name for name in os.listdir(f"{suite}/tests/api_resources") if not name.startswith("_"))
    return [f"tests/api_resources/{name}" for name in below if name not in LEFT_OUT]


def run(suite, python, url, arguments):
    """Each test's outcome: `None` if it passed, else what was said."""
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        command = [python, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", f"--junitxml={report.name}"]
        env = {**os.environ, "TEST_API_BASE_URL": url, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([*command, *arguments], cwd=suite, env=env, capture_output=True, text=True, timeout=1800)
        if done.returncode not in (0, 1):
            raise RuntimeError(done.stdout + done.stderr)
        tree = xml.etree.ElementTree.parse(report.name)
    outcomes = {}
    for case in tree.iter("testcase"):
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        if case.find("skipped") is None:
            said = None if bad is None else (bad.get("message") or "") + (bad.text or "")
            outcomes[case.get("classname") + "::" + case.get("name")] = said
    return outcomes


def area(test):
    """The endpoint that a test is of, as its file says."""
    return re.sub(r"\.?test_", "/", test.split("::")[0].rsplit(".Test", 1)[0].removeprefix("tests.api_resources.")).strip("/")


def explained(test, said):
    """The reason, if a test that fails through the gateway only may do so."""
    for reason, (words, areas) in EXPLAINED.items():
        if words in said and re.fullmatch(areas, area(test)):
            return reason
    return None


def compare(direct, through):
    """By area: passed directly, passed through the gateway, explained; and the tests that were lost or are new."""
    table, lost, gained = collections.defaultdict(collections.Counter), [], []
    for test in sorted(direct.keys() | through.keys()):
        one, other = direct.get(test, "not run"), through.get(test, "not run")
        row = table[area(test)]
        row["direct"] += one is None
        row["through"] += other is None
        if one is None and other is not None:
            reason = explained(test, other)
            row[reason] += 1
            if reason is None:
                lost.append((test, other))
        elif other is None and one is not None:
            gained.append((test, one))
    return table, lost, gained


def main():
    suite, mock, spec, python, *arguments = sys.argv[1:]
    arguments = arguments or tests_of(suite)
    url = start_mock(mock, spec)
    folder = tempfile.TemporaryDirectory(prefix="outrigger-suite-")
    gateway = Gateway.of(fleet_of(url, models_of(suite)), KEY, folder)
    direct = run(suite, python, url, arguments)
    through = run(suite, python, gateway.url, arguments)
    table, lost, gained = compare(direct, through)
    columns = ["direct", "through", *EXPLAINED]
    print(f"{'tests of':44}" + "".join(f"{column:>9}" for column in columns))
    for name, row in sorted(table.items()):
        print(f"{name:44}" + "".join(f"{row[column]:9}" for column in columns))
    for what, tests in (("lost", lost), ("only through the gateway", gained)):
        for test, said in tests:
            print(f"{what}: {test}: {' '.join(said.split())[:300]}")
    total = sum(table.values(), collections.Counter())
    print(f"{len(direct)} tests: {total['direct']} pass directly, {total['through']} through the gateway; "
          f"{sum(total[reason] for reason in EXPLAINED)} explained, {len(lost)} lost, {len(gained)} only through the gateway")
    code, said = gateway.stop()
    assert code == 0 and "panicked" not in said, said
    # A suite that fails as a whole would agree, too.
    idle = [name for name, row in table.items() if re.fullmatch(SERVED, name) and not row["through"]]
    print(*(f"nothing passes of {name}" for name in idle), sep="\n", end="")
    return bool(lost or gained or idle) or not total["through"]


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        stop_all()
