"""The exit task's other duty: no training job outlives its pipeline run."""

import logging
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.common.cluster.labels import run_selector
from components.common.cluster.leftovers import delete_leftovers
from components.common.cluster.settings import ClusterSettings
from components.common.errors import PipelineError

log = logging.getLogger(__name__)

_PATIENCE_MINUTES = 5


@dataclass(frozen=True)
class CleanUp:
    """What became of the run's training jobs.

    Attributes:
        deleted: Names of those that were there still, finished or not.
        problem: Why they could not be looked for or deleted, and what to do; empty if all went well.
    """

    deleted: tuple[str, ...] = ()
    problem: str = ""


class _Job(BaseModel):
    """What a training section says of the place where its job runs."""

    model_config = ConfigDict(extra="ignore")

    launcher: str = "local"
    cluster: ClusterSettings = Field(default_factory=lambda: ClusterSettings.model_validate({}))


def clean_up(run_id: str, train: dict[str, Any]) -> CleanUp:
    """Delete the training jobs that a pipeline run has left on its cluster, and no others.

    Args:
        run_id: Of the pipeline run.
        train: The recipe's training section; nothing is done where its launcher is ``local``.

    Returns:
        The outcome. A failure is part of it: the summary must be written all the same.
    """
    try:
        job = _Job.model_validate(train)
    except ValidationError as error:
        # The training step has refused this section too, and made no job.
        log.warning("The train section cannot be read, so no job is looked for: %s", error)
        return CleanUp()
    if job.launcher == "local":
        return CleanUp()
    try:
        return CleanUp(tuple(delete_leftovers(run_id, job.cluster.namespace, _PATIENCE_MINUTES)))
    except PipelineError as error:
        return CleanUp(problem=f"{error} {_by_hand(run_id, job.cluster.namespace)}")


def _by_hand(run_id: str, namespace: str | None) -> str:
    where = f" -n {namespace}" if namespace else ""
    try:
        return f"Delete what may be left: kubectl delete pytorchjobs,trainjobs{where} -l '{run_selector(run_id)}'"
    except PipelineError:
        return ""  # a run without an id made no job
