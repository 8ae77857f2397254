"""Weights in buckets: pushed, replicated, rolled back and collected against the test store, whose ledger and files say what came and
went. Killed on the way, with faults on the wire, with two publishers at once, and with a store that lies.

Run by ./test with OUTRIGGER_BIN set; the last line is `N passed, N failed`. ONLY=words plays the tests whose names hold them.
"""

import glob
import json
import os
import random
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import traceback
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import weights
from object_store import MIB, Store
from weights import BIN, NAME, last_line, make_model, path, sums

# What a kill may cost: what was on its way.
MOST_RESENT = 64 * MIB
stores = []


def environment(store, **more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "GOOGLE_", "AZURE_"))}
    variables = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "XDG_STATE_HOME": path("state")}
    if store is not None:
        variables["AWS_ENDPOINT_URL_S3"] = store.url
    return {**kept, **variables, **more}


def run(store, *args, expect=0, **more):
    done = subprocess.run([BIN, "weights", *args], capture_output=True, text=True, env=environment(store, **more))
    assert done.returncode == expect, f"{args}: {done.returncode}, wanted {expect}\n{done.stdout}{done.stderr}"
    return done


def started(store, *args, **more):
    pipe = subprocess.PIPE
    return subprocess.Popen([BIN, "weights", *args], stdout=pipe, stderr=pipe, text=True, env=environment(store, **more))


def new_store():
    store = Store(path(f"s3-{len(stores)}"), "bucket")
    stores.append(store)
    return store


def add(store, *more, model="model", **rest):
    return run(store, "add", path(model), "--name", NAME, "--to", "s3://bucket/w", "--json", *more, **rest)


def model_bytes(model="model"):
    return sum(os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(path(model)) for f in files)


def came(store):
    """Bytes of files that have come into the store, by its ledger, and those that have gone out of it."""
    store.settled()
    lines = [line for line in store.lines() if "/models/" in "/" + line["key"] and "/.outrigger/" not in line["key"]]
    return sum(line["bytes_in"] for line in lines), sum(line["bytes_out"] for line in lines)


def journalled():
    """What the journals of uploads hold. One may go between being found and being read: its upload has ended."""
    texts = []
    for journal in glob.glob(path("state", "outrigger", "uploads", "*")):
        try:
            with open(journal) as lines:
                texts.append(lines.read())
        except FileNotFoundError:
            pass
    return "".join(texts)


def parts_sent():
    return journalled().count('"event":"part"')


def version_folder(store, digest):
    return os.path.join(store.root, "bucket", "w", "models", NAME, digest.removeprefix("sha256:")[:12])


def whole_at(store, digest, model="model"):
    """The objects of a version are the model's files by sha256sum, and nothing is left over."""
    assert sums(version_folder(store, digest)) == sums(path(model))
    assert store.uploads() == ([], []), store.uploads()
    left = os.listdir(path("state", "outrigger", "uploads"))
    assert left == [], left


def pushed_and_pulled():
    store = new_store()
    done = last_line(add(store))
    whole_at(store, done["digest"])
    bytes_in, bytes_out = came(store)
    # Completing an upload names its parts.
    assert 0 <= bytes_in - model_bytes() < 20_000 and bytes_out < 5_000, (bytes_in, bytes_out, model_bytes())
    assert done["sent"] == model_bytes() and not done["known"], done
    before = came(store)
    again = last_line(add(store))
    assert again["known"] is True and again["sent"] == 0 and came(store) == before, again
    run(store, "pull", NAME, "--from", "s3://bucket/w", "--to", path("from-bucket"))
    weights.same(path("from-bucket"))
    assert came(store)[1] - before[1] == model_bytes(), "a pull took more than there is"
    refs = last_line(run(store, "ls", "--from", "s3://bucket/w", "--json"))["refs"]
    assert refs == [{"model": NAME, "ref": "main", "digest": done["digest"]}], refs


def killed_pushes_go_on():
    worst, hits = 0, 0
    source = random.Random(3)
    for number in range(6):
        store = new_store()
        store.fault("slow", operation="UploadPart", bytes_per_second=30 * MIB)
        for _ in range(1 + number % 2):
            push = started(store, "add", path("model"), "--name", NAME, "--to", "s3://bucket/w")
            at = parts_sent() + source.randrange(3, 6 if number % 2 else 9)
            while push.poll() is None and parts_sent() < at:
                time.sleep(0.002)
            time.sleep(source.random() * 0.2)
            push.kill()
            hits += push.wait() == -signal.SIGKILL
            push.stdout.close()
            push.stderr.close()
        # The last steps take no time, so that a kill may come after them.
        ref = os.path.join(store.root, "bucket", "w", "refs", NAME, "main")
        if os.path.exists(ref):
            with open(ref) as file:
                named = json.load(file)["digest"]
            assert sums(version_folder(store, named)) == sums(path("model")), "a ref before its version"
        store.heal()
        done = last_line(add(store))
        whole_at(store, done["digest"])
        resent = (came(store)[0] - model_bytes()) / (1 + number % 2)
        worst = max(worst, resent)
        assert done["kept"] + done["sent"] >= model_bytes() and 0 <= resent <= MOST_RESENT + 100_000, (resent, done)
        store.stop()
    assert hits >= 5, f"only {hits} of 9 kills hit a push that was running"
    print(f"bar: {hits} kills of pushes of {model_bytes() / MIB:.0f} MiB; at most {worst / MIB:.1f} MiB sent again for each by the store's ledger")


def killed_replication_goes_on():
    source, target = new_store(), new_store()
    digest = last_line(add(source))["digest"]
    taken = came(source)[1]
    target.fault("slow", operation="UploadPart", bytes_per_second=30 * MIB)
    # Two endpoints, and two accounts: what is `usual` leads nowhere.
    sides = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1", "FROM_AWS_ENDPOINT_URL": source.url, "TO_AWS_ENDPOINT_URL": target.url}
    sides |= {f"{side}_AWS_{name}": side for side in ("FROM", "TO") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")}
    url = "s3://bucket/w"
    pushing = started(target, "replicate", NAME, "--from", url, "--to", "s3://bucket/w", **sides)
    while pushing.poll() is None and not parts_sent():
        time.sleep(0.002)
    pushing.kill()
    assert pushing.wait() == -signal.SIGKILL
    pushing.stdout.close()
    pushing.stderr.close()
    target.heal()
    done = last_line(run(target, "replicate", NAME, "--from", url, "--to", "s3://bucket/w", "--json", **sides))
    assert done["digest"] == digest
    whole_at(target, digest)
    resent, reread = came(target)[0] - model_bytes(), came(source)[1] - taken - model_bytes()
    # What was read ahead of what was on its way is lost too, and parts end inside of chunks.
    assert 0 <= resent <= MOST_RESENT + 100_000 and 0 <= reread <= MOST_RESENT + 96 * MIB, (resent, reread)
    print(f"bar: a killed replication sends {resent / MIB:.1f} MiB again and reads {reread / MIB:.1f} MiB again")
    known = came(source)[1]
    over_http = f"{source.url}/bucket/w"
    assert last_line(run(target, "replicate", NAME, "--from", over_http, "--to", "s3://bucket/w", "--json"))["known"] is True
    assert came(source)[1] == known
    run(target, "replicate", NAME, "--from", "s3://bucket/w", "--to", f"file://{path('copied')}")
    assert last_line(run(None, "verify", NAME, "--from", f"file://{path('copied')}", "--json"))["ok"] is True


def damage_at_rest_is_not_replicated():
    source, target = new_store(), new_store()
    digest = last_line(add(source))["digest"]
    flip(version_folder(source, digest), "model-00001-of-00002.safetensors")
    url = f"{source.url}/bucket/w"
    refused = run(target, "replicate", NAME, "--from", url, "--to", "s3://bucket/w", expect=1)
    assert "was not what was published" in refused.stderr, refused.stderr
    assert not os.path.exists(os.path.join(target.root, "bucket", "w", "refs"))
    shutil.rmtree(path("state"))


def flip(folder, name):
    with open(os.path.join(folder, name), "r+b") as out:
        out.seek(os.path.getsize(out.name) // 2)
        byte = out.read(1)
        out.seek(-1, 1)
        out.write(bytes([byte[0] ^ 1]))


def problems(store, *more):
    done = last_line(run(store, "verify", NAME, "--from", *more, "--json", expect=1))
    assert done["ok"] is False
    return {one["path"]: one["problem"] for one in done["problems"]}


def damage_at_rest_is_found_and_repaired():
    store = new_store()
    digest = last_line(add(store, model="mid"))["digest"]
    folder, big = version_folder(store, digest), "model-00001-of-00002.safetensors"
    assert last_line(run(store, "verify", NAME, "--from", "s3://bucket/w", "--json"))["ok"] is True
    flip(folder, big)
    flip(folder, "config.json")
    os.unlink(os.path.join(folder, "empty"))
    with open(os.path.join(folder, "extra"), "w") as out:
        out.write("x")
    wrong = {big: "chunks", "config.json": "chunks", "empty": "missing"}
    assert problems(store, "s3://bucket/w") == {**wrong, "extra": "unlisted"}
    # Without a listing what lies there besides is not seen.
    assert problems(store, f"{store.url}/bucket/w") == wrong
    os.unlink(os.path.join(folder, "extra"))
    said = run(store, "pull", NAME, "--from", "s3://bucket/w", "--to", path("of-damaged"), expect=1).stderr
    assert "--repair" in said or "empty" in said, said
    before = came(store)[0]
    # A push that does not read takes a size for a file.
    assert last_line(add(store, model="mid"))["sent"] == 0 and problems(store, "s3://bucket/w") == {big: "chunks", "config.json": "chunks"}
    # Killed on the way, nothing is lost that was there.
    store.fault("slow", operation="UploadPart", bytes_per_second=8 * MIB)
    push = started(store, "add", path("mid"), "--name", NAME, "--to", "s3://bucket/w", "--repair")
    while push.poll() is None and not any('"event":"begun"' in open(f).read() for f in glob.glob(path("state", "outrigger", "uploads", "*"))):
        time.sleep(0.002)
    push.kill()
    push.communicate()
    store.heal()
    store.settled()
    assert big in problems(store, "s3://bucket/w")
    done = last_line(add(store, "--repair", model="mid"))
    assert done["repaired"] >= 1 and done["digest"] == digest, done
    whole_at(store, digest, "mid")
    again = last_line(add(store, "--repair", model="mid"))
    assert (again["repaired"], again["sent"], again["known"]) == (0, 0, True), again
    assert came(store)[0] - before < 2 * os.path.getsize(path("mid", big)) + MIB, "more was sent than was wrong"
    # The manifest itself.
    flip(folder, ".outrigger/manifest.json")
    assert "--repair" in run(store, "show", NAME, "--from", "s3://bucket/w", expect=1).stderr
    assert "--repair" in add(store, expect=1, model="mid").stderr
    add(store, "--repair", model="mid")
    assert last_line(run(store, "verify", NAME, "--from", "s3://bucket/w", "--json"))["digest"] == digest
    # From another store, and in a folder.
    target = f"file://{path('repaired')}"
    replicate = ["replicate", NAME, "--from", f"{store.url}/bucket/w", "--to", target, "--json"]
    run(store, *replicate)
    flip(path("repaired", "models", NAME, digest[7:19]), big)
    assert last_line(run(store, *replicate))["known"] is True
    assert last_line(run(store, *replicate, "--repair"))["repaired"] == 1
    run(store, "verify", NAME, "--from", target)


def signed_in_a_bucket():
    store = new_store()
    for key in ("signer", "stranger"):
        subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path(f"{key}.pem")], check=True)
        subprocess.run(["openssl", "ec", "-in", path(f"{key}.pem"), "-pubout", "-out", path(f"{key}.pub")], check=True, capture_output=True)
    digest = last_line(add(store, model="mid"))["digest"]
    of_bucket, folder = [NAME, "--from", "s3://bucket/w"], version_folder(store, digest)
    by = lambda key: ["--key", path(key)]
    assert "is not signed" in run(store, "verify", *of_bucket, *by("signer.pub"), expect=1).stderr
    # What is wrong is not signed.
    shutil.copy(os.path.join(folder, "config.json"), path("aside"))
    flip(folder, "config.json")
    assert "nothing was signed: config.json" in run(store, "sign", *of_bucket, *by("signer.pem"), expect=1).stderr
    assert not os.path.exists(os.path.join(folder, ".outrigger", "model.sig"))
    shutil.copy(path("aside"), os.path.join(folder, "config.json"))
    signed = last_line(run(store, "sign", *of_bucket, *by("signer.pem"), "--json"))
    assert signed == {"signature": f"models/{NAME}/{digest[7:19]}/.outrigger/model.sig", "name": NAME, "digest": digest}, signed
    for url in ("s3://bucket/w", f"{store.url}/bucket/w"):
        done = last_line(run(store, "verify", NAME, "--from", url, *by("signer.pub"), "--json"))
        assert done["ok"] is True and done["signed"] is True, done
        run(store, "verify", NAME, "--from", url, *by("stranger.pub"), expect=1)
        assert "read over the web" in run(store, "sign", NAME, "--from", f"{store.url}/bucket/w", *by("signer.pem"), expect=2).stderr
    # As a folder's: the same files, and the one that a pull brings.
    run(store, "pull", *of_bucket, "--to", path("signed"), *by("signer.pub"))
    run(store, "verify", path("signed"), *by("signer.pub"))
    run(store, "pull", *of_bucket, "--to", path("signed-2"), *by("stranger.pub"), expect=1)
    run(store, "sign", *of_bucket, *by("signer.pem"), "--signature", path("elsewhere.sig"))
    run(store, "verify", *of_bucket, *by("signer.pub"), "--signature", path("elsewhere.sig"))
    run(None, "verify", path("signed"), *by("signer.pub"), "--signature", path("elsewhere.sig"))
    flip(folder, "config.json")
    done = last_line(run(store, "verify", *of_bucket, *by("signer.pub"), "--json", expect=1))
    assert [one["path"] for one in done["problems"]] == ["config.json"], done


def unchanged_files_are_copied():
    store = new_store()
    first = last_line(add(store))["digest"]
    before = came(store)
    shutil.copytree(path("model"), path("model-2"))
    with open(path("model-2", "config.json"), "w") as out:
        out.write('{"changed": true}\n')
    done = last_line(add(store, model="model-2"))
    assert done["digest"] != first and done["copied"] == model_bytes("model-2") - 18 and done["sent"] == 18, done
    bytes_in, bytes_out = came(store)
    assert bytes_in - before[0] < 2_000 and bytes_out - before[1] < 5_000, (before, bytes_in, bytes_out)
    whole_at(store, done["digest"], "model-2")
    shutil.rmtree(path("model-2"))


def faults_on_the_wire_are_survived(kind, **more):
    store = new_store()
    # An upload whose id was lost on the way to us stays with the store until gc ends it, which has a test of its own.
    begin = [] if kind == "lose_answer" else ["CreateMultipartUpload"]
    for operation in ["UploadPart", "PutObject", "CompleteMultipartUpload", *begin]:
        store.fault(kind, operation=operation, key="bucket/w/models/*", every=3, times=4, **more)
    done = last_line(add(store))
    whole_at(store, done["digest"])
    assert sum(store.heal().values()) > 0, "no fault struck"
    assert done["retries"] > 0 or kind == "lose_answer", done
    assert came(store)[0] - model_bytes() <= 20 * 16 * MIB
    store.stop()


def of_two_publishers_one_wins():
    store = new_store()
    for number in (1, 2):
        os.makedirs(path(f"small-{number}"))
        with open(path(f"small-{number}", "config.json"), "w") as out:
            out.write(f'{{"number": {number}}}\n')
        # Four seconds at the rate below: long enough for the other to begin, also where a process begins late.
        with open(path(f"small-{number}", "big.bin"), "wb") as out:
            out.write(random.Random(number).randbytes(4 * MIB))
    store.fault("slow", operation="PutObject", key="bucket/w/models/*", bytes_per_second=1 * MIB)
    both = [started(store, "add", path(f"small-{n}"), "--name", NAME, "--to", "s3://bucket/w", "--json") for n in (1, 2)]
    ended = [(process.communicate(), process.returncode) for process in both]
    codes = sorted(code for _, code in ended)
    assert codes == [0, 1], ended
    (winner, _), = [out for out, code in ended if code == 0]
    (_, told), = [out for out, code in ended if code == 1]
    digest = json.loads(winner)["digest"]
    assert f"was moved to {digest} by another publisher" in told and "weights rollback" in told, told
    assert last_line(run(store, "ls", "--from", "s3://bucket/w", "--json"))["refs"][0]["digest"] == digest
    # What the loser is told to do works.
    command = told.split("`outrigger weights ")[1].split("`")[0].split(" ")
    store.heal()
    run(store, *command)
    assert last_line(run(store, "ls", "--from", "s3://bucket/w", "--json"))["refs"][0]["digest"] == command[-1]


def a_store_that_lies_is_refused():
    store = new_store()
    store.fault("lie")
    refused = add(store, expect=3)
    assert "cannot be published to" in refused.stderr and "If-None-Match" in refused.stderr, refused.stderr
    assert came(store) == (0, 0), "something was sent all the same"
    store.heal()
    add(store)
    store.fault("lie")
    # Reading is no problem.
    run(store, "show", NAME, "--from", "s3://bucket/w")


def refs_move_back_and_old_versions_go():
    store = new_store()
    digests = []
    for number in range(3):
        os.makedirs(path("turn"), exist_ok=True)
        with open(path("turn", "config.json"), "w") as out:
            out.write(f'{{"turn": {number}}}\n')
        digests.append(last_line(add(store, model="turn"))["digest"])
    one, two, three = digests
    moved = last_line(run(store, "rollback", NAME, "--to", "s3://bucket/w", "--version", one, "--json"))
    assert (moved["from"], moved["digest"]) == (three, one), moved
    run(store, "rollback", f"{NAME}@canary", "--to", "s3://bucket/w", "--version", two)
    assert {(r["ref"], r["digest"]) for r in last_line(run(store, "ls", "--from", "s3://bucket/w", "--json"))["refs"]} == {("main", one), ("canary", two)}
    # Not whole, and not there.
    os.rename(os.path.join(version_folder(store, three), "config.json"), path("aside"))
    refused = run(store, "rollback", NAME, "--to", "s3://bucket/w", "--version", three, expect=1)
    assert "is not whole in the store: config.json is missing" in refused.stderr, refused.stderr
    os.rename(path("aside"), os.path.join(version_folder(store, three), "config.json"))
    run(store, "rollback", NAME, "--to", "s3://bucket/w", "--version", "sha256:" + "0" * 64, expect=1)
    # Young, kept, only looked at; and then gone.
    young = last_line(run(store, "gc", "--from", "s3://bucket/w", "--json"))
    assert young["gone"] == [] and young["kept"] == 1, young
    kept = last_line(run(store, "gc", "--from", "s3://bucket/w", "--older-than", "0s", "--keep", "1", "--json"))
    assert kept["gone"] == [] and kept["kept"] == 1, kept
    looked = last_line(run(store, "gc", "--from", "s3://bucket/w", "--older-than", "0s", "--dry-run", "--json"))
    assert [g["why"] for g in looked["gone"]] == ["unnamed"] and os.path.exists(version_folder(store, three)), looked
    gone = last_line(run(store, "gc", "--from", "s3://bucket/w", "--older-than", "0s", "--json"))
    assert gone["gone"] == looked["gone"] and not os.path.exists(version_folder(store, three)), gone
    for digest in (one, two):
        run(store, "pull", f"{NAME}@{digest}", "--from", "s3://bucket/w", "--to", path(f"kept-{digest[7:15]}"))
    # Half published, and an upload that nobody goes on with.
    store.fault("slow", operation="UploadPart", bytes_per_second=20 * MIB)
    push = started(store, "add", path("model"), "--name", NAME, "--to", "s3://bucket/w")
    while push.poll() is None and not parts_sent():
        time.sleep(0.002)
    push.kill()
    push.communicate()
    store.heal()
    store.settled()
    assert store.uploads()[0] != []
    swept = last_line(run(store, "gc", "--from", "s3://bucket/w", "--older-than", "0s", "--json"))
    assert {g["why"] for g in swept["gone"]} == {"half_published", "upload"}, swept
    assert store.uploads() == ([], []) and os.listdir(path("state", "outrigger", "uploads")) == []
    names = sorted(os.listdir(os.path.join(store.root, "bucket", "w", "models", NAME)))
    assert names == sorted(d[7:19] for d in (one, two)), names
    shutil.rmtree(path("turn"))


def gc_and_publishers_at_once():
    """A ref is moved to and fro while gc deletes everything that it can: what the ref names is whole, always."""
    store = new_store()
    digests = []
    for number in range(2):
        os.makedirs(path(f"pendulum-{number}"), exist_ok=True)
        for file in range(3):
            with open(path(f"pendulum-{number}", f"{file}.json"), "w") as out:
                out.write(f'{{"pendulum": {number}, "file": {file}}}\n')
        digests.append(last_line(add(store, model=f"pendulum-{number}"))["digest"])
    over, outcomes, states = threading.Event(), {"moved": 0, "told": 0, "collected": 0, "gcs": 0}, []

    def collect():
        while not over.is_set():
            done = last_line(run(store, "gc", "--from", "s3://bucket/w", "--older-than", "0s", "--json"))
            outcomes["gcs"] += 1
            outcomes["collected"] += sum(g["why"] != "named_meanwhile" for g in done["gone"])

    def check():
        """Whatever the ref names at a moment at which nobody is at work on it, seen from the folder."""
        reference = os.path.join(store.root, "bucket", "w", "refs", NAME, "main")
        digest = json.load(open(reference))["digest"]
        folder = version_folder(store, digest)
        number = digests.index(digest)
        have = sorted(name for name in os.listdir(folder) if name != ".outrigger") if os.path.exists(folder) else []
        states.append((number, have, os.path.exists(os.path.join(folder, ".outrigger", "manifest.json"))))
        return have == ["0.json", "1.json", "2.json"] and states[-1][2]

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        for turn in range(40):
            number = turn % 2
            done = subprocess.run([BIN, "weights", "add", path(f"pendulum-{number}"), "--name", NAME, "--to", "s3://bucket/w", "--json"],
                                  capture_output=True, text=True, env=environment(store))
            assert done.returncode in (0, 1), (done.returncode, done.stderr)
            outcomes["moved" if done.returncode == 0 else "told"] += 1
            assert check(), (turn, done.stdout, done.stderr, states[-3:])
    finally:
        over.set()
        collector.join()
    assert check()
    assert outcomes["collected"] > 3 and outcomes["moved"] > 10, outcomes
    print(f"gc and publishers at once: {outcomes}")


def another_object_under_the_same_name_is_noticed():
    """Among the first ranges of a file, which are asked for together, and later, when they name the object that they want."""
    store = new_store()
    digest = last_line(add(store))["digest"]
    key = f"bucket/w/models/{NAME}/{digest[7:19]}/model-00001*"
    end = os.path.getsize(path("model", "model-00001-of-00002.safetensors")) - 1
    for number, (url, is_late) in enumerate([("s3://bucket/w", False), ("s3://bucket/w", True), (f"{store.url}/bucket/w", True)]):
        before = len(store.lines())
        if is_late:
            # The last range comes two seconds after the others: how many are asked for together is the pull's to decide.
            store.fault("status", status=503, retry_after_s=1, key=key, operation="GetObject", offset=end, times=2)
            store.fault("etag", key=key, operation="GetObject", offset=end, skip=2, times=1)
        else:
            store.fault("etag", key=key, operation="GetObject", skip=1, times=1)
        done = last_line(run(store, "pull", NAME, "--from", url, "--to", path(f"etag-{number}"), "--json"))
        assert done["changed_files"] == 1, (number, done)
        weights.same(path(f"etag-{number}"))
        store.settled()
        refused = [line for line in store.lines()[before:] if line["status"] == 412]
        # The second range of all is mostly asked for before the first has told which object it is of.
        assert len(refused) in ((1,) if is_late else (0, 1)), (number, refused)
        store.heal()


def a_store_that_always_says_that_it_is_another_is_given_up():
    store, target = new_store(), new_store()
    digest = last_line(add(store, model="mid"))["digest"]
    store.fault("status", status=412, operation="GetObject", key=f"bucket/w/models/{NAME}/{digest[7:19]}/model-00001*")
    pull = started(store, "pull", NAME, "--from", "s3://bucket/w", "--to", path("always-another"))
    replicate = started(target, "replicate", NAME, "--from", f"{store.url}/bucket/w", "--to", "s3://bucket/w")
    try:
        for process in (pull, replicate):
            said = process.communicate(timeout=100)[1]
            assert process.returncode == 3 and "says each time that it is another file" in said, (process.returncode, said)
    finally:
        pull.kill()
        replicate.kill()
        shutil.rmtree(path("state"), ignore_errors=True)


def by_googles_dialect():
    """The test store's, which knows generations; not Google's own."""
    store = new_store()
    google = {"GOOGLE_STORAGE_ENDPOINT": store.url, "GOOGLE_OAUTH_ACCESS_TOKEN": "token"}
    command = ["add", path("mid"), "--name", NAME, "--to", "gs://bucket/w", "--json"]
    store.fault("reset", operation="UploadPart", every=2, times=2)
    store.fault("lose_answer", operation="PutObject", every=3, times=3)
    digest = last_line(run(None, *command, **google))["digest"]
    assert set(store.heal().values()) == {2, 3}
    whole_at(store, digest, "mid")
    assert last_line(run(None, *command, **google))["known"] is True
    run(None, "pull", NAME, "--from", "gs://bucket/w", "--to", path("from-google"), **google)
    assert sums(path("from-google")) == sums(path("mid"))
    run(None, "rollback", f"{NAME}@canary", "--to", "gs://bucket/w", "--version", digest, **google)
    run(None, "verify", f"{NAME}@canary", "--from", "gs://bucket/w", **google)
    os.unlink(os.path.join(store.root, "bucket", "w", "refs", NAME, "main"))
    os.unlink(os.path.join(store.root, "bucket", "w", "refs", NAME, "canary"))
    gone = last_line(run(None, "gc", "--from", "gs://bucket/w", "--older-than", "0s", "--json", **google))["gone"]
    assert [one["why"] for one in gone] == ["unnamed"] and not os.path.exists(version_folder(store, digest)), gone
    store.fault("lie")
    assert "cannot be published to" in run(None, *command, expect=3, **google).stderr


def what_is_wrong_is_said():
    store = new_store()
    words = run(None, "ls", "--from", "s3://bucket/w", expect=2, AWS_ACCESS_KEY_ID="").stderr
    assert "AWS_ACCESS_KEY_ID is not set" in words, words
    words = run(store, "add", path("model"), "--name", NAME, "--to", "s3://none/w", expect=3).stderr
    assert "there is no bucket none" in words, words
    words = run(None, "ls", "--from", "s3://bucket/w", expect=3, AWS_ENDPOINT_URL="http://127.0.0.1:1").stderr
    assert "cannot connect to 127.0.0.1:1" in words, words
    words = run(store, "add", path("model"), "--name", NAME, "--to", store.url, expect=2).stderr
    assert "read over the web" in words, words
    store.fault("status", status=403, operation="PutObject")
    words = add(store, expect=3).stderr
    assert "may not write" in words and "AWS_ACCESS_KEY_ID" in words, words
    store.heal()
    words = add(store, "--state", "/proc/nowhere", expect=3).stderr
    assert "/proc/nowhere" in words, words
    words = run(store, "add", path("model"), "--name", NAME, "--to", "file:///proc/nowhere", expect=3).stderr
    assert "/proc/nowhere" in words, words
    push = started(store, "add", path("model"), "--name", NAME, "--to", "s3://bucket/w")
    # A process that has only just begun does not know the signal yet, and dies of it; and an upload whose id is not in the journal yet
    # stays with the store. Both large files are on their way.
    while push.poll() is None and sum(upload in journalled() for upload in store.uploads()[0]) < 2:
        time.sleep(0.002)
    push.send_signal(signal.SIGINT)
    assert push.wait() in (0, 130), push.stderr.read()
    push.communicate()
    whole_at(store, last_line(add(store))["digest"])


class Files(BaseHTTPRequestHandler):
    """A folder by ranges."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        from urllib.parse import unquote

        file = path(unquote(self.path).lstrip("/"))
        if not os.path.isfile(file):
            return self.send_error(404)
        with open(file, "rb") as source:
            body = source.read()
        wanted = self.headers.get("range")
        first, last = map(int, wanted.removeprefix("bytes=").split("-")) if wanted else (0, len(body) - 1)
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("content-range", f"bytes {first}-{last}/{len(body)}")
        self.send_header("content-length", str(last + 1 - first))
        self.end_headers()
        self.wfile.write(body[first : last + 1])


def over_tls():
    run(None, "add", path("model"), "--name", NAME, "--to", f"file://{path('tls-store')}")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", path("key.pem"), "-out", path("cert.pem")],
        check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path("cert.pem"), path("key.pem"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    server.daemon_threads = True
    server.handle_error = lambda *_: None
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"https://localhost:{server.server_port}/tls-store"
    run(None, "pull", NAME, "--from", url, "--to", path("by-tls"), SSL_CERT_FILE=path("cert.pem"))
    weights.same(path("by-tls"))
    words = run(None, "pull", NAME, "--from", url, "--to", path("by-tls-2"), expect=3).stderr
    assert "cannot speak TLS to localhost" in words and "SSL_CERT_FILE" in words, words
    other = url.replace("localhost", "127.0.0.1")
    words = run(None, "pull", NAME, "--from", other, "--to", path("by-tls-3"), expect=3, SSL_CERT_FILE=path("cert.pem")).stderr
    assert "cannot speak TLS to 127.0.0.1" in words, words
    plain = url.replace("https://", "http://")
    run(None, "pull", NAME, "--from", plain, "--to", path("by-tls-4"), expect=3)
    server.shutdown()


def named(test):
    return (test.__name__.replace("_", " "), test)


def gc_deletes_nothing_where_a_ref_cannot_be_read():
    store = new_store()
    folder = f"file://{path('garbled')}"
    digest = last_line(run(store, "add", path("model"), "--name", NAME, "--to", folder, "--json"))["digest"]
    ref = path("garbled", "refs", NAME, "main")
    for garbled in ("", "{}", '{"schema":"outrigger.ref/v1"}', '{"digest":"%s","schema":"outrigger.ref/v2"}' % digest):
        with open(ref, "w") as out:
            out.write(garbled)
        said = run(store, "gc", "--from", folder, "--older-than", "0s", "--keep", "0", expect=1).stderr
        assert f"refs/{NAME}/main is not a ref" in said and "rollback" in said, said
        assert sums(path("garbled", "models", NAME, digest[7:19])) == sums(path("model"))
    os.unlink(ref)
    run(store, "rollback", NAME, "--to", folder, "--version", digest)
    run(store, "gc", "--from", folder, "--older-than", "0s", "--keep", "0")
    assert sums(path("garbled", "models", NAME, digest[7:19])) == sums(path("model"))


def uploads_whose_id_was_lost_are_ended_by_gc():
    """When they are old, and not those that a push of this machine is at work on."""
    store = new_store()
    store.fault("lose_answer", operation="CreateMultipartUpload", times=2)
    digest = last_line(add(store, model="mid"))["digest"]
    assert store.heal() == {"lose_answer": 2}
    gc = lambda *more: last_line(run(store, "gc", "--from", "s3://bucket/w", "--json", *more))
    assert len(store.uploads()[0]) == 2
    assert gc()["gone"] == [] and len(gc("--older-than", "0s", "--dry-run")["gone"]) == 2 == len(store.uploads()[0])
    # What else is in the bucket is somebody else's.
    request = urllib.request.Request(f"{store.url}/bucket/w/models/x/y/not-ours/z?uploads", method="POST")
    urllib.request.urlopen(request, timeout=30).close()
    store.fault("status", status=403, operation="ListMultipartUploads")
    told = gc("--older-than", "0s")
    assert told["gone"] == [] and "may not list the uploads of models in bucket" in told["notes"][0], told
    store.heal()
    # One that is at work, and has its ids in a journal.
    store.fault("slow", operation="UploadPart", bytes_per_second=8 * MIB)
    push = started(store, "add", path("mid"), "--name", "acme/live", "--to", "s3://bucket/w")
    journals = lambda: "".join(open(file).read() for file in glob.glob(path("state", "outrigger", "uploads", "*")))
    while push.poll() is None and journals().count('"event":"begun"') < 2:
        time.sleep(0.002)
    live = {line["id"] for line in map(json.loads, journals().splitlines()) if line.get("event") == "begun"}
    gone = gc("--older-than", "0s")["gone"]
    assert [one["why"] for one in gone if NAME in one["what"]] == ["upload", "upload"] and len(live) == 2, gone
    assert live <= set(store.uploads()[0]) and len(store.uploads()[0]) == 3, (live, store.uploads())
    push.kill()
    push.communicate()
    store.heal()
    store.settled()
    gc("--older-than", "0s")
    assert len(store.uploads()[0]) == 1 and os.listdir(path("state", "outrigger", "uploads")) == []
    assert sums(version_folder(store, digest)) == sums(path("mid"))


def no_secret_of_an_address_is_printed():
    store = new_store()
    for address in ("https://ci:hunter2@127.0.0.1/w", "https://127.0.0.1/w?X-Amz-Signature=hunter2", "s3://key:hunter2@bucket/w"):
        for more in ((), ("--max-egress-usd", "1")):
            said = run(store, "pull", NAME, "--from", address, "--to", path("nowhere"), *more, expect=2).stderr
            assert "hunter2" not in said and "127.0.0.1" in said + "127.0.0.1" * address.startswith("s3"), said


TESTS = [
    pushed_and_pulled,
    killed_pushes_go_on,
    killed_replication_goes_on,
    damage_at_rest_is_not_replicated,
    damage_at_rest_is_found_and_repaired,
    signed_in_a_bucket,
    unchanged_files_are_copied,
    of_two_publishers_one_wins,
    a_store_that_lies_is_refused,
    refs_move_back_and_old_versions_go,
    gc_and_publishers_at_once,
    another_object_under_the_same_name_is_noticed,
    a_store_that_always_says_that_it_is_another_is_given_up,
    by_googles_dialect,
    what_is_wrong_is_said,
    gc_deletes_nothing_where_a_ref_cannot_be_read,
    uploads_whose_id_was_lost_are_ended_by_gc,
    no_secret_of_an_address_is_printed,
    over_tls,
]


def main():
    make_model(path("model"), 160)
    # Two files of more than one part each.
    make_model(path("mid"), 40)
    faults = [("flip", {}), ("reset", {}), ("truncate", {}), ("status", {"retry_after_s": 0}), ("lose_answer", {})]
    tests = [named(test) for test in TESTS]
    tests += [(f"fault: {kind}", lambda kind=kind, more=more: faults_on_the_wire_are_survived(kind, **more)) for kind, more in faults]
    passed = failed = 0
    for name, test in [t for t in tests if os.environ.get("ONLY", "") in t[0]]:
        began = time.monotonic()
        try:
            test()
            passed += 1
            print(f"ok      {name} ({time.monotonic() - began:.1f} s)", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
            shutil.rmtree(path("state"), ignore_errors=True)
        while stores:
            stores.pop().stop()
        for folder in glob.glob(path("s3-*")):
            shutil.rmtree(folder)
    print(f"{passed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    try:
        status = main()
    finally:
        for store in stores:
            store.stop()
        shutil.rmtree(weights.folder, ignore_errors=True)
    sys.exit(status > 0)
