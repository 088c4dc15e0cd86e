# The tracking server and model registry that k8s/ deploys: MLflow with PostgreSQL's driver and S3's client, which the
# official image lacks. `images/build.sh mlflow` builds it like the other images; plain builders will do as well as BuildKit.

# Any Linux with glibc 2.28 or newer and Python 3.11 or 3.12; images/debootstrap.sh makes one where none can be pulled.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS base
USER root
ARG SYSTEM_PACKAGES=""
COPY images/prepare.sh /tmp/images/
RUN sh /tmp/images/prepare.sh && rm -rf /tmp/images

FROM base AS builder
# How pip finds packages; these values stay in this stage. Wheels from `make wheels` need none of them, and no network.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG PIP_DEFAULT_TIMEOUT
# Nothing of this project runs here. constraints.txt decides the versions: the server's is that of the steps' client.
COPY images/mlflow.txt /build/requirements.txt
COPY images/install.sh constraints.txt build/wheels/mlflo[w]/ /build/wheels/
RUN sh /build/wheels/install.sh

FROM base
COPY --from=builder /opt/venv /opt/venv
# The root file system may be read-only: all that the server writes lies below /tmp.
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp USER=mlflow LANG=C.UTF-8 XDG_CACHE_HOME=/tmp/cache \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
WORKDIR /tmp
USER 1000:1000
EXPOSE 5000
CMD ["mlflow", "server"]

ARG IMAGE=""
ARG REVISION=""
ARG VERSION=""
ARG SOURCE=""
ARG BASE_IMAGE
LABEL org.opencontainers.image.title="MLflow for PMC-LLaMA" \
      org.opencontainers.image.description="MLflow server with PostgreSQL and S3" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
