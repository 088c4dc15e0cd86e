"""What is left of a pipeline run on the cluster: found by label, and nothing else."""

import logging

from components.common.cluster.connection import PYTORCHJOBS, TRAINJOBS, connect
from components.common.cluster.labels import run_selector

log = logging.getLogger(__name__)


def delete_leftovers(run_id: str, namespace: str | None = None, patience_minutes: float = 5) -> list[str]:
    """Delete the training jobs of a pipeline run, finished or not, with their pods.

    Args:
        run_id: Of the pipeline run; jobs of others are not touched.
        namespace: Where to look; none: the step's own.
        patience_minutes: For how long a server that does not answer is asked again.

    Returns:
        Names of the deleted jobs.

    Raises:
        InputError: The id cannot be a label.
        ClusterError: The cluster cannot be asked, or refuses.
    """
    cluster = connect(namespace, patience_minutes)
    deleted = []
    for kind in (PYTORCHJOBS, TRAINJOBS):
        found, _ = cluster.find(kind, labelSelector=run_selector(run_id))
        for job in found:
            name, uid = job["metadata"]["name"], job["metadata"]["uid"]
            cluster.delete(kind, name, uid)
            log.info("Deleted %s %s, which run %s left.", kind.name, name, run_id)
            deleted.append(name)
    return deleted
