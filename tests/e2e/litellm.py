"""A configuration of LiteLLM's proxy, imported and served, driven by OpenAI's own client.

The same configuration runs twice: as a fleet file written by `outrigger import litellm`, and as it is under
`outrigger serve --litellm-config`. What a client of the old proxy does has to work in both, except for what only the
second promises: paths without /v1, and members of the body that LiteLLM takes for itself.

Run by ./test with OUTRIGGER_BIN set; the last line is `N passed, N failed`.
"""

import json
import os
import subprocess
import tempfile
import urllib.request

import openai

from rig import BIN, children, run_all

MASTER = "sk-master-key-of-the-old-proxy"
MESSAGES = [{"role": "user", "content": "hello"}]
folder = tempfile.TemporaryDirectory(prefix="outrigger-e2e-")


def start(*args, **env):
    """A process, and its ready line."""
    command = [BIN, *args, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    environment = {**os.environ, **env}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    children.append(process)
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{args} did not start")
    return process, json.loads(line)


def fake(name, model):
    profile = path(f"{name}.json")
    with open(profile, "w") as out:
        json.dump({"name": name, "engine": "vllm", "model": model, "default_output_tokens": 8}, out)
    process, ready = start("fake", "--profile", profile)
    return process, ready


def path(name):
    return os.path.join(folder.name, name)


(big, big_ready), (small, small_ready) = fake("big", "org/Big-70B"), fake("small", "org/Small-8B")
CONFIG = f"""
model_list:
  - model_name: Org/Big
    litellm_params: {{model: hosted_vllm/org/Big-70B, api_base: os.environ/BIG_BASE, weight: 3}}
  - model_name: Org/Big
    litellm_params: {{model: hosted_vllm/org/Big-70B, api_base: os.environ/BIG_BASE, weight: 1}}
  - model_name: small
    litellm_params: {{model: openai/org/Small-8B, api_base: {small_ready["listen"]}/v1, api_key: none}}
router_settings:
  routing_strategy: simple-shuffle
  model_group_alias: {{gpt-4: Org/Big}}
  fallbacks: [{{Org/Big: [small]}}]
general_settings:
  master_key: os.environ/LITELLM_MASTER_KEY
"""
with open(path("config.yaml"), "w") as out:
    out.write(CONFIG)
os.environ["BIG_BASE"] = big_ready["listen"] + "/v1"
os.environ["LITELLM_MASTER_KEY"] = MASTER


def run(*args, text=None):
    return subprocess.run([BIN, *args], input=text, capture_output=True, text=True)


def client(ready, base="/v1", key=MASTER):
    return openai.OpenAI(base_url=ready["listen"] + base, api_key=key, max_retries=0, timeout=20)


# ---- the tests, in the order in which they run


def the_configuration_becomes_a_fleet_that_passes_check():
    done = run("import", "litellm", path("config.yaml"), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stderr)
    assert not report["refused"] and report["kept"], report
    with open(path("fleet.yaml"), "w") as fleet:
        fleet.write(done.stdout)
    with open(path("master.sha256"), "w") as file:
        file.write(run("key", "hash", text=MASTER).stdout)
    checked = run("check", path("fleet.yaml"))
    assert checked.returncode == 0, checked.stderr


def served(ready):
    """What a client of the old proxy does."""
    through = client(ready)
    for model in ("Org/Big", "gpt-4", "small"):
        answer = through.chat.completions.create(model=model, messages=MESSAGES)
        assert answer.usage.completion_tokens > 0, answer
    chunks = list(through.chat.completions.create(model="Org/Big", messages=MESSAGES, stream=True))
    assert any(chunk.choices and chunk.choices[0].delta.content for chunk in chunks), chunks
    names = {model.id for model in through.models.list()}
    assert {"Org/Big", "gpt-4", "small"} <= names, names
    try:
        client(ready, key="sk-other").models.list()
        raise AssertionError("another key was let in")
    except openai.AuthenticationError:
        pass


def the_imported_fleet_serves_the_old_proxys_clients():
    _, ready = start("serve", "--fleet", path("fleet.yaml"))
    served(ready)
    through = client(ready)
    backends = {"org-big": 0, "org-big-2": 0}
    for _ in range(40):
        raw = through.chat.completions.with_raw_response.create(model="Org/Big", messages=MESSAGES, max_tokens=1)
        backends[raw.headers["x-outrigger-backend"]] += 1
    assert backends == {"org-big": 30, "org-big-2": 10}, backends


def the_configuration_is_served_as_it_is():
    global direct
    _, direct = start("serve", "--litellm-config", path("config.yaml"))
    served(direct)
    for probe in ("/health/liveliness", "/health/readiness"):
        assert urllib.request.urlopen(direct["listen"] + probe, timeout=10).status == 200


def paths_and_members_that_only_litellm_has_are_taken():
    old = client(direct, base="")
    extra = {"metadata": {"session_id": "s"}, "tags": ["a"], "num_retries": 2, "fallbacks": ["small"]}
    answer = old.chat.completions.create(model="Org/Big", messages=MESSAGES, extra_body=extra)
    assert answer.model == "Org/Big" and answer.usage.completion_tokens > 0, answer
    azure = openai.AzureOpenAI(azure_endpoint=direct["listen"], api_key=MASTER, api_version="2024-02-01", max_retries=0)
    assert azure.chat.completions.create(model="small", messages=MESSAGES).usage.completion_tokens > 0
    mocked = old.chat.completions.create(model="small", messages=MESSAGES, extra_body={"mock_response": "made up"})
    assert mocked.choices[0].message.content == "made up", mocked


def the_fallback_answers_when_the_model_is_gone():
    big.kill()
    big.wait()
    through = client(direct)
    for _ in range(20):
        raw = through.chat.completions.with_raw_response.create(model="Org/Big", messages=MESSAGES)
        assert raw.headers["x-outrigger-substituted"] == "true", raw.headers
        assert raw.parse().model == "org/Small-8B"


TESTS = [
    the_configuration_becomes_a_fleet_that_passes_check,
    the_imported_fleet_serves_the_old_proxys_clients,
    the_configuration_is_served_as_it_is,
    paths_and_members_that_only_litellm_has_are_taken,
    the_fallback_answers_when_the_model_is_gone,
]


run_all(TESTS)
