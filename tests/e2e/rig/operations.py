"""A fleet of simulated engines behind gateways, as an operator has it: files in one folder, processes that can be killed and
started, and the variables that the runbook's commands read."""

import http.client
import json
import os
import signal
import subprocess
import time
import urllib.request

from . import BIN, free_port

TOKENS = 4
children = []


def until(what, holds, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


class Engine:
    def __init__(self, world, name, **profile):
        self.profile = world.write(name + ".json", json.dumps({"name": name, "engine": "vllm", "model": "m", "default_output_tokens": TOKENS, **profile}))
        self.listen, self.admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.listen}/v1"
        self.start()

    def start(self):
        command = [BIN, "fake", "--listen", self.listen, "--admin", self.admin, "--profile", self.profile]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        children.append(self.process)
        assert self.process.stdout.readline(), f"{command} did not start"

    def kill(self):
        self.process.kill()
        self.process.wait()

    def fault(self, **fault):
        body = json.dumps(fault).encode()
        request = urllib.request.Request(f"http://{self.admin}/faults", body, {"content-type": "application/json"})
        urllib.request.urlopen(request, timeout=5).read()

    def heal(self):
        urllib.request.urlopen(urllib.request.Request(f"http://{self.admin}/faults", method="DELETE"), timeout=5).read()


class World:
    """Two clouds and a hosted one behind a gateway, and what an operator's shell holds."""

    def __init__(self, folder, ask):
        self.folder, self.ask_function, self.gateways, self.load = folder, ask, [], None
        self.engines = {}
        os.mkdir(self.path("bin"))
        os.symlink(os.path.abspath(BIN), self.path("bin/outrigger"))
        self.env = {
            **os.environ,
            "PATH": self.path("bin") + os.pathsep + os.environ["PATH"],
            "MODEL": "llama-70b",
            "NO_COLOR": "1",
            "LC_ALL": "C",
        }
        self.env.pop("OUTRIGGER_ADMIN_TOKEN", None)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text, executable=False):
        with open(self.path(name + ".new"), "w") as out:
            out.write(text)
        if executable:
            os.chmod(self.path(name + ".new"), 0o755)
        os.replace(self.path(name + ".new"), self.path(name))
        return self.path(name)

    def script(self, name, body):
        return self.write(name, "#!/usr/bin/env bash\nset -euo pipefail\n" + body + "\n", executable=True)

    def fleet(self, gateway="", cw="", la="", oa=None, limit=None, la_url=None, model="", name="fleet.yaml"):
        """Writes a fleet of the engines that there are; `oa` and the like are more lines of a backend."""
        for one in ("cw", "la") + (("oa",) if oa is not None else ()):
            if one not in self.engines and not (one == "la" and la_url):
                self.engines[one] = Engine(self, one)
        if "KEY" not in self.env:
            key = json.loads(subprocess.run([BIN, "key", "new", "k", "--json"], capture_output=True, check=True).stdout)
            self.env["KEY"], self.hash = key["key"], key["sha256"]
        limits = f" spend_limit: {{ usd_per_hour: {limit} }} " if limit else ""
        lines = ["version: 1", f"gateway: {{ {gateway} }}" if gateway else "", "clouds:", "  coreweave: {}", "  lambda: {}"]
        lines += [f"  openai: {{{limits}}}" if oa is not None else "", "backends:"]
        urls = {one: engine.url for one, engine in self.engines.items()}
        urls["la"] = la_url or urls["la"]
        clouds = {"cw": "coreweave", "la": "lambda", "oa": "openai"}
        for one, more in (("cw", cw), ("la", la)) + ((("oa", oa),) if oa is not None else ()):
            engine = "openai" if one == "oa" else "vllm"
            lines += [f"  {one}:", f"    cloud: {clouds[one]}", f"    engine: {engine}", f'    url: "{urls[one]}"', "    model: m"]
            lines += [f"    {line}" for line in more.split("\n") if line]
        lines += ["models:", "  llama-70b:", "    timeouts: { connect: 1s, headers: 3s, first_token: 3s, idle: 3s }"]
        lines += [f"    {line}" for line in model.split("\n") if line]
        lines += ["    tiers:", "      - split: { cw: 60, la: 40 }"]
        lines += ["      - { split: { oa: 1 }, substitute: true }"] if oa is not None else []
        lines += ["keys:", f"  k: {{ sha256: {self.hash} }}"]
        text = "\n".join(line for line in lines if line) + "\n"
        self.env.setdefault("FLEET", self.path(name))
        return self.write(name, text)

    def serve(self, fleet="fleet.yaml", scheme="http", more=(), **popen):
        number = len(self.gateways)
        listen, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        said = self.path(f"stderr-{number}")
        command = [BIN, "serve", "--fleet", self.path(fleet), "--listen", listen, "--admin", admin, *more]
        gateway = {"admin": f"http://{admin}", "command": command, "said": said, "process": None, "popen": popen}
        self.gateways.append(gateway)
        self.start(gateway)
        pids = self.path(f"pid-{number}")
        self.script(f"start-{number}", f'setsid {" ".join(command)} >>{self.path("log")} 2>>{said} & echo $! >{pids}; for i in $(seq 300); do curl -s -o /dev/null {listen} && exit; sleep 0.1; done; exit 1')
        if number == 0:
            self.env.update(ADMIN=gateway["admin"], GATEWAY=f"{scheme}://{listen}", LOGS=f"tail -n 50 {said}", START=self.path("start-0"))
        self.env["ADMINS"] = " ".join(g["admin"] for g in self.gateways)
        return gateway

    def start(self, gateway):
        with open(gateway["said"], "a") as said, open(self.path("log"), "a") as log:
            gateway["process"] = subprocess.Popen(gateway["command"], stdout=log, stderr=said, **gateway["popen"])
        children.append(gateway["process"])

        def answers():
            try:
                return gateway["process"].poll() is not None or get(gateway["admin"] + "/healthz")
            except OSError:
                return False

        until("the gateway listens", answers)

    def state(self, backend):
        backends = json.loads(get(self.gateways[0]["admin"] + "/api/v1/state"))["backends"]
        return next(b for b in backends if b["backend"] == backend)

    def is_in(self, backend, *states):
        until(f"{backend} is {' or '.join(states)}", lambda: self.state(backend)["state"] in states)

    def metric(self, name):
        return [line for line in get(self.gateways[0]["admin"] + "/metrics").split("\n") if line.startswith(name)]

    def all_up(self):
        for one in self.engines:
            self.is_in(one, "up", "slow_start")

    def run(self, command):
        script = f"set -uo pipefail\n{self.ask_function}\n{command}\n"
        done = subprocess.run(["bash", "-c", script], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=180)
        return done.returncode, done.stdout

    def outrigger(self, *args):
        subprocess.run([BIN, *args, "--admin", self.gateways[0]["admin"]], check=True, capture_output=True)

    def ask(self, stream=False, tokens=TOKENS):
        address = self.env["GATEWAY"].split("//")[1]
        connection = http.client.HTTPConnection(address, timeout=30)
        body = json.dumps({"model": "llama-70b", "stream": stream, "max_tokens": tokens, "messages": [{"role": "user", "content": "hi"}]})
        headers = {"content-type": "application/json", "authorization": "Bearer " + self.env["KEY"]}
        try:
            connection.request("POST", "/v1/chat/completions", body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def stop(self):
        if self.load:
            self.load.set()
        for name in os.listdir(self.folder):
            if name.startswith("pid-"):
                with open(self.path(name)) as file:
                    try:
                        os.kill(int(file.read()), signal.SIGKILL)
                    except (ProcessLookupError, ValueError):
                        pass
        for child in children:
            child.kill()
            child.wait()
        children.clear()


OWN = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]


def certificate(world, name, days):
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", world.path(name + ".key")]
    more = ["-subj", "/CN=localhost", *OWN, "-days", str(days)]
    subprocess.run(["openssl", "req", "-x509", *key, *more, "-out", world.path(name + ".crt")], check=True, capture_output=True)
