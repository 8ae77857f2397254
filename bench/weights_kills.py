"""A pull and a push, each killed by SIGKILL again and again on its way from 1 to 99 %; and a ref that is published, moved back and
left by killed publishers while a reader looks at it all the time.

Run by ./test heavy weights: `weights_kills.py SIZE_MIB KILLS POINTS`. What was sent is read from nginx's log and from the test store's
ledger, what was gained from the journal and from the parts that the store has; contents are judged by sha256sum.
"""

import base64
import bisect
import hashlib
import http.client
import itertools
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback

import weights as rig
from object_store import MIB, Store

MOST_RESENT = 64 * MIB
# In a journal's record, of a chunk that is still coming.
BEGUN = 1 << 31


def environment(store):
    return {**os.environ, "AWS_ENDPOINT_URL": store.url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "XDG_STATE_HOME": rig.path("state")}


def start(*args, store=None):
    env = environment(store) if store else None
    with open(rig.path("words"), "wb") as words:
        return subprocess.Popen([rig.BIN, "weights", *args], stdout=subprocess.DEVNULL, stderr=words, env=env)


def journalled(to, lengths):
    """The bytes of chunks that the journal claims, and of those that are still coming the last that it says is there; a torn end is
    none. There is no journal of a pull that has ended."""
    try:
        with open(os.path.join(to, ".outrigger", "journal"), "rb") as journal:
            text = journal.read()[40:]
    except FileNotFoundError:
        return sum(map(sum, lengths)) if os.path.exists(os.path.join(to, ".outrigger", "READY")) else 0
    whole, begun, ends = set(), {}, [list(itertools.accumulate(chunks)) for chunks in lengths]
    for file, word in (struct.unpack_from("<II", text, at) for at in range(0, len(text) - 15, 16)):
        if file < BEGUN:
            whole.add((file, word))
            continue
        file -= BEGUN
        chunk = bisect.bisect_right(ends[file], word * 4096)
        begun[file, chunk] = word * 4096 - (ends[file][chunk] - lengths[file][chunk])
    return sum(lengths[file][chunk] for file, chunk in whole) + sum(there for place, there in begun.items() if place not in whole)


def chunk_lengths(manifest):
    tables = [base64.b64decode(file["chunks"]) for file in manifest["files"]]
    return [[struct.unpack_from("<I", table, at)[0] for at in range(0, len(table), 36)] for table in tables]


def manifest_in(folder):
    home = os.path.join(folder, "models", rig.NAME)
    version = next(name for name in os.listdir(home) if not name.startswith("."))
    with open(os.path.join(home, version, ".outrigger", "manifest.json")) as text:
        return json.load(text)


def a_pull_killed_over_and_over(size_mib, kills):
    nginx = rig.Nginx(os.environ.get("OUTRIGGER_WEIGHTS_LIMIT", "100m"))
    lengths, size, to = chunk_lengths(manifest_in(rig.path("store"))), rig.total(), rig.path("pulled")
    gained = lost = worst = hits = 0
    for number in range(kills):
        goal = size * (1 + 98 * number / max(1, kills - 1)) / 100
        process = start("pull", rig.NAME, "--from", nginx.url, "--to", to)
        while process.poll() is None and journalled(to, lengths) < goal:
            time.sleep(0.002)
        process.kill()
        hits += process.wait() == -signal.SIGKILL
        sent, gained = nginx.settled(), journalled(to, lengths)
        # All that was sent and did not count, and what of it this very kill has cost.
        worst, lost = max(worst, sent - gained - lost), sent - gained
        assert worst <= MOST_RESENT, f"kill {number} cost {worst / MIB:.1f} MiB"
    done = rig.last_line(rig.run("pull", rig.NAME, "--from", nginx.url, "--to", to, "--json"))
    sent = nginx.settled()
    assert done["event"] == "done" and hits >= kills * 9 // 10, (done, hits)
    rig.same(to)
    nginx.stop()
    print(f"bar: {hits} kills of one pull of {size / MIB:.0f} MiB between 1 and 99 %: {sent / size:.3f} times its size was sent by nginx's log, "
          f"a kill cost {(sent - size) / hits / MIB:.1f} MiB, and {worst / MIB:.1f} at most")


def a_push_killed_over_and_over(size_mib, kills):
    size = rig.total()
    with Store(rig.path("s3"), "weights") as store:
        store.fault("slow", bytes_per_second=100 * MIB)
        hits, ends = 0, []
        for number in range(kills):
            goal = size * (1 + 98 * number / max(1, kills - 1)) / 100
            process = start("add", rig.path("model"), "--name", rig.NAME, "--to", "s3://weights/p", store=store)
            while process.poll() is None and kept(store) < goal:
                time.sleep(0.005)
            process.kill()
            hits += process.wait() == -signal.SIGKILL
            store.settled()
            ends.append(len(store.lines()))
        store.heal()
        process = start("add", rig.path("model"), "--name", rig.NAME, "--to", "s3://weights/p", store=store)
        assert process.wait() == 0 and hits >= kills * 9 // 10, (open(rig.path("words")).read(), hits)
        store.settled()
        sent, worst = sent_in_vain(store, ends)
        assert worst <= MOST_RESENT, f"a kill cost {worst / MIB:.1f} MiB"
        assert store.uploads() == ([], []), f"left behind: {store.uploads()}"
        home = os.path.join(store.root, "weights", "p", "models", rig.NAME)
        assert rig.sums(os.path.join(home, os.listdir(home)[0])) == rig.sums(rig.path("model"))
    print(f"bar: {hits} kills of one push of {size / MIB:.0f} MiB between 1 and 99 %: {sent / size:.3f} times its size came by the store's ledger, "
          f"a kill cost {(sent - size) / hits / MIB:.1f} MiB, and {worst / MIB:.1f} at most; no upload is left")


def sent_in_vain(store, ends):
    """Bytes of the model's files that came by the ledger; and the most that a run has sent of what was broken off, or was in the store
    and sent again by a later run."""
    lines = store.lines()
    runs = [sum(at >= end for end in ends) for at in range(len(lines))]
    bodies = [(run, line) for run, line in zip(runs, lines) if line["operation"] in ("PutObject", "UploadPart")
              and "/models/" in line["key"] and ".outrigger" not in line["key"]]
    what = lambda line: (line["key"], *[pair for pair in line["query"].split("&") if pair.startswith("partNumber")])
    last = {what(line): line["n"] for _, line in bodies if line["status"] == 200}
    vain = {run: 0 for run in range(len(ends) + 1)}
    for run, line in bodies:
        if last.get(what(line)) != line["n"]:
            vain[run] += line["bytes_in"]
    return sum(line["bytes_in"] for _, line in bodies), max(vain.values())


def kept(store):
    """Bytes that the store has: in objects of the version, and in parts of uploads, each part once."""
    found = 0
    for top, _, files in os.walk(os.path.join(store.root, "weights")):
        found += sum(os.path.getsize(os.path.join(top, file)) for file in files if "/models/" in top and ".outrigger" not in top)
    uploads = os.path.join(store.root, ".store", "uploads")
    for upload in os.listdir(uploads):
        try:
            names = os.listdir(os.path.join(uploads, upload))
            parts = {name.split("-")[0]: os.path.getsize(os.path.join(uploads, upload, name)) for name in names if name[0].isdigit()}
        except FileNotFoundError:  # completed meanwhile
            continue
        found += sum(parts.values())
    return found


class Reader(threading.Thread):
    """Reads the ref, and the whole version that it names, again and again, as a plain web client; every digest that it has seen whole
    is looked at again by one file."""

    def __init__(self, store):
        super().__init__(daemon=True)
        self.address, self.stop, self.polls, self.whole, self.faults = store.address, threading.Event(), 0, {}, []
        self.dice = random.Random(1)

    def get(self, key):
        self.connection.request("GET", f"/weights/r/{key}")
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def run(self):
        self.connection = http.client.HTTPConnection(self.address, timeout=30)
        seen = False
        while not self.stop.is_set():
            status, text = self.get(f"refs/{rig.NAME}/main")
            self.polls += 1
            if status == 404 and not seen:
                continue
            seen = True
            try:
                assert status == 200, f"the ref is gone: {status}"
                self.look(json.loads(text)["digest"])
            except Exception as fault:
                self.faults.append(repr(fault))
            time.sleep(0.0005)

    def look(self, digest):
        home = f"models/{rig.NAME}/{digest[7:19]}"
        if digest in self.whole:
            files = [self.dice.choice(self.whole[digest])]
        else:
            status, manifest = self.get(f"{home}/.outrigger/manifest.json")
            assert status == 200 and "sha256:" + hashlib.sha256(manifest).hexdigest() == digest, f"{digest}: manifest {status}"
            files = json.loads(manifest)["files"]
        for file in files:
            status, data = self.get(f"{home}/{file['path']}")
            assert status == 200 and hashlib.sha256(data).hexdigest() == file["sha256"], f"{digest}: {file['path']} {status}"
        self.whole.setdefault(digest, files)


def a_reader_never_sees_half_a_version(points):
    dice, versions = random.Random(11), []
    for number in range(8):
        where = rig.path("versions", str(number))
        os.makedirs(where)
        for file in range(4):
            with open(os.path.join(where, f"{file}.bin"), "wb") as out:
                # Of one length, so that a size tells nothing, and two files are the same in all versions.
                out.write(random.Random(file if file < 2 else 100 * number + file).randbytes(40_000))
        versions.append(where)
    with Store(rig.path("s3-refs"), "weights") as store:
        digests, took = {}, {}
        for number, where in enumerate(versions):
            began = time.monotonic()
            done = subprocess.run([rig.BIN, "weights", "add", where, "--name", rig.NAME, "--to", "s3://weights/r", "--ref", "other", "--json"],
                                  capture_output=True, text=True, env=environment(store), check=True)
            took["add"] = time.monotonic() - began
            digests[number] = json.loads(done.stdout)["digest"]
        took["rollback"] = took["add"]
        shutil.rmtree(os.path.join(store.root, "weights", "r"))
        reader = Reader(store)
        reader.start()
        published, killed, ended, moves = set(), 0, 0, 0
        for point in range(points):
            action = "rollback" if published and dice.random() < 0.4 else "add"
            number = dice.choice(sorted(published)) if action == "rollback" else dice.randrange(8)
            command = ["add", versions[number], "--name", rig.NAME] if action == "add" else ["rollback", f"{rig.NAME}@main", "--version", digests[number]]
            process = start(*command, "--to", "s3://weights/r", store=store)
            kills = dice.random() < 0.6
            try:
                began = time.monotonic()
                code = process.wait(dice.random() * took[action] if kills else None)
                if not kills and code == 0:
                    took[action] = 0.9 * took[action] + 0.1 * (time.monotonic() - began)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            killed += code == -signal.SIGKILL
            assert code in (0, -signal.SIGKILL), f"{command}: {code}: {open(rig.path('words')).read()}"
            if code == 0:
                ended += 1
                published.add(number)
                # Nobody else moves it: what was said to be done is what the next reader sees.
                assert json.load(open(os.path.join(store.root, "weights", "r", "refs", rig.NAME, "main")))["digest"] == digests[number]
            if point % 20 == 19:
                published -= forget(store, digests)
        reader.stop.set()
        reader.join()
        assert reader.faults == [], reader.faults[:3]
        assert killed >= points // 5 and len(reader.whole) >= min(8, points // 15), (killed, len(reader.whole))
    print(f"bar: {points} times published or moved back, {killed} of them killed on the way: a reader that looked {reader.polls} times saw "
          f"{len(reader.whole)} versions, none of them in part")


def forget(store, digests):
    """Takes whole versions away that the ref does not name, so that they are sent anew. Returns their numbers."""
    with open(os.path.join(store.root, "weights", "r", "refs", rig.NAME, "main")) as text:
        named = json.load(text)["digest"]
    home, gone = os.path.join(store.root, "weights", "r", "models", rig.NAME), set()
    for number, digest in digests.items():
        if digest != named and number % 2 == 0 and os.path.isdir(os.path.join(home, digest[7:19])):
            gone.add(number)
    # A reader may still be at the one before.
    time.sleep(0.3)
    for number in gone:
        shutil.rmtree(os.path.join(home, digests[number][7:19]))
    return gone


def main():
    size_mib, kills, points = map(int, sys.argv[1:4])
    only = os.environ.get("ONLY", "")
    rig.add_the_model(size_mib)
    tests = [("a pull", lambda: a_pull_killed_over_and_over(size_mib, kills)), ("a push", lambda: a_push_killed_over_and_over(size_mib, kills)),
             ("a reader", lambda: a_reader_never_sees_half_a_version(points))]
    failed = 0
    tests = [(name, test) for name, test in tests if only in name]
    for name, test in tests:
        began = time.monotonic()
        try:
            test()
            print(f"ok      {name} ({time.monotonic() - began:.1f} s)", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
    print(f"{len(tests) - failed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    try:
        status = main()
    finally:
        for child in rig.children:
            if child.poll() is None:
                child.terminate()
                child.wait(10)
        shutil.rmtree(rig.folder, ignore_errors=True)
    sys.exit(status > 0)
