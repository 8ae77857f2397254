"""How long `outrigger plan` takes, as a whole process: the sample scenario, seven clouds under two weeks of ten-minute rates, and the search
over the whole price book.

Run by ./test heavy plan-speed. Each is run in turn with the others; of wall time and of the process's own user and system time the medians
are printed, and the longest wall time. The bars are on the median of the CPU time, which other work on the machine moves little: `plan` at
most 50 ms, `--optimize` 10 s. On a machine with nothing else to do the wall time is about the same.
"""

import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.environ["OUTRIGGER_BIN"]
SAMPLE = os.path.join(ROOT, "examples", "scenarios", "chat.yaml")
RATES = os.path.join(ROOT, "examples", "traces", "servegen-rate-10min.csv")
AS_OF = ["--as-of", "2026-11-30"]


def seven_clouds(folder):
    """The sample with other demand and with four clouds more, at made-up prices."""
    with open(SAMPLE) as file:
        text = file.read()
    rates = f"  rates: {{ file: {RATES}, column: language_m_mid_rps, scale: 0.01 }}\n"
    text = re.sub(r"  curve: .*\n(?:    - .*\n)+", lambda _: rates, text, count=1)
    more = "".join(
        f"  {cloud}:\n    usd_per_gpu_hour: {price}\n    instance_gpus: 8\n    reserved_usd_per_gpu_hour: {price / 2:.2f}\n    cold_start: 10m\n    egress_usd_per_gb: 0\n"
        for cloud, price in (("nebius", 2.95), ("crusoe", 3.9), ("runpod", 2.99), ("together", 3.4))
    )
    text = text.replace("\nhosted:\n", f"\n{more}\nhosted:\n", 1)
    file = os.path.join(folder, "seven.yaml")
    with open(file, "w") as out:
        out.write(text)
    return file


def once(command):
    """Wall seconds, and CPU seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([BIN, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode in (0, 1), done.stderr
    assert len(done.stdout) > 1000, done.stdout
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 31
    levels = sum(1 for line in open(RATES) if line[:1].isdigit())
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "the sample": (["plan", "--scenario", SAMPLE, *AS_OF], 0.05),
            f"seven clouds, {levels} levels": (["plan", "--scenario", seven_clouds(folder), *AS_OF], 0.05),
            "the sample, --optimize": (["plan", "--scenario", SAMPLE, "--optimize", *AS_OF], 10),
        }
        runs = {name: [] for name in commands}
        for _ in range(rounds):
            for name, (command, _) in commands.items():
                runs[name].append(once(command))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {rounds} rounds")
    print("| | wall ms, median | longest | CPU ms, median |\n|---|---:|---:|---:|")
    for name, (_, limit) in commands.items():
        walls, cpus = zip(*runs[name])
        median = statistics.median(cpus)
        print(f"| {name} | {statistics.median(walls) * 1e3:.1f} | {max(walls) * 1e3:.1f} | {median * 1e3:.1f} |")
        print(f"bar: {name}: {median * 1e3:.1f} ms, wanted at most {limit * 1e3:.0f}: {'met' if median <= limit else 'MISSED'}")
        missed += median > limit
    return missed


sys.exit(main() > 0)
