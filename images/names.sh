# What an image is called, for the other scripts here: sourced, with REGISTRY and TAG from the environment.
# shellcheck shell=bash

# All of it is read once: a commit in the middle of a build must not divide it.
revision=$(git rev-parse HEAD 2> /dev/null || true)
# A tree that differs from its commit must not pass for it.
if [ -n "$revision" ] && [ -n "$(git status --porcelain -- components pipelines images pyproject.toml constraints.txt)" ]; then
    revision=$revision-dirty
fi
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# The version and the commit, unless TAG says otherwise; never `latest`, which says nothing.
commit=${revision%-dirty}
tag=${TAG:-$version${commit:+-${commit:0:12}${revision#"$commit"}}}

# name pipeline -> registry.example.org/team/pmc-llama-pipeline:0.1.0-5fa4afbe1f2a
name() { echo "${REGISTRY:+${REGISTRY%/}/}pmc-llama-$1:$tag"; }

# note VARIABLE VALUE: one line of build/images.env, which compiling and submitting read.
note() {
    mkdir -p build && touch build/images.env
    { grep -v "^$1=" build/images.env || true; echo "$1=$2"; } > build/images.env.new
    mv build/images.env.new build/images.env
}

variable() { if [ "$1" = pipeline ]; then echo PMC_IMAGE; else echo "PMC_$(echo "$1" | tr '[:lower:]' '[:upper:]')_IMAGE"; fi; }
