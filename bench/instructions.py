"""Counts the instructions of the hot path, and compares them with what they were: the same on a quiet and on a busy
machine, so that a slower way of doing things shows at once.

usage: instructions.py BINARY [--write]

BINARY is the example `hot_path`. `--write` keeps the counts of now in bench/instructions.json; say in the commit why they
changed. Counts depend on the compiler, so that those of another one are printed and not compared.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

KEPT = Path(__file__).resolve().parent / "instructions.json"
MOST_APART = 0.05
REQUESTS, STREAMS, EVENTS = 400, 10, 400


def counted(binary, *numbers):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", binary, *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or not found:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return int(found.group(1))


def main():
    binary = sys.argv[1]
    warm = counted(binary, 20, 2, 2)
    request = (counted(binary, 20 + REQUESTS, 2, 2) - warm) / REQUESTS
    few = counted(binary, 20, STREAMS, 2)
    event = (counted(binary, 20, STREAMS, EVENTS + 2) - few) / (STREAMS * EVENTS)
    now = {"rustc": subprocess.check_output(["rustc", "--version"], text=True).strip(),
           "request": round(request), "event": round(event)}
    print(json.dumps(now))
    if "--write" in sys.argv:
        KEPT.write_text(json.dumps(now, indent=2) + "\n")
        return
    kept = json.loads(KEPT.read_text())
    if kept["rustc"] != now["rustc"]:
        print(f"not compared: {KEPT.name} was counted with {kept['rustc']}")
        return
    apart = {what: now[what] / kept[what] - 1 for what in ("request", "event")}
    for what, by in apart.items():
        print(f"{what}: {now[what]} instructions, {by:+.1%} of {kept[what]}")
    if any(abs(by) > MOST_APART for by in apart.values()):
        sys.exit(f"more than {MOST_APART:.0%} apart; if that is meant to be, run bench/instructions.py with --write "
                 "and say in the commit why")


if __name__ == "__main__":
    main()
