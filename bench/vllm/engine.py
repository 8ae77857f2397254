"""A vLLM with a random model, as a process, and asking it or the gateway for something."""

import atexit
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import urllib.request

import httpx2

from rig import ROOT, children, free_port

sys.path.insert(0, os.path.join(ROOT, "dev/fakes/engines"))
from make_tiny_llama import write_model  # noqa: E402

NAMES, PUBLIC = ["tiny", "twin"], "pub"
AT_ONCE, CONTEXT = 4, 2048
# Imports alone take minutes where other work runs.
START = 900
HELLO = [{"role": "user", "content": "hello"}]


class Vllm:
    def __init__(self, python, folder):
        write_model(pathlib.Path(folder, "tiny"))
        self.port, self.log_path = free_port(), os.path.join(folder, "vllm.log")
        self.root = f"http://127.0.0.1:{self.port}"
        self.url = self.root + "/v1"
        command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", "./tiny", "--served-model-name", *NAMES]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--dtype", "float32", "--enforce-eager"]
        command += ["--max-model-len", str(CONTEXT), "--max-num-seqs", str(AT_ONCE), "--enable-log-requests"]
        # Blocks of 128 tokens, so that the KV cache fills to some part.
        command += ["--block-size", "128", "--num-gpu-blocks-override", "96"]
        command += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
        # A random model may never come to the end of white space.
        command += ["--structured-outputs-config", json.dumps({"backend": "xgrammar", "disable_any_whitespace": True})]
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
        env.pop("PYTHONPATH", None)
        with open(self.log_path, "w") as log:
            # It has children of its own, which outlive it where it is killed.
            group = {"start_new_session": True}
            self.process = subprocess.Popen(command, env=env, cwd=folder, stdout=log, stderr=log, **group)
        children.append(self.process)
        atexit.register(self.end)

    def end(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def log(self):
        with open(self.log_path) as log:
            return log.read()

    def wait(self):
        began = time.monotonic()
        while time.monotonic() - began < START and self.process.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(self.root + "/health", timeout=5)
                print(f"vLLM is up after {time.monotonic() - began:.0f} s", flush=True)
                return self
            time.sleep(0.5)
        raise RuntimeError("vLLM did not start:\n" + self.log()[-4000:])

    def page(self):
        return httpx2.get(self.root + "/metrics", timeout=10).text

    def running(self):
        return gauges(self.page())["num_requests_running"]


def gauges(page):
    """vLLM's own numbers on its page, of its only engine core."""
    rows = re.findall(r'^vllm:(\w+){engine="0",model_name="tiny"} (\S+)$', page, re.MULTILINE)
    return {name: float(value) for name, value in rows}


def fleet_of(url, models):
    """A backend for each of these names of one engine."""
    text, split = "version: 1\nclouds:\n  here: {}\nbackends:\n", []
    for number, model in enumerate(models):
        text += f"  b{number}: {{ cloud: here, engine: vllm, url: \"{url}\", model: {model}, "
        text += "apis: [chat, completions, responses, messages] }\n"
        split.append(f"b{number}: 1")
    return text + f"models:\n  {PUBLIC}:\n    tiers:\n      - split: {{ {', '.join(split)} }}\n"


class Server:
    """Where to ask for the model, and by which name and key."""

    def __init__(self, url, model, key="none"):
        self.url, self.model, self.headers = url, model, {"authorization": f"Bearer {key}", "x-api-key": key}

    def post(self, path, body):
        body = body if isinstance(body, bytes) else json.dumps({"model": self.model, **body}).encode()
        headers = {**self.headers, "content-type": "application/json"}
        return httpx2.post(self.url + path, content=body, headers=headers, timeout=120)

    @contextlib.contextmanager
    def streaming(self, body):
        """The lines of a chat's stream, which ends when the context does."""
        body = {"model": self.model, "messages": HELLO, "stream": True, **body}
        with httpx2.stream("POST", self.url + "/chat/completions", json=body, headers=self.headers, timeout=120) as answer:
            assert answer.status_code == 200, answer.read()
            yield (line for line in answer.iter_lines() if line)


def without_white_space(folder):
    """The same for calls of tools, for which vLLM has no such option."""
    vocabulary = json.loads(pathlib.Path(folder, "tiny", "tokenizer.json").read_text())["model"]["vocab"]
    # A space, a line's end and a tabulator, as byte-level tokenizers write them.
    return {"logit_bias": {str(number): -100 for token, number in vocabulary.items() if not token.strip("ĠĊĉ")}}
