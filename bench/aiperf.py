"""aiperf, NVIDIA's load client, against a simulated engine through the gateway: every request has to complete, and what
aiperf counts has to be what the engine counts.

usage: aiperf.py AIPERF REQUESTS, with aiperf's environment having litellm's copy of the tokenizer that aiperf looks for
"""

import glob
import json
import os
import subprocess
import sys
import tempfile
import urllib.request

from rig import BIN, Gateway, children, get, stop_all

MODEL, PUBLIC, TOKENS = "org/Sim-8B", "pub", 24


def start_fake(folder):
    profile = os.path.join(folder, "profile.json")
    with open(profile, "w") as out:
        json.dump({"name": "sim", "engine": "vllm", "model": MODEL, "default_output_tokens": 4 * TOKENS}, out)
    command = [BIN, "fake", "--profile", profile, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    children.append(process)
    return json.loads(process.stdout.readline())


def start_gateway(fake, folder):
    key = json.loads(subprocess.run([BIN, "key", "new", "k", "--json"], capture_output=True, check=True).stdout)
    fleet = f"""version: 1
clouds:
  here: {{}}
backends:
  sim: {{ cloud: here, engine: vllm, url: "{fake['listen']}/v1", model: "{MODEL}" }}
models:
  {PUBLIC}:
    tiers:
      - split: {{ sim: 1 }}
keys:
  k: {{ sha256: {key['sha256']} }}
"""
    return Gateway.of(fleet, key["key"], folder)


def load(aiperf, gateway, requests, streaming, folder):
    """What aiperf says of its run."""
    (cache,) = glob.glob(f"{os.path.dirname(aiperf)}/../lib/python*/site-packages/litellm/litellm_core_utils/tokenizers")
    artifacts = os.path.join(folder, f"artifacts-{streaming}")
    command = [aiperf, "profile", "--model", PUBLIC, "--url", gateway.url.removesuffix("/v1"), "--endpoint-type", "chat"]
    command += ["--api-key", gateway.key, "--tokenizer", "builtin", "--use-server-token-count", "--no-server-metrics"]
    command += ["--concurrency", "8", "--request-count", str(requests), "--random-seed", "7", "--ui", "none"]
    command += ["--isl", "64", "--osl", str(TOKENS), "--osl-stddev", "8", "--artifact-dir", artifacts, *(["--streaming"] if streaming else [])]
    env = {**os.environ, "TIKTOKEN_CACHE_DIR": cache, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500)
    found = glob.glob(f"{artifacts}/**/profile_export_aiperf.json", recursive=True)
    assert done.returncode == 0 and len(found) == 1, done.stdout + done.stderr
    with open(found[0]) as file:
        return json.load(file)


def stats(fake):
    return get(f"{fake['admin']}/stats")


def prompt_and_output(gateway, since):
    """What the gateway's log says of the requests since then: their prompt and output tokens, if all went well."""
    lines = [line for line in gateway.log[since:] if line["event"] == "request"]
    assert all(line["outcome"] == "ok" and len(line["attempts"]) == 1 for line in lines), lines
    return len(lines), sum(line["prompt_tokens"] for line in lines), sum(line["output_tokens"] for line in lines)


def check(aiperf, fake, gateway, requests, streaming, folder):
    before, since = stats(fake), len(gateway.log)
    report = load(aiperf, gateway, requests, streaming, folder)
    after = stats(fake)
    assert report["is_complete"] and not report["was_cancelled"], report
    assert "error_request_count" not in report and not report["error_summary"], report["error_summary"]
    told = tuple(int(report[name]["avg"]) for name in ("request_count", "total_isl", "total_osl"))
    engine = {name: after[name] - before[name] for name in ("received", "completed", "tokens", "aborted", "rejected")}
    assert told[0] == requests, told
    assert engine == {"received": requests, "completed": requests, "tokens": told[2], "aborted": 0, "rejected": 0}, engine
    assert prompt_and_output(gateway, since) == told, told
    return "%d requests, %d prompt and %d output tokens" % told


def a_failure_shows(aiperf, fake, gateway, folder):
    """That aiperf tells of failures at all: half of the answers break off."""
    fault = json.dumps({"fault": "cut", "after_tokens": 3, "probability": 0.5}).encode()
    request = urllib.request.Request(f"{fake['admin']}/faults", fault, {"content-type": "application/json"})
    urllib.request.urlopen(request, timeout=10).close()
    try:
        check(aiperf, fake, gateway, 40, True, os.path.join(folder, "faulty"))
    except AssertionError as error:
        return str(error)[:200]
    raise RuntimeError("half of the streams were cut, and nobody noticed")


def main():
    aiperf, requests = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="outrigger-aiperf-") as folder:
        fake = start_fake(folder)
        gateway = start_gateway(fake, tempfile.TemporaryDirectory(prefix="outrigger-aiperf-"))
        for streaming in (True, False):
            told = check(aiperf, fake, gateway, requests, streaming, folder)
            print(f"{'streamed' if streaming else 'whole'}: {told}; no errors, and the engine counts the same")
        print(f"with half of the streams cut: {a_failure_shows(aiperf, fake, gateway, folder)}")
        code, said = gateway.stop()
        assert code == 0 and "panicked" not in said, said


if __name__ == "__main__":
    try:
        main()
    finally:
        stop_all()
