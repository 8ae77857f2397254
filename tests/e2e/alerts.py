"""The alert rules: against promtool and against mutations of themselves, against what live gateways show, and in a real Prometheus
that scrapes them while a cloud dies and comes back.

Run by ./test with OUTRIGGER_BIN set; the last line is `N passed, N failed`. promtool and prometheus are those of Debian's
package, which dev/setup unpacks into .tools; where they are missing this says so, and what needs them is not run.
"""

import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.parse

import yaml
from rig import ROOT, free_port
from rig.operations import Engine, World, certificate, children, get, until

FOLDER = os.path.join(ROOT, "deploy", "prometheus")
OWN_LABELS = {"job", "instance", "le", "quantile", "alertname", "severity"}


def tool(name):
    unpacked = os.path.join(ROOT, ".tools", "prometheus", "bin", name)
    return unpacked if os.path.exists(unpacked) else shutil.which(name)


def read(name):
    with open(os.path.join(FOLDER, name)) as file:
        return file.read()


def promtool(*args):
    done = subprocess.run([tool("promtool"), *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def tests_of(alert):
    """Those of the rules' own tests in which the alert is expected."""
    tests = yaml.safe_load(read("outrigger.rules.test.yaml"))
    tests["tests"] = [test for test in tests["tests"] if alert in json.dumps(test)]
    assert tests["tests"], f"{alert} has no test"
    return yaml.safe_dump(tests)


def is_right(rules, alert):
    """Whether the alert's own tests pass on these rules."""
    with tempfile.TemporaryDirectory(prefix="outrigger-rules-") as folder:
        for name, text in (("outrigger.rules.yaml", rules), ("outrigger.rules.test.yaml", tests_of(alert))):
            with open(os.path.join(folder, name), "w") as out:
                out.write(text)
        code, said = promtool("check", "rules", os.path.join(folder, "outrigger.rules.yaml"))
        assert code == 0, said
        return promtool("test", "rules", os.path.join(folder, "outrigger.rules.test.yaml"))[0] == 0


def blocks(rules):
    """Each rule as (name, begin, end)."""
    begins = [(m.group(1), m.start()) for m in re.finditer(r"^ +- (?:alert|record): (\S+)$", rules, re.M)]
    ends = [begin for _, begin in begins[1:]] + [len(rules)]
    return [(name, begin, end) for (name, begin), end in zip(begins, ends)]


def the_rules_pass_their_tests():
    order = yaml.safe_load(read("outrigger.rules.test.yaml"))["group_eval_order"]
    assert order == [group["name"] for group in yaml.safe_load(read("outrigger.rules.yaml"))["groups"]], "the tests order other groups"
    code, said = promtool("check", "rules", os.path.join(FOLDER, "outrigger.rules.yaml"))
    assert code == 0 and "FAILED" not in said, said
    code, said = promtool("test", "rules", os.path.join(FOLDER, "outrigger.rules.test.yaml"))
    assert code == 0 and "SUCCESS" in said, said


def mutations(rules):
    """What somebody may do to a rule by mistake, each with its name."""
    for name, begin, end in blocks(rules):
        rule = rules[begin:end]
        if "alert:" not in rule:
            continue
        expr = re.search(r"( +expr: )(>-\n(?: {10,}.*\n)+|.*\n)", rule)

        def with_expr(text, rule=rule, expr=expr):
            return rules[:begin] + rule.replace(expr.group(0), f"{expr.group(1)}{text}\n") + rules[end:]

        yield f"{name} never fires", with_expr("vector(0) > 1")
        yield f"{name} always fires", with_expr("vector(1)")
        if "for: " in rule:
            yield f"{name} fires at once", rules[:begin] + re.sub(r" +for: .*\n", "", rule) + rules[end:]
            longer = re.sub(r"( +for: )(\d+)m\n", lambda m: f"{m.group(1)}{int(m.group(2)) * 20}m\n", rule)
            yield f"{name} waits for too long", rules[:begin] + longer + rules[end:]
        # Each bound and each word that an expression compares with, one at a time.
        for found in re.finditer(r"(?<=[<>] )\d+(?:\.\d+)?|(?<=>= )\d+(?:\.\d+)?", expr.group(0)):
            number = float(found.group(0))
            for other in (number * 0.5, number * 3 + 1) if number else (-1,):
                text = expr.group(0)[: found.start()] + f"{other:g}" + expr.group(0)[found.end() :]
                yield f"{name}: {found.group(0)} is {other:g}", rules[:begin] + rule.replace(expr.group(0), text) + rules[end:]
        for found in re.finditer(r'(?<==)"[a-z_0-9]+"', expr.group(0)):
            text = expr.group(0)[: found.start()] + '"other"' + expr.group(0)[found.end() :]
            yield f"{name}: {found.group(0)} is another", rules[:begin] + rule.replace(expr.group(0), text) + rules[end:]
        for found in re.finditer(r"\n +(?:and|unless) .*", expr.group(0)):
            text = expr.group(0)[: found.start()] + expr.group(0)[found.end() :]
            if text.count("(") == text.count(")"):
                yield f"{name} without{found.group(0)}", rules[:begin] + rule.replace(expr.group(0), text) + rules[end:]


def a_broken_rule_fails_its_tests():
    rules = read("outrigger.rules.yaml")
    mutants = list(mutations(rules))
    alerts = {name: name.split()[0].rstrip(":") for name, _ in mutants}
    assert not [name for name, mutant in mutants if mutant == rules]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        right = pool.map(lambda alert: is_right(rules, alert), sorted(set(alerts.values())))
        assert all(right), "filtered by alert, the tests do not pass"
        noticed = pool.map(lambda one: not is_right(one[1], alerts[one[0]]), mutants)
        alive = [name for (name, _), was in zip(mutants, noticed) if not was]
    print(f"{len(mutants)} mutations of the rules, {len(alive)} not noticed", flush=True)
    assert not alive, "\n".join(alive)


def every_rule_says_what_to_do():
    with open(os.path.join(ROOT, "docs", "runbook.md")) as file:
        headings = re.findall(r"^## (.*)$", file.read(), re.M)
    rules, alerts = read("outrigger.rules.yaml"), []
    for name, begin, end in blocks(rules):
        rule = rules[begin:end]
        if "alert:" not in rule:
            continue
        alerts.append(name)
        assert re.search(r"severity: (page|ticket) ", rule), name
        assert re.search(r'summary: "', rule) and re.search(r'description: ".*\bfirst\b', rule, re.I), f"{name} does not say what to do first"
        assert f"runbook_url: docs/runbook.md#{name.lower()}\n" in rule + "\n", f"{name} has no link to its section"
    assert set(alerts) == set(headings), f"only in one of both: {set(alerts) ^ set(headings)}"


def shown(page):
    """The labels with which each metric is shown."""
    found = {}
    for line in page.split("\n"):
        if match := re.match(r"(\w+)(?:\{(.*)\})? \S+$", line):
            found.setdefault(match.group(1), set()).update(re.findall(r'(\w+)="', match.group(2) or ""))
    return found


def rich_world(world):
    """Gateways that show whatever the rules read."""
    certificate(world, "server", 1)
    good, bad = "sk-good-5d2c8e91b7a4f063", "sk-bad-0c4e7a92d6b8f135"
    world.write("cw.key", good)
    world.write("la.key", bad)
    world.engines["cw"] = Engine(world, "cw", api_key=good)
    world.engines["la"] = Engine(world, "la", api_key=good)
    port = free_port()
    certificate(world, "backend", 3)
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-www", "-cert", world.path("backend.crt"), "-key", world.path("backend.key")]
    children.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    world.engines["oa"] = Engine(world, "oa")
    world.engines["oa"].url = f"https://127.0.0.1:{port}/v1"
    prices = "usd_per_million_tokens: { input: 1, output: 2 }\nca: file:backend.crt"
    keys = {"cw": "api_key: file:cw.key", "la": "api_key: file:la.key", "oa": prices, "limit": 5}
    slo = "slo: { ttft_p95: 1s, time_per_output_token_p95: 50ms }"
    world.fleet(gateway="tls: { cert: file:server.crt, key: file:server.key }", model=slo, **keys)
    plain = world.fleet(model=slo, name="plain.yaml", **keys)
    world.serve("plain.yaml")
    world.serve()
    world.is_in("cw", "up", "slow_start")
    for n in range(8):
        assert world.ask(stream=n % 2 == 0)[0] == 200
    # A new key that is refused, while the one before is taken.
    world.write("cw.key", bad)
    until("the key before is taken", lambda: world.ask() and world.metric("outrigger_backend_key_fallbacks_total"))
    return plain


def every_metric_of_the_rules_is_shown(world):
    world.engines["cw"].fault(fault="refuse")
    for _ in range(8):
        world.ask()
    world.engines["cw"].heal()
    live = {}
    for gateway in world.gateways:
        for name, labels in shown(get(gateway["admin"] + "/metrics")).items():
            live.setdefault(name, set()).update(labels)
    live["up"] = set()
    rules, words = read("outrigger.rules.yaml"), source_words()
    for name, begin, end in blocks(rules):
        expr = re.search(r" +expr: (>-\n(?: {10,}.*\n)+|.*\n)", rules[begin:end]).group(1)
        labels = OWN_LABELS.copy()
        for metric, selector in re.findall(r"(?<![:\w])(outrigger_\w+|up)\b(?:\{([^}]*)\})?", expr):
            if metric not in live and metric.replace("_bucket", "") not in live:
                raise AssertionError(f"{name}: no gateway shows {metric}")
            labels |= live[metric]
            for label, operator, value in re.findall(r'(\w+)(=~|=)"([^"]*)"', selector):
                assert label in live[metric] | OWN_LABELS, f"{name}: {metric} has no label {label}"
                for word in value.split("|") if label not in OWN_LABELS else ():
                    assert word in words, f"{name}: nobody says {label}={word}"
        labels |= {label for label in ("model", "cloud") if f"job_{label}:" in expr}
        for group in re.findall(r"\b(?:by|on|group_left) \(([^)]*)\)", expr):
            for label in filter(None, (one.strip() for one in group.split(","))):
                assert label in labels, f"{name}: nothing in it has the label {label}"


def source_words():
    """Every word that the core and the gateway have as a literal: what an enum may be called in a label."""
    found = set()
    for crate in ("core", "gateway"):
        for folder, _, files in os.walk(os.path.join(ROOT, "crates", crate, "src")):
            for file in (f for f in files if f.endswith(".rs")):
                with open(os.path.join(folder, file)) as source:
                    found |= set(re.findall(r'"([a-z0-9_]+)"', source.read()))
    return found


def the_page_is_well_formed(world):
    page = get(world.gateways[0]["admin"] + "/metrics")
    done = subprocess.run([tool("promtool"), "check", "metrics"], input=page, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = [line for line in done.stdout.split("\n") if line and not line.endswith("_total no help text")]
    # It knows OpenMetrics' `_total` only as part of a name, and the help is of the name without it.
    assert not said, "\n".join(said)


def quick(rules):
    """The same rules, in seconds."""
    rules = re.sub(r"for: \d+m", "for: 2s", rules)
    rules = re.sub(r"\[\d+[mh]:\d+s\]", "[8s:1s]", rules)
    return re.sub(r"\[\d+[mh]\]", "[8s]", rules)


def a_real_prometheus_says_so_when_a_cloud_dies_and_when_it_is_back(world):
    port = free_port()
    world.write("quick.rules.yaml", quick(read("outrigger.rules.yaml")))
    targets = ", ".join(gateway["admin"][len("http://") :] for gateway in world.gateways)
    jobs = f"scrape_configs:\n  - {{ job_name: outrigger, static_configs: [ {{ targets: [ {targets} ] }} ] }}\n"
    config = world.write("prometheus.yml", "global: { scrape_interval: 1s, evaluation_interval: 1s }\nrule_files: [ quick.rules.yaml ]\n" + jobs)
    command = [tool("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={world.path('tsdb')}", f"--web.listen-address=127.0.0.1:{port}"]
    with open(world.path("prometheus.log"), "w") as log:
        children.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=world.folder))

    def ask(path):
        try:
            return json.loads(get(f"http://127.0.0.1:{port}/api/v1/{path}"))["data"]
        except OSError:
            return None

    def firing(name):
        alerts = (ask("alerts") or {"alerts": []})["alerts"]
        return [alert for alert in alerts if alert["labels"]["alertname"] == name and alert["state"] == "firing"]

    def alerted(name, **labels):
        return any(labels.items() <= alert["labels"].items() for alert in firing(name))

    def all_rules_are_evaluated():
        found = ask("rules")
        rules = [rule for group in (found or {"groups": []})["groups"] for rule in group["rules"]]
        faults = [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] == "err"]
        assert not faults, faults
        return rules and all(rule["health"] == "ok" for rule in rules)

    until("every rule is evaluated", all_rules_are_evaluated, 90)
    # What is wrong from the beginning: the world was made so.
    for name, labels in {
        "OutriggerProviderKeyRefused": {"backend": "la"},
        "OutriggerCertificateExpires": {"severity": "page"},
        "OutriggerFleetDigestsDiffer": {},
        "OutriggerBackendCertificateExpires": {"backend": "oa"},
    }.items():
        until(name, lambda name=name, labels=labels: alerted(name, **labels), 90)
    assert not alerted("OutriggerProviderDown", cloud="coreweave")
    assert not alerted("OutriggerProviderDown", cloud="lambda"), "a refused key is not an outage"
    world.engines["cw"].kill()
    world.ask()
    began = time.monotonic()
    until("the cloud's death is told", lambda: alerted("OutriggerProviderDown", cloud="coreweave"), 90)
    alert = next(a for a in firing("OutriggerProviderDown") if a["labels"]["cloud"] == "coreweave")
    assert alert["annotations"]["summary"] == "Cloud coreweave is down: none of its backends serves", alert
    print(f"told {time.monotonic() - began:.1f} s after the cloud died", flush=True)
    world.engines["cw"].start()
    began = time.monotonic()
    until("its return is told", lambda: not alerted("OutriggerProviderDown", cloud="coreweave"), 90)
    print(f"over {time.monotonic() - began:.1f} s after it was back", flush=True)
    lost = urllib.parse.quote('job_model:outrigger_requests:rate5m{model="llama-70b"}')
    assert ask(f"query?query={lost}")["result"], "the recorded rate has no value"
    all_rules_are_evaluated()


def run(tests):
    passed = failed = 0
    for test in tests:
        began = time.monotonic()
        try:
            test()
            passed += 1
            print(f"ok     {time.monotonic() - began:5.1f} s  {test.__name__}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED {time.monotonic() - began:5.1f} s  {test.__name__}", flush=True)
            traceback.print_exc(file=sys.stdout)
    return passed, failed


def in_world(world, test):
    def run_it():
        test(world)

    run_it.__name__ = test.__name__
    return run_it


def main():
    has_tools = tool("promtool") and tool("prometheus")
    if not has_tools:
        print("promtool and prometheus are missing: the rules' own tests were not run. dev/setup unpacks them where apt-get is.")
    with tempfile.TemporaryDirectory(prefix="outrigger-alerts-") as folder:
        world = World(folder, "")
        try:
            tests = [every_rule_says_what_to_do]
            tests += [the_rules_pass_their_tests, a_broken_rule_fails_its_tests] if has_tools else []
            rich = [every_metric_of_the_rules_is_shown]
            rich += [the_page_is_well_formed, a_real_prometheus_says_so_when_a_cloud_dies_and_when_it_is_back] if has_tools else []
            tests += [in_world(world, rich_world)] + [in_world(world, test) for test in rich]
            passed, failed = run(tests)
        finally:
            world.stop()
    print(f"{passed} passed, {failed} failed")
    return failed


sys.exit(main() != 0)
