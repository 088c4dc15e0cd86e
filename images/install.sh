#!/bin/sh
# Installs what /build/requirements.txt lists into /opt/venv, within constraints.txt: from the wheels beside this file
# where there are any, else from pip's index. pip itself, its cache and the compilers stay out of /opt/venv.
set -eu

wheels=$(dirname "$0")
requirements=/build/requirements.txt
constraints=$wheels/constraints.txt
venv=/opt/venv

if ls "$wheels"/*.whl > /dev/null 2>&1; then
    export PIP_NO_INDEX=1 PIP_FIND_LINKS="$wheels"
    unset PIP_INDEX_URL PIP_EXTRA_INDEX_URL TORCH_INDEX_URL
fi
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1

python3 -m venv /build/tools
python3 -m venv --without-pip "$venv"
pip() { /build/tools/bin/python -m pip --python "$venv/bin/python" "$@"; }

torch=$(grep '^torch==' "$constraints")
if [ -n "${TORCH_INDEX_URL:-}" ] && grep -q '^torch' "$requirements"; then
    # From its own index comes torch alone, so that nothing else can come from there.
    (unset PIP_EXTRA_INDEX_URL && pip install --no-deps --index-url "$TORCH_INDEX_URL" "$torch")
fi
if ! pip install --constraint "$constraints" --requirement "$requirements"; then
    [ -z "${PIP_NO_INDEX:-}" ] || echo "The wheels in build/wheels do not fit constraints.txt and pyproject.toml: make wheels" >&2
    exit 1
fi
pip check

# Packages' own tests, and what only a compiler would read, which is a tenth of the image.
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
find "$site" -type d -name tests -prune -exec rm -rf {} +
rm -rf "$site/torch/test"
find "$site/torch/bin" -type f ! -name torch_shm_manager -delete 2> /dev/null || true
command -v cc > /dev/null || rm -rf "$site/torch/include"
