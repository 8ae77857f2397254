"""Plays the failure lab before other gateways, and prints a row for each rule.

usage: lab_peers.py OUTRIGGER [--only TEXT]…

Two figures for each: cells in which the client got what it should (the whole answer, the engine's own error, a stream that
says that it broke), and cells in which, besides, the status and the requests that the engines got are right. The words
that a gateway has for its errors are its own and are not judged.
"""

import json
import os
import signal
import string
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import OrderedDict
from pathlib import Path

HERE = Path(__file__).parent
TOOLS = HERE.parent / ".tools"
KEY = "sk-lab-gateway-0123456789"
ENGINES = ("127.0.0.1:18101", "127.0.0.1:18102")
VALUES = {
    "first": ENGINES[0],
    "second": ENGINES[1],
    "model": "org/lab-model",
    "engines_key": "sk-lab-engine-9b3e7a51c04d2f68",
}


def configured(name, folder, **values):
    text = string.Template((HERE / "lab" / name).read_text()).substitute(VALUES, **values)
    path = Path(folder) / name
    path.write_text(text)
    return path


def answers(url, within):
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(url, timeout=1).read()
            return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            time.sleep(0.3)
    return False


def play(outrigger, command, variables, port, only, within):
    environment = os.environ | variables
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    gateway = subprocess.Popen(command, env=environment, start_new_session=True, **quiet)
    try:
        if not answers(f"http://127.0.0.1:{port}/", within):
            sys.exit(f"{command[0]} does not listen")
        lab = [outrigger, "lab", "--json", "--target", f"http://127.0.0.1:{port}", "--engines", ",".join(ENGINES)]
        lab += ["--key-env", "LAB_KEY"]
        environment["LAB_KEY"] = KEY
        played = subprocess.run(lab + only, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if played.returncode not in (0, 1):
            sys.exit(played.stderr)
        return json.loads(played.stdout)["cells"]
    finally:
        os.killpg(gateway.pid, signal.SIGKILL)
        gateway.wait()


def summary(cells):
    rules = OrderedDict()
    for cell in cells:
        of_rule = rules.setdefault(cell["rule"], [0, 0, 0])
        of_rule[0] += 1
        of_rule[1] += cell["expected"].get("answer") == cell["got"].get("answer")
        of_rule[2] += cell["ok"]
    return rules


def main():
    outrigger, only = sys.argv[1], sys.argv[2:]
    results = OrderedDict()
    with tempfile.TemporaryDirectory() as folder:
        config = configured("haproxy.cfg", folder, listen="127.0.0.1:18110")
        root = TOOLS / "debian"
        libraries = {"LD_LIBRARY_PATH": str((root / "usr/lib/x86_64-linux-gnu").resolve())}
        command = [root / "usr/sbin/haproxy", "-db", "-f", config]
        results["HAProxy"] = play(outrigger, command, libraries, 18110, only, 10)
        config = configured("litellm.yaml", folder)
        command = [TOOLS / "speed-peers/bin/litellm", "--config", config, "--host", "127.0.0.1", "--port", "18120"]
        variables = {"LITELLM_LOG": "ERROR", "LITELLM_MASTER_KEY": KEY}
        results["LiteLLM"] = play(outrigger, command, variables, 18120, only, 120)
    tables = {name: summary(cells) for name, cells in results.items()}
    (HERE.parent / "target/lab-peers.json").write_text(json.dumps(results))
    print("| rule | " + " | ".join(f"{name}: client right, all right" for name in tables) + " |")
    print("|---|" + "---:|" * len(tables))
    for rule in OrderedDict.fromkeys(rule for table in tables.values() for rule in table):
        shown = [tables[name].get(rule, [0, 0, 0]) for name in tables]
        print(f"| {rule} | " + " | ".join(f"{right}, {ok} of {all_}" for all_, right, ok in shown) + " |")
    for name, table in tables.items():
        sums = [sum(column) for column in zip(*table.values())]
        print(f"{name}: of {sums[0]} cells the client is right in {sums[1]}, and all is right in {sums[2]}")
    # A lab in which a plain proxy is all green asks for nothing.
    return 1 if all(cell["ok"] for cell in results["HAProxy"]) else 0


if __name__ == "__main__":
    sys.exit(main())
