"""Disks that are full, read-only or limited while weights are pushed, pulled and replicated: what is said, what is left alone, and that
the same command goes on when there is room again. Stores are judged by sha256sum, uploads by the test store's own files.

Run by ./test with OUTRIGGER_BIN set; the last line is `N passed, N failed`. ONLY=words plays the tests whose names hold them. Small disks are
tmpfs, for which whoever is not root gets a mount namespace of his own; where that is not allowed either, what needs one is skipped, and
./test says so.
"""

import glob
import json
import os
import resource
import shutil
import subprocess
import sys
import time
import traceback

import stores
import weights
from object_store import MIB
from weights import BIN, NAME, last_line, path, sums

OTHER = "acme/other"
mounted = []
skipped = []


class Disk:
    """A small one."""

    def __init__(self, name, size_mib):
        self.root = path(name)
        os.makedirs(self.root)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", self.root], check=True, capture_output=True)
        mounted.append(self.root)

    def path(self, *names):
        return os.path.join(self.root, *names)

    def remount(self, options):
        subprocess.run(["mount", "-o", f"remount,{options}", self.root], check=True)

    def fill(self, leave=0):
        """To the last page, or all but so many bytes."""
        with open(self.path("filler"), "wb", buffering=0) as filler:
            free = os.statvfs(self.root)
            free = free.f_bavail * free.f_frsize - leave
            try:
                while free > 0:
                    free -= filler.write(bytes(min(free, MIB)))
            except OSError:
                pass

    def empty(self):
        os.unlink(self.path("filler"))


def can_mount():
    where = path("try")
    os.makedirs(where, exist_ok=True)
    mount = lambda *args: subprocess.run(["mount", *args, where], capture_output=True).returncode == 0
    if not mount("-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        return False
    can = mount("-o", "remount,ro") and mount("-o", "remount,rw")
    subprocess.run(["umount", where], check=True)
    return can


def again_where_it_can_be_mounted():
    own = ["unshare", "--user", "--map-root-user", "--mount"]
    if "OWN_NAMESPACE" in os.environ or not shutil.which("unshare") or subprocess.run([*own, "true"], capture_output=True).returncode != 0:
        return
    shutil.rmtree(weights.folder)
    os.environ["OWN_NAMESPACE"] = "1"
    os.execvp("unshare", [*own, sys.executable, *sys.argv])


def tree(root):
    """Everything in a folder, by its bytes; what a push is at work on left out."""
    found = {}
    for folder, _, files in os.walk(root):
        for name in files:
            file = os.path.join(folder, name)
            if os.path.join(".outrigger", "uploads") in file or file.endswith((".outrigger/lock", "filler")):
                continue
            with open(file, "rb") as source:
                found[os.path.relpath(file, root)] = source.read()
    return found


def uploads_of(store_folder):
    folder = os.path.join(store_folder, ".outrigger", "uploads")
    return os.listdir(folder) if os.path.exists(folder) else []


def journals():
    return glob.glob(path("state", "outrigger", "uploads", "*"))


def whole_in(folder, digest):
    assert sums(os.path.join(folder, "models", NAME, digest[7:19])) == sums(path("model"))
    assert uploads_of(folder) == [] and journals() == [], (uploads_of(folder), journals())


def a_full_disk_under_a_store():
    """Known before; and filled by another on the way."""
    bucket = stores.new_store()
    digest = last_line(stores.add(bucket))["digest"]
    disk = Disk("full-store", 100)
    to = f"file://{disk.path('store')}"
    stores.run(None, "add", path("small"), "--name", OTHER, "--to", to)
    before = tree(disk.path("store"))
    said = stores.run(None, "add", path("model"), "--name", NAME, "--to", to, expect=3).stderr
    assert "bytes are missing in" in said and "make room" in said, said
    assert tree(disk.path("store")) == before and uploads_of(disk.path("store")) == [] and journals() == []
    disk.remount(f"size={stores.model_bytes() // MIB + 40}m")
    bucket.fault("slow", operation="GetObject", bytes_per_second=6 * MIB)
    command = ["replicate", NAME, "--from", "s3://bucket/w", "--to", to]
    pushing = stores.started(bucket, *command)
    while pushing.poll() is None and not any('"event":"part"' in open(file).read() for file in journals()):
        time.sleep(0.002)
    disk.fill()
    said = pushing.communicate()[1]
    assert pushing.returncode == 3 and "No space left on device" in said and "make room" in said, (pushing.returncode, said)
    left = {name: bytes_ for name, bytes_ in tree(disk.path("store")).items() if not name.startswith(f"models/{NAME}/")}
    assert left == before, left.keys()
    # What is half is known to the journal.
    known = "".join(open(file).read() for file in journals())
    assert all(f'"id":"{name}"' in known for name in uploads_of(disk.path("store"))), uploads_of(disk.path("store"))
    # Still full: refused at once, with nothing lost.
    kept = sorted(uploads_of(disk.path("store")))
    assert kept and "make room" in stores.run(bucket, *command, expect=3).stderr
    assert sorted(uploads_of(disk.path("store"))) == kept
    bucket.heal()
    disk.empty()
    done = last_line(stores.run(bucket, *command, "--json"))
    assert done["digest"] == digest and done["kept"] > 0, done
    whole_in(disk.path("store"), digest)


def a_disk_that_is_read_only():
    disk = Disk("read-only", 600)
    store, to = disk.path("store"), f"file://{disk.path('store')}"
    first = last_line(stores.run(None, "add", path("small"), "--name", NAME, "--to", to, "--json"))["digest"]
    os.makedirs(disk.path("pulled"))
    # For gc to delete.
    stores.run(None, "add", path("small"), "--name", OTHER, "--to", to)
    os.unlink(disk.path("store", "refs", OTHER, "main"))
    disk.remount("ro")
    before = tree(disk.root)
    add = ["add", path("model"), "--name", NAME, "--to", to]
    for command in (add, ["rollback", f"{NAME}@canary", "--to", to, "--version", first], ["gc", "--from", to, "--older-than", "0s"],
                    ["sign", NAME, "--from", to, "--key", path("key.pem")],
                    ["pull", NAME, "--from", to, "--to", disk.path("pulled")], ["pull", NAME, "--from", to, "--to", disk.path("new")]):
        said = stores.run(None, *command, expect=3).stderr
        assert "Read-only file system" in said and "can be written to" in said and disk.root in said, (command, said)
        assert tree(disk.root) == before and journals() == [], command
    # Reading is no problem.
    assert len(last_line(stores.run(None, "ls", "--from", to, "--json"))["refs"]) == 1
    stores.run(None, "verify", NAME, "--from", to)
    stores.run(None, "gc", "--from", to, "--dry-run")
    stores.run(None, "pull", NAME, "--from", to, "--to", path("from-read-only"))
    assert sums(path("from-read-only")) == sums(path("small"))
    disk.remount("rw")
    done = last_line(stores.run(None, *add, "--json"))
    whole_in(store, done["digest"])
    # A pull that was half done.
    os.makedirs(disk.path("half"))
    pulling = stores.started(None, "pull", NAME, "--from", to, "--to", disk.path("half"))
    pulling.kill()
    pulling.communicate()
    disk.remount("ro")
    before = tree(disk.path("half"))
    said = stores.run(None, "pull", NAME, "--from", to, "--to", disk.path("half"), expect=3).stderr
    assert "Read-only file system" in said and tree(disk.path("half")) == before, said
    disk.remount("rw")
    stores.run(None, "pull", NAME, "--from", to, "--to", disk.path("half"))
    assert sums(disk.path("half")) == sums(path("model"))


def a_state_that_cannot_be_written():
    """The journal is wanted before anything is sent."""
    store = stores.new_store()
    disk = Disk("state-disk", 1)
    disk.fill()
    state = ["--state", disk.path("state")]
    said = stores.add(store, *state, expect=3).stderr
    assert "No space left on device" in said and disk.path("state") in said and "make room" in said, said
    assert store.lines() == [] and store.uploads() == ([], [])
    disk.empty()
    disk.remount("ro")
    said = stores.add(store, *state, expect=3).stderr
    assert "Read-only file system" in said and "--state" in said, said
    assert store.lines() == []
    disk.remount("rw")
    stores.add(store, *state)
    assert store.uploads() == ([], []) and os.listdir(disk.path("state", "uploads")) == []


def a_ledger_on_a_full_disk():
    """The last page takes the beginning of a line: nothing is asked for that is not written down, and no half line stays."""
    source, target = stores.new_store(), stores.new_store()
    stores.add(source)
    disk = Disk("ledger-disk", 1)
    command = ["replicate", NAME, "--from", f"{source.url}/bucket/w", "--to", "s3://bucket/w", "--state", disk.path("state"),
               "--egress-usd-per-gb", "1000"]
    limit = ["--max-egress-usd", f"{(stores.model_bytes() + MIB) / 1e6:.6f}"]
    # Makes the ledger, and asks for nothing but the manifest.
    stores.run(target, *command, "--max-egress-usd", "0.1", expect=1)
    ledger, = glob.glob(disk.path("state", "egress", "*"))
    size = os.path.getsize(ledger)
    with open(ledger, "a") as out:
        # So that of this call's own words the first does not fit.
        out.write("asked 0\n" * ((4096 - size) // 8))
    there = open(ledger).read()
    disk.fill()
    before = stores.came(source)[1]
    for _ in range(2):
        said = stores.run(target, *command, *limit, expect=3).stderr
        assert "No space left on device" in said and ledger in said and "make room" in said, said
        assert open(ledger).read() == there, open(ledger).read()[len(there) - 20 :]
    assert stores.came(source)[1] == before
    disk.empty()
    stores.run(target, *command, *limit)
    assert target.uploads() == ([], [])
    asked = sum(int(line.split()[1]) for line in open(ledger))
    assert stores.came(source)[1] - before <= asked, (stores.came(source)[1] - before, asked)


def a_journal_that_may_not_grow():
    """A limit on the size of files cuts the journal at any of its lines: every upload that the store has is in it, and no half line."""
    store = stores.new_store()
    command = [BIN, "weights", "add", path("model"), "--name", NAME, "--to", "s3://bucket/w", "--json"]
    for most in (60, 240, 330, 420, 520, 640, 900, 1200):
        # As an ignored signal the limit is an error of the write.
        limited = {"restore_signals": False, "preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))}
        done = subprocess.run(command, capture_output=True, text=True, env=stores.environment(store), **limited)
        assert done.returncode == 3 and "File too large" in done.stderr and "ulimit -f" in done.stderr, (most, done.returncode, done.stderr)
        assert store.settled()["open"] == 0
        text = "".join(open(file).read() for file in journals())
        assert text == "" or text.endswith("\n"), (most, text[-200:])
        known = {line["id"] for line in map(json.loads, text.splitlines()) if line.get("event") == "begun"}
        assert set(store.uploads()[0]) <= known, (most, store.uploads(), known)
    done = last_line(stores.add(store))
    assert done["kept"] > 0, done
    stores.whole_at(store, done["digest"])


def what_another_brought_leaves_no_upload():
    """A push that was killed, and that somebody else has done meanwhile: its uploads are ended when it is called again."""
    store = stores.new_store()
    store.fault("slow", operation="UploadPart", bytes_per_second=20 * MIB)
    push = stores.started(store, "add", path("model"), "--name", NAME, "--to", "s3://bucket/w")
    while push.poll() is None and not any('"event":"part"' in open(file).read() for file in journals()):
        time.sleep(0.002)
    push.kill()
    push.communicate()
    store.heal()
    store.settled()
    assert store.uploads()[0] != [] and journals() != []
    stores.add(store, "--state", path("state-2"))
    assert store.uploads()[0] != []
    done = last_line(stores.add(store))
    assert done["known"] is True, done
    stores.whole_at(store, done["digest"])


WITH_DISKS = [a_full_disk_under_a_store, a_disk_that_is_read_only, a_state_that_cannot_be_written, a_ledger_on_a_full_disk]
TESTS = [a_journal_that_may_not_grow, what_another_brought_leaves_no_upload]


def play(test):
    began = time.monotonic()
    try:
        test()
        print(f"ok      {test.__name__.replace('_', ' ')} ({time.monotonic() - began:.1f} s)", flush=True)
        return True
    except Exception:
        print(f"FAILED  {test.__name__.replace('_', ' ')}\n{traceback.format_exc()}", flush=True)
        return False
    finally:
        stop()


def stop():
    while stores.stores:
        stores.stores.pop().stop()
    while mounted:
        subprocess.run(["umount", "-l", mounted[-1]], check=True)
        shutil.rmtree(mounted.pop())
    for folder in glob.glob(path("s3-*")) + glob.glob(path("state*")):
        shutil.rmtree(folder)


def main():
    weights.make_model(path("model"), 160)
    os.makedirs(path("small"))
    with open(path("small", "config.json"), "w") as out:
        out.write('{"small": true}\n')
    subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path("key.pem")], check=True)
    wanted = lambda tests: [test for test in tests if os.environ.get("ONLY", "") in test.__name__.replace("_", " ")]
    tests = wanted(TESTS)
    if can_mount():
        tests = wanted(WITH_DISKS) + tests
    else:
        for test in wanted(WITH_DISKS):
            skipped.append(test)
            print(f"SKIPPED {test.__name__.replace('_', ' ')}: tmpfs cannot be mounted here, which takes root", flush=True)
    passed = sum(play(test) for test in tests)
    print(f"{passed} passed, {len(tests) - passed} failed" + f", {len(skipped)} skipped" * bool(skipped))
    return passed == len(tests)


if __name__ == "__main__":
    try:
        if not can_mount():
            again_where_it_can_be_mounted()
        right = main()
    finally:
        stop()
        shutil.rmtree(weights.folder, ignore_errors=True)
    sys.exit(not right)
