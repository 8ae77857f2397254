"""Clients and checkers as their makers ship them, unmodified, each once directly at an engine and once through the gateway,
with equal outcomes: contents, tool calls, reasons to end, tokens, and what the client makes of a wrong key.

Each runs against a real llama-server and against an engine that follows a script (`clients/scripted.py`). At temperature 0
with one seed the random model says the same each time. It calls tools by chance only, and serves whatever model is asked
for; the scripted one calls tools and refuses unknown models.

usage: clients.py PYTHON NODE_MODULES [NAME…], with PYTHON's environment having the packages of requirements-clients.txt
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import traceback

from rig import BIN, Engine, Gateway, stop_all

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "clients"))
import scripted  # noqa: E402

ENGINE_KEY = "sk-of-the-engine"
CLIENTS = ["anthropic", "langchain", "llamaindex", "litellm", "agents", "llm", "vercel"]
FORMATS = ["openai-chat", "open-responses", "anthropic"]
# What the scripted engine answers to every client: one that fails everywhere would agree, too.
ANSWERED = {"whole", "chat", "streamed", "chat streamed", "tools", "tools streamed", "response", "response streamed"}
# llama-server serves whatever model is asked for. With a schema it fails at once on some random texts, in a stream that has
# begun; the gateway makes that a status.
LLAMA_SERVER_ASIDE = {"wrong model", "schema"}
# What has to be refused, and with which status.
REFUSALS = {"bad key": "401", "wrong model": "404"}


class Setting:
    """Two engines that ask for a key, and a gateway before them that knows it."""

    def __init__(self, python, modules):
        self.python, self.modules = python, modules
        os.environ["ENGINE_KEY"] = ENGINE_KEY
        llama = Engine("tiny", "--api-key", ENGINE_KEY, "--temp", "0", "--seed", "7", "-n", "64").wait()
        self.engines = {"llama-server": (llama.url, "tiny"), "scripted": (scripted.start("actor", ENGINE_KEY), "actor")}
        key = json.loads(subprocess.run([BIN, "key", "new", "k", "--json"], capture_output=True, check=True).stdout)
        fleet = "version: 1\nclouds:\n  here: { api_key: \"${ENGINE_KEY}\" }\nbackends:\n"
        for (name, (url, model)), kind in zip(self.engines.items(), ("llamacpp", "openai")):
            fleet += f"  {name}:\n    cloud: here\n    engine: {kind}\n    url: {url}\n    model: {model}\n"
            fleet += "    apis: [chat, completions, embeddings, responses, messages]\n"
        fleet += "models:\n"
        for name in self.engines:
            fleet += f"  pub-{name}:\n    tiers:\n      - split: {{ {name}: 1 }}\n"
        fleet += f"keys:\n  k:\n    sha256: {key['sha256']}\n"
        self.gateway = Gateway.of(fleet, key["key"], tempfile.TemporaryDirectory(prefix="outrigger-clients-"))

    def both(self, engine, run):
        url, model = self.engines[engine]
        return run(url, ENGINE_KEY, model), run(self.gateway.url, self.gateway.key, f"pub-{engine}")

    def run(self, command, **env):
        env = {**os.environ, "NODE_PATH": self.modules, **env}
        env.pop("PYTHONPATH", None)
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
        assert done.stdout, done.stderr
        return done.stdout

    def client(self, name):
        def run(url, key, model):
            driver = os.path.join(HERE, "clients", f"{name}_client.py")
            command = [self.python, driver] if os.path.exists(driver) else ["node", driver.removesuffix("py") + "mjs"]
            return json.loads(self.run([*command, url, key, model]).splitlines()[-1])

        return run

    def llm_comply(self, form):
        def run(url, key, model):
            comply = os.path.join(os.path.dirname(self.python), "llm-comply")
            command = [comply, "-u", url, "-k", key, "-m", model, "--format", form, "--json"]
            # What was cached depends on what was asked before.
            results = json.loads(re.sub(r"'cached_tokens': \d+", "'cached_tokens'", self.run(command)))["results"]
            return {test["id"]: [test["status"], test.get("errors"), test.get("warnings")] for test in results}

        return run

    def compatcanary(self, url, key, model):
        command = ["node", f"{self.modules}/compatcanary/src/cli.js", "scan", "--base-url", url, "--model", model]
        report = json.loads(self.run([*command, "--format", "json", "--fail-on", "never"], OPENAI_API_KEY=key))
        told = {test["id"]: [test["status"], test.get("error", test["summary"])] for test in report["results"]}
        # The gateway has other models, too.
        told["models.list"] = told["models.list"][0]
        return told


def differences(direct, through):
    names = dict.fromkeys([*direct, *through])
    return {name: (direct.get(name), through.get(name)) for name in names if direct.get(name) != through.get(name)}


def compare_client(setting, engine, name):
    direct, through = setting.both(engine, setting.client(name))
    aside = LLAMA_SERVER_ASIDE if engine == "llama-server" else set()
    differ = {name: pair for name, pair in differences(direct, through).items() if name not in aside}
    assert not differ, json.dumps(differ, indent=1)
    for call, status in REFUSALS.items():
        assert status in json.dumps(through[call]), (call, through[call])
    if engine == "scripted":
        failed = {call: through[call] for call in through if call in ANSWERED and "rror" in json.dumps(through[call])}
        assert not failed, failed
    return f"{through['client']}, {engine}: {len(through.keys() - aside) - 1} calls alike"


def compare_checker(setting, engine, name, run):
    """Equal verdicts; a server that is worse than the gateway at refusing is no fault of the gateway's."""
    direct, through = setting.both(engine, run)
    differ = differences(direct, through)
    better = {test: pair for test, pair in differ.items() if "failed" in pair[0] and "passed" in pair[1]}
    assert better == differ, json.dumps(differ, indent=1)
    passed = sum(1 for told in through.values() if told == "pass" or told[0] in ("passed", "pass"))
    assert passed, through
    more = f"; only through the gateway {', '.join(better)}" if better else ""
    return f"{name}, {engine}: {len(through)} verdicts alike, {passed} passed{more}"


def an_altered_answer_shows(setting):
    """A server that says one word differently, in the place of the gateway: the comparison has to see it."""
    run = setting.client("vercel")
    words = [*scripted.WORDS[:-1], " foul"]
    differ = differences(*(run(scripted.start("m", "k", words), "k", "m") for words in (scripted.WORDS, words)))
    assert differ.keys() == {"whole", "streamed", "response", "response streamed"}, differ


def main():
    python, modules, *names = sys.argv[1:]
    setting = Setting(python, modules)
    an_altered_answer_shows(setting)
    runs = {name: lambda engine, name=name: compare_client(setting, engine, name) for name in CLIENTS}
    for form in FORMATS:
        name, run = f"llm-comply {form}", setting.llm_comply(form)
        runs[name] = lambda engine, name=name, run=run: compare_checker(setting, engine, name, run)
    runs["compatcanary"] = lambda engine: compare_checker(setting, engine, "compatcanary", setting.compatcanary)
    failed = 0
    for name in names or runs:
        for engine in setting.engines:
            try:
                print(f"ok   {runs[name](engine)}", flush=True)
            except Exception:
                failed += 1
                print(f"FAIL {name}, {engine}")
                traceback.print_exc(file=sys.stdout)
    code, said = setting.gateway.stop()
    assert code == 0 and "panicked" not in said, said
    print(f"{len(names or runs) * len(setting.engines) - failed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        stop_all()
