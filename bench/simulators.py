"""`outrigger simulate` beside vllm-sr-sim: the same 100,000 requests, the same engines, in one run.

The requests are vllm-sr-sim's own draw (Poisson arrivals, lengths from the Azure table that it ships), written to a
CSV for ours. The engines are slots that each make a token every 8 ms, first come first served, because both can be
told that exactly: vllm-sr-sim with a profile whose iteration time does not grow, ours with `constant_rate`. Several
engines are dealt to in turn, by its `round_robin` and by our equal weights.

Two things of vllm-sr-sim have to be known to read this:
- A request takes an iteration for each chunk of its prompt and each token of its answer; the CSV has their sum.
- Its engine keeps a slot for the time of service DIVIDED by the number of slots, and still has all the slots. So it is
  given that number times the time of an iteration; what it says without that is printed too. The factor
  costs it time: more requests run at once, as they do in ours.

Its time is that of `Fleet.run` alone; ours is the whole process, with reading the CSV and writing the report. Beside
both stand a recursion that gives the exact waits of these very requests, and for one engine Allen and Cunneen's
approximation (Allen, Probability, Statistics, and Queueing Theory, 1990), which knows only rate, mean and spread.

Usage: simulators.py OUTRIGGER. Exits 1 where mean waits differ by more than 5 % or ours is less than 15 times as fast;
the aim is 100 times.
"""

import csv
import heapq
import json
import math
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import fleet_sim
from fleet_sim import Fleet, FleetConfig, ManualProfile, PoolConfig
from fleet_sim.workload import CdfWorkload, PoissonWorkload

REQUESTS = 100_000
RUNS = 3
SECONDS_PER_TOKEN = 0.008
PROMPT_CHUNK = 512
CONTEXT = 8_192
# Each slot is then busy nine tenths of the time.
REQUESTS_PER_SECOND_AND_SLOT = 0.343
# (engines, slots of each): its own profiles of an A100 and an H100 have 128 slots at this context.
FLEETS = [(1, 16), (16, 16), (1, 128), (16, 128)]
TOLERANCE, BAR = 0.05, 100
LENGTHS = pathlib.Path(fleet_sim.__file__).parent / "data" / "azure_cdf.json"


def draw(rate):
    """Pairs of an arrival and a request, the same ones each time: a run of vllm-sr-sim writes into its requests."""
    return PoissonWorkload(rate, CdfWorkload(LENGTHS, seed=1), REQUESTS, seed=1).generate()


def iterations(request):
    return math.ceil(request.l_in / PROMPT_CHUNK) + request.l_out


def theirs(engines, slots, rate, seconds_per_iteration):
    """CPU seconds, seconds by the clock, mean wait in seconds."""
    profile = ManualProfile(
        name="constant", W=seconds_per_iteration, H=0.0, chunk=PROMPT_CHUNK, blk_size=16, total_kv_blks=10**9,
        max_slots=slots, cost_per_hr=1.0, calibration_ctx=CONTEXT,
    )  # fmt: skip
    fleet = Fleet(FleetConfig([PoolConfig("pool", profile, engines, CONTEXT, lb_strategy="round_robin")]))
    requests = draw(rate)
    cpu, clock = time.process_time(), time.perf_counter()
    result = fleet.run(requests)
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    # It drops what does not fit into a queue of 512, and throws out what does not fit into memory.
    assert len(result.completed) == REQUESTS, f"vllm-sr-sim completed {len(result.completed)}"
    assert all(i.n_slots == slots and i.total_preempted == 0 for i in result.pools["pool"].instances)
    return cpu, clock, statistics.fmean(r.queue_wait for r in result.completed)


def write_inputs(folder, engines, slots, rate):
    with open(folder / "trace.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["arrival_s", "prompt_tokens", "output_tokens"])
        rows.writerows((f"{at:.9f}", 0, iterations(request)) for at, request in draw(rate))
    speed = {"constant_rate": {"slots": slots, "tokens_per_second": 1 / SECONDS_PER_TOKEN}}
    engine = {"cloud": "here", "engine": "vllm", "model": "m", "engine_model": speed}
    backends = {f"b{i}": engine | {"url": f"http://b{i}.internal/v1"} for i in range(engines)}
    fleet = {
        "version": 1,
        "clouds": {"here": {}},
        "backends": backends,
        "models": {"m": {"tiers": [{"split": dict.fromkeys(backends, 1)}]}},
    }
    # JSON is YAML.
    (folder / "fleet.yaml").write_text(json.dumps(fleet))


def ours(outrigger, folder):
    """CPU seconds, seconds by the clock, mean wait in seconds."""
    command = [outrigger, "simulate", "--fleet", "fleet.yaml", "--trace", "trace.csv", "--json"]
    before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ran = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE)
    after, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - clock
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    report = json.loads(ran.stdout)
    assert (report["requests"], report["failed"]) == (REQUESTS, 0), "outrigger did not serve them all"
    waited_ms = sum(b["requests"] * b["wait_ms"]["mean"] for b in report["backends"].values())
    return cpu, clock, waited_ms / REQUESTS / 1e3


def exact(engines, slots, requests):
    """The mean wait when each request in turn takes the slot that is free first, of the engine whose turn it is."""
    free, waited = [[0.0] * slots for _ in range(engines)], 0.0
    for number, (at, request) in enumerate(requests):
        engine = free[number % engines]
        begins = max(at, engine[0])
        waited += begins - at
        heapq.heapreplace(engine, begins + iterations(request) * SECONDS_PER_TOKEN)
    return waited / len(requests)


def allen_cunneen(slots, rate, requests):
    """Erlang's wait times half of one plus the squared coefficient of variation."""
    services = [iterations(request) * SECONDS_PER_TOKEN for _, request in requests]
    mean = statistics.fmean(services)
    load = rate * mean
    blocked = 1.0
    for n in range(1, slots + 1):
        blocked = load * blocked / (n + load * blocked)
    waits = blocked / (1 - load / slots * (1 - blocked))
    spread = statistics.pvariance(services) / mean**2
    return waits * mean / (slots - load) * (1 + spread) / 2


def median_of(runs):
    return [statistics.median(values) for values in zip(*runs)]


def compare(outrigger, engines, slots):
    """Prints the row of one fleet; True where it is as it has to be."""
    rate = REQUESTS_PER_SECOND_AND_SLOT * engines * slots
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_inputs(folder, engines, slots, rate)
        # In turn, so that other work on the machine meets both.
        runs = [
            (theirs(engines, slots, rate, SECONDS_PER_TOKEN * slots), ours(outrigger, folder)) for _ in range(RUNS)
        ]
    (cpu, clock, wait), (our_cpu, our_clock, our_wait) = (median_of(side) for side in zip(*runs))
    ratio, apart = cpu / our_cpu, our_wait / wait - 1
    requests = draw(rate)
    print(f"{engines} engines of {slots} slots, {rate:.2f} requests/s")
    print(f"  vllm-sr-sim  {cpu:8.3f} s CPU {clock:8.3f} s  mean wait {wait * 1e3:9.4f} ms")
    print(f"  outrigger    {our_cpu:8.3f} s CPU {our_clock:8.3f} s  mean wait {our_wait * 1e3:9.4f} ms")
    print(f"  {ratio:.1f} times by CPU, {clock / our_clock:.1f} by the clock (bar {BAR}); waits {apart:+.3%} apart")
    print(f"  exact mean wait {exact(engines, slots, requests) * 1e3:.4f} ms")
    if engines == 1:
        print(f"  Allen-Cunneen {allen_cunneen(slots, rate, requests) * 1e3:.4f} ms")
        as_it_is = theirs(engines, slots, rate, SECONDS_PER_TOKEN)[2]
        print(f"  vllm-sr-sim without the factor for its slots: {as_it_is * 1e3:.4f} ms")
    sys.stdout.flush()
    return ratio >= BAR and abs(apart) <= TOLERANCE


def main():
    outrigger = str(pathlib.Path(sys.argv[1]).resolve())
    print(f"vllm-sr-sim {fleet_sim.__version__}, {REQUESTS} requests, medians of {RUNS}")
    passed = [compare(outrigger, *fleet) for fleet in FLEETS]
    sys.exit(0 if all(passed) else 1)


if __name__ == "__main__":
    main()
