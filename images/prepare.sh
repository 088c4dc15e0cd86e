#!/bin/sh
# Makes a base image fit: Python 3.11 or 3.12 with venv, the packages in SYSTEM_PACKAGES, and a user. Installs only what
# is missing, with the distribution's apt-get, and leaves nothing of apt's behind.
set -eu

fits='import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'

missing=""
if ! command -v python3 > /dev/null; then
    missing="python3 python3-venv"
elif ! python3 -c 'import venv, ensurepip' 2> /dev/null; then
    missing="python3-venv"
fi
for package in ${SYSTEM_PACKAGES:-}; do
    dpkg-query --show "$package" > /dev/null 2>&1 || missing="$missing $package"
done

if [ -n "$missing" ]; then
    command -v apt-get > /dev/null || { echo "BASE_IMAGE lacks $missing and has no apt-get; take another base, or set SYSTEM_PACKAGES= to do without libraries"; exit 1; }
    apt-get update
    # shellcheck disable=SC2086 # they are several words
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $missing
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
fi

python3 -c "$fits" || { echo "BASE_IMAGE has $(python3 --version); Python 3.11 or 3.12 with venv is needed"; exit 1; }

# A name for the user, where the base has none for this number: some libraries ask for it.
if ! grep -q '^[^:]*:[^:]*:1000:' /etc/passwd; then
    echo "pmc:x:1000:1000:PMC-LLaMA:/tmp:/usr/sbin/nologin" >> /etc/passwd
    grep -q '^[^:]*:[^:]*:1000:' /etc/group || echo "pmc:x:1000:" >> /etc/group
fi
