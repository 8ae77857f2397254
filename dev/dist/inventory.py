#!/usr/bin/env python3
"""What is in a binary: an SBOM (CycloneDX 1.6, JSON) and the licence texts that have to go along with it.

Both are read from cargo's own answer about the crates of one build, so the same tree gives the same bytes: no time, no
random serial number. cargo-cyclonedx would do most of the first, but it writes both of those, takes all features of
the workspace instead of the build's, and takes minutes to compile; the second needs cargo-about. What is written here is
checked against the official schema and against Cargo.lock by tests/heavy/dist.

usage: inventory.py --target T --sbom FILE --licences FILE
"""

import argparse
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib

PACKAGE = "outrigger"
LICENCE_FILE = re.compile(r"(licen[cs]e|copying|notice|copyright|unlicense)", re.IGNORECASE)


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def crates(target):
    """(name, version) of the crates that are linked into the binary, or that build it and leave only what they wrote."""

    def tree(edges):
        out = output("cargo", "tree", "--locked", "--package", PACKAGE, "--target", target, "--edges", edges,
                     "--prefix", "none", "--format", "{p}")
        return {tuple(line.split()[:2]) for line in out.splitlines() if line}

    # Procedural macros run in the compiler, and so does what only they depend on.
    linked = tree("normal,no-proc-macro")
    return linked, tree("normal,build") - linked


def locked():
    with open("Cargo.lock", "rb") as file:
        return {(p["name"], p["version"]): p for p in tomllib.load(file)["package"]}


def spdx(licence):
    """Old manifests write `/` for OR."""
    return licence.replace(" / ", " OR ").replace("/", " OR ")


def component(package, checksum, linked):
    name, version = package["name"], package["version"]
    entry = {
        "type": "library",
        "bom-ref": f"pkg:cargo/{name}@{version}",
        "name": name,
        "version": version,
        # `excluded` is CycloneDX's word for what building needs and the result does not hold.
        "scope": "required" if linked else "excluded",
        "licenses": [{"expression": spdx(package["license"])}],
        "purl": f"pkg:cargo/{name}@{version}",
    }
    if package["description"]:
        entry["description"] = " ".join(package["description"].split())
    if checksum:
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["repository"]:
        entry["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return entry


def c_library(target):
    """What a static binary holds beside crates."""
    if target.endswith("-musl"):
        # As rustup ships it with the target; its version is the toolchain's business.
        return {"type": "library", "bom-ref": "musl", "name": "musl", "scope": "required",
                "licenses": [{"expression": "MIT"}]}
    version = output("getconf", "GNU_LIBC_VERSION").split()[1]
    return {"type": "library", "bom-ref": f"glibc@{version}", "name": "glibc", "version": version, "scope": "required",
            "licenses": [{"expression": "LGPL-2.1-or-later"}]}


def sbom(target, packages, linked, metadata):
    lock = locked()
    ids = {p["id"]: key for key, p in packages.items()}
    root = next(p for key, p in packages.items() if key[0] == PACKAGE)
    main = f"pkg:cargo/{PACKAGE}@{root['version']}"
    rust = output("rustc", "--version").strip()
    c = [c_library(target), {"type": "library", "bom-ref": f"rust-std@{rust.split()[1]}", "name": "rust-std",
                             "version": rust.split()[1], "scope": "required",
                             "licenses": [{"expression": "MIT OR Apache-2.0"}]}]
    depends = []
    for node in metadata["resolve"]["nodes"]:
        if (key := ids.get(node["id"])) is None:
            continue
        kinds = lambda dep: {kind["kind"] for kind in dep["dep_kinds"]} - {"dev"}
        on = sorted({"pkg:cargo/{}@{}".format(*ids[dep["pkg"]]) for dep in node["deps"]
                     if dep["pkg"] in ids and kinds(dep)})
        ref = "pkg:cargo/{}@{}".format(*key)
        depends.append({"ref": ref, "dependsOn": sorted(on + [x["bom-ref"] for x in c]) if ref == main else on})
    depends += [{"ref": x["bom-ref"], "dependsOn": []} for x in c]
    described = {"type": "application", "bom-ref": main, "name": PACKAGE, "version": root["version"],
                 "description": root["description"], "licenses": [{"expression": root["license"]}], "purl": main,
                 "properties": [{"name": "outrigger:target", "value": target},
                                {"name": "outrigger:commit", "value": os.environ.get("OUTRIGGER_COMMIT", "unknown")},
                                {"name": "outrigger:rustc", "value": rust},
                                {"name": "outrigger:cc", "value": output("cc", "--version").splitlines()[0]}]}
    listed = [component(p, lock[key].get("checksum"), key in linked) for key, p in packages.items() if p is not root]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": described},
        "components": sorted(listed + c, key=lambda entry: entry["bom-ref"]),
        "dependencies": sorted(depends, key=lambda entry: entry["ref"]),
    }


def licence_texts(packages, linked):
    """Every licence text that comes with a linked crate, each once, under the names of those that it came with."""
    texts, without = {}, []
    for key in sorted(linked):
        package = packages[key]
        if package["source"] is None:
            continue
        folder = pathlib.Path(package["manifest_path"]).parent
        files = sorted(f for f in folder.iterdir() if f.is_file() and LICENCE_FILE.match(f.name))
        files += sorted(folder.glob("aws-lc/LICENSE"))
        found = [f.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n").strip() for f in files]
        name = f"{key[0]} {key[1].removeprefix('v')} ({spdx(package['license'])})"
        for text in filter(None, found):
            texts.setdefault(hashlib.sha256(text.encode()).hexdigest(), (text, []))[1].append(name)
        if not any(found):
            without.append(name)
    parts = ["The outrigger binary holds the following, beside what LICENSE is for.\n"]
    for text, names in sorted(texts.values(), key=lambda entry: entry[1]):
        parts.append("\n".join([*sorted(set(names)), "", text, ""]))
    if without:
        parts.append("\n".join(["Under the terms named, whose text the crate does not carry:", *without, ""]))
    return f"\n{'-' * 100}\n\n".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag in ("--target", "--sbom", "--licences"):
        parser.add_argument(flag, required=True)
    args = parser.parse_args()
    metadata = json.loads(output("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform",
                                 args.target))
    linked, building = crates(args.target)
    known = {(p["name"], "v" + p["version"]): p for p in metadata["packages"]}
    packages = {(key[0], key[1].removeprefix("v")): known[key] for key in sorted(linked | building)}
    linked = {(name, version.removeprefix("v")) for name, version in linked}
    bare = [f"{p['name']} {p['version']}" for p in packages.values() if not p["license"]]
    if bare:
        sys.exit(f"inventory: no licence is named by {', '.join(bare)}")
    bom = sbom(args.target, packages, linked, metadata)
    pathlib.Path(args.sbom).write_text(json.dumps(bom, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    pathlib.Path(args.licences).write_text(licence_texts(packages, linked), encoding="utf-8")


main()
