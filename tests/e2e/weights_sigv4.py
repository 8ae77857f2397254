"""Every request to a bucket bears the signature that it should, by a second computation of it.

Between Outrigger and the test store, which believes everybody, stands a server that signs each request again as AWS's reference
describes it (Signature Version 4, "Create a signed AWS API request"), from what came over the wire, and compares. Names hold what
has to be escaped, the session token too, and both a file's parts and a list of uploads go by requests of our own.
"""

import hashlib
import hmac
import http.client
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote, unquote_plus, urlsplit

import weights
from object_store import MIB, Store
from weights import BIN, last_line, path

SECRET, REGION, TOKEN = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "eu-central-1", "to/ken+with=signs%2F"
LONG = "folder with space/a+b=c&d%20é~.bin"


def signature(method, target, headers, payload):
    """Of a request as it came: `headers` by lower-case name."""
    scheme, *fields = headers["authorization"].replace(",", " ").split()
    fields = dict(field.split("=", 1) for field in fields)
    _, day, region, service, last = fields["Credential"].split("/")
    assert (scheme, region, service, last) == ("AWS4-HMAC-SHA256", REGION, "s3", "aws4_request"), headers["authorization"]
    signed = fields["SignedHeaders"].split(";")
    assert {"host", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token"} <= set(signed), signed
    split = urlsplit(target)
    pairs = [pair.partition("=") for pair in split.query.split("&")] if split.query else []
    # object_store writes a space as a plus and signs it as %20, which holds where a query is decoded before it is compared.
    plain = [[quote(unquote_plus(text), safe="") for text in (name, value)] for name, _, value in pairs]
    query = "&".join(sorted(f"{name}={value}" for name, value in plain))
    canonical = "\n".join(
        [method, quote(unquote(split.path), safe="/"), query, *(f"{name}:{' '.join(headers[name].split())}" for name in signed), "",
         ";".join(signed), payload])
    scope = f"{day}/{region}/{service}/{last}"
    text = "\n".join(["AWS4-HMAC-SHA256", headers["x-amz-date"], scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{SECRET}".encode()
    for part in (day, region, service, last, text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key.hex(), fields["Signature"]


class Checking(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen, wrong = [], []

    def log_message(self, *args):
        pass

    def pass_on(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        said, found = headers.get("x-amz-content-sha256"), hashlib.sha256(body).hexdigest()
        right, given = signature(self.command, self.path, headers, said)
        if right != given or said != found or headers["x-amz-security-token"] != TOKEN:
            self.wrong.append((self.command, self.path, said, found, right, given))
        self.seen.append((self.command, self.path))
        link = http.client.HTTPConnection(*self.server.store)
        link.request(self.command, self.path, body, dict(self.headers.items()))
        answer = link.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "date"):
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        link.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on


def main():
    os.makedirs(path("odd", os.path.dirname(LONG)))
    with open(path("odd", LONG), "wb") as out:
        out.write(os.urandom(40 * MIB + 17))
    with open(path("odd", "a b+c%.json"), "w") as out:
        out.write("{}\n")
    with Store(path("s3"), "bucket") as store:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Checking)
        server.daemon_threads = True
        server.store = urlsplit(store.url).hostname, urlsplit(store.url).port
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {**os.environ, "AWS_ENDPOINT_URL_S3": f"http://LocalHost:{server.server_port}", "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
               "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN, "AWS_REGION": REGION, "XDG_STATE_HOME": path("state")}

        def run(*args):
            done = subprocess.run([BIN, "weights", *args], capture_output=True, text=True, env=env)
            assert done.returncode == 0, f"{args}: {done.returncode}\n{done.stdout}{done.stderr}"
            return done

        at = "s3://bucket/w x+y"
        digest = last_line(run("add", path("odd"), "--name", "a/b", "--to", at, "--json"))["digest"]
        run("pull", "a/b", "--from", at, "--to", path("came"))
        run("gc", "--from", at, "--older-than", "0s", "--json")
        for name in (LONG, "a b+c%.json"):
            with open(path("odd", name), "rb") as sent, open(path("came", name), "rb") as came:
                assert sent.read() == came.read(), name
        folder = os.path.join(store.root, "bucket", "w x+y", "models", "a/b", digest.removeprefix("sha256:")[:12])
        assert os.path.getsize(os.path.join(folder, LONG)) == 40 * MIB + 17, os.listdir(folder)
        seen, wrong = Checking.seen, Checking.wrong
        parts = [target for method, target in seen if method == "PUT" and "partNumber=" in target]
        lists = [target for _, target in seen if target.startswith("/bucket?uploads=")]
        assert len(parts) == 3 and lists and not any(mark in target.partition("?")[2] for target in parts + lists for mark in "/+"), seen
        assert wrong == [], wrong
        # The check can fail: another secret gives another signature.
        headers = {"authorization": "AWS4-HMAC-SHA256 Credential=A/20260101/eu-central-1/s3/aws4_request, SignedHeaders=host;x-amz-content-sha256;"
                   "x-amz-date;x-amz-security-token, Signature=0", "host": "h", "x-amz-content-sha256": "e", "x-amz-date": "d", "x-amz-security-token": "t"}
        assert signature("GET", "/a?b=c", headers, "e")[0] != signature("GET", "/a?b=d", headers, "e")[0]
        server.shutdown()
    print(f"bar: {len(seen)} requests of an add, a pull and a gc, {len(wrong)} with a wrong signature")
    print("1 passed, 0 failed")


if __name__ == "__main__":
    try:
        main()
    finally:
        shutil.rmtree(weights.folder, ignore_errors=True)
