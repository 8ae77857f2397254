#!/usr/bin/env python3
"""Examines an archive of ./dist: what is in it, whether it is as reproducible as it says, and whether the SBOM is true.

Run by tests/heavy/dist, in a virtual environment with dev/dist/requirements.txt.

usage: examine.py ARCHIVE REPOSITORY      exit code 1 when something is wrong, with a line for each thing
"""

import json
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

EXPECTED = """outrigger LICENSE README.md CHANGELOG.md THIRD-PARTY.txt sbom.cdx.json fleet.schema.json scenario.schema.json
completions/outrigger completions/_outrigger completions/outrigger.fish man/man1/outrigger.1 man/man1/outrigger-serve.1
deploy/systemd/outrigger.socket deploy/systemd/outrigger@.service deploy/container/Dockerfile
deploy/prometheus/outrigger.rules.yaml
examples/single-cloud.yaml examples/burst.yaml examples/traces/azure-conv-2023.csv""".split()

faults = []


def expect(truth, fault):
    if not truth:
        faults.append(fault)


def examine_members(archive, top):
    members = archive.getmembers()
    names = [m.name for m in members]
    expect(names == sorted(names), "the names are not sorted")
    expect({(m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, "", "")}, "an owner of this machine")
    expect(len({m.mtime for m in members}) == 1, "times differ")
    expect({m.mode for m in members} <= {0o755, 0o644}, "a mode that depends on the umask")
    expect(all(m.isfile() or m.isdir() for m in members), "something that is neither a file nor a folder")
    for name in EXPECTED:
        expect(f"{top}/{name}" in names, f"{name} is missing")


def examine_binary(binary):
    expect(binary[:4] == b"\x7fELF", "the binary is not ELF")
    # Both come along with the C library's resolver and user database, which load modules at run time.
    for word in (b"nsswitch.conf", b"libnss_"):
        expect(word not in binary, f"the binary looks things up through the C library: {word.decode()}")
    # The builds are made below the folder for temporary files, with crates and compiler below the user's.
    for folder in {tempfile.gettempdir(), str(pathlib.Path.home()), "/home"}:
        for found in sorted(set(re.findall(re.escape(f"{folder}/".encode()) + rb"[\x21-\x7e]{3,80}", binary)))[:5]:
            expect(False, f"a path of the machine that built it is in the binary: {found.decode()}")
    expect(b"/cargo/registry/src/" in binary, "no remapped path is in the binary: is this check still looking at anything?")


def cargo(repository, *args):
    run = subprocess.run(["cargo", *args, "--locked"], cwd=repository, check=True, stdout=subprocess.PIPE, text=True)
    return run.stdout


def examine_sbom(text, binary, repository, target):
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    expect(error is None, f"the SBOM is not CycloneDX 1.6: {error}")
    bom = json.loads(text)
    listed = {(c["name"], c.get("version")): c for c in bom["components"]}
    expect(len(listed) == len(bom["components"]), "a component is listed twice")
    lock = {(p["name"], p["version"]): p for p in tomllib.loads((repository / "Cargo.lock").read_text())["package"]}
    metadata = json.loads(cargo(repository, "metadata", "--format-version", "1"))
    licences = {(p["name"], p["version"]): p["license"] for p in metadata["packages"]}

    lines = cargo(repository, "tree", "-p", "outrigger", "--target", target, "-e", "normal", "--prefix", "none", "-f", "{p}")
    tree = {(name, version.removeprefix("v")) for name, version in (line.split()[:2] for line in lines.splitlines() if line)}
    expect(len(tree) > 150, f"only {len(tree)} packages in the tree: is this check still looking at anything?")
    for key in sorted(tree):
        if key[0] == "outrigger":
            continue
        found = listed.get(key)
        if found is None:
            faults.append(f"{key[0]} {key[1]} is in the binary's tree and not in the SBOM")
            continue
        checksum = lock[key].get("checksum")
        given = [h["content"] for h in found.get("hashes", [])]
        expect(given == ([checksum] if checksum else []), f"{key}: the hash is not the one of Cargo.lock")
        written = found["licenses"][0]["expression"]
        expect(written == re.sub(r" */ *", " OR ", licences[key]), f"{key}: {written} is not its licence")
    for key, found in listed.items():
        known = key in lock or key[0] in ("glibc", "musl", "rust-std")
        expect(known, f"{key} is in the SBOM and not in Cargo.lock")
    # What the binary itself says: panics name the files of the crates that they are in.
    said = set(re.findall(rb"/cargo/registry/src/[^/]+/([a-z0-9_-]+?)-(\d+\.\d+\.\d+[0-9a-z.+-]*)/", binary))
    expect(len(said) > 40, f"the binary names only {len(said)} crates")
    for name, version in sorted((n.decode(), v.decode()) for n, v in said):
        scope = listed.get((name, version), {}).get("scope")
        expect(scope == "required", f"{name} {version} is in the binary; in the SBOM it is {scope}")
    refs = {c["bom-ref"] for c in bom["components"]} | {bom["metadata"]["component"]["bom-ref"]}
    ends = {d["ref"] for d in bom["dependencies"]} | {on for d in bom["dependencies"] for on in d["dependsOn"]}
    expect(ends == refs, f"dependencies without a component, or the other way round: {sorted(ends ^ refs)[:5]}")
    return len(bom["components"]), len(tree), len(said)


def main():
    path, repository = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    top = path.name.removesuffix(".tar.gz")
    target = "x86_64" + top.split("x86_64")[1]
    with tarfile.open(path) as archive:
        examine_members(archive, top)
        read = lambda name: archive.extractfile(f"{top}/{name}").read()
        binary = read("outrigger")
        examine_binary(binary)
        components, tree, said = examine_sbom(read("sbom.cdx.json").decode(), binary, repository, target)
        for schema in ("fleet.schema.json", "scenario.schema.json"):
            expect(read(schema) == (repository / schema).read_bytes(), f"another {schema}")
        expect(b"Permission is hereby granted" in read("THIRD-PARTY.txt"), "no licence texts in THIRD-PARTY.txt")
    for fault in faults:
        print(fault)
    print(f"binary {len(binary) / 1e6:.1f} MB, archive {path.stat().st_size / 1e6:.1f} MB; {components} components in the "
          f"SBOM, of which {tree} in the tree, {said} named by the binary itself")
    sys.exit(bool(faults))


main()
