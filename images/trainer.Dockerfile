# What runs on GPUs: the workers of a training job, and evaluation on a GPU. `make images` builds it; docs/images.md
# explains it. Plain builders will do as well as BuildKit.

# Any Linux with glibc 2.28 or newer and Python 3.11 or 3.12. torch brings CUDA's libraries with its wheels, so a slim base
# is enough; the driver is the node's. A base with CUDA serves too, such as one that your cluster's network needs.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS base
USER root
# NCCL finds InfiniBand and RoCE through these libraries, and is many times slower without a word where they are missing.
ARG SYSTEM_PACKAGES="libibverbs1 ibverbs-providers librdmacm1"
COPY images/prepare.sh /tmp/images/
RUN sh /tmp/images/prepare.sh && rm -rf /tmp/images

# Only what the list says decides whether the dependencies are installed anew; pyproject.toml changes more often.
FROM base AS requirements
ARG EXTRAS="train evaluate"
COPY images/requirements.py pyproject.toml constraints.txt /build/
RUN python3 /build/requirements.py /build ${EXTRAS} > /build/requirements.txt

FROM base AS builder
# How pip finds packages; these values stay in this stage. Wheels from `make wheels` need none of them, and no network.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG PIP_DEFAULT_TIMEOUT
# Where torch's build is, such as https://download.pytorch.org/whl/cu126 for older drivers; empty: where everything
# else is. On PyPI it is the one for the newest CUDA.
ARG TORCH_INDEX_URL=""
COPY --from=requirements /build/requirements.txt /build/
COPY images/install.sh constraints.txt build/wheels/traine[r] /build/wheels/
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
# system may be read-only and the user any; a user without a name would break what asks for one. Which GPUs a container
# sees is the cluster's to say; which parts of the driver it needs is said here.
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp USER=pmc LANG=C.UTF-8 \
    XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/cache/matplotlib HF_HOME=/tmp/cache/huggingface \
    TORCHINDUCTOR_CACHE_DIR=/tmp/cache/inductor TRITON_CACHE_DIR=/tmp/cache/triton \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_DISABLE_TELEMETRY=1 MLFLOW_DISABLE_TELEMETRY=true
WORKDIR /opt/pmc
USER 1000:1000
CMD ["python", "-m", "components.train.trainer", "--help"]

# What the run's lineage names when nobody says the digest; last, as it changes with every commit.
ARG IMAGE=""
ARG REVISION=""
ARG VERSION=""
ARG SOURCE=""
ARG BASE_IMAGE
ENV PMC_IMAGE=${IMAGE} PMC_GIT_REVISION=${REVISION}
LABEL org.opencontainers.image.title="PMC-LLaMA trainer" \
      org.opencontainers.image.description="Workers of a training job, and evaluation on a GPU" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
