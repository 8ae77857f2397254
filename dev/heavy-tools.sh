# shellcheck shell=bash
# What heavy suites install for themselves into .tools, once: sourced by them, from the root of the repository.

# venv NAME REQUIREMENTS: .tools/NAME with exactly these packages. The path counts because an environment cannot be moved.
venv() {
    local folder=$PWD/.tools/$1 want
    want=$( (cat "$2" && python3 --version && pwd) | sha256sum)
    [[ $(cat "$folder/stamp" 2>/dev/null) != "$want" ]] || return 0
    echo "installing $2 into .tools/$1"
    rm -rf "$folder"
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --no-deps -r "$2"
    echo "$want" >"$folder/stamp"
}

# node_packages NAME FOLDER: .tools/NAME/node_modules with what FOLDER's package-lock.json says.
node_packages() {
    local folder=$PWD/.tools/$1 want
    want=$(cat "$2/package-lock.json" | sha256sum)
    [[ $(cat "$folder/stamp" 2>/dev/null) != "$want" ]] || return 0
    echo "installing $2/package-lock.json into .tools/$1"
    rm -rf "$folder"
    mkdir -p "$folder"
    cp "$2/package.json" "$2/package-lock.json" "$folder/"
    npm ci --prefix "$folder" --no-audit --no-fund --ignore-scripts --loglevel=error
    echo "$want" >"$folder/stamp"
}

# with_rig SCRIPT ARGUMENT…: runs a Python script with the rig of the end-to-end tests, on the release build or OUTRIGGER_BIN.
with_rig() {
    if [[ -z ${OUTRIGGER_BIN-} ]]; then
        cargo build --release --locked --quiet -p outrigger
        export OUTRIGGER_BIN=${CARGO_TARGET_DIR:-target}/release/outrigger
    fi
    PYTHONPATH=tests/e2e PYTHONDONTWRITEBYTECODE=1 .tools/py/bin/python "$@"
}

# debian NAME PACKAGE…: .tools/NAME with what is in these Debian packages, of the versions that Debian has now; the machine
# itself stays as it is.
debian() {
    local folder=$PWD/.tools/$1
    shift
    [[ $(cat "$folder/stamp" 2>/dev/null) != "$*" ]] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "this suite takes $* from Debian's packages, and this machine has no apt-get" >&2
        return 3
    fi
    echo "unpacking $* into $folder"
    rm -rf "$folder"
    mkdir -p "$folder/packages"
    (cd "$folder/packages" && { apt-get download -q "$@" || { apt-get update -q && apt-get download -q "$@"; }; }) >/dev/null 2>&1
    for package in "$folder"/packages/*.deb; do dpkg -x "$package" "$folder"; done
    rm -rf "$folder/packages"
    echo "$*" >"$folder/stamp"
}
