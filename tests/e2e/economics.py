#!/usr/bin/env python3
"""The planner against its second implementation (bench/economics.py), to the cent, on scenarios that are made up.

The seed is fixed, so that a failure can be looked at again: its scenario is left in the folder that is printed.
`economics.py COUNT SEED` plays others.
"""

import datetime
import importlib.util
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BIN = os.environ.get("OUTRIGGER_BIN") or str(ROOT / "target/debug/outrigger")
DAY = datetime.date(2026, 11, 30)

spec = importlib.util.spec_from_file_location("economics", ROOT / "bench/economics.py")
second = importlib.util.module_from_spec(spec)
spec.loader.exec_module(second)

PEOPLE = ("today", "single", "hosted", "pattern1", "pattern2", "pattern3")


def usd(rng, low, high, digits=2):
    return round(rng.uniform(low, high), digits)


def demand(rng):
    out = {}
    if rng.random() < 0.2:
        out["requests_per_second"] = usd(rng, 0.1, 60, 3)
    else:
        levels = rng.randint(1, 12)
        rates = [usd(rng, 0, 1, 3) * rng.choice((5, 20, 80)) for _ in range(levels)]
        rates[rng.randrange(levels)] = usd(rng, 1, 80, 3)
        unit = rng.choice(("m", "h"))
        out["curve"] = [{"for": f"{rng.randint(1, 9)}{unit}", "requests_per_second": round(rate, 4)} for rate in rates]
    out["prompt_tokens"] = rng.choice((rng.randint(20, 9000), usd(rng, 10, 4000, 3)))
    kind = rng.random()
    if kind < 0.4:
        out["output_tokens"] = rng.randint(1, 900)
    elif kind < 0.7:
        out["output_tokens"] = {"mean": usd(rng, 1, 900, 3), "cv": usd(rng, 0, 2)}
    else:
        marks = sorted(rng.sample(range(0, 101), 4))
        tokens = sorted(rng.randint(1, 2000) for _ in marks)
        out["output_tokens"] = {"quantiles": [{"at": q / 100, "tokens": t} for q, t in zip(marks, tokens)]}
    if rng.random() < 0.5:
        out["arrival_cv"] = usd(rng, 0.5, 4)
    return out


def profile(rng, gpu):
    at, ttft, tpot, points = 0, usd(rng, 30, 150), usd(rng, 6, 20, 3), []
    for _ in range(rng.randint(1, 4)):
        at += rng.choice((1, 4, 16, 48))
        points.append({"concurrency": at, "ttft_ms": round(ttft, 3), "tpot_ms": round(tpot, 3)})
        ttft, tpot = ttft * usd(rng, 1, 2), tpot * usd(rng, 1, 1.6)
    return {"gpu": gpu, "gpus": rng.choice((1, 2, 3, 4, 8, 16)), "points": points}


def cloud(rng, name, gpus):
    out = {"gpu": rng.choice(gpus)}
    listed = second.offer_of(name, out["gpu"], None, 1)
    if listed is None or rng.random() < 0.4:
        out["usd_per_gpu_hour"] = usd(rng, 1, 12, 3)
        if rng.random() < 0.6:
            out["instance_gpus"] = rng.choice((1, 2, 4, 8))
        if rng.random() < 0.4:
            out["min_gpus"] = rng.choice((1, 4, 8, 16))
    if rng.random() < 0.7:
        least = out.get("usd_per_gpu_hour") or second.offer_of(name, out["gpu"], None, 16)[2] / 1e9 / 8
        out["reserved_usd_per_gpu_hour"] = round(min(least, 0.9) * usd(rng, 0.3, 0.9), 4)
        out["term_months"] = rng.choice((1, 12, 36))
    if rng.random() < 0.5:
        out["cold_start"] = f"{rng.randint(1, 30)}m"
    if name not in ("aws", "azure", "gcp", "coreweave", "lambda", "runpod") or rng.random() < 0.2:
        out["egress_usd_per_gb"] = usd(rng, 0, 0.15, 4)
    return out


def scenario(rng):
    gpus = rng.sample(("h100", "h200", "a100-80gb", "l40s"), rng.randint(1, 2))
    names = rng.sample(("aws", "azure", "gcp", "coreweave", "lambda", "runpod", "verda", "own-racks"), rng.randint(1, 4))
    out = {
        "version": 1,
        "name": "made up",
        "home": {"cloud": rng.choice(names + ["aws"]), "may_move": rng.random() < 0.3},
        "demand": demand(rng),
        "model": {"profiles": [profile(rng, gpu) for gpu in gpus]},
        "slo": {"ttft_p95": f"{rng.choice((200, 500, 800, 2000))}ms", "time_per_output_token_p95": f"{rng.choice((20, 30, 50, 100))}ms"},
        "clouds": {name: cloud(rng, name, gpus) for name in names},
        "split_percent": rng.choice((50, 60, 75, 33)),
        "horizon_months": rng.choice((1, 6, 12, 24)),
        "uncertainty": {"price_percent": rng.choice((0, 20, 35)), "load_percent": rng.choice((0, 20, 50))},
    }
    if out["home"]["cloud"] not in ("aws", "azure", "gcp", "coreweave", "lambda", "runpod"):
        own = out["clouds"].get(out["home"]["cloud"], {}).get("egress_usd_per_gb")
        out["home"]["egress_usd_per_gb"] = usd(rng, 0, 0.1, 3) if own is None else own
    if rng.random() < 0.6:
        out["hosted"] = {
            name: {"usd_per_million_tokens": {"input": usd(rng, 0.01, 3, 3), "output": usd(rng, 0.01, 9, 3)}}
            for name in ("first", "second")[: rng.randint(1, 2)]
        }
    pools = [{"cloud": rng.choice(names), "gpus": rng.randint(1, 64)} for _ in range(rng.randint(1, 3))]
    for pool in pools:
        if rng.random() < 0.5:
            pool["usd_per_gpu_hour"] = usd(rng, 0.5, 13, 4)
    out["today"] = {"pools": pools}
    if "hosted" in out and rng.random() < 0.3:
        out["today"] = {"hosted": "first"}
    if rng.random() < 0.5:
        out["today"]["other"] = [{"name": "rest", "usd_per_month": usd(rng, 0, 9000)}]
    flows = [("home", "gpus"), ("gpus", "home"), ("gpus", "internet"), ("home", "internet")]
    out["egress"] = [
        {"name": f"flow {i}", "from": way[0], "to": way[1], "gb_per_month": usd(rng, 0, 10 ** rng.randint(1, 6), 4)}
        for i, way in enumerate(rng.choices(flows, k=rng.randint(0, 5)))
    ]
    if rng.random() < 0.6:
        out["weights"] = {"gb": usd(rng, 1, 900), "pulls_per_month": rng.randint(0, 900), "releases_per_month": rng.randint(0, 9)}
    if rng.random() < 0.7:
        out["people"] = {name: usd(rng, 0, 40000) for name in PEOPLE if rng.random() < 0.8}
    if rng.random() < 0.7:
        out["migration"] = {"usd": usd(rng, 0, 200000), "overlap": f"{rng.randint(0, 60)}d"}
    limits = {}
    if rng.random() < 0.2:
        limits["only_clouds"] = rng.sample(names, 1)
    if rng.random() < 0.4 and "only_clouds" not in limits:
        limits["data_gravity_tb"] = rng.choice((1, 40, 999.5, 1000, 5000))
    if rng.random() < 0.2:
        limits["platform_team"] = False
    if rng.random() < 0.3:
        limits["cold_start_limit"] = f"{rng.randint(1, 20)}m"
    out["constraints"] = limits
    if rng.random() < 0.4:
        name = rng.choice(names)
        one = second.Cloud(name, out["clouds"][name], out["model"]["profiles"])
        price, gpus = usd(rng, 0.5, 8, 3), one.g * rng.randint(1, 3)
        out["commitments"] = [{"cloud": name, "gpus": gpus, "usd_per_gpu_hour": price, "until": "2027-05-31"}]
    return out


def compare(raw, file):
    """What differs, in words; and how many options were compared."""
    ran = subprocess.run(
        [BIN, "plan", "--scenario", file, "--as-of", str(DAY), "--json"], capture_output=True, text=True, timeout=60
    )
    if ran.returncode != 0:
        return [f"exit {ran.returncode}: {ran.stderr.strip()}"], 0
    theirs = json.loads(ran.stdout)
    options, verdict = second.Plan(raw, DAY).answer()
    faults = []

    def same(what, a, b):
        if a != b:
            faults.append(f"{what}: {a} in Rust, {b} here")

    listed = {one["id"]: one for one in theirs["options"] if one["usd_per_month"] is not None}
    same("options", sorted(listed), sorted(options))
    dollars = lambda amount: second.cents(amount) / 100
    for name, one in options.items():
        other = listed.get(name)
        if other is None:
            continue
        same(f"{name} total", other["usd_per_month"], dollars(one["total"]))
        for line, amount in other["lines"].items():
            same(f"{name} {line}", amount, dollars(one[line]))
        for key in ("one_time", "all_in", "liability"):
            same(f"{name} {key}", other[f"{key}_usd"], dollars(one[key]))
        same(f"{name} p10, p90", [other["p10_usd"], other["p90_usd"]], [dollars(bill) for bill in one["range"]])
        same(f"{name} rules", set(other["rules"]), one["rules"])
        if "cover" in one:
            same(f"{name} cover", other["cover_usd"], one["cover"] if one["cover"] is None else dollars(one["cover"]))
            for cloud, share in one["survives"].items():
                if abs(other["survives"][cloud] - share) > 1e-9:
                    faults.append(f"{name} without {cloud}: {other['survives'][cloud]} in Rust, {share} here")
        for against, saved in other["savings"].items():
            same(f"{name} against {against}", saved, dollars(options[against]["total"] - one["total"]))
    answer = theirs["verdict"]
    same("worth it", answer["worth_it"], verdict["worth_it"])
    chosen = options[answer["option"]]["all_in"]
    same("all in of the answer", chosen, options[verdict["option"]]["all_in"])
    same("rules", set(answer["rules"]), verdict["rules"])
    spend = verdict["break_even"]
    same("break-even", answer["break_even_usd"], None if spend is None else dollars(spend))
    return faults, len(options)


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 240
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 20261130
    folder = tempfile.mkdtemp(prefix="economics-")
    passed = failed = options = 0
    for i in range(count):
        raw = scenario(random.Random(seed * 1000 + i))
        file = os.path.join(folder, f"{i}.yaml")
        pathlib.Path(file).write_text(json.dumps(raw, indent=1))
        faults, compared = compare(raw, file)
        options += compared
        if faults:
            failed += 1
            print(f"{file}:", *faults[:8], sep="\n  ")
        else:
            passed += 1
            os.unlink(file)
    if not failed:
        os.rmdir(folder)
    print(f"{options} options of {count} scenarios, seed {seed}")
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
