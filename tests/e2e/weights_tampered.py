"""Thousands of corruptions of weights, each of which has to be found: on the disk, in the journal, in the store, on the wire, in
manifests and in signatures. What was fetched again is read from the store's own ledger.

Run by ./test with OUTRIGGER_BIN set; the last line is `N passed, N failed`. `weights_tampered.py COUNT` injects so many faults; the seed
is SEED, or 1. A model of a few small files, so that a fault costs milliseconds: each safetensors file has two chunks, its header
and its data, every other file one. Another has one long chunk.
"""

import json
import os
import random
import shutil
import struct
import subprocess
import sys
import time

import weights
from weights import MIB, Liar, NAME, last_line, path, run

KEYS = [path("signer.pem"), path("signer.pub")]
FILES = 6
LONG = 5 * MIB + 77
DATA = 40_000


def store():
    return f"file://{path('store')}"


def make_model(where, source):
    os.makedirs(where)
    for number in range(FILES):
        # All data is as long, so that chunks can be swapped and nothing else changes.
        lengths = [source.randrange(1, 9_000) for _ in range(4)]
        lengths.append(DATA - sum(lengths))
        header, at = {}, 0
        for index, length in enumerate(lengths):
            header[f"layers.{index}"] = {"dtype": "U8", "shape": [length], "data_offsets": [at, at + length]}
            at += length
        text = json.dumps(header).encode()
        with open(os.path.join(where, f"model-{number}.safetensors"), "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text + source.randbytes(at))
    for name in ["config.json", "tokenizer.json"]:
        with open(os.path.join(where, name), "wb") as out:
            out.write(source.randbytes(5_000))


def chunks_of(name):
    """Where the chunks of a file of the model are, from the format and not from the manifest."""
    file = path("model", name)
    size = os.path.getsize(file)
    if not name.endswith(".safetensors"):
        return [(0, size)]
    with open(file, "rb") as source:
        head = 8 + struct.unpack("<Q", source.read(8))[0]
    return [(0, head), (head, size)]


def flip(file, at, source):
    with open(file, "r+b") as out:
        out.seek(at)
        byte = out.read(1)[0]
        out.seek(at)
        out.write(bytes([byte ^ (1 << source.randrange(8))]))


class Campaign:
    def __init__(self, seed):
        self.source = random.Random(seed)
        self.server = Liar(self.fault)
        self.bad = None
        self.names = sorted(os.listdir(path("model")))
        self.version = self.version_of("main")
        self.counts = {}

    def fault(self, asked, times):
        """One answer goes wrong: the first one for the file that was chosen."""
        if self.bad and self.bad[0] in asked:
            kind, self.bad = self.bad[1], None
            return kind
        return None

    def version_of(self, ref):
        return last_line(run("show", f"{NAME}@{ref}", "--from", store(), "--json"))["digest"]

    def folder(self, digest, root="store"):
        return path(root, "models", NAME, digest[7:19])

    def fresh(self, of):
        shutil.rmtree(path("trial"), ignore_errors=True)
        shutil.copytree(path(of), path("trial"))
        return path("trial")

    def pull(self, to, expect=0, url=None, ref="main"):
        before = self.server.sent
        done = run("pull", f"{NAME}@{ref}", "--from", url or self.server.url, "--to", to, "--json", expect=expect)
        ready = os.path.exists(os.path.join(to, ".outrigger", "READY"))
        assert ready == (expect == 0), "READY says what is not so"
        return self.server.sent - before, last_line(done)

    def same(self, to):
        assert weights.sums(to) == SUMS, "bytes are wrong"

    def disk_flip(self):
        """A bit of a pulled file: verify names the file, and a pull fetches its chunk and nothing else."""
        to, name = self.fresh("good"), self.source.choice(self.names)
        at = self.source.randrange(os.path.getsize(path("model", name)))
        flip(os.path.join(to, name), at, self.source)
        found = last_line(run("verify", to, "--json", expect=1))["problems"]
        assert [p["path"] for p in found] == [name], found
        sent, _ = self.pull(to)
        hit = [end - begin for begin, end in chunks_of(name) if begin <= at < end]
        assert sent == sum(hit), (name, at, sent, hit)
        self.same(to)

    def swapped_chunks(self):
        """The data of two files, each where the other's belongs."""
        to = self.fresh("good")
        one, other = self.source.sample([n for n in self.names if n.endswith("safetensors")], 2)
        data = {name: open(path("model", name), "rb").read() for name in [one, other]}
        (a, a_end), (b, b_end) = chunks_of(one)[1], chunks_of(other)[1]
        for name, content in [(one, data[one][:a] + data[other][b:b_end]), (other, data[other][:b] + data[one][a:a_end])]:
            with open(os.path.join(to, name), "wb") as out:
                out.write(content)
        found = {p["path"] for p in last_line(run("verify", to, "--json", expect=1))["problems"]}
        assert found == {one, other}, found
        sent, _ = self.pull(to)
        assert sent == (a_end - a) + (b_end - b), sent
        self.same(to)

    def torn_journal(self):
        """Of a pull that was interrupted: cut, flipped, with rubbish, forged with claims that were true of another state, or not there."""
        to = self.fresh("half")
        journal = os.path.join(to, ".outrigger", "journal")
        text = open(journal, "rb").read()
        late = open(path("late", ".outrigger", "journal"), "rb").read()
        kind = self.source.choice(["cut", "flip", "rubbish", "forged", "none", "other"])
        if kind == "cut":
            text = text[: self.source.randrange(len(text))]
        elif kind == "flip":
            at = self.source.randrange(len(text))
            text = text[:at] + bytes([text[at] ^ (1 << self.source.randrange(8))]) + text[at + 1 :]
        elif kind == "rubbish":
            text += self.source.randbytes(self.source.randrange(1, 99))
        elif kind == "forged":
            records = [late[at : at + 16] for at in range(40, len(late), 16)]
            text += b"".join(self.source.sample(records, self.source.randrange(1, len(records) + 1)))
        elif kind == "none":
            text = b""
        else:
            text = text[:8] + self.source.randbytes(32) + text[40:]
        with open(journal, "wb") as out:
            out.write(text)
        sent, done = self.pull(to)
        assert sent >= LACKING and sent == done["fetched"] and sent + done["kept"] == done["total"], (kind, sent, LACKING)
        if kind in ("rubbish", "forged"):
            assert sent == LACKING, (kind, sent, LACKING)
        self.same(to)

    def damaged_part(self):
        """A bit of a half-pulled file, that the journal vouches for."""
        to = self.fresh("half")
        parts = os.path.join(to, ".outrigger", "parts")
        there = [os.path.join(parts, name) for name in sorted(os.listdir(parts))]
        there += [os.path.join(to, name) for name in self.names if os.path.exists(os.path.join(to, name))]
        file = self.source.choice([f for f in there if os.path.getsize(f)])
        at = self.source.randrange(os.path.getsize(file))
        flip(file, at, self.source)
        sent, done = self.pull(to)
        name = self.names[int(os.path.basename(file))] if file.startswith(parts) else os.path.basename(file)
        hit = next(end - begin for begin, end in chunks_of(name) if begin <= at < end)
        # In a hole of a part it damages nothing.
        assert sent + done["kept"] == done["total"] and sent - LACKING in ((0, hit) if file.startswith(parts) else (hit,)), (name, at, sent)
        self.same(to)

    def damaged_beginning(self):
        """Of a chunk that was cut off: a bit, a lost write, or the part itself. As it was left it goes on, and otherwise costs its chunk."""
        to = self.fresh("begun")
        part = os.path.join(to, ".outrigger", "parts", "0")
        kind, at = self.source.choice(["none", "flip", "zeros", "short"]), self.source.randrange(BEGUN)
        if kind == "flip":
            flip(part, at, self.source)
        elif kind == "zeros":
            with open(part, "r+b") as out:
                out.seek(at)
                out.write(bytes(BEGUN - at))
        elif kind == "short":
            os.truncate(part, at)
        sent, done = self.pull(to, ref="long")
        again = {"none": 0, "short": BEGUN}.get(kind, LONG)
        assert (sent, done["wrong_chunks"]) == (LONG - BEGUN + again, 0), (kind, at, sent, done)
        assert done["kept"] == (BEGUN if kind == "none" else 0), done
        assert weights.sums(to) == weights.sums(path("long"))

    def wire(self):
        """One answer of the store with a bit flipped, zeros, an end too early, a reset, or another range."""
        to = path("trial")
        shutil.rmtree(to, ignore_errors=True)
        name, kind = self.source.choice(self.names), self.source.choice(["flip", "zeros", "truncate", "reset", "wrong-range"])
        self.bad = (name, kind)
        sent, done = self.pull(to)
        assert self.bad is None, "the fault was not injected"
        assert sent <= done["total"] + os.path.getsize(path("model", name)), (kind, sent)
        if kind == "flip":
            assert done["wrong_chunks"] == 1, done
        self.same(to)

    def damaged_store(self):
        """A bit of a file where it lies in the store: verify there names it, a pull refuses, and what it refuses is not there."""
        name = self.source.choice(self.names)
        file = os.path.join(self.folder(self.version, "attacked"), name)
        flip(file, self.source.randrange(os.path.getsize(file)), self.source)
        try:
            attacked = f"file://{path('attacked')}"
            found = last_line(run("verify", f"{NAME}@main", "--from", attacked, "--json", expect=1))["problems"]
            assert [p["path"] for p in found] == [name], found
            shutil.rmtree(path("trial"), ignore_errors=True)
            self.pull(path("trial"), 1, attacked)
            assert not os.path.exists(path("trial", name)), "a damaged file is in its place"
        finally:
            shutil.copy(path("model", name), file)

    def tampered_manifest(self):
        """A bit of the manifest in the store or in the directory, or another version's manifest in its place."""
        other = self.source.random() < 0.3
        theirs = open(os.path.join(self.folder(self.version_of("other")), ".outrigger", "manifest.json"), "rb").read() if other else None
        in_store = self.source.random() < 0.5
        to = self.fresh("good")
        file = os.path.join(self.folder(self.version, "attacked") if in_store else to, ".outrigger", "manifest.json")
        good = open(file, "rb").read()
        if other:
            with open(file, "wb") as out:
                out.write(theirs)
        else:
            flip(file, self.source.randrange(len(good)), self.source)
        try:
            if in_store:
                attacked = f"file://{path('attacked')}"
                shutil.rmtree(path("trial"))
                self.pull(path("trial"), 1, attacked)
                assert not os.path.exists(path("trial"))
                run("verify", f"{NAME}@main", "--from", attacked, expect=1)
            else:
                run("verify", to, expect=1)
                before = self.server.sent
                run("pull", f"{NAME}@main", "--from", self.server.url, "--to", to, expect=2)
                assert self.server.sent == before
                self.same(to)
        finally:
            with open(file, "wb") as out:
                out.write(good)

    def tampered_signature(self):
        """A bit of what a signature says or is, or the signature of another version."""
        to = self.fresh("good")
        file = os.path.join(to, ".outrigger", "model.sig")
        text = open(file, "rb").read()
        bundle = json.loads(text)
        values = [bundle["dsseEnvelope"]["payload"], bundle["dsseEnvelope"]["signatures"][0]["sig"], bundle["mediaType"],
                  bundle["dsseEnvelope"]["payloadType"], bundle["verificationMaterial"]["publicKey"]["hint"]]
        value = self.source.choice([*values[:2], *values]).encode()
        if self.source.random() < 0.1:
            shutil.copy(os.path.join(self.folder(self.version_of("other")), ".outrigger", "model.sig"), file)
        else:
            flip(file, text.index(value) + self.source.randrange(len(value)), self.source)
        run("verify", to, "--key", KEYS[1], expect=1)

    KINDS = [disk_flip, swapped_chunks, torn_journal, damaged_part, damaged_beginning, wire, damaged_store, tampered_manifest, tampered_signature]


def setup(source):
    global SUMS, LACKING
    subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", KEYS[0]], check=True)
    subprocess.run(["openssl", "ec", "-in", KEYS[0], "-pubout", "-out", KEYS[1]], check=True, capture_output=True)
    make_model(path("model"), source)
    SUMS = weights.sums(path("model"))
    make_model(path("model-other"), source)
    for model, ref in [("model", "main"), ("model-other", "other")]:
        run("add", path(model), "--name", NAME, "--to", store(), "--ref", ref)
        run("sign", f"{NAME}@{ref}", "--from", store(), "--key", KEYS[0])
    shutil.copytree(path("store"), path("attacked"))
    run("pull", NAME, "--from", store(), "--to", path("good"), "--key", KEYS[1])
    # Pulls that a budget has stopped, half-way and late.
    size = weights.total()
    for name, share in [("half", 0.5), ("late", 0.97)]:
        stop = ["--egress-usd-per-gb", "1000", "--max-egress-usd", f"{size * share / 1e6:.6f}"]
        words = run("pull", NAME, "--from", store(), "--to", path(name), *stop, expect=1).stderr
        if name == "half":
            LACKING = int(words.split(" bytes are missing")[0].split()[-1])
    assert 0 < LACKING < size
    begin_long(source)


def begin_long(source):
    """A pull of one long chunk, of which each answer is cut off half-way until no MiB more comes of it."""
    global BEGUN
    os.makedirs(path("long"))
    with open(path("long", "long.bin"), "wb") as out:
        out.write(source.randbytes(LONG))
    run("add", path("long"), "--name", NAME, "--to", store(), "--ref", "long")
    server = Liar(lambda *_: "truncate")
    run("pull", f"{NAME}@long", "--from", server.url, "--to", path("begun"), expect=3)
    with open(path("begun", ".outrigger", "parts", "0"), "rb") as part, open(path("long", "long.bin"), "rb") as whole:
        there = part.read()
        BEGUN = next(at for at in range(0, LONG, MIB) if there[at : at + MIB] != whole.read(MIB))
    assert BEGUN >= 2 * MIB
    server.shutdown()


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 162
    seed = int(os.environ.get("SEED", "1"))
    setup(random.Random(seed))
    campaign = Campaign(seed)

    def play(kind):
        began = time.monotonic()
        for number in range(count // len(Campaign.KINDS)):
            try:
                kind(campaign)
            except Exception as error:
                raise AssertionError(f"{kind.__name__} {number} of seed {seed} was not found, or cost too much") from error
        campaign.counts[kind.__name__] = count // len(Campaign.KINDS)
        print(f"        {campaign.counts[kind.__name__]} of {kind.__name__} in {time.monotonic() - began:.0f} s", flush=True)

    def all_were_found():
        found = sum(campaign.counts.values())
        assert found == count // len(Campaign.KINDS) * len(Campaign.KINDS)
        print(f"bar: {found} of {found} faults found, none of them READY")

    kinds = [(kind.__name__.replace("_", " "), lambda kind=kind: play(kind)) for kind in Campaign.KINDS]
    return weights.play([*kinds, ("all were found", all_were_found)])


if __name__ == "__main__":
    weights.ended(main)
