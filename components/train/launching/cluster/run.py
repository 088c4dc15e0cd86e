"""Runs a training job on a cluster: the step owns it, from its making to its end.

Nothing here imports torch: the launching step starts at once and needs no GPU image.
"""

import contextlib
import logging
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal

from components.common import storage
from components.common.cluster.connection import Cluster, connect
from components.common.cluster.settings import ClusterSettings
from components.common.errors import InputError, TrainingError
from components.common.settings import get_settings
from components.train.launching.cluster import pod_template
from components.train.launching.cluster.claiming import claim, mark_reported
from components.train.launching.cluster.following import GivenUp, JobFailed, JobFollower
from components.train.launching.cluster.naming import Identity, identify
from components.train.launching.cluster.operators import Operator
from components.train.launching.cluster.pytorchjob import PyTorchJobs
from components.train.launching.cluster.stopping import Stopped, sigterm_told, step_moves
from components.train.launching.cluster.trainjob import TrainJobs
from components.train.launching.cluster.watching import Change
from components.train.launching.job import TrainJob

log = logging.getLogger(__name__)

OPERATORS: dict[str, Operator] = {"pytorchjob": PyTorchJobs(), "trainjob": TrainJobs()}
_SCRATCH = Path("run")  # below the scratch disk, where the workers start


def run_on_cluster(
    job: TrainJob,
    settings: ClusterSettings,
    launcher: Literal["pytorchjob", "trainjob"],
    worker: list[str] = pod_template.WORKER,
) -> None:
    """Train on a cluster and return when the model is in the store.

    A step that is run again adopts the job that it made before: see :func:`claim`.

    Args:
        job: The run; finished parts of it are not repeated.
        settings: Where and how.
        launcher: Which operator runs it.
        worker: What a pod runs; the job's address is appended.

    Raises:
        InputError: The settings do not fit the job or the operator.
        TrainingError: The job failed, with the diagnosis, or the run was stopped.
        ClusterError: The cluster cannot be asked, or refuses.
        StorageError: The job's description cannot be stored.
    """
    operator = OPERATORS[launcher]
    operator.check(settings)
    _check(job, settings)
    identity = identify(get_settings().run_id, job)
    cluster = connect(settings.namespace, settings.api_minutes)
    job_uri = storage.join(job.output_uri, "job.json")
    storage.write(job_uri, job.model_copy(update={"scratch_folder": _SCRATCH}).model_dump_json(indent=1).encode())
    manifest = operator.manifest(identity, job, settings, pod_template.command(worker, job_uri))

    inbox: SimpleQueue[Change | Exception] = SimpleQueue()
    with sigterm_told(inbox.put):
        found = _claim(cluster, operator, identity, manifest, inbox)
        _follow(cluster, operator, identity, found, settings, inbox)
    if not storage.exists(storage.join(job.output_uri, "result.json")):
        raise TrainingError(
            f"{operator.kind.name} {identity.name} succeeded, but left no result.json at {job.output_uri}; do its pods "
            "and this step use the same store?"
        )


def _claim(
    cluster: Cluster,
    operator: Operator,
    identity: Identity,
    manifest: dict[str, Any],
    inbox: "SimpleQueue[Change | Exception]",
) -> dict[str, Any]:
    def look_up() -> None:
        with contextlib.suppress(Empty):
            if isinstance(came := inbox.get_nowait(), Exception):
                raise came

    try:
        return claim(cluster, operator, identity, manifest, look_up)
    except Stopped as stop:
        raise TrainingError("The run was stopped before its training job was made.") from stop


def _follow(
    cluster: Cluster,
    operator: Operator,
    identity: Identity,
    found: dict[str, Any],
    settings: ClusterSettings,
    inbox: "SimpleQueue[Change | Exception]",
) -> None:
    uid = found["metadata"]["uid"]
    try:
        JobFollower(cluster, operator, found, settings, inbox).follow()
    except JobFailed:
        mark_reported(cluster, operator, identity)
        raise
    except GivenUp:
        cluster.delete(operator.kind, identity.name, uid)
        raise
    except (Stopped, KeyboardInterrupt) as stop:
        if isinstance(stop, Stopped) and step_moves(cluster):
            raise TrainingError(
                f"This step is moved by the cluster; {operator.kind.name} {identity.name} goes on, and the step adopts "
                "it when it is run again."
            ) from stop
        cluster.delete(operator.kind, identity.name, uid)
        raise TrainingError(
            f"The run was stopped, and {operator.kind.name} {identity.name} is deleted; it goes on from its last "
            "checkpoint when it is run again."
        ) from stop


def _check(job: TrainJob, settings: ClusterSettings) -> None:
    batch, processes = job.settings.global_batch_size, job.settings.processes_per_node * settings.nodes
    size = 1 if job.settings.micro_batch_size == "auto" else job.settings.micro_batch_size
    if batch % (size * processes):
        raise InputError(
            f"global_batch_size {batch} is not a multiple of micro_batch_size {size} x {processes} processes on "
            f"{settings.nodes} nodes = {size * processes}: change one of them."
        )
    if not job.output_uri.startswith(storage.FILE_SCHEME):
        return
    path = storage.local_path(job.output_uri)
    if not any(path.is_relative_to(mount) for mount in settings.volume_claims.values()):
        raise InputError(
            f"The store {job.output_uri} is this machine's disk, which no pod sees; set PMC_STORE_URI to s3://..., or "
            "name a shared disk in cluster.volume_claims."
        )
