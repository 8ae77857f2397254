"""TLS as an operator checks it, with openssl: what the gateway's listener accepts and refuses, and which backends the gateway
refuses and says why.

Run by ./test with OUTRIGGER_BIN set; the last line is `N passed, N failed`.
"""

import concurrent.futures
import contextlib
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

from rig import BIN

GET = b"GET /healthz HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n"
# Weak suites are offered only by a client that is told to.
EVERY = "ALL:COMPLEMENTOFALL:@SECLEVEL=0"
GOOD = {"AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"}
CA = """[ca]
default_ca = ca
[ca]
database = {folder}/index.txt
new_certs_dir = {folder}
rand_serial = yes
default_md = sha256
policy = any
unique_subject = no
copy_extensions = copy
[any]
commonName = supplied
"""
children = []
folder = tempfile.mkdtemp(prefix="outrigger-tls-")


def path(name):
    return os.path.join(folder, name)


def openssl(*args):
    subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)


def read(name):
    with open(path(name)) as file:
        return file.read()


def write(name, text):
    with open(path(name + ".new"), "w") as out:
        out.write(text)
    os.replace(path(name + ".new"), path(name))
    return path(name)


def authority(name, issuer=None):
    key = ("-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-subj", f"/CN={name}")
    is_ca = ("-addext", "basicConstraints=critical,CA:TRUE")
    if issuer is None:
        openssl("req", "-x509", *key, *is_ca, "-out", f"{name}.crt", "-days", "2")
    else:
        issue(name, issuer, key, is_ca)


def leaf(name, issuer, names="DNS:localhost,IP:127.0.0.1", kind="rsa:2048", dates=()):
    key = ["-newkey", kind, "-nodes", "-keyout", f"{name}.key", "-subj", f"/CN={name}"]
    if kind == "ec":
        key += ["-pkeyopt", "ec_paramgen_curve:P-256"]
    issue(name, issuer, key, ("-addext", f"subjectAltName={names}"), dates)


def issue(name, issuer, key, extension, dates=()):
    openssl("req", "-new", *key, *extension, "-out", f"{name}.csr")
    by = ("-cert", f"{issuer}.crt", "-keyfile", f"{issuer}.key")
    openssl("ca", "-config", "ca.cnf", "-batch", "-notext", *by, "-in", f"{name}.csr", "-out", f"{name}.crt", *(dates or ("-days", "2")))


def certificates():
    write("ca.cnf", CA.format(folder=folder))
    write("index.txt", "")
    authority("root")
    authority("stranger")
    authority("between", "root")
    for name, kind in (("rsa", "rsa:2048"), ("ec", "ec"), ("next", "ec")):
        leaf(name, "between", kind=kind)
        write(f"{name}.chain", read(f"{name}.crt") + read("between.crt"))
    leaf("expired", "root", dates=("-startdate", "20200101000000Z", "-enddate", "20200201000000Z"))
    leaf("elsewhere", "root", names="DNS:elsewhere.example")
    leaf("strange", "stranger")
    leaf("fine", "root")


class Gateway:
    """A gateway with this certificate, and these backends by name and port."""

    def __init__(self, certificate=None, backends=()):
        fleet = ["version: 1", "clouds: { c: {} }", "backends:"]
        if certificate:
            write("server.crt", read(f"{certificate}.chain"))
            write("server.key", read(f"{certificate}.key"))
            tls = "tls: { cert: file:server.crt, key: file:server.key }"
            fleet.insert(1, f"gateway: {{ {tls}, limits: {{ read_timeout: 4s }} }}")
        for name, port in backends or [("b", 1)]:
            scheme, ca = ("https", ", ca: file:root.crt") if backends else ("http", "")
            fleet.append(f'  {name}: {{ cloud: c, engine: openai, url: "{scheme}://127.0.0.1:{port}/v1", model: m{ca} }}')
        split = ", ".join(f"{name}: 1" for name, _ in backends or [("b", 1)])
        fleet += [f"models: {{ m: {{ tiers: [ {{ split: {{ {split} }} }} ] }} }}", ""]
        command = [BIN, "serve", "--fleet", write("fleet.yaml", "\n".join(fleet)), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        self.said = []
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        children.append(self.process)
        self.port = int(json.loads(self.process.stdout.readline())["listen"].rsplit(":", 1)[1])
        threading.Thread(target=lambda: all(self.process.stdout), daemon=True).start()
        threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True).start()

    def client(self, *args, send=b""):
        """What `openssl s_client` says, and whether it got through the handshake. Where something is sent, it goes on until the gateway
        closes the connection."""
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{self.port}", "-CAfile", path("root.crt"), *args]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        with process, watched(process):
            if send:
                process.stdin.write(send)
                process.stdin.flush()
            else:
                process.stdin.close()
            said = process.stdout.read().decode(errors="replace")
        return said, "Cipher is (NONE)" not in said and "alert" not in said and process.returncode == 0

    def raw(self, data):
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as stream:
            stream.sendall(data)
            answer = b""
            try:
                while piece := stream.recv(4096):
                    answer += piece
            except ConnectionResetError:
                pass
        return answer, time.monotonic() - began

    def stop(self):
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def watched(process):
    """It is killed when it has not ended after a while."""
    timer = threading.Timer(30, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def refused(gateway, *args):
    said, through = gateway.client(*args)
    assert not through, f"{args}: {said}"
    return said


def accepted(gateway, *args, **more):
    said, through = gateway.client(*args, **more)
    assert through and "Verify return code: 0 (ok)" in said, f"{args}: {said}"
    return said


def old_versions_are_refused(gateway):
    for version in ("-tls1", "-tls1_1"):
        refused(gateway, version, "-cipher", EVERY)
    for version in ("-tls1_2", "-tls1_3"):
        assert version.strip("-").replace("tls", "TLSv").replace("_", ".") in accepted(gateway, version)
    # openssl itself has no SSL 3.0 any more: a ClientHello of it, by hand (RFC 6101).
    hello = bytes([3, 0]) + bytes(32) + bytes([0, 0, 4, 0, 0x0A, 0, 0x2F, 1, 0])
    handshake = bytes([1, 0, 0, len(hello)]) + hello
    answer, took = gateway.raw(bytes([22, 3, 0, 0, len(handshake)]) + handshake)
    assert answer[:1] == b"\x15" and took < 4, (answer, took)


def suites_of_tls_1_2(gateway):
    listed = subprocess.run(["openssl", "ciphers", "-v", EVERY], capture_output=True, text=True, check=True).stdout
    names = sorted({line.split()[0] for line in listed.splitlines() if "TLSv1.3" not in line.split()[1]})
    assert len(names) > 100, f"this openssl offers too few to show anything: {names}"
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        went = pool.map(lambda name: gateway.client("-tls1_2", "-cipher", f"{name}:@SECLEVEL=0")[1], names)
    return {name for name, through in zip(names, went) if through}


def only_good_suites(gateway, signed):
    """Forward secrecy and authenticated encryption: no CBC, RSA key exchange, 3DES, NULL, anonymous or export suite."""
    found = suites_of_tls_1_2(gateway)
    assert found == {f"ECDHE-{signed}-{suite}" for suite in GOOD}, found


def suites_of_tls_1_3(gateway):
    names = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
    for name in names:
        assert name in accepted(gateway, "-tls1_3", "-ciphersuites", name)
    for name in ("TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"):
        refused(gateway, "-tls1_3", "-ciphersuites", name)


def no_compression_and_no_early_data(gateway):
    said = accepted(gateway, "-tls1_2", "-comp", "-cipher", "ALL:@SECLEVEL=0")
    assert "Compression: NONE" in said
    # A ticket says how much may be sent before the handshake is over, where it could be played again.
    said = accepted(gateway, "-tls1_3", send=GET)
    assert set(re.findall(r"Max Early Data: (\d+)", said)) == {"0"}, said


def no_renegotiation(gateway):
    said, _ = gateway.client("-tls1_2", send=b"R\n")
    # It is not answered, and hung up on after limits.read_timeout.
    after = said.split("RENEGOTIATING")[1]
    # A client that gets another handshake verifies once more.
    assert "error:" in after and "verify return" not in after, said
    assert accepted(gateway, "-tls1_2")


def the_protocol_is_agreed_on(gateway):
    for offered, chosen in (("h2,http/1.1", "h2"), ("http/1.1,h2", "h2"), ("http/1.1", "http/1.1"), ("foo,http/1.1", "http/1.1")):
        assert f"ALPN protocol: {chosen}\n" in accepted(gateway, "-alpn", offered), offered
    assert "alert no application protocol" in refused(gateway, "-alpn", "foo")
    assert "No ALPN negotiated" in accepted(gateway)


def a_server_name_is_not_needed(gateway):
    for args in (("-noservername",), ("-servername", "localhost"), ("-servername", "elsewhere.example")):
        accepted(gateway, *args)


def the_chain_is_whole(gateway):
    # The client knows the root only: without the certificate between it could not verify.
    said = accepted(gateway, "-showcerts", "-verify_return_error")
    assert said.count("BEGIN CERTIFICATE") == 2, said


def clear_text_is_answered_at_once(gateway):
    answer, took = gateway.raw(GET)
    assert took < 4 and not answer.startswith(b"HTTP"), (answer, took)


def sessions_are_resumed(gateway):
    for version in ("-tls1_2", "-tls1_3"):
        session = path("session" + version)
        assert "\nNew, " in accepted(gateway, version, "-sess_out", session, send=GET)
        assert "\nReused, " in accepted(gateway, version, "-sess_in", session)


def a_renewed_certificate_is_shown(gateway):
    def subject():
        return re.search(r"subject=(.*)", accepted(gateway)).group(1)

    before = subject()
    write("server.key", read("next.key"))
    write("server.crt", read("next.chain"))
    for _ in range(100):
        if subject() != before:
            break
        time.sleep(0.1)
    assert (before, subject()) == ("CN = ec", "CN = next")


class Backend:
    """`openssl s_server`, which no gateway should speak to unless all is well."""

    def __init__(self, certificate, *args):
        command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-naccept", "1000", "-www"]
        command += ["-cert", path(f"{certificate}.crt"), "-key", path(f"{certificate}.key"), *args]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        children.append(self.process)
        for line in self.process.stdout:
            if line.startswith("ACCEPT "):
                self.port = int(line.rsplit(":", 1)[1])
                break
        threading.Thread(target=lambda: all(self.process.stdout), daemon=True).start()


WEAK = ("-cipher", "ALL:@SECLEVEL=0")
BACKENDS = {
    "expired": (("expired",), "certificate expired", "; have the backend's certificate renewed, or set this machine's clock"),
    "elsewhere": (("elsewhere",), "certificate not valid for name", "; write a name that it is for in `url`"),
    "strange": (("strange",), "UnknownIssuer", "; name the authority that issued it as `ca: file:PATH`"),
    "tls10": (("fine", "-tls1", *WEAK), "", "; the backend has neither TLS 1.2 nor 1.3"),
    "tls11": (("fine", "-tls1_1", *WEAK), "", "; the backend has neither TLS 1.2 nor 1.3"),
    "rsakx": (("fine", "-tls1_2", "-cipher", "AES128-GCM-SHA256:@SECLEVEL=0"), "", "; it may want another"),
}


def unsafe_backends_are_refused_with_the_reason():
    backends = {name: Backend(*args) for name, (args, _, _) in BACKENDS.items()}
    backends["fine"] = Backend("fine")
    gateway = Gateway(backends=[(name, backend.port) for name, backend in backends.items()])

    def reason(name):
        lines = [line for line in gateway.said if f"no TLS connection to backend {name}:" in line]
        return lines[0] if lines else ""

    until = time.monotonic() + 60
    while not all(reason(name) for name in BACKENDS) and time.monotonic() < until:
        time.sleep(0.05)
    gateway.stop()
    for name, (_, why, remedy) in BACKENDS.items():
        assert why in reason(name) and remedy in reason(name), f"{name}: {reason(name)!r} of {gateway.said}"
    assert not reason("fine"), gateway.said


def listener_tests():
    """With a certificate of each kind of key, one gateway after the other: they share a folder."""
    rsa = Gateway("rsa")
    yield "only good suites with an RSA key", lambda: only_good_suites(rsa, "RSA")
    rsa.stop()
    ec = Gateway("ec")
    yield "only good suites with an ECDSA key", lambda: only_good_suites(ec, "ECDSA")
    for test in (
        old_versions_are_refused,
        suites_of_tls_1_3,
        no_compression_and_no_early_data,
        no_renegotiation,
        the_protocol_is_agreed_on,
        a_server_name_is_not_needed,
        the_chain_is_whole,
        clear_text_is_answered_at_once,
        sessions_are_resumed,
        a_renewed_certificate_is_shown,
    ):
        yield test.__name__, lambda test=test: test(ec)


def main():
    certificates()
    passed = failed = 0
    backends = (unsafe_backends_are_refused_with_the_reason.__name__, unsafe_backends_are_refused_with_the_reason)
    for name, test in itertools.chain(listener_tests(), [backends]):
        began = time.monotonic()
        try:
            test()
            passed += 1
            print(f"{name}: {time.monotonic() - began:.1f} s")
        except Exception:
            failed += 1
            print(f"FAILED: {name}")
            traceback.print_exc(file=sys.stdout)
    print(f"{passed} passed, {failed} failed")
    return failed


try:
    status = main()
finally:
    for child in children:
        child.kill()
    subprocess.run(["rm", "-rf", folder], check=False)
sys.exit(1 if status else 0)
