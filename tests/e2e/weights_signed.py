"""Signatures of weights, judged by others: PyPI's `model-signing` verifies ours and we verify its, and openssl checks the envelope.

Run by ./test with OUTRIGGER_BIN set; the last line is `N passed, N failed`. `model-signing` brings 40 packages, so that `./test heavy
model-signing` installs it; without it (.tools/model-signing, or MODEL_SIGNING=PYTHON) the half that needs it is skipped.
"""

import base64
import json
import os
import shutil
import subprocess
import sys

import weights
from weights import NAME, last_line, path, run

THEIRS = os.environ.get("MODEL_SIGNING") or os.path.join(weights.ROOT, ".tools", "model-signing", "bin", "python")


def make_keys():
    for name, curve in [("signer", "prime256v1"), ("other", "prime256v1"), ("p384", "secp384r1"), ("p521", "secp521r1")]:
        private, public = path(f"{name}.pem"), path(f"{name}.pub")
        subprocess.run(["openssl", "ecparam", "-name", curve, "-genkey", "-noout", "-out", private], check=True)
        subprocess.run(["openssl", "ec", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    # The other form of a private key.
    subprocess.run(["openssl", "pkcs8", "-topk8", "-nocrypt", "-in", path("signer.pem"), "-out", path("signer8.pem")], check=True)


def make_model(where):
    weights.make_model(where, 1)
    # Sorts before the folder `onnx` by letters and after it by names, which is model-signing's order.
    for name, text in {".gitattributes": b"*.bin lfs\n", "onnx.md": b"readme\n"}.items():
        with open(os.path.join(where, name), "wb") as out:
            out.write(text)


def write(text, *names):
    with open(path(*names), "wb") as out:
        out.write(text)


def theirs(verb, folder, signature, key, *more, expect=0):
    option = "--private_key" if verb == "sign" else "--public_key"
    command = [THEIRS, "-m", "model_signing", verb, "key", option, path(key), folder, "--signature", signature, *more]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == expect, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def store():
    return f"file://{path('store')}"


def version():
    home = path("store", "models", NAME)
    return next(os.path.join(home, name) for name in os.listdir(home) if not name.startswith("."))


def problems(*args):
    return {p["path"]: p["problem"] for p in last_line(run("verify", *args, "--json", expect=1))["problems"]}


def the_envelope_is_signed_as_dsse_says():
    """openssl, over the bytes that DSSE's own text says, for each curve and form of key."""
    for key, public, digest in [("signer.pem", "signer.pub", "sha256"), ("signer8.pem", "signer.pub", "sha256"),
                                ("p384.pem", "p384.pub", "sha384"), ("p521.pem", "p521.pub", "sha512")]:
        signed = last_line(run("sign", NAME, "--from", store(), "--key", path(key), "--json"))
        assert signed["signature"] == os.path.join(version(), ".outrigger", "model.sig"), signed
        envelope = json.load(open(signed["signature"]))["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"])
        kind = envelope["payloadType"]
        write(f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload, "signed.bin")
        write(base64.b64decode(envelope["signatures"][0]["sig"]), "signature.bin")
        subprocess.run(["openssl", "dgst", f"-{digest}", "-verify", path(public), "-signature", path("signature.bin"),
                        path("signed.bin")], check=True, capture_output=True)
        assert last_line(run("verify", NAME, "--from", store(), "--key", path(public), "--json"))["signed"] is True
    run("sign", NAME, "--from", store(), "--key", path("signer.pem"))
    statement = json.loads(payload)
    listed = "".join(f"{r['digest']}  ./{r['name']}\n" for r in sorted(statement["predicate"]["resources"], key=lambda r: r["name"]))
    assert listed == "".join(line for line in weights.sums(version()).splitlines(True) if ".gitattributes" not in line)


def they_verify_ours():
    pulled = path("pulled-signed")
    run("pull", NAME, "--from", store(), "--to", pulled, "--key", path("signer.pub"))
    for folder in [version(), pulled]:
        theirs("verify", folder, os.path.join(folder, ".outrigger", "model.sig"), "signer.pub")
        theirs("verify", folder, os.path.join(folder, ".outrigger", "model.sig"), "other.pub", expect=1)
    write(b"[]\n", "pulled-signed", "config.json")
    assert "config.json" in theirs("verify", pulled, os.path.join(pulled, ".outrigger", "model.sig"), "signer.pub", expect=1)
    shutil.rmtree(pulled)
    # A directory that outrigger does not know, signed by outrigger: their place and their names.
    shutil.copytree(path("model"), path("plain"))
    run("sign", path("plain"), "--key", path("signer.pem"))
    theirs("verify", path("plain"), path("plain", "model.sig"), "signer.pub")
    shutil.rmtree(path("plain"))


def we_verify_theirs():
    shutil.copytree(path("model"), path("plain"))
    theirs("sign", path("plain"), path("plain", "model.sig"), "signer.pem")
    run("verify", path("plain"), "--key", path("signer.pub"))
    changes(path("plain"), path("plain", "model.sig"), ["--key", path("signer.pub")])
    # And as a version that brings their signature along.
    run("add", path("plain"), "--name", "acme/theirs", "--to", store())
    run("verify", "acme/theirs", "--from", store(), "--key", path("signer.pub"))
    run("pull", "acme/theirs", "--from", store(), "--to", path("pulled-theirs"))
    run("verify", path("pulled-theirs"), "--key", path("signer.pub"))
    assert "is not signed" in run("pull", "acme/theirs", "--from", store(), "--to", path("none"), "--key", path("signer.pub"), expect=1).stderr
    theirs("sign", path("plain"), path("plain", "model.sig"), "signer.pem", "--allow_symlinks")
    assert "symbolic links" in run("verify", path("plain"), "--key", path("signer.pub"), expect=1).stderr


def ours_in_a_directory_refuses_changes():
    shutil.copytree(path("model"), path("ours"))
    run("sign", path("ours"), "--key", path("signer.pem"))
    run("verify", path("ours"), "--key", path("signer.pub"))
    changes(path("ours"), path("ours", "model.sig"), ["--key", path("signer.pub")])


def changes(folder, signature, key):
    """Everything that can be changed about a signed directory, each refused by name and mended again."""
    with open(os.path.join(folder, "config.json"), "r+b") as out:
        good = out.read()
        out.seek(0)
        out.write(b"[")
    assert problems(folder, *key) == {"config.json": "not_as_signed"}
    with open(os.path.join(folder, "config.json"), "wb") as out:
        out.write(good)
    os.rename(os.path.join(folder, "onnx.md"), os.path.join(folder, "evil.py"))
    assert problems(folder, *key) == {"onnx.md": "missing", "evil.py": "not_signed"}
    os.rename(os.path.join(folder, "evil.py"), os.path.join(folder, "onnx.md"))
    run("verify", folder, *key)

    refused = lambda *args: run("verify", folder, *args, expect=1).stderr
    assert "made by another key" in refused("--key", path("other.pub"))
    text = open(signature).read()
    bundle = json.loads(text)
    statement = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    config = json.loads(statement)["predicate"]["resources"][0]["digest"]
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(statement.replace(config.encode(), b"0" * 64)).decode()
    write(json.dumps(bundle).encode(), "tampered.sig")
    assert "not this key's signature" in refused(*key, "--signature", path("tampered.sig"))
    # The hint alone, turned to the other key: it is no part of what is signed.
    bundle = json.loads(text)
    subprocess.run([*weights_bin(), "sign", folder, "--key", path("other.pem"), "--signature", path("other.sig")], check=True, capture_output=True)
    bundle["verificationMaterial"] = json.load(open(path("other.sig")))["verificationMaterial"]
    write(json.dumps(bundle).encode(), "tampered.sig")
    assert "not this key's signature" in refused("--key", path("other.pub"), "--signature", path("tampered.sig"))
    assert "is not there" in run("verify", path("model"), *key, expect=1).stderr
    assert "holds no public key" in run("verify", folder, "--key", signature, expect=2).stderr


def weights_bin():
    return [weights.BIN, "weights"]


def a_pull_with_a_key_brings_only_what_was_signed():
    shutil.rmtree(path("attacked"), ignore_errors=True)
    shutil.copytree(path("store"), path("attacked"))
    attacked = f"file://{path('attacked')}"
    to = path("pulled-with-key")
    good = last_line(run("show", NAME, "--from", store(), "--json"))["digest"]
    refused = lambda key: run("pull", NAME, "--from", attacked, "--to", to, "--key", path(key), expect=1).stderr
    assert "made by another key" in refused("other.pub")
    # Whoever can write to the store publishes another model under the ref, and takes the signature along.
    write(b"import os\n", "model", "evil.py")
    bad = last_line(run("add", path("model"), "--name", NAME, "--to", attacked, "--json"))["digest"]
    os.remove(path("model", "evil.py"))
    assert "is not signed" in refused("signer.pub")
    own = lambda digest: path("attacked", "models", NAME, digest[7:19], ".outrigger", "model.sig")
    shutil.copy(own(good), own(bad))
    assert f"signs {good}, and this is {bad}" in refused("signer.pub")
    assert not os.path.exists(to), "something was made before the signature was right"
    run("pull", f"{NAME}@{good}", "--from", attacked, "--to", to, "--key", path("signer.pub"))
    assert last_line(run("verify", to, "--key", path("signer.pub"), "--json"))["signed"] is True
    # Nothing that is wrong is signed.
    write(b"[]\n", "attacked", "models", NAME, good[7:19], "config.json")
    assert "nothing was signed: config.json" in run("sign", f"{NAME}@{good}", "--from", attacked, "--key", path("signer.pem"), expect=1).stderr


def setup():
    make_keys()
    make_model(path("model"))
    run("add", path("model"), "--name", NAME, "--to", store())
    assert "is not there" in run("verify", NAME, "--from", store(), "--key", path("signer.pub"), expect=1).stderr


def main():
    tests = [setup, the_envelope_is_signed_as_dsse_says, ours_in_a_directory_refuses_changes]
    if os.access(THEIRS, os.X_OK):
        tests += [they_verify_ours, we_verify_theirs]
    elif "--theirs" in sys.argv:
        sys.exit(f"{THEIRS} is missing")
    else:
        print("model-signing is missing: that it and outrigger verify one another was not tested (`./test heavy model-signing` does)")
    return weights.play([(test.__name__.replace("_", " "), test) for test in [*tests, a_pull_with_a_key_brings_only_what_was_signed]])


if __name__ == "__main__":
    weights.ended(main)
