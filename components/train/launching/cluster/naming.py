"""What a job is called, and how it is known as ours."""

import hashlib
from dataclasses import dataclass
from typing import Any

from components.common.cluster.labels import MANAGER, MANAGER_LABEL, RUN_LABEL, checked_run_id
from components.train.launching.job import TrainJob

STEP_LABEL = "pmc-llama/step"
REPORTED_ANNOTATION = "pmc-llama/reported"


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
