# Every step that needs no GPU: download, preprocess, evaluate on the CPU, register, and those that start and watch the
# training job. `make images` builds it; docs/images.md explains it. Plain builders will do as well as BuildKit.

# Any Linux with glibc 2.28 or newer and Python 3.11 or 3.12; images/debootstrap.sh makes one where none can be pulled.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS base
USER root
# Packages of the distribution that the image needs beyond Python, and that the base may already have.
ARG SYSTEM_PACKAGES=""
COPY images/prepare.sh /tmp/images/
RUN sh /tmp/images/prepare.sh && rm -rf /tmp/images

# Only what the list says decides whether the dependencies are installed anew; pyproject.toml changes more often.
FROM base AS requirements
ARG EXTRAS="download preprocess train evaluate register retractions"
COPY images/requirements.py pyproject.toml constraints.txt /build/
RUN python3 /build/requirements.py /build ${EXTRAS} > /build/requirements.txt

FROM base AS builder
# How pip finds packages; these values stay in this stage. Wheels from `make wheels` need none of them, and no network.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG PIP_DEFAULT_TIMEOUT
# Where torch's CPU build is; empty: where everything else is.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
COPY --from=requirements /build/requirements.txt /build/
COPY images/install.sh constraints.txt build/wheels/pipelin[e] /build/wheels/
RUN sh /build/wheels/install.sh
COPY components /opt/pmc/components
COPY pipelines /opt/pmc/pipelines
COPY LICENSE /opt/pmc/
RUN echo /opt/pmc > "$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/pmc.pth" \
    && /opt/venv/bin/python -m compileall -q /opt/pmc

FROM base
COPY --from=builder /opt/venv /opt/venv
COPY --from=builder /opt/pmc /opt/pmc
# KFP and the training operators bring their own commands. Everything is written below /tmp, so that the root file
# system may be read-only and the user any; a user without a name would break what asks for one.
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp USER=pmc LANG=C.UTF-8 \
    XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/cache/matplotlib HF_HOME=/tmp/cache/huggingface \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_DISABLE_TELEMETRY=1 MLFLOW_DISABLE_TELEMETRY=true
WORKDIR /opt/pmc
USER 1000:1000
CMD ["python", "-m", "pipelines", "--help"]

# What the run's lineage names when nobody says the digest; last, as it changes with every commit.
ARG IMAGE=""
ARG REVISION=""
ARG VERSION=""
ARG SOURCE=""
ARG BASE_IMAGE
ENV PMC_IMAGE=${IMAGE} PMC_GIT_REVISION=${REVISION}
LABEL org.opencontainers.image.title="PMC-LLaMA pipeline" \
      org.opencontainers.image.description="Steps that need no GPU: download, preprocess, evaluate, register, launcher" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
