"""Clients as their makers ship them, unmodified: each call directly to a llama-server and through the gateway, with equal
outcomes. openai's Python client in its current major version and the one before, and openai's client for Node; over plain
HTTP, and over TLS through a fleet that was imported from LiteLLM.

Run by ./test with OUTRIGGER_BIN set; the last line is `N passed, N failed`.
"""

import json
import os
import subprocess
import sys
import tempfile
import traceback

from rig import BIN, ROOT, Engine, Gateway, stop_all

HERE = os.path.dirname(os.path.abspath(__file__))
TOOLS = os.path.join(ROOT, ".tools")
PYTHON = [sys.executable, os.path.join(HERE, "clients", "openai_client.py")]
NODE = ["node", os.path.join(HERE, "clients", "openai_client.mjs")]
# What its makers ship, how it is run, and the first number of its version.
CLIENTS = {
    "openai 3 (Python)": (PYTHON, {}, "3."),
    "openai 2 (Python)": (PYTHON, {"PYTHONPATH": os.path.join(TOOLS, "openai-2")}, "2."),
    "openai 6 (Node)": (NODE, {"NODE_PATH": os.path.join(TOOLS, "node_modules")}, "6."),
}


def outcomes(command, env, url, key, model):
    env = {**os.environ, **env, "PATH": os.path.join(TOOLS, "bin") + os.pathsep + os.environ["PATH"]}
    done = subprocess.run([*command, url, key, model], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def certificate(folder):
    """An authority of its own and a certificate by it, as files."""
    def openssl(*args):
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=e2e", "-days", "2")
    openssl("req", *curve, "-keyout", "gateway.key", "-out", "gateway.csr", "-subj", "/CN=gateway")
    with open(os.path.join(folder, "names"), "w") as out:
        out.write("subjectAltName=IP:127.0.0.1\n")
    signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2"]
    openssl("x509", "-req", "-in", "gateway.csr", *signed, "-out", "gateway.crt")


def imported_over_tls(engine):
    """What LiteLLM's configuration becomes, with a certificate."""
    folder, key = tempfile.TemporaryDirectory(prefix="outrigger-e2e-"), "sk-the-master-key-of-the-old-proxy"
    certificate(folder.name)
    config = f"""
model_list:
  - model_name: pub
    litellm_params: {{model: openai/tiny, api_base: "{engine.url}", api_key: none}}
general_settings: {{master_key: os.environ/MASTER_KEY}}
"""
    imported = subprocess.run([BIN, "import", "litellm", "-"], input=config, capture_output=True, text=True)
    assert imported.returncode == 0, imported.stderr
    hashed = subprocess.run([BIN, "key", "hash"], input=key, capture_output=True, text=True, check=True).stdout
    with open(os.path.join(folder.name, "master.sha256"), "w") as out:
        out.write(hashed)
    os.environ["LITELLM_KEY_PUB"] = "none"
    apis = "    apis: [chat, completions, embeddings, responses, messages]\n"
    fleet = imported.stdout.replace("    engine: openai\n", "    engine: llamacpp\n" + apis)
    tls = "gateway:\n  tls: { cert: file:gateway.crt, key: file:gateway.key }\n"
    return Gateway.of(fleet.replace("version: 1\n", "version: 1\n" + tls), key, folder)


def compare(client, engine, gateway):
    command, env, version = CLIENTS[client]
    if gateway.url.startswith("https:"):
        authority = os.path.join(gateway.folder.name, "ca.crt")
        env = {**env, "SSL_CERT_FILE": authority, "NODE_EXTRA_CA_CERTS": authority}
    direct = outcomes(command, env, engine.url, "none", "tiny")
    through = outcomes(command, env, gateway.url, gateway.key, "pub")
    assert direct["client"].startswith(version), direct["client"]
    differ = {name: (direct[name], through.get(name)) for name in direct if direct[name] != through.get(name)}
    assert not differ and direct.keys() == through.keys(), differ
    # A client that fails everywhere would agree, too.
    answered = [name for name, outcome in through.items() if isinstance(outcome, list) and "Error" not in str(outcome)]
    assert {"whole", "streamed", "streamed with usage", "response streamed", "hung up"} <= set(answered), through
    return len(through) - 1


def main():
    failed = 0
    engine = Engine("tiny").wait()
    gateways = {"plain": Gateway([engine], ["tiny"]), "imported, over TLS": imported_over_tls(engine)}
    for way, gateway in gateways.items():
        for client in CLIENTS:
            try:
                print(f"ok   {client}, {way}: {compare(client, engine, gateway)} calls with equal outcomes")
            except Exception:
                failed += 1
                print(f"FAIL {client}, {way}")
                traceback.print_exc(file=sys.stdout)
        code, said = gateway.stop()
        assert code == 0 and "panicked" not in said, said
    print(f"{len(gateways) * len(CLIENTS) - failed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        stop_all()
