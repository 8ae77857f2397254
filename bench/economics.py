"""The planner a second time, written from docs/economics.md alone: what a team pays today, what each option would cost, and whether one is worth it.

It shares no line with `outrigger plan`, and tests/e2e/economics.py compares the two to the cent, so that a figure is wrong only where both are, or
where the document is. Each part names the section that it follows. Nothing is clever: every base is tried on every level, and every change of an
input prices the month again. Money is whole nano-USD, a rate whole micro-requests a second, a share of the load whole millionths, a factor whole
thousandths; only waits are floating point.

Usage: python bench/economics.py SCENARIO [--as-of DATE]
The scenario is JSON, or YAML where PyYAML is installed. It has to be one that `outrigger plan` takes: faults are not looked for here.
"""

import argparse
import collections
import csv
import dataclasses
import datetime
import json
import math
import pathlib
from fractions import Fraction

DATA = pathlib.Path(__file__).resolve().parent.parent / "crates/core/data"
NANO = 10**9
GIGABYTE = 10**9
MILLION = 10**6
MONTH_HOURS = 730
MONTH_SECONDS = MONTH_HOURS * 3600
MOST_LATE = 0.05
MOST_BUSY = 200_000
MOST_MONEY = 1_000_000_000 * NANO
# Where a hosted API serves, as a cloud among others.
HOSTED = "hosted"


class Unpriced(Exception):
    """Why an option has no price."""


# Conventions


def rounded(numerator, denominator=1):
    """⌊numerator / denominator⌉: to the nearest whole number, a half upwards."""
    return (2 * numerator + denominator) // (2 * denominator)


def ceil_div(numerator, denominator):
    return -(-numerator // denominator)


def exact(number):
    """What is written, without the error of a binary fraction."""
    return Fraction(str(number))


def nano_usd(usd):
    return rounded(exact(usd) * NANO)


def to_bytes(gigabytes):
    return rounded(exact(gigabytes) * GIGABYTE)


def cents(nano):
    """As it is printed: a half away from zero."""
    return rounded(nano, NANO // 100) if nano >= 0 else -rounded(-nano, NANO // 100)


def times(amount, factor):
    """An amount under a factor in thousandths."""
    return rounded(amount * factor, 1000)


def split(whole, shares):
    """Parts of a whole number in shares of a million; they add up to it when the shares do."""
    parts, before, shares_so_far = [], 0, 0
    for share in shares:
        shares_so_far += share
        up_to_here = whole * shares_so_far // MILLION
        parts.append(up_to_here - before)
        before = up_to_here
    return parts


def added(pairs):
    """{key: sum of its amounts}."""
    sums = collections.Counter()
    for key, amount in pairs:
        sums[key] += amount
    return sums


def seconds(duration):
    """Such as `90m`, exactly."""
    for unit, length in (("ms", Fraction(1, 1000)), ("s", 1), ("m", 60), ("h", 3600), ("d", 86400)):
        if duration.endswith(unit):
            return exact(duration[: -len(unit)]) * length
    raise ValueError(duration)


def whole_seconds(duration):
    """Rounded down."""
    return int(seconds(duration))


# Input: the price book


@dataclasses.dataclass(frozen=True)
class Offer:
    """A machine of the book."""

    gpus: int
    min_gpus: int
    usd: int


class Book:
    """Input, Prices: the CSV files of the price book."""

    NEVER = {"spot", "marketplace", "prototyping"}
    BILLED_APART = {"coreweave-classic", "modal"}
    EGRESS_PATHS = ("internet", "internet-premium")

    def __init__(self, folder=DATA):
        self.offers = self.rows(folder, "gpu_offers.csv")
        self.egress = self.rows(folder, "egress_prices.csv")
        self.tokens = self.rows(folder, "hosted_token_prices.csv")

    @staticmethod
    def rows(folder, name):
        with open(pathlib.Path(folder) / name, newline="") as lines:
            return list(csv.DictReader(lines))

    def offer(self, provider, region, gpu, replica_gpus):
        """The first that holds a whole replica, is the provider's own, costs least for a GPU, has fewest GPUs, by name."""
        found = []
        for row in self.offers:
            names = (row["gpu"].lower(), f"{row['gpu']}-{row['form']}".lower())
            if row["provider"] != provider or provider in self.BILLED_APART or row["tier"] in self.NEVER:
                continue
            if gpu.lower() not in names or (region and row["region"] not in (region, "any")):
                continue
            gpus, usd = int(row["gpus"]), nano_usd(row["usd_per_hour"])
            order = (gpus < replica_gpus, row["tier"] == "community", Fraction(usd, gpus), gpus, row["instance_type"])
            found.append((order, Offer(gpus, int(row["min_gpus"]), usd)))
        return min(found, key=lambda each: each[0])[1] if found else None

    def egress_tiers(self, provider):
        """[(up to how many bytes or None, price of a GB)], or None where the book has no price."""
        for path in self.EGRESS_PATHS:
            rows = [row for row in self.egress if row["provider"] == provider and row["path"] == path]
            if rows:
                rows.sort(key=lambda row: exact(row["from_gb"]))
                return [(to_bytes(row["up_to_gb"]) if row["up_to_gb"] else None, nano_usd(row["usd_per_gb"])) for row in rows]
        return None

    def token_prices(self, provider, model):
        """Of a million tokens of prompts and of answers."""
        for row in self.tokens:
            if row["provider"] == provider and row["litellm_key"] in (model, f"{provider}/{model}"):
                return nano_usd(row["input_usd_per_mtok"]), nano_usd(row["output_usd_per_mtok"])
        raise ValueError(f"no price of {model} at {provider}")


def tiered(tiers, amount):
    """Egress: each tier's price applies to the bytes in that tier, and the last goes on."""
    total = begin = 0
    for number, (up_to, price) in enumerate(tiers):
        end = amount if number == len(tiers) - 1 else min(amount, up_to)
        total += price * max(end - begin, 0)
        begin = max(begin, end)
    return rounded(total, GIGABYTE)


# Input: the demand


def variation(values):
    """Standard deviation over mean."""
    mean = sum(values) / len(values)
    return math.sqrt(max(sum(value * value for value in values) / len(values) - mean * mean, 0)) / mean if mean else 0.0


def length(given):
    """Input, Lengths: mean in milli-tokens, and variation."""
    if not isinstance(given, dict):
        return rounded(exact(given) * 1000), 1.0
    if "quantiles" not in given:
        return rounded(exact(given["mean"]) * 1000), float(given.get("cv", 1))
    points = [(exact(point["at"]), exact(point["tokens"])) for point in given["quantiles"]]
    points = [(Fraction(0), points[0][1]), *points, (Fraction(1), points[-1][1])]
    pieces = [(end - begin, a, b) for (begin, a), (end, b) in zip(points, points[1:])]
    mean = sum(share * (a + b) / 2 for share, a, b in pieces)
    square = sum(share * (a * a + a * b + b * b) / 3 for share, a, b in pieces)
    return rounded(mean * 1000), math.sqrt(square - mean * mean) / float(mean) if mean else 0.0


def micro_requests(rate):
    return rounded(exact(rate) * MILLION)


class Demand:
    """Input, Levels and Lengths."""

    def __init__(self, given, folder):
        self.arrival_cv = float(given.get("arrival_cv", 1))
        if "trace" in given:
            levels = self.of_trace(given, folder)
        else:
            self.prompt, _ = length(given["prompt_tokens"])
            self.answer, self.answer_cv = length(given["output_tokens"])
            levels = self.of_rates(given["rates"], folder) if "rates" in given else self.of_curve(given)
        # By rising rate, each once.
        self.levels = sorted(added(levels).items())
        self.duration = sum(duration for _, duration in self.levels)
        self.volume = sum(rate * duration for rate, duration in self.levels)

    @staticmethod
    def of_curve(given):
        curve = given.get("curve") or [{"for": "1h", "requests_per_second": given["requests_per_second"]}]
        return [(micro_requests(entry["requests_per_second"]), max(whole_seconds(entry["for"]), 1)) for entry in curve]

    @staticmethod
    def of_rates(given, folder):
        """The last window is as long as the one before it."""
        rows = Book.rows(folder, given["file"])
        starts = [exact(row["window_start_s"]) for row in rows]
        durations = [int(end - begin) for begin, end in zip(starts, starts[1:])]
        durations.append(durations[-1])
        scale = exact(given.get("scale", 1))
        return [(micro_requests(exact(row[given.get("column", "rps")]) * scale), each) for row, each in zip(rows, durations)]

    def of_trace(self, given, folder):
        """Windows begin with the first request; the last ends with the last, and is part of the one before it where it has less than half of its length."""
        trace = given["trace"]
        rows = Book.rows(folder, trace["file"])
        first = exact(rows[0]["arrival_s"])
        arrivals = [exact(row["arrival_s"]) - first for row in rows]
        prompts, answers = ([int(row[column]) for row in rows] for column in ("prompt_tokens", "output_tokens"))
        self.prompt, self.answer = rounded(1000 * sum(prompts), len(rows)), rounded(1000 * sum(answers), len(rows))
        self.answer_cv = variation(answers)
        if "arrival_cv" not in given:
            self.arrival_cv = variation([float(later - earlier) for earlier, later in zip(arrivals, arrivals[1:])])
        window = whole_seconds(trace.get("window", "10m"))
        counts = [0] * (int(arrivals[-1] // window) + 1)
        for arrival in arrivals:
            counts[int(arrival // window)] += 1
        durations = [window] * len(counts)
        durations[-1] = max(math.ceil(arrivals[-1] - window * (len(counts) - 1)), 1)
        if len(counts) > 1 and 2 * durations[-1] < window:
            counts[-2:], durations[-2:] = [sum(counts[-2:])], [sum(durations[-2:])]
        return [(rounded(count * MILLION, duration), duration) for count, duration in zip(counts, durations)]

    def requests(self, load=1000):
        """Options, Hosted: of a month."""
        return rounded(self.volume * MONTH_SECONDS * load, 10**9 * self.duration)


# From requests to machines


def spread(servers, busy, arrival_cv, service_cv):
    """How much longer waits are than with exponential arrivals and answers: Kimura's, with Cosmetatos' for constant answers."""
    use = busy / servers
    at_most = (servers - 1) / (servers + 1)
    f = min((1 - use) * (servers - 1) * (math.sqrt(4 + 5 * servers) - 2) / (16 * servers * use), at_most)
    constant = (1 + f) / 2
    return (arrival_cv**2 + service_cv**2) / (2 * service_cv**2 + (1 - service_cv**2) / constant)


class Cloud:
    """A cloud's machine, its price, and what a replica on it serves."""

    def __init__(self, name, scenario, demand, book, committed_gpus):
        given = scenario["clouds"][name] or {}
        profiles = scenario["model"]["profiles"]
        profile = next(each for each in profiles if each["gpu"].lower() == given.get("gpu", profiles[0]["gpu"]).lower())
        self.name, self.demand, self.known = name, demand, {}
        self.replica_gpus = profile["gpus"]
        self.cold_start = seconds(given.get("cold_start", "10m"))
        self.reserved = nano_usd(given["reserved_usd_per_gpu_hour"]) if "reserved_usd_per_gpu_hour" in given else None
        self.term_months = given.get("term_months", 12)
        self.why_not = None
        try:
            self.set_price(given, book.offer(name, given.get("region"), profile["gpu"], self.replica_gpus))
            self.committed = committed_gpus // self.gpus
            self.set_speed(profile["points"], scenario["slo"])
        except Unpriced as why:
            self.why_not = why

    def set_price(self, given, offer):
        """Input, Prices."""
        self.price = None
        if "usd_per_gpu_hour" in given:
            self.gpus = given.get("instance_gpus", offer.gpus if offer else self.replica_gpus)
            self.price = nano_usd(given["usd_per_gpu_hour"]) * self.gpus
        elif offer is None:
            raise Unpriced("no price")
        elif "instance_gpus" in given:
            self.gpus = given["instance_gpus"]
            self.price = offer.usd // offer.gpus * self.gpus
        else:
            self.gpus, self.price = offer.gpus, offer.usd
        least_gpus = given.get("min_gpus", offer.min_gpus if offer else self.gpus)
        self.least = ceil_div(least_gpus, self.gpus)

    def set_speed(self, points, slo):
        """From requests to machines: slots, service time, allowed wait and variation of the service."""
        points = sorted((point["concurrency"], exact(point["ttft_ms"]), exact(point["tpot_ms"])) for point in points)
        most_first, most_next = (1000 * seconds(slo[key]) for key in ("ttft_p95", "time_per_output_token_p95"))
        for slots in range(points[-1][0], 0, -1):
            first, following = self.times_at(points, slots)
            if first <= most_first and following <= most_next:
                break
        else:
            raise Unpriced("too slow")
        answer = self.demand.answer / 1000
        self.slots = slots
        self.service = (float(first) + float(following) * max(answer - 1, 0)) / 1000
        self.wait = float(most_first - first) / 1000
        self.service_cv = self.demand.answer_cv * float(following) * answer / 1000 / self.service

    @staticmethod
    def times_at(points, concurrency):
        """To the first token and for each after it, on straight lines between the points."""
        if concurrency <= points[0][0]:
            return points[0][1:]
        for (x, *low), (next_x, *high) in zip(points, points[1:]):
            if concurrency <= next_x:
                return [a + (b - a) * Fraction(concurrency - x, next_x - x) for a, b in zip(low, high)]
        raise AssertionError("within the last point")

    def late(self, busy, servers, blocked):
        """The share of requests that wait longer than allowed; `blocked` is Erlang's B."""
        if busy >= servers:
            return 1.0
        waits = servers * blocked / (servers - busy * (1 - blocked))
        k = spread(servers, busy, self.demand.arrival_cv, self.service_cv)
        if k == 0:
            return 0.0 if self.wait > 0 else waits
        return waits * math.exp(-(servers - busy) / self.service * self.wait / k)

    def fewest_replicas(self, rate, at_least):
        """N(λ), and no fewer than a lower rate needs."""
        if rate == 0:
            return 0
        busy = rate * self.service
        if busy > MOST_BUSY:
            raise Unpriced("too much at once")
        replicas = max(math.ceil(busy / self.slots), 1, at_least)
        blocked, counted = 1.0, 0
        while True:
            while counted < replicas * self.slots:
                counted += 1
                blocked = busy * blocked / (counted + busy * blocked)
            if self.late(busy, counted, blocked) <= MOST_LATE:
                return replicas
            replicas += 1

    def replicas(self, percent, load=1000):
        """Of each level, by rising rate, for a part of the load under a load factor."""
        if (percent, load) not in self.known:
            each, fewest = [], 0
            for rate, _ in self.demand.levels:
                fewest = self.fewest_replicas(rate * percent * load / 10**11, fewest)
                each.append(fewest)
            self.known[percent, load] = each
        return self.known[percent, load]

    def at_peak(self, percent, load=1000):
        return self.replicas(percent, load)[-1]

    def machines(self, replicas):
        """inst(N)."""
        if replicas == 0:
            return 0
        if self.replica_gpus <= self.gpus:
            return max(ceil_div(replicas, self.gpus // self.replica_gpus), self.least)
        return max(replicas * ceil_div(self.replica_gpus, self.gpus), self.least)

    def holds(self, machines):
        """Replicas that so many machines hold."""
        if self.replica_gpus <= self.gpus:
            return machines * (self.gpus // self.replica_gpus)
        return machines // ceil_div(self.replica_gpus, self.gpus)

    def to_pay(self, needed, there):
        """pay(n, h)."""
        return 0 if needed <= there else max(needed - there, self.least)


# Options


@dataclasses.dataclass(frozen=True)
class Factors:
    """Inputs that are off, in thousandths."""

    load: int = 1000
    price: int = 1000
    reserved: int = 1000
    egress: int = 1000
    people: int = 1000
    migration: int = 1000


AS_WRITTEN = Factors()


class Leg:
    """A part of the load: on demand at the peak in one cloud, or on a base there with bursts in `burst`."""

    def __init__(self, percent, cloud, burst=None):
        self.percent, self.cloud, self.burst = percent, cloud, burst
        self.base = None

    def clouds(self):
        return [self.cloud] if self.burst in (None, self.cloud) else [self.cloud, self.burst]

    def decide(self):
        """Options, A base: the size with the least sum, and the smallest of equals."""
        if self.burst is None:
            return
        cloud = self.cloud
        most = cloud.to_pay(cloud.machines(cloud.at_peak(self.percent)), cloud.committed)
        sizes = [0, *range(max(cloud.least, 1), most + 1)]
        self.base = min(sizes, key=lambda base: (self.reserved_cost(base) + self.burst_cost(base), base))

    def in_base(self, base):
        return self.cloud.holds(base + self.cloud.committed)

    def there_for_bursts(self):
        return 0 if self.burst is self.cloud else self.burst.committed

    def burst_machines(self, base, load):
        """To be paid at each level."""
        held, burst, there = self.in_base(base), self.burst, self.there_for_bursts()
        needs = zip(self.cloud.replicas(self.percent, load), burst.replicas(self.percent, load))
        return [0 if own <= held else burst.to_pay(burst.machines(ceil_div(other * (own - held), own)), there) for own, other in needs]

    def burst_cost(self, base, factors=AS_WRITTEN):
        durations = (duration for _, duration in self.cloud.demand.levels)
        machine_seconds = sum(number * duration for number, duration in zip(self.burst_machines(base, factors.load), durations))
        return rounded(times(self.burst.price, factors.price) * MONTH_HOURS * machine_seconds, self.cloud.demand.duration)

    def reserved_cost(self, base, factors=AS_WRITTEN):
        return times(self.cloud.reserved, factors.reserved) * self.cloud.gpus * base * MONTH_HOURS

    def base_share(self, load):
        """Egress: what the base serves, in millionths of all of the load."""
        held, demand, served = self.in_base(self.base), self.cloud.demand, Fraction(0)
        for needed, (rate, duration) in zip(self.cloud.replicas(self.percent, load), demand.levels):
            served += rate * duration * (1 if needed <= held else Fraction(held, needed))
        return rounded(MILLION * served / demand.volume) * self.percent // 100

    def month(self, factors):
        """(on demand, reserved, [(cloud, share of the load)], {cloud: machines held})."""
        cloud, whole = self.cloud, self.percent * MILLION // 100
        if self.burst is None:
            paid = cloud.to_pay(cloud.machines(cloud.at_peak(self.percent, factors.load)), cloud.committed)
            on_demand = times(cloud.price, factors.price) * paid * MONTH_HOURS
            return on_demand, 0, [(cloud.name, whole)], {cloud.name: paid + cloud.committed}
        share = self.base_share(factors.load)
        held = collections.Counter({cloud.name: self.base + cloud.committed})
        held[self.burst.name] += self.burst_machines(self.base, factors.load)[-1] + self.there_for_bursts()
        shares = [(cloud.name, share), (self.burst.name, whole - share)]
        return self.burst_cost(self.base, factors), self.reserved_cost(self.base, factors), shares, held

    def fractile(self):
        """Options, A base: the price of a reserved GPU over that of a burst's, and the share of the time that needs more than the base."""
        levels = zip(self.cloud.replicas(self.percent), self.cloud.demand.levels)
        above = sum(duration for needed, (_, duration) in levels if needed > self.in_base(self.base))
        return Fraction(self.cloud.reserved * self.burst.gpus, self.burst.price), Fraction(above, self.cloud.demand.duration)


@dataclasses.dataclass
class Option:
    """Options: what it is; `patterns` are the numbers of the article's that it follows."""

    id: str
    patterns: tuple = ()
    legs: list = dataclasses.field(default_factory=list)
    home: str = ""
    people: int = 0
    moves: bool = False
    hosted: str = None

    def clouds(self):
        """Of its legs and bursts, each once."""
        return list({cloud.name: cloud for leg in self.legs for cloud in leg.clouds()}.values())


LINES = ("on_demand", "reserved", "committed", "tokens", "egress", "weights", "other", "people")


class Month:
    """What a month costs, by line, with the edges of its egress and the machines that are held."""

    def __init__(self, lines, edges, weights_by, held):
        self.lines, self.edges, self.weights_by, self.held = lines, edges, weights_by, held
        self.total = sum(lines.values())

    def without_people(self):
        return self.total - self.lines["people"]


# Egress


class Network:
    """Egress: flows, meters and weights of a scenario."""

    def __init__(self, scenario, book):
        self.book, self.home = book, scenario["home"]
        self.clouds = scenario["clouds"]
        self.flows = [(flow["name"], flow["from"], flow["to"], to_bytes(flow["gb_per_month"])) for flow in scenario.get("egress", [])]
        weights = scenario.get("weights")
        if weights:
            self.weights = to_bytes(weights["gb"])
            self.pulls, self.releases = weights.get("pulls_per_month", 0), weights.get("releases_per_month", 1)
            self.storage = nano_usd(weights.get("storage_usd_per_gb_month", "0.023"))
        else:
            self.weights = None

    def tiers(self, cloud):
        """One meter for home and the cloud of its name."""
        for given in (self.clouds.get(cloud) or {}, self.home if cloud == self.home["cloud"] else {}):
            if "egress_usd_per_gb" in given:
                return [(None, nano_usd(given["egress_usd_per_gb"]))]
        if cloud == HOSTED:
            return [(None, 0)]
        found = self.book.egress_tiers(cloud)
        if found is None:
            raise Unpriced(f"no price of egress at {cloud}")
        return found

    def bill(self, meters):
        return sum(tiered(self.tiers(cloud), amount) for cloud, amount in meters.items() if amount)

    def sent(self, shares, home, factors):
        """{(flow, from, to): bytes} of all that leaves a cloud, in the order of the file."""
        sent = collections.Counter()
        for name, source, target, amount in self.flows:
            amount = times(times(amount, factors.load), factors.egress)
            if (source, target) == ("home", "internet"):
                sent[name, home, target] += amount
                continue
            for (cloud, _), part in zip(shares, split(amount, [share for _, share in shares])):
                if target == "internet":
                    sent[name, cloud, target] += part
                elif cloud != home:
                    sent[(name, home, cloud) if source == "home" else (name, cloud, home)] += part
        return {edge: amount for edge, amount in sent.items() if amount}

    def month(self, shares, home, factors):
        """(egress, weights, how weights are moved, {edge: (bytes, what it is said to cost)})."""
        sent = self.sent(shares, home, factors)
        meters = added((source, amount) for (_, source, _), amount in sent.items())
        bills = {cloud: self.bill({cloud: amount}) for cloud, amount in meters.items()}
        edges = {edge: (amount, rounded(bills[edge[1]] * amount, meters[edge[1]])) for edge, amount in sent.items()}
        weights, by = self.move_weights(shares, home, meters, sum(bills.values()))
        return sum(bills.values()), weights, by, edges

    def move_weights(self, shares, home, meters, bill):
        """The cheaper of one copy in each other cloud and a read at each start of a replica; copies where both are equal."""
        shares = [(cloud, share) for cloud, share in shares if share and cloud != HOSTED]
        others = {cloud for cloud, _ in shares} - {home}
        if self.weights is None or not others:
            return 0, ""
        parts = split(self.weights * self.pulls, [share for _, share in shares])
        read = sum(part for (cloud, _), part in zip(shares, parts) if cloud != home)
        copied = self.weights * self.releases * len(others)
        stored = rounded(self.storage * self.weights * len(others), GIGABYTE)
        pulls = self.bill(meters + collections.Counter({home: read})) - bill
        copies = self.bill(meters + collections.Counter({home: copied})) - bill + stored
        return (copies, "copies") if copies <= pulls else (pulls, "pulls")


# What follows from a month


@dataclasses.dataclass
class Figures:
    """An option's figures; those of today have neither survival nor cover."""

    option: Option
    month: Month
    once: int
    all_in: int
    p10: int
    p90: int
    liability: int
    rules: list
    gpus: dict
    reserved_gpus: dict
    fractiles: dict
    survives: dict
    cover: int
    break_even: dict
    saves: dict = dataclasses.field(default_factory=dict)
    payback: int = None

    @property
    def total(self):
        return self.month.total


@dataclasses.dataclass
class Verdict:
    worth_it: bool
    best: str
    challenger: str
    rules: list
    break_even: int


class Plan:
    """All figures of a scenario; `options` are by id, today first, and an option that cannot be priced is in `unpriced`, with the reason."""

    INPUTS = {
        "load": "load",
        "on-demand and token price": "price",
        "reserved price": "reserved",
        "egress": "egress",
        "people": "people",
        "migration": "migration",
    }
    LOOKED_AT = [10, 20, 30, 40, 50, 75, 100, 125, 150, 200, 250, 300, 400, 500, 600, 750, 1000, 1500, 2000, 2500, 3000, 3500]
    LEAST, MOST = 10, 5000

    def __init__(self, scenario, book, as_of, folder="."):
        self.scenario, self.book, self.as_of = scenario, book, as_of
        self.demand = Demand(scenario["demand"], folder)
        self.home = scenario["home"]["cloud"]
        self.today = scenario["today"]
        self.commitments = scenario.get("commitments", [])
        self.constraints = scenario.get("constraints", {})
        self.migration = scenario.get("migration", {})
        self.horizon = scenario.get("horizon_months", 12)
        self.network = Network(scenario, book)
        self.committed = sum(nano_usd(each["usd_per_gpu_hour"]) * each["gpus"] * MONTH_HOURS for each in self.commitments)
        self.other = sum(nano_usd(each["usd_per_month"]) for each in self.today.get("other", []))
        self.hosted = {name: self.token_prices(each) for name, each in scenario.get("hosted", {}).items()}
        there = added((each["cloud"], each["gpus"]) for each in self.commitments)
        self.clouds = {name: Cloud(name, scenario, self.demand, book, there[name]) for name in scenario["clouds"]}
        self.options, self.unpriced = {}, {}
        self.price_all()
        self.verdict = self.judge()

    def token_prices(self, given):
        if "usd_per_million_tokens" in given:
            return tuple(nano_usd(given["usd_per_million_tokens"][kind]) for kind in ("input", "output"))
        return self.book.token_prices(given["provider"], given["model"])

    def people(self, *patterns):
        """Options, People: what has to be run; `patterns` is what the scenario's keys are called."""
        given = self.scenario.get("people", {})
        usd = {"today": nano_usd(given.get("today", 0))}
        for key, otherwise in (("single", "today"), ("hosted", "single"), ("pattern1", "single"), ("pattern3", "single"), ("pattern2", "pattern1")):
            usd[key] = nano_usd(given[key]) if key in given else usd[otherwise]
        return max(sum(usd[pattern] for pattern in patterns) - usd["single"] * (len(patterns) - 1), 0)

    # Options

    def candidates(self):
        """Options: in the order of the table, clouds in the order of the file."""
        clouds, home, percent = list(self.clouds.values()), self.home, self.scenario.get("split_percent", 60)
        pairs = [(x, y) for number, x in enumerate(clouds) for y in clouds[number + 1 :]]
        for x in clouds:
            if x.name == home or self.scenario["home"].get("may_move"):
                yield Option(f"single-{x.name}", (), [Leg(100, x)], x.name, self.people("single"), moves=x.name != home)
        for x in clouds:
            if x.name != home:
                yield Option(f"pattern1-{x.name}", (1,), [Leg(100, x)], home, self.people("pattern1"))
        for x, y in pairs:
            yield Option(f"pattern2-{x.name}-{y.name}", (2,), [Leg(percent, x), Leg(100 - percent, y)], home, self.people("pattern2"))
        for x in clouds:
            for y in clouds if x.reserved is not None else []:
                name = x.name if x is y else f"{x.name}-{y.name}"
                if x.name == home:
                    yield Option(f"pattern3-{name}", (3,), [Leg(100, x, y)], home, self.people("pattern3"))
                else:
                    yield Option(f"pattern1+3-{name}", (1, 3), [Leg(100, x, y)], home, self.people("pattern1", "pattern3"))
        for x, y in pairs:
            if x.reserved is not None and y.reserved is not None:
                legs = [Leg(percent, x, x), Leg(100 - percent, y, y)]
                yield Option(f"pattern2+3-{x.name}-{y.name}", (2, 3), legs, home, self.people("pattern2", "pattern3"))
        for name in self.hosted:
            yield Option(f"hosted-{name}", (), [], home, self.people("hosted"), hosted=name)

    def tokens(self, name, factors=AS_WRITTEN):
        """Options, Hosted."""
        requests = self.demand.requests(factors.load)
        kinds = zip(self.hosted[name], (self.demand.prompt, self.demand.answer))
        return sum(rounded(times(price, factors.price) * rounded(requests * milli_tokens, 1000), MILLION) for price, milli_tokens in kinds)

    def month(self, option, factors=AS_WRITTEN):
        """The lines of an option, with bases as they were decided."""
        if option.id == "today":
            return self.month_today(factors)
        on_demand = reserved = 0
        shares, held = [(HOSTED, MILLION)] if option.hosted else [], collections.Counter()
        for leg in option.legs:
            leg_on_demand, leg_reserved, leg_shares, leg_held = leg.month(factors)
            on_demand, reserved, shares = on_demand + leg_on_demand, reserved + leg_reserved, shares + leg_shares
            held.update(leg_held)
        return self.lines(option, factors, on_demand, reserved, shares, held)

    def lines(self, option, factors, on_demand, reserved, shares, held):
        egress, weights, weights_by, edges = self.network.month(shares, option.home, factors)
        tokens = self.tokens(option.hosted, factors) if option.hosted else 0
        amounts = (on_demand, reserved, self.committed, tokens, egress, weights, self.other, times(option.people, factors.people))
        return Month(dict(zip(LINES, amounts)), edges, weights_by, held)

    def pools(self, factors=AS_WRITTEN):
        """Today's at their own price, or the cloud's."""
        total = 0
        for pool in self.today.get("pools", []):
            cloud = self.clouds[pool["cloud"]]
            if "usd_per_gpu_hour" in pool:
                price = nano_usd(pool["usd_per_gpu_hour"])
            elif cloud.price is not None:
                price = cloud.price // cloud.gpus
            else:
                raise Unpriced(f"no price of today's GPUs at {cloud.name}")
            total += times(price, factors.price) * pool["gpus"] * MONTH_HOURS
        return total

    def gpus_today(self):
        """[(cloud, GPUs)]: pools in the order of the file, then commitments."""
        return [(each["cloud"], each["gpus"]) for each in [*self.today.get("pools", []), *self.commitments]]

    def month_today(self, factors):
        """Options, Today."""
        gpus, option = self.gpus_today(), self.as_option()
        if option.hosted:
            shares = [(HOSTED, MILLION)]
        else:
            whole, so_far, shares = sum(number for _, number in gpus), 0, []
            for cloud, number in gpus:
                shares.append((cloud, MILLION * (so_far + number) // whole - MILLION * so_far // whole))
                so_far += number
        return self.lines(option, factors, self.pools(factors), 0, shares, {})

    def as_option(self):
        return Option("today", home=self.home, people=self.people("today"), hosted=self.today.get("hosted"))

    # What follows from a month

    def once(self, option, factors=AS_WRITTEN):
        """To get there."""
        there = {cloud for cloud, _ in self.gpus_today()}
        stays = {cloud.name for cloud in option.clouds()} <= there if option.legs else option.hosted == self.today.get("hosted")
        if option.id == "today" or (stays and not option.moves):
            return 0
        cost = times(nano_usd(self.migration.get("usd", 0)), factors.migration)
        cost += rounded(self.pools() * whole_seconds(self.migration.get("overlap", "0s")), MONTH_SECONDS)
        data = to_bytes(exact(self.constraints.get("data_gravity_tb", 0)) * 1000)
        return cost + (self.network.bill({self.home: data}) if option.moves else 0)

    def all_in(self, option, factors=AS_WRITTEN):
        return self.month(option, factors).total + rounded(self.once(option, factors), self.horizon)

    def band(self, option):
        """p10 and p90 by Swanson's rule."""
        uncertainty = self.scenario.get("uncertainty", {})
        prices, loads = (
            [(1000 - 10 * percent, 30), (1000, 40), (1000 + 10 * percent, 30)]
            for percent in (uncertainty.get(key, 20) for key in ("price_percent", "load_percent"))
        )
        totals = sorted(
            (self.month(option, Factors(load=load, price=price)).total, price_weight * load_weight)
            for price, price_weight in prices
            for load, load_weight in loads
        )
        reached, below = {}, 0
        for total, weight in totals:
            below += weight
            for percent in (10, 90):
                if below >= percent * 100:
                    reached.setdefault(percent, total)
        return reached[10], reached[90]

    def owed(self):
        """Remaining liability of commitments, the day of the plan and the last day counted."""
        total = 0
        for each in self.commitments:
            until = each["until"] if isinstance(each["until"], datetime.date) else datetime.date.fromisoformat(each["until"])
            total += nano_usd(each["usd_per_gpu_hour"]) * each["gpus"] * 24 * max((until - self.as_of).days + 1, 0)
        return total

    def survival(self, option, held):
        """Without each cloud, what the others carry of the peak."""
        left = {}
        for lost in option.clouds():
            others = (Fraction(cloud.holds(held[cloud.name]), cloud.at_peak(100)) for cloud in option.clouds() if cloud is not lost)
            left[lost.name] = min(sum(others), Fraction(1))
        return left

    def full_cover(self, option, held):
        """What it costs to carry all of the peak after the loss of any cloud."""
        clouds = option.clouds()
        if len(clouds) > 1:
            return sum(self.cover_in(cloud, held[cloud.name]) for cloud in clouds)
        others = []
        for cloud in self.clouds.values():
            try:
                if cloud not in clouds and not cloud.why_not:
                    others.append(self.cover_in(cloud, cloud.committed))
            except Unpriced:
                continue
        return min(others) if clouds and others else None

    @staticmethod
    def cover_in(cloud, held):
        return cloud.to_pay(cloud.machines(cloud.at_peak(100)), held) * cloud.price * MONTH_HOURS

    def hosted_break_even(self, option, month):
        """{option: requests a second at which its tokens would cost what GPUs, egress and weights of this one do}."""
        rates = {}
        spent = sum(month.lines[line] for line in ("on_demand", "reserved", "committed", "egress", "weights"))
        for name in [] if option.hosted and option.id != "today" else self.hosted:
            tokens, requests = self.tokens(name), self.demand.requests()
            if tokens and requests:
                rates[f"hosted-{name}"] = Fraction(spent * requests, tokens * MONTH_SECONDS)
        return rates

    def figures(self, option):
        for cloud in option.clouds():
            if cloud.why_not:
                raise cloud.why_not
        for leg in option.legs:
            leg.decide()
        month, once, owed = self.month(option), self.once(option), self.owed()
        bases = [leg for leg in option.legs if leg.burst is not None]
        liability = owed + sum(leg.reserved_cost(leg.base) * leg.cloud.term_months for leg in bases)
        cover = self.full_cover(option, month.held)
        if max(month.total, liability, cover or 0) >= MOST_MONEY:
            raise Unpriced("a unit is wrong")
        gpus = {cloud.name: month.held[cloud.name] * cloud.gpus for cloud in option.clouds() if month.held[cloud.name]}
        if option.id == "today":
            gpus = added(self.gpus_today())
        p10, p90 = self.band(option)
        return Figures(
            option=option,
            month=month,
            once=once,
            all_in=month.total + rounded(once, self.horizon),
            p10=p10,
            p90=p90,
            liability=liability,
            rules=self.barred_by(option),
            gpus=gpus,
            reserved_gpus={leg.cloud.name: leg.base * leg.cloud.gpus for leg in bases},
            fractiles={leg.cloud.name: leg.fractile() for leg in bases},
            survives=self.survival(option, month.held),
            cover=cover,
            break_even=self.hosted_break_even(option, month),
        )

    def price_all(self):
        for option in [self.as_option(), *self.candidates()]:
            try:
                self.options[option.id] = self.figures(option)
            except Unpriced as why:
                self.unpriced[option.id] = str(why)
        others = [id for id in self.options if id == "today" or id.startswith("single-")]
        for id, figures in self.options.items():
            figures.saves = {other: self.options[other].total - figures.total for other in others if other != id}
            saved = figures.saves.get("today", 0)
            figures.payback = ceil_div(figures.once, saved) if saved > 0 else None

    # Egress: the four ways to pay less

    def ways_to_pay_less(self, id):
        """{edge: {way: amount}} of edges that cost something.

        Nano-USD that are saved, or that staying in one cloud costs; of an interconnect the gigabytes a month that it pays from, or None.
        """
        figures, single = self.options[id], self.options.get(f"single-{self.home}")
        flows = {flow["name"]: flow for flow in self.scenario.get("egress", [])}
        line, found = self.scenario.get("interconnect"), {}
        for edge, (amount, cost) in figures.month.edges.items():
            if cost == 0:
                continue
            name, source, target = edge
            ways = found[edge] = {}
            if target != "internet":
                if HOSTED not in (source, target):
                    ways["co-locate"] = cost
                if "unique_gb_per_month" in flows[name]:
                    unique = to_bytes(flows[name]["unique_gb_per_month"])
                    ways["replicate"] = max(cost - rounded(cost * unique, amount), 0)
                if line and source == figures.option.home:
                    cheaper = Fraction(cost * GIGABYTE, amount) - nano_usd(line["usd_per_gb"])
                    ways["interconnect"] = rounded(nano_usd(line["usd_per_month"]) / cheaper) if cheaper > 0 else None
            if single:
                ways["stay single-cloud"] = single.total - figures.total
        return found

    # Verdict

    def barred_by(self, option):
        """The rules that bar an option."""
        clouds, limits, rules = option.clouds(), self.constraints, []
        names = {cloud.name for cloud in clouds}
        if option.id == "today":
            return rules
        if "only_clouds" in limits and (option.hosted or names - set(limits["only_clouds"])):
            rules.append("region_lock_in")
        if "data_gravity_tb" in limits and exact(limits["data_gravity_tb"]) >= exact(limits.get("data_gravity_limit_tb", 1000)):
            if option.moves or names - {self.home}:
                rules.append("data_gravity")
        if not limits.get("platform_team", True) and (option.patterns and option.patterns != (3,) or len(clouds) > 1):
            rules.append("no_platform_team")
        if "cold_start_limit" in limits:
            if any(leg.burst and leg.burst.cold_start > seconds(limits["cold_start_limit"]) for leg in option.legs):
                rules.append("cold_start")
        return rules

    def judge(self):
        today = self.options.get("today")
        if today is None:
            return None
        priced = [figures for id, figures in self.options.items() if id != "today"]
        free = [figures for figures in priced if not figures.rules]
        best = self.cheapest(free)
        worth_it = best is not None and best.all_in < today.total
        limit = min(figures.all_in for figures in (today, best) if figures)
        rules = {rule for figures in priced if figures.all_in < limit for rule in figures.rules}
        savers = [figures for figures in free if figures.month.without_people() < today.month.without_people()]
        challenger = best or self.cheapest(priced)
        if not worth_it and savers:
            rules.add("small_spend")
            challenger = self.cheapest(savers)
        ids = [figures and figures.option.id for figures in (best, challenger)]
        return Verdict(worth_it, *ids, sorted(rules), challenger and self.break_even_spend(challenger, today))

    @staticmethod
    def cheapest(several):
        """By all-in; of equals the one with GPUs in fewer clouds, and then the first."""
        return min(several, key=lambda figures: (figures.all_in, len(figures.gpus)), default=None)

    def break_even_spend(self, figures, today):
        spend = today.month.without_people()
        saved = spend - figures.month.without_people()
        if saved <= 0:
            return None
        overhead = figures.month.lines["people"] + rounded(figures.once, self.horizon) - today.month.lines["people"]
        return max(rounded(overhead * spend, saved), 0)

    # What follows from a month: what would have to be wrong

    def first_values(self, differs):
        """{input: {"below": F, "above": F}} in thousandths, of the first value on either side at which `differs` holds."""
        found = {}
        for name, field in self.INPUTS.items():
            for side, end, sign in (("below", self.LEAST, -1), ("above", self.MOST, 1)):
                values = [1000 + sign * step for step in self.LOOKED_AT if abs(1000 - end) > step] + [end]
                value = self.first_value(values, lambda value: differs(Factors(**{field: value})))
                if value is not None:
                    found.setdefault(name, {})[side] = value
        return found

    @staticmethod
    def first_value(values, differs):
        """The first of the values that differs, and by halving before it."""
        same = 1000
        for value in values:
            if differs(value):
                break
            same = value
        else:
            return None
        while abs(value - same) > 1:
            middle = (value + same) // 2
            value, same = (middle, same) if differs(middle) else (value, middle)
        return value

    def wrong_if(self, id):
        """Wrong by more than 10 % if; also where the option cannot be priced any more."""
        figures = self.options[id]

        def differs(factors):
            try:
                return 10 * abs(self.month(figures.option, factors).total - figures.total) > figures.total
            except Unpriced:
                return True

        return self.first_values(differs)

    def turns_if(self, id):
        """The answer turns if; an option that cannot be priced any more beats nothing."""
        option, today = self.options[id].option, self.options["today"].option
        beats = self.options[id].all_in < self.options["today"].total

        def differs(factors):
            try:
                return (self.all_in(option, factors) < self.month(today, factors).total) != beats
            except Unpriced:
                return beats

        return self.first_values(differs)

    # Options, Today: the invoice

    def invoice(self):
        """{kind: (computed, invoiced)}, or None without one."""
        given = self.today.get("invoice", {}).get("lines")
        if given is None:
            return None
        lines, invoiced = self.options["today"].month.lines, added((each["kind"], nano_usd(each["usd"])) for each in given)
        kinds = {"gpu": ("on_demand", "committed"), "tokens": ("tokens",), "egress": ("egress", "weights"), "storage": (), "other": ("other",)}
        return {kind: (sum(lines[line] for line in of), invoiced[kind]) for kind, of in kinds.items()}


def load(path):
    """A scenario, JSON or YAML."""
    text = pathlib.Path(path).read_text()
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        import yaml

        return yaml.safe_load(text)


def usd(nano):
    return "-" if nano is None else f"{cents(nano) / 100:,.2f}"


def print_table(plan):
    columns = "{:32}{:>16}{:>16}{:>16}{:>16}{:>16}{:>9}{:>8}  {}"
    print(columns.format("option", "a month", "all in", "saves", "p10", "p90", "survives", "payback", "GPUs; rules"))
    for id, each in sorted(plan.options.items(), key=lambda item: (item[0] != "today", item[1].all_in)):
        survives = f"{100 * float(min(each.survives.values())):.0f} %" if each.survives else "-"
        payback = "-" if each.payback is None else f"{each.payback} mo"
        notes = "; ".join([", ".join(f"{cloud} {gpus}" for cloud, gpus in sorted(each.gpus.items())), *each.rules])
        money = [usd(amount) for amount in (each.total, each.all_in, each.saves.get("today"), each.p10, each.p90)]
        print(columns.format(id, *money, survives, payback, notes))
    for id, why in plan.unpriced.items():
        print(f"{id:32}{'-':>16}  {why}")


def print_verdict(plan):
    verdict = plan.verdict
    print("\nworth it:" if verdict.worth_it else "\nnot worth it:", verdict.challenger or "nothing can be priced and is allowed", *verdict.rules)
    if verdict.challenger is None:
        return
    print(f"{verdict.challenger} pays from a spend of", usd(verdict.break_even))
    for title, look in (("wrong by more than 10 % if", plan.wrong_if), ("the answer turns if", plan.turns_if)):
        for name, sides in look(verdict.challenger).items():
            print(f"{title} {name} is", " or ".join(f"{value / 1000:.3f}" for value in sides.values()), "times as much")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", type=pathlib.Path)
    parser.add_argument("--as-of", type=datetime.date.fromisoformat, default=datetime.date.today())
    parser.add_argument("--data", type=pathlib.Path, default=DATA, help="the folder of the price book")
    args = parser.parse_args()
    plan = Plan(load(args.scenario), Book(args.data), args.as_of, args.scenario.parent)
    print_table(plan)
    if plan.verdict:
        print_verdict(plan)


if __name__ == "__main__":
    main()
