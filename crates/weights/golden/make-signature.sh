#!/usr/bin/env bash
# Writes model.sig and public.pem beside itself, by `model-signing` 1.1.1 (PyPI, Apache-2.0) and openssl: a new key each time.
# MODEL_SIGNING=PATH/python names a Python that has it.
set -euo pipefail
cd "$(dirname "$0")"
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
mkdir -p "$made/m/sub" "$made/m/.outrigger"
echo hi >"$made/m/config.json"
echo x >"$made/m/sub/w.bin"
echo y >"$made/m/sub.txt"
echo z >"$made/m/.outrigger/manifest.json"
echo q >"$made/m/.gitattributes"
: >"$made/m/empty"
openssl ecparam -name prime256v1 -genkey -noout -out "$made/private.pem"
openssl ec -in "$made/private.pem" -pubout -out public.pem
(cd "$made" && "${MODEL_SIGNING:-python3}" -m model_signing sign key --private_key private.pem m --signature m/model.sig --ignore-paths m/.outrigger)
cp "$made/m/model.sig" .
