"""Runs a training job where the recipe says: on this machine, or on a cluster."""

from components.train.launching.job import TrainJob
from components.train.launching.launcher import run_local


def launch(job: TrainJob) -> None:
    """Train, and return when the model is in the store.

    Raises:
        InputError: The job cannot run there.
        TrainingError: It failed; with the cause.
        StorageError: The store cannot be written.
    """
    if job.settings.launcher == "local":
        run_local(job)
        return
    from components.train.launching.cluster.run import run_on_cluster  # the client of Kubernetes takes half a second

    run_on_cluster(job, job.settings.cluster, job.settings.launcher)
