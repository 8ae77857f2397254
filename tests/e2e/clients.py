"""Clients as their makers ship them, unmodified: each call directly to a llama-server and through the gateway, with equal
outcomes. openai's Python client in its current major version and the one before, and openai's client for Node.

Run by ./test with OUTRIGGER_BIN set; the last line is `N passed, N failed`.
"""

import json
import os
import subprocess
import sys
import traceback

from rig import ROOT, Engine, Gateway, stop_all

HERE = os.path.dirname(os.path.abspath(__file__))
TOOLS = os.path.join(ROOT, ".tools")
PYTHON = [sys.executable, os.path.join(HERE, "clients", "openai_client.py")]
NODE = ["node", os.path.join(HERE, "clients", "openai_client.mjs")]
# What its makers ship, how it is run, and the first number of its version.
CLIENTS = {
    "openai 3 (Python)": (PYTHON, {}, "3."),
    "openai 2 (Python)": (PYTHON, {"PYTHONPATH": os.path.join(TOOLS, "openai-2")}, "2."),
    "openai 6 (Node)": (NODE, {"NODE_PATH": os.path.join(TOOLS, "node_modules")}, "6."),
}


def outcomes(command, env, url, key, model):
    env = {**os.environ, **env, "PATH": os.path.join(TOOLS, "bin") + os.pathsep + os.environ["PATH"]}
    done = subprocess.run([*command, url, key, model], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def compare(client, engine, gateway):
    command, env, version = CLIENTS[client]
    direct = outcomes(command, env, engine.url, "none", "tiny")
    through = outcomes(command, env, gateway.url, gateway.key, "pub")
    assert direct["client"].startswith(version), direct["client"]
    differ = {name: (direct[name], through.get(name)) for name in direct if direct[name] != through.get(name)}
    assert not differ and direct.keys() == through.keys(), differ
    # A client that fails everywhere would agree, too.
    answered = [name for name, outcome in through.items() if isinstance(outcome, list) and "Error" not in str(outcome)]
    assert {"whole", "streamed", "streamed with usage", "response streamed", "hung up"} <= set(answered), through
    return len(through) - 1


def main():
    failed = 0
    engine = Engine("tiny").wait()
    gateway = Gateway([engine], ["tiny"])
    for client in CLIENTS:
        try:
            print(f"ok   {client}: {compare(client, engine, gateway)} calls with equal outcomes")
        except Exception:
            failed += 1
            print(f"FAIL {client}")
            traceback.print_exc(file=sys.stdout)
    code, said = gateway.stop()
    assert code == 0 and "panicked" not in said, said
    print(f"{len(CLIENTS) - failed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        stop_all()
