"""What the test store says of itself, held against clients that others wrote: boto3, s5cmd and rclone.

Run by ./test heavy stores with the environment that has them; the last line is `N passed, N failed`.
"""

import concurrent.futures
import hashlib
import io
import os
import random
import shutil
import subprocess
import sys
import tempfile
import traceback

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "e2e"))
from object_store import MIB, Store  # noqa: E402

TOOLS = os.path.dirname(sys.executable)
folder = tempfile.mkdtemp(prefix="outrigger-store-", dir=os.environ.get("OUTRIGGER_WEIGHTS_DIR"))
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
ENV = {**os.environ, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
big = random.Random(3).randbytes(25 * MIB + 17)


def client(store, **more):
    config = Config(s3={"addressing_style": "path", **more}, retries={"max_attempts": 1})
    return boto3.client("s3", endpoint_url=store.url, config=config, **KEYS)


def refused(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        got = error.response["Error"]["Code"]
        assert got == code, f"{got}, wanted {code}"
        return
    raise AssertionError(f"{arguments} was not refused with {code}")


def write(name, data):
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as out:
        out.write(data)
    return path


def md5(data):
    return hashlib.md5(data).hexdigest()


def objects_by_boto3(store):
    """Each form in which the same client can send a body, and all that is said of the object afterwards."""
    for number, options in enumerate([{}, {"payload_signing_enabled": True}, {"ChecksumAlgorithm": "SHA256"}, {"ChecksumAlgorithm": "CRC32"}]):
        algorithm = {k: options.pop(k) for k in list(options) if k == "ChecksumAlgorithm"}
        s3, key = client(store, **options), f"a folder/ü {number} +&%.bin"
        put = s3.put_object(Bucket="weights", Key=key, Body=io.BytesIO(big), ContentType="x/y", Metadata={"who": "me"}, **algorithm)
        head = s3.head_object(Bucket="weights", Key=key)
        assert put["ETag"] == head["ETag"] == f'"{md5(big)}"'
        assert (head["ContentLength"], head["ContentType"], head["Metadata"]) == (len(big), "x/y", {"who": "me"})
        got = s3.get_object(Bucket="weights", Key=key, Range="bytes=1000-20000000", IfMatch=put["ETag"])
        assert got["Body"].read() == big[1000:20000001] and got["ContentRange"] == f"bytes 1000-20000000/{len(big)}"
    refused("PreconditionFailed", s3.get_object, Bucket="weights", Key=key, IfMatch='"0"')
    refused("304", s3.get_object, Bucket="weights", Key=key, IfNoneMatch=put["ETag"])
    refused("InvalidRange", s3.get_object, Bucket="weights", Key=key, Range=f"bytes={len(big)}-")
    refused("NoSuchKey", s3.get_object, Bucket="weights", Key="none")
    refused("404", s3.head_object, Bucket="weights", Key="none")
    refused("NoSuchBucket", s3.put_object, Bucket="nowhere", Key="a", Body=b"")
    refused("BadDigest", s3.put_object, Bucket="weights", Key="a", Body=b"b", ContentMD5="AAAAAAAAAAAAAAAAAAAAAA==")
    s3.put_object(Bucket="weights", Key="empty", Body=b"")
    assert s3.get_object(Bucket="weights", Key="empty")["Body"].read() == b""
    s3.copy_object(Bucket="weights", Key="copied", CopySource={"Bucket": "weights", "Key": key})
    copied = s3.head_object(Bucket="weights", Key="copied")
    assert copied["ETag"] == put["ETag"] and copied["Metadata"] == {"who": "me"}


def conditions_by_boto3(store):
    """16 clients want to create one object, and then to replace it: one each time."""
    def race(number, **condition):
        try:
            client(store).put_object(Bucket="weights", Key="refs/main", Body=b"%d" % number, **condition)
            return number
        except ClientError as error:
            assert error.response["Error"]["Code"] == "PreconditionFailed", error
            return None

    s3 = client(store)
    for _ in range(5):
        s3.delete_object(Bucket="weights", Key="refs/main")
        refused("NoSuchKey", s3.put_object, Bucket="weights", Key="refs/main", Body=b"", IfMatch='"0"')
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            won = [n for n in pool.map(lambda n: race(n, IfNoneMatch="*"), range(16)) if n is not None]
            etag = s3.head_object(Bucket="weights", Key="refs/main")["ETag"]
            then = [n for n in pool.map(lambda n: race(16 + n, IfMatch=etag), range(16)) if n is not None]
        assert len(won) == len(then) == 1, (won, then)
        assert s3.get_object(Bucket="weights", Key="refs/main")["Body"].read() == b"%d" % then[0]
    # A store that lies lets all of them.
    store.fault("lie", key="weights/refs/*")
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert len([n for n in pool.map(lambda n: race(n, IfNoneMatch="*"), range(16)) if n is not None]) == 16
    assert store.heal() == {"lie": 16}


def parts_by_boto3(store):
    s3, place = client(store), {"Bucket": "weights", "Key": "in/parts"}
    upload = {**place, "UploadId": s3.create_multipart_upload(**place, Metadata={"a": "b"})["UploadId"]}
    cuts = [big[at : at + 8 * MIB] for at in range(0, len(big), 8 * MIB)]
    # Out of order, and one of them twice.
    for number in [3, 1, 4, 2, 1]:
        part = s3.upload_part(**upload, PartNumber=number, Body=cuts[number - 1])
        assert part["ETag"] == f'"{md5(cuts[number - 1])}"'
    listed = s3.list_parts(**upload, MaxParts=3)
    assert [p["PartNumber"] for p in listed["Parts"]] == [1, 2, 3] and listed["IsTruncated"]
    listed["Parts"] += s3.list_parts(**upload, PartNumberMarker=3)["Parts"]
    parts = [{"PartNumber": p["PartNumber"], "ETag": p["ETag"]} for p in listed["Parts"]]
    assert [u["UploadId"] for u in s3.list_multipart_uploads(Bucket="weights")["Uploads"]] == [upload["UploadId"]]
    complete = s3.complete_multipart_upload
    refused("InvalidPartOrder", complete, **upload, MultipartUpload={"Parts": parts[::-1]})
    refused("InvalidPart", complete, **upload, MultipartUpload={"Parts": [{**parts[0], "ETag": '"0"'}]})
    refused("NoSuchKey", s3.get_object, **place)
    done = complete(**upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*")
    of_hashes = md5(b"".join(hashlib.md5(cut).digest() for cut in cuts))
    assert done["ETag"] == f'"{of_hashes}-4"'
    got = s3.get_object(**place)
    assert got["Body"].read() == big and got["Metadata"] == {"a": "b"} and got["ETag"] == done["ETag"]
    refused("NoSuchUpload", complete, **upload, MultipartUpload={"Parts": parts})

    again = {**place, "UploadId": s3.create_multipart_upload(**place)["UploadId"]}
    copied = s3.upload_part_copy(**again, PartNumber=1, CopySource={**place}, CopySourceRange=f"bytes=5-{6 * MIB}", CopySourceIfMatch=done["ETag"])
    refused("PreconditionFailed", s3.upload_part_copy, **again, PartNumber=2, CopySource={**place}, CopySourceIfMatch='"0"')
    parts = [{"PartNumber": 1, "ETag": copied["CopyPartResult"]["ETag"]}]
    refused("PreconditionFailed", complete, **again, MultipartUpload={"Parts": parts}, IfNoneMatch="*")
    complete(**again, MultipartUpload={"Parts": parts}, IfMatch=done["ETag"])
    assert s3.get_object(**place)["Body"].read() == big[5 : 6 * MIB + 1]

    small = {**place, "UploadId": s3.create_multipart_upload(**place)["UploadId"]}
    parts = [{"PartNumber": n, "ETag": s3.upload_part(**small, PartNumber=n, Body=b"x")["ETag"]} for n in (1, 2)]
    refused("EntityTooSmall", complete, **small, MultipartUpload={"Parts": parts})
    s3.abort_multipart_upload(**small)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="weights") and store.uploads() == ([], [])


def listings_by_boto3(store):
    s3 = client(store)
    s3.create_bucket(Bucket="many")
    names = sorted(["top", *[f"models/{a}/{b} ü&+.bin" for a in range(30) for b in range(9)], *[f"refs/{n:03}" for n in range(40)]])
    for name in names:
        s3.put_object(Bucket="many", Key=name, Body=name.encode())
    for size in (1, 7, 1000):
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket="many", PaginationConfig={"PageSize": size})
        rows = [row for page in pages for row in page.get("Contents", [])]
        assert [row["Key"] for row in rows] == names and all(row["ETag"] == f'"{md5(row["Key"].encode())}"' for row in rows)
        assert [row["Size"] for row in rows] == [len(name.encode()) for name in names]
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket="many", Delimiter="/", Prefix="models/", PaginationConfig={"PageSize": size})
        folders = [row["Prefix"] for page in pages for row in page.get("CommonPrefixes", [])]
        assert folders == sorted(f"models/{n}/" for n in range(30)), folders
    older = s3.get_paginator("list_objects").paginate(Bucket="many", PaginationConfig={"PageSize": 7})
    assert [row["Key"] for page in older for row in page["Contents"]] == names
    after = s3.list_objects_v2(Bucket="many", StartAfter="refs/038")["Contents"]
    assert [row["Key"] for row in after] == ["refs/039", "top"]
    refused("BucketNotEmpty", s3.delete_bucket, Bucket="many")
    gone = s3.delete_objects(Bucket="many", Delete={"Objects": [{"Key": name} for name in [*names, "never"]]})
    assert len(gone["Deleted"]) == len(names) + 1 and "Contents" not in s3.list_objects_v2(Bucket="many")
    s3.delete_bucket(Bucket="many")
    assert [b["Name"] for b in s3.list_buckets()["Buckets"]] == ["weights"]


def transfers_by_boto3(store):
    s3 = client(store)
    config = TransferConfig(multipart_threshold=8 * MIB, multipart_chunksize=8 * MIB)
    s3.upload_file(write("up/big", big), "weights", "boto/big", Config=config)
    s3.download_file("weights", "boto/big", os.path.join(folder, "down"), Config=config)
    assert open(os.path.join(folder, "down"), "rb").read() == big
    s3.copy({"Bucket": "weights", "Key": "boto/big"}, "weights", "boto/copied", Config=config)
    assert s3.get_object(Bucket="weights", Key="boto/copied")["Body"].read() == big


def run(*command, expect=0):
    done = subprocess.run(command, capture_output=True, text=True, env=ENV)
    assert done.returncode == expect, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def trees_by(put, get, list_names, store):
    """A tree with a file in parts, small ones and odd names goes in and comes out, and is listed; the store's disk agrees."""
    shutil.rmtree(os.path.join(folder, "tree"), ignore_errors=True)
    shutil.rmtree(os.path.join(folder, "back"), ignore_errors=True)
    names = ["big.bin", "config.json", "sub/a b+c%.bin", "sub/ü.txt", *[f"many/{n:03}" for n in range(60)]]
    for name in names:
        write(f"tree/{name}", big if name == "big.bin" else os.urandom(1000))
    put(os.path.join(folder, "tree"))
    get(os.path.join(folder, "back"))
    for name in names:
        sent = open(os.path.join(folder, "tree", name), "rb").read()
        assert open(os.path.join(folder, "back", name), "rb").read() == sent, name
        assert open(os.path.join(store.root, "weights", "tree", name), "rb").read() == sent, name
    assert sorted(list_names()) == sorted(names), list_names()
    assert store.uploads() == ([], [])
    shutil.rmtree(os.path.join(store.root, "weights", "tree"))


def trees_by_s5cmd(store):
    s5cmd = [os.path.join(TOOLS, "s5cmd"), "--endpoint-url", store.url]
    trees_by(
        lambda where: run(*s5cmd, "cp", "--part-size", "5", f"{where}/", "s3://weights/tree/"),
        lambda where: run(*s5cmd, "cp", "--part-size", "5", "s3://weights/tree/*", f"{where}/"),
        lambda: [line.split(maxsplit=3)[3] for line in run(*s5cmd, "ls", "s3://weights/tree/*").splitlines()],
        store,
    )
    write("one", b"1")
    run(*s5cmd, "cp", os.path.join(folder, "one"), "s3://weights/gone/one")
    run(*s5cmd, "rm", "s3://weights/gone/*")
    assert not os.path.exists(os.path.join(store.root, "weights", "gone"))


def trees_by_rclone(store):
    remote = f":s3,provider=Other,endpoint='{store.url}',access_key_id=test,secret_access_key=test:weights/tree"
    rclone = [os.path.join(TOOLS, "rclone"), "--config", os.devnull, "--retries", "1", "--low-level-retries", "1"]
    parts = ["--s3-chunk-size", "5M", "--s3-upload-cutoff", "5M", "--multi-thread-cutoff", "5M"]
    trees_by(
        lambda where: run(*rclone, *parts, "copy", where, remote),
        lambda where: run(*rclone, *parts, "copy", remote, where),
        lambda: run(*rclone, "lsf", "-R", "--files-only", remote).splitlines(),
        store,
    )
    write("tree/big.bin", big)
    run(*rclone, *parts, "copy", os.path.join(folder, "tree"), remote)
    assert run(*rclone, "check", os.path.join(folder, "tree"), remote) == ""


def the_ledger_counts_what_boto3_moved(store):
    before = store.settled()
    s3 = client(store)
    s3.put_object(Bucket="weights", Key="counted", Body=big)
    s3.get_object(Bucket="weights", Key="counted", Range="bytes=10-19")["Body"].read()
    s3.get_object(Bucket="weights", Key="counted")["Body"].read()
    after, last = store.settled(), store.lines()[-3:]
    assert after["bytes_out"] - before["bytes_out"] == len(big) + 10
    # The frames of aws-chunked are counted, since they come over the network.
    assert 0 <= after["bytes_in"] - before["bytes_in"] - len(big) < 10_000
    assert [(line["operation"], line["status"]) for line in last] == [("PutObject", 200), ("GetObject", 206), ("GetObject", 200)]
    assert (last[1]["range"], last[1]["bytes_out"], last[1]["key"]) == ("bytes=10-19", 10, "counted")


def main():
    tests = [objects_by_boto3, conditions_by_boto3, parts_by_boto3, listings_by_boto3, transfers_by_boto3, trees_by_s5cmd, trees_by_rclone,
             the_ledger_counts_what_boto3_moved]
    failed = 0
    with Store(os.path.join(folder, "store"), "weights") as store:
        for test in tests:
            try:
                test(store)
                print(f"ok      {test.__name__.replace('_', ' ')}", flush=True)
            except Exception:
                failed += 1
                print(f"FAILED  {test.__name__.replace('_', ' ')}\n{traceback.format_exc()}", flush=True)
    print(f"{len(tests) - failed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    try:
        status = main()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(status > 0)
