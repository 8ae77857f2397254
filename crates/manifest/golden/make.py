"""Writes manifest.json and manifest.sha256 beside itself: a second implementation of the format in docs/weights.md.

A manifest's form does not depend on what its hashes are of, and Python's standard library has no BLAKE3: the chunks' hashes
are made up.
"""

import base64
import hashlib
import json
import pathlib
import struct


def chunks(*lengths):
    entries = b"".join(struct.pack("<I", length) + hashlib.sha256(b"%d" % at).digest() for at, length in enumerate(lengths))
    return base64.b64encode(entries).decode()


def file(path, *lengths):
    return {
        "path": path,
        "size": sum(lengths),
        "sha256": hashlib.sha256(path.encode()).hexdigest(),
        "chunker": "fixed/1",
        "chunks": chunks(*lengths),
    }


files = [file("config.json", 3), file("empty"), file("sub/w.bin", 16 << 20, 5)]
manifest = {"schema": "outrigger.manifest/v1", "model": "acme/tiny", "files": files, "total": sum(f["size"] for f in files)}
text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
here = pathlib.Path(__file__).parent
(here / "manifest.json").write_bytes(text)
(here / "manifest.sha256").write_text(hashlib.sha256(text).hexdigest() + "\n")
