"""Reloads of a fleet of 2,000 backends while clients ask: how many requests fail, how long a reload takes, what stays in
memory, and whether a broken file ever comes into force.

usage: reloads.py BINARY [RELOADS]
"""

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

BIN, RELOADS = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
MODELS, EACH, CLIENTS, PAUSE = 200, 10, 4, 0.02
BROKEN_EVERY = 50
MOST_SECONDS, MOST_GROWTH = 1.0, 1.2
children = []


def start(*command):
    process = subprocess.Popen([BIN, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    children.append(process)
    ready = json.loads(process.stdout.readline())
    threading.Thread(target=lambda: all(process.stdout), daemon=True).start()
    return process, ready


def port(url):
    return int(url.rsplit(":", 1)[1])


def fleet(engine, nth):
    """Another fleet for each n: other weights, and of each model one backend more or less."""
    backends, models = [], []
    for model in range(MODELS):
        names = [f"b{model}-{i}" for i in range(EACH - (nth + model) % 2)]
        backends += [f'  {name}: {{ cloud: c, engine: vllm, url: "{engine}/v1", model: m, metrics: none }}' for name in names]
        split = ", ".join(f"{name}: {1 + (nth + i) % 5}" for i, name in enumerate(names))
        models.append(f"  m{model}: {{ tiers: [ {{ split: {{ {split} }} }} ] }}")
    return "\n".join(["version: 1", "clouds: { c: {} }", "backends:", *backends, "models:", *models, ""])


def ask(connection, model):
    body = json.dumps({"model": f"m{model}", "messages": [{"role": "user", "content": "hello"}], "stream": True})
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    return "ok" if answer.status == 200 and text.endswith(b"data: [DONE]\n\n") else f"status {answer.status} {text[-200:]}"


def client(to, first, outcomes, stop):
    connection, model = http.client.HTTPConnection("127.0.0.1", to, timeout=30), first
    while not stop.is_set():
        try:
            outcomes.append(ask(connection, model % MODELS))
        except OSError as error:
            outcomes.append(repr(error))
            connection.close()
        model += CLIENTS
        time.sleep(PAUSE)


def resident(process):
    with open(f"/proc/{process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1024


def admin(to, method, path):
    connection = http.client.HTTPConnection("127.0.0.1", to, timeout=60)
    connection.request(method, path, b"{}" if method == "POST" else None, {"content-type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def main():
    with tempfile.TemporaryDirectory(prefix="outrigger-reloads-") as folder:
        path, profile = os.path.join(folder, "fleet.yaml"), os.path.join(folder, "profile.json")
        with open(profile, "w") as out:
            json.dump({"name": "e", "engine": "vllm", "model": "m", "default_output_tokens": 8}, out)
        _, engine = start("fake", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--profile", profile)

        def write(text):
            with open(path + ".new", "w") as out:
                out.write(text)
            os.replace(path + ".new", path)

        texts = [fleet(engine["listen"], nth) for nth in range(10)]
        write(texts[0])
        gateway, ready = start(
            "serve", "--fleet", path, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--no-watch"
        )
        to, outcomes, stop = port(ready["admin"]), [], threading.Event()
        clients = [
            threading.Thread(target=client, args=(port(ready["listen"]), n, outcomes, stop)) for n in range(CLIENTS)
        ]
        for one in clients:
            one.start()
        took, sizes, wrong, digest = [], [], [], ready["fleet"]
        for nth in range(1, RELOADS + 1):
            is_broken = nth % BROKEN_EVERY == 0
            text = texts[nth % len(texts)]
            # A file that is only half written is the likeliest broken one.
            write(text[: len(text) * (nth % 7 + 1) // 9] if is_broken else text)
            began = time.monotonic()
            status, _ = admin(to, "POST", "/api/v1/reload")
            took.append(time.monotonic() - began)
            if (status == 200) == is_broken:
                wrong.append((nth, status))
            if is_broken or nth % 20 == 0:
                now = admin(to, "GET", "/api/v1/state")[1]["fleet"]
                if is_broken and now != digest:
                    wrong.append((nth, "a broken file is in force"))
                digest = now
            elif (nth + 1) % BROKEN_EVERY == 0:
                digest = admin(to, "GET", "/api/v1/state")[1]["fleet"]
            if nth % max(RELOADS // 20, 1) == 0:
                sizes.append(resident(gateway))
        stop.set()
        for one in clients:
            one.join()
        failed = [outcome for outcome in outcomes if outcome != "ok"]
        took.sort()
        print(f"{RELOADS} reloads of {MODELS * EACH} backends at most, {len(wrong)} wrong {wrong[:3]}")
        print(f"{len(outcomes)} requests meanwhile, {len(failed)} failed {failed[:3]}")
        print(f"a reload: median {statistics.median(took):.3f} s, p99 {took[len(took) * 99 // 100]:.3f} s, most {took[-1]:.3f} s")
        print("resident MiB after each twentieth:", " ".join(f"{size:.0f}" for size in sizes))
        half = len(sizes) // 2
        growth = max(sizes[half:]) / max(sizes[:half] or sizes)
        print(f"the second half needs {growth:.2f} of the first")
        assert outcomes and not failed and not wrong
        assert took[-1] < MOST_SECONDS, "a reload took too long"
        assert growth < MOST_GROWTH, "memory grows"


try:
    main()
finally:
    for child in children:
        child.kill()
