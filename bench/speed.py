"""The speed of gateways side by side, in one run and in turn: what each costs in CPU, latency and memory.

The proxy under test has one core; two mock engines and the load have the other. CPU is the kernel's account of the
proxy's process tree. What arrived is counted by the mock engines.

usage: speed.py BINARY BENCH [--rounds N] [--only NAME,…] [--json FILE]
"""

import argparse
import hashlib
import http.client
import json
import os
import signal
import socket
import statistics
import string
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent / "speed" / "peers"
TOOLS = Path(".tools")
MODEL = "meta-llama/Llama-3.3-70B-Instruct"
# LiteLLM does not start with a key that looks weak.
KEY = "sk-" + hashlib.sha256(b"for a bench and nothing else").hexdigest()
PROXY_CORE, LOAD_CORE = {0}, {1}
STREAMS, TOKENS = 1_000, 100


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(command, core, out=subprocess.DEVNULL, env=None, err=subprocess.DEVNULL):
    """A process of its own session on these cores, before everything else that the machine does if that is allowed."""
    def prepare():
        os.sched_setaffinity(0, core)
        try:
            os.setpriority(os.PRIO_PROCESS, 0, -20)
            # Where the kernel groups processes by session, this is what counts.
            Path("/proc/self/autogroup").write_text("-20")
        except OSError:
            pass
    environment = {**os.environ, **(env or {})}
    return subprocess.Popen([str(c) for c in command], stdout=out, stderr=err, text=True, env=environment,
                            preexec_fn=prepare, start_new_session=True)


def stop(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def tree(pid):
    """A process and all its descendants."""
    found = [pid]
    for parent in found:
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def cpu_us(pid):
    """Time on a processor of every thread of the tree, in microseconds."""
    total = 0
    for process in tree(pid):
        for task in Path(f"/proc/{process}/task").glob("*/schedstat"):
            try:
                total += int(task.read_text().split()[0])
            except OSError:
                continue
    return total / 1e3


def resident_kib(pid):
    total = 0
    for process in tree(pid):
        try:
            status = Path(f"/proc/{process}/status").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return total


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", path)
    return json.loads(connection.getresponse().read())


class Peers:
    """How each is started; every method gives the command, its environment, and the model's name and key to ask with."""

    def __init__(self, binary, bench, ports, work):
        self.binary, self.bench, self.ports, self.work = binary, bench, ports, work

    def values(self, port):
        a, b = (f"127.0.0.1:{p}" for p in self.ports)
        return {"listen": f"127.0.0.1:{port}", "a": a, "b": b, "model": MODEL, "work": str(self.work),
                "admin": f"127.0.0.1:{free_port()}", "key_hash": hashlib.sha256(KEY.encode()).hexdigest()}

    def configured(self, name, port):
        text = string.Template((HERE / name).read_text()).substitute(self.values(port))
        path = self.work / name
        path.write_text(text)
        return path

    def bare(self, port):
        to = [x for p in self.ports for x in ("--to", f"127.0.0.1:{p}")]
        return [self.bench, "bare", "--listen", f"127.0.0.1:{port}", *to], {}

    def haproxy(self, port):
        root = TOOLS / "debian"
        return [root / "usr/sbin/haproxy", "-db", "-f", self.configured("haproxy.cfg", port)], \
            {"LD_LIBRARY_PATH": str((root / "usr/lib/x86_64-linux-gnu").resolve())}

    def nginx(self, port):
        return [TOOLS / "debian/usr/sbin/nginx", "-g", "daemon off;", "-p", self.work, "-e", self.work / "nginx.log",
                "-c", self.configured("nginx.conf", port)], {}

    def vllm_router(self, port):
        return [TOOLS / "speed-peers/bin/vllm-router", "--host", "127.0.0.1", "--port", port, "--policy", "round_robin",
                "--log-level", "warning", "--prometheus-port", free_port(), "--max-concurrent-requests", 4096,
                "--worker-urls", *(f"http://127.0.0.1:{p}" for p in self.ports)], {}

    def smg(self, port):
        return [TOOLS / "speed-peers/bin/smg", "launch", "--host", "127.0.0.1", "--port", port, "--policy", "round_robin",
                "--log-level", "warn", "--prometheus-port", free_port(), "--max-concurrent-requests", 4096,
                "--worker-startup-check-interval", 1,
                "--worker-urls", *(f"http://127.0.0.1:{p}" for p in self.ports)], {}

    def litellm(self, port):
        return [TOOLS / "speed-peers/bin/litellm", "--host", "127.0.0.1", "--port", port, "--num_workers", 1, "--config",
                self.configured("litellm.yaml", port)], {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_MASTER_KEY": KEY}

    def outrigger(self, port):
        return [self.binary, "serve", "--fleet", self.configured("fleet.yaml", port)], {}


# What a peer is too slow for is left out, and it runs in the first round only. Of 1,000 streams LiteLLM ended none in 240 s.
SLOW = {"litellm": {"open 500", "open 2000", "streams"}}
NAMES = ["direct", "bare", "haproxy", "nginx", "vllm_router", "smg", "litellm", "outrigger"]


def answers(port, name):
    model, key = ("bench", KEY) if name == "outrigger" else (MODEL, KEY)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hello"}]})
    connection.request("POST", "/v1/chat/completions", body,
                       {"content-type": "application/json", "authorization": f"Bearer {key}"})
    return connection.getresponse().status == 200


def wait_until_ready(port, name, process, said):
    for _ in range(600):
        if process.poll() is not None:
            sys.exit(f"{name} ended with {process.returncode} before it answered:\n{said.read_text()[-2000:]}")
        try:
            if answers(port, name):
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.2)
    sys.exit(f"{name} does not answer")


def measured(bench, kind, port, name, proxy, *options):
    """One load: what the generator saw, and what the proxy spent between its first line and its last."""
    model = "bench" if name == "outrigger" else MODEL
    load = start([bench, kind, "--to", f"127.0.0.1:{port}", "--model", model, "--key", KEY, *options], LOAD_CORE,
                 out=subprocess.PIPE, err=None)
    if load.stdout.readline().strip() != "begin":
        sys.exit(f"no load for {name}")
    before, most = cpu_us(proxy), resident_kib(proxy)
    os.set_blocking(load.stdout.fileno(), False)
    line = ""
    while not line.endswith("\n"):
        time.sleep(0.05)
        line += load.stdout.readline() or ""
        if kind == "streams":
            most = max(most, resident_kib(proxy))
        if load.poll() is not None and not line:
            sys.exit(f"the load for {name} ended without a result")
    seen = json.loads(line)
    seen["cpu_us"] = cpu_us(proxy) - before
    seen["peak_kib"] = most
    load.wait()
    return seen


def round_of(name, bench, peers, mock, is_first):
    port, process, said = peers.ports[0], mock, peers.work / f"{name}.err"
    if name != "direct":
        port = free_port()
        command, env = getattr(peers, name)(port)
        process = start(command, PROXY_CORE, env=env, err=said.open("w"), out=said.with_suffix(".out").open("w"))
    try:
        wait_until_ready(port, name, process, said)
        time.sleep(1.0)
        seen = {"idle_kib": resident_kib(process.pid)}
        kinds = {"closed": ("closed",), "open 500": ("open", "--rate", 500), "open 2000": ("open", "--rate", 2000),
                 "streams": ("streams", "--streams", STREAMS, "--patience", 240)}
        for kind, (command, *options) in kinds.items():
            if kind in SLOW.get(name, ()):
                continue
            before = counts(peers.ports)
            seen[kind] = measured(bench, command, port, name, process.pid, *options)
            after = counts(peers.ports)
            seen[kind]["connections"] = after["connections"] - before["connections"]
            seen[kind]["requests"] = after["requests"] - before["requests"]
        if is_first:
            time.sleep(8.0)
            seen["after_kib"] = resident_kib(process.pid)
        return seen
    finally:
        if process is not mock:
            stop(process)


def counts(ports):
    return get(ports[0], "/seen")


def medians(rounds):
    """Each figure's median over the rounds that have it."""
    first = next((r for r in rounds if r), 0)
    if isinstance(first, dict):
        keys = {k for r in rounds if isinstance(r, dict) for k in r}
        return {k: medians([r[k] for r in rounds if isinstance(r, dict) and k in r] or [0]) for k in sorted(keys)}
    numbers = [r for r in rounds if isinstance(r, (int, float))]
    return statistics.median(numbers) if numbers else first


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("binary", type=Path)
    arguments.add_argument("bench", type=Path)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--only")
    arguments.add_argument("--json", type=Path)
    options = arguments.parse_args()
    names = options.only.split(",") if options.only else NAMES
    binary, bench = options.binary.resolve(), options.bench.resolve()
    rounds = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="outrigger-speed-") as folder:
        ports = [free_port(), free_port()]
        listens = [x for p in ports for x in ("--listen", f"127.0.0.1:{p}")]
        mock = start([bench, "mock", *listens, "--model", MODEL, "--tokens", TOKENS], LOAD_CORE, out=subprocess.PIPE)
        try:
            assert mock.stdout.readline() == "ready\n"
            peers = Peers(binary, bench, ports, Path(folder))
            for nth in range(options.rounds):
                for name in (n for n in names if nth == 0 or n not in SLOW):
                    seen = round_of(name, bench, peers, mock, nth == 0)
                    rounds[name].append(seen)
                    print(f"round {nth + 1} {name}: {brief(seen)}", file=sys.stderr, flush=True)
        finally:
            stop(mock)
    if options.json:
        options.json.write_text(json.dumps(rounds, indent=1))
    report({name: medians(seen) for name, seen in rounds.items()})


def each(seen, kind, of):
    return seen[kind]["cpu_us"] / max(seen[kind][of], 1) if kind in seen else float("nan")


def brief(seen):
    parts = []
    for kind in ("closed", "open 500", "open 2000", "streams"):
        if kind in seen:
            got = seen[kind]
            of = "events" if kind == "streams" else "ok"
            parts.append(f"{kind}: {got['ok']} ok {got['failed']} failed {each(seen, kind, of):.1f} us/{of} "
                         f"p99 {got['p99_ms']} ms {got['fault'] or ''}")
    return "; ".join(parts)


def report(seen):
    def figure(name, kind, field, digits=2):
        got = seen[name].get(kind)
        return "" if got is None else f"{got[field]:,.{digits}f}"

    print("| | requests/s | CPU µs/request | at 500/s | at 2,000/s | p99 ms at 500/s | at 2,000/s |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, got in seen.items():
        rate = f"{got['closed']['ok'] / got['closed']['seconds']:,.0f}"
        cells = [rate, *(f"{each(got, kind, 'ok'):.1f}" if kind in got else "" for kind in ("closed", "open 500", "open 2000")),
                 figure(name, "open 500", "p99_ms"), figure(name, "open 2000", "p99_ms")]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print()
    print("| | streams whole | seconds | TTFT p50 | TTFT p99 ms | gap p99 ms | CPU µs/event | idle MiB | KiB/stream | after/idle |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name, got in seen.items():
        streams = got.get("streams")
        if streams is None:
            continue
        per_stream = (streams["peak_kib"] - got["idle_kib"]) / STREAMS
        after = got["after_kib"] / got["idle_kib"] if got.get("after_kib") else float("nan")
        print(f"| {name} | {streams['ok']:,.0f} | {streams['seconds']:.2f} | {streams['p50_ms']:.0f} | {streams['p99_ms']:.0f} | "
              f"{streams['gap_p99_ms']:.0f} | {each(got, 'streams', 'events'):.1f} | {got['idle_kib'] / 1024:.1f} | "
              f"{per_stream:.0f} | {after:.2f} |")
    print()
    for name, got in seen.items():
        for kind in ("closed", "open 500", "open 2000"):
            if kind in got:
                print(f"{name}, {kind}: {got[kind]['requests']:,.0f} requests to the engines on "
                      f"{got[kind]['connections']:,.0f} new connections; {got[kind]['failed']:.0f} failed")
    bars(seen)


def bars(seen):
    """The bars that Outrigger's figures have to meet, each against HAProxy's in the same run."""
    if not {"outrigger", "haproxy", "direct"} <= seen.keys():
        return
    ours, theirs, direct = seen["outrigger"], seen["haproxy"], seen["direct"]
    rate = lambda s: s["closed"]["ok"] / s["closed"]["seconds"]
    added = lambda s: s["open 500"]["p99_ms"] - direct["open 500"]["p99_ms"]
    excess = lambda s: s["streams"]["p99_ms"] - direct["streams"]["p99_ms"]
    checks = [
        ("CPU per request at saturation, times HAProxy's", each(ours, "closed", "ok") / each(theirs, "closed", "ok"), 2.0),
        ("CPU per request at 2,000/s, times HAProxy's", each(ours, "open 2000", "ok") / each(theirs, "open 2000", "ok"), 1.3),
        ("HAProxy's requests/s at saturation, times ours", rate(theirs) / rate(ours), 2.0),
        ("CPU per streamed event, times HAProxy's", each(ours, "streams", "events") / each(theirs, "streams", "events"), 1.2),
        ("added p99 at 500/s above HAProxy's, ms", added(ours) - added(theirs), 0.2),
        ("TTFT p99 excess at 1,000 streams, times HAProxy's", excess(ours) / max(excess(theirs), 0.001), 1.5),
        ("streams not whole", STREAMS - ours["streams"]["ok"], 0),
        ("idle MiB", ours["idle_kib"] / 1024, 15),
        ("KiB per open stream", (ours["streams"]["peak_kib"] - ours["idle_kib"]) / STREAMS, 50),
        ("memory after load, times idle", ours["after_kib"] / ours["idle_kib"], 1.3),
    ]
    print()
    missed = 0
    for what, value, bar in checks:
        word = "met" if value <= bar else "MISSED"
        missed += value > bar
        print(f"{word:6} {what}: {value:.2f} (bar {bar})")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
