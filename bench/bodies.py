"""Large request bodies: what they cost the gateway in processor time and memory, and whether the backend gets their bytes.

usage: bodies.py BINARY
"""

import functools
import hashlib
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time

BIN = os.path.abspath(sys.argv[1])
MB = 1_000_000
SIZES, EACH, ROUNDS = [1, 2.5, 5, 10], 50, 9
HELD_SIZES, AT_ONCE = [1, 10, 20], 8
# A cost for each MB at 10 MB, of that at 2.5 MB; and memory for each byte of a body that is held.
MOST_COST, MOST_HELD = 1.5, 1.5
MODEL = "a-model-of-the-backend"
RANDOM = random.Random(7)
children = []


class Engine:
    """Answers each request once its body has come and the gate is open, and keeps the hashes of the bodies."""

    def __init__(self):
        self.gate, self.came, self.listener = threading.Event(), [], socket.create_server(("127.0.0.1", 0), backlog=64)
        self.gate.set()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with connection, connection.makefile("rb") as stream:
            while stream.readline():
                headers = http.client.parse_headers(stream)
                body, at = memoryview(bytearray(int(headers["content-length"]))), 0
                while at < len(body):
                    at += stream.readinto(body[at:])
                if "x-outrigger-probe" not in headers:
                    self.came.append(hashlib.sha256(body).hexdigest())
                    self.gate.wait()
                connection.sendall(ANSWER)


TEXT = json.dumps({
    "id": "1", "object": "chat.completion", "created": 1, "model": MODEL,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
})
ANSWER = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(TEXT)}\r\n\r\n{TEXT}".encode()


def fill(size, piece):
    """As many pieces as fit, of some hundred different ones."""
    pieces = [piece() for _ in range(100)]
    text = "".join(pieces)
    return (text * (int(size * MB) // len(text) + 1))[: int(size * MB)]


def picture(size):
    base64 = fill(size, lambda: "".join(RANDOM.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+/", k=57)))
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64}"}}
    content = json.dumps([{"type": "text", "text": "What is this?"}, url])
    return "/v1/chat/completions", '{"model":"%s","messages":[{"role":"user","content":' + content + "}]}"


def prose(size):
    """With what JSON escapes, and with letters of more than one byte."""
    words = ["the ", "of ", "gateway ", "\\n\\n", '\\"quoted\\" ', "größer ", "日本語", "model ", "and so on. ", "\\t"]
    text = fill(size * 0.9, lambda: "".join(RANDOM.choices(words, k=20))).rsplit(" ", 1)[0]
    return "/v1/chat/completions", '{"messages":[{"role":"user","content":"' + text + '"}],"model":"%s"}'


def tokens(size):
    """A prompt in tokens: about four to six bytes for each."""
    numbers = fill(size, lambda: f"{RANDOM.randrange(128_000)},").rsplit(",", 1)[0]
    return "/v1/completions", '{"prompt":[' + numbers + '],"max_tokens":1,"model":"%s"}'


SHAPES = {"a picture (base64)": picture, "prose": prose, "tokens as numbers": tokens}


class Gateway:
    def __init__(self, engine, folder):
        path = os.path.join(folder, "fleet.yaml")
        with open(path, "w") as out:
            port = engine.listener.getsockname()[1]
            out.write(
                "version: 1\nclouds: { c: {} }\nbackends:\n"
                f'  b: {{ cloud: c, engine: vllm, url: "http://127.0.0.1:{port}/v1", model: {MODEL}, metrics: none }}\n'
                "models:\n  m: { tiers: [ { split: { b: 1 } } ] }\n"
            )
        command = [BIN, "serve", "--fleet", path, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        children.append(self.process)
        self.port = int(json.loads(self.process.stdout.readline())["listen"].rsplit(":", 1)[1])
        threading.Thread(target=lambda: all(self.process.stdout), daemon=True).start()
        self.engine, self.local = engine, threading.local()

    def ask(self, path, body):
        if not hasattr(self.local, "connection"):
            self.local.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        self.local.connection.request("POST", path, body, {"content-type": "application/json"})
        answer = self.local.connection.getresponse()
        text = answer.read()
        assert answer.status == 200, (answer.status, text)

    def cpu(self):
        """Seconds of processor time of the whole process, as its own clock counts them (clock_getcpuclockid(3))."""
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def memory(self, line):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(text.split()[1]) * 1024 for text in status if text.startswith(f"{line}:"))

    def forget_peak(self):
        with open(f"/proc/{self.process.pid}/clear_refs", "w") as out:
            out.write("5")

    def stop(self):
        self.process.kill()
        self.process.wait()


def checked(engine, expected):
    assert all(hash == expected for hash in engine.came), "the backend got other bytes"
    engine.came.clear()


def costs(gateway, shape):
    """Milliseconds of processor time for a body of each size: the least of some rounds, since what else runs on the
    machine can only add. A round has all sizes, so that a busy minute is none's alone."""
    least = {}
    for _ in range(ROUNDS):
        for size in SIZES:
            path, body, expected = made(shape, size)
            times = max(int(EACH / size), 3)
            began = gateway.cpu()
            for _ in range(times):
                gateway.ask(path, body)
            took = (gateway.cpu() - began) / times * 1000
            checked(gateway.engine, expected)
            least[size] = min(took, least.get(size, took))
    return least


@functools.cache
def made(shape, size):
    """A path, the body as it is sent, and the hash of what has to come."""
    path, text = shape(size)
    sent, expected = (text.replace("%s", name, 1).encode() for name in ("m", MODEL))
    return path, sent, hashlib.sha256(expected).hexdigest()


def held(gateway, size):
    """The peak of memory while some bodies are held at once, for each byte of them; and what is left afterwards."""
    path, body, expected = made(picture, size)
    gateway.ask(*small())
    gateway.engine.came.clear()
    gateway.engine.gate.clear()
    before = gateway.memory("VmRSS")
    gateway.forget_peak()
    clients = [threading.Thread(target=gateway.ask, args=(path, body)) for _ in range(AT_ONCE)]
    for client in clients:
        client.start()
    while len(gateway.engine.came) < AT_ONCE:
        time.sleep(0.01)
    peak = gateway.memory("VmHWM") - before
    gateway.engine.gate.set()
    for client in clients:
        client.join()
    checked(gateway.engine, expected)
    time.sleep(0.5)
    return peak, peak / (AT_ONCE * len(body)), gateway.memory("VmRSS") - before


def small():
    return made(prose, 0.001)[:2]


def main():
    engine, bad = Engine(), []
    with tempfile.TemporaryDirectory(prefix="outrigger-bodies-") as folder:
        gateway = Gateway(engine, folder)
        for _ in range(50):
            gateway.ask(*small())
        engine.came.clear()
        for name, shape in SHAPES.items():
            took = costs(gateway, shape)
            print(f"{name}: " + ", ".join(f"{size} MB {took[size]:.2f} ms" for size in SIZES), end="; ")
            ratio = (took[10] / 10) / (took[2.5] / 2.5)
            print(f"for each MB at 10 MB {ratio:.2f} times that at 2.5 MB", flush=True)
            if ratio > MOST_COST:
                bad.append(f"{name}: the cost grows faster than the body")
        gateway.stop()
        for size in HELD_SIZES:
            gateway = Gateway(engine, folder)
            peak, ratio, left = held(gateway, size)
            gateway.stop()
            print(
                f"{AT_ONCE} bodies of {size} MB held at once: {peak / MB:.1f} MB, {ratio:.2f} for each byte; "
                f"{left / MB:.1f} MB after their answers",
                flush=True,
            )
            if ratio > MOST_HELD:
                bad.append(f"bodies of {size} MB: {ratio:.2f} bytes for each byte")
    assert not bad, bad


try:
    main()
finally:
    for child in children:
        child.kill()
