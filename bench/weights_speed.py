"""What moving weights costs, beside the tools that people use for it: the same bytes from the same server, in turn.

Run by ./test heavy weights-speed. Measured is the client alone (user and system time and peak memory of its process, by wait4); the
server is nginx for what is read and the test store for what is written. `--only WORDS` plays the parts whose names hold them.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time

import weights as rig
from object_store import MIB, Relay, Store

GIB = 1 << 30
TOOLS = os.path.dirname(sys.executable)
RCLONE = [os.path.join(TOOLS, "rclone"), "--config", os.devnull]
S5CMD = [os.path.join(TOOLS, "s5cmd"), "--no-sign-request", "--log", "error"]
BOTO3 = """
import boto3, os, sys
from botocore import UNSIGNED
from botocore.config import Config
s3 = boto3.client("s3", endpoint_url=sys.argv[1], config=Config(signature_version=UNSIGNED, s3={"addressing_style": "path"}), region_name="us-east-1")
bucket, prefix, to = sys.argv[2:5]
for name in sys.argv[5:]:
    os.makedirs(os.path.dirname(os.path.join(to, name)) or to, exist_ok=True)
    s3.download_file(bucket, prefix + name, os.path.join(to, name))
"""
UPLOAD = """
import boto3, os, sys
s3 = boto3.client("s3", endpoint_url="{url}")
for name in sys.argv[2:]:
    s3.upload_file(os.path.join(sys.argv[1], name), "weights", "to/" + name)
"""
missed = []


def bar(name, value, limit, at_least=False):
    met = value >= limit if at_least else value <= limit
    print(f"bar: {name}: {value:.2f}, wanted {'at least' if at_least else 'at most'} {limit}: {'met' if met else 'MISSED'}", flush=True)
    if not met:
        missed.append(name)


def measured(command, size, env=None):
    """CPU seconds for each GiB, MiB a second, and peak memory in MiB."""
    with open(rig.path("stderr"), "wb") as words:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=words, env=env)
        memory = Watched(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
    process.returncode = status
    assert status == 0, f"{command}: {open(rig.path('stderr')).read()}"
    return (usage.ru_utime + usage.ru_stime) / (size / GIB), size / MIB / seconds, memory.peak / 1024


class Watched(threading.Thread):
    """The kernel's own peak, looked at while the process lives: what wait4 says begins with the size of this very process."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.file, self.peak = f"/proc/{pid}/status", 0
        self.start()

    def run(self):
        try:
            while True:
                with open(self.file) as status:
                    self.peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
                time.sleep(0.01)
        except (OSError, StopIteration):
            pass


def rounds(commands, size, count, check=None, env=None):
    """The tools in turn, each into a new directory; of each the medians, and the range of its CPU time."""
    rows = {who: [] for who in commands}
    for number in range(count):
        for who, command in commands.items():
            to = rig.path("to")
            shutil.rmtree(to, ignore_errors=True)
            rows[who].append(measured(command(to), size, env))
            if number == 0 and check:
                check(to)
            shutil.rmtree(to, ignore_errors=True)
    median = {who: [statistics.median(column) for column in zip(*runs)] for who, runs in rows.items()}
    print("| | CPU-s/GiB | least to most | MiB/s | peak MiB |\n|---|---:|---:|---:|---:|")
    for who, (cpu, rate, memory) in median.items():
        cpus = sorted(run[0] for run in rows[who])
        print(f"| {who} | {cpu:.2f} | {cpus[0]:.2f} to {cpus[-1]:.2f} | {rate:.0f} | {memory:.0f} |", flush=True)
    return median


def files():
    return [os.path.relpath(os.path.join(d, f), rig.path("model")) for d, _, fs in os.walk(rig.path("model")) for f in fs]


def same(to):
    expected = rig.sums(rig.path("model"))
    assert rig.sums(to) == expected, f"{to} is not the model"


def version():
    return next(name for name in os.listdir(rig.path("store", "models", rig.NAME)) if not name.startswith("."))


def model(make):
    """A new model in a new store."""
    for name in ("model", "store"):
        shutil.rmtree(rig.path(name), ignore_errors=True)
    make(rig.path("model"))
    rig.run("add", rig.path("model"), "--name", rig.NAME, "--to", f"file://{rig.path('store')}")


def ours(url):
    return lambda to: [rig.BIN, "weights", "pull", rig.NAME, "--from", url, "--to", to, "--json"]


def curl(url):
    def command(to):
        args = ["curl", "-sS", "--create-dirs"]
        for name in files():
            args += ["-o", os.path.join(to, name), f"{url}/models/{rig.NAME}/{version()}/{name}"]
        return args

    return command


def rclone(url, *flags):
    remote = f":http,url='{url}/models/{rig.NAME}/{version()}':"
    return lambda to: [*RCLONE, "copy", "--exclude", "/.outrigger/**", *flags, remote, to]


def s5cmd(address):
    def command(to):
        # nginx cannot list, so the files are named.
        lines = [f"cp s3://store/models/{rig.NAME}/{version()}/{name} {os.path.join(to, name)}" for name in files()]
        script = rig.path("s5cmd.txt")
        with open(script, "w") as out:
            out.write("\n".join(lines))
        return [*S5CMD, "--endpoint-url", address, "run", script]

    return command


def boto3(address):
    return lambda to: [sys.executable, "-c", BOTO3, address, "store", f"models/{rig.NAME}/{version()}/", to, *files()]


def plain_names(where):
    """A name with blanks and a plus is not for every tool's command line; empty files are not for those that ask for ranges."""
    os.remove(os.path.join(where, "onnx", "a b+c%.bin"))
    os.remove(os.path.join(where, "empty"))


def pull(options):
    def make(where):
        rig.make_model(where, options.mib)
        plain_names(where)

    model(make)
    nginx = rig.Nginx(more="autoindex on;")
    address = nginx.url.removesuffix("/store")
    print(f"pull, {options.mib} MiB in {len(files())} files from nginx, {options.rounds} rounds:")
    commands = {
        "curl to files": curl(nginx.url),
        "outrigger": ours(nginx.url),
        "rclone": rclone(nginx.url),
        "s5cmd": s5cmd(address),
        "boto3": boto3(address),
    }
    median = rounds(commands, rig.total(), options.rounds, same)
    nginx.stop()
    bar("pull: CPU, times curl's", median["outrigger"][0] / median["curl to files"][0], 1.25)
    bar("pull: rate, times curl's", median["outrigger"][1] / median["curl to files"][1], 0.85, at_least=True)
    bar("pull: peak memory in MiB", median["outrigger"][2], 64)


class Tls:
    """TLS before an address, by nginx; it passes everything on as it comes."""

    def __init__(self, address):
        authority, key, request = rig.path("authority.pem"), rig.path("tls.key"), rig.path("tls.csr")
        new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        with open(rig.path("tls.ext"), "w") as out:
            out.write("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        for command in (
            [*new, "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", rig.path("authority.key"), "-out", authority],
            [*new, "-subj", "/CN=127.0.0.1", "-keyout", key, "-out", request],
            ["openssl", "x509", "-req", "-days", "2", "-in", request, "-CA", authority, "-CAkey", rig.path("authority.key"),
             "-extfile", rig.path("tls.ext"), "-out", rig.path("tls.pem")],
        ):
            subprocess.run(command, check=True, capture_output=True)
        more = f"""ssl_certificate {rig.path("tls.pem")}; ssl_certificate_key {key}; client_max_body_size 0;
          location / {{ proxy_pass {address}; proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_set_header Connection "";
            proxy_request_buffering off; proxy_buffering off; }}"""
        self.nginx = rig.Nginx(more=more, listen="ssl")
        self.url = f"https://127.0.0.1:{self.nginx.port}"
        self.authority = authority


def push(options):
    """Into the test store, whose folder is looked at afterwards; without TLS, and over it, as any store of a cloud is spoken to. Only ours says
    what is in it and that it is whole: `add` hashes every file twice, by SHA-256 and BLAKE3, before it sends it."""
    def make(where):
        rig.make_model(where, options.mib)
        plain_names(where)

    model(make)
    shutil.rmtree(rig.path("store"))
    with Store(rig.path("s3"), "weights") as store:
        tls = Tls(store.url)
        for url, way in ((store.url, "without TLS"), (tls.url, "over TLS")):
            median = pushes(options, store.root, url, tls.authority, way)
            bar(f"push {way}: CPU, times s5cmd's", median["outrigger"][0] / median["s5cmd"][0], 0.6)
        tls.nginx.stop()


def pushes(options, root, url, authority, way):
    env = {**os.environ, "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testtest",
           "AWS_REGION": "us-east-1", "XDG_STATE_HOME": rig.path("state"), "SSL_CERT_FILE": authority, "AWS_CA_BUNDLE": authority}
    remote = f":s3,provider=Other,endpoint='{url}',access_key_id=test,secret_access_key=testtest:weights/to"
    upload = UPLOAD.format(url=url)

    def fresh(command):
        def made(to):
            os.makedirs(os.path.join(root, "weights"), exist_ok=True)
            shutil.rmtree(os.path.join(root, "weights", "to"), ignore_errors=True)
            return command

        return made

    trusting = ["--no-verify-ssl"] if url.startswith("https") else []
    commands = {
        "outrigger": fresh([rig.BIN, "weights", "add", rig.path("model"), "--name", rig.NAME, "--to", "s3://weights/to", "--json"]),
        "s5cmd": fresh([os.path.join(TOOLS, "s5cmd"), *trusting, "--endpoint-url", url, "cp", f"{rig.path('model')}/", "s3://weights/to/"]),
        "rclone": fresh([*RCLONE, "copy", rig.path("model"), remote]),
        "boto3": fresh([sys.executable, "-c", upload, rig.path("model"), *files()]),
    }

    def check(_):
        top = os.path.join(root, "weights", "to")
        home = os.path.join(top, "models", rig.NAME)
        same(os.path.join(home, os.listdir(home)[0]) if os.path.isdir(home) else top)

    count = min(3, options.rounds)
    print(f"push {way}, {options.mib} MiB in {len(files())} files to the test store, {count} rounds:")
    return rounds(commands, rig.total(), count, check, env)


def small(options):
    def make(where):
        os.makedirs(where)
        for number in range(200):
            with open(os.path.join(where, f"{number:03}.bin"), "wb") as out:
                out.write(os.urandom(320 << 10))

    model(make)
    nginx = rig.Nginx(more="autoindex on;")
    address = nginx.url.removesuffix("/store")
    print(f"200 files of 320 KiB from nginx, {options.rounds} rounds:")
    commands = {"outrigger": ours(nginx.url), "s5cmd": s5cmd(address), "rclone": rclone(nginx.url, "--transfers", "16")}
    median = rounds(commands, rig.total(), options.rounds, same)
    bar("200 small files: rate, times s5cmd's", median["outrigger"][1] / median["s5cmd"][1], 1, at_least=True)
    with Relay(address.removeprefix("http://"), delay_ms=40) as relay:
        print("The same over a round trip of 80 ms:")
        commands = {"outrigger": ours(f"{relay.url}/store"), "s5cmd": s5cmd(relay.url)}
        median = rounds(commands, rig.total(), 3, same)
        bar("200 small files over 80 ms: rate, times s5cmd's", median["outrigger"][1] / median["s5cmd"][1], 1, at_least=True)
    nginx.stop()


def far(options):
    def make(where):
        rig.make_model(where, options.mib // 2)
        plain_names(where)

    model(make)
    nginx = rig.Nginx(more="autoindex on;")
    for rate in (None, 100 * MIB):
        with Relay(nginx.url.removeprefix("http://").removesuffix("/store"), 40, rate) as relay:
            url = f"{relay.url}/store"
            print(f"pull, {options.mib // 2} MiB from nginx over a round trip of 80 ms, {f'{rate / MIB:.0f} MiB/s' if rate else 'no limit'}, 3 rounds:")
            tuned = ["--transfers", "8", "--multi-thread-cutoff", "16M", "--multi-thread-chunk-size", "16M"]
            commands = {
                "outrigger": ours(url),
                "rclone as it comes": rclone(url),
                "rclone, 8 streams": rclone(url, *tuned, "--multi-thread-streams", "8"),
                "rclone, 16 streams": rclone(url, *tuned, "--multi-thread-streams", "16"),
            }
            median = rounds(commands, rig.total(), 3, same)
            best = max(rate for who, (_, rate, _) in median.items() if who != "outrigger")
            bar(f"80 ms, {'limited' if rate else 'no limit'}: rate, times rclone's best", median["outrigger"][1] / best, 0.9, at_least=True)
    nginx.stop()


def sparse(gib):
    """A store of one file that is all zeros and takes no room: its manifest is written here, by hashes that `add` has given."""
    import base64
    import hashlib

    def make(where):
        os.makedirs(where)
        with open(os.path.join(where, "zeros.bin"), "wb") as out:
            out.truncate(16 * MIB)

    model(make)
    home = rig.path("store", "models", rig.NAME)
    small = json.load(open(os.path.join(home, version(), ".outrigger", "manifest.json")))
    shutil.rmtree(rig.path("store"))
    file, size = small["files"][0], gib * GIB
    sha256, zeros = hashlib.sha256(), bytes(16 * MIB)
    for _ in range(size // len(zeros)):
        sha256.update(zeros)
    chunk = base64.b64decode(file["chunks"])
    file |= {"size": size, "sha256": sha256.hexdigest(), "chunks": base64.b64encode(chunk * (size // len(zeros))).decode()}
    small["total"] = size
    text = json.dumps(small, sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.sha256(text).hexdigest()
    folder = os.path.join(home, digest[:12])
    os.makedirs(os.path.join(folder, ".outrigger"))
    with open(os.path.join(folder, ".outrigger", "manifest.json"), "wb") as out:
        out.write(text)
    with open(os.path.join(folder, "zeros.bin"), "wb") as out:
        out.truncate(size)
    ref = rig.path("store", "refs", rig.NAME, "main")
    os.makedirs(os.path.dirname(ref))
    with open(ref, "w") as out:
        out.write(f'{{"digest":"sha256:{digest}","schema":"outrigger.ref/v1"}}')
    return size


class Holes(threading.Thread):
    """Gives the room of zeros that were written back at once, so that a file of 16 GiB needs none. They are read as zeros still."""

    def __init__(self, folder, size):
        super().__init__(daemon=True)
        self.folder, self.size, self.over = os.path.join(folder, ".outrigger", "parts"), size, threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.2):
            names = os.listdir(self.folder) if os.path.isdir(self.folder) else []
            for name in names:
                part = os.path.join(self.folder, name)
                subprocess.run(["fallocate", "--punch-hole", "--offset", "0", "--length", str(self.size), part], stderr=subprocess.DEVNULL)


def memory(options):
    found = {}
    for gib in (2, options.sparse_gib):
        size = sparse(gib)
        nginx = rig.Nginx()
        to = rig.path("to")
        holes = Holes(to, size)
        cpu, rate, found[gib] = measured(ours(nginx.url)(to), size)
        holes.over.set()
        holes.join()
        assert os.path.getsize(os.path.join(to, "zeros.bin")) == size
        print(f"{gib} GiB of zeros from nginx: {cpu:.2f} CPU-s/GiB, {rate:.0f} MiB/s, peak {found[gib]:.0f} MiB", flush=True)
        shutil.rmtree(to)
        nginx.stop()
    bar(f"peak memory in MiB at {options.sparse_gib} GiB", found[options.sparse_gib], 64)
    bar(f"peak memory at {options.sparse_gib} GiB, MiB above that at 2 GiB", found[options.sparse_gib] - found[2], 4)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sparse-gib", type=int, default=16)
    options = parser.parse_args()
    where = subprocess.run(["stat", "-f", "-c", "%T", rig.path()], capture_output=True, text=True).stdout.strip()
    print(f"files are on {where}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for part in (pull, push, small, far, memory):
        if options.only in part.__name__:
            part(options)
    for name in missed:
        print(f"missed: {name}", file=sys.stderr)
    return len(missed)


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
