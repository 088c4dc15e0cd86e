#!/usr/bin/env bash
# Pushes what images/build.sh built with the same REGISTRY and TAG, and writes the digests to build/images.env:
# images/push.sh pipeline trainer
set -euo pipefail
cd "$(dirname "$0")/.."
. images/names.sh

docker=${DOCKER:-docker}
: "${REGISTRY:?Where to push to? REGISTRY=registry.example.org/team make push}"

for image in "$@"; do
    tagged=$(name "$image")
    "$docker" image inspect "$tagged" > /dev/null 2>&1 || { echo "There is no image $tagged here; make images first, with the same REGISTRY and TAG." >&2; exit 1; }
    "$docker" push --quiet "$tagged" > /dev/null
    # The registry's own word for what it holds; a tag may be moved, a digest may not.
    digest=$("$docker" image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$tagged" | grep -F "${tagged%:*}@" | head -n 1)
    [ -n "$digest" ] || { echo "$tagged was pushed, but no digest came back from the registry." >&2; exit 1; }
    note "$(variable "$image")" "$digest"
    echo "Pushed $tagged as $digest"
done
