"""The runbook as somebody types it: for each section a fleet is broken in the way that its alert tells of, the section's own
commands are run one after the other, and each must exit and say as the runbook says.

The commands are those of the ```console blocks of docs/runbook.md: `$ COMMAND  # exits N`, and under it lines that its output
must have in this order (blanks squeezed; `…` stands for anything). They are run by bash with the variables that the
runbook's table names and its `ask`. Words like **Over when** stand before blocks; a situation may change the world before one.

Run by ./test with OUTRIGGER_BIN set; the last line is `N passed, N failed`. An argument names the only section to run.
"""

import http.client
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
import traceback

from rig import ROOT, free_port
from rig.operations import OWN, Engine, World, certificate, children, get, until

RUNBOOK = os.path.join(ROOT, "docs", "runbook.md")
RULES = os.path.join(ROOT, "deploy", "prometheus", "outrigger.rules.yaml")


class Section:
    def __init__(self, name, text):
        self.name, self.steps = name, []
        heading = None
        for part in re.split(r"(^```console\n.*?^```$|^\*\*(?:Look|Do|Over when)\*\*)", text, flags=re.M | re.S):
            if part.startswith("**"):
                heading = part.strip("*")
                self.steps.append((heading, None, 0, []))
            elif part.startswith("```console"):
                for line in part.split("\n")[1:-1]:
                    if line.startswith("$ "):
                        command, _, code = line[2:].partition("  # exits ")
                        self.steps.append((heading, command, int(code or 0), []))
                    else:
                        self.steps[-1][3].append(line)


def sections():
    with open(RUNBOOK) as file:
        text = file.read()
    parts = re.split(r"^## (.*)$", text, flags=re.M)
    ask = re.search(r"^```sh\n(.*?)^```$", parts[0], re.M | re.S).group(1)
    return ask, {name: Section(name, body) for name, body in zip(parts[1::2], parts[2::2])}


def check_lines(expected, said):
    """Each expected line is found, in order."""
    lines = [" ".join(line.split()) for line in said.split("\n")]
    for want in expected:
        pattern = re.compile(".*".join(re.escape(" ".join(piece.split())) for piece in want.split("…")))
        at = next((i for i, line in enumerate(lines) if pattern.search(line)), None)
        assert at is not None, f"no line like {want!r} (after those before it) in:\n{said}"
        lines = lines[at + 1 :]


# ---- the situations: each sets one up, and returns what happens before a heading, as {"Over when": function}


def editor(world, body):
    world.env["EDITOR"] = world.script("editor", body)


def outrigger_down(world):
    world.fleet()
    gateway = world.serve()
    gateway["process"].kill()
    gateway["process"].wait()


def outrigger_crash_loop(world):
    good = world.fleet()
    world.env["FLEET_BEFORE"] = world.write("before.yaml", open(good).read())
    gateway = world.serve()
    for _ in range(3):
        gateway["process"].kill()
        gateway["process"].wait()
        world.start(gateway)
    # It is killed once more after an edit that cannot be served.
    world.write("fleet.yaml", open(good).read().replace("split: { cw: 60", "split: { nobody: 60"))
    gateway["process"].kill()
    gateway["process"].wait()
    world.start(gateway)
    assert gateway["process"].wait(timeout=60) == 2


def outrigger_reload_failed(world):
    good = world.fleet()
    world.env["FLEET_BEFORE"] = world.write("before.yaml", open(good).read())
    world.serve()
    world.write("fleet.yaml", open(good).read().replace("split: { cw: 60", "split: { nobody: 60"))
    until("the file is refused", lambda: world.metric("outrigger_config_last_reload_successful")[0].endswith(" 0"))


def outrigger_fleet_digests_differ(world):
    good = world.fleet()
    world.env["OTHER_FLEET"] = world.write("other.yaml", open(good).read().replace("cw: 60", "cw: 80"))
    world.serve()
    world.serve("other.yaml")


def outrigger_certificate_expires(world):
    certificate(world, "server", 1)
    certificate(world, "next", 90)
    world.fleet(gateway="tls: { cert: file:server.crt, key: file:server.key }")
    world.serve(scheme="https")
    renew = "".join(f'cp "{world.path("next." + kind)}" "{world.path("server." + kind)}"\n' for kind in ("key", "crt"))
    world.env.update(CERT=world.path("server.crt"), RENEW=world.script("renew", renew))
    left = float(world.metric("outrigger_certificate_expiry_timestamp_seconds")[0].split()[-1]) - time.time()
    assert 0 < left < 2 * 86400, f"the alert would not fire: {left} s"

    def mended():
        left = float(world.metric("outrigger_certificate_expiry_timestamp_seconds")[0].split()[-1]) - time.time()
        assert left > 89 * 86400, f"the alert would still fire: {left} s"

    return {"end": mended}


def outrigger_log_lines_lost(world):
    world.fleet()
    log = world.path("decisions.jsonl")
    # A file that cannot grow beyond this is as good as a full disk. It has room for some fifty requests, far more than are still to be
    # written when it is emptied: lines wait for 50 ms.
    limited = {"restore_signals": False, "preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))}
    world.serve(more=("--decision-log", log), **limited)
    world.all_up()
    for _ in range(60):
        world.ask()
    until("lines are lost", lambda: any('log="decision"' in line and not line.endswith(" 0") for line in world.metric("outrigger_log_lines_lost_total")))
    world.env.update(LOG_FOLDER=world.folder, COLLECT=f"truncate -s 0 {log}")

    def written():
        assert os.path.getsize(log) > 0, "nothing is written any more"

    return {"end": written}


def outrigger_requests_lost(world):
    world.fleet()
    world.serve()
    world.all_up()
    world.engines["cw"].fault(fault="cut", after_tokens=1, probability=0.3)
    lost = 0
    for _ in range(40):
        lost += "upstream_cut" in world.ask(stream=True)[1]
    assert lost, "nothing was lost"
    world.env["BACKEND"] = "cw"

    def nothing_is_lost():
        assert all("[DONE]" in world.ask(stream=True)[1] for _ in range(60)), "streams are still cut"

    return {"Over when": nothing_is_lost}


def outrigger_capacity_lost(world):
    world.fleet(cw="max_in_flight: 4", la="max_in_flight: 4")
    world.serve()
    world.all_up()
    world.outrigger("drain", "la", "--why", "maintenance")
    world.engines["cw"].kill()
    world.ask()
    world.is_in("cw", "down")
    world.engines["oa"] = Engine(world, "oa")
    bigger = world.fleet(cw="max_in_flight: 4", la="max_in_flight: 4", oa="usd_per_million_tokens: { input: 1, output: 2 }", limit=5, name="bigger.yaml")
    editor(world, f'cp "{bigger}" "$1"')

    def hosted_helps():
        world.engines["la"].kill()
        world.ask()
        assert world.ask()[0] == 200, "the tier that was added does not serve"

    return {"end": hosted_helps}


def outrigger_slo_missed(world):
    for one in ("cw", "la"):
        world.engines[one] = Engine(world, one, overhead_ms=10)
    world.fleet(model="slo: { time_per_output_token_p95: 20ms }")
    world.serve()
    world.all_up()
    world.engines["la"].fault(fault="slow", factor=20)
    clients = [threading.Thread(target=lambda: [world.ask(stream=True) for _ in range(8)]) for _ in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    slow, fast = world.state("la")["ttft_p50_ms"], world.state("cw")["ttft_p50_ms"]
    assert slow > 100 and slow > 3 * fast, (slow, fast)

    def weights():
        shares = {s["backend"]: s["weight"] for s in json.loads(get(world.env["ADMIN"] + "/api/v1/state"))["models"][0]["tiers"][0]["split"]}
        assert shares == {"cw": 60, "la": 40}, f"the file's weights are not back: {shares}"

    return {"end": weights}


def outrigger_provider_down(world):
    world.fleet()
    world.serve()
    world.all_up()
    world.engines["cw"].kill()
    for _ in range(4):
        assert world.ask()[0] == 200
    world.is_in("cw", "down")
    world.env.update(BACKEND="cw", CLOUD="coreweave")
    return {"Over when": world.engines["cw"].start}


def outrigger_backend_down(world):
    world.fleet()
    world.serve()
    world.all_up()
    world.engines["la"].kill()
    for _ in range(4):
        assert world.ask()[0] == 200
    world.is_in("la", "down")
    world.env.update(BACKEND="la", BACKEND_URL=world.engines["la"].url)
    return {"Over when": world.engines["la"].start}


def outrigger_backend_flapping(world):
    world.fleet()
    world.serve()
    world.all_up()
    for out in range(1, 4):
        world.engines["la"].fault(fault="refuse")
        until("it is noticed", lambda: world.ask() and world.state("la")["ejections"] == out)
        world.engines["la"].heal()
        world.is_in("la", *(("slow_start", "up") if out < 3 else ("ejected",)))
    world.env["BACKEND"] = "la"


def outrigger_provider_key_refused(world):
    world.write("la.key", "sk-revoked-9f3a77b1c2d4e6f8")
    new = "sk-new-1b7d90c4a5e8f263"
    world.engines["la"] = Engine(world, "la", api_key=new)
    world.fleet(la="api_key: file:la.key")
    world.serve()
    world.is_in("la", "down")
    assert any('backend="la"' in line and 'result="auth"' in line for line in world.metric("outrigger_backend_health_checks_total"))
    world.env.update(BACKEND="la", BACKEND_URL=world.engines["la"].url, KEY_FILE=world.path("la.key"), NEW_KEY=new)


def outrigger_backend_certificate_expires(world):
    port = free_port()
    certificate(world, "backend", 3)
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-www", "-cert", world.path("backend.crt"), "-key", world.path("backend.key")]

    def show():
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        children.append(process)
        return process

    first = show()
    world.write("ca.crt", open(world.path("backend.crt")).read())
    world.fleet(la="ca: file:ca.crt", la_url=f"https://127.0.0.1:{port}/v1")
    world.serve()

    def left():
        lines = [line for line in world.metric("outrigger_backend_certificate_expiry_timestamp_seconds") if 'backend="la"' in line]
        return float(lines[0].split()[-1]) - time.time() if lines else None

    until("its end is known", lambda: left() is not None and 0 < left() < 7 * 86400)
    world.env["BACKEND_HOST"] = f"127.0.0.1:{port}"

    def renewed():
        first.kill()
        first.wait()
        key = ["-key", world.path("backend.key"), "-subj", "/CN=localhost", *OWN]
        subprocess.run(["openssl", "req", "-x509", *key, "-days", "90", "-out", world.path("backend.crt")], check=True, capture_output=True)
        show()

    return {"Over when": renewed, "end": lambda: until("the alert would end", lambda: left() > 7 * 86400)}


def outrigger_would_not_survive(world):
    world.fleet(cw="max_in_flight: 8", la="max_in_flight: 8")
    world.engines["cw"].fault(fault="slow", factor=1)
    world.serve()
    world.all_up()
    world.outrigger("drain", "la", "--why", "forgotten")
    world.engines["cw"].fault(fault="trickle", delay_ms=500)
    world.load = threading.Event()

    def client():
        while not world.load.is_set():
            try:
                world.ask(stream=True, tokens=8)
            except (OSError, http.client.HTTPException):
                return

    for _ in range(3):
        threading.Thread(target=client, daemon=True).start()
    until("there is load", lambda: world.state("cw")["in_flight"] == 3)


def hosted_only(world, limit):
    world.engines["oa"] = Engine(world, "oa")
    world.fleet(oa="usd_per_million_tokens: { input: 100, output: 200 }", limit=limit)
    world.serve()
    world.all_up()
    world.engines["cw"].kill()
    world.engines["la"].kill()
    world.env["BACKEND"] = "cw"


def outrigger_spend_near_limit(world):
    hosted_only(world, 1)
    for _ in range(3):
        assert world.ask()[0] == 200
    world.is_in("cw", "down")
    return {"Over when": world.engines["cw"].start}


def outrigger_spend_stop(world):
    hosted_only(world, 0.01)
    until("it stops", lambda: world.ask()[0] == 503)
    assert "spend_limit" in world.ask()[1]
    assert any('reason="spend_limit"' in line for line in world.metric("outrigger_rejections_total"))
    editor(world, 'sed -i "s/usd_per_hour: 0.01/usd_per_hour: 20/" "$1"')


SITUATIONS = {
    "".join(word.capitalize() for word in name.split("_")): situation
    for name, situation in list(globals().items())
    if name.startswith("outrigger_")
}


def play(section, ask):
    with tempfile.TemporaryDirectory(prefix="outrigger-runbook-") as folder:
        world = World(folder, ask)
        try:
            before = SITUATIONS[section.name](world) or {}
            for heading, command, code, expected in section.steps:
                if command is None:
                    before.pop(heading, lambda: None)()
                    continue
                exited, said = world.run(command)
                assert exited == code, f"{heading}: {command}\nexited {exited}, not {code}, and said:\n{said}"
                try:
                    check_lines(expected, said)
                except AssertionError as e:
                    raise AssertionError(f"{heading}: {command}\n{e}") from None
            before.pop("end", lambda: None)()
            assert not before, f"the runbook has no such heading: {list(before)}"
        finally:
            world.stop()


def main():
    ask, found = sections()
    with open(RULES) as file:
        alerts = set(re.findall(r"^ +- alert: (\w+)$", file.read(), re.M))
    assert set(found) == alerts, f"only in the runbook or the rules: {set(found) ^ alerts}"
    assert set(SITUATIONS) == alerts, f"without a situation or too many: {set(SITUATIONS) ^ alerts}"
    passed = failed = 0
    for name, section in found.items():
        if len(sys.argv) > 1 and name not in sys.argv[1:]:
            continue
        began = time.monotonic()
        try:
            headings = {heading for heading, *_ in section.steps}
            assert headings == {"Look", "Do", "Over when"}, f"{headings}"
            play(section, ask)
            passed += 1
            print(f"ok     {time.monotonic() - began:5.1f} s  {name}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED {time.monotonic() - began:5.1f} s  {name}", flush=True)
            traceback.print_exc(file=sys.stdout)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)


main()
