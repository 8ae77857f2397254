"""One gateway replaces another on the same socket, as systemd hands it over, while clients connect anew for every request:
none is refused, cut or lost.

Run by ./test with OUTRIGGER_BIN set; the last line is `N passed, N failed`.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from rig import BIN

REPLACEMENTS = 5
CLIENTS = 4
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": True})
children = []
folder = tempfile.TemporaryDirectory(prefix="outrigger-e2e-")


def start(command, **more):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **more)
    children.append(process)
    line = process.stdout.readline()
    assert line, f"{command} did not start"
    threading.Thread(target=process.stdout.read, daemon=True).start()
    return process, json.loads(line)


def engine():
    profile = os.path.join(folder.name, "profile.json")
    with open(profile, "w") as out:
        json.dump({"name": "e", "engine": "vllm", "model": "m", "default_output_tokens": 8}, out)
    return start([BIN, "fake", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--profile", profile])[1]["listen"]


def gateway(shared, fleet):
    """As systemd starts it: the socket is descriptor 3, and the variables name the process that may take it."""
    serve = [BIN, "serve", "--fleet", fleet, "--admin", "127.0.0.1:0"]
    script = f'exec 3<&{shared.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
    return start(["sh", "-c", script, "sh", *serve], pass_fds=[shared.fileno()])


def ask(port, outcomes):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", "/v1/chat/completions", BODY, {"content-type": "application/json"})
        answer = connection.getresponse()
        whole = answer.status == 200 and answer.read().endswith(b"data: [DONE]\n\n")
        outcomes.append("ok" if whole else f"status {answer.status}")
    except OSError as error:
        outcomes.append(type(error).__name__)
    finally:
        connection.close()


def main():
    fleet = os.path.join(folder.name, "fleet.yaml")
    with open(fleet, "w") as out:
        out.write(f"""version: 1
clouds: {{ c: {{}} }}
backends:
  b: {{ cloud: c, engine: vllm, url: "{engine()}/v1", model: m }}
models:
  m: {{ tiers: [ {{ split: {{ b: 1 }} }} ] }}
""")
    shared = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = shared.getsockname()[1]
    running, ready = gateway(shared, fleet)
    assert ready["listen"] == f"http://127.0.0.1:{port}", ready
    outcomes, stop = [], threading.Event()

    def client():
        while not stop.is_set():
            ask(port, outcomes)

    clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for one in clients:
        one.start()
    for _ in range(REPLACEMENTS):
        served = len(outcomes)
        other, _ = gateway(shared, fleet)
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=40) == 0
        running = other
        # Alone, the new one serves.
        deadline = time.monotonic() + 60
        while len(outcomes) < served + 50 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(outcomes) >= served + 50, "the new gateway does not serve"
    stop.set()
    for one in clients:
        one.join()
    failed = [outcome for outcome in outcomes if outcome != "ok"]
    print(f"{len(outcomes)} requests over {REPLACEMENTS} replacements, failed: {failed}")
    assert not failed
    print("1 passed, 0 failed")


try:
    main()
finally:
    for child in children:
        child.kill()
