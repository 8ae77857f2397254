"""Simon Willison's `llm`, the command. usage: llm_client.py BASE_URL KEY MODEL"""

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile

from calls import KEY, LENGTH, MODEL, PROMPT, SEED, URL, report

FOLDER = tempfile.TemporaryDirectory(prefix="outrigger-llm-")
LLM = os.path.join(os.path.dirname(sys.executable), "llm")
with open(os.path.join(FOLDER.name, "extra-openai-models.yaml"), "w") as out:
    json.dump([
        {"model_id": "here", "model_name": MODEL, "api_base": URL, "api_key_name": "here", "supports_tools": True, "supports_schema": True},
        {"model_id": "nobody", "model_name": "nobody", "api_base": URL, "api_key_name": "here"},
        {"model_id": "prose", "model_name": MODEL, "api_base": URL, "api_key_name": "here", "completion": True},
    ], out)


def llm(*args, key=KEY):
    env = {**os.environ, "LLM_USER_PATH": FOLDER.name}
    done = subprocess.run([LLM, *args, "--key", key], env=env, capture_output=True, text=True, timeout=100)
    # An error's text is its sender's; its number is not.
    said = done.stdout if done.returncode == 0 else done.stderr.split(" - ")[0]
    # What was cached depends on what was asked before.
    usage = [line.split(", {")[0] for line in done.stderr.splitlines() if line.startswith("Token usage")]
    return done.returncode, said, usage


def prompt(*args, model="here", **more):
    fixed = ["-o", "temperature", "0", "-o", "seed", str(SEED), "-o", "max_tokens", str(LENGTH), "--usage"]
    return llm("prompt", "-m", model, PROMPT, *fixed, *args, **more)


report(f"llm {importlib.metadata.version('llm')}", {
    "whole": lambda: prompt("--no-stream"),
    "streamed": prompt,
    "system": lambda: prompt("-s", "be short"),
    "schema": lambda: llm("prompt", "-m", "here", PROMPT, "--schema", "ok bool", "-o", "temperature", "0"),
    "completion": lambda: prompt(model="prose"),
    "bad key": lambda: prompt(key="sk-wrong"),
    "wrong model": lambda: prompt(model="nobody"),
})
