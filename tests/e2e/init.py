"""From real llama-servers to a gateway that answers: init, check, check --online, serve, one chat.

And whether engines of one model that differ are told from those that do not: equals, another chat template, another
length of context, a server that is down.

Run by ./test with OUTRIGGER_BIN set; the last line is `N passed, N failed`.
"""

import json
import os
import subprocess
import tempfile
import urllib.request

from rig import BIN, Engine, Gateway, run_all

folder = tempfile.TemporaryDirectory(prefix="outrigger-init-")
one, equal = Engine("tiny"), Engine("tiny")
# It says so in each prompt, and nothing else differs.
template = Engine("tiny", "--chat-template", "{% for m in messages %}[{{ m.role }}] be kind: {{ m.content }}\n{% endfor %}")
shorter = Engine("tiny", "-c", "4096")
for engine in (one, equal, template, shorter):
    engine.wait()


def outrigger(*args, code=0):
    done = subprocess.run([BIN, *args], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


def fleet_of(name, *engines):
    path = os.path.join(folder.name, name + ".yaml")
    done = outrigger("init", *(engine.url for engine in engines), "-o", path)
    assert done.stdout == "" and path in done.stderr, done
    return path


def online(path, code=0):
    found = json.loads(outrigger("check", path, "--online", "--json", code=code).stdout)
    faults = found["errors"] + found["warnings"]
    assert all(fault["help"] and fault["message"] for fault in faults), faults
    return found, [fault["code"] for fault in faults]


# ---- the tests, in the order in which they run


def a_file_from_engines_passes_check_and_is_served():
    path = fleet_of("served", one, equal)
    assert json.loads(outrigger("check", path, "--json").stdout) == {"errors": [], "warnings": []}
    with open(path) as file:
        text = file.read()
    assert "engine: llamacpp" in text and "max_in_flight: 8" in text and "responses, messages]" in text, text
    gateway = Gateway.of(text, "none", tempfile.TemporaryDirectory(prefix="outrigger-init-"))
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
    request = urllib.request.Request(
        gateway.url + "/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        said = json.load(answer)
        assert answer.headers["x-outrigger-backend"].startswith("local-tiny"), answer.headers
    assert said["model"] == "tiny" and said["choices"][0]["message"]["content"], said
    assert gateway.stop()[0] == 0


def equal_engines_have_nothing_to_warn_about():
    found, codes = online(fleet_of("equal", one, equal))
    assert codes == [], found
    assert [backend["engine"] for backend in found["backends"]] == ["llamacpp"] * 2, found
    (parity,) = found["parity"]
    assert len(parity["prompts"]) == 10, parity
    for prompt in parity["prompts"]:
        assert len(set(prompt["prompt_tokens"].values())) == 1, prompt
        assert all(alike["of"] == alike["same"] > 0 for alike in prompt["alike"].values()), prompt


def another_chat_template_is_told():
    found, codes = online(fleet_of("template", one, template))
    assert codes == ["parity_prompt_tokens"], found
    (warning,) = found["warnings"]
    assert warning["path"] == "models.tiny" and "10 of 10 prompts" in warning["message"], warning
    assert "--chat-template" in warning["help"], warning
    said = outrigger("check", os.path.join(folder.name, "template.yaml"), "--online")
    assert "differs" in said.stdout and "warning[parity_prompt_tokens]" in said.stderr, said


def another_length_of_context_is_told():
    found, codes = online(fleet_of("context", one, shorter))
    assert codes == ["parity_context"], found
    assert "1024 on local-tiny; 512 on local-tiny-2" in found["warnings"][0]["message"], found


def an_engine_that_has_died_or_changed_its_name_is_told():
    renamed = Engine("another").wait()
    path = fleet_of("down", one, equal, renamed)
    with open(path) as file:
        text = file.read().replace("model: another", "model: other")
    with open(path, "w") as file:
        file.write(text)
    equal.kill()
    found, codes = online(path, code=1)
    assert sorted(codes) == ["backend_other_model", "backend_unreachable"], found
    assert any("it lists another" in fault["help"] for fault in found["errors"]), found
    refused = outrigger("init", one.url, equal.url, code=3)
    assert refused.stdout == "" and equal.url.removesuffix("/v1") in refused.stderr, refused


TESTS = [
    a_file_from_engines_passes_check_and_is_served,
    equal_engines_have_nothing_to_warn_about,
    another_chat_template_is_told,
    another_length_of_context_is_told,
    an_engine_that_has_died_or_changed_its_name_is_told,
]


run_all(TESTS)
