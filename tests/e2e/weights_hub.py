"""What is pulled into the hub's cache, read by the hub's own client, which may not use the network.

Run by ./test with OUTRIGGER_BIN set; the last line is `N passed, N failed`. The client (`huggingface_hub`) is installed by `./test heavy hub`;
without it (.tools/hub, or HUB=PYTHON) only what lies where is looked at.
"""

import json
import os
import subprocess
import sys

import weights
from weights import NAME, last_line, path, run

CLIENT = os.environ.get("HUB") or os.path.join(weights.ROOT, ".tools", "hub", "bin", "python")
ASK = """
import json, sys
from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download, try_to_load_from_cache
cache, name, revision = sys.argv[1:]
folder = snapshot_download(name, revision=revision, cache_dir=cache, local_files_only=True)
config = hf_hub_download(name, "config.json", revision=revision, cache_dir=cache, local_files_only=True)
known = try_to_load_from_cache(name, "config.json", cache_dir=cache, revision=revision)
repos = [(repo.repo_id, sorted(len(one.files) for one in repo.revisions)) for repo in scan_cache_dir(cache).repos]
print(json.dumps({"folder": folder, "config": config, "known": known, "repos": repos}))
"""


def store():
    return f"file://{path('store')}"


def pull(wanted=NAME, *more, expect=0):
    return run("pull", wanted, "--from", store(), "--hf-cache", path("cache"), "--json", *more, expect=expect)


def model_folder():
    return path("cache", "models--" + NAME.replace("/", "--"))


def ref(name="main"):
    with open(os.path.join(model_folder(), "refs", name)) as file:
        return file.read()


def read_by_the_hub(revision="main"):
    """The folder in which the hub's client finds a revision; where there is no client, the one that its rules say."""
    if not os.access(CLIENT, os.X_OK):
        return os.path.join(model_folder(), "snapshots", ref(revision) if len(revision) < 40 else revision)
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": path("home")}
    done = subprocess.run([CLIENT, "-c", ASK, path("cache"), NAME, revision], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["config"] == os.path.join(found["folder"], "config.json") and found["known"] == found["config"], found
    assert [repo for repo, _ in found["repos"]] == [NAME], found
    return found["folder"]


def a_snapshot_of_the_hubs_own():
    """As the hub's client leaves it: files under `blobs`, and links to them."""
    snapshot = os.path.join(model_folder(), "snapshots", "5" * 40)
    for folder in (snapshot, os.path.join(model_folder(), "blobs"), os.path.join(model_folder(), "refs")):
        os.makedirs(folder)
    with open(os.path.join(model_folder(), "blobs", "e" * 40), "w") as out:
        out.write("{}")
    os.symlink("../../blobs/" + "e" * 40, os.path.join(snapshot, "config.json"))
    with open(os.path.join(model_folder(), "refs", "main"), "w") as out:
        out.write("5" * 40)


def a_pulled_version_is_found_by_its_name():
    a_snapshot_of_the_hubs_own()
    weights.make_model(path("model"), 1)
    run("add", path("model"), "--name", NAME, "--to", store())
    done = last_line(pull())
    folder = read_by_the_hub()
    assert folder == done["dir"] and ref() == done["digest"][7:47], done
    assert weights.sums(folder) == weights.sums(path("model"))


def a_new_version_takes_the_refs_place_and_the_old_one_stays():
    old = ref()
    with open(path("model", "config.json"), "w") as out:
        out.write('{"new": true}\n')
    run("add", path("model"), "--name", NAME, "--to", store())
    done = last_line(pull())
    assert ref() != old and ref() == done["digest"][7:47]
    assert done["fetched"] == os.path.getsize(path("model", "config.json")), f"only what changed is fetched: {done}"
    assert weights.sums(read_by_the_hub()) == weights.sums(path("model"))
    assert read_by_the_hub(old).endswith(old)


def a_version_by_its_digest_moves_no_ref():
    before = ref()
    other = next(name for name in os.listdir(os.path.join(model_folder(), "snapshots")) if name != before)
    digests = [line["digest"] for line in json.loads(run("ls", "--from", store(), "--json").stdout)["refs"]]
    assert digests[0][7:47] == before
    pull(f"{NAME}@{digests[0]}")
    assert ref() == before and os.path.isdir(os.path.join(model_folder(), "snapshots", other))


def a_pull_that_fails_leaves_the_ref_alone():
    before = ref()
    with open(path("model", "config.json"), "w") as out:
        out.write('{"newer": true}\n')
    run("add", path("model"), "--name", NAME, "--to", store())
    digest = json.loads(run("ls", "--from", store(), "--json").stdout)["refs"][0]["digest"]
    target = path("store", "models", NAME, digest[7:19], "config.json")
    with open(target, "w") as out:
        out.write('{"other": 1}\n\n\n')
    pull(expect=1)
    assert ref() == before and read_by_the_hub().endswith(before)


def damage_in_the_cache_is_mended():
    folder = read_by_the_hub()
    file = os.path.join(folder, "config.json")
    good = open(file, "rb").read()
    with open(file, "r+b") as out:
        out.write(b"X")
    ready = open(os.path.join(folder, ".outrigger", "READY")).read().strip()
    pull(f"{NAME}@{ready}")
    assert open(file, "rb").read() == good


def main():
    tests = [
        a_pulled_version_is_found_by_its_name,
        a_new_version_takes_the_refs_place_and_the_old_one_stays,
        a_version_by_its_digest_moves_no_ref,
        a_pull_that_fails_leaves_the_ref_alone,
        damage_in_the_cache_is_mended,
    ]
    if not os.access(CLIENT, os.X_OK):
        if "--theirs" in sys.argv:
            sys.exit(f"{CLIENT} is missing")
        print("huggingface_hub is missing: that it reads the cache was not tested (`./test heavy hub` does)")
    return weights.play([(test.__name__.replace("_", " "), test) for test in tests])


if __name__ == "__main__":
    weights.ended(main)
