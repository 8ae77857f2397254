"""What `outrigger weights` does to a store, in stores that others wrote: moto for S3, azurite for Azure, and the test store; and
s3rver, which lets two create one object, is refused. What lies in a store is read by boto3 and Azure's own client.

Run by ./test heavy stores with the folder of the servers for Node; the last line is `N passed, N failed`.
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

import boto3
from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient
from botocore.config import Config

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
from object_store import MIB, Store  # noqa: E402

BIN = os.environ["OUTRIGGER_BIN"]
TOOLS = os.path.dirname(sys.executable)
NODE = os.path.abspath(sys.argv[1])
folder = tempfile.mkdtemp(prefix="outrigger-peers-", dir=os.environ.get("OUTRIGGER_WEIGHTS_DIR"))
# Azurite's own account, the same for everybody who tests against it.
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
NAME = "acme/tiny"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A process that answers HTTP on its port some time after it was started."""

    def __init__(self, name, *command, port):
        self.log = open(os.path.join(folder, f"{name}.log"), "wb")
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, cwd=folder)
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None, open(self.log.name).read()
                time.sleep(0.05)
        raise AssertionError(f"{name} does not answer")

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


class S3:
    scheme = "s3"

    def __init__(self, url):
        self.url, self.env = url, {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testtest", "AWS_REGION": "us-east-1"}
        config = Config(s3={"addressing_style": "path"})
        self.client = boto3.client("s3", endpoint_url=url, config=config, aws_access_key_id="test", aws_secret_access_key="testtest", region_name="us-east-1")

    def make(self, bucket):
        self.client.create_bucket(Bucket=bucket)

    def objects(self, bucket):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return {row["Key"]: row["Size"] for page in pages for row in page.get("Contents", [])}

    def read(self, bucket, key):
        return self.client.get_object(Bucket=bucket, Key=key)["Body"].read()

    def unfinished(self, bucket):
        return len(self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", []))


class Azure:
    scheme = "az"

    def __init__(self, url):
        self.url = f"{url}/devstoreaccount1"
        self.env = {"AZURE_STORAGE_ACCOUNT_NAME": "devstoreaccount1", "AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY, "AZURE_STORAGE_ENDPOINT": self.url}
        self.client = BlobServiceClient(self.url, credential=AZURE_KEY)

    def make(self, bucket):
        try:
            self.client.create_container(bucket)
        except ResourceExistsError:
            pass

    def objects(self, bucket):
        return {blob.name: blob.size for blob in self.client.get_container_client(bucket).list_blobs()}

    def read(self, bucket, key):
        return self.client.get_blob_client(bucket, key).download_blob().readall()

    def unfinished(self, _):
        return 0  # blocks that belong to no blob expire by themselves, and have no list


def outrigger(peer, *args, expect=0, started=False):
    env = {**os.environ, "XDG_STATE_HOME": os.path.join(folder, "state"), **peer.env}
    if started:
        return subprocess.Popen([BIN, "weights", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    done = subprocess.run([BIN, "weights", *args], capture_output=True, text=True, env=env)
    assert done.returncode == expect, f"{args}: {done.returncode}, wanted {expect}\n{done.stdout}{done.stderr}"
    return json.loads(done.stdout.strip().splitlines()[-1]) if "--json" in args and done.stdout.strip() else done.stderr


def pulled(peer, store):
    """What the version that main names is, verified and read from the disk."""
    to = tempfile.mkdtemp(dir=folder)
    outrigger(peer, "pull", NAME, "--from", store, "--to", to, "--json")
    found = contents(to)
    shutil.rmtree(to)
    return found


def make_model(name, seed, change=None):
    """One file in parts, one that fits into none, small ones and an odd name. `change` gives one of them other bytes."""
    where, source = os.path.join(folder, name), random.Random(seed)
    files = {"model.safetensors": safetensors(source), "tokenizer.bin": source.randbytes(3 * MIB), "config.json": b"{}\n",
             "onnx/a b+c%.bin": source.randbytes(100_000), "empty": b""}
    if change:
        files[change] = b'{"changed": true}\n'
    for file, data in files.items():
        os.makedirs(os.path.dirname(os.path.join(where, file)), exist_ok=True)
        with open(os.path.join(where, file), "wb") as out:
            out.write(data)
    return where, files


def safetensors(source):
    lengths = [20 * MIB, 100_000, 17, 25 * MIB]
    header, at = {}, 0
    for index, length in enumerate(lengths):
        header[f"t{index}"] = {"dtype": "U8", "shape": [length], "data_offsets": [at, at + length]}
        at += length
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + source.randbytes(at)


def contents(where):
    found = {}
    for top, _, files in os.walk(where):
        for file in files:
            path = os.path.join(top, file)
            if not os.path.relpath(path, where).startswith(".outrigger"):
                with open(path, "rb") as data:
                    found[os.path.relpath(path, where)] = data.read()
    return found


def published_read_and_taken_back(peer, bucket, _):
    """Two versions: what others read in the store, what a pull brings, what is copied and not sent, and back again."""
    store = f"{peer.scheme}://{bucket}/a/prefix"
    first, files = make_model(f"{bucket}-1", 1)
    second, changed = make_model(f"{bucket}-2", 1, change="config.json")
    size = sum(map(len, files.values()))
    added = outrigger(peer, "add", first, "--name", NAME, "--to", store, "--json")
    assert (added["sent"], added["known"]) == (size, False), added
    home = f"a/prefix/models/{NAME}/{added['digest'][7:19]}"
    there = peer.objects(bucket)
    assert {key.removeprefix(f"{home}/"): length for key, length in there.items() if key.startswith(home) and ".outrigger" not in key} == \
        {name: len(data) for name, data in files.items()}, there
    for name, data in files.items():
        assert peer.read(bucket, f"{home}/{name}") == data, name
    assert json.loads(peer.read(bucket, f"a/prefix/refs/{NAME}/main"))["digest"] == added["digest"]
    assert outrigger(peer, "add", first, "--name", NAME, "--to", store, "--json")["known"] is True
    assert pulled(peer, store) == files

    again = outrigger(peer, "add", second, "--name", NAME, "--to", store, "--json")
    assert again["sent"] == len(changed["config.json"]) and again["copied"] == size - len(files["config.json"]), again
    assert pulled(peer, store) == changed
    outrigger(peer, "rollback", f"{NAME}@main", "--to", store, "--version", added["digest"], "--json")
    assert outrigger(peer, "show", NAME, "--from", store, "--json")["digest"] == added["digest"]
    rows = outrigger(peer, "ls", "--from", store, "--json")["refs"]
    assert [(row["model"], row["digest"]) for row in rows] == [(NAME, added["digest"])], rows

    gone = outrigger(peer, "gc", "--from", store, "--older-than", "0s", "--json")
    assert len(gone["gone"]) == 1, gone
    left = peer.objects(bucket)
    assert not [key for key in left if again["digest"][7:19] in key] and all(key in left for key in there), left
    assert pulled(peer, store) == files


def of_publishers_at_once_one_wins(peer, bucket, _):
    """Six publish six versions under one ref: the ref names the version of one who was told that it was done."""
    store = f"{peer.scheme}://{bucket}/race"
    for round_ in range(3):
        models = []
        for number in range(6):
            where = os.path.join(folder, f"{bucket}-race-{round_}-{number}")
            os.makedirs(where)
            with open(os.path.join(where, "config.json"), "w") as out:
                out.write(json.dumps({"round": round_, "publisher": number}))
            models.append(where)
        running = [outrigger(peer, "add", where, "--name", NAME, "--to", store, "--json", started=True) for where in models]
        ended = [(process.communicate(), process.returncode) for process in running]
        won = [json.loads(out)["digest"] for (out, _), code in ended if code == 0]
        assert won and all("by another publisher" in words for (_, words), code in ended if code != 0), ended
        assert json.loads(peer.read(bucket, f"race/refs/{NAME}/main"))["digest"] in won
        pulled(peer, store)


def a_killed_push_goes_on(peer, bucket, _):
    store, (where, files) = f"{peer.scheme}://{bucket}/killed", make_model(f"{bucket}-killed", 3)
    killed = 0
    for after in (0.02, 0.1, 0.2, 0.4, 0.8):
        process = outrigger(peer, "add", where, "--name", NAME, "--to", store, "--json", started=True)
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        # The last that it does is to write the ref: killed after that, it has done all.
        if [key for key in peer.objects(bucket) if key.startswith("killed/refs/")]:
            assert pulled(peer, store) == files, "a ref before its version"
            break
    assert killed
    outrigger(peer, "add", where, "--name", NAME, "--to", store, "--json")
    assert pulled(peer, store) == files
    if peer.scheme == "s3":
        # As one whose id was lost with the network.
        peer.client.create_multipart_upload(Bucket=bucket, Key=f"killed/models/{NAME}/0123456789ab/a b+c%.bin")
    outrigger(peer, "gc", "--from", store, "--older-than", "0s", "--json")
    assert peer.unfinished(bucket) == 0, "an upload that nobody goes on with was left behind"


def replicated_from_the_test_store(peer, bucket, own):
    """Read over plain HTTP from the folder of the test store, as from any web server."""
    where, files = make_model(f"{bucket}-replicated", 4)
    outrigger(own, "add", where, "--name", NAME, "--to", "s3://weights/source", "--json")
    from_, to = f"{own.url}/weights/source", f"{peer.scheme}://{bucket}/replica"
    done = outrigger(peer, "replicate", NAME, "--from", from_, "--to", to, "--json")
    assert done["sent"] == sum(map(len, files.values())), done
    assert pulled(peer, to) == files


def s3rver_is_refused(own):
    port = free_port()
    server = Server("s3rver", os.path.join(NODE, "s3rver"), "-d", os.path.join(folder, "s3rver-data"), "-a", "127.0.0.1", "-p", str(port),
                    "--configure-bucket", "weights", port=port)
    try:
        peer = S3(server.url)
        peer.env |= {"AWS_ACCESS_KEY_ID": "S3RVER", "AWS_SECRET_ACCESS_KEY": "S3RVER"}
        peer.client = boto3.client("s3", endpoint_url=server.url, config=Config(s3={"addressing_style": "path"}), aws_access_key_id="S3RVER",
                                   aws_secret_access_key="S3RVER", region_name="us-east-1")
        # It does let two create one object, by the word of another client.
        for _ in range(2):
            peer.client.put_object(Bucket="weights", Key="twice", Body=b"x", IfNoneMatch="*")
        words = outrigger(peer, "add", make_model("s3rver-model", 5)[0], "--name", NAME, "--to", "s3://weights/p", expect=3)
        assert not [key for key in peer.objects("weights") if "/refs/" in key or "/models/" in key], peer.objects("weights")
        print(f"bar: s3rver is refused: {words.strip().splitlines()[0]}")
    finally:
        server.stop()
    # The same of the test store, told to lie.
    assert own.store.fault("lie")
    outrigger(own, "add", os.path.join(folder, "s3rver-model"), "--name", NAME, "--to", "s3://weights/lies", expect=3)
    own.store.heal()
    assert not [key for key in own.objects("weights") if key.startswith("lies/refs/") or key.startswith("lies/models/")]


def peers(own):
    yield "the test store", own, "weights", None
    port = free_port()
    server = Server("moto", os.path.join(TOOLS, "moto_server"), "-H", "127.0.0.1", "-p", str(port), port=port)
    yield "moto", S3(server.url), "moto-bucket", server
    port = free_port()
    server = Server("azurite", os.path.join(NODE, "azurite-blob"), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location",
                    os.path.join(folder, "azurite"), "--skipApiVersionCheck", "--disableTelemetry", port=port)
    yield "azurite", Azure(server.url), "azurite-bucket", server


def main():
    passed = failed = 0

    def play(name, test, *args):
        nonlocal passed, failed
        began = time.monotonic()
        try:
            test(*args)
            passed += 1
            print(f"ok      {name} ({time.monotonic() - began:.1f} s)", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)

    with Store(os.path.join(folder, "store"), "weights") as store:
        own = S3(store.url)
        own.store = store
        tests = [published_read_and_taken_back, of_publishers_at_once_one_wins, a_killed_push_goes_on, replicated_from_the_test_store]
        for name, peer, bucket, server in peers(own):
            if server:
                peer.make(bucket)
            for test in tests:
                play(f"{name}: {test.__name__.replace('_', ' ')}", test, peer, bucket, own)
            if server:
                server.stop()
        play("s3rver is refused", s3rver_is_refused, own)
        if store.uploads() != ([], []):
            failed += 1
            print(f"FAILED  uploads were left behind in the test store: {store.uploads()}")
    print(f"{passed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    try:
        status = main()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(status > 0)
