"""The test store and the long way to it, as processes, for tests and measurements in Python.

Run by ./test, it starts both once: an object through the long way, the ledger's words about it, and their end by SIGTERM.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MIB = 1 << 20


def fakes_binary():
    """Beside the binary that is tested, or of the debug build."""
    tested = os.environ.get("OUTRIGGER_BIN") or os.path.join(ROOT, "target", "debug", "outrigger")
    return os.environ.get("OUTRIGGER_FAKES_BIN") or os.path.join(os.path.dirname(tested), "outrigger-fakes")


class Process:
    def __init__(self, *args):
        self.process = subprocess.Popen([fakes_binary(), *map(str, args)], stdout=subprocess.PIPE, text=True)
        self.ready = json.loads(self.process.stdout.readline())
        self.url = self.ready["listen"]
        self.address = self.url.removeprefix("http://")

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(10)
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Store(Process):
    """S3 at `url`; `root` is the folder in which buckets are folders and objects files."""

    def __init__(self, root, *buckets):
        self.root = str(root)
        super().__init__("store", "--root", root, *[arg for bucket in buckets for arg in ("--bucket", bucket)])

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.ready["admin"] + path, data, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def fault(self, kind, **more):
        return self.ask("POST", "/faults", {"kind": kind, **more})

    def heal(self):
        """Ends all faults, and returns how often each had struck."""
        struck = {fault["kind"]: fault["struck"] for fault in self.ask("GET", "/faults")}
        self.ask("DELETE", "/faults")
        return struck

    def totals(self):
        return self.ask("GET", "/ledger")

    def settled(self):
        """The totals once nothing is in flight, also nothing of a client that was killed."""
        for _ in range(2000):
            totals = self.totals()
            if totals["open"] == 0:
                return totals
            time.sleep(0.01)
        raise AssertionError(f"requests are still open: {totals}")

    def lines(self):
        with open(os.path.join(self.root, ".store", "ledger.jsonl")) as lines:
            return [json.loads(line) for line in lines]

    def uploads(self):
        """Unfinished uploads, and bodies that nobody finished."""
        own = os.path.join(self.root, ".store")
        return os.listdir(os.path.join(own, "uploads")), os.listdir(os.path.join(own, "tmp"))


class Relay(Process):
    """A way to ADDRESS that takes `delay_ms` in each direction."""

    def __init__(self, address, delay_ms=40, bytes_per_second=None):
        rate = [] if bytes_per_second is None else ["--bytes-per-second", bytes_per_second]
        super().__init__("relay", "--to", address, "--delay-ms", delay_ms, *rate)


def both_as_processes(root):
    data = os.urandom(3 * MIB)
    with Store(root, "weights") as store, Relay(store.address, delay_ms=100) as relay:
        object_ = f"{relay.url}/weights/a/b"
        urllib.request.urlopen(urllib.request.Request(object_, data, method="PUT"), timeout=30).close()
        store.fault("flip", offset=2 * MIB)
        times = []
        # The best of a few: the machine may be busy with something else.
        while len(times) < 8 and (not times or min(times) >= 2):
            began = time.monotonic()
            with urllib.request.urlopen(urllib.request.Request(object_, headers={"range": f"bytes={MIB}-"}), timeout=30) as answer:
                came = answer.read()
            times.append(time.monotonic() - began)
        # A connection and a question, there and back each.
        assert all(took >= 0.4 for took in times) and min(times) < 2, times
        assert [at for at in range(2 * MIB) if came[at] != data[MIB + at]] == [MIB]
        totals, lines = store.settled(), store.lines()
        asked = len(times)
        assert (totals["bytes_in"], totals["bytes_out"], store.heal()) == (3 * MIB, asked * 2 * MIB, {"flip": asked}), totals
        assert [(line["operation"], line["range"], line["faults"]) for line in lines] == \
            [("PutObject", None, []), *[("GetObject", f"bytes={MIB}-", ["flip"])] * asked], lines
    assert (store.process.returncode, relay.process.returncode) == (0, 0)


if __name__ == "__main__":
    where = tempfile.mkdtemp(prefix="outrigger-object-store-")
    try:
        both_as_processes(where)
    finally:
        shutil.rmtree(where)
    print("1 passed, 0 failed")
    sys.exit(0)
