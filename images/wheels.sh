#!/usr/bin/env bash
# Gathers in build/wheels/<image> every wheel that an image is made of, with this machine's pip and its configuration, so
# that the build itself needs neither a network nor a credential: PYTHON=python3.11 images/wheels.sh pipeline trainer
# PYTHON must be of the base image's version. TORCH_INDEX_URL and TRAINER_TORCH_INDEX_URL as in images/build.sh; empty:
# torch comes from where pip's configuration says.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$python" -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install --quiet --upgrade 'pip>=25.1,<27'

for image in "$@"; do
    file=images/$image.Dockerfile
    default() { sed -n "s/^ARG $1=\"\{0,1\}\([^\"]*\)\"\{0,1\}$/\1/p" "$file"; }
    if [ "$image" = trainer ]; then torch=${TRAINER_TORCH_INDEX_URL-$(default TORCH_INDEX_URL)}; else torch=${TORCH_INDEX_URL-$(default TORCH_INDEX_URL)}; fi
    wheels=build/wheels/$image
    mkdir -p "$wheels" && rm -f "$wheels"/*.whl
    if [ -e "images/$image.txt" ]; then
        cp "images/$image.txt" "$scratch/requirements.txt"
    else
        # shellcheck disable=SC2046 # several extras
        "$python" images/requirements.py . $(default EXTRAS) > "$scratch/requirements.txt"
    fi
    pip() { "$scratch/venv/bin/python" -m pip "$@"; }
    if [ -n "$torch" ] && grep -q '^torch' "$scratch/requirements.txt"; then
        pip wheel --quiet --no-deps --wheel-dir "$wheels" --index-url "$torch" "$(grep '^torch==' constraints.txt)"
    fi
    pip wheel --quiet --wheel-dir "$wheels" --find-links "$wheels" --constraint constraints.txt --requirement "$scratch/requirements.txt"
    echo "$wheels: $(find "$wheels" -name '*.whl' | wc -l) wheels, $(du -sm "$wheels" | cut -f1) MB"
done
