"""LiteLLM's own example configurations through `outrigger import litellm`, and Outrigger behind LiteLLM's router.

Every configuration has to become a fleet that passes `outrigger check`, or be refused with the reason why none of its
models can be served. Eight are then served as they are and called. Every price of the providers that a fleet knows has
to come out exactly. Last, LiteLLM's router sends one request in a hundred to Outrigger, mirrors to it, and stops.

Usage: python bench/litellm_import.py OUTRIGGER (the binary). Called by tests/heavy/litellm-import.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import urllib.request
from decimal import Decimal
from pathlib import Path

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm  # noqa: E402

BIN = sys.argv[1]
HOME = Path(litellm.__file__).parent
EXAMPLES = sorted((HOME / "proxy" / "example_config_yaml").glob("*.yaml"))
PRICES = HOME / "model_prices_and_context_window_backup.json"
MASTER = "sk-heavy-master-key-0123456789"
# The example configurations name this public endpoint, or the variable with its address.
PUBLIC = "https://exampleopenaiendpoint-production.up.railway.app/"
# Which to serve, the model to ask for, and what its engine calls that.
SERVED = [
    ("disable_schema_update", "fake-openai-endpoint", "fake"),
    ("enterprise_config", "gpt-4", "fake"),
    ("multi_instance_simple_config", "fake-openai-endpoint", "my-fake-model"),
    ("otel_test_config", "fake-openai-endpoint", "gpt-5-mini"),
    ("pass_through_config", "fake-openai-endpoint", "fake"),
    ("spend_tracking_config", "fake-openai-endpoint", "gpt-5-mini"),
    ("store_model_db_config", "fake-openai-endpoint", "my-fake-model"),
    ("test_pipeline_config", "fake-openai-endpoint", "gpt-3.5-turbo"),
]
PROVIDERS = {"openai", "together_ai", "fireworks_ai", "groq", "deepinfra", "openrouter", "mistral"}

temporary = tempfile.TemporaryDirectory(prefix="outrigger-litellm-")
folder = Path(temporary.name)
children = []


def start(*args, **env):
    command = [BIN, *args, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, **env}
    )
    children.append(process)
    line = process.stdout.readline()
    assert line, f"{args} did not start"
    # A pipe that nobody reads would fill, and the gateway's log with it.
    threading.Thread(target=process.stdout.read, daemon=True).start()
    return process, json.loads(line)


def fake(model):
    profile = folder / f"{model}.json"
    profile.write_text(json.dumps({"name": model, "model": model, "engine": "openai", "default_output_tokens": 4}))
    return start("fake", "--profile", str(profile))


def received(ready):
    with urllib.request.urlopen(ready["admin"] + "/stats", timeout=10) as answer:
        stats = json.load(answer)
    return stats["received"]


def chat(url, model, stream=False):
    body = {"model": model, "messages": [{"role": "user", "content": "x"}], "stream": stream, "metadata": {"a": "b"}}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {MASTER}"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read().decode()


def every_example_is_handled():
    env = {**os.environ, "FAKE_OPENAI_API_BASE": "http://127.0.0.1:9/v1"}
    fleets, refused = 0, []
    for example in EXAMPLES:
        done = subprocess.run([BIN, "import", "litellm", example, "--json"], capture_output=True, text=True, env=env)
        assert done.returncode in (0, 1), (example, done.stderr)
        report = json.loads(done.stderr)
        if done.stdout:
            fleet = folder / "fleet.yaml"
            fleet.write_text(done.stdout)
            checked = subprocess.run([BIN, "check", fleet], capture_output=True, text=True)
            assert checked.returncode == 0, (example, checked.stderr)
            fleets += 1
        else:
            last = report["refused"][-1]
            assert done.returncode == 1 and last["path"] == "model_list" and len(report["refused"]) > 1, example
            refused.append(example.stem)
    print(f"{len(EXAMPLES)} examples: {fleets} fleets that pass check, {len(refused)} refused ({', '.join(refused)})")


def eight_are_served_and_called():
    for name, model, engine_model in SERVED:
        engine, ready = fake(engine_model)
        base = ready["listen"] + "/v1"
        config = folder / f"{name}.yaml"
        text = (HOME / "proxy" / "example_config_yaml" / config.name).read_text()
        config.write_text(text.replace(PUBLIC, base))
        env = {"FAKE_OPENAI_API_BASE": base, "LITELLM_MASTER_KEY": MASTER}
        gateway, at = start("serve", "--litellm-config", str(config), **env)
        for path in ("/v1/chat/completions", "/chat/completions", f"/engines/{model}/chat/completions"):
            answer = json.loads(chat(at["listen"] + path, model))
            assert answer["model"] == model and answer["usage"]["completion_tokens"] == 4, (name, answer)
        assert chat(at["listen"] + "/chat/completions", model, stream=True).rstrip().endswith("[DONE]"), name
        assert received(ready) == 4, name
        for process in (gateway, engine):
            process.kill()
    print(f"{len(SERVED)} served as they are: {', '.join(name for name, _, _ in SERVED)}")


def every_price_is_exact():
    rows, items = {}, []
    for key, row in json.loads(PRICES.read_text(), parse_float=Decimal).items():
        costs = [row.get(cost) for cost in ("input_cost_per_token", "output_cost_per_token")]
        provider = row.get("litellm_provider")
        if provider not in PROVIDERS or row.get("mode") != "chat" or not all(costs) or re.search(r"[*\s]", key):
            continue
        name = f"m{len(items)}"
        model = key if key.startswith(provider + "/") else f"{provider}/{key}"
        rows[name] = costs
        params = {"model": model}
        items.append({"model_name": name, "litellm_params": params})
    config = folder / "prices.yaml"
    config.write_text(json.dumps({"model_list": items}))
    command = [BIN, "import", "litellm", config, "--prices", PRICES]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:2000]
    price = r"    usd_per_million_tokens: { input: ([\d.]+), output: ([\d.]+)"
    found = re.findall(r"  (m\d+):\n(?:    .*\n)*?" + price, done.stdout)
    for name, *usd in found:
        expect = [Decimal(cost) * 10**6 for cost in rows[name]]
        assert [Decimal(digits) for digits in usd] == expect, (name, usd, expect)
    assert len(found) == len(rows), (len(found), len(rows))
    print(f"{len(found)} list prices are exact")


def behind_litellm():
    """One request in a hundred, then a mirror, then none: each by LiteLLM's own router."""
    (_, old), (_, new) = fake("llama"), fake("llama")
    config = folder / "behind.yaml"
    item = {"model_name": "llama", "litellm_params": {"model": "openai/llama", "api_base": new["listen"] + "/v1"}}
    config.write_text(json.dumps({"model_list": [item], "general_settings": {"master_key": MASTER}}))
    _, gateway = start("serve", "--litellm-config", str(config))

    def deployment(name, base, **more):
        params = {"model": "openai/llama", "api_base": base + "/v1", "api_key": MASTER, **more}
        return {"model_name": name, "litellm_params": params}

    async def send(model_list, count):
        router = litellm.Router(model_list=model_list, num_retries=0)
        messages = [{"role": "user", "content": "x"}]
        for _ in range(count // 50):
            answers = [router.acompletion(model="llama", messages=messages, max_tokens=1) for _ in range(50)]
            for answer in await asyncio.gather(*answers):
                assert answer.choices[0].message.content is not None
        # A mirrored request goes on after the answer to the other.
        await asyncio.sleep(2)

    def by_way_of_outrigger(model_list, count):
        before = received(old), received(new)
        asyncio.run(send(model_list, count))
        return received(old) - before[0], received(new) - before[1]

    shared = [deployment("llama", old["listen"], weight=99), deployment("llama", gateway["listen"], weight=1)]
    direct, through = by_way_of_outrigger(shared, 2_000)
    # 20 are expected; five standard deviations are 22.
    assert direct + through == 2_000 and 1 <= through <= 42, (direct, through)
    print(f"behind LiteLLM at 1 %: {through} of 2000 went through Outrigger, none failed")
    mirror = [deployment("llama", old["listen"], silent_model="mirror"), deployment("mirror", gateway["listen"])]
    direct, through = by_way_of_outrigger(mirror, 200)
    assert (direct, through) == (200, 200), (direct, through)
    print(f"mirrored: {through} of 200 went through Outrigger too")
    back = [deployment("llama", old["listen"], weight=99), deployment("llama", gateway["listen"], weight=0)]
    assert by_way_of_outrigger(back, 200) == (200, 0)
    print("rolled back by weight 0: 0 of 200 went through Outrigger")


try:
    every_example_is_handled()
    eight_are_served_and_called()
    every_price_is_exact()
    behind_litellm()
finally:
    for child in children:
        child.kill()
