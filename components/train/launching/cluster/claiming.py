"""Making a job, or taking over the one that an earlier attempt of this step made."""

import logging
import time
from collections.abc import Callable
from typing import Any

from components.common.cluster.connection import Cluster
from components.common.errors import TrainingError
from components.train.launching.cluster.naming import REPORTED_ANNOTATION, Identity
from components.train.launching.cluster.operators import Operator

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 0.5


def claim(
    cluster: Cluster, operator: Operator, identity: Identity, manifest: dict[str, Any], look_up: Callable[[], None]
) -> dict[str, Any]:
    """The one job of this step: made if there is none, adopted if it runs, read if it has ended.

    A failed job whose failure was reported already is replaced: the step was asked to try again.

    Args:
        cluster: Where.
        operator: Whose job.
        identity: Its name and labels.
        manifest: The job, if it is to be made.
        look_up: Called between two attempts; what it raises ends this.

    Raises:
        TrainingError: Another's job has its name, or the cluster refuses ours.
    """
    waited = False
    while True:
        look_up()
        found = cluster.get(operator.kind, identity.name)
        if found is None:
            made = cluster.create(operator.kind, manifest)
            if made is None:
                continue  # somebody was quicker, or our own first attempt did arrive: look at it
            log.info("Made %s %s in namespace %s.", operator.kind.name, identity.name, cluster.namespace)
            return made
        if not identity.owns(found):
            raise TrainingError(_foreign(operator, identity, found, cluster.namespace))
        if found["metadata"].get("deletionTimestamp"):
            if not waited:
                log.info("An earlier %s %s is being deleted; waiting for that.", operator.kind.name, identity.name)
            waited = True
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        elif _reported(operator, found):
            log.info("The earlier %s %s failed, and this is another attempt.", operator.kind.name, identity.name)
            cluster.delete(operator.kind, identity.name, found["metadata"]["uid"])
        else:
            log.info("Found %s %s of an earlier attempt of this step; following it.", operator.kind.name, identity.name)
            return found


def mark_reported(cluster: Cluster, operator: Operator, identity: Identity) -> None:
    """Remember on a failed job that its failure was told."""
    cluster.annotate(operator.kind, identity.name, {REPORTED_ANNOTATION: "true"})


def _reported(operator: Operator, found: dict[str, Any]) -> bool:
    annotations = found["metadata"].get("annotations") or {}
    return operator.state(found).phase == "failed" and REPORTED_ANNOTATION in annotations


def _foreign(operator: Operator, identity: Identity, found: dict[str, Any], namespace: str) -> str:
    labels = found["metadata"].get("labels") or {}
    return (
        f"{operator.kind.name} {identity.name} in namespace {namespace} is not this step's: its labels are {labels}; "
        "delete or rename it, and run the step again."
    )
