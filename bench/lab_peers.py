"""Plays the failure lab before other gateways, and prints a row for each rule.

usage: lab_peers.py OUTRIGGER [--tools FOLDER] [--at-once N] [--only TEXT]... [GATEWAY]...

GATEWAY: haproxy-h1, haproxy-h2, litellm; all of them unless some are named. LiteLLM is served by uvicorn, which speaks no
HTTP/2, and asks engines over HTTP/1.1. Each endpoint has an instance of the gateway and two engines of its own, since cells
before one instance are played one after another.

Two figures for each rule: cells in which the client got what it should (the whole answer, the engine's own error, a stream
that says that it broke), and cells in which, besides, the status and the requests that the engines got are right. The words
that a gateway has for its errors are its own and are not judged.
"""

import argparse
import json
import os
import signal
import string
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
KEY = "sk-lab-gateway-0123456789"
VALUES = {"model": "org/lab-model", "engines_key": "sk-lab-engine-9b3e7a51c04d2f68"}
ENDPOINTS = ("chat", "completions", "responses", "messages")
# How long an instance may take until it listens.
STARTS_WITHIN = {"haproxy-h1": 20, "haproxy-h2": 20, "litellm": 240}
PROTOCOL = {"haproxy-h1": "h1", "haproxy-h2": "h2", "litellm": "h1"}


def haproxy(tools, folder, ports, protocol):
    config = configured("haproxy.cfg", folder, ports, listen=f"127.0.0.1:{ports[0]}", protocol=protocol)
    root = tools / "debian"
    libraries = {"LD_LIBRARY_PATH": str((root / "usr/lib/x86_64-linux-gnu").resolve())}
    return [root / "usr/sbin/haproxy", "-db", "-f", config], libraries


def litellm(tools, folder, ports):
    config = configured("litellm.yaml", folder, ports)
    listen = ["--host", "127.0.0.1", "--port", str(ports[0])]
    variables = {"LITELLM_LOG": "ERROR", "LITELLM_MASTER_KEY": KEY}
    return [tools / "speed-peers/bin/litellm", "--config", config, *listen], variables


GATEWAYS = {
    "haproxy-h1": lambda *where: haproxy(*where, protocol="h1"),
    "haproxy-h2": lambda *where: haproxy(*where, protocol="h2"),
    "litellm": litellm,
}


def configured(name, folder, ports, **values):
    engines = {"first": f"127.0.0.1:{ports[1]}", "second": f"127.0.0.1:{ports[2]}"}
    text = string.Template((HERE / "lab" / name).read_text()).substitute(VALUES, **engines, **values)
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


def play(arguments, gateway, endpoint, ports):
    """The cells of one endpoint, before an instance of this gateway."""
    with tempfile.TemporaryDirectory() as folder:
        command, variables = GATEWAYS[gateway](arguments.tools, folder, ports)
        environment = os.environ | variables
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, env=environment, start_new_session=True, **quiet)
        try:
            if not answers(f"http://127.0.0.1:{ports[0]}/", STARTS_WITHIN[gateway]):
                raise SystemExit(f"{command[0]} does not listen")
            target = ["--target", f"http://127.0.0.1:{ports[0]}", "--engines"]
            target += [f"127.0.0.1:{ports[1]},127.0.0.1:{ports[2]}", "--key-env", "LAB_KEY"]
            where = f"/{PROTOCOL[gateway]}/{endpoint}/"
            only = [word for text in arguments.only for word in ("--only", text + where)] or ["--only", where]
            played = subprocess.run(
                [arguments.outrigger, "lab", "--json", *target, *only],
                env=environment | {"LAB_KEY": KEY},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            if played.returncode not in (0, 1):
                raise SystemExit(f"{gateway}, {endpoint}: {played.stderr}")
            return json.loads(played.stdout)["cells"]
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def counts(cells):
    right = sum(cell["expected"].get("answer") == cell["got"].get("answer") for cell in cells)
    return right, sum(cell["ok"] for cell in cells), len(cells)


def print_table(what, key, results):
    print(f"| {what} | " + " | ".join(results) + " |")
    print("|---|" + "---|" * len(results))
    every = [cell for cells in results.values() for cell in cells]
    for value in OrderedDict.fromkeys(map(key, every)):
        shown = [counts([cell for cell in cells if key(cell) == value]) for cells in results.values()]
        print(f"| {value} | " + " | ".join("{} / {} of {}".format(*c) if c[2] else "" for c in shown) + " |")
    print("| all | " + " | ".join("{} / {} of {}".format(*counts(cells)) for cells in results.values()) + " |\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("outrigger")
    parser.add_argument("gateways", nargs="*")
    parser.add_argument("--tools", type=Path, default=HERE.parent / ".tools")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--at-once", type=int, default=4)
    arguments = parser.parse_intermixed_args()
    jobs = [(gateway, endpoint) for gateway in arguments.gateways or GATEWAYS for endpoint in ENDPOINTS]
    with ThreadPoolExecutor(arguments.at_once) as pool:
        ports = [[18100 + 3 * nth + port for port in range(3)] for nth in range(len(jobs))]
        played = pool.map(lambda job: play(arguments, *job[0], job[1]), zip(jobs, ports))
        results = OrderedDict()
        for (gateway, _), cells in zip(jobs, played):
            results.setdefault(gateway, []).extend(cells)
    (HERE.parent / "target/lab-peers.json").write_text(json.dumps(results))
    print_table("rule", lambda cell: cell["rule"], results)
    print_table("endpoint", lambda cell: cell["endpoint"], results)
    # A lab in which a plain proxy is all green asks for nothing.
    proxies = [cells for gateway, cells in results.items() if gateway.startswith("haproxy")]
    return 1 if any(all(cell["ok"] for cell in cells) for cells in proxies) else 0


if __name__ == "__main__":
    sys.exit(main())
