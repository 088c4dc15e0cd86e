#!/usr/bin/env bash
# Makes a base image of Debian 12 with its Python 3.11, where no image can be pulled: images/debootstrap.sh [NAME]
# Needs root, debootstrap, docker, and a mirror of Debian's packages:
#   MIRROR=http://deb.debian.org/debian SECURITY_MIRROR=http://deb.debian.org/debian-security images/debootstrap.sh
set -euo pipefail

name=${1:-pmc-llama-base:bookworm}
mirror=${MIRROR:-http://deb.debian.org/debian}
security=${SECURITY_MIRROR:-http://deb.debian.org/debian-security}
# Python; venv for the build; certificates for S3 and MLflow over TLS; libraries through which NCCL finds InfiniBand.
packages=python3,python3-venv,ca-certificates,${PACKAGES:-libibverbs1,ibverbs-providers,librdmacm1}
docker=${DOCKER:-docker}

[ "$(id -u)" = 0 ] || { echo "debootstrap needs root: sudo $0 $*" >&2; exit 1; }
command -v debootstrap > /dev/null || { echo "debootstrap is missing: apt-get install debootstrap" >&2; exit 1; }

folder=$(mktemp -d "${TMPDIR:-/tmp}/base-XXXXXX")
trap 'rm -rf --one-file-system "$folder"' EXIT
root=$folder/root

debootstrap --variant=minbase --include="$packages" bookworm "$root" "$mirror"

# Security updates, of which debootstrap knows nothing.
printf 'deb %s bookworm main\ndeb %s bookworm-updates main\ndeb %s bookworm-security main\n' \
    "$mirror" "$mirror" "$security" > "$root/etc/apt/sources.list"
DEBIAN_FRONTEND=noninteractive chroot "$root" sh -c 'apt-get update -q && apt-get dist-upgrade -qy --no-install-recommends'

# What a container has no use for, and what would tell of this machine: its mirror, its name, its name servers.
printf 'deb http://deb.debian.org/debian bookworm main\ndeb http://deb.debian.org/debian bookworm-updates main\n%s\n' \
    'deb http://deb.debian.org/debian-security bookworm-security main' > "$root/etc/apt/sources.list"
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/cache/debconf/*-old "$root"/var/log/* \
    "$root"/usr/share/{man,info,lintian} "$root"/usr/share/locale/* "$root"/var/cache/ldconfig/* \
    "$root"/etc/{hostname,resolv.conf,machine-id} "$root"/tmp/*
# Licences stay.
find "$root/usr/share/doc" ! -type d ! -name copyright -delete
find "$root" -xdev -name __pycache__ -type d -prune -exec rm -rf {} +

tar --directory "$root" --one-file-system --numeric-owner --sort=name --create . |
    "$docker" import --change 'CMD ["python3"]' --message "Debian bookworm by debootstrap" - "$name" > /dev/null
echo "Made $name: $("$docker" image inspect --format '{{.Size}}' "$name" | awk '{printf "%.0f MB", $1 / 1e6}')"
