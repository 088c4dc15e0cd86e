"""What both operators are told of a pod: its container, its disks, its place and its rights."""

import os
import re
from decimal import ROUND_CEILING, Decimal
from pathlib import PurePosixPath
from typing import Any

from components.common.cluster.settings import ClusterSettings, quantity
from components.common.settings import get_settings
from components.common.tracking import STEP_RUN_VARIABLE
from components.train.launching.job import TrainJob

SCRATCH = PurePosixPath("/scratch")
TERMINATION_MESSAGE = PurePosixPath("/dev/termination-log")
WORKER = ["python", "-m", "components.train.launching.cluster.worker"]
_GRACE_SECONDS = 60  # for the processes to notice, on top of the time for the last checkpoint
# Of this step: where things are and which run this is; credentials come from secrets, by name.
_PASSED_ON = (
    "PMC_STORE_URI",
    "PMC_RUN_ID",
    "PMC_RUN_NAME",
    "PMC_GIT_REVISION",
    "PMC_LOG_LEVEL",
    "KFP_RUN_ID",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_RUN_ID",
    "MLFLOW_WORKSPACE",
    STEP_RUN_VARIABLE,
)
_CREDENTIALS_IN_ADDRESS = re.compile(r"://[^/@\s]+@")


def image(cluster: ClusterSettings) -> str:
    """Of the trainer."""
    return cluster.image or get_settings().trainer_image


def command(worker: list[str], job_uri: str) -> list[str]:
    """What a pod runs."""
    places = ["--scratch", str(SCRATCH), "--termination-message", str(TERMINATION_MESSAGE)]
    return [*worker, "--job", job_uri, *places]


def environment(job: TrainJob, cluster: ClusterSettings) -> list[dict[str, Any]]:
    """Variables of the container; no value of a secret is among them."""
    values = {name: os.environ[name] for name in _PASSED_ON if os.environ.get(name)}
    values = {name: value for name, value in values.items() if not _CREDENTIALS_IN_ADDRESS.search(value)}
    values |= {"PMC_IMAGE": image(cluster), "HOME": str(SCRATCH), "USER": "trainer"} | cluster.environment
    # The compilers' caches would go to a home that cannot be written.
    values |= {"TORCHINDUCTOR_CACHE_DIR": str(SCRATCH / "inductor"), "TRITON_CACHE_DIR": str(SCRATCH / "triton")}
    values["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(job.settings.shutdown_seconds)
    if job.settings.threads_per_process:
        values["OMP_NUM_THREADS"] = str(job.settings.threads_per_process)
    for keys in [*cluster.secrets.values(), *cluster.config_maps.values()]:
        for key in keys:
            values.pop(key, None)
    references = [_reference("secretKeyRef", name, key) for name, keys in cluster.secrets.items() for key in keys]
    references += [
        _reference("configMapKeyRef", name, key) for name, keys in cluster.config_maps.items() for key in keys
    ]
    return [{"name": name, "value": value} for name, value in sorted(values.items())] + references


def resources(job: TrainJob, cluster: ClusterSettings) -> dict[str, Any]:
    """Limits that are requests too: such pods are the last that a node in need ends."""
    # The disk holds the scratch folder, /tmp and the log.
    amounts = {"cpu": cluster.cpu, "memory": cluster.memory, "ephemeral-storage": _share(cluster.scratch, "1.2")}
    amounts |= cluster.extra_resources
    if cluster.gpu_resource and job.settings.device != "cpu":
        amounts[cluster.gpu_resource] = str(job.settings.processes_per_node)
    return {"limits": amounts, "requests": amounts}


def volumes(cluster: ClusterSettings) -> list[dict[str, Any]]:
    """Scratch disk, shared memory and shared disks."""
    own = [
        {"name": "scratch", "emptyDir": {"sizeLimit": cluster.scratch}},
        {"name": "tmp", "emptyDir": {"sizeLimit": _share(cluster.scratch, "0.1")}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": cluster.shared_memory}},
    ]
    claims = enumerate(cluster.volume_claims)
    return own + [{"name": f"claim-{n}", "persistentVolumeClaim": {"claimName": name}} for n, name in claims]


def mounts(cluster: ClusterSettings) -> list[dict[str, Any]]:
    """Where the volumes are."""
    own = {"scratch": str(SCRATCH), "tmp": "/tmp", "shared-memory": "/dev/shm"}  # noqa: S108 - the pod's own
    claims = {f"claim-{n}": path for n, path in enumerate(cluster.volume_claims.values())}
    return [{"name": name, "mountPath": path} for name, path in (own | claims).items()]


def container_rights(cluster: ClusterSettings) -> dict[str, Any]:
    """Security context of the container: the restricted Pod Security Standard."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": cluster.read_only_root,
        "runAsNonRoot": True,
    }


def pod_rights(cluster: ClusterSettings) -> dict[str, Any]:
    """Security context of the pod."""
    ids = {"runAsUser": cluster.user, "runAsGroup": cluster.user, "fsGroup": cluster.user}
    return {"runAsNonRoot": True, **ids, "seccompProfile": {"type": "RuntimeDefault"}}


def placement(job: TrainJob, cluster: ClusterSettings) -> dict[str, Any]:
    """The part of a pod's specification that both operators let us decide."""
    found: dict[str, Any] = {
        "nodeSelector": cluster.node_selector,
        "tolerations": [_toleration(each.model_dump(exclude_none=True)) for each in cluster.tolerations],
        "imagePullSecrets": [{"name": name} for name in cluster.image_pull_secrets],
        "serviceAccountName": cluster.service_account,
        "terminationGracePeriodSeconds": job.settings.shutdown_seconds + _GRACE_SECONDS,
        "securityContext": pod_rights(cluster),
        "volumes": volumes(cluster),
    }
    return {name: value for name, value in found.items() if value}


def queue_labels(cluster: ClusterSettings) -> dict[str, str]:
    """Labels of the job that Kueue reads."""
    found = {"kueue.x-k8s.io/queue-name": cluster.queue, "kueue.x-k8s.io/priority-class": cluster.queue_priority}
    return {name: value for name, value in found.items() if value}


def _reference(source: str, name: str, key: str) -> dict[str, Any]:
    return {"name": key, "valueFrom": {source: {"name": name, "key": key}}}


def _toleration(values: dict[str, Any]) -> dict[str, Any]:
    seconds = values.pop("toleration_seconds", None)
    return values if seconds is None else values | {"tolerationSeconds": seconds}


def _share(amount: str, factor: str) -> str:
    return str(int((quantity(amount) * Decimal(factor)).to_integral_value(ROUND_CEILING)))
