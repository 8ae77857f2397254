"""Weights pulled from a real nginx and killed on the way, and from a store that lies: what arrives is judged by sha256sum, what
was sent by nginx's own log and the store's own ledger.

Run by ./test with OUTRIGGER_BIN set; the last line is `N passed, N failed`. ONLY=words plays the tests whose names hold them. The long
forms, which use what is here, are bench/weights_kills.py and bench/weights_speed.py.
"""

import collections
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("OUTRIGGER_BIN") or os.path.join(ROOT, "target", "debug", "outrigger")
NGINX = shutil.which("nginx") or os.path.join(ROOT, ".tools", "nginx", "bin", "nginx")
MIB = 1 << 20
# What a kill may cost: what was asked for and not hashed.
MOST_RESENT = 64 * MIB
# What a connection brings each second to a pull that is to be killed: a run takes most of a second, so that a kill may be late.
KILLED = "20m"
NAME = "acme/tiny"
folder = tempfile.mkdtemp(prefix="outrigger-weights-", dir=os.environ.get("OUTRIGGER_WEIGHTS_DIR"))
children = []


def path(*names):
    return os.path.join(folder, *names)


def run(*args, expect=0):
    done = subprocess.run([BIN, "weights", *args], capture_output=True, text=True)
    assert done.returncode == expect, f"{args}: {done.returncode}, wanted {expect}\n{done.stdout}{done.stderr}"
    return done


def last_line(done):
    return json.loads(done.stdout.strip().splitlines()[-1])


def make_model(where, size_mib):
    """Two files of tensors that are a third small and two thirds large, and the small files of a repository."""
    os.makedirs(os.path.join(where, "onnx"))
    source = random.Random(7)
    for number in range(2):
        lengths = [source.randrange(1, 300_000) for _ in range(40)]
        left = size_mib * MIB // 2
        while left > 0:
            lengths.append(min(left, source.randrange(1, 45 * MIB)))
            left -= lengths[-1]
        header, at = {"__metadata__": {"format": "pt"}}, 0
        for index, length in enumerate(lengths):
            header[f"layers.{index}"] = {"dtype": "U8", "shape": [length], "data_offsets": [at, at + length]}
            at += length
        text = json.dumps(header).encode()
        with open(os.path.join(where, f"model-{number + 1:05}-of-00002.safetensors"), "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for length in lengths:
                while length > 0:
                    out.write(source.randbytes(min(length, 4 * MIB)))
                    length -= min(length, 4 * MIB)
    for name, text in {"config.json": b"{}\n", "empty": b"", "onnx/a b+c%.bin": b"x" * 100_000}.items():
        with open(os.path.join(where, name), "wb") as out:
            out.write(text)


def sums(where):
    """By sha256sum, of all files but Outrigger's own."""
    command = "find . -type f -not -path './.outrigger/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum"
    return subprocess.run(["bash", "-c", command], cwd=where, check=True, capture_output=True, text=True).stdout


def same(where):
    assert sums(where) == sums(path("model")), f"{where} is not what was added"
    left = sorted(os.listdir(os.path.join(where, ".outrigger")))
    assert left == ["READY", "lock", "manifest.json"], left


def total():
    return sum(os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(path("model")) for f in files)


class Nginx:
    """A folder behind nginx, with a limit on each connection and a log of what was sent."""

    def __init__(self, limit="0", more="", listen=""):
        self.folder = tempfile.mkdtemp(dir=folder)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.log = os.path.join(self.folder, "access.log")
        config = f"""
daemon off; worker_processes 1; pid {self.folder}/pid; error_log {self.folder}/error.log;
events {{ worker_connections 64; }}
http {{
  log_format bytes '$status $body_bytes_sent $request_uri';
  access_log {self.log} bytes;
  client_body_temp_path {self.folder}/1; proxy_temp_path {self.folder}/2; fastcgi_temp_path {self.folder}/3;
  uwsgi_temp_path {self.folder}/4; scgi_temp_path {self.folder}/5;
  sendfile on; keepalive_requests 50;
  server {{ listen 127.0.0.1:{self.port} {listen}; root {path()}; limit_rate {limit}; {more} location = /logged {{ access_log off; return 204; }} }}
}}
"""
        file = os.path.join(self.folder, "nginx.conf")
        with open(file, "w") as out:
            out.write(config)
        # As root its worker would be another user, who may not read a directory of mkdtemp.
        more = ["-g", "user root;"] if os.getuid() == 0 else []
        self.process = subprocess.Popen([NGINX, "-c", file, "-p", self.folder, *more], stderr=subprocess.DEVNULL)
        children.append(self.process)
        self.url = f"http://127.0.0.1:{self.port}/store"
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None, open(f"{self.folder}/error.log").read()
                time.sleep(0.02)
        raise AssertionError("nginx does not answer")

    def logged(self):
        """Waits until what has been answered is in the log, also what a killed client was sent. A line is written after the last byte has
        left. One worker does one thing after the other, so that who is answered now comes after all that ended before."""
        urllib.request.urlopen(f"http://127.0.0.1:{self.port}/logged", timeout=60).close()

    def sent(self):
        """Bytes of the model's files that nginx has sent so far, by its log; and the lines."""
        self.logged()
        with open(self.log) as log:
            lines = [line.split(" ", 2) for line in log.read().splitlines()]
        files = [line for line in lines if "/models/" in line[2] and "/.outrigger/" not in line[2]]
        return sum(int(line[1]) for line in files), files

    def settled(self):
        """The bytes alone."""
        return self.sent()[0]

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


def killed_pull(url, to, at_bytes, sig=signal.SIGKILL):
    """Starts a pull and kills it when it has said that so many bytes are right; whether it was still running."""
    process = subprocess.Popen([BIN, "weights", "pull", NAME, "--from", url, "--to", to, "--json"], stdout=subprocess.PIPE, text=True)
    parts = os.path.join(to, ".outrigger", "journal")
    written = lambda: (os.stat(parts).st_size - 40) // 16 if os.path.exists(parts) else 0
    # By the journal, since lines of progress come only now and then.
    while process.poll() is None and written() < at_bytes:
        time.sleep(0.001)
    process.send_signal(sig)
    process.stdout.close()
    return process.wait()


def chunks():
    return last_line(run("show", NAME, "--from", f"file://{path('store')}", "--json"))["chunks"]


def kills_lose_little(count):
    size, all_chunks, worst = total(), chunks(), 0
    nginx = Nginx(KILLED)
    to = path("pulled-killed")
    hits = 0
    for number in range(count):
        before = nginx.settled()
        at = max(1, all_chunks * (1 + number * 98 // max(1, count - 1)) // 100) if count > 1 else all_chunks // 2
        code = killed_pull(nginx.url, to, at)
        hits += code == -signal.SIGKILL
        nginx.settled()
        done = last_line(run("pull", NAME, "--from", nginx.url, "--to", to, "--json"))
        resent = nginx.settled() - before - size
        assert done["event"] == "done" and 0 <= resent <= MOST_RESENT, f"kill {number}: {resent} bytes sent again; {done}"
        worst = max(worst, resent)
        same(to)
        shutil.rmtree(to)
    nginx.stop()
    assert hits >= count * 3 // 4, f"only {hits} of {count} kills hit a pull that was running"
    print(f"bar: {hits} of {count} kills hit a running pull of {size / MIB:.0f} MiB; at most {worst / MIB:.1f} MiB sent again by nginx's log")


def two_kills_and_ctrl_c_go_on():
    nginx = Nginx(KILLED)
    to, size, all_chunks = path("pulled-thrice"), total(), chunks()
    assert killed_pull(nginx.url, to, all_chunks // 4) == -signal.SIGKILL
    assert killed_pull(nginx.url, to, all_chunks // 2) == -signal.SIGKILL
    assert killed_pull(nginx.url, to, all_chunks * 3 // 4, signal.SIGINT) == 130
    unfinished = run("verify", to, "--json", expect=1)
    assert last_line(unfinished)["ready"] is False
    run("pull", NAME, "--from", nginx.url, "--to", to)
    resent = nginx.settled() - size
    assert 0 <= resent <= 3 * MOST_RESENT, resent
    same(to)
    before = nginx.settled()
    again = last_line(run("pull", NAME, "--from", nginx.url, "--to", to, "--json"))
    assert again["fetched"] == 0 and again["kept"] == size and nginx.settled() == before
    nginx.stop()


def nothing_is_asked_for_twice():
    nginx = Nginx()
    run("pull", NAME, "--from", nginx.url, "--to", path("pulled"))
    sent, lines = nginx.sent()
    assert sent == total(), (sent, total())
    assert max(int(line[1]) for line in lines) <= 16 * MIB and all(line[0] == "206" for line in lines)
    same(path("pulled"))
    nginx.stop()


def damage_on_disk_is_found_and_mended_alone():
    """Flipped bytes in a pulled file, a file cut short, one deleted, in a part that the journal vouches for."""
    nginx = Nginx(KILLED)
    to = path("pulled-damaged")
    run("pull", NAME, "--from", nginx.url, "--to", to)
    file = os.path.join(to, "model-00001-of-00002.safetensors")
    with open(file, "r+b") as out:
        out.seek(os.path.getsize(file) // 2)
        byte = out.read(1)
        out.seek(-1, 1)
        out.write(bytes([byte[0] ^ 1]))
    os.remove(os.path.join(to, "config.json"))
    found = {p["path"]: p["problem"] for p in last_line(run("verify", to, "--json", expect=1))["problems"]}
    assert found == {"config.json": "missing", "model-00001-of-00002.safetensors": "chunks"}, found
    before = nginx.settled()
    inode = os.stat(file).st_ino
    reader = open(file, "rb")
    run("pull", NAME, "--from", nginx.url, "--to", to)
    assert nginx.settled() - before <= 16 * MIB + 3, "more than the chunk and the file were fetched"
    assert os.stat(file).st_ino != inode and os.fstat(reader.fileno()).st_ino == inode, "a file in use was written to"
    reader.close()
    same(to)
    shutil.rmtree(to)

    killed_pull(nginx.url, to, chunks() // 2)
    parts = os.path.join(to, ".outrigger", "parts")
    part = max((os.path.join(parts, name) for name in os.listdir(parts)), key=lambda p: os.stat(p).st_blocks)
    with open(part, "r+b") as out:
        out.seek(20)
        out.write(b"damaged by somebody")
    with open(os.path.join(to, ".outrigger", "journal"), "ab") as out:
        out.write(b"torn")
    run("pull", NAME, "--from", nginx.url, "--to", to)
    same(to)
    nginx.stop()


def what_is_not_ours_is_not_touched():
    store = f"file://{path('store')}"
    theirs = path("theirs")
    os.makedirs(theirs)
    with open(os.path.join(theirs, "thesis.txt"), "w") as out:
        out.write("mine")
    run("pull", NAME, "--from", store, "--to", theirs, expect=2)
    assert os.listdir(theirs) == ["thesis.txt"]
    linked = path("linked")
    os.makedirs(linked)
    os.symlink(theirs, os.path.join(linked, ".outrigger"))
    run("pull", NAME, "--from", store, "--to", linked, expect=2)
    assert os.listdir(theirs) == ["thesis.txt"]
    run("pull", "acme/other", "--from", store, "--to", path("none"), expect=1)
    assert not os.path.exists(path("none"))
    bad = path("bad")
    os.makedirs(bad)
    os.symlink("/etc/passwd", os.path.join(bad, "config.json"))
    assert "config.json is not a plain file" in run("add", bad, "--name", "acme/bad", "--to", store, expect=2).stderr
    assert [row["model"] for row in last_line(run("ls", "--from", store, "--json"))["refs"]] == [NAME]


def two_pulls_into_one_directory():
    nginx = Nginx("5m")
    to = path("pulled-twice")
    first = subprocess.Popen([BIN, "weights", "pull", NAME, "--from", nginx.url, "--to", to], stdout=subprocess.DEVNULL)
    while not os.path.exists(os.path.join(to, ".outrigger", "journal")):
        time.sleep(0.01)
    assert "is being written by another outrigger" in run("pull", NAME, "--from", nginx.url, "--to", to, expect=3).stderr
    assert first.poll() is None
    first.kill()
    first.wait()
    nginx.stop()
    run("pull", NAME, "--from", f"file://{path('store')}", "--to", to)
    same(to)


def a_full_disk_keeps_what_there_is():
    """Full before, by what the disk says; and filled by another on the way."""
    disk = path("disk")
    os.makedirs(disk)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", disk], capture_output=True)
    if mounted.returncode != 0:
        print("a full disk was not tested: tmpfs cannot be mounted here")
        return
    try:
        store, to = f"file://{path('store')}", os.path.join(disk, "to")
        assert "bytes are missing in" in run("pull", NAME, "--from", store, "--to", to, expect=3).stderr
        subprocess.run(["mount", "-o", "remount,size=330m", disk], check=True)
        # So slow that the disk is made smaller before it is fuller than that.
        nginx = Nginx("8m")
        pulling = subprocess.Popen([BIN, "weights", "pull", NAME, "--from", nginx.url, "--to", to], stderr=subprocess.PIPE, text=True)
        while os.path.getsize(os.path.join(to, ".outrigger", "journal")) < 41:
            time.sleep(0.01)
        subprocess.run(["mount", "-o", "remount,size=150m", disk], check=True)
        words = pulling.communicate()[1]
        assert pulling.returncode == 3 and "No space left on device" in words and "make room" in words, words
        subprocess.run(["mount", "-o", "remount,size=330m", disk], check=True)
        before = nginx.settled()
        done = last_line(run("pull", NAME, "--from", nginx.url, "--to", to, "--json"))
        assert done["kept"] > 48 * MIB and nginx.settled() - before == total() - done["kept"], done
        same(to)
        # What a pull has written and no journal speaks of is written over: it does not have to fit a second time.
        shutil.rmtree(to)
        pulling = subprocess.Popen([BIN, "weights", "pull", NAME, "--from", nginx.url, "--to", to], stderr=subprocess.DEVNULL)
        while (used := 330 * MIB - shutil.disk_usage(disk).free) < 120 * MIB:
            time.sleep(0.005)
        pulling.kill()
        assert pulling.wait() == -signal.SIGKILL, used
        os.truncate(os.path.join(to, ".outrigger", "journal"), 40)
        assert shutil.disk_usage(disk).free < total()
        run("pull", NAME, "--from", store, "--to", to)
        same(to)
        nginx.stop()
    finally:
        subprocess.run(["umount", disk], check=True)


PIECE = 64 << 10


class Liar(ThreadingHTTPServer):
    """The store with faults: a function of what is asked for, and how often it was, says which; `sent` is the ledger."""

    daemon_threads = True
    # Of connections that wait to be taken; one more is tried again after a second.
    request_queue_size = 128

    def __init__(self, fault):
        super().__init__(("127.0.0.1", 0), Answer)
        self.fault, self.sent, self.asked, self.faults, self.lock = fault, 0, collections.Counter(), 0, threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}/store"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer is written in two pieces, and the second would wait for the client's acknowledgement of the first.
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def do_GET(self):
        from urllib.parse import unquote

        file = path(unquote(self.path).lstrip("/"))
        if not os.path.exists(file):
            return self.send_error(404)
        with open(file, "rb") as source:
            wanted = self.headers.get("range")
            size = os.path.getsize(file)
            first, last = map(int, wanted.removeprefix("bytes=").split("-")) if wanted else (0, size - 1)
            source.seek(first)
            body = bytearray(source.read(last - first + 1))
        fault = None
        if wanted:
            with self.server.lock:
                asked = f"{self.path} {last}"
                self.server.asked[asked] += 1
                fault = self.server.fault(asked, self.server.asked[asked])
                self.server.faults += fault is not None
        if fault == "503":
            self.send_response(503)
            self.send_header("retry-after", "0")
            self.send_header("content-length", "0")
            return self.end_headers()
        self.send_response(206 if wanted else 200)
        if fault == "wrong-range":
            first += 1
        if wanted:
            self.send_header("content-range", f"bytes {first}-{last}/{size}")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if fault == "flip":
            body[len(body) // 3] ^= 4
        if fault == "zeros":
            body[len(body) // 2 :] = bytes(len(body) - len(body) // 2)
        if fault in ("truncate", "reset"):
            body = body[: len(body) // 2]
        # Counted before it is sent: whoever has received it finds it in the ledger.
        for at in range(0, len(body), PIECE):
            with self.server.lock:
                self.server.sent += len(body[at : at + PIECE]) if wanted else 0
            self.wfile.write(body[at : at + PIECE])
        if fault in ("truncate", "reset"):
            if fault == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()


def every_fault_is_found(kind):
    server = Liar(lambda asked, times: kind if zlib.crc32(asked.encode()) % 2 == 0 and times <= 2 else None)
    to = path(f"pulled-{kind}")
    done = last_line(run("pull", NAME, "--from", server.url, "--to", to, "--json"))
    same(to)
    assert server.faults > 3
    # A flipped bit costs its own chunk again and nothing else.
    if kind == "flip":
        assert done["wrong_chunks"] == server.faults, (done, server.faults)
    assert server.sent - total() <= server.faults * 16 * MIB, (server.sent, server.faults)
    server.shutdown()
    shutil.rmtree(to)


def a_store_that_only_lies_is_left():
    server = Liar(lambda asked, times: "flip")
    done = run("pull", NAME, "--from", server.url, "--to", path("pulled-never"), "--json", expect=1)
    assert "was not what was published" in done.stderr, done.stderr
    assert not os.path.exists(path("pulled-never", ".outrigger", "READY"))
    server.shutdown()


def a_tampered_store_is_refused():
    """At rest: a byte of a file, of the manifest, and the manifest of another version in its place."""
    shutil.copytree(path("store"), path("tampered"))
    store = f"file://{path('tampered')}"
    home = path("tampered", "models", NAME)
    version = next(os.path.join(home, name) for name in os.listdir(home) if not name.startswith("."))
    file = os.path.join(version, "config.json")
    with open(file, "w") as out:
        out.write("[]\n")
    assert last_line(run("verify", NAME, "--from", store, "--json", expect=1))["problems"][0]["path"] == "config.json"
    run("pull", NAME, "--from", store, "--to", path("pulled-tampered"), expect=1)
    assert not os.path.exists(path("pulled-tampered", "config.json"))
    manifest = os.path.join(version, ".outrigger", "manifest.json")
    with open(manifest, "r+b") as out:
        out.write(b"[")
    refused = run("pull", NAME, "--from", store, "--to", path("pulled-manifest"), expect=1)
    assert "is not the manifest of sha256:" in refused.stderr and not os.path.exists(path("pulled-manifest"))


def add_the_model(size_mib):
    make_model(path("model"), size_mib)
    added = last_line(run("add", path("model"), "--name", NAME, "--to", f"file://{path('store')}", "--json"))
    text = open(path("store", "models", NAME, added["digest"][7:19], ".outrigger", "manifest.json"), "rb").read()
    assert "sha256:" + hashlib.sha256(text).hexdigest() == added["digest"]
    # The hashes of files are those of sha256sum.
    manifest = json.loads(text)
    assert "".join(f"{f['sha256']}  ./{f['path']}\n" for f in manifest["files"]) == sums(path("model"))
    assert {f["chunker"] for f in manifest["files"] if f["path"].endswith("safetensors")} == {"safetensors/1"}
    assert last_line(run("verify", NAME, "--from", f"file://{path('store')}", "--json"))["ok"] is True
    again = last_line(run("add", path("model"), "--name", NAME, "--to", f"file://{path('store')}", "--json"))
    assert again["known"] is True and again["digest"] == added["digest"]


def main():
    only = os.environ.get("ONLY", "")
    tests = [("add", lambda: add_the_model(256))]
    if os.access(NGINX, os.X_OK):
        tests.append(("kills lose little", lambda: kills_lose_little(4)))
        tests += [(test.__name__.replace("_", " "), test) for test in
                  [nothing_is_asked_for_twice, two_kills_and_ctrl_c_go_on, damage_on_disk_is_found_and_mended_alone,
                   two_pulls_into_one_directory, a_full_disk_keeps_what_there_is]]
    else:
        print("nginx is missing: pulls from it were not tested")
    tests += [(f"fault: {kind}", lambda kind=kind: every_fault_is_found(kind))
              for kind in ["flip", "zeros", "truncate", "reset", "503", "wrong-range"]]
    tests += [(test.__name__.replace("_", " "), test) for test in
              [a_store_that_only_lies_is_left, a_tampered_store_is_refused, what_is_not_ours_is_not_touched]]
    return play([t for t in tests if t[0] == "add" or only in t[0]])


def play(tests):
    """Plays named tests and says how many failed; the first is what the others stand on."""
    passed = failed = 0
    for name, test in tests:
        began = time.monotonic()
        try:
            test()
            passed += 1
            print(f"ok      {name} ({time.monotonic() - began:.1f} s)", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return failed


def ended(main):
    """Runs it, and leaves no process and no file behind."""
    try:
        status = main()
    finally:
        for child in children:
            if child.poll() is None:
                child.terminate()
                child.wait(10)
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(status > 0)


if __name__ == "__main__":
    ended(main)
