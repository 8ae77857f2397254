#!/usr/bin/env bash
# Runs a static binary where there is nothing else: no shell, no library, no file that it did not bring, no user of root's.
# Namespaces need root. usage: bare.sh BINARY REPOSITORY ARCHIVE
set -euo pipefail
binary=$1 repository=$2 archive=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
[[ $(id -u) == 0 ]] || { echo "bare.sh needs root, for chroot and namespaces" >&2 && exit 3; }

fail() {
    printf 'bare: %s\n' "$1"
    exit 1
}

# in_root ROOT PROGRAM ARGS…: as uid 65532, with an empty environment. The demo finds its own program by /proc and gives its
# clouds /dev/null, so that these two are there, as in a container. The first process takes all others with it.
in_root() {
    local root=$1
    shift
    # shellcheck disable=SC2016  # the inner shell's arguments
    unshare --mount --pid --fork --kill-child bash -c '
        mount -t proc proc "$0/proc" && mount --bind /dev/null "$0/dev/null" &&
            exec env -i "$(command -v chroot)" --userspec=65532:65532 "$0" "$@"' "$root" "$@"
}

# ---- an empty root
root=$work/empty
mkdir -p "$root"/{proc,dev,tmp}
: >"$root/dev/null"
chmod 1777 "$root/tmp"
install -m 755 "$binary" "$root/outrigger"
install -m 644 "$repository/examples/burst.yaml" "$root/fleet.yaml"
said=$(in_root "$root" /outrigger --version)
[[ $said == "outrigger $(sed -nE '/^\[workspace.package\]/,/^\[/s/^version = "(.*)"/\1/p' "$repository/Cargo.toml")" ]] || fail "--version says $said"
in_root "$root" /outrigger check /fleet.yaml >/dev/null 2>&1 || fail "check ended with $?"
in_root "$root" /outrigger demo --for 5s --json >"$work/demo" 2>"$work/demo.err" || fail "demo ended with $?: $(cat "$work/demo" "$work/demo.err")"
tail -n 1 "$work/demo" | python3 -c '
import json, sys
done = json.loads(sys.stdin.read())
assert done["requests"] > 50 and done["failed"] == 0 and len(done["by_backend"]) >= 2, done
print("empty root: version, check, and a demo of", done["requests"], "requests,", done["failed"], "failed")'
[[ $(cd "$root" && find . -xdev -type f | sort | tr '\n' ' ') == "./dev/null ./fleet.yaml ./outrigger " ]] || fail "something is left behind"

# ---- the image's root, laid out as docker would
context=$work/context
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=a test authority" -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
openssl req -newkey rsa:2048 -nodes -subj "/CN=localhost" -keyout "$work/key.pem" -out "$work/csr.pem" 2>/dev/null
openssl x509 -req -in "$work/csr.pem" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 2 \
    -extfile <(echo "subjectAltName=DNS:localhost,IP:127.0.0.1") -out "$work/cert.pem" 2>/dev/null
"$repository/deploy/container/build" --ca "$work/ca.pem" --context "$context" "$archive" >/dev/null
root=$work/image
mkdir "$root"
cp -a "$context/rootfs/." "$root"
cp -a "$context/owned/." "$root"
chown -R 65532:65532 "$root/var/lib/outrigger" "$root/tmp"
mkdir "$root/proc"
PYTHONDONTWRITEBYTECODE=1 python3 "$repository/dev/dist/image.py" "$root" "$work" "$context/Dockerfile"
