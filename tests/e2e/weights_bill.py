"""What weights cost: a budget that no retry, wrong chunk or kill takes past its limit, and a preview that comes true. What was sent is
read from nginx's log and from a lying store's own ledger.

Run by ./test with OUTRIGGER_BIN set; the last line is `N passed, N failed`.
"""

import csv
import glob
import os
import re
import shutil
import signal
import subprocess
import time
import zlib
from fractions import Fraction

import weights
from weights import MIB, NAME, Liar, Nginx, last_line, path, run

# A dollar for each million bytes, so that amounts are bytes.
PRICE = ["--egress-usd-per-gb", "1000"]


def store():
    return f"file://{path('store')}"


def limit(bytes_):
    return [*PRICE, "--max-egress-usd", f"{bytes_ / 1e6:.6f}"]


def sent_in_all(nginx):
    """By its log, refs and manifests included, once it is still."""
    nginx.settled()
    with open(nginx.log) as log:
        return sum(int(line.split(" ")[1]) for line in log.read().splitlines())


def asked(folder):
    with open(os.path.join(folder, ".outrigger", "egress")) as ledger:
        return sum(int(line.split()[1]) for line in ledger)


def setup():
    weights.make_model(path("model"), 128)
    run("add", path("model"), "--name", NAME, "--to", store())


def stopped(nginx, to, bytes_):
    done = run("pull", NAME, "--from", nginx.url, "--to", to, "--json", *limit(bytes_), expect=1)
    assert last_line(done)["event"] == "error" and "the budget of" in done.stderr and "--max-egress-usd" in done.stderr, done.stderr
    assert not os.path.exists(os.path.join(to, ".outrigger", "READY"))
    return done.stderr


def a_budget_stops_and_says_what_is_missing():
    nginx, to, most = Nginx(), path("budget"), 50 * MIB
    words = stopped(nginx, to, most)
    sent = sent_in_all(nginx)
    assert most - 16 * MIB <= sent <= most, (sent, most)
    spent, missing = map(int, re.search(r"spent on (\d+) bytes, (\d+) bytes are missing", words).groups())
    assert spent == asked(to) and sent <= spent + 200, (spent, sent)
    # All that was asked for has come and is kept: what is missing is the rest.
    files, _ = nginx.sent()
    assert missing == weights.total() - files, (missing, weights.total(), files)
    # Called again and again, it asks for the manifest, a short file that still fits, and then for nothing at all.
    for _ in range(3):
        stopped(nginx, to, most)
    assert sent_in_all(nginx) <= most + MIB and nginx.sent()[0] <= most, (sent_in_all(nginx), nginx.sent()[0], most)
    # What it says suffices, to the cent, is what suffices.
    enough = re.search(r"--max-egress-usd ([\d.]+) or more", words)[1]
    done = last_line(run("pull", NAME, "--from", nginx.url, "--to", to, "--json", *PRICE, "--max-egress-usd", str(float(enough) + 0.5)))
    assert done["event"] == "done" and done["egress"]["asked"] == asked(to) and abs(done["egress"]["usd"] - asked(to) / 1e6) < 1e-6, done
    assert weights.sums(to) == weights.sums(path("model")) and nginx.sent()[0] == weights.total()
    nginx.stop()


def kills_do_not_take_it_past_its_limit():
    nginx, to, most = Nginx("5m"), path("budget-killed"), 190 * MIB
    kills = 0
    while True:
        pulling = subprocess.Popen([weights.BIN, "weights", "pull", NAME, "--from", nginx.url, "--to", to, *limit(most)], stderr=subprocess.PIPE, text=True)
        ledger, before = os.path.join(to, ".outrigger", "egress"), os.path.getsize(os.path.join(to, ".outrigger", "egress")) if kills else 0
        # It dies after it has asked, by turns soon and late: what was asked for is lost, or was sent. Nothing has come whole for three
        # seconds, so that a kill that is late itself finds it as far.
        while pulling.poll() is None and (not os.path.exists(ledger) or os.path.getsize(ledger) < before + 40):
            time.sleep(0.002)
        time.sleep(0.2 if kills % 2 else 1.4)
        if pulling.poll() is None:
            pulling.send_signal(signal.SIGKILL)
        words = pulling.communicate()[1]
        if pulling.returncode == 1:
            break
        assert pulling.returncode == -signal.SIGKILL, words
        kills += 1
        assert kills < 60
    sent = sent_in_all(nginx)
    assert kills >= 2 and "the budget" in words, (kills, words)
    assert sent <= most and sent <= asked(to) + 200 * (kills + 1), (sent, most, asked(to))
    print(f"bar: {kills} kills: {sent} bytes sent by nginx's log, {asked(to)} in the ledger, of {most} that may be spent")
    nginx.stop()


def wrong_chunks_do_not_take_it_past_its_limit():
    most = weights.total() + 40 * MIB
    for kind in ["flip", "reset", "503"]:
        # Half of all runs go wrong twice, which costs more than the budget has; a refusal sends nothing and counts all the same.
        server = Liar(lambda asked, times: kind if zlib.crc32(asked.encode()) % 2 == 0 and times <= 3 else None)
        to = path(f"budget-{kind}")
        stopped(server, to, most)
        assert server.sent <= most and server.faults > 2, (kind, server.sent, most)
        assert asked(to) <= most + 1, kind
        server.shutdown()


def a_ledger_cannot_be_lost():
    nginx, to, most = Nginx(), path("budget-ledger"), 40 * MIB
    stopped(nginx, to, most)
    ledger = os.path.join(to, ".outrigger", "egress")
    # A line without its end is of a request that was never made.
    with open(ledger, "a") as out:
        out.write("asked 999999999999")
    assert "the budget of" in stopped(nginx, to, most)
    assert asked(to) < 2 * most
    # What was left may have paid for a short run: it is there now, and on the ledger.
    good = open(ledger).read()
    with open(ledger, "w") as out:
        out.write(good.replace("asked", "spent", 1))
    before = nginx.settled()
    assert "is damaged" in run("pull", NAME, "--from", nginx.url, "--to", to, *limit(most), expect=3).stderr
    assert nginx.settled() == before
    with open(ledger, "w") as out:
        out.write(good)
    # Without a limit for once, it counts on.
    run("pull", NAME, "--from", nginx.url, "--to", to)
    assert asked(to) >= weights.total()
    assert "was used up before" in run("pull", NAME, "--from", nginx.url, "--to", to, *limit(most), expect=1).stderr
    nginx.stop()


def a_price_has_to_be_known():
    refused = lambda *more: run("pull", NAME, "--from", "http://127.0.0.1:9/x", "--to", path("none"), "--max-egress-usd", "1", *more, expect=2).stderr
    assert "--source-cloud" in refused()
    assert "does not know what egress out of nowhere costs" in refused("--source-cloud", "nowhere")
    assert "is no amount of US dollars" in refused("--egress-usd-per-gb=-1")
    # A bucket says its cloud, unless it has another endpoint.
    command = [weights.BIN, "weights", "pull", NAME, "--from", "s3://b/x", "--to", path("none"), "--max-egress-usd", "1"]
    elsewhere = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"})
    assert elsewhere.returncode == 2 and "does not say which cloud" in elsewhere.stderr, elsewhere.stderr
    # AWS: 0.09 a GB.
    nginx, most = Nginx(), 40 * MIB
    done = run("pull", NAME, "--from", nginx.url, "--to", path("budget-aws"), "--source-cloud", "aws", "--max-egress-usd", f"{most * 0.09 / 1e9:.9f}", expect=1)
    assert most - 16 * MIB <= sent_in_all(nginx) <= most, done.stderr
    nginx.stop()


def a_replication_is_not_begun_that_would_not_end():
    nginx, state = Nginx(), ["--state", path("state")]
    command = ["replicate", NAME, "--from", nginx.url, "--to", f"file://{path('replica')}", *state]
    words = run(*command, *limit(weights.total() - 1), expect=1).stderr
    assert f"{weights.total()} bytes are missing" in words and nginx.sent()[0] == 0, words
    run(*command, *limit(weights.total() + 100_000))
    run("verify", NAME, "--from", f"file://{path('replica')}")
    assert sent_in_all(nginx) <= weights.total() + 100_000
    nginx.stop()


def what_a_budget_says_is_enough_is_enough():
    """To the last byte: of a pull that it ended, and of a replication that was killed, for which it does not reach any more."""
    price = 5
    to_the_byte = lambda usd: ["--egress-usd-per-gb", str(price), "--max-egress-usd", usd]
    usd = lambda bytes_: f"{bytes_ * price / 1e9:.6f}"
    enough_of = lambda words: re.search(r"--max-egress-usd ([\d.]+) or more", words)[1]
    nginx, to = Nginx(), path("to-the-byte")
    words = run("pull", NAME, "--from", nginx.url, "--to", to, *to_the_byte(usd(60 * MIB)), expect=1).stderr
    run("pull", NAME, "--from", nginx.url, "--to", to, *to_the_byte(enough_of(words)))
    assert sent_in_all(nginx) * price / 1e9 <= float(enough_of(words))
    nginx.stop()
    nginx, state = Nginx("10m"), path("state-killed")
    command = ["replicate", NAME, "--from", nginx.url, "--to", f"file://{path('replica-killed')}", "--state", state]
    once = to_the_byte(usd(weights.total() + 300_000))
    replicating = subprocess.Popen([weights.BIN, "weights", *command, *once], stderr=subprocess.DEVNULL)
    journal = lambda: "".join(open(file).read() for file in glob.glob(os.path.join(state, "uploads", "*")))
    while replicating.poll() is None and '"event":"part"' not in journal():
        time.sleep(0.005)
    replicating.send_signal(signal.SIGKILL)
    assert replicating.wait() == -signal.SIGKILL
    # What was on its way is lost, and was asked for: said at once, before anything more is.
    before = nginx.settled()
    words = run(*command, *once, expect=1).stderr
    assert nginx.settled() == before, "it was begun all the same"
    asked, missing = map(int, re.search(r"spent on (\d+) bytes, (\d+) bytes are missing", words).groups())
    assert 0 < missing < weights.total() < asked + missing, words
    run(*command, *to_the_byte(enough_of(words)))
    assert sent_in_all(nginx) * price / 1e9 <= float(enough_of(words))
    run("verify", NAME, "--from", f"file://{path('replica-killed')}")
    nginx.stop()
    # One that breaks on its way says the same of what was lost then.
    server = Liar(lambda asked, times: "flip" if times <= 1 else None)
    command = ["replicate", NAME, "--from", server.url, "--to", f"file://{path('replica-broken')}", "--state", path("state-broken")]
    words = run(*command, *to_the_byte(usd(weights.total() + 30 * MIB)), expect=1).stderr
    server.fault = lambda asked, times: None
    run(*command, *to_the_byte(enough_of(words)))
    server.shutdown()


def a_replication_that_goes_wrong_stops_at_its_limit():
    server = Liar(lambda asked, times: "flip" if times <= 3 else None)
    most = weights.total() + 30 * MIB
    command = ["replicate", NAME, "--from", server.url, "--to", f"file://{path('replica-wrong')}", "--state", path("state-wrong")]
    for _ in range(3):
        assert "the budget of" in run(*command, *limit(most), expect=1).stderr
    assert 30 * MIB < server.sent <= most, (server.sent, most)
    server.shutdown()


def planned(nginx, *args):
    return last_line(run("plan", NAME, "--from", nginx.url, *args, "--json"))


def near(predicted, sent, share):
    assert abs(predicted - sent) <= share * sent, (predicted, sent)


def lines(nginx):
    nginx.settled()
    with open(nginx.log) as log:
        return len(log.read().splitlines())


def a_preview_comes_true():
    """Bytes within 0.1 % of nginx's log and requests within 2 %: a new directory, one half pulled, one with another at hand, a store."""
    worst = 0
    for what in ["new", "half", "reuse", "replica"]:
        nginx = Nginx()
        to = f"file://{path('preview-store')}" if what == "replica" else path(f"preview-{what}")
        more = ["--reuse", path("preview-new")] if what == "reuse" else []
        if what == "half":
            stopped(nginx, to, 60 * MIB)
        if what == "reuse":
            with open(path("model", "config.json"), "w") as out:
                out.write("[]\n" * 50_000)
            run("add", path("model"), "--name", NAME, "--to", store())
        at_first, asked_first = sent_in_all(nginx), lines(nginx)
        plan = planned(nginx, "--to", to, *more)
        at_plan, asked_plan = sent_in_all(nginx), lines(nginx)
        edge = plan["edges"][0]
        # A preview costs the manifest and the ref, and writes nothing.
        assert at_plan - at_first == edge["control"] and (what == "half" or not os.path.exists(to.removeprefix("file://")))
        command = ["replicate", "--state", path("state-preview")] if what == "replica" else ["pull", *more]
        run(*command, NAME, "--from", nginx.url, "--to", to)
        sent, requests = sent_in_all(nginx) - at_plan, lines(nginx) - asked_plan
        near(edge["bytes"], sent, 0.001)
        near(edge["requests"], requests, 0.02)
        worst = max(worst, abs(edge["bytes"] / sent - 1))
        assert edge["there"] + edge["copied"] + edge["fetched"] == edge["total"] == weights.total()
        nginx.stop()
    print(f"bar: previews of four transfers are at most {100 * worst:.4f} % off nginx's log")


def the_dollars_are_those_of_the_book():
    """A second calculation, from the book's own file and in Python's whole numbers."""
    nginx = Nginx()
    with open(os.path.join(weights.ROOT, "crates", "core", "data", "egress_prices.csv")) as book:
        rows = [row for row in csv.DictReader(book) if row["path"].startswith("internet") and row["path"] != "internet-standard"]

    def bill(cloud, bytes_):
        tiers = [row for row in rows if row["provider"] == cloud]
        usd = Fraction(0)
        for at, row in enumerate(tiers):
            low = int(row["from_gb"]) * 10**9
            high = int(row["up_to_gb"]) * 10**9 if row["up_to_gb"] and at + 1 < len(tiers) else None
            usd += max(0, min(bytes_, high or bytes_) - low) * Fraction(row["usd_per_gb"]) / 10**9
        return usd

    for cloud, before in [("aws", 0), ("aws", 10_240), ("gcp", 1_000), ("azure", 60_000), ("oci", 10_240), ("coreweave", 5)]:
        plan = planned(nginx, "--to", path("x1"), "--to", path("x2"), "--source-cloud", cloud, "--egress-gb-before", str(before),
                       "--cold-starts", "2000", "--nodes", "30", "--clouds", "2", "--releases", "3", "--storage-usd-per-gb-month", "0.023",
                       "--neutral-usd-per-gb", "0.01")
        two = sum(edge["bytes"] for edge in plan["edges"])
        more = lambda bytes_: bill(cloud, before * 10**9 + bytes_) - bill(cloud, before * 10**9)
        close = lambda got, want: abs(Fraction(str(got)) - want) < Fraction(3, 10**9)
        assert close(plan["egress_usd"], more(two)), (cloud, plan["egress_usd"], float(more(two)))
        assert abs(sum(edge["egress_usd"] for edge in plan["edges"]) - plan["egress_usd"]) < 3e-9
        size = plan["edges"][0]["total"]
        gb = Fraction(size, 10**9)
        cost = {
            "direct": lambda starts=2000, nodes=30: more(size * starts),
            "replicate": lambda starts=2000, nodes=30: more(size * 2 * 3) + gb * 2 * Fraction("0.023"),
            "node_local": lambda starts=2000, nodes=30: more(size * nodes * 3),
            "neutral_store": lambda starts=2000, nodes=30: more(size * 3) + gb * starts * Fraction("0.01") + gb * Fraction("0.023"),
        }
        got = {way["way"]: way["usd_per_month"] for way in plan["month"]["ways"]}
        assert all(close(got[way], cost[way]()) for way in cost), (cloud, got)
        assert cost[plan["month"]["cheapest"]]() == min(c() for c in cost.values())
        # Where one way begins to cost more than another: so at that number, and not at the one before.
        names = {"cold_starts_direct_over_replicate": ("direct", "replicate"), "cold_starts_direct_over_node_local": ("direct", "node_local"),
                 "cold_starts_neutral_store_over_replicate": ("neutral_store", "replicate"), "nodes_node_local_over_replicate": ("node_local", "replicate")}
        for name, (way, other) in names.items():
            number = plan["month"]["crossover"][name]
            key = "nodes" if name.startswith("nodes") else "starts"
            over = lambda n: cost[way](**{key: n}) > cost[other](**{key: n}) + Fraction(2, 10**9)
            assert not over(10**7) if number is None else over(number) and (number == 0 or not over(number - 1)), (cloud, name, number)
    words = run("plan", NAME, "--from", nginx.url, "--to", path("x1")).stdout
    assert "egress is not priced: give --source-cloud" in words
    assert "cannot be compared" in run("plan", NAME, "--from", nginx.url, "--to", path("x1"), "--cold-starts", "5", expect=2).stderr
    plan = planned(nginx, "--to", path("x1"), "--source-cloud", "aws", "--to-cloud", "aws", "--mb-per-s", "250")["edges"][0]
    assert abs(plan["egress_usd"] - plan["bytes"] * 0.02 / 1e9) < 2e-9 and abs(plan["seconds"] - plan["bytes"] / 250e6) < 1e-6
    nginx.stop()


def main():
    if not os.access(weights.NGINX, os.X_OK):
        print("nginx is missing: budgets were not tested\n0 passed, 0 failed")
        return 0
    tests = [setup, a_budget_stops_and_says_what_is_missing, kills_do_not_take_it_past_its_limit,
             wrong_chunks_do_not_take_it_past_its_limit, a_ledger_cannot_be_lost, a_price_has_to_be_known, a_replication_is_not_begun_that_would_not_end,
             a_replication_that_goes_wrong_stops_at_its_limit, what_a_budget_says_is_enough_is_enough,
             the_dollars_are_those_of_the_book, a_preview_comes_true]
    return weights.play([(test.__name__.replace("_", " "), test) for test in tests])


if __name__ == "__main__":
    weights.ended(main)
