"""Made-up scenarios through `outrigger plan` and bench/economics.py, which was written from docs/economics.md alone: every figure has to be the
same, money to the cent.

Run by ./test with OUTRIGGER_BIN set; the last line is `N passed, N failed`, of scenarios. `economics.py [COUNT [SEED]]` takes more or others; the
file of a scenario that fails is kept. JSON is YAML, so that the scenarios are written without a library.
"""

import collections
import concurrent.futures
import datetime
import importlib.util
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import traceback

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BIN = os.environ.get("OUTRIGGER_BIN") or ROOT / "target" / "debug" / "outrigger"
COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 240
SEED = int(sys.argv[2]) if len(sys.argv) > 2 else 1
AS_OF = datetime.date(2026, 11, 30)
# Looking for the values at which an answer turns prices a month some hundred times.
TURNS_EACH = 10
# Of a scenario, and scenarios: one cause makes many differences.
SHOWN, MOST_SHOWN = 5, 20

spec = importlib.util.spec_from_file_location("economics_second", ROOT / "bench" / "economics.py")
economics = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = economics
spec.loader.exec_module(economics)

BOOK = economics.Book()
PROVIDERS = [
    *("aws", "azure", "gcp", "oci", "coreweave", "lambda", "runpod", "hyperstack", "nebius", "verda", "crusoe", "vultr", "digitalocean", "own-dc"),
]
REGIONS = {"aws": ["us-east-1", "us-west-2"], "azure": ["eastus", "uksouth"], "gcp": ["us-central1", "europe-west4"]}
GPUS = ["h100", "h100", "h100-sxm", "h200", "a100-80gb", "l40s", "b200", "L4"]
FLOWS = [("home", "gpus"), ("gpus", "home"), ("gpus", "internet"), ("home", "internet")]
folder = tempfile.mkdtemp(prefix="outrigger-economics-")


class Maker:
    """A scenario of a number: most are what a team might write, some what nobody would."""

    def __init__(self, number):
        self.draw, self.number, self.machine_gpus = random.Random(SEED * 1_000_003 + number), number, {}

    def maybe(self, share):
        return self.draw.random() < share

    def one(self, *choices):
        return self.draw.choice(choices)

    def some(self, choices, share):
        return [each for each in choices if self.maybe(share)]

    def money(self, most):
        return round(self.draw.uniform(0.01, most), self.one(0, 1, 2, 6)) or 0.5

    def scenario(self):
        profiles = self.profiles()
        clouds, alike = self.clouds(profiles), self.maybe(0.08)
        if alike:
            self.make_alike(clouds)
        names, home, hosted = list(clouds), self.home(clouds), {} if alike else self.hosted()
        scenario = {
            "version": 1,
            "name": f"made up {self.number}",
            "home": home,
            "demand": self.demand(),
            "model": {"name": "m", "profiles": profiles},
            "slo": self.slo(profiles),
            "clouds": clouds,
            "today": self.today(names, list(hosted)),
        }
        parts = [
            ("hosted", 1, lambda: hosted),
            ("egress", 0.75, self.egress),
            ("weights", 0.6, self.weights),
            ("interconnect", 0.4, self.interconnect),
            ("people", 0.75, self.people),
            ("migration", 0.6, self.migration),
            ("commitments", 0.35, lambda: self.commitments(names)),
            ("constraints", 0.6, lambda: self.constraints(names, home["cloud"])),
            ("uncertainty", 0.7, lambda: {key: self.one(0, 7, 20, 50, 99) for key in self.some(["price_percent", "load_percent"], 0.85)}),
            ("split_percent", 0.6, lambda: self.one(1, 33, 50, 60, 99)),
            ("horizon_months", 0.5, lambda: self.one(1, 7, 12, 60, 120)),
        ]
        if alike:
            return {**scenario, "people": {"single": 0, "pattern1": self.one(0, 9000)}}
        for key, share, make in parts:
            made = make() if self.maybe(share) else None
            if made:
                scenario[key] = made
        return scenario

    def profiles(self):
        profiles = []
        for gpu in self.draw.sample(GPUS, self.one(1, 1, 2, 3)):
            points, at_once, first, following = [], self.one(1, 1, 2, 4, 8), self.draw.uniform(10, 300), self.draw.uniform(3, 40)
            for _ in range(self.one(1, 2, 3, 3, 4)):
                points.append({"concurrency": at_once, "ttft_ms": round(first, 3), "tpot_ms": round(following, 3)})
                at_once += self.one(1, 3, 8, 24, 60)
                first, following = first * self.draw.uniform(0.9, 2), following * self.draw.uniform(0.9, 1.7)
            profiles.append({"gpu": gpu, "gpus": self.one(1, 1, 2, 3, 4, 4, 8, 12, 16), "points": points})
        return profiles

    def slo(self, profiles):
        barely = f"{int(profiles[0]['points'][0]['ttft_ms']) + 1}ms"
        first, following = self.one("800ms", "800ms", "300ms", "2s", "150ms", barely), self.one("50ms", "50ms", "25ms", "80ms", "12ms")
        return {"ttft_p95": first, "time_per_output_token_p95": following}

    def clouds(self, profiles):
        clouds = {}
        for name in self.draw.sample(PROVIDERS, self.one(1, 1, 2, 2, 3, 3, 4)):
            cloud, profile = {}, profiles[0]
            if name in REGIONS and self.maybe(0.7):
                cloud["region"] = self.one(*REGIONS[name])
            if self.maybe(0.25):
                profile = self.one(*profiles)
                cloud["gpu"] = profile["gpu"]
            offer = BOOK.offer(name, cloud.get("region"), profile["gpu"], profile["gpus"])
            if offer is None or self.maybe(0.5):
                cloud["usd_per_gpu_hour"] = self.one(0.001, 0.333333333, 2, 1234.5) if self.maybe(0.06) else self.money(12)
            if self.maybe(0.3):
                cloud["instance_gpus"] = self.one(1, 2, 4, 6, 8, 8, 16)
            if self.maybe(0.25):
                cloud["min_gpus"] = self.one(1, 2, 5, 8, 13, 16, 24, 64)
            if self.maybe(0.6):
                price = cloud.get("usd_per_gpu_hour") or offer.usd / offer.gpus / 10**9
                cloud["reserved_usd_per_gpu_hour"] = self.one(round(price * self.draw.uniform(0.2, 1), 6), round(price / 2, 2) or price, price)
            if self.maybe(0.5):
                cloud["term_months"] = self.one(1, 3, 12, 36)
            if self.maybe(0.6):
                cloud["cold_start"] = self.one("30s", "8m", "12m", "90m", "0s")
            if BOOK.egress_tiers(name) is None or self.maybe(0.2):
                cloud["egress_usd_per_gb"] = self.one(0, 0.05, 0.0123456, 0.12)
            self.machine_gpus[name] = cloud.get("instance_gpus", offer.gpus if offer else profile["gpus"])
            clouds[name] = cloud
        return clouds

    def make_alike(self, clouds):
        """Nothing but the number of clouds and their order tells options apart."""
        reserved = self.one(2.5, 2)
        for name, cloud in clouds.items():
            cloud.pop("gpu", None)
            cloud.update(usd_per_gpu_hour=2.5, instance_gpus=8, min_gpus=8, reserved_usd_per_gpu_hour=reserved)
            self.machine_gpus[name] = 8

    def home(self, clouds):
        name = self.one(*clouds) if self.maybe(0.85) else self.one(*PROVIDERS)
        home = {"cloud": name}
        if self.maybe(0.5):
            home["may_move"] = self.maybe(0.7)
        priced = "egress_usd_per_gb" in clouds.get(name, {})
        if not priced and (BOOK.egress_tiers(name) is None or self.maybe(0.15)):
            home["egress_usd_per_gb"] = self.one(0, 0.03, 0.087654321)
        return home

    def demand(self):
        kind, most = self.draw.random(), self.one(0.001, 0.05, 1, 5, 20, 20, 60) if self.maybe(0.97) else 2000
        if kind < 0.05:
            return {"trace": {"file": self.trace(), "window": self.one("10m", "1m", "7m", "1h", "90s")}}
        demand = {"prompt_tokens": self.length(3000), "output_tokens": self.length(600)}
        if self.maybe(0.6):
            demand["arrival_cv"] = self.one(0, 0.5, 1, 1.09, 2.3)
        if kind < 0.1:
            demand["rates"] = {"file": self.rates(most), "column": "rate", "scale": self.one(1, 0.01, 0.0037)}
        elif kind < 0.35:
            demand["requests_per_second"] = round(self.draw.uniform(0.001, most), 4) or 0.001
        else:
            lengths = ["1h", "30m", "7h", "2d", "45s", "90m", "0.5s", "90.5s", "3601s"]
            rates = [self.one(0, 0, 0.003, round(self.draw.uniform(0, most), 3), round(self.draw.uniform(0, most), 1)) for _ in range(self.one(0, 1, 3, 5, 9))]
            rates.append(round(self.draw.uniform(0.001, most), 3) or 0.001)
            demand["curve"] = [{"for": self.one(*lengths), "requests_per_second": rate} for rate in rates]
        return demand

    def length(self, most):
        kind = self.draw.random()
        if kind < 0.4:
            return self.one(0.5, 1, self.draw.randint(1, most), round(self.draw.uniform(1, most), 2))
        if kind < 0.7:
            return {"mean": self.draw.randint(1, most), "cv": self.one(0, 0.3, 0.8, 1.7)}
        count = self.one(2, 2, 3, 5)
        at, tokens = self.draw.sample([0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1], count), self.draw.sample(range(1, most + 10), count)
        return {"quantiles": [{"at": each, "tokens": number} for each, number in zip(sorted(at), sorted(tokens))]}

    def table(self, header, rows):
        path = os.path.join(folder, f"{self.number}.csv")
        with open(path, "w") as out:
            out.write("\n".join([header, *rows, ""]))
        return os.path.basename(path)

    def rates(self, most):
        starts = itertools.accumulate(self.one(300, 600, 600) for _ in range(self.draw.randint(2, 20)))
        return self.table("window_start_s,rate", [f"{start},{self.draw.uniform(0, most):.4f}" for start in starts])

    def trace(self):
        rows, now = [], 0.0
        for _ in range(self.draw.randint(2, self.one(6, 40, 300))):
            now += self.draw.expovariate(self.one(0.05, 0.5, 5))
            rows.append(f"{now:.3f},{self.draw.randint(1, 3000)},{self.draw.randint(1, 400)}")
        return self.table("arrival_s,prompt_tokens,output_tokens", rows)

    def hosted(self):
        hosted = {}
        for number in range(self.one(0, 0, 1, 1, 2)):
            row = self.one(*BOOK.tokens)
            by_book = {"provider": row["provider"], "model": row["litellm_key"].removeprefix(row["provider"] + "/")}
            given = {"usd_per_million_tokens": {"input": self.money(3), "output": self.money(9)}}
            hosted[f"api-{number}"] = by_book if self.maybe(0.5) else given
        return hosted

    def today(self, names, hosted):
        today = {}
        if not hosted or self.maybe(0.8):
            today["pools"] = [{"cloud": self.one(*names), "gpus": self.one(1, 3, 8, 16, 24, 40)} for _ in range(self.one(1, 1, 2, 3))]
            for pool in self.some(today["pools"], 0.4):
                pool["usd_per_gpu_hour"] = self.money(10)
            if self.maybe(0.02):
                today["pools"][0].update(gpus=33333, usd_per_gpu_hour=99)
        if hosted and ("pools" not in today or self.maybe(0.12)):
            today["hosted"] = self.one(*hosted)
        if self.maybe(0.5):
            today["other"] = [{"name": f"other {number}", "usd_per_month": self.money(3000)} for number in range(self.one(1, 2))]
        if self.maybe(0.3):
            kinds = self.draw.sample(["gpu", "gpu", "egress", "other", "tokens", "storage"], 3)
            today["invoice"] = {"lines": [{"kind": kind, "usd": self.money(50000)} for kind in kinds]}
        return today

    def egress(self):
        flows = []
        for source, target in self.some(FLOWS, 0.6):
            amount = self.one(0.5, 210, 2100.25, 12000, 60000, 400000, 1.123456789, 0.001, 10240, 153600)
            flows.append({"name": f"{source} {target}", "from": source, "to": target, "gb_per_month": amount})
            if (source, target) == ("home", "gpus") and self.maybe(0.5):
                flows[-1]["unique_gb_per_month"] = amount / self.one(1, 2, 8)
        return flows

    def weights(self):
        weights = {"gb": self.one(0.001, 0.5, 71, 140.123, 700, 10000), "pulls_per_month": self.one(0, 1, 2, 30, 600, 5000)}
        if self.maybe(0.7):
            weights["releases_per_month"] = self.one(0, 1, 2, 10, 1000)
        if self.maybe(0.7):
            weights["storage_usd_per_gb_month"] = self.one(0, 0.023, 0.1, 5)
        return weights

    def interconnect(self):
        return {"usd_per_month": self.one(100, 1250), "usd_per_gb": self.one(0.02, 0, 0.2)}

    def people(self):
        keys = ["today", "single", "hosted", "pattern1", "pattern2", "pattern3"]
        return {key: self.one(0, 0.01, 500, 9000, 13000, 4000.55, 30000) for key in self.some(keys, 0.75)}

    def migration(self):
        migration = {"usd": self.one(0, 100, 60000, 777.77), "overlap": self.one("14d", "0s", "36.25h", "100.7s")}
        return {key: migration[key] for key in self.some(migration, 0.7)}

    def commitments(self, names):
        """Of whole machines."""
        commitments = []
        for cloud in self.draw.choices(names, k=self.one(1, 1, 2, 4)):
            until = AS_OF + datetime.timedelta(days=self.one(0, 1, 100, 400, 5000))
            gpus = self.one(1, 1, 2, 3, 8, 20) * self.machine_gpus[cloud]
            commitments.append({"cloud": cloud, "gpus": gpus, "usd_per_gpu_hour": self.money(6), "until": str(until)})
        return commitments

    def constraints(self, names, home):
        constraints = {
            "only_clouds": self.draw.sample(names, self.draw.randint(1, len(names))),
            "data_gravity_tb": self.one(0, 0.5, 12, 80, 400),
            "data_gravity_limit_tb": self.one(1, 12, 100, 1000),
            "cold_start_limit": self.one("1m", "10m", "15m", "2h"),
            "platform_team": self.maybe(0.5),
        }
        drawn = {key: constraints[key] for key in self.some(constraints, 0.35)}
        if home not in drawn.get("only_clouds", [home]):
            # Data could keep the GPUs where they may not be, which is refused.
            drawn.pop("data_gravity_tb", None)
        return drawn


class Comparison:
    """Figures that are the same, and those that are not."""

    def __init__(self):
        self.figures, self.differences = 0, []

    def same(self, what, second, first):
        self.figures += 1
        if second != first:
            self.differences.append(f"{what}: {first} and by the second implementation {second}")

    def money(self, what, nano, usd):
        self.same(what, nano if nano is None else economics.cents(nano), usd if usd is None else round(usd * 100))

    def number(self, what, second, first):
        near = second is not None and first is not None and abs(float(second) - first) <= 1e-9 * max(1, abs(first))
        self.same(what, first if near else second if second is None else float(second), first)

    def keys(self, what, second, first):
        """The keys that both have."""
        self.same(f"{what}, of what", sorted(second), sorted(first))
        return [key for key in second if key in first]


def compare_option(check, figures, printed):
    name = printed["id"]
    for line in economics.LINES:
        check.money(f"{name} {line}", figures.month.lines[line], printed["lines"][line])
    money = {
        "usd_per_month": figures.total,
        "egress_usd": figures.month.lines["egress"],
        "one_time_usd": figures.once,
        "all_in_usd": figures.all_in,
        "worst_month_usd": figures.total + figures.once,
        "liability_usd": figures.liability,
        "p10_usd": figures.p10,
        "p90_usd": figures.p90,
        "cover_usd": figures.cover,
    }
    for key, nano in money.items():
        check.money(f"{name} {key}", nano, printed[key])
    for other in check.keys(f"{name} savings", figures.saves, printed["savings"]):
        check.money(f"{name} savings against {other}", figures.saves[other], printed["savings"][other])
    check.same(f"{name} payback", figures.payback, printed["payback_months"])
    check.same(f"{name} gpus", figures.gpus, printed["gpus"])
    check.same(f"{name} reserved gpus", figures.reserved_gpus, printed["reserved_gpus"])
    check.same(f"{name} rules", sorted(figures.rules), sorted(printed["rules"]))
    ways = {"": "", "copies": "a copy in each cloud", "pulls": "read from home at each cold start"}
    check.same(f"{name} weights", ways[figures.month.weights_by], printed["weights_by"])
    for cloud in check.keys(f"{name} survives", figures.survives, printed["survives"]):
        check.number(f"{name} survives {cloud}", figures.survives[cloud], printed["survives"][cloud])
    for other in check.keys(f"{name} hosted break-even", figures.break_even, printed["hosted_break_even_rps"]):
        check.number(f"{name} hosted break-even {other}", figures.break_even[other], printed["hosted_break_even_rps"][other])
    compare_fractiles(check, name, figures.fractiles, {each["cloud"]: each for each in printed["fractiles"]})
    compare_edges(check, name, figures.month.edges, printed["edges"])


def compare_fractiles(check, name, fractiles, printed):
    for cloud in check.keys(f"{name} fractiles", fractiles, printed):
        for key, share in zip(("price_ratio", "time_above_base"), fractiles[cloud]):
            check.number(f"{name} {key} at {cloud}", share, printed[cloud][key])


def compare_edges(check, name, edges, printed):
    check.same(f"{name} edges, how many", len(edges), len(printed))
    printed = {(each["edge"], each["from"], each["to"]): each for each in printed}
    for edge in check.keys(f"{name} edges", edges, printed):
        amount, cost = edges[edge]
        check.number(f"{name} GB of {edge}", amount / 10**9, printed[edge]["gb"])
        check.money(f"{name} cost of {edge}", cost, printed[edge]["usd"])


def figure(sentence):
    """The one in a sentence about a way to pay less."""
    if sentence.startswith(("costs the same", "never pays")):
        return 0 if sentence.startswith("costs") else None
    found = float(re.search(r"[\d,]*\.?\d+", sentence)[0].replace(",", ""))
    return -found if "less in all" in sentence else found


def compare_ways(check, plan, printed):
    """The four ways to pay less, of the challenger's edges or today's."""
    ways = plan.ways_to_pay_less(plan.verdict.challenger or "today")
    printed = {(each["edge"], each["from"], each["to"]): each["ways"] for each in printed}
    for edge in check.keys("edges that cost something", ways, printed):
        for way in check.keys(f"ways of {edge}", ways[edge], printed[edge]):
            said = figure(printed[edge][way])
            if way == "interconnect":
                check.same(f"{way} of {edge}", ways[edge][way], said)
            else:
                check.money(f"{way} of {edge}", ways[edge][way], said)


def compare_verdict(check, verdict, printed):
    check.same("worth it", verdict.worth_it, printed["worth_it"])
    check.same("option", verdict.best if verdict.worth_it else "today", printed["option"])
    check.same("challenger", verdict.challenger, printed["challenger"])
    check.same("rules of the verdict", sorted(verdict.rules), sorted(printed["rules"]))
    check.money("break-even spend", verdict.break_even, printed["break_even_usd"])


def compare_invoice(check, plan, printed):
    invoice = plan.invoice()
    check.same("whether there is an invoice", invoice is not None, printed is not None)
    if not invoice or not printed:
        return
    for kind in check.keys("invoice", invoice, printed["lines"]):
        compare_line(check, f"invoice of {kind}", *invoice[kind], printed["lines"][kind])
    compare_line(check, "invoice", *(sum(column) for column in zip(*invoice.values())), printed)


def compare_line(check, what, computed, invoiced, printed):
    for key, nano in (("computed", computed), ("invoiced", invoiced), ("unexplained", invoiced - computed)):
        check.money(f"{what} {key}", nano, printed[key])


def compare_turns(check, plan, printed):
    challenger = plan.verdict.challenger
    wrong = {
        each["input"]: {side: round(each[side] * 1000) for side in ("below", "above") if each[side] is not None} for each in printed["wrong_by_a_tenth_if"]
    }
    check.same("wrong by a tenth if", plan.wrong_if(challenger or "today"), wrong)
    turns = sorted((name, value) for name, sides in (plan.turns_if(challenger) if challenger else {}).items() for value in sides.values())
    check.same("the answer turns if", turns, sorted((each["input"], round(each["at"] * 1000)) for each in printed["verdict"]["flips"]))


def compare(scenario, printed, with_turns):
    check, plan = Comparison(), economics.Plan(scenario, BOOK, AS_OF, folder)
    options = {each["id"]: each for each in printed["options"] if each["feasible"]}
    check.same("options that are priced, in their order", list(plan.options), list(options))
    for id in plan.options.keys() & options.keys():
        compare_option(check, plan.options[id], options[id])
    if plan.verdict:
        compare_verdict(check, plan.verdict, printed["verdict"])
        compare_invoice(check, plan, printed["invoice"])
        compare_ways(check, plan, printed["egress_edges"])
    if with_turns and not check.differences:
        compare_turns(check, plan, printed)
    return check


def first_implementation(number):
    """(the scenario's file, the scenario, what the binary made of it)."""
    scenario = Maker(number).scenario()
    path = os.path.join(folder, f"{number}.yaml")
    with open(path, "w") as out:
        json.dump(scenario, out, indent=1)
    command = [BIN, "plan", "--scenario", path, "--as-of", str(AS_OF), "--json"]
    return path, scenario, subprocess.run(command, capture_output=True, text=True)


def judge(number, path, scenario, done):
    """How many options and figures were compared, and what is wrong."""
    if done.returncode == 2 and "today cannot be priced" in done.stderr:
        check = Comparison()
        check.same("why today cannot be priced", economics.Plan(scenario, BOOK, AS_OF, folder).unpriced.get("today"), "a unit is wrong")
        return 1, 1, check.differences
    if done.returncode != 0:
        return 0, 0, [f"exit code {done.returncode}: {done.stderr.strip()}"]
    printed = json.loads(done.stdout)
    try:
        check = compare(scenario, printed, number % TURNS_EACH == 0)
    except Exception:
        return 0, 0, [traceback.format_exc()]
    return len(printed["options"]), check.figures, check.differences


def main():
    count, failed = collections.Counter(), 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for number, (path, scenario, done) in enumerate(pool.map(first_implementation, range(COUNT))):
            options, figures, differences = judge(number, path, scenario, done)
            count.update(options=options, figures=figures)
            if not differences:
                continue
            failed += 1
            if failed <= MOST_SHOWN:
                print(f"FAIL {path}: {len(differences)} differ", *differences[:SHOWN], sep="\n  ")
    print(f"{COUNT} scenarios of seed {SEED}, {count['options']} options, {count['figures']} figures")
    if not failed:
        shutil.rmtree(folder)
    print(f"{COUNT - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
