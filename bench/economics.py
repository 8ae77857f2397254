#!/usr/bin/env python3
"""The planner's arithmetic a second time, written from docs/economics.md and not from the Rust.

Only the standard library is used, and money is whole nano-USD as there, so that the two can be compared to the cent:
tests/e2e/economics.py makes up scenarios and does so. By hand, for a scenario in JSON (which is YAML too):

    bench/economics.py scenario.json 2026-11-30
"""

import csv
import datetime
import json
import math
import pathlib
import sys
from fractions import Fraction

DATA = pathlib.Path(__file__).resolve().parent.parent / "crates/core/data"
HOURS = 730
SECONDS = HOURS * 3600
MILLION = 10**6
NANO = 10**9


def nearest(x):
    """Half upwards, of what is not negative."""
    return math.floor(Fraction(x) + Fraction(1, 2))


def nano(usd):
    return round(usd * 1e9)


def cents(amount):
    sign = -1 if amount < 0 else 1
    return sign * nearest(Fraction(abs(amount), 10**7))


def seconds(text):
    for unit, size in (("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600), ("d", 86400)):
        if text.endswith(unit):
            number = text[: -len(unit)]
            if number.replace(".", "").isdigit():
                return float(number) * size
    raise ValueError(text)


def split(whole, shares):
    parts, before, given = [], 0, 0
    for share in shares:
        before += share
        up_to = whole * before // MILLION
        parts.append(up_to - given)
        given = up_to
    return parts


# Prices


def tiers_of(cloud, region):
    """(from GB, to GB or None, nano-USD for a GB) of what leaves a cloud for the internet."""
    tables = {}
    with open(DATA / "egress_prices.csv", newline="") as file:
        for row in csv.DictReader(file):
            if row["provider"] == cloud and row["path"] in ("internet", "internet-premium"):
                end = int(row["up_to_gb"]) if row["up_to_gb"] else None
                tables.setdefault(row["region"], []).append((int(row["from_gb"]), end, nano(float(row["usd_per_gb"]))))
    return tables.get(region) or next(iter(tables.values()), [])


def egress(tiers, amount):
    total = 0
    for i, (start, end, price) in enumerate(tiers):
        top = amount if end is None or i == len(tiers) - 1 else min(amount, end * NANO)
        total += max(0, top - start * NANO) * price
    return nearest(Fraction(total, NANO))


def offer_of(cloud, gpu, region, replica):
    """(GPUs of a machine, least GPUs, nano-USD of a machine for an hour)."""
    best = None
    with open(DATA / "gpu_offers.csv", newline="") as file:
        for row in csv.DictReader(file):
            if row["provider"] != cloud or row["gpu"].lower() != gpu.lower():
                continue
            if region is not None and row["region"] not in ("any", region):
                continue
            if row["tier"] not in ("on-demand", "secure", "production", "community"):
                continue
            if row["provider"] in ("coreweave-classic", "modal"):
                continue
            gpus, price = int(row["gpus"]), nano(float(row["usd_per_hour"]))
            rank = (gpus < replica, row["tier"] == "community", price // gpus, gpus, row["instance_type"], row["region"])
            if best is None or rank < best[0]:
                best = (rank, (gpus, int(row["min_gpus"]), price))
    return best and best[1]


class Cloud:
    def __init__(self, name, raw, profiles):
        self.name = name
        gpu = raw.get("gpu", profiles[0]["gpu"])
        self.profile = next(i for i, p in enumerate(profiles) if p["gpu"].lower() == gpu.lower())
        self.q = profiles[self.profile]["gpus"]
        listed = offer_of(name, gpu, raw.get("region"), self.q)
        self.g = raw.get("instance_gpus") or (listed[0] if listed else self.q)
        self.m = raw.get("min_gpus") or (listed[1] if listed else self.g)
        if "usd_per_gpu_hour" in raw:
            self.price = nano(raw["usd_per_gpu_hour"]) * self.g
        elif self.g == listed[0]:
            self.price = listed[2]
        else:
            self.price = listed[2] // listed[0] * self.g
        reserved = raw.get("reserved_usd_per_gpu_hour")
        self.reserved = None if reserved is None else nano(reserved)
        self.term = raw.get("term_months", 12)
        self.cold = int(seconds(raw.get("cold_start", "10m")))
        own = raw.get("egress_usd_per_gb")
        self.tiers = tiers_of(name, raw.get("region")) if own is None else [(0, None, nano(own))]

    def fewest(self):
        return -(-self.m // self.g)

    def instances(self, replicas):
        if replicas == 0:
            return 0
        if self.q <= self.g:
            bare = -(-replicas // (self.g // self.q))
        else:
            bare = replicas * -(-self.q // self.g)
        return max(bare, self.fewest())

    def replicas(self, machines):
        if self.q <= self.g:
            return machines * (self.g // self.q)
        return machines // -(-self.q // self.g)

    def pay(self, needed, there):
        return 0 if needed <= there else max(needed - there, self.fewest())


# Requests to replicas


class Fit:
    def __init__(self, profile, demand, ttft_slo, tpot_slo):
        self.slots = None
        points = [(p["concurrency"], p["ttft_ms"], p["tpot_ms"]) for p in profile["points"]]
        for c in range(points[-1][0], 0, -1):
            ttft, tpot = self.at(points, c)
            if ttft <= ttft_slo and tpot <= tpot_slo:
                self.slots = c
                break
        if self.slots is None:
            return
        out = demand.output / 1000
        self.service = (ttft + tpot * max(out - 1, 0)) / 1000
        self.wait = (ttft_slo - ttft) / 1000
        self.arrivals = demand.arrival_cv**2
        self.answers = (demand.output_cv * tpot * out / 1000 / self.service) ** 2

    @staticmethod
    def at(points, c):
        if c <= points[0][0]:
            return points[0][1:]
        for (ca, ta, pa), (cb, tb, pb) in zip(points, points[1:]):
            if c == cb:
                return tb, pb
            if ca < c < cb:
                part = (c - ca) / (cb - ca)
                return ta + (tb - ta) * part, pa + (pb - pa) * part
        return points[-1][1:]

    def late(self, busy, servers):
        if busy >= servers:
            return 1.0
        blocked = 1.0
        for i in range(1, servers + 1):
            blocked = busy * blocked / (i + busy * blocked)
        waits = servers * blocked / (servers - busy * (1 - blocked))
        load = max(busy / servers, 1e-9)
        few = (1 - load) * (servers - 1) * (math.sqrt(4 + 5 * servers) - 2) / (16 * servers * load)
        constant = (1 + min(few, (servers - 1) / (servers + 1))) / 2
        spread = (self.arrivals + self.answers) / (2 * self.answers + (1 - self.answers) / constant)
        return waits * math.exp(-(servers - busy) / self.service * self.wait / max(spread, 1e-9))

    def need(self, rates):
        """Replicas for each of rising rates; None where that is no fleet."""
        found, least = [], 0
        for rate in rates:
            if rate > 0:
                busy = rate * self.service
                start = math.ceil(busy / self.slots)
                if start * self.slots > 200_000:
                    return None
                n = max(start, least, 1)
                while self.late(busy, n * self.slots) > 0.05:
                    n += 1
                least = n
            else:
                least = 0
            found.append(least)
        return found


class Demand:
    def __init__(self, raw):
        if "requests_per_second" in raw:
            levels = [(round(raw["requests_per_second"] * 1e6), 3600)]
        else:
            levels = [(round(one["requests_per_second"] * 1e6), int(seconds(one["for"]))) for one in raw["curve"]]
        merged = {}
        for rate, length in levels:
            merged[rate] = merged.get(rate, 0) + length
        self.levels = sorted(merged.items())
        self.length = sum(merged.values())
        self.prompt = round(self.tokens(raw["prompt_tokens"])[0] * 1000)
        mean, self.output_cv = self.tokens(raw["output_tokens"])
        self.output = round(mean * 1000)
        self.arrival_cv = raw.get("arrival_cv", 1)

    @staticmethod
    def tokens(raw):
        if not isinstance(raw, dict):
            return raw, 1
        if "mean" in raw:
            return raw["mean"], raw.get("cv", 1)
        points = [(one["at"], one["tokens"]) for one in raw["quantiles"]]
        points = [(0, points[0][1])] + points + [(1, points[-1][1])]
        mean = square = 0
        for (qa, a), (qb, b) in zip(points, points[1:]):
            mean += (qb - qa) * (a + b) / 2
            square += (qb - qa) * (a * a + a * b + b * b) / 3
        return mean, math.sqrt(max(square - mean * mean, 0)) / mean


NORMAL = {"load": 1000, "price": 1000}


class Plan:
    def __init__(self, raw, today):
        self.raw = raw
        self.demand = Demand(raw["demand"])
        self.profiles = raw["model"]["profiles"]
        self.clouds = [Cloud(name, one or {}, self.profiles) for name, one in raw["clouds"].items()]
        slo = raw["slo"]
        ttft, tpot = seconds(slo["ttft_p95"]) * 1e3, seconds(slo["time_per_output_token_p95"]) * 1e3
        self.fits = [Fit(profile, self.demand, ttft, tpot) for profile in self.profiles]
        home = raw["home"]
        self.home = home["cloud"]
        own = home.get("egress_usd_per_gb", (raw["clouds"].get(self.home) or {}).get("egress_usd_per_gb"))
        self.home_tiers = tiers_of(self.home, home.get("region")) if own is None else [(0, None, nano(own))]
        for cloud in self.clouds:
            if cloud.name == self.home:
                cloud.tiers = self.home_tiers
        self.split = raw.get("split_percent", 60)
        self.horizon = raw.get("horizon_months", 12)
        self.today = raw["today"]
        self.commitments = raw.get("commitments", [])
        self.hosted = {
            name: tuple(nano(one["usd_per_million_tokens"][way]) for way in ("input", "output"))
            for name, one in raw.get("hosted", {}).items()
        }
        people = raw.get("people", {})
        now = people.get("today", 0)
        single = people.get("single", now)
        first = people.get("pattern1", single)
        self.people = {
            "today": now,
            "single": single,
            "hosted": people.get("hosted", single),
            "pattern1": first,
            "pattern2": people.get("pattern2", first),
            "pattern3": people.get("pattern3", single),
        }
        self.people = {name: nano(usd) for name, usd in self.people.items()}
        both = lambda a, b: max(0, self.people[a] + self.people[b] - self.people["single"])
        self.people["pattern1+3"] = both("pattern1", "pattern3")
        self.people["pattern2+3"] = both("pattern2", "pattern3")
        self.day = today
        self.needs = {}

    # What could be run: (id, kind, legs, home moves to, hosted); a leg is (cloud, percent, burst cloud or None)

    def designs(self):
        n = range(len(self.clouds))
        name = [cloud.name for cloud in self.clouds]
        pairs = [(a, b) for a in n for b in n if a < b]
        for a in n:
            if name[a] == self.home:
                yield f"single-{name[a]}", "single", [(a, 100, None)], None, None
            elif self.raw["home"].get("may_move"):
                yield f"single-{name[a]}", "single", [(a, 100, None)], a, None
        for a in n:
            if name[a] != self.home:
                yield f"pattern1-{name[a]}", "pattern1", [(a, 100, None)], None, None
        for a, b in pairs:
            legs = [(a, self.split, None), (b, 100 - self.split, None)]
            yield f"pattern2-{name[a]}-{name[b]}", "pattern2", legs, None, None
        for a in n:
            for b in n:
                legs = [(a, 100, b)]
                kind = "pattern3" if name[a] == self.home else "pattern1+3"
                yield f"{kind}-{name[a]}" + (f"-{name[b]}" if a != b else ""), kind, legs, None, None
        for a, b in pairs:
            legs = [(a, self.split, a), (b, 100 - self.split, b)]
            yield f"pattern2+3-{name[a]}-{name[b]}", "pattern2+3", legs, None, None
        for one in self.hosted:
            yield f"hosted-{one}", "hosted", [], None, one

    def need(self, cloud, percent, load):
        key = (self.clouds[cloud].profile, percent, load)
        if key not in self.needs:
            fit = self.fits[key[0]]
            rates = [(rate * percent * load) / 1e11 for rate, _ in self.demand.levels]
            self.needs[key] = fit.need(rates) if fit.slots else None
        return self.needs[key]

    def committed(self, cloud):
        own = sum(one["gpus"] for one in self.commitments if one["cloud"] == self.clouds[cloud].name)
        return own // self.clouds[cloud].g

    def requests(self, load):
        asked = sum(rate * length for rate, length in self.demand.levels)
        return nearest(Fraction(asked * SECONDS * load, 10**9 * self.demand.length))

    def tokens(self, name, factors):
        requests = self.requests(factors["load"])
        total = 0
        for price, milli in zip(self.hosted[name], (self.demand.prompt, self.demand.output)):
            price = nearest(Fraction(price * factors["price"], 1000))
            count = nearest(Fraction(requests * milli, 1000))
            total += nearest(Fraction(price * count, MILLION))
        return total

    def evaluate(self, design, factors=NORMAL, bases=None):
        """The lines of an option's month, or None where it cannot be run."""
        _, kind, legs, moves, hosted = design
        load = factors["load"]
        price = [nearest(Fraction(cloud.price * factors["price"], 1000)) for cloud in self.clouds]
        out = dict(on_demand=0, reserved=0, committed=0, tokens=0, egress=0, weights=0, other=0, people=0)
        liability, held, shares, chosen = 0, {}, [], []
        if kind == "today":
            for pool in self.today.get("pools", []):
                each = nearest(Fraction(self.pool_price(pool) * factors["price"], 1000))
                out["on_demand"] += each * pool["gpus"] * HOURS
            if "hosted" in self.today:
                out["tokens"] = self.tokens(self.today["hosted"], factors)
            shares = self.shares_today()
        elif kind == "hosted":
            out["tokens"] = self.tokens(hosted, factors)
        for leg, (a, percent, b) in enumerate(legs):
            cloud = self.clouds[a]
            need = self.need(a, percent, load)
            if need is None:
                return None
            if b is None:
                there = self.committed(a)
                n = cloud.pay(cloud.instances(need[-1]), there)
                out["on_demand"] += price[a] * n * HOURS
                held[a] = held.get(a, 0) + n + there
                shares.append((a, percent * 10_000))
                continue
            other = self.need(b, percent, load)
            if cloud.reserved is None or other is None:
                return None
            base, follow = self.base(a, b, need, other, price[b], bases[leg] if bases else None)
            chosen.append(base)
            out["reserved"] += follow[0]
            out["on_demand"] += follow[1]
            liability += follow[0] * cloud.term
            held[a] = held.get(a, 0) + base + self.committed(a)
            there = 0 if a == b else self.committed(b)
            if follow[2] + there:
                held[b] = held.get(b, 0) + follow[2] + there
            if a == b:
                shares.append((a, percent * 10_000))
            else:
                part = self.in_base(a, need, base) * percent // 100
                shares += [(a, part), (b, percent * 10_000 - part)]
        home, home_tiers = self.home, self.home_tiers
        if moves is not None:
            home, home_tiers = self.clouds[moves].name, self.clouds[moves].tiers
        elsewhere = kind == "hosted" or (kind == "today" and "hosted" in self.today)
        self.traffic(out, home, home_tiers, shares, elsewhere, load)
        for one in self.commitments:
            out["committed"] += nano(one["usd_per_gpu_hour"]) * one["gpus"] * HOURS
            days = (datetime.date.fromisoformat(one["until"]) - self.day).days + 1
            liability += nano(one["usd_per_gpu_hour"]) * one["gpus"] * 24 * days
        out["other"] = sum(nano(one["usd_per_month"]) for one in self.today.get("other", []))
        out["people"] = self.people[kind]
        out["total"] = sum(out.values())
        once = 0 if self.is_there(design) else self.once(moves)
        out.update(one_time=once, liability=liability, bases=chosen, places=sum(n > 0 for n in held.values()))
        out["all_in"] = out["total"] + nearest(Fraction(once, self.horizon))
        if legs:
            used = sorted({c for a, _, b in legs for c in (a, b) if c is not None})
            self.survival(out, used, held, load, price)
        return out

    def is_there(self, design):
        """Whether it takes nothing to get there."""
        _, kind, legs, moves, hosted = design
        if kind == "hosted":
            return hosted == self.today.get("hosted")
        run = {one["cloud"] for one in self.today.get("pools", []) + self.commitments}
        used = {self.clouds[c].name for a, _, b in legs for c in (a, b) if c is not None}
        return kind == "today" or moves is None and used <= run

    def pool_price(self, pool):
        if "usd_per_gpu_hour" in pool:
            return nano(pool["usd_per_gpu_hour"])
        cloud = next(cloud for cloud in self.clouds if cloud.name == pool["cloud"])
        return cloud.price // cloud.g

    def shares_today(self):
        index = {cloud.name: i for i, cloud in enumerate(self.clouds)}
        parts = [(index[one["cloud"]], one["gpus"]) for one in self.today.get("pools", []) + self.commitments]
        total, before, given, shares = sum(n for _, n in parts), 0, 0, []
        for cloud, n in parts:
            before += n
            up_to = before * MILLION // total
            shares.append((cloud, up_to - given))
            given = up_to
        return shares

    def base(self, a, b, need, other, price, fixed):
        cloud, burst = self.clouds[a], self.clouds[b]
        there = 0 if a == b else self.committed(b)

        def month(base):
            inside = cloud.replicas(base + self.committed(a))
            machine_seconds, peak = 0, 0
            for (_, length), own, theirs in zip(self.demand.levels, need, other):
                n = 0
                if own > inside:
                    replicas = -(-theirs * (own - inside) // own)
                    n = burst.pay(burst.instances(replicas), there)
                machine_seconds += n * length
                peak = max(peak, n)
            reserved = cloud.reserved * cloud.g * base * HOURS
            return reserved, nearest(Fraction(price * HOURS * machine_seconds, self.demand.length)), peak

        if fixed is not None:
            return fixed, month(fixed)
        most = cloud.pay(cloud.instances(need[-1]), self.committed(a))
        sizes = [0] + list(range(max(cloud.fewest(), 1), most + 1))
        best = min(sizes, key=lambda size: (sum(month(size)[:2]), size))
        return best, month(best)

    def in_base(self, a, need, base):
        inside = self.clouds[a].replicas(base + self.committed(a))
        served = asked = 0.0
        for (rate, length), own in zip(self.demand.levels, need):
            asked += float(rate) * length
            served += float(rate) * length * (1 if own <= inside else inside / own)
        return math.floor(1e6 * served / asked + 0.5)

    def traffic(self, out, home, home_tiers, shares, elsewhere, load):
        places = [(self.clouds[cloud].name, self.clouds[cloud].tiers, share) for cloud, share in shares]
        if elsewhere:
            places = [("hosted", [], MILLION)]
        meters = {}

        def leave(cloud, tiers, amount, where=meters):
            if amount:
                where[cloud] = (tiers, where.get(cloud, (tiers, 0))[1] + amount)

        bill = lambda where: sum(egress(tiers, amount) for tiers, amount in where.values())
        for flow in self.raw.get("egress", []):
            amount = nearest(Fraction(round(flow["gb_per_month"] * 1e9) * load, 1000))
            way = flow["from"], flow["to"]
            if way == ("home", "internet"):
                leave(home, home_tiers, amount)
                continue
            for (cloud, tiers, _), part in zip(places, split(amount, [share for _, _, share in places])):
                if way == ("home", "gpus") and cloud != home:
                    leave(home, home_tiers, part)
                elif way == ("gpus", "home") and cloud != home:
                    leave(cloud, tiers, part)
                elif way == ("gpus", "internet"):
                    leave(cloud, tiers, part)
        out["egress"] = bill(meters)
        weights = self.raw.get("weights")
        remote = {cloud for cloud, _, share in places if cloud != home and share > 0}
        if not weights or elsewhere or not remote:
            return
        size = round(weights["gb"] * 1e9)
        pulled, copied = dict(meters), dict(meters)
        for (cloud, _, _), part in zip(places, split(size * weights["pulls_per_month"], [p[2] for p in places])):
            if cloud != home:
                leave(home, home_tiers, part, pulled)
        for _ in remote:
            leave(home, home_tiers, size * weights.get("releases_per_month", 1), copied)
        stored = nano(weights.get("storage_usd_per_gb_month", 0.023))
        storage = nearest(Fraction(stored * size * len(remote), NANO))
        out["weights"] = min(bill(pulled) - out["egress"], bill(copied) - out["egress"] + storage)

    def once(self, moves):
        migration = self.raw.get("migration", {})
        pools = sum(self.pool_price(pool) * pool["gpus"] * HOURS for pool in self.today.get("pools", []))
        overlap = int(seconds(migration.get("overlap", "0s")))
        once = nano(migration.get("usd", 0)) + nearest(Fraction(pools * overlap, SECONDS))
        if moves is not None:
            once += egress(self.home_tiers, round(self.raw.get("constraints", {}).get("data_gravity_tb", 0) * 1e12))
        return once

    def survival(self, out, used, held, load, price):
        held = {cloud: held.get(cloud, 0) for cloud in used}
        full = {cloud: self.need(cloud, 100, load)[-1] for cloud in held}
        part = {cloud: self.clouds[cloud].replicas(n) / max(full[cloud], 1) for cloud, n in held.items()}
        out["survives"] = {
            self.clouds[lost].name: min(1.0, sum(part[cloud] for cloud in held if cloud != lost)) for lost in used
        }

        def more(cloud, there):
            needed = self.clouds[cloud].instances(self.need(cloud, 100, load)[-1])
            return self.clouds[cloud].pay(needed, there) * price[cloud] * HOURS

        if len(used) > 1:
            out["cover"] = sum(more(cloud, held[cloud]) for cloud in used)
        else:
            others = [c for c in range(len(self.clouds)) if c not in held and self.need(c, 100, load) is not None]
            out["cover"] = min((more(cloud, self.committed(cloud)) for cloud in others), default=None)

    def range(self, design, done):
        price_off = self.raw.get("uncertainty", {}).get("price_percent", 20)
        load_off = self.raw.get("uncertainty", {}).get("load_percent", 20)
        three = lambda off: zip((1000 - 10 * off, 1000, 1000 + 10 * off), (3, 4, 3))
        bills = []
        for price, a in three(price_off):
            for load, b in three(load_off):
                other = self.evaluate(design, {"price": price, "load": load}, done["bases"])
                bills.append(((other or done)["total"], a * b))
        bills.sort()
        found = []
        for mark in (10, 90):
            weight = 0
            for bill, own in bills:
                weight += own
                if weight >= mark:
                    found.append(bill)
                    break
        return found

    def barred(self, design):
        _, kind, legs, moves, _ = design
        rules, limits = set(), self.raw.get("constraints", {})
        used = {c for a, _, b in legs for c in (a, b) if c is not None}
        names = {self.clouds[cloud].name for cloud in used}
        only = limits.get("only_clouds")
        if only is not None and (names - set(only) or kind == "hosted"):
            rules.add("region_lock_in")
        heavy = limits.get("data_gravity_tb", 0) >= limits.get("data_gravity_limit_tb", 1000)
        if heavy and (moves is not None or names - {self.home}):
            rules.add("data_gravity")
        multi = kind in ("pattern1", "pattern2", "pattern1+3", "pattern2+3") or len(names) > 1
        if not limits.get("platform_team", True) and multi:
            rules.add("no_platform_team")
        if "cold_start_limit" in limits:
            limit = int(seconds(limits["cold_start_limit"]))
            if any(b is not None and self.clouds[b].cold > limit for _, _, b in legs):
                rules.add("cold_start")
        return rules

    def answer(self):
        """Options by id, and the verdict."""
        now = ("today", "today", [], None, None)
        designs = [now] + list(self.designs())
        options = {}
        for design in designs:
            done = self.evaluate(design)
            if done is not None:
                done["range"] = self.range(design, done)
                done["rules"] = self.barred(design)
                options[design[0]] = done
        today = options["today"]
        changes = {name: one for name, one in options.items() if name != "today"}
        free = {name: one for name, one in changes.items() if not one["rules"]}
        order = lambda name: (changes[name]["all_in"], changes[name]["places"])
        best = min(free, key=order, default=None)
        worth = best is not None and free[best]["all_in"] < today["total"]
        mark = min(free[best]["all_in"], today["total"]) if best else today["total"]
        rules = set().union(*(one["rules"] for one in changes.values() if one["all_in"] < mark), set())
        bare = lambda one: one["total"] - one["people"]
        short = [name for name, one in free.items() if not worth and bare(one) < bare(today)]
        if short:
            rules.add("small_spend")
        rival = min(short, key=order) if short else best
        rival = rival or min(changes, key=order, default=None)
        point = None
        if rival and bare(changes[rival]) < bare(today):
            one = changes[rival]
            over = one["people"] - today["people"] + nearest(Fraction(one["one_time"], self.horizon))
            point = nearest(Fraction(max(over, 0) * bare(today), bare(today) - bare(one)))
        return options, dict(worth_it=worth, option=best if worth else "today", rules=rules, break_even=point)


def main():
    scenario = json.loads(pathlib.Path(sys.argv[1]).read_text())
    options, verdict = Plan(scenario, datetime.date.fromisoformat(sys.argv[2])).answer()
    for name, one in options.items():
        print(f"{name:30} {cents(one['total']) / 100:16.2f} {cents(one['all_in']) / 100:16.2f}")
    print(verdict)


if __name__ == "__main__":
    main()
