"""A new version over an old one: what `diff` says, and what `pull --reuse` fetches, as read from nginx's own log.

Run by ./test with OUTRIGGER_BIN set; the last line is `N passed, N failed`. Models are made here, so that what changed is known
to the byte; which tensors a file has and what is in them is known from the making, not from outrigger.
"""

import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import time

import weights
from weights import MIB, Nginx, last_line, path, run

NAME = "acme/delta"
CHUNK = 16 * MIB
source = random.Random(11)


def tensors(*lengths):
    return {f"layers.{at}.weight": source.randbytes(length) for at, length in enumerate(lengths)}


def write(where, shards, metadata="1", config=b"{}\n"):
    """A model; its safetensors headers, whose lengths are a header chunk's."""
    shutil.rmtree(where, ignore_errors=True)
    os.makedirs(where)
    headers = []
    for number, shard in enumerate(shards):
        header, at = {"__metadata__": {"note": metadata}}, 0
        for name, data in shard.items():
            header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [at, at + len(data)]}
            at += len(data)
        text = json.dumps(header).encode()
        headers.append(8 + len(text))
        with open(os.path.join(where, f"model-{number}.safetensors"), "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for data in shard.values():
                out.write(data)
    for name, text in {"config.json": config, "tokenizer.json": b"t" * 3_000_000}.items():
        with open(os.path.join(where, name), "wb") as out:
            out.write(text)
    return headers


def store():
    return f"file://{path('store')}"


def publish(shards, ref, **more):
    headers = write(path("model"), shards, **more)
    run("add", path("model"), "--name", NAME, "--to", store(), "--ref", ref)
    return headers


def pulled(ref, *more):
    """Pulls a version anew; what nginx sent of its files, and what the pull says."""
    nginx = Nginx()
    to = path(f"pulled-{ref}")
    shutil.rmtree(to, ignore_errors=True)
    done = last_line(run("pull", f"{NAME}@{ref}", "--from", nginx.url, "--to", to, "--json", *more))
    sent, lines = nginx.sent()
    nginx.stop()
    assert weights.sums(to) == weights.sums(path("model")), f"{to} is not what was added"
    assert sent == done["fetched"] and done["kept"] == 0, (sent, done)
    assert done["reused"] + sent == done["total"], done
    return sent, len(lines), done


def diffed(before, after, at=None):
    return last_line(run("diff", before, after, "--from", at or store(), "--json"))


# Grouped by 16 MiB: 0 to 9 together; 10 by itself in three chunks; 11 to 14 in two groups; 15 in two chunks.
LENGTHS = [*[700_000] * 10, 40 * MIB, *[7 * MIB] * 4, 20 * MIB]


def setup():
    base = [tensors(*LENGTHS), tensors(*LENGTHS[::-1])]
    globals()["BASE"] = base
    publish(base, "main")
    sent, _, _ = pulled("main")
    assert sent == weights.total()


def changed(*places):
    """The base with a byte changed in each of these tensors."""
    shards = [dict(shard) for shard in BASE]
    for shard, number in places:
        name = f"layers.{number}.weight"
        data = bytearray(shards[shard][name])
        data[len(data) // 2] ^= 1
        shards[shard][name] = bytes(data)
    return shards


def changed_tensors_cost_their_chunks():
    for ref, places, expect in [
        # One of a group: the group. One byte of a large one: its chunk of 16 MiB.
        ("small", [(0, 3)], 10 * 700_000),
        ("large", [(0, 10)], CHUNK),
        ("several", [(0, 10), (0, 12), (1, 0)], CHUNK + 14 * MIB + CHUNK),
    ]:
        publish(changed(*places), ref)
        sent, requests, _ = pulled(ref, "--reuse", path("pulled-main"))
        touched = sum(LENGTHS[n] if shard == 0 else LENGTHS[::-1][n] for shard, n in places)
        # The bar: the bytes of what changed, and a chunk for each run of it.
        assert sent == expect and sent <= touched + len(places) * CHUNK, (ref, sent, expect)
        found = diffed(f"{NAME}@main", f"@{ref}")
        assert found["pull"] == {"bytes": sent, "requests": requests}, (found["pull"], sent, requests)
        names = {(int(re.search(r"\d", c["path"])[0]), name) for c in found["changed"] for name in c["tensors"]["changed"]}
        assert names == {(shard, f"layers.{n}.weight") for shard, n in places}, (ref, names)
        assert all(not c["tensors"]["may_have_changed"] for c in found["changed"])
        print(f"bar: {ref}: {len(places)} tensors changed, {sent} bytes sent of {weights.total()}")


def over_the_network_a_shared_chunk_is_a_doubt():
    """What fills its chunks is told by their hashes; of what shares one, only that it may have changed."""
    publish(changed((0, 3), (0, 10)), "doubt")
    nginx = Nginx()
    found = diffed(f"{NAME}@main", "@doubt", nginx.url)["changed"][0]["tensors"]
    sent, _ = nginx.sent()
    nginx.stop()
    assert found["changed"] == ["layers.10.weight"] and found["may_have_changed"] == [f"layers.{n}.weight" for n in range(10)], found
    assert sent < 64_000, f"{sent} bytes for two headers"


def metadata_costs_the_header():
    headers = publish(BASE, "note", metadata="another, and longer than the one before" * 10)
    sent, _, _ = pulled("note", "--reuse", path("pulled-main"))
    assert sent == sum(headers) < MIB, (sent, headers)
    assert diffed(f"{NAME}@main", "@note")["changed"][0]["tensors"] == {
        "added": [], "removed": [], "changed": [], "may_have_changed": [], "unchanged": len(LENGTHS)}
    publish(BASE, "config", config=b'{"eos_token_id": 2}\n')
    sent, _, _ = pulled("config", "--reuse", path("pulled-main"))
    assert sent == len(b'{"eos_token_id": 2}\n'), sent
    print(f"bar: metadata only: {sum(headers)} bytes sent, a file of configuration: {sent}")


def an_added_head_costs_itself_and_the_header():
    shards = [dict(BASE[0]), {**BASE[1], "lm_head.weight": source.randbytes(24 * MIB)}]
    headers = publish(shards, "head")
    sent, _, _ = pulled("head", "--reuse", path("pulled-main"))
    assert sent == headers[1] + 24 * MIB + 0, (sent, headers)
    found = diffed(f"{NAME}@main", path("pulled-head"))
    assert [c["tensors"]["added"] for c in found["changed"]] == [["lm_head.weight"]] and found["pull"]["bytes"] == sent
    back = diffed(f"{NAME}@head", "@main")
    assert [c["tensors"]["removed"] for c in back["changed"]] == [["lm_head.weight"]] and back["pull"]["bytes"] < MIB


def files_come_and_go():
    write(path("model"), BASE)
    os.rename(path("model", "model-0.safetensors"), path("model", "renamed.safetensors"))
    os.remove(path("model", "tokenizer.json"))
    run("add", path("model"), "--name", NAME, "--to", store(), "--ref", "renamed")
    # The folder above stands for the finished versions of this model in it.
    versions = folder_of_versions()
    assert pulled("renamed", "--reuse", versions)[0] == weights.total(), "an unfinished version or another model's was used"
    shutil.copytree(path("pulled-main"), os.path.join(versions, "a"))
    sent, _, done = pulled("renamed", "--reuse", versions)
    assert sent == 0 and done["reused"] == weights.total()
    found = diffed(f"{NAME}@main", "@renamed")
    assert [f["path"] for f in found["added"]] == ["renamed.safetensors"] and found["pull"]["bytes"] == 0
    assert [f["path"] for f in found["removed"]] == ["model-0.safetensors", "tokenizer.json"]
    # A directory that was never pulled is as good.
    sent, _, _ = pulled("renamed", "--reuse", path("model"))
    assert sent == 0
    assert diffed(path("model"), f"{NAME}@renamed")["pull"]["bytes"] == 0
    assert "--from" in run("diff", f"{NAME}@main", "@renamed", expect=2).stderr


def folder_of_versions():
    """Two that must not be used: one of another model, and one that has not ended."""
    versions = path("versions")
    os.makedirs(versions)
    unfinished = shutil.copytree(path("pulled-main"), os.path.join(versions, "b"))
    os.remove(os.path.join(unfinished, ".outrigger", "READY"))
    run("add", path("model"), "--name", "acme/other", "--to", store())
    run("pull", "acme/other", "--from", store(), "--to", os.path.join(versions, "c"))
    return versions


def nothing_is_believed_of_the_old_version():
    """It is damaged where its manifest and READY say otherwise, a file is a link and one is cut short."""
    write(path("model"), BASE)
    shutil.copytree(path("pulled-main"), path("old"))
    file = path("old", "model-0.safetensors")
    with open(file, "r+b") as out:
        out.seek(os.path.getsize(file) - 5)
        out.write(b"wrong")
    before = weights.sums(path("old"))
    os.remove(path("old", "config.json"))
    os.symlink(path("model", "config.json"), path("old", "config.json"))
    os.truncate(path("old", "tokenizer.json"), 1_000)
    sent, _, _ = pulled("main", "--reuse", path("old"))
    assert sent == 4 * MIB + 3 + 3_000_000, sent
    line = lambda text: [row for row in text.splitlines() if "safetensors" in row]
    assert line(weights.sums(path("old"))) == line(before), "the old version was written to"
    inodes = lambda where: {os.stat(os.path.join(where, f)).st_ino for f in os.listdir(where) if f.endswith("s")}
    assert not inodes(path("old")) & inodes(path("pulled-main")), "a link was made"


def a_kill_while_copying_loses_nothing():
    # Slow enough for a kill that comes late.
    nginx = Nginx("8m")
    to = path("pulled-several")
    shutil.rmtree(to)
    write(path("model"), changed((0, 10), (0, 12), (1, 0)))
    process = subprocess.Popen([weights.BIN, "weights", "pull", f"{NAME}@several", "--from", nginx.url, "--to", to, "--reuse", path("pulled-main")],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = os.path.join(to, ".outrigger", "journal")
    while process.poll() is None and (not os.path.exists(journal) or os.path.getsize(journal) < 41):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = last_line(run("pull", f"{NAME}@several", "--from", nginx.url, "--to", to, "--reuse", path("pulled-main"), "--json"))
    assert done["kept"] > 0 and nginx.settled() <= 2 * CHUNK + 14 * MIB + 48 * MIB, done
    assert weights.sums(to) == weights.sums(path("model"))
    nginx.stop()


def main():
    if not os.access(weights.NGINX, os.X_OK):
        print("nginx is missing: what is fetched of a new version was not tested\n0 passed, 0 failed")
        return 0
    tests = [setup, changed_tensors_cost_their_chunks, over_the_network_a_shared_chunk_is_a_doubt, metadata_costs_the_header,
             an_added_head_costs_itself_and_the_header, files_come_and_go, nothing_is_believed_of_the_old_version,
             a_kill_while_copying_loses_nothing]
    return weights.play([(test.__name__.replace("_", " "), test) for test in tests])


if __name__ == "__main__":
    weights.ended(main)
