#!/usr/bin/env bash
# Builds images: images/build.sh pipeline trainer
# From the environment: REGISTRY, TAG, BASE_IMAGE and SYSTEM_PACKAGES (for one image alone: TRAINER_BASE_IMAGE and so on),
# TORCH_INDEX_URL (the pipeline's torch, for the CPU), TRAINER_TORCH_INDEX_URL, PIP_INDEX_URL and the like, DOCKER, and
# BUILD_FLAGS for all else.
set -euo pipefail
cd "$(dirname "$0")/.."
. images/names.sh

docker=${DOCKER:-docker}
# Where the source can be had: a public address, without a user's name; a folder of this machine tells nobody anything.
source_url=$(git remote get-url origin 2> /dev/null | sed -n 's#^\(https\{0,1\}://\)\([^@/]*@\)\{0,1\}#\1#p' || true)

for image in "$@"; do
    upper=$(echo "$image" | tr '[:lower:]' '[:upper:]')
    own_base=${upper}_BASE_IMAGE own_packages=${upper}_SYSTEM_PACKAGES
    base=${!own_base:-${BASE_IMAGE:-}}
    if [ "$image" = trainer ]; then torch=TRAINER_TORCH_INDEX_URL; else torch=TORCH_INDEX_URL; fi

    arguments=(--build-arg "IMAGE=$(name "$image")" --build-arg "REVISION=$revision" --build-arg "VERSION=$version"
        --build-arg "SOURCE=${IMAGE_SOURCE:-$source_url}")
    [ -z "$base" ] || arguments+=(--build-arg "BASE_IMAGE=$base")
    [ -z "${!torch+set}" ] || arguments+=(--build-arg "TORCH_INDEX_URL=${!torch}")
    if [ -n "${!own_packages+set}" ]; then
        arguments+=(--build-arg "SYSTEM_PACKAGES=${!own_packages}")
    elif [ -n "${SYSTEM_PACKAGES+set}" ]; then
        arguments+=(--build-arg "SYSTEM_PACKAGES=$SYSTEM_PACKAGES")
    fi
    # By name only: docker takes the values from the environment, and no list of processes shows them.
    for variable in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST PIP_DEFAULT_TIMEOUT; do
        [ -z "${!variable:-}" ] || arguments+=(--build-arg "$variable")
    done
    # shellcheck disable=SC2086 # several words
    "$docker" build --file "images/$image.Dockerfile" --tag "$(name "$image")" "${arguments[@]}" ${BUILD_FLAGS:-} .
    note "$(variable "$image")" "$(name "$image")"
    echo "Built $(name "$image"): $("$docker" image inspect --format '{{.Size}}' "$(name "$image")" | awk '{printf "%.0f MB", $1 / 1e6}')"
done
