#!/usr/bin/env python3
"""Runs the image's root as its Dockerfile says, by chroot where no container engine is: the command, the user, the
health check, an https backend by the bundle of authorities, the state folder, and SIGTERM.

usage: image.py ROOT WORK DOCKERFILE (from bare.sh; WORK holds cert.pem and key.pem)
"""

import http.server
import json
import os
import pathlib
import re
import signal
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request

root, work, dockerfile = (pathlib.Path(arg) for arg in sys.argv[1:4])
text = dockerfile.read_text().replace("\\\n", " ")


def words(instruction):
    """The JSON list that an instruction of the Dockerfile ends with."""
    found = re.search(rf"^{instruction}\b.*?(\[.*\])$", text, re.MULTILINE)
    return json.loads(found[1])


uid, gid = map(int, re.search(r"^USER (\d+):(\d+)$", text, re.MULTILINE).groups())
command, health = words("ENTRYPOINT") + words("CMD"), words("HEALTHCHECK")
assert (uid, gid) == (65532, 65532), (uid, gid)


def inside():
    os.chroot(root)
    os.chdir("/")
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def run(args, **more):
    return subprocess.run(args, env={}, preexec_fn=inside, capture_output=True, text=True, timeout=30, **more)


class Engine(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(work / "cert.pem", work / "key.pem")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine)
server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=server.serve_forever, daemon=True).start()

key = json.loads(run([command[0], "key", "new", "prod", "--json"]).stdout)
(root / "etc/outrigger/fleet.yaml").write_text(f"""version: 1
gateway: {{ state_dir: /var/lib/outrigger }}
clouds: {{ here: {{}} }}
backends:
  engine: {{ cloud: here, engine: openai, url: "https://localhost:{server.server_port}/v1", model: m }}
models:
  m: {{ tiers: [{{ split: {{ engine: 1 }} }}] }}
keys:
  prod: {{ sha256: {key['sha256']} }}
""")


def ask():
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]}).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {key['key']}"}
    request = urllib.request.Request("http://127.0.0.1:8080/v1/chat/completions", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def serve(look):
    """Runs the image's command, and `look` while it serves."""
    with open(work / "image.err", "w+") as stderr:
        process = subprocess.Popen(command, env={}, preexec_fn=inside, stdout=subprocess.PIPE, stderr=stderr, text=True)
        try:
            line = process.stdout.readline()
            assert '"event":"ready"' in line, (line, (work / "image.err").read_text())
            look(process)
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=60)
        assert code == 0, code


def with_authorities(process):
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    assert re.search(rf"^Uid:\s+{uid}\s+{uid}\s+{uid}\s+{uid}$", status, re.MULTILINE), status
    assert ask()[0] == 200, (ask(), (work / "image.err").read_text())
    healthy = run(health)
    assert healthy.returncode == 0 and json.loads(healthy.stdout)["backends"], healthy
    drained = run([command[0], "drain", "engine", "--for", "30m", "--json"])
    assert json.loads(drained.stdout)["survives_restart"] is True, drained
    run([command[0], "undrain", "engine"])


serve(with_authorities)
assert run(health).returncode == 3, "nothing runs, and the health check says yes"
bundle = root / "etc/ssl/certs/ca-certificates.crt"
bundle.rename(work / "away")
refused = run(command)
assert refused.returncode == 3 and "no authority is trusted here" in refused.stderr, refused
assert refused.stdout == "", "a ready line from what did not start"
print(f"image: served https by its bundle as uid {uid}, and refused to start without it; health check, state folder and SIGTERM as said")
