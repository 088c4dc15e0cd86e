"""What a job is called, and how it is known as ours."""

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from components.common.errors import InputError
from components.train.launching.job import TrainJob

MANAGER_LABEL = "app.kubernetes.io/managed-by"
MANAGER = "pmc-llama-pipeline"
RUN_LABEL = "pmc-llama/run"
STEP_LABEL = "pmc-llama/step"
REPORTED_ANNOTATION = "pmc-llama/reported"
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Identity:
    """A job's name and labels, a function of the pipeline run and of what the step makes.

    Attributes:
        run_id: Of the pipeline run.
        step: The objective and the fingerprint of what it makes, which a retried step makes again.
    """

    run_id: str
    step: str

    @property
    def name(self) -> str:
        """Name of the job: short enough for the operators to append to it."""
        digest = hashlib.sha256(f"{self.run_id}/{self.step}".encode()).hexdigest()
        return f"pmc-{self.step.partition('-')[0]}-{digest[:12]}"

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the job and of its pods."""
        return {MANAGER_LABEL: MANAGER, RUN_LABEL: self.run_id, STEP_LABEL: self.step}

    def owns(self, found: dict[str, Any]) -> bool:
        """Whether an object of the cluster is this job."""
        labels = found["metadata"].get("labels") or {}
        return all(labels.get(name) == value for name, value in self.labels.items())


def identify(run_id: str, job: TrainJob) -> Identity:
    """The identity of a step's job.

    Raises:
        InputError: The run has no id, or one that cannot be a label.
    """
    return Identity(checked_run_id(run_id), f"{job.settings.objective}-{job.fingerprint}")


def checked_run_id(run_id: str) -> str:
    """The id, if a label can hold it.

    Raises:
        InputError: It cannot.
    """
    if not _LABEL_VALUE.fullmatch(run_id):
        raise InputError(
            f"A job on a cluster is known by its pipeline run, but the run's id is {run_id!r}; set PMC_RUN_ID to up to "
            "63 letters, digits and -_. (Kubeflow sets KFP_RUN_ID)."
        )
    return run_id


def run_selector(run_id: str) -> str:
    """Label selector of everything that a pipeline run made."""
    return f"{MANAGER_LABEL}={MANAGER},{RUN_LABEL}={checked_run_id(run_id)}"
