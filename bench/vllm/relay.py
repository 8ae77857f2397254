"""A server in the gateway's place that says something differently, and that reads on when its client has gone. A comparison has to
see the one, and a count of what the engine works on the other.
"""

import contextlib
import http.server
import threading

import httpx2


class Relay(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    root, before, after = "", b"", b""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.relay(b"")

    def do_POST(self):
        self.relay(self.rfile.read(int(self.headers["content-length"])))

    def relay(self, body):
        url, headers = self.root + self.path, {"content-type": "application/json"}
        with httpx2.stream(self.command, url, content=body, headers=headers, timeout=120) as answer:
            self.send_response(answer.status_code)
            self.send_header("content-type", answer.headers["content-type"])
            self.end_headers()
            for line in answer.iter_lines():
                with contextlib.suppress(OSError):
                    self.wfile.write(line.encode().replace(self.before, self.after) + b"\n")
                    self.wfile.flush()


def start(root, before, after):
    """The base URL of one before this server, which says the second where that says the first."""
    handler = type("Altered", (Relay,), {"root": root, "before": before, "after": after})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/v1"
