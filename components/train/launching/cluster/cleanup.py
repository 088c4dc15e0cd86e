"""What is left of a pipeline run on the cluster: found by label, and nothing else."""

import logging

from components.train.cluster_settings import ClusterSettings
from components.train.launching.cluster.connection import connect
from components.train.launching.cluster.naming import run_selector
from components.train.launching.cluster.operators import Operator
from components.train.launching.cluster.pytorchjob import PyTorchJobs
from components.train.launching.cluster.trainjob import TrainJobs

log = logging.getLogger(__name__)

OPERATORS: dict[str, Operator] = {"pytorchjob": PyTorchJobs(), "trainjob": TrainJobs()}


def delete_leftovers(run_id: str, settings: ClusterSettings) -> list[str]:
    """Delete the training jobs of a pipeline run, finished or not, with their pods.

    Args:
        run_id: Of the pipeline run; jobs of others are not touched.
        settings: Where to look.

    Returns:
        Names of the deleted jobs.

    Raises:
        InputError: The id cannot be a label.
        TrainingError: The cluster cannot be asked, or refuses.
    """
    cluster = connect(settings)
    deleted = []
    for operator in OPERATORS.values():
        found, _ = cluster.find(operator.kind, labelSelector=run_selector(run_id))
        for job in found:
            name, uid = job["metadata"]["name"], job["metadata"]["uid"]
            cluster.delete(operator.kind, name, uid)
            log.info("Deleted %s %s, which run %s left.", operator.kind.name, name, run_id)
            deleted.append(name)
    return deleted
